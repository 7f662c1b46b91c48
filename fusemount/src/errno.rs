//! The one place where an error becomes an errno.

use dfs_proto::{ErrorCode, WireError};
use dfs_vfs::VfsError;
use fuser::Errno;

/// The errno of a failed operation; what an application cannot be expected to cause is logged with its
/// reason, because an errno cannot carry one.
pub(crate) fn errno(operation: &str, e: &VfsError) -> Errno {
    match e {
        VfsError::BadHandle(_) => return Errno::EBADF,
        VfsError::NothingThere => return Errno::ENXIO,
        VfsError::WouldBlock => return Errno::EAGAIN,
        VfsError::Interrupted => return Errno::EINTR,
        VfsError::Executed => return Errno::ETXTBSY,
        // The kernel walks the path once more: nothing has failed.
        VfsError::Appeared | VfsError::Removed(_) => return Errno::ESTALE,
        VfsError::Client(_)
        | VfsError::NameTaken
        | VfsError::NotEmpty
        | VfsError::Forgotten(_)
        | VfsError::TooLarge
        | VfsError::InvalidArgument(_)
        | VfsError::NotSupported(_)
        | VfsError::StagingFull { .. }
        | VfsError::OddAnswer(_) => {}
    }
    let code = e.code();
    if is_failure(code) {
        log::error!("{operation} failed: {e}");
    } else {
        log::debug!("{operation}: {e}");
    }
    of_code(code)
}

/// The errno of a name that cannot be one.
pub(crate) fn errno_of_wire(e: &WireError) -> Errno {
    of_code(e.code)
}

fn of_code(code: ErrorCode) -> Errno {
    use ErrorCode::*;
    match code {
        NotFound => Errno::ENOENT,
        Exists | Conflict => Errno::EEXIST,
        NotDirectory => Errno::ENOTDIR,
        IsDirectory => Errno::EISDIR,
        NotEmpty => Errno::ENOTEMPTY,
        NoAttribute => Errno::ENODATA,
        InvalidName | InvalidArgument => Errno::EINVAL,
        NameTooLong => Errno::ENAMETOOLONG,
        TooLarge => Errno::EFBIG,
        ValueTooLarge => Errno::E2BIG,
        TooManyLinks => Errno::EMLINK,
        NotPermitted => Errno::EPERM,
        NotSupported => Errno::EOPNOTSUPP,
        Deadlock => Errno::EDEADLK,
        TooManyLocks => Errno::ENOLCK,
        Stale => Errno::ESTALE,
        NoSpace => Errno::ENOSPC,
        Timeout => Errno::ETIMEDOUT,
        Unreachable | NoNodes => Errno::EHOSTUNREACH,
        LockLost | SessionExpired | Malformed | BodyTooLarge | Truncated | ChecksumMismatch
        | Unauthorized | Sealed | UnknownVolume | Corrupt | Unavailable | NoGoodCopy | Io | Internal => {
            Errno::EIO
        }
    }
}

/// Whether the code tells of a fault of the system rather than of the application's request.
fn is_failure(code: ErrorCode) -> bool {
    use ErrorCode::*;
    match code {
        NotFound | Exists | Conflict | NotDirectory | IsDirectory | NotEmpty | NoAttribute | InvalidName
        | InvalidArgument | NameTooLong | TooLarge | ValueTooLarge | TooManyLinks | NotPermitted
        | NotSupported | Deadlock | TooManyLocks => false,
        LockLost | Stale | NoSpace | Timeout | Unreachable | NoNodes | SessionExpired | Malformed
        | BodyTooLarge | Truncated | ChecksumMismatch | Unauthorized | Sealed | UnknownVolume | Corrupt
        | Unavailable | NoGoodCopy | Io | Internal => true,
    }
}
