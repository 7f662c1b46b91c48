//! Clone.

use super::harness::*;
use crate::ops::clone::moved_extents;
use dfs_proto::limits::{CLONE_EXTENTS_MAX, FILE_BYTES_MAX};
use dfs_proto::meta::{AttrChanges, CloneRange, Cloned, ReadOp, WriteOp};
use dfs_proto::{Attr, ErrorCode, EventKind, Extent, Ino, MetaReply};

const ROOT: Ino = Ino::ROOT;

/// `length` bytes from the first place to the second.
fn range(source: (Ino, u64), target: (Ino, u64), length: u64) -> CloneRange {
    let ((source, source_offset), (target, target_offset)) = (source, target);
    CloneRange { source, source_offset, target, target_offset, length, locked_by: None }
}

fn clone(world: &mut World<'_>, range: CloneRange) -> Cloned {
    match world.write(&WriteOp::Clone(range)) {
        Ok(MetaReply::Cloned(cloned)) => {
            assert_eq!(cloned.attr, world.attr(range.target));
            cloned
        }
        other => panic!("{range:?} gave {other:?}"),
    }
}

fn put(world: &mut World<'_>, entry: &str, extents: Vec<Extent>) -> Ino {
    world.put(ROOT, entry, extents).attr.ino
}

fn resize(world: &mut World<'_>, ino: Ino, size: u64) {
    let changes = AttrChanges { size: Some(size), ..AttrChanges::default() };
    world.write(&WriteOp::SetAttr { ino, changes }).unwrap();
}

on_each_store! {
    fn a_copy_of_a_whole_file_has_its_extents_and_holes(world) {
        let content = vec![data(0, 10, 1), part(30, 10, 2, 50)];
        let source = put(world, "source", content.clone());
        resize(world, source, 100);
        let target = world.touch(ROOT, "target");
        let before = world.attr(source);
        let cloned = clone(world, range((source, 0), (target, 0), u64::MAX));
        assert_eq!(world.changes, [EventKind::Content(target)]);
        assert_eq!(cloned.length, 100);
        let Attr { size, allocated, version, mtime, ctime, .. } = cloned.attr;
        assert_eq!((size, allocated, version.0, mtime, ctime), (100, 20, 2, world.now(), world.now()));
        assert_eq!(world.extents(target), content);
        assert_eq!(world.attr(source), before);
    }

    fn unaligned_edges_clip_extents_and_leave_the_rest_of_the_target(world) {
        let source = put(world, "source", vec![data(0, 100, 1), data(100, 100, 2)]);
        let target = put(world, "target", vec![data(0, 300, 3)]);
        let cloned = clone(world, range((source, 93), (target, 41), 11));
        assert_eq!((cloned.length, cloned.attr.size, cloned.attr.allocated), (11, 300, 300));
        assert_eq!(world.extents(target), [
            data(0, 41, 3),
            part(41, 7, 1, 93),
            part(48, 4, 2, 0),
            part(52, 248, 3, 52),
        ]);
    }

    fn holes_of_the_source_become_holes_of_the_target(world) {
        let source = put(world, "source", vec![data(10, 10, 1)]);
        resize(world, source, 30);
        let target = put(world, "target", vec![data(0, 100, 3)]);
        let cloned = clone(world, range((source, 0), (target, 50), 30));
        assert_eq!((cloned.length, cloned.attr.allocated), (30, 80));
        assert_eq!(world.extents(target), [data(0, 50, 3), data(60, 10, 1), part(80, 20, 3, 80)]);

        let sparse = world.touch(ROOT, "sparse");
        resize(world, sparse, 1 << 40);
        let cloned = clone(world, range((sparse, 5), (target, 0), u64::MAX));
        assert_eq!((cloned.length, cloned.attr.size, cloned.attr.allocated), ((1 << 40) - 5, (1 << 40) - 5, 0));
        assert_eq!(world.garbage(), [3]);
    }

    fn beyond_the_end_of_the_target_there_is_a_hole_first(world) {
        let source = put(world, "source", vec![data(0, 10, 1)]);
        let target = put(world, "target", vec![data(0, 5, 2)]);
        let cloned = clone(world, range((source, 0), (target, 50), 10));
        assert_eq!((cloned.attr.size, cloned.attr.allocated), (60, 15));
        assert_eq!(world.extents(target), [data(0, 5, 2), data(50, 10, 1)]);
    }

    fn at_the_end_of_the_source_nothing_is_copied_and_nothing_changes(world) {
        let source = put(world, "source", vec![data(0, 10, 1)]);
        let target = put(world, "target", vec![data(0, 5, 2)]);
        let before = world.attr(target);
        for (offset, length) in [(10, 5), (11, u64::MAX), (0, 0), (FILE_BYTES_MAX, 1)] {
            let cloned = clone(world, range((source, offset), (target, 0), length));
            assert_eq!(cloned, Cloned { attr: before.clone(), length: 0 });
            assert!(world.changes.is_empty());
        }
        assert_eq!(clone(world, range((source, 4), (target, 0), 100)).length, 6);
    }

    fn parts_of_one_file_are_copied_unless_they_overlap(world) {
        let ino = put(world, "file", vec![data(0, 100, 1)]);
        for (from, to, length) in [(0, 0, 1), (0, 9, 10), (9, 0, 10), (0, 99, 1000)] {
            let op = WriteOp::Clone(range((ino, from), (ino, to), length));
            assert_eq!(world.refused(&op), ErrorCode::InvalidArgument, "{from} {to} {length}");
        }
        clone(world, range((ino, 0), (ino, 50), 50));
        assert_eq!(world.extents(ino), [data(0, 50, 1), part(50, 50, 1, 0)]);
        let cloned = clone(world, range((ino, 60), (ino, 100), 1000));
        assert_eq!((cloned.length, cloned.attr.size), (40, 140));
        assert_eq!(world.extents(ino).len(), 3);
    }

    fn a_copy_lives_on_when_its_source_goes(world) {
        let content = vec![data(0, 10, 1), data(10, 10, 2)];
        let source = put(world, "source", content.clone());
        let target = world.touch(ROOT, "target");
        clone(world, range((source, 0), (target, 0), 20));
        world.unlink(ROOT, "source");
        assert!(world.is_gone(source) && world.garbage().is_empty());
        assert_eq!(world.extents(target), content);

        resize(world, target, 5);
        assert_eq!(world.garbage(), [2]);
        world.unlink(ROOT, "target");
        assert_eq!(world.garbage(), [1, 2]);
    }

    fn a_copy_keeps_what_the_source_is_overwritten_with_and_cut_off_from(world) {
        let content = vec![data(0, 10, 1), data(10, 10, 2)];
        let source = put(world, "source", content.clone());
        let target = world.touch(ROOT, "target");
        clone(world, range((source, 0), (target, 0), 20));
        world.commit(edit(source, vec![data(0, 10, 3)]));
        resize(world, source, 10);
        assert!(world.garbage().is_empty());
        assert_eq!(world.extents(target), content);
        clone(world, range((source, 0), (target, 0), 10));
        assert_eq!(world.extents(target), [data(0, 10, 3), data(10, 10, 2)]);
        assert_eq!(world.garbage(), [1]);
    }

    fn a_copy_over_another_copy_of_the_same_changes_no_blob(world) {
        let source = put(world, "source", vec![data(0, 100, 1)]);
        let target = world.touch(ROOT, "target");
        for at in [0, 0, 30] {
            clone(world, range((source, 0), (target, at), 50));
            assert!(world.garbage().is_empty());
        }
        assert_eq!(world.extents(target), [data(0, 30, 1), part(30, 50, 1, 0)]);
    }

    fn an_open_file_without_a_name_can_be_copied_from_and_to(world) {
        let source = put(world, "source", vec![data(0, 10, 1)]);
        let target = put(world, "target", vec![]);
        world.open.extend([source, target]);
        world.unlink(ROOT, "source");
        world.unlink(ROOT, "target");
        clone(world, range((source, 0), (target, 0), 10));
        world.open.remove(&source);
        assert!(world.reap(source, 10));
        assert_eq!((world.extents(target), world.garbage()), (vec![data(0, 10, 1)], vec![]));
    }

    fn the_md5_goes_and_set_id_bits_stay(world) {
        let source = put(world, "source", vec![data(0, 10, 1)]);
        let mut new = create(ROOT, "target", vec![data(0, 10, 2)], rename_rule());
        new.md5 = Some(blob(2).md5);
        let target = world.commit(new).attr.ino;
        let changes = AttrChanges { mode: Some(0o6755), ..AttrChanges::default() };
        world.write(&WriteOp::SetAttr { ino: target, changes }).unwrap();
        assert_eq!(clone(world, range((source, 0), (target, 0), 5)).attr.mode, 0o6755);
        assert_eq!(world.xattr(target, "user.dfs.md5"), Err(ErrorCode::NoAttribute));
    }

    fn copies_that_cannot_be_are_refused(world) {
        let file = put(world, "file", vec![data(0, 10, 1)]);
        let other = world.touch(ROOT, "other");
        let link = world.symlink(ROOT, "link", "x");
        for (source, target, code) in [
            ((Ino(999), 0), (file, 0), ErrorCode::NotFound),
            ((file, 0), (Ino(999), 0), ErrorCode::NotFound),
            ((ROOT, 0), (file, 0), ErrorCode::IsDirectory),
            ((file, 0), (ROOT, 0), ErrorCode::IsDirectory),
            ((link, 0), (file, 0), ErrorCode::InvalidArgument),
            ((file, 0), (link, 0), ErrorCode::InvalidArgument),
            ((file, 0), (other, FILE_BYTES_MAX - 9), ErrorCode::TooLarge),
            ((file, 0), (other, u64::MAX), ErrorCode::TooLarge),
            ((file, u64::MAX), (other, 0), ErrorCode::TooLarge),
        ] {
            let op = WriteOp::Clone(range(source, target, 10));
            assert_eq!(world.refused(&op), code, "{source:?} to {target:?}");
        }
        let cloned = clone(world, range((file, 0), (other, FILE_BYTES_MAX - 10), u64::MAX));
        assert_eq!(cloned.attr.size, FILE_BYTES_MAX);
    }

    fn a_copy_of_very_many_extents_is_done_in_parts(world) {
        let max = u64::from(CLONE_EXTENTS_MAX);
        // With holes between them: the hole behind the last extent that fits is copied along.
        let source = put(world, "source", (0..=max).map(|n| part(n * 10, 5, 1, 0)).collect());
        let target = world.touch(ROOT, "target");
        let cloned = clone(world, range((source, 0), (target, 0), u64::MAX));
        assert_eq!((cloned.length, cloned.attr.allocated), (max * 10, max * 5));
        let rest = clone(world, range((source, cloned.length), (target, cloned.length), u64::MAX));
        assert_eq!(rest.length, 5);
        assert_eq!(world.extents(target), world.extents(source));
    }

    fn a_part_of_a_copy_ends_where_the_next_extent_begins(world) {
        let source = put(world, "source", vec![data(10, 10, 1), data(20, 10, 2), data(40, 10, 3)]);
        let row = world.txn.inode(source).unwrap().unwrap();
        let moved = |extents_max, length| {
            moved_extents(world.txn, &row, &range((source, 5), (source, 105), length), extents_max).unwrap()
        };
        let (first, second) = (part(110, 10, 1, 0), part(120, 10, 2, 0));
        assert_eq!(moved(1, 45), (15, vec![hole(105, 5), first]));
        assert_eq!(moved(2, 45), (35, vec![hole(105, 5), first, second, hole(130, 10)]));
        assert_eq!(moved(2, 30), (30, vec![hole(105, 5), first, second, hole(130, 5)]));
        assert_eq!(moved(2, 3), (3, vec![hole(105, 3)]));
        let third = part(140, 10, 3, 0);
        assert_eq!(moved(3, 45), (45, vec![hole(105, 5), first, second, hole(130, 10), third]));
    }

    fn volumes_reach_as_far_as_before(world) {
        let row = dfs_metastore::row::VolumeRow {
            id: blob(1).id.volume,
            primary: dfs_proto::NodeId(1),
            open_for: None,
            next_key: dfs_proto::BlobKey(100),
            seq: dfs_proto::Seq(0),
        };
        world.txn.put_volume(&row).unwrap();
        let source = put(world, "source", vec![data(0, 10, 7), data(10, 10, 3)]);
        let target = world.touch(ROOT, "target");
        clone(world, range((source, 10), (target, 0), 10));
        assert_eq!(world.txn.volumes().unwrap()[0].seq, dfs_proto::Seq(7));
        let read = world.read(&ReadOp::Extents { ino: target, from: 0, limit: 9 }).unwrap();
        assert!(matches!(read, MetaReply::Extents(page) if page.extents == [data(0, 10, 3)]));
    }
}
