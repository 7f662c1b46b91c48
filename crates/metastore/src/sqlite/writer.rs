//! The writer thread: calls in, one transaction for as many as are waiting, answers out after the commit.

use super::lock::Lock;
use super::statement::run;
use super::txn::Group;
use super::wal::WalSync;
use crate::seam::{Durability, StoreError, WriteTxn};
use crate::store::guarded;
use parking_lot::Mutex;
use rusqlite::Connection;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// Calls that wait or run; more wait outside of the queue.
pub(super) const QUEUE_CALLS_MAX: usize = 1024;
/// Calls in one transaction.
const GROUP_CALLS_MAX: usize = 256;
/// A group takes in no further call after this long, so that a slow one does not hold up all others.
const GROUP_TIME_MAX: Duration = Duration::from_millis(20);

/// The way to the writer thread.
pub(super) struct Queue {
    permits: Arc<Semaphore>,
    /// `None` once closed. Locked for the time of a send only.
    sender: Mutex<Option<Sender<Box<dyn Call>>>>,
}

impl Queue {
    /// The queue and the writer's end of it.
    pub(super) fn new() -> (Queue, Receiver<Box<dyn Call>>) {
        let (sender, receiver) = channel();
        let permits = Arc::new(Semaphore::new(QUEUE_CALLS_MAX));
        (Queue { permits, sender: Mutex::new(Some(sender)) }, receiver)
    }

    /// Has the writer run `f`; answers after the commit.
    pub(super) async fn call<R, E>(
        &self,
        durability: Durability,
        f: impl FnOnce(&mut dyn WriteTxn) -> Result<R, E> + Send + 'static,
    ) -> Result<R, E>
    where
        R: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let call = Box::new(Waiting { durability, f: Some(f), result: None, reply, _permit: permit });
        let sent = self.sender.lock().as_ref().map(|sender| sender.send(call));
        let Some(Ok(())) = sent else { return Err(StoreError::Closed.into()) };
        answer.await.unwrap_or_else(|_| Err(StoreError::Closed.into()))
    }

    /// Takes no further calls; the writer ends after those that are queued.
    pub(super) fn close(&self) {
        self.permits.close();
        self.sender.lock().take();
    }
}

/// A closure with somebody who waits for its result.
pub(super) trait Call: Send {
    fn durability(&self) -> Durability;
    /// Runs the closure, once; says whether its writes are to stay.
    fn run(&mut self, txn: &mut dyn WriteTxn) -> bool;
    /// Sends the closure's result, or the store's error in its place.
    fn answer(self: Box<Self>, outcome: Result<(), StoreError>);
}

struct Waiting<F, R, E> {
    durability: Durability,
    f: Option<F>,
    result: Option<Result<R, E>>,
    reply: oneshot::Sender<Result<R, E>>,
    _permit: OwnedSemaphorePermit,
}

impl<F, R, E> Call for Waiting<F, R, E>
where
    F: FnOnce(&mut dyn WriteTxn) -> Result<R, E> + Send,
    R: Send,
    E: From<StoreError> + Send,
{
    fn durability(&self) -> Durability {
        self.durability
    }

    fn run(&mut self, txn: &mut dyn WriteTxn) -> bool {
        self.result = self.f.take().map(|f| guarded(|| f(txn)));
        matches!(self.result, Some(Ok(_)))
    }

    fn answer(self: Box<Self>, outcome: Result<(), StoreError>) {
        let result = match (outcome, self.result) {
            (Ok(()), Some(result)) => result,
            (Ok(()), None) => Err(StoreError::Closed.into()),
            (Err(e), _) => Err(e.into()),
        };
        // Nobody waits any more when the caller was cancelled; the writes stand all the same.
        let _ = self.reply.send(result);
    }
}

/// A call that has run, and why it was undone if the store did that.
type Done = (Box<dyn Call>, Result<(), StoreError>);

/// What the writer thread owns. The order of the fields is the order in which they are let go of: the
/// database is closed before its lock.
pub(super) struct Writer {
    db: Connection,
    calls: Receiver<Box<dyn Call>>,
    wal: WalSync,
    waiting: VecDeque<Box<dyn Call>>,
    _lock: Lock,
}

impl Writer {
    pub(super) fn new(db: Connection, calls: Receiver<Box<dyn Call>>, wal: WalSync, lock: Lock) -> Writer {
        Writer { db, calls, wal, waiting: VecDeque::new(), _lock: lock }
    }

    /// Runs until the queue is closed and empty.
    pub(super) fn run(mut self) {
        while self.gather() {
            self.run_group();
        }
        // Brings the WAL into the database, so that the next start has nothing to recover and a copy of the
        // one file is a backup. The WAL stays valid if it fails.
        if let Err(e) = self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
            log::warn!("the metadata store could not empty its WAL at the end: {e}");
        }
    }

    /// Waits for a call and takes in those that are behind it.
    fn gather(&mut self) -> bool {
        if self.waiting.is_empty() {
            let Ok(call) = self.calls.recv() else { return false };
            self.waiting.push_back(call);
        }
        let room = GROUP_CALLS_MAX.saturating_sub(self.waiting.len());
        self.waiting.extend(self.calls.try_iter().take(room));
        true
    }

    /// Runs what is waiting in one transaction, commits, makes it durable and answers everybody.
    fn run_group(&mut self) {
        let mut done = Vec::with_capacity(self.waiting.len());
        let outcome = self.wal.check().and_then(|()| self.commit_group(&mut done));
        let durability = done.iter().map(|(call, _)| call.durability()).max();
        let outcome = outcome.and_then(|()| match durability {
            Some(Durability::Disk) => self.wal.sync(),
            Some(Durability::Process) | None => Ok(()),
        });
        if let Err(e) = &outcome {
            log::error!("a group of writes to the metadata store is lost: {e}");
            self.roll_back();
            // Those that did not run get the error too: what fails for one transaction fails for the next.
            done.extend(self.waiting.drain(..).map(|call| (call, Ok(()))));
        }
        for (call, verdict) in done {
            call.answer(outcome.clone().and(verdict));
        }
    }

    /// Everything up to the commit. An error means that nothing of the group has happened.
    fn commit_group(&mut self, done: &mut Vec<Done>) -> Result<(), StoreError> {
        let mut group = Group::begin(&self.db)?;
        let began = Instant::now();
        while let Some(mut call) = self.waiting.pop_front() {
            let outcome = group.call(|txn| call.run(txn));
            let (verdict, lost) = match outcome {
                Ok(verdict) => (verdict, None),
                Err(lost) => (Ok(()), Some(lost)),
            };
            done.push((call, verdict));
            if let Some(lost) = lost {
                return Err(lost);
            }
            if began.elapsed() >= GROUP_TIME_MAX {
                break;
            }
        }
        group.commit()?;
        self.wal.committed();
        Ok(())
    }

    fn roll_back(&self) {
        if self.db.is_autocommit() {
            return;
        }
        if let Err(e) = run(&self.db, "undo a transaction", "ROLLBACK", []) {
            log::error!("{e}");
        }
    }
}
