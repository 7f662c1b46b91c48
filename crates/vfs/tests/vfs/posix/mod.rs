//! A plain file system in memory that does what the manual pages say: what the real one is held against. One
//! user, one machine, no caches, nothing late.

mod content;
pub mod driver;
mod listing;
pub mod steps;

pub use content::Content;

use dfs_proto::limits::FILE_BYTES_MAX;
use dfs_proto::meta::{RenameMode, XattrMode};
use dfs_proto::{ErrorCode, FileKind, Name, Timestamp, XattrName};
use dfs_vfs::Allocation;
use std::collections::BTreeMap;

/// Number of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id(pub u64);

pub const ROOT: Id = Id(1);

/// What a time may be.
#[derive(Clone, Copy, Debug)]
pub struct When {
    pub first: Timestamp,
    pub last: Timestamp,
}

const FOR_EVER: Timestamp = Timestamp { secs: i64::MAX, nanos: 0 };

impl When {
    pub fn at(t: Timestamp) -> When {
        When { first: t, last: t }
    }

    /// Any time from the earlier of the two on.
    pub fn since(self, other: When) -> When {
        When { first: self.first.min(other.first), last: FOR_EVER }
    }

    pub fn holds(&self, t: Timestamp) -> bool {
        self.first <= t && t <= self.last
    }
}

#[derive(Clone, Debug)]
pub enum Body {
    File(Content),
    Directory(BTreeMap<Name, Id>),
    Symlink(Vec<u8>),
    Special(u32),
}

#[derive(Clone, Debug)]
pub struct Node {
    pub kind: FileKind,
    pub mode: u16,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub atime: When,
    pub mtime: When,
    pub ctime: When,
    pub xattrs: BTreeMap<XattrName, Vec<u8>>,
    pub body: Body,
    /// Directories: where it is.
    pub parent: Id,
    /// A file that was made with O_TRUNC and without O_EXCL, and has not been closed, fsynced, linked or moved since: it may
    /// exist on this mount only, and its directory's times may not tell of it yet.
    pub fresh: bool,
    /// Made without a name (O_TMPFILE) and without one still.
    pub unnamed: bool,
}

impl Node {
    pub fn content(&self) -> &Content {
        match &self.body {
            Body::File(content) => content,
            other => panic!("{other:?} has no content"),
        }
    }

    pub fn entries(&self) -> &BTreeMap<Name, Id> {
        match &self.body {
            Body::Directory(entries) => entries,
            other => panic!("{other:?} has no entries"),
        }
    }
}

/// What is made.
pub struct New {
    pub body: Body,
    pub kind: FileKind,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
}

type Outcome<T> = Result<T, ErrorCode>;

pub struct Posix {
    nodes: BTreeMap<Id, Node>,
    next: u64,
}

impl Posix {
    pub fn new(now: When) -> Posix {
        let root = Node {
            kind: FileKind::Directory,
            mode: 0o755,
            nlink: 2,
            uid: 0,
            gid: 0,
            atime: now,
            mtime: now,
            ctime: now,
            xattrs: BTreeMap::new(),
            body: Body::Directory(BTreeMap::new()),
            parent: ROOT,
            fresh: false,
            unnamed: false,
        };
        Posix { nodes: BTreeMap::from([(ROOT, root)]), next: 2 }
    }

    pub fn node(&self, id: Id) -> &Node {
        &self.nodes[&id]
    }

    fn node_mut(&mut self, id: Id) -> &mut Node {
        self.nodes.get_mut(&id).expect("nodes are never taken away")
    }

    /// Directories that are in the tree.
    pub fn directories(&self) -> Vec<Id> {
        self.nodes
            .iter()
            .filter(|(_, n)| n.kind == FileKind::Directory && n.nlink > 0)
            .map(|(id, _)| *id)
            .collect()
    }

    pub fn child(&self, dir: Id, name: &Name) -> Option<Id> {
        self.node(dir).entries().get(name).copied()
    }

    fn entries_mut(&mut self, dir: Id) -> &mut BTreeMap<Name, Id> {
        match &mut self.node_mut(dir).body {
            Body::Directory(entries) => entries,
            other => panic!("{other:?} has no entries"),
        }
    }

    fn content_mut(&mut self, id: Id) -> &mut Content {
        match &mut self.node_mut(id).body {
            Body::File(content) => content,
            other => panic!("{other:?} has no content"),
        }
    }

    fn touch_directory(&mut self, dir: Id, now: When) {
        let node = self.node_mut(dir);
        (node.mtime, node.ctime) = (now, now.since(now));
    }

    /// The directory's times may have moved, now or when the file is published.
    fn touch_directory_loosely(&mut self, dir: Id, now: When) {
        let node = self.node_mut(dir);
        (node.mtime, node.ctime) = (node.mtime.since(now), node.ctime.since(now));
    }

    fn touch_inode(&mut self, id: Id, now: When) {
        self.node_mut(id).ctime = now.since(now);
    }

    fn parents_of(&self, id: Id) -> Vec<Id> {
        let holds = |n: &Node| matches!(&n.body, Body::Directory(e) if e.values().any(|child| *child == id));
        self.nodes.iter().filter(|(_, n)| holds(n)).map(|(dir, _)| *dir).collect()
    }

    /// The file is known to everybody now.
    pub fn settle(&mut self, id: Id, now: When) {
        if !std::mem::take(&mut self.node_mut(id).fresh) {
            return;
        }
        for dir in self.parents_of(id) {
            self.touch_directory_loosely(dir, now);
        }
    }

    pub fn make(&mut self, dir: Id, name: &Name, new: New, fresh: bool, now: When) -> Outcome<Id> {
        if self.child(dir, name).is_some() {
            return Err(ErrorCode::Exists);
        }
        let id = self.make_node(dir, new, now);
        self.node_mut(id).fresh = fresh;
        self.entries_mut(dir).insert(name.clone(), id);
        if self.node(id).kind == FileKind::Directory {
            self.node_mut(dir).nlink += 1;
        }
        match fresh {
            true => self.touch_directory_loosely(dir, now),
            false => self.touch_directory(dir, now),
        }
        Ok(id)
    }

    /// O_TMPFILE.
    pub fn make_unnamed(&mut self, dir: Id, new: New, now: When) -> Id {
        let id = self.make_node(dir, new, now);
        let node = self.node_mut(id);
        (node.nlink, node.unnamed) = (0, true);
        id
    }

    fn make_node(&mut self, dir: Id, new: New, now: When) -> Id {
        let id = Id(self.next);
        self.next += 1;
        let parent = self.node(dir);
        let is_directory = new.kind == FileKind::Directory;
        let passes_group = parent.mode & 0o2000 != 0;
        let node = Node {
            kind: new.kind,
            mode: new.mode | if passes_group && is_directory { 0o2000 } else { 0 },
            nlink: if is_directory { 2 } else { 1 },
            uid: new.uid,
            gid: if passes_group { parent.gid } else { new.gid },
            // A file that is published later may be stamped again for what nobody has read.
            atime: now.since(now),
            mtime: now,
            ctime: now.since(now),
            xattrs: BTreeMap::new(),
            body: new.body,
            parent: dir,
            fresh: false,
            unnamed: false,
        };
        self.nodes.insert(id, node);
        id
    }

    pub fn link(&mut self, id: Id, dir: Id, name: &Name, now: When) -> Outcome<()> {
        if self.node(id).fresh {
            // What gets another name has to be known, whatever comes of it.
            self.parents_of(id).into_iter().for_each(|dir| self.touch_directory_loosely(dir, now));
        }
        if self.child(dir, name).is_some() {
            return Err(ErrorCode::Exists);
        }
        let node = self.node(id);
        if node.kind == FileKind::Directory {
            return Err(ErrorCode::NotPermitted);
        }
        if node.nlink == 0 && !node.unnamed {
            return Err(ErrorCode::NotFound);
        }
        self.settle(id, now);
        self.entries_mut(dir).insert(name.clone(), id);
        let node = self.node_mut(id);
        node.nlink += 1;
        node.unnamed = false;
        self.touch_inode(id, now);
        self.touch_directory(dir, now);
        Ok(())
    }

    pub fn unlink(&mut self, dir: Id, name: &Name, now: When) -> Outcome<()> {
        let id = self.child(dir, name).ok_or(ErrorCode::NotFound)?;
        if self.node(id).kind == FileKind::Directory {
            return Err(ErrorCode::IsDirectory);
        }
        self.entries_mut(dir).remove(name);
        match self.node(id).fresh {
            true => self.touch_directory_loosely(dir, now),
            false => self.touch_directory(dir, now),
        }
        self.lose_name(id, now);
        Ok(())
    }

    fn lose_name(&mut self, id: Id, now: When) {
        let node = self.node_mut(id);
        node.nlink -= 1;
        node.fresh = false;
        self.touch_inode(id, now);
    }

    pub fn rmdir(&mut self, dir: Id, name: &Name, now: When) -> Outcome<()> {
        let id = self.child(dir, name).ok_or(ErrorCode::NotFound)?;
        if self.node(id).kind != FileKind::Directory {
            return Err(ErrorCode::NotDirectory);
        }
        if !self.node(id).entries().is_empty() {
            return Err(ErrorCode::NotEmpty);
        }
        self.entries_mut(dir).remove(name);
        self.node_mut(id).nlink = 0;
        self.node_mut(dir).nlink -= 1;
        self.touch_directory(dir, now);
        Ok(())
    }

    fn is_above(&self, above: Id, mut id: Id) -> bool {
        loop {
            if id == above {
                return true;
            }
            if id == ROOT {
                return false;
            }
            id = self.node(id).parent;
        }
    }

    /// rename(2), with the checks in the order that Linux makes them (`do_renameat2`, `vfs_rename`).
    pub fn rename(&mut self, from: (Id, &Name), to: (Id, &Name), mode: RenameMode, now: When) -> Outcome<()> {
        let id = self.child(from.0, from.1).ok_or(ErrorCode::NotFound)?;
        let there = self.child(to.0, to.1);
        if self.node(id).fresh {
            // What is moved has to be known, whatever comes of it.
            self.touch_directory_loosely(from.0, now);
        }
        match mode {
            RenameMode::NoReplace if there.is_some() => return Err(ErrorCode::Exists),
            RenameMode::Exchange if there.is_none() => return Err(ErrorCode::NotFound),
            _ => {}
        }
        let is_directory = |id: Id| self.node(id).kind == FileKind::Directory;
        if is_directory(id) && self.is_above(id, to.0) {
            return Err(ErrorCode::InvalidArgument);
        }
        if there.is_some_and(|there| is_directory(there) && self.is_above(there, from.0)) {
            let exchange = mode == RenameMode::Exchange;
            return Err(if exchange { ErrorCode::InvalidArgument } else { ErrorCode::NotEmpty });
        }
        if there == Some(id) {
            return Ok(());
        }
        if let Some(there) = there.filter(|_| mode != RenameMode::Exchange) {
            match (is_directory(id), is_directory(there)) {
                (true, false) => return Err(ErrorCode::NotDirectory),
                (false, true) => return Err(ErrorCode::IsDirectory),
                (true, true) if !self.node(there).entries().is_empty() => return Err(ErrorCode::NotEmpty),
                _ => {}
            }
        }
        self.settle(id, now);
        if let Some(there) = there.filter(|_| mode == RenameMode::Exchange) {
            self.settle(there, now);
        }
        match there.filter(|_| mode == RenameMode::Exchange) {
            Some(there) => self.put(there, from, to.0, now),
            None => {
                self.entries_mut(from.0).remove(from.1);
                if let Some(there) = there {
                    self.replaced(there, to.0, now);
                }
            }
        }
        self.put(id, to, from.0, now);
        self.touch_directory(from.0, now);
        self.touch_directory(to.0, now);
        Ok(())
    }

    /// Gives a node that was in `before` another place.
    fn put(&mut self, id: Id, to: (Id, &Name), before: Id, now: When) {
        self.entries_mut(to.0).insert(to.1.clone(), id);
        if self.node(id).kind == FileKind::Directory {
            self.node_mut(before).nlink -= 1;
            self.node_mut(to.0).nlink += 1;
            self.node_mut(id).parent = to.0;
        }
        self.touch_inode(id, now);
    }

    fn replaced(&mut self, id: Id, dir: Id, now: When) {
        if self.node(id).kind == FileKind::Directory {
            self.node_mut(id).nlink = 0;
            self.node_mut(dir).nlink -= 1;
        } else {
            self.lose_name(id, now);
        }
    }

    pub fn write(&mut self, id: Id, offset: u64, bytes: &[u8], now: When) -> Outcome<()> {
        if offset.checked_add(bytes.len() as u64).is_none_or(|end| end > FILE_BYTES_MAX) {
            return Err(ErrorCode::TooLarge);
        }
        if !bytes.is_empty() {
            self.content_mut(id).write(offset, bytes);
            self.changed(id, now);
        }
        Ok(())
    }

    fn changed(&mut self, id: Id, now: When) {
        self.node_mut(id).mtime = now;
        self.touch_inode(id, now);
    }

    pub fn truncate(&mut self, id: Id, size: u64, now: When) -> Outcome<()> {
        if size > FILE_BYTES_MAX {
            return Err(ErrorCode::TooLarge);
        }
        match self.node(id).kind {
            FileKind::File => {}
            FileKind::Directory => return Err(ErrorCode::IsDirectory),
            _ => return Err(ErrorCode::InvalidArgument),
        }
        self.content_mut(id).truncate(size);
        self.changed(id, now);
        Ok(())
    }

    /// fallocate(2). Times may move or not: Linux file systems differ in that.
    pub fn allocate(&mut self, id: Id, from: u64, to: u64, how: Allocation, now: When) {
        let content = self.content_mut(id);
        let size = content.size;
        if !matches!(how, Allocation::Reserve { .. }) {
            content.punch(from, to.min(size));
        }
        if let Allocation::Reserve { keep_size: false } | Allocation::Zero { keep_size: false } = how {
            content.size = size.max(to);
        }
        let node = self.node_mut(id);
        (node.mtime, node.ctime) = (node.mtime.since(now), node.ctime.since(now));
    }

    /// copy_file_range(2) within one file system that shares extents: holes are copied as such.
    pub fn copy_range(&mut self, from: (Id, u64), to: (Id, u64), length: u64, now: When) {
        if length == 0 {
            return;
        }
        let source = self.node(from.0).content().clone();
        let target = self.content_mut(to.0);
        target.size = target.size.max(to.1 + length);
        target.punch(to.1, to.1 + length);
        for (start, end) in source.data_within(from.1, from.1 + length) {
            target.write(to.1 + (start - from.1), &source.read(start, end - start));
        }
        self.changed(to.0, now);
    }

    /// Somebody read it: relatime may move the access time, or not.
    pub fn was_read(&mut self, id: Id, now: When) {
        let node = self.node_mut(id);
        node.atime = node.atime.since(now);
    }

    pub fn set_mode(&mut self, id: Id, mode: u16, now: When) {
        self.node_mut(id).mode = mode;
        self.touch_inode(id, now);
    }

    pub fn set_owner(&mut self, id: Id, uid: Option<u32>, gid: Option<u32>, now: When) {
        let node = self.node_mut(id);
        node.uid = uid.unwrap_or(node.uid);
        node.gid = gid.unwrap_or(node.gid);
        self.touch_inode(id, now);
    }

    pub fn set_times(&mut self, id: Id, atime: Option<When>, mtime: Option<When>, now: When) {
        let holds_fresh = match &self.node(id).body {
            Body::Directory(entries) => entries.values().any(|child| self.node(*child).fresh),
            _ => false,
        };
        let node = self.node_mut(id);
        node.atime = atime.unwrap_or(node.atime);
        if node.fresh {
            node.atime = node.atime.since(now);
        }
        if let Some(mtime) = mtime {
            node.mtime = if holds_fresh { mtime.since(now) } else { mtime };
        }
        self.touch_inode(id, now);
    }

    pub fn set_xattr(
        &mut self,
        id: Id,
        name: &XattrName,
        value: &[u8],
        mode: XattrMode,
        now: When,
    ) -> Outcome<()> {
        self.may_have(id, name)?;
        match (mode, self.node(id).xattrs.contains_key(name)) {
            (XattrMode::Create, true) => return Err(ErrorCode::Exists),
            (XattrMode::Replace, false) => return Err(ErrorCode::NoAttribute),
            _ => {}
        }
        self.settle(id, now);
        self.node_mut(id).xattrs.insert(name.clone(), value.to_vec());
        self.touch_inode(id, now);
        Ok(())
    }

    pub fn remove_xattr(&mut self, id: Id, name: &XattrName, now: When) -> Outcome<()> {
        self.may_have(id, name)?;
        if !self.node(id).xattrs.contains_key(name) {
            return Err(ErrorCode::NoAttribute);
        }
        self.node_mut(id).xattrs.remove(name);
        self.touch_inode(id, now);
        Ok(())
    }

    /// Only files and directories have user attributes (xattr(7)).
    fn may_have(&self, id: Id, name: &XattrName) -> Outcome<()> {
        let is_user = name.as_bytes().starts_with(b"user.");
        match self.node(id).kind {
            FileKind::File | FileKind::Directory => Ok(()),
            _ if is_user => Err(ErrorCode::NotPermitted),
            _ => Ok(()),
        }
    }
}
