//! Nodes that say who they are and how they are.
//!
//! A node's identity is the `uuid` in its data directory: it keeps its number across restarts and addresses.
//! Its name is the one it asks for; when another node has that one, a number is added (`sn1-2`), since a second
//! machine with a copied configuration should serve rather than be turned away.

use crate::cluster::placement::pick_members;
use crate::cluster::state::{Change, State};
use crate::cluster::{Cluster, KEY_STEP};
use crate::error::from_store;
use dfs_metastore::{CopyRow, Counter, Durability, NodeDuty, NodeRow};
use dfs_proto::blob::CopyStatus;
use dfs_proto::node::{HeartbeatReply, HeartbeatRequest, RegisterReply, RegisterRequest};
use dfs_proto::{BlobKey, ErrorCode, NodeId, NodeState, Seq, VolumeId, WireError};
use rand::Rng;
use std::collections::HashMap;
use std::net::IpAddr;

/// Longest identity, name and zone, bytes.
const TEXT_BYTES_MAX: usize = 128;

/// Port of a node that does not say one.
const NODE_PORT: u16 = 5000;

impl Cluster {
    /// A node that starts, or that this run of the master does not know yet. `peer` is where the request came
    /// from.
    ///
    /// `unauthorized` without the cluster's key, `conflict` for a node of another cluster, `invalid_argument`
    /// for what cannot be meant.
    pub async fn register(
        &self,
        request: RegisterRequest,
        peer: Option<IpAddr>,
    ) -> Result<RegisterReply, WireError> {
        self.admit(&request)?;
        check_texts(&request)?;
        let url = node_url(&request.url, peer)?;
        let turn = self.changes.lock().await;
        let known = {
            let state = self.state.lock();
            let known = state.nodes.values().find(|n| n.row.uuid == request.uuid);
            if let Some(node) = known.filter(|n| n.row.duty == NodeDuty::Removed) {
                return Err(removed(&node.row.name));
            }
            known.map(|n| n.row.id)
        };
        let id = match known {
            Some(id) => id,
            None => {
                let taken = self.store.write(Durability::Disk, |txn| txn.take(Counter::Node, 1));
                NodeId(taken.await.map_err(from_store)?)
            }
        };
        self.reserve_volume_ids(&turn, u64::from(self.config.open_volumes_per_node)).await?;

        let now_ms = self.now_ms();
        let changes = {
            let mut state = self.state.lock();
            let name = node_name(&state, id, &request.name);
            let duty = state.nodes.get(&id).map(|n| n.row.duty).unwrap_or_default();
            let row = NodeRow { id, uuid: request.uuid.clone(), name, url, zone: request.zone.clone(), duty };
            let per_node = self.config.open_volumes_per_node as usize;
            plan_registration(&mut state, row, &request, per_node, now_ms, &mut rand::rng())
        };
        self.commit(&turn, changes).await?;
        let reply = {
            let mut state = self.state.lock();
            note_registration(&mut state, id, &request, now_ms);
            self.register_reply(&state, id)
        };
        // Not before: a sweep in between would take the new volumes for those of another incarnation.
        drop(turn);
        log::info!(
            "{} (node {id}) registered with {} copies and {} MiB free; it appends to {} volumes",
            reply.name,
            request.copies.len(),
            request.free_bytes >> 20,
            reply.open_volumes.len()
        );
        self.events.publish(None, [dfs_proto::EventKind::Placement]);
        self.wanted.notify_one();
        self.sweep_soon();
        Ok(reply)
    }

    fn admit(&self, request: &RegisterRequest) -> Result<(), WireError> {
        let key = &self.config.cluster_key;
        if !key.is_empty() && *key != request.cluster_key {
            let message = "the cluster key is missing or wrong; start the node with the master's";
            return Err(WireError::new(ErrorCode::Unauthorized, message));
        }
        if !request.cluster.is_empty() && request.cluster != self.name {
            let message = format!(
                "the node belongs to the cluster {:?}, this is {:?}; give it another data directory",
                request.cluster, self.name
            );
            return Err(WireError::new(ErrorCode::Conflict, message));
        }
        Ok(())
    }

    fn register_reply(&self, state: &State, id: NodeId) -> RegisterReply {
        RegisterReply {
            node: id,
            name: state.nodes.get(&id).map(|n| n.row.name.clone()).unwrap_or_default(),
            cluster: self.name.clone(),
            token_key: self.key.to_hex(),
            open_volumes: state.open_volumes_of(id),
            heartbeat_ms: self.config.heartbeat_ms,
            lease_ms: self.config.node_lease_ms(),
        }
    }

    /// A node that lives. `session_expired` when it has to register (again).
    pub fn heartbeat(&self, id: NodeId, request: &HeartbeatRequest) -> Result<HeartbeatReply, WireError> {
        let now_ms = self.now_ms();
        let mut announce = false;
        let reply = {
            let mut state = self.state.lock();
            let node = state.nodes.get_mut(&id).filter(|n| n.incarnation == Some(request.incarnation));
            let Some(node) = node else {
                let message = format!("node {id} is not registered in this incarnation; register again");
                return Err(WireError::new(ErrorCode::SessionExpired, message));
            };
            node.heard_ms = now_ms;
            node.capacity_bytes = request.capacity_bytes;
            node.free_bytes = request.free_bytes;
            node.used_bytes = request.used_bytes;
            node.scrub = request.scrub;
            if node.announced != NodeState::Live {
                log::info!("{} is live again", node.row.name);
                node.announced = NodeState::Live;
                announce = true;
            }
            for copy in &request.copies {
                note_copy(&mut state, id, copy, now_ms);
            }
            for blob in &request.bad_blobs {
                let is_member = state.volumes.get(&blob.volume).is_some_and(|v| v.has_member(id));
                if is_member && !state.orders.want_repair(*blob, id) {
                    log::warn!("too many damaged records; {blob} on node {id} is left to a later scrub");
                }
            }
            HeartbeatReply { open_volumes: state.open_volumes_of(id) }
        };
        if announce {
            self.events.publish(None, [dfs_proto::EventKind::Placement]);
            self.sweep_soon();
        }
        if announce || !request.copies.is_empty() || !request.bad_blobs.is_empty() {
            self.wanted.notify_one();
        }
        Ok(reply)
    }
}

fn removed(name: &str) -> WireError {
    let message = format!(
        "{name} was removed from this cluster; to use the machine again, start it with an empty data directory"
    );
    WireError::new(ErrorCode::NotPermitted, message)
}

fn note_copy(state: &mut State, node: NodeId, copy: &CopyStatus, now_ms: u64) {
    state.raise_copy(copy.volume, node, copy.seq, now_ms);
    if let Some(volume) = state.volumes.get_mut(&copy.volume)
        && volume.primary() == Some(node)
    {
        volume.bytes = copy.bytes;
    }
}

/// What has to be written down when a node registers.
fn plan_registration(
    state: &mut State,
    row: NodeRow,
    request: &RegisterRequest,
    per_node: usize,
    now_ms: u64,
    rng: &mut impl Rng,
) -> Vec<Change> {
    let (id, zone) = (row.id, row.zone.clone());
    let per_node = if row.duty == NodeDuty::Serve { per_node } else { 0 };
    let mut changes = Vec::new();
    if state.nodes.get(&id).is_none_or(|n| n.row != row) {
        changes.push(Change::Node(row));
    }
    let mut open = 0;
    for volume in state.open_volumes_of(id) {
        let Some(v) = state.volumes.get(&volume) else { continue };
        match v.open_for {
            Some(incarnation) if incarnation == request.incarnation => open += 1,
            Some(_) if v.untouched => {
                changes.push(Change::Reopen { id: volume, incarnation: request.incarnation });
                open += 1;
            }
            _ => changes.push(Change::Seal { id: volume }),
        }
    }
    for _ in open..per_node {
        changes.extend(plan_volume(state, (id, zone.clone()), request.incarnation, now_ms, rng));
    }
    let mut unknown = 0;
    for copy in &request.copies {
        match state.volumes.get(&copy.volume) {
            Some(_) if state.dropping.contains(&(id, copy.volume)) => {}
            Some(volume) if !volume.has_member(id) => {
                changes.push(Change::Member(CopyRow { volume: copy.volume, node: id, seq: copy.seq }));
            }
            Some(_) => {}
            None => unknown += 1,
        }
    }
    if unknown > 0 {
        log::warn!("node {id} has copies of {unknown} volumes that this cluster does not know; ignored");
    }
    changes
}

/// A new open volume with `primary` (and its zone) and random others. `None` when no number is reserved.
pub(super) fn plan_volume(
    state: &mut State,
    primary: (NodeId, String),
    incarnation: u64,
    now_ms: u64,
    rng: &mut impl Rng,
) -> Option<Change> {
    let id = VolumeId(state.volume_ids.next()?);
    let mut members = vec![primary.0];
    let others = state.replicas.saturating_sub(1);
    members.extend(pick_members(rng, &state.candidates(now_ms), &[primary], others));
    Some(Change::NewVolume { id, incarnation, next_key: BlobKey(1 + KEY_STEP), members })
}

/// What need not be written down when a node registers.
fn note_registration(state: &mut State, id: NodeId, request: &RegisterRequest, now_ms: u64) {
    let Some(node) = state.nodes.get_mut(&id) else { return };
    node.incarnation = Some(request.incarnation);
    node.heard_ms = now_ms;
    node.capacity_bytes = request.capacity_bytes;
    node.free_bytes = request.free_bytes;
    node.used_bytes = request.used_bytes;
    node.announced = NodeState::Live;
    let reach: HashMap<VolumeId, (Seq, u64)> =
        request.copies.iter().map(|c| (c.volume, (c.seq, c.bytes))).collect();
    state.set_copies(id, |volume| reach.get(&volume).copied(), now_ms);
}

/// The name that a node gets: the one it asks for, or `sn{N}`, made unique.
fn node_name(state: &State, id: NodeId, wanted: &str) -> String {
    let taken = state.names_taken(id);
    let is_free = |name: &String| !taken.contains(name.as_str());
    if !wanted.is_empty() {
        let numbered = (2u64..).map(|n| format!("{wanted}-{n}"));
        let mut names = std::iter::once(wanted.to_owned()).chain(numbered);
        return names.find(is_free).unwrap_or_else(|| wanted.to_owned());
    }
    match state.nodes.get(&id) {
        Some(node) => node.row.name.clone(),
        None => (id.0..).map(|n| format!("sn{n}")).find(is_free).unwrap_or_else(|| format!("sn{id}")),
    }
}

fn check_texts(request: &RegisterRequest) -> Result<(), WireError> {
    let RegisterRequest { uuid, name, zone, .. } = request;
    let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | ':' | '/');
    for (what, text, may_be_empty) in [("uuid", uuid, false), ("name", name, true), ("zone", zone, true)] {
        let fits = text.len() <= TEXT_BYTES_MAX && text.chars().all(is_plain);
        if !fits || (text.is_empty() && !may_be_empty) {
            let message = format!(
                "the {what} {text:?} of the node is not 1 to {TEXT_BYTES_MAX} bytes of letters, digits and . _ - : /"
            );
            return Err(WireError::new(ErrorCode::InvalidArgument, message));
        }
    }
    Ok(())
}

/// The URL that others reach the node by: with an unspecified host, the address it called from.
fn node_url(advertised: &str, peer: Option<IpAddr>) -> Result<String, WireError> {
    let refuse = |message: String| WireError::new(ErrorCode::InvalidArgument, message);
    let url = dfs_service::server_url(advertised, NODE_PORT).map_err(refuse)?;
    let authority = url.trim_start_matches("http://");
    let port = ["0.0.0.0:", "[::]:"].iter().find_map(|host| authority.strip_prefix(host));
    let Some(port) = port else { return Ok(url) };
    // An IPv4 node that reached a listener for both is known by its IPv4 address.
    match peer.map(|ip| ip.to_canonical()) {
        Some(IpAddr::V4(ip)) => Ok(format!("http://{ip}:{port}")),
        Some(IpAddr::V6(ip)) => Ok(format!("http://[{ip}]:{port}")),
        None => Err(refuse(format!("{advertised} says no host, and the caller's address is not known"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_host_becomes_the_callers() {
        let peer = Some("10.0.0.7".parse().unwrap());
        let mapped = Some("::ffff:10.0.0.7".parse().unwrap());
        let v6 = Some("fe80::1".parse().unwrap());
        for (given, peer, url) in [
            ("http://0.0.0.0:5000", peer, "http://10.0.0.7:5000"),
            ("0.0.0.0:5000", mapped, "http://10.0.0.7:5000"),
            ("http://[::]:5000/", v6, "http://[fe80::1]:5000"),
            ("http://node:5000", peer, "http://node:5000"),
        ] {
            assert_eq!(node_url(given, peer).unwrap(), url);
        }
        assert_eq!(node_url("https://x", peer).unwrap_err().code, ErrorCode::InvalidArgument);
        assert!(node_url("0.0.0.0:1", None).is_err());
    }
}
