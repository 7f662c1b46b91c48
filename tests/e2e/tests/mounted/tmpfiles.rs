use crate::bed::{Bed, list};
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

fn unnamed(folder: &Path, more: i32) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o640).custom_flags(libc::O_TMPFILE | more).open(folder).unwrap()
}

/// Gives an open file a name, as open(2) shows for O_TMPFILE.
fn name(file: &File, path: &Path) -> io::Result<()> {
    let from = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
    let to = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: both are valid NUL-terminated strings that outlive the call.
    let linked = unsafe {
        libc::linkat(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), libc::AT_SYMLINK_FOLLOW)
    };
    if linked == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A file made with O_TMPFILE has no name and is gone when it is closed. Given one with linkat(2), it is there
/// whole at that moment, for all mounts: a reader never sees half of it.
#[test]
fn a_file_without_a_name_can_be_given_one() {
    let mut bed = Bed::new();
    let (a, b) = (bed.mount(), bed.mount());
    let mut file = unnamed(&a, 0);
    file.write_all(b"made in one piece").unwrap();
    let meta = file.metadata().unwrap();
    assert_eq!((meta.nlink(), meta.mode() & 0o777), (0, 0o640));
    assert!(list(&a).is_empty());
    name(&file, &a.join("f")).unwrap();
    drop(file);
    assert_eq!(fs::read(b.join("f")).unwrap(), b"made in one piece");
    assert_eq!(fs::metadata(b.join("f")).unwrap().nlink(), 1);
}

/// O_TMPFILE with O_EXCL makes a file that can never get a name.
#[test]
fn a_private_file_without_a_name_works_and_never_gets_one() {
    let mut bed = Bed::new();
    let a = bed.mount();
    let mut file = unnamed(&a, libc::O_EXCL);
    file.write_all(b"scratch").unwrap();
    let mut back = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut back).unwrap();
    assert_eq!(back, "scratch");
    assert_eq!(name(&file, &a.join("f")).unwrap_err().raw_os_error(), Some(libc::ENOENT));
    drop(file);
    assert!(list(&a).is_empty());
}
