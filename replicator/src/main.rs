//! The `dfs-replicator` program.

use clap::Parser;
use dfs_replicator::Config;
use std::time::Duration;

/// How long orders in hand may take to end.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// Makes the copies: carries out the master's replication orders.
#[derive(Parser)]
#[command(name = "dfs-replicator", version)]
struct Arguments {
    /// The master, HOST[:PORT]
    #[arg(long, env = "DFS_MASTER")]
    master: String,
    /// Redis that the master puts orders into, redis://HOST:PORT; without it orders come from the master
    #[arg(long, env = "DFS_REDIS", hide_env_values = true)]
    redis: Option<String>,
    /// Name for logs and the queue [default: host and process id]
    #[arg(long)]
    name: Option<String>,
    /// Orders carried out at the same time
    #[arg(long, default_value_t = 4)]
    parallel: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    dfs_service::memory::give_back_large_buffers();
    dfs_service::logging::init();
    let mut config = Config::new(arguments.master);
    config.redis = arguments.redis;
    config.parallel = arguments.parallel;
    if let Some(name) = arguments.name {
        config.name = name;
    }
    let running = dfs_replicator::start(config).await?;
    let signal = dfs_service::process::wait_for_signal().await?;
    log::info!("{signal}: ending the orders in hand");
    running.stop(STOP_GRACE).await;
    Ok(())
}
