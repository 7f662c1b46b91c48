//! `dfs-master`: the namespace and the control plane of a dfs cluster.

use anyhow::Context;
use clap::Parser;
use dfs_master::Config;
use std::path::PathBuf;
use std::time::Duration;

/// Requests under way when the process is told to end may take so long.
const GRACE: Duration = Duration::from_secs(5);

/// The namespace and the control plane of a dfs cluster.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Folder for the database; made when it is missing.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Where to listen.
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8820")]
    listen: String,
    /// Copies that each file should have.
    #[arg(long, value_name = "N", default_value_t = 2)]
    replicas: u32,
    /// Redis that holds the orders for replicators (redis://HOST:PORT); without it they ask this master.
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// Secret that storage nodes have to know.
    #[arg(long, value_name = "SECRET", env = "DFS_CLUSTER_KEY", default_value = "", hide_env_values = true)]
    cluster_key: String,
    /// Between heartbeats of a node, ms.
    #[arg(long, value_name = "MS")]
    heartbeat_ms: Option<u64>,
    /// Silence after which a node gets no new data, ms.
    #[arg(long, value_name = "MS")]
    suspect_after_ms: Option<u64>,
    /// Silence after which a node's copies are made elsewhere, ms.
    #[arg(long, value_name = "MS")]
    dead_after_ms: Option<u64>,
    /// Silence after which a client's session is over, ms.
    #[arg(long, value_name = "MS")]
    session_lease_ms: Option<u64>,
    /// Between looks for what is due, ms.
    #[arg(long, value_name = "MS")]
    sweep_ms: Option<u64>,
    /// From the last reference to data until it may be deleted, ms.
    #[arg(long, value_name = "MS")]
    garbage_grace_ms: Option<u64>,
    /// Between copies of the database that are put on storage nodes, minutes; 0 for none.
    #[arg(long, value_name = "MINUTES", default_value_t = 15)]
    backup_minutes: u32,
    /// Volumes that take new data on each node.
    #[arg(long, value_name = "N")]
    open_volumes_per_node: Option<u32>,
    /// Size at which a volume takes no more, bytes.
    #[arg(long, value_name = "BYTES")]
    volume_bytes_max: Option<u64>,
}

impl Args {
    fn config(&self) -> Config {
        let defaults = Config::new(&self.data);
        Config {
            replicas: self.replicas,
            redis: self.redis.clone(),
            cluster_key: self.cluster_key.clone(),
            heartbeat_ms: self.heartbeat_ms.unwrap_or(defaults.heartbeat_ms),
            suspect_after_ms: self.suspect_after_ms.unwrap_or(defaults.suspect_after_ms),
            dead_after_ms: self.dead_after_ms.unwrap_or(defaults.dead_after_ms),
            session_lease_ms: self.session_lease_ms.unwrap_or(defaults.session_lease_ms),
            sweep_ms: self.sweep_ms.unwrap_or(defaults.sweep_ms),
            garbage_grace_ms: self.garbage_grace_ms.unwrap_or(defaults.garbage_grace_ms),
            backup_ms: u64::from(self.backup_minutes) * 60_000,
            open_volumes_per_node: self.open_volumes_per_node.unwrap_or(defaults.open_volumes_per_node),
            volume_bytes_max: self.volume_bytes_max.unwrap_or(defaults.volume_bytes_max),
            ..defaults
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    dfs_service::memory::give_back_large_buffers();
    dfs_service::logging::init();
    let listener = std::net::TcpListener::bind(&args.listen)
        .with_context(|| format!("cannot listen at {}", args.listen))?;
    let running = dfs_master::start(args.config(), listener).await?;
    let signal = dfs_service::process::wait_for_signal().await?;
    log::info!("{signal}: stopping");
    running.stop(GRACE).await;
    Ok(())
}
