//! Going into the background once the mount answers, so that a script that mounts can use it in its next
//! line.

use anyhow::Context;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

/// What the parent is told.
const READY: &[u8] = b"ready";

/// The child's end of the promise to tell whether the mount came up.
pub struct Ready {
    to_parent: std::fs::File,
}

impl Ready {
    /// Tells the parent that the mount answers.
    pub fn tell(mut self) -> std::io::Result<()> {
        self.to_parent.write_all(READY)
    }

    /// Tells the parent why it does not.
    pub fn fail(mut self, error: &anyhow::Error) {
        // The parent may have been killed; then nobody is left to be told.
        let _ = self.to_parent.write_all(format!("{error:#}").as_bytes());
    }
}

/// Splits off a child that goes on in the background: a session of its own, standard input from nothing and
/// output to `log`. Returns in the child. The parent never returns: it waits for what [`Ready`] tells and
/// exits with 0, or with 1 and the reason on standard error.
///
/// To be called before any thread is started.
pub fn split_off(log: &Path) -> anyhow::Result<Ready> {
    let log_file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("cannot write the log {}; name another with --log", log.display()))?;
    let null = OpenOptions::new().read(true).open("/dev/null")?;
    let (from_child, to_parent) = pipe()?;
    // SAFETY: no thread has been started yet, so the child may go on as a process of its own.
    match unsafe { libc::fork() } {
        -1 => Err(std::io::Error::last_os_error()).context("cannot start a background process"),
        0 => {
            drop(from_child);
            // SAFETY: plain system calls on descriptors that this function holds open.
            unsafe {
                libc::setsid();
                libc::dup2(null.as_raw_fd(), 0);
                libc::dup2(log_file.as_raw_fd(), 1);
                libc::dup2(log_file.as_raw_fd(), 2);
            }
            Ok(Ready { to_parent: to_parent.into() })
        }
        child => {
            drop(to_parent);
            std::process::exit(wait_for(child, from_child.into()))
        }
    }
}

fn wait_for(child: libc::pid_t, mut from_child: std::fs::File) -> i32 {
    let mut told = Vec::new();
    let read = from_child.read_to_end(&mut told);
    if read.is_ok() && told == READY {
        return 0;
    }
    if told.is_empty() {
        let mut status = 0;
        // SAFETY: `status` is valid for writing, `child` is a child of this process.
        unsafe { libc::waitpid(child, &mut status, 0) };
        let status = std::process::ExitStatus::from_raw(status);
        eprintln!("dfs-mount: the background process ended before the mount answered ({status})");
    } else {
        eprintln!("dfs-mount: {}", String::from_utf8_lossy(&told));
    }
    1
}

fn pipe() -> std::io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for the two descriptors that pipe2 writes.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: pipe2 has just made both, and nobody else owns them.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}
