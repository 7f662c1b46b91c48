//! The command line of `dfs-mount`.

use crate::MountConfig;
use dfs_proto::CollisionPolicy;
use dfs_vfs::AtimePolicy;
use std::path::PathBuf;
use std::time::Duration;

/// The values of `--atime`, as mount(8) names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Atime {
    /// After each change once, and once a day.
    Relatime,
    /// Never.
    Noatime,
}

/// Mounts a dfs cluster as a directory.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "dfs-mount", version)]
pub struct Args {
    /// The directory to mount at
    pub mountpoint: PathBuf,
    /// The master
    #[arg(long, value_name = "HOST:PORT", env = "DFS_MASTER", default_value = "127.0.0.1:8820")]
    pub master: String,
    /// Stay in the foreground and log to standard error
    #[arg(long)]
    pub foreground: bool,
    /// Where the mount logs when it runs in the background
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
    /// What writing a whole new file does when its name is taken: `rename` keeps the old one and stores the
    /// new one as name-1.ext, `replace` overwrites
    #[arg(long, default_value = "rename")]
    pub collision: CollisionPolicy,
    /// When reads change access times: `relatime` does once after each change and once a day, `noatime` never
    #[arg(long, value_enum, default_value_t = Atime::Relatime)]
    pub atime: Atime,
    /// Let device nodes open their devices, as on a local disk. Whoever can write to the cluster can then make
    /// a node for any device of this machine
    #[arg(long)]
    pub dev: bool,
    /// Memory for blobs that have been read, MiB
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u32).range(8..65536))]
    pub cache_mib: u32,
    /// Memory for data that has been written and not stored yet, MiB
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u32).range(16..65536))]
    pub staging_mib: u32,
    /// Read everything by HTTP, also from storage nodes on this host
    #[arg(long)]
    pub no_local_reads: bool,
    /// Seconds until an operation that gets no answer from the master fails
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..3600))]
    pub deadline: u64,
}

impl Args {
    /// The settings they stand for; an error says which of them is wrong.
    pub fn config(&self) -> anyhow::Result<MountConfig> {
        let master = dfs_service::server_url(&self.master, 8820).map_err(anyhow::Error::msg)?;
        let mut config = MountConfig::new(&self.mountpoint, master);
        config.deadline = Duration::from_secs(self.deadline);
        config.dev = self.dev;
        config.local_reads = !self.no_local_reads;
        config.vfs.collision = self.collision;
        config.vfs.atime = match self.atime {
            Atime::Relatime => AtimePolicy::Relatime,
            Atime::Noatime => AtimePolicy::Never,
        };
        config.vfs.cache_bytes_max = (self.cache_mib as usize) << 20;
        config.vfs.staged_bytes_max = (self.staging_mib as usize) << 20;
        Ok(config)
    }

    /// Where to log in the background: what was asked for, else the system's log folder, else the user's
    /// home.
    pub fn log_file(&self) -> PathBuf {
        if let Some(path) = &self.log {
            return path.clone();
        }
        let system = PathBuf::from("/var/log");
        // SAFETY: the string is NUL-terminated and access(2) only reads it.
        if unsafe { libc::access(c"/var/log".as_ptr(), libc::W_OK) } == 0 {
            return system.join("dfs-mount.log");
        }
        PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/tmp".into())).join(".dfs-mount.log")
    }
}
