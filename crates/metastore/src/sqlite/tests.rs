//! What only the store on disk promises.

use parking_lot::Mutex;
use std::collections::BTreeSet;

static STATEMENTS: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// Called with every statement that any test runs.
pub(super) fn note_statement(sql: &'static str) {
    STATEMENTS.lock().insert(sql);
}
