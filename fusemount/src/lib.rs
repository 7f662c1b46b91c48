//! A dfs cluster as a directory: the FUSE side of a mount.
//!
//! Owns the translation between the kernel's protocol and [`dfs_vfs::Vfs`] (decode, call, encode), the
//! errnos, the kernel's cache invalidation, and the life of a mount: it comes up, it answers, it goes down
//! with nothing unsaved. It decides nothing about files. The only crate that names `fuser`.

mod adapter;
mod convert;
mod descriptors;
mod direct;
mod errno;
mod kernel;
mod mappings;
mod mount;
mod predecessors;
mod requests;
mod signals;

pub mod args;
pub mod daemon;

pub use mount::{MountConfig, Mounted, mount};
