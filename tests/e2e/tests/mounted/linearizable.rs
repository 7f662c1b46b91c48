//! What several mounts read and write under locks is what one machine could have done: recorded histories are
//! given to the tester of the crate stateright.

use crate::bed::Bed;
use stateright::semantics::register::{Register, RegisterOp, RegisterRet};
use stateright::semantics::{ConsistencyTester, LinearizabilityTester};
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};

const PER_MOUNT: usize = 2;
/// Operations of each thread. The tester tries orders of what overlaps, so histories are short and many.
const OPERATIONS: u64 = 8;
const ROUNDS: usize = 12;

type Tester = LinearizabilityTester<usize, Register<u64>>;

#[derive(Clone, Copy, Debug)]
enum Lock {
    WholeFile,
    Range,
}

impl Lock {
    /// Takes the lock and waits for it, for reading or for writing.
    fn take(self, file: &File, write: bool) {
        match self {
            Lock::WholeFile => check("flock", || {
                let how = if write { libc::LOCK_EX } else { libc::LOCK_SH };
                // SAFETY: flock(2) takes no pointers.
                unsafe { libc::flock(file.as_raw_fd(), how) }
            }),
            Lock::Range => range(file, if write { libc::F_WRLCK } else { libc::F_RDLCK }),
        }
    }

    fn give_up(self, file: &File) {
        match self {
            // SAFETY: flock(2) takes no pointers.
            Lock::WholeFile => check("unlock", || unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_UN) }),
            Lock::Range => range(file, libc::F_UNLCK),
        }
    }
}

/// A lock of the open file (F_OFD_SETLKW): threads of one process exclude one another by it.
fn range(file: &File, kind: libc::c_int) {
    check("fcntl", || {
        // SAFETY: all zeros is a valid flock: the whole file, from its start.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = i16::try_from(kind).unwrap();
        lock.l_len = 8;
        // SAFETY: `lock` outlives the call.
        unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLKW, &lock) }
    });
}

fn check(what: &str, call: impl Fn() -> libc::c_int) {
    assert_eq!(call(), 0, "{what}: {}", std::io::Error::last_os_error());
}

/// One thread: reads and writes in turn, each under the lock, noted in the order in which they happen.
fn operate(thread: usize, path: &Path, lock: Lock, tester: &Mutex<Tester>) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    for i in 0..OPERATIONS {
        let writes = (i + thread as u64).is_multiple_of(2);
        let value = thread as u64 * 1000 + i + 1;
        let op = if writes { RegisterOp::Write(value) } else { RegisterOp::Read };
        tester.lock().unwrap().on_invoke(thread, op).unwrap();
        lock.take(&file, writes);
        let ret = if writes {
            file.write_all_at(&value.to_le_bytes(), 0).unwrap();
            RegisterRet::WriteOk
        } else {
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, 0).unwrap();
            RegisterRet::ReadOk(u64::from_le_bytes(bytes))
        };
        lock.give_up(&file);
        tester.lock().unwrap().on_return(thread, ret).unwrap();
    }
}

fn histories_are_linearizable(lock: Lock) {
    let mut bed = Bed::new();
    let mounts = [bed.mount_replacing(), bed.mount_replacing()];
    for round in 0..ROUNDS {
        let name = format!("register-{round}");
        std::fs::write(mounts[0].join(&name), 0u64.to_le_bytes()).unwrap();
        let tester = Arc::new(Mutex::new(Tester::new(Register(0))));
        std::thread::scope(|scope| {
            for thread in 0..mounts.len() * PER_MOUNT {
                let (path, tester) = (mounts[thread % mounts.len()].join(&name), tester.clone());
                scope.spawn(move || operate(thread, &path, lock, &tester));
            }
        });
        let tester = tester.lock().unwrap();
        assert!(tester.is_consistent(), "round {round}, {lock:?}: no order explains {tester:#?}");
    }
}

/// Programs on several mounts that read and write a file under flock(2) see it as if they ran on one machine:
/// every read gives what the last write before it wrote.
#[test]
fn reads_and_writes_under_flock_are_linearizable_over_two_mounts() {
    histories_are_linearizable(Lock::WholeFile);
}

/// The same holds for byte ranges locked with fcntl(2), although nobody opens or closes the file in between.
#[test]
fn reads_and_writes_under_range_locks_are_linearizable_over_two_mounts() {
    histories_are_linearizable(Lock::Range);
}
