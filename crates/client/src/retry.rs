//! When and how a request is tried again: the one place that decides it.
//!
//! A request is sent again when its error may pass by itself and a second sending does no harm. All that this
//! crate sends again by itself is of that kind: reads; writes with a number that the master knows again; a
//! PUT, because each try has a key of its own; pull, sync and session requests. The one exception, a write
//! whose session is over, is sorted out in `session`.

use dfs_proto::ErrorCode;
use rand::RngExt;
use std::time::Duration;
use tokio::time::Instant;

/// Whether asking the same server the same thing again may give another answer. Narrower than
/// [`ErrorCode::is_transient`], which also covers what only another server can do.
pub(crate) fn passes_by_itself(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::Unavailable
            | ErrorCode::Timeout
            | ErrorCode::Unreachable
            | ErrorCode::Truncated
            | ErrorCode::Internal
    )
}

/// Delays between tries: the n-th is random between 0 and `min(cap, base * 2^n)`, which spreads out those who
/// failed together ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    pub base: Duration,
    pub cap: Duration,
}

impl Backoff {
    /// Between `base_ms` and `cap_ms`.
    pub const fn of_ms(base_ms: u64, cap_ms: u64) -> Backoff {
        Backoff { base: Duration::from_millis(base_ms), cap: Duration::from_millis(cap_ms) }
    }

    fn ceiling(&self, attempt: u32) -> Duration {
        self.base.saturating_mul(1u32.checked_shl(attempt).unwrap_or(u32::MAX)).min(self.cap)
    }

    /// The delay before retry `attempt`, from 0.
    pub fn delay(&self, attempt: u32, rng: &mut impl rand::Rng) -> Duration {
        self.ceiling(attempt).mul_f64(rng.random::<f64>())
    }

    /// Waits before retry `attempt`, not beyond `deadline`.
    pub async fn wait(&self, attempt: u32, deadline: Instant) {
        let delay = self.delay(attempt, &mut rand::rng());
        tokio::time::sleep_until(deadline.min(Instant::now() + delay)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn delays_never_pass_the_cap(attempt in 0u32..10_000) {
            let backoff = Backoff::of_ms(10, 1000);
            prop_assert!(backoff.delay(attempt, &mut rand::rng()) <= backoff.cap);
            prop_assert!(backoff.ceiling(attempt) <= backoff.ceiling(attempt + 1));
        }
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        assert!(passes_by_itself(ErrorCode::Timeout));
        assert!(passes_by_itself(ErrorCode::Unreachable));
        assert!(!passes_by_itself(ErrorCode::NotFound));
        assert!(!passes_by_itself(ErrorCode::NoSpace));
        assert!(!passes_by_itself(ErrorCode::SessionExpired));
    }
}
