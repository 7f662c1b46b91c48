//! Starting, stopping and finding the services.

use crate::address::{bind, bind_again, host_of};
use crate::config::ClusterConfig;
use crate::wait::wait_for;
use anyhow::{Context, ensure};
use dfs_client::MasterClient;
use dfs_proto::NodeState;
use dfs_proto::limits::BLOB_BYTES_MAX;
use dfs_service::Running;
use std::fs::{File, TryLockError};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long requests under way may go on when a service is stopped.
const GRACE: Duration = Duration::from_secs(3);
/// How long a service may take from its start until it serves.
const READY: Duration = Duration::from_secs(30);
/// How long one question to the master may take.
const ASK: Duration = Duration::from_secs(5);

/// A running cluster. Dropping it stops everything without waiting; [`Cluster::stop`] waits.
#[derive(Debug)]
pub struct Cluster {
    config: ClusterConfig,
    master: Service,
    nodes: Vec<Node>,
    replicator: Option<Running>,
    host: String,
    // Held for as long as the cluster stands: two on one data folder would ruin it.
    _lock: File,
}

/// One storage node of a cluster.
#[derive(Debug)]
pub struct Node {
    name: String,
    data: PathBuf,
    service: Service,
}

/// What listens: its address for good, and its run while there is one.
#[derive(Debug)]
struct Service {
    address: SocketAddr,
    url: String,
    running: Option<Running>,
}

impl Node {
    /// Its name (`sn1`).
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its base URL.
    pub fn url(&self) -> &str {
        &self.service.url
    }

    /// The folder that holds its records.
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    /// Whether it has been started and not stopped.
    pub fn is_running(&self) -> bool {
        self.service.running.is_some()
    }
}

impl Cluster {
    /// Starts the master, the nodes and a replicator, and waits until all nodes are registered.
    ///
    /// Errors say what could not be started and why; what had been started is stopped then.
    pub async fn start(config: ClusterConfig) -> anyhow::Result<Cluster> {
        std::fs::create_dir_all(&config.data)
            .with_context(|| format!("cannot make the data folder {}", config.data.display()))?;
        let lock = lock(&config.data)?;
        let listener = bind(config.listen)?;
        let host = host_of(config.listen.ip(), config.advertise_host.as_deref());
        let master = Service::new(&listener, &host)?;
        let mut cluster = Cluster { config, master, nodes: Vec::new(), replicator: None, host, _lock: lock };
        cluster.run_master(listener).await?;
        let nodes = cluster.config.nodes.max(nodes_in(&cluster.config.data));
        for _ in 0..nodes {
            cluster.begin_node().await?;
        }
        cluster.start_replicator().await?;
        cluster.wait_registered().await?;
        Ok(cluster)
    }

    /// Base URL of the master.
    pub fn master_url(&self) -> &str {
        &self.master.url
    }

    /// The folder that everything is in.
    pub fn data_dir(&self) -> &Path {
        &self.config.data
    }

    /// How many nodes it has, stopped ones included.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// The `i`-th node, from 0. Panics when there are not as many.
    pub fn node(&self, i: usize) -> &Node {
        &self.nodes[i]
    }

    /// All nodes, stopped ones included.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Starts one more node and waits until it is registered; returns its index.
    pub async fn add_node(&mut self) -> anyhow::Result<usize> {
        let i = self.begin_node().await?;
        self.wait_registered().await?;
        Ok(i)
    }

    /// Stops the `i`-th node; its data stays. Does nothing when it is stopped already.
    pub async fn stop_node(&mut self, i: usize) {
        if let Some(running) = self.nodes[i].service.running.take() {
            running.stop(GRACE).await;
        }
    }

    /// Starts a stopped node again, with the same data at the same port, and waits until it is registered.
    pub async fn start_node(&mut self, i: usize) -> anyhow::Result<()> {
        ensure!(!self.nodes[i].is_running(), "{} is running", self.nodes[i].name);
        let listener = bind_again(self.nodes[i].service.address).await?;
        self.run_node(i, listener).await?;
        self.wait_registered().await
    }

    /// Stops the master; its data stays. Does nothing when it is stopped already.
    pub async fn stop_master(&mut self) {
        if let Some(running) = self.master.running.take() {
            running.stop(GRACE).await;
        }
    }

    /// Starts a stopped master again, with the same data at the same port. Returns once it serves; nodes
    /// find back to it by themselves.
    pub async fn start_master(&mut self) -> anyhow::Result<()> {
        ensure!(self.master.running.is_none(), "the master is running");
        let listener = bind_again(self.master.address).await?;
        self.run_master(listener).await
    }

    /// Stops the replicator. Does nothing when it is stopped already.
    pub async fn stop_replicator(&mut self) {
        if let Some(running) = self.replicator.take() {
            running.stop(GRACE).await;
        }
    }

    /// Starts a stopped replicator again.
    pub async fn start_replicator(&mut self) -> anyhow::Result<()> {
        ensure!(self.replicator.is_none(), "the replicator is running");
        let mut config = dfs_replicator::Config::new(self.master.url.clone());
        config.redis = self.config.redis.clone();
        config.name = "replicator".to_owned();
        self.replicator = Some(dfs_replicator::start(config).await.context("cannot start the replicator")?);
        Ok(())
    }

    /// Stops everything: first who gives work, then who has the data.
    pub async fn stop(mut self) {
        self.stop_replicator().await;
        for i in 0..self.nodes.len() {
            self.stop_node(i).await;
        }
        self.stop_master().await;
    }

    /// A plain client of the master.
    fn client(&self) -> anyhow::Result<MasterClient> {
        Ok(MasterClient::new(&self.master.url, ASK)?)
    }

    async fn run_master(&mut self, listener: TcpListener) -> anyhow::Result<()> {
        let running =
            dfs_master::start(self.config.master(), listener).await.context("cannot start the master")?;
        self.master.running = Some(running);
        let client = self.client()?;
        wait_for("the master serving", READY, || async { client.healthy().await.map_err(|e| e.to_string()) })
            .await
    }

    /// Starts the next node without waiting for its registration.
    async fn begin_node(&mut self) -> anyhow::Result<usize> {
        let i = self.nodes.len();
        let name = format!("sn{}", i + 1);
        let listener = bind(SocketAddr::new(self.config.listen.ip(), 0))?;
        let service = Service::new(&listener, &self.host)?;
        self.nodes.push(Node { data: self.config.data.join(&name), name, service });
        self.run_node(i, listener).await?;
        Ok(i)
    }

    async fn run_node(&mut self, i: usize, listener: TcpListener) -> anyhow::Result<()> {
        let node = &mut self.nodes[i];
        let mut config = dfs_storagenode::Config::new(self.master.url.clone(), node.data.clone());
        config.name = node.name.clone();
        config.advertise = Some(node.service.url.clone());
        // Nodes in one process share the memory that one node would have.
        let sharing = self.config.nodes.max(1);
        config.put_bytes_max = (config.put_bytes_max / sharing).max(2 * BLOB_BYTES_MAX);
        config.get_bytes_max = (config.get_bytes_max / sharing).max(2 * BLOB_BYTES_MAX);
        let running = dfs_storagenode::start(config, listener)
            .await
            .with_context(|| format!("cannot start the storage node {}", node.name))?;
        node.service.running = Some(running);
        Ok(())
    }

    /// Waits until the master sees every started node alive at its present address.
    async fn wait_registered(&self) -> anyhow::Result<()> {
        let client = &self.client()?;
        wait_for("the storage nodes registering", READY, || async {
            let known = client.nodes().await.map_err(|e| e.to_string())?;
            let live = |node: &&Node| {
                known.iter().any(|k| k.info.url == node.url() && k.info.state == NodeState::Live)
            };
            let started = self.nodes.iter().filter(|n| n.is_running());
            let missing: Vec<&str> = started.filter(|n| !live(n)).map(Node::name).collect();
            if missing.is_empty() { Ok(()) } else { Err(format!("{} missing", missing.join(", "))) }
        })
        .await
    }
}

impl Service {
    fn new(listener: &TcpListener, host: &str) -> anyhow::Result<Service> {
        let address = listener.local_addr().context("a listener without an address")?;
        Ok(Service { address, url: format!("http://{host}:{}", address.port()), running: None })
    }
}

/// Takes the data folder for this process.
fn lock(data: &Path) -> anyhow::Result<File> {
    let path = data.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => anyhow::bail!(
            "{} is in use by a running cluster: stop it, or choose another data folder",
            data.display()
        ),
        Err(TryLockError::Error(e)) => Err(e).with_context(|| format!("cannot lock {}", path.display())),
    }
}

/// How many nodes have left data in `data`: its folders `sn1`, `sn2`, ... up to the first that is missing.
fn nodes_in(data: &Path) -> usize {
    (1..).take_while(|n| data.join(format!("sn{n}")).is_dir()).count()
}
