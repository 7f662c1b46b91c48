//! What clients ask of the control plane: grants, members for fsync, bad copies, room.

use crate::cluster::grant_choice::{self, OpenVolume};
use crate::cluster::placement::pick_members;
use crate::cluster::repair_choice::VolumeView;
use crate::cluster::state::{Change, State, Volume};
use crate::cluster::{Cluster, KEY_STEP, orders::TOKEN_LIFE_MS};
use crate::error::from_store;
use dfs_metastore::CopyRow;
use dfs_proto::limits::{GRANT_KEYS, GRANTS_MAX};
use dfs_proto::meta::{CopyProblem, Members, Space};
use dfs_proto::order::FinishRequest;
use dfs_proto::{
    BlobId, BlobKey, BlobRef, ErrorCode, Grant, NodeId, NodeState, OrderOutcome, Seq, VolumeId, WireError,
};
use dfs_service::{Capability, Rights};

/// How long a client uses a grant, ms.
const GRANT_TTL_MS: u64 = 300_000;

/// How much longer its token lives, ms: for requests that were begun in time, and clocks that differ.
const GRANT_TOKEN_EXTRA_MS: u64 = 600_000;

/// Copies of fsync's contract: the data is on the disks of two nodes.
const FSYNC_COPIES: usize = 2;

/// Members beyond the wanted copies that failed fsyncs may add to a volume.
const MEMBERS_EXTRA_MAX: usize = 2;

/// Sequence numbers that a log may have used beyond one for each key: deletions and repairs.
const SEQS_PER_KEY_MAX: u64 = 4;

impl Cluster {
    /// Up to `count` grants on volumes of different random primaries; see [`grant_choice::choose`] for the
    /// errors.
    pub async fn grants(&self, count: u32, avoid: &[NodeId]) -> Result<Vec<Grant>, WireError> {
        let count = count.clamp(1, GRANTS_MAX) as usize;
        loop {
            let (taken, dry) = self.take_grants(count, avoid)?;
            if !dry.is_empty() {
                self.sweep_soon();
            }
            if !taken.is_empty() {
                return Ok(taken);
            }
            self.reserve_keys(&dry).await?;
        }
    }

    /// Grants from what is reserved, and the chosen volumes that have no keys left.
    fn take_grants(&self, count: usize, avoid: &[NodeId]) -> Result<(Vec<Grant>, Vec<VolumeId>), WireError> {
        let now_ms = self.now_ms();
        let expires_ms = self.clock().wall_ms() + GRANT_TTL_MS + GRANT_TOKEN_EXTRA_MS;
        let mut state = self.state.lock();
        let mut chosen = grant_choice::choose(&mut rand::rng(), &open_volumes(&state, now_ms), avoid)?;
        chosen.truncate(count);
        let (mut grants, mut dry) = (Vec::new(), Vec::new());
        for id in chosen {
            let Some(volume) = state.volumes.get_mut(&id) else { continue };
            let Some(first_key) = take_keys(volume) else {
                dry.push(id);
                continue;
            };
            let end = BlobKey(first_key.0 + GRANT_KEYS);
            let right = Capability { rights: Rights::Append, volume: id, first: first_key, end, expires_ms };
            let Some(volume) = state.volume_info(id, now_ms) else { continue };
            let token = self.key.sign(&right);
            grants.push(Grant { volume, first_key, keys: GRANT_KEYS, ttl_ms: GRANT_TTL_MS, token });
        }
        Ok((grants, dry))
    }

    /// Reserves another step of keys for each of `volumes`.
    pub(super) async fn reserve_keys(&self, volumes: &[VolumeId]) -> Result<(), WireError> {
        let turn = self.changes.lock().await;
        let changes = {
            let state = self.state.lock();
            let is_low = |v: &&Volume| v.next_key.0 - v.cursor.0 < KEY_STEP / 2;
            let change = |id: &VolumeId| {
                let volume = state.volumes.get(id).filter(is_low)?;
                Some(Change::Keys { id: *id, next_key: BlobKey(volume.next_key.0 + KEY_STEP) })
            };
            volumes.iter().filter_map(change).collect()
        };
        self.commit(&turn, changes).await
    }

    /// Members of `volume` for fsync; see `ClusterOp::Members`. `not_found` when the volume is not known.
    pub async fn members(&self, volume: VolumeId, failed: &[NodeId]) -> Result<Members, WireError> {
        let (needed, usable) = self.fsync_need(volume, failed)?;
        if usable < needed {
            let turn = self.changes.lock().await;
            let changes = {
                let state = self.state.lock();
                plan_fsync_members(&state, volume, failed, needed, self.now_ms())
            };
            self.commit(&turn, changes).await?;
        }
        let (needed, _) = self.fsync_need(volume, failed)?;
        let expires_ms = self.clock().wall_ms() + TOKEN_LIFE_MS;
        let nothing = BlobKey(0);
        let right = Capability { rights: Rights::Pull, volume, first: nothing, end: nothing, expires_ms };
        let now_ms = self.now_ms();
        let info = self.state.lock().volume_info(volume, now_ms).ok_or_else(|| unknown_volume(volume))?;
        Ok(Members { volume: info, needed: needed as u32, token: self.key.sign(&right) })
    }

    /// How many members have to have the data, and how many members can.
    fn fsync_need(&self, volume: VolumeId, failed: &[NodeId]) -> Result<(usize, usize), WireError> {
        let now_ms = self.now_ms();
        let state = self.state.lock();
        let view = state.view(volume, now_ms).ok_or_else(|| unknown_volume(volume))?;
        let live = state.live_nodes(now_ms).count();
        let needed = FSYNC_COPIES.min(state.replicas).min(live).max(1);
        Ok((needed, usable_members(&view, failed)))
    }

    /// A client could not read, or not believe, a copy. That a node does not answer is hearsay: heartbeats
    /// decide about nodes. A blob that nothing refers to may well be missing.
    pub async fn bad_copy(&self, blob: BlobId, node: NodeId, problem: CopyProblem) -> Result<(), WireError> {
        if problem == CopyProblem::Unreachable {
            log::debug!("a client cannot reach node {node} for blob {blob}");
            return Ok(());
        }
        if !self.is_in_use(blob).await? {
            return Ok(());
        }
        {
            let mut state = self.state.lock();
            if !state.volumes.get(&blob.volume).is_some_and(|v| v.has_member(node)) {
                return Ok(());
            }
            log::warn!("blob {blob} on node {node} is {problem:?}, says a reader; it will be repaired");
            state.orders.want_repair(blob, node);
        }
        self.wanted.notify_one();
        Ok(())
    }

    async fn is_in_use(&self, blob: BlobId) -> Result<bool, WireError> {
        self.store.read(move |txn| txn.blob_in_use(blob)).await.map_err(from_store)
    }

    /// Room in the cluster, but for the number of inodes.
    pub fn space(&self, inodes: u64) -> Space {
        let now_ms = self.now_ms();
        let state = self.state.lock();
        let replicas = state.replicas.max(1) as u64;
        let (mut total, mut free) = (0u64, 0u64);
        for node in state.live_nodes(now_ms) {
            total = total.saturating_add(node.capacity_bytes);
            free = free.saturating_add(node.free_bytes);
        }
        Space {
            total_bytes: total / replicas,
            free_bytes: free / replicas,
            inodes,
            nodes: state.present_nodes().filter_map(|id| state.node_info(id, now_ms)).collect(),
        }
    }

    /// Refuses a reference to a blob that cannot be: in a volume that does not exist, under a key that was
    /// never handed out, or at a place that its log cannot have reached.
    pub fn check_blob(&self, blob: &BlobRef) -> Result<(), WireError> {
        let state = self.state.lock();
        let refuse = |what: String| Err(WireError::new(ErrorCode::InvalidArgument, what));
        let Some(volume) = state.volumes.get(&blob.id.volume) else {
            return refuse(format!("blob {} is in a volume that does not exist", blob.id));
        };
        if blob.id.key >= volume.next_key {
            return refuse(format!("the key of blob {} was never handed out", blob.id));
        }
        let highest = volume.next_key.0.saturating_mul(SEQS_PER_KEY_MAX);
        if blob.seq == Seq(0) || blob.seq.0 > highest {
            return refuse(format!("the log of volume {} has no place {}", blob.id.volume, blob.seq));
        }
        Ok(())
    }

    /// What a replicator says has become of an order.
    pub async fn finish(&self, request: &FinishRequest) -> Result<(), WireError> {
        let now_ms = self.now_ms();
        let patience = self.patience();
        self.state.lock().finish(&request.order, &request.outcome, now_ms, patience);
        self.wanted.notify_one();
        // A repair that was given up may have been for a blob that is gone by now.
        match (request.order.repaired_blob(), &request.outcome) {
            (Some(blob), OrderOutcome::Dead { .. }) if !self.is_in_use(blob).await? => {
                self.state.lock().orders.forget_blobs(|other| other == blob);
            }
            _ => {}
        }
        Ok(())
    }
}

fn unknown_volume(volume: VolumeId) -> WireError {
    WireError::new(ErrorCode::NotFound, format!("volume {volume} does not exist"))
}

fn open_volumes(state: &State, now_ms: u64) -> Vec<OpenVolume> {
    let open = |id: &VolumeId| {
        let primary = state.volumes.get(id)?.primary()?;
        let node = state.nodes.get(&primary)?;
        Some(OpenVolume {
            volume: *id,
            primary,
            state: state.judge(node, now_ms),
            free_bytes: node.free_bytes,
        })
    };
    state.open.iter().filter_map(open).collect()
}

/// The first of [`GRANT_KEYS`] fresh keys, if so many are reserved.
fn take_keys(volume: &mut Volume) -> Option<BlobKey> {
    let first = volume.cursor;
    let next = BlobKey(first.0.checked_add(GRANT_KEYS)?);
    if next > volume.next_key {
        return None;
    }
    volume.cursor = next;
    volume.untouched = false;
    Some(first)
}

fn usable_members(view: &VolumeView, failed: &[NodeId]) -> usize {
    let usable = |c: &&crate::cluster::repair_choice::CopyView| {
        c.state == NodeState::Live && !failed.contains(&c.node)
    };
    view.copies.iter().filter(usable).count()
}

/// Other members, so that `needed` of them have not failed the caller.
fn plan_fsync_members(
    state: &State,
    id: VolumeId,
    failed: &[NodeId],
    needed: usize,
    now_ms: u64,
) -> Vec<Change> {
    let Some((volume, view)) = state.volumes.get(&id).zip(state.view(id, now_ms)) else { return Vec::new() };
    let room = (state.replicas.max(FSYNC_COPIES) + MEMBERS_EXTRA_MAX).saturating_sub(volume.members.len());
    let missing = needed.saturating_sub(usable_members(&view, failed)).min(room);
    let mut candidates = state.candidates(now_ms);
    candidates.retain(|c| !failed.contains(&c.node));
    let picked = pick_members(&mut rand::rng(), &candidates, &state.taken_nodes(id, volume), missing);
    let member = |node| Change::Member(CopyRow { volume: id, node, seq: Seq(0) });
    picked.into_iter().map(member).collect()
}
