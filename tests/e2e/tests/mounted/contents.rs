use crate::bed::{Bed, list, noise, sh, wait_for};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};

/// What is copied in comes out the same, on this mount, on another one and after a new mount.
#[test]
fn files_copied_in_are_the_same_after_a_new_mount_and_on_a_second_one() {
    let mut bed = Bed::new();
    let (a, b) = (bed.mount(), bed.mount());
    let source = bed.dir.path().join("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("large"), noise(1, 40 << 20)).unwrap();
    for i in 0..200 {
        fs::write(source.join(format!("small{i}")), noise(i, 4096)).unwrap();
    }
    sh("cp -r \"$1\" \"$2\"/", &[&source, &a]);
    let expected = sh("cd \"$1\" && md5sum *", &[&source]);
    let sums = |mount: &std::path::Path| sh("cd \"$1\"/source && md5sum *", &[mount]);
    assert_eq!(sums(&a), expected);
    assert_eq!(sums(&b), expected);
    sh("umount \"$1\"", &[&a]);
    bed.wait_unmounted(0);
    let again = bed.mount();
    assert_eq!(sums(&again), expected);
}

/// Other mounts see a whole new file (O_CREAT with O_TRUNC, as of `>` and of most programs that save files)
/// complete, when it has been closed or fsynced, and not before.
#[test]
fn a_new_file_is_seen_by_others_when_it_is_closed_even_if_the_shell_redirects() {
    let mut bed = Bed::new();
    let (a, b) = (bed.mount(), bed.mount());
    // The shell opens the file, duplicates the descriptor and closes the first one before the commands run.
    sh(
        "{ test ! -e \"$2\"/f || exit 1; echo one; test ! -e \"$2\"/f || exit 1; echo two; } > \"$1\"/f",
        &[&a, &b],
    );
    assert_eq!(fs::read_to_string(b.join("f")).unwrap(), "one\ntwo\n");
}

/// Directories, hard links, symbolic links, modes, times and owners are kept as on a local file system.
#[test]
fn directories_links_modes_times_and_owners_are_kept() {
    let mut bed = Bed::new();
    let (a, b) = (bed.mount(), bed.mount());
    fs::create_dir_all(a.join("d/e")).unwrap();
    fs::write(a.join("d/f"), "content").unwrap();
    std::os::unix::fs::symlink("d/f", a.join("s")).unwrap();
    fs::hard_link(a.join("d/f"), a.join("hard")).unwrap();
    sh("chmod 4751 \"$1\"/d/f && chown 12:34 \"$1\"/d/e && touch -d @1000000000.5 \"$1\"/d/f", &[&a]);
    assert_eq!(fs::read_to_string(b.join("s")).unwrap(), "content");
    assert_eq!(fs::read_link(b.join("s")).unwrap().to_str(), Some("d/f"));
    let f = fs::metadata(b.join("hard")).unwrap();
    assert_eq!((f.nlink(), f.permissions().mode() & 0o7777, f.len()), (2, 0o4751, 7));
    assert_eq!((f.mtime(), f.mtime_nsec()), (1_000_000_000, 500_000_000));
    let e = fs::metadata(b.join("d/e")).unwrap();
    assert_eq!((e.uid(), e.gid()), (12, 34));
    fs::rename(a.join("d"), a.join("moved")).unwrap();
    fs::remove_file(a.join("hard")).unwrap();
    wait_for("the rename on the other mount", || match list(&b) {
        names if names == ["moved", "s"] => Ok(()),
        names => Err(format!("{names:?}")),
    });
    wait_for("the link that is gone on the other mount", || {
        match fs::metadata(b.join("moved/f")).unwrap().nlink() {
            1 => Ok(()),
            links => Err(format!("{links} links")),
        }
    });
    fs::remove_dir_all(a.join("moved")).unwrap();
    assert_eq!(list(&a), ["s"]);
}

/// `cp -a` keeps everything that it keeps on a local file system, set-id bits included.
#[test]
fn a_copy_with_attributes_keeps_them() {
    let mut bed = Bed::new();
    let a = bed.mount();
    let source = bed.dir.path().join("tool");
    fs::write(&source, "#!/bin/sh\necho runs\n").unwrap();
    sh("chmod 4755 \"$1\" && touch -d @1234567890 \"$1\" && cp -p \"$1\" \"$2\"/tool", &[&source, &a]);
    let copy = fs::metadata(a.join("tool")).unwrap();
    assert_eq!((copy.mtime(), copy.permissions().mode() & 0o7777), (1_234_567_890, 0o4755));
    assert_eq!(sh("\"$1\"/tool", &[&a]), "runs\n");
}

/// Any mixture of writes, appends and truncations reads back as on a local file system.
#[test]
fn random_writes_truncation_and_appends_read_back() {
    let mut bed = Bed::new();
    let a = bed.mount();
    let path = a.join("f");
    let mut model = noise(3, 9 << 20);
    fs::write(&path, &model).unwrap();
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    for i in 0..200u64 {
        let at = (i * 7_919_731) % (9 << 20);
        let data = noise(i, 4096);
        file.write_all_at(&data, at).unwrap();
        let end = at as usize + data.len();
        model.resize(model.len().max(end), 0);
        model[at as usize..end].copy_from_slice(&data);
    }
    let mut back = vec![0; model.len()];
    file.read_exact_at(&mut back, 0).unwrap();
    assert!(back == model, "what was written is read back before it is published");
    file.sync_all().unwrap();
    file.set_len(5 << 20).unwrap();
    file.set_len(6 << 20).unwrap();
    model.truncate(5 << 20);
    model.resize(6 << 20, 0);
    drop(file);
    let mut log = OpenOptions::new().append(true).open(&path).unwrap();
    log.write_all(b"the end").unwrap();
    drop(log);
    model.extend_from_slice(b"the end");
    assert!(fs::read(&path).unwrap() == model);
    let other = bed.mount();
    assert!(fs::read(other.join("f")).unwrap() == model);
}

/// Holes read as zeros and take no room: `du` counts what was written only.
#[test]
fn sparse_files_have_holes() {
    let mut bed = Bed::new();
    let a = bed.mount();
    let mut file = File::create(a.join("sparse")).unwrap();
    file.seek(SeekFrom::Start(100 << 20)).unwrap();
    file.write_all(b"end").unwrap();
    drop(file);
    let other = bed.mount();
    let meta = fs::metadata(other.join("sparse")).unwrap();
    assert_eq!(meta.len(), (100 << 20) + 3);
    assert!(meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
    let mut file = File::open(other.join("sparse")).unwrap();
    file.seek(SeekFrom::Start((100 << 20) - 2)).unwrap();
    let mut tail = Vec::new();
    file.read_to_end(&mut tail).unwrap();
    assert_eq!(tail, b"\0\0end");
}

/// What another mount changes is pushed: attributes, entries and pages that are cached here are dropped
/// within moments, without anybody asking for them.
#[test]
fn changes_by_others_reach_a_mount_that_has_them_cached() {
    let mut bed = Bed::new();
    let (a, b) = (bed.mount(), bed.mount_replacing());
    fs::write(a.join("f"), "old").unwrap();
    let held = File::open(a.join("f")).unwrap();
    let read_held = || {
        let mut buffer = [0; 16];
        let n = held.read_at(&mut buffer, 0).unwrap();
        String::from_utf8_lossy(&buffer[..n]).into_owned()
    };
    assert_eq!(read_held(), "old");
    fs::write(b.join("f"), "newer").unwrap();
    assert_eq!(fs::read_to_string(a.join("f")).unwrap(), "newer", "an open sees what was closed before");
    wait_for("the open file", || match read_held() {
        text if text == "newer" => Ok(()),
        text => Err(text),
    });
}

/// A file that is open when its last name goes can be read and written until it is closed, also when
/// another mount removes the name.
#[test]
fn a_file_that_is_open_outlives_its_name() {
    let mut bed = Bed::new();
    let (a, b) = (bed.mount(), bed.mount());
    fs::write(a.join("f"), "still here").unwrap();
    let mut held = File::open(b.join("f")).unwrap();
    fs::remove_file(a.join("f")).unwrap();
    assert!(!a.join("f").exists());
    let mut text = String::new();
    held.read_to_string(&mut text).unwrap();
    assert_eq!(text, "still here");
}

/// Extended attributes belong to the file and are seen on all mounts.
#[test]
fn extended_attributes_are_kept_per_file() {
    let mut bed = Bed::new();
    let a = bed.mount();
    fs::write(a.join("f"), "x").unwrap();
    sh("setfattr -n user.note -v hello \"$1\"/f", &[&a]);
    assert!(sh("getfattr --absolute-names -d \"$1\"/f", &[&a]).contains("user.note=\"hello\""));
    sh("setfattr -x user.note \"$1\"/f", &[&a]);
    assert!(!sh("getfattr --absolute-names -d \"$1\"/f", &[&a]).contains("user.note"));
}

/// Changes through a shared writable mapping reach the file with msync(2), munmap(2) or the close that
/// follows.
#[test]
fn mapped_files_are_written_back() {
    let mut bed = Bed::new();
    let (a, b) = (bed.mount(), bed.mount());
    fs::write(a.join("m"), vec![0; 8192]).unwrap();
    let script = "import mmap,sys\nf=open(sys.argv[1],'r+b')\nm=mmap.mmap(f.fileno(),0)\nm[5000:5005]=b'hello'\nm.flush()\nm.close()\nf.close()";
    let output =
        std::process::Command::new("python3").arg("-c").arg(script).arg(a.join("m")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(&fs::read(b.join("m")).unwrap()[4999..5006], b"\0hello\0");
}

/// `df` shows the room that files can take: that of the storage nodes divided by the number of copies.
#[test]
fn df_shows_the_room_of_the_nodes_divided_by_the_copies() {
    let mut bed = Bed::new();
    let a = bed.mount();
    let shown = sh("df -B1 --output=size,avail \"$1\" | tail -1", &[&a]);
    let numbers: Vec<u64> = shown.split_whitespace().map(|n| n.parse().unwrap()).collect();
    let disk = sh("df -B1 --output=size \"$1\" | tail -1", &[bed.dir.path()]).trim().parse::<u64>().unwrap();
    // Three nodes on one disk, two copies of everything.
    assert!(numbers[0] <= disk * 3 / 2 && numbers[0] > disk, "{shown} of {disk}");
    assert!(numbers[1] <= numbers[0] && numbers[1] > 0, "{shown}");
}

/// What applications have written but not closed is saved when the mount is ended.
#[test]
fn what_an_application_left_open_is_saved_when_a_mount_ends() {
    let mut bed = Bed::new();
    let a = bed.mount();
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(a.join("open")).unwrap();
    file.write_all(&noise(9, 6 << 20)).unwrap();
    // The file is open throughout: a lazy unmount that saves first.
    let unmounting = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(500));
        drop(file);
    });
    bed.unmount(0);
    unmounting.join().unwrap();
    let again = bed.mount();
    assert!(fs::read(again.join("open")).unwrap() == noise(9, 6 << 20));
}
