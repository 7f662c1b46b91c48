//! What mounts may show of a file: a plain account of what was published when, and of what waits where.

use dfs_proto::{Ino, Name};
use std::collections::{BTreeMap, HashMap};

#[derive(Clone, Debug)]
pub enum Edit {
    Write(u64, Vec<u8>),
    Append(Vec<u8>),
    Truncate(u64),
}

pub fn apply(base: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut content = base.to_vec();
    for edit in edits {
        match edit {
            Edit::Write(offset, bytes) => {
                let end = *offset as usize + bytes.len();
                content.resize(content.len().max(end), 0);
                content[*offset as usize..end].copy_from_slice(bytes);
            }
            Edit::Append(bytes) => content.extend_from_slice(bytes),
            Edit::Truncate(size) => content.resize(*size as usize, 0),
        }
    }
    content
}

/// The truth, and what each mount may believe.
#[derive(Default)]
pub struct Contract {
    /// Published contents of each file, in order.
    versions: HashMap<Ino, Vec<Vec<u8>>>,
    /// Published names.
    pub names: BTreeMap<Name, Ino>,
    /// What names stood for before, as far as a mount may not have heard that they do no more.
    before: HashMap<(usize, Name), Vec<Ino>>,
    /// New files that only their mount knows.
    unpublished: HashMap<Ino, (usize, Name)>,
    /// Edits that wait to be published.
    waiting: HashMap<(usize, Ino), Vec<Edit>>,
    /// The oldest version that a mount may still show.
    floors: HashMap<(usize, Ino), usize>,
}

impl Contract {
    /// A file was made that everybody sees at once.
    pub fn made_known(&mut self, mount: usize, name: &Name, ino: Ino) {
        self.versions.insert(ino, vec![Vec::new()]);
        self.set_name(mount, name, Some(ino));
    }

    /// A whole new file was made: its mount alone knows it until it is published.
    pub fn made(&mut self, mount: usize, name: &Name, ino: Ino) {
        self.unpublished.insert(ino, (mount, name.clone()));
        self.waiting.insert((mount, ino), Vec::new());
    }

    /// What the name stands for on the mount, if that hears everything at once.
    pub fn find(&self, mount: usize, name: &Name) -> Option<Ino> {
        self.pending(mount, name).or_else(|| self.names.get(name).copied())
    }

    fn pending(&self, mount: usize, name: &Name) -> Option<Ino> {
        self.unpublished.iter().find(|(_, (m, n))| *m == mount && n == name).map(|(ino, _)| *ino)
    }

    /// What the name may stand for on a mount that has not heard of everything.
    pub fn may_find(&self, mount: usize, name: &Name) -> Vec<Ino> {
        let before = self.before.get(&(mount, name.clone())).into_iter().flatten().copied();
        self.find(mount, name).into_iter().chain(before).collect()
    }

    /// Whether only its mount knows the file.
    pub fn is_new(&self, ino: Ino) -> bool {
        self.unpublished.contains_key(&ino)
    }

    /// Whether the file has a name, here or anywhere.
    pub fn is_named(&self, ino: Ino) -> bool {
        self.names.values().any(|named| *named == ino) || self.unpublished.contains_key(&ino)
    }

    pub fn edit(&mut self, mount: usize, ino: Ino, edit: Edit) {
        self.waiting.entry((mount, ino)).or_default().push(edit);
    }

    pub fn has_edits(&self, mount: usize, ino: Ino) -> bool {
        self.waiting.get(&(mount, ino)).is_some_and(|edits| !edits.is_empty())
    }

    fn set_name(&mut self, by: usize, name: &Name, ino: Option<Ino>) {
        let old = match ino {
            Some(ino) => self.names.insert(name.clone(), ino),
            None => self.names.remove(name),
        };
        for mount in (0..super::world::MOUNTS).filter(|mount| *mount != by) {
            self.before.entry((mount, name.clone())).or_default().extend(old);
        }
    }

    /// close or fsync: what waits on the mount is published.
    pub fn publish(&mut self, mount: usize, ino: Ino) {
        let is_dropped = !self.versions.contains_key(&ino) && !self.unpublished.contains_key(&ino);
        if is_dropped {
            return;
        }
        let edits = self.waiting.remove(&(mount, ino)).unwrap_or_default();
        let is_new = self.unpublished.get(&ino).cloned();
        let versions = self.versions.entry(ino).or_default();
        if is_new.is_some() || !edits.is_empty() {
            versions.push(apply(versions.last().map_or(&[][..], Vec::as_slice), &edits));
            self.floors.insert((mount, ino), versions.len() - 1);
        }
        if let Some((_, name)) = is_new {
            self.unpublished.remove(&ino);
            self.set_name(mount, &name, Some(ino));
        }
    }

    /// Whether there was something to remove.
    pub fn unlink(&mut self, mount: usize, name: &Name) -> bool {
        if let Some(ino) = self.pending(mount, name) {
            self.unpublished.remove(&ino);
            return true;
        }
        let is_there = self.names.contains_key(name);
        self.set_name(mount, name, None);
        is_there
    }

    /// Whether there was something to rename.
    pub fn rename(&mut self, mount: usize, from: &Name, to: &Name) -> bool {
        if let Some(ino) = self.pending(mount, from) {
            self.publish(mount, ino);
        }
        let Some(ino) = self.names.get(from).copied() else { return false };
        if let Some(there) = self.pending(mount, to) {
            self.unpublished.remove(&there);
        }
        self.set_name(mount, from, None);
        self.set_name(mount, to, Some(ino));
        // The kernel moves the entry that it has. When others have replaced what that named, it is told to drop it,
        // and can only do so after the rename, for which it holds the directory.
        let moved = self.before.get(&(mount, from.clone())).cloned().unwrap_or_default();
        self.before.entry((mount, to.clone())).or_default().extend(moved);
        true
    }

    /// From now on the mount shows what there is now, or later versions.
    pub fn saw_latest(&mut self, mount: usize, ino: Ino) {
        let latest = self.versions.get(&ino).map_or(0, |versions| versions.len().saturating_sub(1));
        self.floors.insert((mount, ino), latest);
    }

    /// The mount has heard of everything.
    pub fn heard_all(&mut self, mount: usize) {
        self.before.retain(|(m, _), _| *m != mount);
        let known: Vec<Ino> = self.versions.keys().copied().collect();
        known.into_iter().for_each(|ino| self.saw_latest(mount, ino));
    }

    /// What the mount may show of the file.
    pub fn may_show(&self, mount: usize, ino: Ino) -> Vec<Vec<u8>> {
        let none = Vec::new();
        let edits = self.waiting.get(&(mount, ino)).unwrap_or(&none);
        let floor = self.floors.get(&(mount, ino)).copied().unwrap_or(0);
        match self.versions.get(&ino) {
            Some(versions) => versions[floor..].iter().map(|version| apply(version, edits)).collect(),
            None => vec![apply(&[], edits)],
        }
    }

    /// What the mount shows of the file when it has heard of everything.
    pub fn shows(&self, mount: usize, ino: Ino) -> Vec<u8> {
        self.may_show(mount, ino).pop().expect("there is always one")
    }
}
