//! The attributes `system.posix_acl_access` and `system.posix_acl_default` (acl(5)).
//!
//! As Linux has them: setting and removing pay no heed to XATTR_CREATE and XATTR_REPLACE, a list without entries
//! removes, and removing what is not there succeeds.

use super::xattr::finish;
use crate::WriteContext;
use crate::access::{self, Which};
use crate::acl::{Acl, PERMISSIONS};
use crate::error::{OpError, refuse};
use crate::mode::SET_GID;
use dfs_metastore::WriteTxn;
use dfs_metastore::row::InodeRow;
use dfs_proto::{ErrorCode, FileKind, MetaReply};

/// Refuses what is about a list of an inode that can have none.
pub fn check_kind(row: &InodeRow) -> Result<(), OpError> {
    match row.kind {
        FileKind::Symlink => {
            refuse(ErrorCode::NotSupported, format!("symbolic link {} has no access control list", row.ino))
        }
        FileKind::File
        | FileKind::Directory
        | FileKind::Fifo
        | FileKind::Socket
        | FileKind::CharDevice
        | FileKind::BlockDevice => Ok(()),
    }
}

pub fn set(
    txn: &mut dyn WriteTxn,
    context: &mut WriteContext<'_>,
    mut row: InodeRow,
    which: Which,
    value: &[u8],
    drops_set_gid: bool,
) -> Result<MetaReply, OpError> {
    check_kind(&row)?;
    let list = match Acl::parse(value) {
        Ok(Some(list)) => list,
        Ok(None) => return remove(txn, context, row, which),
        Err(why) => {
            return refuse(ErrorCode::InvalidArgument, format!("the list for inode {} {why}", row.ino));
        }
    };
    match which {
        Which::Access => {
            row.mode = (row.mode & !PERMISSIONS) | list.permissions();
            if drops_set_gid {
                row.mode &= !SET_GID;
            }
            let says_more = Some(&list).filter(|list| !list.is_mode_alone());
            access::store(txn, &mut row, which, says_more)?;
        }
        Which::Default if row.kind != FileKind::Directory => {
            // EACCES on Linux, which its kernel gives without asking anybody.
            let message = format!("only directories have a default list, inode {} is none", row.ino);
            return refuse(ErrorCode::NotPermitted, message);
        }
        Which::Default => access::store(txn, &mut row, which, Some(&list))?,
    }
    finish(txn, context, row)
}

/// The mode stays as it is: its permission bits are those that went with the list.
pub fn remove(
    txn: &mut dyn WriteTxn,
    context: &mut WriteContext<'_>,
    mut row: InodeRow,
    which: Which,
) -> Result<MetaReply, OpError> {
    check_kind(&row)?;
    if txn.xattr(row.ino, which.attribute())?.is_none() {
        return Ok(MetaReply::Done);
    }
    access::store(txn, &mut row, which, None)?;
    finish(txn, context, row)
}
