//! What every store refuses or reports in the same words, so that tests on one hold for the other.

use crate::StoreError;
use dfs_proto::{Extent, Ino};

/// Numbers in rows stay within what a signed 64-bit integer can say, since that is all SQL knows.
pub(crate) const NUMBER_MAX: u64 = i64::MAX as u64;

/// Refuses a number above [`NUMBER_MAX`]; `what` names it in the error.
pub(crate) fn number(what: &'static str, value: u64) -> Result<i64, StoreError> {
    i64::try_from(value).map_err(|_| StoreError::Failed {
        action: "write a row",
        reason: format!("{what} {value} is above {NUMBER_MAX}, the largest number that can be kept"),
    })
}

/// Refuses an extent that no file can have: without a blob, empty, or ending past [`NUMBER_MAX`].
pub(crate) fn extent(ino: Ino, extent: &Extent) -> Result<(), StoreError> {
    let end = extent.offset.checked_add(extent.length);
    let reason = match end {
        _ if extent.blob.is_none() => "has no blob",
        _ if extent.length == 0 => "is empty",
        Some(end) if end <= NUMBER_MAX => return Ok(()),
        _ => "ends past the largest offset of a file",
    };
    let Extent { offset, length, .. } = extent;
    Err(StoreError::Failed {
        action: "write an extent",
        reason: format!("the extent of {length} bytes at {offset} of inode {ino} {reason}"),
    })
}

/// A directory entry whose inode is gone.
pub(crate) fn dangling(parent: Ino, ino: Ino) -> StoreError {
    StoreError::Corrupt(format!("directory {parent} has an entry for inode {ino}, which does not exist"))
}

/// An `end_savepoint` without its `begin_savepoint`.
pub(crate) fn no_savepoint() -> StoreError {
    StoreError::Failed { action: "end a savepoint", reason: "none was begun in this call".into() }
}

/// A call that returned with a savepoint still open.
pub(crate) fn open_savepoint() -> StoreError {
    StoreError::Failed { action: "end a call", reason: "it left a savepoint open".into() }
}

/// A counter that has nothing left.
pub(crate) fn exhausted(count: u64) -> StoreError {
    StoreError::Failed { action: "hand out numbers", reason: format!("fewer than {count} are left") }
}
