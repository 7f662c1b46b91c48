//! Running statements: cached, with errors of the seam, and rows read column by column.

use crate::check::NUMBER_MAX;
use crate::seam::StoreError;
use dfs_proto::{Md5, Timestamp};
use rusqlite::ffi::ErrorCode;
use rusqlite::types::FromSql;
use rusqlite::{Connection, Params, Row, Statement};

/// What SQLite says, in the words of the seam.
pub(super) fn failed(action: &'static str, e: rusqlite::Error) -> StoreError {
    match e.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            StoreError::Corrupt(format!("to {action}: {e}"))
        }
        _ => StoreError::Failed { action, reason: e.to_string() },
    }
}

/// A number as a key to look for: `None` when it is too large for any row to have it.
pub(super) fn key(value: u64) -> Option<i64> {
    i64::try_from(value).ok()
}

/// A number as a bound to compare with: no row has more than the largest.
pub(super) fn bound(value: u64) -> i64 {
    value.min(NUMBER_MAX) as i64
}

/// Runs a statement that gives no rows; answers how many it changed.
pub(super) fn run(
    db: &Connection,
    action: &'static str,
    sql: &'static str,
    params: impl Params,
) -> Result<usize, StoreError> {
    prepared(db, action, sql, |statement| statement.execute(params).map_err(|e| failed(action, e)))
}

/// The first row of a query.
pub(super) fn one<T>(
    db: &Connection,
    action: &'static str,
    sql: &'static str,
    params: impl Params,
    read: impl FnOnce(&mut Columns<'_>) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    prepared(db, action, sql, |statement| {
        let mut rows = statement.query(params).map_err(|e| failed(action, e))?;
        let row = rows.next().map_err(|e| failed(action, e))?;
        row.map(|row| read(&mut Columns { row, next: 0, action })).transpose()
    })
}

/// Whether a query gives any row.
pub(super) fn any(
    db: &Connection,
    action: &'static str,
    sql: &'static str,
    params: impl Params,
) -> Result<bool, StoreError> {
    Ok(one(db, action, sql, params, |_| Ok(()))?.is_some())
}

/// All rows of a query; the statement has the limit.
pub(super) fn all<T>(
    db: &Connection,
    action: &'static str,
    sql: &'static str,
    params: impl Params,
    read: impl Fn(&mut Columns<'_>) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    prepared(db, action, sql, |statement| {
        let mut rows = statement.query(params).map_err(|e| failed(action, e))?;
        let mut out = Vec::new();
        while let Some(row) = rows.next().map_err(|e| failed(action, e))? {
            out.push(read(&mut Columns { row, next: 0, action })?);
        }
        Ok(out)
    })
}

fn prepared<T>(
    db: &Connection,
    action: &'static str,
    sql: &'static str,
    f: impl FnOnce(&mut Statement<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    #[cfg(test)]
    super::tests::note_statement(sql);
    f(&mut *db.prepare_cached(sql).map_err(|e| failed(action, e))?)
}

/// A row, read from left to right.
pub(super) struct Columns<'r> {
    row: &'r Row<'r>,
    next: usize,
    action: &'static str,
}

impl Columns<'_> {
    /// The next column as it is.
    pub(super) fn get<T: FromSql>(&mut self) -> Result<T, StoreError> {
        self.next += 1;
        self.row.get(self.next - 1).map_err(|e| StoreError::Corrupt(format!("to {}: {e}", self.action)))
    }

    /// The next column as a number that must fit.
    pub(super) fn number<T: TryFrom<i64>>(&mut self) -> Result<T, StoreError> {
        let value: i64 = self.get()?;
        T::try_from(value).map_err(|_| {
            StoreError::Corrupt(format!("to {}: column {} cannot be {value}", self.action, self.next))
        })
    }

    /// The next two columns as seconds and nanoseconds.
    pub(super) fn timestamp(&mut self) -> Result<Timestamp, StoreError> {
        Ok(Timestamp { secs: self.get()?, nanos: self.number()? })
    }

    /// The next column as a digest.
    pub(super) fn md5(&mut self) -> Result<Md5, StoreError> {
        self.get().map(Md5)
    }

    /// What to say about a value of the last column that stands for nothing.
    pub(super) fn meaningless(&self, value: i64) -> StoreError {
        StoreError::Corrupt(format!("to {}: {value} in column {} means nothing", self.action, self.next))
    }
}
