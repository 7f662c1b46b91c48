//! Access control lists and the limits of extended attributes.

use crate::bed::{Bed, sh, wait_for};
use std::ffi::CString;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// A user that no machine has.
const GUEST: u32 = 54_321;
/// Another one.
const STRANGER: u32 = 54_322;

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// A mount that users other than root can get to.
fn open_to_all(bed: &mut Bed) -> std::path::PathBuf {
    chmod(bed.dir.path(), 0o755);
    bed.mount()
}

/// Whether a user, who is in a group of the same number, can read the file.
fn can_read(path: &Path, user: u32) -> bool {
    Command::new("cat").arg(path).uid(user).gid(user).output().unwrap().status.success()
}

/// The list in short form, without the header.
fn getfacl(path: &Path) -> Vec<String> {
    let shown = sh("getfacl -cpnE \"$1\"", &[path]);
    shown.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn setfacl(options: &str, path: &Path) {
    sh(&format!("setfacl {options} \"$1\""), &[path]);
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    wait_for(what, || if is_so() { Ok(()) } else { Err("not yet".into()) });
}

fn cstring(text: &[u8]) -> CString {
    CString::new(text).unwrap()
}

/// lsetxattr(2); the errno of a failure.
fn setxattr(path: &Path, name: &str, value: &[u8], flags: i32) -> Result<(), i32> {
    let (path, name) = (cstring(path.as_os_str().as_bytes()), cstring(name.as_bytes()));
    // SAFETY: the strings end with a NUL and the value has the length given; all outlive the call.
    let set =
        unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags) };
    if set == 0 { Ok(()) } else { Err(errno()) }
}

/// lgetxattr(2) into `room` bytes; the length of the value, or the errno of a failure.
fn getxattr(path: &Path, name: &str, room: usize) -> Result<usize, i32> {
    let (path, name) = (cstring(path.as_os_str().as_bytes()), cstring(name.as_bytes()));
    let mut value = vec![0u8; room];
    // SAFETY: the strings end with a NUL and the buffer has the length given; all outlive the call.
    let got = unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), room) };
    usize::try_from(got).map_err(|_| errno())
}

/// lremovexattr(2); the errno of a failure.
fn removexattr(path: &Path, name: &str) -> Result<(), i32> {
    let (path, name) = (cstring(path.as_os_str().as_bytes()), cstring(name.as_bytes()));
    // SAFETY: the strings end with a NUL and outlive the call.
    let removed = unsafe { libc::lremovexattr(path.as_ptr(), name.as_ptr()) };
    if removed == 0 { Ok(()) } else { Err(errno()) }
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap()
}

/// Access control lists (setfacl(1), acl(5)) say who may do what beyond the mode, on every mount. The permission
/// bits of the group are the mask of the list, and chmod(2) changes that mask.
#[test]
fn access_control_lists_count_on_every_mount() {
    let mut bed = Bed::new();
    let (a, b) = (open_to_all(&mut bed), bed.mount());
    let (here, there) = (a.join("f"), b.join("f"));
    fs::write(&here, "for some").unwrap();
    chmod(&here, 0o600);
    assert!(!can_read(&here, GUEST) && !can_read(&there, GUEST));

    setfacl(&format!("-m u:{GUEST}:rw"), &here);
    assert!(can_read(&here, GUEST) && !can_read(&here, STRANGER));
    wait_until("the list to count on the other mount", || can_read(&there, GUEST));
    assert!(!can_read(&there, STRANGER));
    assert_eq!(mode(&there), 0o660);
    let user = format!("user:{GUEST}:rw-");
    assert_eq!(getfacl(&there), ["user::rw-", &user, "group::---", "mask::rw-", "other::---"]);

    chmod(&there, 0o600);
    assert!(!can_read(&there, GUEST));
    wait_until("the mask to count on the first mount", || !can_read(&here, GUEST));
    assert_eq!(getfacl(&here)[3], "mask::---");

    setfacl("-b", &here);
    assert_eq!(getfacl(&here), ["user::rw-", "group::---", "other::---"]);
    assert_eq!(getxattr(&here, "system.posix_acl_access", 0), Err(libc::ENODATA));
}

/// What is made in a directory with a default list gets its rights from that list and the mode, and the umask does
/// not count; new directories pass the list on.
#[test]
fn a_default_list_is_inherited_and_takes_the_place_of_the_umask() {
    let mut bed = Bed::new();
    let (a, b) = (open_to_all(&mut bed), bed.mount());
    let team = a.join("team");
    fs::create_dir(&team).unwrap();
    setfacl(&format!("-m d:u:{GUEST}:rwx,d:o:---,u:{GUEST}:rwx"), &team);
    sh(
        "cd \"$1\"; umask 077; echo content > f; mkdir sub; : > sub/deep; ln -s f link; mkfifo fifo",
        &[&team],
    );

    let (user_rw, user_rwx) = (format!("user:{GUEST}:rwx"), format!("default:user:{GUEST}:rwx"));
    for file in [team.join("f"), team.join("sub/deep"), team.join("fifo"), b.join("team/f")] {
        assert_eq!(getfacl(&file), ["user::rw-", &user_rw, "group::r-x", "mask::rw-", "other::---"]);
        assert_eq!(mode(&file), 0o660, "{}", file.display());
    }
    assert!(can_read(&team.join("f"), GUEST) && can_read(&b.join("team/sub/deep"), GUEST));
    assert!(!can_read(&team.join("f"), STRANGER));
    let sub = getfacl(&b.join("team/sub"));
    assert!(sub.contains(&user_rwx) && sub.contains(&"mask::rwx".to_owned()), "{sub:?}");
    assert_eq!(mode(&team.join("sub")), 0o770);
}

/// Extended attributes have the limits and the errors of xattr(7): names of 255 bytes in the namespaces `user.`
/// (files and directories only), `trusted.` and `security.`, values of 64 KiB, and of `system.` the access control
/// lists alone.
#[test]
fn extended_attributes_have_the_limits_of_linux() {
    let mut bed = Bed::new();
    let a = bed.mount();
    let (file, link, folder) = (a.join("f"), a.join("link"), a.join("d"));
    fs::write(&file, "x").unwrap();
    symlink("f", &link).unwrap();
    fs::create_dir(&folder).unwrap();
    let longest = format!("user.{}", "x".repeat(250));
    let too_long = format!("{longest}x");
    let list = [&[2u8, 0, 0, 0][..], &[1, 0, 7, 0, 255, 255, 255, 255], &[4, 0, 5, 0, 255, 255, 255, 255]];
    let list = [&list.concat()[..], &[0x20, 0, 5, 0, 255, 255, 255, 255]].concat();
    let wrong_list = &list[..list.len() - 8];
    let largest = vec![7; 65_536];
    for (path, name, value, flags, expected) in [
        (&file, "user.a", &b"1"[..], libc::XATTR_REPLACE, Err(libc::ENODATA)),
        (&file, "user.a", b"1", libc::XATTR_CREATE, Ok(())),
        (&file, "user.a", b"1", libc::XATTR_CREATE, Err(libc::EEXIST)),
        (&file, "user.empty", b"", 0, Ok(())),
        (&file, "user.with/slash", b"1", 0, Ok(())),
        (&file, "user.large", &largest, 0, Ok(())),
        (&file, "user.large", &[&largest[..], &[0]].concat(), 0, Err(libc::E2BIG)),
        (&file, &longest, b"1", 0, Ok(())),
        (&file, &too_long, b"1", 0, Err(libc::ERANGE)),
        (&file, "", b"1", 0, Err(libc::ERANGE)),
        (&file, "colour", b"1", 0, Err(libc::EOPNOTSUPP)),
        (&file, "system.colour", b"1", 0, Err(libc::EOPNOTSUPP)),
        (&file, "user.", b"1", 0, Err(libc::EINVAL)),
        (&link, "user.a", b"1", 0, Err(libc::EPERM)),
        (&link, "trusted.a", b"1", 0, Ok(())),
        (&link, "system.posix_acl_access", &list, 0, Err(libc::EOPNOTSUPP)),
        (&file, "system.posix_acl_access", &list, 0, Ok(())),
        (&file, "system.posix_acl_access", wrong_list, 0, Err(libc::EINVAL)),
        (&file, "system.posix_acl_default", &list, 0, Err(libc::EACCES)),
        (&folder, "system.posix_acl_default", &list, 0, Ok(())),
        (&folder, "user.a", b"1", 0, Ok(())),
    ] {
        assert_eq!(setxattr(path, name, value, flags), expected, "{name:?} of {}", path.display());
    }
    assert_eq!(mode(&file), 0o755, "the list says no more than this mode");
    assert_eq!(getxattr(&file, "user.empty", 0), Ok(0));
    assert_eq!(getxattr(&file, "user.large", 0), Ok(65_536));
    assert_eq!(getxattr(&file, "user.large", 65_535), Err(libc::ERANGE));
    assert_eq!(getxattr(&file, "user.none", 10), Err(libc::ENODATA));
    assert_eq!(getxattr(&link, "user.a", 10), Err(libc::ENODATA));
    assert_eq!(removexattr(&file, "user.none"), Err(libc::ENODATA));
    assert_eq!(removexattr(&file, "system.posix_acl_access"), Ok(()));
    assert_eq!(removexattr(&file, "user.a"), Ok(()));
    assert_eq!(getxattr(&file, "user.a", 10), Err(libc::ENODATA));
}
