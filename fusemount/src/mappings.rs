//! Which files a process has mapped, as far as /proc/pid/maps tells.

use dfs_proto::Ino;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};

/// Bytes of the list that are looked at: that of a process with thousands of mappings is not longer.
const MAPS_BYTES_MAX: u64 = 1 << 20;

/// Whether process `pid` has a shared mapping of a file with this inode number. It may be one of another file system:
/// that costs a needless request for its pages. A process that cannot be looked at has none.
pub(crate) fn has_mapped(pid: u32, inode: Ino) -> bool {
    let Ok(maps) = File::open(format!("/proc/{pid}/maps")) else { return false };
    let mut lines = BufReader::new(maps.take(MAPS_BYTES_MAX)).split(b'\n').map_while(Result::ok);
    lines.any(|line| is_shared_of(&line, inode))
}

/// A line is `FIRST-LAST rwxs OFFSET DEVICE INODE PATH`, with `p` for a private mapping (proc(5)). One that may not be
/// written to counts as well: it may have been another one before (mprotect(2)).
fn is_shared_of(line: &[u8], inode: Ino) -> bool {
    let mut fields = line.split(|byte| *byte == b' ').filter(|field| !field.is_empty());
    let is_shared = fields.nth(1).is_some_and(|rights| rights.ends_with(b"s"));
    let number = fields.nth(2).and_then(|field| std::str::from_utf8(field).ok());
    is_shared && number.and_then(|number| number.parse().ok()) == Some(inode.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_mappings_are_told_from_private_ones_and_those_of_other_files() {
        let line = b"7f1c2a000000-7f1c2a001000 rw-s 00000000 00:2f 4711                       /mnt/a file";
        assert!(is_shared_of(line, Ino(4711)));
        assert!(!is_shared_of(line, Ino(471)));
        let private = b"7f1c2a000000-7f1c2a001000 r--p 00001000 00:2f 4711 /mnt/f";
        assert!(!is_shared_of(private, Ino(4711)));
        assert!(is_shared_of(
            b"7f1c2a000000-7f1c2a001000 r--s 00000000 00:2f 4711 /mnt/f (deleted)",
            Ino(4711)
        ));
        assert!(!is_shared_of(b"", Ino(4711)));
        assert!(!is_shared_of(b"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]", Ino(0)));
    }

    #[test]
    fn a_process_that_is_not_there_has_nothing_mapped() {
        assert!(!has_mapped(u32::MAX, Ino(1)));
        assert!(!has_mapped(std::process::id(), Ino(u64::MAX)));
    }
}
