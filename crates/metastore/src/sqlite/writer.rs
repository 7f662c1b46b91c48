//! Writing: calls in, one transaction for as many as are waiting, answers out after the commit.
//!
//! There is one [`Writer`], and a thread that runs what is queued for it. A small call that finds the writer idle is run
//! by its caller instead ([`Queue::call_here`]): handing it to the thread and back would take longer than carrying it
//! out. What the thread does beside that, moving the WAL into the database and waiting for the disk, no caller does.

use super::CHECKPOINT_PAGES;
use super::lock::Lock;
use super::statement::run;
use super::txn::Group;
use super::wal::WalSync;
use crate::seam::{Durability, StoreError, WriteTxn};
use crate::store::guarded;
use parking_lot::Mutex;
use rusqlite::{Connection, ffi};
use std::cell::Cell;
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

/// The way to the writer.
pub(super) struct Queue {
    permits: Arc<Semaphore>,
    /// `None` once closed. Locked for the time of a send only.
    sender: Mutex<Option<Sender<Message>>>,
    writer: Arc<SharedWriter>,
}

/// The writer, until the thread closes it. Locked for the time of a group.
type SharedWriter = Mutex<Option<Writer>>;

/// What the thread is sent.
enum Message {
    Call(Box<dyn Call>),
    /// The WAL is long enough to be moved into the database.
    MoveWal,
}

impl Queue {
    /// The queue, and the thread's end of it.
    pub(super) fn new(writer: Writer) -> (Queue, WriterThread) {
        let (sender, messages) = channel();
        let permits = Arc::new(Semaphore::new(QUEUE_CALLS_MAX));
        let writer = Arc::new(Mutex::new(Some(writer)));
        let thread = WriterThread { writer: Arc::clone(&writer), messages, waiting: VecDeque::new() };
        (Queue { permits, sender: Mutex::new(Some(sender)), writer }, thread)
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
        let (call, answer) = self.admit(durability, f).await?;
        if !self.send(Message::Call(call)) {
            return Err(StoreError::Closed.into());
        }
        answer.await.unwrap_or_else(|_| Err(StoreError::Closed.into()))
    }

    /// The same without waiting for the disk, on this thread if the writer is idle: for what takes less than a
    /// millisecond.
    pub(super) async fn call_here<R, E>(
        &self,
        f: impl FnOnce(&mut dyn WriteTxn) -> Result<R, E> + Send + 'static,
    ) -> Result<R, E>
    where
        R: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (call, answer) = self.admit(Durability::Process, f).await?;
        if !self.run_here(call) {
            return Err(StoreError::Closed.into());
        }
        answer.await.unwrap_or_else(|_| Err(StoreError::Closed.into()))
    }

    async fn admit<R, E>(
        &self,
        durability: Durability,
        f: impl FnOnce(&mut dyn WriteTxn) -> Result<R, E> + Send + 'static,
    ) -> Result<(Box<dyn Call>, oneshot::Receiver<Result<R, E>>), StoreError>
    where
        R: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|_| StoreError::Closed)?;
        let (reply, answer) = oneshot::channel();
        Ok((Box::new(Waiting { durability, f: Some(f), result: None, reply, _permit: permit }), answer))
    }

    /// Runs the call if the writer is idle, and has the thread run it if not; `false` when the store is closed.
    fn run_here(&self, call: Box<dyn Call>) -> bool {
        let Some(mut idle) = self.writer.try_lock() else { return self.send(Message::Call(call)) };
        let Some(writer) = &mut *idle else { return false };
        writer.run_group(&mut VecDeque::from([call]));
        if writer.wants_wal_moved() {
            // A thread that ends moves it in any case.
            self.send(Message::MoveWal);
        }
        true
    }

    fn send(&self, message: Message) -> bool {
        matches!(self.sender.lock().as_ref().map(|sender| sender.send(message)), Some(Ok(())))
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

/// What it takes to write. The order of the fields is the order in which they are let go of: the database is closed
/// before its lock.
pub(super) struct Writer {
    db: Connection,
    wal: WalSync,
    /// Whether the thread has been asked to move the WAL and has not done so.
    is_move_asked: bool,
    _lock: Lock,
}

thread_local! {
    /// Pages in the WAL after the last commit of this thread.
    static WAL_PAGES: Cell<u32> = const { Cell::new(0) };
}

/// SQLite calls it after each commit, on the thread that commits.
extern "C" fn note_wal_pages(
    _: *mut std::ffi::c_void,
    _: *mut ffi::sqlite3,
    _: *const std::ffi::c_char,
    pages: std::ffi::c_int,
) -> std::ffi::c_int {
    WAL_PAGES.set(u32::try_from(pages).unwrap_or(0));
    ffi::SQLITE_OK
}

impl Writer {
    pub(super) fn new(db: Connection, wal: WalSync, lock: Lock) -> Writer {
        // SAFETY: the connection is open, and the function may be called at any time, from any thread. It takes the
        // place of SQLite's own, which would move the WAL within a commit.
        unsafe { ffi::sqlite3_wal_hook(db.handle(), Some(note_wal_pages), std::ptr::null_mut()) };
        Writer { db, wal, is_move_asked: false, _lock: lock }
    }

    /// Runs what is waiting in one transaction, commits, makes it durable and answers everybody.
    fn run_group(&mut self, waiting: &mut VecDeque<Box<dyn Call>>) {
        let mut done = Vec::with_capacity(waiting.len());
        let outcome = self.wal.check().and_then(|()| self.commit_group(waiting, &mut done));
        let durability = done.iter().map(|(call, _)| call.durability()).max();
        let outcome = outcome.and_then(|()| match durability {
            Some(Durability::Disk) => self.wal.sync(),
            Some(Durability::Process) | None => Ok(()),
        });
        if let Err(e) = &outcome {
            log::error!("a group of writes to the metadata store is lost: {e}");
            self.roll_back();
            // Those that did not run get the error too: what fails for one transaction fails for the next.
            done.extend(waiting.drain(..).map(|call| (call, Ok(()))));
        }
        for (call, verdict) in done {
            call.answer(outcome.clone().and(verdict));
        }
    }

    /// Everything up to the commit. An error means that nothing of the group has happened.
    fn commit_group(
        &mut self,
        waiting: &mut VecDeque<Box<dyn Call>>,
        done: &mut Vec<Done>,
    ) -> Result<(), StoreError> {
        let mut group = Group::begin(&self.db)?;
        let began = Instant::now();
        while let Some(mut call) = waiting.pop_front() {
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

    /// Whether the thread has to be told, after a commit of this thread, that the WAL is long.
    fn wants_wal_moved(&mut self) -> bool {
        let is_long = WAL_PAGES.get() >= CHECKPOINT_PAGES;
        is_long && !std::mem::replace(&mut self.is_move_asked, true)
    }

    /// Moves the WAL into the database, as far as no reader needs it.
    fn move_wal(&mut self) {
        self.is_move_asked = false;
        WAL_PAGES.set(0);
        self.checkpoint("PRAGMA wal_checkpoint(PASSIVE)");
    }

    fn checkpoint(&self, how: &str) {
        // The WAL stays valid if it fails.
        if let Err(e) = self.db.query_row(how, [], |_| Ok(())) {
            log::warn!("the metadata store could not move its WAL into the database: {e}");
        }
    }
}

/// The thread that runs what is queued.
pub(super) struct WriterThread {
    writer: Arc<SharedWriter>,
    messages: Receiver<Message>,
    waiting: VecDeque<Box<dyn Call>>,
}

impl WriterThread {
    /// Runs until the queue is closed and empty; then closes the database.
    pub(super) fn run(mut self) {
        while self.gather() {
            let mut writer = self.writer.lock();
            let Some(writer) = &mut *writer else { return };
            if !self.waiting.is_empty() {
                writer.run_group(&mut self.waiting);
            }
            if writer.is_move_asked || WAL_PAGES.get() >= CHECKPOINT_PAGES {
                writer.move_wal();
            }
        }
        if let Some(writer) = self.writer.lock().take() {
            // So that the next start has nothing to recover and a copy of the one file is a backup.
            writer.checkpoint("PRAGMA wal_checkpoint(TRUNCATE)");
        }
    }

    /// Waits for a message and takes in the calls that are behind it.
    fn gather(&mut self) -> bool {
        if self.waiting.is_empty() {
            let Ok(message) = self.messages.recv() else { return false };
            self.take_in(message);
        }
        while self.waiting.len() < GROUP_CALLS_MAX
            && let Ok(message) = self.messages.try_recv()
        {
            self.take_in(message);
        }
        true
    }

    fn take_in(&mut self, message: Message) {
        match message {
            Message::Call(call) => self.waiting.push_back(call),
            // The writer knows.
            Message::MoveWal => {}
        }
    }
}
