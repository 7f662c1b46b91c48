//! The seam.

use async_trait::async_trait;
use dfs_proto::order::{ClaimedOrder, DeadLetter, Order, Verdict};
use std::time::Duration;

/// Why a queue could not do what it was asked. All are worth another try later.
#[derive(Clone, Debug, thiserror::Error)]
pub enum QueueError {
    /// The server behind the queue does not answer, or answers an error.
    #[error("the order queue at {server} failed to {action}: {reason}")]
    Unavailable {
        /// Address, without credentials.
        server: String,
        /// What was to be done.
        action: &'static str,
        /// What it said.
        reason: String,
    },
}

/// Orders that wait, for any number of producers and consumers.
///
/// At least once: an order that was claimed and not settled within the claim lease is handed out again. An
/// order may be pushed while an older one for the same copy waits; carrying out both does no harm.
#[async_trait]
pub trait RepairQueue: Send + Sync + 'static {
    /// Adds an order.
    async fn push(&self, order: &Order) -> Result<(), QueueError>;
    /// Takes up to `max` orders for the consumer of this name; waits up to `wait` for the first. Orders of
    /// consumers that died, and delayed ones whose time has come, are among them.
    ///
    /// A consumer that calls is alive: its call starts the leases of all it holds anew. A busy one calls with
    /// `max` 0, which takes nothing and does not wait. A consumer that lost an answer may hold what it does
    /// not know of, and takes another name.
    async fn claim(&self, worker: &str, max: usize, wait: Duration) -> Result<Vec<ClaimedOrder>, QueueError>;
    /// Ends a claim. Settling a claim that is not held any more does nothing.
    async fn settle(&self, claimed: &ClaimedOrder, verdict: &Verdict) -> Result<(), QueueError>;
    /// Orders that wait or are in hand.
    async fn depth(&self) -> Result<u64, QueueError>;
    /// Orders that were given up, newest first, at most `max`.
    async fn dead_letters(&self, max: usize) -> Result<Vec<DeadLetter>, QueueError>;
}
