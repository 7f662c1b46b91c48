//! Copying from other nodes: catching up with a volume's log, and repairing single records.
//!
//! Records keep the numbers that the primary gave them, and are verified before they are written. One pull
//! of a volume moves bytes at a time; a few volumes at once, which bounds memory. What nobody waits for stands
//! back while clients are at work.

use crate::error::StoreError;
use crate::foreground::{LOOK_EVERY, Patience};
use crate::node::{Node, blocking, cut_off};
use crate::record::{Kind, ParseError, Record, header_bytes};
use crate::store::{Append, Outcome, Payload};
use bytes::Bytes;
use dfs_client::ClientError;
use dfs_proto::blob::{PullReply, PullRequest};
use dfs_proto::{BlobId, ErrorCode, Seq, VolumeId, WireError};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Log bytes asked for at a time.
const PULL_BYTES: u64 = 4 << 20;

/// Pulls and repairs that move bytes at once.
const PULLS_MAX: usize = 2;

/// How long a repair waits for memory to check what is there.
const MEMORY_PATIENCE: Duration = Duration::from_secs(30);

/// The pulls under way.
#[derive(Debug)]
pub struct Pulls {
    moving: Semaphore,
    /// One lock per volume that is being pulled; entries nobody holds are swept out.
    volumes: Mutex<HashMap<VolumeId, Weak<tokio::sync::Mutex<()>>>>,
}

impl Default for Pulls {
    fn default() -> Pulls {
        Pulls { moving: Semaphore::new(PULLS_MAX), volumes: Mutex::default() }
    }
}

impl Pulls {
    fn volume(&self, id: VolumeId) -> Arc<tokio::sync::Mutex<()>> {
        let mut volumes = self.volumes.lock();
        volumes.retain(|_, lock| lock.strong_count() > 0);
        if let Some(lock) = volumes.get(&id).and_then(Weak::upgrade) {
            return lock;
        }
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        volumes.insert(id, Arc::downgrade(&lock));
        lock
    }
}

/// Brings this node's copy of `volume` up to the source's.
///
/// Errors: `not_permitted` on the volume's open primary; `unavailable` when the source's own log ends before
/// `at_least`; what the source answered; `corrupt` when what it sent cannot be verified.
pub async fn pull(node: &Node, volume: VolumeId, request: &PullRequest) -> Result<PullReply, WireError> {
    let lock = node.pulls.volume(volume);
    let (mut records, mut bytes) = (0, 0);
    let mut patience = Patience::new(!request.sync);
    loop {
        let reach = node.store.reach(volume);
        if reach >= request.at_least {
            break;
        }
        // Before the lock: somebody whose fsync waits for the same volume must not wait for this.
        if patience.stands_back(node.foreground.is_busy(), request.at_least.0 - reach.0) {
            tokio::time::sleep(LOOK_EVERY).await;
            continue;
        }
        let _one_at_a_time = lock.lock().await;
        let reach = node.store.reach(volume);
        if reach >= request.at_least {
            break;
        }
        node.check_copy(volume)?;
        let (source_reach, appended, length) = fetch(node, volume, &request.source, reach).await?;
        let now = node.store.reach(volume);
        records += appended;
        bytes += length;
        node.metrics.pulled_records.add(appended);
        node.metrics.pulled_bytes.add(length);
        if now == reach {
            let message = format!(
                "volume {volume} reaches {reach} here and {source_reach} at {}, which is short of {}",
                request.source, request.at_least
            );
            return Err(WireError::new(ErrorCode::Unavailable, message));
        }
    }
    if request.sync {
        node.store.sync().await?;
    }
    Ok(PullReply { seq: node.store.reach(volume), records, bytes })
}

/// Fetches one piece of log and appends it; answers the source's reach, records and bytes.
async fn fetch(
    node: &Node,
    volume: VolumeId,
    source: &str,
    after: Seq,
) -> Result<(Seq, u64, u64), WireError> {
    let _moving = node.pulls.moving.acquire().await.map_err(cut_off)?;
    let (source_reach, log) = node.peers.log(source, volume, after, PULL_BYTES).await?;
    let length = log.len() as u64;
    let from = source.to_owned();
    let records =
        tokio::task::spawn_blocking(move || parse_log(volume, log, &from)).await.map_err(cut_off)??;
    let mut appended = 0;
    for outcome in node.store.append(records, false).await? {
        if let Outcome::Stored(_) = outcome? {
            appended += 1;
        }
    }
    Ok((source_reach, appended, length))
}

/// The verified records of a piece of log.
fn parse_log(volume: VolumeId, mut log: Bytes, source: &str) -> Result<Vec<Append>, WireError> {
    let mut records = Vec::new();
    while !log.is_empty() {
        let record = Record::take(&mut log).map_err(|e| bad_source(source, volume, e))?;
        if record.header.volume != volume {
            return Err(bad_source(source, volume, ParseError::Misplaced));
        }
        records.push(append_of(record).map_err(|e| bad_source(source, volume, e))?);
    }
    Ok(records)
}

fn append_of(record: Record) -> Result<Append, ParseError> {
    let header = &record.header;
    match header.kind {
        Kind::Blob => Ok(copy_of(record, false)),
        Kind::Missing => Ok(Append::Missing { id: header.id(), seq: header.seq }),
        Kind::Hole => Ok(Append::Hole { volume: header.volume, first: Seq(header.key.0), last: header.seq }),
        // Of no meaning beyond the node that wrote them.
        Kind::Tombstone | Kind::Grave | Kind::Drop => Err(ParseError::Misplaced),
    }
}

fn copy_of(record: Record, replacement: bool) -> Append {
    let Record { header, payload } = record;
    Append::Copy {
        id: header.id(),
        seq: header.seq,
        payload: Payload {
            data: payload,
            md5: header.md5,
            crc32c: header.crc32c,
            origin: header.origin,
            written_ms: header.written_ms,
        },
        replacement,
    }
}

/// Gives up the copy of `volume`, when no pull of it is under way; false when there is none.
///
/// `not_permitted` on the volume's open primary.
pub async fn drop_copy(node: &Node, volume: VolumeId) -> Result<bool, WireError> {
    let lock = node.pulls.volume(volume);
    let _one_at_a_time = lock.lock().await;
    node.check_copy(volume)?;
    let dropped = node.store.drop_copy(volume).await?;
    if dropped {
        log::info!("the copy of volume {volume} was given up, as the master wants it");
    }
    Ok(dropped)
}

/// Replaces a damaged or missing record by the source's. One that is whole stays.
pub async fn repair(node: &Node, id: BlobId, source: &str) -> Result<(), WireError> {
    let lock = node.pulls.volume(id.volume);
    let _one_at_a_time = lock.lock().await;
    if is_whole(node, id).await? {
        return Ok(());
    }
    let _moving = node.pulls.moving.acquire().await.map_err(cut_off)?;
    let mut bytes = node.peers.record(source, id).await?;
    let from = source.to_owned();
    let checking = tokio::task::spawn_blocking(move || {
        let record = Record::take(&mut bytes).map_err(|e| bad_source(&from, id.volume, e))?;
        if record.header.id() != id || record.header.kind != Kind::Blob || !bytes.is_empty() {
            return Err(bad_source(&from, id.volume, ParseError::Misplaced));
        }
        record.verify_md5().map_err(|e| bad_source(&from, id.volume, e))?;
        Ok(record)
    });
    let record = checking.await.map_err(cut_off)??;
    if record.header.seq > node.store.reach(id.volume) {
        // It is not damaged, the copy is just not there yet; a pull brings it in its turn.
        let (volume, reach, seq) = (id.volume, node.store.reach(id.volume), record.header.seq);
        return Err(StoreError::Gap { volume, reach, seq }.into());
    }
    if node.store.append_one(copy_of(record, true), true).await? == Outcome::Absent {
        return Err(StoreError::Deleted(id).into());
    }
    node.metrics.repaired.add(1);
    log::info!("blob {id} was repaired from {source}");
    Ok(())
}

async fn is_whole(node: &Node, id: BlobId) -> Result<bool, WireError> {
    let Ok(slot) = node.store.find(id) else { return Ok(false) };
    let bytes = header_bytes(slot.at.payload_bytes as usize) + slot.at.payload_bytes as usize + 8;
    let Some(mut buffer) = node.get_memory.buffer(bytes, MEMORY_PATIENCE).await else {
        return Err(WireError::new(ErrorCode::Unavailable, "this node is overloaded; try again"));
    };
    let store = node.store.clone();
    match blocking(move || store.check(id, &mut buffer)).await {
        Ok(()) => Ok(true),
        Err(e) if matches!(e.code, ErrorCode::Corrupt | ErrorCode::NotFound) => Ok(false),
        Err(e) => Err(e),
    }
}

fn bad_source(source: &str, volume: VolumeId, e: ParseError) -> WireError {
    WireError::from(ClientError::local(
        ErrorCode::Corrupt,
        format!("{source} sent a record of volume {volume} that cannot be used: {e}"),
    ))
}
