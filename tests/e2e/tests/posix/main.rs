//! Suites that others wrote for POSIX file systems, run on a mount as on ext4: pjdfstest (which errno, mode and
//! time each call leaves) and fsx (whether a file that is changed in every way still has the right bytes).
//!
//! They need root: for users to become, for a loop device, and for read-only remounts.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../mounted/bed.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the mounted tests, which use all of it")]
mod bed;
mod fsx;
mod pjdfstest;
mod reference;
mod tools;
