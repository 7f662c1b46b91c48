//! `GetAttr`: works on inodes without a name as well, as long as somebody has them open.

use crate::error::OpError;
use crate::fetch;
use dfs_metastore::ReadTxn;
use dfs_proto::{Ino, MetaReply};

pub fn getattr(txn: &dyn ReadTxn, ino: Ino) -> Result<MetaReply, OpError> {
    Ok(MetaReply::Attr(fetch::inode(txn, ino)?.attr()))
}
