//! What becomes of files that lose their last name.

use super::harness::*;
use crate::TAKE_APART_EXTENTS_MAX;
use dfs_proto::meta::{AttrChanges, ReadOp, WriteOp};
use dfs_proto::{ErrorCode, Extent, Ino};

const ROOT: Ino = Ino::ROOT;

/// So many extents, each of a blob of its own.
fn many(count: u64) -> Vec<Extent> {
    (0..count).map(|n| data(n * 10, 10, n + 1)).collect()
}

on_each_store! {
    fn blobs_of_a_removed_file_become_garbage(world) {
        let file = world.put(ROOT, "file", vec![data(0, 10, 1), data(10, 10, 2), part(20, 10, 1, 50)]).attr.ino;
        world.unlink(ROOT, "file");
        assert!(world.is_gone(file));
        assert_eq!(world.garbage(), [1, 2]);
    }

    fn a_blob_that_another_file_uses_stays(world) {
        world.put(ROOT, "a", vec![data(0, 10, 1), data(10, 10, 2)]);
        world.put(ROOT, "b", vec![data(0, 5, 1)]);
        world.unlink(ROOT, "a");
        assert_eq!(world.garbage(), [2]);
        world.unlink(ROOT, "b");
        assert_eq!(world.garbage(), [1, 2]);
    }

    fn an_open_file_lives_on_without_a_name(world) {
        let file = world.put(ROOT, "file", vec![data(0, 10, 1)]).attr.ino;
        world.open.insert(file);
        assert_eq!(world.unlink(ROOT, "file").nlink, 0);
        assert_eq!(world.attr(file).nlink, 0);
        assert!(world.garbage().is_empty());
        world.commit(edit(file, vec![data(5, 10, 2)]));
        assert_eq!(world.attr(file).size, 15);
        assert!(world.reap(file, 100), "there is nothing to do while it is open");
        assert!(!world.is_gone(file));

        world.open.clear();
        assert!(world.reap(file, 100));
        assert!(world.is_gone(file));
        assert_eq!(world.garbage(), [1, 2]);
        assert_eq!(world.refused(&WriteOp::Commit(edit(file, vec![data(0, 1, 3)]))), ErrorCode::Stale);
    }

    fn reaping_goes_piece_by_piece_and_hides_what_is_half_done(world) {
        let file = world.put(ROOT, "file", many(10)).attr.ino;
        world.open.insert(file);
        world.unlink(ROOT, "file");
        world.open.clear();
        for left in [6, 2] {
            assert!(!world.reap(file, 4));
            world.check();
            assert_eq!(world.extents(file).len(), left);
            assert_eq!(world.unreadable(&ReadOp::Open { ino: file, known: None }), ErrorCode::NotFound);
            assert_eq!(world.unreadable(&ReadOp::GetAttr { ino: file }), ErrorCode::NotFound);
            assert_eq!(world.refused(&WriteOp::Commit(edit(file, vec![]))), ErrorCode::Stale);
            let changes = AttrChanges { size: Some(5), ..AttrChanges::default() };
            assert_eq!(world.refused(&WriteOp::SetAttr { ino: file, changes }), ErrorCode::NotFound);
        }
        world.open.insert(file);
        assert!(world.reap(file, 4), "what has begun goes on whoever has it open");
        assert!(world.is_gone(file));
        assert_eq!(world.garbage().len(), 10);
    }

    fn reaping_ends_exactly_with_the_last_extent(world) {
        let file = world.put(ROOT, "file", many(8)).attr.ino;
        world.open.insert(file);
        world.unlink(ROOT, "file");
        world.open.clear();
        assert!(!world.reap(file, 4));
        assert!(world.reap(file, 4));
        assert!(world.is_gone(file));
    }

    fn reaping_what_is_no_orphan_does_nothing(world) {
        let file = world.touch(ROOT, "file");
        assert!(world.reap(file, 10));
        assert!(world.reap(Ino(999), 10));
        assert!(!world.is_gone(file));
    }

    fn a_file_of_very_many_extents_is_left_to_the_reaper(world) {
        let small = world.put(ROOT, "small", many(u64::from(TAKE_APART_EXTENTS_MAX))).attr.ino;
        world.unlink(ROOT, "small");
        assert!(world.is_gone(small));
        let large = world.put(ROOT, "large", many(u64::from(TAKE_APART_EXTENTS_MAX) + 1)).attr.ino;
        world.unlink(ROOT, "large");
        assert_eq!(world.unreadable(&ReadOp::GetAttr { ino: large }), ErrorCode::NotFound);
        assert_eq!(world.txn.orphans(Ino(0), 10).unwrap(), [large]);
        world.check();
        assert!(world.reap(large, TAKE_APART_EXTENTS_MAX));
        assert!(world.is_gone(large));
    }

    fn an_open_symlink_or_fifo_goes_like_a_file(world) {
        let link = world.symlink(ROOT, "link", "x");
        world.open.insert(link);
        world.unlink(ROOT, "link");
        assert_eq!(world.attr(link).nlink, 0);
        world.open.clear();
        assert!(world.reap(link, 10));
        assert!(world.is_gone(link));
    }
}
