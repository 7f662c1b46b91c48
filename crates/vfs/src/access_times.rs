//! Access times that were noted here and that the master does not know yet.
//!
//! They are kept as Linux keeps them with `relatime` (mount(8)): a read counts when what was read has been
//! changed since it was last read, or when that is a day ago. They go to the master in the background, so a read
//! never waits for them, and one that is lost costs nothing but itself.

use crate::clock::next_after;
use dfs_client::MetaClient;
use dfs_proto::meta::WriteOp;
use dfs_proto::{Ino, MetaOp, Timestamp};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Access times that wait at once. With more, reads leave theirs alone: the next one counts.
const NOTED_MAX: usize = 4096;

/// How long they wait, so that reads of the same things become one operation.
const SEND_AFTER: Duration = Duration::from_secs(2);

/// From this age on an access time is renewed by a read, s (as Linux has it).
const DAY_S: i64 = 24 * 3600;

/// The access time that a read at `now` gives what was last read at `atime` and changed at `changed`, if it
/// counts. It is later than the change, whoever stamped that.
pub(crate) fn renewed(atime: Timestamp, changed: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let is_due = atime <= changed || now.secs.saturating_sub(atime.secs) >= DAY_S;
    is_due.then(|| now.max(next_after(changed)))
}

#[derive(Default)]
pub(crate) struct AccessTimes {
    /// Held for moments only.
    waiting: Mutex<Waiting>,
}

#[derive(Default)]
struct Waiting {
    noted: HashMap<Ino, Timestamp>,
    /// Whether a task will send them.
    is_sending: bool,
}

impl AccessTimes {
    /// Notes an access, to be sent soon.
    pub fn note(self: &Arc<Self>, ino: Ino, atime: Timestamp, meta: &Arc<dyn MetaClient>) {
        let mut waiting = self.waiting.lock();
        if waiting.noted.len() >= NOTED_MAX && !waiting.noted.contains_key(&ino) {
            return;
        }
        waiting.noted.insert(ino, atime);
        if !std::mem::replace(&mut waiting.is_sending, true) {
            let (times, meta) = (self.clone(), meta.clone());
            tokio::spawn(async move {
                while times.has_more() {
                    tokio::time::sleep(SEND_AFTER).await;
                    times.send(&*meta).await;
                }
            });
        }
    }

    /// Whether any wait; if not, the next one needs another task.
    fn has_more(&self) -> bool {
        let mut waiting = self.waiting.lock();
        waiting.is_sending = !waiting.noted.is_empty();
        waiting.is_sending
    }

    /// Sends what waits. Until the master has it, it is shown from here.
    pub async fn send(&self, meta: &dyn MetaClient) {
        let batch: Vec<_> = self.waiting.lock().noted.iter().map(|(ino, atime)| (*ino, *atime)).collect();
        for (ino, atime) in batch {
            if let Err(e) = meta.call(MetaOp::Write(WriteOp::Accessed { ino, atime })).await {
                log::debug!("the access time of inode {ino} is lost: {e}");
            }
            let mut waiting = self.waiting.lock();
            if waiting.noted.get(&ino) == Some(&atime) {
                waiting.noted.remove(&ino);
            }
        }
    }

    /// The access time that waits for the inode.
    pub fn noted(&self, ino: Ino) -> Option<Timestamp> {
        self.waiting.lock().noted.get(&ino).copied()
    }

    /// Forgets what waits for the inode: its access time is being set.
    pub fn forget(&self, ino: Ino) {
        self.waiting.lock().noted.remove(&ino);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_counts_after_a_change_and_once_a_day() {
        let at = |secs| Timestamp { secs, nanos: 0 };
        assert_eq!(renewed(at(10), at(5), at(20)), None);
        assert_eq!(renewed(at(10), at(10), at(20)), Some(at(20)));
        assert_eq!(renewed(at(10), at(5), at(10 + DAY_S)), Some(at(10 + DAY_S)));
        let clock_behind = renewed(at(10), at(30), at(20));
        assert_eq!(clock_behind, Some(Timestamp { secs: 30, nanos: 1 }));
    }
}
