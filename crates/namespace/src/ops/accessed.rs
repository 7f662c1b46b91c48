//! `Accessed`: content was read (relatime). Nobody's cache is worth dropping for that, so nobody is told.

use super::commit::check_time;
use crate::error::OpError;
use crate::fetch;
use dfs_metastore::WriteTxn;
use dfs_proto::{Ino, MetaReply, Timestamp};

pub fn accessed(txn: &mut dyn WriteTxn, ino: Ino, atime: Timestamp) -> Result<MetaReply, OpError> {
    check_time(atime)?;
    let mut row = fetch::inode(txn, ino)?;
    if atime > row.atime {
        row.atime = atime;
        txn.put_inode(&row)?;
    }
    Ok(MetaReply::Done)
}
