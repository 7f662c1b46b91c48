//! Orders in a Redis Stream that a consumer group shares (Redis 7.0 or newer).
//!
//! Waiting orders and those in hand are entries of the stream; an entry goes when its claim is settled.
//! Delayed ones are members `ATTEMPTS ORDER` of a sorted set by due time, dead ones entries of a capped
//! stream. Each step between these is one script, so an order is always in one place. All times are the
//! server's. docs/PROTOCOL.md names the keys.

mod connection;
#[cfg(test)]
mod tests;

use crate::config::{QueueConfig, RETRY_DELAY_MAX};
use crate::seam::{QueueError, RepairQueue};
use async_trait::async_trait;
use connection::{Connections, Failure};
use dfs_proto::order::{ClaimedOrder, DeadLetter, Order, Verdict};
use parking_lot::Mutex;
use redis::streams::{StreamId, StreamRangeReply, StreamReadReply};
use redis::{Cmd, FromRedisValue};
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;

const PUSH: &str = include_str!("push.lua");
const GATHER: &str = include_str!("gather.lua");
const SETTLE: &str = include_str!("settle.lua");
const CONSUMERS: &str = include_str!("consumers.lua");

/// The consumer group.
const GROUP: &str = "replicators";
/// Longest single wait in Redis: so long may orders of dead consumers go unnoticed beyond their lease.
const BLOCK_MAX: Duration = Duration::from_secs(1);
/// How often consumers that are gone are looked for.
const CONSUMER_SWEEP: Duration = Duration::from_secs(600);
/// Silence after which a consumer that holds nothing is forgotten.
const CONSUMER_SILENCE_MAX: Duration = Duration::from_secs(3600);
/// Bytes of a garbage entry that the log shows.
const GARBAGE_SHOWN_MAX: usize = 200;
/// Start and end of the scan for orders of dead consumers.
const SCAN_START: &str = "0-0";

/// The queue in Redis.
pub struct RedisQueue {
    config: QueueConfig,
    connections: Connections,
    stream: String,
    delayed: String,
    dead: String,
    /// Where the scan for orders of dead consumers goes on.
    scan: Mutex<String>,
    /// When consumers that are gone were last looked for.
    swept: Mutex<Option<Instant>>,
}

impl fmt::Debug for RedisQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisQueue")
            .field("server", &self.connections.server)
            .field("stream", &self.stream)
            .finish_non_exhaustive()
    }
}

impl RedisQueue {
    /// The queue of the cluster of this name on the server at `url` (`redis://HOST:PORT`), with the usual
    /// bounds. Does no I/O: the server need not be up. Has to be called within a tokio runtime. Fails only
    /// when the URL makes no sense.
    pub fn new(url: &str, cluster: &str) -> Result<RedisQueue, QueueError> {
        RedisQueue::with_config(url, cluster, QueueConfig::default())
    }

    /// The same with bounds of one's own.
    pub fn with_config(url: &str, cluster: &str, config: QueueConfig) -> Result<RedisQueue, QueueError> {
        Ok(RedisQueue {
            config,
            connections: Connections::new(url)?,
            stream: format!("dfs:{cluster}:orders"),
            delayed: format!("dfs:{cluster}:delayed"),
            dead: format!("dfs:{cluster}:dead"),
            scan: Mutex::new(SCAN_START.to_owned()),
            swept: Mutex::new(None),
        })
    }

    /// Address of the server, without credentials.
    pub fn server(&self) -> &str {
        &self.connections.server
    }

    /// Runs a command; makes the consumer group when it is missing.
    async fn run<T: FromRedisValue>(&self, action: &'static str, command: &Cmd) -> Result<T, QueueError> {
        let failure = match self.connections.run(command).await {
            Ok(answer) => return Ok(answer),
            Err(Failure::NoGroup) => {
                self.make_group().await?;
                match self.connections.run(command).await {
                    Ok(answer) => return Ok(answer),
                    Err(failure) => failure,
                }
            }
            Err(failure) => failure,
        };
        Err(self.connections.unavailable(action, &failure))
    }

    /// Runs a command that does no harm when it is carried out twice: once more when the connection broke.
    async fn run_idempotent<T: FromRedisValue>(
        &self,
        action: &'static str,
        command: &Cmd,
    ) -> Result<T, QueueError> {
        match self.connections.run(command).await {
            Ok(answer) => Ok(answer),
            Err(Failure::Broken(reason)) => {
                log::debug!("the connection to Redis at {} broke ({reason}); once more", self.server());
                self.run(action, command).await
            }
            Err(Failure::NoGroup) => self.run(action, command).await,
            Err(failure) => Err(self.connections.unavailable(action, &failure)),
        }
    }

    /// Makes the stream and its group; orders that wait already belong to the group.
    async fn make_group(&self) -> Result<(), QueueError> {
        let mut command = redis::cmd("XGROUP");
        command.arg("CREATE").arg(&self.stream).arg(GROUP).arg("0").arg("MKSTREAM");
        match self.connections.run::<()>(&command).await {
            Ok(()) => {
                log::info!("made the consumer group {GROUP} of {} at {}", self.stream, self.server());
                Ok(())
            }
            // Somebody else was faster.
            Err(failure) if failure.to_string().contains("BUSYGROUP") => Ok(()),
            Err(failure) => Err(self.connections.unavailable("make its consumer group", &failure)),
        }
    }

    /// Takes what is there at once; also tells when the next delayed order is due.
    async fn gather(
        &self,
        worker: &str,
        max: usize,
    ) -> Result<(Vec<ClaimedOrder>, Option<Duration>), QueueError> {
        let mut command = redis::cmd("EVAL");
        command.arg(GATHER).arg(2).arg(&self.stream).arg(&self.delayed);
        command.arg(GROUP).arg(worker).arg(max).arg(millis(self.config.claim_lease));
        command.arg(self.scan.lock().as_str());
        let answer: Vec<Vec<u8>> = self.run("hand out orders", &command).await?;
        let [cursor, wait, entries @ ..] = answer.as_slice() else {
            let failure = Failure::Other("the answer is too short".to_owned());
            return Err(self.connections.unavailable("hand out orders", &failure));
        };
        *self.scan.lock() = String::from_utf8_lossy(cursor).into_owned();
        let mut claimed = Vec::new();
        for entry in entries.chunks_exact(4) {
            let [id, deliveries, attempt, order] = entry else { continue };
            let id = String::from_utf8_lossy(id);
            let deliveries = number(deliveries).unwrap_or(1);
            if deliveries > 1 {
                log::warn!("order entry {id} was not settled in time and is handed out again");
            }
            claimed.extend(self.decode(worker, &id, deliveries, attempt, order).await?);
        }
        Ok((claimed, number(wait).map(|ms| Duration::from_millis(ms.into()))))
    }

    /// Waits in Redis for new orders.
    async fn wait_for_new(
        &self,
        worker: &str,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<ClaimedOrder>, QueueError> {
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(GROUP).arg(worker).arg("COUNT").arg(max);
        // A wait of 0 would be for ever.
        command.arg("BLOCK").arg(millis(wait).max(1)).arg("STREAMS").arg(&self.stream).arg(">");
        let answer: Option<StreamReadReply> = match self.connections.run_waiting(&command, wait).await {
            Ok(answer) => answer,
            Err(Failure::NoGroup) => {
                self.make_group().await?;
                return Ok(Vec::new());
            }
            // The stream went away under the read, as it does in an emptied database.
            Err(Failure::Other(reason)) if reason.contains("UNBLOCKED") => return Ok(Vec::new()),
            Err(failure) => return Err(self.connections.unavailable("wait for orders", &failure)),
        };
        let mut claimed = Vec::new();
        for entry in answer.into_iter().flat_map(|a| a.keys).flat_map(|k| k.ids) {
            let attempt = field(&entry, "attempt");
            let order = field(&entry, "order");
            claimed.extend(self.decode(worker, &entry.id, 1, &attempt, &order).await?);
        }
        Ok(claimed)
    }

    /// The claim of an entry; `None` for one that is no order, which is removed so that nobody meets it
    /// again.
    async fn decode(
        &self,
        worker: &str,
        id: &str,
        deliveries: u32,
        attempt: &[u8],
        order: &[u8],
    ) -> Result<Option<ClaimedOrder>, QueueError> {
        match serde_json::from_slice::<Order>(order) {
            Ok(order) => {
                let claim = format!("{id}@{deliveries}@{worker}");
                let attempt = number(attempt).unwrap_or(0).saturating_add(deliveries);
                Ok(Some(ClaimedOrder { claim, attempt, order }))
            }
            Err(e) => {
                let shown = &order[..order.len().min(GARBAGE_SHOWN_MAX)];
                log::error!(
                    "removed entry {id} of {}, which is no order ({e}): {:?}",
                    self.stream,
                    String::from_utf8_lossy(shown)
                );
                let mut command = redis::cmd("XACK");
                command.arg(&self.stream).arg(GROUP).arg(id);
                self.run_idempotent::<()>("remove what is no order", &command).await?;
                let mut command = redis::cmd("XDEL");
                command.arg(&self.stream).arg(id);
                self.run_idempotent::<()>("remove what is no order", &command).await?;
                Ok(None)
            }
        }
    }

    /// Forgets consumers that are gone, now and then. They cost little, so a failure waits for the next time.
    async fn sweep_consumers(&self) {
        let now = Instant::now();
        {
            let mut swept = self.swept.lock();
            if swept.is_some_and(|at| now < at + CONSUMER_SWEEP) {
                return;
            }
            *swept = Some(now);
        }
        let mut command = redis::cmd("EVAL");
        command.arg(CONSUMERS).arg(1).arg(&self.stream).arg(GROUP).arg(millis(CONSUMER_SILENCE_MAX));
        match self.run::<u64>("forget consumers that are gone", &command).await {
            Ok(0) => {}
            Ok(n) => log::info!("forgot {n} consumers of {} that are gone", self.stream),
            Err(e) => log::debug!("{e}"),
        }
    }
}

#[async_trait]
impl RepairQueue for RedisQueue {
    async fn push(&self, order: &Order) -> Result<(), QueueError> {
        let mut command = redis::cmd("EVAL");
        command.arg(PUSH).arg(1).arg(&self.stream).arg(encode(order)).arg(self.config.orders_max);
        let dropped: i64 = self.run_idempotent("take an order", &command).await?;
        if dropped > 0 {
            log::warn!(
                "{} at {} is full at about {} orders; its {dropped} oldest were dropped",
                self.stream,
                self.server(),
                self.config.orders_max
            );
        }
        Ok(())
    }

    async fn claim(&self, worker: &str, max: usize, wait: Duration) -> Result<Vec<ClaimedOrder>, QueueError> {
        let deadline = Instant::now() + wait;
        self.sweep_consumers().await;
        loop {
            let (claimed, due) = self.gather(worker, max).await?;
            let left = deadline.saturating_duration_since(Instant::now());
            if !claimed.is_empty() || max == 0 || left.is_zero() {
                return Ok(claimed);
            }
            let slice = left.min(BLOCK_MAX).min(self.config.claim_lease).min(due.unwrap_or(BLOCK_MAX));
            let claimed = self.wait_for_new(worker, max, slice).await?;
            if !claimed.is_empty() {
                return Ok(claimed);
            }
        }
    }

    async fn settle(&self, claimed: &ClaimedOrder, verdict: &Verdict) -> Result<(), QueueError> {
        let mut parts = claimed.claim.splitn(3, '@');
        let (Some(id), Some(deliveries), Some(worker)) = (parts.next(), parts.next(), parts.next()) else {
            // Not a name that this queue gave.
            return Ok(());
        };
        let mut command = redis::cmd("EVAL");
        command.arg(SETTLE).arg(3).arg(&self.stream).arg(&self.delayed).arg(&self.dead);
        command.arg(GROUP).arg(id).arg(worker).arg(deliveries);
        let order = encode(&claimed.order);
        match verdict {
            Verdict::Done => command.arg("done").arg(order),
            Verdict::Retry { delay_ms, reason: _ } => {
                let delay = Duration::from_millis(*delay_ms).min(RETRY_DELAY_MAX);
                command.arg("retry").arg(order).arg(claimed.attempt);
                command.arg(millis(delay)).arg(self.config.orders_max)
            }
            Verdict::Bury { reason } => {
                command.arg("bury").arg(order).arg(reason).arg(self.config.dead_letters_max)
            }
        };
        match self.run_idempotent::<u64>("settle an order", &command).await? {
            0 => log::debug!("the claim on order {} was lost before it was settled", claimed.order.id),
            2 => log::warn!("{} is full; order {} was dropped", self.delayed, claimed.order.id),
            _ => {}
        }
        Ok(())
    }

    async fn depth(&self) -> Result<u64, QueueError> {
        let mut waiting = redis::cmd("XLEN");
        waiting.arg(&self.stream);
        let mut delayed = redis::cmd("ZCARD");
        delayed.arg(&self.delayed);
        let waiting: u64 = self.run_idempotent("count its orders", &waiting).await?;
        let delayed: u64 = self.run_idempotent("count its orders", &delayed).await?;
        Ok(waiting + delayed)
    }

    async fn dead_letters(&self, max: usize) -> Result<Vec<DeadLetter>, QueueError> {
        if max == 0 {
            return Ok(Vec::new());
        }
        let mut command = redis::cmd("XREVRANGE");
        command.arg(&self.dead).arg("+").arg("-").arg("COUNT").arg(max);
        let answer: StreamRangeReply = self.run_idempotent("list dead letters", &command).await?;
        Ok(answer.ids.iter().filter_map(dead_letter).collect())
    }
}

/// `None` for an entry that somebody else wrote.
fn dead_letter(entry: &StreamId) -> Option<DeadLetter> {
    Some(DeadLetter {
        order: serde_json::from_slice(&field(entry, "order")).ok()?,
        reason: String::from_utf8_lossy(&field(entry, "reason")).into_owned(),
        at_ms: std::str::from_utf8(&field(entry, "at_ms")).ok()?.parse().ok()?,
    })
}

/// A field's value; empty when it is missing.
fn field(entry: &StreamId, name: &str) -> Vec<u8> {
    entry.get(name).unwrap_or_default()
}

fn number(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn encode(order: &Order) -> String {
    serde_json::to_string(order).expect("an order has no map with keys that are not text")
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
