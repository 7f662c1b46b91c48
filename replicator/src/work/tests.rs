//! The loop against nodes, books and queues in memory, on a clock that jumps to the next timer.

use super::*;
use bytes::Bytes;
use dfs_client::{FetchedBlob, PutBlob};
use dfs_proto::blob::{
    CheckReply, CopyStatus, DeleteReply, PullReply, PullRequest, VerifyReply, VerifyRequest,
};
use dfs_proto::order::{DeadLetter, Order, OrderTask};
use dfs_proto::{BlobId, BlobKey, ErrorCode, NodeId, NodeInfo, NodeState, OrderId, PutAck, Seq, VolumeId};
use dfs_queue::{MemoryQueue, QueueConfig, QueueError};
use dfs_service::Running;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Longer than any case takes on the jumping clock.
const PATIENCE: Duration = Duration::from_secs(3600);
const LEASE: Duration = Duration::from_secs(10);

pub(crate) fn order(id: u64) -> Order {
    let node = |n: u64| NodeInfo {
        id: NodeId(n),
        name: format!("sn{n}"),
        url: format!("http://sn{n}"),
        zone: String::new(),
        state: NodeState::Live,
    };
    Order {
        id: OrderId(id),
        volume: VolumeId(7),
        task: OrderTask::CatchUp(Seq(9)),
        target: node(4),
        sources: vec![node(1), node(2)],
        token: "token".into(),
        hint: "report.txt (+41 more)".into(),
    }
}

/// A target that answers by a script.
#[derive(Default)]
struct FakeNodes {
    /// What is answered for each source, one after the other; when it runs out, success.
    script: Mutex<HashMap<String, VecDeque<Result<PullReply, ClientError>>>>,
    /// What is answered after the script, instead of success.
    always: Option<ClientError>,
    /// How long each request takes.
    takes: Duration,
    calls: Mutex<Vec<(Instant, String)>>,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
}

const WHOLE: PullReply = PullReply { seq: Seq(9), records: 3, bytes: 1000 };

impl FakeNodes {
    fn failing(error: ClientError) -> FakeNodes {
        FakeNodes { always: Some(error), ..FakeNodes::default() }
    }

    fn slow(takes: Duration) -> FakeNodes {
        FakeNodes { takes, ..FakeNodes::default() }
    }

    fn answers(self, source: &str, answers: Vec<Result<PullReply, ClientError>>) -> FakeNodes {
        self.script.lock().insert(source.to_owned(), answers.into());
        self
    }

    fn sources_asked(&self) -> Vec<String> {
        self.calls.lock().iter().map(|(_, source)| source.clone()).collect()
    }

    async fn answer(&self, source: &str) -> Result<PullReply, ClientError> {
        self.calls.lock().push((Instant::now(), source.to_owned()));
        let under_way = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_under_way.fetch_max(under_way, Ordering::SeqCst);
        tokio::time::sleep(self.takes).await;
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        let scripted = self.script.lock().get_mut(source).and_then(VecDeque::pop_front);
        scripted.unwrap_or_else(|| self.always.clone().map_or(Ok(WHOLE), Err))
    }
}

#[async_trait]
impl NodeClient for FakeNodes {
    async fn pull(
        &self,
        node_url: &str,
        volume: VolumeId,
        r: &PullRequest,
        token: &str,
    ) -> Result<PullReply, ClientError> {
        assert_eq!((node_url, volume, token, r.sync), ("http://sn4", VolumeId(7), "token", false));
        self.answer(&r.source).await
    }

    async fn repair(
        &self,
        node_url: &str,
        blob: BlobId,
        source: &str,
        token: &str,
    ) -> Result<(), ClientError> {
        assert_eq!((node_url, blob.volume, token), ("http://sn4", VolumeId(7), "token"));
        self.answer(&format!("{source} blob {blob}")).await.map(drop)
    }

    async fn put(&self, _: &str, _: BlobId, _: PutBlob) -> Result<PutAck, ClientError> {
        unreachable!("a replicator stores nothing")
    }
    async fn get(&self, _: &str, _: BlobId) -> Result<FetchedBlob, ClientError> {
        unreachable!("a replicator reads nothing")
    }
    async fn get_chunks(&self, _: &str, _: BlobId, _: Range<u32>) -> Result<FetchedBlob, ClientError> {
        unreachable!("a replicator reads nothing")
    }
    async fn sync(&self, _: &str, _: VolumeId, _: Seq, _: &str) -> Result<CopyStatus, ClientError> {
        unreachable!("a replicator syncs nothing")
    }
    async fn delete(&self, _: &str, _: &[BlobId], _: &str) -> Result<DeleteReply, ClientError> {
        unreachable!("a replicator deletes nothing")
    }
    async fn verify(&self, _: &str, _: VolumeId, _: VerifyRequest) -> Result<VerifyReply, ClientError> {
        unreachable!("a replicator only copies")
    }
    async fn drop_copy(&self, _: &str, _: VolumeId, _: &str) -> Result<bool, ClientError> {
        unreachable!("a replicator only copies")
    }
    async fn check(&self, _: &str, _: BlobId) -> Result<CheckReply, ClientError> {
        unreachable!("a replicator checks nothing")
    }
    async fn log(&self, _: &str, _: VolumeId, _: Seq, _: u64) -> Result<(Seq, Bytes), ClientError> {
        unreachable!("a replicator reads nothing")
    }
    async fn record(&self, _: &str, _: BlobId) -> Result<Bytes, ClientError> {
        unreachable!("a replicator reads nothing")
    }
}

/// Books that refuse the first calls, and note how deep the queue was at each.
struct FakeBooks {
    queue: Arc<FlakyQueue>,
    away_for: AtomicU32,
    told: Mutex<Vec<(u64, FinishRequest)>>,
}

#[async_trait]
impl Books for FakeBooks {
    async fn finish(&self, request: &FinishRequest) -> Result<(), ClientError> {
        let depth = self.queue.depth().await.unwrap();
        if take_one(&self.away_for) {
            return Err(unreachable("http://master"));
        }
        self.told.lock().push((depth, request.clone()));
        Ok(())
    }
}

/// The queue in memory, with some calls that fail.
struct FlakyQueue {
    inner: MemoryQueue,
    failing_claims: AtomicU32,
    failing_settles: AtomicU32,
}

fn take_one(counter: &AtomicU32) -> bool {
    counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok()
}

fn queue_away() -> QueueError {
    QueueError::Unavailable { server: "redis:6379".into(), action: "answer", reason: "refused".into() }
}

#[async_trait]
impl RepairQueue for FlakyQueue {
    async fn push(&self, order: &Order) -> Result<(), QueueError> {
        self.inner.push(order).await
    }
    async fn claim(&self, worker: &str, max: usize, wait: Duration) -> Result<Vec<ClaimedOrder>, QueueError> {
        if take_one(&self.failing_claims) {
            return Err(queue_away());
        }
        self.inner.claim(worker, max, wait).await
    }
    async fn settle(&self, claimed: &ClaimedOrder, verdict: &Verdict) -> Result<(), QueueError> {
        if take_one(&self.failing_settles) {
            return Err(queue_away());
        }
        self.inner.settle(claimed, verdict).await
    }
    async fn depth(&self) -> Result<u64, QueueError> {
        self.inner.depth().await
    }
    async fn dead_letters(&self, max: usize) -> Result<Vec<DeadLetter>, QueueError> {
        self.inner.dead_letters(max).await
    }
}

struct Bench {
    queue: Arc<FlakyQueue>,
    books: Arc<FakeBooks>,
    outage: Arc<Outage>,
    running: Running,
}

impl Bench {
    fn new() -> Bench {
        let queue = Arc::new(FlakyQueue {
            inner: MemoryQueue::new(QueueConfig { claim_lease: LEASE, ..QueueConfig::default() }),
            failing_claims: AtomicU32::new(0),
            failing_settles: AtomicU32::new(0),
        });
        let books = FakeBooks { queue: queue.clone(), away_for: AtomicU32::new(0), told: Mutex::default() };
        Bench {
            queue,
            books: Arc::new(books),
            outage: Arc::new(Outage::new("the queue".into())),
            running: Running::new("test"),
        }
    }

    /// Starts a replicator of one's own on the shared queue.
    fn start(&self, nodes: &Arc<FakeNodes>, parallel: usize) -> tokio::task::JoinHandle<()> {
        let replicator = Arc::new(Replicator {
            nodes: nodes.clone(),
            books: self.books.clone(),
            books_outage: Arc::new(Outage::new("the master".into())),
            name: "test".into(),
            parallel,
            rules: RetryRules::default(),
        });
        let (queue, outage, stopper) = (self.queue.clone(), self.outage.clone(), self.running.stopper());
        tokio::spawn(async move { replicator.run(queue, &outage, stopper).await })
    }

    async fn push(&self, ids: impl IntoIterator<Item = u64>) {
        for id in ids {
            self.queue.push(&order(id)).await.unwrap();
        }
    }

    async fn until(&self, what: &str, condition: impl AsyncFn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition().await {
            assert!(Instant::now() < deadline, "never came: {what}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    async fn until_empty(&self) {
        self.until("an empty queue", async || self.queue.depth().await.unwrap() == 0).await;
    }

    fn outcomes(&self) -> Vec<OrderOutcome> {
        self.books.told.lock().iter().map(|(_, request)| request.outcome.clone()).collect()
    }

    async fn dead_reasons(&self) -> Vec<String> {
        self.queue.dead_letters(10).await.unwrap().into_iter().map(|l| l.reason).collect()
    }
}

fn unreachable(server: &str) -> ClientError {
    ClientError::Unreachable { server: server.into(), reason: "connection refused".into() }
}

/// What the target answers when it cannot reach its source.
fn source_away() -> ClientError {
    ClientError::local(ErrorCode::Unreachable, "the source cannot be reached")
}

fn done_from(source: u64) -> OrderOutcome {
    OrderOutcome::Done { seq: Seq(9), source: NodeId(source), bytes: 1000 }
}

#[tokio::test(start_paused = true)]
async fn a_done_order_is_reported_and_then_settled() {
    let bench = Bench::new();
    let nodes = Arc::new(FakeNodes::default());
    bench.start(&nodes, 4);
    bench.push([1]).await;
    bench.until_empty().await;
    assert_eq!(nodes.sources_asked(), ["http://sn1"]);
    let told = bench.books.told.lock().clone();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].0, 1, "it was still in the queue when the master was told");
    assert_eq!(told[0].1, FinishRequest { order: order(1), outcome: done_from(1) });
}

#[tokio::test(start_paused = true)]
async fn the_next_source_serves_when_one_cannot_be_reached_or_is_behind() {
    for answer in [Err(source_away()), Ok(PullReply { seq: Seq(8), ..WHOLE })] {
        let bench = Bench::new();
        let nodes = Arc::new(FakeNodes::default().answers("http://sn1", vec![answer]));
        bench.start(&nodes, 4);
        bench.push([1]).await;
        bench.until_empty().await;
        assert_eq!(nodes.sources_asked(), ["http://sn1", "http://sn2"]);
        assert_eq!(bench.outcomes(), [done_from(2)]);
    }
}

#[tokio::test(start_paused = true)]
async fn the_target_is_never_its_own_source() {
    let bench = Bench::new();
    let nodes = Arc::new(FakeNodes::default());
    bench.start(&nodes, 4);
    let mut order = order(1);
    order.sources.insert(0, order.target.clone());
    bench.queue.push(&order).await.unwrap();
    bench.until_empty().await;
    assert_eq!(nodes.sources_asked(), ["http://sn1"]);
}

#[tokio::test(start_paused = true)]
async fn a_repair_asks_for_the_one_blob() {
    let bench = Bench::new();
    let nodes = Arc::new(FakeNodes::default());
    bench.start(&nodes, 4);
    let repair = Order { task: OrderTask::Repair(BlobKey(5)), ..order(1) };
    bench.queue.push(&repair).await.unwrap();
    bench.until_empty().await;
    assert_eq!(nodes.sources_asked(), ["http://sn1 blob 7/5"]);
    assert_eq!(bench.outcomes(), [OrderOutcome::Done { seq: Seq(0), source: NodeId(1), bytes: 0 }]);
}

#[tokio::test(start_paused = true)]
async fn delays_grow_until_the_order_is_given_up() {
    let bench = Bench::new();
    let nodes = Arc::new(FakeNodes::failing(unreachable("http://sn4")));
    bench.start(&nodes, 4);
    bench.push([1]).await;
    bench.until_empty().await;
    assert_eq!(nodes.sources_asked(), vec!["http://sn1"; ATTEMPTS_MAX as usize], "no source helps");
    let times: Vec<Instant> = nodes.calls.lock().iter().map(|(at, _)| *at).collect();
    for (n, pair) in times.windows(2).enumerate() {
        let ceiling = Duration::from_millis(200 << n).min(Duration::from_secs(30));
        let gap = pair[1] - pair[0];
        assert!(gap >= ceiling / 2 - Duration::from_millis(1), "before retry {n}: {gap:?}");
        assert!(gap <= ceiling + Duration::from_millis(50), "before retry {n}: {gap:?}");
    }
    let reasons = bench.dead_reasons().await;
    assert_eq!(reasons.len(), 1);
    assert!(reasons[0].starts_with("12 tries failed") && reasons[0].contains("refused"), "{reasons:?}");
    assert_eq!(bench.outcomes(), [OrderOutcome::Dead { reason: reasons[0].clone() }]);
}

#[tokio::test(start_paused = true)]
async fn a_full_target_is_left_alone_for_longer() {
    let bench = Bench::new();
    let full = Err(ClientError::local(ErrorCode::NoSpace, "disk full"));
    let nodes = Arc::new(FakeNodes::default().answers("http://sn1", vec![full]));
    bench.start(&nodes, 4);
    bench.push([1]).await;
    bench.until_empty().await;
    assert_eq!(nodes.sources_asked(), ["http://sn1", "http://sn1"]);
    let calls = nodes.calls.lock().clone();
    assert!(calls[1].0 - calls[0].0 >= Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_work_is_buried_at_once_and_the_master_told() {
    for (code, asked) in [
        (ErrorCode::Unauthorized, 1),
        (ErrorCode::Sealed, 1),
        (ErrorCode::Malformed, 1),
        (ErrorCode::UnknownVolume, 2),
    ] {
        let bench = Bench::new();
        let nodes = Arc::new(FakeNodes::failing(ClientError::local(code, "no")));
        bench.start(&nodes, 4);
        bench.push([1]).await;
        bench.until_empty().await;
        assert_eq!(nodes.sources_asked().len(), asked, "{code}");
        let reasons = bench.dead_reasons().await;
        assert!(reasons.len() == 1 && reasons[0].contains(&code.to_string()), "{reasons:?}");
        assert_eq!(bench.outcomes(), [OrderOutcome::Dead { reason: reasons[0].clone() }]);
    }
}

#[tokio::test(start_paused = true)]
async fn one_hopeful_source_is_enough_for_a_retry() {
    let bench = Bench::new();
    let absent = Err(ClientError::local(ErrorCode::UnknownVolume, "no such volume"));
    let nodes = FakeNodes::default()
        .answers("http://sn1", vec![Err(source_away())])
        .answers("http://sn2", vec![absent]);
    let nodes = Arc::new(nodes);
    bench.start(&nodes, 4);
    bench.push([1]).await;
    bench.until_empty().await;
    assert_eq!(nodes.sources_asked(), ["http://sn1", "http://sn2", "http://sn1"]);
    assert_eq!(bench.outcomes(), [done_from(1)]);
}

#[tokio::test(start_paused = true)]
async fn an_order_without_sources_is_buried() {
    let bench = Bench::new();
    bench.start(&Arc::new(FakeNodes::default()), 4);
    bench.queue.push(&Order { sources: Vec::new(), ..order(1) }).await.unwrap();
    bench.until_empty().await;
    assert_eq!(bench.dead_reasons().await, ["the order names no source"]);
}

#[tokio::test(start_paused = true)]
async fn a_crashed_replicators_order_is_carried_out_by_another() {
    let bench = Bench::new();
    let hanging = Arc::new(FakeNodes::slow(PATIENCE));
    let crashing = bench.start(&hanging, 1);
    bench.push([1]).await;
    bench.until("the order in hand", async || hanging.calls.lock().len() == 1).await;
    let crashed = Instant::now();
    crashing.abort();
    let nodes = Arc::new(FakeNodes::default());
    bench.start(&nodes, 1);
    bench.until_empty().await;
    assert_eq!(bench.outcomes(), [done_from(1)]);
    assert!(crashed.elapsed() <= LEASE + Duration::from_secs(1), "{:?}", crashed.elapsed());
}

#[tokio::test(start_paused = true)]
async fn long_work_stays_with_the_replicator_that_does_it() {
    let bench = Bench::new();
    let slow = Arc::new(FakeNodes::slow(LEASE * 5));
    bench.start(&slow, 1);
    bench.push([1]).await;
    bench.until("the order in hand", async || slow.calls.lock().len() == 1).await;
    let idle = Arc::new(FakeNodes::default());
    bench.start(&idle, 1);
    bench.until_empty().await;
    assert_eq!((slow.calls.lock().len(), idle.calls.lock().len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn no_more_orders_are_in_hand_than_may_be() {
    let bench = Bench::new();
    let nodes = Arc::new(FakeNodes::slow(Duration::from_millis(100)));
    let start = Instant::now();
    bench.start(&nodes, 3);
    bench.push(1..=12).await;
    bench.until_empty().await;
    assert_eq!(nodes.calls.lock().len(), 12);
    assert_eq!(nodes.most_under_way.load(Ordering::SeqCst), 3);
    assert!(start.elapsed() < Duration::from_secs(1), "hands were idle: {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_master_that_is_away_for_a_while_is_told_later() {
    let bench = Bench::new();
    bench.books.away_for.store(5, Ordering::SeqCst);
    let nodes = Arc::new(FakeNodes::default());
    bench.start(&nodes, 1);
    bench.push([1]).await;
    bench.until_empty().await;
    assert_eq!(bench.outcomes(), [done_from(1)]);
    assert_eq!(nodes.calls.lock().len(), 1, "it was not carried out again");
}

#[tokio::test(start_paused = true)]
async fn a_master_that_stays_away_is_left_to_its_sweep() {
    let bench = Bench::new();
    bench.books.away_for.store(u32::MAX, Ordering::SeqCst);
    let start = Instant::now();
    bench.start(&Arc::new(FakeNodes::default()), 1);
    bench.push([1]).await;
    bench.until_empty().await;
    assert_eq!(bench.outcomes(), []);
    assert!(start.elapsed() >= PATIENCE_FOR_BOOKS / 2, "{:?}", start.elapsed());
    assert!(start.elapsed() <= PATIENCE_FOR_BOOKS + Duration::from_secs(1), "{:?}", start.elapsed());
}

const PATIENCE_FOR_BOOKS: Duration = super::PATIENCE;

#[tokio::test(start_paused = true)]
async fn work_goes_on_when_the_queue_is_back() {
    let bench = Bench::new();
    bench.queue.failing_claims.store(6, Ordering::SeqCst);
    bench.start(&Arc::new(FakeNodes::default()), 2);
    bench.push([1, 2]).await;
    bench.until("the outage", async || bench.outage.is_on()).await;
    bench.until_empty().await;
    assert_eq!(bench.outcomes().len(), 2);
    assert!(!bench.outage.is_on());
}

#[tokio::test(start_paused = true)]
async fn an_order_that_could_not_be_settled_comes_back() {
    let bench = Bench::new();
    // More than the patience for one order lasts; the counter is cleared once the first try has given up.
    bench.queue.failing_settles.store(u32::MAX, Ordering::SeqCst);
    let nodes = Arc::new(FakeNodes::default());
    bench.start(&nodes, 1);
    bench.push([1]).await;
    bench.until("the second try", async || nodes.calls.lock().len() == 2).await;
    bench.queue.failing_settles.store(0, Ordering::SeqCst);
    bench.until_empty().await;
}

#[tokio::test(start_paused = true)]
async fn stopping_ends_what_is_in_hand_and_takes_nothing_new() {
    let bench = Bench::new();
    let nodes = Arc::new(FakeNodes::slow(Duration::from_secs(2)));
    let task = bench.start(&nodes, 1);
    bench.push([1, 2]).await;
    bench.until("the order in hand", async || nodes.calls.lock().len() == 1).await;
    let Bench { queue, books, running, .. } = bench;
    running.stop(Duration::from_secs(1)).await;
    task.await.unwrap();
    assert_eq!(books.told.lock().len(), 1);
    assert_eq!(queue.depth().await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_idle_replicator_stops_at_once() {
    let bench = Bench::new();
    let task = bench.start(&Arc::new(FakeNodes::default()), 1);
    tokio::task::yield_now().await;
    let start = Instant::now();
    bench.running.stop(Duration::from_secs(1)).await;
    task.await.unwrap();
    assert!(start.elapsed() < CLAIM_WAIT, "{:?}", start.elapsed());
}
