//! `ReadDir`: a page of entries with the attributes of what they name.
//!
//! A page begins after a cookie, whether or not an entry still has it. Cookies only grow, so a listing under
//! way meets each entry that stays exactly once, and those made meanwhile come last.

use crate::error::OpError;
use crate::fetch;
use dfs_metastore::row::{DentryRow, InodeRow};
use dfs_metastore::{ReadTxn, StoreError};
use dfs_proto::limits::DIR_PAGE_ENTRIES_MAX;
use dfs_proto::meta::{DirEntry, DirPage};
use dfs_proto::{DirCookie, Ino, MetaReply, Name};

pub fn readdir(txn: &dyn ReadTxn, ino: Ino, after: DirCookie, limit: u32) -> Result<MetaReply, OpError> {
    fetch::directory(txn, ino)?;
    let limit = limit.min(DIR_PAGE_ENTRIES_MAX);
    // One more than asked for tells whether there is more.
    let mut rows = txn.dentries(ino, after, limit + 1)?;
    let end = rows.len() <= limit as usize;
    rows.truncate(limit as usize);
    let entries = rows.into_iter().map(entry).collect::<Result<_, _>>()?;
    Ok(MetaReply::Dir(DirPage { entries, end }))
}

fn entry((dentry, inode): (DentryRow, InodeRow)) -> Result<DirEntry, OpError> {
    let parent = dentry.parent;
    let name = Name::new(dentry.name)
        .map_err(|e| StoreError::Corrupt(format!("a name in directory {parent} is not one: {e}")))?;
    Ok(DirEntry { name, cookie: dentry.cookie, attr: inode.attr() })
}
