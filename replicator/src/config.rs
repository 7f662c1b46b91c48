//! What a replicator is told when it starts.

use std::time::Duration;

/// Settings of a replicator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The master: base URL, or `host[:port]`.
    pub master: String,
    /// Where the master puts orders, `redis://HOST:PORT`; without it they are fetched from the master.
    pub redis: Option<String>,
    /// Name for logs and the queue. Two replicators of one name do each other no harm.
    pub name: String,
    /// Orders that are carried out at the same time.
    pub parallel: usize,
    /// How long one pull may take: so long does a node that hangs keep one of the hands busy. A pull that
    /// takes longer is asked for again and goes on where it was.
    pub node_deadline: Duration,
}

impl Config {
    /// The usual settings: no Redis, four orders at a time, a name made of the host's and the process id.
    pub fn new(master: impl Into<String>) -> Config {
        Config {
            master: master.into(),
            redis: None,
            name: default_name(),
            parallel: 4,
            node_deadline: Duration::from_secs(30),
        }
    }
}

fn default_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { "replicator" } else { host.trim() };
    format!("{host}-{}", std::process::id())
}
