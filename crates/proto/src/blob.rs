//! The data path of a storage node: paths, headers and bodies (docs/PROTOCOL.md has it in prose).

use crate::id::{BlobId, Ino, NodeId, Seq, Version, VolumeId};
use serde::{Deserialize, Serialize};

/// Bytes that one CRC32C covers. Ranges of a blob are served in whole chunks, so that each can be verified.
pub const CHUNK_BYTES: usize = 64 << 10;

/// Number of chunks of a blob of `length` bytes. An empty blob has none.
pub fn chunks_of(length: usize) -> usize {
    length.div_ceil(CHUNK_BYTES)
}

/// Request header: the capability (see [`crate::node::Grant::token`]).
pub const HEADER_TOKEN: &str = "x-dfs-token";
/// Request and answer header: MD5 of the whole blob, 32 hex digits.
pub const HEADER_MD5: &str = "x-dfs-md5";
/// Request and answer header: CRC32C per chunk, 8 hex digits each, one after the other. On a PUT it is
/// optional: with it the node checks these and takes the MD5 as it is, without it the node checks the MD5.
/// On a GET it covers the chunks sent.
pub const HEADER_CRC32C: &str = "x-dfs-crc32c";
/// Request header of a PUT: [`BlobOrigin`] as `ino,offset,version`, in decimal.
pub const HEADER_ORIGIN: &str = "x-dfs-origin";
/// Request header of a PUT: `1` asks for an answer only after fdatasync.
pub const HEADER_SYNC: &str = "x-dfs-sync";
/// Answer header of a GET: the blob's sequence number.
pub const HEADER_SEQ: &str = "x-dfs-seq";

/// Path of one blob on a node: PUT, GET (with Range), HEAD.
pub fn blob_path(id: BlobId) -> String {
    format!("/v1/blobs/{}/{}", id.volume, id.key)
}

/// Path of what concerns one volume on a node; `action` is `log`, `pull`, `sync`, `verify`, `drop` or empty for its
/// status.
pub fn volume_path(volume: VolumeId, action: &str) -> String {
    match action {
        "" => format!("/v1/volumes/{volume}"),
        _ => format!("/v1/volumes/{volume}/{action}"),
    }
}

/// Which file a blob was written for, kept in its record so that files can be rebuilt from nodes alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobOrigin {
    /// The inode; 0 when unknown.
    pub ino: Ino,
    /// File offset of the blob's first byte.
    pub offset: u64,
    /// The content version that the commit is expected to make.
    pub version: Version,
}

/// Answer to a PUT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutAck {
    /// The node that has the blob now.
    pub node: NodeId,
    /// Its place in the volume's log.
    pub seq: Seq,
    /// Whether it is on the disk (fdatasync), not only in the page cache.
    pub synced: bool,
}

/// Body of `POST /v1/volumes/{v}/pull` (capability with the right to pull): bring this node's copy of the
/// volume up to the source's. Idempotent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequest {
    /// Base URL of the node to copy from.
    pub source: String,
    /// Go on until the copy reaches this sequence number.
    pub at_least: Seq,
    /// Answer only after fdatasync.
    pub sync: bool,
}

/// Answer to a pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullReply {
    /// How far the copy reaches now.
    pub seq: Seq,
    /// Records that came over in this call.
    pub records: u64,
    /// Their bytes, headers included.
    pub bytes: u64,
}

/// Body of `POST /v1/volumes/{v}/sync`: fdatasync what is there up to `at_least`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncRequest {
    /// The copy must reach this far; `unavailable` when it does not.
    pub at_least: Seq,
}

/// Body of `POST /v1/volumes/{v}/verify`: read and verify a piece of the copy, MD5s included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyRequest {
    /// Begin above this sequence number.
    pub after: Seq,
    /// About so many bytes, and at least one record if there is any.
    pub max_bytes: u64,
}

/// Answer to a [`VerifyRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReply {
    /// Everything up to here has been looked at.
    pub next: Seq,
    /// How far the copy reaches; the end when it is `next`.
    pub reach: Seq,
    /// Records that were read.
    pub records: u64,
    /// Their payload, bytes.
    pub bytes: u64,
    /// Records that are damaged or missing here. They are reported with the next heartbeat.
    pub bad: u64,
    /// How many of those were not known to be.
    pub found: u64,
}

/// Answer of `POST /v1/volumes/{v}/drop` (capability with the right to delete): the node gives up its copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropReply {
    /// Whether there was one.
    pub dropped: bool,
}

/// How far a node is with reading all that it holds, again and again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScrubStatus {
    /// When the present round began, Unix time in ms; 0 before the first.
    pub began_ms: u64,
    /// Bytes verified in it.
    pub verified_bytes: u64,
    /// When the last whole round ended, Unix time in ms; 0 when none has.
    pub finished_ms: u64,
    /// Damaged records that were found, in all rounds.
    pub found: u64,
}

/// Status of one copy of a volume, as its node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyStatus {
    /// The volume.
    pub volume: VolumeId,
    /// How far its log reaches here.
    pub seq: Seq,
    /// Live bytes: payloads that have not been deleted.
    pub bytes: u64,
    /// Live blobs.
    pub blobs: u64,
}

/// Body of `POST /v1/blobs/delete`. Idempotent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteRequest {
    /// At most [`crate::limits::DELETE_BLOBS_MAX`].
    pub blobs: Vec<BlobId>,
}

/// Answer to a batch delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteReply {
    /// Blobs that were there and are not any more.
    pub deleted: u64,
    /// Blobs that were not there; as good as deleted.
    pub absent: u64,
}

/// Body of `POST /v1/blobs/{v}/{k}/repair` (capability with the right to pull): replace a damaged or missing
/// record by the source's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairRequest {
    /// Base URL of the node that has a good one.
    pub source: String,
}

/// Answer of `GET /v1/blobs/{v}/{k}/check`: the record read from disk and verified, MD5 included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckReply {
    /// Whether every checksum matched.
    pub whole: bool,
    /// What did not, when one did not.
    pub reason: String,
}
