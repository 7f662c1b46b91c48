use crate::bed::{Bed, wait_for};
use crate::children::Python;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

fn region(kind: libc::c_int, start: i64, length: i64) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: start,
        l_len: length,
        l_pid: 0,
    }
}

/// fcntl(2) with a lock; what it fills in, or its errno.
fn fcntl(file: &File, command: libc::c_int, mut lock: libc::flock) -> Result<libc::flock, i32> {
    // SAFETY: `lock` is a valid flock that the kernel may write to, and `file` holds the descriptor open.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, &mut lock) } {
        -1 => Err(io::Error::last_os_error().raw_os_error().unwrap()),
        _ => Ok(lock),
    }
}

fn take(file: &File, kind: libc::c_int, start: i64, length: i64) -> Result<(), i32> {
    fcntl(file, libc::F_SETLK, region(kind, start, length)).map(|_| ())
}

fn take_ofd(file: &File, kind: libc::c_int) -> Result<(), i32> {
    fcntl(file, libc::F_OFD_SETLK, region(kind, 0, 0)).map(|_| ())
}

fn flock(file: &File, how: libc::c_int) -> Result<(), i32> {
    // SAFETY: flock takes a descriptor, which `file` holds open.
    match unsafe { libc::flock(file.as_raw_fd(), how | libc::LOCK_NB) } {
        -1 => Err(io::Error::last_os_error().raw_os_error().unwrap()),
        _ => Ok(()),
    }
}

/// Two mounts and a file that is open on both.
struct Pair {
    bed: Bed,
    paths: [PathBuf; 2],
    a: File,
    b: File,
}

fn pair() -> Pair {
    let mut bed = Bed::new();
    let paths = [bed.mount().join("f"), bed.mount().join("f")];
    fs::write(&paths[0], "content").unwrap();
    let (a, b) = (open(&paths[0]), open(&paths[1]));
    Pair { bed, paths, a, b }
}

/// Fails when `take` does not come to succeed; what it fails with meanwhile has to be EAGAIN.
fn comes_free(what: &str, mut take: impl FnMut() -> Result<(), i32>) {
    wait_for(what, || {
        take().map_err(|e| {
            assert_eq!(e, libc::EAGAIN, "{what}");
            "still locked".to_owned()
        })
    });
}

/// flock(2) holds between mounts on all machines: one exclusive lock or many shared ones. It ends with the
/// last descriptor of the open file, whichever process has it.
#[test]
fn flock_holds_between_mounts() {
    let Pair { a, b, paths, bed: _bed } = pair();
    flock(&a, libc::LOCK_SH).unwrap();
    flock(&b, libc::LOCK_SH).unwrap();
    assert_eq!(flock(&b, libc::LOCK_EX), Err(libc::EAGAIN));
    flock(&a, libc::LOCK_UN).unwrap();
    flock(&b, libc::LOCK_EX).unwrap();
    assert_eq!(flock(&a, libc::LOCK_SH), Err(libc::EAGAIN));
    // Another open of the same file by the same process is another owner.
    assert_eq!(flock(&open(&paths[1]), libc::LOCK_SH), Err(libc::EAGAIN));
    let duplicate = b.try_clone().unwrap();
    drop(b);
    assert_eq!(flock(&a, libc::LOCK_SH), Err(libc::EAGAIN), "a descriptor is left");
    drop(duplicate);
    comes_free("the lock of a closed file", || flock(&a, libc::LOCK_EX));
}

/// fcntl(2) locks byte ranges between mounts on all machines: ranges that do not overlap know nothing of each
/// other, and a range can be unlocked in parts. F_GETLK names a lock that is in the way, with the process that
/// holds it when that runs on the same mount.
#[test]
fn byte_ranges_are_locked_between_mounts() {
    let Pair { a, b, paths, bed: _bed } = pair();
    take(&a, libc::F_WRLCK, 0, 10).unwrap();
    take(&b, libc::F_WRLCK, 10, 10).unwrap();
    assert_eq!(take(&b, libc::F_RDLCK, 5, 1), Err(libc::EAGAIN));
    let found = fcntl(&b, libc::F_GETLK, region(libc::F_RDLCK, 5, 1)).unwrap();
    assert_eq!((found.l_type as i32, found.l_start, found.l_len), (libc::F_WRLCK, 0, 10));
    take(&a, libc::F_UNLCK, 4, 2).unwrap();
    take(&b, libc::F_WRLCK, 4, 2).unwrap();
    assert_eq!(take(&b, libc::F_WRLCK, 3, 1), Err(libc::EAGAIN));
    assert_eq!(take(&b, libc::F_WRLCK, 6, 1), Err(libc::EAGAIN));
    let free = fcntl(&b, libc::F_GETLK, region(libc::F_WRLCK, 100, 0)).unwrap();
    assert_eq!(free.l_type as i32, libc::F_UNLCK);
    let mut holder = Python::start(&held("50"), &[&paths[0]]);
    assert_eq!(holder.line(), "held");
    let found = fcntl(&a, libc::F_GETLK, region(libc::F_WRLCK, 50, 1)).unwrap();
    assert_eq!((found.l_type as i32, found.l_pid as u32), (libc::F_WRLCK, holder.pid()));
}

/// A program that locks the byte at `start` and waits to be ended.
fn held(start: &str) -> String {
    format!(
        "import fcntl,signal,sys\nf=open(sys.argv[1],'r+')\nfcntl.lockf(f,fcntl.LOCK_EX,1,{start})\nprint('held')\nsignal.pause()\n"
    )
}

/// A program that waits for the byte at 0 in F_SETLKW.
const WAITS: &str = "import fcntl,sys
f=open(sys.argv[1],'r+')
print('waits')
fcntl.lockf(f,fcntl.LOCK_EX,1,0)
print('held')
";

/// Whoever waits for a lock in F_SETLKW gets it as soon as it is free, also when it was held on another mount.
#[test]
fn a_waiter_on_another_mount_gets_the_lock_when_it_is_free() {
    let Pair { a, paths, bed: _bed, .. } = pair();
    take(&a, libc::F_WRLCK, 0, 0).unwrap();
    let mut waiter = Python::start(WAITS, &[&paths[1]]);
    assert_eq!(waiter.line(), "waits");
    waiter.wait_until_in(libc::SYS_fcntl);
    let freed = Instant::now();
    take(&a, libc::F_UNLCK, 0, 0).unwrap();
    assert_eq!(waiter.line(), "held");
    assert!(freed.elapsed() < Duration::from_secs(5), "it took {:?}", freed.elapsed());
    assert!(waiter.ends_soon().success());
}

/// Programs that change a file under a lock, on several mounts at once, lose nothing: whoever gets the lock
/// reads what the one before has written, and need not open the file again for it.
#[test]
fn what_is_written_under_a_lock_is_read_under_the_next_one() {
    let Pair { a, paths, bed: _bed, .. } = pair();
    a.write_all_at(b"0       ", 0).unwrap();
    a.sync_all().unwrap();
    let counter = "import fcntl,os,sys
f=os.open(sys.argv[1],os.O_RDWR)
print('go')
for _ in range(25):
  fcntl.lockf(f,fcntl.LOCK_EX)
  n=int(os.pread(f,8,0))
  os.pwrite(f,b'%-8d'%(n+1),0)
  fcntl.lockf(f,fcntl.LOCK_UN)
print('done')
";
    let mut programs: Vec<Python> =
        [0, 1, 0, 1].iter().map(|mount| Python::start(counter, &[&paths[*mount]])).collect();
    for program in &mut programs {
        assert_eq!((program.line().as_str(), program.line().as_str()), ("go", "done"));
        assert!(program.ends_soon().success());
    }
    assert_eq!(fs::read_to_string(&paths[1]).unwrap().trim(), "100");
}

/// A lock of fcntl(2) is gone as soon as its process closes any descriptor of the file, as POSIX has it. A
/// lock of the open file description (F_OFD_SETLK) stays until its own last descriptor is closed.
#[test]
fn closing_another_descriptor_drops_posix_locks_and_keeps_those_of_the_open_file() {
    let Pair { a, b, paths, bed: _bed } = pair();
    take(&a, libc::F_WRLCK, 0, 0).unwrap();
    drop(open(&paths[0]));
    comes_free("the POSIX lock", || take(&b, libc::F_WRLCK, 0, 0));
    take(&b, libc::F_UNLCK, 0, 0).unwrap();

    take_ofd(&a, libc::F_WRLCK).unwrap();
    drop(open(&paths[0]));
    let duplicate = a.try_clone().unwrap();
    drop(a);
    assert_eq!(take_ofd(&b, libc::F_WRLCK), Err(libc::EAGAIN), "a descriptor is left");
    assert_eq!(take_ofd(&open(&paths[0]), libc::F_WRLCK), Err(libc::EAGAIN), "of the same process, too");
    drop(duplicate);
    comes_free("the lock of the open file", || take_ofd(&b, libc::F_WRLCK));
}

/// Two programs on two mounts that wait for each other's lock do not wait for ever: one of them gets EDEADLK.
#[test]
fn programs_that_wait_for_each_other_are_told() {
    let Pair { paths, bed, .. } = pair();
    let script = |first: u32, second: u32| {
        format!(
            "import errno,fcntl,os,sys,time
f=open(sys.argv[1],'r+')
fcntl.lockf(f,fcntl.LOCK_EX,1,{first})
print('first')
while not os.path.exists(sys.argv[2]): time.sleep(0.01)
try:
  fcntl.lockf(f,fcntl.LOCK_EX,1,{second})
  print('got it')
except OSError as e:
  print('EDEADLK' if e.errno==errno.EDEADLK else e)
"
        )
    };
    let go = bed.dir.path().join("go");
    let mut one = Python::start(&script(0, 1), &[&paths[0], &go]);
    let mut two = Python::start(&script(1, 0), &[&paths[1], &go]);
    assert_eq!((one.line(), two.line()), ("first".to_owned(), "first".to_owned()));
    fs::write(&go, "").unwrap();
    let mut ends = [one.line(), two.line()];
    ends.sort();
    assert_eq!(ends, ["EDEADLK", "got it"]);
}

/// The locks of a program that is killed are free at once for everybody else.
#[test]
fn a_killed_program_leaves_no_lock_behind() {
    let Pair { b, paths, bed: _bed, .. } = pair();
    let mut holder = Python::start(&held("0"), &[&paths[0]]);
    assert_eq!(holder.line(), "held");
    assert_eq!(take(&b, libc::F_WRLCK, 0, 1), Err(libc::EAGAIN));
    holder.signal(libc::SIGKILL);
    assert_eq!(holder.ends_soon().signal(), Some(libc::SIGKILL));
    comes_free("the lock of a killed program", || take(&b, libc::F_WRLCK, 0, 1));
}

/// A program that waits for a lock can be ended, by Ctrl-C and by kill -9, and does not get the lock afterwards.
#[test]
fn a_program_that_waits_for_a_lock_can_be_ended() {
    let Pair { a, b, paths, bed: _bed } = pair();
    take(&a, libc::F_WRLCK, 0, 0).unwrap();
    for path in &paths {
        for signal in [libc::SIGINT, libc::SIGKILL] {
            // A python that ends by its KeyboardInterrupt ends by SIGINT.
            let mut waiter = Python::start(WAITS, &[path]);
            assert_eq!(waiter.line(), "waits");
            waiter.wait_until_in(libc::SYS_fcntl);
            waiter.signal(signal);
            assert_eq!(waiter.ends_soon().signal(), Some(signal), "{}", path.display());
        }
    }
    take(&a, libc::F_UNLCK, 0, 0).unwrap();
    comes_free("the lock that the ended programs waited for", || take(&b, libc::F_WRLCK, 0, 0));
}

/// A program that is interrupted by its timers while it waits for a lock goes on waiting and gets it.
#[test]
fn a_program_with_timers_gets_its_lock() {
    let Pair { a, paths, bed: _bed, .. } = pair();
    take(&a, libc::F_WRLCK, 0, 0).unwrap();
    let timers = "import signal\nsignal.signal(signal.SIGALRM,lambda *_: None)\nsignal.setitimer(signal.ITIMER_REAL,0.05,0.05)\n";
    // A python that ends takes its handlers down before its timers.
    let end = "signal.setitimer(signal.ITIMER_REAL,0)\n";
    let mut waiter = Python::start(&format!("{timers}{WAITS}{end}"), &[&paths[1]]);
    assert_eq!(waiter.line(), "waits");
    std::thread::sleep(Duration::from_millis(500));
    assert!(waiter.is_running());
    take(&a, libc::F_UNLCK, 0, 0).unwrap();
    assert_eq!(waiter.line(), "held");
    assert!(waiter.ends_soon().success());
}
