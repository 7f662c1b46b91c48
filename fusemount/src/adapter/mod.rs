//! The kernel's requests as calls of the file system: decode, call, encode. No policy lives here.
//!
//! Each request is begun on the thread that took it from the kernel, and becomes a task when it has to wait, so that a slow
//! one holds up nobody. Reads and writes have a way of their own there: the bytes of a write lie in the thread's buffer,
//! and staging them is one copy; those of a read often are at hand, and handing the request over would cost more than
//! they do.

mod answer;
mod init;

use crate::convert::{
    allocation, caller, file_attr, file_type, ino, kind_of_mode, lock_mode, lock_range, name, open_flags,
    permissions, rename_mode, seek, set_time, xattr_list, xattr_mode, xattr_name,
};
use crate::descriptors;
use crate::errno::errno;
use crate::requests::{Patience, Requests};
use answer::{GENERATION, InTheWay, OpenedDirectory, Outcome, Slot, Taken, Valued};
use bytes::Bytes;
use dfs_client::Session;
use dfs_proto::Name;
use dfs_proto::lock::{self, LockMode, LockRange, LockSpace};
use dfs_proto::meta::AttrChanges;
use dfs_vfs::{Fh, LockWish, ReadStart, Vfs, VfsError};
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, INodeNo, IoctlFlags, KernelConfig,
    LkFlags, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyBmap,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl,
    ReplyLock, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, RequestId,
    SetxattrFlags, TimeOrNow, WriteFlags,
};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::runtime::Handle;

/// Most bytes that an answer to a copy_file_range can tell of: a page less than 4 GiB.
const COPY_BYTES_MAX: u64 = u32::MAX as u64 & !4095;

pub(crate) struct Adapter {
    pub vfs: Arc<Vfs>,
    pub runtime: Handle,
    pub requests: Requests,
    /// Who this mount is to the master.
    pub session: Arc<Session>,
}

fn fh(handle: FileHandle) -> Fh {
    Fh(handle.0)
}

fn lock_wish(owner: LockOwner, range: LockRange, mode: LockMode, pid: u32, flags: LkFlags) -> LockWish {
    let whole = flags.contains(LkFlags::FUSE_LK_FLOCK);
    let space = if whole { LockSpace::Whole } else { LockSpace::Range };
    LockWish { space, owner: lock::LockOwner(owner.0), range, mode, pid }
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

impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        init::agree(config)
    }

    fn interrupt(&self, _: &Request, unique: RequestId) {
        self.requests.interrupt(unique.0);
    }

    fn lookup(&self, request: &Request, parent: INodeNo, n: &OsStr, reply: ReplyEntry) {
        let n = decode!(reply, name(n));
        self.answer(request, Patience::Retried, "lookup", reply, |vfs| async move {
            vfs.lookup(ino(parent), &n).await
        });
    }

    fn forget(&self, _: &Request, inode: INodeNo, lookups: u64) {
        self.vfs.forget(ino(inode), lookups);
    }

    fn getattr(&self, request: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.answer(request, Patience::Retried, "getattr", reply, |vfs| async move {
            vfs.getattr(ino(inode)).await
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
            mode: mode.map(permissions),
            uid,
            gid,
            size,
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
        };
        let who = caller(request, 0);
        self.answer(request, Patience::Whole, "setattr", reply, |vfs| async move {
            vfs.setattr(who, ino(inode), changes, handle.map(fh)).await
        });
    }

    fn readlink(&self, request: &Request, inode: INodeNo, reply: ReplyData) {
        self.answer(request, Patience::Retried, "readlink", reply, |vfs| async move {
            vfs.readlink(ino(inode)).await
        });
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
        let (who, mode) = (caller(request, umask), permissions(mode));
        self.answer(request, Patience::Whole, "mknod", reply, |vfs| async move {
            vfs.mknod(who, ino(parent), &n, kind, mode, rdev).await
        });
    }

    fn mkdir(&self, request: &Request, parent: INodeNo, n: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let (n, who, mode) = (decode!(reply, name(n)), caller(request, umask), permissions(mode));
        self.answer(request, Patience::Whole, "mkdir", reply, |vfs| async move {
            vfs.mkdir(who, ino(parent), &n, mode).await
        });
    }

    fn unlink(&self, request: &Request, parent: INodeNo, n: &OsStr, reply: ReplyEmpty) {
        let n = decode!(reply, name(n));
        self.answer(request, Patience::Whole, "unlink", reply, |vfs| async move {
            vfs.unlink(ino(parent), &n).await
        });
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, n: &OsStr, reply: ReplyEmpty) {
        let n = decode!(reply, name(n));
        self.answer(request, Patience::Whole, "rmdir", reply, |vfs| async move {
            vfs.rmdir(ino(parent), &n).await
        });
    }

    fn symlink(&self, request: &Request, parent: INodeNo, n: &OsStr, target: &Path, reply: ReplyEntry) {
        let (n, who) = (decode!(reply, name(n)), caller(request, 0));
        let target = target.as_os_str().as_bytes().to_vec();
        self.answer(request, Patience::Whole, "symlink", reply, |vfs| async move {
            vfs.symlink(who, ino(parent), &n, &target).await
        });
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        n: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (n, new_name) = (decode!(reply, name(n)), decode!(reply, name(new_name)));
        let mode = decode!(reply, rename_mode(flags));
        self.answer(request, Patience::Whole, "rename", reply, |vfs| async move {
            vfs.rename(ino(parent), &n, ino(new_parent), &new_name, mode).await
        });
    }

    fn link(&self, request: &Request, inode: INodeNo, new_parent: INodeNo, n: &OsStr, reply: ReplyEntry) {
        let n = decode!(reply, name(n));
        self.answer(request, Patience::Whole, "link", reply, |vfs| async move {
            vfs.link(ino(inode), ino(new_parent), &n).await
        });
    }

    fn open(&self, request: &Request, inode: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (who, flags) = (caller(request, 0), open_flags(flags.0));
        let patience = if flags.write || flags.truncate { Patience::Whole } else { Patience::Retried };
        self.answer(
            request,
            patience,
            "open",
            reply,
            |vfs| async move { vfs.open(who, ino(inode), flags).await },
        );
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
        let (n, who, mode) = (decode!(reply, name(n)), caller(request, umask), permissions(mode));
        let flags = open_flags(flags);
        self.answer(request, Patience::Whole, "create", reply, |vfs| async move {
            vfs.create(who, ino(parent), &n, mode, flags).await
        });
    }

    fn tmpfile(
        &self,
        request: &Request,
        parent: INodeNo,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (who, mode, flags) = (caller(request, umask), permissions(mode), open_flags(flags));
        self.answer(request, Patience::Whole, "tmpfile", reply, |vfs| async move {
            vfs.tmpfile(who, ino(parent), mode, flags).await
        });
    }

    fn read(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let _in_runtime = self.runtime.enter();
        match self.vfs.begin_read(fh(handle), offset, size) {
            ReadStart::Done(Ok(data)) => reply.data(&data),
            ReadStart::Done(Err(e)) => reply.error(errno("read", &e)),
            ReadStart::Waits(waiting) => {
                self.answer(request, Patience::Retried, "read", reply, |vfs| async move {
                    vfs.finish_read(waiting).await
                });
            }
        }
    }

    fn write(
        &self,
        request: &Request,
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
        let drops_set_id = flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let handle = fh(handle);
        let _in_runtime = self.runtime.enter();
        let has_privileges = self.vfs.has_privileges(handle, drops_set_id);
        let tried = if has_privileges { None } else { self.vfs.try_write(handle, offset, data, mapped) };
        match tried {
            Some(Ok(written)) => reply.written(written),
            Some(Err(e)) => reply.error(errno("write", &e)),
            None => {
                let data = Bytes::copy_from_slice(data);
                self.answer(request, Patience::Whole, "write", reply, move |vfs| async move {
                    vfs.drop_privileges(handle, drops_set_id).await?;
                    vfs.write(handle, offset, &data, mapped).await
                });
            }
        }
    }

    fn flush(&self, request: &Request, _: INodeNo, handle: FileHandle, owner: LockOwner, reply: ReplyEmpty) {
        let (pid, owner) = (request.pid(), lock::LockOwner(owner.0));
        let others_open = move |_: &Name, inode| descriptors::has_open(pid, inode);
        self.answer(request, Patience::Closing, "close", reply, |vfs| async move {
            vfs.flush(fh(handle), owner, others_open).await
        });
    }

    fn release(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        // No process waits for it, so none is impatient.
        self.answer(request, Patience::Whole, "release", reply, |vfs| async move {
            vfs.release(fh(handle)).await;
            Ok(())
        });
    }

    fn fsync(&self, request: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        self.answer(
            request,
            Patience::Retried,
            "fsync",
            reply,
            |vfs| async move { vfs.fsync(fh(handle)).await },
        );
    }

    fn getlk(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        first: u64,
        last: u64,
        kind: i32,
        pid: u32,
        flags: LkFlags,
        reply: ReplyLock,
    ) {
        let (range, mode) = (decode!(reply, lock_range(first, last)), decode!(reply, lock_mode(kind)));
        let mode = decode!(reply, mode.ok_or(Errno::EINVAL));
        let wish = lock_wish(owner, range, mode, pid, flags);
        let own = self.session.id();
        self.answer(request, Patience::Retried, "a question for a lock", reply, |vfs| async move {
            let holder = vfs.test_lock(fh(handle), wish).await?;
            Ok(InTheWay { holder, own })
        });
    }

    fn setlk(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        first: u64,
        last: u64,
        kind: i32,
        pid: u32,
        wait: bool,
        flags: LkFlags,
        reply: ReplyEmpty,
    ) {
        let (range, mode) = (decode!(reply, lock_range(first, last)), decode!(reply, lock_mode(kind)));
        let Some(mode) = mode else {
            // The mode says nothing when locks go, and the process is told by the request alone.
            let wish = lock_wish(owner, range, LockMode::Shared, request.pid(), flags);
            return self.answer(request, Patience::Whole, "an unlock", reply, |vfs| async move {
                vfs.unlock(fh(handle), wish).await
            });
        };
        let wish = lock_wish(owner, range, mode, pid, flags);
        self.answer_listening(request, Patience::Lock, "a lock", reply, |vfs, interrupted| async move {
            vfs.lock(fh(handle), wish, wait, interrupted.wait()).await?;
            Ok(Taken(fh(handle), wish))
        });
    }

    fn fallocate(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let how = decode!(reply, allocation(mode));
        self.answer(request, Patience::Whole, "fallocate", reply, |vfs| async move {
            vfs.fallocate(fh(handle), offset, length, how).await
        });
    }

    fn lseek(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let what = decode!(reply, seek(whence));
        // Before the beginning is as much beyond the file as behind its end (lseek(2)).
        let offset = decode!(reply, u64::try_from(offset).map_err(|_| Errno::ENXIO));
        self.answer(request, Patience::Retried, "lseek", reply, |vfs| async move {
            let found = vfs.seek(fh(handle), offset, what).await?;
            i64::try_from(found).map_err(|_| VfsError::TooLarge)
        });
    }

    fn copy_file_range(
        &self,
        request: &Request,
        _: INodeNo,
        from: FileHandle,
        from_offset: u64,
        _: INodeNo,
        to: FileHandle,
        to_offset: u64,
        length: u64,
        flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let length = length.min(COPY_BYTES_MAX);
        self.answer(request, Patience::Whole, "copy_file_range", reply, |vfs| async move {
            let copied = vfs.copy_range(fh(from), from_offset, fh(to), to_offset, length).await?;
            u32::try_from(copied).map_err(|_| VfsError::TooLarge)
        });
    }

    fn opendir(&self, request: &Request, inode: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.answer(request, Patience::Retried, "opendir", reply, |vfs| async move {
            vfs.opendir(ino(inode)).await.map(OpenedDirectory)
        });
    }

    fn readdir(&self, request: &Request, _: INodeNo, handle: FileHandle, offset: u64, reply: ReplyDirectory) {
        let slot = Slot::new(reply);
        self.answer(request, Patience::Retried, "readdir", slot.clone(), |vfs| async move {
            let fill = |e: &dfs_vfs::Listed| {
                let n = OsStr::from_bytes(&e.name);
                slot.put(|r| !r.add(INodeNo(e.attr.ino.0), e.cookie, file_type(e.attr.kind), n))
            };
            vfs.readdir(fh(handle), offset, fill).await
        });
    }

    fn readdirplus(
        &self,
        request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let slot = Slot::new(reply);
        self.answer(request, Patience::Retried, "readdir", slot.clone(), |vfs| async move {
            let ttl = vfs.kernel_ttl();
            let fill = |e: &dfs_vfs::Listed| {
                let (n, attr) = (OsStr::from_bytes(&e.name), file_attr(&e.attr));
                let taken = slot.put(|r| !r.add(attr.ino, e.cookie, n, &ttl, &attr, GENERATION));
                // The kernel counts a lookup for each entry but `.` and `..`.
                if taken {
                    vfs.remember(ino(inode), e);
                }
                taken
            };
            vfs.readdir(fh(handle), offset, fill).await
        });
    }

    fn releasedir(&self, _: &Request, _: INodeNo, handle: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.vfs.releasedir(fh(handle));
        reply.ok();
    }

    fn fsyncdir(&self, request: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.answer(request, Patience::Retried, "fsync of a directory", reply, |vfs| async move {
            vfs.fsyncdir().await
        });
    }

    fn statfs(&self, request: &Request, _: INodeNo, reply: ReplyStatfs) {
        self.answer(request, Patience::Retried, "statfs", reply, |vfs| async move { vfs.statfs().await });
    }

    fn setxattr(
        &self,
        request: &Request,
        inode: INodeNo,
        n: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        more: SetxattrFlags,
        reply: ReplyEmpty,
    ) {
        let (n, mode) = (decode!(reply, xattr_name(n)), decode!(reply, xattr_mode(flags)));
        let value = Bytes::copy_from_slice(value);
        let drops_set_gid = more.contains(SetxattrFlags::FUSE_SETXATTR_ACL_KILL_SGID);
        self.answer(request, Patience::Whole, "setxattr", reply, |vfs| async move {
            vfs.setxattr(ino(inode), n, value, mode, drops_set_gid).await
        });
    }

    fn getxattr(&self, request: &Request, inode: INodeNo, n: &OsStr, room: u32, reply: ReplyXattr) {
        let n = decode!(reply, xattr_name(n));
        match self.vfs.try_getxattr(ino(inode), &n) {
            Some(Ok(value)) => Valued { room, value }.send(&self.vfs, reply),
            Some(Err(e)) => reply.error(errno("getxattr", &e)),
            None => self.answer(request, Patience::Retried, "getxattr", reply, |vfs| async move {
                let value = vfs.getxattr(ino(inode), n).await?;
                Ok(Valued { room, value })
            }),
        }
    }

    fn listxattr(&self, request: &Request, inode: INodeNo, room: u32, reply: ReplyXattr) {
        let uid = request.uid();
        self.answer(request, Patience::Retried, "listxattr", reply, move |vfs| async move {
            let value = xattr_list(&vfs.listxattr(ino(inode)).await?, uid);
            Ok(Valued { room, value })
        });
    }

    fn removexattr(&self, request: &Request, inode: INodeNo, n: &OsStr, reply: ReplyEmpty) {
        let n = decode!(reply, xattr_name(n));
        self.answer(request, Patience::Whole, "removexattr", reply, |vfs| async move {
            vfs.removexattr(ino(inode), n).await
        });
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        // Programs try requests of other file systems on any file; this is how they learn that it is none.
        reply.error(Errno::ENOTTY);
    }

    fn poll(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: PollNotifier,
        _: PollEvents,
        _: PollFlags,
        reply: ReplyPoll,
    ) {
        // The kernel does not ask again: files are always ready (poll(2)).
        reply.error(Errno::ENOSYS);
    }

    fn bmap(&self, _: &Request, _: INodeNo, _: u32, _: u64, reply: ReplyBmap) {
        reply.error(Errno::ENOSYS);
    }
}

/// What a mount could not save, for its last words.
pub(crate) fn report_unsaved(unsaved: &[(dfs_proto::Ino, VfsError)]) {
    for (inode, e) in unsaved {
        log::error!("inode {inode}: changes could not be stored before the mount ended: {e}");
    }
}
