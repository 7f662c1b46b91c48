//! Giving up copies that are one too many: those of nodes that are being emptied, those that a dead node brings
//! back, and those that rebalancing has made elsewhere.
//!
//! One copy at a time. First every record of the copies that stay is read and verified where it is; then the
//! member is struck off, durably; then its node is told to drop the copy, again and again until it has. What a
//! node still has to drop is in memory only: a node tells all it has when it registers with a master that has
//! started anew, is taken back as a member, and the whole begins again.

use crate::cluster::Cluster;
use crate::cluster::garbage::delete_token;
use crate::cluster::repair_choice::Spare;
use crate::cluster::state::{Change, State};
use dfs_client::NodeClient;
use dfs_proto::blob::VerifyRequest;
use dfs_proto::{NodeId, NodeState, Seq, VolumeId, WireError};
use dfs_service::Stopper;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Bytes that a node verifies in one request.
const VERIFY_BYTES: u64 = 64 << 20;

/// A copy that could not be given up is looked at again after this, ms: what is damaged elsewhere is repaired
/// first.
const PAUSE_MS: u64 = 10_000;

/// Copies that nodes are told to drop in one turn.
const DROPS_PER_TURN_MAX: usize = 64;

/// A spare copy of a volume, with where the others are.
struct Candidate {
    volume: VolumeId,
    spare: Spare,
    /// Names and base URLs of the nodes whose copies stay.
    kept: Vec<(String, String)>,
}

impl Cluster {
    /// Gives up spare copies until it is time to end.
    pub async fn trim_forever(self: Arc<Self>, nodes: Arc<dyn NodeClient>, mut stopper: Stopper) {
        let pause = Duration::from_millis(self.config.sweep_ms);
        // Volumes that are left alone until then, monotonic ms.
        let mut postponed: HashMap<VolumeId, u64> = HashMap::new();
        while stopper.sleep(pause).await {
            self.drop_copies(&nodes).await;
            let now_ms = self.now_ms();
            postponed.retain(|_, until_ms| *until_ms > now_ms);
            while let Some(candidate) = self.spare_copy(&postponed) {
                let volume = candidate.volume;
                let trimmed = tokio::select! {
                    trimmed = self.trim(&nodes, candidate) => trimmed,
                    () = stopper.stopped() => return,
                };
                if let Err(why) = trimmed {
                    log::warn!("a spare copy of volume {volume} is kept for now: {why}");
                    postponed.insert(volume, self.now_ms() + PAUSE_MS);
                }
            }
        }
    }

    fn spare_copy(&self, postponed: &HashMap<VolumeId, u64>) -> Option<Candidate> {
        let now_ms = self.now_ms();
        let state = self.state.lock();
        state.volumes.iter().filter(|(id, _)| !postponed.contains_key(id)).find_map(|(id, _)| {
            let spare = spare(&state, *id, now_ms)?;
            let at = |node: &NodeId| state.nodes.get(node).map(|n| (n.row.name.clone(), n.row.url.clone()));
            let kept = spare.kept.iter().filter_map(at).collect();
            Some(Candidate { volume: *id, spare, kept })
        })
    }

    /// Verifies the copies that stay, strikes the spare one off and has it dropped.
    async fn trim(&self, nodes: &Arc<dyn NodeClient>, candidate: Candidate) -> Result<(), String> {
        let Candidate { volume, spare, kept } = candidate;
        for (name, url) in &kept {
            verify_copy(nodes, url, volume, spare.needed)
                .await
                .map_err(|why| format!("the copy on {name} is not proven: {why}"))?;
        }
        if !self.strike_off(volume, &spare).await.map_err(|e| e.to_string())? {
            return Ok(());
        }
        log::info!(
            "node {} is no member of volume {volume} any more; {} copies stay",
            spare.node,
            kept.len()
        );
        self.drop_copies(nodes).await;
        Ok(())
    }

    /// False when things have changed meanwhile.
    async fn strike_off(&self, volume: VolumeId, was: &Spare) -> Result<bool, WireError> {
        let turn = self.changes.lock().await;
        let now_ms = self.now_ms();
        let change = {
            let mut state = self.state.lock();
            let is_still = spare(&state, volume, now_ms).is_some_and(|now| now == *was);
            let primary = state.volumes.get(&volume).and_then(|v| state.primary_without(v, was.node));
            let change = primary.filter(|_| is_still).map(|primary| Change::Leave {
                id: volume,
                node: was.node,
                primary,
            });
            if change.is_some() {
                // Before it is no member: from then on it must not become one until it has dropped the copy.
                state.dropping.insert((was.node, volume));
            }
            change
        };
        let Some(change) = change else { return Ok(false) };
        let committed = self.commit(&turn, vec![change]).await;
        if committed.is_err() {
            self.state.lock().dropping.remove(&(was.node, volume));
        }
        committed.map(|()| true)
    }

    /// Tells live nodes to drop what they are no members of any more.
    async fn drop_copies(&self, nodes: &Arc<dyn NodeClient>) {
        let due: Vec<(NodeId, VolumeId, String)> = {
            let now_ms = self.now_ms();
            let state = self.state.lock();
            let due = state.dropping.iter().filter_map(|(node, volume)| {
                let info = state.node_info(*node, now_ms).filter(|info| info.state == NodeState::Live)?;
                Some((*node, *volume, info.url))
            });
            due.take(DROPS_PER_TURN_MAX).collect()
        };
        let token = delete_token(self, self.clock().wall_ms());
        for (node, volume, url) in due {
            match nodes.drop_copy(&url, volume, &token).await {
                Ok(_) => {
                    self.state.lock().dropping.remove(&(node, volume));
                }
                Err(e) => log::warn!("node {node} did not drop its copy of volume {volume} yet: {e}"),
            }
        }
    }
}

fn spare(state: &State, volume: VolumeId, now_ms: u64) -> Option<Spare> {
    let used = |node: NodeId| state.nodes.get(&node).map_or(0, |n| n.used_bytes);
    state.view(volume, now_ms)?.spare(state.replicas, used)
}

/// Has a node read and verify all of its copy of `volume` up to `needed`.
async fn verify_copy(
    nodes: &Arc<dyn NodeClient>,
    url: &str,
    volume: VolumeId,
    needed: Seq,
) -> Result<(), String> {
    let mut after = Seq(0);
    while after < needed {
        let request = VerifyRequest { after, max_bytes: VERIFY_BYTES };
        let reply = nodes.verify(url, volume, request).await.map_err(|e| e.to_string())?;
        if reply.bad > 0 {
            return Err(format!("{} records are damaged there; they are repaired first", reply.bad));
        }
        if reply.reach < needed {
            return Err(format!("it reaches {} and not {needed}", reply.reach));
        }
        if reply.next <= after {
            return Err(format!("verifying it gets no further than {after}"));
        }
        after = reply.next;
    }
    Ok(())
}
