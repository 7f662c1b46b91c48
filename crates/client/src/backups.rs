//! Copies of the master's database on storage nodes: stored and fetched in pieces, so that neither side holds one
//! in memory. Needs no master, which may be what was lost.

use crate::ClientError;
use crate::checksum::Md5Hasher;
use crate::http::{Call, Transport, base_url};
use crate::task::not_finished;
use bytes::Bytes;
use dfs_proto::ErrorCode;
use dfs_proto::backup::{BACKUPS_PATH, BackupName, HEADER_CLUSTER_KEY};
use dfs_proto::blob::HEADER_TOKEN;
use dfs_proto::codec::Encoding;
use dfs_proto::limits::BLOB_BYTES_MAX;
use reqwest::Method;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

/// Idle connections to one node.
const IDLE_CONNECTIONS_MAX: usize = 2;

/// Longest list, bytes: thousands of names.
const LIST_BYTES_MAX: usize = 1 << 20;

/// Backups on storage nodes.
pub struct Backups {
    transport: Transport,
    deadline: Duration,
    cluster_key: String,
}

impl Backups {
    /// Requests that each end within `deadline`. `cluster_key` is the cluster's shared secret; empty for none.
    pub fn new(deadline: Duration, cluster_key: String) -> Result<Backups, ClientError> {
        Ok(Backups { transport: Transport::new(IDLE_CONNECTIONS_MAX)?, deadline, cluster_key })
    }

    /// What a node has, the oldest first.
    pub async fn list(&self, node: &str) -> Result<Vec<BackupName>, ClientError> {
        let url = base_url(node)?;
        let call = Call::new(&url, Method::GET, BACKUPS_PATH.to_owned(), self.deadline)
            .answer_bytes_max(LIST_BYTES_MAX);
        self.transport.send(call).await?.decode(Encoding::Json)
    }

    /// Stores `file`, which is `name`, on a node. `token` has the right to delete.
    pub async fn put(
        &self,
        node: &str,
        name: &BackupName,
        file: &Arc<File>,
        token: &str,
    ) -> Result<(), ClientError> {
        let url = base_url(node)?;
        let mut at = 0;
        while at < name.bytes {
            let piece = read_piece(file.clone(), at, name.bytes).await?;
            let length = piece.len() as u64;
            let call = Call::new(&url, Method::PUT, format!("{}?at={at}", name.path()), self.deadline)
                .header(HEADER_TOKEN, token.to_owned())
                .body(piece);
            self.transport.send(call).await?;
            at += length;
        }
        Ok(())
    }

    /// Fetches `name` from a node into `file`, which is empty. `checksum_mismatch` when it is not what its name
    /// says.
    pub async fn get(&self, node: &str, name: &BackupName, file: &mut File) -> Result<(), ClientError> {
        let url = base_url(node)?;
        let (mut at, mut hasher) = (0, Md5Hasher::new());
        while at < name.bytes {
            let call = Call::new(&url, Method::GET, format!("{}?at={at}", name.path()), self.deadline)
                .header(HEADER_CLUSTER_KEY, self.cluster_key.clone())
                .answer_bytes_max(BLOB_BYTES_MAX);
            let piece = self.transport.send(call).await?.body;
            if piece.is_empty() {
                break;
            }
            hasher.update(&piece);
            file.write_all(&piece).map_err(|e| local("write the backup", &e))?;
            at += piece.len() as u64;
        }
        let md5 = hasher.finish();
        if at != name.bytes || md5 != name.md5 {
            let message = format!("{node} sent {at} bytes with the MD5 {md5} for backup {name}");
            return Err(ClientError::local(ErrorCode::ChecksumMismatch, message));
        }
        file.sync_all().map_err(|e| local("sync the backup", &e))
    }
}

async fn read_piece(file: Arc<File>, at: u64, end: u64) -> Result<Bytes, ClientError> {
    let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(BLOB_BYTES_MAX);
    let reading = tokio::task::spawn_blocking(move || {
        let mut piece = vec![0; length];
        file.read_exact_at(&mut piece, at).map(|()| piece)
    });
    let piece = reading.await.map_err(|e| not_finished(&e))?;
    Ok(piece.map_err(|e| local("read the backup", &e))?.into())
}

fn local(what: &str, e: &std::io::Error) -> ClientError {
    ClientError::local(ErrorCode::Io, format!("cannot {what}: {e}"))
}
