//! Errors on the wire: a code that survives every hop, and a message for people.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What went wrong, independent of transport. The mount maps it to an errno, HTTP servers to a status, and
/// clients decide retries by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// No such entry, inode, attribute, blob or node (ENOENT).
    NotFound,
    /// The name is taken (EEXIST).
    Exists,
    /// A component of the path is not a directory (ENOTDIR).
    NotDirectory,
    /// A directory where a file is needed (EISDIR).
    IsDirectory,
    /// The directory is not empty (ENOTEMPTY).
    NotEmpty,
    /// No such extended attribute (ENODATA).
    NoAttribute,
    /// An empty name, `.`, `..`, a `/` or a NUL in a name (EINVAL).
    InvalidName,
    /// A name, path or attribute name over its limit (ENAMETOOLONG).
    NameTooLong,
    /// A value that cannot be meant (EINVAL).
    InvalidArgument,
    /// A size or an offset beyond the limit (EFBIG).
    TooLarge,
    /// A value of an extended attribute over its limit (E2BIG).
    ValueTooLarge,
    /// The inode has all the links it may have (EMLINK).
    TooManyLinks,
    /// Not allowed by the rules of the file system, for example linking a directory (EPERM).
    NotPermitted,
    /// Not supported by this server (EOPNOTSUPP).
    NotSupported,
    /// Waiting for this lock would never end: its holder waits for the caller (EDEADLK).
    Deadlock,
    /// The file has all the locks it may have (ENOLCK).
    TooManyLocks,
    /// The locks that the writer relied on were lost with its session (EIO).
    LockLost,
    /// The inode is gone (ESTALE).
    Stale,
    /// The session is unknown or over; open a new one.
    SessionExpired,
    /// The body or a header cannot be read.
    Malformed,
    /// The body is larger than the server takes.
    BodyTooLarge,
    /// The body ended before its stated length.
    Truncated,
    /// The bytes do not match the checksum that came with them.
    ChecksumMismatch,
    /// The capability is missing, wrong, for something else or past its time.
    Unauthorized,
    /// The key holds other bytes already.
    Conflict,
    /// The volume takes no more appends here; use another grant.
    Sealed,
    /// The volume is not known to this node.
    UnknownVolume,
    /// The stored record is damaged and has been set aside.
    Corrupt,
    /// No room left on the node, or in the cluster (ENOSPC).
    NoSpace,
    /// The server is there but cannot do this now: starting, overloaded, without a lease.
    Unavailable,
    /// No storage node can take the data.
    NoNodes,
    /// No answer within the deadline (ETIMEDOUT).
    Timeout,
    /// Nobody listens at the address, or the connection broke (EHOSTUNREACH).
    Unreachable,
    /// Not one copy could be read (EIO).
    NoGoodCopy,
    /// A file or store of the server cannot be read or written (EIO).
    Io,
    /// A fault of the program (EIO).
    Internal,
}

impl ErrorCode {
    /// The HTTP status that stands for this code.
    pub fn http_status(self) -> u16 {
        use ErrorCode::*;
        match self {
            NotFound | NoAttribute | UnknownVolume => 404,
            Exists | NotDirectory | IsDirectory | NotEmpty | TooManyLinks | Conflict | Deadlock
            | TooManyLocks => 409,
            InvalidName | NameTooLong | InvalidArgument | Malformed | Truncated => 400,
            TooLarge | ValueTooLarge | BodyTooLarge => 413,
            ChecksumMismatch => 422,
            NotPermitted => 403,
            Unauthorized => 401,
            NotSupported => 501,
            Stale | Sealed | LockLost => 410,
            SessionExpired => 440,
            Corrupt | NoGoodCopy => 502,
            NoSpace => 507,
            Unavailable | NoNodes => 503,
            Timeout => 504,
            Unreachable => 502,
            Io | Internal => 500,
        }
    }

    /// Whether trying again later, or elsewhere, may succeed without anybody's change of mind.
    pub fn is_transient(self) -> bool {
        use ErrorCode::*;
        match self {
            Unavailable | NoNodes | Timeout | Unreachable | Io | Internal | Sealed | NoSpace | Corrupt
            | Truncated | UnknownVolume => true,
            NotFound | Exists | NotDirectory | IsDirectory | NotEmpty | NoAttribute | InvalidName
            | NameTooLong | InvalidArgument | TooLarge | ValueTooLarge | TooManyLinks | NotPermitted
            | NotSupported | Deadlock | TooManyLocks | LockLost | Stale | SessionExpired | Malformed
            | BodyTooLarge | ChecksumMismatch | Unauthorized | Conflict | NoGoodCopy => false,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The serde name is the one documented name of a code.
        self.serialize(f)
    }
}

/// An error as it travels: `{"code": "not_found", "message": "no such file: /a/b"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message} ({code})")]
pub struct WireError {
    /// For programs.
    pub code: ErrorCode,
    /// For people: what happened, to what, and what to do where that is known.
    pub message: String,
}

impl WireError {
    /// An error of `code` that says `message`.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> WireError {
        WireError { code, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_show_their_wire_name() {
        assert_eq!(ErrorCode::NotFound.to_string(), "not_found");
        assert_eq!(WireError::new(ErrorCode::NoSpace, "disk full").to_string(), "disk full (no_space)");
    }
}
