//! `Rmdir`: removes an empty directory, at once, whether or not somebody has it open.

use crate::WriteContext;
use crate::directory::{delete_entry, must_be_empty, touch};
use crate::error::{OpError, refuse};
use crate::{fetch, removal};
use dfs_metastore::WriteTxn;
use dfs_proto::meta::Removed;
use dfs_proto::{ErrorCode, EventKind, FileKind, Ino, MetaReply, Name};

pub fn rmdir(
    txn: &mut dyn WriteTxn,
    context: &mut WriteContext<'_>,
    parent: Ino,
    name: &Name,
) -> Result<MetaReply, OpError> {
    let mut directory = fetch::directory(txn, parent)?;
    let entry = fetch::entry(txn, parent, name)?;
    let row = fetch::named(txn, &entry)?;
    if row.kind != FileKind::Directory {
        let message = format!("`{name}` in directory {parent} is not a directory");
        return refuse(ErrorCode::NotDirectory, message);
    }
    must_be_empty(txn, &row)?;
    delete_entry(txn, context, parent, name)?;
    directory.nlink = directory.nlink.saturating_sub(1);
    touch(&mut directory, context.now);
    txn.put_inode(&directory)?;
    removal::delete_inode(txn, context, row.ino)?;
    context.changes.push(EventKind::Attr(row.ino));
    Ok(MetaReply::Removed(Removed { ino: row.ino, nlink: 0 }))
}
