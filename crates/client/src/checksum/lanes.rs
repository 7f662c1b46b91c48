//! MD5 of several blobs at once, side by side in SIMD lanes.
//!
//! One stream of MD5 is a chain of dependent steps and runs at 0.45 to 0.66 GB/s on a core, whatever the
//! processor. Independent blobs in lanes of one register take the time of one: 16 of them reach 6 GB/s. So blobs
//! that wait are hashed together. A batch is what came together, or has gathered while the last one was under way,
//! and a blob that comes alone is hashed alone; only for blobs that are known to come in a moment it waits that
//! moment.

use crate::ClientError;
use bytes::Bytes;
use dfs_proto::{ErrorCode, Md5};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Blobs in one batch: one 512-bit register of 32-bit words.
const LANES_MAX: usize = 16;

/// Lanes that a batch of 2 or 3 blobs is filled up to: with fewer than 4 the library hashes one after the
/// other. (Measured: 3 blobs of 4 MiB take 19 ms by themselves, 9.6 ms in 4 lanes.)
const LANES_MIN: usize = 4;

/// With so many a batch is worth its time: more than these are not waited for.
const LANES_GOOD: usize = 8;

/// How long a batch waits for blobs that have been announced. Hashing 4 MiB alone takes three times as long.
const PATIENCE: Duration = Duration::from_millis(3);

/// Blobs of one batch differ in length by less than this factor: a batch takes as long as its longest.
const LENGTH_RATIO_MAX: usize = 2;

static HASHER: LazyLock<Hasher> = LazyLock::new(|| Hasher {
    threads_max: std::thread::available_parallelism().map_or(1, usize::from),
    state: Mutex::default(),
    came: Condvar::new(),
});

/// Blobs that wait, and the threads that hash. Memory is bounded by those who wait for a digest.
struct Hasher {
    threads_max: usize,
    /// Held for a few pushes and pops.
    state: Mutex<State>,
    /// A job was added, or one that was announced will not come.
    came: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    threads: usize,
    /// Blobs that will be here in a moment.
    announced: usize,
}

/// A blob that is being read and will be hashed in a moment. Dropped once it waits to be hashed, or when it does
/// not come.
pub(crate) struct Announced(&'static Hasher);

impl Announced {
    /// Makes batches wait for the blob, for a moment.
    pub fn new() -> Announced {
        HASHER.state.lock().announced += 1;
        Announced(&HASHER)
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.0.state.lock().announced -= 1;
        self.0.came.notify_all();
    }
}

/// A thread that hashes, or is about to. Dropped before it has ended (a runtime that shuts down does that), it
/// makes room for another.
struct Thread(&'static Hasher);

impl Thread {
    fn work(self) {
        loop {
            self.0.wait_for_company();
            let Some(batch) = self.0.next_batch() else { break };
            let jobs: Vec<&[u8]> = batch.iter().map(|job| &job.data[..]).collect();
            let digests = digests(&jobs);
            for (job, digest) in batch.into_iter().zip(digests) {
                // Who asked may have gone away.
                let _ = job.done.send(digest);
            }
        }
        // Its end has been counted, at the moment when nothing was left to do.
        std::mem::forget(self);
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.0.state.lock().threads -= 1;
    }
}

struct Job {
    data: Bytes,
    done: oneshot::Sender<Md5>,
}

/// MD5 of each of `blobs`, hashed on a blocking thread together with each other and with whatever else waits.
pub(super) async fn md5_of_all(blobs: impl IntoIterator<Item = Bytes>) -> Result<Vec<Md5>, ClientError> {
    HASHER.hash(blobs).await
}

impl Hasher {
    async fn hash(&'static self, blobs: impl IntoIterator<Item = Bytes>) -> Result<Vec<Md5>, ClientError> {
        let (jobs, answers): (Vec<Job>, Vec<_>) = blobs
            .into_iter()
            .map(|data| {
                let (done, digest) = oneshot::channel();
                (Job { data, done }, digest)
            })
            .unzip();
        if self.add(jobs) {
            let thread = Thread(self);
            tokio::task::spawn_blocking(move || thread.work());
        }
        let stopped = |_| ClientError::local(ErrorCode::Internal, "a digest was not finished");
        let mut digests = Vec::with_capacity(answers.len());
        for answer in answers {
            digests.push(answer.await.map_err(stopped)?);
        }
        Ok(digests)
    }

    /// Queues jobs, under one lock so that they meet in one batch; whether another thread should begin: the
    /// first, or a further one once a whole batch waits. More threads than that would only leave each other
    /// fewer lanes.
    fn add(&self, jobs: Vec<Job>) -> bool {
        let mut state = self.state.lock();
        if jobs.is_empty() {
            return false;
        }
        state.waiting.extend(jobs);
        self.came.notify_all();
        let begins = state.threads == 0
            || (state.threads < self.threads_max && state.waiting.len() > state.threads * LANES_MAX);
        state.threads += usize::from(begins);
        begins
    }

    /// Waits a moment if a job would go into a small batch while others are known to come.
    fn wait_for_company(&self) {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state.lock();
        while !state.waiting.is_empty() && state.waiting.len() < LANES_GOOD && state.announced > 0 {
            if self.came.wait_until(&mut state, deadline).timed_out() {
                return;
            }
        }
    }

    /// The oldest job and those like it that wait; `None` ends the thread.
    fn next_batch(&self) -> Option<Vec<Job>> {
        let mut state = self.state.lock();
        let Some(first) = state.waiting.pop_front() else {
            state.threads -= 1;
            return None;
        };
        let length = first.data.len();
        let mut batch = vec![first];
        let mut left = VecDeque::with_capacity(state.waiting.len());
        for job in state.waiting.drain(..) {
            let is_alike = job.data.len() <= length * LENGTH_RATIO_MAX
                && length <= job.data.len() * LENGTH_RATIO_MAX
                && batch.len() < LANES_MAX;
            if is_alike { batch.push(job) } else { left.push_back(job) }
        }
        state.waiting = left;
        Some(batch)
    }
}

/// MD5 (RFC 1321) of each.
fn digests(jobs: &[&[u8]]) -> Vec<Md5> {
    let mut lanes = jobs.to_vec();
    if let [first, _, ..] = jobs
        && jobs.len() < LANES_MIN
    {
        lanes.resize(LANES_MIN, first);
    }
    let mut digests = vec![[0; 16]; lanes.len()];
    md5_simd::md5_many(&lanes, &mut digests);
    digests.into_iter().take(jobs.len()).map(Md5).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join_all;
    use md5::Digest;
    use proptest::prelude::*;

    fn reference(data: &[u8]) -> Md5 {
        Md5(md5::Md5::digest(data).into())
    }

    fn bytes(length: usize, seed: u8) -> Vec<u8> {
        (0..length).map(|i| (i as u8).wrapping_mul(31) ^ seed ^ (i >> 8) as u8).collect()
    }

    proptest! {
        #[test]
        fn lanes_give_what_one_stream_gives(lengths in prop::collection::vec(0usize..5000, 1..20), same in any::<bool>()) {
            let first = lengths[0];
            let lengths = lengths.iter().map(|l| if same { first } else { *l });
            let jobs: Vec<Vec<u8>> = lengths.enumerate().map(|(i, l)| bytes(l, i as u8)).collect();
            let slices: Vec<&[u8]> = jobs.iter().map(|j| &j[..]).collect();
            let expected: Vec<Md5> = slices.iter().map(|j| reference(j)).collect();
            prop_assert_eq!(digests(&slices), expected);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn everybody_who_asks_at_once_gets_the_digest_of_their_own_data() {
        let blobs: Vec<Bytes> =
            (0..100).map(|i| bytes([70_000, 140_001, 1 << 20][i % 3], i as u8).into()).collect();
        let sums = join_all(blobs.iter().map(|blob| md5_of_all([blob.clone()]))).await;
        for (blob, sum) in blobs.iter().zip(sums) {
            assert_eq!(sum.unwrap(), [reference(blob)]);
        }
        let together = md5_of_all(blobs.clone()).await.unwrap();
        assert_eq!(together, blobs.iter().map(|blob| reference(blob)).collect::<Vec<_>>());
        assert!(md5_of_all([]).await.unwrap().is_empty());
    }

    #[test]
    fn a_job_waits_for_those_that_are_announced_until_they_are_here_or_given_up() {
        static HASHER: LazyLock<Hasher> =
            LazyLock::new(|| Hasher { threads_max: 1, state: Mutex::default(), came: Condvar::new() });
        let announce = || {
            HASHER.state.lock().announced += 1;
            Announced(&HASHER)
        };
        let job = || Job { data: bytes(1000, 0).into(), done: oneshot::channel().0 };
        // Nothing waits: nothing is waited for.
        let (coming, given_up) = (announce(), announce());
        HASHER.wait_for_company();
        HASHER.add(vec![job()]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                HASHER.add(vec![job()]);
                drop(coming);
                drop(given_up);
            });
            while HASHER.state.lock().announced > 0 {
                HASHER.wait_for_company();
            }
        });
        assert_eq!(HASHER.next_batch().unwrap().len(), 2);
        // One that does not come holds nobody up for long.
        let _never = announce();
        HASHER.add(vec![job()]);
        HASHER.wait_for_company();
        assert_eq!(HASHER.next_batch().unwrap().len(), 1);
    }

    #[test]
    fn a_batch_is_what_waits_and_is_alike() {
        let hasher = Hasher { threads_max: 2, state: Mutex::default(), came: Condvar::new() };
        let mut answers = Vec::new();
        let mut add = |length: usize| {
            let (done, digest) = oneshot::channel();
            answers.push(digest);
            hasher.add(vec![Job { data: bytes(length, 0).into(), done }])
        };
        assert!(add(1000), "the first job begins a thread");
        assert!(!add(600), "the second is left to it");
        assert!(!add(10));
        let begins: Vec<bool> = (0..LANES_MAX).map(|_| add(1000)).collect();
        assert_eq!(begins.iter().filter(|b| **b).count(), 1, "a whole batch waits for a second thread");
        let lengths = |batch: Vec<Job>| batch.iter().map(|j| j.data.len()).collect::<Vec<_>>();
        let batch = lengths(hasher.next_batch().unwrap());
        assert_eq!((batch.len(), batch[1]), (LANES_MAX, 600));
        assert_eq!(lengths(hasher.next_batch().unwrap()), [10]);
        assert_eq!(lengths(hasher.next_batch().unwrap()), [1000, 1000]);
        assert!(hasher.next_batch().is_none());
    }
}
