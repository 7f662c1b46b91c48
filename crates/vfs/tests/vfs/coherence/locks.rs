//! Who may have which lock: a plain table. Locks here are of whole files, in two kinds that know nothing of each other.

use dfs_proto::{Ino, LockMode, LockSpace};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    pub mount: usize,
    /// The handle, for a whole-file lock; byte ranges belong to the process, of which each mount has one.
    pub handle: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    ino: Ino,
    space: LockSpace,
    owner: Owner,
    mode: LockMode,
}

#[derive(Default)]
pub struct Table(Vec<Held>);

impl Table {
    pub fn held(&self, ino: Ino, space: LockSpace, owner: Owner) -> Option<LockMode> {
        let held = self.0.iter().find(|h| (h.ino, h.space, h.owner) == (ino, space, owner));
        held.map(|held| held.mode)
    }

    pub fn is_free(&self, ino: Ino, space: LockSpace, owner: Owner, mode: LockMode) -> bool {
        let others = self.0.iter().filter(|h| h.ino == ino && h.space == space && h.owner != owner);
        others.into_iter().all(|h| h.mode == LockMode::Shared && mode == LockMode::Shared)
    }

    pub fn grant(&mut self, ino: Ino, space: LockSpace, owner: Owner, mode: LockMode) {
        self.free(ino, space, owner);
        self.0.push(Held { ino, space, owner, mode });
    }

    /// Whether there was a lock to be given up.
    pub fn free(&mut self, ino: Ino, space: LockSpace, owner: Owner) -> bool {
        let before = self.0.len();
        self.0.retain(|h| (h.ino, h.space, h.owner) != (ino, space, owner));
        self.0.len() < before
    }
}
