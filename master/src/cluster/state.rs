//! What the control plane has in memory: nodes, volumes with their members, and what it wants of them.
//!
//! Invariants: the first member of a volume is its primary; a volume takes appends from one incarnation of its
//! primary only; everything that has to survive is in the store before [`State::apply`] puts it here. Grows
//! with nodes and volumes, never with files. Plain synchronous code, without I/O.

use crate::cluster::liveness::Silence;
use crate::cluster::orders::OrderBook;
use crate::cluster::placement::Candidate;
use crate::cluster::repair_choice::{CopyView, VolumeView};
use dfs_metastore::{CopyRow, NodeDuty, NodeRow, VolumeRow};
use dfs_proto::blob::ScrubStatus;
use dfs_proto::node::{CopyInfo, NodeInfo};
use dfs_proto::{BlobKey, Name, NodeId, NodeState, Seq, VolumeId, VolumeInfo};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;

/// A storage node.
#[derive(Clone, Debug)]
pub struct Node {
    /// As it is kept.
    pub row: NodeRow,
    /// Its run of the process, once it has registered with this run of the master.
    pub incarnation: Option<u64>,
    /// When it was last heard of, monotonic ms; the start of the master before that.
    pub heard_ms: u64,
    /// Size of its file system, bytes.
    pub capacity_bytes: u64,
    /// What it can still take, bytes.
    pub free_bytes: u64,
    /// What its records take, bytes.
    pub used_bytes: u64,
    /// The state that was last announced.
    pub announced: NodeState,
    /// How far it is with verifying what it holds.
    pub scrub: ScrubStatus,
}

/// A copy of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who holds it.
    pub node: NodeId,
    /// How far it reaches, as last heard.
    pub seq: Seq,
    /// How far it reached when it was last written down.
    pub kept_seq: Seq,
}

/// A volume.
#[derive(Clone, Debug)]
pub struct Volume {
    /// The incarnation of the primary that may append; `None` once sealed.
    pub open_for: Option<u64>,
    /// Keys below this are spoken for in the store.
    pub next_key: BlobKey,
    /// The next key to hand out; at most `next_key`.
    pub cursor: BlobKey,
    /// No key of it was ever handed out, so nothing was ever appended.
    pub untouched: bool,
    /// The highest sequence number that a commit refers to.
    pub seq: Seq,
    /// Live bytes in it, as its primary last said.
    pub bytes: u64,
    /// Who holds it, primary first.
    pub members: Vec<Member>,
    /// Since when it has had fewer whole copies than wanted, monotonic ms.
    pub behind_since_ms: Option<u64>,
    /// Files that wait for its copies.
    pub hint: Hint,
    /// When an order to bring copies up was last made, monotonic ms.
    pub ordered_ms: Option<u64>,
}

/// Names of files that were committed since the last order, for people: the last one and how many others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hint {
    name: Option<Name>,
    others: u64,
}

impl Hint {
    /// Adds a file.
    pub fn add(&mut self, name: Option<&Name>) {
        match (name, &self.name) {
            (Some(name), None) => self.name = Some(name.clone()),
            _ => self.others += 1,
        }
    }

    /// `report.txt (+41 more)`
    pub fn text(&self) -> String {
        match (&self.name, self.others) {
            (Some(name), 0) => name.to_string(),
            (Some(name), others) => format!("{name} (+{others} more)"),
            (None, 0) => String::new(),
            (None, others) => format!("{others} changed files"),
        }
    }
}

/// A change of the control plane that has to survive a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A node, new or changed.
    Node(NodeRow),
    /// A new volume for an incarnation of `members[0]`.
    NewVolume {
        /// Its number.
        id: VolumeId,
        /// Who may append.
        incarnation: u64,
        /// Keys below this are spoken for.
        next_key: BlobKey,
        /// Primary first.
        members: Vec<NodeId>,
    },
    /// An untouched volume goes over to another incarnation of its primary.
    Reopen {
        /// The volume.
        id: VolumeId,
        /// Who may append.
        incarnation: u64,
    },
    /// A volume takes no more appends.
    Seal {
        /// The volume.
        id: VolumeId,
    },
    /// Another member, or another reach of one.
    Member(CopyRow),
    /// A node is no member any more. When it was the primary, another takes its place in the list; nobody
    /// appends to such a volume.
    Leave {
        /// The volume.
        id: VolumeId,
        /// Who leaves.
        node: NodeId,
        /// The first of those that stay.
        primary: NodeId,
    },
    /// Keys below `next_key` are spoken for.
    Keys {
        /// The volume.
        id: VolumeId,
        /// The end of the range.
        next_key: BlobKey,
    },
}

/// The whole of it.
pub struct State {
    /// Copies that each volume should have.
    pub replicas: usize,
    /// Bounds of silence.
    pub silence: Silence,
    /// By number.
    pub nodes: BTreeMap<NodeId, Node>,
    /// By number.
    pub volumes: BTreeMap<VolumeId, Volume>,
    /// Those that take appends.
    pub open: BTreeSet<VolumeId>,
    /// What is wanted of replicators.
    pub orders: OrderBook,
    /// Numbers for new volumes that the store has handed out.
    pub volume_ids: Range<u64>,
    /// Copies that nodes have to drop: they are no members any more, and may not become such before.
    pub dropping: BTreeSet<(NodeId, VolumeId)>,
    /// Used space is being evened out.
    pub rebalancing: bool,
}

impl State {
    /// What the tables say, at the start of a run.
    pub fn load(
        replicas: u32,
        silence: Silence,
        nodes: Vec<NodeRow>,
        volumes: Vec<VolumeRow>,
        copies: Vec<CopyRow>,
        now_ms: u64,
    ) -> State {
        let mut state = State {
            replicas: replicas as usize,
            silence,
            nodes: nodes.into_iter().map(|row| (row.id, Node::silent(row, now_ms))).collect(),
            volumes: BTreeMap::new(),
            open: BTreeSet::new(),
            orders: OrderBook::default(),
            volume_ids: 0..0,
            dropping: BTreeSet::new(),
            rebalancing: false,
        };
        for row in volumes {
            state.volumes.insert(row.id, Volume::from_row(&row));
            if row.open_for.is_some() {
                state.open.insert(row.id);
            }
        }
        for row in copies {
            if let Some(volume) = state.volumes.get_mut(&row.volume) {
                volume.set_member(row.node, row.seq, row.seq);
            }
        }
        state
    }

    /// Puts a change here that is in the store already.
    pub fn apply(&mut self, change: &Change, now_ms: u64) {
        match change {
            Change::Node(row) => match self.nodes.get_mut(&row.id) {
                Some(node) => node.row = row.clone(),
                None => {
                    self.nodes.insert(row.id, Node::silent(row.clone(), now_ms));
                }
            },
            Change::NewVolume { id, incarnation, next_key, members } => {
                let member = |node: &NodeId| Member { node: *node, seq: Seq(0), kept_seq: Seq(0) };
                let volume = Volume {
                    open_for: Some(*incarnation),
                    next_key: *next_key,
                    cursor: BlobKey(1),
                    untouched: true,
                    seq: Seq(0),
                    bytes: 0,
                    members: members.iter().map(member).collect(),
                    behind_since_ms: None,
                    hint: Hint::default(),
                    ordered_ms: None,
                };
                self.volumes.insert(*id, volume);
                self.open.insert(*id);
            }
            Change::Reopen { id, incarnation } => {
                if let Some(volume) = self.volumes.get_mut(id) {
                    volume.open_for = Some(*incarnation);
                    self.open.insert(*id);
                }
            }
            Change::Seal { id } => {
                if let Some(volume) = self.volumes.get_mut(id) {
                    volume.open_for = None;
                    self.open.remove(id);
                }
            }
            Change::Member(row) => {
                if let Some(volume) = self.volumes.get_mut(&row.volume) {
                    volume.set_member(row.node, row.seq, row.seq);
                    self.look_at(row.volume, now_ms);
                }
            }
            Change::Leave { id, node, primary } => {
                if let Some(volume) = self.volumes.get_mut(id) {
                    volume.members.retain(|m| m.node != *node);
                    volume.members.sort_by_key(|m| m.node != *primary);
                    self.orders.forget_target(*id, *node);
                    self.look_at(*id, now_ms);
                }
            }
            Change::Keys { id, next_key } => {
                if let Some(volume) = self.volumes.get_mut(id) {
                    volume.next_key = (*next_key).max(volume.next_key);
                }
            }
        }
    }

    /// Whether the node is to hold data.
    pub fn serves(&self, id: NodeId) -> bool {
        self.nodes.get(&id).is_some_and(|node| node.row.duty == NodeDuty::Serve)
    }

    /// Members of the volume on nodes that are to be emptied, or are gone for good.
    pub fn has_leaving(&self, volume: &Volume) -> bool {
        volume.members.iter().any(|m| self.is_leaving(m.node))
    }

    fn is_leaving(&self, id: NodeId) -> bool {
        self.nodes.get(&id).is_some_and(|node| node.row.duty != NodeDuty::Serve)
    }

    /// The member that comes first when `node` has left.
    pub fn primary_without(&self, volume: &Volume, node: NodeId) -> Option<NodeId> {
        let rest = volume.members.iter().filter(|m| m.node != node);
        match volume.primary() {
            Some(primary) if primary != node => Some(primary),
            _ => rest.max_by_key(|m| m.seq).map(|m| m.node),
        }
    }

    /// The row that stands for a volume as it is here.
    pub fn volume_row(&self, id: VolumeId) -> Option<VolumeRow> {
        let volume = self.volumes.get(&id)?;
        Some(VolumeRow {
            id,
            primary: volume.primary()?,
            open_for: volume.open_for,
            next_key: volume.next_key,
            seq: volume.seq,
        })
    }

    /// How a node is; one that is not known is dead.
    pub fn node_state(&self, id: NodeId, now_ms: u64) -> NodeState {
        self.nodes.get(&id).map_or(NodeState::Dead, |node| self.judge(node, now_ms))
    }

    /// How this node is.
    pub fn judge(&self, node: &Node, now_ms: u64) -> NodeState {
        self.silence.judge(now_ms.saturating_sub(node.heard_ms), node.incarnation.is_some())
    }

    /// Nodes that have not been removed.
    pub fn present_nodes(&self) -> impl Iterator<Item = NodeId> {
        self.nodes.values().filter(|n| n.row.duty != NodeDuty::Removed).map(|n| n.row.id)
    }

    /// Nodes that are live.
    pub fn live_nodes(&self, now_ms: u64) -> impl Iterator<Item = &Node> {
        self.nodes.values().filter(move |node| self.judge(node, now_ms) == NodeState::Live)
    }

    /// A node for those who talk to it.
    pub fn node_info(&self, id: NodeId, now_ms: u64) -> Option<NodeInfo> {
        let node = self.nodes.get(&id)?;
        Some(NodeInfo {
            id,
            name: node.row.name.clone(),
            url: node.row.url.clone(),
            zone: node.row.zone.clone(),
            state: self.judge(node, now_ms),
        })
    }

    /// A volume with its members, primary first.
    pub fn volume_info(&self, id: VolumeId, now_ms: u64) -> Option<VolumeInfo> {
        let volume = self.volumes.get(&id)?;
        let copy = |m: &Member| Some(CopyInfo { node: self.node_info(m.node, now_ms)?, seq: m.seq });
        Some(VolumeInfo {
            id,
            seq: self.view_of(volume, now_ms).needed(),
            open: volume.open_for.is_some(),
            copies: volume.members.iter().filter_map(copy).collect(),
        })
    }

    /// A volume as far as repair is concerned.
    pub fn view(&self, id: VolumeId, now_ms: u64) -> Option<VolumeView> {
        Some(self.view_of(self.volumes.get(&id)?, now_ms))
    }

    fn view_of(&self, volume: &Volume, now_ms: u64) -> VolumeView {
        let copy = |m: &Member| CopyView {
            node: m.node,
            seq: m.seq,
            state: self.node_state(m.node, now_ms),
            leaving: self.is_leaving(m.node),
        };
        VolumeView {
            open: volume.open_for.is_some(),
            committed: volume.seq,
            copies: volume.members.iter().map(copy).collect(),
        }
    }

    /// Volumes that the node may append to.
    pub fn open_volumes_of(&self, node: NodeId) -> Vec<VolumeId> {
        let is_primary = |id: &&VolumeId| self.volumes.get(id).and_then(Volume::primary) == Some(node);
        self.open.iter().filter(is_primary).copied().collect()
    }

    /// Live nodes that are to hold data, as candidates for copies.
    pub fn candidates(&self, now_ms: u64) -> Vec<Candidate> {
        let candidate = |node: &Node| Candidate {
            node: node.row.id,
            zone: node.row.zone.clone(),
            free_bytes: node.free_bytes,
        };
        self.live_nodes(now_ms).filter(|n| n.row.duty == NodeDuty::Serve).map(candidate).collect()
    }

    /// The nodes that cannot become members of a volume, with the zones that need no other: its members, in no
    /// zone where they are on their way out, and those that still have to drop a copy of it.
    pub fn taken_nodes(&self, id: VolumeId, volume: &Volume) -> Vec<(NodeId, String)> {
        let zone = |node: NodeId| match self.nodes.get(&node) {
            Some(n) if n.row.duty == NodeDuty::Serve => n.row.zone.clone(),
            _ => String::new(),
        };
        let members = volume.members.iter().map(|m| (m.node, zone(m.node)));
        let dropping = self.dropping.iter().filter(|(_, volume)| *volume == id);
        members.chain(dropping.map(|(node, _)| (*node, String::new()))).collect()
    }

    /// A commit refers to the volume up to `seq`, which its primary has acknowledged. `name` is the file's.
    pub fn note_commit(&mut self, id: VolumeId, seq: Seq, name: Option<&Name>, now_ms: u64) {
        let Some(volume) = self.volumes.get_mut(&id) else { return };
        volume.untouched = false;
        volume.hint.add(name);
        if seq > volume.seq {
            volume.seq = seq;
            if let Some(primary) = volume.members.first_mut() {
                primary.seq = primary.seq.max(seq);
            }
        }
        self.look_at(id, now_ms);
    }

    /// A member said, or showed, that its copy reaches at least `seq`. False when the node is no member.
    pub fn raise_copy(&mut self, id: VolumeId, node: NodeId, seq: Seq, now_ms: u64) -> bool {
        let Some(member) = self.volumes.get_mut(&id).and_then(|v| v.member_mut(node)) else { return false };
        if seq > member.seq {
            member.seq = seq;
            self.orders.progress(id, node, seq, now_ms);
            self.look_at(id, now_ms);
        }
        true
    }

    /// A node that starts says what it has: for copies that it does not name, nothing.
    pub fn set_copies(&mut self, node: NodeId, reach: impl Fn(VolumeId) -> Option<(Seq, u64)>, now_ms: u64) {
        let mut touched = Vec::new();
        for (id, volume) in &mut self.volumes {
            let is_primary = volume.primary() == Some(node);
            let Some(member) = volume.member_mut(node) else { continue };
            let (seq, bytes) = reach(*id).unwrap_or_default();
            member.seq = seq;
            if is_primary {
                volume.bytes = bytes;
            }
            touched.push(*id);
        }
        for id in touched {
            self.orders.forget_target(id, node);
            self.look_at(id, now_ms);
        }
    }

    /// Notes since when a volume is behind, and that orders may be wanted for it.
    pub fn look_at(&mut self, id: VolumeId, now_ms: u64) {
        let Some(view) = self.view(id, now_ms) else { return };
        let Some(volume) = self.volumes.get_mut(&id) else { return };
        let is_behind = view.needed() > Seq(0) && view.whole() < self.replicas;
        match (is_behind, volume.behind_since_ms) {
            (true, None) => volume.behind_since_ms = Some(now_ms),
            (false, Some(_)) => volume.behind_since_ms = None,
            _ => {}
        }
        let needed = view.needed();
        if view.copies.iter().any(|c| c.seq < needed) {
            self.orders.dirty.insert(id);
        } else {
            volume.hint = Hint::default();
        }
    }

    /// Names that are taken by nodes other than `id`.
    pub fn names_taken(&self, id: NodeId) -> HashSet<&str> {
        self.nodes.values().filter(|n| n.row.id != id).map(|n| n.row.name.as_str()).collect()
    }
}

impl Node {
    fn silent(row: NodeRow, now_ms: u64) -> Node {
        Node {
            row,
            incarnation: None,
            heard_ms: now_ms,
            capacity_bytes: 0,
            free_bytes: 0,
            used_bytes: 0,
            announced: NodeState::Suspect,
            scrub: ScrubStatus::default(),
        }
    }
}

impl Volume {
    /// The rest of a reserved range of keys is given up: it is not known how much of it was handed out.
    fn from_row(row: &VolumeRow) -> Volume {
        Volume {
            open_for: row.open_for,
            next_key: row.next_key,
            cursor: row.next_key,
            untouched: false,
            seq: row.seq,
            bytes: 0,
            members: vec![Member { node: row.primary, seq: Seq(0), kept_seq: Seq(0) }],
            behind_since_ms: None,
            hint: Hint::default(),
            ordered_ms: None,
        }
    }

    /// Who appends, or did.
    pub fn primary(&self) -> Option<NodeId> {
        self.members.first().map(|m| m.node)
    }

    /// The node's copy.
    pub fn member_mut(&mut self, node: NodeId) -> Option<&mut Member> {
        self.members.iter_mut().find(|m| m.node == node)
    }

    /// Whether the node has, or should have, a copy.
    pub fn has_member(&self, node: NodeId) -> bool {
        self.members.iter().any(|m| m.node == node)
    }

    fn set_member(&mut self, node: NodeId, seq: Seq, kept_seq: Seq) {
        match self.member_mut(node) {
            Some(member) => *member = Member { node, seq, kept_seq },
            None => self.members.push(Member { node, seq, kept_seq }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_name_one_file_and_count_the_rest() {
        let mut hint = Hint::default();
        assert_eq!(hint.text(), "");
        hint.add(None);
        assert_eq!(hint.text(), "1 changed files");
        hint.add(Some(&Name::new("report.txt").unwrap()));
        assert_eq!(hint.text(), "report.txt (+1 more)");
        hint.add(Some(&Name::new("other").unwrap()));
        assert_eq!(hint.text(), "report.txt (+2 more)");
    }

    #[test]
    fn after_a_restart_reserved_keys_are_not_handed_out_again() {
        let row = VolumeRow {
            id: VolumeId(1),
            primary: NodeId(1),
            open_for: Some(7),
            next_key: BlobKey(65_537),
            seq: Seq(3),
        };
        let silence = Silence { suspect_after_ms: 5, dead_after_ms: 30 };
        let state = State::load(2, silence, vec![], vec![row], vec![], 0);
        assert_eq!(state.volumes[&row.id].cursor, BlobKey(65_537));
        assert_eq!(state.volume_row(row.id), Some(row));
    }
}
