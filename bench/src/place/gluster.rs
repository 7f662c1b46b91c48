//! GlusterFS: three bricks' worth of nodes, two copies, as Debian packages it.
//!
//! A volume of replica 2 wants pairs of bricks, so each of the three nodes has two: the pairs are chained (1-2, 2-3,
//! 3-1). All run under one glusterd with a folder and a socket of its own. Its port is not chosen: bricks ask for their
//! settings at the usual one whatever glusterd was told, so no other glusterd may run at [`HOST`].

use super::{Place, Processes, subfolder, text};
use crate::mounts::{is_mounted, unmount};
use crate::process::{self, Server, command, wait_for};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `gluster volume create` refuses 127.0.0.1 by name; the rest of the loopback network is as local.
const HOST: &str = "127.0.0.2";
const VOLUME: &str = "bench";
const START_LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct Gluster {
    folder: PathBuf,
    dir: PathBuf,
    daemon: Option<Server>,
}

impl Gluster {
    pub fn start(folder: &Path) -> anyhow::Result<Gluster> {
        let (work, run) = (subfolder(folder, "glusterd")?, subfolder(folder, "run")?);
        let mut place = Gluster { folder: folder.to_owned(), dir: subfolder(folder, "mnt")?, daemon: None };
        let settings = format!(
            "volume management
 type mgmt/glusterd
 option working-directory {}
 option run-directory {}
 \
             option glusterd-sockfile {}
 option transport-type socket
 \
             option transport.socket.bind-address {HOST}
 option transport.address-family inet
end-volume
",
            text(&work)?,
            text(&run)?,
            text(&place.socket())?
        );
        let settings_file = folder.join("glusterd.vol");
        std::fs::write(&settings_file, settings)?;
        let args = [
            "--no-daemon".to_owned(),
            format!("--volfile={}", text(&settings_file)?),
            format!("--pid-file={}", text(&folder.join("glusterd.pid"))?),
            format!("--log-file={}", text(&folder.join("glusterd-own.log"))?),
        ];
        place.daemon = Some(Server::start("glusterd", command("glusterd", &args), folder)?);
        wait_for("glusterd", START_LIMIT, || {
            if let Some(daemon) = &mut place.daemon {
                daemon.check()?;
            }
            Ok(place.gluster(&["volume", "list"]).is_ok())
        })?;
        let bricks = [(1, 1), (2, 1), (2, 2), (3, 1), (3, 2), (1, 2)].map(|(node, brick)| {
            format!("{HOST}:{}", folder.join(format!("node{node}/brick{brick}")).display())
        });
        let create: Vec<&str> = ["volume", "create", VOLUME, "replica", "2"]
            .into_iter()
            .chain(bricks.iter().map(String::as_str))
            .chain(["force"])
            .collect();
        for node in 1..=3 {
            subfolder(folder, &format!("node{node}"))?;
        }
        place.gluster(&create)?;
        place.gluster(&["volume", "start", VOLUME])?;
        place.mount()?;
        Ok(place)
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("glusterd.sock")
    }

    fn gluster(&self, args: &[&str]) -> anyhow::Result<String> {
        let socket = format!("--glusterd-sock={}", text(&self.socket())?);
        let log = format!("--log-file={}", text(&self.folder.join("cli.log"))?);
        process::run(command("gluster", &[&["--mode=script", &socket, &log], args].concat()))
    }

    fn mount(&self) -> anyhow::Result<()> {
        let args = [
            format!("--volfile-server={HOST}"),
            format!("--volfile-id={VOLUME}"),
            format!("--log-file={}", text(&self.folder.join("client.log"))?),
            text(&self.dir)?.to_owned(),
        ];
        process::run(command("glusterfs", &args))?;
        wait_for("the GlusterFS mount", START_LIMIT, || {
            Ok(is_mounted(&self.dir) && std::fs::read_dir(&self.dir).is_ok())
        })
    }

    /// Everything of this place has its folder in its command line, the daemons that split off included.
    fn all(&self) -> Vec<u32> {
        text(&self.folder).map(|f| process::with_text_in_command_line(&format!("{f}/"))).unwrap_or_default()
    }
}

impl Place for Gluster {
    fn about(&self) -> String {
        "replica 2 on six bricks in chained pairs (three nodes of two), loopback, nothing tuned".into()
    }

    fn version(&self) -> String {
        process::version("glusterfs", &["--version"])
    }

    fn dir(&self) -> &Path {
        &self.dir
    }

    fn make_cold(&mut self) -> anyhow::Result<()> {
        let clients = self.processes().client;
        unmount(&self.dir);
        // They end by themselves a moment after their mount.
        process::end_all(&clients);
        self.mount()
    }

    fn processes(&self) -> Processes {
        let is_client = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&format!("--volfile-id={VOLUME}"))
        };
        let (client, servers) = self.all().into_iter().partition(is_client);
        Processes { client, servers }
    }
}

impl Drop for Gluster {
    fn drop(&mut self) {
        let all = self.all();
        unmount(&self.dir);
        if let Err(e) = self.gluster(&["volume", "stop", VOLUME, "force"]) {
            eprintln!("{e:#}");
        }
        if let Some(daemon) = &mut self.daemon {
            daemon.end();
        }
        // Those that ended with the volume have to be reaped, too.
        process::end_all(&[all, self.all()].concat());
    }
}
