//! `dfs-storagenode`: keeps the bytes of a dfs cluster on a local disk.

use anyhow::Context;
use clap::Parser;
use dfs_storagenode::Config;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

/// Requests under way when the process is told to end may take so long.
const GRACE: Duration = Duration::from_secs(10);

/// Where a master listens when no port is said.
const MASTER_PORT: u16 = 8820;

/// Keeps the bytes of a dfs cluster on a local disk. Registers with the master by itself.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The master, as HOST:PORT or URL.
    #[arg(long, env = "DFS_MASTER", value_parser = |a: &str| dfs_service::server_url(a, MASTER_PORT))]
    master: String,
    /// Directory for everything the node keeps; made when it is missing.
    #[arg(long)]
    data: PathBuf,
    /// Address to listen at.
    #[arg(long, default_value = "0.0.0.0:5000")]
    listen: SocketAddr,
    /// Base URL that others reach this node by, when it is not the listening address.
    #[arg(long)]
    advertise: Option<String>,
    /// Name for people; the master makes one without it.
    #[arg(long, default_value = "")]
    name: String,
    /// Failure domain (rack, room): copies are spread over several.
    #[arg(long, default_value = "")]
    zone: String,
    /// Everything that the node holds is read and verified once in so many hours.
    #[arg(long, default_value_t = 168, value_parser = clap::value_parser!(u32).range(1..))]
    scrub_hours: u32,
    /// Verifying takes at most so many MiB in a second; 0 switches it off.
    #[arg(long, default_value_t = 32)]
    scrub_mib: u32,
    /// Shared secret, when the master was given one.
    #[arg(long, env = "DFS_CLUSTER_KEY", default_value = "", hide_env_values = true)]
    cluster_key: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    dfs_service::memory::give_back_large_buffers();
    dfs_service::logging::init();
    let arguments = Arguments::parse();
    let advertise = match &arguments.advertise {
        Some(address) => {
            Some(dfs_service::server_url(address, arguments.listen.port()).map_err(anyhow::Error::msg)?)
        }
        None => None,
    };
    let listener = TcpListener::bind(arguments.listen)
        .with_context(|| format!("cannot listen at {}", arguments.listen))?;
    let config = Config {
        advertise,
        name: arguments.name,
        zone: arguments.zone,
        cluster_key: arguments.cluster_key,
        scrub_every: Duration::from_secs(u64::from(arguments.scrub_hours) * 3600),
        scrub_bytes_max: u64::from(arguments.scrub_mib) << 20,
        ..Config::new(arguments.master, arguments.data)
    };
    let running = dfs_storagenode::start(config, listener).await?;
    log::info!("serving at {}", running.url());
    let signal = dfs_service::process::wait_for_signal().await?;
    log::info!("{signal}: stopping");
    running.stop(GRACE).await;
    Ok(())
}
