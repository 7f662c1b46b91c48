//! Identifiers as newtypes, so that no two integers of one type stand side by side in a signature.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;
            fn from_str(s: &str) -> Result<Self, Self::Err> {
                s.parse().map($name)
            }
        }
    };
}

id!(
    /// Inode number; also the FUSE inode number. Never reused.
    Ino
);
id!(
    /// A volume: an append-only log of blobs, the unit of placement.
    VolumeId
);
id!(
    /// A blob within its volume. Never reused; handed out in ranges with grants.
    BlobKey
);
id!(
    /// A storage node as the master numbers it; stays with the node's data directory.
    NodeId
);
id!(
    /// A client's session with the master (one per mount, CLI run or gateway).
    SessionId
);
id!(
    /// Content version of an inode; grows by one with each commit that changes data or size.
    Version
);
id!(
    /// Position of a record in its volume's log, from 1; 0 stands for an empty log.
    Seq
);
id!(
    /// Place in a directory listing. Grows with every entry ever made, so a listing that goes on while the
    /// directory changes neither repeats nor skips entries that stay. 0 is the start of the listing; values
    /// from the master start above [`DirCookie::RESERVED`].
    DirCookie
);
id!(
    /// A replication order.
    OrderId
);

impl Ino {
    /// The root directory.
    pub const ROOT: Ino = Ino(1);
}

impl DirCookie {
    /// Cookies up to this value belong to the lister (`.` and `..`), never to a stored entry.
    pub const RESERVED: u64 = 16;
}

impl Version {
    /// The version after this one.
    pub fn next(self) -> Version {
        Version(self.0 + 1)
    }
}

/// The full name of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlobId {
    /// The log that holds it.
    pub volume: VolumeId,
    /// Its key there.
    pub key: BlobKey,
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.volume, self.key)
    }
}
