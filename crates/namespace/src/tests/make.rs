//! Make.

use super::harness::*;
use dfs_proto::meta::{Make, WriteOp};
use dfs_proto::{ErrorCode, FileKind, Ino, MetaReply};

const ROOT: Ino = Ino::ROOT;

fn with(op: WriteOp, change: impl FnOnce(&mut Make)) -> WriteOp {
    match op {
        WriteOp::Make(mut make) => {
            change(&mut make);
            WriteOp::Make(make)
        }
        other => other,
    }
}

on_each_store! {
    fn made_inodes_look_like_what_they_are(world) {
        use FileKind::*;
        for (kind, nlink, size, mode) in [
            (File, 1, 0, 0o640),
            (Directory, 2, 4096, 0o640),
            (Fifo, 1, 0, 0o640),
            (Socket, 1, 0, 0o640),
            (CharDevice, 1, 0, 0o640),
            (BlockDevice, 1, 0, 0o640),
        ] {
            let text = format!("{kind:?}");
            let op = with(make(kind, ROOT, &text), |make| (make.mode, make.rdev) = (0o640, 77));
            let Ok(MetaReply::Attr(attr)) = world.write(&op) else { panic!("{kind:?}") };
            assert_eq!(world.changes, [entry(ROOT, &text)]);
            assert_eq!(world.attr(attr.ino), attr);
            assert_eq!((attr.kind, attr.nlink, attr.size, attr.mode), (kind, nlink, size, mode));
            assert_eq!((attr.uid, attr.gid, attr.version.0), (1000, 1000, 1));
            let rdev = if matches!(kind, CharDevice | BlockDevice) { 77 } else { 0 };
            assert_eq!(attr.rdev, rdev, "{kind:?}");
            let now = world.now();
            assert_eq!([attr.atime, attr.mtime, attr.ctime, attr.btime], [now; 4]);
            assert_eq!(attr.parent, if kind == Directory { ROOT } else { Ino(0) });
        }
    }

    fn a_symlink_has_the_length_of_its_target_and_every_permission(world) {
        let ino = world.symlink(ROOT, "link", "somewhere");
        let attr = world.attr(ino);
        assert_eq!((attr.size, attr.mode, attr.nlink), (9, 0o777, 1));
        let longest = "x".repeat(4095);
        world.symlink(ROOT, "long", &longest);
        for (target, code) in [
            ("x".repeat(4096), ErrorCode::NameTooLong),
            (String::new(), ErrorCode::InvalidArgument),
            ("a\0b".to_owned(), ErrorCode::InvalidArgument),
        ] {
            assert_eq!(world.refused(&make_symlink(ROOT, "bad", &target)), code);
        }
        let file = with(make(FileKind::File, ROOT, "bad"), |make| make.target = "x".into());
        assert_eq!(world.refused(&file), ErrorCode::InvalidArgument);
    }

    fn making_changes_the_directory_that_holds_it(world) {
        let before = world.attr(ROOT);
        world.touch(ROOT, "file");
        let after = world.attr(ROOT);
        assert_eq!((after.mtime, after.ctime), (world.now(), world.now()));
        assert_eq!(after.version, before.version.next());
        assert_eq!(after.nlink, 2);
        world.mkdir(ROOT, "directory");
        assert_eq!(world.attr(ROOT).nlink, 3);
    }

    fn a_taken_name_is_refused_whatever_has_it(world) {
        world.touch(ROOT, "file");
        world.mkdir(ROOT, "directory");
        for text in ["file", "directory"] {
            for kind in [FileKind::File, FileKind::Directory] {
                assert_eq!(world.refused(&make(kind, ROOT, text)), ErrorCode::Exists);
            }
        }
    }

    fn nothing_is_made_where_no_directory_is(world) {
        let file = world.touch(ROOT, "file");
        assert_eq!(world.refused(&make(FileKind::File, file, "x")), ErrorCode::NotDirectory);
        assert_eq!(world.refused(&make(FileKind::File, Ino(999), "x")), ErrorCode::NotFound);
        let removed = world.mkdir(ROOT, "directory");
        world.rmdir(ROOT, "directory");
        assert_eq!(world.refused(&make(FileKind::File, removed, "x")), ErrorCode::NotFound);
    }

    fn a_given_number_is_used_once(world) {
        let numbered = |text: &str, ino| with(make(FileKind::File, ROOT, text), |make| make.ino = Ino(ino));
        world.write(&numbered("a", 5000)).unwrap();
        assert_eq!(world.lookup(ROOT, "a"), Some(Ino(5000)));
        assert_eq!(world.refused(&numbered("b", 5000)), ErrorCode::Conflict);
        assert_eq!(world.refused(&numbered("b", 1)), ErrorCode::Conflict);
        assert_eq!(world.refused(&numbered("b", u64::MAX)), ErrorCode::InvalidArgument);
    }

    fn a_set_group_id_directory_passes_on_its_group(world) {
        let shared = with(make(FileKind::Directory, ROOT, "shared"), |m| (m.mode, m.gid) = (0o2775, 50));
        world.write(&shared).unwrap();
        let shared = world.lookup(ROOT, "shared").unwrap();
        let directory = world.mkdir(shared, "directory");
        let file = world.touch(shared, "file");
        let committed = world.put(shared, "committed", vec![]).attr.ino;
        assert_eq!((world.attr(directory).gid, world.attr(directory).mode), (50, 0o2755));
        assert_eq!((world.attr(file).gid, world.attr(file).mode), (50, 0o755));
        assert_eq!((world.attr(committed).gid, world.attr(committed).mode), (50, 0o644));
    }

    fn bits_above_the_mode_are_ignored(world) {
        let op = with(make(FileKind::File, ROOT, "file"), |make| make.mode = 0o104755);
        world.write(&op).unwrap();
        assert_eq!(world.attr(world.lookup(ROOT, "file").unwrap()).mode, 0o4755);
    }
}
