//! Open files and directories.

use crate::VfsError;
use crate::file::File;
use crate::names::Asked;
use crate::pattern::ReadPattern;
use crate::readahead::Window;
use dfs_proto::meta::DirEntry;
use dfs_proto::{Ino, Name};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A handle, as the kernel gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fh(pub u64);

impl fmt::Display for Fh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An open file.
pub(crate) struct FileHandle {
    pub file: Arc<File>,
    pub readable: bool,
    pub writable: bool,
    /// Writes go to the end of the file, wherever they say.
    pub append: bool,
    /// Reads leave the access time alone (O_NOATIME).
    pub no_atime: bool,
    /// The kernel runs the file.
    pub executed: bool,
    /// Writes come past the kernel's page cache, and past what the kernel does for those that do not.
    pub direct: bool,
    /// The inode that the application believes it has open, when its writes go to another file by the
    /// collision rule, with the process that opened it.
    pub diverted_from: Option<(Ino, u32)>,
    /// How it is read. Held for moments only, like the next; taken in this order, and after the file's state.
    pub pattern: Mutex<ReadPattern>,
    /// What is fetched ahead.
    pub window: Mutex<Window>,
}

/// An open directory: the page last fetched, so that the kernel's small buffers cost one round trip a page.
pub(crate) struct DirHandle {
    pub ino: Ino,
    pub listing: tokio::sync::Mutex<Listing>,
    /// Names that have changed since the page was asked for. Held for moments only.
    pub changed: Mutex<HashSet<Name>>,
}

impl DirHandle {
    pub fn new(ino: Ino) -> DirHandle {
        DirHandle { ino, listing: Default::default(), changed: Default::default() }
    }
}

#[derive(Default)]
pub(crate) struct Listing {
    pub page: Vec<DirEntry>,
    /// The page follows this cookie.
    pub page_after: u64,
    /// Whether the page is the last.
    pub end: bool,
    /// Before the page was asked for; `None` when there is none yet.
    pub asked: Option<Asked>,
    /// Names that existed here only when the listing began, each in a place of its own; `None` where the
    /// master has listed it.
    pub pending: Vec<Option<(Name, Ino)>>,
}

/// The handles of a mount.
#[derive(Default)]
pub(crate) struct Handles {
    next: AtomicU64,
    files: Mutex<HashMap<Fh, Arc<FileHandle>>>,
    dirs: Mutex<HashMap<Fh, Arc<DirHandle>>>,
}

impl Handles {
    fn fresh(&self) -> Fh {
        Fh(self.next.fetch_add(1, Ordering::Relaxed) + 1)
    }

    pub fn add_file(&self, handle: FileHandle) -> Fh {
        let fh = self.fresh();
        self.files.lock().insert(fh, Arc::new(handle));
        fh
    }

    pub fn add_dir(&self, handle: DirHandle) -> Fh {
        let fh = self.fresh();
        self.dirs.lock().insert(fh, Arc::new(handle));
        fh
    }

    pub fn file(&self, fh: Fh) -> Result<Arc<FileHandle>, VfsError> {
        self.files.lock().get(&fh).cloned().ok_or(VfsError::BadHandle(fh))
    }

    pub fn dir(&self, fh: Fh) -> Result<Arc<DirHandle>, VfsError> {
        self.dirs.lock().get(&fh).cloned().ok_or(VfsError::BadHandle(fh))
    }

    /// Open handles of the directory.
    pub fn dirs_of(&self, ino: Ino) -> Vec<Arc<DirHandle>> {
        self.dirs.lock().values().filter(|dir| dir.ino == ino).cloned().collect()
    }

    /// Handles through which the file can be written.
    pub fn writers_of(&self, file: &Arc<File>) -> Vec<Fh> {
        let files = self.files.lock();
        let of_file = files.iter().filter(|(_, handle)| handle.writable && Arc::ptr_eq(&handle.file, file));
        of_file.map(|(fh, _)| *fh).collect()
    }

    /// Whether a program that was started on this mount runs from the file.
    pub fn is_executed(&self, ino: Ino) -> bool {
        self.files.lock().values().any(|handle| handle.executed && handle.file.ino == ino)
    }

    /// Drops what was fetched ahead for readers that have not come for it. A window that is in use is none of them.
    pub fn drop_idle_windows(&self) {
        for handle in self.files.lock().values() {
            if let Some(mut window) = handle.window.try_lock() {
                window.clear_if_idle();
            }
        }
    }

    pub fn remove_file(&self, fh: Fh) -> Option<Arc<FileHandle>> {
        self.files.lock().remove(&fh)
    }

    pub fn remove_dir(&self, fh: Fh) {
        self.dirs.lock().remove(&fh);
    }

    /// A handle of process `pid` whose writes to `ino` go to another file.
    pub fn diverted(&self, ino: Ino, pid: u32) -> Option<Arc<FileHandle>> {
        self.files.lock().values().find(|h| h.diverted_from == Some((ino, pid))).cloned()
    }
}
