//! The kernel's caches, told from a thread of their own.
//!
//! An invalidation waits for locks that an operation under way may hold, and that operation may be waiting
//! for this mount. So nothing that serves operations ever calls into the kernel; it leaves a note here.

use crate::mappings;
use dfs_proto::{Ino, Name};
use dfs_vfs::KernelCaches;
use fuser::{INodeNo, Notifier};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc;
use tokio::sync::oneshot;

#[derive(Clone, PartialEq, Eq, Hash)]
enum Note {
    Attributes(Ino),
    Pages(Ino),
    Entry(Ino, Name),
}

/// What is left for the thread.
enum Message {
    Note(Note),
    /// Somebody waits for all notes before this one to have been told.
    Told(oneshot::Sender<()>),
}

/// Notes taken from the channel at once; those that say the same are told to the kernel once.
const BATCH_MAX: usize = 1024;

pub(crate) struct KernelNotes {
    notes: mpsc::Sender<Message>,
}

impl KernelNotes {
    /// Starts the thread; it ends when this is dropped. Notes are left only for what the kernel may have.
    pub fn start(notifier: Notifier) -> std::io::Result<KernelNotes> {
        let (notes, waiting) = mpsc::channel();
        std::thread::Builder::new().name("dfs-notify".into()).spawn(move || run(&notifier, &waiting))?;
        Ok(KernelNotes { notes })
    }

    fn leave(&self, note: Note) {
        // The thread is gone only when the mount is.
        let _ = self.notes.send(Message::Note(note));
    }

    fn leave_and_ask(&self, note: Note) -> oneshot::Receiver<()> {
        let (told, waits) = oneshot::channel();
        self.leave(note);
        // Without the thread the receiver closes, which says the same.
        let _ = self.notes.send(Message::Told(told));
        waits
    }
}

fn run(notifier: &Notifier, waiting: &mpsc::Receiver<Message>) {
    while let Ok(first) = waiting.recv() {
        let mut batch = HashSet::new();
        let mut next = Some(first);
        let told = loop {
            match next.take() {
                Some(Message::Note(note)) => batch.insert(note),
                Some(Message::Told(sender)) => break Some(sender),
                None => break None,
            };
            if batch.len() < BATCH_MAX {
                next = waiting.try_recv().ok();
            }
        };
        batch.iter().for_each(|note| tell(notifier, note));
        if let Some(told) = told {
            // Who asked may have gone.
            let _ = told.send(());
        }
    }
}

fn tell(notifier: &Notifier, note: &Note) {
    let result = match note {
        // A negative offset leaves the pages alone.
        Note::Attributes(ino) => notifier.inval_inode(INodeNo(ino.0), -1, 0),
        Note::Pages(ino) => notifier.inval_inode(INodeNo(ino.0), 0, 0),
        Note::Entry(parent, name) => {
            notifier.inval_entry(INodeNo(parent.0), OsStr::from_bytes(name.as_bytes()))
        }
    };
    if let Err(e) = result {
        log::debug!("the kernel did not take an invalidation: {e}");
    }
}

impl KernelCaches for KernelNotes {
    fn drop_attributes(&self, ino: Ino) {
        self.leave(Note::Attributes(ino));
    }

    fn drop_pages(&self, ino: Ino) {
        self.leave(Note::Pages(ino));
    }

    fn drop_attributes_then(&self, ino: Ino) -> oneshot::Receiver<()> {
        self.leave_and_ask(Note::Attributes(ino))
    }

    fn drop_pages_then(&self, ino: Ino) -> oneshot::Receiver<()> {
        self.leave_and_ask(Note::Pages(ino))
    }

    fn has_mapped(&self, pid: u32, ino: Ino) -> bool {
        mappings::has_mapped(pid, ino)
    }

    fn drop_entry(&self, parent: Ino, name: &Name) {
        self.leave(Note::Entry(parent, name.clone()));
    }
}
