//! Talks to the master and to storage nodes.
//!
//! Owns transport, retries, the choice of replicas, and checksums: bytes that leave this crate have been
//! verified. The only crate that names an HTTP client. It does not know files' life in a mount (that is
//! `dfs-vfs`) nor how servers keep what they are given.

mod ask;
mod backups;
mod batch;
mod blobs;
mod buffers;
pub mod checksum;
mod durable;
mod error;
mod events;
pub mod files;
mod grants;
mod health;
mod http;
mod lateness;
pub mod local;
mod master;
mod nodes;
mod placement;
mod reader;
mod retry;
mod seam;
mod session;
mod task;
mod writer;

pub use backups::Backups;
pub use blobs::{Blobs, BlobsConfig};
pub use error::ClientError;
pub use events::Subscription;
pub use master::MasterClient;
pub use nodes::{FetchedBlob, HttpNodes, NodeClient, PutBlob};
pub use seam::{DataClient, EventHandler, MetaClient};
pub use session::Session;
