//! Whole files as streams of bytes, for the gateway and the command line.
//!
//! Uploads cut a stream into blobs and publish them in one commit; reads put verified blobs back together.
//! Memory is bounded by [`BLOBS_IN_FLIGHT`] blobs for each stream, whatever the file's size.

mod download;
mod upload;

pub use download::{OpenFile, open};
pub use upload::{Target, Uploaded, upload};

/// Blobs of one stream that are on their way at a time.
pub const BLOBS_IN_FLIGHT: usize = 4;
