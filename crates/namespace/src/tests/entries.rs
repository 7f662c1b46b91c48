//! Lookup, Resolve, ReadDir, ReadLink, Open, Extents.

use super::harness::*;
use dfs_proto::meta::{DirPage, ExtentPage, Opened, ReadOp};
use dfs_proto::{DirCookie, ErrorCode, Ino, MetaReply, Name, Version};

const ROOT: Ino = Ino::ROOT;

fn page(world: &World<'_>, ino: Ino, after: u64, limit: u32) -> DirPage {
    match world.read(&ReadOp::ReadDir { ino, after: DirCookie(after), limit }) {
        Ok(MetaReply::Dir(page)) => page,
        other => panic!("a listing gave {other:?}"),
    }
}

fn names(page: &DirPage) -> Vec<String> {
    page.entries.iter().map(|entry| entry.name.to_string()).collect()
}

fn resolve(path: &str) -> ReadOp {
    ReadOp::Resolve { path: Name::split_path(path.as_bytes()).unwrap() }
}

fn opened(world: &World<'_>, ino: Ino, known: Option<Version>) -> Opened {
    match world.read(&ReadOp::Open { ino, known }) {
        Ok(MetaReply::Opened(opened)) => opened,
        other => panic!("an open gave {other:?}"),
    }
}

fn extents(world: &World<'_>, ino: Ino, from: u64, limit: u32) -> ExtentPage {
    match world.read(&ReadOp::Extents { ino, from, limit }) {
        Ok(MetaReply::Extents(page)) => page,
        other => panic!("a page of extents gave {other:?}"),
    }
}

on_each_store! {
    fn initialising_twice_keeps_the_root(world) {
        world.mkdir(ROOT, "a");
        let before = world.attr(ROOT);
        let now = world.now();
        crate::initialise(world.txn, now).unwrap();
        assert_eq!(world.attr(ROOT), before);
        assert_eq!((before.mode, before.uid, before.gid, before.nlink), (0o755, 0, 0, 3));
        assert_eq!(before.parent, ROOT);
    }

    fn lookup_tells_a_missing_name_from_a_missing_or_wrong_directory(world) {
        let file = world.touch(ROOT, "file");
        let lookup = |parent, text: &str| ReadOp::Lookup { parent, name: name(text) };
        assert_eq!(world.lookup(ROOT, "file"), Some(file));
        assert_eq!(world.unreadable(&lookup(ROOT, "other")), ErrorCode::NotFound);
        assert_eq!(world.unreadable(&lookup(Ino(999), "file")), ErrorCode::NotFound);
        assert_eq!(world.unreadable(&lookup(Ino(u64::MAX), "file")), ErrorCode::NotFound);
        assert_eq!(world.unreadable(&lookup(file, "file")), ErrorCode::NotDirectory);
    }

    fn resolve_walks_from_the_root_and_follows_no_symlink(world) {
        let a = world.mkdir(ROOT, "a");
        let b = world.mkdir(a, "b");
        let file = world.touch(b, "file");
        let link = world.symlink(ROOT, "link", "a");
        for (path, ino) in [("/", ROOT), ("/a", a), ("/a/b/file", file), ("/link", link)] {
            assert_eq!(world.read(&resolve(path)), Ok(MetaReply::Attr(world.attr(ino))), "{path}");
        }
        for (path, code) in [
            ("/a/c", ErrorCode::NotFound),
            ("/a/c/d", ErrorCode::NotFound),
            ("/a/b/file/x", ErrorCode::NotDirectory),
            ("/link/b", ErrorCode::NotDirectory),
        ] {
            assert_eq!(world.unreadable(&resolve(path)), code, "{path}");
        }
        let long = ReadOp::Resolve { path: vec![name("x"); 3000] };
        assert_eq!(world.unreadable(&long), ErrorCode::NameTooLong);
    }

    fn readdir_pages_meet_every_entry_once_in_the_order_of_making(world) {
        for text in ["c", "a", "b", "e", "d"] {
            world.touch(ROOT, text);
        }
        let first = page(world, ROOT, 0, 2);
        assert_eq!((names(&first), first.end), (vec!["c".into(), "a".into()], false));
        let second = page(world, ROOT, first.entries[1].cookie.0, 2);
        assert_eq!((names(&second), second.end), (vec!["b".into(), "e".into()], false));
        let third = page(world, ROOT, second.entries[1].cookie.0, 2);
        assert_eq!((names(&third), third.end), (vec!["d".into()], true));
        let exact = page(world, ROOT, 0, 5);
        assert!(exact.end);
        assert_eq!(exact.entries[0].attr, world.attr(world.lookup(ROOT, "c").unwrap()));
        let none = page(world, ROOT, exact.entries[4].cookie.0, 10);
        assert!(none.end && none.entries.is_empty());
        assert!(!page(world, ROOT, 0, 0).end);
        assert!(page(world, ROOT, u64::MAX, 10).end);
    }

    fn readdir_goes_on_after_an_entry_that_was_removed_meanwhile(world) {
        for text in ["a", "b", "c"] {
            world.touch(ROOT, text);
        }
        let first = page(world, ROOT, 0, 2);
        world.unlink(ROOT, "b");
        world.touch(ROOT, "b");
        let rest = page(world, ROOT, first.entries[1].cookie.0, 10);
        assert_eq!(names(&rest), ["c", "b"]);
    }

    fn readdir_does_not_repeat_a_name_that_was_replaced_meanwhile(world) {
        for text in ["a", "b", "c"] {
            world.touch(ROOT, text);
        }
        let first = page(world, ROOT, 0, 1);
        world.rename((ROOT, "c"), (ROOT, "a"), dfs_proto::meta::RenameMode::Replace);
        assert_eq!(names(&page(world, ROOT, first.entries[0].cookie.0, 10)), ["b"]);
    }

    fn readdir_is_for_directories(world) {
        let ino = world.touch(ROOT, "file");
        let list = |ino| ReadOp::ReadDir { ino, after: DirCookie(0), limit: 10 };
        assert_eq!(world.unreadable(&list(ino)), ErrorCode::NotDirectory);
        assert_eq!(world.unreadable(&list(Ino(999))), ErrorCode::NotFound);
    }

    fn readlink_gives_the_target_back_and_nothing_else_has_one(world) {
        let link = world.symlink(ROOT, "link", "../where/ever");
        let file = world.touch(ROOT, "file");
        let target = world.read(&ReadOp::ReadLink { ino: link });
        assert_eq!(target, Ok(MetaReply::Target("../where/ever".into())));
        assert_eq!(world.unreadable(&ReadOp::ReadLink { ino: file }), ErrorCode::InvalidArgument);
        assert_eq!(world.unreadable(&ReadOp::ReadLink { ino: Ino(999) }), ErrorCode::NotFound);
    }

    fn open_sends_extents_only_for_another_version_than_the_known_one(world) {
        let attr = world.put(ROOT, "file", vec![data(0, 10, 1), data(10, 10, 2)]).attr;
        let first = opened(world, attr.ino, None);
        assert_eq!(first.attr, attr);
        let page = first.extents.unwrap();
        assert_eq!((page.version, page.end, page.extents.len()), (attr.version, true, 2));
        assert!(page.volumes.is_empty());
        assert_eq!(opened(world, attr.ino, Some(attr.version)).extents, None);
        let newer = world.commit(edit(attr.ino, vec![data(5, 1, 3)])).attr;
        let again = opened(world, attr.ino, Some(attr.version)).extents.unwrap();
        assert_eq!((again.version, again.extents.len()), (newer.version, 4));
    }

    fn open_is_for_regular_files(world) {
        let link = world.symlink(ROOT, "link", "x");
        let open = |ino| ReadOp::Open { ino, known: None };
        assert_eq!(world.unreadable(&open(ROOT)), ErrorCode::IsDirectory);
        assert_eq!(world.unreadable(&open(link)), ErrorCode::InvalidArgument);
        assert_eq!(world.unreadable(&open(Ino(999))), ErrorCode::NotFound);
    }

    fn extents_come_in_pages(world) {
        let list = vec![data(0, 10, 1), data(20, 10, 2), data(30, 10, 3)];
        let ino = world.put(ROOT, "file", list.clone()).attr.ino;
        let first = extents(world, ino, 0, 2);
        assert_eq!((first.extents.as_slice(), first.end), (&list[..2], false));
        let rest = extents(world, ino, first.extents[1].end(), 2);
        assert_eq!((rest.extents.as_slice(), rest.end), (&list[2..], true));
        assert_eq!(extents(world, ino, 9, 1).extents, list[..1], "an extent that holds the offset counts");
        assert_eq!(extents(world, ino, 10, 1).extents, list[1..2]);
        assert_eq!(extents(world, ino, u64::MAX, 1).extents, []);
        let directory = ReadOp::Extents { ino: ROOT, from: 0, limit: 1 };
        assert_eq!(world.unreadable(&directory), ErrorCode::IsDirectory);
    }
}
