//! The order queue as the master uses it: Redis, or memory that replicators ask over HTTP.

use dfs_proto::order::{ClaimRequest, ClaimedOrder, DeadLetter, SettleRequest};
use dfs_proto::{ErrorCode, Order, WireError};
use dfs_queue::{MemoryQueue, QueueError, RedisQueue, RepairQueue};
use std::sync::Arc;
use std::time::Duration;

/// Longest wait of a claim, ms ([`ClaimRequest::wait_ms`]).
const CLAIM_WAIT_MS_MAX: u64 = 30_000;

/// Orders in one claim.
const CLAIM_ORDERS_MAX: u32 = 1_024;

/// Longest name of a replicator, bytes.
const WORKER_BYTES_MAX: usize = 256;

/// Longest time that looking at the queue may take: a status call never waits for a Redis that hangs.
const LOOK_MAX: Duration = Duration::from_millis(500);

/// Dead letters in a status.
const DEAD_LETTERS_SHOWN_MAX: usize = 100;

/// The queue.
#[derive(Clone)]
pub enum OrderQueue {
    /// In Redis: replicators take from there.
    Redis(Arc<RedisQueue>),
    /// Here: replicators ask for orders.
    Memory(Arc<MemoryQueue>),
}

impl OrderQueue {
    /// The queue for the cluster of this name: in Redis when a URL is given. The Redis need not be up.
    pub fn new(redis: Option<&str>, cluster: &str) -> Result<OrderQueue, QueueError> {
        Ok(match redis {
            Some(url) => OrderQueue::Redis(Arc::new(RedisQueue::new(url, cluster)?)),
            None => OrderQueue::Memory(Arc::new(MemoryQueue::default())),
        })
    }

    fn seam(&self) -> &dyn RepairQueue {
        match self {
            OrderQueue::Redis(queue) => queue.as_ref(),
            OrderQueue::Memory(queue) => queue.as_ref(),
        }
    }

    /// Adds an order.
    pub async fn push(&self, order: &Order) -> Result<(), QueueError> {
        self.seam().push(order).await
    }

    /// Orders that wait or are in hand; `None` when the queue does not answer soon.
    pub async fn depth(&self) -> Option<u64> {
        tokio::time::timeout(LOOK_MAX, self.seam().depth()).await.ok()?.ok()
    }

    /// Orders that were given up, newest first; none when the queue does not answer soon.
    pub async fn dead_letters(&self) -> Vec<DeadLetter> {
        let look = tokio::time::timeout(LOOK_MAX, self.seam().dead_letters(DEAD_LETTERS_SHOWN_MAX));
        look.await.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// Hands out orders; `not_supported` when they are in Redis.
    pub async fn claim(&self, request: &ClaimRequest) -> Result<Vec<ClaimedOrder>, WireError> {
        let queue = self.memory()?;
        if request.worker.is_empty() || request.worker.len() > WORKER_BYTES_MAX {
            let message = format!("the name of a replicator has 1 to {WORKER_BYTES_MAX} bytes");
            return Err(WireError::new(ErrorCode::InvalidArgument, message));
        }
        let wait = Duration::from_millis(request.wait_ms.min(CLAIM_WAIT_MS_MAX));
        let max = request.max.min(CLAIM_ORDERS_MAX) as usize;
        let claimed = queue.claim(&request.worker, max, wait).await;
        claimed.map_err(|e| WireError::new(ErrorCode::Unavailable, e.to_string()))
    }

    /// Ends a claim; `not_supported` when orders are in Redis.
    pub fn settle(&self, request: &SettleRequest) -> Result<(), WireError> {
        self.memory()?.settle_claim(&request.claim, &request.verdict);
        Ok(())
    }

    fn memory(&self) -> Result<&MemoryQueue, WireError> {
        match self {
            OrderQueue::Memory(queue) => Ok(queue),
            OrderQueue::Redis(queue) => {
                let message = format!(
                    "the orders of this cluster are in the Redis at {}; start the replicator with --redis",
                    queue.server()
                );
                Err(WireError::new(ErrorCode::NotSupported, message))
            }
        }
    }
}
