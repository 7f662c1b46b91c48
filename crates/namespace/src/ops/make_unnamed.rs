//! `MakeUnnamed`: an empty file that no directory has an entry for (O_TMPFILE).
//!
//! It is an orphan from the start. That the session has it open is noted by the caller of this crate in the same
//! transaction: otherwise the file could be reaped before its maker has heard of it.

use crate::WriteContext;
use crate::birth::{self, Wanted};
use crate::error::OpError;
use crate::fetch;
use dfs_metastore::WriteTxn;
use dfs_proto::meta::MakeUnnamed;
use dfs_proto::{FileKind, MetaReply};

pub fn make_unnamed(
    txn: &mut dyn WriteTxn,
    context: &mut WriteContext<'_>,
    make: &MakeUnnamed,
) -> Result<MetaReply, OpError> {
    let parent = fetch::directory(txn, make.parent)?;
    birth::check_number(txn, make.ino)?;

    let ino = birth::number(txn, make.ino)?;
    let MakeUnnamed { mode, umask, uid, gid, .. } = *make;
    let wanted = Wanted { kind: FileKind::File, mode, umask, uid, gid };
    let mut child = birth::child(txn, &parent, ino, wanted, context.now)?;
    child.row.nlink = 0;
    child.put(txn)?;
    txn.put_orphan(ino)?;
    Ok(MetaReply::Attr(child.row.attr()))
}
