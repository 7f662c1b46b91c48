//! A master on a free port with a clock that the test moves, a plain HTTP client, and nodes that only talk.

// Each test binary uses a part of this.
#![allow(dead_code)]

use dfs_master::{Config, SharedClock};
use dfs_proto::blob::CopyStatus;
use dfs_proto::meta::{
    ClusterOp, Collision, Commit, CommitSize, Committed, Create, MetaCall, ReadOp, SessionReply,
    SessionRequest, WriteOp,
};
use dfs_proto::node::{Grant, HeartbeatReply, HeartbeatRequest, RegisterReply, RegisterRequest};
use dfs_proto::order::{ClaimRequest, ClaimedOrder, FinishRequest, OrderOutcome, SettleRequest, Verdict};
use dfs_proto::status::ClusterStatus;
use dfs_proto::{
    Attr, BlobId, BlobRef, CollisionPolicy, Extent, Ino, Md5, MetaOp, MetaReply, MetaRequest, MetaResponse,
    Name, NodeId, Seq, SessionId, VolumeId, WireError,
};
use dfs_service::{ManualClock, Running};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub const DEADLINE: Duration = Duration::from_secs(20);
pub const GIB: u64 = 1 << 30;

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {} {}", self.status, String::from_utf8_lossy(&self.body)))
    }

    pub fn error(&self) -> WireError {
        assert!(self.status >= 400, "{self:?}");
        self.json()
    }

    pub fn header(&self, name: &str) -> Option<String> {
        let of = |line: &str| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        };
        self.head.lines().find_map(of)
    }
}

/// One request on a connection of its own.
pub async fn request(
    at: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
        head += &format!("content-length: {}\r\n", body.len());
    }
    headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    head += "\r\n";
    let body = body.to_vec();
    tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        // A server that has seen enough may close before it has read everything.
        let _ = stream.write_all(&body);
        let mut raw = Vec::new();
        stream.read_to_end(&mut raw).unwrap();
        parse(&raw)
    })
    .await
    .unwrap()
}

fn parse(raw: &[u8]) -> Answer {
    let end = raw.windows(4).position(|w| w == b"\r\n\r\n").expect("an answer has a head");
    let head = String::from_utf8(raw[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: raw[end + 4..].to_vec() }
}

/// Asks until the answer is `Some`.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut probe: impl FnMut() -> F) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(Instant::now() < end, "{what}: not within {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A master that can be stopped and started again on its data.
pub struct Harness {
    pub dir: TempDir,
    pub clock: Arc<ManualClock>,
    pub config: Config,
    pub at: SocketAddr,
    running: Option<Running>,
}

impl Harness {
    pub async fn start() -> Harness {
        Harness::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Harness {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::default());
        clock.advance_ms(1_700_000_000_000);
        let mut config = Config::new(dir.path());
        config.clock = SharedClock(clock.clone());
        config.sweep_ms = 20;
        config.order_tick_ms = 5;
        // The clock stands still.
        config.order_pace_ms = 0;
        change(&mut config);
        let mut harness = Harness { dir, clock, config, at: "0.0.0.0:0".parse().unwrap(), running: None };
        harness.run().await;
        harness
    }

    async fn run(&mut self) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        self.at = listener.local_addr().unwrap();
        self.running = Some(dfs_master::start(self.config.clone(), listener).await.unwrap());
    }

    pub async fn restart(&mut self) {
        self.stop().await;
        self.run().await;
    }

    pub async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop(Duration::from_secs(5)).await;
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        request(self.at, "GET", path, &[], &[]).await
    }

    pub async fn post<T: Serialize>(&self, path: &str, body: &T) -> Answer {
        let body = serde_json::to_vec(body).unwrap();
        request(self.at, "POST", path, &[("content-type", "application/json")], &body).await
    }

    pub async fn status(&self) -> ClusterStatus {
        let answer = self.get("/v1/status").await;
        assert_eq!(answer.status, 200);
        answer.json()
    }

    pub async fn session(&self, client: &str) -> SessionId {
        let answer = self.post("/v1/sessions", &SessionRequest { client: client.into() }).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json::<SessionReply>().session
    }

    pub async fn batch(&self, session: Option<SessionId>, acked_below: u64, calls: Vec<MetaCall>) -> Answer {
        self.post("/v1/meta", &MetaRequest { session, acked_below, calls }).await
    }

    pub async fn call(
        &self,
        session: Option<SessionId>,
        seq: u64,
        op: MetaOp,
    ) -> Result<MetaReply, WireError> {
        let answer = self.batch(session, 0, vec![MetaCall { seq, op }]).await;
        if answer.status != 200 {
            return Err(answer.error());
        }
        answer.json::<MetaResponse>().results.pop().unwrap()
    }

    pub async fn commit(&self, session: SessionId, seq: u64, commit: Commit) -> Result<Committed, WireError> {
        match self.call(Some(session), seq, MetaOp::Write(WriteOp::Commit(commit))).await? {
            MetaReply::Committed(committed) => Ok(committed),
            other => panic!("not a commit: {other:?}"),
        }
    }

    pub async fn grants(
        &self,
        session: SessionId,
        count: u32,
        avoid: Vec<NodeId>,
    ) -> Result<Vec<Grant>, WireError> {
        let op = MetaOp::Cluster(ClusterOp::Grants { count, avoid });
        match self.call(Some(session), 0, op).await? {
            MetaReply::Grants(grants) => Ok(grants),
            other => panic!("no grants: {other:?}"),
        }
    }

    pub async fn lookup(&self, name: &str) -> Result<Attr, WireError> {
        let op = ReadOp::Lookup { parent: Ino::ROOT, name: Name::new(name).unwrap() };
        match self.call(None, 0, MetaOp::Read(op)).await? {
            MetaReply::Attr(attr) => Ok(attr),
            other => panic!("no attributes: {other:?}"),
        }
    }

    pub async fn claim(&self) -> Vec<ClaimedOrder> {
        let claim = ClaimRequest { worker: "w".into(), max: 100, wait_ms: 0 };
        let answer = self.post("/v1/orders/claim", &claim).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// Claims until there is an order that `wanted` takes.
    pub async fn claim_until(&self, wanted: impl Fn(&ClaimedOrder) -> bool) -> ClaimedOrder {
        let wanted = &wanted;
        eventually("an order", || async move { self.claim().await.into_iter().find(wanted) }).await
    }

    pub async fn settle(&self, claimed: &ClaimedOrder) {
        let settle = SettleRequest { claim: claimed.claim.clone(), verdict: Verdict::Done };
        assert_eq!(self.post("/v1/orders/settle", &settle).await.status, 204);
    }

    /// What a replicator does for an order that it has carried out.
    pub async fn finish(&self, claimed: &ClaimedOrder, seq: Seq) {
        let outcome = OrderOutcome::Done { seq, source: claimed.order.sources[0].id, bytes: 1 };
        let finish = FinishRequest { order: claimed.order.clone(), outcome };
        assert_eq!(self.post("/v1/orders/finish", &finish).await.status, 204);
        self.settle(claimed).await;
    }
}

/// A node that registers and beats, and has no bytes.
#[derive(Clone, Debug)]
pub struct FakeNode {
    pub register: RegisterRequest,
    pub reply: RegisterReply,
}

pub fn registration(uuid: &str) -> RegisterRequest {
    RegisterRequest {
        uuid: uuid.into(),
        incarnation: 1,
        name: String::new(),
        url: format!("http://{uuid}:5000"),
        zone: String::new(),
        cluster: String::new(),
        cluster_key: String::new(),
        capacity_bytes: 100 * GIB,
        free_bytes: 50 * GIB,
        used_bytes: GIB,
        copies: Vec::new(),
    }
}

impl FakeNode {
    pub async fn join(h: &Harness, uuid: &str) -> FakeNode {
        FakeNode::join_as(h, registration(uuid)).await
    }

    pub async fn join_as(h: &Harness, register: RegisterRequest) -> FakeNode {
        let answer = h.post("/v1/nodes/register", &register).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        FakeNode { register, reply: answer.json() }
    }

    pub fn id(&self) -> NodeId {
        self.reply.node
    }

    pub async fn beat_with(&self, h: &Harness, copies: Vec<CopyStatus>, bad_blobs: Vec<BlobId>) -> Answer {
        let beat = HeartbeatRequest {
            scrub: Default::default(),
            incarnation: self.register.incarnation,
            capacity_bytes: self.register.capacity_bytes,
            free_bytes: self.register.free_bytes,
            used_bytes: self.register.used_bytes,
            copies,
            bad_blobs,
        };
        h.post(&format!("/v1/nodes/{}/heartbeat", self.id()), &beat).await
    }

    pub async fn beat(&self, h: &Harness) -> HeartbeatReply {
        let answer = self.beat_with(h, vec![], vec![]).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }
}

/// A commit of a new file in the root with one blob of `bytes` bytes.
pub fn new_file(name: &str, blob: Option<BlobRef>) -> Commit {
    let length = blob.map_or(0, |b| u64::from(b.length));
    let extent = |blob: BlobRef| Extent { offset: 0, length, blob: Some(blob), blob_offset: 0 };
    Commit {
        ino: Ino(0),
        create: Some(Create {
            parent: Ino::ROOT,
            name: Name::new(name).unwrap(),
            mode: 0o644,
            umask: 0,
            uid: 0,
            gid: 0,
            born: None,
            collision: Collision::Default(CollisionPolicy::Rename),
        }),
        truncate_to: None,
        extents: blob.map(extent).into_iter().collect(),
        size: CommitSize::Exactly(length),
        append_from: None,
        mtime: None,
        ctime: None,
        md5: None,
        locked_by: None,
        durable: false,
    }
}

/// The blob that the grant's first key would name.
pub fn blob(grant: &Grant, seq: u64) -> BlobRef {
    let id = BlobId { volume: grant.volume.id, key: grant.first_key };
    BlobRef { id, seq: Seq(seq), length: 4096, md5: Md5([7; 16]) }
}

pub fn copy(volume: VolumeId, seq: u64) -> CopyStatus {
    CopyStatus { volume, seq: Seq(seq), bytes: seq * 4096, blobs: seq }
}

/// Lines of an endless answer, one by one.
pub struct Lines(BufReader<TcpStream>);

impl Lines {
    pub fn open(at: SocketAddr, path: &str) -> Lines {
        let mut stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {at}\r\n\r\n").unwrap();
        let mut lines = Lines(BufReader::new(stream));
        assert!(lines.line().starts_with("HTTP/1.1 200"));
        while !lines.line().is_empty() {}
        lines
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.0.read_line(&mut line).unwrap() > 0, "the stream ended");
        line.trim_end().to_owned()
    }

    /// The next line of JSON; the frame of chunks is passed over.
    pub fn next<T: DeserializeOwned>(&mut self) -> T {
        loop {
            let line = self.line();
            if line.starts_with('{') {
                return serde_json::from_str(&line).unwrap();
            }
        }
    }
}
