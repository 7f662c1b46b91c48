//! What waits to be cleared away: inodes without a name, and blobs without a user.

use super::statement::{all, key, run};
use crate::check::number;
use crate::row::GarbageRow;
use crate::seam::StoreError;
use dfs_proto::{BlobId, BlobKey, Ino, Timestamp, VolumeId};
use rusqlite::{Connection, params};

pub(super) fn orphans(db: &Connection, after: Ino, limit: u32) -> Result<Vec<Ino>, StoreError> {
    const SQL: &str = "SELECT ino FROM orphan WHERE ino > ?1 ORDER BY ino LIMIT ?2";
    let Some(after) = key(after.0) else { return Ok(Vec::new()) };
    all(db, "list orphans", SQL, params![after, limit], |c| c.number().map(Ino))
}

pub(super) fn put_orphan(db: &Connection, ino: Ino) -> Result<(), StoreError> {
    run(db, "note an orphan", "REPLACE INTO orphan (ino) VALUES (?1)", [number("inode", ino.0)?]).map(drop)
}

pub(super) fn delete_orphan(db: &Connection, ino: Ino) -> Result<(), StoreError> {
    let Some(ino) = key(ino.0) else { return Ok(()) };
    run(db, "forget an orphan", "DELETE FROM orphan WHERE ino = ?1", [ino]).map(drop)
}

pub(super) fn garbage(db: &Connection, before: Timestamp, limit: u32) -> Result<Vec<GarbageRow>, StoreError> {
    const SQL: &str = "SELECT volume, key, length, since_secs, since_nanos FROM garbage \
        WHERE (since_secs, since_nanos) < (?1, ?2) \
        ORDER BY since_secs, since_nanos, volume, key LIMIT ?3";
    all(db, "list garbage", SQL, params![before.secs, before.nanos, limit], |c| {
        let blob = BlobId { volume: VolumeId(c.number()?), key: BlobKey(c.number()?) };
        Ok(GarbageRow { blob, length: c.number()?, since: c.timestamp()? })
    })
}

pub(super) fn put_garbage(db: &Connection, row: &GarbageRow) -> Result<(), StoreError> {
    const SQL: &str = "REPLACE INTO garbage (volume, key, length, since_secs, since_nanos) \
        VALUES (?1, ?2, ?3, ?4, ?5)";
    let volume = number("volume", row.blob.volume.0)?;
    let blob = number("key", row.blob.key.0)?;
    let values = params![volume, blob, row.length, row.since.secs, row.since.nanos];
    run(db, "note garbage", SQL, values).map(drop)
}

pub(super) fn delete_garbage(db: &Connection, blob: BlobId) -> Result<(), StoreError> {
    const SQL: &str = "DELETE FROM garbage WHERE volume = ?1 AND key = ?2";
    let (Some(volume), Some(blob)) = (key(blob.volume.0), key(blob.key.0)) else { return Ok(()) };
    run(db, "forget garbage", SQL, [volume, blob]).map(drop)
}
