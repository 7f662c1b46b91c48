//! Closes that the master does not know of yet.
//!
//! Nobody waits for a close to be told, so those that come within a moment of each other go as one request. Until the
//! master knows, it takes the file for open: what is removed meanwhile is kept a moment longer.

use dfs_client::MetaClient;
use dfs_proto::meta::ClusterOp;
use dfs_proto::{Ino, MetaOp};
use futures_util::future::join_all;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// How long closes gather.
const SEND_AFTER: Duration = Duration::from_millis(20);

/// Files that wait at once; what is closed beyond that is told at once. More than a mount closes in that time.
const WAITING_MAX: usize = 4096;

#[derive(Default)]
pub(crate) struct Closes {
    /// Held for moments only.
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    counts: HashMap<Ino, u32>,
    /// Whether a task will send them.
    is_sending: bool,
}

impl Closes {
    /// Notes that `count` opens of a file are over, to be told soon.
    pub fn note(self: &Arc<Self>, ino: Ino, count: u32, meta: &Arc<dyn MetaClient>) {
        let mut waiting = self.waiting.lock();
        *waiting.counts.entry(ino).or_default() += count;
        let is_full = waiting.counts.len() >= WAITING_MAX;
        if !std::mem::replace(&mut waiting.is_sending, true) || is_full {
            let (closes, meta) = (self.clone(), meta.clone());
            tokio::spawn(async move {
                if !is_full {
                    tokio::time::sleep(SEND_AFTER).await;
                }
                closes.send(&*meta).await;
            });
        }
    }

    /// Tells the master of those that wait. They are on their way when the future is first polled.
    pub async fn send(&self, meta: &dyn MetaClient) {
        let counts = {
            let mut waiting = self.waiting.lock();
            waiting.is_sending = false;
            std::mem::take(&mut waiting.counts)
        };
        let told = counts.into_iter().map(|(ino, count)| async move {
            // Should it get lost, the end of the session closes the file too.
            if let Err(e) = meta.call(MetaOp::Cluster(ClusterOp::Close { ino, count })).await {
                log::debug!("the master was not told that inode {ino} is closed: {e}");
            }
        });
        join_all(told).await;
    }
}
