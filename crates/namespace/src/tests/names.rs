//! Link, Unlink, Rmdir.

use super::harness::*;
use dfs_metastore::row::InodeRow;
use dfs_proto::meta::{RenameMode, WriteOp};
use dfs_proto::{ErrorCode, EventKind, FileKind, Ino};

const ROOT: Ino = Ino::ROOT;

on_each_store! {
    fn a_link_is_another_name_of_the_same_inode(world) {
        let file = world.touch(ROOT, "file");
        let directory = world.mkdir(ROOT, "directory");
        let version = world.attr(directory).version;
        let attr = world.link(file, directory, "other");
        assert_eq!(world.changes, [entry(directory, "other"), EventKind::Attr(file)]);
        assert_eq!((attr.nlink, attr.ctime), (2, world.now()));
        assert_eq!(world.lookup(directory, "other"), Some(file));
        let parent = world.attr(directory);
        assert_eq!((parent.mtime, parent.version), (world.now(), version.next()));
    }

    fn links_that_make_no_sense_are_refused(world) {
        let file = world.touch(ROOT, "file");
        let directory = world.mkdir(ROOT, "directory");
        for (ino, parent, text, code) in [
            (directory, ROOT, "new", ErrorCode::NotPermitted),
            (file, ROOT, "directory", ErrorCode::Exists),
            (file, ROOT, "file", ErrorCode::Exists),
            (file, file, "new", ErrorCode::NotDirectory),
            (file, Ino(999), "new", ErrorCode::NotFound),
            (Ino(999), ROOT, "new", ErrorCode::NotFound),
        ] {
            let op = WriteOp::Link { ino, parent, name: name(text) };
            assert_eq!(world.refused(&op), code, "{op:?}");
        }
    }

    fn an_inode_has_a_largest_number_of_names(world) {
        let file = world.touch(ROOT, "file");
        let mut row = world.txn.inode(file).unwrap().unwrap();
        row.nlink = 65_000;
        world.txn.put_inode(&row).unwrap();
        let op = WriteOp::Link { ino: file, parent: ROOT, name: name("new") };
        assert_eq!(world.refused(&op), ErrorCode::TooManyLinks);
        row.nlink = 1;
        world.txn.put_inode(&row).unwrap();
    }

    fn unlink_takes_one_name_and_the_inode_with_the_last(world) {
        let file = world.touch(ROOT, "a");
        world.link(file, ROOT, "b");
        let version = world.attr(ROOT).version;
        let removed = world.unlink(ROOT, "a");
        assert_eq!(world.changes, [entry(ROOT, "a"), EventKind::Attr(file)]);
        assert_eq!((removed.ino, removed.nlink), (file, 1));
        assert_eq!((world.attr(file).nlink, world.attr(file).ctime), (1, world.now()));
        assert_eq!((world.attr(ROOT).version, world.attr(ROOT).mtime), (version.next(), world.now()));
        let removed = world.unlink(ROOT, "b");
        assert_eq!((removed.ino, removed.nlink), (file, 0));
        assert!(world.is_gone(file));
    }

    fn unlink_removes_every_kind_but_directories(world) {
        use FileKind::*;
        for kind in [File, Fifo, Socket, CharDevice, BlockDevice] {
            world.write(&make(kind, ROOT, "x")).unwrap();
            world.unlink(ROOT, "x");
        }
        world.symlink(ROOT, "x", "target");
        world.unlink(ROOT, "x");
        let file = world.touch(ROOT, "file");
        world.mkdir(ROOT, "directory");
        for (parent, text, code) in [
            (ROOT, "directory", ErrorCode::IsDirectory),
            (ROOT, "missing", ErrorCode::NotFound),
            (file, "x", ErrorCode::NotDirectory),
            (Ino(999), "x", ErrorCode::NotFound),
        ] {
            assert_eq!(world.refused(&unlink(parent, text)), code, "{text} in {parent}");
        }
    }

    fn a_directory_takes_no_subdirectory_beyond_what_its_link_count_can_say(world) {
        let full = world.mkdir(ROOT, "full");
        let other = world.mkdir(ROOT, "other");
        world.mkdir(other, "moves");
        world.mkdir(full, "there");
        let row = world.txn.inode(full).unwrap().unwrap();
        world.txn.put_inode(&InodeRow { nlink: u32::MAX, ..row.clone() }).unwrap();
        let from_to = ((other, "moves"), (full, "moved"));
        for op in [
            make(FileKind::Directory, full, "one"),
            rename(from_to.0, from_to.1, RenameMode::Replace),
            rename(from_to.0, (full, "there"), RenameMode::Exchange),
        ] {
            assert_eq!(world.refused(&op), ErrorCode::TooManyLinks, "{op:?}");
        }
        world.rename((full, "there"), (full, "here"), RenameMode::Replace);
        world.touch(full, "file");
        let now = world.txn.inode(full).unwrap().unwrap();
        world.txn.put_inode(&InodeRow { nlink: row.nlink, ..now }).unwrap();
    }

    fn rmdir_removes_an_empty_directory(world) {
        let directory = world.mkdir(ROOT, "directory");
        world.set_xattr(directory, "user.note", b"x");
        assert_eq!(world.attr(ROOT).nlink, 3);
        let removed = world.rmdir(ROOT, "directory");
        assert_eq!(world.changes, [entry(ROOT, "directory"), EventKind::Attr(directory)]);
        assert_eq!((removed.ino, removed.nlink), (directory, 0));
        assert_eq!((world.attr(ROOT).nlink, world.attr(ROOT).mtime), (2, world.now()));
        assert!(world.is_gone(directory));
    }

    fn rmdir_refuses_what_is_full_or_no_directory(world) {
        let directory = world.mkdir(ROOT, "directory");
        let file = world.touch(directory, "file");
        for (parent, text, code) in [
            (ROOT, "directory", ErrorCode::NotEmpty),
            (directory, "file", ErrorCode::NotDirectory),
            (ROOT, "missing", ErrorCode::NotFound),
            (file, "x", ErrorCode::NotDirectory),
            (Ino(999), "x", ErrorCode::NotFound),
        ] {
            assert_eq!(world.refused(&rmdir(parent, text)), code, "{text} in {parent}");
        }
    }
}
