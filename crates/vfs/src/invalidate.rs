//! What others change, and what has to be forgotten because of it.

use crate::vfs::Vfs;
use dfs_client::EventHandler;
use dfs_proto::{Event, EventKind, Ino, Name};
use std::sync::atomic::Ordering;

/// The kernel's caches. Calls only hand the wish over: they must not wait for the kernel, which may be
/// waiting for this mount.
pub trait KernelCaches: Send + Sync + 'static {
    /// Drop attributes of the inode.
    fn drop_attributes(&self, ino: Ino);
    /// Drop attributes and pages of the inode.
    fn drop_pages(&self, ino: Ino);
    /// Drop the entry.
    fn drop_entry(&self, parent: Ino, name: &Name);
}

impl Vfs {
    fn forget_everything(&self) {
        for file in self.files.lock().values() {
            let mut state = file.lock();
            state.stale = !matches!(state.origin, crate::file::Origin::New(_) | crate::file::Origin::Dropped);
        }
        self.data.forget_placement();
        let Some(kernel) = self.kernel.get() else { return };
        for (ino, parent, name) in self.names.all_known() {
            kernel.drop_pages(ino);
            if let Some(name) = name {
                kernel.drop_entry(parent, &name);
            }
        }
    }

    fn content_changed(&self, ino: Ino) {
        if let Some(file) = self.files.lock().get(&ino) {
            let mut state = file.lock();
            state.stale |= matches!(state.origin, crate::file::Origin::Published);
        }
        if let Some(kernel) = self.kernel.get() {
            kernel.drop_pages(ino);
        }
    }
}

impl EventHandler for Vfs {
    fn on_reset(&self) {
        self.pushed.store(true, Ordering::Release);
        self.forget_everything();
    }

    fn on_down(&self) {
        self.pushed.store(false, Ordering::Release);
        self.forget_everything();
    }

    fn on_event(&self, event: &Event) {
        match &event.kind {
            EventKind::Content(ino) => self.content_changed(*ino),
            EventKind::Attr(ino) => {
                if let Some(file) = self.files.lock().get(ino) {
                    let mut state = file.lock();
                    state.stale |= matches!(state.origin, crate::file::Origin::Published);
                }
                if let Some(kernel) = self.kernel.get() {
                    kernel.drop_attributes(*ino);
                }
            }
            EventKind::Entry { parent, name } => {
                if let Some(kernel) = self.kernel.get() {
                    kernel.drop_entry(*parent, name);
                    kernel.drop_attributes(*parent);
                }
            }
            EventKind::Placement => self.data.forget_placement(),
        }
    }
}
