//! Memory while a large file goes in and out.

use dfs_client::checksum::Md5Hasher;
use dfs_e2e::{Fleet, Noise, Setup};
use dfs_proto::Md5;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

/// What each program may have resident at its peak, bytes.
const PEAK_BYTES_MAX: u64 = 300 << 20;

/// Length of the file when `DFS_TEST_BIG` does not say otherwise, MiB.
const DEFAULT_MIB: u64 = 192;

const PIECE_BYTES: usize = 1 << 20;

/// Files that are written at once.
const FILES: u64 = 64;

fn size_mib() -> u64 {
    match std::env::var("DFS_TEST_BIG") {
        Ok(text) => {
            text.parse().unwrap_or_else(|e| panic!("DFS_TEST_BIG is a number of MiB, not {text}: {e}"))
        }
        Err(_) => DEFAULT_MIB,
    }
}

fn write_noise(path: &Path, mib: u64) -> Md5 {
    let mut file = File::create(path).unwrap();
    let (mut noise, mut hasher) = (Noise::new(mib), Md5Hasher::new());
    let mut piece = vec![0; PIECE_BYTES];
    for _ in 0..mib {
        noise.fill(&mut piece);
        hasher.update(&piece);
        file.write_all(&piece).unwrap();
    }
    file.sync_all().unwrap();
    hasher.finish()
}

fn read_md5(path: &Path) -> Md5 {
    let mut file = File::open(path).unwrap();
    let mut hasher = Md5Hasher::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece).unwrap() {
            0 => return hasher.finish(),
            length => hasher.update(&piece[..length]),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_program_stays_under_300_mib_while_a_large_file_goes_in_and_out() {
    let mib = size_mib();
    let mut fleet = Fleet::start(Setup::default()).await;
    let written_at = fleet.mount().await.join("large.bin");
    let written = tokio::task::spawn_blocking(move || write_noise(&written_at, mib)).await.unwrap();
    fleet.wait_replicated().await;
    // A second mount has nothing cached.
    let read_at = fleet.mount().await.join("large.bin");
    let read = tokio::task::spawn_blocking(move || read_md5(&read_at)).await.unwrap();
    assert_eq!(read, written);

    check_peaks(&fleet, &format!("{mib} MiB in and out"));
    fleet.unmount(1);
    fleet.unmount(0);
}

/// Fails when any program of the fleet had more resident than it may have.
fn check_peaks(fleet: &Fleet, what: &str) {
    let mut processes = vec![&fleet.master];
    processes.extend(fleet.mount_processes());
    processes.extend(fleet.nodes.iter().map(|node| &node.process));
    processes.extend(&fleet.replicators);
    let peaks: Vec<(&str, u64)> = processes.iter().map(|p| (p.name(), p.peak_memory())).collect();
    for (name, peak) in &peaks {
        eprintln!("{what}: {name} had {} MiB resident at its peak", peak >> 20);
    }
    let over: Vec<_> = peaks.iter().filter(|(_, peak)| *peak > PEAK_BYTES_MAX).collect();
    assert!(over.is_empty(), "over {} MiB: {over:?}", PEAK_BYTES_MAX >> 20);
}

/// Writes `FILES` files side by side, a piece of each in turn, so that all have bytes that are not stored yet.
fn write_in_turns(folder: &Path, mib_each: u64) -> Vec<Md5> {
    let mut files: Vec<(File, Noise, Md5Hasher)> = (0..FILES)
        .map(|n| (File::create(folder.join(n.to_string())).unwrap(), Noise::new(n), Md5Hasher::new()))
        .collect();
    // Not a divisor of a blob's length: files fill their blobs at different times.
    let mut piece = vec![0; 384 << 10];
    for _ in 0..(mib_each << 20) / piece.len() as u64 {
        for (file, noise, hasher) in &mut files {
            noise.fill(&mut piece);
            hasher.update(&piece);
            file.write_all(&piece).unwrap();
        }
    }
    files.into_iter().map(|(file, _, hasher)| (drop(file), hasher.finish()).1).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_program_stays_under_300_mib_while_64_files_are_written_at_once() {
    let mib_each = (size_mib() / FILES).max(3);
    let mut fleet = Fleet::start(Setup::default()).await;
    let written_at = fleet.mount().await;
    let written = tokio::task::spawn_blocking(move || write_in_turns(&written_at, mib_each)).await.unwrap();
    fleet.wait_replicated().await;
    let read_at = fleet.mount().await;
    let read = (0..FILES).map(|n| read_md5(&read_at.join(n.to_string())));
    assert!(tokio::task::block_in_place(|| read.eq(written)));
    check_peaks(&fleet, &format!("{FILES} files of {mib_each} MiB at once"));
    fleet.unmount(1);
    fleet.unmount(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_streams_in_flat_memory() {
    let fleet = Fleet::start(Setup::default()).await;
    let http = fleet.http();
    let content = dfs_e2e::noise(1, (DEFAULT_MIB as usize) << 20);
    let answer = http.put("/files/large.bin", &content).await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert!(http.get("/files/large.bin").await.unwrap().body == content);
    let peak = fleet.master.peak_memory();
    eprintln!(
        "{DEFAULT_MIB} MiB through the gateway: the master had {} MiB resident at its peak",
        peak >> 20
    );
    assert!(peak < content.len() as u64, "the master held the whole file: {peak} bytes");
}
