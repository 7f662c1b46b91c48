//! Rows that an operation needs, or the error that POSIX has for their absence.

use crate::error::{OpError, refuse};
use dfs_metastore::row::{DentryRow, InodeRow};
use dfs_metastore::{ReadTxn, StoreError};
use dfs_proto::{ErrorCode, FileKind, Ino, Name};

/// The inode; `not_found` when there is none or when it is being taken apart.
pub fn inode(txn: &dyn ReadTxn, ino: Ino) -> Result<InodeRow, OpError> {
    match txn.inode(ino)? {
        Some(row) if !is_condemned(&row) => Ok(row),
        _ => refuse(ErrorCode::NotFound, format!("there is no inode {ino}")),
    }
}

/// Whether the inode is an orphan that is being taken apart: only such a one has extents beyond its size.
pub fn is_condemned(row: &InodeRow) -> bool {
    row.nlink == 0 && row.size == 0 && row.allocated > 0
}

/// The inode of a directory; `not_found`, or `not_directory` for anything else.
pub fn directory(txn: &dyn ReadTxn, ino: Ino) -> Result<InodeRow, OpError> {
    let row = inode(txn, ino)?;
    if row.kind != FileKind::Directory {
        return refuse(ErrorCode::NotDirectory, format!("inode {ino} is not a directory"));
    }
    if row.nlink == 0 {
        return refuse(ErrorCode::NotFound, format!("directory {ino} has been removed"));
    }
    Ok(row)
}

/// The inode of a regular file; `not_found`, `is_directory`, or `invalid_argument` for anything else.
pub fn file(txn: &dyn ReadTxn, ino: Ino) -> Result<InodeRow, OpError> {
    let row = inode(txn, ino)?;
    must_be_file(&row)?;
    Ok(row)
}

/// `is_directory` for a directory, `invalid_argument` for what is neither that nor a regular file.
pub fn must_be_file(row: &InodeRow) -> Result<(), OpError> {
    match row.kind {
        FileKind::File => Ok(()),
        FileKind::Directory => {
            refuse(ErrorCode::IsDirectory, format!("inode {} is a directory, not a file", row.ino))
        }
        FileKind::Symlink
        | FileKind::Fifo
        | FileKind::Socket
        | FileKind::CharDevice
        | FileKind::BlockDevice => {
            refuse(ErrorCode::InvalidArgument, format!("inode {} is not a regular file", row.ino))
        }
    }
}

/// The entry; `not_found` when there is none.
pub fn entry(txn: &dyn ReadTxn, parent: Ino, name: &Name) -> Result<DentryRow, OpError> {
    match txn.dentry(parent, name.as_bytes())? {
        Some(row) => Ok(row),
        None => refuse(ErrorCode::NotFound, format!("there is no `{name}` in directory {parent}")),
    }
}

/// The inode that an entry names. One without is damage, not a mistake of the caller.
pub fn named(txn: &dyn ReadTxn, dentry: &DentryRow) -> Result<InodeRow, OpError> {
    txn.inode(dentry.ino)?.ok_or_else(|| {
        let name = String::from_utf8_lossy(&dentry.name);
        let what = format!("entry {name:?} of directory {} names inode {}", dentry.parent, dentry.ino);
        StoreError::Corrupt(format!("{what}, which does not exist")).into()
    })
}

/// `exists` when the name is taken.
pub fn must_be_free(txn: &dyn ReadTxn, parent: Ino, name: &Name) -> Result<(), OpError> {
    match txn.dentry(parent, name.as_bytes())? {
        None => Ok(()),
        Some(_) => refuse(ErrorCode::Exists, format!("`{name}` is in directory {parent} already")),
    }
}
