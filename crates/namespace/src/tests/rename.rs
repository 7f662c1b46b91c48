//! Rename.

use super::harness::*;
use dfs_proto::meta::Removed;
use dfs_proto::meta::RenameMode::{Exchange, NoReplace, Replace};
use dfs_proto::{ErrorCode, EventKind, Ino};

const ROOT: Ino = Ino::ROOT;

on_each_store! {
    fn a_file_moves_between_directories(world) {
        let (a, b) = (world.mkdir(ROOT, "a"), world.mkdir(ROOT, "b"));
        let file = world.touch(a, "file");
        let renamed = world.rename((a, "file"), (b, "other"), Replace);
        assert_eq!(world.changes, [entry(a, "file"), entry(b, "other"), EventKind::Attr(file)]);
        assert_eq!((renamed.moved.ino, renamed.replaced), (file, None));
        assert_eq!((world.lookup(a, "file"), world.lookup(b, "other")), (None, Some(file)));
        let now = world.now();
        assert_eq!(world.attr(file).ctime, now);
        for directory in [a, b] {
            let attr = world.attr(directory);
            assert_eq!((attr.mtime, attr.ctime, attr.nlink), (now, now, 2));
        }
    }

    fn a_name_changes_within_a_directory(world) {
        let directory = world.mkdir(ROOT, "old");
        let version = world.attr(ROOT).version;
        world.rename((ROOT, "old"), (ROOT, "new"), NoReplace);
        assert_eq!((world.lookup(ROOT, "old"), world.lookup(ROOT, "new")), (None, Some(directory)));
        assert_eq!((world.attr(ROOT).version, world.attr(ROOT).nlink), (version.next(), 3));
    }

    fn a_directory_takes_its_link_and_its_parent_along(world) {
        let (a, b) = (world.mkdir(ROOT, "a"), world.mkdir(ROOT, "b"));
        let moved = world.mkdir(a, "x");
        world.rename((a, "x"), (b, "x"), Replace);
        assert_eq!((world.attr(a).nlink, world.attr(b).nlink), (2, 3));
        assert_eq!(world.attr(moved).parent, b);
    }

    fn a_file_replaces_a_file(world) {
        let old = world.put(ROOT, "old", vec![data(0, 10, 1)]).attr.ino;
        let new = world.put(ROOT, "new", vec![data(0, 10, 2)]).attr.ino;
        let renamed = world.rename((ROOT, "new"), (ROOT, "old"), Replace);
        assert_eq!(renamed.replaced, Some(Removed { ino: old, nlink: 0 }));
        assert_eq!((world.lookup(ROOT, "old"), world.lookup(ROOT, "new")), (Some(new), None));
        assert!(world.is_gone(old));
        assert_eq!(world.garbage(), [1]);
        assert!(world.changes.contains(&EventKind::Attr(old)));
    }

    fn a_replaced_file_keeps_its_other_names(world) {
        let old = world.touch(ROOT, "old");
        world.link(old, ROOT, "also");
        world.touch(ROOT, "new");
        let renamed = world.rename((ROOT, "new"), (ROOT, "old"), Replace);
        assert_eq!(renamed.replaced, Some(Removed { ino: old, nlink: 1 }));
        assert_eq!(world.attr(old).ctime, world.now());
    }

    fn a_directory_replaces_an_empty_directory(world) {
        let (a, b) = (world.mkdir(ROOT, "a"), world.mkdir(ROOT, "b"));
        let moved = world.mkdir(a, "x");
        world.touch(moved, "inside");
        let replaced = world.mkdir(b, "y");
        let renamed = world.rename((a, "x"), (b, "y"), Replace);
        assert_eq!(renamed.replaced, Some(Removed { ino: replaced, nlink: 0 }));
        assert_eq!((world.attr(a).nlink, world.attr(b).nlink), (2, 3));
        assert!(world.is_gone(replaced));
        world.rename((ROOT, "a"), (b, "a"), Replace);
        assert_eq!((world.attr(ROOT).nlink, world.attr(b).nlink), (3, 4));
    }

    fn what_does_not_fit_is_refused(world) {
        let full = world.mkdir(ROOT, "full");
        let inside = world.mkdir(full, "inside");
        let file = world.touch(ROOT, "file");
        world.mkdir(ROOT, "empty");
        for (from, to, mode, code) in [
            ((ROOT, "empty"), (ROOT, "full"), Replace, ErrorCode::NotEmpty),
            ((ROOT, "file"), (ROOT, "empty"), Replace, ErrorCode::IsDirectory),
            ((ROOT, "empty"), (ROOT, "file"), Replace, ErrorCode::NotDirectory),
            ((ROOT, "full"), (full, "x"), Replace, ErrorCode::InvalidArgument),
            ((ROOT, "full"), (inside, "x"), Replace, ErrorCode::InvalidArgument),
            ((ROOT, "full"), (inside, "x"), NoReplace, ErrorCode::InvalidArgument),
            ((full, "inside"), (ROOT, "full"), Replace, ErrorCode::NotEmpty),
            ((full, "inside"), (ROOT, "full"), Exchange, ErrorCode::InvalidArgument),
            ((ROOT, "full"), (full, "inside"), Exchange, ErrorCode::InvalidArgument),
            ((ROOT, "file"), (ROOT, "empty"), NoReplace, ErrorCode::Exists),
            ((ROOT, "file"), (ROOT, "file"), NoReplace, ErrorCode::Exists),
            ((ROOT, "missing"), (ROOT, "x"), Replace, ErrorCode::NotFound),
            ((ROOT, "missing"), (ROOT, "file"), NoReplace, ErrorCode::NotFound),
            ((ROOT, "file"), (ROOT, "missing"), Exchange, ErrorCode::NotFound),
            ((ROOT, "file"), (file, "x"), Replace, ErrorCode::NotDirectory),
            ((file, "x"), (ROOT, "x"), Replace, ErrorCode::NotDirectory),
            ((ROOT, "file"), (Ino(999), "x"), Replace, ErrorCode::NotFound),
            ((Ino(999), "x"), (ROOT, "x"), Replace, ErrorCode::NotFound),
        ] {
            assert_eq!(world.refused(&rename(from, to, mode)), code, "{from:?} {to:?} {mode:?}");
        }
    }

    fn two_names_of_one_inode_are_left_alone(world) {
        let file = world.touch(ROOT, "a");
        world.link(file, ROOT, "b");
        let version = world.attr(ROOT).version;
        for mode in [Replace, Exchange] {
            assert_eq!(world.rename((ROOT, "a"), (ROOT, "b"), mode).moved.ino, file);
            assert!(world.changes.is_empty());
        }
        world.rename((ROOT, "a"), (ROOT, "a"), Replace);
        assert_eq!(world.attr(ROOT).version, version);
        assert_eq!((world.lookup(ROOT, "a"), world.lookup(ROOT, "b")), (Some(file), Some(file)));
    }

    fn exchange_swaps_a_file_with_a_directory(world) {
        let (a, b) = (world.mkdir(ROOT, "a"), world.mkdir(ROOT, "b"));
        let file = world.touch(a, "file");
        let directory = world.mkdir(b, "directory");
        world.touch(directory, "inside");
        let renamed = world.rename((a, "file"), (b, "directory"), Exchange);
        assert_eq!(renamed.moved.ino, file);
        assert_eq!(renamed.replaced, Some(Removed { ino: directory, nlink: 2 }));
        assert_eq!((world.lookup(a, "file"), world.lookup(b, "directory")), (Some(directory), Some(file)));
        assert_eq!((world.attr(a).nlink, world.attr(b).nlink), (3, 2));
        assert_eq!(world.attr(directory).parent, a);
        let events = [entry(a, "file"), entry(b, "directory")];
        assert_eq!(world.changes[..2], events);
        world.rename((b, "directory"), (a, "file"), Exchange);
        assert_eq!((world.attr(a).nlink, world.attr(b).nlink), (2, 3));
    }

    fn exchange_swaps_directories_across_and_within_parents(world) {
        let (a, b) = (world.mkdir(ROOT, "a"), world.mkdir(ROOT, "b"));
        let (x, y) = (world.mkdir(a, "x"), world.mkdir(b, "y"));
        world.rename((a, "x"), (b, "y"), Exchange);
        assert_eq!((world.attr(x).parent, world.attr(y).parent), (b, a));
        world.rename((ROOT, "a"), (ROOT, "b"), Exchange);
        assert_eq!((world.lookup(ROOT, "a"), world.lookup(ROOT, "b")), (Some(b), Some(a)));
        assert_eq!((world.attr(ROOT).nlink, world.attr(a).nlink, world.attr(b).nlink), (4, 3, 3));
    }

    fn nothing_moves_into_a_removed_directory(world) {
        let removed = world.mkdir(ROOT, "removed");
        world.touch(ROOT, "file");
        world.rmdir(ROOT, "removed");
        assert_eq!(world.refused(&rename((ROOT, "file"), (removed, "x"), Replace)), ErrorCode::NotFound);
    }
}
