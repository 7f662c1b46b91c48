//! The seams that the mount, the gateway and the command line are written against.

use crate::ClientError;
use crate::checksum::Sums;
use async_trait::async_trait;
use bytes::Bytes;
use dfs_proto::meta::VolumeReach;
use dfs_proto::{Attr, BlobOrigin, BlobRef, Event, EventCursor, MetaOp, MetaReply, SessionId, VolumeInfo};

/// The master's operations, one at a time; an implementation may send those that wait together as one batch.
///
/// A call is retried inside, exactly-once for writes, until it succeeds, fails for good or its deadline
/// passes.
#[async_trait]
pub trait MetaClient: Send + Sync + 'static {
    /// Carries out `op`.
    async fn call(&self, op: MetaOp) -> Result<MetaReply, ClientError>;

    /// The present session, where there is such a thing. What an earlier one held (locks, opens) is gone.
    fn session(&self) -> Option<SessionId> {
        None
    }
}

/// Blobs in the cluster. Choosing nodes, trying others, and verification happen inside.
#[async_trait]
pub trait DataClient: Send + Sync + 'static {
    /// Stores one blob of 1 to [`dfs_proto::limits::BLOB_BYTES_MAX`] bytes on a random primary.
    async fn put(&self, data: Bytes, origin: BlobOrigin) -> Result<BlobRef, ClientError>;

    /// The same for a blob whose checksums are known: `sums` are those of `data`.
    async fn put_summed(&self, data: Bytes, sums: Sums, origin: BlobOrigin) -> Result<BlobRef, ClientError>;

    /// The whole blob, verified against its MD5.
    async fn get(&self, blob: &BlobRef) -> Result<Bytes, ClientError>;

    /// `length` bytes of the blob from `start` on, verified against the CRC32C of their chunks. The range
    /// must lie within the blob.
    async fn get_range(&self, blob: &BlobRef, start: u32, length: u32) -> Result<Bytes, ClientError>;

    /// The same if it takes no waiting, neither for a node nor for a disk. `None` says nothing about the blob.
    fn try_get_range(&self, _blob: &BlobRef, _start: u32, _length: u32) -> Option<Bytes> {
        None
    }

    /// Returns when every named log is on the disks of two nodes up to the named place (of every live node
    /// when there are fewer).
    async fn make_durable(&self, reach: &[VolumeReach]) -> Result<(), ClientError>;

    /// Takes note of where volumes are, as answers of the master tell.
    fn learn(&self, volumes: &[VolumeInfo]);

    /// Forgets where volumes are.
    fn forget_placement(&self);
}

/// Who wants to hear of changes by others. Called from one task, in the order of the stream; must not block.
pub trait EventHandler: Send + Sync + 'static {
    /// The stream stands: from now on changes arrive. What was cached before is not covered; drop it.
    fn on_reset(&self);
    /// The stream is down: nothing may be served from a cache without asking the master.
    fn on_down(&self);
    /// Something changed.
    fn on_event(&self, event: &Event);
    /// Everything up to this place of the stream has been told.
    fn on_place(&self, _at: EventCursor) {}
    /// A change made here has left a directory with these attributes; the answer to the change itself follows. Called
    /// from any task, in any order: the latest has the latest ctime.
    fn on_directory(&self, _attr: &Attr) {}
    /// A change made here may be carried out without [`EventHandler::on_directory`] being called for it.
    fn on_unclear_change(&self) {}
}
