//! What hangs on an inode: symlink targets and extended attributes.

use super::statement::{all, key, one, run};
use crate::check::number;
use crate::seam::StoreError;
use dfs_proto::Ino;
use rusqlite::{Connection, params};

pub(super) fn symlink(db: &Connection, ino: Ino) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(ino) = key(ino.0) else { return Ok(None) };
    one(db, "read a symlink", "SELECT target FROM symlink WHERE ino = ?1", [ino], |c| c.get())
}

pub(super) fn put_symlink(db: &Connection, ino: Ino, target: &[u8]) -> Result<(), StoreError> {
    const SQL: &str = "REPLACE INTO symlink (ino, target) VALUES (?1, ?2)";
    run(db, "write a symlink", SQL, params![number("inode", ino.0)?, target]).map(drop)
}

pub(super) fn xattr(db: &Connection, ino: Ino, name: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
    const SQL: &str = "SELECT value FROM xattr WHERE ino = ?1 AND name = ?2";
    let Some(ino) = key(ino.0) else { return Ok(None) };
    one(db, "read an extended attribute", SQL, params![ino, name], |c| c.get())
}

pub(super) fn xattr_names(db: &Connection, ino: Ino) -> Result<Vec<Vec<u8>>, StoreError> {
    const SQL: &str = "SELECT name FROM xattr WHERE ino = ?1 ORDER BY name";
    let Some(ino) = key(ino.0) else { return Ok(Vec::new()) };
    all(db, "list extended attributes", SQL, [ino], |c| c.get())
}

pub(super) fn put_xattr(db: &Connection, ino: Ino, name: &[u8], value: &[u8]) -> Result<(), StoreError> {
    const SQL: &str = "REPLACE INTO xattr (ino, name, value) VALUES (?1, ?2, ?3)";
    run(db, "write an extended attribute", SQL, params![number("inode", ino.0)?, name, value]).map(drop)
}

pub(super) fn delete_xattr(db: &Connection, ino: Ino, name: &[u8]) -> Result<(), StoreError> {
    const SQL: &str = "DELETE FROM xattr WHERE ino = ?1 AND name = ?2";
    let Some(ino) = key(ino.0) else { return Ok(()) };
    run(db, "remove an extended attribute", SQL, params![ino, name]).map(drop)
}
