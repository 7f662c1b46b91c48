//! Values of the kernel's protocol as values of ours, and back.

use bytes::Bytes;
use dfs_proto::lock::{LockMode, LockRange};
use dfs_proto::meta::{RenameMode, SetTime, XattrMode};
use dfs_proto::{Attr, FileKind, Ino, Name, XattrName};
use dfs_vfs::{Allocation, Caller, OpenFlags, Seek};
use fuser::{Errno, FileAttr, FileType, INodeNo, RenameFlags, Request, TimeOrNow};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// `st_blksize`: the unit that applications read and write in when they have no reason for another.
const BLOCK_BYTES: u32 = 4096;

pub(crate) fn ino(n: INodeNo) -> Ino {
    Ino(n.0)
}

pub(crate) fn name(n: &OsStr) -> Result<Name, Errno> {
    Name::new(n.as_bytes()).map_err(|e| crate::errno::errno_of_wire(&e))
}

pub(crate) fn xattr_name(n: &OsStr) -> Result<XattrName, Errno> {
    XattrName::new(n.as_bytes()).map_err(|e| crate::errno::errno_of_wire(&e))
}

/// Names as listxattr(2) returns them. Those of `trusted.` are for root only: others are told that such an attribute
/// is not there when they ask for it (xattr(7)), so it should not be in their list either.
pub(crate) fn xattr_list(names: &[XattrName], uid: u32) -> Bytes {
    let is_listed = |name: &&XattrName| uid == 0 || !name.as_bytes().starts_with(b"trusted.");
    names.iter().filter(is_listed).flat_map(|name| name.as_bytes().iter().copied().chain([0])).collect()
}

/// Who asks, with the umask that the request carries (0 where it carries none).
pub(crate) fn caller(request: &Request, umask: u32) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), pid: request.pid(), umask: permissions(umask) }
}

pub(crate) fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::File => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

/// The kind that the type bits of a mode stand for (inode(7)); no bits are a regular file, as mknod(2) has
/// it.
pub(crate) fn kind_of_mode(mode: u32) -> Result<FileKind, Errno> {
    match mode & libc::S_IFMT {
        0 | libc::S_IFREG => Ok(FileKind::File),
        libc::S_IFIFO => Ok(FileKind::Fifo),
        libc::S_IFSOCK => Ok(FileKind::Socket),
        libc::S_IFCHR => Ok(FileKind::CharDevice),
        libc::S_IFBLK => Ok(FileKind::BlockDevice),
        _ => Err(Errno::EINVAL),
    }
}

/// Permission bits with set-id and sticky.
pub(crate) fn permissions(mode: u32) -> u16 {
    (mode & 0o7777) as u16
}

pub(crate) fn file_attr(a: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(a.ino.0),
        size: a.size,
        blocks: a.allocated.div_ceil(512),
        atime: a.atime.into(),
        mtime: a.mtime.into(),
        ctime: a.ctime.into(),
        crtime: a.btime.into(),
        kind: file_type(a.kind),
        perm: a.mode,
        nlink: a.nlink,
        uid: a.uid,
        gid: a.gid,
        rdev: a.rdev,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

pub(crate) fn set_time(t: TimeOrNow) -> SetTime {
    match t {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(t) => SetTime::At(t.into()),
    }
}

/// Set by the kernel when it opens a file to run it: FMODE_EXEC of its include/linux/fs.h.
const FMODE_EXEC: i32 = 1 << 5;

pub(crate) fn open_flags(flags: i32) -> OpenFlags {
    let access = flags & libc::O_ACCMODE;
    OpenFlags {
        read: access != libc::O_WRONLY,
        write: access != libc::O_RDONLY,
        append: flags & libc::O_APPEND != 0,
        truncate: flags & libc::O_TRUNC != 0,
        exclusive: flags & libc::O_EXCL != 0,
        no_atime: flags & libc::O_NOATIME != 0,
        execute: flags & FMODE_EXEC != 0,
    }
}

pub(crate) fn rename_mode(flags: RenameFlags) -> Result<RenameMode, Errno> {
    if flags.is_empty() {
        Ok(RenameMode::Replace)
    } else if flags == RenameFlags::RENAME_NOREPLACE {
        Ok(RenameMode::NoReplace)
    } else if flags == RenameFlags::RENAME_EXCHANGE {
        Ok(RenameMode::Exchange)
    } else {
        Err(Errno::EINVAL)
    }
}

pub(crate) fn xattr_mode(flags: i32) -> Result<XattrMode, Errno> {
    match flags {
        0 => Ok(XattrMode::Any),
        libc::XATTR_CREATE => Ok(XattrMode::Create),
        libc::XATTR_REPLACE => Ok(XattrMode::Replace),
        _ => Err(Errno::EINVAL),
    }
}

/// What a lock request wants; `None` takes locks away.
pub(crate) fn lock_mode(kind: i32) -> Result<Option<LockMode>, Errno> {
    match kind {
        libc::F_RDLCK => Ok(Some(LockMode::Shared)),
        libc::F_WRLCK => Ok(Some(LockMode::Exclusive)),
        libc::F_UNLCK => Ok(None),
        _ => Err(Errno::EINVAL),
    }
}

/// The other way.
pub(crate) fn lock_type(mode: LockMode) -> i32 {
    match mode {
        LockMode::Shared => libc::F_RDLCK,
        LockMode::Exclusive => libc::F_WRLCK,
    }
}

/// The bytes of a lock request, which the kernel has checked; what no file can have is refused all the same.
pub(crate) fn lock_range(first: u64, last: u64) -> Result<LockRange, Errno> {
    if first > last || last > LockRange::END {
        return Err(Errno::EINVAL);
    }
    Ok(LockRange { first, last })
}

/// The modes of fallocate(2) that make sense for files made of blobs.
pub(crate) fn allocation(mode: i32) -> Result<Allocation, Errno> {
    const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    const ZERO_KEEP: i32 = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
    match mode {
        0 => Ok(Allocation::Reserve { keep_size: false }),
        libc::FALLOC_FL_KEEP_SIZE => Ok(Allocation::Reserve { keep_size: true }),
        PUNCH => Ok(Allocation::PunchHole),
        libc::FALLOC_FL_ZERO_RANGE => Ok(Allocation::Zero { keep_size: false }),
        ZERO_KEEP => Ok(Allocation::Zero { keep_size: true }),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// The kinds of lseek(2) that the kernel cannot answer by itself.
pub(crate) fn seek(whence: i32) -> Result<Seek, Errno> {
    match whence {
        libc::SEEK_DATA => Ok(Seek::Data),
        libc::SEEK_HOLE => Ok(Seek::Hole),
        _ => Err(Errno::EINVAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trusted_attributes_are_listed_to_root_only() {
        let names = ["trusted.a", "user.b", "security.c"].map(|n| XattrName::try_from(n).unwrap());
        assert_eq!(xattr_list(&names, 0), "trusted.a\0user.b\0security.c\0");
        assert_eq!(xattr_list(&names, 1000), "user.b\0security.c\0");
    }

    #[test]
    fn access_modes_are_told_apart() {
        let of = |flags| {
            let f = open_flags(flags);
            (f.read, f.write)
        };
        assert_eq!(of(libc::O_RDONLY), (true, false));
        assert_eq!(of(libc::O_WRONLY), (false, true));
        assert_eq!(of(libc::O_RDWR | libc::O_TRUNC), (true, true));
        assert!(open_flags(libc::O_RDWR | libc::O_TRUNC).truncate);
    }

    #[test]
    fn unknown_flags_are_refused() {
        assert!(xattr_mode(77).is_err());
        assert!(rename_mode(RenameFlags::RENAME_NOREPLACE | RenameFlags::RENAME_EXCHANGE).is_err());
        assert!(kind_of_mode(libc::S_IFDIR).is_err());
        // A hole that changes the size is none (fallocate(2)), and blobs cannot be collapsed.
        for mode in [libc::FALLOC_FL_PUNCH_HOLE, libc::FALLOC_FL_COLLAPSE_RANGE, 0x1000] {
            assert_eq!(allocation(mode).unwrap_err().code(), libc::EOPNOTSUPP, "{mode:#x}");
        }
        assert!(lock_mode(77).is_err());
        assert!(lock_range(2, 1).is_err());
        assert!(lock_range(0, u64::MAX).is_err());
        assert_eq!(lock_range(0, LockRange::END).unwrap(), LockRange::WHOLE);
        assert_eq!(seek(libc::SEEK_SET).unwrap_err().code(), libc::EINVAL);
    }
}
