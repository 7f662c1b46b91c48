//! The handle that the master holds: runs closures in transactions of whichever store is behind it.

use crate::memory::Memory;
use crate::seam::{Durability, ReadTxn, StoreError, WriteTxn};
use crate::sqlite::Sqlite;
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

/// The metadata store. Cheap to clone; the last clone to go closes it.
#[derive(Clone)]
pub struct Store {
    backend: Backend,
}

#[derive(Clone)]
enum Backend {
    Memory(Arc<Memory>),
    Sqlite(Arc<Sqlite>),
}

impl Store {
    /// Opens the database at `path`, or makes it where there is none, in a directory that exists.
    ///
    /// Starts a thread that writes and one that syncs. Fails when another process (or another handle of this
    /// one) has the database open, when it is of another program or of a newer version of this one, and when
    /// the file system refuses. Blocks for the time of a recovery after a crash: less than a second.
    pub fn open_sqlite(path: &Path) -> Result<Store, StoreError> {
        Ok(Store { backend: Backend::Sqlite(Arc::new(Sqlite::open(path)?)) })
    }

    #[cfg(test)]
    pub(crate) fn from_sqlite(sqlite: Arc<Sqlite>) -> Store {
        Store { backend: Backend::Sqlite(sqlite) }
    }

    /// An empty store in memory: the reference implementation, for tests. It ends with its last clone.
    pub fn in_memory() -> Store {
        Store { backend: Backend::Memory(Arc::new(Memory::new())) }
    }

    /// Runs `f` on a snapshot: it sees every write that was answered before this call, and none that is
    /// answered while it runs. A panic in `f` is answered with [`StoreError::Failed`].
    pub async fn read<R, E>(
        &self,
        f: impl FnOnce(&dyn ReadTxn) -> Result<R, E> + Send + 'static,
    ) -> Result<R, E>
    where
        R: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        match &self.backend {
            Backend::Memory(memory) => {
                let memory = Arc::clone(memory);
                blocking(move || memory.read(f)).await
            }
            Backend::Sqlite(sqlite) => sqlite.read(f).await,
        }
    }

    /// [`Store::read`] for async workers that read a few rows: without another thread where that is possible.
    pub async fn read_here<R, E>(
        &self,
        f: impl FnOnce(&dyn ReadTxn) -> Result<R, E> + Send + 'static,
    ) -> Result<R, E>
    where
        R: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        match &self.backend {
            Backend::Memory(_) => self.read(f).await,
            Backend::Sqlite(sqlite) => sqlite.read_here(f).await,
        }
    }

    /// [`Store::write`] with [`Durability::Process`] for async workers that write a few rows: without another thread
    /// when nobody else writes.
    pub async fn write_here<R, E>(
        &self,
        f: impl FnOnce(&mut dyn WriteTxn) -> Result<R, E> + Send + 'static,
    ) -> Result<R, E>
    where
        R: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        match &self.backend {
            Backend::Memory(_) => self.write(Durability::Process, f).await,
            Backend::Sqlite(sqlite) => sqlite.write_here(f).await,
        }
    }

    /// Runs `f` in a transaction of its own and answers once that is as durable as asked.
    ///
    /// An `Err` from `f` undoes all of its writes. So does a panic, a savepoint left open, or a write that
    /// was refused with a [`StoreError`], even when `f` goes on and returns `Ok`: each is answered with a
    /// [`StoreError`]. `f` is run also when the future is dropped after the first poll.
    ///
    /// An error from the store itself leaves open whether the writes will be there after a restart.
    pub async fn write<R, E>(
        &self,
        durability: Durability,
        f: impl FnOnce(&mut dyn WriteTxn) -> Result<R, E> + Send + 'static,
    ) -> Result<R, E>
    where
        R: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        match &self.backend {
            Backend::Memory(memory) => {
                let memory = Arc::clone(memory);
                blocking(move || memory.write(f)).await
            }
            Backend::Sqlite(sqlite) => sqlite.write(durability, f).await,
        }
    }

    /// [`Store::read`] for threads that are no async workers (it panics on one).
    pub fn read_blocking<R, E>(
        &self,
        f: impl FnOnce(&dyn ReadTxn) -> Result<R, E> + Send + 'static,
    ) -> Result<R, E>
    where
        R: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        block_on(self.read(f))?
    }

    /// [`Store::write`] for threads that are no async workers (it panics on one).
    pub fn write_blocking<R, E>(
        &self,
        durability: Durability,
        f: impl FnOnce(&mut dyn WriteTxn) -> Result<R, E> + Send + 'static,
    ) -> Result<R, E>
    where
        R: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        block_on(self.write(durability, f))?
    }

    /// Writes a copy of all that was answered before this call to the new file `to`, which can be opened as a
    /// database of its own. Goes on beside reads and writes; blocks for as long as the bytes take. An error for a
    /// store in memory, which has no file.
    pub fn copy_to(&self, to: &Path) -> Result<(), StoreError> {
        match &self.backend {
            Backend::Memory(_) => {
                let reason = "it is in memory only".to_owned();
                Err(StoreError::Failed { action: "copy the database", reason })
            }
            Backend::Sqlite(sqlite) => sqlite.copy_to(to),
        }
    }

    /// Finishes the writes that have been asked for, brings everything into the database file and lets go of
    /// it. Whatever is asked for afterwards is answered with [`StoreError::Closed`]. Blocks until done.
    pub fn close(&self) {
        match &self.backend {
            Backend::Memory(memory) => memory.close(),
            Backend::Sqlite(sqlite) => sqlite.close(),
        }
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.backend {
            Backend::Memory(_) => f.write_str("Store(in memory)"),
            Backend::Sqlite(sqlite) => write!(f, "Store({})", sqlite.path().display()),
        }
    }
}

/// Runs a future to its end on this thread.
fn block_on<F: Future>(future: F) -> Result<F::Output, StoreError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let failed = |e: std::io::Error| StoreError::Failed { action: "wait", reason: e.to_string() };
    Ok(runtime.map_err(failed)?.block_on(future))
}

/// Runs `f` where blocking is allowed. It is only lost when the runtime shuts down.
pub(crate) async fn blocking<R, E>(f: impl FnOnce() -> Result<R, E> + Send + 'static) -> Result<R, E>
where
    R: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    tokio::task::spawn_blocking(f).await.unwrap_or_else(|_| Err(StoreError::Closed.into()))
}

/// Runs a closure of a caller so that its panic ends this transaction only.
pub(crate) fn guarded<R, E: From<StoreError>>(f: impl FnOnce() -> Result<R, E>) -> Result<R, E> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
        let reason = format!("it panicked: {}", message_of(panic.as_ref()));
        Err(StoreError::Failed { action: "run a transaction", reason }.into())
    })
}

fn message_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
