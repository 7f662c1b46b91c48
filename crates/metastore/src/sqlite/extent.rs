//! Extents: by (inode, offset), and by blob to tell whether one is still referred to.

use super::statement::{Columns, all, any, key, run};
use crate::check::{self, number};
use crate::seam::StoreError;
use dfs_proto::{BlobId, BlobKey, BlobRef, Extent, Ino, Seq, VolumeId};
use rusqlite::{Connection, params};

/// Extents do not overlap, so the last one that starts at or before `from` is the first that can end after
/// it: the walk begins there.
const LIST: &str = "SELECT start, length, volume, key, seq, blob_length, md5, blob_offset FROM extent \
    WHERE ino = ?1 AND start + length > ?2 AND start >= ifnull( \
        (SELECT start FROM extent WHERE ino = ?1 AND start <= ?2 ORDER BY start DESC LIMIT 1), 0) \
    ORDER BY start LIMIT ?3";

pub(super) fn list(db: &Connection, ino: Ino, from: u64, limit: u32) -> Result<Vec<Extent>, StoreError> {
    let (Some(ino), Some(from)) = (key(ino.0), key(from)) else { return Ok(Vec::new()) };
    all(db, "read extents", LIST, params![ino, from, limit], columns)
}

fn columns(c: &mut Columns<'_>) -> Result<Extent, StoreError> {
    let (offset, length) = (c.number()?, c.number()?);
    let id = BlobId { volume: VolumeId(c.number()?), key: BlobKey(c.number()?) };
    let blob = BlobRef { id, seq: Seq(c.number()?), length: c.number()?, md5: c.md5()? };
    Ok(Extent { offset, length, blob: Some(blob), blob_offset: c.number()? })
}

pub(super) fn blob_in_use(db: &Connection, blob: BlobId) -> Result<bool, StoreError> {
    const SQL: &str = "SELECT 1 FROM extent WHERE volume = ?1 AND key = ?2 LIMIT 1";
    let (Some(volume), Some(blob)) = (key(blob.volume.0), key(blob.key.0)) else { return Ok(false) };
    any(db, "look for the users of a blob", SQL, [volume, blob])
}

pub(super) fn put(db: &Connection, ino: Ino, extent: &Extent) -> Result<(), StoreError> {
    const SQL: &str = "REPLACE INTO extent \
        (ino, start, length, volume, key, seq, blob_length, md5, blob_offset) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    check::extent(ino, extent)?;
    let Some(blob) = extent.blob else { return Ok(()) };
    let ino = number("inode", ino.0)?;
    let volume = number("volume", blob.id.volume.0)?;
    let blob_key = number("key", blob.id.key.0)?;
    let seq = number("seq", blob.seq.0)?;
    let (start, length) = (number("offset", extent.offset)?, number("length", extent.length)?);
    let values =
        params![ino, start, length, volume, blob_key, seq, blob.length, blob.md5.0, extent.blob_offset];
    run(db, "write an extent", SQL, values).map(drop)
}

pub(super) fn delete(db: &Connection, ino: Ino, offset: u64) -> Result<(), StoreError> {
    let (Some(ino), Some(start)) = (key(ino.0), key(offset)) else { return Ok(()) };
    run(db, "remove an extent", "DELETE FROM extent WHERE ino = ?1 AND start = ?2", [ino, start]).map(drop)
}
