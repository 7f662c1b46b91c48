//! The kernel's requests as calls of the file system: decode, call, encode. No policy lives here.
//!
//! Each request becomes a task, so a slow one holds up nobody. Only writes are tried at once on the thread
//! that read them from the kernel: their bytes lie in its buffer, and staging them is one copy.

use crate::convert::{
    caller, file_attr, file_type, ino, kind_of_mode, name, open_flags, permissions, rename_mode, set_time,
    xattr_mode,
};
use crate::descriptors;
use crate::errno::errno;
use bytes::Bytes;
use dfs_proto::meta::{AttrChanges, Space};
use dfs_proto::{Attr, Name};
use dfs_vfs::{Fh, OpenedFile, Vfs, VfsError};
use fuser::{
    BsdFileFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, SetxattrFlags, TimeOrNow,
    WriteFlags,
};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::runtime::Handle;

/// Largest write and read of one request, bytes: what the kernel's MAX_PAGES allows.
const REQUEST_BYTES_MAX: u32 = 1 << 20;

/// Requests of the kernel's background kind (readahead, asynchronous writes) under way at once.
const BACKGROUND_MAX: u16 = 64;

/// Inode numbers are never reused, so there is only one generation.
const GENERATION: Generation = Generation(0);

pub(crate) struct Adapter {
    pub vfs: Arc<Vfs>,
    pub runtime: Handle,
}

fn fh(handle: FileHandle) -> Fh {
    Fh(handle.0)
}

/// Runs the operation in a task and sends its result: `answer!(self, reply, "unlink", vfs.unlink(..), |r, v| r.ok())`.
macro_rules! answer {
    ($self:ident, $reply:ident, $what:literal, |$vfs:ident| $call:expr, |$r:ident, $value:pat_param| $ok:expr) => {{
        let $vfs = $self.vfs.clone();
        $self.runtime.spawn(async move {
            match $call.await {
                Ok($value) => {
                    let $r = $reply;
                    $ok
                }
                Err(e) => $reply.error(errno($what, &e)),
            }
        });
    }};
}

/// The value, or the errno as the answer.
macro_rules! decode {
    ($reply:ident, $value:expr) => {
        match $value {
            Ok(value) => value,
            Err(e) => return $reply.error(e),
        }
    };
}

fn send_entry(vfs: &Vfs, reply: ReplyEntry, attr: &Attr) {
    reply.entry(&vfs.kernel_ttl(), &file_attr(attr), GENERATION);
}

fn fopen_flags(opened: &OpenedFile) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    if opened.keep_pages {
        flags |= FopenFlags::FOPEN_KEEP_CACHE;
    }
    if opened.direct {
        flags |= FopenFlags::FOPEN_DIRECT_IO;
    }
    flags
}

/// Sends a value, or its length to a caller that asks for that.
fn send_xattr(reply: ReplyXattr, size: u32, value: &[u8]) {
    if size == 0 {
        reply.size(value.len() as u32);
    } else if value.len() > size as usize {
        reply.error(Errno::ERANGE);
    } else {
        reply.data(value);
    }
}

/// Unit of block counts in statfs, bytes.
const STATFS_BLOCK_BYTES: u64 = 4096;

fn send_space(reply: ReplyStatfs, space: &Space) {
    let blocks = |bytes: u64| bytes / STATFS_BLOCK_BYTES;
    // Inode numbers do not run out before the room for files does.
    let free_inodes = blocks(space.free_bytes);
    reply.statfs(
        blocks(space.total_bytes),
        blocks(space.free_bytes),
        blocks(space.free_bytes),
        space.inodes + free_inodes,
        free_inodes,
        STATFS_BLOCK_BYTES as u32,
        dfs_proto::limits::NAME_BYTES_MAX as u32,
        STATFS_BLOCK_BYTES as u32,
    );
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let wanted = InitFlags::FUSE_ATOMIC_O_TRUNC
            | InitFlags::FUSE_AUTO_INVAL_DATA
            | InitFlags::FUSE_DO_READDIRPLUS
            | InitFlags::FUSE_PARALLEL_DIROPS
            | InitFlags::FUSE_ASYNC_DIO;
        if let Err(missing) = config.add_capabilities(wanted) {
            if missing.contains(InitFlags::FUSE_ATOMIC_O_TRUNC) {
                // Without it a file would be emptied before the collision rule could be asked.
                return Err(std::io::Error::other("this kernel does not hand O_TRUNC over with open"));
            }
            log::info!("the kernel does not offer {missing:?}; the mount goes without");
            config
                .add_capabilities(wanted.difference(missing))
                .map_err(|e| std::io::Error::other(format!("the kernel takes back {e:?}")))?;
        }
        // An Err carries the nearest value that the kernel takes, which is set by the second call.
        if let Err(nearest) = config.set_max_write(REQUEST_BYTES_MAX) {
            config
                .set_max_write(nearest)
                .map_err(|_| std::io::Error::other("no write size fits the kernel"))?;
        }
        if let Err(nearest) = config.set_max_readahead(REQUEST_BYTES_MAX) {
            config
                .set_max_readahead(nearest)
                .map_err(|_| std::io::Error::other("no readahead fits the kernel"))?;
        }
        if let Err(nearest) = config.set_max_background(BACKGROUND_MAX) {
            config
                .set_max_background(nearest)
                .map_err(|_| std::io::Error::other("no queue length fits the kernel"))?;
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, n: &OsStr, reply: ReplyEntry) {
        let n = decode!(reply, name(n));
        answer!(self, reply, "lookup", |vfs| vfs.lookup(ino(parent), &n), |r, attr| send_entry(
            &vfs, r, &attr
        ));
    }

    fn forget(&self, _: &Request, inode: INodeNo, lookups: u64) {
        self.vfs.forget(ino(inode), lookups);
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        answer!(self, reply, "getattr", |vfs| vfs.getattr(ino(inode)), |r, attr| {
            r.attr(&vfs.kernel_ttl(), &file_attr(&attr))
        });
    }

    fn setattr(
        &self,
        request: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changes = AttrChanges {
            mode: mode.map(|m| permissions(m, 0)),
            uid,
            gid,
            size,
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
        };
        let who = caller(request);
        answer!(
            self,
            reply,
            "setattr",
            |vfs| vfs.setattr(who, ino(inode), changes, handle.map(fh)),
            |r, attr| r.attr(&vfs.kernel_ttl(), &file_attr(&attr))
        );
    }

    fn readlink(&self, _: &Request, inode: INodeNo, reply: ReplyData) {
        answer!(self, reply, "readlink", |vfs| vfs.readlink(ino(inode)), |r, target| r.data(&target));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        n: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let (n, kind) = (decode!(reply, name(n)), decode!(reply, kind_of_mode(mode)));
        let (who, mode) = (caller(request), permissions(mode, umask));
        answer!(self, reply, "mknod", |vfs| vfs.mknod(who, ino(parent), &n, kind, mode, rdev), |r, attr| {
            send_entry(&vfs, r, &attr)
        });
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, n: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let (n, who, mode) = (decode!(reply, name(n)), caller(request), permissions(mode, umask));
        answer!(self, reply, "mkdir", |vfs| vfs.mkdir(who, ino(parent), &n, mode), |r, attr| {
            send_entry(&vfs, r, &attr)
        });
    }

    fn unlink(&self, _: &Request, parent: INodeNo, n: &OsStr, reply: ReplyEmpty) {
        let n = decode!(reply, name(n));
        answer!(self, reply, "unlink", |vfs| vfs.unlink(ino(parent), &n), |r, ()| r.ok());
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, n: &OsStr, reply: ReplyEmpty) {
        let n = decode!(reply, name(n));
        answer!(self, reply, "rmdir", |vfs| vfs.rmdir(ino(parent), &n), |r, ()| r.ok());
    }

    fn symlink(&self, request: &Request, parent: INodeNo, n: &OsStr, target: &Path, reply: ReplyEntry) {
        let (n, who) = (decode!(reply, name(n)), caller(request));
        let target = target.as_os_str().as_bytes().to_vec();
        answer!(self, reply, "symlink", |vfs| vfs.symlink(who, ino(parent), &n, &target), |r, attr| {
            send_entry(&vfs, r, &attr)
        });
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        n: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (n, new_name) = (decode!(reply, name(n)), decode!(reply, name(new_name)));
        let mode = decode!(reply, rename_mode(flags));
        answer!(
            self,
            reply,
            "rename",
            |vfs| vfs.rename(ino(parent), &n, ino(new_parent), &new_name, mode),
            |r, ()| r.ok()
        );
    }

    fn link(&self, _: &Request, inode: INodeNo, new_parent: INodeNo, new_name: &OsStr, reply: ReplyEntry) {
        let new_name = decode!(reply, name(new_name));
        answer!(self, reply, "link", |vfs| vfs.link(ino(inode), ino(new_parent), &new_name), |r, attr| {
            send_entry(&vfs, r, &attr)
        });
    }

    fn open(&self, request: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (who, flags) = (caller(request), open_flags(flags.0));
        answer!(self, reply, "open", |vfs| vfs.open(who, ino(inode), flags), |r, opened| {
            r.opened(FileHandle(opened.fh.0), fopen_flags(&opened))
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        n: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (n, who, mode) = (decode!(reply, name(n)), caller(request), permissions(mode, umask));
        let flags = open_flags(flags);
        answer!(self, reply, "create", |vfs| vfs.create(who, ino(parent), &n, mode, flags), |r, created| {
            let opened = created.opened;
            r.created(
                &vfs.kernel_ttl(),
                &file_attr(&created.attr),
                GENERATION,
                FileHandle(opened.fh.0),
                fopen_flags(&opened),
            )
        });
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
        answer!(self, reply, "read", |vfs| vfs.read(fh(handle), offset, size), |r, data| r.data(&data));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mapped = flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let _in_runtime = self.runtime.enter();
        match self.vfs.try_write(fh(handle), offset, data, mapped) {
            Some(Ok(written)) => reply.written(written),
            Some(Err(e)) => reply.error(errno("write", &e)),
            None => {
                let data = Bytes::copy_from_slice(data);
                answer!(self, reply, "write", |vfs| vfs.write(fh(handle), offset, &data, mapped), |r, n| r
                    .written(n));
            }
        }
    }

    fn flush(&self, request: &Request, _: INodeNo, handle: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        let pid = request.pid();
        let others_open = move |n: &Name, inode| descriptors::has_open(pid, n, inode);
        answer!(self, reply, "close", |vfs| vfs.flush(fh(handle), others_open), |r, ()| r.ok());
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
        let vfs = self.vfs.clone();
        self.runtime.spawn(async move {
            vfs.release(fh(handle)).await;
            reply.ok();
        });
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        answer!(self, reply, "fsync", |vfs| vfs.fsync(fh(handle)), |r, ()| r.ok());
    }

    fn opendir(&self, _: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        answer!(self, reply, "opendir", |vfs| vfs.opendir(ino(inode)), |r, handle| {
            r.opened(FileHandle(handle.0), FopenFlags::empty())
        });
    }

    fn readdir(&self, _: &Request, _: INodeNo, handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let vfs = self.vfs.clone();
        self.runtime.spawn(async move {
            let fill = |e: &dfs_vfs::Listed| {
                let n = OsStr::from_bytes(&e.name);
                !reply.add(INodeNo(e.attr.ino.0), e.cookie, file_type(e.attr.kind), n)
            };
            match vfs.readdir(fh(handle), offset, fill).await {
                Ok(()) => reply.ok(),
                Err(e) => reply.error(errno("readdir", &e)),
            }
        });
    }

    fn readdirplus(
        &self,
        _: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let vfs = self.vfs.clone();
        self.runtime.spawn(async move {
            let ttl = vfs.kernel_ttl();
            let fill = |e: &dfs_vfs::Listed| {
                let n = OsStr::from_bytes(&e.name);
                let full =
                    reply.add(INodeNo(e.attr.ino.0), e.cookie, n, &ttl, &file_attr(&e.attr), GENERATION);
                // The kernel counts a lookup for each entry but `.` and `..`.
                if !full {
                    vfs.remember(ino(inode), e);
                }
                !full
            };
            match vfs.readdir(fh(handle), offset, fill).await {
                Ok(()) => reply.ok(),
                Err(e) => reply.error(errno("readdir", &e)),
            }
        });
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.vfs.releasedir(fh(handle));
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        answer!(self, reply, "fsync of a directory", |vfs| vfs.fsyncdir(), |r, ()| r.ok());
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        answer!(self, reply, "statfs", |vfs| vfs.statfs(), |r, space| send_space(r, &space));
    }

    fn setxattr(
        &self,
        _: &Request,
        inode: INodeNo,
        n: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        _: SetxattrFlags,
        reply: ReplyEmpty,
    ) {
        let (n, mode) = (decode!(reply, name(n)), decode!(reply, xattr_mode(flags)));
        let value = Bytes::copy_from_slice(value);
        answer!(self, reply, "setxattr", |vfs| vfs.setxattr(ino(inode), n, value, mode, false), |r, ()| r.ok());
    }

    fn getxattr(&self, _: &Request, inode: INodeNo, n: &OsStr, size: u32, reply: ReplyXattr) {
        let n = decode!(reply, name(n));
        answer!(self, reply, "getxattr", |vfs| vfs.getxattr(ino(inode), n), |r, value| {
            send_xattr(r, size, &value)
        });
    }

    fn listxattr(&self, _: &Request, inode: INodeNo, size: u32, reply: ReplyXattr) {
        answer!(self, reply, "listxattr", |vfs| vfs.listxattr(ino(inode)), |r, names| {
            let list =
                names.iter().flat_map(|n| n.as_bytes().iter().copied().chain([0])).collect::<Vec<u8>>();
            send_xattr(r, size, &list)
        });
    }

    fn removexattr(&self, _: &Request, inode: INodeNo, n: &OsStr, reply: ReplyEmpty) {
        let n = decode!(reply, name(n));
        answer!(self, reply, "removexattr", |vfs| vfs.removexattr(ino(inode), n), |r, ()| r.ok());
    }
}

/// What a mount could not save, for its last words.
pub(crate) fn report_unsaved(unsaved: &[(dfs_proto::Ino, VfsError)]) {
    for (inode, e) in unsaved {
        log::error!("inode {inode}: changes could not be stored before the mount ended: {e}");
    }
}
