//! Where the work is done.

use anyhow::Context;
use dfs_cluster::{Cluster, ClusterConfig};
use dfs_mount::{MountConfig, Mounted, mount};
use std::path::{Path, PathBuf};
use tokio::runtime::Runtime;

/// A directory that can forget what it has cached.
pub trait Place {
    /// For the table.
    fn name(&self) -> &'static str;
    /// The directory.
    fn dir(&self) -> &Path;
    /// Makes the client forget what it has in memory.
    fn forget(&mut self) -> anyhow::Result<()>;
    /// Takes everything down.
    fn end(self: Box<Self>) -> anyhow::Result<()>;
}

/// A directory of the disk itself.
pub struct BareDisk {
    dir: PathBuf,
}

impl BareDisk {
    pub fn new(dir: PathBuf) -> anyhow::Result<BareDisk> {
        std::fs::create_dir_all(&dir)?;
        Ok(BareDisk { dir })
    }
}

impl Place for BareDisk {
    fn name(&self) -> &'static str {
        "bare disk"
    }

    fn dir(&self) -> &Path {
        &self.dir
    }

    fn forget(&mut self) -> anyhow::Result<()> {
        // Clean pages can be dropped file by file, which leaves the caches of others alone.
        for entry in std::fs::read_dir(&self.dir)? {
            let file = std::fs::File::open(entry?.path())?;
            file.sync_all()?;
            // SAFETY: the descriptor is open for the call; the advice touches no memory.
            unsafe {
                libc::posix_fadvise(std::os::fd::AsRawFd::as_raw_fd(&file), 0, 0, libc::POSIX_FADV_DONTNEED)
            };
        }
        Ok(())
    }

    fn end(self: Box<Self>) -> anyhow::Result<()> {
        Ok(())
    }
}

/// A cluster in this process, mounted.
pub struct MountedCluster<'a> {
    runtime: &'a Runtime,
    cluster: Cluster,
    mounted: Option<Mounted>,
    at: PathBuf,
}

impl<'a> MountedCluster<'a> {
    pub fn start(runtime: &'a Runtime, base: &Path) -> anyhow::Result<MountedCluster<'a>> {
        let mut config = ClusterConfig::new(base.join("cluster"));
        config.listen.set_port(0);
        let cluster = runtime.block_on(Cluster::start(config)).context("cannot start a cluster")?;
        let at = base.join("mnt");
        std::fs::create_dir_all(&at)?;
        let mut place = MountedCluster { runtime, cluster, mounted: None, at };
        place.mount()?;
        Ok(place)
    }

    fn mount(&mut self) -> anyhow::Result<()> {
        let config = MountConfig::new(&self.at, self.cluster.master_url());
        self.mounted = Some(self.runtime.block_on(mount(config))?);
        Ok(())
    }

    fn unmount(&mut self) -> anyhow::Result<()> {
        match self.mounted.take() {
            Some(mounted) => self.runtime.block_on(mounted.unmount()),
            None => Ok(()),
        }
    }
}

impl Place for MountedCluster<'_> {
    fn name(&self) -> &'static str {
        "dfs mount"
    }

    fn dir(&self) -> &Path {
        &self.at
    }

    fn forget(&mut self) -> anyhow::Result<()> {
        self.unmount()?;
        self.mount()
    }

    fn end(mut self: Box<Self>) -> anyhow::Result<()> {
        self.unmount()?;
        let place = *self;
        place.runtime.block_on(place.cluster.stop());
        Ok(())
    }
}
