//! Blobs that wait to be hashed together.
//!
//! MD5 of eight blobs side by side takes little longer than of one (`dfs_client::checksum`), so full blobs of a
//! writer that goes on wait for each other. Whoever knows that no more will come, because the file is being
//! published, room is needed or time is up, has what waits sent off. What waits is counted against the budget of
//! staged bytes, which bounds it.

use crate::publish::Upload;
use crate::vfs::Vfs;
use dfs_client::checksum;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Blobs hashed together: the lanes of an AVX2 register. More would have to be staged for lanes that gain little.
const TOGETHER: usize = 8;

/// A blob waits so long for others: what a writer of 300 MiB/s needs for eight. Nobody waits for the blob itself
/// meanwhile: whoever does (close, fsync, a writer without room) has it sent off.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// With fewer blobs under way than these, a writer without room has more sent off, however little there is in them.
const UNDER_WAY_MIN: usize = 4;

/// See the module.
#[derive(Default)]
pub(crate) struct Gathering {
    waiting: Mutex<Waiting<Upload>>,
    /// Blobs on their way: sent off, and neither stored nor failed.
    under_way: Arc<AtomicUsize>,
}

struct Waiting<T> {
    blobs: Vec<T>,
    /// How often what waited was sent off.
    turn: u64,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Waiting { blobs: Vec::new(), turn: 0 }
    }
}

/// What comes of a blob that begins to wait.
#[derive(Debug, PartialEq, Eq)]
enum Added<T> {
    /// It is the first; its turn is over with this number.
    First(u64),
    /// Others wait already.
    Waits,
    /// These have waited long enough.
    Full(Vec<T>),
}

impl<T> Waiting<T> {
    fn add(&mut self, blob: T) -> Added<T> {
        self.blobs.push(blob);
        match self.blobs.len() {
            TOGETHER.. => Added::Full(self.take()),
            1 => Added::First(self.turn),
            _ => Added::Waits,
        }
    }

    fn take(&mut self) -> Vec<T> {
        self.turn += 1;
        std::mem::take(&mut self.blobs)
    }

    /// What waits, if it is still what waited when `turn` was told.
    fn take_of(&mut self, turn: u64) -> Vec<T> {
        if self.turn == turn { self.take() } else { Vec::new() }
    }
}

impl Vfs {
    /// Sends a full blob off, some time soon: together with those that follow it.
    pub(crate) fn upload_with_others(&self, upload: Upload) {
        let added = self.gathering.waiting.lock().add(upload);
        match added {
            Added::Full(uploads) => self.send_off(uploads),
            Added::Waits => {}
            Added::First(turn) => {
                let vfs = self.me.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(WAIT_MAX).await;
                    // A file system that is gone has nobody left who waits for its bytes.
                    let Some(vfs) = vfs.upgrade() else { return };
                    let uploads = vfs.gathering.waiting.lock().take_of(turn);
                    vfs.send_off(uploads);
                });
            }
        }
    }

    /// Sends a blob off at once, and those that wait for others with it.
    pub(crate) fn upload_now(&self, upload: Upload) {
        let mut uploads = self.gathering.waiting.lock().take();
        uploads.push(upload);
        self.send_off(uploads);
    }

    /// Sends off what waits for others; whether there was anything.
    pub(crate) fn upload_waiting(&self) -> bool {
        let uploads = self.gathering.waiting.lock().take();
        let any = !uploads.is_empty();
        self.send_off(uploads);
        any
    }

    /// Whether a writer without room only has to wait, because enough is on its way to nodes.
    pub(crate) fn makes_room(&self) -> bool {
        self.gathering.under_way.load(Ordering::Acquire) >= UNDER_WAY_MIN || self.upload_waiting()
    }

    fn send_off(&self, uploads: Vec<Upload>) {
        if uploads.is_empty() {
            return;
        }
        let (data, slots, under_way) =
            (self.data.clone(), self.uploads.clone(), self.gathering.under_way.clone());
        under_way.fetch_add(uploads.len(), Ordering::AcqRel);
        tokio::spawn(async move {
            let blobs: Vec<_> = uploads.iter().map(|upload| upload.bytes.clone()).collect();
            let sums = checksum::sums_of(&blobs).await;
            drop(blobs);
            let sums: Vec<_> = match sums {
                Ok(sums) => sums.into_iter().map(Ok).collect(),
                Err(e) => uploads.iter().map(|_| Err(e.clone())).collect(),
            };
            for (upload, sums) in uploads.into_iter().zip(sums) {
                let (data, slots, under_way) = (data.clone(), slots.clone(), under_way.clone());
                tokio::spawn(async move {
                    let Upload { buffer, bytes, origin } = upload;
                    let _slot = slots.acquire_owned().await.expect("the semaphore is never closed");
                    let result = match sums {
                        Ok(sums) => data.put_summed(bytes, sums, origin).await,
                        Err(e) => Err(e),
                    };
                    if let Err(e) = &result {
                        log::warn!("inode {}: {e}", origin.ino);
                    }
                    // Before the room is given back: who waits for it looks here.
                    under_way.fetch_sub(1, Ordering::AcqRel);
                    buffer.finish(result);
                });
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_wait_for_each_other_until_the_lanes_are_full_or_the_time_of_the_first_is_up() {
        let mut waiting = Waiting::default();
        assert_eq!(waiting.add(0), Added::First(0));
        for n in 1..TOGETHER - 1 {
            assert_eq!(waiting.add(n), Added::Waits);
        }
        assert_eq!(waiting.add(TOGETHER - 1), Added::Full((0..TOGETHER).collect()));
        assert_eq!(waiting.add(10), Added::First(1));
        assert!(waiting.take_of(0).is_empty(), "the time of blobs that have gone is not that of later ones");
        assert_eq!(waiting.take_of(1), [10]);
        assert_eq!(waiting.add(11), Added::First(2));
        assert_eq!(waiting.take(), [11]);
    }
}
