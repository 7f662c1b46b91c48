//! Replication orders: `bring volume V on node T to at least N`.

use crate::id::{BlobId, BlobKey, NodeId, OrderId, Seq, VolumeId};
use crate::node::NodeInfo;
use serde::{Deserialize, Serialize};

/// One order. Carrying one out twice does no harm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Its number, for the log and the dead letters.
    pub id: OrderId,
    /// The volume to copy.
    pub volume: VolumeId,
    /// What to do.
    pub task: OrderTask,
    /// Who gets the copy.
    pub target: NodeInfo,
    /// Who may have it, best first.
    pub sources: Vec<NodeInfo>,
    /// Capability for the target to carry it out.
    pub token: String,
    /// Why, in a few words for the log: names of files that wait for it (`report.txt (+41 more)`), or
    /// `repair`.
    pub hint: String,
}

/// What an order wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderTask {
    /// Pull the log until the copy reaches this far.
    CatchUp(Seq),
    /// Replace one damaged record.
    Repair(BlobKey),
}

impl Order {
    /// The blob that a repair is about.
    pub fn repaired_blob(&self) -> Option<BlobId> {
        match self.task {
            OrderTask::Repair(key) => Some(BlobId { volume: self.volume, key }),
            OrderTask::CatchUp(_) => None,
        }
    }
}

/// How an order ended; the master keeps its books by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderOutcome {
    /// Done: the target's copy reaches this far.
    Done {
        /// See [`crate::blob::PullReply::seq`].
        seq: Seq,
        /// The source that served.
        source: NodeId,
        /// Bytes that were moved.
        bytes: u64,
    },
    /// Given up; it is among the dead letters.
    Dead {
        /// Why.
        reason: String,
    },
}

/// `POST /v1/orders/finish`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishRequest {
    /// The order.
    pub order: Order,
    /// How it ended.
    pub outcome: OrderOutcome,
}

/// `POST /v1/orders/claim`: how a replicator without Redis gets work from the master.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimRequest {
    /// Name of the replicator.
    pub worker: String,
    /// At most so many.
    pub max: u32,
    /// Wait so long for the first, ms; at most 30,000.
    pub wait_ms: u64,
}

/// `POST /v1/orders/settle`: what became of a claim, for a replicator without Redis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettleRequest {
    /// From [`ClaimedOrder::claim`].
    pub claim: String,
    /// What to do with it.
    pub verdict: Verdict,
}

/// What becomes of a claimed order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Carried out: forget it.
    Done,
    /// Try again, not before so many ms have passed.
    Retry {
        /// The delay.
        delay_ms: u64,
        /// Why it did not work this time.
        reason: String,
    },
    /// Never try again by yourself; keep it where people see it.
    Bury {
        /// Why.
        reason: String,
    },
}

/// An order in the hands of a replicator until its lease ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimedOrder {
    /// Names the claim when it is settled.
    pub claim: String,
    /// How often it has been claimed, this time included.
    pub attempt: u32,
    /// The order.
    pub order: Order,
}

/// An order that was given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The order.
    pub order: Order,
    /// Why.
    pub reason: String,
    /// Unix time, ms.
    pub at_ms: u64,
}
