//! The lock file beside the database: one master per database.
//!
//! SQLite would let two processes in, each of which believes that it alone hands out keys and leases.

use crate::seam::StoreError;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Held from before the database is opened until after it is closed. The kernel releases it when the
/// process ends, however it ends; the file stays.
pub(super) struct Lock {
    file: File,
}

impl Lock {
    /// Locks the database at `path`, or says who has it.
    pub(super) fn take(path: &Path) -> Result<Lock, StoreError> {
        let lock_path = with_suffix(path, ".lock");
        let wrong = |reason: String| StoreError::Failed { action: "lock the database", reason };
        let unusable = |e: std::io::Error| wrong(format!("{}: {e}", lock_path.display()));
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&lock_path);
        let mut file = file.map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(e)) => return Err(unusable(e)),
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let holder = match { file.take(32) }.read_to_string(&mut holder) {
                    Ok(n) if n > 0 => format!("process {}", holder.trim()),
                    _ => "another process".to_string(),
                };
                return Err(wrong(format!(
                    "{} is in use by {holder}; only one master can have it, so stop that one or use another \
                     data directory",
                    path.display()
                )));
            }
        }
        write_pid(&mut file).map_err(unusable)?;
        Ok(Lock { file })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Not left to the closing of the file: a child process between fork and exec still has it open.
        if let Err(e) = self.file.unlock() {
            log::warn!("the lock of the metadata store could not be released before the end: {e}");
        }
    }
}

fn write_pid(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

/// The file beside `path` with `suffix` after its whole name.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
