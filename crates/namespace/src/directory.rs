//! Entries, and what their change does to the directory that holds them.

use crate::WriteContext;
use crate::error::{OpError, refuse};
use dfs_metastore::row::{DentryRow, InodeRow};
use dfs_metastore::{Counter, WriteTxn};
use dfs_proto::{DirCookie, ErrorCode, EventKind, Ino, Name, Timestamp};

/// Notes on a directory that its entries have changed.
pub fn touch(directory: &mut InodeRow, now: Timestamp) {
    directory.mtime = now;
    directory.ctime = now;
    directory.version = directory.version.next();
}

/// Refuses another subdirectory where the link count has no room for it: there are more than four billion.
pub fn must_take_subdirectory(directory: &InodeRow) -> Result<(), OpError> {
    if directory.nlink == u32::MAX {
        let message = format!("directory {} has all the subdirectories it may have", directory.ino);
        return refuse(ErrorCode::TooManyLinks, message);
    }
    Ok(())
}

/// Makes `name` stand for `ino`, and announces it. An entry that was there keeps its place in listings, so
/// that one under way neither repeats nor skips the name.
pub fn put_entry(
    txn: &mut dyn WriteTxn,
    context: &mut WriteContext<'_>,
    parent: Ino,
    name: &Name,
    ino: Ino,
    present: Option<&DentryRow>,
) -> Result<(), OpError> {
    let cookie = match present {
        Some(entry) => entry.cookie,
        None => DirCookie(txn.take(Counter::Cookie, 1)?),
    };
    txn.put_dentry(&DentryRow { parent, name: name.as_bytes().to_vec(), cookie, ino })?;
    context.changes.push(EventKind::Entry { parent, name: name.clone() });
    Ok(())
}

/// Removes the entry and announces it.
pub fn delete_entry(
    txn: &mut dyn WriteTxn,
    context: &mut WriteContext<'_>,
    parent: Ino,
    name: &Name,
) -> Result<(), OpError> {
    txn.delete_dentry(parent, name.as_bytes())?;
    context.changes.push(EventKind::Entry { parent, name: name.clone() });
    Ok(())
}

/// Refuses to remove a directory that has entries.
pub fn must_be_empty(txn: &dyn WriteTxn, directory: &InodeRow) -> Result<(), OpError> {
    if txn.has_dentries(directory.ino)? {
        return refuse(ErrorCode::NotEmpty, format!("directory {} is not empty", directory.ino));
    }
    Ok(())
}
