//! Sessions, the kept results of their calls, and the settings of the cluster.

use super::statement::{all, bound, key, one, run};
use crate::check::number;
use crate::row::SessionRow;
use crate::seam::StoreError;
use dfs_proto::SessionId;
use rusqlite::{Connection, params};

pub(super) fn list(db: &Connection) -> Result<Vec<SessionRow>, StoreError> {
    const SQL: &str = "SELECT id, client FROM session ORDER BY id";
    all(db, "list sessions", SQL, [], |c| Ok(SessionRow { id: SessionId(c.number()?), client: c.get()? }))
}

pub(super) fn put(db: &Connection, row: &SessionRow) -> Result<(), StoreError> {
    const SQL: &str = "REPLACE INTO session (id, client) VALUES (?1, ?2)";
    run(db, "write a session", SQL, params![number("session", row.id.0)?, row.client]).map(drop)
}

/// Forgets the session and its results; its locks are another module's.
pub(super) fn delete(db: &Connection, id: SessionId) -> Result<(), StoreError> {
    const ACTION: &str = "forget a session";
    let Some(id) = key(id.0) else { return Ok(()) };
    run(db, ACTION, "DELETE FROM call_result WHERE session = ?1", [id])?;
    run(db, ACTION, "DELETE FROM session WHERE id = ?1", [id]).map(drop)
}

pub(super) fn result(db: &Connection, session: SessionId, seq: u64) -> Result<Option<Vec<u8>>, StoreError> {
    const SQL: &str = "SELECT result FROM call_result WHERE session = ?1 AND seq = ?2";
    let (Some(session), Some(seq)) = (key(session.0), key(seq)) else { return Ok(None) };
    one(db, "look up the result of a call", SQL, [session, seq], |c| c.get())
}

pub(super) fn put_result(
    db: &Connection,
    session: SessionId,
    seq: u64,
    result: &[u8],
) -> Result<(), StoreError> {
    const SQL: &str = "REPLACE INTO call_result (session, seq, result) VALUES (?1, ?2, ?3)";
    let (session, seq) = (number("session", session.0)?, number("call", seq)?);
    run(db, "keep the result of a call", SQL, params![session, seq, result]).map(drop)
}

pub(super) fn delete_results_below(db: &Connection, session: SessionId, seq: u64) -> Result<(), StoreError> {
    const SQL: &str = "DELETE FROM call_result WHERE session = ?1 AND seq <= ?2";
    let (Some(session), Some(last)) = (key(session.0), seq.checked_sub(1)) else { return Ok(()) };
    run(db, "forget results of calls", SQL, [session, bound(last)]).map(drop)
}

pub(super) fn setting(db: &Connection, name: &str) -> Result<Option<String>, StoreError> {
    one(db, "read a setting", "SELECT value FROM setting WHERE key = ?1", [name], |c| c.get())
}

pub(super) fn put_setting(db: &Connection, name: &str, value: &str) -> Result<(), StoreError> {
    run(db, "write a setting", "REPLACE INTO setting (key, value) VALUES (?1, ?2)", [name, value]).map(drop)
}
