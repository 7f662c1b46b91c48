//! What can go wrong with an operation on a mounted file system.

use crate::Fh;
use dfs_client::ClientError;
use dfs_proto::{ErrorCode, Ino};

/// Why an operation failed. [`VfsError::code`] is what an errno is made of.
#[derive(Clone, Debug, thiserror::Error)]
pub enum VfsError {
    /// The master or the nodes said so, or could not be reached.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A handle that is not open, or not for this kind of access (EBADF).
    #[error("file handle {0} is not open for this")]
    BadHandle(Fh),
    /// The name exists here, though it is not published yet.
    #[error("the name is taken by a file that is being written")]
    NameTaken,
    /// Others have made the name since the kernel found it free: it has to be looked up again (ESTALE).
    #[error("the name was made by others meanwhile")]
    Appeared,
    /// The directory holds files that are not published yet.
    #[error("the directory holds files that are being written")]
    NotEmpty,
    /// The inode is not known here and has no name under which it could be found.
    #[error("inode {0} is not known to this mount any more")]
    Forgotten(Ino),
    /// The inode was removed by others; the name that led to it has to be looked up again (ESTALE).
    #[error("inode {0} was removed meanwhile")]
    Removed(Ino),
    /// An offset or a size beyond what a file may have.
    #[error("an offset or a size is beyond what a file may have")]
    TooLarge,
    /// An argument that cannot be meant.
    #[error("{0}")]
    InvalidArgument(&'static str),
    /// There is no data, or no byte at all, where one was looked for (ENXIO of lseek(2)).
    #[error("there is nothing at this offset or after it")]
    NothingThere,
    /// It would have to be waited for, and the caller does not want to (EAGAIN).
    #[error("this would have to be waited for")]
    WouldBlock,
    /// The caller was interrupted while it waited (EINTR).
    #[error("interrupted while waiting")]
    Interrupted,
    /// A program runs from the file (ETXTBSY).
    #[error("a program runs from the file")]
    Executed,
    /// Something that this file system does not do.
    #[error("{0} is not supported")]
    NotSupported(&'static str),
    /// Staged data found no room within the deadline, because uploads do not get ahead.
    #[error(
        "{staged} bytes wait to be stored and none could be within {waited_s} s; is any storage node up?"
    )]
    StagingFull {
        /// Bytes staged now.
        staged: usize,
        /// How long the writer waited, s.
        waited_s: u64,
    },
    /// The answer to an operation was one for another operation.
    #[error("the master answered {0} with something else")]
    OddAnswer(&'static str),
}

impl VfsError {
    /// The code that stands for the error. `BadHandle`, `NothingThere`, `WouldBlock`, `Interrupted` and `Executed`
    /// have none on the wire and are told apart by the caller.
    pub fn code(&self) -> ErrorCode {
        match self {
            VfsError::Client(e) => e.code(),
            VfsError::BadHandle(_) | VfsError::InvalidArgument(_) | VfsError::NothingThere => {
                ErrorCode::InvalidArgument
            }
            VfsError::WouldBlock | VfsError::Interrupted => ErrorCode::Unavailable,
            VfsError::Executed => ErrorCode::NotPermitted,
            VfsError::NameTaken => ErrorCode::Exists,
            VfsError::NotEmpty => ErrorCode::NotEmpty,
            VfsError::Appeared | VfsError::Forgotten(_) | VfsError::Removed(_) => ErrorCode::Stale,
            VfsError::TooLarge => ErrorCode::TooLarge,
            VfsError::NotSupported(_) => ErrorCode::NotSupported,
            VfsError::StagingFull { .. } => ErrorCode::Timeout,
            VfsError::OddAnswer(_) => ErrorCode::Internal,
        }
    }
}
