//! `ReadLink`: the target of a symbolic link, as it was given.

use crate::error::{OpError, refuse};
use crate::fetch;
use dfs_metastore::{ReadTxn, StoreError};
use dfs_proto::{ErrorCode, FileKind, Ino, MetaReply};

pub fn readlink(txn: &dyn ReadTxn, ino: Ino) -> Result<MetaReply, OpError> {
    let row = fetch::inode(txn, ino)?;
    if row.kind != FileKind::Symlink {
        return refuse(ErrorCode::InvalidArgument, format!("inode {ino} is not a symbolic link"));
    }
    match txn.symlink(ino)? {
        Some(target) => Ok(MetaReply::Target(target.into())),
        None => Err(StoreError::Corrupt(format!("symbolic link {ino} has no target")).into()),
    }
}
