//! What operators ask of nodes: to be emptied, to be forgotten, and to share the load evenly.

use crate::cluster::Cluster;
use crate::cluster::state::{Change, State, Volume};
use dfs_metastore::{CopyRow, NodeDuty, NodeRow};
use dfs_proto::node::{NodeStatus, RebalanceStatus};
use dfs_proto::{ErrorCode, NodeId, NodeState, Seq, VolumeId, WireError};

/// Volumes that are under way from one node to another at the same time.
const MOVES_MAX: usize = 2;

/// Nodes whose shares of used space differ by less than this many parts in a hundred are even.
const EVEN_PERCENT: u64 = 5;

/// Volumes with less in them are not worth a move, bytes.
const MOVE_BYTES_MIN: u64 = 1 << 20;

impl Cluster {
    /// Has a node emptied (or, with `draining` false, hold data again). It serves what it has until others have
    /// it. `not_found` for a node that there is not.
    pub async fn drain(&self, id: NodeId, draining: bool) -> Result<NodeStatus, WireError> {
        let turn = self.changes.lock().await;
        let duty = if draining { NodeDuty::Drain } else { NodeDuty::Serve };
        let row = self.node_row(id)?;
        if row.duty != duty {
            let verb = if draining { "is being emptied" } else { "holds data again" };
            log::info!("{} {verb}", row.name);
            self.commit(&turn, vec![Change::Node(NodeRow { duty, ..row })]).await?;
        }
        drop(turn);
        self.sweep_soon();
        self.node_statuses().into_iter().find(|s| s.info.id == id).ok_or_else(|| unknown(id))
    }

    /// Forgets a node for good. One that still has copies has to be dead, and what it had must be whole
    /// elsewhere; with `force` the latter does not count, and what only it had is lost.
    ///
    /// `not_found`; `conflict` with the reason when it is not to be.
    pub async fn remove_node(&self, id: NodeId, force: bool) -> Result<(), WireError> {
        let turn = self.changes.lock().await;
        let row = self.node_row(id)?;
        let changes = {
            let now_ms = self.now_ms();
            let state = self.state.lock();
            check_removal(&state, &row, force, now_ms)?;
            plan_removal(&state, row.clone())
        };
        self.commit(&turn, changes).await?;
        {
            let mut state = self.state.lock();
            state.dropping.retain(|(node, _)| *node != id);
            if let Some(node) = state.nodes.get_mut(&id) {
                // From now on it is a stranger.
                node.incarnation = None;
            }
        }
        drop(turn);
        log::warn!("{} was removed from the cluster", row.name);
        self.events.publish(None, [dfs_proto::EventKind::Placement]);
        self.sweep_soon();
        Ok(())
    }

    fn node_row(&self, id: NodeId) -> Result<NodeRow, WireError> {
        let state = self.state.lock();
        let node = state.nodes.get(&id).filter(|n| n.row.duty != NodeDuty::Removed);
        node.map(|n| n.row.clone()).ok_or_else(|| unknown(id))
    }

    /// Live nodes with their base URLs, those with the most room first.
    pub fn roomiest_nodes(&self) -> Vec<(String, String)> {
        let now_ms = self.now_ms();
        let state = self.state.lock();
        let mut live: Vec<_> = state.live_nodes(now_ms).collect();
        live.sort_by_key(|node| (node.row.duty != NodeDuty::Serve, std::cmp::Reverse(node.free_bytes)));
        live.into_iter().map(|node| (node.row.name.clone(), node.row.url.clone())).collect()
    }

    /// Begins or stops evening out used space; it stops by itself when it is done, and when the master is
    /// started again.
    pub fn rebalance(&self, on: bool) -> RebalanceStatus {
        self.state.lock().rebalancing = on;
        self.sweep_soon();
        self.rebalance_status()
    }

    /// How far it is.
    pub fn rebalance_status(&self) -> RebalanceStatus {
        let now_ms = self.now_ms();
        let state = self.state.lock();
        let shares: Vec<u64> = shares(&state, now_ms).into_iter().map(|(_, share)| share).collect();
        RebalanceStatus {
            running: state.rebalancing,
            moving: moves_under_way(&state, now_ms) as u64,
            fullest_percent: shares.iter().max().copied().unwrap_or_default() / 100,
            emptiest_percent: shares.iter().min().copied().unwrap_or_default() / 100,
        }
    }
}

fn unknown(id: NodeId) -> WireError {
    WireError::new(ErrorCode::NotFound, format!("there is no node {id}"))
}

fn check_removal(state: &State, row: &NodeRow, force: bool, now_ms: u64) -> Result<(), WireError> {
    let id = row.id;
    let refuse = |why: String| Err(WireError::new(ErrorCode::Conflict, why));
    let held: Vec<VolumeId> =
        state.volumes.iter().filter(|(_, v)| v.has_member(id)).map(|(id, _)| *id).collect();
    if held.is_empty() {
        return Ok(());
    }
    if state.node_state(id, now_ms) != NodeState::Dead {
        return refuse(format!(
            "{} still has copies of {} volumes: empty it first (`dfs node drain`), or stop it and wait until it is dead",
            row.name,
            held.len()
        ));
    }
    let only_there = held.iter().filter(|volume| is_only_there(state, **volume, id, now_ms)).count();
    if only_there > 0 && !force {
        return refuse(format!(
            "{} has the only whole copies of {only_there} volumes: bring it back, or remove it by force and lose \
             what is in them",
            row.name
        ));
    }
    Ok(())
}

/// Whether nobody else has all of the volume.
fn is_only_there(state: &State, volume: VolumeId, node: NodeId, now_ms: u64) -> bool {
    let Some(view) = state.view(volume, now_ms) else { return false };
    let needed = view.needed();
    let has_all = |c: &&crate::cluster::repair_choice::CopyView| c.node != node && c.seq >= needed;
    needed > Seq(0) && view.copies.iter().find(has_all).is_none()
}

/// The node leaves every volume that has another member, and is remembered as removed under another name, so
/// that its own is free.
fn plan_removal(state: &State, row: NodeRow) -> Vec<Change> {
    let node = row.id;
    let held = state.volumes.iter().filter(|(_, volume)| volume.has_member(node));
    let mut changes: Vec<Change> = Vec::new();
    for (id, volume) in held {
        if volume.open_for.is_some() {
            changes.push(Change::Seal { id: *id });
        }
        let primary = state.primary_without(volume, node);
        changes.extend(primary.map(|primary| Change::Leave { id: *id, node, primary }));
    }
    let name = format!("{}-removed-{node}", row.name);
    changes.push(Change::Node(NodeRow { name, duty: NodeDuty::Removed, ..row }));
    changes
}

/// Live nodes that hold data, each with its used share in parts of ten thousand, the emptiest first.
fn shares(state: &State, now_ms: u64) -> Vec<(NodeId, u64)> {
    let serving = state.live_nodes(now_ms).filter(|n| n.row.duty == NodeDuty::Serve);
    let share = |used: u64, free: u64| {
        let whole = u128::from(used) + u128::from(free);
        u64::try_from(u128::from(used) * 10_000 / whole.max(1)).unwrap_or(10_000)
    };
    let mut shares: Vec<(NodeId, u64)> =
        serving.map(|n| (n.row.id, share(n.used_bytes, n.free_bytes))).collect();
    shares.sort_by_key(|(node, share)| (*share, *node));
    shares
}

/// Volumes with more members than wanted, which a move makes and its end undoes.
fn moves_under_way(state: &State, now_ms: u64) -> usize {
    let has_extra =
        |id: &&VolumeId| state.view(**id, now_ms).is_some_and(|view| view.present() > state.replicas);
    state.volumes.keys().filter(has_extra).count() + state.dropping.len()
}

/// The next moves from the fullest node to the emptiest: another member, whose copy makes one too many. Open
/// volumes of the fullest node are sealed when there is nothing else to move. Rebalancing ends when shares are
/// even, or nothing that could be moved would make them more so.
pub(super) fn plan_moves(state: &mut State, now_ms: u64) -> Vec<Change> {
    if !state.rebalancing || moves_under_way(state, now_ms) >= MOVES_MAX {
        return Vec::new();
    }
    let shares = shares(state, now_ms);
    let (Some((to, low)), Some((from, high))) = (shares.first().copied(), shares.last().copied()) else {
        return Vec::new();
    };
    if high - low < EVEN_PERCENT * 100 {
        return end_moves(state, "used space is even");
    }
    let Some(surplus) = surplus_bytes(state, from, to) else { return Vec::new() };
    let movable = |(id, volume): &(&VolumeId, &Volume)| {
        volume.has_member(from)
            && !volume.has_member(to)
            && (MOVE_BYTES_MIN..=surplus).contains(&volume.bytes)
            && !makes_zones_fewer(state, volume, from, to)
            && state.view(**id, now_ms).is_some_and(|view| view.whole() >= state.replicas)
    };
    let mut volumes: Vec<(&VolumeId, &Volume)> = state.volumes.iter().filter(movable).collect();
    volumes.sort_by_key(|(id, volume)| (volume.open_for.is_some(), std::cmp::Reverse(volume.bytes), **id));
    match volumes.first() {
        // Sealed now, moved by one of the next sweeps.
        Some((id, volume)) if volume.open_for.is_some() => vec![Change::Seal { id: **id }],
        Some((id, _)) => vec![Change::Member(CopyRow { volume: **id, node: to, seq: Seq(0) })],
        None => end_moves(state, "no volume is left whose move would make used space more even"),
    }
}

fn end_moves(state: &mut State, why: &str) -> Vec<Change> {
    state.rebalancing = false;
    log::info!("rebalancing is done: {why}");
    Vec::new()
}

/// Bytes that may go from one node to the other without making that one the fuller.
fn surplus_bytes(state: &State, from: NodeId, to: NodeId) -> Option<u64> {
    let (from, to) = (state.nodes.get(&from)?, state.nodes.get(&to)?);
    let whole = |used: u64, free: u64| u128::from(used) + u128::from(free);
    let (a, b) = (whole(from.used_bytes, from.free_bytes), whole(to.used_bytes, to.free_bytes));
    // (used_from - x) / a = (used_to + x) / b, solved for x.
    let (used_a, used_b) = (u128::from(from.used_bytes), u128::from(to.used_bytes));
    let x = (used_a * b).checked_sub(used_b * a)? / (a + b).max(1);
    u64::try_from(x).ok()
}

/// Whether the copies would be in fewer zones with `to` in the place of `from`.
fn makes_zones_fewer(state: &State, volume: &Volume, from: NodeId, to: NodeId) -> bool {
    let zone = |node: NodeId| state.nodes.get(&node).map(|n| n.row.zone.as_str()).unwrap_or_default();
    let stays: Vec<&str> = volume.members.iter().filter(|m| m.node != from).map(|m| zone(m.node)).collect();
    let is_apart = |node: NodeId| zone(node).is_empty() || !stays.contains(&zone(node));
    is_apart(from) && !is_apart(to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::liveness::Silence;
    use dfs_proto::BlobKey;

    const GIB: u64 = 1 << 30;

    /// Live nodes 1 to 3 of 100 GiB, as full as said, and sealed volumes of 4 GiB, whole on nodes 1 and 2.
    fn state(used_gib: [u64; 3], volumes: u64) -> State {
        let silence = Silence { suspect_after_ms: 1 << 40, dead_after_ms: 1 << 41 };
        let mut state = State::load(2, silence, vec![], vec![], vec![], 0);
        for (n, used) in (1..).zip(used_gib) {
            let (id, name, url) = (NodeId(n), format!("sn{n}"), format!("http://sn{n}"));
            let (uuid, zone, duty) = (name.clone(), String::new(), NodeDuty::Serve);
            state.apply(&Change::Node(NodeRow { id, uuid, name, url, zone, duty }), 0);
            let node = state.nodes.get_mut(&id).unwrap();
            node.incarnation = Some(1);
            (node.used_bytes, node.free_bytes) = (used * GIB, (100 - used) * GIB);
        }
        for id in (1..=volumes).map(VolumeId) {
            let members = vec![NodeId(1), NodeId(2)];
            state.apply(&Change::NewVolume { id, incarnation: 1, next_key: BlobKey(9), members }, 0);
            state.note_commit(id, Seq(3), None, 0);
            state.raise_copy(id, NodeId(2), Seq(3), 0);
            state.volumes.get_mut(&id).unwrap().bytes = 4 * GIB;
            state.apply(&Change::Seal { id }, 0);
        }
        state.rebalancing = true;
        state
    }

    fn moves(state: &mut State) -> Vec<Change> {
        let changes = plan_moves(state, 0);
        changes.iter().for_each(|change| state.apply(change, 0));
        changes
    }

    #[test]
    fn volumes_go_from_the_fullest_node_to_the_emptiest_a_few_at_a_time() {
        let mut s = state([50, 40, 0], 5);
        for id in [1, 2] {
            let to_third = Change::Member(CopyRow { volume: VolumeId(id), node: NodeId(3), seq: Seq(0) });
            assert_eq!(moves(&mut s), [to_third]);
        }
        assert_eq!(moves(&mut s), [], "two are under way");
        assert!(s.rebalancing);
        s.raise_copy(VolumeId(1), NodeId(3), Seq(3), 0);
        let view = s.view(VolumeId(1), 0).unwrap();
        let used = |node: NodeId| s.nodes[&node].used_bytes;
        assert_eq!(view.spare(2, used).unwrap().node, NodeId(1), "the fullest gives its copy up");
    }

    #[test]
    fn it_ends_when_space_is_even_and_when_nothing_helps() {
        let mut even = state([40, 40, 37], 5);
        assert_eq!(moves(&mut even), []);
        assert!(!even.rebalancing);
        let mut lumpy = state([9, 9, 3], 5);
        assert_eq!(moves(&mut lumpy), [], "a volume of 4 GiB would make the third the fullest");
        assert!(!lumpy.rebalancing);
    }

    #[test]
    fn an_open_volume_is_sealed_when_there_is_nothing_else_to_move() {
        let mut s = state([50, 40, 0], 1);
        s.apply(&Change::Reopen { id: VolumeId(1), incarnation: 1 }, 0);
        assert_eq!(moves(&mut s), [Change::Seal { id: VolumeId(1) }]);
        assert!(matches!(moves(&mut s)[..], [Change::Member(_)]));
    }

    #[test]
    fn a_move_keeps_copies_in_different_zones() {
        let mut s = state([50, 40, 0], 1);
        for (node, zone) in [(1, "a"), (2, "b"), (3, "b")] {
            s.nodes.get_mut(&NodeId(node)).unwrap().row.zone = zone.into();
        }
        assert_eq!(moves(&mut s), []);
    }

    #[test]
    fn only_the_dead_and_replaceable_are_removed() {
        let mut s = state([1, 1, 1], 2);
        let rows: Vec<NodeRow> = s.nodes.values().map(|node| node.row.clone()).collect();
        let row = |n: usize| &rows[n - 1];
        assert!(check_removal(&s, row(3), false, 0).is_ok(), "it has nothing");
        let live = check_removal(&s, row(1), true, 0).unwrap_err();
        assert!(live.message.contains("dfs node drain"), "{live}");
        let dead_ms = 1 << 41;
        assert!(check_removal(&s, row(1), false, dead_ms).is_ok(), "the other copy is whole");
        s.volumes.get_mut(&VolumeId(2)).unwrap().members[1].seq = Seq(1);
        let only = check_removal(&s, row(1), false, dead_ms).unwrap_err();
        assert!(only.message.contains("the only whole copies of 1 volumes"), "{only}");
        assert!(check_removal(&s, row(1), true, dead_ms).is_ok());
    }

    #[test]
    fn a_removed_node_leaves_its_volumes_to_the_others() {
        let mut s = state([1, 1, 1], 1);
        let row = s.nodes[&NodeId(1)].row.clone();
        let changes = plan_removal(&s, row);
        changes.iter().for_each(|change| s.apply(change, 0));
        let members: Vec<NodeId> = s.volumes[&VolumeId(1)].members.iter().map(|m| m.node).collect();
        assert_eq!(members, [NodeId(2)]);
        assert!(s.names_taken(NodeId(9)).contains("sn1-removed-1"));
        assert_eq!(s.present_nodes().count(), 2);
    }
}
