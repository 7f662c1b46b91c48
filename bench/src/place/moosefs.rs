//! MooseFS: one master, three chunkservers, goal 2, as Debian packages it.

use super::{Place, Processes, subfolder, text};
use crate::mounts::{is_mounted, take_down};
use crate::process::{self, Server, command, free_port, wait_for};
use anyhow::Context;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::time::Duration;

const CHUNKSERVERS: usize = 3;
const START_LIMIT: Duration = Duration::from_secs(60);

/// The empty namespace that the package brings.
const EMPTY_METADATA: &str = "/var/lib/mfs/metadata.mfs.empty";

pub(crate) struct MooseFs {
    folder: PathBuf,
    dir: PathBuf,
    host: String,
    client_port: u16,
    client: Option<Server>,
    servers: Vec<Server>,
}

impl MooseFs {
    pub fn start(folder: &Path) -> anyhow::Result<MooseFs> {
        let (client_port, chunk_port, meta_port) = (free_port()?, free_port()?, free_port()?);
        let mut place = MooseFs {
            folder: folder.to_owned(),
            dir: subfolder(folder, "mnt")?,
            host: own_address()?,
            client_port,
            client: None,
            servers: Vec::new(),
        };
        let host = place.host.clone();
        let data = subfolder(folder, "master")?;
        std::fs::copy(EMPTY_METADATA, data.join("metadata.mfs"))?;
        let exports = folder.join("mfsexports.cfg");
        std::fs::write(&exports, "* / rw,alldirs,admin,maproot=0:0\n")?;
        place.serve(
            "mfsmaster",
            "master",
            &format!(
                "DATA_PATH = {}\nEXPORTS_FILENAME = {}\nMATOML_LISTEN_HOST = {host}\nMATOML_LISTEN_PORT = {meta_port}\n\
                 MATOCS_LISTEN_HOST = {host}\nMATOCS_LISTEN_PORT = {chunk_port}\nMATOCL_LISTEN_HOST = {host}\n\
                 MATOCL_LISTEN_PORT = {client_port}\n",
                text(&data)?,
                text(&exports)?
            ),
        )?;
        for i in 0..CHUNKSERVERS {
            let (own, disk) =
                (subfolder(folder, &format!("cs{i}"))?, subfolder(folder, &format!("cs{i}/disk"))?);
            let disks = own.join("mfshdd.cfg");
            std::fs::write(&disks, format!("{}\n", text(&disk)?))?;
            let settings = format!(
                "DATA_PATH = {}\nHDD_CONF_FILENAME = {}\nMASTER_HOST = {host}\nMASTER_PORT = {chunk_port}\n\
                 CSSERV_LISTEN_HOST = {host}\nCSSERV_LISTEN_PORT = {}\n",
                text(&own)?,
                text(&disks)?,
                free_port()?
            );
            place.serve("mfschunkserver", &format!("chunkserver{i}"), &settings)?;
        }
        place.mount()?;
        place.wait_writable()?;
        Ok(place)
    }

    fn serve(&mut self, program: &str, name: &str, settings: &str) -> anyhow::Result<()> {
        let file = self.folder.join(format!("{name}.cfg"));
        // Niceness -19 is its default; nothing else here has a privilege like that.
        let settings = format!("{settings}WORKING_USER = root\nWORKING_GROUP = root\nNICE_LEVEL = 0\n");
        std::fs::write(&file, settings)?;
        let args = ["-c", text(&file)?, "-f", "start"];
        let server = Server::start(name, command(program, &args), &self.folder)?;
        self.servers.insert(0, server);
        Ok(())
    }

    fn mount(&mut self) -> anyhow::Result<()> {
        let port = self.client_port.to_string();
        let args = ["-f", "-H", &self.host, "-P", &port, text(&self.dir)?];
        wait_for("the MooseFS mount", START_LIMIT, || {
            // It gives up when the master does not serve yet.
            let running = self.client.as_mut().is_some_and(|client| client.check().is_ok());
            if !running {
                self.client = Some(Server::start("mfsmount", command("mfsmount", &args), &self.folder)?);
            }
            for server in &mut self.servers {
                server.check()?;
            }
            Ok(is_mounted(&self.dir))
        })
    }

    /// Two copies from the start; and a first file, which is refused until the chunkservers have registered.
    fn wait_writable(&self) -> anyhow::Result<()> {
        process::run(command("mfssetgoal", &["2", text(&self.dir)?]))?;
        let probe = self.dir.join("probe");
        wait_for("three chunkservers", START_LIMIT, || {
            let written = std::fs::write(&probe, "written");
            let copies = process::run(command("mfsfileinfo", &[text(&probe)?])).unwrap_or_default();
            Ok(written.is_ok() && copies.matches("copy ").count() == 2)
        })?;
        Ok(std::fs::remove_file(probe)?)
    }
}

/// An address of this machine that others could reach it by: a chunkserver refuses the loopback's. Nothing is sent to
/// find it out; the kernel only chooses a route.
fn own_address() -> anyhow::Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect("192.0.2.1:9").context("MooseFS needs an address other than the loopback's")?;
    Ok(socket.local_addr()?.ip().to_string())
}

impl Place for MooseFs {
    fn about(&self) -> String {
        "three chunkservers, goal 2, all on this machine, nothing tuned; does not sync before it acknowledges"
            .into()
    }

    fn version(&self) -> String {
        process::version("mfsmaster", &["-v"])
    }

    fn dir(&self) -> &Path {
        &self.dir
    }

    fn make_cold(&mut self) -> anyhow::Result<()> {
        take_down(&self.dir, &mut self.client);
        self.mount()
    }

    fn processes(&self) -> Processes {
        Processes {
            client: self.client.iter().map(Server::pid).collect(),
            servers: self.servers.iter().map(Server::pid).collect(),
        }
    }
}

impl Drop for MooseFs {
    fn drop(&mut self) {
        take_down(&self.dir, &mut self.client);
        let helpers: Vec<u32> =
            self.servers.iter().flat_map(|server| process::descendants(server.pid())).collect();
        self.servers.clear();
        process::end_all(&helpers);
    }
}
