use crate::bed::{Bed, noise, wait_for};
use crate::children::{Python, Silent};
use std::fs;
use std::os::unix::process::ExitStatusExt;

const READ: &str = "import os,sys\nf=os.open(sys.argv[1],os.O_RDONLY)\nprint('open')\nos.read(f,100)\n";

const FSYNC: &str = "import os,sys
f=os.open(sys.argv[1],os.O_WRONLY|os.O_CREAT)
os.write(f,b'written and not yet stored')
print('written')
os.fsync(f)
";

/// A program that reads a file whose storage nodes all hang is ended at once by Ctrl-C and by kill -9.
#[test]
fn a_reader_that_waits_for_dead_nodes_can_be_ended() {
    let mut bed = Bed::new();
    let a = bed.mount();
    fs::write(a.join("f"), noise(1, 100_000)).unwrap();
    // A mount that has nothing of the file cached.
    let fresh = bed.mount();
    let _silent = Silent::nodes(&mut bed);
    for signal in [libc::SIGKILL, libc::SIGINT] {
        let mut reader = Python::start(&format!("{}{READ}", default_on(signal)), &[&fresh.join("f")]);
        assert_eq!(reader.line(), "open");
        reader.wait_until_in(libc::SYS_read);
        reader.signal(signal);
        assert_eq!(reader.ends_soon().signal(), Some(signal));
    }
}

/// Python catches SIGINT by itself; most programs do not.
fn default_on(signal: libc::c_int) -> &'static str {
    if signal == libc::SIGINT { "import signal\nsignal.signal(signal.SIGINT,signal.SIG_DFL)\n" } else { "" }
}

/// A program that waits in fsync(2) for storage nodes that hang can be killed, and is gone within seconds.
/// What it had written is not given up: it is published as soon as the nodes are back.
#[test]
fn a_writer_in_fsync_can_be_killed_and_its_data_is_stored_later() {
    let mut bed = Bed::new();
    let (a, b) = (bed.mount(), bed.mount());
    // Grants to write are fetched while there are nodes.
    fs::write(a.join("before"), "x").unwrap();
    let silent = Silent::nodes(&mut bed);
    let mut writer = Python::start(FSYNC, &[&a.join("f")]);
    assert_eq!(writer.line(), "written");
    writer.wait_until_in(libc::SYS_fsync);
    writer.signal(libc::SIGKILL);
    assert_eq!(writer.ends_soon().signal(), Some(libc::SIGKILL));
    silent.end(&mut bed);
    wait_for("what the killed program had written", || match fs::read(b.join("f")) {
        Ok(content) if content == b"written and not yet stored" => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// A program that crashes is gone within seconds, also when what it had written cannot be stored for now. That
/// is stored later. (One that exits by itself waits: what it has written is there for whoever comes next.)
#[test]
fn a_program_that_crashes_does_not_wait_for_what_it_had_open() {
    let mut bed = Bed::new();
    let (a, b) = (bed.mount(), bed.mount());
    fs::write(a.join("before"), "x").unwrap();
    let silent = Silent::nodes(&mut bed);
    let script = "import os,resource,sys
resource.setrlimit(resource.RLIMIT_CORE,(0,0))
f=os.open(sys.argv[1],os.O_WRONLY|os.O_CREAT)
os.write(f,b'written before the crash')
os.abort()
";
    let mut program = Python::start(script, &[&a.join("f")]);
    assert_eq!(program.ends_soon().signal(), Some(libc::SIGABRT));
    silent.end(&mut bed);
    wait_for("what the program had written", || match fs::read(b.join("f")) {
        Ok(content) if content == b"written before the crash" => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// A program that catches Ctrl-C is told within seconds also while it waits for a master that is away: the
/// operation fails with EINTR and the program's own handler runs.
#[test]
fn a_caught_ctrl_c_reaches_a_program_that_waits_for_the_master() {
    let mut bed = Bed::new();
    let a = bed.mount();
    fs::write(a.join("f"), "x").unwrap();
    bed.runtime.block_on(bed.cluster.as_mut().unwrap().stop_master());
    let script = "import os,sys\nprint('go')\ntry:\n os.stat(sys.argv[1])\nexcept KeyboardInterrupt:\n print('interrupted')\n";
    let mut program = Python::start(script, &[&a.join("not cached")]);
    assert_eq!(program.line(), "go");
    program.wait_until_in(libc::SYS_newfstatat);
    program.signal(libc::SIGINT);
    assert_eq!(program.line(), "interrupted");
    assert!(program.ends_soon().success());
    bed.runtime.block_on(bed.cluster.as_mut().unwrap().start_master()).unwrap();
}

/// Signals that a program gets all the time (timers, children, window sizes) do not end an operation, however
/// long it takes: no call fails with EINTR that would not on a local disk.
#[test]
fn timers_and_children_do_not_end_operations() {
    let mut bed = Bed::new();
    let a = bed.mount();
    fs::write(a.join("f"), "x").unwrap();
    bed.runtime.block_on(bed.cluster.as_mut().unwrap().stop_master());
    let script = "import os,signal,sys
for s in (signal.SIGALRM,signal.SIGCHLD,signal.SIGUSR1):
  signal.signal(s,lambda *_: None)
signal.setitimer(signal.ITIMER_REAL,0.02,0.02)
print('go')
# Python does not try these again by itself: an EINTR would be an error.
os.mkdir(sys.argv[1]+'/d')
names=sorted(os.listdir(sys.argv[1]))
# A python that ends takes its handlers down before its timers.
signal.setitimer(signal.ITIMER_REAL,0)
print(names)
";
    let mut program = Python::start(script, &[&a]);
    assert_eq!(program.line(), "go");
    program.wait_until_in(MKDIR);
    program.signal(libc::SIGCHLD);
    program.signal(libc::SIGUSR1);
    // Longer than the grace of a signal that does end an operation.
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(program.is_running(), "the program has ended: {}", program.line());
    bed.runtime.block_on(bed.cluster.as_mut().unwrap().start_master()).unwrap();
    assert_eq!(program.line(), "['d', 'f']");
    assert!(program.ends_soon().success());
}

/// The same for a program that gets signals all the time while it works: interrupts meet requests before they
/// are known, while they are served and after they were answered.
#[test]
fn a_program_with_a_fast_timer_does_its_work() {
    let mut bed = Bed::new();
    let a = bed.mount();
    let script = "import os,signal,sys
ticks=0
def tick(*_):
  global ticks
  ticks+=1
signal.signal(signal.SIGALRM,tick)
signal.setitimer(signal.ITIMER_REAL,0.0005,0.0005)
os.chdir(sys.argv[1])
for i in range(200):
  os.mkdir('d')
  with open('d/new','w') as f: f.write(str(i))
  os.rename('d/new','d/old')
  os.truncate('d/old',1)
  assert os.stat('d/old').st_size==1 and open('d/old').read()==str(i)[0]
  os.unlink('d/old')
  os.rmdir('d')
signal.setitimer(signal.ITIMER_REAL,0)
print('done',ticks>200)
";
    let mut program = Python::start(script, &[&a]);
    assert_eq!(program.line(), "done True");
}

#[cfg(target_arch = "x86_64")]
const MKDIR: libc::c_long = libc::SYS_mkdir;
#[cfg(not(target_arch = "x86_64"))]
const MKDIR: libc::c_long = libc::SYS_mkdirat;

/// A program that starts another one with a new file still open (close-on-exec, as most languages open files)
/// does not hang: closing the file within execve(2) works like any other close.
#[test]
fn regression_execve_that_closes_a_new_file_does_not_hang() {
    let bed = &mut Bed::new();
    let a = bed.mount();
    let file = fs::File::create(a.join("lock")).unwrap();
    let (done, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(std::process::Command::new("/bin/true").status()));
    let status = wait.recv_timeout(std::time::Duration::from_secs(20)).expect("execve hangs").unwrap();
    assert!(status.success());
    drop(file);
}
