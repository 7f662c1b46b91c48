//! Large directories, and places in a listing that are kept.

use crate::bed::{Bed, sh};
use dfs_e2e::Client;
use dfs_proto::meta::{Make, WriteOp};
use dfs_proto::{FileKind, Ino, MetaOp, MetaReply, Name};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Entries of a directory that is large.
const LARGE: usize = 100_000;

/// Operations under way at once, when entries are made in great numbers.
const MAKING: usize = 256;

/// What opendir(3) gives; the standard library has no telldir(3).
struct Listing(*mut libc::DIR);

impl Listing {
    fn open(path: &Path) -> Listing {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: the path is NUL-terminated.
        let dir = unsafe { libc::opendir(path.as_ptr()) };
        assert!(!dir.is_null(), "{}", std::io::Error::last_os_error());
        Listing(dir)
    }

    fn tell(&self) -> i64 {
        // SAFETY: the listing is open while this lives.
        unsafe { libc::telldir(self.0) }
    }

    fn seek(&self, place: i64) {
        // SAFETY: the listing is open while this lives, and `place` is from `tell`.
        unsafe { libc::seekdir(self.0, place) };
    }
}

/// Names, without `.` and `..`.
impl Iterator for Listing {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        loop {
            // SAFETY: the listing is open while this lives; errno is the thread's own.
            let entry = unsafe {
                *libc::__errno_location() = 0;
                libc::readdir64(self.0)
            };
            if entry.is_null() {
                assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(0), "readdir failed");
                return None;
            }
            // SAFETY: entries have a NUL-terminated name, and are good until the next call.
            let name = unsafe { CStr::from_ptr((*entry).d_name.as_ptr()) };
            match name.to_str().unwrap() {
                "." | ".." => {}
                name => return Some(name.to_owned()),
            }
        }
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        // SAFETY: it is open, and not used afterwards.
        unsafe { libc::closedir(self.0) };
    }
}

/// Makes FIFOs with these names, many at a time, by the protocol.
fn make_many(bed: &Bed, parent: Ino, names: impl Iterator<Item = String>) {
    let url = bed.cluster.as_ref().unwrap().master_url().to_owned();
    bed.runtime.block_on(async {
        let meta = Client::connect(&url).await.meta();
        let make = |name: String| {
            let op = WriteOp::Make(Make {
                parent,
                name: Name::new(name).unwrap(),
                ino: Ino(0),
                kind: FileKind::Fifo,
                mode: 0o644,
                umask: 0,
                uid: 0,
                gid: 0,
                rdev: 0,
                target: bytes::Bytes::new(),
                opened: false,
            });
            let meta = meta.clone();
            async move { meta.call(MetaOp::Write(op)).await }
        };
        let made: Vec<MetaReply> =
            stream::iter(names.map(make)).buffer_unordered(MAKING).try_collect().await.unwrap();
        assert!(!made.is_empty());
    });
}

fn stay(i: usize) -> String {
    format!("stay{i:06}")
}

/// A directory of 100,000 entries is listed steadily while another mount makes and removes entries in it: each
/// that stays is told exactly once.
#[test]
fn a_directory_of_100000_entries_is_listed_steadily_while_it_changes() {
    let mut bed = Bed::new();
    let (a, b) = (bed.mount(), bed.mount());
    fs::create_dir(a.join("d")).unwrap();
    let parent = Ino(fs::metadata(a.join("d")).unwrap().ino());
    make_many(&bed, parent, (0..LARGE).map(stay));
    let (mut seen, mut told) = (HashSet::new(), 0);
    for (i, name) in Listing::open(&a.join("d")).enumerate() {
        if i % 2_000 == 0 {
            fs::create_dir(b.join("d").join(format!("new{i}"))).unwrap();
            fs::remove_dir(b.join("d").join(format!("new{}", i / 4_000 * 2_000))).ok();
        }
        told += usize::from(name.starts_with("stay"));
        seen.insert(name);
    }
    assert_eq!(told, LARGE, "entries that stay, those that were told twice included");
    assert!((0..LARGE).all(|i| seen.contains(&stay(i))), "each of them");
}

/// A place in a listing (telldir(3)) is good as long as the directory is open, also when the entries around it
/// are gone by then: the listing goes on with those after it.
#[test]
fn a_place_in_a_listing_outlives_the_entries_around_it() {
    let mut bed = Bed::new();
    let a = bed.mount();
    fs::create_dir(a.join("d")).unwrap();
    let parent = Ino(fs::metadata(a.join("d")).unwrap().ino());
    make_many(&bed, parent, (0..2_000).map(stay));
    let mut listing = Listing::open(&a.join("d"));
    let mut names: Vec<String> = listing.by_ref().take(1_000).collect();
    let place = listing.tell();
    names.extend(listing.by_ref());
    assert_eq!(names.len(), 2_000);
    listing.seek(place);
    assert_eq!(listing.by_ref().collect::<Vec<_>>(), names[1_000..]);
    for name in &names[995..1_005] {
        fs::remove_file(a.join("d").join(name)).unwrap();
    }
    listing.seek(place);
    assert_eq!(listing.by_ref().collect::<Vec<_>>(), names[1_005..]);
}

/// Paths may have PATH_MAX (4,096) bytes with the NUL at their end; one byte more is refused (ENAMETOOLONG). A
/// directory may be deeper than that, and is reached step by step.
#[test]
fn paths_are_as_long_as_the_kernel_allows_and_directories_deeper() {
    let mut bed = Bed::new();
    let a = bed.mount();
    let limit = libc::PATH_MAX as usize - 1;
    let mut path: PathBuf = a.clone();
    while path.as_os_str().len() + 200 < limit {
        path.push("d".repeat(99));
    }
    fs::create_dir_all(&path).unwrap();
    let file = path.join("f".repeat(limit - path.as_os_str().len() - 1));
    assert_eq!(file.as_os_str().len(), limit);
    fs::write(&file, "deep").unwrap();
    assert_eq!(fs::read_to_string(&file).unwrap(), "deep");
    let mut longer = file.into_os_string();
    longer.push("f");
    let refused = fs::write(&longer, "").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::ENAMETOOLONG));
    let deep = "for i in $(seq 60); do mkdir $2 && cd -P $2 || exit 1; done; echo deepest > f; cat f";
    let name = "e".repeat(100);
    assert_eq!(sh(&format!("cd \"$1\" && {deep}"), &[&a, Path::new(&name)]), "deepest\n");
    assert_eq!(sh("cd \"$1\" && find . -name f | wc -l", &[&a]).trim(), "1");
}

/// In a directory with the sticky bit a name is removed, renamed or replaced only by the owner of what it
/// names, the owner of the directory, or root (unlink(2), rename(2)): others get EPERM.
#[test]
fn names_in_a_sticky_directory_belong_to_their_owners() {
    let mut bed = Bed::new();
    fs::set_permissions(bed.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let a = bed.mount_replacing();
    let dir = a.join("tmp");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o1777)).unwrap();
    let as_user = |id: u32, script: &str| {
        // Not a python of root's own, which others may not run.
        let user = format!("setpriv --reuid={id} --regid={id} --clear-groups");
        let line = format!("cd \"$1\" && PATH=/usr/bin:/bin {user} python3 -c '{script}'");
        sh(&line, &[&dir]).trim().to_owned()
    };
    let tries = |what: &str| {
        format!(
            "import os\ntry:\n  {what}\n  print(\"done\")\nexcept OSError as e: print(os.strerror(e.errno))"
        )
    };
    as_user(54321, "open(\"mine\",\"w\").close()");
    as_user(54322, "open(\"yours\",\"w\").close()");
    let refused = "Operation not permitted";
    for what in ["os.unlink(\"mine\")", "os.rename(\"mine\",\"other\")", "os.rename(\"yours\",\"mine\")"] {
        assert_eq!(as_user(54322, &tries(what)), refused, "{what}");
    }
    assert_eq!(as_user(54321, &tries("os.rename(\"mine\",\"renamed\")")), "done");
    assert_eq!(as_user(54321, &tries("os.unlink(\"renamed\")")), "done");
    fs::remove_file(dir.join("yours")).unwrap();
}
