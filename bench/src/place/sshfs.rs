//! sshfs to an sshd of its own on the loopback address. One copy only, and no cluster: it is here because many
//! people use it.

use super::{Place, Processes, subfolder, text};
use crate::mounts::{is_mounted, take_down};
use crate::process::{self, Server, command, free_port, wait_for};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

const START_LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Sshfs {
    folder: PathBuf,
    dir: PathBuf,
    port: u16,
    client: Option<Server>,
    daemon: Server,
}

impl Sshfs {
    pub fn start(folder: &Path) -> anyhow::Result<Sshfs> {
        for key in ["host_key", "user_key"] {
            let file = folder.join(key);
            let args = ["-q", "-t", "ed25519", "-N", "", "-f", text(&file)?];
            process::run(command("ssh-keygen", &args))?;
        }
        // Where sshd puts its unprivileged half; the package's service makes it otherwise.
        std::fs::create_dir_all("/run/sshd")?;
        let port = free_port()?;
        let settings = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {0}/host_key\nAuthorizedKeysFile {0}/user_key.pub\n\
             PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n\
             Subsystem sftp internal-sftp\n",
            text(folder)?
        );
        let settings_file = folder.join("sshd_config");
        std::fs::write(&settings_file, settings)?;
        // sshd insists on being called by its full path.
        let daemon = command("/usr/sbin/sshd", &["-D", "-e", "-f", text(&settings_file)?]);
        let mut daemon = Server::start("sshd", daemon, folder)?;
        wait_for("sshd", START_LIMIT, || {
            daemon.check()?;
            Ok(TcpStream::connect(("127.0.0.1", port)).is_ok())
        })?;
        subfolder(folder, "data")?;
        let dir = subfolder(folder, "mnt")?;
        let mut place = Sshfs { folder: folder.to_owned(), dir, port, client: None, daemon };
        place.mount()?;
        Ok(place)
    }

    fn mount(&mut self) -> anyhow::Result<()> {
        let key = format!("IdentityFile={}", text(&self.folder.join("user_key"))?);
        let (source, port) =
            (format!("127.0.0.1:{}", text(&self.folder.join("data"))?), self.port.to_string());
        let args = [&source, text(&self.dir)?, "-f", "-p", &port, "-o", &key];
        let mut sshfs = command("sshfs", &args);
        sshfs.args([
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "BatchMode=yes",
        ]);
        let mut client = Server::start("sshfs", sshfs, &self.folder)?;
        wait_for("the sshfs mount", START_LIMIT, || {
            client.check()?;
            Ok(is_mounted(&self.dir))
        })?;
        self.client = Some(client);
        Ok(())
    }
}

impl Place for Sshfs {
    fn about(&self) -> String {
        "one copy (no replication), sshd on loopback, encrypted, nothing tuned".into()
    }

    fn version(&self) -> String {
        format!("{}, {}", process::version("sshfs", &["-V"]), process::version("ssh", &["-V"]))
    }

    fn dir(&self) -> &Path {
        &self.dir
    }

    fn make_cold(&mut self) -> anyhow::Result<()> {
        take_down(&self.dir, &mut self.client);
        self.mount()
    }

    fn processes(&self) -> Processes {
        let with_descendants = |pid: u32| [vec![pid], process::descendants(pid)].concat();
        Processes {
            client: self.client.iter().flat_map(|c| with_descendants(c.pid())).collect(),
            servers: with_descendants(self.daemon.pid()),
        }
    }
}

impl Drop for Sshfs {
    fn drop(&mut self) {
        take_down(&self.dir, &mut self.client);
        let sessions = process::descendants(self.daemon.pid());
        self.daemon.end();
        process::end_all(&sessions);
    }
}
