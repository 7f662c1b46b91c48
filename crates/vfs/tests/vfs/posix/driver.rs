//! Does each step to the file system under test and to the plain one, and compares what they say.

use super::listing::Walk;
use super::steps::{About, Place, Step, Time};
use super::{Body, Content, Id, New, Node, Posix, ROOT, When};
use crate::cluster::{CALLER, Cluster, FREE_BYTES, READ};
use bytes::Bytes;
use dfs_proto::limits::{BLOB_BYTES_MAX, FILE_BYTES_MAX};
use dfs_proto::meta::{AttrChanges, SetTime};
use dfs_proto::{Attr, CollisionPolicy, ErrorCode, FileKind, Ino, LockOwner, Name, Timestamp, XattrName};
use dfs_vfs::{Allocation, Fh, OpenFlags, Seek, Vfs, VfsConfig, VfsError};
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::Ordering;

struct Open {
    fh: Fh,
    id: Id,
    flags: OpenFlags,
}

pub struct Driver {
    cluster: Arc<Cluster>,
    vfs: Arc<Vfs>,
    other: Arc<Vfs>,
    model: Posix,
    inos: HashMap<Id, Ino>,
    handles: Vec<Open>,
    walks: Vec<Walk>,
    /// References that a kernel would hold.
    lookups: HashMap<Ino, u64>,
    started: Timestamp,
    /// Number of the step, from which written bytes are made.
    count: u64,
}

fn names() -> [Name; 5] {
    let long = [b'n'; 255];
    [&b"a"[..], b"b.txt", b"\xff\xfe", b"d", &long].map(|n| Name::new(n).unwrap())
}

pub fn name(index: u8) -> Name {
    names()[index as usize % 5].clone()
}

fn xattr_name(index: u8) -> XattrName {
    XattrName::new(["user.a", "user.b", "trusted.t", "security.s"][index as usize % 4]).unwrap()
}

fn config() -> VfsConfig {
    VfsConfig {
        collision: CollisionPolicy::Replace,
        staged_bytes_max: 2 * BLOB_BYTES_MAX,
        cache_bytes_max: BLOB_BYTES_MAX,
        ..VfsConfig::default()
    }
}

fn code<T>(result: Result<T, VfsError>) -> Result<T, ErrorCode> {
    result.map_err(|e| e.code())
}

/// The same value, or the same error.
#[track_caller]
fn same<T: PartialEq + Debug>(what: &str, got: Result<T, ErrorCode>, expected: Result<T, ErrorCode>) {
    assert_eq!(got, expected, "{what} (left: got, right: expected)");
}

impl Driver {
    pub async fn new() -> Driver {
        let started = Timestamp::now();
        let cluster = Cluster::new().await;
        let now = When { first: started, last: Timestamp::now() };
        Driver {
            vfs: cluster.mount(config()),
            other: cluster.mount(config()),
            cluster,
            model: Posix::new(now.since(now)),
            inos: HashMap::from([(ROOT, Ino::ROOT)]),
            handles: Vec::new(),
            walks: Vec::new(),
            lookups: HashMap::new(),
            started,
            count: 0,
        }
    }

    /// From the start of the step until now.
    fn now(&self) -> When {
        When { first: self.started, last: Timestamp::now() }
    }

    fn dir(&self, index: u8) -> (Id, Ino) {
        let all = self.model.directories();
        let id = all[index as usize % all.len()];
        (id, self.inos[&id])
    }

    fn place(&self, at: Place) -> (Id, Ino, Name) {
        let (id, ino) = self.dir(at.dir);
        (id, ino, name(at.name))
    }

    fn open_at(&self, handle: u8) -> Option<&Open> {
        (!self.handles.is_empty()).then(|| &self.handles[handle as usize % self.handles.len()])
    }

    /// Looks an entry up as the kernel does before most things, and compares.
    async fn look(&mut self, dir: Id, name: &Name) -> Option<Id> {
        let got = code(self.vfs.lookup(self.inos[&dir], name).await);
        let Some(id) = self.model.child(dir, name) else {
            assert_eq!(got.err(), Some(ErrorCode::NotFound), "lookup of {name:?}");
            return None;
        };
        let attr = got.unwrap_or_else(|e| panic!("lookup of {name:?}: {e}"));
        *self.lookups.entry(attr.ino).or_default() += 1;
        self.check_attr(id, &attr);
        Some(id)
    }

    fn remembered(&mut self, id: Id, attr: &Attr) {
        *self.lookups.entry(attr.ino).or_default() += 1;
        self.inos.insert(id, attr.ino);
        self.check_attr(id, attr);
    }

    fn check_attr(&self, id: Id, attr: &Attr) {
        check_attr(self.model.node(id), self.inos[&id], attr);
    }

    async fn about(&mut self, what: About) -> Option<(Id, Ino, Option<Fh>)> {
        match what {
            About::Handle(handle) => {
                let open = self.open_at(handle)?;
                Some((open.id, self.inos[&open.id], Some(open.fh)))
            }
            About::Path(at) => {
                let (dir, _, name) = self.place(at);
                let id = self.look(dir, &name).await?;
                Some((id, self.inos[&id], None))
            }
        }
    }

    async fn check(&self, id: Id) {
        let attr = self.vfs.getattr(self.inos[&id]).await.unwrap_or_else(|e| panic!("getattr: {e}"));
        self.check_attr(id, &attr);
    }

    pub async fn step(&mut self, step: &Step) {
        self.count += 1;
        self.started = Timestamp::now();
        match *step {
            Step::Create { at, flags, mode } => self.create(at, flags, mode).await,
            Step::Open { at, flags } => self.open(at, flags).await,
            Step::Read { handle, offset, length } => self.read(handle, offset, length).await,
            Step::Write { handle, offset, length, mapped, at_once } => {
                self.write(handle, offset, length, mapped, at_once).await;
            }
            Step::Truncate { what, size, through_handle } => self.truncate(what, size, through_handle).await,
            Step::Flush { handle, dup } => self.flush(handle, dup).await,
            Step::FlushFails { handle } => self.flush_fails(handle).await,
            Step::Fsync { handle } => self.fsync(handle).await,
            Step::Release { handle } => self.release(handle).await,
            Step::Mkdir { at, mode } => self.make(at, FileKind::Directory, mode).await,
            Step::Mknod { at, kind } => self.make(at, kind, 0o644).await,
            Step::Symlink { at, length } => self.symlink(at, length).await,
            Step::Rmdir(at) => self.rmdir(at).await,
            Step::Link { what, at } => self.link(what, at).await,
            Step::Unlink(at) => self.unlink(at).await,
            Step::Rename { from, to, mode } => self.rename(from, to, mode).await,
            Step::SetMode { what, mode } => {
                let changes = AttrChanges { mode: Some(mode), ..AttrChanges::default() };
                self.setattr(what, changes).await;
            }
            Step::SetOwner { what, uid, gid } => {
                self.setattr(what, AttrChanges { uid, gid, ..AttrChanges::default() }).await;
            }
            Step::SetTimes { what, atime, mtime } => {
                let (atime, mtime) = (set_time(atime), set_time(mtime));
                self.setattr(what, AttrChanges { atime, mtime, ..AttrChanges::default() }).await;
            }
            Step::SetXattr { what, name, length, mode } => self.set_xattr(what, name, length, mode).await,
            Step::RemoveXattr { what, name } => self.remove_xattr(what, name).await,
            Step::Tmpfile { dir, flags, mode } => self.tmpfile(dir, flags, mode).await,
            Step::Allocate { handle, offset, length, how } => {
                self.allocate(handle, offset, length, how).await
            }
            Step::Seek { handle, offset, what } => self.seek(handle, offset, what).await,
            Step::CopyRange { from, from_offset, to, to_offset, length } => {
                self.copy_range((from, from_offset), (to, to_offset), length).await;
            }
            Step::Look(at) => {
                let (dir, _, name) = self.place(at);
                self.look(dir, &name).await;
            }
            Step::Forget(at) => self.forget(at),
            Step::OpenDir { dir } => self.open_dir(dir).await,
            Step::List { listing, entries } => self.list(listing, entries).await,
            Step::SeekBack { listing, to } => {
                if let Some(walk) = pick(&mut self.walks, listing) {
                    walk.seek_back(to);
                }
            }
            Step::CloseDir { listing } => {
                if !self.walks.is_empty() {
                    let index = listing as usize % self.walks.len();
                    self.vfs.releasedir(self.walks.swap_remove(index).fh);
                }
            }
        }
    }

    /// open(2) with O_CREAT: the kernel looks first, and makes only what it does not find.
    async fn create(&mut self, at: Place, flags: OpenFlags, mode: u16) {
        let (dir, ino, name) = self.place(at);
        if let Some(id) = self.look(dir, &name).await {
            if !flags.exclusive {
                self.open_id(id, flags).await;
            }
            return;
        }
        let created = code(self.vfs.create(CALLER, ino, &name, mode, flags).await).expect("the name is free");
        let new = new_node(Body::File(Content::default()), FileKind::File, mode);
        let fresh = flags.truncate && !flags.exclusive;
        let id = self.model.make(dir, &name, new, fresh, self.now()).expect("the name is free");
        self.entry_changed(dir, &name);
        self.remembered(id, &created.attr);
        self.handles.push(Open { fh: created.opened.fh, id, flags });
        self.check(dir).await;
    }

    async fn open(&mut self, at: Place, flags: OpenFlags) {
        let (dir, _, name) = self.place(at);
        if let Some(id) = self.look(dir, &name).await {
            self.open_id(id, flags).await;
        }
    }

    /// Only regular files are opened here; the kernel sees to the rest itself.
    async fn open_id(&mut self, id: Id, flags: OpenFlags) {
        if self.model.node(id).kind != FileKind::File {
            return;
        }
        let opened = code(self.vfs.open(CALLER, self.inos[&id], flags).await).expect("open");
        assert!(!opened.direct);
        if flags.truncate {
            self.model.truncate(id, 0, self.now()).expect("0 is a size");
        }
        self.handles.push(Open { fh: opened.fh, id, flags });
        self.check(id).await;
    }

    async fn read(&mut self, handle: u8, offset: u64, length: u32) {
        let Some(open) = self.open_at(handle) else { return };
        let (id, fh, readable) = (open.id, open.fh, open.flags.read);
        let got = self.vfs.read(fh, offset, length).await;
        if !readable {
            assert!(matches!(got, Err(VfsError::BadHandle(_))));
            return;
        }
        let expected = self.model.node(id).content().read(offset, u64::from(length));
        same_bytes(&got.expect("read"), &expected, offset);
        self.model.was_read(id, self.now());
    }

    async fn write(&mut self, handle: u8, offset: u64, length: usize, mapped: bool, at_once: bool) {
        let Some(open) = self.open_at(handle) else { return };
        let (id, fh, flags) = (open.id, open.fh, open.flags);
        let bytes = self.pattern(length);
        let tried = if at_once { self.vfs.try_write(fh, offset, &bytes, mapped) } else { None };
        let got = match tried {
            Some(result) => result,
            None => self.vfs.write(fh, offset, &bytes, mapped).await,
        };
        if !flags.write {
            assert!(matches!(got, Err(VfsError::BadHandle(_))));
            return;
        }
        let written = code(got);
        let at = if flags.append && !mapped { self.model.node(id).content().size } else { offset };
        let taken = *written.as_ref().unwrap_or(&0) as usize;
        assert!(written.is_err() || taken > 0 || length == 0, "a write took nothing");
        let bytes = if written.is_ok() { &bytes[..taken] } else { &bytes[..] };
        let now = self.now();
        same("write", written.map(|_| ()), self.model.write(id, at, bytes, now));
        self.check(id).await;
    }

    /// Bytes that no other step writes at the same place.
    fn pattern(&self, length: usize) -> Vec<u8> {
        let mut bytes = vec![self.count as u8 | 1; length];
        for (i, chunk) in bytes.chunks_mut(1024).enumerate() {
            let stamp = (self.count << 20 | i as u64).to_be_bytes();
            let length = chunk.len().min(8);
            chunk[..length].copy_from_slice(&stamp[8 - length..]);
        }
        bytes
    }

    async fn truncate(&mut self, what: About, size: u64, through_handle: bool) {
        let Some((id, ino, fh)) = self.about(what).await else { return };
        let changes = AttrChanges { size: Some(size), ..AttrChanges::default() };
        // ftruncate(2) wants a descriptor that can be written to.
        let fh = fh.filter(|fh| through_handle && self.handles.iter().any(|h| h.fh == *fh && h.flags.write));
        let got = code(self.vfs.setattr(CALLER, ino, changes, fh).await).map(|attr| attr.size);
        let now = self.now();
        same("truncate", got, self.model.truncate(id, size, now).map(|()| size));
        self.check(id).await;
    }

    async fn flush(&mut self, handle: u8, dup: bool) {
        let Some(open) = self.open_at(handle) else { return };
        let (id, writable, fh) = (open.id, open.flags.write, open.fh);
        let mut put_off = false;
        let others_open = |_: &Name, _| {
            put_off = dup;
            dup
        };
        code(self.vfs.flush(fh, LockOwner(1), others_open).await).expect("flush");
        if writable && !put_off {
            self.model.settle(id, self.now());
        }
        self.check(id).await;
    }

    /// No node takes the data: the close fails, what was written stays, and the next one stores it.
    async fn flush_fails(&mut self, handle: u8) {
        let Some(open) = self.open_at(handle) else { return };
        let (id, fh) = (open.id, open.fh);
        self.cluster.failing_puts.store(1, Ordering::SeqCst);
        let failed = code(self.vfs.flush(fh, LockOwner(1), |_, _| false).await);
        self.cluster.failing_puts.store(0, Ordering::SeqCst);
        assert!(matches!(failed, Ok(()) | Err(ErrorCode::NoNodes)), "{failed:?}");
        if failed.is_ok() && self.open_at(handle).is_some_and(|open| open.flags.write) {
            self.model.settle(id, self.now());
        }
        self.check(id).await;
    }

    async fn fsync(&mut self, handle: u8) {
        let Some(open) = self.open_at(handle) else { return };
        let id = open.id;
        code(self.vfs.fsync(open.fh).await).expect("fsync");
        self.model.settle(id, self.now());
        self.check(id).await;
    }

    /// close(2) of the last descriptor.
    async fn release(&mut self, handle: u8) {
        if self.handles.is_empty() {
            return;
        }
        let open = self.handles.swap_remove(handle as usize % self.handles.len());
        code(self.vfs.flush(open.fh, LockOwner(1), |_, _| false).await).expect("flush");
        self.vfs.release(open.fh).await;
        let is_last = self.handles.iter().all(|h| h.id != open.id);
        if open.flags.write || is_last {
            self.model.settle(open.id, self.now());
        }
        if self.model.node(open.id).nlink > 0 {
            self.check(open.id).await;
        }
    }

    async fn tmpfile(&mut self, dir: u8, flags: OpenFlags, mode: u16) {
        let (dir, ino) = self.dir(dir);
        let created = code(self.vfs.tmpfile(CALLER, ino, mode, flags).await).expect("O_TMPFILE");
        let new = new_node(Body::File(Content::default()), FileKind::File, mode);
        let id = self.model.make_unnamed(dir, new, self.now());
        self.remembered(id, &created.attr);
        self.handles.push(Open { fh: created.opened.fh, id, flags });
        self.check(dir).await;
    }

    async fn allocate(&mut self, handle: u8, offset: u64, length: u64, how: Allocation) {
        let Some(open) = self.open_at(handle) else { return };
        let (id, writable) = (open.id, open.flags.write);
        let got = self.vfs.fallocate(open.fh, offset, length, how).await;
        if !writable {
            assert!(matches!(got, Err(VfsError::BadHandle(_))));
            return;
        }
        let expected = match offset.checked_add(length) {
            _ if length == 0 => Err(ErrorCode::InvalidArgument),
            Some(end) if end <= FILE_BYTES_MAX => self.has_room(id, offset, end, how),
            _ => Err(ErrorCode::TooLarge),
        };
        if expected.is_ok() {
            self.model.allocate(id, offset, offset + length, how, self.now());
        }
        same("fallocate", code(got), expected);
        self.check(id).await;
    }

    fn has_room(&self, id: Id, from: u64, to: u64, how: Allocation) -> Result<(), ErrorCode> {
        let there: u64 = self.model.node(id).content().data_within(from, to).iter().map(|(s, e)| e - s).sum();
        let reserves = matches!(how, Allocation::Reserve { .. });
        if reserves && (to - from) - there > FREE_BYTES { Err(ErrorCode::NoSpace) } else { Ok(()) }
    }

    async fn seek(&mut self, handle: u8, offset: u64, what: Seek) {
        let Some(open) = self.open_at(handle) else { return };
        let content = self.model.node(open.id).content();
        let expected = match what {
            Seek::Data => content.next_data(offset),
            Seek::Hole => content.next_hole(offset),
        };
        match (self.vfs.seek(open.fh, offset, what).await, expected) {
            (Ok(at), Some(expected)) => assert_eq!(at, expected, "{what:?} from {offset}"),
            (Err(VfsError::NothingThere), None) => {}
            (got, expected) => panic!("{what:?} from {offset}: {got:?}, expected {expected:?}"),
        }
    }

    async fn copy_range(&mut self, from: (u8, u64), to: (u8, u64), length: u64) {
        let (Some(source), Some(target)) = (self.open_at(from.0), self.open_at(to.0)) else { return };
        let (source_id, target_id) = (source.id, target.id);
        let may = source.flags.read && target.flags.write && !target.flags.append;
        // The kernel cuts the length to what the source has and to what the target can take.
        let left = self.model.node(source_id).content().size.saturating_sub(from.1);
        let length = length.min(left).min(FILE_BYTES_MAX.saturating_sub(to.1));
        let got = self.vfs.copy_range(source.fh, from.1, target.fh, to.1, length).await;
        if !may {
            assert!(matches!(got, Err(VfsError::BadHandle(_))));
            return;
        }
        let overlaps = source_id == target_id && from.1 < to.1 + length && to.1 < from.1 + length;
        let now = self.now();
        self.model.settle(source_id, now);
        self.model.settle(target_id, now);
        same(
            "copy_file_range",
            code(got),
            if overlaps { Err(ErrorCode::InvalidArgument) } else { Ok(length) },
        );
        if !overlaps {
            self.model.was_read(source_id, now);
            self.model.copy_range((source_id, from.1), (target_id, to.1), length, now);
        }
        self.check(target_id).await;
    }

    async fn make(&mut self, at: Place, kind: FileKind, mode: u16) {
        let (dir, ino, name) = self.place(at);
        let rdev = if matches!(kind, FileKind::CharDevice | FileKind::BlockDevice) { 0x0103 } else { 0 };
        let (got, body) = match kind {
            FileKind::Directory => {
                (self.vfs.mkdir(CALLER, ino, &name, mode).await, Body::Directory(Default::default()))
            }
            FileKind::File => {
                (self.vfs.mknod(CALLER, ino, &name, kind, mode, 0).await, Body::File(Content::default()))
            }
            _ => (self.vfs.mknod(CALLER, ino, &name, kind, mode, rdev).await, Body::Special(rdev)),
        };
        let made = self.model.make(dir, &name, new_node(body, kind, mode), false, self.now());
        self.made(dir, &name, code(got), made).await;
    }

    async fn made(
        &mut self,
        dir: Id,
        name: &Name,
        got: Result<Attr, ErrorCode>,
        made: Result<Id, ErrorCode>,
    ) {
        same("make", got.as_ref().map(|_| ()).map_err(|e| *e), made.map(|_| ()));
        if let (Ok(attr), Ok(id)) = (got, made) {
            self.entry_changed(dir, name);
            self.remembered(id, &attr);
        }
        self.check(dir).await;
    }

    async fn symlink(&mut self, at: Place, length: u16) {
        let (dir, ino, name) = self.place(at);
        let target = vec![b't'; length as usize];
        let got = code(self.vfs.symlink(CALLER, ino, &name, &target).await);
        match length {
            0 => {
                return assert!(
                    matches!(got, Err(ErrorCode::InvalidArgument | ErrorCode::Exists)),
                    "{got:?}"
                );
            }
            4096.. => {
                return assert!(matches!(got, Err(ErrorCode::NameTooLong | ErrorCode::Exists)), "{got:?}");
            }
            _ => {}
        }
        let new = New { mode: 0o777, ..new_node(Body::Symlink(target.clone()), FileKind::Symlink, 0) };
        let made = self.model.make(dir, &name, new, false, self.now());
        if let Ok(attr) = &got {
            assert_eq!(self.vfs.readlink(attr.ino).await.unwrap(), target);
        }
        self.made(dir, &name, got, made).await;
    }

    async fn rmdir(&mut self, at: Place) {
        let (dir, ino, name) = self.place(at);
        let got = code(self.vfs.rmdir(ino, &name).await);
        let now = self.now();
        same("rmdir", got, self.model.rmdir(dir, &name, now));
        self.entry_changed(dir, &name);
        self.check(dir).await;
    }

    async fn link(&mut self, what: About, at: Place) {
        let Some((id, ino, _)) = self.about(what).await else { return };
        // The kernel names nothing again that has lost its last name.
        let node = self.model.node(id);
        if node.nlink == 0 && !node.unnamed {
            return;
        }
        let (dir, dir_ino, name) = self.place(at);
        let got = code(self.vfs.link(ino, dir_ino, &name).await);
        let expected = self.model.link(id, dir, &name, self.now());
        same("link", got.as_ref().map(|_| ()).map_err(|e| *e), expected);
        if let Ok(attr) = got {
            self.entry_changed(dir, &name);
            self.remembered(id, &attr);
        }
        self.check(dir).await;
    }

    async fn unlink(&mut self, at: Place) {
        let (dir, ino, name) = self.place(at);
        let id = self.model.child(dir, &name);
        let got = code(self.vfs.unlink(ino, &name).await);
        let now = self.now();
        same("unlink", got, self.model.unlink(dir, &name, now));
        self.entry_changed(dir, &name);
        self.check(dir).await;
        self.check_if_open(id).await;
    }

    /// What lost a name and is still open is still all there.
    async fn check_if_open(&self, id: Option<Id>) {
        if let Some(open) = self.handles.iter().find(|h| Some(h.id) == id) {
            self.check(open.id).await;
        }
    }

    async fn rename(&mut self, from: Place, to: Place, mode: dfs_proto::meta::RenameMode) {
        let (dir, ino, name) = self.place(from);
        let (new_dir, new_ino, new_name) = self.place(to);
        let there = self.model.child(new_dir, &new_name);
        let got = code(self.vfs.rename(ino, &name, new_ino, &new_name, mode).await);
        let expected = self.model.rename((dir, &name), (new_dir, &new_name), mode, self.now());
        // What the kernel refuses before anybody is asked may be refused here for another reason as well.
        let either = matches!(
            (&expected, &got),
            (Err(ErrorCode::NotEmpty), Err(ErrorCode::IsDirectory))
                | (Err(ErrorCode::InvalidArgument), Err(ErrorCode::NotDirectory))
        );
        if !either {
            same("rename", got, expected);
        }
        self.entry_changed(dir, &name);
        self.entry_changed(new_dir, &new_name);
        self.check(dir).await;
        self.check(new_dir).await;
        self.check_if_open(there).await;
    }

    async fn setattr(&mut self, what: About, changes: AttrChanges) {
        let Some((id, ino, fh)) = self.about(what).await else { return };
        let attr = code(self.vfs.setattr(CALLER, ino, changes, fh).await).expect("setattr");
        let now = self.now();
        let time = |set: SetTime| match set {
            SetTime::Now => now,
            SetTime::At(t) => When::at(t),
        };
        if changes == AttrChanges::default() {
            return;
        }
        if let Some(mode) = changes.mode {
            self.model.set_mode(id, mode, now);
        }
        if changes.uid.is_some() || changes.gid.is_some() {
            self.model.set_owner(id, changes.uid, changes.gid, now);
        }
        self.model.set_times(id, changes.atime.map(time), changes.mtime.map(time), now);
        self.check_attr(id, &attr);
        self.check(id).await;
    }

    async fn set_xattr(&mut self, what: About, index: u8, length: u16, mode: dfs_proto::meta::XattrMode) {
        let Some((id, ino, _)) = self.about(what).await else { return };
        let (name, value) = (xattr_name(index), vec![self.count as u8; length as usize]);
        let got = code(self.vfs.setxattr(ino, name.clone(), Bytes::from(value.clone()), mode, false).await);
        let now = self.now();
        // An attempt may publish a new file, whatever comes of it.
        self.model.settle(id, now);
        same("setxattr", got, self.model.set_xattr(id, &name, &value, mode, now));
        self.check_xattrs(id).await;
    }

    async fn remove_xattr(&mut self, what: About, index: u8) {
        let Some((id, ino, _)) = self.about(what).await else { return };
        let name = xattr_name(index);
        let got = code(self.vfs.removexattr(ino, name.clone()).await);
        let now = self.now();
        self.model.settle(id, now);
        same("removexattr", got, self.model.remove_xattr(id, &name, now));
        self.check_xattrs(id).await;
    }

    async fn check_xattrs(&self, id: Id) {
        let (ino, expected) = (self.inos[&id], &self.model.node(id).xattrs);
        let mut listed = self.vfs.listxattr(ino).await.expect("listxattr");
        listed.sort();
        assert_eq!(listed, expected.keys().cloned().collect::<Vec<_>>());
        for index in 0..4 {
            let name = xattr_name(index);
            let got = code(self.vfs.getxattr(ino, name.clone()).await).map(|v| v.to_vec());
            same("getxattr", got, expected.get(&name).cloned().ok_or(ErrorCode::NoAttribute));
        }
        self.check(id).await;
    }

    /// The kernel drops what nobody uses; it keeps what is open.
    fn forget(&mut self, at: Place) {
        let (dir, _, name) = self.place(at);
        let Some(id) = self.model.child(dir, &name) else { return };
        let is_used =
            self.model.node(id).kind == FileKind::Directory || self.handles.iter().any(|h| h.id == id);
        if !is_used && let Some(count) = self.lookups.remove(&self.inos[&id]) {
            self.vfs.forget(self.inos[&id], count);
        }
    }

    fn entry_changed(&mut self, dir: Id, name: &Name) {
        self.walks.iter_mut().filter(|w| w.dir == dir).for_each(|walk| walk.entry_changed(name));
    }

    async fn open_dir(&mut self, dir: u8) {
        let (id, ino) = self.dir(dir);
        let fh = self.vfs.opendir(ino).await.expect("opendir");
        self.walks.push(Walk::new(fh, id, self.model.node(id).entries().keys()));
    }

    async fn list(&mut self, listing: u8, entries: u8) {
        let (model, inos, vfs) = (&self.model, &self.inos, &self.vfs);
        let Some(walk) = pick(&mut self.walks, listing) else { return };
        // The kernel lists a directory no more that has been removed.
        if model.node(walk.dir).nlink == 0 {
            return;
        }
        for listed in walk.read(vfs, entries as usize, model.node(walk.dir).entries().keys()).await {
            let Some(name) = &listed.entry else { continue };
            // The kernel takes it as it takes the answer to a lookup.
            let id = model.child(walk.dir, name).unwrap_or_else(|| panic!("{name:?} is listed and gone"));
            check_attr(model.node(id), inos[&id], &listed.attr);
        }
        self.model.was_read(walk.dir, When { first: self.started, last: Timestamp::now() });
    }

    /// The whole tree, as it is now and, when all is closed, as others see it.
    pub async fn finish(mut self) {
        let vfs = self.vfs.clone();
        self.check_tree(&vfs, false).await;
        while !self.handles.is_empty() {
            self.started = Timestamp::now();
            self.release(0).await;
        }
        for walk in self.walks.drain(..) {
            vfs.releasedir(walk.fh);
        }
        self.check_tree(&vfs, true).await;
        let other = self.other.clone();
        self.check_tree(&other, true).await;
        self.cluster.nothing_is_open().await;
    }

    async fn check_tree(&mut self, vfs: &Vfs, closed: bool) {
        for dir in self.model.directories() {
            let ino = self.inos[&dir];
            let listed = super::listing::all(vfs, ino).await;
            self.was_read(dir);
            let entries = self.model.node(dir).entries().clone();
            let got: Vec<&Name> = listed.keys().collect();
            assert_eq!(got, entries.keys().collect::<Vec<_>>(), "the names in directory {ino}");
            for (name, id) in &entries {
                let attr = vfs.lookup(ino, name).await.unwrap();
                self.check_attr(*id, &attr);
                self.check_attr(*id, &listed[name]);
                self.check_body(vfs, *id, &attr, closed).await;
                self.was_read(*id);
            }
        }
    }

    fn was_read(&mut self, id: Id) {
        self.model.was_read(id, When { first: self.started, last: Timestamp::now() });
    }

    async fn check_body(&self, vfs: &Vfs, id: Id, attr: &Attr, closed: bool) {
        match &self.model.node(id).body {
            Body::File(content) => {
                let fh = vfs.open(CALLER, attr.ino, READ).await.unwrap().fh;
                let mut parts = content.data_within(0, u64::MAX);
                parts.extend([
                    (0, 4096),
                    (content.size.saturating_sub(100), content.size.saturating_add(100)),
                ]);
                for (from, to) in parts {
                    let from = from.saturating_sub(50);
                    let got = vfs.read(fh, from, (to - from).min(8 << 20) as u32 + 50).await.unwrap();
                    same_bytes(&got, &content.read(from, (to - from).min(8 << 20) + 50), from);
                }
                if closed {
                    assert_eq!(attr.allocated, content.covered(), "what takes room");
                }
                crate::close(vfs, fh).await.unwrap();
            }
            Body::Symlink(target) => assert_eq!(vfs.readlink(attr.ino).await.unwrap(), target),
            Body::Directory(_) | Body::Special(_) => {}
        }
    }
}

fn pick<T>(all: &mut [T], index: u8) -> Option<&mut T> {
    let count = all.len().max(1);
    all.get_mut(index as usize % count)
}

fn new_node(body: Body, kind: FileKind, mode: u16) -> New {
    New { body, kind, mode: mode & !CALLER.umask, uid: CALLER.uid, gid: CALLER.gid }
}

fn set_time(time: Time) -> Option<SetTime> {
    match time {
        Time::Omit => None,
        Time::Now => Some(SetTime::Now),
        Time::At(secs, nanos) => Some(SetTime::At(Timestamp { secs, nanos })),
    }
}

/// Says where the first difference is instead of printing megabytes.
#[track_caller]
fn same_bytes(got: &[u8], expected: &[u8], offset: u64) {
    if got == expected {
        return;
    }
    let at = got.iter().zip(expected).take_while(|(a, b)| a == b).count();
    let around = |bytes: &[u8]| bytes[at.min(bytes.len())..(at + 16).min(bytes.len())].to_vec();
    panic!(
        "content differs from {} on: got {:02x?} ({} bytes in all), expected {:02x?} ({})",
        offset + at as u64,
        around(got),
        got.len(),
        around(expected),
        expected.len()
    );
}

#[track_caller]
fn check_attr(node: &Node, ino: Ino, attr: &Attr) {
    let (size, rdev) = match &node.body {
        Body::File(content) => (content.size, 0),
        Body::Directory(_) => (4096, 0),
        Body::Symlink(target) => (target.len() as u64, 0),
        Body::Special(rdev) => (0, *rdev),
    };
    let got = (attr.ino, attr.kind, attr.mode, attr.nlink, attr.uid, attr.gid, attr.size, attr.rdev);
    let expected = (ino, node.kind, node.mode, node.nlink, node.uid, node.gid, size, rdev);
    assert_eq!(
        got, expected,
        "attributes (left: got, right: expected): number, kind, mode, nlink, uid, gid, size, rdev"
    );
    for (what, got, expected) in [
        ("atime", attr.atime, node.atime),
        ("mtime", attr.mtime, node.mtime),
        ("ctime", attr.ctime, node.ctime),
    ] {
        assert!(expected.holds(got), "{what} of {} is {got:?} and should be {expected:?}", attr.ino);
    }
}
