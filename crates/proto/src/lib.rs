//! What the programs of dfs say to each other: identifiers, wire types, error codes and limits.
//!
//! This crate owns the vocabulary and nothing else. It opens no socket, touches no disk and knows neither
//! HTTP nor SQL nor FUSE. The same types travel as JSON (for people) and as postcard (for the mount); see
//! [`codec`]. Because postcard is not self-describing, wire types use no `skip_serializing_if`, no untagged
//! and no flattened fields.

pub mod attr;
pub mod backup;
pub mod blob;
mod bytes_as_text;
pub mod codec;
pub mod error;
pub mod event;
pub mod extent;
pub mod id;
pub mod limits;
pub mod local;
pub mod lock;
pub mod md5;
pub mod meta;
pub mod name;
pub mod node;
pub mod order;
pub mod status;
pub mod xattr_name;

pub use attr::{Attr, CollisionPolicy, FileKind, Timestamp};
pub use blob::{BlobOrigin, CHUNK_BYTES, PutAck};
pub use error::{ErrorCode, WireError};
pub use event::{Event, EventCursor, EventKind};
pub use extent::{BlobRef, Extent};
pub use id::{BlobId, BlobKey, DirCookie, Ino, NodeId, OrderId, Seq, SessionId, Version, VolumeId};
pub use lock::{LockHolder, LockMode, LockOwner, LockRange, LockRequest, LockSpace, Locked};
pub use md5::Md5;
pub use meta::{MetaOp, MetaReply, MetaRequest, MetaResponse};
pub use name::Name;
pub use node::{Grant, NodeInfo, NodeState, VolumeInfo};
pub use order::{Order, OrderOutcome};
pub use xattr_name::XattrName;
