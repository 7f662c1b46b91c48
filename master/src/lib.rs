//! The master: the namespace in its tables, the control plane over storage nodes, and their HTTP.
//!
//! ```text
//! http/*    one file per noun: extracts, calls, answers
//! gateway/* /files/{path}: whole files over plain HTTP
//! meta      batches of operations           -> dfs-namespace in transactions of dfs-metastore
//! sessions  clients, leases, open files
//! locks     who waits for a lock
//! cluster/* nodes, volumes, grants, orders  -> dfs-queue
//! events    what changed, for caches elsewhere
//! backup    copies of the tables on storage nodes
//! ```
//!
//! Nothing but this crate decides where copies belong. It does not know how nodes keep bytes.

mod backup;
mod cluster;
mod config;
mod error;
mod events;
mod gateway;
mod housekeeping;
mod http;
mod locks;
mod master;
mod meta;
mod sessions;
mod stamps;

pub use config::{Config, SharedClock};

use anyhow::Context;
use dfs_client::{HttpNodes, NodeClient};
use dfs_service::{Running, Stopper};
use master::Master;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

/// How long telling one node to delete a batch of blobs may take.
const DELETE_DEADLINE: Duration = Duration::from_secs(30);

/// After the end of the server, how long requests under way may hold the database open.
const CLOSE_PATIENCE: Duration = Duration::from_secs(3);

/// Starts a master that answers at `listener`. It serves once this returns.
pub async fn start(config: Config, listener: TcpListener) -> anyhow::Result<Running> {
    let address = listener.local_addr().context("the listener has no address")?;
    let master = Master::open(config).await?;
    let mut running = Running::new("dfs-master");
    let server = http::serve(Arc::clone(&master), listener, running.stopper())?;
    running.serve(address, server);

    running.spawn(Arc::clone(&master.cluster).sweep_forever(running.stopper()));
    running.spawn(Arc::clone(&master.cluster).order_forever(running.stopper()));
    running.spawn(housekeeping::tidy_forever(Arc::clone(&master), running.stopper()));
    let nodes: Arc<dyn NodeClient> = Arc::new(HttpNodes::new(DELETE_DEADLINE)?);
    running.spawn(housekeeping::collect_forever(Arc::clone(&master), Arc::clone(&nodes), running.stopper()));
    running.spawn(Arc::clone(&master.cluster).trim_forever(nodes, running.stopper()));
    running.spawn(backup::back_up_forever(Arc::clone(&master), running.stopper()));
    log::info!(
        "the master of {} serves at {address}; data in {}",
        master.cluster.name(),
        master.config.data.display()
    );
    running.spawn(close_at_the_end(master, running.stopper()));
    Ok(running)
}

/// Closes the database when the last request is done with it, so that the data can be opened again at once.
async fn close_at_the_end(master: Arc<Master>, mut stopper: Stopper) {
    stopper.stopped().await;
    let deadline = tokio::time::Instant::now() + CLOSE_PATIENCE;
    while Arc::strong_count(&master) > 1 && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let store = master.store.clone();
    drop(master);
    if let Err(e) = tokio::task::spawn_blocking(move || store.close()).await {
        log::error!("the database was not closed in order: {e}");
    }
}
