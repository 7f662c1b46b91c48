//! Scrubbing: reading and verifying everything that the node holds, again and again, so that damage is found
//! while another copy is good.
//!
//! A round goes through the volumes by number and through each by sequence number. It is spread over half of
//! the time that it may take, never faster than the configured bound, and remembers on disk how far it is, so
//! that restarts do not keep it from ever ending. What is found goes the way of what readers find: it is set
//! aside and reported to the master, which orders a repair.

use crate::config::Config;
use crate::memory::{Memory, POOLED_BYTES};
use crate::node::{Node, blocking};
use anyhow::Context;
use dfs_proto::blob::{ScrubStatus, VerifyReply};
use dfs_proto::{ErrorCode, Seq, VolumeId, WireError};
use dfs_service::Stopper;
use dfs_service::durable::replace_file;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Verified without a pause, bytes.
const PIECE_BYTES: u64 = 4 << 20;

/// Slower than this a round never gets, bytes per second: small stores are through in no time.
const RATE_MIN: u64 = 256 << 10;

/// A round is planned to take one part in this of its time, which leaves room for growth and downtime.
const TIME_SHARE: u64 = 2;

/// How often it is written down how far a round is.
const SAVE_EVERY: Duration = Duration::from_secs(60);

/// Longest pause between looks at whether the next round is due, or after a disk that refused.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// The file in the data directory.
const FILE: &str = "scrub.json";

/// How far the node is, for its heartbeats.
#[derive(Debug, Default)]
pub struct ScrubProgress(Mutex<ScrubStatus>);

impl ScrubProgress {
    /// As of now.
    pub fn status(&self) -> ScrubStatus {
        *self.0.lock()
    }
}

/// What is kept on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    status: ScrubStatus,
    /// Where the round goes on; `None` between rounds.
    at: Option<(VolumeId, Seq)>,
}

/// The task.
pub struct Scrub {
    node: Arc<Node>,
    file: PathBuf,
    every: Duration,
    rate_max: u64,
    place: Place,
    memory: Memory,
}

impl Scrub {
    /// The task for a node with these settings.
    pub fn new(config: &Config, node: Arc<Node>) -> Scrub {
        Scrub {
            node,
            file: config.data.join(FILE),
            every: config.scrub_every,
            rate_max: config.scrub_bytes_max,
            place: Place::default(),
            memory: Memory::new(POOLED_BYTES),
        }
    }

    /// Runs until the service is stopped.
    pub async fn run(mut self, mut stopper: Stopper) {
        if self.rate_max == 0 {
            return;
        }
        self.place = load(&self.file).await;
        *self.node.scrub.0.lock() = self.place.status;
        loop {
            let pause = self.until_due();
            if !pause.is_zero() {
                if !stopper.sleep(pause.min(PAUSE_MAX)).await {
                    return;
                }
                continue;
            }
            self.begin();
            let went_through = self.round(&mut stopper).await;
            self.save().await;
            match went_through {
                Ok(true) => {}
                Ok(false) => return,
                Err(e) => {
                    log::error!("scrubbing is interrupted and goes on in a while: {e}");
                    if !stopper.sleep(PAUSE_MAX).await {
                        return;
                    }
                }
            }
        }
    }

    /// How long it is until there is something to do.
    fn until_due(&self) -> Duration {
        if self.place.at.is_some() || self.place.status.finished_ms == 0 {
            return Duration::ZERO;
        }
        // Counted from the beginning, so that a round begins once in the period, however long it takes.
        let since = self.node.clock.wall_ms().saturating_sub(self.place.status.began_ms);
        self.every.saturating_sub(Duration::from_millis(since))
    }

    fn begin(&mut self) {
        if self.place.at.is_none() {
            self.place.at = Some((VolumeId(0), Seq(0)));
            self.place.status.began_ms = self.node.clock.wall_ms();
            self.place.status.verified_bytes = 0;
        }
        *self.node.scrub.0.lock() = self.place.status;
    }

    /// Goes through what is left of the round; false when the service is stopped.
    async fn round(&mut self, stopper: &mut Stopper) -> Result<bool, WireError> {
        let mut saved = Instant::now();
        while let Some((volume, after)) = self.next_volume() {
            let began = Instant::now();
            let reply = self.verify(volume, after).await?;
            self.note(volume, reply);
            if saved.elapsed() >= SAVE_EVERY {
                self.save().await;
                saved = Instant::now();
            }
            let due = Duration::from_secs_f64(reply.bytes as f64 / self.rate() as f64);
            if !stopper.sleep(due.saturating_sub(began.elapsed())).await {
                return Ok(false);
            }
        }
        self.place.at = None;
        self.place.status.finished_ms = self.node.clock.wall_ms();
        *self.node.scrub.0.lock() = self.place.status;
        let ScrubStatus { began_ms, verified_bytes, finished_ms, found } = self.place.status;
        log::info!(
            "scrubbed {} MiB in {} s; {found} damaged records were found so far",
            verified_bytes >> 20,
            finished_ms.saturating_sub(began_ms) / 1000
        );
        Ok(true)
    }

    /// The volume to go on with, and where in it.
    fn next_volume(&self) -> Option<(VolumeId, Seq)> {
        let (at, after) = self.place.at?;
        let volumes = self.node.store.statuses();
        let next =
            volumes.iter().find(|status| status.volume > at || (status.volume == at && status.seq > after));
        next.map(|status| (status.volume, if status.volume == at { after } else { Seq(0) }))
    }

    async fn verify(&self, volume: VolumeId, after: Seq) -> Result<VerifyReply, WireError> {
        // Its own budget, used by nobody else, so there is nothing to wait for.
        let buffer = self.memory.buffer(POOLED_BYTES, PAUSE_MAX).await;
        let mut buffer =
            buffer.ok_or_else(|| WireError::new(ErrorCode::Internal, "no memory to scrub with"))?;
        let store = self.node.store.clone();
        match blocking(move || store.verify(volume, after, PIECE_BYTES, &mut buffer)).await {
            // Given up meanwhile: there is nothing of it to verify.
            Err(e) if e.code == ErrorCode::NotFound => {
                Ok(VerifyReply { next: Seq(u64::MAX), reach: Seq(0), records: 0, bytes: 0, bad: 0, found: 0 })
            }
            answer => answer,
        }
    }

    fn note(&mut self, volume: VolumeId, reply: VerifyReply) {
        self.place.at = Some((volume, reply.next));
        self.place.status.verified_bytes += reply.bytes;
        self.place.status.found += reply.found;
        *self.node.scrub.0.lock() = self.place.status;
    }

    /// Bytes per second that get the round done in time, within the bounds.
    fn rate(&self) -> u64 {
        let held: u64 = self.node.store.statuses().iter().map(|status| status.bytes).sum();
        let time = (self.every.as_secs() / TIME_SHARE).max(1);
        (held / time).max(RATE_MIN).min(self.rate_max)
    }

    async fn save(&self) {
        let (file, place) = (self.file.clone(), self.place);
        let saving = tokio::task::spawn_blocking(move || {
            let bytes = serde_json::to_vec(&place).context("it cannot be encoded")?;
            replace_file(&file, &bytes).with_context(|| format!("cannot write {}", file.display()))
        });
        match saving.await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => log::warn!("a restart would begin the scrub anew: {e:#}"),
            Err(e) => log::warn!("a restart would begin the scrub anew: {e}"),
        }
    }
}

/// How far the last run of the process got; the beginning when that is not known.
async fn load(file: &std::path::Path) -> Place {
    let path = file.to_owned();
    let read = tokio::task::spawn_blocking(move || std::fs::read(path)).await;
    match read {
        Ok(Ok(bytes)) => serde_json::from_slice(&bytes).unwrap_or_else(|e| {
            log::warn!("{} is damaged ({e}); scrubbing begins anew", file.display());
            Place::default()
        }),
        _ => Place::default(),
    }
}
