//! Orders straight from the master, for clusters without Redis.

use async_trait::async_trait;
use dfs_client::{ClientError, MasterClient};
use dfs_proto::order::{ClaimRequest, ClaimedOrder, DeadLetter, Order, SettleRequest, Verdict};
use dfs_queue::{QueueError, RepairQueue};
use std::time::Duration;

/// Longest wait that the master takes ([`ClaimRequest::wait_ms`]), ms.
const WAIT_MS_MAX: u64 = 30_000;

/// The master's own queue, over HTTP.
#[derive(Clone)]
pub struct MasterQueue {
    master: MasterClient,
}

impl MasterQueue {
    /// The queue of this master. No I/O.
    pub fn new(master: MasterClient) -> MasterQueue {
        MasterQueue { master }
    }

    fn unavailable(&self, action: &'static str) -> impl Fn(ClientError) -> QueueError + use<> {
        let server = self.master.url().to_owned();
        move |e| QueueError::Unavailable { server: server.clone(), action, reason: e.to_string() }
    }
}

#[async_trait]
impl RepairQueue for MasterQueue {
    /// Always fails: the master alone makes orders.
    async fn push(&self, _order: &Order) -> Result<(), QueueError> {
        Err(QueueError::Unavailable {
            server: self.master.url().to_owned(),
            action: "take an order",
            reason: "the master makes its orders itself".to_owned(),
        })
    }

    async fn claim(&self, worker: &str, max: usize, wait: Duration) -> Result<Vec<ClaimedOrder>, QueueError> {
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).min(WAIT_MS_MAX);
        let max = u32::try_from(max).unwrap_or(u32::MAX);
        let request = ClaimRequest { worker: worker.to_owned(), max, wait_ms };
        self.master.claim(&request).await.map_err(self.unavailable("hand out orders"))
    }

    async fn settle(&self, claimed: &ClaimedOrder, verdict: &Verdict) -> Result<(), QueueError> {
        let request = SettleRequest { claim: claimed.claim.clone(), verdict: verdict.clone() };
        self.master.settle(&request).await.map_err(self.unavailable("settle an order"))
    }

    async fn depth(&self) -> Result<u64, QueueError> {
        let status = self.master.status().await.map_err(self.unavailable("count its orders"))?;
        Ok(status.replication.orders_queued)
    }

    async fn dead_letters(&self, max: usize) -> Result<Vec<DeadLetter>, QueueError> {
        let status = self.master.status().await.map_err(self.unavailable("list dead letters"))?;
        Ok(status.replication.dead_letters.into_iter().take(max).collect())
    }
}
