//! fsx: one file, changed in every way there is, and compared with what it should hold after every read.

use crate::bed::Bed;
use crate::tools::{run, tool};
use dfs_e2e::{Fleet, Setup, wait_for};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long one run may take on a busy machine.
const LIMIT: Duration = Duration::from_secs(240);

/// Between two times that the kernel is told to forget the file's pages.
const FORGET_EVERY: Duration = Duration::from_millis(50);

/// Memory for blobs that were read, and for data that is not stored yet, MiB: the least that a mount takes.
const CACHE_MIB: usize = 8;
const STAGING_MIB: usize = 16;

/// What a run works on.
#[derive(Clone, Copy)]
struct Plan {
    operations: u64,
    /// Length that the file has at most, bytes.
    file_bytes_max: u32,
    /// Bytes that an operation is about at most.
    operation_bytes_max: u32,
}

/// Operations meet each other in one file that is no longer than a few of them.
const DENSE: Plan = Plan { operations: 10_000, file_bytes_max: 256 << 10, operation_bytes_max: 64 << 10 };

/// The file is longer than the cache and the staging memory together, and made of several blobs.
const LONG: Plan = Plan { operations: 4_000, file_bytes_max: 40 << 20, operation_bytes_max: 1 << 20 };

/// Short enough that a run goes through several losses of a node, not dozens.
const AMID_LOSSES: Plan = Plan { operations: 3_000, file_bytes_max: 4 << 20, operation_bytes_max: 256 << 10 };

impl Plan {
    /// With every kind of operation.
    fn config(&self) -> String {
        let Plan { file_bytes_max, operation_bytes_max, .. } = self;
        let usual = ["read", "write", "mapread", "mapwrite", "truncate", "sendfile"];
        let others = [
            "close_open",
            "invalidate",
            "fsync",
            "fdatasync",
            "posix_fallocate",
            "punch_hole",
            "posix_fadvise",
            "copy_file_range",
        ];
        let weights = usual.iter().map(|n| (n, 10)).chain(others.iter().map(|n| (n, 4)));
        let weights: String = weights.map(|(name, weight)| format!("{name} = {weight}\n")).collect();
        // posix_fallocate(3) refuses to reserve nothing.
        let sizes = format!("min = 1\nmax = {operation_bytes_max}\n");
        format!("flen = {file_bytes_max}\n[opsize]\n{sizes}[weights]\n{weights}")
    }
}

/// The seed that DFS_TEST_SEED asks for, or any.
fn seed() -> u64 {
    let asked = std::env::var("DFS_TEST_SEED").ok();
    asked.map_or_else(rand::random, |text| text.parse().expect("DFS_TEST_SEED is a number"))
}

/// Runs fsx on `file`. What the kernel has of it is dropped again and again, so that reading asks the mount.
fn exercise(plan: Plan, seed: u64, file: &Path) {
    eprintln!("DFS_TEST_SEED={seed} gives the same operations again");
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("fsx.toml");
    std::fs::write(&config, plan.config()).unwrap();
    std::fs::write(file, "").unwrap();
    let forgetting = Forgetting::start(file);
    let mut command = Command::new(tool("fsx"));
    command.arg("-S").arg(seed.to_string()).arg("-N").arg(plan.operations.to_string());
    command.arg("-P").arg(folder.path()).arg("-f").arg(&config).arg(file);
    let (well, text) = run(command, LIMIT);
    drop(forgetting);
    let last: Vec<&str> = text.lines().rev().take(200).collect();
    let last: Vec<&str> = last.into_iter().rev().collect();
    assert!(well && text.contains("All operations completed A-OK!"), "fsx failed:\n{}", last.join("\n"));
}

/// Has the kernel drop the clean pages of a file, again and again while this lives.
struct Forgetting {
    over: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Forgetting {
    fn start(file: &Path) -> Forgetting {
        let over = Arc::new(AtomicBool::new(false));
        let (until, file) = (over.clone(), std::fs::File::open(file).unwrap());
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                // SAFETY: posix_fadvise(2) takes no pointers.
                let refused =
                    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
                assert_eq!(refused, 0, "posix_fadvise gave errno {refused}");
                std::thread::sleep(FORGET_EVERY);
            }
        });
        Forgetting { over, thread: Some(thread) }
    }
}

impl Drop for Forgetting {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let joined = self.thread.take().map(std::thread::JoinHandle::join);
        if !std::thread::panicking() {
            assert!(matches!(joined, Some(Ok(()))), "the kernel could not be told to forget pages");
        }
    }
}

/// Several seeds, each with a file of its own; afterwards a second mount reads each file as the first does.
fn on_a_small_mount(plan: Plan, seeds: u64) {
    let mut bed = Bed::new();
    let at = bed.mount_with(|config| {
        config.vfs.collision = dfs_proto::CollisionPolicy::Replace;
        config.vfs.cache_bytes_max = CACHE_MIB << 20;
        config.vfs.staged_bytes_max = STAGING_MIB << 20;
    });
    let first = seed();
    let file_of = |at: &Path, n: u64| at.join(format!("fsx{n}"));
    for n in 0..seeds {
        exercise(plan, first.wrapping_add(n), &file_of(&at, n));
    }
    let other = bed.mount();
    for n in 0..seeds {
        let [here, there] = [&at, &other].map(|at| std::fs::read(file_of(at, n)).unwrap());
        assert!(here == there, "file {n} differs between mounts: {} and {} bytes", here.len(), there.len());
    }
}

/// Whatever the order in which a file is written, mapped, truncated, punched, reserved, cloned from itself,
/// synced and opened again, it reads as it should.
#[test]
fn any_order_of_changes_reads_back() {
    on_a_small_mount(DENSE, 6);
}

#[test]
fn any_order_of_changes_reads_back_with_other_seeds() {
    on_a_small_mount(DENSE, 4);
}

/// A file that is longer than the memory that the mount may use reads as it should, too.
#[test]
fn files_longer_than_the_memory_of_the_mount_read_back() {
    on_a_small_mount(LONG, 4);
}

/// Kills a storage node and starts it again, one after the other, until the future that runs beside is done.
async fn lose_nodes(fleet: &mut Fleet, rng: &mut StdRng, over: &AtomicBool) -> usize {
    let mut losses = 0;
    while !over.load(Ordering::Relaxed) {
        let victim = rng.random_range(0..fleet.nodes.len());
        fleet.nodes[victim].process.kill9();
        // Not waiting for anything: this is how long the node is away.
        tokio::time::sleep(Duration::from_millis(rng.random_range(100..1_500))).await;
        fleet.restart_node(victim).await;
        fleet.wait_live(fleet.nodes.len()).await;
        fleet.wait_replicated().await;
        losses += 1;
    }
    losses
}

async fn amid_losses(seed: u64) {
    let mut fleet = Fleet::start(Setup { nodes: 3, ..Setup::default() }).await;
    let (cache, staging) = (CACHE_MIB.to_string(), STAGING_MIB.to_string());
    let flags = ["--collision", "replace", "--cache-mib", &cache, "--staging-mib", &staging];
    let file: PathBuf = fleet.mount_with(&flags).await.join("fsx");
    let over = Arc::new(AtomicBool::new(false));
    let running = tokio::task::spawn_blocking({
        let (over, file) = (over.clone(), file.clone());
        move || {
            let ended = std::panic::catch_unwind(|| exercise(AMID_LOSSES, seed, &file));
            over.store(true, Ordering::Relaxed);
            ended.is_ok()
        }
    });
    let losses = lose_nodes(&mut fleet, &mut StdRng::seed_from_u64(seed), &over).await;
    assert!(running.await.unwrap(), "fsx failed: see above");
    eprintln!("{losses} losses of a node meanwhile");
    assert!(losses > 0, "no node was lost meanwhile");
    let written = std::fs::read(&file).unwrap();
    fleet.unmount(0);
    let again = fleet.mount().await.join("fsx");
    wait_for("the file at another mount", dfs_e2e::PATIENCE, async || {
        let read = std::fs::read(&again).map_err(|e| e.to_string())?;
        if read == written { Ok(()) } else { Err(format!("{} bytes, not the same", read.len())) }
    })
    .await;
}

/// Storage nodes that are killed and come back while a program works on a file do not show in the file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_read_back_while_storage_nodes_are_killed_and_come_back() {
    amid_losses(seed()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_read_back_while_storage_nodes_are_killed_and_come_back_with_another_seed() {
    amid_losses(seed().wrapping_add(1)).await;
}
