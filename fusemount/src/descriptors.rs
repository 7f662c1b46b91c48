//! Which files a process has open, as far as its descriptors tell.

use dfs_proto::Name;
use std::os::unix::ffi::OsStrExt;

/// Descriptors looked at: a process with more than these is no shell.
const DESCRIPTORS_MAX: usize = 256;

/// Whether process `pid` has a descriptor of a file of this name. A shell that redirects output opens the
/// file, duplicates the descriptor and closes the first one, before anything is written: that close is not
/// the end of the file. Only names are compared; nothing on a mount is touched, so this cannot block on it.
pub(crate) fn has_open(pid: u32, name: &Name) -> bool {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    entries
        .take(DESCRIPTORS_MAX)
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .any(|target| target.file_name().is_some_and(|n| n.as_bytes() == name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_is_found_until_it_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let name = Name::try_from("descriptors-test.txt").unwrap();
        let file = std::fs::File::create(dir.path().join("descriptors-test.txt")).unwrap();
        assert!(has_open(std::process::id(), &name));
        drop(file);
        assert!(!has_open(std::process::id(), &name));
    }
}
