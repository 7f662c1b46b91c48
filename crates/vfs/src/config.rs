//! Settings of a mount.

use dfs_proto::CollisionPolicy;
use dfs_proto::limits::BLOB_BYTES_MAX;
use std::time::Duration;

/// When reads change access times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AtimePolicy {
    /// When what is read has changed since it was last read, or that is a day ago (`relatime` of mount(8)).
    #[default]
    Relatime,
    /// Never (`noatime`).
    Never,
}

/// Settings of a mount. The memory bounds add up to what a mount takes at most, besides a few MiB of its own.
#[derive(Clone, Debug)]
pub struct VfsConfig {
    /// What a whole new file does when its name is taken and the directory says nothing.
    pub collision: CollisionPolicy,
    /// Bytes that may be staged (written by applications, not yet stored) over all files.
    pub staged_bytes_max: usize,
    /// Bytes of verified blobs that are kept.
    pub cache_bytes_max: usize,
    /// Blobs under way to nodes at once.
    pub uploads_max: usize,
    /// Blobs fetched ahead of one reader at most.
    pub readahead_blobs: usize,
    /// Bytes that are fetched ahead and not read yet, over all readers.
    pub readahead_bytes_max: usize,
    /// How long the kernel may keep attributes and entries while changes by others are pushed; 0 is used
    /// while they are not.
    pub kernel_ttl: Duration,
    /// When reads change access times.
    pub atime: AtimePolicy,
    /// Whether handles that are opened for writing only go past the kernel's page cache. The kernel has to drop
    /// what it has cached of a range after such a write as well as before.
    pub direct_writers: bool,
}

impl Default for VfsConfig {
    fn default() -> Self {
        VfsConfig {
            collision: CollisionPolicy::Rename,
            staged_bytes_max: 16 * BLOB_BYTES_MAX,
            cache_bytes_max: 16 * BLOB_BYTES_MAX,
            uploads_max: 6,
            readahead_blobs: 16,
            readahead_bytes_max: 20 * BLOB_BYTES_MAX,
            kernel_ttl: Duration::from_secs(1),
            atime: AtimePolicy::Relatime,
            direct_writers: false,
        }
    }
}
