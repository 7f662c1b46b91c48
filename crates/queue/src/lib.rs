//! The queue of replication orders: a Redis Stream with a consumer group, or memory in the master.
//!
//! Owns how orders wait, are claimed, come back from a consumer that died, and are kept when they are given
//! up. The only crate that names `redis`. A queue is never the only holder of an intent: the master's tables
//! are, and its sweep pushes again what an emptied queue has lost.

mod seam;

pub use seam::{QueueError, RepairQueue};
