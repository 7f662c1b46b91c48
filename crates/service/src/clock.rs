//! Time as something that is passed in.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

const NANOS_PER_MS: u64 = 1_000_000;

/// Where the time comes from.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds that never go back, from an arbitrary start: for ages and deadlines.
    fn monotonic_ms(&self) -> u64;
    /// Wall clock, ns since 1970: for what other machines or people read. It may go back.
    fn wall_ns(&self) -> u64;
    /// Wall clock, ms since 1970.
    fn wall_ms(&self) -> u64 {
        self.wall_ns() / NANOS_PER_MS
    }
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock { start: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn monotonic_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    fn wall_ns(&self) -> u64 {
        // Enough until the year 2554.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
    }
}

/// A clock that stands until it is moved.
#[derive(Debug, Default)]
pub struct ManualClock {
    now_ms: AtomicU64,
}

impl ManualClock {
    /// Moves both readings forward.
    pub fn advance_ms(&self, ms: u64) {
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn monotonic_ms(&self) -> u64 {
        self.now_ms.load(Ordering::SeqCst)
    }

    fn wall_ns(&self) -> u64 {
        self.now_ms.load(Ordering::SeqCst) * NANOS_PER_MS
    }
}
