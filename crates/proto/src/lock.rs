//! Advisory locks of files: byte ranges (fcntl(2), OFD locks among them) and whole files (flock(2)).
//!
//! A lock belongs to an owner within a session. It is freed by its owner, or with the session: a client that is
//! silent for longer than its lease has lost its locks.

use crate::id::{Ino, SessionId};
use serde::{Deserialize, Serialize};

/// Who holds a lock, as the session tells its owners apart (a mount passes on the kernel's `lock_owner`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LockOwner(pub u64);

/// The two kinds of locks do not know of each other (flock(2), NOTES).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockSpace {
    /// Byte ranges: fcntl(2) F_SETLK and F_OFD_SETLK.
    Range,
    /// Whole files: flock(2).
    Whole,
}

/// What others may do meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockMode {
    /// F_RDLCK, LOCK_SH: others may have it too.
    Shared,
    /// F_WRLCK, LOCK_EX: nobody else may.
    Exclusive,
}

/// Bytes `first ..= last`; a lock up to the end of the file, however long it gets, ends at [`LockRange::END`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LockRange {
    /// The first byte.
    pub first: u64,
    /// The last byte, this one included; not below `first`.
    pub last: u64,
}

impl LockRange {
    /// The last byte that any file can have (`OFFSET_MAX` of Linux).
    pub const END: u64 = i64::MAX as u64;

    /// All there can be: what flock(2) locks.
    pub const WHOLE: LockRange = LockRange { first: 0, last: LockRange::END };

    /// Whether the two have a byte in common.
    pub fn overlaps(&self, other: &LockRange) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

/// A lock that somebody wants, or asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LockRequest {
    /// The file.
    pub ino: Ino,
    /// Which kind.
    pub space: LockSpace,
    /// Who.
    pub owner: LockOwner,
    /// Where; [`LockRange::WHOLE`] for flock(2).
    pub range: LockRange,
    /// How.
    pub mode: LockMode,
    /// The process, for F_GETLK.
    pub pid: u32,
}

/// What came of a wish for a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Locked {
    /// The owner has it.
    Granted,
    /// Others are in the way; the first of them. Nothing has changed, but for a waiter that has the whole file
    /// ([`LockSpace::Whole`]) in another mode: it has lost that (flock(2) gives up the old lock first), else two
    /// that wait to have their shared locks made exclusive would wait for each other for ever.
    Blocked(Vec<LockHolder>),
}

/// A waiter that has not asked again for so long counts as gone, ms.
pub const WAITER_FORGOTTEN_MS: u64 = 5000;

/// A lock that is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LockHolder {
    /// The session.
    pub session: SessionId,
    /// Who in it.
    pub owner: LockOwner,
    /// Where.
    pub range: LockRange,
    /// How.
    pub mode: LockMode,
    /// The process, as the session numbers them.
    pub pid: u32,
}
