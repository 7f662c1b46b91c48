//! The bounds that both queues keep.

use std::time::Duration;

/// Longest delay of a retry; longer ones are cut, so that a slip in a delay never parks an order for ever.
pub(crate) const RETRY_DELAY_MAX: Duration = Duration::from_secs(3600);

/// Bounds of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// A claim that is neither settled nor kept alive (see [`crate::RepairQueue::claim`]) for this long is
    /// handed out again.
    pub claim_lease: Duration,
    /// Orders that wait or are in hand. What goes beyond is dropped with a line in the log; the master's
    /// sweep pushes again what is still wanted.
    pub orders_max: usize,
    /// Dead letters that are kept; the oldest make room.
    pub dead_letters_max: usize,
}

impl Default for QueueConfig {
    /// A lease of 10 s; 100,000 orders (about 100 MB of JSON at worst); 1,000 dead letters.
    fn default() -> Self {
        QueueConfig { claim_lease: Duration::from_secs(10), orders_max: 100_000, dead_letters_max: 1_000 }
    }
}
