//! `Link`: another name for an inode that is no directory, or the first for one that was made without.
//!
//! A file that has lost its last name and is open still can be named again here. linkat(2) has that for files made
//! with O_TMPFILE only; the kernel, which knows which those are, sees to it.

use crate::WriteContext;
use crate::directory::{put_entry, touch};
use crate::error::{OpError, refuse};
use crate::fetch;
use dfs_metastore::WriteTxn;
use dfs_proto::limits::LINKS_MAX;
use dfs_proto::{ErrorCode, EventKind, FileKind, Ino, MetaReply, Name};

pub fn link(
    txn: &mut dyn WriteTxn,
    context: &mut WriteContext<'_>,
    ino: Ino,
    parent: Ino,
    name: &Name,
) -> Result<MetaReply, OpError> {
    let mut row = fetch::inode(txn, ino)?;
    let mut directory = fetch::directory(txn, parent)?;
    fetch::must_be_free(txn, parent, name)?;
    if row.kind == FileKind::Directory {
        return refuse(ErrorCode::NotPermitted, format!("directory {ino} cannot have a second name"));
    }
    if row.nlink >= LINKS_MAX {
        return refuse(ErrorCode::TooManyLinks, format!("inode {ino} has {LINKS_MAX} names already"));
    }
    if row.nlink == 0 {
        txn.delete_orphan(ino)?;
    }
    row.nlink += 1;
    row.ctime = context.now;
    txn.put_inode(&row)?;
    put_entry(txn, context, parent, name, ino, None)?;
    touch(&mut directory, context.now);
    txn.put_inode(&directory)?;
    context.changes.push(EventKind::Attr(ino));
    Ok(MetaReply::Attr(row.attr()))
}
