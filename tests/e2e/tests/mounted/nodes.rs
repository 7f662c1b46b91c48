//! What is no plain file, the ways of renaming, and sizes that no file can have.

use crate::bed::{Bed, sh, wait_for};
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// A FIFO connects programs on the machine where it is opened; other mounts see that it is one.
#[test]
fn a_fifo_connects_two_programs() {
    let mut bed = Bed::new();
    let (a, b) = (bed.mount(), bed.mount());
    sh("mkfifo -m 640 \"$1\"/pipe", &[&a]);
    let writer = std::thread::spawn({
        let pipe = a.join("pipe");
        move || fs::write(pipe, "through the pipe").unwrap()
    });
    assert_eq!(fs::read_to_string(a.join("pipe")).unwrap(), "through the pipe");
    writer.join().unwrap();
    let seen = fs::symlink_metadata(b.join("pipe")).unwrap();
    assert!(seen.file_type().is_fifo());
    assert_eq!((seen.mode() & 0o7777, seen.len()), (0o640, 0));
}

/// A socket connects programs on the machine where it is bound; its name goes like any other.
#[test]
fn a_socket_connects_two_programs() {
    let mut bed = Bed::new();
    let a = bed.mount();
    let at = a.join("socket");
    let listener = UnixListener::bind(&at).unwrap();
    assert!(fs::symlink_metadata(&at).unwrap().file_type().is_socket());
    let mut here = UnixStream::connect(&at).unwrap();
    let (mut there, _) = listener.accept().unwrap();
    here.write_all(b"hello").unwrap();
    drop(here);
    let mut text = String::new();
    there.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    fs::remove_file(&at).unwrap();
    assert_eq!(UnixStream::connect(&at).unwrap_err().raw_os_error(), Some(libc::ENOENT));
}

/// Device nodes keep their kind and number on every mount. They can be opened only on a mount with `--dev`, as
/// mount(8) has it for `nodev`.
#[test]
fn device_nodes_are_kept_and_not_opened_without_leave() {
    let mut bed = Bed::new();
    let (a, b) = (bed.mount(), bed.mount());
    sh("mknod \"$1\"/null c 1 3 && mknod \"$1\"/disk b 259 70000", &[&a]);
    let null = fs::symlink_metadata(b.join("null")).unwrap();
    assert!(null.file_type().is_char_device());
    assert_eq!((libc::major(null.rdev()), libc::minor(null.rdev())), (1, 3));
    let disk = fs::symlink_metadata(b.join("disk")).unwrap();
    assert!(disk.file_type().is_block_device());
    assert_eq!((libc::major(disk.rdev()), libc::minor(disk.rdev())), (259, 70_000));
    assert_eq!(File::open(b.join("null")).unwrap_err().raw_os_error(), Some(libc::EACCES));
}

fn renameat2(from: &Path, to: &Path, flags: libc::c_uint) -> Result<(), i32> {
    let [from, to] = [from, to].map(|path| CString::new(path.as_os_str().as_bytes()).unwrap());
    // SAFETY: both paths are NUL-terminated.
    let done = unsafe { libc::renameat2(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), flags) };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().raw_os_error().unwrap()) }
}

/// renameat2(2): RENAME_NOREPLACE refuses a name that is taken, RENAME_EXCHANGE swaps what two names stand for,
/// whatever they are; flags that do not go together, or that only some file systems have, give EINVAL.
#[test]
fn rename_has_all_its_flags() {
    let mut bed = Bed::new();
    let (a, b) = (bed.mount(), bed.mount());
    fs::write(a.join("file"), "content").unwrap();
    fs::create_dir_all(a.join("dir/below")).unwrap();
    let (file, dir, free) = (a.join("file"), a.join("dir"), a.join("free"));
    assert_eq!(renameat2(&file, &dir, libc::RENAME_NOREPLACE), Err(libc::EEXIST));
    assert_eq!(renameat2(&file, &free, libc::RENAME_EXCHANGE), Err(libc::ENOENT));
    let both = libc::RENAME_NOREPLACE | libc::RENAME_EXCHANGE;
    assert_eq!(renameat2(&file, &dir, both), Err(libc::EINVAL));
    assert_eq!(renameat2(&file, &free, libc::RENAME_WHITEOUT), Err(libc::EINVAL));
    assert_eq!(renameat2(&file, &file, 1 << 9), Err(libc::EINVAL));
    assert_eq!(renameat2(&dir, &dir.join("below"), libc::RENAME_EXCHANGE), Err(libc::EINVAL));
    assert_eq!(fs::read_to_string(&file).unwrap(), "content");

    renameat2(&file, &dir, libc::RENAME_EXCHANGE).unwrap();
    assert_eq!(fs::read_to_string(&dir).unwrap(), "content");
    assert!(file.join("below").is_dir());
    renameat2(&dir, &free, libc::RENAME_NOREPLACE).unwrap();
    wait_for("the renames on the other mount", || {
        let (at_free, at_dir) = (fs::read_to_string(b.join("free")), b.join("dir").exists());
        match (&at_free, at_dir) {
            (Ok(text), false) if text == "content" && b.join("file/below").is_dir() => Ok(()),
            _ => Err(format!("{at_free:?} {at_dir}")),
        }
    });
}

/// Sizes and offsets beyond what a file can have are refused as on Linux's own file systems (EFBIG, EINVAL),
/// and the file stays as it was.
#[test]
fn absurd_sizes_are_refused_and_change_nothing() {
    let mut bed = Bed::new();
    let a = bed.mount();
    fs::write(a.join("f"), "content").unwrap();
    let before = fs::metadata(a.join("f")).unwrap();
    let tries = "
import os, sys, errno
f = os.open(sys.argv[1] + '/f', os.O_RDWR)
most = 2**63 - 1
for name, act in [
    ('ftruncate', lambda: os.ftruncate(f, -1)),
    ('pwrite over the end', lambda: os.pwrite(f, b'xy', most)),
    ('pwrite below zero', lambda: os.pwrite(f, b'x', -1)),
    ('fallocate', lambda: os.posix_fallocate(f, most, 1)),
    ('fallocate to the end', lambda: os.posix_fallocate(f, 1, most)),
    ('fallocate nothing', lambda: os.posix_fallocate(f, 0, 0)),
    ('lseek', lambda: os.lseek(f, -1, os.SEEK_SET)),
]:
    try: act(); print(name, 'done')
    except OSError as e: print(name, errno.errorcode[e.errno])
";
    let script = a.join("tries.py");
    fs::write(&script, tries).unwrap();
    let told = sh("python3 \"$2\" \"$1\"", &[&a, &script]);
    let expected = [
        "ftruncate EINVAL",
        "pwrite over the end EINVAL",
        "pwrite below zero EINVAL",
        "fallocate EFBIG",
        "fallocate to the end EFBIG",
        "fallocate nothing EINVAL",
        "lseek EINVAL",
    ];
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);
    // 8 EiB is one byte more than an offset can say; coreutils notice that themselves.
    let refused = sh("LC_ALL=C truncate -s 8E \"$1\"/f 2>&1 && echo done; true", &[&a]);
    assert!(refused.contains("too large"), "{refused}");
    let after = fs::metadata(a.join("f")).unwrap();
    assert_eq!((after.len(), after.mtime_nsec()), (7, before.mtime_nsec()));
    assert_eq!(fs::read_to_string(a.join("f")).unwrap(), "content");
}

/// A program that runs from a file on this mount keeps its code: opening the file to write to it, or to empty it,
/// is refused (ETXTBSY).
#[test]
fn a_program_that_runs_cannot_be_written_to() {
    let mut bed = Bed::new();
    let a = bed.mount_replacing();
    let program = a.join("program");
    fs::copy("/bin/sleep", &program).unwrap();
    let length = fs::metadata(&program).unwrap().len();
    let mut running = std::process::Command::new(&program).arg("600").spawn().unwrap();
    let flags =
        [libc::O_RDONLY | libc::O_TRUNC, libc::O_WRONLY, libc::O_RDWR, libc::O_WRONLY | libc::O_TRUNC];
    let path = CString::new(program.as_os_str().as_bytes()).unwrap();
    let refused = flags.map(|flags| {
        // SAFETY: the path is NUL-terminated.
        let opened = unsafe { libc::open(path.as_ptr(), flags) };
        (opened < 0).then(|| std::io::Error::last_os_error().raw_os_error().unwrap())
    });
    let still_runs = running.try_wait().unwrap().is_none();
    running.kill().unwrap();
    running.wait().unwrap();
    assert_eq!(refused, [Some(libc::ETXTBSY); 4]);
    assert!(still_runs);
    assert_eq!(fs::metadata(&program).unwrap().len(), length);
}
