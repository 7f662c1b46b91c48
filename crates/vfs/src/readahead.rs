//! Fetching what a handle is going to read: a window of blobs, or of parts of them, that are on their way or here
//! and have not been read yet.
//!
//! What is fetched ahead is kept by the window and not by the cache of blobs: it is read once and dropped, so a
//! scan of any length takes a bounded share of memory and drives nothing out of the cache. The window grows with
//! each refill while the reader goes on as expected, and is refilled in groups, because blobs that arrive together
//! are hashed together.

use crate::file::FileState;
use crate::handle::FileHandle;
use crate::layer::BlobSlice;
use crate::pattern::Stream;
use crate::range_map::Piece;
use crate::vfs::Vfs;
use bytes::Bytes;
use dfs_proto::limits::BLOB_BYTES_MAX;
use dfs_proto::{BlobRef, CHUNK_BYTES};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// What the room of all windows is counted in, bytes.
const UNIT_BYTES: usize = CHUNK_BYTES;

/// Fetches that a window begins with.
const SIZE_MIN: usize = 2;

/// How far behind the reader something may lie before it is dropped unread, bytes: requests overtake each other.
const BEHIND_BYTES: u64 = 4 << 20;

/// A window that nobody has read from for so long gives way to others that need its room.
const IDLE: Duration = Duration::from_secs(2);

/// Scattered reads in a row after which a window is dropped.
const MISSES_MAX: u32 = 4;

/// Room for what is fetched ahead, over all handles.
pub(crate) struct AheadRoom {
    units: Arc<Semaphore>,
    bytes_max: usize,
    /// Windows that have something in them.
    windows: AtomicUsize,
    /// When idle windows were looked for last. Held for a look.
    looked_at: Mutex<Option<Instant>>,
}

impl AheadRoom {
    pub fn new(bytes_max: usize) -> AheadRoom {
        let units = Arc::new(Semaphore::new(bytes_max / UNIT_BYTES));
        AheadRoom { units, bytes_max, windows: AtomicUsize::new(0), looked_at: Mutex::default() }
    }

    fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).ok()?;
        self.units.clone().try_acquire_many_owned(units).ok()
    }

    /// Whether there is none left for the largest blob.
    fn is_short(&self) -> bool {
        self.units.available_permits() * UNIT_BYTES < BLOB_BYTES_MAX
    }

    /// Whether it is time to look for idle windows.
    fn may_look(&self) -> bool {
        let now = Instant::now();
        let mut looked_at = self.looked_at.lock();
        let is_time = looked_at.is_none_or(|at| now.duration_since(at) >= IDLE / 2);
        if is_time {
            *looked_at = Some(now);
        }
        is_time
    }

    /// What one window may take so that the others get as much.
    fn share(&self) -> usize {
        self.bytes_max / self.windows.load(Ordering::Relaxed).max(1)
    }
}

/// A part of a blob that is wanted ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wanted {
    /// Where in the file it begins.
    offset: u64,
    blob: BlobRef,
    start: u32,
    length: u32,
}

impl Wanted {
    /// The whole blob, if the file has most of it there; else what it has.
    fn of(piece: &Piece<BlobSlice>) -> Wanted {
        let blob = piece.source.blob;
        if piece.length * 2 >= u64::from(blob.length) {
            return Wanted { offset: piece.offset, blob, start: 0, length: blob.length };
        }
        Wanted::part(piece)
    }

    /// The chunks that the piece touches.
    fn part(piece: &Piece<BlobSlice>) -> Wanted {
        const CHUNK: u32 = CHUNK_BYTES as u32;
        let BlobSlice { blob, at } = piece.source;
        let start = at / CHUNK * CHUNK;
        let end = (at + piece.length as u32).next_multiple_of(CHUNK).min(blob.length);
        Wanted { offset: piece.offset, blob, start, length: end - start }
    }

    fn covers(&self, slice: &BlobSlice, length: u32) -> bool {
        let (start, end) = (u64::from(self.start), u64::from(self.start) + u64::from(self.length));
        self.blob.id == slice.blob.id
            && start <= u64::from(slice.at)
            && u64::from(slice.at) + u64::from(length) <= end
    }
}

/// The bytes, once they are here; `None` inside when they could not be had.
type Arrival = Option<Option<Bytes>>;

/// Something that is on its way, or here.
struct Ahead {
    wanted: Wanted,
    arrival: watch::Receiver<Arrival>,
    task: AbortHandle,
    /// How much of it has been read.
    read_bytes: u64,
    _room: OwnedSemaphorePermit,
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Window {
    aheads: Vec<Ahead>,
    /// How many it should hold.
    size: usize,
    misses: u32,
    used_at: Option<Instant>,
    /// Counts the window among those that share the room.
    counted: Option<Arc<AheadRoom>>,
}

impl Drop for Window {
    fn drop(&mut self) {
        self.clear();
    }
}

/// What the window says about some bytes of a blob.
pub(crate) enum InWindow {
    /// Here they are.
    Here(Bytes),
    /// They are on their way.
    Coming(watch::Receiver<Arrival>, u32),
    /// Nothing.
    Not,
}

impl Window {
    fn clear(&mut self) {
        self.aheads.clear();
        self.size = 0;
        self.misses = 0;
        if let Some(room) = self.counted.take() {
            room.windows.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Drops what is in it if nobody has read from it lately.
    pub fn clear_if_idle(&mut self) {
        if self.used_at.is_some_and(|at| at.elapsed() >= IDLE) {
            self.clear();
        }
    }

    /// Looks for `length` bytes of `slice`; they count as read.
    pub fn find(&mut self, slice: &BlobSlice, length: u32) -> InWindow {
        let Some(ahead) = self.aheads.iter_mut().find(|ahead| ahead.wanted.covers(slice, length)) else {
            return InWindow::Not;
        };
        let arrived = ahead.arrival.borrow().clone();
        let start = slice.at - ahead.wanted.start;
        match arrived {
            None => InWindow::Coming(ahead.arrival.clone(), start),
            // Whoever fetches it once more gets to know why.
            Some(None) => InWindow::Not,
            Some(Some(bytes)) => {
                ahead.read_bytes += u64::from(length);
                let is_read = ahead.read_bytes >= u64::from(ahead.wanted.length);
                if is_read {
                    let wanted = ahead.wanted;
                    self.aheads.retain(|other| other.wanted != wanted);
                }
                InWindow::Here(bytes.slice(start as usize..(start + length) as usize))
            }
        }
    }

    /// Drops what the reader has passed by.
    fn drop_behind(&mut self, stream: Stream, offset: u64, end: u64) {
        self.aheads.retain(|ahead| {
            let wanted = &ahead.wanted;
            let ends = wanted.offset + u64::from(wanted.length);
            match stream {
                Stream::Scattered => true,
                Stream::Forward => ends + BEHIND_BYTES > offset,
                Stream::Strided { stride, .. } if stride > 0 => ends + BEHIND_BYTES > offset,
                Stream::Strided { .. } | Stream::Backward { .. } => wanted.offset < end + BEHIND_BYTES,
            }
        });
    }

    /// How many of them the reader has still to come to.
    fn left(&self, stream: Stream, offset: u64) -> usize {
        let is_ahead = |ahead: &&Ahead| match stream {
            Stream::Scattered => true,
            Stream::Forward => ahead.wanted.offset >= offset,
            Stream::Strided { stride, .. } if stride > 0 => ahead.wanted.offset >= offset,
            Stream::Strided { .. } | Stream::Backward { .. } => ahead.wanted.offset < offset,
        };
        self.aheads.iter().filter(is_ahead).count()
    }

    fn has(&self, wanted: &Wanted) -> bool {
        self.aheads.iter().any(|ahead| ahead.wanted == *wanted)
    }
}

/// What follows a read that ended at `end`, at most `count`. The blob that the reader is in is left to it: most of
/// it would be late.
fn forward(state: &FileState, end: u64, count: usize) -> Vec<Wanted> {
    let mut found = Vec::new();
    let mut at = match state.base.at(end) {
        Some(piece) if piece.offset < end => piece.end(),
        _ => end,
    };
    while found.len() < count && at < state.size {
        match state.base.at(at) {
            Some(piece) => {
                found.push(Wanted::of(&piece));
                at = piece.end();
            }
            None => match state.base.next_start(at) {
                Some(next) => at = next,
                None => break,
            },
        }
    }
    found
}

/// What precedes a read that began at `start`.
fn backward(state: &FileState, start: u64, count: usize) -> Vec<Wanted> {
    let mut found = Vec::new();
    let mut at = match state.base.at(start) {
        Some(piece) if piece.end() > start => piece.offset,
        _ => start,
    };
    while found.len() < count && at > 0 {
        let Some(piece) = state.base.last_before(at) else { break };
        found.push(Wanted::of(&piece));
        at = piece.offset;
    }
    found
}

/// The parts of the next runs of a stream with strides.
fn strided(state: &FileState, start: u64, length: u64, stride: i64, count: usize) -> Vec<Wanted> {
    let mut found: Vec<Wanted> = Vec::new();
    let mut at = start;
    for _ in 0..count {
        let Some(next) = at.checked_add_signed(stride).filter(|next| *next < state.size) else { break };
        at = next;
        for piece in state.base.within(at, at.saturating_add(length)) {
            let wanted = Wanted::part(&piece);
            if found.len() < count && !found.contains(&wanted) {
                found.push(wanted);
            }
        }
    }
    found
}

impl Vfs {
    /// Has fetched what `stream` makes expect after a read of `offset..end`.
    pub(crate) fn read_ahead(
        &self,
        handle: &FileHandle,
        state: &FileState,
        stream: Stream,
        offset: u64,
        end: u64,
    ) {
        if self.config.readahead_blobs == 0 {
            return;
        }
        let mut window = handle.window.lock();
        if stream == Stream::Scattered {
            if !window.aheads.is_empty() || window.size > 0 {
                window.misses += 1;
                window.size /= 2;
                if window.misses >= MISSES_MAX {
                    window.clear();
                }
            }
            return;
        }
        window.misses = 0;
        window.used_at = Some(Instant::now());
        window.drop_behind(stream, offset, end);
        let size = window.size.max(SIZE_MIN);
        if window.left(stream, offset) > size / 2 {
            return;
        }
        let next = match stream {
            Stream::Scattered => return,
            Stream::Forward => forward(state, end, size),
            Stream::Backward { start } => backward(state, start, size),
            Stream::Strided { start, length, stride } => strided(state, start, length, stride, size),
        };
        self.refill(&mut window, next);
        window.size = (size * 2).min(self.config.readahead_blobs);
    }

    fn refill(&self, window: &mut Window, next: Vec<Wanted>) {
        if window.counted.is_none() && !next.is_empty() {
            self.ahead_room.windows.fetch_add(1, Ordering::Relaxed);
            window.counted = Some(self.ahead_room.clone());
        }
        if self.ahead_room.is_short() && self.ahead_room.may_look() {
            self.handles.drop_idle_windows();
        }
        let mut held: usize = window.aheads.iter().map(|ahead| ahead.wanted.length as usize).sum();
        let share = self.ahead_room.share();
        for wanted in next {
            if window.has(&wanted) || self.cache.peek(&wanted.blob).is_some() {
                continue;
            }
            held += wanted.length as usize;
            // Without room the reader gets what it asks for, and no more.
            let Some(room) = (held <= share).then(|| self.ahead_room.take(wanted.length as usize)).flatten()
            else {
                return;
            };
            window.aheads.push(self.fetch_ahead(wanted, room));
        }
    }

    fn fetch_ahead(&self, wanted: Wanted, room: OwnedSemaphorePermit) -> Ahead {
        let (arrived, arrival) = watch::channel(None);
        let data = self.data.clone();
        let Wanted { blob, start, length, .. } = wanted;
        let task = tokio::spawn(async move {
            let got = match length == blob.length {
                true => data.get(&blob).await,
                false => data.get_range(&blob, start, length).await,
            };
            // The read that needs it asks again, and gets the error.
            arrived.send_replace(Some(got.ok()));
        });
        Ahead { wanted, arrival, task: task.abort_handle(), read_bytes: 0, _room: room }
    }
}
