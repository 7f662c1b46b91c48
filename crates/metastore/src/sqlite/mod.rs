//! The store on disk: one SQLite database in WAL mode.
//!
//! One writes at a time ([`writer`]), a few connections read ([`readers`]), one thread keeps the promise that
//! commits are on the disk soon ([`wal`]). One module per noun has the SQL of its tables. The only part of
//! the project that names `rusqlite`.
//!
//! Memory is bounded whatever the size of the namespace: by the page caches ([`WRITER_CACHE_KIB`],
//! [`READER_CACHE_KIB`]), the calls in the queue ([`writer::QUEUE_CALLS_MAX`]) and the limits that callers
//! give for what they read. The database is not mapped into memory, so that a bad sector is an error and not
//! the end of the process.

mod attached;
mod backup;
mod cluster;
mod dentry;
mod extent;
mod file_lock;
mod inode;
mod lock;
mod readers;
mod schema;
mod session;
mod statement;
#[cfg(test)]
mod tests;
mod totals;
mod txn;
mod waiting;
mod wal;
mod writer;

use crate::seam::{Durability, ReadTxn, StoreError, WriteTxn};
use lock::Lock;
use parking_lot::Mutex;
use readers::Readers;
use rusqlite::{Connection, OpenFlags};
use schema::Found;
use statement::failed;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use wal::WalSync;
use writer::{Queue, Writer};

/// Page cache of the writer. With those of the readers it makes 64 MiB.
const WRITER_CACHE_KIB: u32 = 32 << 10;
/// Page cache of each reader.
const READER_CACHE_KIB: u32 = (32 << 10) / readers::READERS as u32;
/// Length of the WAL, in pages of 4 KiB, at which it is moved into the database: 32 MiB. Shorter would
/// write hot pages more often, longer would slow down reads and the start after a crash.
const CHECKPOINT_PAGES: u32 = 8192;
/// What is left of the WAL file after it was moved, bytes.
const WAL_BYTES_MAX: u32 = 64 << 20;
/// Only other programs (a backup, a shell) can hold a lock that the store has to wait for.
const BUSY_WAIT: Duration = Duration::from_secs(5);
/// Prepared statements kept per connection: more than there are.
const STATEMENTS: usize = 128;

/// What tests set otherwise.
#[derive(Default)]
struct Options {
    /// Pages that the database file may have, to run out of room on purpose.
    pages_max: Option<u32>,
    /// What to sync in place of the WAL, to have it fail.
    wal: Option<std::fs::File>,
}

/// The store. Dropping it closes it.
pub(crate) struct Sqlite {
    path: PathBuf,
    readers: Arc<Readers>,
    queue: Queue,
    /// Taken by the first [`Sqlite::close`]; a second one waits on the lock until the first is done.
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Sqlite {
    pub(crate) fn open(path: &Path) -> Result<Sqlite, StoreError> {
        Sqlite::open_with(path, Options::default())
    }

    fn open_with(path: &Path, options: Options) -> Result<Sqlite, StoreError> {
        let path = resolve(path)?;
        let lock = Lock::take(&path)?;
        let db = open_writer(&path, &options)?;
        let readers = Readers::open(|| open_reader(&path))?;
        let wal = match options.wal {
            None => WalSync::start(&path)?,
            Some(other) => WalSync::of(other)?,
        };
        let (queue, writer) = Queue::new(Writer::new(db, wal, lock));
        let thread = std::thread::Builder::new().name("metastore-writer".into());
        let thread = thread
            .spawn(move || writer.run())
            .map_err(|e| StoreError::Failed { action: "start the writer", reason: e.to_string() })?;
        log::info!("the metadata store {} is open", path.display());
        Ok(Sqlite { path, readers: Arc::new(readers), queue, writer: Mutex::new(Some(thread)) })
    }

    /// Writes a copy of the database, as of one moment, to the new file `to`. Blocks.
    pub(crate) fn copy_to(&self, to: &Path) -> Result<(), StoreError> {
        backup::copy(&self.path, to)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) async fn read<R, E>(
        &self,
        f: impl FnOnce(&dyn ReadTxn) -> Result<R, E> + Send + 'static,
    ) -> Result<R, E>
    where
        R: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        Arc::clone(&self.readers).read(f).await
    }

    pub(crate) async fn read_here<R, E>(
        &self,
        f: impl FnOnce(&dyn ReadTxn) -> Result<R, E> + Send + 'static,
    ) -> Result<R, E>
    where
        R: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        Arc::clone(&self.readers).read_here(f).await
    }

    pub(crate) async fn write_here<R, E>(
        &self,
        f: impl FnOnce(&mut dyn WriteTxn) -> Result<R, E> + Send + 'static,
    ) -> Result<R, E>
    where
        R: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.queue.call_here(f).await
    }

    pub(crate) async fn write<R, E>(
        &self,
        durability: Durability,
        f: impl FnOnce(&mut dyn WriteTxn) -> Result<R, E> + Send + 'static,
    ) -> Result<R, E>
    where
        R: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.queue.call(durability, f).await
    }

    /// Lets the writer finish what is queued, checkpoint, close the database and release the lock.
    pub(crate) fn close(&self) {
        self.queue.close();
        self.readers.close();
        let mut writer = self.writer.lock();
        // The last handle may go down with a closure on the writer thread, which cannot wait for itself.
        let Some(thread) = writer.take().filter(|t| t.thread().id() != std::thread::current().id()) else {
            return;
        };
        if thread.join().is_err() {
            log::error!("the writer of the metadata store {} ended with a panic", self.path.display());
        }
    }
}

impl Drop for Sqlite {
    fn drop(&mut self) {
        self.close();
    }
}

/// The path without symbolic links, so that one database has one lock file and one WAL beside it.
fn resolve(path: &Path) -> Result<PathBuf, StoreError> {
    let wrong = |reason: String| StoreError::Failed {
        action: "open the database",
        reason: format!("{}: {reason}", path.display()),
    };
    if let Ok(path) = path.canonicalize() {
        return Ok(path);
    }
    let name = path.file_name().ok_or_else(|| wrong("this does not name a file".into()))?;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let parent = parent.canonicalize().map_err(|e| wrong(format!("its directory cannot be used: {e}")))?;
    Ok(parent.join(name))
}

fn open_writer(path: &Path, options: &Options) -> Result<Connection, StoreError> {
    let mut db = connect(path, OpenFlags::SQLITE_OPEN_CREATE, WRITER_CACHE_KIB)?;
    let found = schema::inspect(&db, path)?;
    let set = |name, value: &str| pragma(&db, name, value);
    set("journal_mode", "WAL")?;
    // Commits do not wait for the disk; `WalSync` does where it is asked for.
    set("synchronous", "NORMAL")?;
    set("journal_size_limit", &WAL_BYTES_MAX.to_string())?;
    if let Some(pages) = options.pages_max {
        set("max_page_count", &pages.to_string())?;
    }
    match found {
        Found::Nothing => schema::create(&mut db)?,
        Found::Version(version) => schema::upgrade(&mut db, version)?,
    }
    Ok(db)
}

fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let db = connect(path, OpenFlags::empty(), READER_CACHE_KIB)?;
    pragma(&db, "query_only", "ON")?;
    Ok(db)
}

fn connect(path: &Path, flags: OpenFlags, cache_kib: u32) -> Result<Connection, StoreError> {
    let flags = flags | OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = Connection::open_with_flags(path, flags);
    let db = opened.map_err(|e| failed("open the database", e))?;
    db.busy_timeout(BUSY_WAIT).map_err(|e| failed("open the database", e))?;
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    pragma(&db, "cache_size", &format!("-{cache_kib}"))?;
    pragma(&db, "mmap_size", "0")?;
    pragma(&db, "foreign_keys", "OFF")?;
    pragma(&db, "trusted_schema", "OFF")?;
    pragma(&db, "temp_store", "MEMORY")?;
    Ok(db)
}

fn pragma(db: &Connection, name: &str, value: &str) -> Result<(), StoreError> {
    db.execute_batch(&format!("PRAGMA {name} = {value}")).map_err(|e| failed("set up the database", e))
}
