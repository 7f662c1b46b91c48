//! The queue of replication orders: a Redis Stream with a consumer group, or memory in the master.
//!
//! Owns how orders wait, are claimed, come back from a consumer that died, and are kept when they are given
//! up. The only crate that names `redis`. A queue is never the only holder of an intent: the master's tables
//! are, and its sweep pushes again what an emptied queue has lost.

mod config;
#[cfg(any(test, feature = "conformance"))]
pub mod conformance;
mod memory;
mod redis_queue;
mod seam;

pub use config::QueueConfig;
pub use memory::MemoryQueue;
pub use redis_queue::RedisQueue;
pub use seam::{QueueError, RepairQueue};

use std::time::{SystemTime, UNIX_EPOCH};

/// Wall clock, ms since 1970: for what people read.
fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
