//! Bringing the WAL to the disk: at once for who waits for it, soon for everybody else.
//!
//! SQLite (`synchronous=NORMAL`) only writes commits to the WAL file; this module calls fdatasync on that
//! file. Doing it here rather than with `synchronous=FULL` gives one mechanism for both durabilities, and
//! covers a call that asks for the disk but had nothing left to write.
//!
//! After a failed fdatasync nobody knows what is on the disk, and a second one would claim success without
//! having written anything (Linux drops the dirty marks). So the first failure is final: no further write is
//! accepted until the process starts again and reads back what is really there.

use super::lock::with_suffix;
use crate::seam::StoreError;
use parking_lot::{Condvar, Mutex};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A commit waits at most this long for the disk; the rest of the promised second is for the disk itself.
const SYNC_AFTER: Duration = Duration::from_millis(500);

/// The WAL of one database, with a thread that syncs it. Dropping it ends the thread.
pub(super) struct WalSync {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    /// Locked for the time of an fdatasync: who finds nothing to do has to wait for one that is under way.
    wal: Mutex<File>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The oldest commit that is not known to be on the disk.
    unsynced_since: Option<Instant>,
    failed: Option<StoreError>,
    closing: bool,
}

impl WalSync {
    /// Takes over the WAL of an open database. Everything that is in it already is synced first, and so is
    /// the directory, in which the files may be new.
    pub(super) fn start(database: &Path) -> Result<WalSync, StoreError> {
        let wal = File::open(with_suffix(database, "-wal")).map_err(failed)?;
        wal.sync_data().map_err(failed)?;
        if let Some(directory) = database.parent() {
            File::open(directory).and_then(|d| d.sync_all()).map_err(failed)?;
        }
        WalSync::of(wal)
    }

    /// Takes over a file that is synced already.
    pub(super) fn of(wal: File) -> Result<WalSync, StoreError> {
        let state = Mutex::new(State::default());
        let shared = Arc::new(Shared { wal: Mutex::new(wal), state, changed: Condvar::new() });
        let thread = std::thread::Builder::new().name("metastore-sync".into());
        let in_thread = Arc::clone(&shared);
        let thread = thread.spawn(move || in_thread.run()).map_err(failed)?;
        Ok(WalSync { shared, thread: Some(thread) })
    }

    /// Notes that something was committed.
    pub(super) fn committed(&self) {
        let mut state = self.shared.state.lock();
        if state.unsynced_since.is_none() {
            state.unsynced_since = Some(Instant::now());
            self.shared.changed.notify_one();
        }
    }

    /// Returns once all that was committed is on the disk.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.shared.sync()
    }

    /// The failure after which nothing may be written any more.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.shared.state.lock().failed.clone().map_or(Ok(()), Err)
    }
}

impl Drop for WalSync {
    fn drop(&mut self) {
        self.shared.state.lock().closing = true;
        self.shared.changed.notify_one();
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("the thread that syncs the metadata store ended with a panic");
        }
    }
}

fn failed(e: std::io::Error) -> StoreError {
    StoreError::Failed { action: "sync the database", reason: e.to_string() }
}

impl Shared {
    fn run(&self) {
        let mut state = self.state.lock();
        while !state.closing {
            match state.unsynced_since.map(|since| since + SYNC_AFTER) {
                None => self.changed.wait(&mut state),
                Some(due) if Instant::now() < due => {
                    self.changed.wait_until(&mut state, due);
                }
                Some(_) => {
                    drop(state);
                    // A failure is kept in the state and logged there.
                    let _ = self.sync();
                    state = self.state.lock();
                }
            }
        }
    }

    fn sync(&self) -> Result<(), StoreError> {
        let wal = self.wal.lock();
        {
            let mut state = self.state.lock();
            if let Some(failed) = &state.failed {
                return Err(failed.clone());
            }
            if state.unsynced_since.take().is_none() {
                return Ok(());
            }
        }
        wal.sync_data().map_err(|e| {
            let reason = format!("{e}; check the disk and restart the master: until then nothing is written");
            let failed = StoreError::Failed { action: "bring commits to the disk", reason };
            log::error!("{failed}");
            self.state.lock().failed = Some(failed.clone());
            failed
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Polls until nothing is unsynced; answers how long that took.
    fn time_to_sync(wal: &WalSync) -> Duration {
        let began = Instant::now();
        while wal.shared.state.lock().unsynced_since.is_some() {
            assert!(began.elapsed() < Duration::from_secs(10), "never synced");
            std::thread::yield_now();
        }
        began.elapsed()
    }

    #[test]
    fn commit_reaches_the_disk_within_a_second_by_itself() {
        let wal = WalSync::of(tempfile::tempfile().unwrap()).unwrap();
        for _ in 0..2 {
            wal.committed();
            assert!(time_to_sync(&wal) < Duration::from_secs(1));
        }
    }

    #[test]
    fn sync_leaves_nothing_for_later() {
        let wal = WalSync::of(tempfile::tempfile().unwrap()).unwrap();
        wal.committed();
        wal.sync().unwrap();
        assert_eq!(wal.shared.state.lock().unsynced_since, None);
    }

    #[test]
    fn failed_sync_is_final() {
        // A device that cannot be synced stands for a disk that fails.
        let wal = WalSync::of(File::open("/dev/null").unwrap()).unwrap();
        assert_eq!(wal.check(), Ok(()));
        wal.committed();
        let failed = wal.sync().unwrap_err();
        assert!(failed.to_string().contains("restart the master"), "{failed}");
        assert_eq!(wal.check(), Err(failed.clone()));
        wal.committed();
        assert_eq!(wal.sync(), Err(failed));
    }
}
