//! The times that go into rows.
//!
//! In nanoseconds, and in the order of the operations: what happens later has a later time, even when the clock
//! stands, so that tools which compare times (make(1), rsync(1)) see which of two files is the newer one.

use crate::config::SharedClock;
use dfs_proto::Timestamp;
use std::sync::atomic::{AtomicU64, Ordering};

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A clock that went back by less is waited for: what was given out last is counted up by 1 ns meanwhile. One that
/// went back further was set right by somebody, and is followed.
const BACK_MAX_NS: u64 = 10 * NANOS_PER_SECOND;

/// Gives out times, each later than the one before.
pub struct Stamps {
    clock: SharedClock,
    /// Ns since 1970.
    last_ns: AtomicU64,
}

impl Stamps {
    /// Times of `clock`.
    pub fn new(clock: SharedClock) -> Stamps {
        Stamps { clock, last_ns: AtomicU64::new(0) }
    }

    /// A time later than all that were given out before, as long as the clock was not set back.
    pub fn next(&self) -> Timestamp {
        let wall_ns = self.clock.0.wall_ns();
        let next = |last_ns: u64| match last_ns.saturating_sub(wall_ns) {
            ahead if ahead > BACK_MAX_NS => wall_ns,
            _ => wall_ns.max(last_ns.saturating_add(1)),
        };
        let mut last_ns = self.last_ns.load(Ordering::Relaxed);
        loop {
            let stamp_ns = next(last_ns);
            match self.last_ns.compare_exchange_weak(last_ns, stamp_ns, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return timestamp(stamp_ns),
                Err(other) => last_ns = other,
            }
        }
    }
}

fn timestamp(ns: u64) -> Timestamp {
    Timestamp { secs: (ns / NANOS_PER_SECOND) as i64, nanos: (ns % NANOS_PER_SECOND) as u32 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_service::Clock;
    use std::sync::Arc;

    /// A clock that shows what it is told to.
    #[derive(Default)]
    struct Shown(AtomicU64);

    impl Clock for Shown {
        fn monotonic_ms(&self) -> u64 {
            0
        }
        fn wall_ns(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn stamps(ns: u64) -> (Stamps, Arc<Shown>) {
        let clock = Arc::new(Shown(AtomicU64::new(ns)));
        (Stamps::new(SharedClock(clock.clone())), clock)
    }

    #[test]
    fn times_are_those_of_the_clock_to_the_nanosecond() {
        let (stamps, clock) = stamps(1_700_000_000_123_456_789);
        assert_eq!(stamps.next(), Timestamp { secs: 1_700_000_000, nanos: 123_456_789 });
        clock.0.store(1_700_000_001_000_000_000, Ordering::Relaxed);
        assert_eq!(stamps.next(), Timestamp { secs: 1_700_000_001, nanos: 0 });
    }

    #[test]
    fn a_clock_that_stands_or_goes_back_a_little_still_gives_later_times() {
        let (stamps, clock) = stamps(BACK_MAX_NS + 999_999_999);
        assert_eq!(stamps.next(), Timestamp { secs: 10, nanos: 999_999_999 });
        assert_eq!(stamps.next(), Timestamp { secs: 11, nanos: 0 });
        clock.0.store(BACK_MAX_NS, Ordering::Relaxed);
        assert_eq!(stamps.next(), Timestamp { secs: 11, nanos: 1 });
    }

    #[test]
    fn a_clock_that_was_set_right_is_followed() {
        let (stamps, clock) = stamps(BACK_MAX_NS * 5);
        stamps.next();
        clock.0.store(BACK_MAX_NS, Ordering::Relaxed);
        assert_eq!(stamps.next(), Timestamp { secs: 10, nanos: 0 });
    }

    #[test]
    fn threads_never_get_the_same_time() {
        let (stamps, _) = stamps(7);
        let mut all: Vec<Timestamp> = std::thread::scope(|scope| {
            let take = || [(); 500].map(|()| stamps.next());
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 2000);
    }
}
