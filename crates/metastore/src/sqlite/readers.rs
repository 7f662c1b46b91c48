//! The pool of reading connections.

use super::txn::Snapshot;
use crate::seam::{ReadTxn, StoreError};
use crate::store::{blocking, guarded};
use parking_lot::Mutex;
use rusqlite::Connection;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Reads that run at a time; more wait for their turn. Each costs a connection with its page cache.
pub(super) const READERS: usize = 4;

/// A read that takes longer has waited for the disk, or reads more than a few rows: either must not hold up those whom
/// the thread serves beside it.
pub(super) const HERE_MAX: Duration = Duration::from_millis(10);

/// So long reads are handed to other threads then.
const SLOW_FOR: Duration = Duration::from_millis(500);

/// Connections that are free, and as many permits. A permit in hand, a connection is there, unless the pool
/// was closed.
pub(super) struct Readers {
    idle: Mutex<Vec<Connection>>,
    permits: Arc<Semaphore>,
    /// Until then no read holds its caller's thread. Locked for a comparison only.
    slow_until: Mutex<Option<Instant>>,
}

impl Readers {
    pub(super) fn open(connect: impl Fn() -> Result<Connection, StoreError>) -> Result<Readers, StoreError> {
        let idle = (0..READERS).map(|_| connect()).collect::<Result<_, _>>()?;
        let permits = Arc::new(Semaphore::new(READERS));
        Ok(Readers { idle: Mutex::new(idle), permits, slow_until: Mutex::new(None) })
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

    /// The same on this thread, if a connection is idle and the disk has been fast of late: for what reads a few rows.
    /// Handing that to another thread would take longer than reading it.
    pub(super) async fn read_here<R, E>(
        self: Arc<Self>,
        f: impl FnOnce(&dyn ReadTxn) -> Result<R, E> + Send + 'static,
    ) -> Result<R, E>
    where
        R: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        // Asked before a connection is taken, which has to be given back.
        let idle = if self.is_slow() { None } else { self.take_idle() };
        let Some((permit, db)) = idle else { return self.read(f).await };
        let began = Instant::now();
        let result = in_snapshot(&db, f);
        self.give_back(db);
        drop(permit);
        self.note_time(began);
        result
    }

    fn take_idle(self: &Arc<Self>) -> Option<(OwnedSemaphorePermit, Connection)> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        let db = self.idle.lock().pop()?;
        Some((permit, db))
    }

    fn is_slow(&self) -> bool {
        self.slow_until.lock().is_some_and(|until| Instant::now() < until)
    }

    fn note_time(&self, began: Instant) {
        let now = Instant::now();
        if now.duration_since(began) > HERE_MAX {
            *self.slow_until.lock() = Some(now + SLOW_FOR);
        }
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
