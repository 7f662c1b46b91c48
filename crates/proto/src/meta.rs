//! Operations on the namespace: `POST /v1/meta` takes a [`MetaRequest`] and answers a [`MetaResponse`].
//!
//! A request is a batch. Its operations are carried out in order, each by itself: one that fails changes
//! nothing and does not stop those after it.

use crate::attr::{Attr, CollisionPolicy, FileKind, Timestamp};
use crate::error::WireError;
use crate::event::EventCursor;
use crate::extent::Extent;
use crate::id::{BlobId, DirCookie, Ino, NodeId, Seq, SessionId, Version, VolumeId};
use crate::lock::{LockHolder, LockOwner, LockRange, LockRequest, LockSpace, Locked};
use crate::md5::Md5;
use crate::name::Name;
use crate::node::{Grant, NodeInfo, VolumeInfo};
use crate::xattr_name::XattrName;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// A batch of operations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaRequest {
    /// The caller's session. Without one only reads are served.
    pub session: Option<SessionId>,
    /// Every call below this number has been answered as far as the caller is concerned: the master may
    /// forget their results.
    pub acked_below: u64,
    /// At most [`crate::limits::META_OPS_MAX`].
    pub calls: Vec<MetaCall>,
}

/// One operation of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaCall {
    /// Number of the call within its session, from 1, each used for one call only. The master keeps the
    /// result of a write under it, so that sending the call again has no second effect. 0: not kept.
    pub seq: u64,
    /// What to do.
    pub op: MetaOp,
}

/// Results in the order of the calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetaResponse {
    /// One for each call.
    pub results: Vec<Result<MetaReply, WireError>>,
    /// Attributes of directories whose entries the calls have changed, after that: some or all of them.
    #[serde(default)]
    pub directories: Vec<Attr>,
}

/// An operation, by who carries it out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetaOp {
    /// Reads the namespace.
    Read(ReadOp),
    /// Changes the namespace.
    Write(WriteOp),
    /// Asks or tells about nodes, volumes and leases.
    Cluster(ClusterOp),
}

/// Operations that read the namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReadOp {
    /// -> [`MetaReply::Attr`] of the entry; `not_found` when there is none.
    Lookup {
        /// The directory.
        parent: Ino,
        /// The entry.
        name: Name,
    },
    /// Walks from the root; symbolic links are not followed. -> [`MetaReply::Attr`]
    Resolve {
        /// Names from the root; empty for the root itself.
        path: Vec<Name>,
    },
    /// -> [`MetaReply::Attr`]
    GetAttr {
        /// The inode.
        ino: Ino,
    },
    /// -> [`MetaReply::Target`]; `invalid_argument` for what is no symlink.
    ReadLink {
        /// The inode.
        ino: Ino,
    },
    /// -> [`MetaReply::Dir`]
    ReadDir {
        /// The directory.
        ino: Ino,
        /// Entries after this place; 0 from the start.
        after: DirCookie,
        /// At most so many; cut to [`crate::limits::DIR_PAGE_ENTRIES_MAX`].
        limit: u32,
    },
    /// Attributes, and the first extents when the content is not the known one. The session is noted as
    /// having the file open until as many [`ClusterOp::Close`] have come. -> [`MetaReply::Opened`]
    Open {
        /// The file.
        ino: Ino,
        /// The content version that the caller has the extents of.
        known: Option<Version>,
    },
    /// -> [`MetaReply::Extents`]
    Extents {
        /// The file.
        ino: Ino,
        /// Extents that end after this offset, bytes.
        from: u64,
        /// At most so many; cut to [`crate::limits::EXTENT_PAGE_MAX`].
        limit: u32,
    },
    /// -> [`MetaReply::Value`]; `no_attribute` when there is none.
    GetXattr {
        /// The inode.
        ino: Ino,
        /// The attribute with its namespace (`user.note`).
        name: XattrName,
    },
    /// -> [`MetaReply::Names`]
    ListXattr {
        /// The inode.
        ino: Ino,
    },
    /// The first lock that is in the way of this one (F_GETLK). A waiter that gives up (an interrupt, say) says so
    /// by testing for what it waited for: the session counts as not waiting for it any more. -> [`MetaReply::Lock`]
    TestLock(LockRequest),
}

/// Operations that change the namespace. Those that remove the last name of an inode that somebody has open
/// keep the inode, without a name, until it is closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WriteOp {
    /// A directory, symlink, device, FIFO, socket, or an empty file by open(2) with O_CREAT; `exists` when the name
    /// is taken. -> [`MetaReply::Attr`]
    Make(Make),
    /// An empty file without a name (O_TMPFILE), which counts as opened once by the session, as by
    /// [`ReadOp::Open`]: it goes with the last close unless it is given a name by [`WriteOp::Link`].
    /// -> [`MetaReply::Attr`]
    MakeUnnamed(MakeUnnamed),
    /// Publishes content, of a new file or of one that exists. -> [`MetaReply::Committed`]
    Commit(Commit),
    /// -> [`MetaReply::Attr`]
    SetAttr {
        /// The inode.
        ino: Ino,
        /// What to change.
        changes: AttrChanges,
    },
    /// Copies a part of a file's content into another, or elsewhere in the same one, by its extents: no byte
    /// is moved (copy_file_range(2)). -> [`MetaReply::Cloned`]
    Clone(CloneRange),
    /// Notes that content was read at `atime`, if that is later than what is known. Neither ctime nor anybody's
    /// cache changes. -> [`MetaReply::Done`]
    Accessed {
        /// The inode.
        ino: Ino,
        /// When.
        atime: Timestamp,
    },
    /// Takes a lock, or changes one that the owner has, if nobody is in the way: it is never waited for here.
    /// -> [`MetaReply::Locked`]
    Lock {
        /// Which.
        request: LockRequest,
        /// The caller will wait when it is blocked, until an [`crate::EventKind::Unlocked`] or some time has
        /// passed, and try again; `deadlock` when that would never end. A waiter that does not try again within
        /// [`crate::lock::WAITER_FORGOTTEN_MS`] counts as gone.
        wait: bool,
    },
    /// Gives up what the owner holds of the range, which may leave parts of its locks. -> [`MetaReply::Done`]
    Unlock {
        /// The file.
        ino: Ino,
        /// Which kind.
        space: LockSpace,
        /// Whose.
        owner: LockOwner,
        /// Where.
        range: LockRange,
    },
    /// Another name for an inode that is no directory, or the first for one that was made without.
    /// -> [`MetaReply::Attr`] of the inode
    Link {
        /// The inode.
        ino: Ino,
        /// The directory.
        parent: Ino,
        /// The new name.
        name: Name,
    },
    /// Removes a name of what is no directory. -> [`MetaReply::Removed`]
    Unlink {
        /// The directory.
        parent: Ino,
        /// The entry.
        name: Name,
    },
    /// Removes an empty directory. -> [`MetaReply::Removed`]
    Rmdir {
        /// The directory that holds it.
        parent: Ino,
        /// The entry.
        name: Name,
    },
    /// rename(2). -> [`MetaReply::Renamed`]
    Rename(Rename),
    /// setxattr(2). `user.dfs.collision` on a directory sets its collision rule; `system.posix_acl_access` sets the
    /// permission bits of the mode, too (acl(5)). -> [`MetaReply::Done`]
    SetXattr {
        /// The inode.
        ino: Ino,
        /// The attribute.
        name: XattrName,
        /// Its value.
        value: Bytes,
        /// Whether it must exist, or must not.
        mode: XattrMode,
        /// With `system.posix_acl_access`: take the set-group-id bit away (the caller is not in the file's group
        /// and has no CAP_FSETID).
        drops_set_gid: bool,
    },
    /// -> [`MetaReply::Done`]
    RemoveXattr {
        /// The inode.
        ino: Ino,
        /// The attribute.
        name: XattrName,
    },
    /// Changes nothing; answered when everything acknowledged before is on the master's disk (fsync of a
    /// directory). -> [`MetaReply::Done`]
    Sync,
}

impl WriteOp {
    /// Whether the answer has to wait for the master's disk.
    pub fn is_durable(&self) -> bool {
        match self {
            WriteOp::Commit(commit) => commit.durable,
            WriteOp::Sync => true,
            WriteOp::Make(_)
            | WriteOp::MakeUnnamed(_)
            | WriteOp::Clone(_)
            | WriteOp::Accessed { .. }
            | WriteOp::Lock { .. }
            | WriteOp::Unlock { .. }
            | WriteOp::SetAttr { .. }
            | WriteOp::Link { .. }
            | WriteOp::Unlink { .. }
            | WriteOp::Rmdir { .. }
            | WriteOp::Rename(_)
            | WriteOp::SetXattr { .. }
            | WriteOp::RemoveXattr { .. } => false,
        }
    }
}

/// setxattr(2)'s flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum XattrMode {
    /// Create or replace.
    Any,
    /// `exists` when it is there (XATTR_CREATE).
    Create,
    /// `no_attribute` when it is not (XATTR_REPLACE).
    Replace,
}

/// See [`WriteOp::Make`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Make {
    /// The directory.
    pub parent: Ino,
    /// The entry.
    pub name: Name,
    /// The inode number, from a range leased to the session; 0 lets the master choose.
    pub ino: Ino,
    /// What to make.
    pub kind: FileKind,
    /// Low 12 bits of the mode, umask not applied.
    pub mode: u16,
    /// Bits that the mode loses, unless the directory has a default ACL, which takes its place (umask(2)).
    pub umask: u16,
    /// Owner.
    pub uid: u32,
    /// Group; a set-group-id directory passes on its own instead (inode(7)).
    pub gid: u32,
    /// Device number of a device node.
    pub rdev: u32,
    /// Target of a symlink, 1 to 4095 bytes; empty for the rest.
    pub target: Bytes,
    /// Whether it counts as opened once by the session, as by [`ReadOp::Open`]: for open(2) with O_CREAT.
    pub opened: bool,
}

/// See [`WriteOp::MakeUnnamed`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeUnnamed {
    /// The directory that it is made in: group, default ACL and collision rule come from there.
    pub parent: Ino,
    /// See [`Make::ino`].
    pub ino: Ino,
    /// See [`Make::mode`].
    pub mode: u16,
    /// See [`Make::umask`].
    pub umask: u16,
    /// Owner.
    pub uid: u32,
    /// Group; see [`Make::gid`].
    pub gid: u32,
}

/// See [`WriteOp::Clone`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloneRange {
    /// The file that is copied from.
    pub source: Ino,
    /// First byte there.
    pub source_offset: u64,
    /// The file that is copied to.
    pub target: Ino,
    /// Where that byte goes.
    pub target_offset: u64,
    /// So many bytes, or as many as the source has from there on; `invalid_argument` when source and target
    /// overlap in one file. Fewer are copied when there are more than
    /// [`crate::limits::CLONE_EXTENTS_MAX`] extents.
    pub length: u64,
    /// See [`Commit::locked_by`].
    pub locked_by: Option<SessionId>,
}

/// See [`WriteOp::Commit`]. It says what changed, not what the file is: commits of several writers to one
/// file lie over each other in the order of their arrival.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The file; for a new one a number from a range leased to the session (0 lets the master choose).
    pub ino: Ino,
    /// Makes the file first.
    pub create: Option<Create>,
    /// Cuts the content to this size before the extents are laid over it: the smallest size that the
    /// writer's truncations gave it.
    pub truncate_to: Option<u64>,
    /// New data, laid over the old in this order; at most [`crate::limits::COMMIT_EXTENTS_MAX`].
    pub extents: Vec<Extent>,
    /// The size afterwards.
    pub size: CommitSize,
    /// Extents from this offset on were written with O_APPEND, by a writer to whom the file ended here. When
    /// it ends elsewhere by now, they (and the size) are moved there.
    pub append_from: Option<u64>,
    /// Modification time; the master's clock when there is none.
    pub mtime: Option<Timestamp>,
    /// When the writer made the change that comes last (`ctime`). The master's clock counts instead when there
    /// is none, when it is in the master's future, or when the file was changed after it.
    pub ctime: Option<Timestamp>,
    /// MD5 of the whole content afterwards, when the writer knows it.
    pub md5: Option<Md5>,
    /// The session under which the writer holds locks on the file: `lock_lost` when that is not the caller's
    /// any more, because somebody else may have the locks by now.
    pub locked_by: Option<SessionId>,
    /// Answer only when the change is on the master's disk.
    pub durable: bool,
}

/// Size of a file after a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommitSize {
    /// What it is, or this when that is more: writes without truncation.
    AtLeast(u64),
    /// This: a new file, or one that was truncated.
    Exactly(u64),
}

/// The file that a commit makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Create {
    /// The directory.
    pub parent: Ino,
    /// The wanted name.
    pub name: Name,
    /// See [`Make::mode`].
    pub mode: u16,
    /// See [`Make::umask`].
    pub umask: u16,
    /// Owner.
    pub uid: u32,
    /// Group; see [`Make::gid`].
    pub gid: u32,
    /// When the writer made the file: its birth and access time. The master's clock counts when there is none,
    /// or when it is in the master's future.
    pub born: Option<Timestamp>,
    /// What to do when the name is taken.
    pub collision: Collision,
}

/// What to do when a name is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Collision {
    /// What the directory says, and this if it says nothing.
    Default(CollisionPolicy),
    /// This, whatever the directory says.
    Explicit(CollisionPolicy),
}

/// setattr; what is `None` stays. ctime is always the master's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttrChanges {
    /// Low 12 bits of the mode.
    pub mode: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size of a regular file: truncate or extend with a hole. Makes a new content version.
    pub size: Option<u64>,
    /// Access time.
    pub atime: Option<SetTime>,
    /// Modification time.
    pub mtime: Option<SetTime>,
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SetTime {
    /// The master's clock (UTIME_NOW).
    Now,
    /// This.
    At(Timestamp),
}

/// See [`WriteOp::Rename`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rename {
    /// Directory of the old name.
    pub parent: Ino,
    /// Old name.
    pub name: Name,
    /// Directory of the new name.
    pub new_parent: Ino,
    /// New name.
    pub new_name: Name,
    /// What to do with what is there.
    pub mode: RenameMode,
}

/// rename(2)'s flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RenameMode {
    /// Take the place of what is there.
    Replace,
    /// `exists` when something is there (RENAME_NOREPLACE).
    NoReplace,
    /// Swap the two (RENAME_EXCHANGE).
    Exchange,
}

/// Operations about nodes, volumes and leases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClusterOp {
    /// -> [`MetaReply::Grants`]; `no_nodes` when no node can take data.
    Grants {
        /// How many; cut to [`crate::limits::GRANTS_MAX`]. Fewer may come.
        count: u32,
        /// Nodes that just failed the caller: not their volumes, as long as there are others.
        avoid: Vec<NodeId>,
    },
    /// Inode numbers for the session alone. -> [`MetaReply::Inodes`]
    Inodes {
        /// How many; cut to [`crate::limits::INODES_MAX`].
        count: u64,
    },
    /// -> [`MetaReply::Volumes`]; volumes that are not known are left out.
    Volumes {
        /// Which.
        ids: Vec<VolumeId>,
    },
    /// `count` opens of the file have ended. -> [`MetaReply::Done`]
    Close {
        /// The file.
        ino: Ino,
        /// How many.
        count: u32,
    },
    /// A copy that did not answer, or whose bytes did not match. -> [`MetaReply::Done`]
    BadCopy {
        /// The blob.
        blob: BlobId,
        /// Who served it.
        node: NodeId,
        /// What was wrong with it.
        problem: CopyProblem,
    },
    /// For fsync: members of the volume that can make the data durable. When a member in `failed` is the
    /// only other one, the master names another node in its place. -> [`MetaReply::Members`]
    Members {
        /// The volume.
        volume: VolumeId,
        /// Nodes that just failed the caller.
        failed: Vec<NodeId>,
    },
    /// -> [`MetaReply::Space`]
    Space,
    /// How far the event stream of the session has to be heard to know of everything that others have done so
    /// far. -> [`MetaReply::Cursor`]
    Cursor,
}

/// What was wrong with a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CopyProblem {
    /// The node did not answer, or answered an error of its own.
    Unreachable,
    /// The node should have the blob and does not.
    Missing,
    /// Bytes and checksum disagree.
    Damaged,
}

/// Results of operations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetaReply {
    /// Attributes of the inode in question.
    Attr(Attr),
    /// Target of a symlink.
    Target(Bytes),
    /// A page of a listing.
    Dir(DirPage),
    /// An open file.
    Opened(Opened),
    /// A page of extents.
    Extents(ExtentPage),
    /// Value of an extended attribute.
    Value(Bytes),
    /// Names of extended attributes.
    Names(Vec<XattrName>),
    /// A commit.
    Committed(Committed),
    /// A name that is gone.
    Removed(Removed),
    /// A rename.
    Renamed(Renamed),
    /// A copy by extents.
    Cloned(Cloned),
    /// Whether there is a lock now.
    Locked(Locked),
    /// A lock that is in the way, if there is one.
    Lock(Option<LockHolder>),
    /// Grants.
    Grants(Vec<Grant>),
    /// A range of inode numbers.
    Inodes(InodeRange),
    /// Volumes.
    Volumes(Vec<VolumeInfo>),
    /// Members of a volume and a capability to sync and pull on them.
    Members(Members),
    /// Room in the cluster.
    Space(Space),
    /// Nothing to say.
    Done,
    /// A place in the event stream.
    Cursor(EventCursor),
}

/// A page of a listing. `.` and `..` are not in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirPage {
    /// In the order of their cookies.
    pub entries: Vec<DirEntry>,
    /// Whether the listing ends with this page.
    pub end: bool,
}

/// An entry with its inode's attributes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirEntry {
    /// The entry.
    pub name: Name,
    /// Its place.
    pub cookie: DirCookie,
    /// Its inode.
    pub attr: Attr,
}

/// See [`ReadOp::Open`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// Attributes.
    pub attr: Attr,
    /// The first page of extents; `None` when the known version is the present one.
    pub extents: Option<ExtentPage>,
    /// MD5 of the whole content, when it is known.
    pub md5: Option<Md5>,
}

/// A page of extents of one content version, by offset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtentPage {
    /// The content version that they belong to.
    pub version: Version,
    /// By offset, not overlapping.
    pub extents: Vec<Extent>,
    /// Whether these are the last.
    pub end: bool,
    /// Where the volumes named here are.
    pub volumes: Vec<VolumeInfo>,
}

/// See [`WriteOp::Commit`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    /// Attributes afterwards.
    pub attr: Attr,
    /// The name that a new file got, when it is not the one asked for.
    pub stored_as: Option<Name>,
    /// By how many bytes extents of an append were moved.
    pub appended_by: i64,
}

/// A name that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// The inode it named.
    pub ino: Ino,
    /// Names that are left.
    pub nlink: u32,
}

/// See [`WriteOp::Rename`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renamed {
    /// The inode that moved.
    pub moved: Attr,
    /// What was at the new name; for an exchange the inode that is at the old name now.
    pub replaced: Option<Removed>,
}

/// See [`WriteOp::Clone`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cloned {
    /// Attributes of the target afterwards.
    pub attr: Attr,
    /// Bytes that were copied; 0 at the end of the source.
    pub length: u64,
}

/// Inode numbers `first .. first + count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InodeRange {
    /// The first.
    pub first: Ino,
    /// How many.
    pub count: u64,
}

/// See [`ClusterOp::Members`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// The volume with its members as they are now, primary first.
    pub volume: VolumeInfo,
    /// How many of them have to have the data before fsync may return: two, or as many as there are live
    /// nodes when there are fewer.
    pub needed: u32,
    /// Capability to pull and sync on this volume.
    pub token: String,
}

/// Room in the cluster, for statfs(2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Space {
    /// Bytes of files that the nodes could hold in all, copies taken into account.
    pub total_bytes: u64,
    /// Bytes of files that they can still take, copies taken into account.
    pub free_bytes: u64,
    /// Inodes in use.
    pub inodes: u64,
    /// Nodes that are known.
    pub nodes: Vec<NodeInfo>,
}

/// `POST /v1/sessions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRequest {
    /// For people: program, host and process (`dfs-mount@web1:4242 /mnt/dfs`).
    pub client: String,
}

/// Answer to a new session. Every meta request renews it; a client with nothing to say sends an empty batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionReply {
    /// Its number.
    pub session: SessionId,
    /// It ends after so long without a request, ms.
    pub lease_ms: u64,
    /// The cluster's name.
    pub cluster: String,
    /// Copies that each file should have.
    pub replicas: u32,
}

/// How far the log of `volume` must reach for what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VolumeReach {
    /// The volume.
    pub volume: VolumeId,
    /// The sequence number.
    pub seq: Seq,
}
