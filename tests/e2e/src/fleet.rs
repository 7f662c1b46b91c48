//! A cluster of processes.

use crate::client::Client;
use crate::http::Http;
use crate::ports::free_port;
use crate::process::{Process, Program};
use crate::redis::RedisServer;
use crate::wait::{PATIENCE, wait_for};
use dfs_client::MasterClient;
use dfs_proto::node::CopyInfo;
use dfs_proto::status::{ClusterStatus, LayoutReply};
use dfs_proto::{BlobRef, NodeState};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

/// Flags of the master: what takes seconds in a data centre takes less here, but not so little that a busy
/// machine looks like a dead one. Garbage goes soon, so that what goes by mistake is missed.
const MASTER_FLAGS: [(&str, &str); 5] = [
    ("--heartbeat-ms", "250"),
    ("--suspect-after-ms", "1500"),
    ("--dead-after-ms", "4000"),
    ("--sweep-ms", "250"),
    ("--garbage-grace-ms", "1000"),
];

/// Tries to start a server at a port that somebody else may get first.
const PORT_TRIES: usize = 5;

/// One look at the master.
const LOOK_DEADLINE: Duration = Duration::from_secs(10);

/// What a cluster is made of.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Storage nodes.
    pub nodes: usize,
    /// Replicators.
    pub replicators: usize,
    /// Where replication orders wait.
    pub redis: RedisUse,
}

/// Where replication orders wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisUse {
    /// In the master.
    None,
    /// In a Redis that is empty after a kill.
    Forgetful,
    /// In a Redis that keeps what it has.
    Kept,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup { nodes: 3, replicators: 1, redis: RedisUse::None }
    }
}

/// A storage node.
pub struct Node {
    /// The process.
    pub process: Process,
    /// Base URL.
    pub url: String,
    /// Everything that it keeps.
    pub data: PathBuf,
}

/// A cluster of processes. The fields go in this order: what uses a server before the server, the folder last.
pub struct Fleet {
    mounts: Vec<Mount>,
    /// The replicators.
    pub replicators: Vec<Process>,
    /// The storage nodes.
    pub nodes: Vec<Node>,
    /// The master.
    pub master: Process,
    /// The queue, when it is not in the master.
    pub redis: Option<RedisServer>,
    master_url: String,
    folder: TempDir,
}

struct Mount {
    process: Process,
    at: PathBuf,
}

impl Fleet {
    /// Starts everything and waits until the nodes take data.
    pub async fn start(setup: Setup) -> Fleet {
        let folder = tempfile::Builder::new().prefix("dfs-e2e-").tempdir().expect("a temporary folder");
        let path = folder.path();
        let redis = match setup.redis {
            RedisUse::None => None,
            RedisUse::Forgetful => Some(RedisServer::start(path, false).await),
            RedisUse::Kept => Some(RedisServer::start(path, true).await),
        };
        let redis_url = redis.as_ref().map(RedisServer::url);
        let data = path.join("master");
        let (master, master_url) = start_server("master", path, |listen| {
            let mut args = vec!["--data", path_text(&data), "--listen", listen];
            args.extend(MASTER_FLAGS.iter().flat_map(|(flag, value)| [*flag, *value]));
            args.extend(redis_url.iter().flat_map(|url| ["--redis", url]));
            Program::built("master", "dfs-master", &args)
        })
        .await;
        let mut fleet = Fleet {
            mounts: Vec::new(),
            replicators: Vec::new(),
            nodes: Vec::new(),
            master,
            redis,
            master_url,
            folder,
        };
        for _ in 0..setup.replicators {
            fleet.add_replicator();
        }
        for _ in 0..setup.nodes {
            fleet.add_node().await;
        }
        fleet.wait_live(setup.nodes).await;
        fleet
    }

    /// Base URL of the master.
    pub fn master_url(&self) -> &str {
        &self.master_url
    }

    /// The folder of everything that the processes write.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The master by HTTP, the gateway included.
    pub fn http(&self) -> Http {
        Http::new(&self.master_url)
    }

    /// The master by the library.
    pub fn master_client(&self) -> MasterClient {
        MasterClient::new(&self.master_url, LOOK_DEADLINE).expect("the URL of the master")
    }

    /// A client with a session of its own and nothing cached.
    pub async fn client(&self) -> Client {
        Client::connect(&self.master_url).await
    }

    /// Starts another storage node; returns its place in `nodes` when it serves.
    pub async fn add_node(&mut self) -> usize {
        let i = self.nodes.len();
        let name = format!("sn{i}");
        let data = self.folder().join(&name);
        let (process, url) = start_server(&name, self.folder(), |listen| {
            let args = ["--master", &self.master_url, "--data", path_text(&data), "--listen", listen];
            Program::built(&name, "dfs-storagenode", &[&args[..], &["--name", &name]].concat())
        })
        .await;
        self.nodes.push(Node { process, url, data });
        i
    }

    /// Starts another replicator.
    pub fn add_replicator(&mut self) {
        let name = format!("replicator{}", self.replicators.len());
        let redis_url = self.redis.as_ref().map(RedisServer::url);
        let mut args = vec!["--master", &self.master_url, "--name", &name];
        args.extend(redis_url.iter().flat_map(|url| ["--redis", url]));
        let program = Program::built(&name, "dfs-replicator", &args);
        self.replicators.push(Process::start(program, self.folder()));
    }

    /// Starts the master again and waits until it serves.
    pub async fn restart_master(&mut self) {
        self.master.restart();
        self.wait_serving(&self.master_url).await;
    }

    /// Starts a node again and waits until it serves.
    pub async fn restart_node(&mut self, i: usize) {
        self.nodes[i].process.restart();
        self.wait_serving(&self.nodes[i].url).await;
    }

    async fn wait_serving(&self, url: &str) {
        wait_for(&format!("{url} to serve"), PATIENCE, async || is_serving(url).await).await;
    }

    /// Mounts the cluster once more; returns where when the mount answers.
    pub async fn mount(&mut self) -> PathBuf {
        self.mount_with(&[]).await
    }

    /// Mounts the cluster once more, with further flags; returns where when the mount answers.
    pub async fn mount_with(&mut self, flags: &[&str]) -> PathBuf {
        let name = format!("mount{}", self.mounts.len());
        let at = self.folder().join("mnt").join(&name);
        std::fs::create_dir_all(&at).expect("a mount point can be made");
        let args = [&[path_text(&at), "--master", &self.master_url, "--foreground"], flags].concat();
        let process = Process::start(Program::built(&name, "dfs-mount", &args), self.folder());
        self.mounts.push(Mount { process, at: at.clone() });
        let mount = self.mounts.last_mut().expect("it was just added");
        wait_for(&format!("{name} to be mounted"), PATIENCE, async || {
            if let Some(status) = mount.process.ended() {
                panic!("{name} ended with {status}:\n{}", mount.process.log_end());
            }
            if is_mounted(&mount.at) { Ok(()) } else { Err("not mounted".into()) }
        })
        .await;
        at
    }

    /// The process of the `i`-th mount.
    pub fn mount_process(&self, i: usize) -> &Process {
        &self.mounts[i].process
    }

    /// The processes of all mounts.
    pub fn mount_processes(&self) -> impl Iterator<Item = &Process> {
        self.mounts.iter().map(|mount| &mount.process)
    }

    /// Ends the `i`-th mount by SIGTERM; fails when it does not end well.
    pub fn unmount(&mut self, i: usize) {
        self.mounts[i].process.terminate();
        assert!(!is_mounted(&self.mounts[i].at), "{} is still mounted", self.mounts[i].at.display());
    }

    /// The cluster's status.
    pub async fn status(&self) -> Result<ClusterStatus, String> {
        self.master_client().status().await.map_err(|e| e.to_string())
    }

    /// Waits until the master sees so many nodes as live.
    pub async fn wait_live(&self, count: usize) {
        wait_for(&format!("{count} live nodes"), PATIENCE, async || {
            let nodes = self.status().await?.nodes;
            let states: Vec<_> = nodes.iter().map(|n| (n.info.name.as_str(), n.info.state)).collect();
            match states.iter().filter(|(_, state)| *state == NodeState::Live).count() {
                live if live == count => Ok(()),
                _ => Err(format!("{states:?}")),
            }
        })
        .await;
    }

    /// Waits until no copy is behind and no damage is known.
    pub async fn wait_replicated(&self) {
        wait_for("all copies to be made", PATIENCE, async || {
            let r = self.status().await?.replication;
            if r.volumes_behind == 0 && r.bad_blobs == 0 { Ok(()) } else { Err(format!("{r:?}")) }
        })
        .await;
    }

    /// Waits until each blob of the file at `path` is on as many nodes that are not dead as it should be.
    pub async fn wait_whole(&self, path: &str) {
        wait_for(&format!("all copies of {path}"), PATIENCE, async || {
            let layout = self.layout(path).await?;
            blobs(&layout).try_for_each(|blob| {
                let copies = whole_copies(&layout, blob);
                if copies.len() >= layout.replicas as usize { Ok(()) } else { Err(format!("{layout:?}")) }
            })
        })
        .await;
    }

    /// Where the file at `path` is.
    pub async fn layout(&self, path: &str) -> Result<LayoutReply, String> {
        self.master_client().layout(path.as_bytes()).await.map_err(|e| format!("layout of {path}: {e}"))
    }

    /// The first blob of the file at `path` and the places in `nodes` of those who have it, primary first.
    pub async fn first_blob(&self, path: &str) -> (BlobRef, Vec<usize>) {
        let layout = self.layout(path).await.expect("a layout");
        let blob = blobs(&layout).next().unwrap_or_else(|| panic!("{path} has no blob: {layout:?}"));
        let place = |copy: &CopyInfo| self.nodes.iter().position(|n| n.url == copy.node.url);
        let copies = whole_copies(&layout, blob);
        (blob, copies.into_iter().map(|copy| place(copy).expect("a node of this fleet")).collect())
    }
}

fn blobs(layout: &LayoutReply) -> impl Iterator<Item = BlobRef> {
    layout.extents.iter().filter_map(|extent| extent.blob)
}

fn whole_copies(layout: &LayoutReply, blob: BlobRef) -> Vec<&CopyInfo> {
    let volume = layout.volumes.iter().find(|v| v.id == blob.id.volume);
    let volume = volume.unwrap_or_else(|| panic!("the layout does not say where {} is", blob.id));
    volume.copies.iter().filter(|c| c.seq >= blob.seq && c.node.state != NodeState::Dead).collect()
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for mount in &mut self.mounts {
            mount.process.kill9();
            detach(&mount.at);
        }
    }
}

/// Takes a mount away, also one whose process is gone or hangs.
fn detach(at: &Path) {
    let Ok(path) = std::ffi::CString::new(path_text(at)) else { return };
    // SAFETY: the path is NUL-terminated and umount2(2) only reads it.
    unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    if is_mounted(at) {
        // Without the privilege for umount2, fusermount3 may.
        let _ = std::process::Command::new("fusermount3").args(["-uz", path_text(at)]).status();
    }
}

fn is_mounted(at: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("/proc/self/mounts can be read");
    mounts.lines().any(|line| line.split(' ').nth(1) == at.to_str())
}

fn path_text(path: &Path) -> &str {
    path.to_str().expect("temporary folders have UTF-8 names")
}

async fn is_serving(url: &str) -> Result<(), String> {
    match Http::new(url).get("/healthz").await {
        Ok(answer) if answer.status == 200 => Ok(()),
        Ok(answer) => Err(format!("{} {}", answer.status, answer.text())),
        Err(e) => Err(e.to_string()),
    }
}

/// Starts a server at a free port and waits until it serves; somebody else may get the port first.
async fn start_server(name: &str, folder: &Path, program: impl Fn(&str) -> Program) -> (Process, String) {
    for _ in 0..PORT_TRIES {
        let listen = format!("127.0.0.1:{}", free_port());
        let url = format!("http://{listen}");
        let mut process = Process::start(program(&listen), folder);
        let started = wait_for(&format!("{name} to serve"), PATIENCE, async || match process.ended() {
            Some(status) => Ok(Err(status)),
            None => is_serving(&url).await.map(Ok),
        })
        .await;
        match started {
            Ok(()) => return (process, url),
            Err(_) if process.log_end().contains("Address already in use") => {}
            Err(status) => panic!("{name} ended with {status}:\n{}", process.log_end()),
        }
    }
    panic!("{name}: {PORT_TRIES} free ports were taken by others before it could use them");
}
