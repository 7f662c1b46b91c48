//! A plain FUSE file system over a directory of the same disk: what FUSE itself costs.

use super::{Place, Processes, subfolder};
use crate::mounts::{is_mounted, take_down};
use crate::process::{Server, command, wait_for};
use std::path::{Path, PathBuf};
use std::time::Duration;

const START_LIMIT: Duration = Duration::from_secs(20);

pub(crate) struct Passthrough {
    folder: PathBuf,
    below: PathBuf,
    dir: PathBuf,
    server: Option<Server>,
}

impl Passthrough {
    pub fn start(folder: &Path) -> anyhow::Result<Passthrough> {
        let (below, dir) = (subfolder(folder, "below")?, subfolder(folder, "mnt")?);
        let mut place = Passthrough { folder: folder.to_owned(), below, dir, server: None };
        place.mount()?;
        Ok(place)
    }

    fn mount(&mut self) -> anyhow::Result<()> {
        let own = std::env::current_exe()?;
        let args = ["passthrough".as_ref(), self.below.as_os_str(), self.dir.as_os_str()];
        let mut server = Server::start("passthrough", command(own, &args), &self.folder)?;
        wait_for("the pass-through", START_LIMIT, || {
            server.check()?;
            Ok(is_mounted(&self.dir))
        })?;
        self.server = Some(server);
        Ok(())
    }
}

impl Place for Passthrough {
    fn about(&self) -> String {
        "FUSE over a directory of the same disk, one copy: each request one system call there, requests of 1 MiB, \
         two threads, kernel's page cache kept, no FUSE passthrough. Its cold reads find the data in the disk's \
         page cache, as a server would"
            .into()
    }

    fn version(&self) -> String {
        "bench/src/passthrough.rs".into()
    }

    fn dir(&self) -> &Path {
        &self.dir
    }

    fn make_cold(&mut self) -> anyhow::Result<()> {
        take_down(&self.dir, &mut self.server);
        self.mount()
    }

    fn processes(&self) -> Processes {
        Processes { client: self.server.iter().map(Server::pid).collect(), servers: Vec::new() }
    }

    fn is_complete(&self) -> bool {
        false
    }
}

impl Drop for Passthrough {
    fn drop(&mut self) {
        take_down(&self.dir, &mut self.server);
    }
}
