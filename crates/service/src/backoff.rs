//! Delays between tries: exponential with full jitter.

use rand::RngExt;
use std::time::Duration;

/// The rule for delays: the n-th is random between 0 and `min(cap, base * 2^n)`, which spreads out those
/// who failed together ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Upper bound of the first delay.
    pub base: Duration,
    /// Upper bound of every delay.
    pub cap: Duration,
}

impl Backoff {
    /// Upper bound of the delay before try `attempt` (0 is the first retry).
    pub fn ceiling(&self, attempt: u32) -> Duration {
        self.base.saturating_mul(1u32.checked_shl(attempt).unwrap_or(u32::MAX)).min(self.cap)
    }

    /// The delay before try `attempt`.
    pub fn delay(&self, attempt: u32, rng: &mut impl rand::Rng) -> Duration {
        self.ceiling(attempt).mul_f64(rng.random::<f64>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_cap_and_never_overflow() {
        let b = Backoff { base: Duration::from_millis(10), cap: Duration::from_secs(1) };
        assert_eq!(b.ceiling(0), Duration::from_millis(10));
        assert_eq!(b.ceiling(3), Duration::from_millis(80));
        assert_eq!(b.ceiling(31), b.cap);
        assert_eq!(b.ceiling(1000), b.cap);
        let mut rng = rand::rng();
        assert!((0..100).all(|n| b.delay(n, &mut rng) <= b.cap));
    }
}
