//! `Lookup`: one name in one directory.

use crate::error::OpError;
use crate::fetch;
use dfs_metastore::ReadTxn;
use dfs_proto::{Ino, MetaReply, Name};

pub fn lookup(txn: &dyn ReadTxn, parent: Ino, name: &Name) -> Result<MetaReply, OpError> {
    fetch::directory(txn, parent)?;
    let entry = fetch::entry(txn, parent, name)?;
    Ok(MetaReply::Attr(fetch::named(txn, &entry)?.attr()))
}
