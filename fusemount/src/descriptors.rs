//! Which files a process has open, as far as its descriptors tell.
//!
//! Only what the kernel tells without waiting for the process is looked at. Links in /proc/pid/fd are not: they
//! wait while the process is within execve(2), and execve closes files, which waits for the mount.

use dfs_proto::Ino;
use std::path::{Path, PathBuf};

/// Descriptors looked at: a process with more than these is no shell.
const DESCRIPTORS_MAX: usize = 256;

/// Whether process `pid` has a descriptor of this inode of a FUSE mount. A shell that redirects output opens
/// the file, duplicates the descriptor and closes the first one, before anything is written: that close is not
/// the end of the file. Before Linux 5.14, which does not tell the inodes of descriptors, the answer is no.
pub(crate) fn has_open(pid: u32, inode: Ino) -> bool {
    has_open_on(pid, inode, |file_system| file_system == "fuse" || file_system.starts_with("fuse."))
}

fn has_open_on(pid: u32, inode: Ino, is_ours: impl Fn(&str) -> bool) -> bool {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let Ok(entries) = std::fs::read_dir(process.join("fdinfo")) else { return false };
    entries.take(DESCRIPTORS_MAX).flatten().any(|entry| {
        let Ok(info) = std::fs::read_to_string(entry.path()) else { return false };
        number(&info, "ino:") == Some(inode.0)
            // A mount that is not to be seen from the root of the process is given the benefit of the doubt.
            && number(&info, "mnt_id:").and_then(|id| file_system(&process, id)).is_none_or(|name| is_ours(&name))
    })
}

/// A number in fdinfo (proc(5)).
fn number(info: &str, key: &str) -> Option<u64> {
    info.lines().find_map(|line| line.strip_prefix(key)).and_then(|n| n.trim().parse().ok())
}

/// The type of the file system of a mount, from mountinfo: `ID PARENT ... - TYPE SOURCE ...` (proc(5)).
fn file_system(process: &Path, mount_id: u64) -> Option<String> {
    let mounts = std::fs::read_to_string(process.join("mountinfo")).ok()?;
    let line = mounts.lines().find(|line| line.split(' ').next() == Some(mount_id.to_string().as_str()))?;
    line.split_once(" - ")?.1.split(' ').next().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn an_open_file_is_found_by_its_inode_and_file_system_until_it_is_closed() {
        let file = tempfile::tempfile().unwrap();
        let inode = Ino(file.metadata().unwrap().ino());
        let own = std::process::id();
        assert!(has_open_on(own, inode, |file_system| !file_system.is_empty()));
        assert!(!has_open_on(own, inode, |_| false), "it is on another file system");
        assert!(!has_open_on(own, Ino(inode.0 + 1_000_000_007), |_| true), "it is another file");
        drop(file);
        assert!(!has_open_on(own, inode, |_| true));
    }

    #[test]
    fn mounts_have_types() {
        assert_eq!(file_system(Path::new("/proc/self"), u64::MAX), None);
        let root = std::fs::File::open("/proc/self/mountinfo").unwrap();
        let info = format!("/proc/self/fdinfo/{}", std::os::fd::AsRawFd::as_raw_fd(&root));
        let id = number(&std::fs::read_to_string(info).unwrap(), "mnt_id:").unwrap();
        assert_eq!(file_system(Path::new("/proc/self"), id).as_deref(), Some("proc"));
    }
}
