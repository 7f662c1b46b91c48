//! What a cluster is made of.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// Port of the master.
const MASTER_PORT: u16 = 8820;

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// Folder for everything; made when it is missing. Started again on it, a cluster has all its files.
    pub data: PathBuf,
    /// Storage nodes to start with. More are started when the data folder has more.
    pub nodes: usize,
    /// Copies that each file should have.
    pub replicas: u32,
    /// Where the master listens; port 0 takes any free one. The nodes listen at the same address on any
    /// free ports.
    pub listen: SocketAddr,
    /// Host by which other machines reach this one; needed only when `listen` has no address of its own
    /// (`0.0.0.0`) and the one that the machine reaches others by is not meant.
    pub advertise_host: Option<String>,
    /// URL of a Redis for the orders (`redis://127.0.0.1:6379`); without one the master keeps them.
    pub redis: Option<String>,
    /// How long things take.
    pub timings: Timings,
    /// Volumes that take new data on each node.
    pub open_volumes_per_node: u32,
    /// Size at which a volume takes no more, bytes.
    pub volume_bytes_max: u64,
}

impl ClusterConfig {
    /// Three nodes, two copies, the master at 127.0.0.1:8820, no Redis.
    pub fn new(data: impl Into<PathBuf>) -> ClusterConfig {
        let data = data.into();
        let master = dfs_master::Config::new(&data);
        ClusterConfig {
            data,
            nodes: 3,
            replicas: master.replicas,
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), MASTER_PORT),
            advertise_host: None,
            redis: None,
            timings: Timings {
                heartbeat_ms: master.heartbeat_ms,
                suspect_after_ms: master.suspect_after_ms,
                dead_after_ms: master.dead_after_ms,
                session_lease_ms: master.session_lease_ms,
                sweep_ms: master.sweep_ms,
                garbage_grace_ms: master.garbage_grace_ms,
            },
            open_volumes_per_node: master.open_volumes_per_node,
            volume_bytes_max: master.volume_bytes_max,
        }
    }

    /// For tests: any free port, and failures noticed within a second or two.
    pub fn for_tests(data: impl Into<PathBuf>) -> ClusterConfig {
        ClusterConfig {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            timings: Timings::fast(),
            ..ClusterConfig::new(data)
        }
    }

    /// What the master gets of it.
    pub(crate) fn master(&self) -> dfs_master::Config {
        let mut config = dfs_master::Config::new(self.data.join("master"));
        config.replicas = self.replicas;
        config.redis = self.redis.clone();
        config.heartbeat_ms = self.timings.heartbeat_ms;
        config.suspect_after_ms = self.timings.suspect_after_ms;
        config.dead_after_ms = self.timings.dead_after_ms;
        config.session_lease_ms = self.timings.session_lease_ms;
        config.sweep_ms = self.timings.sweep_ms;
        config.garbage_grace_ms = self.timings.garbage_grace_ms;
        config.open_volumes_per_node = self.open_volumes_per_node;
        config.volume_bytes_max = self.volume_bytes_max;
        config
    }
}

/// How long things take; see the master's options of the same names.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// Between heartbeats of a node, ms.
    pub heartbeat_ms: u64,
    /// Silence after which a node gets no new data, ms.
    pub suspect_after_ms: u64,
    /// Silence after which a node's copies are made elsewhere, ms.
    pub dead_after_ms: u64,
    /// Silence after which a session is over, ms.
    pub session_lease_ms: u64,
    /// Between looks for copies that are behind, ms.
    pub sweep_ms: u64,
    /// From the last reference to a blob until it may be deleted, ms.
    pub garbage_grace_ms: u64,
}

impl Timings {
    /// Everything as quick as a busy machine with two cores keeps up with.
    pub fn fast() -> Timings {
        Timings {
            heartbeat_ms: 200,
            suspect_after_ms: 1_500,
            dead_after_ms: 4_000,
            session_lease_ms: 10_000,
            sweep_ms: 200,
            garbage_grace_ms: 1_000,
        }
    }
}
