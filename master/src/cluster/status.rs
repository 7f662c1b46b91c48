//! The cluster as people watch it.

use crate::cluster::Cluster;
use crate::cluster::state::State;
use dfs_metastore::NodeDuty;
use dfs_proto::node::NodeStatus;
use dfs_proto::status::ReplicationStatus;
use dfs_proto::{NodeId, NodeState, Seq};
use std::collections::BTreeMap;

/// Counts for a status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Volumes.
    pub volumes: u64,
    /// Volumes that take appends.
    pub volumes_open: u64,
}

impl Cluster {
    /// Every node.
    pub fn node_statuses(&self) -> Vec<NodeStatus> {
        let now_ms = self.now_ms();
        let state = self.state.lock();
        let status = |id: NodeId| Some((id, node_status(&state, id, now_ms)?));
        let mut statuses: BTreeMap<NodeId, NodeStatus> = state.present_nodes().filter_map(status).collect();
        for (id, volume) in &state.volumes {
            let needed = state.view(*id, now_ms).map(|v| v.needed()).unwrap_or_default();
            for member in &volume.members {
                if let Some(status) = statuses.get_mut(&member.node) {
                    status.volumes += 1;
                    status.copies_behind += u64::from(member.seq < needed);
                }
            }
        }
        statuses.into_values().collect()
    }

    /// Numbers of volumes.
    pub fn totals(&self) -> Totals {
        let state = self.state.lock();
        Totals { volumes: state.volumes.len() as u64, volumes_open: state.open.len() as u64 }
    }

    /// How far replication is behind. Asks the queue, but not for long.
    pub async fn replication(&self) -> ReplicationStatus {
        let mut status = self.replication_in_memory();
        if let Some(depth) = self.queue.depth().await {
            status.orders_queued = depth;
        }
        status.dead_letters = self.queue.dead_letters().await;
        status
    }

    /// The same without the queue: orders are those that are thought to be out.
    pub fn replication_in_memory(&self) -> ReplicationStatus {
        let now_ms = self.now_ms();
        let state = self.state.lock();
        let mut status = ReplicationStatus {
            bad_blobs: state.orders.repairs() as u64,
            orders_queued: state.orders.out() as u64,
            ..ReplicationStatus::default()
        };
        for (id, volume) in &state.volumes {
            let Some(view) = state.view(*id, now_ms) else { continue };
            let needed = view.needed();
            if needed == Seq(0) || view.whole() >= state.replicas {
                continue;
            }
            status.volumes_behind += 1;
            let behind = view.copies.iter().filter(|c| c.state != NodeState::Dead && !c.leaving);
            let records: u64 = behind.map(|c| needed.0.saturating_sub(c.seq.0)).sum();
            let missing = state.replicas.saturating_sub(view.present()) as u64;
            status.records_behind += records + missing.saturating_mul(needed.0);
            let since = volume.behind_since_ms.unwrap_or(now_ms);
            status.lag_ms = status.lag_ms.max(now_ms.saturating_sub(since));
        }
        status
    }
}

fn node_status(state: &State, id: NodeId, now_ms: u64) -> Option<NodeStatus> {
    let node = state.nodes.get(&id)?;
    Some(NodeStatus {
        info: state.node_info(id, now_ms)?,
        capacity_bytes: node.capacity_bytes,
        free_bytes: node.free_bytes,
        used_bytes: node.used_bytes,
        volumes: 0,
        copies_behind: 0,
        heartbeat_age_ms: now_ms.saturating_sub(node.heard_ms),
        scrub: node.scrub,
        draining: node.row.duty == NodeDuty::Drain,
    })
}
