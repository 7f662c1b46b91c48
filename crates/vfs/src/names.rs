//! Names: those that exist here only, and those under which the kernel knows inodes.

use dfs_proto::{Ino, Name, Version};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};

/// How many answers to "what was it stored as" are kept.
const STORED_AS_MAX: usize = 4096;

/// What the kernel knows of an inode.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    /// References that the kernel holds (FUSE's nlookup).
    pub lookups: u64,
    /// The name it was last found under.
    pub parent: Ino,
    pub name: Option<Name>,
    /// The content version whose pages the kernel may have.
    pub cached: Option<Version>,
}

#[derive(Default)]
pub(crate) struct Names {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Files that exist here only. Bounded by the files being written.
    pending: HashMap<(Ino, Name), Ino>,
    /// Bounded by the kernel's own inode cache: it forgets what it drops.
    known: HashMap<Ino, Known>,
    /// Under which name a file was stored, when it was not the one asked for; by the inode that the writer
    /// had asked for and by the new one.
    stored_as: HashMap<Ino, Name>,
    stored_order: VecDeque<Ino>,
}

impl Names {
    /// Notes that the kernel was told of `ino` under a name, once more.
    pub fn remember(&self, ino: Ino, parent: Ino, name: &Name) {
        let mut inner = self.inner.lock();
        let known = inner.known.entry(ino).or_insert(Known { lookups: 0, parent, name: None, cached: None });
        known.lookups += 1;
        known.parent = parent;
        known.name = Some(name.clone());
    }

    /// Notes that the kernel was told of `ino`, which has no name, once more.
    pub fn remember_unnamed(&self, ino: Ino, parent: Ino) {
        let mut inner = self.inner.lock();
        let known = inner.known.entry(ino).or_insert(Known { lookups: 0, parent, name: None, cached: None });
        known.lookups += 1;
    }

    /// The kernel has dropped references.
    pub fn forget(&self, ino: Ino, lookups: u64) {
        let mut inner = self.inner.lock();
        if let Some(known) = inner.known.get_mut(&ino) {
            known.lookups = known.lookups.saturating_sub(lookups);
            if known.lookups == 0 {
                inner.known.remove(&ino);
            }
        }
    }

    pub fn known(&self, ino: Ino) -> Option<Known> {
        self.inner.lock().known.get(&ino).cloned()
    }

    pub fn is_known(&self, ino: Ino) -> bool {
        self.inner.lock().known.contains_key(&ino)
    }

    /// Every inode that the kernel knows, with its last name.
    pub fn all_known(&self) -> Vec<(Ino, Ino, Option<Name>)> {
        self.inner.lock().known.iter().map(|(ino, k)| (*ino, k.parent, k.name.clone())).collect()
    }

    /// Whether pages of `version` may be kept, where the kernel had those of what is returned by the last
    /// call: notes the version and tells whether it was the same.
    pub fn keep_pages(&self, ino: Ino, version: Version) -> bool {
        match self.inner.lock().known.get_mut(&ino) {
            Some(known) => known.cached.replace(version) == Some(version),
            None => false,
        }
    }

    /// The kernel's pages are those of `after`, if they were those of `before`.
    pub fn pages_moved(&self, ino: Ino, before: Version, after: Version) {
        if let Some(known) = self.inner.lock().known.get_mut(&ino)
            && (known.cached == Some(before) || known.cached.is_none())
        {
            known.cached = Some(after);
        }
    }

    /// A name moved by rename: later opens find the file's present parent.
    pub fn renamed(&self, ino: Ino, parent: Ino, name: &Name) {
        if let Some(known) = self.inner.lock().known.get_mut(&ino) {
            known.parent = parent;
            known.name = Some(name.clone());
        }
    }

    pub fn pending(&self, parent: Ino, name: &Name) -> Option<Ino> {
        self.inner.lock().pending.get(&(parent, name.clone())).copied()
    }

    /// `false` when the name is taken by another pending file.
    pub fn add_pending(&self, parent: Ino, name: &Name, ino: Ino) -> bool {
        let mut inner = self.inner.lock();
        match inner.pending.get(&(parent, name.clone())) {
            Some(_) => false,
            None => {
                inner.pending.insert((parent, name.clone()), ino);
                true
            }
        }
    }

    pub fn remove_pending(&self, parent: Ino, name: &Name, ino: Ino) {
        let mut inner = self.inner.lock();
        let key = (parent, name.clone());
        if inner.pending.get(&key) == Some(&ino) {
            inner.pending.remove(&key);
        }
    }

    pub fn pending_in(&self, parent: Ino) -> Vec<(Name, Ino)> {
        let inner = self.inner.lock();
        if inner.pending.is_empty() {
            return Vec::new();
        }
        let mut found: Vec<_> = inner
            .pending
            .iter()
            .filter(|((p, _), _)| *p == parent)
            .map(|((_, n), ino)| (n.clone(), *ino))
            .collect();
        found.sort();
        found
    }

    pub fn note_stored_as(&self, ino: Ino, name: &Name) {
        let mut inner = self.inner.lock();
        if inner.stored_as.insert(ino, name.clone()).is_none() {
            inner.stored_order.push_back(ino);
            if inner.stored_order.len() > STORED_AS_MAX
                && let Some(oldest) = inner.stored_order.pop_front()
            {
                inner.stored_as.remove(&oldest);
            }
        }
    }

    pub fn stored_as(&self, ino: Ino) -> Option<Name> {
        self.inner.lock().stored_as.get(&ino).cloned()
    }
}
