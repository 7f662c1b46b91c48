//! Mount points.

use crate::process::{self, Server};
use std::ffi::CString;
use std::path::Path;
use std::process::Command;

/// Whether something is mounted exactly there.
pub(crate) fn is_mounted(at: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| line.split(' ').nth(1) == at.to_str())
}

/// Takes a mount away in good order; when it does not go, out of the tree at least.
pub(crate) fn unmount(at: &Path) {
    if !is_mounted(at) {
        return;
    }
    let mut umount = Command::new("umount");
    umount.arg(at);
    if let Err(e) = process::run(umount) {
        eprintln!("{e:#}");
        let Ok(path) = CString::new(at.as_os_str().as_encoded_bytes()) else { return };
        // SAFETY: the path is NUL-terminated and umount2(2) only reads it.
        unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
    }
}

/// Unmounts, and ends the program that serves the mount when it has not ended by that.
pub(crate) fn take_down(at: &Path, server: &mut Option<Server>) {
    unmount(at);
    *server = None;
    // One that was still starting may have mounted in between.
    unmount(at);
}
