//! Child processes that can be killed, stopped and started again.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// So much of a log's end is shown when a test fails, bytes.
const LOG_END_BYTES: u64 = 8 << 10;

/// A program with its arguments, as it is started and started again.
#[derive(Clone, Debug)]
pub struct Program {
    /// For people: `master`, `sn1`.
    pub name: String,
    /// The executable.
    pub executable: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
}

impl Program {
    /// One of this workspace's programs, from the folder that the tests were built into.
    pub fn built(name: &str, binary: &str, args: &[&str]) -> Program {
        let test = std::env::current_exe().expect("a test knows where it is");
        let folder = test.ancestors().nth(2).expect("tests are two folders below the programs");
        let executable = folder.join(binary);
        assert!(
            executable.exists(),
            "{} is not there: run `cargo build --workspace --bins` first",
            executable.display()
        );
        Program { name: name.to_owned(), executable, args: args.iter().map(|a| (*a).to_owned()).collect() }
    }

    /// A program of the system, found on the PATH.
    pub fn installed(name: &str, binary: &str, args: &[&str]) -> Program {
        let args = args.iter().map(|a| (*a).to_owned()).collect();
        Program { name: name.to_owned(), executable: binary.into(), args }
    }
}

/// A running program, or one that was killed and can be started again. Killed when it is dropped.
pub struct Process {
    program: Program,
    folder: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl Process {
    /// Starts `program` in `folder`; its output goes to a file there.
    pub fn start(program: Program, folder: &Path) -> Process {
        let log = folder.join(format!("{}.log", program.name));
        let mut process = Process { program, folder: folder.to_owned(), log, child: None };
        process.spawn();
        process
    }

    fn spawn(&mut self) {
        let log = || -> File {
            OpenOptions::new().create(true).append(true).open(&self.log).expect("a log can be made")
        };
        let mut command = Command::new(&self.program.executable);
        command.args(&self.program.args).current_dir(&self.folder);
        command.stdin(Stdio::null()).stdout(log()).stderr(log());
        // SAFETY: prctl(2) is async-signal-safe and touches nothing of the parent's memory.
        unsafe {
            command.pre_exec(|| {
                // The child ends with the thread that started it, also when the test is killed.
                match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                    0 => Ok(()),
                    _ => Err(std::io::Error::last_os_error()),
                }
            });
        }
        let spawned = command.spawn();
        let at = self.program.executable.display();
        self.child = Some(spawned.unwrap_or_else(|e| panic!("{at} cannot be started: {e}")));
    }

    /// Its name for people.
    pub fn name(&self) -> &str {
        &self.program.name
    }

    /// Its process id; panics when it is not running.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap_or_else(|| panic!("{} is not running", self.name())).id()
    }

    /// How it ended, when it did by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().and_then(|child| child.try_wait().expect("a child can be asked"))
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            // An error means that it is gone already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and waits until it has ended by itself; panics when it does not end well.
    pub fn terminate(&mut self) {
        self.signal(libc::SIGTERM);
        let Some(mut child) = self.child.take() else { return };
        let status = child.wait().expect("a child can be waited for");
        // A signal can come before the program listens for it.
        let ended_well = status.success() || status.signal() == Some(libc::SIGTERM);
        assert!(ended_well, "{} ended with {status}:\n{}", self.program.name, self.log_end());
    }

    /// SIGSTOP: it hangs.
    pub fn stop(&self) {
        self.signal(libc::SIGSTOP);
    }

    /// SIGCONT: it goes on.
    pub fn cont(&self) {
        self.signal(libc::SIGCONT);
    }

    fn signal(&self, signal: libc::c_int) {
        let pid = libc::pid_t::try_from(self.pid()).expect("process ids are small");
        // SAFETY: kill(2) takes no pointers; the child is not reaped yet, so the id is its own.
        let sent = unsafe { libc::kill(pid, signal) };
        assert_eq!(sent, 0, "{}: {}", self.name(), std::io::Error::last_os_error());
    }

    /// Starts it again with the same arguments; kills it first when it is running.
    pub fn restart(&mut self) {
        self.kill9();
        self.spawn();
    }

    /// The most memory that it has had resident so far, bytes (VmHWM of proc_pid_status(5)).
    pub fn peak_memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib: u64 = line
            .and_then(|rest| rest.trim().strip_suffix(" kB"))
            .and_then(|number| number.trim().parse().ok())
            .unwrap_or_else(|| panic!("{path} has no VmHWM in kB:\n{text}"));
        kib << 10
    }

    /// The end of its log.
    pub fn log_end(&self) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(&self.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LOG_END_BYTES)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        read().unwrap_or_else(|e| format!("(no log: {e})"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- end of the log of {}:\n{}", self.name(), self.log_end());
        }
        self.kill9();
    }
}
