//! The pool of reading connections.

use super::txn::Snapshot;
use crate::seam::{ReadTxn, StoreError};
use crate::store::{blocking, guarded};
use parking_lot::Mutex;
use rusqlite::Connection;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Reads that run at a time; more wait for their turn. Each costs a connection with its page cache.
pub(super) const READERS: usize = 4;

/// Connections that are free, and as many permits. A permit in hand, a connection is there, unless the pool
/// was closed.
pub(super) struct Readers {
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn open(connect: impl Fn() -> Result<Connection, StoreError>) -> Result<Readers, StoreError> {
        let idle = (0..READERS).map(|_| connect()).collect::<Result<_, _>>()?;
        Ok(Readers { idle: Mutex::new(idle), permits: Arc::new(Semaphore::new(READERS)) })
    }

    /// Runs `f` on a snapshot, where blocking is allowed.
    pub(super) async fn read<R, E>(
        self: Arc<Self>,
        f: impl FnOnce(&dyn ReadTxn) -> Result<R, E> + Send + 'static,
    ) -> Result<R, E>
    where
        R: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        blocking(move || {
            let db = self.idle.lock().pop().ok_or(StoreError::Closed)?;
            let result = in_snapshot(&db, f);
            self.give_back(db);
            drop(permit);
            result
        })
        .await
    }

    fn give_back(&self, db: Connection) {
        let mut idle = self.idle.lock();
        if !self.permits.is_closed() {
            idle.push(db);
        }
    }

    /// Closes the connections: idle ones now, others when their read ends.
    pub(super) fn close(&self) {
        let mut idle = self.idle.lock();
        self.permits.close();
        idle.clear();
    }
}

fn in_snapshot<R, E: From<StoreError>>(
    db: &Connection,
    f: impl FnOnce(&dyn ReadTxn) -> Result<R, E>,
) -> Result<R, E> {
    let snapshot = Snapshot::begin(db)?;
    let result = guarded(|| f(&snapshot));
    match snapshot.end() {
        Err(e) if result.is_ok() => Err(e.into()),
        _ => result,
    }
}
