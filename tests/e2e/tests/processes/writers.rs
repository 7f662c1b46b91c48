//! Clients that write all the time and remember what was acknowledged.

use dfs_client::checksum::md5;
use dfs_e2e::{Client, Fleet, Http, PATIENCE, noise, wait_for};
use dfs_proto::Md5;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write;
use std::os::fd::IntoRawFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Clients with sessions.
const SESSIONS: usize = 3;

/// Clients of the gateway.
const GATEWAY_CLIENTS: usize = 1;

/// So many changes the writers may be ahead of what is waited for: enough to be busy through a fault, few
/// enough for every file to be read in the end.
const AHEAD: usize = 200;

/// A client of the gateway that was refused goes on after this.
const TRY_AGAIN: Duration = Duration::from_millis(20);

/// What the writers of one test have in common.
struct Shared {
    /// One for each change that may be begun.
    budget: Semaphore,
    acknowledged: Mutex<BTreeMap<String, Md5>>,
    count: AtomicUsize,
    stop: AtomicBool,
}

/// Several clients that store, replace and remove files until they are told to stop.
pub struct Writers {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

impl Writers {
    /// Starts them. Those with a session have to succeed whatever happens to the servers; those of the
    /// gateway may see errors and go on with another file.
    pub async fn start(fleet: &Fleet) -> Writers {
        let shared = Arc::new(Shared {
            budget: Semaphore::new(AHEAD),
            acknowledged: Mutex::default(),
            count: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        let mut tasks = JoinSet::new();
        for i in 0..SESSIONS {
            tasks.spawn(with_session(fleet.client().await, i, shared.clone()));
        }
        for i in 0..GATEWAY_CLIENTS {
            tasks.spawn(through_gateway(fleet.http(), i, shared.clone()));
        }
        Writers { shared, tasks }
    }

    /// Lets a program write that knows nothing of dfs, below the mount at `folder`. It has to succeed too.
    pub fn add_program(&mut self, folder: PathBuf) {
        let (shared, runtime) = (self.shared.clone(), tokio::runtime::Handle::current());
        self.tasks.spawn_blocking(move || through_mount(&folder, &runtime, &shared));
    }

    /// Waits until so many more changes have been acknowledged.
    pub async fn more(&mut self, count: usize) {
        let goal = self.shared.count.load(Ordering::Relaxed) + count;
        self.shared.budget.add_permits(count);
        wait_for(&format!("{goal} acknowledged changes"), PATIENCE, async || {
            if let Some(ended) = self.tasks.try_join_next() {
                panic!("a writer has ended: {ended:?}");
            }
            let got = self.shared.count.load(Ordering::Relaxed);
            if got >= goal { Ok(()) } else { Err(format!("{got}")) }
        })
        .await;
    }

    /// Lets them finish; returns what was acknowledged, by name.
    pub async fn finish(mut self) -> BTreeMap<String, Md5> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.budget.close();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        std::mem::take(&mut *self.shared.acknowledged.lock().unwrap())
    }
}

impl Shared {
    /// Waits until another change may be begun; false when it is time to end.
    async fn another(&self) -> bool {
        match self.budget.acquire().await {
            Ok(permit) => permit.forget(),
            Err(_) => return false,
        }
        !self.stop.load(Ordering::Relaxed)
    }

    fn stored(&self, name: String, content: &[u8]) {
        let before = self.acknowledged.lock().unwrap().insert(name.clone(), md5(content));
        assert_eq!(before, None, "{name} was acknowledged twice");
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn replaced(&self, name: String, content: &[u8]) {
        self.acknowledged.lock().unwrap().insert(name, md5(content));
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    fn removed(&self, name: &str) {
        self.acknowledged.lock().unwrap().remove(name);
        self.count.fetch_add(1, Ordering::Relaxed);
    }
}

/// The `n`-th content of a writer: from one byte to a quarter of a megabyte.
fn content(writer: usize, n: usize) -> Vec<u8> {
    let seed = (writer * 100_000 + n) as u64;
    noise(seed, 1 + (seed.wrapping_mul(7919) % (256 << 10)) as usize)
}

/// Stores, replaces and removes files of its own; every operation has to succeed.
async fn with_session(client: Client, i: usize, shared: Arc<Shared>) {
    let name = |n: usize| format!("session{i}-{n}.bin");
    for n in 0.. {
        if !shared.another().await {
            return;
        }
        let content = content(i, n);
        match n % 6 {
            4 => {
                let name = name(n - 1);
                let stored = client.replace(&name, content.clone()).await;
                let stored = stored.unwrap_or_else(|e| panic!("{name} could not be replaced: {e}"));
                assert!(!stored.renamed, "{name} was replaced by {}", stored.name);
                shared.replaced(name, &content);
            }
            5 => {
                let name = name(n - 3);
                client.remove(&name).await.unwrap_or_else(|e| panic!("{name} could not be removed: {e}"));
                shared.removed(&name);
            }
            _ => {
                let name = name(n);
                let stored = client.put(&name, content.clone()).await;
                let stored = stored.unwrap_or_else(|e| panic!("{name} could not be stored: {e}"));
                assert!(!stored.renamed, "{name} was there already");
                shared.stored(name, &content);
            }
        }
    }
}

async fn through_gateway(http: Http, i: usize, shared: Arc<Shared>) {
    for n in 0.. {
        if !shared.another().await {
            return;
        }
        let content = content(SESSIONS + i, n);
        let name = format!("gateway{i}-{n}.bin");
        match http.put(&format!("/files/{name}"), &content).await {
            Ok(answer) if answer.status == 201 => shared.stored(name, &content),
            // The master is away, or cannot reach a node just now.
            Ok(answer) if answer.status < 500 => panic!("{name}: {answer:?}"),
            refused => {
                refused.into_iter().for_each(|answer| drop(answer.error()));
                shared.budget.add_permits(1);
                tokio::time::sleep(TRY_AGAIN).await;
            }
        }
    }
}

fn through_mount(folder: &Path, runtime: &tokio::runtime::Handle, shared: &Shared) {
    for n in 0.. {
        if !runtime.block_on(shared.another()) {
            return;
        }
        let content = content(SESSIONS + GATEWAY_CLIENTS, n);
        let name = format!("mount-{n}.bin");
        let path = folder.join(&name);
        let written = File::create_new(&path).and_then(|mut file| {
            file.write_all(&content)?;
            close(file)
        });
        written.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        shared.stored(name, &content);
    }
}

/// close(2), whose error the standard library passes over.
fn close(file: File) -> std::io::Result<()> {
    // SAFETY: the descriptor was the file's alone and is not used again.
    match unsafe { libc::close(file.into_raw_fd()) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// Insists that every file is there with its content, on all of its nodes in the end, and that no other file
/// of theirs is.
pub async fn nothing_is_lost(fleet: &Fleet, acknowledged: &BTreeMap<String, Md5>) {
    let client = fleet.client().await;
    for (name, md5) in acknowledged {
        let got = client.read_md5(name).await.unwrap_or_else(|e| panic!("{name} is lost: {e}"));
        assert_eq!(got, *md5, "{name} has another content");
    }
    let listing = fleet.http().get("/files/?limit=4096").await.unwrap().json();
    assert!(listing["next"].is_null(), "more files than one page");
    let entries = listing["entries"].as_array().unwrap();
    let names: BTreeSet<&str> = entries.iter().map(|e| e["name"].as_str().unwrap()).collect();
    // An answer of the gateway may have been lost, and its file kept.
    let theirs = |name: &&str| !name.starts_with("gateway");
    let expected = acknowledged.keys().map(String::as_str).filter(theirs).collect::<BTreeSet<_>>();
    assert_eq!(names.into_iter().filter(theirs).collect::<BTreeSet<_>>(), expected);

    fleet.wait_replicated().await;
    for name in acknowledged.keys() {
        fleet.wait_whole(name).await;
    }
    // Once more: garbage has been taken away by now, and nothing else.
    for (name, md5) in acknowledged {
        let got = client.read_md5(name).await.unwrap_or_else(|e| panic!("{name} is lost later: {e}"));
        assert_eq!(got, *md5, "{name} has another content later");
    }
}
