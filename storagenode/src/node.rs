//! One node: its store, its standing with the master, and its memory. What every request starts from.

use crate::backups::Backups;
use crate::error::StoreError;
use crate::foreground::Foreground;
use crate::memory::Memory;
use crate::pull::Pulls;
use crate::scrub::ScrubProgress;
use crate::store::{BlobStore, Counter};
use dfs_client::NodeClient;
use dfs_proto::local::LocalSocket;
use dfs_proto::node::RegisterReply;
use dfs_proto::{BlobId, BlobKey, ErrorCode, NodeId, VolumeId, WireError};
use dfs_service::{Capability, Clock, TokenKey};
use parking_lot::RwLock;
use std::collections::HashSet;
use std::sync::Arc;

/// What the master granted this run of the process.
#[derive(Debug, Default)]
struct Standing {
    node: Option<NodeId>,
    token_key: Option<TokenKey>,
    open_volumes: HashSet<VolumeId>,
    lease_ms: u64,
    /// On the monotonic clock; PUTs are refused after it.
    lease_until_ms: u64,
}

/// What requests count.
#[derive(Debug, Default)]
pub struct RequestMetrics {
    /// Requests.
    pub requests: Counter,
    /// Requests that were refused or failed.
    pub errors: Counter,
    /// Records that came from other nodes.
    pub pulled_records: Counter,
    /// Their bytes.
    pub pulled_bytes: Counter,
    /// Damaged records that were replaced.
    pub repaired: Counter,
}

/// One node.
pub struct Node {
    /// Its blobs.
    pub store: Arc<BlobStore>,
    /// Where tokens' times are read.
    pub clock: Arc<dyn Clock>,
    /// Memory for bodies of PUTs.
    pub put_memory: Memory,
    /// Memory for answers.
    pub get_memory: Memory,
    /// Requests to other nodes.
    pub peers: Arc<dyn NodeClient>,
    /// Copies of the master's database.
    pub backups: Backups,
    /// Shared secret of the cluster's operators; empty for none.
    pub cluster_key: String,
    /// Where readers on this host can ask for descriptors.
    pub local: Option<LocalSocket>,
    /// Pulls under way.
    pub pulls: Pulls,
    /// How far the verification of everything is.
    pub scrub: ScrubProgress,
    /// What clients are doing.
    pub foreground: Foreground,
    /// What has been counted.
    pub metrics: RequestMetrics,
    /// Written by the registration only, read by every request; never held over an await.
    standing: RwLock<Standing>,
    /// Dropped with the node, which tells that nobody uses the store any more.
    _in_use: tokio::sync::mpsc::Sender<()>,
}

/// What a node is made of.
pub struct Parts {
    /// See [`Node::store`].
    pub store: Arc<BlobStore>,
    /// See [`Node::clock`].
    pub clock: Arc<dyn Clock>,
    /// See [`Node::put_memory`].
    pub put_memory: Memory,
    /// See [`Node::get_memory`].
    pub get_memory: Memory,
    /// See [`Node::peers`].
    pub peers: Arc<dyn NodeClient>,
    /// See [`Node::backups`].
    pub backups: Backups,
    /// See [`Node::cluster_key`].
    pub cluster_key: String,
    /// See [`Node::local`].
    pub local: Option<LocalSocket>,
    /// Dropped with the node.
    pub in_use: tokio::sync::mpsc::Sender<()>,
}

impl Node {
    /// A node without a standing.
    pub fn new(parts: Parts) -> Node {
        Node {
            store: parts.store,
            clock: parts.clock,
            put_memory: parts.put_memory,
            get_memory: parts.get_memory,
            peers: parts.peers,
            backups: parts.backups,
            cluster_key: parts.cluster_key,
            local: parts.local,
            pulls: Pulls::default(),
            scrub: ScrubProgress::default(),
            foreground: Foreground::default(),
            metrics: RequestMetrics::default(),
            standing: RwLock::default(),
            _in_use: parts.in_use,
        }
    }

    /// The master accepted the registration that was sent at `asked_ms` (monotonic clock).
    pub fn registered(&self, reply: &RegisterReply, token_key: TokenKey, asked_ms: u64) {
        *self.standing.write() = Standing {
            node: Some(reply.node),
            token_key: Some(token_key),
            open_volumes: reply.open_volumes.iter().copied().collect(),
            lease_ms: reply.lease_ms,
            lease_until_ms: asked_ms.saturating_add(reply.lease_ms),
        };
    }

    /// The master answered the heartbeat that was sent at `asked_ms` (monotonic clock).
    pub fn heard(&self, open_volumes: Vec<VolumeId>, asked_ms: u64) {
        let mut standing = self.standing.write();
        standing.open_volumes = open_volumes.into_iter().collect();
        standing.lease_until_ms = asked_ms.saturating_add(standing.lease_ms);
    }

    /// Its number, once it has registered.
    pub fn id(&self) -> Option<NodeId> {
        self.standing.read().node
    }

    /// Whether the master has heard from it lately.
    pub fn has_lease(&self) -> bool {
        let standing = self.standing.read();
        standing.node.is_some() && self.clock.monotonic_ms() <= standing.lease_until_ms
    }

    /// Whether this run of the process is the primary of `volume`.
    pub fn is_primary(&self, volume: VolumeId) -> bool {
        self.standing.read().open_volumes.contains(&volume)
    }

    /// Refuses appends to `volume` that this node may not make now.
    pub fn check_append(&self, volume: VolumeId) -> Result<NodeId, WireError> {
        let standing = self.standing.read();
        let Some(node) = standing.node else { return Err(unregistered()) };
        if self.clock.monotonic_ms() > standing.lease_until_ms {
            return Err(WireError::new(
                ErrorCode::Unavailable,
                "this node has not heard from the master for too long to take writes; use another one",
            ));
        }
        if !standing.open_volumes.contains(&volume) {
            let message = format!("volume {volume} takes no appends on this node; use another grant");
            return Err(WireError::new(ErrorCode::Sealed, message));
        }
        Ok(node)
    }

    /// Checks a capability's signature and time.
    fn capability(&self, token: &str) -> Result<Capability, WireError> {
        let standing = self.standing.read();
        let key = standing.token_key.as_ref().ok_or_else(unregistered)?;
        key.verify(token, self.clock.wall_ms()).map_err(unauthorized)
    }

    /// Refuses a PUT of `id` under a token that does not allow it.
    pub fn allow_put(&self, token: &str, id: BlobId) -> Result<(), WireError> {
        let BlobId { volume, key } = id;
        self.capability(token)?.allows_put(volume, key).map_err(unauthorized)
    }

    /// Refuses pulls, syncs and repairs of `volume` under a token that does not allow them.
    pub fn allow_pull(&self, token: &str, volume: VolumeId) -> Result<(), WireError> {
        self.capability(token)?.allows_pull(volume).map_err(unauthorized)
    }

    /// Refuses a delete under a token that does not allow it.
    pub fn allow_delete(&self, token: &str) -> Result<(), WireError> {
        self.capability(token)?.allows_delete().map_err(unauthorized)
    }

    /// Refuses to replace or add records of a volume that this node itself gives the numbers of.
    pub fn check_copy(&self, volume: VolumeId) -> Result<(), WireError> {
        if !self.is_primary(volume) {
            return Ok(());
        }
        let message =
            format!("this node is the primary of volume {volume}, which is open: it pulls from nobody");
        Err(WireError::new(ErrorCode::NotPermitted, message))
    }
}

/// The name of a blob in a path.
pub fn blob_id((volume, key): (u64, u64)) -> BlobId {
    BlobId { volume: VolumeId(volume), key: BlobKey(key) }
}

/// A blocking task that panicked or was cut off.
pub fn cut_off(e: impl std::fmt::Display) -> WireError {
    WireError::new(ErrorCode::Internal, format!("the work was cut off: {e}"))
}

/// Runs `work` where blocking is allowed.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, WireError> {
    tokio::task::spawn_blocking(work).await.map_err(cut_off)?.map_err(WireError::from)
}

fn unregistered() -> WireError {
    WireError::new(ErrorCode::Unavailable, "this node has not registered with the master yet; try again")
}

fn unauthorized(e: impl std::fmt::Display) -> WireError {
    WireError::new(ErrorCode::Unauthorized, e.to_string())
}
