//! Inodes.

use super::file_lock;
use super::statement::{Columns, any, key, one, run};
use super::totals::Totals;
use crate::check::number;
use crate::row::InodeRow;
use crate::seam::StoreError;
use dfs_proto::{CollisionPolicy, FileKind, Ino, Version};
use rusqlite::{Connection, params};

/// The one bit of the column `flags`: [`InodeRow::has_acl`].
const HAS_ACL: i64 = 1;

const GET: &str = "SELECT ino, kind, mode, nlink, uid, gid, rdev, size, allocated, atime_secs, atime_nanos, \
    mtime_secs, mtime_nanos, ctime_secs, ctime_nanos, btime_secs, btime_nanos, version, parent, collision, md5, \
    flags FROM inode WHERE ino = ?1";
const PUT: &str = "REPLACE INTO inode (ino, kind, mode, nlink, uid, gid, rdev, size, allocated, \
    atime_secs, atime_nanos, mtime_secs, mtime_nanos, ctime_secs, ctime_nanos, btime_secs, btime_nanos, \
    version, parent, collision, md5, flags) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, \
    ?16, ?17, ?18, ?19, ?20, ?21, ?22)";

pub(super) fn get(db: &Connection, ino: Ino) -> Result<Option<InodeRow>, StoreError> {
    let Some(ino) = key(ino.0) else { return Ok(None) };
    one(db, "read an inode", GET, [ino], columns)
}

/// Reads an inode from its 22 columns, in the order of [`GET`].
pub(super) fn columns(c: &mut Columns<'_>) -> Result<InodeRow, StoreError> {
    Ok(InodeRow {
        ino: Ino(c.number()?),
        kind: kind(c)?,
        mode: c.number()?,
        nlink: c.number()?,
        uid: c.number()?,
        gid: c.number()?,
        rdev: c.number()?,
        size: c.number()?,
        allocated: c.number()?,
        atime: c.timestamp()?,
        mtime: c.timestamp()?,
        ctime: c.timestamp()?,
        btime: c.timestamp()?,
        version: Version(c.number()?),
        parent: Ino(c.number()?),
        collision: collision(c)?,
        md5: c.get::<Option<[u8; 16]>>()?.map(dfs_proto::Md5),
        has_acl: has_acl(c)?,
    })
}

/// Writes an inode and brings the totals along.
pub(super) fn put(db: &Connection, totals: &mut Totals, row: &InodeRow) -> Result<(), StoreError> {
    let ino = number("inode", row.ino.0)?;
    let size = number("size", row.size)?;
    let allocated = number("allocated", row.allocated)?;
    let version = number("version", row.version.0)?;
    let parent = number("parent", row.parent.0)?;
    if let Some((kind, size)) = kind_and_size(db, ino)? {
        totals.remove(kind, size)?;
    }
    totals.add(row.kind, row.size);
    let values = params![
        ino,
        kind_code(row.kind),
        row.mode,
        row.nlink,
        row.uid,
        row.gid,
        row.rdev,
        size,
        allocated,
        row.atime.secs,
        row.atime.nanos,
        row.mtime.secs,
        row.mtime.nanos,
        row.ctime.secs,
        row.ctime.nanos,
        row.btime.secs,
        row.btime.nanos,
        version,
        parent,
        row.collision.map(collision_code),
        row.md5.map(|md5| md5.0),
        if row.has_acl { HAS_ACL } else { 0 },
    ];
    run(db, "write an inode", PUT, values).map(drop)
}

/// Removes an inode with all that is attached to it and brings the totals along.
pub(super) fn delete(db: &Connection, totals: &mut Totals, ino: Ino) -> Result<(), StoreError> {
    const ACTION: &str = "remove an inode";
    let Some(key) = key(ino.0) else { return Ok(()) };
    if let Some((kind, size)) = kind_and_size(db, key)? {
        totals.remove(kind, size)?;
        run(db, ACTION, "DELETE FROM inode WHERE ino = ?1", [key])?;
    }
    // Looked for first: most inodes have neither, and reading is cheaper than an empty DELETE.
    if any(db, ACTION, "SELECT 1 FROM symlink WHERE ino = ?1", [key])? {
        run(db, ACTION, "DELETE FROM symlink WHERE ino = ?1", [key])?;
    }
    if any(db, ACTION, "SELECT 1 FROM xattr WHERE ino = ?1 LIMIT 1", [key])? {
        run(db, ACTION, "DELETE FROM xattr WHERE ino = ?1", [key])?;
    }
    file_lock::delete_of_inode(db, totals, key)
}

fn kind_and_size(db: &Connection, ino: i64) -> Result<Option<(FileKind, u64)>, StoreError> {
    const SQL: &str = "SELECT kind, size FROM inode WHERE ino = ?1";
    one(db, "read an inode", SQL, [ino], |c| Ok((kind(c)?, c.number()?)))
}

fn kind_code(kind: FileKind) -> i64 {
    match kind {
        FileKind::File => 1,
        FileKind::Directory => 2,
        FileKind::Symlink => 3,
        FileKind::Fifo => 4,
        FileKind::Socket => 5,
        FileKind::CharDevice => 6,
        FileKind::BlockDevice => 7,
    }
}

fn kind(c: &mut Columns<'_>) -> Result<FileKind, StoreError> {
    Ok(match c.get()? {
        1 => FileKind::File,
        2 => FileKind::Directory,
        3 => FileKind::Symlink,
        4 => FileKind::Fifo,
        5 => FileKind::Socket,
        6 => FileKind::CharDevice,
        7 => FileKind::BlockDevice,
        other => return Err(c.meaningless(other)),
    })
}

fn has_acl(c: &mut Columns<'_>) -> Result<bool, StoreError> {
    match c.get()? {
        0 => Ok(false),
        HAS_ACL => Ok(true),
        other => Err(c.meaningless(other)),
    }
}

fn collision_code(policy: CollisionPolicy) -> i64 {
    match policy {
        CollisionPolicy::Rename => 1,
        CollisionPolicy::Replace => 2,
    }
}

fn collision(c: &mut Columns<'_>) -> Result<Option<CollisionPolicy>, StoreError> {
    Ok(match c.get::<Option<i64>>()? {
        None => None,
        Some(1) => Some(CollisionPolicy::Rename),
        Some(2) => Some(CollisionPolicy::Replace),
        Some(other) => return Err(c.meaningless(other)),
    })
}
