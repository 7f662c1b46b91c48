//! `Lock`, `Unlock` and `TestLock`: advisory locks, on inodes of every kind.
//!
//! Nothing waits here. Who is blocked, waits and tries again; who waits for whom is known to the caller of this
//! crate, which asks for it with [`blockers`].

use crate::WriteContext;
use crate::error::{OpError, refuse};
use crate::fetch;
use crate::locks::{self, Change, Owner, owner_of};
use dfs_metastore::row::LockRow;
use dfs_metastore::{ReadTxn, WriteTxn};
use dfs_proto::limits::LOCKS_PER_FILE_MAX;
use dfs_proto::{
    ErrorCode, EventKind, Ino, LockHolder, LockOwner, LockRange, LockRequest, LockSpace, Locked, MetaReply,
    SessionId,
};

/// Holders that a blocked caller is told; one is enough to explain the wait.
const HOLDERS_TOLD_MAX: usize = 64;

/// The first lock in the way. A caller without a session has none itself.
pub fn test(
    txn: &dyn ReadTxn,
    session: Option<SessionId>,
    request: &LockRequest,
) -> Result<MetaReply, OpError> {
    locks::check_range(request.space, request.range)?;
    must_be_there(txn, request.ino)?;
    let rows = txn.locks(request.ino)?;
    // No session has the number 0.
    let who = (session.unwrap_or_default(), request.owner);
    let first = in_the_way(&rows, who, request).min_by_key(|holder| holder.range.first);
    Ok(MetaReply::Lock(first.copied()))
}

pub fn lock(
    txn: &mut dyn WriteTxn,
    context: &mut WriteContext<'_>,
    request: &LockRequest,
    wait: bool,
) -> Result<MetaReply, OpError> {
    let who = (holder_session(context)?, request.owner);
    locks::check_range(request.space, request.range)?;
    must_be_there(txn, request.ino)?;
    let rows = txn.locks(request.ino)?;
    let own = own_locks(&rows, request.space, who);
    let blockers: Vec<LockHolder> = in_the_way(&rows, who, request).take(HOLDERS_TOLD_MAX).copied().collect();
    if !blockers.is_empty() {
        // flock(2): a conversion gives up the old lock first, else two that both wait to have their shared lock
        // made exclusive would wait for ever. Who does not wait keeps it.
        if wait && request.space == LockSpace::Whole {
            carry_out(txn, context, request.ino, request.space, locks::free(&own, request.range))?;
        }
        return Ok(MetaReply::Locked(Locked::Blocked(blockers)));
    }
    let change = locks::take(&own, who, request);
    must_have_room(request.ino, rows.len(), &change)?;
    carry_out(txn, context, request.ino, request.space, change)?;
    Ok(MetaReply::Locked(Locked::Granted))
}

pub fn unlock(
    txn: &mut dyn WriteTxn,
    context: &mut WriteContext<'_>,
    ino: Ino,
    space: LockSpace,
    owner: LockOwner,
    range: LockRange,
) -> Result<MetaReply, OpError> {
    let who = (holder_session(context)?, owner);
    locks::check_range(space, range)?;
    let rows = txn.locks(ino)?;
    let own = own_locks(&rows, space, who);
    let change = locks::free(&own, range);
    must_have_room(ino, rows.len(), &change)?;
    carry_out(txn, context, ino, space, change)?;
    Ok(MetaReply::Done)
}

/// All locks that keep the session from having what it asks for.
pub fn blockers(
    txn: &dyn ReadTxn,
    session: SessionId,
    request: &LockRequest,
) -> Result<Vec<LockHolder>, OpError> {
    let rows = txn.locks(request.ino)?;
    Ok(in_the_way(&rows, (session, request.owner), request).copied().collect())
}

fn in_the_way<'a>(
    rows: &'a [LockRow],
    who: Owner,
    request: &'a LockRequest,
) -> impl Iterator<Item = &'a LockHolder> {
    let LockRequest { space, range, mode, .. } = *request;
    let of_space = rows.iter().filter(move |row| row.space == space).map(|row| &row.holder);
    of_space.filter(move |holder| locks::is_in_the_way(holder, who, range, mode))
}

/// In the order of the store: by first byte.
fn own_locks(rows: &[LockRow], space: LockSpace, who: Owner) -> Vec<LockHolder> {
    let own = rows.iter().filter(|row| row.space == space && owner_of(&row.holder) == who);
    own.map(|row| row.holder).collect()
}

fn carry_out(
    txn: &mut dyn WriteTxn,
    context: &mut WriteContext<'_>,
    ino: Ino,
    space: LockSpace,
    change: Change,
) -> Result<(), OpError> {
    for holder in change.gone {
        txn.delete_lock(&LockRow { ino, space, holder })?;
    }
    for holder in change.put {
        txn.put_lock(&LockRow { ino, space, holder })?;
    }
    if change.weakens {
        context.changes.push(EventKind::Unlocked(ino));
    }
    Ok(())
}

fn holder_session(context: &WriteContext<'_>) -> Result<SessionId, OpError> {
    match context.session {
        Some(session) => Ok(session),
        None => refuse(ErrorCode::SessionExpired, "a lock is held by a session; open one"),
    }
}

/// `stale` when the inode is gone: locks are asked for by who has the file open.
fn must_be_there(txn: &dyn ReadTxn, ino: Ino) -> Result<(), OpError> {
    match txn.inode(ino)? {
        Some(row) if !fetch::is_condemned(&row) => Ok(()),
        _ => refuse(ErrorCode::Stale, format!("inode {ino} is gone; it cannot be locked")),
    }
}

/// `too_many_locks` when the file would have more than it may. A change that makes them no more is always possible.
fn must_have_room(ino: Ino, count: usize, change: &Change) -> Result<(), OpError> {
    if change.grows_by > 0 && count + change.grows_by > LOCKS_PER_FILE_MAX {
        let message = format!("inode {ino} has {count} locks; {LOCKS_PER_FILE_MAX} are possible");
        return refuse(ErrorCode::TooManyLocks, message);
    }
    Ok(())
}
