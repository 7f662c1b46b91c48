//! `Unlink`: removes a name of what is no directory.

use crate::WriteContext;
use crate::directory::{delete_entry, touch};
use crate::error::{OpError, refuse};
use crate::{fetch, removal};
use dfs_metastore::WriteTxn;
use dfs_proto::{ErrorCode, FileKind, Ino, MetaReply, Name};

pub fn unlink(
    txn: &mut dyn WriteTxn,
    context: &mut WriteContext<'_>,
    parent: Ino,
    name: &Name,
) -> Result<MetaReply, OpError> {
    let mut directory = fetch::directory(txn, parent)?;
    let entry = fetch::entry(txn, parent, name)?;
    let row = fetch::named(txn, &entry)?;
    if row.kind == FileKind::Directory {
        let message = format!("`{name}` in directory {parent} is a directory; remove it as one");
        return refuse(ErrorCode::IsDirectory, message);
    }
    delete_entry(txn, context, parent, name)?;
    touch(&mut directory, context.now);
    txn.put_inode(&directory)?;
    Ok(MetaReply::Removed(removal::drop_name(txn, context, row)?))
}
