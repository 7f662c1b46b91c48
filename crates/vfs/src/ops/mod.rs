//! The operations of a mounted file system, by what they are about.

mod attributes;
mod create;
mod directories;
mod entries;
mod files;
mod locks;
mod privileges;
mod ranges;
mod unnamed;
mod xattrs;

pub use locks::LockWish;

use crate::Fh;
use crate::names::Asked;
use bytes::Bytes;
use dfs_proto::{Attr, Name};

/// On whose behalf an operation is made.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Process.
    pub pid: u32,
    /// Bits that modes of new files lose, unless their directory has a default ACL (umask(2)).
    pub umask: u16,
}

/// The flags of open(2) that matter here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenFlags {
    /// O_RDONLY or O_RDWR.
    pub read: bool,
    /// O_WRONLY or O_RDWR.
    pub write: bool,
    /// O_APPEND.
    pub append: bool,
    /// O_TRUNC.
    pub truncate: bool,
    /// O_EXCL, for a create.
    pub exclusive: bool,
    /// O_NOATIME: reads leave the access time alone.
    pub no_atime: bool,
    /// The kernel opens the file to run it (execve(2)).
    pub execute: bool,
}

/// What [`crate::Vfs::fallocate`] does with a range (fallocate(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// Makes sure that there is room for what will be written there.
    Reserve {
        /// FALLOC_FL_KEEP_SIZE: a file that ends before stays as long as it is.
        keep_size: bool,
    },
    /// FALLOC_FL_PUNCH_HOLE: the bytes become zeros and take no room. The size stays.
    PunchHole,
    /// FALLOC_FL_ZERO_RANGE: the bytes become zeros.
    Zero {
        /// FALLOC_FL_KEEP_SIZE: a file that ends before stays as long as it is.
        keep_size: bool,
    },
}

/// What [`crate::Vfs::seek`] looks for (lseek(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seek {
    /// SEEK_DATA: bytes that were written.
    Data,
    /// SEEK_HOLE: bytes that never were, or the end of the file.
    Hole,
}

/// A file that has been opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenedFile {
    /// Its handle.
    pub fh: Fh,
    /// Whether pages that the kernel has of the file are of its present content.
    pub keep_pages: bool,
    /// Whether the kernel has to keep its page cache out of it: nothing is read through the handle, or what is
    /// written here is not the content of the inode that was opened.
    pub direct: bool,
}

/// A file that has been made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// Its attributes.
    pub attr: Attr,
    /// Its handle.
    pub opened: OpenedFile,
}

/// Bytes of a read.
pub type ReadData = Bytes;

/// One entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name; `.` and `..` come first and are no [`Name`]s.
    pub name: Vec<u8>,
    /// The same as a name, but for those two.
    pub entry: Option<Name>,
    /// Where the listing goes on after it.
    pub cookie: u64,
    /// Its attributes.
    pub attr: Attr,
    /// Before the master was asked for them.
    pub(crate) asked: Asked,
}
