//! Staged bytes: buffers of up to one blob that applications write into and that go to storage nodes as they
//! are.
//!
//! A file fills one buffer at a time, in the order of its writes, whatever their offsets: a sequential writer
//! gets blobs that are runs of the file, a random writer gets its small writes packed together. The bytes of
//! all buffers are counted against one budget, so memory is bounded over all files.
//!
//! Writers of large blocks get whole blocks of memory that are used again: fetching 4 MiB from the system for
//! each blob and giving them back costs more than filling them, because every page comes by a fault.

use bytes::Bytes;
use dfs_client::ClientError;
use dfs_proto::limits::BLOB_BYTES_MAX;
use dfs_proto::{BlobRef, Ino};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use tokio::sync::{Notify, watch};

/// Writes of this length and more are taken for those of a writer that fills a whole blob.
const LARGE_WRITE_BYTES: usize = 64 << 10;

/// Blocks that are kept for the next writer while nothing is staged.
const BLOCKS_KEPT: usize = 2;

/// Bytes staged over all files.
#[derive(Debug)]
pub(crate) struct Budget {
    used: AtomicUsize,
    max: usize,
    freed: Notify,
    blocks: Mutex<Blocks>,
}

/// Memory of one blob each, used again and again. At most what the budget allows is made: who gets none has a
/// buffer that grows, so open buffers with little in them do not add up.
#[derive(Debug, Default)]
struct Blocks {
    free: Vec<Vec<u8>>,
    /// Made and not given back to the system, free or not.
    made: usize,
}

impl Blocks {
    fn trim(&mut self) {
        let surplus = self.free.len().saturating_sub(BLOCKS_KEPT);
        self.free.truncate(BLOCKS_KEPT);
        self.made -= surplus;
    }
}

/// Bytes that are being filled, or have been.
#[derive(Debug)]
struct Filled {
    bytes: Vec<u8>,
    /// Where the memory goes back to, when it is a block.
    home: Option<Arc<Budget>>,
}

impl AsRef<[u8]> for Filled {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Filled {
    fn drop(&mut self) {
        if let Some(home) = &self.home {
            home.take_back(std::mem::take(&mut self.bytes));
        }
    }
}

impl Budget {
    pub fn new(max: usize) -> Arc<Budget> {
        Arc::new(Budget { used: AtomicUsize::new(0), max, freed: Notify::new(), blocks: Mutex::default() })
    }

    /// An empty block, unless all that there may be are in use.
    fn block(&self) -> Option<Vec<u8>> {
        let mut blocks = self.blocks.lock();
        if let Some(free) = blocks.free.pop() {
            return Some(free);
        }
        let may_make = blocks.made < self.max / BLOB_BYTES_MAX;
        blocks.made += usize::from(may_make);
        may_make.then(|| Vec::with_capacity(BLOB_BYTES_MAX))
    }

    fn take_back(&self, mut block: Vec<u8>) {
        block.clear();
        let mut blocks = self.blocks.lock();
        blocks.free.push(block);
        if self.used() == 0 {
            blocks.trim();
        }
    }

    /// Takes `bytes` if there is room.
    pub fn try_take(&self, bytes: usize) -> bool {
        self.used
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |used| {
                (used + bytes <= self.max).then_some(used + bytes)
            })
            .is_ok()
    }

    fn give_back(&self, bytes: usize) {
        if self.used.fetch_sub(bytes, Ordering::AcqRel) == bytes {
            self.blocks.lock().trim();
        }
        self.freed.notify_waiters();
    }

    pub fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    /// Resolves the next time that bytes come free. To be made before the check it waits for.
    pub fn freed(&self) -> tokio::sync::futures::Notified<'_> {
        self.freed.notified()
    }
}

/// How far a buffer has come.
#[derive(Clone, Debug)]
pub(crate) enum Progress {
    /// Written to by the application.
    Filling,
    /// On its way.
    Uploading,
    /// On a node.
    Stored(BlobRef),
    /// Could not be stored; the next publish tries again.
    Failed(ClientError),
}

/// See the module.
pub(crate) struct Buffer {
    content: Mutex<Content>,
    progress: watch::Sender<Progress>,
    budget: Arc<Budget>,
}

enum Content {
    Open(Filled),
    Sealed(Bytes),
    /// Stored; the bytes are to be had from nodes.
    Gone,
}

impl Buffer {
    pub fn new(budget: Arc<Budget>) -> Arc<Buffer> {
        Arc::new(Buffer {
            content: Mutex::new(Content::Open(Filled { bytes: Vec::new(), home: None })),
            progress: watch::Sender::new(Progress::Filling),
            budget,
        })
    }

    fn is_filling(&self) -> bool {
        matches!(*self.progress.borrow(), Progress::Filling)
    }

    /// Bytes that it still takes.
    pub fn room(&self) -> usize {
        match &*self.content.lock() {
            Content::Open(filled) => BLOB_BYTES_MAX - filled.bytes.len(),
            Content::Sealed(_) | Content::Gone => 0,
        }
    }

    /// Appends `data`, whose bytes have been taken from the budget; returns where it begins. `data` must fit.
    pub fn append(&self, data: &[u8]) -> u32 {
        let mut content = self.content.lock();
        let Content::Open(filled) = &mut *content else { unreachable!("only an open buffer is appended to") };
        let at = filled.bytes.len();
        if filled.bytes.capacity() < at + data.len() {
            self.enlarge(filled, data.len());
        }
        filled.bytes.extend_from_slice(data);
        at as u32
    }

    /// Makes room for `more` bytes. A writer of large blocks will fill the buffer; one of small ones may never.
    fn enlarge(&self, filled: &mut Filled, more: usize) {
        let at = filled.bytes.len();
        let fills_it = more >= LARGE_WRITE_BYTES || at + more >= BLOB_BYTES_MAX / 4;
        if !fills_it {
            return;
        }
        match self.budget.block() {
            Some(mut block) => {
                block.extend_from_slice(&filled.bytes);
                *filled = Filled { bytes: block, home: Some(self.budget.clone()) };
            }
            None => filled.bytes.reserve_exact(BLOB_BYTES_MAX - at),
        }
    }

    /// Overwrites bytes in place; `false` when the buffer is sealed already.
    pub fn overwrite(&self, at: u32, data: &[u8]) -> bool {
        match &mut *self.content.lock() {
            Content::Open(filled) => {
                filled.bytes[at as usize..at as usize + data.len()].copy_from_slice(data);
                true
            }
            Content::Sealed(_) | Content::Gone => false,
        }
    }

    /// Copies bytes out; `None` once they are only on nodes.
    pub fn copy(&self, at: u32, length: usize) -> Option<Bytes> {
        let (at, end) = (at as usize, at as usize + length);
        match &*self.content.lock() {
            Content::Open(filled) => Some(Bytes::copy_from_slice(&filled.bytes[at..end])),
            Content::Sealed(bytes) => Some(bytes.slice(at..end)),
            Content::Gone => None,
        }
    }

    /// Ends the filling; returns the bytes to upload when there are any and nobody else does so.
    pub fn seal(&self) -> Option<Bytes> {
        let mut content = self.content.lock();
        let Content::Open(filled) = &mut *content else { return None };
        let filled = std::mem::replace(filled, Filled { bytes: Vec::new(), home: None });
        let bytes = Bytes::from_owner(filled);
        *content = Content::Sealed(bytes.clone());
        self.progress.send_replace(Progress::Uploading);
        (!bytes.is_empty()).then_some(bytes)
    }

    /// For another try after a failure: the bytes, if it is this caller's turn to upload them.
    pub fn retry(&self) -> Option<Bytes> {
        let content = self.content.lock();
        let Content::Sealed(bytes) = &*content else { return None };
        let mut mine = false;
        self.progress.send_if_modified(|progress| {
            mine = matches!(progress, Progress::Failed(_));
            if mine {
                *progress = Progress::Uploading;
            }
            mine
        });
        mine.then(|| bytes.clone())
    }

    pub fn finish(&self, result: Result<BlobRef, ClientError>) {
        match result {
            Ok(blob) => {
                // First the reference, then the bytes away: a reader always finds one of the two.
                self.progress.send_replace(Progress::Stored(blob));
                let old = std::mem::replace(&mut *self.content.lock(), Content::Gone);
                self.release(old);
            }
            Err(e) => {
                self.progress.send_replace(Progress::Failed(e));
            }
        }
    }

    pub fn stored(&self) -> Option<BlobRef> {
        match &*self.progress.borrow() {
            Progress::Stored(blob) => Some(*blob),
            Progress::Filling | Progress::Uploading | Progress::Failed(_) => None,
        }
    }

    /// Waits until the upload has ended, one way or the other.
    pub async fn uploaded(&self) -> Result<BlobRef, ClientError> {
        let mut progress = self.progress.subscribe();
        let ended = progress
            .wait_for(|p| matches!(p, Progress::Stored(_) | Progress::Failed(_)))
            .await
            .expect("the sender lives in self");
        match &*ended {
            Progress::Stored(blob) => Ok(*blob),
            Progress::Failed(e) => Err(e.clone()),
            Progress::Filling | Progress::Uploading => {
                unreachable!("wait_for lets only the other two through")
            }
        }
    }

    fn release(&self, content: Content) {
        let bytes = match &content {
            Content::Open(filled) => filled.bytes.len(),
            Content::Sealed(bytes) => bytes.len(),
            Content::Gone => 0,
        };
        drop(content);
        if bytes > 0 {
            self.budget.give_back(bytes);
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let content = std::mem::replace(&mut *self.content.lock(), Content::Gone);
        self.release(content);
    }
}

/// From this many entries on the queue of open buffers is gone through now and then.
const TIDIED_AT: usize = 64;

/// Files that have an open buffer, oldest first, so that a writer that finds no room can have the bytes of
/// others sent off.
#[derive(Default)]
pub(crate) struct OpenBuffers {
    queue: Mutex<VecDeque<(Ino, Weak<Buffer>)>>,
}

impl OpenBuffers {
    pub fn add(&self, ino: Ino, buffer: &Arc<Buffer>) {
        let mut queue = self.queue.lock();
        // Entries of buffers that are gone or sealed go once they are at the front.
        while queue.front().is_some_and(|(_, b)| b.upgrade().is_none_or(|b| !b.is_filling())) {
            queue.pop_front();
        }
        // One that stays open at the front must not keep what is behind it.
        if queue.len() >= TIDIED_AT && queue.len().is_power_of_two() {
            queue.retain(|(_, b)| b.upgrade().is_some_and(|b| b.is_filling()));
        }
        queue.push_back((ino, Arc::downgrade(buffer)));
    }

    /// The file whose buffer has been open for longest.
    pub fn oldest(&self) -> Option<(Ino, Arc<Buffer>)> {
        let mut queue = self.queue.lock();
        while let Some((ino, buffer)) = queue.pop_front() {
            if let Some(buffer) =
                buffer.upgrade().filter(|b| matches!(*b.progress.borrow(), Progress::Filling))
            {
                return Some((ino, buffer));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_proto::{BlobId, BlobKey, Md5, Seq, VolumeId};

    fn blob() -> BlobRef {
        let id = BlobId { volume: VolumeId(1), key: BlobKey(1) };
        BlobRef { id, seq: Seq(1), length: 5, md5: Md5([0; 16]) }
    }

    #[test]
    fn stored_bytes_go_back_to_the_budget() {
        let budget = Budget::new(10);
        let buffer = Buffer::new(budget.clone());
        assert!(budget.try_take(5));
        buffer.append(b"hello");
        assert!(!budget.try_take(6));
        assert_eq!(buffer.seal().unwrap(), "hello");
        assert_eq!(buffer.copy(1, 3).unwrap(), "ell");
        buffer.finish(Ok(blob()));
        assert_eq!(budget.used(), 0);
        assert!(buffer.copy(0, 1).is_none());
        assert_eq!(buffer.stored(), Some(blob()));
    }

    #[test]
    fn dropped_bytes_go_back_to_the_budget() {
        let budget = Budget::new(10);
        let buffer = Buffer::new(budget.clone());
        assert!(budget.try_take(5));
        buffer.append(b"hello");
        drop(buffer);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn large_writers_share_a_bounded_number_of_blocks_and_few_are_kept() {
        let budget = Budget::new(3 * BLOB_BYTES_MAX);
        let large = vec![7; LARGE_WRITE_BYTES];
        let write = |data: &[u8]| {
            assert!(budget.try_take(data.len()));
            let buffer = Buffer::new(budget.clone());
            assert_eq!(buffer.append(data), 0);
            buffer
        };
        let small = write(b"small");
        assert_eq!(budget.blocks.lock().made, 0, "a small write takes no block");
        let buffers: Vec<_> = (0..5).map(|_| write(&large)).collect();
        assert_eq!(budget.blocks.lock().made, 3, "more would go over the budget");
        let sealed: Vec<Bytes> = buffers.iter().map(|b| b.seal().unwrap()).collect();
        assert!(sealed.iter().all(|bytes| *bytes == large), "with a block or without");
        drop(buffers);
        assert!(budget.blocks.lock().free.is_empty(), "the bytes are still held");
        drop(sealed);
        assert_eq!(budget.blocks.lock().free.len(), 3);
        drop(small);
        drop(write(&large));
        let blocks = budget.blocks.lock();
        assert_eq!(
            (blocks.free.len(), blocks.made),
            (BLOCKS_KEPT, BLOCKS_KEPT),
            "nothing is staged any more"
        );
        assert!(blocks.free.iter().all(Vec::is_empty));
    }

    #[test]
    fn a_failed_upload_is_tried_again_by_one_caller_only() {
        let buffer = Buffer::new(Budget::new(10));
        buffer.append(b"x");
        assert!(buffer.seal().is_some());
        assert!(buffer.retry().is_none(), "it is under way");
        buffer.finish(Err(ClientError::local(dfs_proto::ErrorCode::NoNodes, "none")));
        assert!(buffer.retry().is_some());
        assert!(buffer.retry().is_none());
    }
}
