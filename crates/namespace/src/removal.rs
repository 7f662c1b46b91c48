//! What happens to an inode that loses a name.

use crate::content;
use crate::error::OpError;
use crate::{WriteContext, fetch};
use dfs_metastore::WriteTxn;
use dfs_metastore::row::InodeRow;
use dfs_proto::meta::Removed;
use dfs_proto::{EventKind, Extent, Ino};

/// A file with more extents than this is not taken apart in the operation that removes its last name, which
/// would keep every other writer waiting, but by [`reap_orphan`] in pieces: 4 GiB in blobs of 4 MiB.
pub const TAKE_APART_EXTENTS_MAX: u32 = 1024;

/// Takes one name from an inode that is no directory. With the last one the inode goes, unless somebody has it
/// open.
pub fn drop_name(
    txn: &mut dyn WriteTxn,
    context: &mut WriteContext<'_>,
    mut row: InodeRow,
) -> Result<Removed, OpError> {
    row.nlink = row.nlink.saturating_sub(1);
    row.ctime = context.now;
    let removed = Removed { ino: row.ino, nlink: row.nlink };
    context.changes.push(EventKind::Attr(row.ino));
    if row.nlink > 0 {
        txn.put_inode(&row)?;
        return Ok(removed);
    }
    if (context.is_open)(row.ino) {
        txn.put_inode(&row)?;
        txn.put_orphan(row.ino)?;
        return Ok(removed);
    }
    if !take_apart(txn, context, &mut row, TAKE_APART_EXTENTS_MAX)? {
        txn.put_orphan(row.ino)?;
    }
    Ok(removed)
}

/// Takes an orphan apart: at most `extents_max` extents (at least one) of it per call, whose blobs become
/// garbage where nothing else refers to them. True when there is nothing left to do: the inode is gone, it is
/// no orphan, or somebody still has it open (ask again after the last close).
pub fn reap_orphan(
    txn: &mut dyn WriteTxn,
    context: &mut WriteContext<'_>,
    ino: Ino,
    extents_max: u32,
) -> Result<bool, OpError> {
    let mut row = match txn.inode(ino)? {
        Some(row) if row.nlink == 0 => row,
        Some(_) | None => {
            txn.delete_orphan(ino)?;
            return Ok(true);
        }
    };
    if !fetch::is_condemned(&row) && (context.is_open)(ino) {
        return Ok(true);
    }
    let finished = take_apart(txn, context, &mut row, extents_max.max(1))?;
    if finished {
        txn.delete_orphan(ino)?;
    }
    Ok(finished)
}

/// Removes the inode when it has at most `extents_max` extents. With more it is condemned (see the crate's
/// documentation) and loses so many of them. True when it is gone.
fn take_apart(
    txn: &mut dyn WriteTxn,
    context: &mut WriteContext<'_>,
    row: &mut InodeRow,
    extents_max: u32,
) -> Result<bool, OpError> {
    let mut extents = match row.allocated {
        0 => Vec::new(),
        _ => txn.extents(row.ino, 0, extents_max.saturating_add(1))?,
    };
    let finished = extents.len() <= extents_max as usize;
    extents.truncate(extents_max as usize);
    delete_extents(txn, context, row.ino, &extents)?;
    if finished {
        delete_inode(txn, context, row.ino)?;
        return Ok(true);
    }
    row.allocated -= extents.iter().map(|extent| extent.length).sum::<u64>();
    row.size = 0;
    row.md5 = None;
    row.version = row.version.next();
    txn.put_inode(row)?;
    Ok(false)
}

/// Removes an inode that has no extents; its locks are free then.
pub fn delete_inode(txn: &mut dyn WriteTxn, context: &mut WriteContext<'_>, ino: Ino) -> Result<(), OpError> {
    if !txn.locks(ino)?.is_empty() {
        context.changes.push(EventKind::Unlocked(ino));
    }
    Ok(txn.delete_inode(ino)?)
}

fn delete_extents(
    txn: &mut dyn WriteTxn,
    context: &WriteContext<'_>,
    ino: Ino,
    extents: &[Extent],
) -> Result<(), OpError> {
    for extent in extents {
        txn.delete_extent(ino, extent.offset)?;
    }
    content::release(txn, context.now, extents.iter().filter_map(|extent| extent.blob))
}
