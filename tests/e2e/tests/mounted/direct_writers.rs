//! Handles that only write go past the kernel's page cache. What others have of the file through the cache stays
//! right.

use crate::bed::{Bed, noise, sh, sh_output};
use std::fs::{self, File, OpenOptions, Permissions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

const PAGE: usize = 4096;

/// A shared mapping of a whole file.
struct Mapping {
    at: *mut u8,
    length: usize,
}

impl Mapping {
    fn new(file: &File, protection: i32) -> Mapping {
        let length = file.metadata().unwrap().len() as usize;
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory that is in use.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), length, protection, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Mapping { at: at.cast(), length }
    }

    fn bytes(&self) -> Vec<u8> {
        // SAFETY: the mapping is of this length, and volatile reads are right while the file changes.
        (0..self.length).map(|i| unsafe { self.at.add(i).read_volatile() }).collect()
    }

    fn set(&self, at: usize, byte: u8) {
        assert!(at < self.length);
        // SAFETY: within the mapping, which is writable where this is called.
        unsafe { self.at.add(at).write_volatile(byte) };
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` and nothing refers to it any more.
        unsafe { libc::munmap(self.at.cast(), self.length) };
    }
}

fn for_writing(path: &Path) -> File {
    OpenOptions::new().write(true).open(path).unwrap()
}

/// What is written through a descriptor that was opened for writing only is seen at once by those who read the
/// file through other descriptors and mappings, at any offset and length.
#[test]
fn readers_and_mappings_see_what_a_write_only_descriptor_wrote() {
    let mut bed = Bed::new();
    let path = bed.mount().join("f");
    let mut model = noise(1, 40 * PAGE + 123);
    fs::write(&path, &model).unwrap();
    let (reader, writer) = (File::open(&path).unwrap(), for_writing(&path));
    let mapping = Mapping::new(&reader, libc::PROT_READ);
    let mut read = vec![0; model.len()];
    for (n, (at, length)) in
        [(0, 1), (PAGE - 1, 2), (5000, 5000), (3 * PAGE, PAGE), (0, model.len()), (model.len() - 1, 1)]
            .into_iter()
            .enumerate()
    {
        assert_eq!(mapping.bytes(), model, "before write {n}");
        let data = noise(n as u64 + 2, length);
        writer.write_all_at(&data, at as u64).unwrap();
        model[at..at + length].copy_from_slice(&data);
        reader.read_exact_at(&mut read, 0).unwrap();
        assert!(read == model, "what is read after write {n}");
        assert!(mapping.bytes() == model, "what is mapped after write {n}");
    }
    writer.write_all_at(b"longer", model.len() as u64).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), model.len() as u64 + 6);
    assert!(fs::read(&path).unwrap().ends_with(b"longer"));
}

/// Bytes stored through a shared mapping and bytes written beside them through a write-only descriptor all stay,
/// in whichever order they come.
#[test]
fn stores_to_a_mapping_and_writes_beside_them_all_stay() {
    let mut bed = Bed::new();
    let path = bed.mount().join("f");
    fs::write(&path, vec![b'.'; 2 * PAGE]).unwrap();
    let mapped = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mapping = Mapping::new(&mapped, libc::PROT_READ | libc::PROT_WRITE);
    let writer = for_writing(&path);
    let mut model = vec![b'.'; 2 * PAGE];
    for i in (0..2 * PAGE).step_by(97) {
        mapping.set(i, b'm');
        model[i] = b'm';
        writer.write_all_at(b"w", i as u64 + 1).unwrap();
        model[i + 1] = b'w';
        assert_eq!(mapping.bytes(), model, "after {i}");
    }
    drop(mapping);
    drop((writer, mapped));
    assert_eq!(fs::read(&path).unwrap(), model);
}

/// A reader that fetches pages while they are overwritten keeps none of what was there before.
#[test]
fn pages_read_during_a_write_are_not_kept() {
    let mut bed = Bed::new();
    let path = bed.mount().join("f");
    fs::write(&path, vec![0; 16 * PAGE]).unwrap();
    let (reader, writer) = (File::open(&path).unwrap(), for_writing(&path));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut page = vec![0; 16 * PAGE];
                while !done.load(Ordering::Relaxed) {
                    reader.read_exact_at(&mut page, 0).unwrap();
                }
            });
        }
        let mut read = vec![0; 16 * PAGE];
        for round in 1..=200u8 {
            writer.write_all_at(&vec![round; 16 * PAGE], 0).unwrap();
            reader.read_exact_at(&mut read, 0).unwrap();
            let old = read.iter().position(|byte| *byte != round);
            if old.is_some() {
                done.store(true, Ordering::Relaxed);
            }
            assert_eq!(old, None, "old bytes after write {round}");
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// Appends by several processes through descriptors that only write all arrive, one after the other, and a reader
/// that has the file open follows.
#[test]
fn appends_of_several_processes_all_arrive_and_are_followed() {
    let mut bed = Bed::new();
    let path = bed.mount().join("log");
    fs::write(&path, "").unwrap();
    let reader = File::open(&path).unwrap();
    sh("for p in 1 2 3; do (for i in $(seq 100); do echo line; done >> \"$1\") & done; wait", &[&path]);
    let mut text = vec![0; 1500];
    reader.read_exact_at(&mut text, 0).unwrap();
    assert_eq!(String::from_utf8(text).unwrap(), "line\n".repeat(300));
    assert_eq!(fs::metadata(&path).unwrap().len(), 1500);
}

/// A program loses its capabilities when its content is changed, by whomever, and its set-id bits when the
/// unprivileged change it, also through a descriptor that only writes.
#[test]
fn capabilities_and_set_id_bits_go_with_a_change_through_a_write_only_descriptor() {
    let mut bed = Bed::new();
    fs::set_permissions(bed.dir.path(), Permissions::from_mode(0o755)).unwrap();
    let path = bed.mount_replacing().join("program");
    fs::write(&path, "content").unwrap();
    // Revision 2 of the format (capabilities(7)): CAP_CHOWN permitted.
    let give = "import os,sys; os.setxattr(sys.argv[1],'security.capability',bytes([0,0,0,2,1]+[0]*15))";
    let has = || sh("python3 -c \"import os,sys; print(os.listxattr(sys.argv[1]))\" \"$1\"", &[&path]);
    for change in
        ["echo x >> \"$1\"", "echo x 1<> \"$1\"", "dd if=/dev/zero of=\"$1\" bs=5 count=1 conv=notrunc"]
    {
        sh(&format!("python3 -c \"{give}\" \"$1\""), &[&path]);
        assert!(has().contains("security.capability"));
        sh(&format!("({change}) 2>/dev/null"), &[&path]);
        assert!(!has().contains("security.capability"), "after {change}");
    }
    fs::set_permissions(&path, Permissions::from_mode(0o6777)).unwrap();
    let guest = "setpriv --reuid=54321 --regid=54321 --clear-groups";
    let written =
        sh_output(&format!("{guest} sh -c 'echo more >> \"$1\"; stat -c %a \"$1\"' sh \"$1\""), &[&path]);
    assert_eq!(String::from_utf8_lossy(&written.stdout).trim(), "777");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o777);
}
