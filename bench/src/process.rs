//! Programs that are started, watched and ended; what /proc says of them.
//!
//! Everything that is started here is the leader of a process group of its own, so that Ctrl-C in the terminal
//! reaches the benchmark alone, which then takes down what it started in order.

use anyhow::{Context, bail};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// How long a server may take to end when it is asked to.
const END_GRACE: Duration = Duration::from_secs(15);

/// How long a process may take to go after SIGKILL; one that is stuck in the kernel is left behind.
const KILL_GRACE: Duration = Duration::from_secs(5);

/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Signals so close to each other are one.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// What an administrator's command (mounting, making a volume) may take.
pub(crate) const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// Lowest port to try: below the range that outgoing connections take theirs from.
const PORT_LOWEST: u16 = 12_000;
const PORT_HIGHEST: u16 = 30_000;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether somebody asked the benchmark to end.
pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// An error when somebody asked the benchmark to end.
pub(crate) fn go_on() -> anyhow::Result<()> {
    anyhow::ensure!(!interrupted(), "interrupted");
    Ok(())
}

/// From here on SIGINT, SIGTERM and SIGHUP only set a mark; a second one, later, ends the process at once. Has to
/// be called before any thread is started. Daemons that split off from what is started here become children of
/// this process, so that none of them is lost.
pub(crate) fn take_charge() -> anyhow::Result<()> {
    // SAFETY: prctl(2) with this option takes no pointers.
    let set = unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) };
    anyhow::ensure!(set == 0, "prctl: {}", std::io::Error::last_os_error());
    // SAFETY: the set is initialised by sigemptyset before it is used, and outlives the calls.
    let signals = unsafe {
        let mut signals: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut signals);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            libc::sigaddset(&mut signals, signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &signals, std::ptr::null_mut());
        signals
    };
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut first = None;
        loop {
            let mut signal = 0;
            // SAFETY: both pointers are to live values of this thread.
            unsafe { libc::sigwait(&signals, &mut signal) };
            INTERRUPTED.store(true, Ordering::Relaxed);
            match first {
                None => eprintln!("\ninterrupted: taking everything down"),
                // timeout(1) sends its signal twice at once: to the program and to its group.
                Some(at) if Instant::now() < at + SAME_SIGNAL => {}
                Some(_) => std::process::exit(128 + signal),
            }
            first.get_or_insert_with(Instant::now);
        }
    })?;
    Ok(())
}

/// A server that runs until this is dropped.
pub(crate) struct Server {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts `command`; its output goes to `folder`/`name`.log.
    pub fn start(name: &str, mut command: Command, folder: &Path) -> anyhow::Result<Server> {
        let log = folder.join(format!("{name}.log"));
        let open = || File::options().create(true).append(true).open(&log);
        command.stdin(Stdio::null()).stdout(open()?).stderr(open()?).process_group(0);
        heed_signals(&mut command);
        // SAFETY: prctl(2) is async-signal-safe and touches nothing of the parent's memory.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        Ok(Server { name: name.to_owned(), child, log })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// An error, with the end of its log, when it is not running any more.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}:\n{}", self.name, tail(&self.log)),
        }
    }

    /// SIGTERM, and SIGKILL when that does not help.
    pub fn end(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            signal(self.pid(), libc::SIGTERM);
            if wait(&mut self.child, END_GRACE).is_none() {
                // An error means that it is gone already.
                let _ = self.child.kill();
                wait(&mut self.child, KILL_GRACE);
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

/// The signals that this process takes in a thread of its own are blocked in all others, and a child would inherit
/// that: it could not be asked to end.
fn heed_signals(command: &mut Command) {
    // SAFETY: both calls are async-signal-safe; the set is on the child's own stack.
    unsafe {
        command.pre_exec(|| {
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut none);
            match libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut()) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
}

fn tail(log: &Path) -> String {
    const LINES: usize = 12;
    let text = std::fs::read_to_string(log).unwrap_or_else(|e| format!("(no log: {e})"));
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < end => std::thread::sleep(LOOK_AGAIN),
            _ => return None,
        }
    }
}

/// Sends a signal; that the process is gone already is no error.
pub(crate) fn signal(pid: u32, signal: libc::c_int) {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return };
    // SAFETY: kill(2) takes no pointers.
    unsafe { libc::kill(pid, signal) };
}

/// How a program that was given a limited time ended.
pub(crate) enum Bounded {
    /// By itself.
    Ended(Output),
    /// It was killed: the time was over.
    OutOfTime,
}

/// Runs `command` for no longer than `limit`, and kills it with all of its group then.
pub(crate) fn bounded(
    mut command: Command,
    limit: Duration,
    heeds_interrupt: bool,
) -> anyhow::Result<Bounded> {
    // Files, not pipes: nobody reads while the program runs.
    let (mut out, mut err) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(err.try_clone()?).process_group(0);
    heed_signals(&mut command);
    let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    let end = Instant::now() + limit;
    let status = loop {
        // Short waits only: programs that take milliseconds are common here.
        match wait(&mut child, Duration::from_millis(100)) {
            Some(status) => break Some(status),
            None if Instant::now() >= end || (heeds_interrupt && interrupted()) => break None,
            None => {}
        }
    };
    let Some(status) = status else {
        let group = libc::pid_t::try_from(child.id()).context("process ids are small")?;
        // SAFETY: kill(2) takes no pointers; the child is not reaped yet, so its group is still its own.
        unsafe { libc::kill(-group, libc::SIGKILL) };
        wait(&mut child, KILL_GRACE);
        return Ok(Bounded::OutOfTime);
    };
    Ok(Bounded::Ended(Output { status, stdout: whole(&mut out)?, stderr: whole(&mut err)? }))
}

fn whole(file: &mut File) -> std::io::Result<Vec<u8>> {
    use std::io::{Read, Seek};
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Runs an administrator's command and returns what it printed; an error says what went wrong.
pub(crate) fn run(command: Command) -> anyhow::Result<String> {
    let shown = format!("{command:?}");
    match bounded(command, COMMAND_LIMIT, false)? {
        Bounded::OutOfTime => bail!("{shown}: not done within {COMMAND_LIMIT:?}"),
        Bounded::Ended(output) if output.status.success() => {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Bounded::Ended(output) => bail!(
            "{shown} ended with {}: {}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim(),
            String::from_utf8_lossy(&output.stdout).trim()
        ),
    }
}

/// A command with its arguments.
pub(crate) fn command<A: AsRef<std::ffi::OsStr>>(
    program: impl AsRef<std::ffi::OsStr>,
    args: &[A],
) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// The first line that a program prints for `args`, wherever it prints it.
pub(crate) fn version(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let text = match &output {
        Ok(output) if !output.stdout.is_empty() => &output.stdout,
        Ok(output) => &output.stderr,
        Err(_) => return format!("{program} is not installed"),
    };
    String::from_utf8_lossy(text).lines().next().unwrap_or_default().trim().to_owned()
}

/// Looks again and again until `look` is content.
pub(crate) fn wait_for(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let end = Instant::now() + limit;
    while !look()? {
        go_on()?;
        anyhow::ensure!(Instant::now() < end, "{what}: not within {limit:?}");
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}

/// A port on the loopback address that nobody listens at now.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Two benchmarks at once begin at different places.
    let start = (std::process::id() % u32::from(PORT_HIGHEST - PORT_LOWEST)) as u16;
    for _ in PORT_LOWEST..PORT_HIGHEST {
        let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = PORT_LOWEST + offset % (PORT_HIGHEST - PORT_LOWEST);
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port from {PORT_LOWEST} to {PORT_HIGHEST}")
}

/// User and system time of a process so far, s; 0 when it is gone.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    // proc_pid_stat(5): fields 14 and 15, in clock ticks; the name before them may have spaces.
    let ticks = || -> Option<f64> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        Some(fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?)
    };
    // SAFETY: sysconf takes no pointers.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) } as f64;
    ticks().unwrap_or(0.0) / per_second
}

/// The most memory that a process has had resident since it started or since [`reset_peak_memory`], bytes
/// (VmHWM of proc_pid_status(5)); 0 when it is gone.
pub(crate) fn peak_memory(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

/// Peak memory counts from now on (proc_pid_clear_refs(5)).
pub(crate) fn reset_peak_memory(pid: u32) {
    // One that is gone has none.
    let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// Processes with `text` in their command line, this one excepted.
pub(crate) fn with_text_in_command_line(text: &str) -> Vec<u32> {
    let own = std::process::id();
    processes()
        .filter(|pid| *pid != own)
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(text)
        })
        .collect()
}

/// All children of `pid`, and theirs.
pub(crate) fn descendants(pid: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = processes().filter_map(|p| Some((p, parent(p)?))).collect();
    let (mut found, mut at) = (vec![pid], 0);
    while at < found.len() {
        let of = found[at];
        found.extend(parents.iter().filter(|(_, parent)| *parent == of).map(|(child, _)| *child));
        at += 1;
    }
    found.split_off(1)
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn parent(pid: u32) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Ends processes that are not children of ours by their ids, and reaps those that are.
pub(crate) fn end_all(pids: &[u32]) {
    let alive = |pid: &u32| {
        if let Ok(id) = libc::pid_t::try_from(*pid) {
            // SAFETY: a null status is allowed; only zombies of ours are reaped by it.
            unsafe { libc::waitpid(id, std::ptr::null_mut(), libc::WNOHANG) };
        }
        Path::new(&format!("/proc/{pid}")).exists()
    };
    for (signal_number, grace) in [(libc::SIGTERM, END_GRACE), (libc::SIGKILL, KILL_GRACE)] {
        pids.iter().filter(|pid| alive(pid)).for_each(|pid| signal(*pid, signal_number));
        let end = Instant::now() + grace;
        while pids.iter().any(alive) && Instant::now() < end {
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}
