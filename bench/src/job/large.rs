//! Large files.
//!
//! Each page of a file starts with the offset that it is at, and readers look: bytes that come back quickly but wrong
//! do not count.

use super::{Done, Noise, Writes, on_threads};
use anyhow::{Context, ensure};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const PAGE: usize = 4096;

fn stamp(block: &mut [u8], offset: u64) {
    for (i, page) in block.chunks_mut(PAGE).enumerate() {
        page[..8].copy_from_slice(&(offset + (i * PAGE) as u64).to_le_bytes());
    }
}

/// Looks at the first page of a block only: looking at each would cost the reader more than reading.
fn check(block: &[u8], offset: u64, path: &Path) -> anyhow::Result<()> {
    ensure!(
        block.get(..8).is_some_and(|first| first == offset.to_le_bytes()),
        "{}: other bytes than were written at {offset}",
        path.display()
    );
    Ok(())
}

/// Writes `mib` MiB into each file at once.
pub(super) fn write(paths: &[PathBuf], mib: usize, block_bytes: usize, fsync: bool) -> anyhow::Result<Done> {
    let noise = Noise::new(1).bytes(block_bytes);
    let (_, seconds) = on_threads(paths.len(), |i| {
        let mut block = noise.clone();
        let mut file =
            File::create(&paths[i]).with_context(|| format!("cannot make {}", paths[i].display()))?;
        for offset in (0..mib << 20).step_by(block_bytes) {
            stamp(&mut block, offset as u64);
            file.write_all(&block)?;
        }
        if fsync {
            file.sync_all()?;
        }
        close(file)
    })?;
    let bytes = (paths.len() * mib) << 20;
    Ok(Done { amount: bytes as f64 / f64::from(1 << 20), bytes: bytes as u64, seconds, ..Done::default() })
}

/// Closes a file and says what close(2) said: errors of what was written come with it.
pub(super) fn close(file: File) -> anyhow::Result<()> {
    let descriptor = std::os::fd::IntoRawFd::into_raw_fd(file);
    // SAFETY: the descriptor was given up by the file just now and is nobody else's.
    ensure!(unsafe { libc::close(descriptor) } == 0, "close: {}", std::io::Error::last_os_error());
    Ok(())
}

/// Reads each file to its end, all at once.
pub(super) fn read(paths: &[PathBuf], mib: usize, block_bytes: usize) -> anyhow::Result<Done> {
    let (_, seconds) = on_threads(paths.len(), |i| {
        let (mut file, mut block, mut total) = (File::open(&paths[i])?, vec![0; block_bytes], 0);
        loop {
            match file.read(&mut block)? {
                0 => break,
                length => {
                    if total % PAGE == 0 {
                        check(&block, total as u64, &paths[i])?;
                    }
                    total += length;
                }
            }
        }
        ensure!(total == mib << 20, "{} bytes came back of {mib} MiB", total);
        Ok(())
    })?;
    let bytes = (paths.len() * mib) << 20;
    Ok(Done { amount: bytes as f64 / f64::from(1 << 20), bytes: bytes as u64, seconds, ..Done::default() })
}

/// Reads or writes blocks at random places for so many seconds, one after the other on each thread, as fio's psync
/// engine does. The final fsync, when there are writes, is within what is timed.
pub(super) fn random(
    path: &Path,
    block_bytes: usize,
    threads: usize,
    limit_s: f64,
    writes: Writes,
) -> anyhow::Result<Done> {
    let file = OpenOptions::new().read(writes != Writes::All).write(writes != Writes::None).open(path)?;
    let blocks = file.metadata()?.len() / block_bytes as u64;
    ensure!(blocks > 0, "{} is smaller than a block", path.display());
    let limit = Duration::from_secs_f64(limit_s);
    let noise = Noise::new(2).bytes(block_bytes);
    let (counts, seconds) = on_threads(threads, |i| {
        let (mut chance, mut block) = (Noise::new(17 + i as u64), noise.clone());
        let (start, mut count) = (Instant::now(), 0u64);
        while start.elapsed() < limit {
            let offset = chance.next() % blocks * block_bytes as u64;
            let is_write = match writes {
                Writes::None => false,
                Writes::Some => chance.next() % 10 < 3,
                Writes::All => true,
            };
            if is_write {
                stamp(&mut block, offset);
                file.write_all_at(&block, offset)?;
            } else {
                file.read_exact_at(&mut block, offset)?;
                check(&block, offset, path)?;
            }
            count += 1;
        }
        if writes != Writes::None && i == 0 {
            file.sync_all()?;
        }
        Ok(count)
    })?;
    let count: u64 = counts.iter().sum();
    Ok(Done { amount: count as f64, bytes: count * block_bytes as u64, seconds, ..Done::default() })
}
