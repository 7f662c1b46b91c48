//! Names: those that exist here only, and those under which the kernel knows inodes.

use crate::clock::next_after;
use dfs_proto::{Attr, FileKind, Ino, Name, Timestamp, Version};
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};

/// How many answers to "what was it stored as" are kept.
const STORED_AS_MAX: usize = 4096;

/// Inodes whose latest change is remembered, to tell which answers of the master it has overtaken.
const OVERTAKING_MAX: usize = 4096;

/// Names of one inode that are kept besides the last one. The kernel drops more than those by itself, with time.
const EARLIER_NAMES_MAX: usize = 64;

/// The set-group-id bit of a mode.
const SET_GID: u16 = 0o2000;

/// What the kernel knows of an inode.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    /// References that the kernel holds (FUSE's nlookup).
    pub lookups: u64,
    /// The name it was last found under.
    pub parent: Ino,
    pub name: Option<Name>,
    /// Other names that the kernel may have it under: hard links, and names that others have changed.
    earlier: Vec<(Ino, Name)>,
    /// The content version whose pages the kernel may have.
    pub cached: Option<Version>,
    /// What the kernel was last told of its attributes.
    pub told: Option<Told>,
    /// What is known of it as a directory.
    directory: Directory,
}

impl Known {
    fn new(parent: Ino) -> Known {
        Known {
            lookups: 0,
            parent,
            name: None,
            earlier: Vec::new(),
            cached: None,
            told: None,
            directory: Directory::default(),
        }
    }

    fn found_as(&mut self, parent: Ino, name: &Name) {
        let is_it = |p: Ino, n: &Name| p == parent && n == name;
        if let Some(last) = self.name.take().filter(|last| !is_it(self.parent, last)) {
            self.earlier.retain(|(p, n)| !is_it(*p, n));
            if self.earlier.len() >= EARLIER_NAMES_MAX {
                self.earlier.remove(0);
            }
            self.earlier.push((self.parent, last));
        }
        self.parent = parent;
        self.name = Some(name.clone());
    }

    /// Every name that the kernel may have it under.
    fn names(&self) -> Vec<(Ino, Name)> {
        let last = self.name.clone().map(|name| (self.parent, name));
        self.earlier.iter().cloned().chain(last).collect()
    }
}

/// Attributes of a directory. The kernel asks for them before it looks an entry up, and drops them with each change of
/// an entry.
#[derive(Clone, Debug, Default)]
struct Directory {
    attr: Option<Attr>,
    /// The latest ctime that was known. `None` when others have changed the directory since: then it is not known
    /// whether what was told of a change made here is older than that.
    ctime: Option<Timestamp>,
}

impl Directory {
    /// After an answer that nothing has overtaken.
    fn of(attr: &Attr) -> Directory {
        Directory { attr: Some(attr.clone()), ctime: Some(attr.ctime) }
    }

    /// Takes over how a change made here has left it. Answers may come in another order than the changes.
    fn take_in(&mut self, attr: &Attr) {
        if self.ctime.is_some_and(|ctime| ctime < attr.ctime) {
            *self = Directory::of(attr);
        }
    }
}

/// What new files take over from their directory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PassedOn {
    /// Whether it has an access control list, so that it may have a default one.
    pub has_acl: bool,
    /// The group, from a directory with the set-group-id bit (inode(7)).
    pub gid: Option<u32>,
}

impl PassedOn {
    pub fn of(directory: &Attr) -> PassedOn {
        let gid = (directory.mode & SET_GID != 0).then_some(directory.gid);
        PassedOn { has_acl: directory.has_acl, gid }
    }
}

/// See [`Known::told`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    /// What new files take over from it; `None` when that may have changed since.
    pub passes_on: Option<PassedOn>,
    /// The content version that its size is of.
    pub version: Version,
    pub atime: Timestamp,
    pub ctime: Timestamp,
    /// The later one of mtime and ctime.
    pub changed: Timestamp,
}

/// The moment that the master was asked something: answers that were overtaken by a change are told by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked(u64);

pub(crate) struct Names {
    inner: Mutex<Inner>,
}

impl Default for Names {
    fn default() -> Names {
        let mut inner = Inner::default();
        // The kernel knows the root without having looked it up.
        inner.known.insert(Ino::ROOT, Known::new(Ino::ROOT));
        Names { inner: Mutex::new(inner) }
    }
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
    /// Counts changes, by others and here.
    changes: u64,
    /// The latest of them by inode.
    overtaking: HashMap<Ino, u64>,
    /// Answers to what was asked up to here may be old, whatever they are about.
    overtaken_to: u64,
}

impl Inner {
    /// Whether the inode may have changed since the master was asked.
    fn is_overtaken(&self, ino: Ino, asked: Asked) -> bool {
        asked.0 < self.overtaken_to || self.overtaking.get(&ino).is_some_and(|number| *number > asked.0)
    }

    fn note_change(&mut self, ino: Ino) {
        self.changes += 1;
        if self.overtaking.len() >= OVERTAKING_MAX {
            self.overtaking.clear();
            self.overtaken_to = self.changes;
        }
        self.overtaking.insert(ino, self.changes);
    }
}

impl Names {
    /// Notes that the kernel was told of `ino` under a name, once more.
    pub fn remember(&self, ino: Ino, parent: Ino, name: &Name) {
        let mut inner = self.inner.lock();
        let known = inner.known.entry(ino).or_insert_with(|| Known::new(parent));
        known.lookups += 1;
        known.found_as(parent, name);
    }

    /// Notes that the kernel was told of `ino`, which has no name, once more.
    pub fn remember_unnamed(&self, ino: Ino, parent: Ino) {
        let mut inner = self.inner.lock();
        inner.known.entry(ino).or_insert_with(|| Known::new(parent)).lookups += 1;
    }

    /// The kernel has dropped references.
    pub fn forget(&self, ino: Ino, lookups: u64) {
        let mut inner = self.inner.lock();
        if let Some(known) = inner.known.get_mut(&ino) {
            known.lookups = known.lookups.saturating_sub(lookups);
            if known.lookups == 0 && ino != Ino::ROOT {
                inner.known.remove(&ino);
            }
        }
    }

    /// The directory's attributes, as long as they are certain. Only while changes are pushed they are.
    pub fn directory(&self, ino: Ino) -> Option<Attr> {
        self.inner.lock().known.get(&ino)?.directory.attr.clone()
    }

    /// A change of the directory's entries is about to be asked for here: how that leaves it will be told.
    pub fn entries_will_change(&self, directory: Ino) {
        let mut inner = self.inner.lock();
        inner.note_change(directory);
        if let Some(known) = inner.known.get_mut(&directory) {
            known.directory.attr = None;
        }
    }

    /// A change made here has left the directory like this.
    pub fn directory_is(&self, attr: &Attr) {
        if let Some(known) = self.inner.lock().known.get_mut(&attr.ino) {
            known.directory.take_in(attr);
        }
    }

    /// Others have changed the directory's entries.
    pub fn entries_changed(&self, directory: Ino) {
        let mut inner = self.inner.lock();
        inner.note_change(directory);
        if let Some(known) = inner.known.get_mut(&directory) {
            known.directory = Directory::default();
        }
    }

    /// It is not clear what a change made here has done, or will do, to directories.
    pub fn directories_are_unclear(&self) {
        for known in self.inner.lock().known.values_mut() {
            known.directory = Directory::default();
        }
    }

    /// To be called before the master is asked for attributes.
    pub fn ask(&self) -> Asked {
        Asked(self.inner.lock().changes)
    }

    /// Others have changed the inode's attributes, or it was done here without learning them.
    pub fn attributes_changed(&self, ino: Ino) {
        let mut inner = self.inner.lock();
        inner.note_change(ino);
        if let Some(known) = inner.known.get_mut(&ino) {
            known.directory = Directory::default();
            if let Some(told) = &mut known.told {
                told.passes_on = None;
            }
        }
    }

    /// The inode's attributes were changed here, but for what new files take over from it.
    pub fn changed_here(&self, ino: Ino) {
        let mut inner = self.inner.lock();
        inner.note_change(ino);
        if let Some(known) = inner.known.get_mut(&ino) {
            known.directory.attr = None;
        }
    }

    /// An entry of the directory was changed here.
    pub fn entry_changed_here(&self, directory: Ino) {
        self.inner.lock().note_change(directory);
    }

    /// Whether so much has changed since the master was asked that its answer should not be used.
    pub fn is_all_outdated(&self, asked: Asked) -> bool {
        asked.0 < self.inner.lock().overtaken_to
    }

    /// Anything may have been changed by others.
    pub fn everything_changed(&self) {
        let mut inner = self.inner.lock();
        inner.changes += 1;
        inner.overtaking.clear();
        inner.overtaken_to = inner.changes;
        for known in inner.known.values_mut() {
            known.directory = Directory::default();
            if let Some(told) = &mut known.told {
                told.passes_on = None;
            }
        }
    }

    /// Notes what the kernel is about to be told. Its ctime never goes backwards, and grows when the attributes
    /// are those after a change made here, though the clocks of master and mount differ.
    pub fn tell(&self, attr: &mut Attr, asked: Asked, is_changed: bool) {
        let mut inner = self.inner.lock();
        let is_overtaken = inner.is_overtaken(attr.ino, asked);
        let Some(known) = inner.known.get_mut(&attr.ino) else { return };
        if let Some(told) = &known.told {
            let at_least = if is_changed { next_after(told.ctime) } else { told.ctime };
            attr.ctime = attr.ctime.max(at_least);
        }
        if attr.kind == FileKind::Directory && !is_overtaken {
            known.directory = Directory::of(attr);
        }
        known.told = Some(Told {
            passes_on: (!is_overtaken).then(|| PassedOn::of(attr)),
            version: attr.version,
            atime: attr.atime,
            ctime: attr.ctime,
            changed: attr.ctime.max(attr.mtime),
        });
    }

    /// Whether the inode's attributes may have changed since the master was asked for them.
    pub fn is_outdated(&self, ino: Ino, asked: Asked) -> bool {
        self.inner.lock().is_overtaken(ino, asked)
    }

    /// What the kernel was last told of the inode.
    pub fn told(&self, ino: Ino) -> Option<Told> {
        self.inner.lock().known.get(&ino).and_then(|known| known.told)
    }

    /// The inode was read at `atime`.
    pub fn accessed(&self, ino: Ino, atime: Timestamp) {
        if let Some(told) = self.inner.lock().known.get_mut(&ino).and_then(|known| known.told.as_mut()) {
            told.atime = atime;
        }
    }

    pub fn known(&self, ino: Ino) -> Option<Known> {
        self.inner.lock().known.get(&ino).cloned()
    }

    pub fn is_known(&self, ino: Ino) -> bool {
        self.inner.lock().known.contains_key(&ino)
    }

    /// Whether this is the name under which the kernel last found the inode.
    pub fn is_known_as(&self, ino: Ino, parent: Ino, name: &Name) -> bool {
        let known = self.known(ino);
        known.is_some_and(|known| known.parent == parent && known.name.as_ref() == Some(name))
    }

    /// Whether the kernel has the inode under no other name than this.
    pub fn is_known_only_as(&self, ino: Ino, parent: Ino, name: &Name) -> bool {
        let inner = self.inner.lock();
        let is_it = |(p, n): &(Ino, Name)| *p == parent && n == name;
        inner.known.get(&ino).is_none_or(|known| known.names().iter().all(is_it))
    }

    /// Every inode that the kernel knows, with the names that it may have it under.
    pub fn all_known(&self) -> Vec<(Ino, Vec<(Ino, Name)>)> {
        self.inner.lock().known.iter().map(|(ino, known)| (*ino, known.names())).collect()
    }

    /// Whether pages of `version` may be kept, where the kernel had those of what is returned by the last
    /// call: notes the version and tells whether it was the same.
    pub fn keep_pages(&self, ino: Ino, version: Version) -> bool {
        match self.inner.lock().known.get_mut(&ino) {
            Some(known) => known.cached.replace(version) == Some(version),
            None => false,
        }
    }

    /// The kernel's pages are those of `after`, if they were those of `before`, and so is the size that it knows.
    pub fn pages_moved(&self, ino: Ino, before: Version, after: Version) {
        let mut inner = self.inner.lock();
        let Some(known) = inner.known.get_mut(&ino) else { return };
        if known.cached.is_none_or(|cached| cached == before) {
            known.cached = Some(after);
        }
        if let Some(told) = known.told.as_mut().filter(|told| told.version == before) {
            told.version = after;
        }
    }

    /// The kernel knows no size of another version than this.
    pub fn attributes_dropped(&self, ino: Ino, version: Version) {
        if let Some(told) = self.inner.lock().known.get_mut(&ino).and_then(|known| known.told.as_mut()) {
            told.version = version;
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

    /// Whether any file exists here only.
    pub fn has_pending(&self) -> bool {
        !self.inner.lock().pending.is_empty()
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
