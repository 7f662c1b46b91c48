//! The file system without a kernel.
//!
//! Owns what a mount knows between the application and the cluster: open files, content that is staged and
//! not yet published, names that exist only here so far, leased inode numbers, the cache of verified blobs,
//! and what must be invalidated when others change things. Driven by the FUSE adapter and, just the same, by
//! tests.
//!
//! It knows neither FUSE nor HTTP: operations come in as calls of [`Vfs`], the cluster is behind
//! [`dfs_client::MetaClient`] and [`dfs_client::DataClient`], and the kernel's caches are behind
//! [`KernelCaches`].
//!
//! ```text
//! write -> Layer (dirty pieces) -> Buffer (4 MiB, appended to) -> upload in the background -> BlobRef
//! close/fsync -> publish: wait for uploads -> one Commit -> pieces become the base
//! read  -> dirty over publishing over base, holes as zeros; blobs come through the cache
//! ```

mod access_times;
mod cache;
mod catch_up;
mod clock;
mod closes;
mod config;
mod error;
mod file;
mod gather;
mod handle;
mod inode_numbers;
mod invalidate;
mod layer;
mod locks;
mod names;
mod ops;
mod pattern;
mod pins;
mod publish;
pub mod range_map;
mod read;
mod readahead;
mod staging;
mod vfs;
mod view;
mod walk;

pub use config::{AtimePolicy, VfsConfig};
pub use error::VfsError;
pub use handle::Fh;
pub use invalidate::KernelCaches;
pub use ops::{Allocation, Caller, Created, Listed, LockWish, OpenFlags, OpenedFile, ReadData, Seek};
pub use read::{ReadStart, WaitingRead};
pub use vfs::Vfs;
