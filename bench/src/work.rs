//! What is done.

use crate::place::Place;
use anyhow::{Context, ensure};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::time::Instant;

/// Bytes of one read or write of the large file.
const BLOCK_BYTES: usize = 1 << 20;

/// Bytes of a small file.
const SMALL_BYTES: usize = 4096;

/// One kind of work. The order matters: later ones use what earlier ones made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// dd of=large bs=1M, close included.
    WriteLarge,
    /// dd if=large bs=1M, nothing cached by the client.
    ReadLargeCold,
    /// The same again.
    ReadLargeWarm,
    /// Create, write 4 KiB and close, one after the other.
    CreateSmall,
    /// Read all of them, nothing cached by the client.
    ReadSmallCold,
    /// Remove all of them.
    UnlinkSmall,
}

/// One measurement.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Amount (MiB or files) per second.
    pub rate: f64,
    /// CPU seconds of this process, servers and client included.
    pub cpu_s: f64,
}

impl Work {
    pub const ALL: [Work; 6] = [
        Work::WriteLarge,
        Work::ReadLargeCold,
        Work::ReadLargeWarm,
        Work::CreateSmall,
        Work::ReadSmallCold,
        Work::UnlinkSmall,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Work::WriteLarge => "write large file",
            Work::ReadLargeCold => "read it, client cold",
            Work::ReadLargeWarm => "read it again",
            Work::CreateSmall => "create 4 KiB files",
            Work::ReadSmallCold => "read them, client cold",
            Work::UnlinkSmall => "unlink them",
        }
    }

    pub fn unit(self) -> &'static str {
        match self {
            Work::WriteLarge | Work::ReadLargeCold | Work::ReadLargeWarm => "MiB/s",
            Work::CreateSmall | Work::ReadSmallCold | Work::UnlinkSmall => "files/s",
        }
    }

    fn is_cold(self) -> bool {
        matches!(self, Work::ReadLargeCold | Work::ReadSmallCold)
    }
}

/// Does `work` once.
pub fn run(work: Work, place: &mut dyn Place, mib: usize, files: usize) -> anyhow::Result<Measured> {
    if work.is_cold() {
        place.forget()?;
    }
    let dir = place.dir().to_owned();
    let (large, small) = (dir.join("large"), |i: usize| dir.join(format!("small{i}")));
    let (cpu, start) = (cpu_seconds(), Instant::now());
    let amount = match work {
        Work::WriteLarge => {
            let block = noise();
            let mut file =
                File::create(&large).with_context(|| format!("cannot make {}", large.display()))?;
            for _ in 0..mib {
                file.write_all(&block)?;
            }
            drop(file);
            mib
        }
        Work::ReadLargeCold | Work::ReadLargeWarm => {
            let (mut file, mut block, mut total) = (File::open(&large)?, vec![0; BLOCK_BYTES], 0);
            loop {
                match file.read(&mut block)? {
                    0 => break,
                    n => total += n,
                }
            }
            ensure!(total == mib << 20, "{} bytes came back of {mib} MiB", total);
            mib
        }
        Work::CreateSmall => {
            let content = &noise()[..SMALL_BYTES];
            for i in 0..files {
                fs::write(small(i), content)?;
            }
            files
        }
        Work::ReadSmallCold => {
            for i in 0..files {
                ensure!(fs::read(small(i))?.len() == SMALL_BYTES, "small{i} is not whole");
            }
            files
        }
        Work::UnlinkSmall => {
            for i in 0..files {
                fs::remove_file(small(i))?;
            }
            files
        }
    };
    let seconds = start.elapsed().as_secs_f64();
    Ok(Measured { rate: amount as f64 / seconds, cpu_s: cpu_seconds() - cpu })
}

/// Removes what a round has left.
pub fn clean(place: &mut dyn Place) -> anyhow::Result<()> {
    Ok(fs::remove_file(place.dir().join("large"))?)
}

/// A block that no layer below could make smaller.
fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    while block.len() < BLOCK_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        block.extend_from_slice(&state.to_le_bytes());
    }
    block
}

/// User and system time of this process, s.
fn cpu_seconds() -> f64 {
    // SAFETY: a zeroed rusage is a valid value, and getrusage fills it in.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    let seconds = |t: libc::timeval| t.tv_sec as f64 + t.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}
