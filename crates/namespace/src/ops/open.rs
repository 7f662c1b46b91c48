//! `Open`: attributes, and the first extents when the caller does not have this version's.
//!
//! That the session now has the file open is noted by the caller of this crate, before it calls.

use super::extents;
use crate::error::OpError;
use crate::fetch;
use dfs_metastore::ReadTxn;
use dfs_proto::limits::EXTENT_PAGE_MAX;
use dfs_proto::meta::Opened;
use dfs_proto::{Ino, MetaReply, Version};

pub fn open(txn: &dyn ReadTxn, ino: Ino, known: Option<Version>) -> Result<MetaReply, OpError> {
    let row = fetch::file(txn, ino)?;
    let extents = match known {
        Some(known) if known == row.version => None,
        _ => Some(extents::page(txn, &row, 0, EXTENT_PAGE_MAX)?),
    };
    Ok(MetaReply::Opened(Opened { attr: row.attr(), extents, md5: row.md5 }))
}
