//! The disk itself, without any file system of ours or of others in between.

use super::{Place, Processes, subfolder};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

pub(crate) struct Disk {
    dir: PathBuf,
}

impl Disk {
    pub fn start(folder: &Path) -> anyhow::Result<Disk> {
        Ok(Disk { dir: subfolder(folder, "disk")? })
    }
}

impl Place for Disk {
    fn about(&self) -> String {
        "a directory of the disk that everything else keeps its data on; one copy. What is read cold comes from \
         the device: there is no server that has it in memory"
            .into()
    }

    fn version(&self) -> String {
        crate::machine::file_system(&self.dir)
    }

    fn dir(&self) -> &Path {
        &self.dir
    }

    fn make_cold(&mut self) -> anyhow::Result<()> {
        drop_pages(&self.dir)
    }

    fn processes(&self) -> Processes {
        Processes::default()
    }
}

/// Clean pages are dropped file by file, which leaves the caches of others alone (drop_caches would not).
fn drop_pages(dir: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            drop_pages(&entry.path())?;
        } else if kind.is_file() {
            let file = File::open(entry.path())?;
            file.sync_data()?;
            // SAFETY: the descriptor is open for the call; the advice touches no memory.
            unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        }
    }
    Ok(())
}
