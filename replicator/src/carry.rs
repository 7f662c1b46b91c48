//! One try at one order: source after source, best first.

use crate::judge::{Judgement, Then, judge};
use dfs_client::{ClientError, NodeClient};
use dfs_proto::blob::PullRequest;
use dfs_proto::order::{Order, OrderTask};
use dfs_proto::{ErrorCode, NodeInfo, Seq};

/// How a try ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Carried {
    /// The target has what it should.
    Done {
        /// How far its copy reaches; 0 after a repair, which does not tell.
        seq: Seq,
        /// Who served.
        source: NodeInfo,
        /// Bytes that came over; 0 after a repair.
        bytes: u64,
    },
    /// It has not.
    Failed {
        /// What to do now.
        then: Then,
        /// What each source's try said.
        reason: String,
    },
}

/// Tries the order's sources until one serves or none can.
pub(crate) async fn carry(nodes: &dyn NodeClient, order: &Order) -> Carried {
    let mut hope = Then::Bury;
    let mut reasons = Vec::new();
    for source in &order.sources {
        if source.id == order.target.id {
            continue;
        }
        let error = match copy(nodes, order, source).await {
            Ok((seq, bytes)) => return Carried::Done { seq, source: source.clone(), bytes },
            Err(error) => error,
        };
        reasons.push(format!("from {}: {error}", source.name));
        let Judgement { next_source, then } = judge(&error);
        if !next_source {
            hope = then;
            break;
        }
        hope = hope.max(then);
    }
    if reasons.is_empty() {
        reasons.push("the order names no source".to_owned());
    }
    Carried::Failed { then: hope, reason: reasons.join("; ") }
}

/// Has the target copy from one source; answers how far it reaches and how many bytes came over.
async fn copy(nodes: &dyn NodeClient, order: &Order, source: &NodeInfo) -> Result<(Seq, u64), ClientError> {
    let target = &order.target;
    match order.task {
        OrderTask::CatchUp(at_least) => {
            let request = PullRequest { source: source.url.clone(), at_least, sync: false };
            let reply = nodes.pull(&target.url, order.volume, &request, &order.token).await?;
            if reply.seq < at_least {
                let message = format!("it reaches only {} of {at_least}", reply.seq);
                return Err(ClientError::local(ErrorCode::Unavailable, message));
            }
            Ok((reply.seq, reply.bytes))
        }
        OrderTask::Repair(key) => {
            let blob = dfs_proto::BlobId { volume: order.volume, key };
            nodes.repair(&target.url, blob, &source.url, &order.token).await?;
            Ok((Seq(0), 0))
        }
    }
}
