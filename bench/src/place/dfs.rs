//! This system: master, three storage nodes, replicator and mount, each a process of its own.

use super::{Place, Processes, subfolder, text};
use crate::mounts::{is_mounted, take_down};
use crate::process::{self, Server, command, free_port, wait_for};
use anyhow::Context;
use serde_json::Value;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

const NODES: usize = 3;

/// How long any of them may take to serve, on a machine that is busy with other things.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How long copies may take to be made.
const SETTLE_LIMIT: Duration = Duration::from_secs(180);

/// Copies count as made when the master has said so this many times in a row, [`SETTLE_LOOK`] apart: it learns
/// from its nodes' heartbeats (every second) what there is to copy.
const SETTLED_LOOKS: usize = 3;
const SETTLE_LOOK: Duration = Duration::from_millis(400);

pub(crate) struct Dfs {
    bin: PathBuf,
    flags: Vec<String>,
    /// How often in a row the master has to say that all copies are made.
    settled_looks: usize,
    folder: PathBuf,
    dir: PathBuf,
    master_address: String,
    mount: Option<Server>,
    /// Replicator, nodes, master: ended in this order.
    servers: Vec<Server>,
}

impl Dfs {
    pub fn start(bin: &Path, flags: &[String], is_hurried: bool, folder: &Path) -> anyhow::Result<Dfs> {
        let mut dfs = Dfs {
            bin: bin.to_owned(),
            flags: flags.to_vec(),
            settled_looks: if is_hurried { 1 } else { SETTLED_LOOKS },
            folder: folder.to_owned(),
            dir: subfolder(folder, "mnt")?,
            master_address: String::new(),
            mount: None,
            servers: Vec::new(),
        };
        let data = folder.join("master");
        dfs.master_address = dfs.serve("dfs-master", "master", &["--data", text(&data)?])?;
        let master = dfs.master_address.clone();
        for i in 0..NODES {
            let name = format!("sn{i}");
            let data = folder.join(&name);
            let args = ["--master", &master, "--name", &name, "--data", text(&data)?];
            dfs.serve("dfs-storagenode", &name, &args)?;
        }
        let replicator = command(dfs.program("dfs-replicator")?, &["--master", &master]);
        dfs.servers.insert(0, Server::start("replicator", replicator, folder)?);
        wait_for("three live nodes", START_LIMIT, || {
            let nodes = dfs.status()?["nodes"].as_array().map_or(0, |nodes| {
                nodes.iter().filter(|n| n["state"] == "live" || n["info"]["state"] == "live").count()
            });
            Ok(nodes == NODES)
        })?;
        dfs.mount()?;
        Ok(dfs)
    }

    fn program(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.bin.join(name);
        anyhow::ensure!(
            path.exists(),
            "{} is not there: build it first (cargo build --release --bins)",
            path.display()
        );
        Ok(path)
    }

    /// Starts a server at a free port and returns its address when it serves.
    fn serve(&mut self, program: &str, name: &str, args: &[&str]) -> anyhow::Result<String> {
        let address = format!("127.0.0.1:{}", free_port()?);
        let mut command = command(self.program(program)?, args);
        command.args(["--listen", &address]);
        let mut server = Server::start(name, command, &self.folder)?;
        wait_for(&format!("{name} to serve"), START_LIMIT, || {
            server.check()?;
            Ok(TcpStream::connect(&address).is_ok())
        })?;
        self.servers.insert(0, server);
        Ok(address)
    }

    fn status(&self) -> anyhow::Result<Value> {
        let args = ["--json", "--master", &self.master_address, "status"];
        let answer = process::run(command(self.program("dfs")?, &args))?;
        serde_json::from_str(&answer).context("dfs status does not answer JSON")
    }

    fn mount(&mut self) -> anyhow::Result<()> {
        let args = [text(&self.dir)?, "--foreground", "--master", &self.master_address];
        let mut command = command(self.program("dfs-mount")?, &args);
        command.args(&self.flags);
        let mut mount = Server::start("mount", command, &self.folder)?;
        wait_for("the mount", START_LIMIT, || {
            mount.check()?;
            Ok(is_mounted(&self.dir))
        })?;
        self.mount = Some(mount);
        Ok(())
    }
}

impl Place for Dfs {
    fn about(&self) -> String {
        format!("{NODES} storage nodes, two copies, each program a process of its own, settings as they come")
    }

    fn version(&self) -> String {
        let version = process::version(&self.bin.join("dfs").to_string_lossy(), &["--version"]);
        let folder = self.bin.to_string_lossy().into_owned();
        let head = process::run(command("git", &["-C", &folder, "rev-parse", "--short", "HEAD"]));
        // A folder of programs need not be in a repository.
        head.map_or(version.clone(), |head| format!("{version} ({})", head.trim()))
    }

    fn dir(&self) -> &Path {
        &self.dir
    }

    fn make_cold(&mut self) -> anyhow::Result<()> {
        take_down(&self.dir, &mut self.mount);
        self.mount()
    }

    fn settle(&mut self) -> anyhow::Result<()> {
        let mut quiet = 0;
        wait_for("all copies to be made", SETTLE_LIMIT, || {
            let status = self.status()?;
            let replication = &status["replication"];
            let is_quiet = replication["volumes_behind"] == 0 && replication["orders_queued"] == 0;
            quiet = if is_quiet { quiet + 1 } else { 0 };
            if quiet < self.settled_looks {
                std::thread::sleep(SETTLE_LOOK);
            }
            Ok(quiet >= self.settled_looks)
        })
    }

    fn processes(&self) -> Processes {
        Processes {
            client: self.mount.iter().map(Server::pid).collect(),
            servers: self.servers.iter().map(Server::pid).collect(),
        }
    }
}

impl Drop for Dfs {
    fn drop(&mut self) {
        take_down(&self.dir, &mut self.mount);
    }
}
