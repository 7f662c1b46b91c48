//! The seam: row primitives of a transaction.
//!
//! Low on purpose: a store keeps rows and keeps them in order, and nothing above has to be written again for
//! another one. Every method of [`ReadTxn`] sees the writes of its own transaction. No method is allowed to
//! take time that grows with the size of the namespace; those that walk take a limit.

use crate::row::{CopyRow, DentryRow, GarbageRow, InodeRow, LockRow, NodeRow, SessionRow, VolumeRow};
use dfs_proto::{BlobId, BlobKey, DirCookie, Extent, Ino, NodeId, SessionId, Timestamp, VolumeId};

/// Why a store could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The database answered with an error.
    #[error("the metadata store failed while it was to {action}: {reason}")]
    Failed {
        /// What it was doing.
        action: &'static str,
        /// What it said.
        reason: String,
    },
    /// A row cannot be understood: damage, or a database of a newer version.
    #[error("the metadata store holds a row that makes no sense: {0}")]
    Corrupt(String),
    /// The disk that holds the database is full.
    #[error("no room is left for the metadata store")]
    Full,
    /// The writer is gone; the process is about to end.
    #[error("the metadata store is closed")]
    Closed,
}

/// When a write is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Durability {
    /// Committed: survives the end of this process at any instant, and is on the disk within a second.
    Process,
    /// On the disk: survives power loss.
    Disk,
}

/// Numbers that only grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counter {
    /// Inode numbers; the first one handed out is 2.
    Inode,
    /// Cookies of directory entries; the first is above [`DirCookie::RESERVED`].
    Cookie,
    /// Nodes, from 1.
    Node,
    /// Volumes, from 1.
    Volume,
    /// Sessions, from 1.
    Session,
    /// Orders, from 1.
    Order,
}

impl Counter {
    /// All of them.
    pub const ALL: [Counter; 6] =
        [Counter::Inode, Counter::Cookie, Counter::Node, Counter::Volume, Counter::Session, Counter::Order];

    /// The first number handed out.
    pub fn first(self) -> u64 {
        match self {
            Counter::Inode => Ino::ROOT.0 + 1,
            Counter::Cookie => DirCookie::RESERVED + 1,
            Counter::Node | Counter::Volume | Counter::Session | Counter::Order => 1,
        }
    }

    /// The number that stands for the counter in stores; never to be changed.
    pub(crate) fn id(self) -> u8 {
        match self {
            Counter::Inode => 1,
            Counter::Cookie => 2,
            Counter::Node => 3,
            Counter::Volume => 4,
            Counter::Session => 5,
            Counter::Order => 6,
        }
    }
}

/// Totals that a store keeps up to date in the transactions that change them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Inodes of regular files.
    pub files: u64,
    /// Inodes of directories.
    pub directories: u64,
    /// Inodes of every kind.
    pub inodes: u64,
    /// Sum of the sizes of regular files, bytes; `u64::MAX` when it is more (sparse files can say anything).
    pub file_bytes: u64,
    /// Locks that are held.
    pub locks: u64,
}

/// Reads within a transaction.
pub trait ReadTxn {
    /// The inode, if there is one.
    fn inode(&self, ino: Ino) -> Result<Option<InodeRow>, StoreError>;
    /// The entry, if there is one.
    fn dentry(&self, parent: Ino, name: &[u8]) -> Result<Option<DentryRow>, StoreError>;
    /// Entries with a cookie above `after`, by cookie, at most `limit`, each with its inode.
    fn dentries(
        &self,
        parent: Ino,
        after: DirCookie,
        limit: u32,
    ) -> Result<Vec<(DentryRow, InodeRow)>, StoreError>;
    /// Whether the directory has any entry.
    fn has_dentries(&self, parent: Ino) -> Result<bool, StoreError>;
    /// Extents that end after `from`, by offset, at most `limit`. They never overlap and all have a blob.
    fn extents(&self, ino: Ino, from: u64, limit: u32) -> Result<Vec<Extent>, StoreError>;
    /// Whether any extent of any file refers to the blob.
    fn blob_in_use(&self, blob: BlobId) -> Result<bool, StoreError>;
    /// Target of a symlink.
    fn symlink(&self, ino: Ino) -> Result<Option<Vec<u8>>, StoreError>;
    /// One extended attribute.
    fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// Names of all extended attributes, sorted.
    fn xattr_names(&self, ino: Ino) -> Result<Vec<Vec<u8>>, StoreError>;
    /// Inodes without a name that wait for their last close or for their extents to be taken apart, with
    /// a number above `after`, sorted, at most `limit`.
    fn orphans(&self, after: Ino, limit: u32) -> Result<Vec<Ino>, StoreError>;
    /// All locks that are held on the inode, by (space, session, owner, first byte). Whoever puts them keeps
    /// to [`dfs_proto::limits::LOCKS_PER_FILE_MAX`].
    fn locks(&self, ino: Ino) -> Result<Vec<LockRow>, StoreError>;
    /// Garbage that has been so since before `before`, oldest first, at most `limit`.
    fn garbage(&self, before: Timestamp, limit: u32) -> Result<Vec<GarbageRow>, StoreError>;
    /// All nodes, by id.
    fn nodes(&self) -> Result<Vec<NodeRow>, StoreError>;
    /// All volumes, by id. Thousands, not millions; read once at start.
    fn volumes(&self) -> Result<Vec<VolumeRow>, StoreError>;
    /// All copies, by (volume, node). Read once at start.
    fn copies(&self) -> Result<Vec<CopyRow>, StoreError>;
    /// All sessions, by id.
    fn sessions(&self) -> Result<Vec<SessionRow>, StoreError>;
    /// The kept result of a call (postcard of `Result<MetaReply, WireError>`).
    fn call_result(&self, session: SessionId, seq: u64) -> Result<Option<Vec<u8>>, StoreError>;
    /// A setting of the cluster (its name, its signing key, ...).
    fn setting(&self, key: &str) -> Result<Option<String>, StoreError>;
    /// Totals.
    fn stats(&self) -> Result<StoreStats, StoreError>;
}

/// Writes within a transaction. `put_*` inserts or replaces; `delete_*` of what is not there does nothing.
pub trait WriteTxn: ReadTxn {
    /// Hands out `count` numbers that were never handed out before; returns the first.
    fn take(&mut self, counter: Counter, count: u64) -> Result<u64, StoreError>;
    /// Writes an inode.
    fn put_inode(&mut self, row: &InodeRow) -> Result<(), StoreError>;
    /// Removes an inode with its symlink target, extended attributes and locks; its extents must be gone
    /// already.
    fn delete_inode(&mut self, ino: Ino) -> Result<(), StoreError>;
    /// Writes an entry. When one of that name was there, its cookie goes with it.
    fn put_dentry(&mut self, row: &DentryRow) -> Result<(), StoreError>;
    /// Removes an entry.
    fn delete_dentry(&mut self, parent: Ino, name: &[u8]) -> Result<(), StoreError>;
    /// Writes an extent at its offset. It must not overlap another one, but for one at the same offset,
    /// which it replaces.
    fn put_extent(&mut self, ino: Ino, extent: &Extent) -> Result<(), StoreError>;
    /// Removes the extent that begins at `offset`.
    fn delete_extent(&mut self, ino: Ino, offset: u64) -> Result<(), StoreError>;
    /// Writes a symlink's target.
    fn put_symlink(&mut self, ino: Ino, target: &[u8]) -> Result<(), StoreError>;
    /// Writes an extended attribute.
    fn put_xattr(&mut self, ino: Ino, name: &[u8], value: &[u8]) -> Result<(), StoreError>;
    /// Removes an extended attribute.
    fn delete_xattr(&mut self, ino: Ino, name: &[u8]) -> Result<(), StoreError>;
    /// Puts an inode on the list of orphans.
    fn put_orphan(&mut self, ino: Ino) -> Result<(), StoreError>;
    /// Takes it off.
    fn delete_orphan(&mut self, ino: Ino) -> Result<(), StoreError>;
    /// Writes a lock. Nothing is checked: it may overlap others.
    fn put_lock(&mut self, row: &LockRow) -> Result<(), StoreError>;
    /// Removes the lock of this inode, space, session, owner and first byte.
    fn delete_lock(&mut self, row: &LockRow) -> Result<(), StoreError>;
    /// Puts a blob on the garbage list.
    fn put_garbage(&mut self, row: &GarbageRow) -> Result<(), StoreError>;
    /// Takes it off.
    fn delete_garbage(&mut self, blob: BlobId) -> Result<(), StoreError>;
    /// Writes a node.
    fn put_node(&mut self, row: &NodeRow) -> Result<(), StoreError>;
    /// Forgets a node.
    fn delete_node(&mut self, id: NodeId) -> Result<(), StoreError>;
    /// Writes a volume.
    fn put_volume(&mut self, row: &VolumeRow) -> Result<(), StoreError>;
    /// Raises `seq` of a volume to at least this; nothing when the volume is not known.
    fn raise_volume_seq(&mut self, volume: VolumeId, seq: dfs_proto::Seq) -> Result<(), StoreError>;
    /// Sets `next_key` of a volume.
    fn set_volume_next_key(&mut self, volume: VolumeId, next_key: BlobKey) -> Result<(), StoreError>;
    /// Writes a copy.
    fn put_copy(&mut self, row: &CopyRow) -> Result<(), StoreError>;
    /// Forgets a copy.
    fn delete_copy(&mut self, volume: VolumeId, node: NodeId) -> Result<(), StoreError>;
    /// Writes a session.
    fn put_session(&mut self, row: &SessionRow) -> Result<(), StoreError>;
    /// Forgets a session and all its kept results, and frees its locks. Answers the inodes that it had locks
    /// on, sorted.
    fn delete_session(&mut self, id: SessionId) -> Result<Vec<Ino>, StoreError>;
    /// Keeps the result of a call.
    fn put_call_result(&mut self, session: SessionId, seq: u64, result: &[u8]) -> Result<(), StoreError>;
    /// Forgets results of calls below `seq`.
    fn delete_call_results_below(&mut self, session: SessionId, seq: u64) -> Result<(), StoreError>;
    /// Writes a setting.
    fn put_setting(&mut self, key: &str, value: &str) -> Result<(), StoreError>;
    /// Begins a savepoint within the transaction; they nest.
    fn begin_savepoint(&mut self) -> Result<(), StoreError>;
    /// Ends the innermost savepoint: with `keep` its writes stay, without it they are undone.
    fn end_savepoint(&mut self, keep: bool) -> Result<(), StoreError>;
}
