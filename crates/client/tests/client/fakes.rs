//! A cluster in memory: a master that keeps one file, and nodes that fail on demand.

use async_trait::async_trait;
use bytes::Bytes;
use dfs_client::checksum::{crc32c_chunks, md5};
use dfs_client::{Blobs, BlobsConfig, ClientError, FetchedBlob, MetaClient, NodeClient, PutBlob};
use dfs_proto::blob::{
    CheckReply, CopyStatus, DeleteReply, PullReply, PullRequest, VerifyReply, VerifyRequest, chunks_of,
};
use dfs_proto::local::LocalSocket;
use dfs_proto::meta::{
    ClusterOp, Commit, Committed, CopyProblem, ExtentPage, Members, Opened, ReadOp, WriteOp,
};
use dfs_proto::node::CopyInfo;
use dfs_proto::{
    Attr, BlobId, BlobKey, CHUNK_BYTES, ErrorCode, Extent, FileKind, Grant, Ino, Md5, MetaOp, MetaReply,
    Name, NodeId, NodeInfo, NodeState, PutAck, Seq, Timestamp, Version, VolumeId, VolumeInfo,
};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

pub const FILE: Ino = Ino(7);

/// What a node does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answers this.
    Refuses(ErrorCode),
    /// Does not listen.
    Away,
    /// Never answers.
    Hangs,
    /// Answers after so many milliseconds.
    Slow(u64),
    /// Sends one bit wrong.
    Flips,
    /// Sends all but the last byte.
    CutsShort,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub what: &'static str,
    pub node: u64,
    pub blob: Option<BlobId>,
}

struct Stored {
    data: Bytes,
    md5: Md5,
    seq: Seq,
}

/// Nodes `http://1`, `http://2`, ... Each is the primary of the volume with its number.
#[derive(Default)]
pub struct Nodes {
    faults: Mutex<HashMap<u64, Fault>>,
    blobs: Mutex<HashMap<(u64, BlobId), Stored>>,
    last_seq: Mutex<HashMap<(u64, VolumeId), u64>>,
    calls: Mutex<Vec<Call>>,
    running: AtomicUsize,
    pub most_running: AtomicUsize,
    /// Each request takes so long.
    pub delay_ms: AtomicU64,
    /// Where nodes listen for readers on their host.
    pub sockets: Mutex<HashMap<u64, LocalSocket>>,
}

pub fn url(node: u64) -> String {
    format!("http://{node}")
}

fn number(url: &str) -> u64 {
    url.strip_prefix("http://").and_then(|n| n.parse().ok()).expect("an address of a fake node")
}

impl Nodes {
    pub fn set(&self, node: u64, fault: impl Into<Option<Fault>>) {
        match fault.into() {
            Some(fault) => self.faults.lock().insert(node, fault),
            None => self.faults.lock().remove(&node),
        };
    }

    /// The requests so far; forgets them.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock())
    }

    pub fn reach(&self, node: u64, volume: VolumeId) -> Seq {
        Seq(self.last_seq.lock().get(&(node, volume)).copied().unwrap_or(0))
    }

    /// Copies all that `from` has of `volume` to `to`.
    pub fn replicate(&self, volume: VolumeId, from: u64, to: u64) {
        let mut blobs = self.blobs.lock();
        let copies: Vec<_> = blobs
            .iter()
            .filter(|((node, id), _)| *node == from && id.volume == volume)
            .map(|((_, id), s)| ((to, *id), Stored { data: s.data.clone(), md5: s.md5, seq: s.seq }))
            .collect();
        blobs.extend(copies);
        let reach = self.reach(from, volume);
        self.last_seq.lock().insert((to, volume), reach.0);
    }

    pub fn holds(&self, node: u64, blob: BlobId) -> bool {
        self.blobs.lock().contains_key(&(node, blob))
    }

    async fn begin(&self, what: &'static str, node: u64, blob: Option<BlobId>) -> Result<(), ClientError> {
        self.calls.lock().push(Call { what, node, blob });
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_running.fetch_max(running, Ordering::SeqCst);
        let fault = self.faults.lock().get(&node).copied();
        let delay = self.delay_ms.load(Ordering::SeqCst);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        let result = match fault {
            Some(Fault::Refuses(code)) => Err(ClientError::local(code, "as the test wants it")),
            Some(Fault::Away) => {
                Err(ClientError::Unreachable { server: url(node), reason: "connection refused".into() })
            }
            Some(Fault::Hangs) => std::future::pending().await,
            Some(Fault::Slow(ms)) => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                Ok(())
            }
            Some(Fault::Flips | Fault::CutsShort) | None => Ok(()),
        };
        self.running.fetch_sub(1, Ordering::SeqCst);
        result
    }

    fn fetch(&self, node: u64, blob: BlobId, range: Range<usize>) -> Result<FetchedBlob, ClientError> {
        let blobs = self.blobs.lock();
        let missing = || ClientError::local(ErrorCode::NotFound, format!("no blob {blob}"));
        let stored = blobs.get(&(node, blob)).ok_or_else(missing)?;
        let range = range.start..range.end.min(stored.data.len());
        let mut data = stored.data.slice(range.clone());
        let crc32c = crc32c_chunks(&data);
        match self.faults.lock().get(&node) {
            Some(Fault::Flips) => {
                let mut bytes = data.to_vec();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 0x10;
                data = bytes.into();
            }
            Some(Fault::CutsShort) => data.truncate(data.len() - 1),
            _ => {}
        }
        let first_chunk = (range.start / CHUNK_BYTES) as u32;
        Ok(FetchedBlob { data, first_chunk, crc32c, md5: stored.md5, seq: stored.seq })
    }
}

#[async_trait]
impl NodeClient for Nodes {
    async fn put(&self, node_url: &str, blob: BlobId, put: PutBlob) -> Result<PutAck, ClientError> {
        let node = number(node_url);
        self.begin("put", node, Some(blob)).await?;
        assert_eq!(put.token, format!("token-{node}"));
        assert_eq!((md5(&put.data), put.crc32c.len()), (put.md5, chunks_of(put.data.len())));
        let seq = {
            let mut last = self.last_seq.lock();
            let last = last.entry((node, blob.volume)).or_default();
            *last += 1;
            Seq(*last)
        };
        let stored = Stored { data: put.data, md5: put.md5, seq };
        assert!(self.blobs.lock().insert((node, blob), stored).is_none(), "key of {blob} used twice");
        Ok(PutAck { node: NodeId(node), seq, synced: put.sync })
    }

    async fn local_socket(&self, node_url: &str) -> Result<LocalSocket, ClientError> {
        let socket = self.sockets.lock().get(&number(node_url)).cloned();
        socket.ok_or_else(|| ClientError::local(ErrorCode::NotFound, "no socket"))
    }

    async fn get(&self, node_url: &str, blob: BlobId) -> Result<FetchedBlob, ClientError> {
        self.begin("get", number(node_url), Some(blob)).await?;
        self.fetch(number(node_url), blob, 0..usize::MAX)
    }

    async fn get_chunks(
        &self,
        node_url: &str,
        blob: BlobId,
        chunks: Range<u32>,
    ) -> Result<FetchedBlob, ClientError> {
        self.begin("get_chunks", number(node_url), Some(blob)).await?;
        let range = chunks.start as usize * CHUNK_BYTES..chunks.end as usize * CHUNK_BYTES;
        self.fetch(number(node_url), blob, range)
    }

    async fn pull(
        &self,
        node_url: &str,
        volume: VolumeId,
        r: &PullRequest,
        _token: &str,
    ) -> Result<PullReply, ClientError> {
        let node = number(node_url);
        self.begin("pull", node, None).await?;
        self.replicate(volume, number(&r.source), node);
        Ok(PullReply { seq: self.reach(node, volume), records: 1, bytes: 1 })
    }

    async fn sync(
        &self,
        node_url: &str,
        volume: VolumeId,
        at_least: Seq,
        _token: &str,
    ) -> Result<CopyStatus, ClientError> {
        let node = number(node_url);
        self.begin("sync", node, None).await?;
        let seq = self.reach(node, volume);
        if seq < at_least {
            return Err(ClientError::local(ErrorCode::Unavailable, "this copy is behind"));
        }
        Ok(CopyStatus { volume, seq, bytes: 0, blobs: 0 })
    }

    async fn repair(&self, _: &str, _: BlobId, _: &str, _: &str) -> Result<(), ClientError> {
        unreachable!("blobs are not repaired by clients")
    }

    async fn delete(&self, _: &str, _: &[BlobId], _: &str) -> Result<DeleteReply, ClientError> {
        unreachable!("blobs are not deleted by clients")
    }

    async fn verify(&self, _: &str, _: VolumeId, _: VerifyRequest) -> Result<VerifyReply, ClientError> {
        unreachable!("clients neither verify nor drop copies")
    }
    async fn drop_copy(&self, _: &str, _: VolumeId, _: &str) -> Result<bool, ClientError> {
        unreachable!("clients neither verify nor drop copies")
    }
    async fn check(&self, _: &str, _: BlobId) -> Result<CheckReply, ClientError> {
        unreachable!("blobs are not checked by clients")
    }

    async fn log(&self, _: &str, _: VolumeId, _: Seq, _: u64) -> Result<(Seq, Bytes), ClientError> {
        unreachable!("logs are not read by clients")
    }

    async fn record(&self, _: &str, _: BlobId) -> Result<Bytes, ClientError> {
        unreachable!("records are not read by clients")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadCopy {
    pub blob: BlobId,
    pub node: u64,
    pub problem: CopyProblem,
}

/// A master of `count` nodes. Volume N has the primary N and the member N + 1 (the last one has 1).
pub struct Master {
    count: u64,
    nodes: Arc<Nodes>,
    next_key: AtomicU64,
    /// Copies of which the master believes that they reach nothing.
    pub thinks_behind: Mutex<HashSet<u64>>,
    pub bad_copies: Mutex<Vec<BadCopy>>,
    pub commits: Mutex<Vec<Commit>>,
    pub file: Mutex<Vec<Extent>>,
    pub file_version: AtomicU64,
    pub page_extents: AtomicUsize,
    pub closes: AtomicUsize,
    pub volumes_asked: AtomicUsize,
    /// The next so many requests for grants are answered `no_nodes`.
    pub refuse_grants: AtomicUsize,
    pub taken_name: Mutex<Option<Name>>,
}

pub struct Cluster {
    pub master: Arc<Master>,
    pub nodes: Arc<Nodes>,
    pub blobs: Arc<Blobs>,
}

/// Short times, so that giving up does not take long.
pub fn config() -> BlobsConfig {
    BlobsConfig {
        put_deadline: Duration::from_secs(3),
        put_try: Duration::from_millis(500),
        get_try: Duration::from_secs(2),
        hedge_delay: Duration::from_millis(300),
        get_patience: Duration::ZERO,
        durable_deadline: Duration::from_secs(5),
        durable_try: Duration::from_secs(1),
        ..BlobsConfig::default()
    }
}

pub fn cluster(count: u64) -> Cluster {
    let nodes = Arc::new(Nodes::default());
    let master = Arc::new(Master {
        count,
        nodes: nodes.clone(),
        next_key: AtomicU64::new(1),
        thinks_behind: Mutex::default(),
        bad_copies: Mutex::default(),
        commits: Mutex::default(),
        file: Mutex::default(),
        file_version: AtomicU64::new(1),
        page_extents: AtomicUsize::new(4096),
        closes: AtomicUsize::new(0),
        volumes_asked: AtomicUsize::new(0),
        refuse_grants: AtomicUsize::new(0),
        taken_name: Mutex::default(),
    });
    let blobs = Blobs::new(master.clone(), nodes.clone(), config());
    Cluster { master, nodes, blobs }
}

impl Master {
    fn volume(&self, id: VolumeId) -> VolumeInfo {
        let copy = |node: u64| {
            let info = NodeInfo {
                id: NodeId(node),
                name: format!("sn{node}"),
                url: url(node),
                zone: String::new(),
                state: NodeState::Live,
            };
            let is_behind = self.thinks_behind.lock().contains(&node);
            CopyInfo { node: info, seq: if is_behind { Seq(0) } else { self.nodes.reach(node, id) } }
        };
        let mut copies = vec![copy(id.0)];
        if self.count > 1 {
            copies.push(copy(id.0 % self.count + 1));
        }
        VolumeInfo { id, seq: self.nodes.reach(id.0, id), open: true, copies }
    }

    fn grants(&self, avoid: &[NodeId]) -> Vec<Grant> {
        let grant = |node: u64| Grant {
            volume: self.volume(VolumeId(node)),
            first_key: BlobKey(self.next_key.fetch_add(64, Ordering::SeqCst)),
            keys: 64,
            ttl_ms: 60_000,
            token: format!("token-{node}"),
        };
        let fit = |node: &u64| !avoid.contains(&NodeId(*node));
        let grants: Vec<_> = (1..=self.count).filter(fit).map(grant).collect();
        if grants.is_empty() { (1..=self.count).map(grant).collect() } else { grants }
    }

    fn attr(&self) -> Attr {
        let size = self.file.lock().iter().map(Extent::end).max().unwrap_or(0);
        let now = Timestamp { secs: 1, nanos: 0 };
        Attr {
            ino: FILE,
            kind: FileKind::File,
            mode: 0o644,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size,
            allocated: size,
            atime: now,
            mtime: now,
            ctime: now,
            btime: now,
            version: Version(self.file_version.load(Ordering::SeqCst)),
            parent: Ino(0),
            collision: None,
            has_acl: false,
        }
    }

    fn page(&self, from: u64) -> ExtentPage {
        let limit = self.page_extents.load(Ordering::SeqCst);
        let extents: Vec<_> = self.file.lock().iter().filter(|e| e.end() > from).copied().collect();
        let end = extents.len() <= limit;
        let version = Version(self.file_version.load(Ordering::SeqCst));
        ExtentPage { version, extents: extents.into_iter().take(limit).collect(), end, volumes: vec![] }
    }

    fn read(&self, op: ReadOp) -> Result<MetaReply, ClientError> {
        match op {
            ReadOp::Lookup { name, .. } if self.taken_name.lock().as_ref() == Some(&name) => {
                Ok(MetaReply::Attr(self.attr()))
            }
            ReadOp::Lookup { .. } => Err(ClientError::local(ErrorCode::NotFound, "no such entry")),
            ReadOp::Open { .. } => {
                Ok(MetaReply::Opened(Opened { attr: self.attr(), extents: Some(self.page(0)), md5: None }))
            }
            ReadOp::Extents { from, .. } => Ok(MetaReply::Extents(self.page(from))),
            other => panic!("not for this fake: {other:?}"),
        }
    }

    fn cluster(&self, op: ClusterOp) -> Result<MetaReply, ClientError> {
        match op {
            ClusterOp::Grants { avoid, .. } => {
                let refuse = |n: usize| n.checked_sub(1);
                if self.refuse_grants.fetch_update(Ordering::SeqCst, Ordering::SeqCst, refuse).is_ok() {
                    return Err(ClientError::local(ErrorCode::NoNodes, "no node yet"));
                }
                Ok(MetaReply::Grants(self.grants(&avoid)))
            }
            ClusterOp::Volumes { ids } => {
                self.volumes_asked.fetch_add(1, Ordering::SeqCst);
                Ok(MetaReply::Volumes(ids.into_iter().map(|id| self.volume(id)).collect()))
            }
            ClusterOp::BadCopy { blob, node, problem } => {
                self.bad_copies.lock().push(BadCopy { blob, node: node.0, problem });
                Ok(MetaReply::Done)
            }
            ClusterOp::Members { volume, failed } => {
                let mut volume = self.volume(volume);
                // A member that failed is replaced by the node after it, as the master does.
                if let Some(copy) = volume.copies.get_mut(1)
                    && failed.contains(&copy.node.id)
                {
                    let next = copy.node.id.0 % self.count + 1;
                    *copy = self.volume(VolumeId(next)).copies[0].clone();
                    copy.seq = Seq(0);
                }
                let needed = self.count.min(2) as u32;
                Ok(MetaReply::Members(Members { volume, needed, token: "sync".into() }))
            }
            ClusterOp::Close { count, .. } => {
                self.closes.fetch_add(count as usize, Ordering::SeqCst);
                Ok(MetaReply::Done)
            }
            other => panic!("not for this fake: {other:?}"),
        }
    }
}

#[async_trait]
impl MetaClient for Master {
    async fn call(&self, op: MetaOp) -> Result<MetaReply, ClientError> {
        match op {
            MetaOp::Read(op) => self.read(op),
            MetaOp::Cluster(op) => self.cluster(op),
            MetaOp::Write(WriteOp::Commit(commit)) => {
                *self.file.lock() = commit.extents.clone();
                self.commits.lock().push(commit);
                Ok(MetaReply::Committed(Committed { attr: self.attr(), stored_as: None, appended_by: 0 }))
            }
            MetaOp::Write(other) => panic!("not for this fake: {other:?}"),
        }
    }
}

/// Bytes that differ from place to place.
pub fn content(length: usize) -> Bytes {
    (0..length).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect::<Vec<_>>().into()
}
