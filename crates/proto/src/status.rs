//! `GET /v1/status`: the cluster at a glance.

use crate::attr::Attr;
use crate::extent::Extent;
use crate::md5::Md5;
use crate::node::{NodeStatus, VolumeInfo};
use crate::order::DeadLetter;
use serde::{Deserialize, Serialize};

/// The cluster at a glance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// Its name, made when its master first started.
    pub cluster: String,
    /// Version of the master.
    pub version: String,
    /// Every node that was ever seen and not removed.
    pub nodes: Vec<NodeStatus>,
    /// Copies that each file should have.
    pub replicas: u32,
    /// Regular files.
    pub files: u64,
    /// Directories, the root included.
    pub directories: u64,
    /// Sum of the sizes of regular files, bytes.
    pub file_bytes: u64,
    /// Volumes.
    pub volumes: u64,
    /// How far replication is behind.
    pub replication: ReplicationStatus,
    /// Clients with a session.
    pub sessions: u64,
    /// Locks that are held on files.
    #[serde(default)]
    pub locks: u64,
    /// Waits for a lock.
    #[serde(default)]
    pub lock_waiters: u64,
}

/// How far replication is behind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicationStatus {
    /// Volumes with fewer whole copies than wanted.
    pub volumes_behind: u64,
    /// Records that copies still have to get, over all copies.
    pub records_behind: u64,
    /// Age of the oldest want, ms.
    pub lag_ms: u64,
    /// Damaged records that wait for repair.
    pub bad_blobs: u64,
    /// Orders in the queue.
    pub orders_queued: u64,
    /// Orders that were given up, newest first; at most 100.
    pub dead_letters: Vec<DeadLetter>,
}

/// Answer of `GET /v1/files-layout/{path}`: where one file's bytes are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayoutReply {
    /// Attributes.
    pub attr: Attr,
    /// MD5 of the whole content, when it is known without reading it.
    pub md5: Option<Md5>,
    /// Extents by offset; at most [`crate::limits::EXTENT_PAGE_MAX`].
    pub extents: Vec<Extent>,
    /// Whether these are all.
    pub complete: bool,
    /// Where the volumes named here are. A copy has a blob when its log reaches the blob's sequence number.
    pub volumes: Vec<VolumeInfo>,
    /// Copies that each file should have.
    pub replicas: u32,
}
