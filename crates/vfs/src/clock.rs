//! The mount's clock.
//!
//! Each time that it gives is later than all before, and later than what the master stamped on changes that
//! were made through this mount: what applications see of their own changes never goes backwards, whatever the
//! difference between the two clocks.

use dfs_proto::Timestamp;
use parking_lot::Mutex;

#[derive(Default)]
pub(crate) struct Clock {
    /// The latest time that was given or seen. Held for a comparison only.
    latest: Mutex<Timestamp>,
}

impl Clock {
    /// The time now.
    pub fn now(&self) -> Timestamp {
        let mut latest = self.latest.lock();
        *latest = Timestamp::now().max(next_after(*latest));
        *latest
    }

    /// Takes note of a time that the master has given to a change made through this mount.
    pub fn saw(&self, time: Timestamp) {
        let mut latest = self.latest.lock();
        *latest = (*latest).max(time);
    }
}

/// One nanosecond later.
pub(crate) fn next_after(time: Timestamp) -> Timestamp {
    match time.nanos {
        0..999_999_999 => Timestamp { nanos: time.nanos + 1, ..time },
        _ => Timestamp { secs: time.secs.saturating_add(1), nanos: 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_is_later_than_all_that_were_given_or_seen() {
        let clock = Clock::default();
        let first = clock.now();
        assert!(clock.now() > first);
        let ahead = Timestamp { secs: first.secs + 3600, nanos: 999_999_999 };
        clock.saw(ahead);
        assert_eq!(clock.now(), Timestamp { secs: ahead.secs + 1, nanos: 0 });
    }
}
