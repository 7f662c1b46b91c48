//! A storage node: the bytes of a cluster, on one local disk.
//!
//! Owns segments, the index, group commit and recovery ([`store`]), the requests that reach them ([`http`]),
//! and the node's standing with the master ([`registration`]). It must not know files, names or where other
//! copies belong: it is told which volumes it is the primary of, and where to copy from.

pub mod backups;
pub mod config;
pub mod error;
pub mod foreground;
pub mod http;
pub mod identity;
pub mod index;
pub mod local;
pub mod memory;
pub mod node;
pub mod pull;
pub mod ranges;
pub mod record;
pub mod recovery;
pub mod registration;
pub mod scrub;
pub mod segment;
pub mod sidecar;
pub mod store;
pub mod sys;

pub use config::Config;

use anyhow::Context;
use backups::Backups;
use dfs_client::{HttpNodes, MasterClient};
use dfs_service::{Running, SystemClock};
use memory::Memory;
use node::{Node, Parts};
use registration::Registration;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;
use store::{BlobStore, StoreConfig};

/// The master answers registrations and heartbeats within this.
const MASTER_DEADLINE: Duration = Duration::from_secs(5);

/// Another node sends a piece of log within this.
const PEER_DEADLINE: Duration = Duration::from_secs(30);

/// Requests that were cut off at the end may take so long to let go of the store.
const LET_GO: Duration = Duration::from_secs(10);

/// Starts a node that is served at `listener`. Returns once the data directory has been recovered; the node
/// registers with the master in the background, however long that takes.
///
/// Errors: the data directory is used by another process, cannot be read or written, or an address cannot be
/// understood.
pub async fn start(mut config: Config, listener: TcpListener) -> anyhow::Result<Running> {
    let address = listener.local_addr().context("the listener has no address")?;
    let master =
        MasterClient::new(&config.master, MASTER_DEADLINE).context("cannot use the master's address")?;
    let peers = Arc::new(HttpNodes::new(PEER_DEADLINE).context("cannot set up requests to other nodes")?);
    let data = config.data.clone();
    let store_config = StoreConfig {
        dir: data.join("segments"),
        segment_bytes_max: config.segment_bytes_max,
        reserve_bytes: config.reserve_bytes,
    };
    let opening = tokio::task::spawn_blocking(move || {
        std::fs::create_dir_all(&data).with_context(|| format!("cannot make {}", data.display()))?;
        let lock = identity::lock(&data)?;
        let identity = identity::Identity::load(&data)?;
        let store = BlobStore::open(&store_config)
            .with_context(|| format!("cannot open the store in {}", data.display()))?;
        anyhow::Ok((lock, identity, store))
    });
    let (lock, mut identity, store) = opening.await.context("opening the store was cut off")??;
    if !config.name.is_empty() {
        identity.name = std::mem::take(&mut config.name);
    }
    let store = Arc::new(store);
    let (in_use, let_go) = tokio::sync::mpsc::channel(1);
    let local = local::listen();
    let local =
        local.inspect_err(|e| log::warn!("readers on this host use HTTP: no socket for them: {e}")).ok();
    let node = Arc::new(Node::new(Parts {
        store: store.clone(),
        clock: Arc::new(SystemClock::default()),
        put_memory: Memory::new(config.put_bytes_max),
        get_memory: Memory::new(config.get_bytes_max),
        peers,
        backups: Backups::new(&config.data),
        cluster_key: config.cluster_key.clone(),
        local: local.as_ref().map(|(_, socket)| socket.clone()),
        in_use,
    }));
    let mut running = Running::new("storagenode");
    if let Some((listener, _)) = local {
        running.spawn(local::serve(node.clone(), listener, running.stopper()));
    }
    running.serve(address, http::server(node.clone(), listener, config.workers)?);
    running.spawn(scrub::Scrub::new(&config, node.clone()).run(running.stopper()));
    let registration = Registration {
        node,
        master,
        url: config.advertise.clone().unwrap_or_else(|| format!("http://{address}")),
        config,
        identity,
        incarnation: rand::random(),
    };
    running.spawn(registration.run(running.stopper()));
    running.spawn(close_at_end(store, lock, let_go, running.stopper()));
    Ok(running)
}

/// Closes the store when the service is stopped and no request uses it any more.
async fn close_at_end(
    store: Arc<BlobStore>,
    lock: identity::DirLock,
    mut let_go: tokio::sync::mpsc::Receiver<()>,
    mut stopper: dfs_service::Stopper,
) {
    stopper.stopped().await;
    if let Err(e) = store.reap().await {
        log::warn!("cannot remove dead segments: {e}");
    }
    // Ends when the last sender, which is in the node, is dropped.
    if tokio::time::timeout(LET_GO, let_go.recv()).await.is_err() {
        log::warn!("requests still use the store; it is closed under them");
    }
    if let Err(e) = tokio::task::spawn_blocking(move || store.close()).await {
        log::error!("closing the store was cut off: {e}");
    }
    drop(lock);
}
