//! `SetAttr`: chmod, chown, truncate and utimensat in one.

use super::commit::check_time;
use crate::error::OpError;
use crate::layer::check_offset;
use crate::{WriteContext, access, content, fetch, mode};
use dfs_metastore::WriteTxn;
use dfs_metastore::row::InodeRow;
use dfs_proto::meta::{AttrChanges, SetTime};
use dfs_proto::{EventKind, FileKind, Ino, MetaReply, Timestamp};

pub fn setattr(
    txn: &mut dyn WriteTxn,
    context: &mut WriteContext<'_>,
    ino: Ino,
    changes: &AttrChanges,
) -> Result<MetaReply, OpError> {
    let mut row = fetch::inode(txn, ino)?;
    check(&row, changes)?;
    if *changes == AttrChanges::default() {
        return Ok(MetaReply::Attr(row.attr()));
    }
    if let Some(size) = changes.size {
        truncate(txn, &mut row, size, context.now)?;
    }
    set_owner_and_mode(&mut row, changes);
    if changes.mode.is_some() {
        access::follow_mode(txn, &row)?;
    }
    let time = |set: SetTime| match set {
        SetTime::Now => context.now,
        SetTime::At(time) => time,
    };
    row.atime = changes.atime.map_or(row.atime, time);
    row.mtime = changes.mtime.map_or(row.mtime, time);
    row.ctime = context.now;
    txn.put_inode(&row)?;
    context.changes.push(match changes.size {
        Some(_) => EventKind::Content(ino),
        None => EventKind::Attr(ino),
    });
    Ok(MetaReply::Attr(row.attr()))
}

fn check(row: &InodeRow, changes: &AttrChanges) -> Result<(), OpError> {
    if let Some(size) = changes.size {
        fetch::must_be_file(row)?;
        check_offset(size, "the size of the file")?;
    }
    for set in [changes.atime, changes.mtime].into_iter().flatten() {
        if let SetTime::At(time) = set {
            check_time(time)?;
        }
    }
    Ok(())
}

/// Set-id bits stay: whether they go depends on who truncates (CAP_FSETID), which is known to the kernel that
/// mounts. It sends the mode along where they do.
fn truncate(txn: &mut dyn WriteTxn, row: &mut InodeRow, size: u64, now: Timestamp) -> Result<(), OpError> {
    content::cut(txn, row, size..u64::MAX, now)?;
    if size != row.size {
        row.md5 = None;
    }
    row.size = size;
    row.version = row.version.next();
    row.mtime = now;
    Ok(())
}

/// A mode that is given stands as it is; otherwise a new owner takes set-id bits away (chown(2)).
fn set_owner_and_mode(row: &mut InodeRow, changes: &AttrChanges) {
    row.uid = changes.uid.unwrap_or(row.uid);
    row.gid = changes.gid.unwrap_or(row.gid);
    let owner_changes = changes.uid.is_some() || changes.gid.is_some();
    if let Some(given) = changes.mode {
        row.mode = given & mode::BITS;
    } else if owner_changes && row.kind != FileKind::Directory {
        row.mode = mode::without_set_id(row.mode);
    }
}
