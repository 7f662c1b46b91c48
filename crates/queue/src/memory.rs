//! Orders in the memory of one process: the master's queue when there is no Redis.
//!
//! Invariant: an order is in exactly one of `ready`, `delayed` and `held`. Claim names carry the time the
//! queue was made, so a claim from before a restart never settles another order's.

use crate::config::{QueueConfig, RETRY_DELAY_MAX};
use crate::seam::{QueueError, RepairQueue};
use crate::wall_ms;
use async_trait::async_trait;
use dfs_proto::order::{ClaimedOrder, DeadLetter, Order, Verdict};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The queue in memory. It is empty after a restart, and never unavailable.
#[derive(Debug)]
pub struct MemoryQueue {
    config: QueueConfig,
    /// Held for a few map operations at a time, never over an await.
    state: Mutex<State>,
    /// Rung when an order becomes ready, or when the time that the sleepers wait for has moved.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    /// When the queue was made; part of claim names.
    made_ms: u64,
    /// Grows with everything that needs a number.
    counter: u64,
    ready: VecDeque<Waiting>,
    /// By due time, then by age.
    delayed: BTreeMap<(Instant, u64), Waiting>,
    held: HashMap<String, Held>,
    dead: VecDeque<DeadLetter>,
    /// Orders that were dropped since the queue became full.
    dropped: u64,
}

#[derive(Debug)]
struct Waiting {
    /// How often it has been claimed so far.
    claims: u32,
    order: Order,
}

#[derive(Debug)]
struct Held {
    worker: String,
    expires: Instant,
    waiting: Waiting,
}

impl Default for MemoryQueue {
    fn default() -> Self {
        MemoryQueue::new(QueueConfig::default())
    }
}

impl MemoryQueue {
    /// An empty queue.
    pub fn new(config: QueueConfig) -> MemoryQueue {
        let state = State {
            made_ms: wall_ms(),
            counter: 0,
            ready: VecDeque::new(),
            delayed: BTreeMap::new(),
            held: HashMap::new(),
            dead: VecDeque::new(),
            dropped: 0,
        };
        MemoryQueue { config, state: Mutex::new(state), changed: Notify::new() }
    }

    /// Ends the claim of this name, as [`RepairQueue::settle`] does: for those who know no more than the name.
    pub fn settle_claim(&self, claim: &str, verdict: &Verdict) {
        self.state.lock().settle(claim, verdict, &self.config);
        self.changed.notify_waiters();
    }
}

#[async_trait]
impl RepairQueue for MemoryQueue {
    async fn push(&self, order: &Order) -> Result<(), QueueError> {
        self.state.lock().push(order, &self.config);
        self.changed.notify_waiters();
        Ok(())
    }

    async fn claim(&self, worker: &str, max: usize, wait: Duration) -> Result<Vec<ClaimedOrder>, QueueError> {
        let deadline = Instant::now() + wait;
        loop {
            // Listens before it looks, so that nothing is missed in between.
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let now = Instant::now();
            let (claimed, next) = {
                let mut state = self.state.lock();
                let claimed = state.claim(worker, max, now, self.config.claim_lease);
                (claimed, state.next_event())
            };
            if !claimed.is_empty() || max == 0 || now >= deadline {
                return Ok(claimed);
            }
            let wake = next.map_or(deadline, |at| at.min(deadline));
            tokio::select! {
                () = &mut changed => {}
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    async fn settle(&self, claimed: &ClaimedOrder, verdict: &Verdict) -> Result<(), QueueError> {
        self.settle_claim(&claimed.claim, verdict);
        Ok(())
    }

    async fn depth(&self) -> Result<u64, QueueError> {
        Ok(self.state.lock().depth() as u64)
    }

    async fn dead_letters(&self, max: usize) -> Result<Vec<DeadLetter>, QueueError> {
        Ok(self.state.lock().dead.iter().rev().take(max).cloned().collect())
    }
}

impl State {
    fn depth(&self) -> usize {
        self.ready.len() + self.delayed.len() + self.held.len()
    }

    fn push(&mut self, order: &Order, config: &QueueConfig) {
        if self.depth() >= config.orders_max {
            self.dropped += 1;
            if self.dropped == 1 {
                log::warn!(
                    "the order queue is full at {} orders; further ones are dropped",
                    config.orders_max
                );
            }
            return;
        }
        if self.dropped > 0 {
            log::warn!("the order queue has room again; {} orders were dropped meanwhile", self.dropped);
            self.dropped = 0;
        }
        self.ready.push_back(Waiting { claims: 0, order: order.clone() });
    }

    fn claim(&mut self, worker: &str, max: usize, now: Instant, lease: Duration) -> Vec<ClaimedOrder> {
        for held in self.held.values_mut().filter(|held| held.worker == worker) {
            held.expires = now + lease;
        }
        self.take_back_expired(now);
        self.release_due(now);
        let count = max.min(self.ready.len());
        let taken: Vec<Waiting> = self.ready.drain(..count).collect();
        taken.into_iter().map(|waiting| self.hold(worker, waiting, now + lease)).collect()
    }

    fn hold(&mut self, worker: &str, waiting: Waiting, expires: Instant) -> ClaimedOrder {
        self.counter += 1;
        let claim = format!("{}-{}", self.made_ms, self.counter);
        let waiting = Waiting { claims: waiting.claims.saturating_add(1), ..waiting };
        let claimed =
            ClaimedOrder { claim: claim.clone(), attempt: waiting.claims, order: waiting.order.clone() };
        self.held.insert(claim, Held { worker: worker.to_owned(), expires, waiting });
        claimed
    }

    /// Those whose lease is over stand first in line again: they have waited longest.
    fn take_back_expired(&mut self, now: Instant) {
        let expired: Vec<String> =
            self.held.iter().filter(|(_, h)| h.expires <= now).map(|(claim, _)| claim.clone()).collect();
        for claim in expired {
            if let Some(held) = self.held.remove(&claim) {
                log::warn!(
                    "order {} was not settled by {} in time and is handed out again",
                    held.waiting.order.id,
                    held.worker
                );
                self.ready.push_front(held.waiting);
            }
        }
    }

    fn release_due(&mut self, now: Instant) {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                return;
            }
            self.ready.push_back(entry.remove());
        }
    }

    /// When something will become ready by itself.
    fn next_event(&self) -> Option<Instant> {
        let due = self.delayed.keys().next().map(|(at, _)| *at);
        let expiry = self.held.values().map(|held| held.expires).min();
        due.into_iter().chain(expiry).min()
    }

    fn settle(&mut self, claim: &str, verdict: &Verdict, config: &QueueConfig) {
        let Some(held) = self.held.remove(claim) else { return };
        match verdict {
            Verdict::Done => {}
            Verdict::Retry { delay_ms, reason: _ } => {
                self.counter += 1;
                let delay = Duration::from_millis(*delay_ms).min(RETRY_DELAY_MAX);
                let due = Instant::now() + delay;
                self.delayed.insert((due, self.counter), held.waiting);
            }
            Verdict::Bury { reason } => {
                let letter =
                    DeadLetter { order: held.waiting.order, reason: reason.clone(), at_ms: wall_ms() };
                self.dead.push_back(letter);
                while self.dead.len() > config.dead_letters_max {
                    self.dead.pop_front();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{LEASE, order};
    use std::sync::Arc;

    async fn queue() -> (Arc<dyn RepairQueue>, ()) {
        (Arc::new(MemoryQueue::new(QueueConfig { claim_lease: LEASE, ..QueueConfig::default() })), ())
    }

    crate::queue_conformance!(queue);

    #[tokio::test]
    async fn a_full_queue_drops_and_takes_again_when_there_is_room() {
        let queue = MemoryQueue::new(QueueConfig { orders_max: 2, ..QueueConfig::default() });
        for id in 1..=3 {
            queue.push(&order(id)).await.unwrap();
        }
        assert_eq!(queue.depth().await.unwrap(), 2);
        let claimed = queue.claim("w", 1, Duration::ZERO).await.unwrap();
        queue.settle(&claimed[0], &Verdict::Done).await.unwrap();
        queue.push(&order(4)).await.unwrap();
        let ids: Vec<u64> =
            queue.claim("w", 9, Duration::ZERO).await.unwrap().iter().map(|c| c.order.id.0).collect();
        assert_eq!(ids, [2, 4]);
    }

    #[tokio::test]
    async fn dead_letters_are_bounded() {
        let queue = MemoryQueue::new(QueueConfig { dead_letters_max: 2, ..QueueConfig::default() });
        for id in 1..=3 {
            queue.push(&order(id)).await.unwrap();
            let claimed = queue.claim("w", 1, Duration::ZERO).await.unwrap();
            queue.settle(&claimed[0], &Verdict::Bury { reason: "no".into() }).await.unwrap();
        }
        let ids: Vec<u64> = queue.dead_letters(9).await.unwrap().iter().map(|d| d.order.id.0).collect();
        assert_eq!(ids, [3, 2]);
    }

    #[tokio::test]
    async fn claims_of_an_earlier_queue_settle_nothing() {
        let queue = MemoryQueue::default();
        queue.push(&order(1)).await.unwrap();
        let claimed = queue.claim("w", 1, Duration::ZERO).await.unwrap();
        queue.settle_claim("1-1", &Verdict::Done);
        assert_eq!(queue.depth().await.unwrap(), 1);
        queue.settle_claim(&claimed[0].claim, &Verdict::Done);
        assert_eq!(queue.depth().await.unwrap(), 0);
    }
}
