//! Rows: what the master remembers, one struct per table.

use dfs_proto::{
    Attr, BlobId, BlobKey, CollisionPolicy, DirCookie, FileKind, Ino, LockHolder, LockSpace, Md5, NodeId,
    Seq, SessionId, Timestamp, Version, VolumeId,
};

/// Table `inode`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InodeRow {
    /// Key.
    pub ino: Ino,
    /// What it is; never changes.
    pub kind: FileKind,
    /// Low 12 bits of the mode.
    pub mode: u16,
    /// Dentries that name it; for a directory 2 + its subdirectories.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number.
    pub rdev: u32,
    /// See [`Attr::size`].
    pub size: u64,
    /// See [`Attr::allocated`].
    pub allocated: u64,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Creation.
    pub btime: Timestamp,
    /// See [`Attr::version`].
    pub version: Version,
    /// Directories: the parent. Others: 0.
    pub parent: Ino,
    /// Directories: the collision rule, if one is set or inherited.
    pub collision: Option<CollisionPolicy>,
    /// Files: MD5 of the whole content, when the last writer knew it.
    pub md5: Option<Md5>,
    /// See [`Attr::has_acl`].
    pub has_acl: bool,
}

impl InodeRow {
    /// The row as clients see it.
    pub fn attr(&self) -> Attr {
        Attr {
            ino: self.ino,
            kind: self.kind,
            mode: self.mode,
            nlink: self.nlink,
            uid: self.uid,
            gid: self.gid,
            rdev: self.rdev,
            size: self.size,
            allocated: self.allocated,
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
            btime: self.btime,
            version: self.version,
            parent: self.parent,
            collision: self.collision,
            has_acl: self.has_acl,
        }
    }
}

/// Table `dentry`, by (parent, name) and by (parent, cookie).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DentryRow {
    /// The directory.
    pub parent: Ino,
    /// The entry; 1 to 255 bytes.
    pub name: Vec<u8>,
    /// Place in listings, from [`Counter::Cookie`](crate::Counter::Cookie).
    pub cookie: DirCookie,
    /// What it names.
    pub ino: Ino,
}

/// Table `file_lock`, by (ino, space, session, owner, first byte): a lock that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockRow {
    /// The file.
    pub ino: Ino,
    /// Which kind.
    pub space: LockSpace,
    /// Who holds what of it, and how.
    pub holder: LockHolder,
}

/// Table `garbage`: blobs that no extent refers to any more, to be deleted on every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GarbageRow {
    /// The blob.
    pub blob: BlobId,
    /// Its length, bytes.
    pub length: u32,
    /// Since when.
    pub since: Timestamp,
}

/// Table `node`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRow {
    /// Key.
    pub id: NodeId,
    /// Unique: the node's own identity.
    pub uuid: String,
    /// Unique name for people.
    pub name: String,
    /// Where it was last reached.
    pub url: String,
    /// Failure domain.
    pub zone: String,
    /// What its operator wants of it.
    pub duty: NodeDuty,
}

/// What the operator of a node wants of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NodeDuty {
    /// To hold data.
    #[default]
    Serve,
    /// To be emptied: it serves what it has until others have it, and gets nothing new.
    Drain,
    /// Nothing any more; it is remembered only so that it is known when it comes back.
    Removed,
}

impl NodeDuty {
    /// All of them.
    pub const ALL: [NodeDuty; 3] = [NodeDuty::Serve, NodeDuty::Drain, NodeDuty::Removed];

    /// The number that stands for it in stores; never to be changed.
    pub(crate) fn id(self) -> u8 {
        match self {
            NodeDuty::Serve => 0,
            NodeDuty::Drain => 1,
            NodeDuty::Removed => 2,
        }
    }

    /// What `id` stands for.
    pub(crate) fn of_id(id: u64) -> Option<NodeDuty> {
        NodeDuty::ALL.into_iter().find(|duty| u64::from(duty.id()) == id)
    }
}

/// Table `volume`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolumeRow {
    /// Key.
    pub id: VolumeId,
    /// The member that appends (or did, before it was sealed).
    pub primary: NodeId,
    /// Takes appends, from this incarnation of the primary only; `None` once sealed.
    pub open_for: Option<u64>,
    /// Keys below this are spoken for.
    pub next_key: BlobKey,
    /// The highest sequence number that a commit refers to.
    pub seq: Seq,
}

/// Table `copy`, by (volume, node).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyRow {
    /// The volume.
    pub volume: VolumeId,
    /// The member.
    pub node: NodeId,
    /// How far it reached when it was last written down.
    pub seq: Seq,
}

/// Table `session`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// Key.
    pub id: SessionId,
    /// For people.
    pub client: String,
}
