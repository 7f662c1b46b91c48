//! A cluster in this process with mounts of it.

use dfs_cluster::{Cluster, ClusterConfig};
pub use dfs_e2e::noise;
use dfs_mount::{MountConfig, Mounted, mount};
use dfs_proto::CollisionPolicy;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// How long anything in these tests may take until it counts as failed. Not a measurement.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Fields go in this order: mounts before the cluster that they are of, the runtime that serves them last.
pub struct Bed {
    mounts: Vec<Option<Mounted>>,
    pub cluster: Option<Cluster>,
    pub dir: TempDir,
    pub runtime: Runtime,
}

impl Bed {
    pub fn new() -> Bed {
        Bed::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut ClusterConfig)) -> Bed {
        dfs_service::logging::init();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(4).enable_all().build().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut config = ClusterConfig::for_tests(dir.path().join("data"));
        change(&mut config);
        let cluster = runtime.block_on(Cluster::start(config)).unwrap();
        Bed { mounts: Vec::new(), cluster: Some(cluster), dir, runtime }
    }

    pub fn cluster(&mut self) -> &mut Cluster {
        self.cluster.as_mut().unwrap()
    }

    /// Mounts the cluster once more; the path is where.
    pub fn mount(&mut self) -> PathBuf {
        self.mount_with(|_| {})
    }

    pub fn mount_replacing(&mut self) -> PathBuf {
        self.mount_with(|config| config.vfs.collision = CollisionPolicy::Replace)
    }

    pub fn mount_with(&mut self, change: impl FnOnce(&mut MountConfig)) -> PathBuf {
        let at = self.dir.path().join(format!("mnt{}", self.mounts.len()));
        std::fs::create_dir_all(&at).unwrap();
        let mut config = MountConfig::new(&at, self.cluster.as_ref().unwrap().master_url());
        config.deadline = DEADLINE;
        change(&mut config);
        let mounted = self.runtime.block_on(mount(config)).unwrap();
        self.mounts.push(Some(mounted));
        at
    }

    /// Unmounts the `i`-th mount, and fails when anything was not saved.
    pub fn unmount(&mut self, i: usize) {
        let mounted = self.mounts[i].take().unwrap();
        self.runtime.block_on(mounted.unmount()).unwrap();
    }

    /// Waits for the end of a mount that somebody else has unmounted.
    pub fn wait_unmounted(&mut self, i: usize) {
        let mounted = self.mounts[i].take().unwrap();
        self.runtime.block_on(mounted.wait()).unwrap();
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _in_runtime = self.runtime.enter();
        self.mounts.clear();
        if let Some(cluster) = self.cluster.take() {
            self.runtime.block_on(cluster.stop());
        }
    }
}

/// Runs a shell line with `$1`, `$2`, ... as arguments and insists on success.
pub fn sh(line: &str, args: &[&Path]) -> String {
    let output = sh_output(line, args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "`{line}` {args:?} failed: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

pub fn sh_output(line: &str, args: &[&Path]) -> Output {
    Command::new("timeout").args(["60", "sh", "-c", line, "sh"]).args(args).output().unwrap()
}

/// Waits until `done` says so; fails with the last state that it told.
pub fn wait_for(what: &str, mut done: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match done() {
            Ok(()) => return,
            Err(state) => {
                assert!(Instant::now() < deadline, "{what}: not within {DEADLINE:?}; last: {state}")
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn list(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
