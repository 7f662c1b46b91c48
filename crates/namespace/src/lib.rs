//! What operations on files and directories mean.
//!
//! Owns the semantics of the namespace: which operation gives which error, what it changes, and what must hold
//! of the rows afterwards. One operation per file under `ops`, plain synchronous functions over the row
//! primitives of [`dfs_metastore`]. `dfs_proto::meta` is the contract that they fulfil.
//!
//! It must not know HTTP, SQL, sessions, nodes or placement. Who has a file open and what time it is are handed
//! in with [`WriteContext`]; permissions are checked by the kernel that mounts, so there are none here.
//!
//! # What holds after every operation
//!
//! - Every inode is the root, has as many entries as its `nlink` says (a directory one entry, and `nlink` is
//!   2 + its subdirectories), or is on the list of orphans with `nlink` 0.
//! - A directory's `parent` is the directory that holds its entry; walking up ends at the root.
//! - The permission bits of a mode are those that go with the inode's access control list, if it has one.
//! - Extents of a file are sorted, do not overlap, lie within `size`, all have a blob, and their lengths add up
//!   to `allocated`. No two neighbours could be one ([`dfs_proto::Extent::continues_with`]) where a commit
//!   brought them together.
//! - A blob that was ever committed is referred to by an extent or is on the garbage list, never both.
//! - An operation that fails has written nothing and announced nothing.
//!
//! # Announcements
//!
//! Each change is pushed to [`WriteContext::changes`]. `Entry { parent, .. }` also says that the attributes of
//! `parent` (times, version, link count) have changed; there is no `Attr(parent)` beside it. An inode that is
//! new is announced by its entry alone.
//!
//! # Orphans
//!
//! A file that loses its last name while it is open keeps its row and its extents, as an orphan, until
//! [`reap_orphan`] is called for it. One that was made without a name is an orphan from the start. A link gives
//! either a name (again) as long as it is there. One that nobody has open but that has more extents than one transaction
//! should take apart becomes an orphan too, and *condemned*: its size is set to 0 while it still has extents,
//! which no other file ever shows. For every operation a condemned inode is gone already, so nobody sees a
//! half-removed file.

mod access;
mod acl;
mod birth;
mod collision;
mod content;
mod directory;
mod error;
mod fetch;
mod layer;
mod locks;
mod mode;
mod ops;
mod removal;
#[cfg(test)]
mod tests;

pub use error::OpError;
pub use ops::lock::blockers;
pub use removal::{TAKE_APART_EXTENTS_MAX, reap_orphan};

use dfs_metastore::{ReadTxn, StoreError, WriteTxn};
use dfs_proto::meta::{ReadOp, WriteOp};
use dfs_proto::{EventKind, Ino, MetaReply, SessionId, Timestamp};

/// What a write is told about the world, and where it says what it changed.
pub struct WriteContext<'a> {
    /// The master's clock.
    pub now: Timestamp,
    /// Who writes, and holds the locks that are taken. Who has no session cannot lock.
    pub session: Option<SessionId>,
    /// Whether any session has the inode open.
    pub is_open: &'a dyn Fn(Ino) -> bool,
    /// Receives what changed, in order. Left as it was when the operation fails.
    pub changes: &'a mut Vec<EventKind>,
}

/// Makes the root directory (mode 0755, owned by 0:0) if it is missing.
pub fn initialise(txn: &mut dyn WriteTxn, now: Timestamp) -> Result<(), StoreError> {
    match txn.inode(Ino::ROOT)? {
        Some(_) => Ok(()),
        None => txn.put_inode(&birth::root(now)),
    }
}

/// Carries out an operation that reads. In pages of extents `volumes` is left empty: where volumes are is not
/// known here. `session` is who reads: its own locks are not in its way.
pub fn read(txn: &dyn ReadTxn, session: Option<SessionId>, op: &ReadOp) -> Result<MetaReply, OpError> {
    match op {
        ReadOp::Lookup { parent, name } => ops::lookup::lookup(txn, *parent, name),
        ReadOp::Resolve { path } => ops::resolve::resolve(txn, path),
        ReadOp::GetAttr { ino } => ops::getattr::getattr(txn, *ino),
        ReadOp::ReadLink { ino } => ops::readlink::readlink(txn, *ino),
        ReadOp::ReadDir { ino, after, limit } => ops::readdir::readdir(txn, *ino, *after, *limit),
        ReadOp::Open { ino, known } => ops::open::open(txn, *ino, *known),
        ReadOp::Extents { ino, from, limit } => ops::extents::extents(txn, *ino, *from, *limit),
        ReadOp::GetXattr { ino, name } => ops::xattr::get(txn, *ino, name),
        ReadOp::ListXattr { ino } => ops::xattr::list(txn, *ino),
        ReadOp::TestLock(request) => ops::lock::test(txn, session, request),
    }
}

/// Carries out an operation that writes. Everything is checked before the first row is written; should the
/// store itself fail half-way, the caller's savepoint undoes the rest.
pub fn write(
    txn: &mut dyn WriteTxn,
    context: &mut WriteContext<'_>,
    op: &WriteOp,
) -> Result<MetaReply, OpError> {
    let announced = context.changes.len();
    let result = dispatch(txn, context, op);
    if result.is_err() {
        context.changes.truncate(announced);
    }
    result
}

fn dispatch(
    txn: &mut dyn WriteTxn,
    context: &mut WriteContext<'_>,
    op: &WriteOp,
) -> Result<MetaReply, OpError> {
    match op {
        WriteOp::Make(make) => ops::make::make(txn, context, make),
        WriteOp::Commit(commit) => ops::commit::commit(txn, context, commit),
        WriteOp::SetAttr { ino, changes } => ops::setattr::setattr(txn, context, *ino, changes),
        WriteOp::Link { ino, parent, name } => ops::link::link(txn, context, *ino, *parent, name),
        WriteOp::Unlink { parent, name } => ops::unlink::unlink(txn, context, *parent, name),
        WriteOp::Rmdir { parent, name } => ops::rmdir::rmdir(txn, context, *parent, name),
        WriteOp::Rename(rename) => ops::rename::rename(txn, context, rename),
        WriteOp::MakeUnnamed(make) => ops::make_unnamed::make_unnamed(txn, context, make),
        WriteOp::Clone(clone) => ops::clone::clone(txn, context, clone),
        WriteOp::Accessed { ino, atime } => ops::accessed::accessed(txn, *ino, *atime),
        WriteOp::Lock { request, wait } => ops::lock::lock(txn, context, request, *wait),
        WriteOp::Unlock { ino, space, owner, range } => {
            ops::lock::unlock(txn, context, *ino, *space, *owner, *range)
        }
        WriteOp::SetXattr { ino, name, value, mode, drops_set_gid } => {
            let attribute = ops::xattr::NewValue { name, value, mode: *mode, drops_set_gid: *drops_set_gid };
            ops::xattr::set(txn, context, *ino, attribute)
        }
        WriteOp::RemoveXattr { ino, name } => ops::xattr::remove(txn, context, *ino, name),
        // What it asks for is the caller's: to commit this transaction to disk.
        WriteOp::Sync => Ok(MetaReply::Done),
    }
}
