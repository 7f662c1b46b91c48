//! The kernel's side of a mount, as Linux behaves (fs/fuse) towards a file system that asks for
//! FUSE_AUTO_INVAL_DATA and FUSE_ATOMIC_O_TRUNC: attributes and entries are kept for as long as the mount says,
//! pages until they are told to be dropped or size or mtime turn out to be others. Nothing expires here: time
//! stands still, so what is not dropped stays wrong.

use crate::cluster::CALLER;
use dfs_proto::meta::{AttrChanges, RenameMode};
use dfs_proto::{Attr, ErrorCode, Ino, LockMode, LockOwner, LockRange, LockSpace, Name};
use dfs_vfs::{Fh, KernelCaches, LockWish, OpenFlags, Vfs, VfsError};
use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;

pub const PAGE: u64 = 4096;

/// Who closes files, to `fcntl(2)`.
const PROCESS: LockOwner = LockOwner(1);

/// What the mount wants to be dropped.
#[derive(Clone, Debug)]
enum Note {
    Attributes(Ino),
    Pages(Ino),
    Entry(Ino, Name),
}

/// What the kernel has of an inode.
#[derive(Clone, Debug, Default)]
pub struct Inode {
    /// Attributes that are served without asking.
    pub attr: Option<Attr>,
    pub size: u64,
    mtime: dfs_proto::Timestamp,
    pub pages: HashMap<u64, Vec<u8>>,
}

#[derive(Default)]
pub struct Caches {
    pub entries: HashMap<(Ino, Name), Ino>,
    pub inodes: HashMap<Ino, Inode>,
    notes: VecDeque<Note>,
}

impl Caches {
    fn apply(&mut self, note: Note) {
        match note {
            Note::Attributes(ino) => self.forget_attr(ino),
            Note::Pages(ino) => {
                self.forget_attr(ino);
                self.forget_pages(ino);
            }
            Note::Entry(parent, name) => {
                self.entries.remove(&(parent, name));
                self.forget_attr(parent);
            }
        }
    }

    fn forget_attr(&mut self, ino: Ino) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.attr = None;
        }
    }

    fn forget_pages(&mut self, ino: Ino) {
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.pages.clear();
        }
    }

    /// Attributes have come (`fuse_change_attributes`).
    fn learn(&mut self, attr: &Attr, keep: bool) {
        let inode = self.inodes.entry(attr.ino).or_default();
        if (inode.size, inode.mtime) != (attr.size, attr.mtime) {
            inode.pages.clear();
        }
        (inode.size, inode.mtime) = (attr.size, attr.mtime);
        inode.attr = keep.then(|| attr.clone());
    }
}

/// An open file.
#[derive(Clone, Copy, Debug)]
pub struct Opened {
    pub fh: Fh,
    pub ino: Ino,
    pub append: bool,
}

/// One mount with its kernel.
pub struct Kernel {
    pub vfs: Arc<Vfs>,
    pub caches: Arc<Notes>,
}

/// Notes wait until the test has them carried out: the kernel gets to them when it does.
#[derive(Default)]
pub struct Notes(pub Mutex<Caches>);

impl Notes {
    fn leave(&self, note: Note) {
        self.0.lock().unwrap().notes.push_back(note);
    }
}

impl Notes {
    /// The kernel is waited for: it gets to what waits, and to this.
    fn carry_out(&self, last: Note) -> oneshot::Receiver<()> {
        let mut caches = self.0.lock().unwrap();
        while let Some(note) = caches.notes.pop_front() {
            caches.apply(note);
        }
        caches.apply(last);
        let (done, carried_out) = oneshot::channel();
        done.send(()).unwrap();
        carried_out
    }
}

impl KernelCaches for Notes {
    fn drop_attributes_then(&self, ino: Ino) -> oneshot::Receiver<()> {
        self.carry_out(Note::Attributes(ino))
    }

    fn drop_pages_then(&self, ino: Ino) -> oneshot::Receiver<()> {
        self.carry_out(Note::Pages(ino))
    }

    fn has_mapped(&self, _: u32, _: Ino) -> bool {
        false
    }

    fn drop_attributes(&self, ino: Ino) {
        self.leave(Note::Attributes(ino));
    }

    fn drop_pages(&self, ino: Ino) {
        self.leave(Note::Pages(ino));
    }

    fn drop_entry(&self, parent: Ino, name: &Name) {
        self.leave(Note::Entry(parent, name.clone()));
    }
}

type Outcome<T> = Result<T, ErrorCode>;

fn code<T>(result: Result<T, VfsError>) -> Outcome<T> {
    result.map_err(|e| e.code())
}

impl Kernel {
    pub fn new(vfs: Arc<Vfs>) -> Kernel {
        let caches = Arc::new(Notes::default());
        vfs.set_kernel(caches.clone());
        Kernel { vfs, caches }
    }

    fn with<R>(&self, f: impl FnOnce(&mut Caches) -> R) -> R {
        f(&mut self.caches.0.lock().unwrap())
    }

    /// Carries out up to `count` of what waits to be dropped.
    pub fn drop_noted(&self, count: usize) {
        self.with(|caches| {
            for _ in 0..count {
                match caches.notes.pop_front() {
                    Some(note) => caches.apply(note),
                    None => break,
                }
            }
        });
    }

    /// Memory is short: pages go.
    pub fn evict(&self) {
        self.with(|caches| caches.inodes.values_mut().for_each(|inode| inode.pages.clear()));
    }

    fn keeps(&self) -> bool {
        !self.vfs.kernel_ttl().is_zero()
    }

    fn learn(&self, attr: &Attr) {
        let keep = self.keeps();
        self.with(|caches| caches.learn(attr, keep));
    }

    pub async fn lookup(&self, name: &Name) -> Outcome<Ino> {
        let place = (Ino::ROOT, name.clone());
        if let Some(ino) = self.with(|caches| caches.entries.get(&place).copied()) {
            return Ok(ino);
        }
        self.lookup_again(name).await
    }

    async fn lookup_again(&self, name: &Name) -> Outcome<Ino> {
        let place = (Ino::ROOT, name.clone());
        self.with(|caches| caches.entries.remove(&place));
        let attr = code(self.vfs.lookup(Ino::ROOT, name).await)?;
        self.learn(&attr);
        if self.keeps() {
            self.with(|caches| caches.entries.insert(place, attr.ino));
        }
        Ok(attr.ino)
    }

    pub async fn getattr(&self, ino: Ino) -> Outcome<Attr> {
        if let Some(attr) = self.with(|caches| caches.inodes.get(&ino).and_then(|inode| inode.attr.clone())) {
            return Ok(attr);
        }
        let attr = code(self.vfs.getattr(ino).await)?;
        self.learn(&attr);
        Ok(attr)
    }

    /// open(2) without O_CREAT. A path that turns out to be stale is looked up once more (`do_filp_open`).
    pub async fn open(&self, name: &Name, flags: OpenFlags) -> Outcome<Opened> {
        let ino = self.lookup(name).await?;
        match self.open_ino(ino, flags).await {
            Err(ErrorCode::Stale) => {
                let ino = self.lookup_again(name).await?;
                self.open_ino(ino, flags).await
            }
            other => other,
        }
    }

    pub async fn open_ino(&self, ino: Ino, flags: OpenFlags) -> Outcome<Opened> {
        let opened = code(self.vfs.open(CALLER, ino, flags).await)?;
        assert!(!opened.direct);
        self.with(|caches| {
            if !opened.keep_pages {
                caches.forget_pages(ino);
            }
            if flags.truncate {
                caches.forget_pages(ino);
                caches.forget_attr(ino);
                caches.inodes.entry(ino).or_default().size = 0;
            }
        });
        Ok(Opened { fh: opened.fh, ino, append: flags.append })
    }

    pub async fn create(&self, name: &Name, flags: OpenFlags) -> Outcome<Opened> {
        let created = code(self.vfs.create(CALLER, Ino::ROOT, name, 0o644, flags).await)?;
        let ino = created.attr.ino;
        self.learn(&created.attr);
        let keep = self.keeps();
        self.with(|caches| {
            if keep {
                caches.entries.insert((Ino::ROOT, name.clone()), ino);
            }
            caches.forget_attr(Ino::ROOT);
        });
        Ok(Opened { fh: created.opened.fh, ino, append: flags.append })
    }

    /// read(2), page by page.
    pub async fn read(&self, file: &Opened, offset: u64, length: u64) -> Outcome<Vec<u8>> {
        let mut all = Vec::new();
        let mut at = offset;
        while at < offset + length {
            self.getattr(file.ino).await?;
            let size = self.with(|caches| caches.inodes.get(&file.ino).map_or(0, |inode| inode.size));
            let end = (offset + length).min(size).min((at / PAGE + 1) * PAGE);
            if at >= end {
                break;
            }
            let page = self.page(file, at / PAGE).await?;
            let size = self.with(|caches| caches.inodes.get(&file.ino).map_or(0, |inode| inode.size));
            if at >= end.min(size) {
                break;
            }
            let start = at % PAGE;
            all.extend_from_slice(&page[start as usize..(start + end.min(size) - at) as usize]);
            at = end.min(size);
        }
        Ok(all)
    }

    async fn page(&self, file: &Opened, number: u64) -> Outcome<Vec<u8>> {
        let cached =
            |caches: &mut Caches| caches.inodes.get(&file.ino).and_then(|i| i.pages.get(&number).cloned());
        if let Some(page) = self.with(cached) {
            return Ok(page);
        }
        let mut page = code(self.vfs.read(file.fh, number * PAGE, PAGE as u32).await)?.to_vec();
        let end = number * PAGE + page.len() as u64;
        let is_short = (page.len() as u64) < PAGE;
        page.resize(PAGE as usize, 0);
        self.with(|caches| {
            let inode = caches.inodes.entry(file.ino).or_default();
            if is_short {
                // `fuse_short_read`: the file ends here.
                inode.size = inode.size.min(end);
            }
            inode.pages.insert(number, page.clone());
        });
        Ok(page)
    }

    /// write(2), through the cache.
    pub async fn write(&self, file: &Opened, offset: u64, data: &[u8]) -> Outcome<()> {
        let size = self.with(|caches| caches.inodes.get(&file.ino).map_or(0, |inode| inode.size));
        let offset = if file.append { size } else { offset };
        let written = code(self.vfs.write(file.fh, offset, data, false).await)?;
        assert_eq!(written as usize, data.len());
        let end = offset + data.len() as u64;
        self.with(|caches| {
            let inode = caches.inodes.entry(file.ino).or_default();
            for number in offset / PAGE..=(end - 1) / PAGE {
                let (first, last) = (offset.max(number * PAGE), end.min((number + 1) * PAGE));
                if last - first == PAGE {
                    inode.pages.insert(number, vec![0; PAGE as usize]);
                }
                if let Some(page) = inode.pages.get_mut(&number) {
                    page[(first - number * PAGE) as usize..(last - number * PAGE) as usize]
                        .copy_from_slice(&data[(first - offset) as usize..(last - offset) as usize]);
                }
            }
            inode.size = inode.size.max(end);
            inode.attr = None;
        });
        Ok(())
    }

    pub async fn truncate(&self, file: &Opened, size: u64) -> Outcome<()> {
        let changes = AttrChanges { size: Some(size), ..AttrChanges::default() };
        let attr = code(self.vfs.setattr(CALLER, file.ino, changes, Some(file.fh)).await)?;
        self.with(|caches| caches.forget_pages(file.ino));
        self.learn(&attr);
        Ok(())
    }

    pub async fn fsync(&self, file: &Opened) -> Outcome<()> {
        code(self.vfs.fsync(file.fh).await)
    }

    pub async fn close(&self, file: Opened) -> Outcome<()> {
        code(crate::close(&self.vfs, file.fh).await)
    }

    /// A lock of all of the file, without waiting for it; whether it was granted.
    pub async fn lock(&self, file: &Opened, space: LockSpace, mode: LockMode) -> Outcome<bool> {
        match self.vfs.lock(file.fh, wish(file, space, mode), false, pending()).await {
            Err(VfsError::WouldBlock) => Ok(false),
            other => code(other.map(|()| true)),
        }
    }

    pub async fn unlock(&self, file: &Opened, space: LockSpace) -> Outcome<()> {
        code(self.vfs.unlock(file.fh, wish(file, space, LockMode::Shared)).await)
    }

    pub async fn unlink(&self, name: &Name) -> Outcome<()> {
        let ino = self.lookup(name).await?;
        code(self.vfs.unlink(Ino::ROOT, name).await)?;
        self.with(|caches| {
            caches.entries.remove(&(Ino::ROOT, name.clone()));
            caches.forget_attr(ino);
            caches.forget_attr(Ino::ROOT);
        });
        Ok(())
    }

    /// rename(2); `false` when both names stand for one file as far as the kernel knows, so that it does nothing.
    pub async fn rename(&self, from: &Name, to: &Name) -> Outcome<bool> {
        let ino = self.lookup(from).await?;
        let there = self.lookup(to).await.ok();
        if there == Some(ino) {
            return Ok(false);
        }
        code(self.vfs.rename(Ino::ROOT, from, Ino::ROOT, to, RenameMode::Replace).await)?;
        self.with(|caches| {
            caches.entries.remove(&(Ino::ROOT, to.clone()));
            if let Some(moved) = caches.entries.remove(&(Ino::ROOT, from.clone())) {
                caches.entries.insert((Ino::ROOT, to.clone()), moved);
            }
            for ino in [Some(ino), there, Some(Ino::ROOT)].into_iter().flatten() {
                caches.forget_attr(ino);
            }
        });
        Ok(true)
    }
}

/// Byte ranges belong to the process, of which each mount has one; whole-file locks to the open file.
fn wish(file: &Opened, space: LockSpace, mode: LockMode) -> LockWish {
    let owner = match space {
        LockSpace::Range => PROCESS,
        LockSpace::Whole => LockOwner(1000 + file.fh.0),
    };
    LockWish { space, owner, range: LockRange::WHOLE, mode, pid: 1 }
}
