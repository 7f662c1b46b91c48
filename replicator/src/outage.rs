//! One log line when a server goes away and one when it is back, however many calls fail in between.

use parking_lot::Mutex;
use std::fmt::Display;
use tokio::time::Instant;

/// Whether a server is away, and since when.
#[derive(Debug)]
pub(crate) struct Outage {
    server: String,
    /// Held for a moment, never over an await.
    since: Mutex<Option<Instant>>,
}

impl Outage {
    /// `server` as it stands in the log: `the master at http://..`.
    pub(crate) fn new(server: String) -> Outage {
        Outage { server, since: Mutex::new(None) }
    }

    /// A call failed.
    pub(crate) fn failed(&self, why: &dyn Display) {
        let mut since = self.since.lock();
        if since.is_none() {
            *since = Some(Instant::now());
            log::warn!("{} cannot be used, trying again until it can: {why}", self.server);
        }
    }

    /// A call succeeded.
    pub(crate) fn over(&self) {
        if let Some(since) = self.since.lock().take() {
            log::info!("{} can be used again after {:.1} s", self.server, since.elapsed().as_secs_f64());
        }
    }

    /// Whether the last call failed.
    #[cfg(test)]
    pub(crate) fn is_on(&self) -> bool {
        self.since.lock().is_some()
    }
}
