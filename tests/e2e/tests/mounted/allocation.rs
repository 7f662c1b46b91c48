use crate::bed::{Bed, noise};
use crate::faults::wait_replicated;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

const BLOCK: i64 = 4096;

fn fallocate(file: &File, mode: libc::c_int, offset: i64, length: i64) -> io::Result<()> {
    // SAFETY: fallocate takes the descriptor, which `file` holds open, and numbers.
    match unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, length) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn seek(file: &File, offset: i64, whence: libc::c_int) -> Result<i64, i32> {
    // SAFETY: lseek takes the descriptor, which `file` holds open, and numbers.
    match unsafe { libc::lseek(file.as_raw_fd(), offset, whence) } {
        -1 => Err(io::Error::last_os_error().raw_os_error().unwrap()),
        found => Ok(found),
    }
}

fn copy_range(from: &File, to: &File, length: usize) -> io::Result<usize> {
    // SAFETY: both descriptors are held open; null offsets use and move the files' own.
    let copied = unsafe {
        libc::copy_file_range(
            from.as_raw_fd(),
            std::ptr::null_mut(),
            to.as_raw_fd(),
            std::ptr::null_mut(),
            length,
            0,
        )
    };
    usize::try_from(copied).map_err(|_| io::Error::last_os_error())
}

fn read_write(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

/// fallocate(2) reserves (with and without FALLOC_FL_KEEP_SIZE), makes holes and makes zeros; what it cannot do,
/// such as taking a range out, is EOPNOTSUPP and changes nothing. Other mounts see the same once the file is
/// closed.
#[test]
fn fallocate_extends_punches_holes_and_makes_zeros() {
    let mut bed = Bed::new();
    let (a, b) = (bed.mount(), bed.mount());
    let mut model = noise(1, 3 << 20);
    fs::write(a.join("f"), &model).unwrap();
    let file = read_write(&a.join("f"));
    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    fallocate(&file, punch, 1 << 20, 1 << 20).unwrap();
    model[1 << 20..2 << 20].fill(0);
    fallocate(&file, libc::FALLOC_FL_ZERO_RANGE, 100, 50).unwrap();
    model[100..150].fill(0);
    fallocate(&file, libc::FALLOC_FL_KEEP_SIZE, 3 << 20, 1 << 20).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 3 << 20, "FALLOC_FL_KEEP_SIZE keeps the size");
    fallocate(&file, 0, 3 << 20, 5).unwrap();
    model.extend([0; 5]);
    let collapse = fallocate(&file, libc::FALLOC_FL_COLLAPSE_RANGE, 0, BLOCK).unwrap_err();
    assert_eq!(collapse.raw_os_error(), Some(libc::EOPNOTSUPP));
    assert!(fs::read(a.join("f")).unwrap() == model, "before the close");
    drop(file);
    assert!(fs::read(b.join("f")).unwrap() == model, "on another mount");
    let blocks = fs::metadata(b.join("f")).unwrap().blocks();
    assert!(blocks * 512 < 5 << 19, "the hole takes no room: {blocks} blocks of 512 bytes");
}

/// lseek(2) finds data and holes (SEEK_DATA, SEEK_HOLE), so that `cp` and `tar` copy a sparse file without
/// reading its holes. Where nothing follows it is ENXIO.
#[test]
fn lseek_finds_data_and_holes() {
    let mut bed = Bed::new();
    let (a, b) = (bed.mount(), bed.mount());
    let file = read_write(&a.join("f"));
    file.write_all_at(&noise(1, BLOCK as usize), 8 * BLOCK as u64).unwrap();
    file.set_len(20 * BLOCK as u64).unwrap();
    let check = |file: &File| {
        assert_eq!(seek(file, 0, libc::SEEK_DATA), Ok(8 * BLOCK));
        assert_eq!(seek(file, 0, libc::SEEK_HOLE), Ok(0));
        assert_eq!(seek(file, 8 * BLOCK + 10, libc::SEEK_DATA), Ok(8 * BLOCK + 10));
        assert_eq!(seek(file, 8 * BLOCK, libc::SEEK_HOLE), Ok(9 * BLOCK));
        assert_eq!(seek(file, 9 * BLOCK, libc::SEEK_DATA), Err(libc::ENXIO));
        assert_eq!(seek(file, 20 * BLOCK, libc::SEEK_HOLE), Err(libc::ENXIO));
        assert_eq!(seek(file, -1, libc::SEEK_DATA), Err(libc::ENXIO));
        assert_eq!(seek(file, 0, libc::SEEK_END), Ok(20 * BLOCK));
    };
    check(&file);
    drop(file);
    check(&File::open(b.join("f")).unwrap());
}

/// copy_file_range(2) within the cluster, which `cp` uses, copies by reference: no byte of the file goes over
/// the network or is stored a second time, and later writes to either file leave the other alone.
#[test]
fn copies_within_the_cluster_move_no_bytes() {
    let mut bed = Bed::new();
    let (a, b) = (bed.mount(), bed.mount());
    let content = noise(1, 64 << 20);
    fs::write(a.join("f"), &content).unwrap();
    // Second copies are still being made, which is not what is measured.
    wait_replicated(&mut bed);
    let stored = |bed: &mut Bed| -> u64 {
        bed.cluster().nodes().iter().map(|node| bytes_below(node.data_dir())).sum()
    };
    let before = stored(&mut bed);
    let (from, to) = (File::open(a.join("f")).unwrap(), read_write(&a.join("copy")));
    let mut copied = 0;
    while copied < content.len() {
        let n = copy_range(&from, &to, content.len() - copied).unwrap();
        assert!(n > 0, "the copy ends at {copied} bytes");
        copied += n;
    }
    to.sync_all().unwrap();
    drop(to);
    let grown = stored(&mut bed).saturating_sub(before);
    assert!(grown < 1 << 20, "the copy stored {grown} bytes");
    assert!(fs::read(b.join("copy")).unwrap() == content);
    read_write(&a.join("copy")).write_all_at(b"changed", 0).unwrap();
    assert!(fs::read(b.join("f")).unwrap() == content, "the source is left alone");
    assert_eq!(&fs::read(b.join("copy")).unwrap()[..7], b"changed");
}

/// What the files below `folder` take on the disk.
fn bytes_below(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap());
    entries
        .map(|e| if e.path().is_dir() { bytes_below(&e.path()) } else { e.metadata().unwrap().len() })
        .sum()
}

/// Requests of other file systems and of devices (ioctl(2)) are refused as those of a plain file are.
#[test]
fn an_ioctl_is_refused_as_one_of_a_plain_file() {
    let mut bed = Bed::new();
    let a = bed.mount();
    let file = read_write(&a.join("f"));
    let mut size = 0_u64;
    // SAFETY: BLKGETSIZE64 writes a u64 where the pointer says.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), 0x8008_1272, &mut size) };
    assert_eq!((result, io::Error::last_os_error().raw_os_error()), (-1, Some(libc::ENOTTY)));
}
