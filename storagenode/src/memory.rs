//! Memory for payloads: a budget that requests wait for, and buffers that are used again.
//!
//! Large buffers are pooled because giving back and fetching 4 MiB from the system for every request costs
//! as much as filling them, and because freed ones would stay with the allocator's arenas.

use bytes::Bytes;
use dfs_proto::limits::BLOB_BYTES_MAX;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What the budget is counted in.
const UNIT_BYTES: usize = 16 << 10;

/// Buffers of this size and more come from the pool, and count as a whole one.
const POOLED_BYTES_MIN: usize = 1 << 20;

/// Length of a pooled buffer: the largest record, and a page more for what a log says beside it.
pub const POOLED_BYTES: usize = crate::record::record_bytes(BLOB_BYTES_MAX) + 4096;

/// A budget of bytes with its pool.
#[derive(Clone, Debug)]
pub struct Memory {
    budget: Arc<Semaphore>,
    pool: Arc<Mutex<Vec<Vec<u8>>>>,
    units_max: u32,
}

/// Bytes that were granted; they go back to the budget when the buffer, or what was made of it, is dropped.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    used: usize,
    pool: Option<Arc<Mutex<Vec<Vec<u8>>>>>,
    _permit: OwnedSemaphorePermit,
}

impl Memory {
    /// A budget of `bytes`, at least enough for one blob of the largest size.
    pub fn new(bytes: usize) -> Memory {
        let units = units(bytes.max(POOLED_BYTES));
        Memory { budget: Arc::new(Semaphore::new(units as usize)), pool: Arc::default(), units_max: units }
    }

    /// A buffer that holds `bytes`; waits for its turn. `None` when that takes longer than `patience`.
    pub async fn buffer(&self, bytes: usize, patience: Duration) -> Option<Buffer> {
        let pooled = (POOLED_BYTES_MIN..=POOLED_BYTES).contains(&bytes);
        let charge = units(if pooled { POOLED_BYTES } else { bytes }).min(self.units_max);
        let waiting = self.budget.clone().acquire_many_owned(charge);
        let permit = tokio::time::timeout(patience, waiting).await.ok()?.ok()?;
        let pool = pooled.then(|| self.pool.clone());
        let free = pool.as_ref().and_then(|pool| pool.lock().pop());
        let length = if pooled { POOLED_BYTES } else { bytes };
        Some(Buffer { bytes: free.unwrap_or_else(|| vec![0; length]), used: 0, pool, _permit: permit })
    }
}

impl Buffer {
    /// Appends `bytes`; `false` when they do not fit.
    pub fn extend(&mut self, bytes: &[u8]) -> bool {
        match self.bytes.get_mut(self.used..self.used + bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.used += bytes.len();
                true
            }
            None => false,
        }
    }

    /// Appends `length` bytes that `fill` provides; nothing when it fails. `None` when they do not fit.
    pub fn extend_with<E>(
        &mut self,
        length: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Option<Result<(), E>> {
        let room = self.bytes.get_mut(self.used..self.used + length)?;
        let filled = fill(room);
        if filled.is_ok() {
            self.used += length;
        }
        Some(filled)
    }

    /// Bytes appended so far.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether nothing was appended so far.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Forgets what was appended.
    pub fn clear(&mut self) {
        self.used = 0;
    }

    /// Makes shareable bytes of it.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.used]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            pool.lock().push(std::mem::take(&mut self.bytes));
        }
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES).max(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_ONCE: Duration = Duration::ZERO;

    #[tokio::test]
    async fn what_is_granted_comes_back_when_the_bytes_are_dropped() {
        let memory = Memory::new(2 * (POOLED_BYTES + UNIT_BYTES));
        let mut first = memory.buffer(BLOB_BYTES_MAX, AT_ONCE).await.unwrap();
        assert!(first.extend(b"abc"));
        let second = memory.buffer(BLOB_BYTES_MAX, AT_ONCE).await.unwrap();
        assert!(memory.buffer(BLOB_BYTES_MAX, AT_ONCE).await.is_none(), "over the budget");
        let bytes = first.freeze();
        let slice = bytes.slice(1..);
        drop(bytes);
        assert!(memory.buffer(BLOB_BYTES_MAX, AT_ONCE).await.is_none(), "a slice still holds it");
        assert_eq!(&slice[..], b"bc");
        drop(slice);
        assert!(memory.buffer(BLOB_BYTES_MAX, AT_ONCE).await.is_some());
        drop(second);
        assert_eq!(memory.pool.lock().len(), 2);
    }

    #[tokio::test]
    async fn a_buffer_takes_no_more_than_it_holds() {
        let mut buffer = Memory::new(0).buffer(4, AT_ONCE).await.unwrap();
        assert!(buffer.extend(b"abcd") && !buffer.extend(b"e"));
        assert_eq!(buffer.len(), 4);
    }
}
