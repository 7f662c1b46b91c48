//! What a master is told when it starts.

use dfs_service::{Clock, SystemClock};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Most copies of a file that make sense.
const REPLICAS_MAX: u32 = 16;

/// The clock as a value in a configuration.
#[derive(Clone)]
pub struct SharedClock(pub Arc<dyn Clock>);

impl fmt::Debug for SharedClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedClock(..)")
    }
}

/// What a master is told when it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folder for the database (`master.sqlite`); made when it is missing.
    pub data: PathBuf,
    /// Copies that each file should have.
    pub replicas: u32,
    /// URL of the Redis that holds the orders; without one they are in memory and handed out over HTTP.
    pub redis: Option<String>,
    /// Shared secret that storage nodes have to know; empty for none.
    pub cluster_key: String,
    /// Between heartbeats of a node, ms.
    pub heartbeat_ms: u64,
    /// Silence after which a node gets no new data, ms.
    pub suspect_after_ms: u64,
    /// Silence after which a node's copies are made elsewhere, ms.
    pub dead_after_ms: u64,
    /// Silence after which a session is over, ms.
    pub session_lease_ms: u64,
    /// Between looks for what is due (dead nodes, copies that are behind, sessions that are over), ms.
    pub sweep_ms: u64,
    /// Volumes that take new data on each node.
    pub open_volumes_per_node: u32,
    /// Size at which a volume takes no more, bytes.
    pub volume_bytes_max: u64,
    /// From the last reference to a blob until it may be deleted, ms.
    pub garbage_grace_ms: u64,
    /// How long wants gather before orders are made of them, ms.
    pub order_tick_ms: u64,
    /// Between two orders for one volume, ms: while small files are written one after the other, each order is some
    /// requests of three programs, whether it is about one file or about a hundred.
    pub order_pace_ms: u64,
    /// An order without any progress for this long is looked for, and issued again when the queue has lost
    /// it, ms. It doubles with each try.
    pub order_patience_ms: u64,
    /// An order that was given up is tried again after this, ms.
    pub order_pause_ms: u64,
    /// Between copies of the database that are put on storage nodes, ms; 0 for none.
    pub backup_ms: u64,
    /// Where the time comes from.
    pub clock: SharedClock,
}

impl Config {
    /// Two copies, no Redis, no secret, and timings for a cluster in one data centre.
    pub fn new(data: impl Into<PathBuf>) -> Config {
        Config {
            data: data.into(),
            replicas: 2,
            redis: None,
            cluster_key: String::new(),
            heartbeat_ms: 1_000,
            suspect_after_ms: 5_000,
            dead_after_ms: 30_000,
            session_lease_ms: 60_000,
            sweep_ms: 1_000,
            open_volumes_per_node: 4,
            volume_bytes_max: 8 << 30,
            garbage_grace_ms: 3_600_000,
            order_tick_ms: 25,
            order_pace_ms: 200,
            order_patience_ms: 5_000,
            order_pause_ms: 60_000,
            backup_ms: 900_000,
            clock: SharedClock(Arc::new(SystemClock::default())),
        }
    }

    /// How long a node may take PUTs without an answered heartbeat, ms: it stops well before others are put
    /// in its place.
    pub(crate) fn node_lease_ms(&self) -> u64 {
        self.suspect_after_ms.max(self.dead_after_ms / 3 * 2)
    }

    /// Refuses settings that cannot be meant.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            (1..=REPLICAS_MAX).contains(&self.replicas),
            "the number of copies is from 1 to {REPLICAS_MAX}, not {}",
            self.replicas
        );
        anyhow::ensure!(
            0 < self.heartbeat_ms
                && self.heartbeat_ms < self.suspect_after_ms
                && self.suspect_after_ms < self.dead_after_ms,
            "the times between heartbeats, until suspect and until dead have to grow; they are {}, {} and {} ms",
            self.heartbeat_ms,
            self.suspect_after_ms,
            self.dead_after_ms
        );
        anyhow::ensure!(self.sweep_ms > 0, "the time between sweeps has to be above 0");
        anyhow::ensure!(self.session_lease_ms > 0, "the session lease has to be above 0");
        anyhow::ensure!(self.open_volumes_per_node > 0, "each node needs a volume that takes new data");
        anyhow::ensure!(self.volume_bytes_max > 0, "volumes need room");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_accepted_and_a_lease_ends_before_death() {
        let config = Config::new("/nowhere");
        config.check().unwrap();
        assert!(config.node_lease_ms() < config.dead_after_ms);
    }

    #[test]
    fn settings_that_cannot_be_meant_are_refused() {
        let good = Config::new("/nowhere");
        for bad in [
            Config { replicas: 0, ..good.clone() },
            Config { replicas: 17, ..good.clone() },
            Config { suspect_after_ms: 1_000, ..good.clone() },
            Config { dead_after_ms: 5_000, ..good.clone() },
            Config { sweep_ms: 0, ..good.clone() },
            Config { open_volumes_per_node: 0, ..good.clone() },
        ] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
    }
}
