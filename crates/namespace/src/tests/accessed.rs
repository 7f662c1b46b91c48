//! Accessed.

use super::harness::*;
use dfs_proto::meta::WriteOp;
use dfs_proto::{Attr, ErrorCode, Ino, MetaReply, Timestamp};

on_each_store! {
    fn a_later_access_is_noted_and_an_earlier_one_is_not(world) {
        let ino = world.touch(Ino::ROOT, "file");
        let before = world.attr(ino);
        let later = Timestamp { nanos: before.atime.nanos + 1, ..before.atime };
        let earlier = Timestamp { secs: before.atime.secs - 1, nanos: 999_999_999 };
        for (atime, expected) in [(earlier, before.atime), (before.atime, before.atime), (later, later)] {
            assert_eq!(world.write(&WriteOp::Accessed { ino, atime }), Ok(MetaReply::Done));
            assert_eq!(world.attr(ino), Attr { atime: expected, ..before.clone() });
            assert!(world.changes.is_empty());
        }
    }

    fn what_is_no_time_or_no_inode_is_refused(world) {
        let atime = Timestamp { secs: 5000, nanos: 1_000_000_000 };
        assert_eq!(world.refused(&WriteOp::Accessed { ino: Ino::ROOT, atime }), ErrorCode::InvalidArgument);
        let atime = Timestamp { secs: 5000, nanos: 0 };
        assert_eq!(world.refused(&WriteOp::Accessed { ino: Ino(999), atime }), ErrorCode::NotFound);
    }
}
