//! When and how a request is tried again: the one place that decides it.
//!
//! A request is sent again when its error may pass by itself **and** a second sending does no harm: it is
//! idempotent, or the first one certainly never arrived.

use dfs_proto::ErrorCode;
use rand::RngExt;
use std::time::Duration;
use tokio::time::Instant;

/// What a second sending of a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// The same as the first: reads, and writes with a number that the master knows again.
    Harmless,
    /// Possibly a second effect.
    Harmful,
}

/// Whether a request that failed with `code` is worth sending again, and may be. `sent`: the server may have
/// received it.
pub(crate) fn may_retry(code: ErrorCode, sent: bool, repeat: Repeat) -> bool {
    passes_by_itself(code) && (!sent || repeat == Repeat::Harmless)
}

/// Whether asking the same server the same thing again may give another answer. Narrower than
/// [`ErrorCode::is_transient`], which also covers what only another server can do.
fn passes_by_itself(code: ErrorCode) -> bool {
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
    fn what_may_have_been_carried_out_is_not_repeated_when_that_does_harm() {
        assert!(may_retry(ErrorCode::Timeout, true, Repeat::Harmless));
        assert!(!may_retry(ErrorCode::Timeout, true, Repeat::Harmful));
        assert!(may_retry(ErrorCode::Unreachable, false, Repeat::Harmful));
        assert!(!may_retry(ErrorCode::NotFound, false, Repeat::Harmless));
        assert!(!may_retry(ErrorCode::NoSpace, false, Repeat::Harmless));
    }
}
