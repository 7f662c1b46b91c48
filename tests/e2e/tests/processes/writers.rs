//! Clients that write all the time and remember what was acknowledged.

use dfs_e2e::{Client, Fleet, Http, PATIENCE, noise, wait_for};
use dfs_proto::Md5;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::task::JoinSet;

/// Clients with sessions.
const SESSIONS: usize = 3;

/// Clients of the gateway.
const GATEWAY_CLIENTS: usize = 1;

/// What the writers of one test have in common.
#[derive(Default)]
struct Shared {
    acknowledged: Mutex<BTreeMap<String, Md5>>,
    count: AtomicUsize,
    stop: AtomicBool,
}

/// Several clients that write files until they are told to stop.
pub struct Writers {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

impl Writers {
    /// Starts them. Those with a session have to succeed whatever happens to the servers; those of the
    /// gateway may see errors and go on with another file.
    pub async fn start(fleet: &Fleet) -> Writers {
        let shared = Arc::new(Shared::default());
        let mut tasks = JoinSet::new();
        for i in 0..SESSIONS {
            tasks.spawn(with_session(fleet.client().await, i, shared.clone()));
        }
        for i in 0..GATEWAY_CLIENTS {
            tasks.spawn(through_gateway(fleet.http(), i, shared.clone()));
        }
        Writers { shared, tasks }
    }

    /// Waits until so many more files have been acknowledged.
    pub async fn more(&mut self, count: usize) {
        let goal = self.shared.count.load(Ordering::Relaxed) + count;
        wait_for(&format!("{goal} acknowledged files"), PATIENCE, async || {
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
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        std::mem::take(&mut *self.shared.acknowledged.lock().unwrap())
    }
}

impl Shared {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn acknowledge(&self, name: String, content: &[u8]) {
        let md5 = dfs_client::checksum::md5(content);
        let before = self.acknowledged.lock().unwrap().insert(name.clone(), md5);
        assert_eq!(before, None, "{name} was acknowledged twice");
        self.count.fetch_add(1, Ordering::Relaxed);
    }
}

/// The `n`-th content of a writer: from one byte to a quarter of a megabyte.
fn content(writer: usize, n: usize) -> Vec<u8> {
    let seed = (writer * 100_000 + n) as u64;
    noise(seed, 1 + (seed.wrapping_mul(7919) % (256 << 10)) as usize)
}

async fn with_session(client: Client, i: usize, shared: Arc<Shared>) {
    for n in 0.. {
        if shared.stopped() {
            return;
        }
        let content = content(i, n);
        let name = format!("session{i}-{n}.bin");
        let stored = client.put(&name, content.clone()).await;
        let stored = stored.unwrap_or_else(|e| panic!("{name} could not be stored: {e}"));
        assert!(!stored.renamed, "{name} was there already");
        shared.acknowledge(name, &content);
    }
}

async fn through_gateway(http: Http, i: usize, shared: Arc<Shared>) {
    for n in 0.. {
        if shared.stopped() {
            return;
        }
        let content = content(SESSIONS + i, n);
        let name = format!("gateway{i}-{n}.bin");
        match http.put(&format!("/files/{name}"), &content).await {
            Ok(answer) if answer.status == 201 => shared.acknowledge(name, &content),
            // The master is away, or cannot reach a node just now.
            Ok(answer) if answer.status >= 500 => drop(answer.error()),
            Err(_) => tokio::task::yield_now().await,
            Ok(other) => panic!("{name}: {other:?}"),
        }
    }
}

/// Insists that every file is there with its content, and on all of its nodes in the end.
pub async fn nothing_is_lost(fleet: &Fleet, acknowledged: &BTreeMap<String, Md5>) {
    let client = fleet.client().await;
    for (name, md5) in acknowledged {
        let got = client.read_md5(name).await.unwrap_or_else(|e| panic!("{name} is lost: {e}"));
        assert_eq!(got, *md5, "{name} has another content");
    }
    fleet.wait_replicated().await;
    for name in acknowledged.keys() {
        fleet.wait_whole(name).await;
    }
}
