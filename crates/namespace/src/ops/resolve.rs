//! `Resolve`: a walk from the root, one lookup after the other. Symbolic links are entries like any other: to
//! follow them is the business of whoever knows the mount point.

use crate::error::{OpError, refuse};
use crate::fetch;
use dfs_metastore::ReadTxn;
use dfs_proto::limits::PATH_BYTES_MAX;
use dfs_proto::{ErrorCode, Ino, MetaReply, Name};

pub fn resolve(txn: &dyn ReadTxn, path: &[Name]) -> Result<MetaReply, OpError> {
    let bytes: usize = path.iter().map(|name| name.as_bytes().len() + 1).sum();
    if bytes > PATH_BYTES_MAX {
        let message = format!("a path may have {PATH_BYTES_MAX} bytes, this one has {bytes}");
        return refuse(ErrorCode::NameTooLong, message);
    }
    let mut ino = Ino::ROOT;
    for name in path {
        fetch::directory(txn, ino)?;
        ino = fetch::entry(txn, ino, name)?.ino;
    }
    Ok(MetaReply::Attr(fetch::inode(txn, ino)?.attr()))
}
