//! Storage nodes, volumes and grants as the master tells of them.

use crate::blob::{CopyStatus, ScrubStatus};
use crate::id::{BlobId, BlobKey, NodeId, Seq, VolumeId};
use serde::{Deserialize, Serialize};

/// How the master sees a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Heartbeats arrive.
    Live,
    /// None for `suspect_after_ms`: no new grants, reads last.
    Suspect,
    /// None for `dead_after_ms`: its volumes get other members.
    Dead,
}

/// A node for those who talk to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its number.
    pub id: NodeId,
    /// Its name for people (`sn1`).
    pub name: String,
    /// Base URL, `http://host:port`, without a trailing slash.
    pub url: String,
    /// Failure domain; empty when there is none.
    pub zone: String,
    /// As the master sees it now.
    pub state: NodeState,
}

/// A node for those who watch it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Who it is.
    pub info: NodeInfo,
    /// Size of the file system that holds its data, bytes.
    pub capacity_bytes: u64,
    /// What it can still take, bytes.
    pub free_bytes: u64,
    /// What its records take, bytes.
    pub used_bytes: u64,
    /// Volumes with a copy on it.
    pub volumes: u64,
    /// Copies on it that are behind.
    pub copies_behind: u64,
    /// Milliseconds since its last heartbeat.
    pub heartbeat_age_ms: u64,
    /// How far it is with verifying what it holds.
    #[serde(default)]
    pub scrub: ScrubStatus,
    /// It is being emptied: it gets no new data, and its copies are made elsewhere.
    #[serde(default)]
    pub draining: bool,
}

/// `POST /v1/nodes/{id}/drain`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainRequest {
    /// Empty the node, or have it hold data again.
    pub draining: bool,
}

/// `POST /v1/rebalance`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebalanceRequest {
    /// Begin or stop.
    pub running: bool,
}

/// Answer of `/v1/rebalance`: how evenly space is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RebalanceStatus {
    /// Whether it goes on.
    pub running: bool,
    /// Copies under way, and those that a node still has to drop.
    pub moving: u64,
    /// Used share of the fullest live node, parts in a hundred.
    pub fullest_percent: u64,
    /// Used share of the emptiest one.
    pub emptiest_percent: u64,
}

/// `POST /v1/nodes/register`: a node that starts, or that the master has forgotten.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterRequest {
    /// Random text made when the data directory was made: the identity across restarts and addresses.
    pub uuid: String,
    /// Random number of this run of the process. The master opens volumes for one incarnation only, so a
    /// node that lost un-synced records never numbers new ones in their place.
    pub incarnation: u64,
    /// Name for people; the master makes one (`sn1`, `sn2`, ...) when it is empty.
    pub name: String,
    /// Base URL that others reach it by. With the host `0.0.0.0` or `[::]` the master puts in the address
    /// the request came from.
    pub url: String,
    /// Failure domain; may be empty.
    pub zone: String,
    /// The cluster it belonged to so far; empty for a new node. A node of another cluster is refused.
    pub cluster: String,
    /// Shared secret of the cluster's operators, when the master was given one; else empty.
    pub cluster_key: String,
    /// Size of the file system that holds its data, bytes.
    pub capacity_bytes: u64,
    /// What it can still take, bytes.
    pub free_bytes: u64,
    /// What its records take, bytes.
    pub used_bytes: u64,
    /// Every copy it holds.
    pub copies: Vec<CopyStatus>,
}

/// Answer to a registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterReply {
    /// Its number.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// The cluster.
    pub cluster: String,
    /// Hex of the key that signs capabilities (HMAC-SHA256).
    pub token_key: String,
    /// Volumes of which it is the primary in this incarnation: the only ones it may append PUTs to.
    pub open_volumes: Vec<VolumeId>,
    /// How often to send a heartbeat, ms.
    pub heartbeat_ms: u64,
    /// Without an answered heartbeat for this long it must refuse PUTs, ms.
    pub lease_ms: u64,
}

/// `POST /v1/nodes/{id}/heartbeat`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatRequest {
    /// As registered; another number is answered `session_expired`, and the node registers again.
    pub incarnation: u64,
    /// See [`RegisterRequest::capacity_bytes`].
    pub capacity_bytes: u64,
    /// See [`RegisterRequest::free_bytes`].
    pub free_bytes: u64,
    /// See [`RegisterRequest::used_bytes`].
    pub used_bytes: u64,
    /// Copies that changed since the last answered heartbeat.
    pub copies: Vec<CopyStatus>,
    /// Damaged records found since the last answered heartbeat.
    pub bad_blobs: Vec<BlobId>,
    /// How far it is with verifying what it holds.
    #[serde(default)]
    pub scrub: ScrubStatus,
}

/// Answer to a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatReply {
    /// See [`RegisterReply::open_volumes`]; the whole list.
    pub open_volumes: Vec<VolumeId>,
}

/// Where a volume is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeInfo {
    /// The volume.
    pub id: VolumeId,
    /// Its log is known to reach this far.
    pub seq: Seq,
    /// Whether it takes appends.
    pub open: bool,
    /// The members, primary first.
    pub copies: Vec<CopyInfo>,
}

/// One member of a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyInfo {
    /// Who holds it.
    pub node: NodeInfo,
    /// How far it reached when the master last heard.
    pub seq: Seq,
}

/// The right to append blobs to one volume: a random primary, fetched ahead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The volume with its members, primary first.
    pub volume: VolumeInfo,
    /// First key of the range.
    pub first_key: BlobKey,
    /// Number of keys in the range.
    pub keys: u64,
    /// Milliseconds from the answer until a client must stop using it; the token lives a little longer.
    pub ttl_ms: u64,
    /// Capability for PUT, pull and sync on this volume and range; see `docs/PROTOCOL.md`.
    pub token: String,
}
