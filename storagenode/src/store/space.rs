//! How much room payloads may still take.

use crate::error::StoreError;
use crate::sys::{self, Room};
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// The reserve on large file systems is a hundredth of them ...
const RESERVE_SHARE: u64 = 100;
/// ... at least this ...
const RESERVE_BYTES_MIN: u64 = 64 << 20;
/// ... but on small ones never more than a tenth.
const RESERVE_SHARE_MAX: u64 = 10;

/// Bytes that payloads leave free on a file system of `capacity`: tombstones, sidecars and other people need
/// room when blobs find none.
pub fn default_reserve(capacity: u64) -> u64 {
    (capacity / RESERVE_SHARE).max(RESERVE_BYTES_MIN).min(capacity / RESERVE_SHARE_MAX)
}

/// The room as last seen. The writer refreshes it with every group, the syncer every second.
#[derive(Debug)]
pub struct Space {
    reserve: u64,
    capacity: AtomicU64,
    available: AtomicU64,
}

impl Space {
    /// Looks at the file system of `file`.
    pub fn new(file: &File, reserve: Option<u64>) -> io::Result<Space> {
        let room = sys::room(file)?;
        Ok(Space {
            reserve: reserve.unwrap_or_else(|| default_reserve(room.capacity)),
            capacity: AtomicU64::new(room.capacity),
            available: AtomicU64::new(room.available),
        })
    }

    /// Looks again.
    pub fn refresh(&self, file: &File) {
        match sys::room(file) {
            Ok(room) => {
                self.capacity.store(room.capacity, Ordering::Relaxed);
                self.available.store(room.available, Ordering::Relaxed);
            }
            Err(e) => log::warn!("cannot ask for the free space: {e}"),
        }
    }

    /// The room, less the reserve.
    pub fn room(&self) -> Room {
        Room {
            capacity: self.capacity.load(Ordering::Relaxed),
            available: self.available.load(Ordering::Relaxed).saturating_sub(self.reserve),
        }
    }

    /// Fails when `bytes` do not fit.
    pub fn check(&self, bytes: u64) -> Result<(), StoreError> {
        let left = self.room().available;
        if bytes <= left {
            return Ok(());
        }
        Err(StoreError::NoSpace(format!(
            "{bytes} bytes do not fit into the {left} that are left beside the reserve of {} bytes",
            self.reserve
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_suits_small_and_large_file_systems() {
        assert_eq!(default_reserve(100 << 20), 10 << 20);
        assert_eq!(default_reserve(2 << 30), 64 << 20);
        assert_eq!(default_reserve(1 << 40), (1 << 40) / 100);
    }
}
