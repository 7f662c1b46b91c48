//! A copy of the database while it is in use.

use super::statement::failed;
use crate::seam::StoreError;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};
use std::path::Path;

/// All pages in one step: the copy is of one moment, however much is written meanwhile. In WAL mode that holds up
/// nobody; only the WAL grows until it is done.
const ALL_PAGES: i32 = -1;

/// Writes a copy of the database at `from` to the new file `to`. Blocks for as long as the bytes take.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), StoreError> {
    let action = "copy the database";
    let copy = || -> rusqlite::Result<StepResult> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let source = Connection::open_with_flags(from, flags)?;
        let mut target = Connection::open(to)?;
        let step = Backup::new(&source, &mut target)?.step(ALL_PAGES)?;
        // A copy that is one file, without a WAL beside it.
        target.pragma_update(None, "journal_mode", "DELETE")?;
        Ok(step)
    };
    match copy().map_err(|e| failed(action, e))? {
        StepResult::Done => Ok(()),
        other => Err(StoreError::Failed { action, reason: format!("it ended with {other:?}") }),
    }
}
