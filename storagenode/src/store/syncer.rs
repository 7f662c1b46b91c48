//! The syncer thread: fdatasync for those who asked, at least every second for all, and sealing.
//!
//! Everyone who asks while one fdatasync is under way shares the next. A failed fdatasync is final: the
//! kernel may have dropped the pages, so a second one that succeeds would prove nothing.

use super::Shared;
use crate::error::StoreError;
use crate::segment::{Segment, SegmentId, sidecar_path};
use crate::sidecar::{Entry, Sidecar};
use dfs_service::durable::replace_file;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest time that appended bytes stay off the disk.
const SYNC_EVERY: Duration = Duration::from_secs(1);

type Waiter = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// A segment that takes no more, or (when the store is closed) no more for now.
#[derive(Debug)]
pub struct SealJob {
    /// The segment.
    pub segment: Arc<Segment>,
    /// How much of it has been written.
    pub covers: u64,
    /// What it holds.
    pub entries: Vec<Entry>,
}

/// What one turn of the thread does, in this order.
struct Round {
    dirty: Vec<Arc<Segment>>,
    waiters: Vec<Waiter>,
    seals: Vec<SealJob>,
}

#[derive(Default)]
struct Work {
    dirty: Vec<Arc<Segment>>,
    dirty_since: Option<Instant>,
    waiters: Vec<Waiter>,
    seals: Vec<SealJob>,
    /// Segments of `seals`, and of those being sealed right now.
    sealing: Vec<SegmentId>,
    stop: bool,
}

/// What the syncer has to do.
#[derive(Default)]
pub struct SyncQueue {
    /// A plain mutex: held for a few instructions at a time.
    work: Mutex<Work>,
    changed: Condvar,
}

impl std::fmt::Debug for SyncQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SyncQueue(..)")
    }
}

impl SyncQueue {
    /// Bytes were written to `segment`.
    pub fn written(&self, segment: &Arc<Segment>) {
        let mut work = self.work.lock();
        if !work.dirty.iter().any(|dirty| dirty.id == segment.id) {
            work.dirty.push(segment.clone());
        }
        if work.dirty_since.is_none() {
            work.dirty_since = Some(Instant::now());
            self.changed.notify_one();
        }
    }

    /// Calls `waiter` when all that was written so far is on disk.
    pub fn wait(&self, waiter: Waiter) {
        let mut work = self.work.lock();
        if work.stop {
            drop(work);
            waiter(Err(StoreError::Closed));
            return;
        }
        work.waiters.push(waiter);
        self.changed.notify_one();
    }

    /// Has a segment synced and its sidecar written.
    pub fn seal(&self, job: SealJob) {
        let mut work = self.work.lock();
        work.sealing.push(job.segment.id);
        work.seals.push(job);
        self.changed.notify_one();
    }

    /// Whether a segment still waits for its sidecar.
    pub fn is_sealing(&self, segment: SegmentId) -> bool {
        self.work.lock().sealing.contains(&segment)
    }

    /// Ends the thread when all is done.
    pub fn stop(&self) {
        self.work.lock().stop = true;
        self.changed.notify_one();
    }

    /// The next round of work; `None` when it is time to end.
    fn next(&self) -> Option<Round> {
        let mut work = self.work.lock();
        loop {
            let due = work.dirty_since.map(|since| since + SYNC_EVERY);
            let overdue = due.is_some_and(|due| due <= Instant::now());
            if overdue || work.stop || !work.waiters.is_empty() || !work.seals.is_empty() {
                break;
            }
            match due {
                Some(due) => {
                    self.changed.wait_until(&mut work, due);
                }
                None => self.changed.wait(&mut work),
            }
        }
        if work.stop && work.dirty.is_empty() && work.waiters.is_empty() && work.seals.is_empty() {
            return None;
        }
        work.dirty_since = None;
        let work = &mut *work;
        Some(Round {
            dirty: std::mem::take(&mut work.dirty),
            waiters: std::mem::take(&mut work.waiters),
            seals: std::mem::take(&mut work.seals),
        })
    }
}

/// The thread.
pub(super) fn run(shared: &Shared) {
    while let Some(Round { dirty, waiters, seals }) = shared.sync.next() {
        let result = sync_all(shared, &dirty);
        for waiter in waiters {
            waiter(result.clone());
        }
        for job in seals {
            if result.is_ok() {
                seal(shared, &job);
            }
            shared.sync.work.lock().sealing.retain(|id| *id != job.segment.id);
        }
        if let Some(segment) = dirty.last() {
            shared.space.refresh(&segment.file);
        }
    }
}

fn sync_all(shared: &Shared, dirty: &[Arc<Segment>]) -> Result<(), StoreError> {
    shared.check()?;
    for segment in dirty {
        shared.metrics.syncs.add(1);
        if let Err(e) = segment.sync() {
            shared.fail(e.to_string());
            return Err(e);
        }
    }
    Ok(())
}

/// Writes a sidecar. Without one the segment is read at the next start: slower, not worse.
fn seal(shared: &Shared, job: &SealJob) {
    let path = sidecar_path(&shared.dir, job.segment.id);
    let bytes = Sidecar::encode(job.segment.id, job.segment.salt, job.covers, &job.entries);
    if let Err(e) = replace_file(&path, &bytes) {
        log::warn!("cannot write {}: {e}; the segment will be read at the next start", path.display());
    }
}
