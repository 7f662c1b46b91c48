//! When a request for a copy is late, judged by those before it, and how many may be made again because of it.

use parking_lot::Mutex;
use std::time::Duration;

/// Buckets of times, each twice as long as the one before: from 64 µs to half a minute.
const BUCKETS: usize = 20;
const FIRST_US: u64 = 64;

/// Requests after which older ones count half.
const REMEMBERED: u32 = 512;

/// Requests before which nothing is judged by them.
const KNOWN_MIN: u32 = 32;

/// A request is late when it takes more than twice as long as so many of a hundred did.
const USUAL_PERCENT: u32 = 95;

/// Nothing is late before this: a program that waits for its turn on a processor takes as long.
const LATE_MIN: Duration = Duration::from_millis(20);

/// Of a hundred requests, so many may be made again for being late.
const AGAIN_PERCENT: u32 = 5;

/// What may be saved up of that.
const AGAIN_MAX: u32 = 10;

/// The times that requests of one kind have taken.
#[derive(Debug, Default)]
pub(crate) struct Lateness(Mutex<Times>);

#[derive(Debug, Default)]
struct Times {
    counts: [u32; BUCKETS],
    total: u32,
    /// Requests that may be made again, in hundredths.
    again: u32,
}

fn bucket(took: Duration) -> usize {
    let times = took.as_micros() as u64 / FIRST_US;
    (u64::BITS - times.leading_zeros()).min(BUCKETS as u32 - 1) as usize
}

impl Lateness {
    /// A request was begun.
    pub fn note_begun(&self) {
        let mut times = self.0.lock();
        times.again = (times.again + AGAIN_PERCENT).min(AGAIN_MAX * 100);
    }

    /// A request brought what was asked for.
    pub fn note_took(&self, took: Duration) {
        let mut times = self.0.lock();
        times.counts[bucket(took)] += 1;
        times.total += 1;
        if times.total >= REMEMBERED {
            times.counts.iter_mut().for_each(|count| *count /= 2);
            times.total = times.counts.iter().sum();
        }
    }

    /// From when on a request is late; `otherwise` when not enough is known, and never later than that.
    pub fn late_after(&self, otherwise: Duration) -> Duration {
        let times = self.0.lock();
        if times.total < KNOWN_MIN {
            return otherwise;
        }
        let usual = times.total - times.total * (100 - USUAL_PERCENT) / 100;
        let mut seen = 0;
        let of_usual = times.counts.iter().position(|count| {
            seen += count;
            seen >= usual
        });
        // The upper end of the bucket is the time, within a factor of two.
        let us = FIRST_US << of_usual.unwrap_or(BUCKETS - 1);
        (2 * Duration::from_micros(us)).max(LATE_MIN).min(otherwise)
    }

    /// Whether a late request may be made again now; it counts as having been.
    pub fn may_go_again(&self) -> bool {
        let mut times = self.0.lock();
        match times.again.checked_sub(100) {
            Some(rest) => {
                times.again = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHERWISE: Duration = Duration::from_millis(700);

    fn after(times: impl IntoIterator<Item = u64>) -> Duration {
        let lateness = Lateness::default();
        times.into_iter().for_each(|ms| lateness.note_took(Duration::from_millis(ms)));
        lateness.late_after(OTHERWISE)
    }

    #[test]
    fn late_is_what_takes_longer_than_nearly_all_before() {
        assert_eq!(after([]), OTHERWISE, "nothing is known");
        assert_eq!(after([1; 10]), OTHERWISE, "not enough is known");
        assert_eq!(after([1; 100]), LATE_MIN);
        let usual = after((0..100).map(|n| if n % 50 == 0 { 600 } else { 30 }));
        assert!(usual >= Duration::from_millis(60) && usual <= Duration::from_millis(140), "{usual:?}");
        assert_eq!(after([5000; 100]), OTHERWISE, "never later than without knowing");
    }

    #[test]
    fn what_was_usual_is_forgotten_when_things_change() {
        let slow = (0..1000).map(|_| 200);
        let then_fast = (0..3000).map(|_| 1);
        assert_eq!(after(slow.chain(then_fast)), LATE_MIN);
    }

    #[test]
    fn few_requests_are_made_again() {
        let lateness = Lateness::default();
        assert!(!lateness.may_go_again());
        (0..100_000).for_each(|_| lateness.note_begun());
        let saved = (0..1000).filter(|_| lateness.may_go_again()).count();
        assert_eq!(saved, AGAIN_MAX as usize);
        let mut again = 0;
        for _ in 0..10_000 {
            lateness.note_begun();
            again += usize::from(lateness.may_go_again());
        }
        assert_eq!(again, 10_000 * AGAIN_PERCENT as usize / 100);
    }

    #[test]
    fn any_time_has_a_bucket() {
        for took in [Duration::ZERO, Duration::from_micros(64), Duration::from_secs(3600), Duration::MAX] {
            assert!(bucket(took) < BUCKETS);
        }
    }
}
