//! The whole replicator, between a master and a storage node that answer by a script over real HTTP, and a
//! real Redis.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers as well")]

use dfs_proto::blob::{PullReply, PullRequest};
use dfs_proto::order::{
    ClaimRequest, ClaimedOrder, FinishRequest, Order, OrderOutcome, OrderTask, SettleRequest, Verdict,
};
use dfs_proto::status::{ClusterStatus, ReplicationStatus};
use dfs_proto::{NodeId, NodeInfo, NodeState, OrderId, Seq, VolumeId};
use dfs_queue::conformance::RedisServer;
use dfs_queue::{RedisQueue, RepairQueue};
use dfs_replicator::Config;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(30);
const GRACE: Duration = Duration::from_secs(5);

/// Answers a path and a body with a status and a body.
type Handler = dyn Fn(&str, &[u8]) -> (u16, String) + Send + Sync;

/// An HTTP server of one thread per connection; ends when dropped.
struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    fn start(listener: TcpListener, handler: Arc<Handler>) -> Server {
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (stream, handler) = (stream.unwrap(), handler.clone());
                // A client that goes away in the middle is no concern of the server.
                std::thread::spawn(move || drop(answer(stream, &*handler)));
            }
        });
        Server { address, stop, thread: Some(thread) }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the listener.
        drop(TcpStream::connect(self.address));
        self.thread.take().map(std::thread::JoinHandle::join);
    }
}

fn answer(mut stream: TcpStream, handler: &Handler) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let (status, answer) = handler(&path, &body);
    write!(
        stream,
        "HTTP/1.1 {status} X\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{answer}",
        answer.len()
    )
}

/// What the master was asked, and what it hands out.
#[derive(Default)]
struct Master {
    orders: Mutex<VecDeque<Order>>,
    finished: Mutex<Vec<FinishRequest>>,
    settled: Mutex<Vec<SettleRequest>>,
}

impl Master {
    fn answer(&self, path: &str, body: &[u8]) -> (u16, String) {
        match path {
            "/v1/status" => (200, serde_json::to_string(&status()).unwrap()),
            "/v1/orders/claim" => {
                let request: ClaimRequest = serde_json::from_slice(body).unwrap();
                let order = if request.max == 0 { None } else { self.orders.lock().unwrap().pop_front() };
                if order.is_none() {
                    std::thread::sleep(Duration::from_millis(request.wait_ms.min(50)));
                }
                let claimed =
                    order.map(|order| ClaimedOrder { claim: format!("c{}", order.id), attempt: 1, order });
                (200, serde_json::to_string(&Vec::from_iter(claimed)).unwrap())
            }
            "/v1/orders/settle" => {
                self.settled.lock().unwrap().push(serde_json::from_slice(body).unwrap());
                (200, "{}".into())
            }
            "/v1/orders/finish" => {
                self.finished.lock().unwrap().push(serde_json::from_slice(body).unwrap());
                (200, "{}".into())
            }
            _ => (404, format!("{{\"code\":\"not_found\",\"message\":\"{path}\"}}")),
        }
    }

    fn serve(self: &Arc<Self>, listener: TcpListener) -> Server {
        let this = self.clone();
        Server::start(listener, Arc::new(move |path, body| this.answer(path, body)))
    }
}

fn status() -> ClusterStatus {
    ClusterStatus {
        cluster: "c1".into(),
        version: "0".into(),
        nodes: Vec::new(),
        replicas: 2,
        files: 0,
        directories: 1,
        file_bytes: 0,
        volumes: 1,
        replication: ReplicationStatus::default(),
        sessions: 0,
        locks: 0,
        lock_waiters: 0,
    }
}

/// A target that always succeeds.
fn storage_node() -> Server {
    let handler = |path: &str, body: &[u8]| {
        assert_eq!(path, "/v1/volumes/7/pull");
        let request: PullRequest = serde_json::from_slice(body).unwrap();
        let reply = PullReply { seq: request.at_least, records: 1, bytes: 2048 };
        (200, serde_json::to_string(&reply).unwrap())
    };
    Server::start(listener(), Arc::new(handler))
}

fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").unwrap()
}

fn order(id: u64, target: &Server) -> Order {
    let node = |n: u64, url: String| NodeInfo {
        id: NodeId(n),
        name: format!("sn{n}"),
        url,
        zone: String::new(),
        state: NodeState::Live,
    };
    Order {
        id: OrderId(id),
        volume: VolumeId(7),
        task: OrderTask::CatchUp(Seq(3)),
        target: node(4, target.url()),
        sources: vec![node(1, "http://127.0.0.1:1".into())],
        token: "t".into(),
        hint: "a.txt".into(),
    }
}

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn done() -> OrderOutcome {
    OrderOutcome::Done { seq: Seq(3), source: NodeId(1), bytes: 2048 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_come_from_the_master_and_go_back_to_it() {
    let target = storage_node();
    let master = Arc::new(Master::default());
    master.orders.lock().unwrap().extend([order(1, &target), order(2, &target)]);
    let server = master.serve(listener());
    let running = dfs_replicator::start(Config::new(server.url())).await.unwrap();
    until("two settled orders", async || master.settled.lock().unwrap().len() == 2).await;
    running.stop(GRACE).await;
    let finished = master.finished.lock().unwrap();
    assert!(finished.iter().all(|f| f.outcome == done()), "{finished:?}");
    assert_eq!(finished.len(), 2);
    let mut settled = master.settled.lock().unwrap().clone();
    settled.sort_by(|a, b| a.claim.cmp(&b.claim));
    let expected = ["c1", "c2"].map(|claim| SettleRequest { claim: claim.into(), verdict: Verdict::Done });
    assert_eq!(settled, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replicator_waits_for_master_and_redis_and_outlives_both() {
    let mut redis = RedisServer::stopped();
    let reserved = listener();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    let config = Config { redis: Some(redis.url()), ..Config::new(address.to_string()) };
    let running = dfs_replicator::start(config).await.unwrap();

    let target = storage_node();
    let master = Arc::new(Master::default());
    let server = master.serve(TcpListener::bind(address).unwrap());
    redis.resume();
    let queue = RedisQueue::new(&redis.url(), "c1").unwrap();
    queue.push(&order(1, &target)).await.unwrap();
    until("the first order", async || master.finished.lock().unwrap().len() == 1).await;

    redis.kill();
    redis.resume();
    redis.cli(&["FLUSHALL"]);
    until("an order after the restart", async || {
        // The connection of this test may be found broken once more.
        let _ = queue.push(&order(2, &target)).await;
        master.finished.lock().unwrap().iter().any(|f| f.order.id == OrderId(2))
    })
    .await;
    until("an empty queue", async || queue.depth().await.is_ok_and(|depth| depth == 0)).await;
    running.stop(GRACE).await;
    assert!(master.finished.lock().unwrap().iter().all(|f| f.outcome == done()));
    assert!(master.settled.lock().unwrap().is_empty(), "claims in Redis are settled there");
    drop(server);
}

#[tokio::test]
async fn a_replicator_that_waits_for_its_servers_stops_at_once() {
    for redis in [None, Some("redis://127.0.0.1:1".to_owned())] {
        let config = Config { redis, ..Config::new("127.0.0.1:1") };
        let running = dfs_replicator::start(config).await.unwrap();
        let start = Instant::now();
        running.stop(PATIENCE).await;
        assert!(start.elapsed() < GRACE, "{:?}", start.elapsed());
    }
}

#[tokio::test]
async fn addresses_that_make_no_sense_are_refused() {
    let bad_redis = Config { redis: Some("http://x".into()), ..Config::new("master") };
    for (config, named) in [(Config::new("ftp://x"), "ftp"), (bad_redis, "redis://HOST:PORT")] {
        let e = dfs_replicator::start(config).await.unwrap_err();
        assert!(format!("{e:#}").contains(named), "{e:#}");
    }
}
