//! What this client has just seen of nodes, until the master's view catches up.

use dfs_proto::NodeId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// A node that failed is asked last for so long: about what the master takes to notice.
const FAILED_MS: u64 = 5000;

/// A node without room gets no blobs for so long.
const FULL_MS: u64 = 30_000;

/// Nodes that are remembered.
const NODES_MAX: usize = 4096;

/// Requests in a row for which another node was faster, after which a node counts as failed.
const OVERTAKEN_MAX: u32 = 3;

/// Nodes that failed or were full a moment ago.
#[derive(Default)]
pub(crate) struct Health {
    /// How often in a row a node was late and another one faster.
    overtaken: Mutex<HashMap<NodeId, u32>>,
    failed: Mutex<HashMap<NodeId, Instant>>,
    full: Mutex<HashMap<NodeId, Instant>>,
}

impl Health {
    /// Notes that the node failed. True when that is news.
    pub fn note_failed(&self, node: NodeId) -> bool {
        note(&mut self.failed.lock(), node, Duration::from_millis(FAILED_MS))
    }

    pub fn note_full(&self, node: NodeId) {
        note(&mut self.full.lock(), node, Duration::from_millis(FULL_MS));
    }

    /// Notes that the node was late, and another one asked later was faster.
    pub fn note_overtaken(&self, node: NodeId) {
        let mut overtaken = self.overtaken.lock();
        if overtaken.len() >= NODES_MAX {
            overtaken.clear();
        }
        let times = overtaken.entry(node).or_default();
        *times += 1;
        if *times >= OVERTAKEN_MAX {
            overtaken.remove(&node);
            drop(overtaken);
            self.note_failed(node);
        }
    }

    /// Notes that the node answered as it should.
    pub fn note_good(&self, node: NodeId) {
        let mut overtaken = self.overtaken.lock();
        if !overtaken.is_empty() {
            overtaken.remove(&node);
        }
        drop(overtaken);
        let mut failed = self.failed.lock();
        if !failed.is_empty() {
            failed.remove(&node);
        }
    }

    pub fn has_failed(&self, node: NodeId) -> bool {
        self.failed.lock().get(&node).is_some_and(|until| Instant::now() < *until)
    }

    /// Nodes not to write to, as long as there are others.
    pub fn unfit_to_write(&self) -> Vec<NodeId> {
        let now = Instant::now();
        let noted = |map: &HashMap<NodeId, Instant>| -> Vec<NodeId> {
            map.iter().filter(|(_, until)| now < **until).map(|(node, _)| *node).collect()
        };
        let mut nodes = noted(&self.failed.lock());
        nodes.extend(noted(&self.full.lock()));
        nodes
    }
}

fn note(map: &mut HashMap<NodeId, Instant>, node: NodeId, memory: Duration) -> bool {
    let now = Instant::now();
    if map.len() >= NODES_MAX {
        map.retain(|_, until| now < *until);
    }
    if map.len() >= NODES_MAX {
        return false;
    }
    map.insert(node, now + memory).is_none_or(|until| until <= now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_forgotten_after_a_while_or_a_success() {
        let health = Health::default();
        assert!(health.note_failed(NodeId(1)));
        assert!(!health.note_failed(NodeId(1)));
        assert!(health.has_failed(NodeId(1)));
        health.note_good(NodeId(1));
        assert!(!health.has_failed(NodeId(1)));
        (1..OVERTAKEN_MAX).for_each(|_| health.note_overtaken(NodeId(3)));
        health.note_good(NodeId(3));
        health.note_overtaken(NodeId(3));
        assert!(!health.has_failed(NodeId(3)), "it was good in between");
        (1..OVERTAKEN_MAX).for_each(|_| health.note_overtaken(NodeId(3)));
        assert!(health.has_failed(NodeId(3)));
        health.note_failed(NodeId(1));
        health.note_full(NodeId(2));
        tokio::time::advance(Duration::from_millis(FAILED_MS)).await;
        assert!(!health.has_failed(NodeId(1)));
        assert_eq!(health.unfit_to_write(), [NodeId(2)]);
    }
}
