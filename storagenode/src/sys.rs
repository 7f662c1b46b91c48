//! The system calls that the standard library does not have.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Room on a file system, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Its size.
    pub capacity: u64,
    /// What an unprivileged process can still write.
    pub available: u64,
}

/// Room on the file system that holds `file`.
pub fn room(file: &File) -> io::Result<Room> {
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and `stat` has the size the call fills.
    if unsafe { libc::fstatvfs(file.as_raw_fd(), stat.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it has filled in the whole structure.
    let stat = unsafe { stat.assume_init() };
    let unit = stat.f_frsize;
    Ok(Room { capacity: stat.f_blocks * unit, available: stat.f_bavail * unit })
}

/// Gives the pages of `file` from `start` to `end` back to the file system; they read as zeros afterwards.
/// `false` when the file system cannot do that.
pub fn punch_hole(file: &File, start: u64, end: u64) -> io::Result<bool> {
    let (Ok(start), Ok(length)) =
        (libc::off_t::try_from(start), libc::off_t::try_from(end.saturating_sub(start)))
    else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    if length == 0 {
        return Ok(true);
    }
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: the descriptor is open for as long as `file` is borrowed; no memory is handed over.
    if unsafe { libc::fallocate(file.as_raw_fd(), mode, start, length) } == 0 {
        return Ok(true);
    }
    match io::Error::last_os_error() {
        e if e.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(false),
        e => Err(e),
    }
}
