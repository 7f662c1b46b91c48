//! A plain FUSE file system over a directory: the baseline for what FUSE costs by itself.
//!
//! Each request is one or two system calls on the directory below, as in libfuse's `passthrough_ll`: inodes are
//! descriptors (O_PATH), requests are 1 MiB, the kernel keeps its pages from one open to the next. FUSE passthrough
//! (ABI 7.40) is not used: it takes the mount out of the path, which nothing that checks or sends data can do. Only
//! what throughput work needs is here; other operations answer ENOSYS.

use anyhow::Context;
use fuser::{
    BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, SessionACL, TimeOrNow,
    WriteFlags,
};
use parking_lot::RwLock;
use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Nobody else changes what is below.
const TTL: Duration = Duration::from_secs(60);

const REQUEST_BYTES_MAX: u32 = 1 << 20;

/// The same as `dfs-mount` has.
const READ_AHEAD_KIB: &str = "4096";
const BACKGROUND_MAX: u16 = 64;
const THREADS: usize = 2;

const GENERATION: Generation = Generation(0);

/// Serves `below` at `at` until it is unmounted.
pub(crate) fn serve(below: &Path, at: &Path) -> anyhow::Result<()> {
    let root = open_path(below).with_context(|| format!("cannot open {}", below.display()))?;
    let file_system = Passthrough {
        nodes: RwLock::new(HashMap::from([(INodeNo::ROOT.0, Node { file: Arc::new(root), lookups: 1 })])),
        files: RwLock::default(),
    };
    let mut options = Config::default();
    options.mount_options = vec![MountOption::FSName("passthrough".into()), MountOption::DefaultPermissions];
    options.acl = SessionACL::Owner;
    options.n_threads = Some(THREADS);
    options.clone_fd = true;
    let session = fuser::spawn_mount(file_system, at, &options)
        .with_context(|| format!("cannot mount at {}", at.display()))?;
    let device = std::fs::metadata(at)?.dev();
    let bdi = format!("/sys/class/bdi/{}:{}/read_ahead_kb", libc::major(device), libc::minor(device));
    std::fs::write(&bdi, READ_AHEAD_KIB).with_context(|| format!("cannot write to {bdi}"))?;
    Ok(session.join()?)
}

struct Node {
    /// Opened with O_PATH.
    file: Arc<File>,
    lookups: u64,
}

struct Passthrough {
    /// By inode number, which is the one below except for the root's.
    nodes: RwLock<HashMap<u64, Node>>,
    /// By descriptor number, which is the handle.
    files: RwLock<HashMap<u64, Arc<File>>>,
}

impl Passthrough {
    fn node(&self, inode: INodeNo) -> io::Result<Arc<File>> {
        let nodes = self.nodes.read();
        let node = nodes.get(&inode.0).ok_or_else(|| io::Error::from_raw_os_error(libc::ESTALE))?;
        Ok(node.file.clone())
    }

    fn path(&self, parent: INodeNo, name: &OsStr) -> io::Result<PathBuf> {
        Ok(magic_link(&*self.node(parent)?).join(name))
    }

    fn file(&self, handle: FileHandle) -> io::Result<Arc<File>> {
        let files = self.files.read();
        files.get(&handle.0).cloned().ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    /// Notes one more lookup of what is at `path`.
    fn look_up(&self, path: &Path) -> io::Result<FileAttr> {
        let file = open_path(path)?;
        let attr = attributes(&file.metadata()?);
        let mut nodes = self.nodes.write();
        let node = nodes.entry(attr.ino.0).or_insert_with(|| Node { file: Arc::new(file), lookups: 0 });
        node.lookups += 1;
        Ok(attr)
    }

    fn keep(&self, file: File) -> FileHandle {
        let handle = file.as_raw_fd() as u64;
        self.files.write().insert(handle, Arc::new(file));
        FileHandle(handle)
    }

    fn attr(&self, inode: INodeNo) -> io::Result<FileAttr> {
        let mut attr = attributes(&self.node(inode)?.metadata()?);
        attr.ino = inode;
        Ok(attr)
    }

    fn make(
        &self,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        flags: i32,
    ) -> io::Result<(FileAttr, FileHandle)> {
        let path = self.path(parent, name)?;
        let mut options = OpenOptions::new();
        let file =
            options.read(true).write(true).create(true).mode(mode).custom_flags(plain(flags)).open(&path)?;
        Ok((self.look_up(&path)?, self.keep(file)))
    }

    fn set_size(&self, inode: INodeNo, handle: Option<FileHandle>, size: u64) -> io::Result<()> {
        match handle {
            Some(handle) => self.file(handle)?.set_len(size),
            None => OpenOptions::new().write(true).open(magic_link(&*self.node(inode)?))?.set_len(size),
        }
    }

    fn list(&self, inode: INodeNo, offset: u64, reply: &mut ReplyDirectory) -> io::Result<()> {
        let entries = std::fs::read_dir(magic_link(&*self.node(inode)?))?;
        for (i, entry) in entries.enumerate().skip(offset as usize) {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let (ino, kind) = (INodeNo(metadata.ino()), file_type(metadata.file_type()));
            if reply.add(ino, i as u64 + 1, kind, entry.file_name()) {
                break;
            }
        }
        Ok(())
    }
}

/// A path to what `file` has open, whatever its name is by now.
fn magic_link(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

fn open_path(path: &Path) -> io::Result<File> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path is NUL-terminated and open(2) only reads it.
    let descriptor = unsafe { libc::open(path.as_ptr(), libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just opened and is nobody else's.
    Ok(unsafe { File::from_raw_fd(descriptor) })
}

/// What is handed on of the flags of open(2): the kernel does appending and access modes itself.
fn plain(flags: i32) -> i32 {
    flags & (libc::O_TRUNC | libc::O_EXCL | libc::O_SYNC)
}

fn file_type(kind: std::fs::FileType) -> FileType {
    if kind.is_dir() {
        FileType::Directory
    } else if kind.is_symlink() {
        FileType::Symlink
    } else if kind.is_fifo() {
        FileType::NamedPipe
    } else {
        FileType::RegularFile
    }
}

fn attributes(m: &std::fs::Metadata) -> FileAttr {
    let time = |seconds: i64, nanos: i64| {
        SystemTime::UNIX_EPOCH + Duration::new(seconds.max(0) as u64, nanos.clamp(0, 999_999_999) as u32)
    };
    FileAttr {
        ino: INodeNo(m.ino()),
        size: m.size(),
        blocks: m.blocks(),
        atime: time(m.atime(), m.atime_nsec()),
        mtime: time(m.mtime(), m.mtime_nsec()),
        ctime: time(m.ctime(), m.ctime_nsec()),
        crtime: SystemTime::UNIX_EPOCH,
        kind: file_type(m.file_type()),
        perm: (m.mode() & 0o7777) as u16,
        nlink: m.nlink() as u32,
        uid: m.uid(),
        gid: m.gid(),
        rdev: 0,
        blksize: m.blksize() as u32,
        flags: 0,
    }
}

/// Answers with the value, or with the error.
macro_rules! answer {
    ($result:expr, $reply:ident, $value:pat => $send:expr) => {
        match $result {
            Ok($value) => $send,
            Err(e) => $reply.error(Errno::from(e)),
        }
    };
}

impl Filesystem for Passthrough {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = InitFlags::FUSE_PARALLEL_DIROPS | InitFlags::FUSE_ATOMIC_O_TRUNC;
        config.add_capabilities(wanted).map_err(|e| io::Error::other(format!("no {e:?} here")))?;
        // An Err carries the nearest value that the kernel takes.
        for nearest in [config.set_max_write(REQUEST_BYTES_MAX).err()].into_iter().flatten() {
            config.set_max_write(nearest).map_err(|_| io::Error::other("no write size fits"))?;
        }
        if let Err(nearest) = config.set_max_readahead(REQUEST_BYTES_MAX) {
            config.set_max_readahead(nearest).map_err(|_| io::Error::other("no readahead fits"))?;
        }
        config.set_max_background(BACKGROUND_MAX).map_err(|_| io::Error::other("no queue length fits"))?;
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.path(parent, name).and_then(|path| self.look_up(&path));
        answer!(found, reply, attr => reply.entry(&TTL, &attr, GENERATION));
    }

    fn forget(&self, _: &Request, inode: INodeNo, lookups: u64) {
        let mut nodes = self.nodes.write();
        if let Some(node) = nodes.get_mut(&inode.0).filter(|_| inode != INodeNo::ROOT) {
            node.lookups = node.lookups.saturating_sub(lookups);
            if node.lookups == 0 {
                nodes.remove(&inode.0);
            }
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        answer!(self.attr(inode), reply, attr => reply.attr(&TTL, &attr));
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let set = size.map_or(Ok(()), |size| self.set_size(inode, handle, size));
        answer!(set.and_then(|()| self.attr(inode)), reply, attr => reply.attr(&TTL, &attr));
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        let made = self.path(parent, name).and_then(|path| {
            std::fs::DirBuilder::new().mode(mode).create(&path)?;
            self.look_up(&path)
        });
        answer!(made, reply, attr => reply.entry(&TTL, &attr, GENERATION));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(self.path(parent, name).and_then(std::fs::remove_file), reply, () => reply.ok());
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer!(self.path(parent, name).and_then(std::fs::remove_dir), reply, () => reply.ok());
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        answer!(self.make(parent, name, mode, flags), reply, (attr, handle) => {
            reply.created(&TTL, &attr, GENERATION, handle, FopenFlags::FOPEN_KEEP_CACHE);
        });
    }

    fn open(&self, _: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let opened = self.node(inode).and_then(|node| {
            let writes = flags.0 & libc::O_ACCMODE != libc::O_RDONLY;
            let mut options = OpenOptions::new();
            options.read(true).write(writes).custom_flags(plain(flags.0)).open(magic_link(&node))
        });
        answer!(opened, reply, file => reply.opened(self.keep(file), FopenFlags::FOPEN_KEEP_CACHE));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        thread_local!(static BUFFER: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) });
        BUFFER.with_borrow_mut(|buffer| {
            if buffer.len() < size as usize {
                buffer.resize(size as usize, 0);
            }
            let buffer = &mut buffer[..size as usize];
            let read = self.file(handle).and_then(|file| read_full(&file, buffer, offset));
            answer!(read, reply, length => reply.data(&buffer[..length]));
        });
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.file(handle).and_then(|file| file.write_all_at(data, offset));
        answer!(written, reply, () => reply.written(data.len() as u32));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.files.write().remove(&handle.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        answer!(self.file(handle).and_then(|file| file.sync_all()), reply, () => reply.ok());
    }

    fn readdir(&self, _: &Request, inode: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        answer!(self.list(inode, offset, &mut reply), reply, () => reply.ok());
    }
}

fn read_full(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64)? {
            0 => break,
            length => done += length,
        }
    }
    Ok(done)
}
