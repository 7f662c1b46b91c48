//! Locks between mounts: two or three file systems without a kernel on a cluster of real services.
#![allow(clippy::unwrap_used, missing_docs)]

mod ends;
mod lost;
mod mapped;
mod seen;
mod waits;
mod world;
