//! Copies of the database on storage nodes, taken on a schedule and on demand, and taking one up again.
//!
//! A copy is made beside the database, sent to a few nodes and removed here. One that an operator has fetched back
//! (`dfs backup restore`) lies in the data folder under a name of its own; before it becomes the database, all
//! numbers that may have been handed out since it was taken are skipped, and no volume takes appends any more: what
//! the lost database has promised to others is never promised again.

use crate::cluster::delete_token;
use crate::error::from_store;
use crate::master::Master;
use anyhow::Context;
use dfs_client::Backups;
use dfs_client::checksum::Md5Hasher;
use dfs_metastore::{Counter, Durability, Store, VolumeRow, WriteTxn};
use dfs_proto::backup::{BackupName, BackupTaken};
use dfs_proto::{ErrorCode, WireError};
use dfs_service::Stopper;
use dfs_service::durable::sync_dir;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Nodes that get each backup.
const NODES_MAX: usize = 3;

/// The copy in the data folder until it is sent.
const COPY: &str = "backup.sqlite";

/// A copy in the data folder that becomes the database with the next start.
pub const RESTORED: &str = "master.restored.sqlite";

/// How much is read at a time to find an MD5.
const READ_BYTES: usize = 1 << 20;

/// One request to a node.
const NODE_DEADLINE: Duration = Duration::from_secs(30);

/// Numbers that are skipped: more than any cluster hands out between two backups.
const SKIPPED: u64 = 1 << 32;

/// Takes backups while there is something new in the database, until it is time to end.
pub async fn back_up_forever(master: Arc<Master>, mut stopper: Stopper) {
    let pause = Duration::from_millis(master.config.backup_ms);
    if pause.is_zero() {
        return;
    }
    let (mut saved, mut failing) = (master.counts.changes(), false);
    while stopper.sleep(pause).await {
        let changes = master.counts.changes();
        if changes == saved && !failing {
            continue;
        }
        match take(&master).await {
            Ok(taken) => {
                log::info!("backup {} is on {}", taken.name, taken.nodes.join(", "));
                (saved, failing) = (changes, false);
            }
            Err(e) if failing => log::debug!("the database could again not be backed up: {e}"),
            Err(e) => {
                log::error!("the database could not be backed up and is tried again: {e}");
                failing = true;
            }
        }
    }
}

/// Takes a backup now. `no_nodes` when no node could keep it.
pub async fn take(master: &Arc<Master>) -> Result<BackupTaken, WireError> {
    let _one_at_a_time = master.backing_up.lock().await;
    let path = master.config.data.join(COPY);
    let taken = send(master, &path).await;
    let removed = tokio::task::spawn_blocking(move || std::fs::remove_file(path)).await;
    if let Ok(Err(e)) = removed
        && taken.is_ok()
    {
        log::warn!("the copy of the database that was sent cannot be removed: {e}");
    }
    taken
}

async fn send(master: &Arc<Master>, path: &Path) -> Result<BackupTaken, WireError> {
    let taken_ms = master.config.clock.0.wall_ms();
    let (store, copy, cluster) = (master.store.clone(), path.to_owned(), master.cluster.name().to_owned());
    let copying = tokio::task::spawn_blocking(move || copy_database(&store, &copy, cluster, taken_ms));
    let cut_off = |e| WireError::new(ErrorCode::Internal, format!("the copy was cut off: {e}"));
    let (name, file) = copying.await.map_err(cut_off)??;
    let client = Backups::new(NODE_DEADLINE, String::new())?;
    let token = delete_token(&master.cluster, taken_ms);
    let (mut nodes, mut last_error) = (Vec::new(), None);
    for (node, url) in master.cluster.roomiest_nodes() {
        if nodes.len() == NODES_MAX {
            break;
        }
        match client.put(&url, &name, &file, &token).await {
            Ok(()) => nodes.push(node),
            Err(e) => {
                log::warn!("{node} did not take the backup: {e}");
                last_error = Some(e);
            }
        }
    }
    if nodes.is_empty() {
        let why = last_error.map_or("none is live".to_owned(), |e| e.to_string());
        return Err(WireError::new(
            ErrorCode::NoNodes,
            format!("no storage node has taken the backup: {why}"),
        ));
    }
    Ok(BackupTaken { name, nodes })
}

fn copy_database(
    store: &Store,
    path: &Path,
    cluster: String,
    taken_ms: u64,
) -> Result<(BackupName, Arc<File>), WireError> {
    let failed = |what: &str, e: std::io::Error| {
        WireError::new(ErrorCode::Io, format!("cannot {what} {}: {e}", path.display()))
    };
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed("remove the old", e)),
        _ => {}
    }
    store.copy_to(path).map_err(from_store)?;
    let mut file = File::open(path).map_err(|e| failed("read", e))?;
    let (mut hasher, mut bytes, mut buffer) = (Md5Hasher::new(), 0, vec![0; READ_BYTES]);
    loop {
        match file.read(&mut buffer).map_err(|e| failed("read", e))? {
            0 => break,
            length => {
                hasher.update(&buffer[..length]);
                bytes += length as u64;
            }
        }
    }
    Ok((BackupName { taken_ms, cluster, bytes, md5: hasher.finish() }, Arc::new(file)))
}

/// Takes up a restored backup in `data`, if there is one, as `database`. Blocks.
///
/// Fails when there is a database as well: which of them is meant only an operator can tell.
pub fn take_up(data: &Path, database: &Path) -> anyhow::Result<()> {
    let restored: PathBuf = data.join(RESTORED);
    if !restored.exists() {
        return Ok(());
    }
    anyhow::ensure!(
        !database.exists(),
        "{} was restored, but there is {} too: move away the one that is not meant",
        restored.display(),
        database.display()
    );
    let store =
        Store::open_sqlite(&restored).with_context(|| format!("cannot open {}", restored.display()))?;
    store.write_blocking(Durability::Disk, |txn| skip_promises(txn)).context("cannot prepare the backup")?;
    store.close();
    std::fs::rename(&restored, database).context("cannot put the backup in the database's place")?;
    sync_dir(data).context("cannot sync the data folder")?;
    log::warn!("the database is a backup: what was changed after it was taken is not in it");
    Ok(())
}

fn skip_promises(txn: &mut dyn WriteTxn) -> Result<(), dfs_metastore::StoreError> {
    for counter in Counter::ALL {
        txn.take(counter, SKIPPED)?;
    }
    for volume in txn.volumes()? {
        txn.put_volume(&VolumeRow { open_for: None, ..volume })?;
    }
    for session in txn.sessions()? {
        txn.delete_session(session.id)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_metastore::SessionRow;
    use dfs_proto::{BlobKey, NodeId, Seq, SessionId, VolumeId};

    #[test]
    fn a_restored_database_promises_nothing_again() {
        let dir = tempfile::tempdir().unwrap();
        let (restored, database) = (dir.path().join(RESTORED), dir.path().join("master.sqlite"));
        take_up(dir.path(), &database).unwrap();
        assert!(!database.exists(), "there was nothing to take up");
        let store = Store::open_sqlite(&restored).unwrap();
        let volume = VolumeRow {
            id: VolumeId(3),
            primary: NodeId(1),
            open_for: Some(7),
            next_key: BlobKey(9),
            seq: Seq(2),
        };
        let written = store.write_blocking(Durability::Disk, move |txn| {
            txn.put_volume(&volume)?;
            txn.put_session(&SessionRow { id: SessionId(1), client: "old".into() })?;
            txn.take(Counter::Inode, 1)
        });
        let inode = written.unwrap();
        store.close();
        take_up(dir.path(), &database).unwrap();
        assert!(!restored.exists());
        let store = Store::open_sqlite(&database).unwrap();
        let read =
            store.read_blocking(|txn| Ok::<_, dfs_metastore::StoreError>((txn.volumes()?, txn.sessions()?)));
        assert_eq!(read.unwrap(), (vec![VolumeRow { open_for: None, ..volume }], vec![]));
        let next = store.write_blocking(Durability::Disk, |txn| txn.take(Counter::Inode, 1)).unwrap();
        assert!(next > inode + SKIPPED);
        store.close();
        std::fs::write(&restored, b"another").unwrap();
        let refused = take_up(dir.path(), &database).unwrap_err().to_string();
        assert!(refused.contains("move away the one that is not meant"), "{refused}");
    }
}
