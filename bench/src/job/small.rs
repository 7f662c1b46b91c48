//! Small files and directories.

use super::large::close;
use super::{Done, Latency, Noise, on_threads};
use anyhow::{Context, ensure};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// How long each operation took, by its name.
#[derive(Default)]
struct Times(BTreeMap<&'static str, Vec<f64>>);

impl Times {
    fn time<T, E>(&mut self, name: &'static str, operation: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let start = Instant::now();
        let result = operation();
        self.0.entry(name).or_default().push(start.elapsed().as_secs_f64() * 1e6);
        result
    }
}

/// Does `each` for the numbers below `count`, which the threads share out among them in turn.
fn all(
    count: usize,
    threads: usize,
    each: impl Fn(usize, &mut Times) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<Done> {
    let (times, seconds) = on_threads(threads, |thread| {
        let mut times = Times::default();
        for i in (thread..count).step_by(threads) {
            each(i, &mut times)?;
        }
        Ok(times)
    })?;
    let mut together: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (name, values) in times.into_iter().flat_map(|t| t.0) {
        together.entry(name).or_default().extend(values);
    }
    let latencies =
        together.into_iter().map(|(name, values)| (name.to_owned(), percentiles(values))).collect();
    Ok(Done { amount: count as f64, seconds, latencies, ..Done::default() })
}

fn percentiles(mut us: Vec<f64>) -> Latency {
    us.sort_by(f64::total_cmp);
    let at =
        |share: f64| us.get(((us.len() as f64 * share) as usize).min(us.len().saturating_sub(1))).copied();
    Latency { p50_us: at(0.5).unwrap_or(0.0), p99_us: at(0.99).unwrap_or(0.0) }
}

fn file(dir: &Path, i: usize) -> PathBuf {
    dir.join(format!("f{i:06}"))
}

pub(super) fn create(
    dir: &Path,
    count: usize,
    threads: usize,
    bytes: usize,
    fsync: bool,
) -> anyhow::Result<Done> {
    fs::create_dir_all(dir)?;
    let content = Noise::new(3).bytes(bytes);
    let mut done = all(count, threads, |i, times| {
        let path = file(dir, i);
        let mut file = times
            .time("create", || File::create_new(&path))
            .with_context(|| format!("cannot make {}", path.display()))?;
        if bytes > 0 {
            times.time("write", || file.write_all(&content))?;
        }
        if fsync {
            times.time("fsync", || file.sync_all())?;
        }
        times.time("close", || close(file))
    })?;
    done.bytes = (count * bytes) as u64;
    Ok(done)
}

pub(super) fn read(dir: &Path, count: usize, threads: usize, bytes: usize) -> anyhow::Result<Done> {
    let expected = Noise::new(3).bytes(bytes);
    let mut done = all(count, threads, |i, times| {
        let path = file(dir, i);
        let mut file = times.time("open", || File::open(&path))?;
        let mut content = vec![0; bytes + 1];
        let length = times.time("read", || file.read(&mut content))?;
        ensure!(content[..length] == expected[..], "{}: other bytes than were written", path.display());
        times.time("close", || close(file))
    })?;
    done.bytes = (count * bytes) as u64;
    Ok(done)
}

pub(super) fn stat(dir: &Path, count: usize, passes: usize) -> anyhow::Result<Done> {
    all(count * passes, 1, |i, times| {
        times.time("stat", || fs::symlink_metadata(file(dir, i % count)))?;
        Ok(())
    })
}

pub(super) fn rename(dir: &Path, count: usize) -> anyhow::Result<Done> {
    let other = |i: usize| dir.join(format!("g{i:06}"));
    all(count * 2, 1, |i, times| {
        let (from, to) = match i < count {
            true => (file(dir, i), other(i)),
            false => (other(i - count), file(dir, i - count)),
        };
        Ok(times.time("rename", || fs::rename(from, to))?)
    })
}

pub(super) fn unlink(dir: &Path, count: usize) -> anyhow::Result<Done> {
    all(count, 1, |i, times| Ok(times.time("unlink", || fs::remove_file(file(dir, i)))?))
}

pub(super) fn mkdir(dir: &Path, count: usize) -> anyhow::Result<Done> {
    fs::create_dir_all(dir)?;
    all(count, 1, |i, times| Ok(times.time("mkdir", || fs::create_dir(file(dir, i)))?))
}

pub(super) fn rmdir(dir: &Path, count: usize) -> anyhow::Result<Done> {
    all(count, 1, |i, times| Ok(times.time("rmdir", || fs::remove_dir(file(dir, i)))?))
}
