//! What can go wrong in the store, and what it is called on the wire.

use dfs_proto::{BlobId, ErrorCode, Seq, VolumeId, WireError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// No such blob, or not any more.
    #[error("blob {0} is not on this node")]
    NotFound(BlobId),
    /// No copy of this volume.
    #[error("volume {0} is not on this node")]
    UnknownVolume(VolumeId),
    /// The bytes on disk are not those that were stored.
    #[error("blob {id} is damaged on this node and has been set aside: {reason}")]
    Corrupt {
        /// The blob.
        id: BlobId,
        /// What did not match.
        reason: String,
    },
    /// The key holds other bytes.
    #[error("the key of blob {0} is taken by other bytes; keys are never used twice")]
    Conflict(BlobId),
    /// The blob was deleted before; its key is not used again.
    #[error("blob {0} was deleted; its key is not used again")]
    Deleted(BlobId),
    /// A record that does not follow on what is here.
    #[error("volume {volume} reaches {reach} here; record {seq} cannot follow on that, pull what is between")]
    Gap {
        /// The volume.
        volume: VolumeId,
        /// How far it reaches.
        reach: Seq,
        /// The record.
        seq: Seq,
    },
    /// No room left.
    #[error("no room: {0}")]
    NoSpace(String),
    /// A system call failed.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why not.
        source: Arc<io::Error>,
    },
    /// An earlier failure left the disk in a state that only a restart can find out.
    #[error("the store takes nothing more until it is started again: {0}")]
    Failed(String),
    /// The node is stopping.
    #[error("the node is stopping")]
    Closed,
}

impl StoreError {
    /// A failed system call on `path`.
    pub fn io(what: &'static str, path: &Path, source: io::Error) -> StoreError {
        if source.kind() == io::ErrorKind::StorageFull || source.kind() == io::ErrorKind::QuotaExceeded {
            return StoreError::NoSpace(format!("cannot {what} {}: {source}", path.display()));
        }
        StoreError::Io { what, path: path.to_owned(), source: Arc::new(source) }
    }

    /// The code that stands for it on the wire.
    pub fn code(&self) -> ErrorCode {
        match self {
            StoreError::NotFound(_) => ErrorCode::NotFound,
            StoreError::UnknownVolume(_) => ErrorCode::UnknownVolume,
            StoreError::Corrupt { .. } => ErrorCode::Corrupt,
            StoreError::Conflict(_) | StoreError::Deleted(_) => ErrorCode::Conflict,
            StoreError::NoSpace(_) => ErrorCode::NoSpace,
            StoreError::Io { .. } | StoreError::Failed(_) => ErrorCode::Io,
            StoreError::Gap { .. } | StoreError::Closed => ErrorCode::Unavailable,
        }
    }
}

impl From<StoreError> for WireError {
    fn from(e: StoreError) -> WireError {
        WireError::new(e.code(), e.to_string())
    }
}
