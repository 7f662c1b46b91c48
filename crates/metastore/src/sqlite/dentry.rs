//! Directory entries: by (parent, name) for lookups, by (parent, cookie) for listings.

use super::inode;
use super::statement::{Columns, all, any, key, one, run};
use crate::check::{dangling, number};
use crate::row::{DentryRow, InodeRow};
use crate::seam::StoreError;
use dfs_proto::{DirCookie, Ino};
use rusqlite::{Connection, params};

/// A listing in one statement. An entry without an inode must not vanish from it: it comes with NULLs.
const LIST: &str = "SELECT d.name, d.cookie, d.ino, i.ino IS NULL, i.ino, i.kind, i.mode, i.nlink, i.uid, \
    i.gid, i.rdev, i.size, i.allocated, i.atime_secs, i.atime_nanos, i.mtime_secs, i.mtime_nanos, \
    i.ctime_secs, i.ctime_nanos, i.btime_secs, i.btime_nanos, i.version, i.parent, i.collision, i.md5, \
    i.flags FROM dentry d LEFT JOIN inode i ON i.ino = d.ino \
    WHERE d.parent = ?1 AND d.cookie > ?2 ORDER BY d.cookie LIMIT ?3";

pub(super) fn get(db: &Connection, parent: Ino, name: &[u8]) -> Result<Option<DentryRow>, StoreError> {
    const SQL: &str = "SELECT name, cookie, ino FROM dentry WHERE parent = ?1 AND name = ?2";
    let Some(parent_key) = key(parent.0) else { return Ok(None) };
    one(db, "look up a name", SQL, params![parent_key, name], |c| columns(c, parent))
}

pub(super) fn list(
    db: &Connection,
    parent: Ino,
    after: DirCookie,
    limit: u32,
) -> Result<Vec<(DentryRow, InodeRow)>, StoreError> {
    let (Some(parent_key), Some(after)) = (key(parent.0), key(after.0)) else { return Ok(Vec::new()) };
    all(db, "list a directory", LIST, params![parent_key, after, limit], |c| {
        let dentry = columns(c, parent)?;
        match c.get::<bool>()? {
            false => Ok((dentry, inode::columns(c)?)),
            true => Err(dangling(parent, dentry.ino)),
        }
    })
}

fn columns(c: &mut Columns<'_>, parent: Ino) -> Result<DentryRow, StoreError> {
    Ok(DentryRow { parent, name: c.get()?, cookie: DirCookie(c.number()?), ino: Ino(c.number()?) })
}

pub(super) fn is_any(db: &Connection, parent: Ino) -> Result<bool, StoreError> {
    let Some(parent) = key(parent.0) else { return Ok(false) };
    any(db, "look into a directory", "SELECT 1 FROM dentry WHERE parent = ?1 LIMIT 1", [parent])
}

pub(super) fn put(db: &Connection, row: &DentryRow) -> Result<(), StoreError> {
    // Not REPLACE: that would also throw out another entry that has the cookie, where this fails.
    const SQL: &str = "INSERT INTO dentry (parent, name, cookie, ino) VALUES (?1, ?2, ?3, ?4) \
        ON CONFLICT (parent, name) DO UPDATE SET cookie = excluded.cookie, ino = excluded.ino";
    let parent = number("parent", row.parent.0)?;
    let cookie = number("cookie", row.cookie.0)?;
    let ino = number("inode", row.ino.0)?;
    run(db, "write a directory entry", SQL, params![parent, row.name, cookie, ino]).map(drop)
}

pub(super) fn delete(db: &Connection, parent: Ino, name: &[u8]) -> Result<(), StoreError> {
    const SQL: &str = "DELETE FROM dentry WHERE parent = ?1 AND name = ?2";
    let Some(parent) = key(parent.0) else { return Ok(()) };
    run(db, "remove a directory entry", SQL, params![parent, name]).map(drop)
}
