//! What others change, and what has to be forgotten because of it.

use crate::catch_up::Heard;
use crate::vfs::Vfs;
use dfs_client::EventHandler;
use dfs_proto::{Attr, Event, EventCursor, EventKind, Ino, Name};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::sync::oneshot;

/// The kernel's caches. Calls only hand the wish over: they must not wait for the kernel, which may be
/// waiting for this mount.
pub trait KernelCaches: Send + Sync + 'static {
    /// Drop attributes of the inode.
    fn drop_attributes(&self, ino: Ino);
    /// Drop attributes and pages of the inode.
    fn drop_pages(&self, ino: Ino);
    /// Drop attributes of the inode. What is returned resolves, or closes, when the kernel has, and has carried out
    /// all that it was asked to drop before.
    fn drop_attributes_then(&self, ino: Ino) -> oneshot::Receiver<()>;
    /// The same for attributes and pages. What programs have written to the pages through mappings is handed over
    /// before.
    fn drop_pages_then(&self, ino: Ino) -> oneshot::Receiver<()>;
    /// Whether process `pid` has a shared mapping of the inode, as far as that can be told. Takes moments, and blocks
    /// for them.
    fn has_mapped(&self, pid: u32, ino: Ino) -> bool;
    /// Drop the entry.
    fn drop_entry(&self, parent: Ino, name: &Name);
}

impl Vfs {
    pub(crate) fn forget_everything(&self) {
        self.names.everything_changed();
        for file in self.files.lock().values() {
            let mut state = file.lock();
            state.changed_elsewhere();
            self.note_session(&mut state);
            state.locks.wake();
        }
        self.data.forget_placement();
        let Some(kernel) = self.kernel.get() else { return };
        for (ino, names) in self.names.all_known() {
            kernel.drop_pages(ino);
            for (parent, name) in names {
                kernel.drop_entry(parent, &name);
            }
        }
    }

    fn file_changed(&self, ino: Ino) {
        self.names.attributes_changed(ino);
        if let Some(file) = self.files.lock().get(&ino) {
            file.lock().changed_elsewhere();
        }
    }

    /// The kernel, if it may have anything of the inode: most of what others change it has never seen.
    fn kernel_that_knows(&self, ino: Ino) -> Option<&Arc<dyn KernelCaches>> {
        self.kernel.get().filter(|_| ino == Ino::ROOT || self.names.is_known(ino))
    }

    fn content_changed(&self, ino: Ino) {
        self.file_changed(ino);
        if let Some(kernel) = self.kernel_that_knows(ino) {
            kernel.drop_pages(ino);
        }
    }
}

impl EventHandler for Vfs {
    fn on_reset(&self) {
        // Before anybody relies on it.
        self.names.everything_changed();
        self.pushed.store(true, Ordering::Release);
        self.forget_everything();
        self.heard.send_replace(Heard { is_up: true, at: None });
    }

    fn on_down(&self) {
        self.pushed.store(false, Ordering::Release);
        self.forget_everything();
        self.heard.send_replace(Heard::default());
    }

    fn on_event(&self, event: &Event) {
        match &event.kind {
            EventKind::Content(ino) => self.content_changed(*ino),
            EventKind::Attr(ino) => {
                self.file_changed(*ino);
                if let Some(kernel) = self.kernel_that_knows(*ino) {
                    kernel.drop_attributes(*ino);
                }
            }
            EventKind::Entry { parent, name } => {
                self.names.entries_changed(*parent);
                self.entry_changed(*parent, name);
                if let Some(kernel) = self.kernel_that_knows(*parent) {
                    kernel.drop_entry(*parent, name);
                    kernel.drop_attributes(*parent);
                }
            }
            EventKind::Unlocked(ino) => {
                if let Some(file) = self.file(*ino) {
                    file.lock().locks.wake();
                }
            }
            EventKind::Placement => self.data.forget_placement(),
        }
    }

    fn on_directory(&self, attr: &Attr) {
        self.names.directory_is(attr);
    }

    fn on_unclear_change(&self) {
        self.names.directories_are_unclear();
    }

    fn on_place(&self, at: EventCursor) {
        self.heard.send_modify(|heard| heard.at = Some(at));
    }
}
