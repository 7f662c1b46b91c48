//! `Extents`: a page of a file's extents. Also the page that `Open` answers with.

use crate::error::OpError;
use crate::fetch;
use dfs_metastore::ReadTxn;
use dfs_metastore::row::InodeRow;
use dfs_proto::limits::EXTENT_PAGE_MAX;
use dfs_proto::meta::ExtentPage;
use dfs_proto::{Ino, MetaReply};

pub fn extents(txn: &dyn ReadTxn, ino: Ino, from: u64, limit: u32) -> Result<MetaReply, OpError> {
    let row = fetch::file(txn, ino)?;
    Ok(MetaReply::Extents(page(txn, &row, from, limit)?))
}

/// The extents of `row` that end after `from`, at most `limit` and [`EXTENT_PAGE_MAX`].
pub fn page(txn: &dyn ReadTxn, row: &InodeRow, from: u64, limit: u32) -> Result<ExtentPage, OpError> {
    let limit = limit.min(EXTENT_PAGE_MAX);
    let mut extents = match row.allocated {
        0 => Vec::new(),
        // One more than asked for tells whether there is more. Beyond the size there is nothing, and the
        // bound keeps the offset within what a store can compare.
        _ => txn.extents(row.ino, from.min(row.size), limit + 1)?,
    };
    let end = extents.len() <= limit as usize;
    extents.truncate(limit as usize);
    Ok(ExtentPage { version: row.version, extents, end, volumes: Vec::new() })
}
