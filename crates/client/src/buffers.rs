//! Memory for payloads that is used again.
//!
//! A buffer of 4 MiB fresh from the system costs a page fault and a page of zeros for each 4 KiB, more than
//! filling it does.

use bytes::Bytes;
use parking_lot::Mutex;

/// The smallest size that is kept: below it the allocator is as good. A power of two.
const BYTES_MIN: usize = 64 << 10;

/// Sizes that are kept: powers of two from [`BYTES_MIN`] to 8 MiB, which a piece of a log with a record of the
/// largest blob needs. Only what is used of a buffer takes memory.
const SIZES: usize = 8;

/// Free memory that is kept of each size, bytes: the eight blobs that a reader has done with when the next eight are
/// fetched.
const FREE_BYTES_MAX: usize = 32 << 20;

static POOL: Pool = Pool { free: [const { Mutex::new(Vec::new()) }; SIZES] };

struct Pool {
    /// Held for a push or a pop.
    free: [Mutex<Vec<Vec<u8>>>; SIZES],
}

/// Memory from the pool; it goes back there when this, or what was made of it, is dropped.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    length: usize,
}

/// The size that `length` comes out of; `None` for one that is not kept.
fn size_of(length: usize) -> Option<usize> {
    let size = length.max(1).div_ceil(BYTES_MIN).next_power_of_two().trailing_zeros() as usize;
    (length > BYTES_MIN / 2 && size < SIZES).then_some(size)
}

impl Buffer {
    /// `length` bytes of whatever was there before.
    pub fn of(length: usize) -> Buffer {
        let kept = size_of(length).and_then(|size| POOL.free[size].lock().pop());
        let bytes = kept.unwrap_or_else(|| vec![0; size_of(length).map_or(length, |size| BYTES_MIN << size)]);
        Buffer { bytes, length }
    }

    /// The memory to fill.
    pub fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.length]
    }

    /// Makes shareable bytes of it.
    pub fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(size) = size_of(self.length) else { return };
        let mut free = POOL.free[size].lock();
        if (free.len() + 1) * self.bytes.len() <= FREE_BYTES_MAX {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_proto::limits::BLOB_BYTES_MAX;

    #[test]
    fn every_length_gets_its_room() {
        for length in [0, 1, BYTES_MIN / 2 + 1, BYTES_MIN, BYTES_MIN + 1, BLOB_BYTES_MAX, BLOB_BYTES_MAX + 1]
        {
            let mut buffer = Buffer::of(length);
            buffer.room().fill(7);
            assert_eq!(buffer.freeze(), vec![7; length]);
        }
    }

    #[test]
    fn kept_memory_is_bounded_and_held_until_the_last_slice_is_gone() {
        let size = size_of(BLOB_BYTES_MAX).unwrap();
        assert_eq!((size, size_of(2 * BLOB_BYTES_MAX + 1), size_of(10)), (SIZES - 2, None, None));
        let mut buffer = Buffer::of(BLOB_BYTES_MAX);
        buffer.room()[9] = 42;
        let slice = buffer.freeze().slice(9..10);
        let others: Vec<Buffer> = (0..20)
            .map(|_| {
                let mut other = Buffer::of(BLOB_BYTES_MAX);
                other.room()[9] = 0;
                other
            })
            .collect();
        assert_eq!(slice[0], 42);
        drop((slice, others));
        assert!(POOL.free[size].lock().len() <= FREE_BYTES_MAX / BLOB_BYTES_MAX);
    }
}
