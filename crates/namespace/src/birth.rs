//! New inodes.

use crate::access::Inherited;
use crate::error::{OpError, refuse};
use crate::mode;
use dfs_metastore::row::InodeRow;
use dfs_metastore::{Counter, ReadTxn, WriteTxn};
use dfs_proto::{ErrorCode, FileKind, Ino, Timestamp, Version};

/// `st_size` of every directory.
const DIRECTORY_SIZE: u64 = 4096;

/// Version of new content, empty content included, so that 0 can stand for "none" elsewhere.
pub const FIRST_VERSION: Version = Version(1);

/// The largest number that every store can keep.
const INO_MAX: u64 = i64::MAX as u64;

/// Who will own a new inode and what may be done with it.
#[derive(Clone, Copy)]
pub struct Wanted {
    /// What it is.
    pub kind: FileKind,
    /// Mode; bits above the low 12 are ignored, as by chmod(2).
    pub mode: u16,
    /// Bits that the mode loses, unless the directory has a default access control list.
    pub umask: u16,
    /// Owner.
    pub uid: u32,
    /// Group, unless the directory has its own way.
    pub gid: u32,
}

/// The root directory.
pub fn root(now: Timestamp) -> InodeRow {
    InodeRow {
        ino: Ino::ROOT,
        kind: FileKind::Directory,
        mode: 0o755,
        nlink: 2,
        uid: 0,
        gid: 0,
        rdev: 0,
        size: DIRECTORY_SIZE,
        allocated: 0,
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
        version: FIRST_VERSION,
        parent: Ino::ROOT,
        collision: None,
        md5: None,
        has_acl: false,
    }
}

/// A new inode that is not written yet.
pub struct Child {
    /// Its row.
    pub row: InodeRow,
    lists: Inherited,
}

impl Child {
    /// Writes it.
    pub fn put(&self, txn: &mut dyn WriteTxn) -> Result<(), OpError> {
        txn.put_inode(&self.row)?;
        self.lists.put(txn, self.row.ino)
    }
}

/// A new inode in `parent`: a set-group-id directory passes on its group (and to directories the bit itself),
/// and every directory passes on its collision rule and its default access control list.
pub fn child(
    txn: &dyn ReadTxn,
    parent: &InodeRow,
    ino: Ino,
    wanted: Wanted,
    now: Timestamp,
) -> Result<Child, OpError> {
    let mut row = bare_child(parent, ino, wanted, now);
    let lists = Inherited::apply(txn, parent, &mut row, wanted.umask)?;
    Ok(Child { row, lists })
}

fn bare_child(parent: &InodeRow, ino: Ino, wanted: Wanted, now: Timestamp) -> InodeRow {
    let Wanted { kind, mode, umask: _, uid, gid } = wanted;
    let passes_group = parent.mode & mode::SET_GID != 0;
    let is_directory = kind == FileKind::Directory;
    InodeRow {
        ino,
        kind,
        mode: (mode & mode::BITS) | if passes_group && is_directory { mode::SET_GID } else { 0 },
        nlink: if is_directory { 2 } else { 1 },
        uid,
        gid: if passes_group { parent.gid } else { gid },
        size: if is_directory { DIRECTORY_SIZE } else { 0 },
        parent: if is_directory { parent.ino } else { Ino(0) },
        collision: parent.collision.filter(|_| is_directory),
        ..root(now)
    }
}

/// Refuses a number that is in use (`conflict`) or that cannot be one. 0 asks for any.
pub fn check_number(txn: &dyn WriteTxn, wanted: Ino) -> Result<(), OpError> {
    if wanted.0 > INO_MAX {
        return refuse(ErrorCode::InvalidArgument, format!("{wanted} is no inode number"));
    }
    if wanted.0 != 0 && txn.inode(wanted)?.is_some() {
        return refuse(ErrorCode::Conflict, format!("inode number {wanted} is in use already"));
    }
    Ok(())
}

/// The wanted number, or the next one for 0. Only after [`check_number`].
pub fn number(txn: &mut dyn WriteTxn, wanted: Ino) -> Result<Ino, OpError> {
    match wanted {
        Ino(0) => Ok(Ino(txn.take(Counter::Inode, 1)?)),
        given => Ok(given),
    }
}
