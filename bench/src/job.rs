//! One piece of work on a directory, done by a process of its own.
//!
//! The session starts this program again for each piece, so that it can be given a limited time and its CPU time is
//! told from everything else's. What is timed is the work alone: preparing buffers and starting threads is not.

mod large;
mod small;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// One piece of work. Paths are relative to the directory that it is done in.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Job {
    /// Writes files side by side, in order; the closes count.
    Write {
        files: Vec<String>,
        mib: usize,
        block_kib: usize,
        fsync: bool,
    },
    /// Reads files side by side, in order, to their ends.
    Read {
        files: Vec<String>,
        mib: usize,
        block_kib: usize,
    },
    /// Reads and writes blocks at random places of one file for a while; with a final fsync when it writes.
    Random {
        file: String,
        block_kib: usize,
        threads: usize,
        seconds: f64,
        writes: Writes,
    },
    /// Creates, writes and closes small files.
    Create {
        dir: String,
        count: usize,
        threads: usize,
        bytes: usize,
        fsync: bool,
    },
    /// Opens, reads and closes them.
    ReadSmall {
        dir: String,
        count: usize,
        threads: usize,
        bytes: usize,
    },
    /// stat(2) of each, so many times.
    Stat {
        dir: String,
        count: usize,
        passes: usize,
    },
    /// Gives each another name in the same directory; and back.
    Rename {
        dir: String,
        count: usize,
    },
    Unlink {
        dir: String,
        count: usize,
    },
    Mkdir {
        dir: String,
        count: usize,
    },
    Rmdir {
        dir: String,
        count: usize,
    },
    /// A program, run in the directory; it goes through so many files or through so many bytes.
    Program {
        argv: Vec<String>,
        environment: Vec<(String, String)>,
        files: usize,
        bytes: u64,
    },
}

/// Which of the random accesses write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Writes {
    None,
    /// Three of ten.
    Some,
    All,
}

impl Job {
    /// Whether copies may have to be made after it.
    pub fn writes_data(&self) -> bool {
        match self {
            Job::Write { .. } | Job::Create { .. } => true,
            Job::Random { writes, .. } => *writes != Writes::None,
            Job::Program { argv, .. } => {
                !matches!(argv.first().map(String::as_str), Some("cat" | "ls" | "find" | "rm"))
            }
            Job::Read { .. } | Job::ReadSmall { .. } | Job::Stat { .. } | Job::Rename { .. } => false,
            Job::Unlink { .. } | Job::Mkdir { .. } | Job::Rmdir { .. } => false,
        }
    }
}

/// What was done, and how long it took.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Done {
    /// Files, operations or whatever is counted.
    pub amount: f64,
    /// Bytes of content that were written or read.
    pub bytes: u64,
    pub seconds: f64,
    /// CPU of the application, s.
    pub cpu_s: f64,
    /// How long single operations took, by the system call's name.
    pub latencies: BTreeMap<String, Latency>,
}

/// Percentiles, µs.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub p50_us: f64,
    pub p99_us: f64,
}

/// Does `job` in `dir`.
pub(crate) fn run(job: &Job, dir: &Path) -> anyhow::Result<Done> {
    let mut done = match job {
        Job::Write { files, mib, block_kib, fsync } => {
            large::write(&paths(dir, files), *mib, block_kib << 10, *fsync)?
        }
        Job::Read { files, mib, block_kib } => large::read(&paths(dir, files), *mib, block_kib << 10)?,
        Job::Random { file, block_kib, threads, seconds, writes } => {
            large::random(&dir.join(file), block_kib << 10, *threads, *seconds, *writes)?
        }
        Job::Create { dir: d, count, threads, bytes, fsync } => {
            small::create(&dir.join(d), *count, *threads, *bytes, *fsync)?
        }
        Job::ReadSmall { dir: d, count, threads, bytes } => {
            small::read(&dir.join(d), *count, *threads, *bytes)?
        }
        Job::Stat { dir: d, count, passes } => small::stat(&dir.join(d), *count, *passes)?,
        Job::Rename { dir: d, count } => small::rename(&dir.join(d), *count)?,
        Job::Unlink { dir: d, count } => small::unlink(&dir.join(d), *count)?,
        Job::Mkdir { dir: d, count } => small::mkdir(&dir.join(d), *count)?,
        Job::Rmdir { dir: d, count } => small::rmdir(&dir.join(d), *count)?,
        Job::Program { argv, environment, files, bytes } => {
            let seconds = program(argv, environment, dir)?;
            let amount = if *bytes > 0 { *bytes as f64 / f64::from(1 << 20) } else { *files as f64 };
            Done { amount, bytes: *bytes, seconds, ..Done::default() }
        }
    };
    done.cpu_s = cpu_seconds(libc::RUSAGE_SELF) + cpu_seconds(libc::RUSAGE_CHILDREN);
    Ok(done)
}

fn paths(dir: &Path, files: &[String]) -> Vec<PathBuf> {
    files.iter().map(|file| dir.join(file)).collect()
}

/// Runs a program to its end; returns how long it took, s.
fn program(argv: &[String], environment: &[(String, String)], dir: &Path) -> anyhow::Result<f64> {
    let (program, args) = argv.split_first().ok_or_else(|| anyhow::anyhow!("no program was named"))?;
    let mut command = Command::new(program);
    command.args(args).current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null());
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    let start = Instant::now();
    let output = command.output()?;
    let seconds = start.elapsed().as_secs_f64();
    anyhow::ensure!(
        output.status.success(),
        "{argv:?} ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(seconds)
}

/// Runs `work` on so many threads at once, each with its number and a table of descriptors of its own, as processes
/// have; returns what they return and how long the slowest took.
fn on_threads<T: Send>(
    threads: usize,
    work: impl Fn(usize) -> anyhow::Result<T> + Sync,
) -> anyhow::Result<(Vec<T>, f64)> {
    let together = std::sync::Barrier::new(threads);
    std::thread::scope(|scope| {
        let (work, together) = (&work, &together);
        let running: Vec<_> = (0..threads)
            .map(|i| {
                scope.spawn(move || {
                    // SAFETY: unshare(2) takes no pointers. Without it the threads share one table, which works too.
                    unsafe { libc::unshare(libc::CLONE_FILES) };
                    together.wait();
                    let start = Instant::now();
                    work(i).map(|result| (result, start, Instant::now()))
                })
            })
            .collect();
        let ended: anyhow::Result<Vec<_>> = running
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread of the work panicked"))?)
            .collect();
        let ended = ended?;
        let start = ended.iter().map(|(_, start, _)| *start).min();
        let end = ended.iter().map(|(_, _, end)| *end).max();
        let seconds = end.zip(start).map_or(0.0, |(end, start)| (end - start).as_secs_f64());
        Ok((ended.into_iter().map(|(result, ..)| result).collect(), seconds))
    })
}

/// User and system time, s.
fn cpu_seconds(whose: libc::c_int) -> f64 {
    // SAFETY: a zeroed rusage is a valid value, and getrusage fills it in.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(whose, &mut usage);
        usage
    };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

/// Numbers that look like chance, from a seed (xorshift64).
pub(crate) struct Noise(u64);

impl Noise {
    pub fn new(seed: u64) -> Noise {
        Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// So many bytes that no layer below could make smaller.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}
