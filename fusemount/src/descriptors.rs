//! Which files a process has open, as far as its descriptors tell.

use dfs_proto::{Ino, Name};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Descriptors looked at: a process with more than these is no shell.
const DESCRIPTORS_MAX: usize = 256;

/// Whether process `pid` has a descriptor of this inode under this name. A shell that redirects output opens
/// the file, duplicates the descriptor and closes the first one, before anything is written: that close is not
/// the end of the file. What is read is in /proc only; nothing on a mount is touched, so this cannot block on
/// it.
pub(crate) fn has_open(pid: u32, name: &Name, inode: Ino) -> bool {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    entries.take(DESCRIPTORS_MAX).flatten().any(|entry| {
        let is_name = |target: &Path| target.file_name().is_some_and(|n| n.as_bytes() == name.as_bytes());
        std::fs::read_link(entry.path()).is_ok_and(|target| is_name(&target))
            && inode_of(pid, &entry.file_name()).is_none_or(|found| found == inode)
    })
}

/// The inode of a descriptor, where the kernel tells it (`ino:` in fdinfo, proc(5), since Linux 5.14).
fn inode_of(pid: u32, descriptor: &OsStr) -> Option<Ino> {
    let info =
        std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("fdinfo").join(descriptor));
    let info = info.ok()?;
    info.lines().find_map(|line| line.strip_prefix("ino:")).and_then(|n| n.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn an_open_file_is_found_by_name_and_inode_until_it_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let name = Name::try_from("descriptors-test.txt").unwrap();
        let file = std::fs::File::create(dir.path().join("descriptors-test.txt")).unwrap();
        let inode = Ino(file.metadata().unwrap().ino());
        assert!(has_open(std::process::id(), &name, inode));
        assert!(!has_open(std::process::id(), &name, Ino(inode.0 + 1)), "another file of that name");
        drop(file);
        assert!(!has_open(std::process::id(), &name, inode));
    }
}
