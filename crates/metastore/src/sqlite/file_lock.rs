//! Advisory locks of files.

use super::statement::{Columns, all, any, key, run};
use super::totals::Totals;
use crate::check::number;
use crate::row::LockRow;
use crate::seam::StoreError;
use dfs_proto::{Ino, LockHolder, LockMode, LockOwner, LockRange, LockSpace, SessionId};
use rusqlite::{Connection, params};

const ACTION_FREE: &str = "free locks";

pub(super) fn of_inode(db: &Connection, ino: Ino) -> Result<Vec<LockRow>, StoreError> {
    const SQL: &str = "SELECT space, session, owner, first, last, mode, pid FROM file_lock WHERE ino = ?1 \
        ORDER BY space, session, owner, first";
    let Some(key) = key(ino.0) else { return Ok(Vec::new()) };
    all(db, "list locks", SQL, [key], |c| columns(c, ino))
}

fn columns(c: &mut Columns<'_>, ino: Ino) -> Result<LockRow, StoreError> {
    let space = space(c)?;
    let holder = LockHolder {
        session: SessionId(c.number()?),
        owner: LockOwner(u64::from_be_bytes(c.get()?)),
        range: LockRange { first: c.number()?, last: c.number()? },
        mode: mode(c)?,
        pid: c.number()?,
    };
    Ok(LockRow { ino, space, holder })
}

pub(super) fn put(db: &Connection, totals: &mut Totals, row: &LockRow) -> Result<(), StoreError> {
    const ACTION: &str = "write a lock";
    const THERE: &str = "SELECT 1 FROM file_lock WHERE ino = ?1 AND space = ?2 AND session = ?3 \
        AND owner = ?4 AND first = ?5";
    const SQL: &str = "REPLACE INTO file_lock (ino, space, session, owner, first, last, mode, pid) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let LockHolder { session, owner, range, mode, pid } = row.holder;
    let (ino, session) = (number("inode", row.ino.0)?, number("session", session.0)?);
    let first = number("first byte", range.first)?;
    let last = number("last byte", range.last)?;
    // Every bit of an owner is the client's: as bytes they keep the order that they have as a number.
    let (space, owner) = (space_code(row.space), owner.0.to_be_bytes());
    if !any(db, ACTION, THERE, params![ino, space, session, owner, first])? {
        totals.add_lock();
    }
    run(db, ACTION, SQL, params![ino, space, session, owner, first, last, mode_code(mode), pid]).map(drop)
}

pub(super) fn delete(db: &Connection, totals: &mut Totals, row: &LockRow) -> Result<(), StoreError> {
    const SQL: &str = "DELETE FROM file_lock WHERE ino = ?1 AND space = ?2 AND session = ?3 AND owner = ?4 \
        AND first = ?5";
    let LockHolder { session, owner, range, .. } = row.holder;
    let keys = (key(row.ino.0), key(session.0), key(range.first));
    let (Some(ino), Some(session), Some(first)) = keys else { return Ok(()) };
    let owner = owner.0.to_be_bytes();
    let gone = run(db, ACTION_FREE, SQL, params![ino, space_code(row.space), session, owner, first])?;
    totals.remove_locks(gone)
}

pub(super) fn delete_of_inode(db: &Connection, totals: &mut Totals, ino: i64) -> Result<(), StoreError> {
    // Looked for first, as nearly every inode that goes has none.
    if any(db, ACTION_FREE, "SELECT 1 FROM file_lock WHERE ino = ?1 LIMIT 1", [ino])? {
        totals.remove_locks(run(db, ACTION_FREE, "DELETE FROM file_lock WHERE ino = ?1", [ino])?)?;
    }
    Ok(())
}

/// Frees the locks of a session; answers whose they were, sorted.
pub(super) fn delete_of_session(
    db: &Connection,
    totals: &mut Totals,
    session: SessionId,
) -> Result<Vec<Ino>, StoreError> {
    const INODES: &str = "SELECT DISTINCT ino FROM file_lock WHERE session = ?1 ORDER BY ino";
    let Some(session) = key(session.0) else { return Ok(Vec::new()) };
    let inodes = all(db, ACTION_FREE, INODES, [session], |c| Ok(Ino(c.number()?)))?;
    totals.remove_locks(run(db, ACTION_FREE, "DELETE FROM file_lock WHERE session = ?1", [session])?)?;
    Ok(inodes)
}

fn space_code(space: LockSpace) -> i64 {
    match space {
        LockSpace::Range => 1,
        LockSpace::Whole => 2,
    }
}

fn space(c: &mut Columns<'_>) -> Result<LockSpace, StoreError> {
    Ok(match c.get()? {
        1 => LockSpace::Range,
        2 => LockSpace::Whole,
        other => return Err(c.meaningless(other)),
    })
}

fn mode_code(mode: LockMode) -> i64 {
    match mode {
        LockMode::Shared => 1,
        LockMode::Exclusive => 2,
    }
}

fn mode(c: &mut Columns<'_>) -> Result<LockMode, StoreError> {
    Ok(match c.get()? {
        1 => LockMode::Shared,
        2 => LockMode::Exclusive,
        other => return Err(c.meaningless(other)),
    })
}
