//! Inode numbers leased from the master, so that a create needs no round trip.

use crate::VfsError;
use dfs_client::MetaClient;
use dfs_proto::meta::ClusterOp;
use dfs_proto::{Ino, MetaOp, MetaReply};
use std::ops::Range;

/// Numbers asked for at once: enough for a second of creates, few enough not to be missed.
const LEASE: u64 = 4096;

#[derive(Default)]
pub(crate) struct InodeNumbers {
    lease: tokio::sync::Mutex<Range<u64>>,
}

impl InodeNumbers {
    pub async fn take(&self, meta: &dyn MetaClient) -> Result<Ino, VfsError> {
        let mut lease = self.lease.lock().await;
        if lease.is_empty() {
            match meta.call(MetaOp::Cluster(ClusterOp::Inodes { count: LEASE })).await? {
                MetaReply::Inodes(range) if range.count > 0 => {
                    *lease = range.first.0..range.first.0 + range.count;
                }
                _ => return Err(VfsError::OddAnswer("a request for inode numbers")),
            }
        }
        Ok(Ino(lease.next().expect("the lease was just filled")))
    }
}
