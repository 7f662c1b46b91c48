//! Set-user-id and set-group-id bits.

use crate::bed::{Bed, sh_output};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// Ids that no machine has, in the form of setpriv(1).
const GUEST: &str = "setpriv --reuid=54321 --regid=54321 --clear-groups";

/// The mode of a file with both bits set that anybody may write to, after a shell line has done something to it as
/// `$f`.
fn mode_after(folder: &Path, before: u32, line: &str) -> u32 {
    let file = folder.join("f");
    fs::write(&file, "content").unwrap();
    fs::set_permissions(&file, Permissions::from_mode(before)).unwrap();
    let output = sh_output(&format!("cd \"$1\"; f=f; {line}"), &[folder]);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    let after = fs::metadata(&file).unwrap().mode() & 0o7777;
    fs::remove_file(&file).unwrap();
    after
}

/// A change of content by somebody without privileges takes the set-user-id bit of a file away, and the
/// set-group-id bit where the group may execute it; so does a new owner, whoever sets it (inode(7), chown(2)).
/// What root writes leaves them.
#[test]
fn set_id_bits_go_with_changes_by_the_unprivileged_and_with_the_owner() {
    let mut bed = Bed::new();
    fs::set_permissions(bed.dir.path(), Permissions::from_mode(0o755)).unwrap();
    let folder = bed.mount_replacing();
    let as_guest = |script: &str| format!("{GUEST} sh -c '{script}' sh $f");
    let append = "echo more >> $1";
    let empty = ": > $1";
    let python =
        |body: &str| format!("python3 -c \"import os,sys; f=os.open(sys.argv[1],os.O_RDWR); {body}\" $1");
    let (shorten, reserve) = (python("os.ftruncate(f,3)"), python("os.posix_fallocate(f,0,9)"));
    for (before, line, after) in [
        (0o6777, as_guest(append), 0o777),
        (0o6777, as_guest(empty), 0o777),
        (0o6777, as_guest("truncate -s 3 $1"), 0o777),
        (0o6777, as_guest(&shorten), 0o777),
        (0o6777, as_guest(&reserve), 0o777),
        (0o6777, as_guest("cat $1"), 0o6777),
        (0o6777, "echo more >> $f".into(), 0o6777),
        (0o6777, ": > $f".into(), 0o6777),
        (0o6777, "truncate -s 3 $f".into(), 0o6777),
        (0o6777, "chown 54321 $f".into(), 0o777),
        (0o6777, "chgrp 54321 $f".into(), 0o777),
        (0o6767, "chown 54321 $f".into(), 0o2767),
        (0o6777, "chown 54321 $f; chmod 4755 $f".into(), 0o4755),
        (0o6777, "touch $f".into(), 0o6777),
    ] {
        let got = mode_after(&folder, before, &line);
        assert_eq!(got, after, "{before:o} after {line}: {got:o}, not {after:o}");
    }
}
