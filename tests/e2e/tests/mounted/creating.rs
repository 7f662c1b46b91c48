use crate::bed::{Bed, list};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Barrier};

const ROUNDS: usize = 30;

/// Does the same on each of the mounts at the same moment, round after round.
fn at_once<R: Send + 'static>(
    mounts: &[PathBuf],
    work: impl Fn(&Path, usize, usize) -> R + Send + Sync + 'static,
) -> Vec<Vec<R>> {
    let (work, barrier) = (Arc::new(work), Arc::new(Barrier::new(mounts.len())));
    let threads: Vec<_> = mounts
        .iter()
        .cloned()
        .enumerate()
        .map(|(number, mount)| {
            let (work, barrier) = (work.clone(), barrier.clone());
            std::thread::spawn(move || {
                let one = |round| {
                    barrier.wait();
                    work(&mount, number, round)
                };
                (0..ROUNDS).map(one).collect::<Vec<R>>()
            })
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

/// Programs on several mounts that append to a log which is not there yet (`>> log`) make one log, and every
/// line is in it.
#[test]
fn a_log_that_two_mounts_begin_at_the_same_moment_has_all_lines() {
    let mut bed = Bed::new();
    let mounts = [bed.mount(), bed.mount(), bed.mount_replacing()];
    at_once(&mounts, |mount, number, round| {
        let mut log =
            OpenOptions::new().append(true).create(true).open(mount.join(format!("log{round}"))).unwrap();
        writeln!(log, "line of {number}").unwrap();
    });
    assert_eq!(list(&mounts[0]).len(), ROUNDS);
    for round in 0..ROUNDS {
        let log = fs::read_to_string(mounts[1].join(format!("log{round}"))).unwrap();
        let mut lines: Vec<&str> = log.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["line of 0", "line of 1", "line of 2"]);
    }
}

fn flock(file: &File) {
    // SAFETY: flock takes a descriptor, which `file` holds open.
    assert_eq!(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) }, 0, "{}", io::Error::last_os_error());
}

/// The lock at `path`, which whoever has it removes before it is given up.
fn take(path: &Path) -> File {
    loop {
        let lock = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap();
        flock(&lock);
        match fs::metadata(path) {
            Ok(there) if there.ino() == lock.metadata().unwrap().ino() => return lock,
            Ok(_) => {}
            Err(e) => assert_eq!(e.kind(), io::ErrorKind::NotFound, "{e}"),
        }
    }
}

/// Lock files that are made (O_CREAT), locked and removed again by programs on several mounts keep them apart.
#[test]
fn lock_files_that_come_and_go_keep_programs_on_several_mounts_apart() {
    let mut bed = Bed::new();
    let mounts = [bed.mount(), bed.mount()];
    let (inside, entered) = (AtomicBool::new(false), Arc::new(AtomicU32::new(0)));
    let counted = entered.clone();
    at_once(&mounts, move |mount, _, _| {
        let path = mount.join("lock");
        let lock = take(&path);
        assert!(!inside.swap(true, Ordering::SeqCst), "somebody else has the lock");
        counted.fetch_add(1, Ordering::SeqCst);
        inside.store(false, Ordering::SeqCst);
        fs::remove_file(&path).unwrap();
        drop(lock);
    });
    assert_eq!(entered.load(Ordering::SeqCst) as usize, 2 * ROUNDS);
}

/// The calling thread alone becomes user `uid`.
fn become_user(uid: libc::uid_t) {
    // SAFETY: the bare system call changes the credentials of this thread and nothing else.
    let done = unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
}

/// Somebody whose O_CREAT meets a file that another user has made on another mount at that moment has the rights
/// on it that its mode gives, and not those of its maker.
#[test]
fn what_another_user_makes_at_the_same_moment_is_opened_only_with_leave() {
    const SOMEBODY: u32 = 65534;
    let mut bed = Bed::new();
    let mounts = [bed.mount(), bed.mount()];
    fs::set_permissions(bed.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&mounts[0], fs::Permissions::from_mode(0o777)).unwrap();
    let results = at_once(&mounts, |mount, number, round| {
        if number == 1 && round == 0 {
            become_user(SOMEBODY);
        }
        let path = mount.join(format!("f{round}"));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        options.open(path).map(|file| file.metadata().unwrap().uid()).map_err(|e| e.raw_os_error())
    });
    for (round, (root, somebody)) in results[0].iter().zip(&results[1]).enumerate() {
        let owner = fs::metadata(mounts[0].join(format!("f{round}"))).unwrap().uid();
        assert_eq!(*root, Ok(owner), "root may open anything");
        let expected = if owner == SOMEBODY { Ok(owner) } else { Err(Some(libc::EACCES)) };
        assert_eq!(*somebody, expected, "round {round}");
    }
}
