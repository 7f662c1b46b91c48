//! What clients are doing right now, so that copying between nodes can stand back.
//!
//! A client waits for its request; nobody waits for a copy that is made in the background. So such a copy is put
//! off while clients are at work, within bounds: a pull stands back for a few seconds in all, and not at all when
//! it has fallen far behind. Pulls that an fsync waits for never do.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// Clients count as at work for so long after a request: a stream that alternates between nodes has gaps.
const QUIET_AFTER: Duration = Duration::from_millis(100);

/// How often somebody who stands back looks again.
pub const LOOK_EVERY: Duration = Duration::from_millis(25);

/// How long a pull stands back, in all: what is at risk without a second copy is so for that much longer.
pub const STAND_BACK_MAX: Duration = Duration::from_secs(3);

/// A copy that lacks more records than these stands back no more: 256 MiB of large ones.
pub const RECORDS_BEHIND_MAX: u64 = 64;

/// When clients were last at work.
#[derive(Debug, Default)]
pub struct Foreground {
    /// Held for moments.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    under_way: usize,
    last_end: Option<Instant>,
}

/// A client's request under way.
pub struct AtWork<'a>(&'a Foreground);

impl Foreground {
    /// A client's request begins; it ends when what is returned is dropped.
    pub fn enter(&self) -> AtWork<'_> {
        self.state.lock().under_way += 1;
        AtWork(self)
    }

    /// Whether clients are at work.
    pub fn is_busy(&self) -> bool {
        let state = self.state.lock();
        state.under_way > 0 || state.last_end.is_some_and(|end| end.elapsed() < QUIET_AFTER)
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.under_way -= 1;
        state.last_end = Some(Instant::now());
    }
}

/// How long one pull has stood back.
#[derive(Debug)]
pub struct Patience {
    left: Duration,
}

impl Patience {
    /// Of a pull that may stand back, or may not.
    pub fn new(may_stand_back: bool) -> Patience {
        Patience { left: if may_stand_back { STAND_BACK_MAX } else { Duration::ZERO } }
    }

    /// Whether a copy that lacks `records` is to stand back for another [`LOOK_EVERY`]; takes note of it.
    pub fn stands_back(&mut self, is_busy: bool, records: u64) -> bool {
        let stands_back = is_busy && records <= RECORDS_BEHIND_MAX && !self.left.is_zero();
        if stands_back {
            self.left = self.left.saturating_sub(LOOK_EVERY);
        }
        stands_back
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_at_work_from_their_first_request_until_some_time_after_the_last() {
        let foreground = Foreground::default();
        assert!(!foreground.is_busy());
        let (one, other) = (foreground.enter(), foreground.enter());
        drop(one);
        assert!(foreground.is_busy());
        drop(other);
        assert!(foreground.is_busy(), "the next request may follow at once");
        foreground.state.lock().last_end = Instant::now().checked_sub(QUIET_AFTER);
        assert!(!foreground.is_busy());
    }

    #[test]
    fn a_pull_stands_back_while_clients_are_at_work_but_not_for_ever_and_not_when_it_is_far_behind() {
        let mut patience = Patience::new(true);
        assert!(!patience.stands_back(false, 1));
        assert!(!patience.stands_back(true, RECORDS_BEHIND_MAX + 1));
        let looks = (0..).take_while(|_| patience.stands_back(true, RECORDS_BEHIND_MAX)).count();
        assert_eq!(LOOK_EVERY * looks as u32, STAND_BACK_MAX);
        assert!(!patience.stands_back(true, 1));
        assert!(!Patience::new(false).stands_back(true, 1));
    }
}
