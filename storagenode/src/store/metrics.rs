//! What the store counts.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The store's counters.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Records appended.
    pub appends: Counter,
    /// Bytes appended, headers included.
    pub appended_bytes: Counter,
    /// Vectored writes that carried them.
    pub writes: Counter,
    /// Calls of fdatasync.
    pub syncs: Counter,
    /// Blobs read.
    pub reads: Counter,
    /// Payload bytes read.
    pub read_bytes: Counter,
    /// Records found damaged while being read.
    pub damaged_records: Counter,
    /// Places in segments where no record could be read at the start.
    pub damaged_places: Counter,
    /// Blobs deleted.
    pub deleted: Counter,
    /// Segments removed because nothing in them lived.
    pub removed_segments: Counter,
}
