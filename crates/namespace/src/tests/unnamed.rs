//! MakeUnnamed, and Link of what has no name.

use super::harness::*;
use dfs_proto::meta::{MakeUnnamed, WriteOp};
use dfs_proto::{Attr, ErrorCode, EventKind, FileKind, Ino, MetaReply};

const ROOT: Ino = Ino::ROOT;

fn unnamed(parent: Ino) -> MakeUnnamed {
    MakeUnnamed { parent, ino: Ino(0), mode: 0o4664, umask: 0o022, uid: 7, gid: 8 }
}

/// Makes a file as the master does: it is open as soon as it is there.
fn make_open(world: &mut World<'_>, make: MakeUnnamed) -> Attr {
    match world.write(&WriteOp::MakeUnnamed(make)) {
        Ok(MetaReply::Attr(attr)) => {
            world.open.insert(attr.ino);
            attr
        }
        other => panic!("{other:?}"),
    }
}

fn link_refused(world: &mut World<'_>, ino: Ino, entry: &str) -> ErrorCode {
    world.refused(&WriteOp::Link { ino, parent: ROOT, name: name(entry) })
}

on_each_store! {
    fn a_file_without_a_name_is_an_empty_orphan_that_nobody_is_told_of(world) {
        let before = world.attr(ROOT);
        let attr = make_open(world, unnamed(ROOT));
        assert_eq!(world.attr(attr.ino), attr);
        assert_eq!((attr.kind, attr.nlink, attr.size, attr.mode), (FileKind::File, 0, 0, 0o4644));
        assert_eq!((attr.uid, attr.gid, attr.btime), (7, 8, world.now()));
        assert_eq!(world.attr(ROOT), before);
        assert!(world.changes.is_empty());
        assert_eq!(world.txn.orphans(Ino(0), 9).unwrap(), [attr.ino]);
    }

    fn a_file_without_a_name_takes_content_and_goes_with_the_last_close(world) {
        let ino = make_open(world, unnamed(ROOT)).ino;
        world.commit(edit(ino, vec![data(0, 10, 1)]));
        assert_eq!(world.attr(ino).size, 10);
        assert!(world.reap(ino, 100));
        assert!(!world.is_gone(ino), "it is open");
        world.open.clear();
        assert!(world.reap(ino, 100));
        assert!(world.is_gone(ino));
        assert_eq!(world.garbage(), [1]);
    }

    fn a_link_gives_the_first_name_and_the_file_stays(world) {
        let ino = make_open(world, unnamed(ROOT)).ino;
        world.commit(edit(ino, vec![data(0, 10, 1)]));
        assert_eq!(world.link(ino, ROOT, "named").nlink, 1);
        assert_eq!(world.changes, [entry(ROOT, "named"), EventKind::Attr(ino)]);
        assert_eq!(world.txn.orphans(Ino(0), 9).unwrap(), []);
        world.open.clear();
        assert!(world.reap(ino, 100));
        assert_eq!(world.lookup(ROOT, "named"), Some(ino));
        assert_eq!(world.link(ino, ROOT, "again").nlink, 2);
    }

    fn a_link_takes_no_name_that_is_taken(world) {
        world.touch(ROOT, "taken");
        let ino = make_open(world, unnamed(ROOT)).ino;
        assert_eq!(link_refused(world, ino, "taken"), ErrorCode::Exists);
        assert_eq!(world.txn.orphans(Ino(0), 9).unwrap(), [ino]);
    }

    fn an_open_file_that_lost_its_name_can_get_another(world) {
        let ino = world.put(ROOT, "file", vec![data(0, 10, 1)]).attr.ino;
        world.open.insert(ino);
        world.unlink(ROOT, "file");
        assert_eq!(world.link(ino, ROOT, "back").nlink, 1);
        world.open.clear();
        assert!(world.reap(ino, 100));
        assert_eq!(world.attr(ino).size, 10);
    }

    fn what_is_being_taken_apart_gets_no_name(world) {
        let ino = make_open(world, unnamed(ROOT)).ino;
        world.commit(edit(ino, vec![data(0, 10, 1), data(10, 10, 2), data(20, 10, 3)]));
        world.open.clear();
        assert!(!world.reap(ino, 1));
        assert_eq!(link_refused(world, ino, "late"), ErrorCode::NotFound);
    }

    fn it_is_made_in_a_directory_and_under_a_free_number(world) {
        let file = world.touch(ROOT, "file");
        assert_eq!(world.refused(&WriteOp::MakeUnnamed(unnamed(file))), ErrorCode::NotDirectory);
        assert_eq!(world.refused(&WriteOp::MakeUnnamed(unnamed(Ino(999)))), ErrorCode::NotFound);
        let taken = MakeUnnamed { ino: file, ..unnamed(ROOT) };
        assert_eq!(world.refused(&WriteOp::MakeUnnamed(taken)), ErrorCode::Conflict);
        let ino = Ino(5000);
        assert_eq!(make_open(world, MakeUnnamed { ino, ..unnamed(ROOT) }).ino, ino);
    }
}
