//! SetAttr.

use super::harness::*;
use dfs_proto::limits::FILE_BYTES_MAX;
use dfs_proto::meta::{AttrChanges, SetTime, WriteOp};
use dfs_proto::{Attr, ErrorCode, EventKind, Ino, MetaReply, Timestamp};

const ROOT: Ino = Ino::ROOT;
const NOTHING: AttrChanges =
    AttrChanges { mode: None, uid: None, gid: None, size: None, atime: None, mtime: None };

fn set(ino: Ino, changes: AttrChanges) -> WriteOp {
    WriteOp::SetAttr { ino, changes }
}

fn change(world: &mut World<'_>, ino: Ino, changes: AttrChanges) -> Attr {
    match world.write(&set(ino, changes)) {
        Ok(MetaReply::Attr(attr)) => {
            assert_eq!(world.attr(ino), attr);
            attr
        }
        other => panic!("{changes:?} gave {other:?}"),
    }
}

fn resize(world: &mut World<'_>, ino: Ino, size: u64) -> Attr {
    change(world, ino, AttrChanges { size: Some(size), ..NOTHING })
}

on_each_store! {
    fn mode_owner_and_times_are_set_and_ctime_is_now(world) {
        let ino = world.touch(ROOT, "file");
        let at = Timestamp { secs: -5, nanos: 999_999_999 };
        let changes = AttrChanges {
            mode: Some(0o1640),
            uid: Some(7),
            gid: Some(8),
            size: None,
            atime: Some(SetTime::At(at)),
            mtime: Some(SetTime::Now),
        };
        let attr = change(world, ino, changes);
        assert_eq!(world.changes, [EventKind::Attr(ino)]);
        assert_eq!((attr.mode, attr.uid, attr.gid), (0o1640, 7, 8));
        assert_eq!((attr.atime, attr.mtime, attr.ctime), (at, world.now(), world.now()));
        assert_eq!(attr.version.0, 1);
    }

    fn no_change_changes_nothing(world) {
        let ino = world.touch(ROOT, "file");
        let before = world.attr(ino);
        assert_eq!(change(world, ino, NOTHING), before);
        assert!(world.changes.is_empty());
    }

    fn a_new_owner_takes_set_id_bits_away_from_files_only(world) {
        let file = world.touch(ROOT, "file");
        let directory = world.mkdir(ROOT, "directory");
        for (ino, before, after) in [
            (file, 0o6755, 0o755),
            (file, 0o6745, 0o2745),
            (file, 0o1755, 0o1755),
            (directory, 0o6755, 0o6755),
        ] {
            for changes in [
                AttrChanges { uid: Some(3), ..NOTHING },
                AttrChanges { gid: Some(3), ..NOTHING },
            ] {
                change(world, ino, AttrChanges { mode: Some(before), ..NOTHING });
                assert_eq!(change(world, ino, changes).mode, after, "{before:o} {changes:?}");
            }
        }
        let both = AttrChanges { mode: Some(0o4755), uid: Some(4), ..NOTHING };
        assert_eq!(change(world, file, both).mode, 0o4755, "a mode that is given stands");
    }

    fn truncation_cuts_extents_and_leaves_their_blobs_to_garbage(world) {
        let list = vec![data(0, 10, 1), data(10, 10, 2), data(20, 10, 3), data(40, 10, 4)];
        let ino = world.put(ROOT, "file", list).attr.ino;
        let attr = resize(world, ino, 15);
        assert_eq!(world.changes, [EventKind::Content(ino)]);
        assert_eq!((attr.size, attr.allocated, attr.version.0), (15, 15, 2));
        assert_eq!((attr.mtime, attr.ctime), (world.now(), world.now()));
        assert_eq!(world.extents(ino), [data(0, 10, 1), data(10, 5, 2)]);
        assert_eq!(world.garbage(), [3, 4]);
        let attr = resize(world, ino, 0);
        assert_eq!((attr.size, attr.allocated), (0, 0));
        assert_eq!(world.garbage(), [1, 2, 3, 4]);
    }

    fn truncation_of_many_extents_reaches_the_last(world) {
        let list: Vec<_> = (0..3000).map(|n| data(n * 10, 10, n + 1)).collect();
        let ino = world.put(ROOT, "file", list).attr.ino;
        assert_eq!(resize(world, ino, 25).allocated, 25);
        assert_eq!(world.extents(ino).len(), 3);
        assert_eq!(world.garbage().len(), 2997);
    }

    fn growing_makes_a_hole(world) {
        let ino = world.put(ROOT, "file", vec![data(0, 10, 1)]).attr.ino;
        let attr = resize(world, ino, 1 << 40);
        assert_eq!((attr.size, attr.allocated), (1 << 40, 10));
        resize(world, ino, 5);
        let attr = resize(world, ino, 10);
        assert_eq!((attr.size, attr.allocated), (10, 5), "what was cut off does not come back");
    }

    fn truncation_takes_the_md5_away_and_leaves_set_id_bits_to_who_knows_the_caller(world) {
        let mut new = create(ROOT, "file", vec![data(0, 10, 1)], rename_rule());
        new.md5 = Some(blob(1).md5);
        let ino = world.commit(new).attr.ino;
        change(world, ino, AttrChanges { mode: Some(0o6755), ..NOTHING });
        assert!(world.xattr(ino, "user.dfs.md5").is_ok());
        let attr = resize(world, ino, 10);
        assert_eq!((attr.mode, attr.version.0), (0o6755, 2));
        assert!(world.xattr(ino, "user.dfs.md5").is_ok(), "the same size is the same content");
        let both = AttrChanges { size: Some(9), mode: Some(0o755), ..NOTHING };
        assert_eq!(change(world, ino, both).mode, 0o755);
        assert_eq!(world.xattr(ino, "user.dfs.md5"), Err(ErrorCode::NoAttribute));
    }

    fn a_given_mtime_outdoes_the_truncation(world) {
        let ino = world.touch(ROOT, "file");
        let at = Timestamp { secs: 5, nanos: 0 };
        let attr = change(world, ino, AttrChanges { size: Some(3), mtime: Some(SetTime::At(at)), ..NOTHING });
        assert_eq!((attr.mtime, attr.ctime), (at, world.now()));
    }

    fn what_cannot_be_is_refused(world) {
        let file = world.touch(ROOT, "file");
        let link = world.symlink(ROOT, "link", "x");
        let size = |size| AttrChanges { size: Some(size), ..NOTHING };
        let no_time = SetTime::At(Timestamp { secs: 0, nanos: 1_000_000_000 });
        for (ino, changes, code) in [
            (ROOT, size(0), ErrorCode::IsDirectory),
            (link, size(0), ErrorCode::InvalidArgument),
            (file, size(FILE_BYTES_MAX + 1), ErrorCode::TooLarge),
            (file, size(u64::MAX), ErrorCode::TooLarge),
            (file, AttrChanges { atime: Some(no_time), ..NOTHING }, ErrorCode::InvalidArgument),
            (file, AttrChanges { mtime: Some(no_time), size: Some(1), ..NOTHING }, ErrorCode::InvalidArgument),
            (Ino(999), NOTHING, ErrorCode::NotFound),
        ] {
            assert_eq!(world.refused(&set(ino, changes)), code, "{ino} {changes:?}");
        }
    }

    fn several_files_of_the_largest_size_can_be(world) {
        for text in ["a", "b", "c"] {
            let ino = world.touch(ROOT, text);
            assert_eq!(resize(world, ino, FILE_BYTES_MAX).size, FILE_BYTES_MAX);
            assert_eq!(world.commit(edit(ino, vec![data(FILE_BYTES_MAX - 10, 10, ino.0)])).attr.allocated, 10);
        }
    }
}
