use crate::bed::{Bed, list, sh_output};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;

/// Names are bytes: 1 to 255 of them, anything but `/` and NUL, valid UTF-8 or not.
#[test]
fn any_name_that_a_directory_can_hold_is_kept() {
    let mut bed = Bed::new();
    let (a, b) = (bed.mount(), bed.mount());
    let long = "é".repeat(127) + "x";
    let all: Vec<&[u8]> = vec![
        b"no extension",
        b"quote\"d",
        b"it's",
        b"new\nline",
        b"-rf",
        b"%2e%2e",
        b"\xff\xfe not utf-8",
        long.as_bytes(),
    ];
    for name in &all {
        fs::write(a.join(OsStr::from_bytes(name)), name).unwrap();
    }
    for name in &all {
        assert_eq!(fs::read(b.join(OsStr::from_bytes(name))).unwrap(), *name);
    }
    assert_eq!(fs::read_dir(&b).unwrap().count(), all.len());
}

/// Names that are too long, paths through what is no directory, moves of a directory below itself and sizes
/// beyond what a file can have get the errno that Linux file systems give, and nothing is changed.
#[test]
fn bad_names_and_sizes_get_the_errno_that_linux_gives() {
    let mut bed = Bed::new();
    let a = bed.mount();
    let errno = |e: std::io::Error| e.raw_os_error().unwrap();
    assert_eq!(errno(fs::write(a.join("x".repeat(256)), "").unwrap_err()), libc::ENAMETOOLONG);
    assert_eq!(errno(fs::create_dir(a.join("missing/d")).unwrap_err()), libc::ENOENT);
    fs::write(a.join("f"), "content").unwrap();
    assert_eq!(errno(fs::read_dir(a.join("f")).unwrap_err()), libc::ENOTDIR);
    fs::create_dir(a.join("d")).unwrap();
    fs::write(a.join("d/g"), "").unwrap();
    assert_eq!(errno(fs::remove_dir(a.join("d")).unwrap_err()), libc::ENOTEMPTY);
    assert_eq!(errno(fs::rename(a.join("d"), a.join("d/below")).unwrap_err()), libc::EINVAL);
    assert_eq!(errno(fs::hard_link(a.join("d"), a.join("e")).unwrap_err()), libc::EPERM);
    let absurd = sh_output("truncate -s 8E \"$1\"/f", &[&a]);
    assert!(!absurd.status.success());
    assert_eq!(fs::read_to_string(a.join("f")).unwrap(), "content");
}

/// A listing that goes on while the directory changes shows every entry that stays exactly once.
#[test]
fn a_large_directory_is_listed_whole_while_it_changes() {
    let mut bed = Bed::new();
    let a = bed.mount();
    let dir = a.join("d");
    fs::create_dir(&dir).unwrap();
    for i in 0..1500 {
        fs::write(dir.join(format!("stay{i:04}")), "").unwrap();
    }
    let (mut seen, mut made) = (Vec::new(), 0);
    for (i, entry) in fs::read_dir(&dir).unwrap().enumerate() {
        seen.push(entry.unwrap().file_name().to_string_lossy().into_owned());
        if i % 100 == 0 {
            fs::write(dir.join(format!("new{i}")), "").unwrap();
            made += 1;
        }
    }
    let mut stayed: Vec<String> = seen.iter().filter(|n| n.starts_with("stay")).cloned().collect();
    stayed.sort();
    let expected: Vec<String> = (0..1500).map(|i| format!("stay{i:04}")).collect();
    assert_eq!(stayed, expected);
    assert_eq!(list(&dir).len(), 1500 + made);
}
