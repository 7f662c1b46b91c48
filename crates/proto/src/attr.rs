//! Attributes of inodes.

use crate::id::{Ino, Version};
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// FIFO.
    Fifo,
    /// Unix socket.
    Socket,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
}

/// A moment as seconds and nanoseconds since 1970-01-01 UTC; seconds may be negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp {
    /// Whole seconds, rounded down.
    pub secs: i64,
    /// 0 ..= 999,999,999
    pub nanos: u32,
}

impl Timestamp {
    /// The wall clock.
    pub fn now() -> Timestamp {
        SystemTime::now().into()
    }
}

impl From<SystemTime> for Timestamp {
    fn from(t: SystemTime) -> Timestamp {
        match t.duration_since(UNIX_EPOCH) {
            Ok(d) => Timestamp { secs: d.as_secs() as i64, nanos: d.subsec_nanos() },
            Err(before) => {
                let d = before.duration();
                let secs = -(d.as_secs() as i64);
                match d.subsec_nanos() {
                    0 => Timestamp { secs, nanos: 0 },
                    n => Timestamp { secs: secs - 1, nanos: 1_000_000_000 - n },
                }
            }
        }
    }
}

impl From<Timestamp> for SystemTime {
    fn from(t: Timestamp) -> SystemTime {
        let nanos = Duration::from_nanos(u64::from(t.nanos));
        if t.secs >= 0 {
            UNIX_EPOCH + Duration::from_secs(t.secs as u64) + nanos
        } else {
            UNIX_EPOCH - Duration::from_secs(t.secs.unsigned_abs()) + nanos
        }
    }
}

/// What a PUT does when its name is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CollisionPolicy {
    /// Keep the old file and store the new one as `name-1.ext`, `name-2.ext`, ...
    #[default]
    Rename,
    /// Overwrite, as POSIX has it.
    Replace,
}

impl CollisionPolicy {
    /// The word for it on command lines, in queries and in `user.dfs.collision`.
    pub fn as_str(self) -> &'static str {
        match self {
            CollisionPolicy::Rename => "rename",
            CollisionPolicy::Replace => "replace",
        }
    }
}

impl std::str::FromStr for CollisionPolicy {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "rename" => Ok(CollisionPolicy::Rename),
            "replace" => Ok(CollisionPolicy::Replace),
            other => Err(format!("{other:?} is neither `rename` nor `replace`")),
        }
    }
}

/// Attributes of one inode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attr {
    /// The inode.
    pub ino: Ino,
    /// What it is.
    pub kind: FileKind,
    /// Permission bits with set-id and sticky: the low 12 bits of `st_mode`.
    pub mode: u16,
    /// Number of dentries that name it; for a directory 2 + its subdirectories.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device node (`st_rdev`), else 0.
    pub rdev: u32,
    /// Bytes of content; for a symlink the length of its target; for a directory 4096.
    pub size: u64,
    /// Bytes of content that are backed by blobs; `st_blocks` is this in units of 512, rounded up.
    pub allocated: u64,
    /// Last access, as far as it is kept.
    pub atime: Timestamp,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last change of the inode.
    pub ctime: Timestamp,
    /// Creation.
    pub btime: Timestamp,
    /// Content version; for a directory it grows with each change of its entries.
    pub version: Version,
    /// For a directory: its parent (the root is its own). For others 0.
    pub parent: Ino,
    /// For a directory: the collision rule set on it or inherited, if any.
    pub collision: Option<CollisionPolicy>,
    /// Whether it has a POSIX access control list, or a default one (acl(5)).
    pub has_acl: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_keep_their_nanoseconds() {
        for t in [
            Timestamp { secs: -2, nanos: 250_000_000 },
            Timestamp { secs: -1, nanos: 0 },
            Timestamp { secs: 0, nanos: 1 },
            Timestamp { secs: 1_700_000_000, nanos: 999_999_999 },
        ] {
            assert_eq!(Timestamp::from(SystemTime::from(t)), t);
        }
    }
}
