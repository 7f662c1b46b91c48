//! The loop that claims orders, and what becomes of each.
//!
//! Invariant: an order is settled only after the master was told how it ended, or could not be told for
//! [`PATIENCE`]. A claim whose settling failed is left to its lease.

use crate::carry::{Carried, carry};
use crate::judge::Then;
use crate::outage::Outage;
use crate::report;
use async_trait::async_trait;
use dfs_client::{ClientError, MasterClient, NodeClient};
use dfs_proto::OrderOutcome;
use dfs_proto::order::{ClaimedOrder, FinishRequest, Verdict};
use dfs_queue::RepairQueue;
use dfs_service::{Backoff, Stopper};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// One wait for orders. Well under the claim lease, since each claim keeps those in hand alive.
const CLAIM_WAIT: Duration = Duration::from_secs(3);
/// How long the master or the queue is told again how an order ended before it is left to the master's
/// sweep or the claim's lease.
const PATIENCE: Duration = Duration::from_secs(10);
/// Tries of one order before it is given up. The delays of twelve add up to some minutes, after which the
/// master's own picture is worth a new order.
const ATTEMPTS_MAX: u32 = 12;

/// Where the master's books are kept: told how each order ended.
#[async_trait]
pub(crate) trait Books: Send + Sync + 'static {
    /// Tells how an order ended.
    async fn finish(&self, request: &FinishRequest) -> Result<(), ClientError>;
}

#[async_trait]
impl Books for MasterClient {
    async fn finish(&self, request: &FinishRequest) -> Result<(), ClientError> {
        MasterClient::finish(self, request).await
    }
}

/// Delays between tries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RetryRules {
    /// Of an order whose failure may pass.
    soon: Backoff,
    /// Of an order whose target is full.
    late: Backoff,
    /// Of calls to a server that is away.
    outage: Backoff,
}

impl Default for RetryRules {
    fn default() -> Self {
        let backoff = |base_ms, cap_ms| Backoff {
            base: Duration::from_millis(base_ms),
            cap: Duration::from_millis(cap_ms),
        };
        RetryRules { soon: backoff(200, 30_000), late: backoff(10_000, 120_000), outage: backoff(200, 5_000) }
    }
}

impl RetryRules {
    /// What becomes of an order whose try number `attempt` failed.
    fn verdict(&self, then: Then, attempt: u32, reason: &str) -> Verdict {
        let backoff = match then {
            Then::Bury => return Verdict::Bury { reason: reason.to_owned() },
            _ if attempt >= ATTEMPTS_MAX => {
                return Verdict::Bury { reason: format!("{attempt} tries failed, the last one: {reason}") };
            }
            Then::RetrySoon => self.soon,
            Then::RetryLate => self.late,
        };
        // Half is certain, half is chance: jitter spreads out those who failed together, and the certain
        // part keeps a full target or a dead node from being asked again at once.
        let ceiling = backoff.ceiling(attempt.saturating_sub(1));
        let delay = ceiling.mul_f64(0.5 + rand::random::<f64>() / 2.0);
        Verdict::Retry { delay_ms: delay.as_millis() as u64, reason: reason.to_owned() }
    }

    /// The delay before a server that is away is called for the time after `failures`.
    pub(crate) fn outage_delay(&self, failures: u32) -> Duration {
        self.outage.delay(failures, &mut rand::rng())
    }
}

/// A replicator without its queue.
pub(crate) struct Replicator {
    pub(crate) nodes: Arc<dyn NodeClient>,
    pub(crate) books: Arc<dyn Books>,
    pub(crate) books_outage: Arc<Outage>,
    pub(crate) name: String,
    pub(crate) parallel: usize,
    pub(crate) rules: RetryRules,
}

/// The claim was not settled; it must be left to its lease.
struct Unsettled;

impl Replicator {
    /// Takes orders and carries them out, until it is time to end; then ends those in hand.
    pub(crate) async fn run(
        self: &Arc<Self>,
        queue: Arc<dyn RepairQueue>,
        queue_outage: &Outage,
        mut stopper: Stopper,
    ) {
        let mut worker = self.worker_name();
        let mut in_hand: JoinSet<Result<(), Unsettled>> = JoinSet::new();
        let mut failures = 0;
        while !stopper.is_stopped() {
            let free = self.parallel - in_hand.len();
            let claiming = queue.claim(&worker, free, CLAIM_WAIT);
            let claimed = tokio::select! {
                claimed = claiming => claimed,
                // Orders that come in this moment are left to their lease.
                () = stopper.stopped() => break,
            };
            let mut unknown_claims = false;
            match claimed {
                Ok(claimed) => {
                    queue_outage.over();
                    failures = 0;
                    for order in claimed {
                        let (this, queue, stopper) = (self.clone(), queue.clone(), stopper.clone());
                        in_hand.spawn(async move { this.work(&*queue, order, stopper).await });
                    }
                }
                Err(e) => {
                    queue_outage.failed(&e);
                    unknown_claims = true;
                    stopper.sleep(self.rules.outage_delay(failures)).await;
                    failures = failures.saturating_add(1);
                }
            }
            unknown_claims |= wait_for_a_free_hand(&mut in_hand, self.parallel, &mut stopper).await;
            if unknown_claims {
                // Under the old name the queue would keep alive what nobody works on.
                worker = self.worker_name();
            }
        }
        while let Some(ended) = in_hand.join_next().await {
            // Whatever was not settled lapses with the replicator.
            let _unsettled = is_unsettled(ended);
        }
    }

    /// Differs from that of any run before, so that no claims of a crashed run are kept alive.
    fn worker_name(&self) -> String {
        format!("{}-{:08x}", self.name, rand::random::<u32>())
    }

    /// One try at an order, and the books on it.
    async fn work(
        &self,
        queue: &dyn RepairQueue,
        claimed: ClaimedOrder,
        mut stopper: Stopper,
    ) -> Result<(), Unsettled> {
        let order = &claimed.order;
        let start = Instant::now();
        let (verdict, outcome) = match carry(&*self.nodes, order).await {
            Carried::Done { seq, source, bytes } => {
                log::info!("{}", report::done(order, &source, bytes, start.elapsed()));
                (Verdict::Done, Some(OrderOutcome::Done { seq, source: source.id, bytes }))
            }
            Carried::Failed { then, reason } => {
                let verdict = self.rules.verdict(then, claimed.attempt, &reason);
                match &verdict {
                    Verdict::Retry { delay_ms, reason } => {
                        let delay = Duration::from_millis(*delay_ms);
                        log::warn!("{}", report::retry(order, claimed.attempt, delay, reason));
                        (verdict, None)
                    }
                    Verdict::Bury { reason } => {
                        // No error yet: most are orders that were overtaken, and the master makes new ones.
                        log::warn!("{}", report::dead(order, claimed.attempt, reason));
                        let outcome = OrderOutcome::Dead { reason: reason.clone() };
                        (verdict, Some(outcome))
                    }
                    Verdict::Done => (verdict, None),
                }
            }
        };
        if let Some(outcome) = outcome {
            self.tell_master(FinishRequest { order: order.clone(), outcome }, &mut stopper).await;
        }
        let mut patience = Patience::new(self.rules);
        loop {
            match queue.settle(&claimed, &verdict).await {
                Ok(()) => return Ok(()),
                Err(_) if patience.once_more(&mut stopper).await => {}
                Err(e) => {
                    log::warn!("order {} will be handed out once more: {e}", order.id);
                    return Err(Unsettled);
                }
            }
        }
    }

    /// Tells the master; what it cannot be told, its sweep finds out.
    async fn tell_master(&self, request: FinishRequest, stopper: &mut Stopper) {
        let mut patience = Patience::new(self.rules);
        loop {
            let error = match self.books.finish(&request).await {
                Ok(()) => return self.books_outage.over(),
                Err(e) => e,
            };
            let transient = error.code().is_transient();
            if transient {
                self.books_outage.failed(&error);
            }
            if !transient || !patience.once_more(stopper).await {
                // While the master is away one line says so for all orders.
                let level = if transient { log::Level::Debug } else { log::Level::Warn };
                log::log!(level, "the master was not told how order {} ended: {error}", request.order.id);
                return;
            }
        }
    }
}

/// The tries to tell something important to a server that may be away.
struct Patience {
    rules: RetryRules,
    deadline: Instant,
    failures: u32,
}

impl Patience {
    fn new(rules: RetryRules) -> Patience {
        Patience { rules, deadline: Instant::now() + PATIENCE, failures: 0 }
    }

    /// Waits for the time of the next try; `false` when [`PATIENCE`] is over or it is time to end.
    async fn once_more(&mut self, stopper: &mut Stopper) -> bool {
        let delay = self.rules.outage_delay(self.failures);
        self.failures += 1;
        Instant::now() + delay < self.deadline && stopper.sleep(delay).await
    }
}

/// Waits while there is no free hand, but no longer than [`CLAIM_WAIT`]; clears away orders that have ended.
/// Answers whether a claim was left unsettled.
async fn wait_for_a_free_hand(
    in_hand: &mut JoinSet<Result<(), Unsettled>>,
    parallel: usize,
    stopper: &mut Stopper,
) -> bool {
    let mut unsettled = false;
    if in_hand.len() >= parallel {
        tokio::select! {
            Some(ended) = in_hand.join_next() => unsettled |= is_unsettled(ended),
            () = tokio::time::sleep(CLAIM_WAIT) => {}
            () = stopper.stopped() => {}
        }
    }
    while let Some(ended) = in_hand.try_join_next() {
        unsettled |= is_unsettled(ended);
    }
    unsettled
}

fn is_unsettled(ended: Result<Result<(), Unsettled>, tokio::task::JoinError>) -> bool {
    match ended {
        Ok(Ok(())) => false,
        Ok(Err(Unsettled)) => true,
        Err(e) => {
            log::error!("an order's task failed, which is a fault of the program: {e}");
            true
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
