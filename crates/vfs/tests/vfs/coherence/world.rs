//! The mounts, what is done on them, and whether what they show is what they may show.

use super::contract::{Contract, Edit};
use super::kernel::{Kernel, Opened, PAGE};
use super::locks::{Owner, Table};
use crate::cluster::{APPEND, Cluster, READ, READ_WRITE, WRITE};
use dfs_proto::{CollisionPolicy, ErrorCode, Ino, LockMode, LockSpace, Name};
use dfs_vfs::{OpenFlags, VfsConfig};
use std::sync::Arc;

pub const MOUNTS: usize = 3;
pub const NAMES: usize = 6;

/// The first name is that of a log, to which all mounts append; the second that of a table, where each mount has
/// a part of its own; the third that of a counter, written by whoever has its lock; the rest are documents, written
/// by one mount at a time.
const LOG: usize = 0;
const TABLE: usize = 1;
const COUNTER: usize = 2;

/// More than any file has.
const WHOLE: u64 = 1 << 24;

/// Bytes of each mount's part of the table: not a whole number of pages.
const PART: u64 = 5000;

#[derive(Clone, Debug)]
pub enum Step {
    Open {
        mount: usize,
        name: usize,
        access: u8,
        create: bool,
        truncate: bool,
    },
    Read {
        handle: usize,
        offset: u64,
        length: u64,
    },
    Write {
        handle: usize,
        offset: u64,
        length: u64,
    },
    Truncate {
        handle: usize,
        size: u64,
    },
    Fsync {
        handle: usize,
    },
    Close {
        handle: usize,
    },
    Stat {
        mount: usize,
        name: usize,
    },
    Unlink {
        mount: usize,
        name: usize,
    },
    Rename {
        mount: usize,
        from: usize,
        to: usize,
    },
    /// Events reach the mount.
    Deliver {
        mount: usize,
        count: usize,
    },
    /// The kernel drops what it was told to drop.
    Drop {
        mount: usize,
        count: usize,
    },
    Down {
        mount: usize,
    },
    /// The stream of events stands; when it stood already, it is said to have lost some.
    Up {
        mount: usize,
    },
    Evict {
        mount: usize,
    },
    /// Everything arrives everywhere.
    Quiet,
    /// A lock is asked for, and not waited for: flock(2) or fcntl(2).
    Lock {
        handle: usize,
        whole: bool,
        exclusive: bool,
    },
    Unlock {
        handle: usize,
        whole: bool,
    },
    /// The number at the start of the counter is read and written under its lock.
    Increment {
        handle: usize,
    },
}

struct Handle {
    mount: usize,
    name: usize,
    file: Opened,
    flags: OpenFlags,
}

pub struct World {
    cluster: Arc<Cluster>,
    kernels: Vec<Kernel>,
    down: [bool; MOUNTS],
    contract: Contract,
    locks: Table,
    handles: Vec<Handle>,
    count: u64,
}

fn name(index: usize) -> Name {
    Name::try_from(["log", "table", "counter", "a", "b", "c"][index]).unwrap()
}

fn space_of(whole: bool) -> LockSpace {
    if whole { LockSpace::Whole } else { LockSpace::Range }
}

/// The kind of lock under which a counter is written.
fn guard_of(counter: Ino) -> LockSpace {
    space_of(counter.0.is_multiple_of(2))
}

fn owner(mount: usize, file: &Opened, space: LockSpace) -> Owner {
    Owner { mount, handle: (space == LockSpace::Whole).then_some(file.fh.0) }
}

impl World {
    pub async fn new() -> World {
        let cluster = Cluster::new().await;
        let config = VfsConfig { collision: CollisionPolicy::Replace, ..VfsConfig::default() };
        let kernels = (0..MOUNTS).map(|_| Kernel::new(cluster.mount(config.clone()))).collect();
        cluster.hold_events();
        World {
            cluster,
            kernels,
            down: [false; MOUNTS],
            contract: Contract::default(),
            locks: Table::default(),
            handles: Vec::new(),
            count: 0,
        }
    }

    pub async fn step(&mut self, step: &Step) {
        self.count += 1;
        match *step {
            Step::Open { mount, name, access, create, truncate } => {
                let mode = [READ, WRITE, READ_WRITE][access as usize];
                let append = if name == LOG && mode.write { APPEND } else { mode };
                let flags =
                    OpenFlags { truncate: truncate && mode.write && name > COUNTER, read: true, ..append };
                self.open(mount, name, flags, create).await;
            }
            Step::Read { handle, offset, length } => self.read(handle, offset, length).await,
            Step::Write { handle, offset, length } => self.write(handle, offset, length).await,
            Step::Truncate { handle, size } => self.truncate(handle, size).await,
            Step::Fsync { handle } => self.fsync(handle).await,
            Step::Close { handle } => self.close(handle).await,
            Step::Stat { mount, name } => self.stat(mount, name).await,
            Step::Unlink { mount, name: index } => {
                let got = self.kernels[mount].unlink(&name(index)).await;
                let is_there = self.contract.unlink(mount, &name(index));
                assert_eq!(got, if is_there { Ok(()) } else { Err(ErrorCode::NotFound) }, "unlink");
            }
            Step::Rename { mount, from, to } => self.rename(mount, from, to).await,
            Step::Deliver { mount, count } => self.cluster.deliver(mount, count),
            Step::Drop { mount, count } => self.kernels[mount].drop_noted(count),
            Step::Down { mount } => self.break_stream(mount),
            Step::Up { mount } => self.mend_stream(mount),
            Step::Evict { mount } => self.kernels[mount].evict(),
            Step::Quiet => self.quiet().await,
            Step::Lock { handle, whole, exclusive } => {
                let mode = if exclusive { LockMode::Exclusive } else { LockMode::Shared };
                self.lock(handle, space_of(whole), mode).await;
            }
            Step::Unlock { handle, whole } => self.unlock(handle, space_of(whole)).await,
            Step::Increment { handle } => self.increment(handle).await,
        }
    }

    fn handle(&self, index: usize) -> Option<&Handle> {
        (!self.handles.is_empty()).then(|| &self.handles[index % self.handles.len()])
    }

    /// Whether another mount writes to a document that the name may stand for.
    fn is_written_elsewhere(&self, mount: usize, index: usize) -> bool {
        let inos = self.contract.may_find(mount, &name(index));
        let others = self.handles.iter().filter(|h| h.mount != mount && h.flags.write);
        let mut busy: Vec<Ino> = others.map(|h| h.file.ino).collect();
        busy.extend(
            inos.iter().filter(|ino| (0..MOUNTS).any(|m| m != mount && self.contract.has_edits(m, **ino))),
        );
        index > COUNTER && inos.iter().any(|ino| busy.contains(ino))
    }

    async fn open(&mut self, mount: usize, index: usize, flags: OpenFlags, create: bool) {
        let flags = if self.is_written_elsewhere(mount, index) { READ } else { flags };
        let (kernel, wanted) = (&self.kernels[mount], name(index));
        let expected = self.contract.find(mount, &wanted);
        let file = match kernel.open(&wanted, flags).await {
            Ok(file) => file,
            Err(ErrorCode::NotFound) => {
                assert_eq!(expected, None, "`{wanted}` is there and was not found");
                if !create {
                    return;
                }
                let file = kernel.create(&wanted, flags).await.expect("create");
                if flags.truncate {
                    self.contract.made(mount, &wanted, file.ino);
                } else {
                    self.contract.made_known(mount, &wanted, file.ino);
                }
                file
            }
            Err(e) => panic!("open of `{wanted}`: {e}"),
        };
        if expected.is_some_and(|expected| expected != file.ino) || expected.is_none() && !create {
            assert!(
                self.contract.may_find(mount, &wanted).contains(&file.ino),
                "`{wanted}` never was {}",
                file.ino
            );
            assert!(self.contract.is_named(file.ino), "`{wanted}` was opened as {}, which is gone", file.ino);
        }
        self.contract.saw_latest(mount, file.ino);
        if flags.truncate {
            self.contract.edit(mount, file.ino, Edit::Truncate(0));
        }
        self.handles.push(Handle { mount, name: index, file, flags });
    }

    async fn read(&mut self, handle: usize, offset: u64, length: u64) {
        let Some(Handle { mount, file, .. }) = self.handle(handle) else { return };
        let (mount, file) = (*mount, *file);
        if self.down[mount] {
            // Nothing is served from a cache then without asking.
            self.contract.saw_latest(mount, file.ino);
        }
        let got = self.kernels[mount].read(&file, offset, length).await;
        let got = got.unwrap_or_else(|e| panic!("read of {}: {e}", file.ino));
        self.check(mount, file.ino, offset, length, &got);
    }

    /// Every page has to be of one version that the mount may show, and the end that of one.
    fn check(&self, mount: usize, ino: Ino, offset: u64, length: u64, got: &[u8]) {
        let candidates = self.contract.may_show(mount, ino);
        let end = offset + got.len() as u64;
        let ends = |content: &Vec<u8>| end == (content.len() as u64).clamp(offset, offset + length);
        let sizes: Vec<usize> = candidates.iter().map(Vec::len).collect();
        assert!(candidates.iter().any(ends), "mount {mount} reads {ino} from {offset} to {end} of {sizes:?}");
        let mut at = offset;
        while at < end {
            let to = end.min((at / PAGE + 1) * PAGE);
            let part = &got[(at - offset) as usize..(to - offset) as usize];
            let shows = |content: &Vec<u8>| content.get(at as usize..to as usize) == Some(part);
            assert!(
                candidates.iter().any(shows),
                "mount {mount} reads of {ino} at {at} what it may not: {:?}.. of {} versions, the last with {:?}..",
                &part[..part.len().min(20)],
                candidates.len(),
                candidates.last().and_then(|c| c.get(at as usize..(at as usize + 20).min(c.len())))
            );
            at = to;
        }
    }

    fn writable(&self, handle: usize) -> Option<(usize, usize, Opened)> {
        let handle = self.handle(handle).filter(|h| h.flags.write)?;
        let Handle { mount, name, file, .. } = *handle;
        let space = guard_of(file.ino);
        let has_lock =
            || self.locks.held(file.ino, space, owner(mount, &file, space)) == Some(LockMode::Exclusive);
        (name != COUNTER || has_lock()).then_some((mount, name, file))
    }

    async fn write(&mut self, handle: usize, offset: u64, length: u64) {
        let Some((mount, kind, file)) = self.writable(handle) else { return };
        let bytes = vec![(self.count % 255) as u8 + 1; length as usize];
        let (offset, length) = match kind {
            TABLE => (mount as u64 * PART + offset % PART, length.min(PART - offset % PART)),
            _ => (offset, length),
        };
        let bytes = &bytes[..length as usize];
        self.kernels[mount].write(&file, offset, bytes).await.expect("write");
        let edit =
            if file.append { Edit::Append(bytes.to_vec()) } else { Edit::Write(offset, bytes.to_vec()) };
        self.contract.edit(mount, file.ino, edit);
    }

    async fn truncate(&mut self, handle: usize, size: u64) {
        let Some((mount, _, file)) = self.writable(handle).filter(|(_, kind, _)| *kind > TABLE) else {
            return;
        };
        self.kernels[mount].truncate(&file, size).await.expect("ftruncate");
        self.contract.edit(mount, file.ino, Edit::Truncate(size));
    }

    async fn fsync(&mut self, handle: usize) {
        let Some(Handle { mount, file, .. }) = self.handle(handle) else { return };
        let (mount, file) = (*mount, *file);
        self.kernels[mount].fsync(&file).await.expect("fsync");
        self.contract.publish(mount, file.ino);
    }

    async fn close(&mut self, handle: usize) {
        if self.handles.is_empty() {
            return;
        }
        let index = handle % self.handles.len();
        let Handle { mount, file, flags, .. } = self.handles.swap_remove(index);
        self.kernels[mount].close(file).await.expect("close");
        let is_last = self.handles.iter().all(|h| h.mount != mount || h.file.ino != file.ino);
        // The process loses its byte ranges with any close, the open file its own lock.
        let mut had_lock = false;
        for space in [LockSpace::Range, LockSpace::Whole] {
            had_lock |= self.locks.free(file.ino, space, owner(mount, &file, space));
        }
        if flags.write || is_last || had_lock {
            self.contract.publish(mount, file.ino);
        }
    }

    /// Whether it was granted.
    async fn lock(&mut self, handle: usize, space: LockSpace, mode: LockMode) -> bool {
        let Some(Handle { mount, file, .. }) = self.handle(handle) else { return false };
        let (mount, file) = (*mount, *file);
        let (ino, owner) = (file.ino, owner(mount, &file, space));
        let before = self.locks.held(ino, space, owner);
        let is_free = self.locks.is_free(ino, space, owner, mode);
        let granted = self.kernels[mount].lock(&file, space, mode).await.expect("a lock");
        assert_eq!(granted, is_free, "mount {mount}: {space:?} {mode:?} of {ino}");
        let gives_up = before.is_some() && (mode == LockMode::Shared || space == LockSpace::Whole);
        if gives_up || self.contract.is_new(ino) {
            self.contract.publish(mount, ino);
        }
        if granted {
            self.locks.grant(ino, space, owner, mode);
            if before != Some(LockMode::Exclusive) {
                self.contract.heard_all(mount);
            }
        }
        granted
    }

    async fn unlock(&mut self, handle: usize, space: LockSpace) {
        let Some(Handle { mount, file, .. }) = self.handle(handle) else { return };
        let (mount, file) = (*mount, *file);
        self.kernels[mount].unlock(&file, space).await.expect("an unlock");
        if self.locks.free(file.ino, space, owner(mount, &file, space)) {
            self.contract.publish(mount, file.ino);
        }
    }

    async fn increment(&mut self, handle: usize) {
        let Some(Handle { name: COUNTER, file, flags, mount, .. }) = self.handle(handle) else { return };
        let (mount, file, space) = (*mount, *file, guard_of(file.ino));
        if !flags.write || !flags.read || !self.lock(handle, space, LockMode::Exclusive).await {
            return;
        }
        let number = |bytes: &[u8]| {
            let mut number = [0; 8];
            let length = bytes.len().min(8);
            number[..length].copy_from_slice(&bytes[..length]);
            u64::from_le_bytes(number)
        };
        let got = number(&self.kernels[mount].read(&file, 0, 8).await.expect("read"));
        let truth = number(&self.contract.shows(mount, file.ino));
        assert_eq!(got, truth, "mount {mount} has the lock of {} and reads something else", file.ino);
        let next = got.wrapping_add(1).to_le_bytes();
        self.kernels[mount].write(&file, 0, &next).await.expect("write");
        self.contract.edit(mount, file.ino, Edit::Write(0, next.to_vec()));
        self.unlock(handle, space).await;
    }

    async fn stat(&mut self, mount: usize, index: usize) {
        let (kernel, wanted) = (&self.kernels[mount], name(index));
        let found = kernel.lookup(&wanted).await;
        let may = self.contract.may_find(mount, &wanted);
        let Ok(ino) = found else {
            assert_eq!(self.contract.find(mount, &wanted), None, "`{wanted}` is there and was not found");
            return;
        };
        assert!(may.contains(&ino), "`{wanted}` is {ino} and may be {may:?}");
        match kernel.getattr(ino).await {
            Ok(attr) => {
                let sizes: Vec<u64> =
                    self.contract.may_show(mount, ino).iter().map(|c| c.len() as u64).collect();
                assert!(
                    sizes.contains(&attr.size),
                    "mount {mount}: {ino} has {} bytes of {sizes:?}",
                    attr.size
                );
            }
            Err(e) => assert!(!self.contract.is_named(ino), "{ino} has a name and no attributes: {e}"),
        }
    }

    async fn rename(&mut self, mount: usize, from: usize, to: usize) {
        if from <= COUNTER || to <= COUNTER || from == to {
            return;
        }
        match self.kernels[mount].rename(&name(from), &name(to)).await {
            Ok(false) => {}
            Ok(true) => {
                assert!(self.contract.rename(mount, &name(from), &name(to)), "renamed what is not there")
            }
            Err(e) => {
                assert_eq!(e, ErrorCode::NotFound, "rename");
                assert!(!self.contract.rename(mount, &name(from), &name(to)), "`{}` is there", name(from));
            }
        }
    }

    fn break_stream(&mut self, mount: usize) {
        self.cluster.stream_down(mount);
        self.down[mount] = true;
        // The kernel gets to it before anything else is looked at.
        self.kernels[mount].drop_noted(usize::MAX);
    }

    fn mend_stream(&mut self, mount: usize) {
        self.cluster.stream_up(mount);
        self.down[mount] = false;
        self.kernels[mount].drop_noted(usize::MAX);
    }

    async fn quiet(&mut self) {
        for mount in 0..MOUNTS {
            self.cluster.deliver(mount, usize::MAX);
            self.kernels[mount].drop_noted(usize::MAX);
            self.contract.heard_all(mount);
        }
        for mount in 0..MOUNTS {
            self.check_caches(mount);
        }
    }

    /// What is cached is what there is.
    fn check_caches(&self, mount: usize) {
        let caches = self.kernels[mount].caches.0.lock().unwrap();
        for ((_, name), ino) in &caches.entries {
            assert_eq!(self.contract.find(mount, name), Some(*ino), "mount {mount} has `{name}` cached");
        }
        assert!(
            !self.down[mount] || caches.entries.is_empty(),
            "entries are cached while nobody tells of changes"
        );
        for (ino, inode) in caches.inodes.iter().filter(|(ino, _)| **ino != Ino::ROOT) {
            let Some(attr) = &inode.attr else { continue };
            assert!(!self.down[mount], "attributes are cached while nobody tells of changes");
            let truth = self.contract.shows(mount, *ino);
            assert_eq!(attr.size, truth.len() as u64, "mount {mount} has attributes of {ino} cached");
            for (number, page) in &inode.pages {
                let from = (number * PAGE) as usize;
                let to = (from + PAGE as usize).min(truth.len());
                let Some(expected) = truth.get(from..to) else { continue };
                assert!(
                    page[..to - from] == *expected,
                    "mount {mount} has page {number} of {ino} cached as it was"
                );
            }
        }
    }

    /// Everything arrives, is closed, and is the same everywhere.
    pub async fn finish(mut self) {
        for mount in 0..MOUNTS {
            self.mend_stream(mount);
        }
        self.quiet().await;
        for index in 0..self.handles.len() {
            self.read(index, 0, WHOLE).await;
        }
        while !self.handles.is_empty() {
            self.close(0).await;
        }
        self.quiet().await;
        let names: Vec<String> = self.contract.names.keys().map(ToString::to_string).collect();
        for mount in 0..MOUNTS {
            assert_eq!(crate::names(&self.kernels[mount].vfs, Ino::ROOT).await, names);
            for (name, ino) in &self.contract.names {
                let file = self.kernels[mount].open(name, READ).await.expect("open");
                assert_eq!(file.ino, *ino);
                let got = self.kernels[mount].read(&file, 0, WHOLE).await.expect("read");
                assert!(
                    got == self.contract.shows(mount, *ino),
                    "mount {mount}: `{name}` is not what was written"
                );
                self.kernels[mount].close(file).await.expect("close");
            }
        }
        self.cluster.nothing_is_open().await;
    }
}
