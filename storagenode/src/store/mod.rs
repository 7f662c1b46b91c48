//! The store: blobs in segments on a local disk.
//!
//! One writer thread owns the end of the log and gives out sequence numbers (`writer`); one syncer thread
//! owns fdatasync and seals segments (`syncer`), so that plain appends never wait for the disk. Readers
//! need neither. Knows nothing of HTTP, tokens, leases or other nodes.

pub mod metrics;
mod reader;
mod reclaim;
mod space;
mod syncer;
#[cfg(test)]
mod tests;
mod writer;

pub use metrics::{Counter, Metrics};
pub use reader::ReadBlob;
pub use space::default_reserve;
pub(crate) use writer::grave_ranges;
pub use writer::{Append, Outcome, Payload};

use crate::error::StoreError;
use crate::index::{Index, Slot};
use crate::recovery::{self, Recovered};
use crate::segment::{Segment, SegmentId};
use crate::sys::Room;
use dfs_proto::blob::CopyStatus;
use dfs_proto::{BlobId, Seq, VolumeId};
use parking_lot::{Mutex, RwLock};
use space::Space;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::thread::JoinHandle;
use syncer::SyncQueue;
use tokio::sync::oneshot;

/// Records in one segment, which bounds what is remembered for its sidecar (10 MiB).
pub const SEGMENT_RECORDS_MAX: usize = 1 << 18;

/// Settings of a store.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Directory of the segments; made when it is missing.
    pub dir: PathBuf,
    /// A new segment is begun before one grows over this; at most 1 GiB.
    pub segment_bytes_max: u64,
    /// Bytes of the file system that payloads leave free; `None` for [`default_reserve`].
    pub reserve_bytes: Option<u64>,
}

/// What the threads and the readers share.
#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    segment_bytes_max: u64,
    index: RwLock<Index>,
    segments: RwLock<BTreeMap<SegmentId, Arc<Segment>>>,
    sync: SyncQueue,
    space: Space,
    metrics: Metrics,
    /// Why nothing may be appended any more.
    failed: Mutex<Option<String>>,
    /// The next write ends after so many bytes, as on a full disk.
    #[cfg(test)]
    full_after: Mutex<Option<usize>>,
}

/// An open store. Closed by [`BlobStore::close`], or when it is dropped.
#[derive(Debug)]
pub struct BlobStore {
    shared: Arc<Shared>,
    writer: Mutex<Option<Sender<writer::Request>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Held while dead segments are removed.
    reaping: tokio::sync::Mutex<()>,
}

impl BlobStore {
    /// Opens the store in `config.dir` and recovers what is there. Blocks while it reads.
    pub fn open(config: &StoreConfig) -> Result<BlobStore, StoreError> {
        std::fs::create_dir_all(&config.dir)
            .map_err(|e| StoreError::io("make the directory", &config.dir, e))?;
        let Recovered { index, segments, active, tail, entries, damage, set_aside } =
            recovery::recover(&config.dir, config.segment_bytes_max)?;
        let space = Space::new(&active.file, config.reserve_bytes)
            .map_err(|e| StoreError::io("ask for the free space of", &config.dir, e))?;
        let shared = Arc::new(Shared {
            dir: config.dir.clone(),
            segment_bytes_max: config.segment_bytes_max.min(1 << 30),
            index: RwLock::new(index),
            segments: RwLock::new(segments),
            sync: SyncQueue::default(),
            space,
            metrics: Metrics::default(),
            failed: Mutex::new(None),
            #[cfg(test)]
            full_after: Mutex::new(None),
        });
        shared.metrics.damaged_places.add(damage);
        let (sender, receiver) = std::sync::mpsc::channel();
        let syncing = shared.clone();
        let writer = writer::Writer::new(shared.clone(), active, tail, entries);
        let threads = vec![
            spawn("dfs-writer", move || writer.run(receiver))?,
            spawn("dfs-syncer", move || syncer::run(&syncing))?,
        ];
        let store = BlobStore {
            shared,
            writer: Mutex::new(Some(sender)),
            threads: Mutex::new(threads),
            reaping: tokio::sync::Mutex::default(),
        };
        // Said in the log, or it would be forgotten once a sidecar saves reading the segment.
        set_aside.into_iter().for_each(|(id, seq)| store.append_later(Append::Missing { id, seq }));
        Ok(store)
    }

    /// Appends `records` in their order and says what became of each. With `sync` it returns only when all
    /// of them are on disk.
    pub async fn append(
        &self,
        records: Vec<Append>,
        sync: bool,
    ) -> Result<Vec<Result<Outcome, StoreError>>, StoreError> {
        let (reply, answer) = oneshot::channel();
        let request = writer::Request { records, sync, reply };
        let sent = self.writer.lock().as_ref().map(|writer| writer.send(request));
        match sent {
            Some(Ok(())) => answer.await.map_err(|_| StoreError::Closed)?,
            _ => Err(StoreError::Closed),
        }
    }

    /// [`BlobStore::append`] of one record.
    pub async fn append_one(&self, record: Append, sync: bool) -> Result<Outcome, StoreError> {
        let mut outcomes = self.append(vec![record], sync).await?;
        outcomes.pop().unwrap_or(Err(StoreError::Closed))
    }

    /// Appends `record` some time soon; nobody learns how it went.
    fn append_later(&self, record: Append) {
        let (reply, _nobody) = oneshot::channel();
        if let Some(writer) = &*self.writer.lock() {
            // A writer that has ended takes no more, which is all right for what nobody waits for.
            let _ = writer.send(writer::Request { records: vec![record], sync: false, reply });
        }
    }

    /// Returns when everything that was appended before is on disk.
    pub async fn sync(&self) -> Result<(), StoreError> {
        self.shared.check()?;
        let (done, answer) = oneshot::channel();
        self.shared.sync.wait(Box::new(move |result| {
            // Nobody waits any more when the caller gave up.
            let _ = done.send(result);
        }));
        answer.await.map_err(|_| StoreError::Closed)?
    }

    /// What is known of a blob, without reading it. Damaged ones are found as well.
    pub fn find(&self, id: BlobId) -> Result<Slot, StoreError> {
        self.shared.index.read().find(id).ok_or(StoreError::NotFound(id))
    }

    /// How far the copy of `volume` reaches; 0 when there is none.
    pub fn reach(&self, volume: VolumeId) -> Seq {
        self.shared.index.read().volume(volume).map_or(Seq(0), |v| v.reach())
    }

    /// Status of the copy of `volume`.
    pub fn status(&self, volume: VolumeId) -> Result<CopyStatus, StoreError> {
        self.shared.index.read().status(volume).ok_or(StoreError::UnknownVolume(volume))
    }

    /// Status of every copy.
    pub fn statuses(&self) -> Vec<CopyStatus> {
        self.shared.index.read().statuses()
    }

    /// Status of the copies that changed since the last call. What could not be reported goes back with
    /// [`BlobStore::mark_changed`].
    pub fn take_changed(&self) -> Vec<CopyStatus> {
        self.shared.index.write().take_changed()
    }

    /// Has these volumes reported again.
    pub fn mark_changed(&self, volumes: impl IntoIterator<Item = VolumeId>) {
        self.shared.index.write().mark_changed(volumes);
    }

    /// At most `max` damaged blobs that were not reported yet. What could not be reported goes back with
    /// [`BlobStore::mark_unreported`].
    pub fn take_bad(&self, max: usize) -> Vec<BlobId> {
        self.shared.index.write().take_unreported(max)
    }

    /// Has these blobs reported again, if they still are damaged.
    pub fn mark_unreported(&self, blobs: impl IntoIterator<Item = BlobId>) {
        self.shared.index.write().mark_unreported(blobs);
    }

    /// Every blob whose bytes are not good here.
    pub fn bad(&self) -> Vec<BlobId> {
        self.shared.index.read().bad().iter().copied().collect()
    }

    /// Room on the disk as last seen; what payloads may still take comes without the reserve.
    pub fn room(&self) -> Room {
        self.shared.space.room()
    }

    /// Fails with `no_space` when `bytes` of payload would not leave the reserve free.
    pub fn check_space(&self, bytes: u64) -> Result<(), StoreError> {
        self.shared.space.check(bytes)
    }

    /// Bytes of disk that the segments take. Asks the file system, also anew for its room: not for an async
    /// worker.
    pub fn used_bytes(&self) -> u64 {
        let segments: Vec<Arc<Segment>> = self.shared.segments.read().values().cloned().collect();
        if let Some(segment) = segments.last() {
            self.shared.space.refresh(&segment.file);
        }
        segments.iter().filter_map(|s| s.file.metadata().ok()).map(|meta| meta.blocks() * 512).sum()
    }

    /// What has been counted.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Number of segments.
    pub fn segments(&self) -> usize {
        self.shared.segments.read().len()
    }

    /// Appends what is queued, puts everything on disk and writes the sidecar of the active segment. Later
    /// appends are refused. Blocks.
    pub fn close(&self) {
        drop(self.writer.lock().take());
        for thread in std::mem::take(&mut *self.threads.lock()) {
            if thread.join().is_err() {
                log::error!("{}: a thread of the store panicked", self.shared.dir.display());
            }
        }
    }
}

impl Drop for BlobStore {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    fn segment(&self, id: SegmentId) -> Option<Arc<Segment>> {
        self.segments.read().get(&id).cloned()
    }

    /// Refuses when an earlier failure stands.
    fn check(&self) -> Result<(), StoreError> {
        match &*self.failed.lock() {
            Some(why) => Err(StoreError::Failed(why.clone())),
            None => Ok(()),
        }
    }

    /// From now on nothing is appended: what is on disk is not known any more.
    fn fail(&self, why: String) {
        let mut failed = self.failed.lock();
        if failed.is_none() {
            log::error!(
                "{}: {why}; nothing more is taken until the node is started again",
                self.dir.display()
            );
            *failed = Some(why);
        }
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|e| StoreError::io("start a thread for", Path::new(name), e))
}
