//! The life of a mount.

use crate::adapter::{Adapter, report_unsaved};
use crate::direct;
use crate::kernel::KernelNotes;
use crate::predecessors;
use crate::requests::Requests;
use anyhow::Context;
use dfs_client::{Blobs, BlobsConfig, HttpNodes, MasterClient, Session, Subscription};
use dfs_vfs::{AtimePolicy, Vfs, VfsConfig};
use fuser::{Config, MountOption, SessionACL};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long the mount waits for the kernel to be done with it after a lazy unmount.
const DETACH_WAIT: Duration = Duration::from_secs(10);

/// How far the kernel reads ahead of a sequential reader, KiB: one blob.
const READ_AHEAD_KIB: usize = dfs_proto::limits::BLOB_BYTES_MAX >> 10;

/// Settings of a mount.
#[derive(Clone, Debug)]
pub struct MountConfig {
    /// Where.
    pub mountpoint: PathBuf,
    /// Base URL of the master.
    pub master: String,
    /// Settings of the file system itself.
    pub vfs: VfsConfig,
    /// Deadline of an operation at the master, retries included.
    pub deadline: Duration,
    /// Threads that read requests from the kernel.
    pub threads: usize,
    /// Whether users other than the one who mounts may use it (they may by default when root mounts).
    pub allow_other: bool,
    /// Whether device nodes open their devices. Off by default: the nodes come from the cluster, and whoever
    /// can make one there could reach any device here.
    pub dev: bool,
    /// Whether files of storage nodes on this host are read directly.
    pub local_reads: bool,
}

impl MountConfig {
    /// A mount of the master at base URL `master`, with the usual settings.
    pub fn new(mountpoint: impl Into<PathBuf>, master: impl Into<String>) -> MountConfig {
        MountConfig {
            mountpoint: mountpoint.into(),
            master: master.into(),
            vfs: VfsConfig { direct_writers: true, ..VfsConfig::default() },
            deadline: Duration::from_secs(30),
            threads: 2,
            // SAFETY: geteuid has no preconditions and cannot fail.
            allow_other: unsafe { libc::geteuid() } == 0,
            dev: false,
            local_reads: true,
        }
    }
}

/// A mount that answers. When it is dropped without [`Mounted::unmount`] the kernel is detached from it,
/// and what was not published is lost.
pub struct Mounted {
    mountpoint: PathBuf,
    vfs: Arc<Vfs>,
    session: Arc<Session>,
    ended: watch::Receiver<bool>,
    /// Keeps the note for those who come after this mount.
    note: Option<JoinHandle<()>>,
    _events: Subscription,
}

/// Mounts. Returns once the mount answers.
pub async fn mount(config: MountConfig) -> anyhow::Result<Mounted> {
    let mountpoint = check_mountpoint(&config.mountpoint)?;
    let master = MasterClient::new(&config.master, config.deadline)?;
    master.healthy().await.with_context(|| format!("no dfs master answers at {}", config.master))?;
    let client = format!("dfs-mount@{}:{} {}", host_name(), std::process::id(), mountpoint.display());
    let session = Session::open(master, client).await?;
    let note = predecessors::succeed(&session).await;
    let blobs = BlobsConfig { local_reads: config.local_reads, ..BlobsConfig::default() };
    let data = Blobs::new(session.clone(), Arc::new(HttpNodes::new(config.deadline)?), blobs);
    let direct_writers = config.vfs.direct_writers && direct::is_coherent_here();
    let vfs = Vfs::new(VfsConfig { direct_writers, ..config.vfs.clone() }, session.clone(), data);
    let background = {
        let adapter = Adapter {
            vfs: vfs.clone(),
            runtime: tokio::runtime::Handle::current(),
            requests: Requests::default(),
            session: session.clone(),
        };
        let (options, at) = (options(&config), mountpoint.clone());
        tokio::task::spawn_blocking(move || fuser::spawn_mount(adapter, &at, &options))
            .await?
            .with_context(|| format!("cannot mount at {}", mountpoint.display()))?
    };
    raise_read_ahead(&mountpoint).await;
    vfs.set_kernel(Arc::new(KernelNotes::start(background.notifier())?));
    let events = session.subscribe(vfs.clone());
    let (end, ended) = watch::channel(false);
    std::thread::Builder::new().name("dfs-fuse".into()).spawn(move || {
        if let Err(e) = background.join() {
            log::error!("the kernel ended the mount: {e}");
        }
        end.send_replace(true);
    })?;
    log::info!("{} is mounted at {}", config.master, mountpoint.display());
    let note = note.map(|note| tokio::spawn(predecessors::keep(note, session.clone())));
    Ok(Mounted { mountpoint, vfs, session, ended, note, _events: events })
}

/// Lets the kernel read ahead further than the 128 KiB that it offers a FUSE mount by itself: with requests of
/// 1 MiB, several at a time, a sequential reader waits for fewer wake-ups. Needs root; without it the mount
/// goes on with what the kernel offers.
async fn raise_read_ahead(mountpoint: &Path) {
    let path = mountpoint.to_owned();
    let raised = tokio::task::spawn_blocking(move || {
        let device = std::fs::metadata(&path)?.dev();
        let (major, minor) = (libc::major(device), libc::minor(device));
        std::fs::write(format!("/sys/class/bdi/{major}:{minor}/read_ahead_kb"), READ_AHEAD_KIB.to_string())
    })
    .await;
    match raised {
        Ok(Ok(())) => {}
        Ok(Err(e)) => log::debug!("the kernel's read-ahead stays as it is: {e}"),
        Err(e) => log::warn!("the kernel's read-ahead stays as it is: {e}"),
    }
}

fn check_mountpoint(path: &Path) -> anyhow::Result<PathBuf> {
    let path = path.canonicalize().with_context(|| {
        format!("the mount point {} cannot be used; does the directory exist?", path.display())
    })?;
    anyhow::ensure!(path.is_dir(), "the mount point {} is no directory", path.display());
    Ok(path)
}

fn options(config: &MountConfig) -> Config {
    let mut options = Config::default();
    options.mount_options = vec![
        MountOption::FSName(config.master.trim_start_matches("http://").to_owned()),
        MountOption::Subtype("dfs".into()),
        MountOption::DefaultPermissions,
        if config.dev { MountOption::Dev } else { MountOption::NoDev },
    ];
    // Access times are the file system's own business; this shows the choice in /proc/mounts.
    if config.vfs.atime == AtimePolicy::Never {
        options.mount_options.push(MountOption::NoAtime);
    }
    options.acl = if config.allow_other { SessionACL::All } else { SessionACL::Owner };
    options.n_threads = Some(config.threads.max(1));
    options.clone_fd = config.threads > 1;
    options
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| "?".into(), |s| s.trim().to_owned())
}

impl Mounted {
    /// Where it is mounted.
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// Returns when somebody else has unmounted it (`umount`).
    pub async fn ended(&self) {
        // An error means that the thread is gone, which is the same.
        let _ = self.ended.clone().wait_for(|ended| *ended).await;
    }

    /// Waits until somebody unmounts it, then saves what is left.
    pub async fn wait(self) -> anyhow::Result<()> {
        self.ended().await;
        self.finish().await
    }

    /// Saves everything and unmounts. Files that are still open stay usable for those who have them open
    /// until the wait for them is over.
    pub async fn unmount(self) -> anyhow::Result<()> {
        report_unsaved(&self.vfs.sync_all().await);
        detach(&self.mountpoint).with_context(|| format!("cannot unmount {}", self.mountpoint.display()))?;
        if tokio::time::timeout(DETACH_WAIT, self.ended()).await.is_err() {
            log::warn!("{}: files are still open; the mount ends without them", self.mountpoint.display());
        }
        self.finish().await
    }

    async fn finish(self) -> anyhow::Result<()> {
        let unsaved = self.vfs.sync_all().await;
        report_unsaved(&unsaved);
        self.session.close().await;
        if let Some(note) = &self.note {
            note.abort();
        }
        anyhow::ensure!(unsaved.is_empty(), "{} files could not be saved; the log says why", unsaved.len());
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(note) = &self.note {
            note.abort();
        }
        if !*self.ended.borrow()
            && let Err(e) = detach(&self.mountpoint)
        {
            log::debug!("cannot detach {}: {e}", self.mountpoint.display());
        }
    }
}

/// Takes the mount out of the tree at once; the kernel ends it when its last file is closed (umount2(2),
/// MNT_DETACH). Without the privilege, fusermount3 does it.
fn detach(mountpoint: &Path) -> std::io::Result<()> {
    let path = CString::new(mountpoint.as_os_str().as_bytes())?;
    // SAFETY: `path` is a valid NUL-terminated string that outlives the call.
    if unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) } == 0 {
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    match error.raw_os_error() {
        // Not a mount point any more.
        Some(libc::EINVAL) => Ok(()),
        Some(libc::EPERM) => {
            let status = std::process::Command::new("fusermount3").arg("-uz").arg(mountpoint).status()?;
            if status.success() { Ok(()) } else { Err(error) }
        }
        _ => Err(error),
    }
}
