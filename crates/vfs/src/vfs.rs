//! The mount's state.

use crate::access_times::{AccessTimes, renewed};
use crate::cache::BlobCache;
use crate::catch_up::Heard;
use crate::clock::Clock;
use crate::closes::Closes;
use crate::file::{File, FileState, Origin};
use crate::gather::Gathering;
use crate::handle::{FileHandle, Handles};
use crate::inode_numbers::InodeNumbers;
use crate::invalidate::KernelCaches;
use crate::names::{Asked, Names, PassedOn};
use crate::readahead::AheadRoom;
use crate::staging::{Budget, OpenBuffers};
use crate::{AtimePolicy, Listed, VfsConfig, VfsError};
use dfs_client::{DataClient, MetaClient};
use dfs_proto::meta::{ReadOp, WriteOp};
use dfs_proto::{Attr, Ino, MetaOp, MetaReply};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// A mounted file system. See the crate's documentation.
pub struct Vfs {
    pub(crate) config: VfsConfig,
    pub(crate) meta: Arc<dyn MetaClient>,
    pub(crate) data: Arc<dyn DataClient>,
    pub(crate) cache: Arc<BlobCache>,
    pub(crate) budget: Arc<Budget>,
    pub(crate) open_buffers: OpenBuffers,
    pub(crate) gathering: Gathering,
    pub(crate) uploads: Arc<Semaphore>,
    pub(crate) ahead_room: Arc<AheadRoom>,
    /// Files that are open or dirty.
    pub(crate) files: Mutex<HashMap<Ino, Arc<File>>>,
    pub(crate) handles: Handles,
    pub(crate) names: Names,
    pub(crate) numbers: InodeNumbers,
    pub(crate) clock: Clock,
    pub(crate) access_times: Arc<AccessTimes>,
    pub(crate) closes: Arc<Closes>,
    pub(crate) kernel: OnceLock<Arc<dyn KernelCaches>>,
    /// Whether changes by others are being pushed to us.
    pub(crate) pushed: AtomicBool,
    /// How much of that has been heard.
    pub(crate) heard: watch::Sender<Heard>,
    /// For tasks that go on when the operation that they belong to is given up.
    pub(crate) me: Weak<Vfs>,
}

impl Vfs {
    /// A mount of the cluster behind `meta` and `data`. Nothing is asked of it yet. Changes by others are to
    /// be fed to it as a [`dfs_client::EventHandler`].
    pub fn new(config: VfsConfig, meta: Arc<dyn MetaClient>, data: Arc<dyn DataClient>) -> Arc<Vfs> {
        Arc::new_cyclic(|me| Vfs {
            cache: Arc::new(BlobCache::new(config.cache_bytes_max, data.clone())),
            budget: Budget::new(config.staged_bytes_max),
            open_buffers: OpenBuffers::default(),
            gathering: Gathering::default(),
            uploads: Arc::new(Semaphore::new(config.uploads_max)),
            ahead_room: Arc::new(AheadRoom::new(config.readahead_bytes_max)),
            files: Mutex::default(),
            handles: Handles::default(),
            names: Names::default(),
            numbers: InodeNumbers::default(),
            clock: Clock::default(),
            access_times: Arc::default(),
            closes: Arc::default(),
            kernel: OnceLock::new(),
            pushed: AtomicBool::new(false),
            heard: watch::Sender::default(),
            me: me.clone(),
            config,
            meta,
            data,
        })
    }

    /// Tells where invalidations go. Only the first call counts.
    pub fn set_kernel(&self, kernel: Arc<dyn KernelCaches>) {
        // A second kernel for one mount does not happen; the first stays.
        let _ = self.kernel.set(kernel);
    }

    /// For how long the kernel may keep attributes and entries it is given now.
    pub fn kernel_ttl(&self) -> Duration {
        if self.pushed.load(Ordering::Acquire) { self.config.kernel_ttl } else { Duration::ZERO }
    }

    /// The kernel has dropped `lookups` references to `ino`.
    pub fn forget(&self, ino: Ino, lookups: u64) {
        self.names.forget(ino, lookups);
    }

    /// The kernel got this entry of directory `parent` by a listing, with its attributes.
    pub fn remember(&self, parent: Ino, listed: &Listed) {
        if let Some(name) = &listed.entry {
            self.names.remember(listed.attr.ino, parent, name);
            self.names.tell(&mut listed.attr.clone(), listed.asked, false);
        }
    }

    /// The attributes as the kernel is told of them now, and that they were told.
    pub(crate) fn tell(&self, mut attr: Attr, asked: Asked) -> Attr {
        if let Some(atime) = self.access_times.noted(attr.ino) {
            attr.atime = attr.atime.max(atime);
        }
        self.names.tell(&mut attr, asked, false);
        attr
    }

    /// The same for the answer to a change made here.
    pub(crate) fn tell_changed(&self, mut attr: Attr, asked: Asked) -> Attr {
        self.clock.saw(attr.ctime);
        self.names.tell(&mut attr, asked, true);
        self.names.changed_here(attr.ino);
        attr
    }

    /// What new files take over from the inode, if that is known without asking: somebody would have told of a
    /// change.
    pub(crate) fn known_to_pass_on(&self, ino: Ino) -> Option<PassedOn> {
        if !self.is_pushed() {
            return None;
        }
        self.names.told(ino)?.passes_on
    }

    /// Notes that a file's content was read.
    pub(crate) fn note_read(&self, handle: &FileHandle) {
        if handle.no_atime || self.config.atime == AtimePolicy::Never {
            return;
        }
        let now = self.clock.now();
        let mut state = handle.file.lock();
        let changed = state.mtime().max(state.ctime());
        let Some(atime) = renewed(state.atime(), changed, now) else { return };
        state.accessed = Some(atime);
        let is_published = matches!(state.origin, Origin::Published);
        drop(state);
        if is_published {
            self.access_times.note(handle.file.ino, atime, &self.meta);
        }
    }

    /// Notes that a directory or a symlink was read.
    pub(crate) fn note_visit(&self, ino: Ino) {
        if self.config.atime == AtimePolicy::Never {
            return;
        }
        let Some(told) = self.names.told(ino) else { return };
        let Some(atime) = renewed(told.atime, told.changed, self.clock.now()) else { return };
        self.names.accessed(ino, atime);
        self.access_times.note(ino, atime, &self.meta);
    }

    /// The file if it is open or dirty here.
    pub(crate) fn file(&self, ino: Ino) -> Option<Arc<File>> {
        self.files.lock().get(&ino).cloned()
    }

    /// The file, with one open more, so that it stays.
    pub(crate) fn hold(&self, attr: &Attr, origin: Origin) -> Arc<File> {
        let mut files = self.files.lock();
        let file = files.entry(attr.ino).or_insert_with(|| File::new(attr.clone(), origin));
        file.lock().opens += 1;
        file.clone()
    }

    /// The file with one open more, if it is open or dirty here and `wanted` says so.
    pub(crate) fn hold_if(&self, ino: Ino, wanted: impl FnOnce(&FileState) -> bool) -> Option<Arc<File>> {
        let files = self.files.lock();
        let file = files.get(&ino)?;
        let mut state = file.lock();
        if !wanted(&state) {
            return None;
        }
        state.opens += 1;
        Some(file.clone())
    }

    /// Ends one open. With the last one the file is forgotten here: changes that could not be published are
    /// given up, because nobody is left who could ask for another try, and the master is told of the opens it
    /// had noted.
    pub(crate) fn let_go(&self, file: &Arc<File>) {
        let mut files = self.files.lock();
        let mut state = file.lock();
        state.opens = state.opens.saturating_sub(1);
        if state.opens > 0 {
            return;
        }
        let pins = std::mem::take(&mut state.pins);
        if let Some(create) = state.give_up() {
            self.names.remove_pending(create.parent, &create.name, file.ino);
        }
        if files.get(&file.ino).is_some_and(|f| Arc::ptr_eq(f, file)) {
            files.remove(&file.ino);
        }
        drop(state);
        drop(files);
        if pins > 0 {
            self.close_at_master(file.ino, pins);
        }
    }

    pub(crate) fn close_at_master(&self, ino: Ino, count: u32) {
        self.closes.note(ino, count, &self.meta);
    }

    pub(crate) async fn read_op(&self, op: ReadOp) -> Result<MetaReply, VfsError> {
        Ok(self.meta.call(MetaOp::Read(op)).await?)
    }

    pub(crate) async fn write_op(&self, op: WriteOp) -> Result<MetaReply, VfsError> {
        Ok(self.meta.call(MetaOp::Write(op)).await?)
    }

    /// Attributes with what has been changed here.
    pub(crate) fn overlaid(&self, attr: Attr) -> Attr {
        match self.file(attr.ino) {
            Some(file) => {
                let mut state = file.lock();
                if !state.is_dirty() && attr.version == state.attr.version {
                    state.attr = attr.clone();
                    return attr;
                }
                if attr.version > state.attr.version {
                    // The base is another one by now; what was changed here goes on top of it.
                    state.stale = true;
                    if !state.is_dirty() {
                        return attr;
                    }
                    // While changes are being published the answer may have them in it, or not.
                    if state.in_flight.is_none() {
                        state.forget_base();
                        state.set_attr(attr);
                    }
                } else if attr.version == state.attr.version && attr.ctime >= state.attr.ctime {
                    state.set_attr(attr);
                }
                state.view()
            }
            None => attr,
        }
    }
}
