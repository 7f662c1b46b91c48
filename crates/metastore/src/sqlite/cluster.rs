//! Nodes, volumes and which node has a copy of which volume.

use super::statement::{all, key, run};
use crate::check::number;
use crate::row::{CopyRow, NodeDuty, NodeRow, VolumeRow};
use crate::seam::StoreError;
use dfs_proto::{BlobKey, NodeId, Seq, VolumeId};
use rusqlite::{Connection, params};

pub(super) fn nodes(db: &Connection) -> Result<Vec<NodeRow>, StoreError> {
    const SQL: &str = "SELECT id, uuid, name, url, zone, duty FROM node ORDER BY id";
    all(db, "list nodes", SQL, [], |c| {
        let (id, uuid, name) = (NodeId(c.number()?), c.get()?, c.get()?);
        let (url, zone, duty) = (c.get()?, c.get()?, c.number()?);
        let duty = NodeDuty::of_id(duty).ok_or_else(|| {
            StoreError::Corrupt(format!("node {id} has the duty {duty}, which there is not"))
        })?;
        Ok(NodeRow { id, uuid, name, url, zone, duty })
    })
}

pub(super) fn put_node(db: &Connection, row: &NodeRow) -> Result<(), StoreError> {
    // Not REPLACE: that would also throw out another node of the same name or identity, where this fails.
    const SQL: &str = "INSERT INTO node (id, uuid, name, url, zone, duty) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
        ON CONFLICT (id) DO UPDATE SET uuid = excluded.uuid, name = excluded.name, url = excluded.url, \
        zone = excluded.zone, duty = excluded.duty";
    let values = params![number("node", row.id.0)?, row.uuid, row.name, row.url, row.zone, row.duty.id()];
    run(db, "write a node", SQL, values).map(drop)
}

pub(super) fn delete_node(db: &Connection, id: NodeId) -> Result<(), StoreError> {
    let Some(id) = key(id.0) else { return Ok(()) };
    run(db, "forget a node", "DELETE FROM node WHERE id = ?1", [id]).map(drop)
}

pub(super) fn volumes(db: &Connection) -> Result<Vec<VolumeRow>, StoreError> {
    const SQL: &str = "SELECT id, primary_node, open_for, next_key, seq FROM volume ORDER BY id";
    all(db, "list volumes", SQL, [], |c| {
        Ok(VolumeRow {
            id: VolumeId(c.number()?),
            primary: NodeId(c.number()?),
            open_for: c.get::<Option<[u8; 8]>>()?.map(u64::from_be_bytes),
            next_key: BlobKey(c.number()?),
            seq: Seq(c.number()?),
        })
    })
}

pub(super) fn put_volume(db: &Connection, row: &VolumeRow) -> Result<(), StoreError> {
    const SQL: &str = "REPLACE INTO volume (id, primary_node, open_for, next_key, seq) \
        VALUES (?1, ?2, ?3, ?4, ?5)";
    let (id, primary) = (number("volume", row.id.0)?, number("node", row.primary.0)?);
    let (next_key, seq) = (number("key", row.next_key.0)?, number("seq", row.seq.0)?);
    // Incarnations are random numbers of 64 bits, more than an SQL integer holds.
    let open_for = row.open_for.map(u64::to_be_bytes);
    run(db, "write a volume", SQL, params![id, primary, open_for, next_key, seq]).map(drop)
}

pub(super) fn raise_seq(db: &Connection, volume: VolumeId, seq: Seq) -> Result<(), StoreError> {
    const SQL: &str = "UPDATE volume SET seq = ?2 WHERE id = ?1 AND seq < ?2";
    let seq = number("seq", seq.0)?;
    let Some(volume) = key(volume.0) else { return Ok(()) };
    run(db, "raise the sequence number of a volume", SQL, [volume, seq]).map(drop)
}

pub(super) fn set_next_key(db: &Connection, volume: VolumeId, next_key: BlobKey) -> Result<(), StoreError> {
    const SQL: &str = "UPDATE volume SET next_key = ?2 WHERE id = ?1";
    let next_key = number("key", next_key.0)?;
    let Some(volume) = key(volume.0) else { return Ok(()) };
    run(db, "set the next key of a volume", SQL, [volume, next_key]).map(drop)
}

pub(super) fn copies(db: &Connection) -> Result<Vec<CopyRow>, StoreError> {
    const SQL: &str = "SELECT volume, node, seq FROM copy ORDER BY volume, node";
    all(db, "list copies", SQL, [], |c| {
        Ok(CopyRow { volume: VolumeId(c.number()?), node: NodeId(c.number()?), seq: Seq(c.number()?) })
    })
}

pub(super) fn put_copy(db: &Connection, row: &CopyRow) -> Result<(), StoreError> {
    const SQL: &str = "REPLACE INTO copy (volume, node, seq) VALUES (?1, ?2, ?3)";
    let (volume, node) = (number("volume", row.volume.0)?, number("node", row.node.0)?);
    run(db, "write a copy", SQL, [volume, node, number("seq", row.seq.0)?]).map(drop)
}

pub(super) fn delete_copy(db: &Connection, volume: VolumeId, node: NodeId) -> Result<(), StoreError> {
    const SQL: &str = "DELETE FROM copy WHERE volume = ?1 AND node = ?2";
    let (Some(volume), Some(node)) = (key(volume.0), key(node.0)) else { return Ok(()) };
    run(db, "forget a copy", SQL, [volume, node]).map(drop)
}
