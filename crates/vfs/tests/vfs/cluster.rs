//! A cluster in memory: the real namespace over the reference store, and blobs in a map. No network, no
//! kernel, no clock but the system's.

use async_trait::async_trait;
use bytes::Bytes;
use dfs_client::checksum::{self, Sums};
use dfs_client::{ClientError, DataClient, EventHandler, MetaClient};
use dfs_metastore::{Durability, ReadTxn, Store, StoreError};
use dfs_namespace::{OpError, WriteContext};
use dfs_proto::meta::{ClusterOp, InodeRange, ReadOp, Space, VolumeReach, WriteOp};
use dfs_proto::{
    Attr, BlobId, BlobKey, BlobOrigin, BlobRef, CHUNK_BYTES, ErrorCode, Event, EventCursor, EventKind, Ino,
    Md5, MetaOp, MetaReply, Seq, SessionId, Timestamp, VolumeId, VolumeInfo, WireError,
};
use dfs_vfs::{Caller, OpenFlags, Vfs, VfsConfig};
use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

pub const CALLER: Caller = Caller { uid: 1000, gid: 1000, pid: 1, umask: 0o022 };
pub const READ: OpenFlags = OpenFlags {
    read: true,
    write: false,
    append: false,
    truncate: false,
    exclusive: false,
    no_atime: false,
    execute: false,
};
pub const WRITE: OpenFlags = OpenFlags { read: false, write: true, ..READ };
pub const READ_WRITE: OpenFlags = OpenFlags { write: true, ..READ };
/// What `>` of a shell does; with O_CREAT a whole new file.
pub const TRUNCATE: OpenFlags = OpenFlags { truncate: true, ..WRITE };
/// The same to read as well (`w+` of fopen(3)).
pub const TRUNCATE_READ: OpenFlags = OpenFlags { read: true, ..TRUNCATE };
pub const APPEND: OpenFlags = OpenFlags { append: true, ..WRITE };

/// Room that the nodes say they have.
pub const FREE_BYTES: u64 = 1 << 40;

/// What is to happen at some moment.
type Happens = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A mount, and what is on its way to it.
struct Mount {
    id: u64,
    vfs: Weak<Vfs>,
    is_down: bool,
    waiting: VecDeque<Event>,
}

pub struct Cluster {
    store: Store,
    blobs: Mutex<HashMap<BlobId, Bytes>>,
    next: AtomicU64,
    opens: Mutex<HashMap<Ino, u32>>,
    mounts: Mutex<Vec<Mount>>,
    /// How many events there have been.
    events: AtomicU64,
    /// Whether events wait until they are delivered by the test.
    holds_events: AtomicBool,
    /// Calls of the master so far, by what they were.
    pub calls: Mutex<HashMap<&'static str, usize>>,
    /// See [`Cluster::before_the_answer`].
    meanwhile: Mutex<Option<(&'static str, Happens)>>,
    /// Whole blobs fetched so far.
    pub gets: AtomicUsize,
    /// Bytes that nodes were asked for so far; ranges are served in whole chunks.
    pub asked_bytes: AtomicU64,
    /// Bytes that the cluster can still take.
    pub free_bytes: AtomicU64,
    /// By how much the master's clock is ahead of that of the mounts, s.
    pub clock_ahead_s: AtomicI64,
    /// How many of the next puts fail.
    pub failing_puts: AtomicUsize,
    /// What was asked to be durable.
    pub durable: Mutex<Vec<VolumeReach>>,
}

impl Cluster {
    pub async fn new() -> Arc<Cluster> {
        let store = Store::in_memory();
        store
            .write(Durability::Process, |txn| dfs_namespace::initialise(txn, Timestamp::now()))
            .await
            .expect("the root can be made");
        Arc::new(Cluster {
            store,
            blobs: Mutex::default(),
            next: AtomicU64::new(1),
            opens: Mutex::default(),
            mounts: Mutex::default(),
            events: AtomicU64::new(0),
            holds_events: AtomicBool::new(false),
            calls: Mutex::default(),
            meanwhile: Mutex::default(),
            gets: AtomicUsize::new(0),
            asked_bytes: AtomicU64::new(0),
            free_bytes: AtomicU64::new(FREE_BYTES),
            clock_ahead_s: AtomicI64::new(0),
            failing_puts: AtomicUsize::new(0),
            durable: Mutex::default(),
        })
    }

    pub fn mount(self: &Arc<Self>, config: VfsConfig) -> Arc<Vfs> {
        let me = self.next.fetch_add(1, Ordering::SeqCst);
        let meta = Arc::new(Meta { cluster: self.clone(), me });
        let vfs = Vfs::new(config, meta, Arc::new(Data { cluster: self.clone() }));
        vfs.on_reset();
        self.mounts.lock().unwrap().push(Mount {
            id: me,
            vfs: Arc::downgrade(&vfs),
            is_down: false,
            waiting: VecDeque::new(),
        });
        vfs
    }

    pub fn calls_of(&self, what: &str) -> usize {
        self.calls.lock().unwrap().get(what).copied().unwrap_or(0)
    }

    pub fn calls_in_all(&self) -> usize {
        self.calls.lock().unwrap().values().sum()
    }

    pub fn blobs(&self) -> usize {
        self.blobs.lock().unwrap().len()
    }

    /// Waits until every open that mounts had noted has been closed.
    pub async fn nothing_is_open(&self) {
        for _ in 0..200 {
            if self.opens.lock().unwrap().values().all(|n| *n == 0) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        panic!("opens that were never closed: {:?}", self.opens.lock().unwrap());
    }

    /// When the next call of this kind has been carried out, `happens` comes before its answer arrives.
    pub fn before_the_answer(&self, what: &'static str, happens: impl Future<Output = ()> + Send + 'static) {
        *self.meanwhile.lock().unwrap() = Some((what, Box::pin(happens)));
    }

    async fn carry_out(self: &Arc<Self>, me: u64, op: MetaOp) -> Result<MetaReply, WireError> {
        *self.calls.lock().unwrap().entry(kind_of(&op)).or_default() += 1;
        match op {
            MetaOp::Read(op) => {
                let opened = if let ReadOp::Open { ino, .. } = &op { Some(*ino) } else { None };
                if let Some(ino) = opened {
                    *self.opens.lock().unwrap().entry(ino).or_default() += 1;
                }
                let session = Some(SessionId(me));
                let answer = self.store.read(move |txn| dfs_namespace::read(txn, session, &op)).await;
                if let (Some(ino), Err(_)) = (opened, &answer) {
                    *self.opens.lock().unwrap().entry(ino).or_default() -= 1;
                }
                answer.map_err(WireError::from)
            }
            MetaOp::Write(op) => {
                let cluster = self.clone();
                let written = self.store.write(Durability::Process, move |txn| {
                    let mut changes = Vec::new();
                    let is_open = |ino| cluster.opens.lock().unwrap().get(&ino).is_some_and(|n| *n > 0);
                    let mut context = WriteContext {
                        now: cluster.now(),
                        session: Some(SessionId(me)),
                        is_open: &is_open,
                        changes: &mut changes,
                    };
                    let reply = dfs_namespace::write(txn, &mut context, &op)?;
                    let directories = directories_of(txn, &changes)?;
                    let opened = match &op {
                        WriteOp::MakeUnnamed(make) => Some(make.ino),
                        WriteOp::Make(make) => make.opened.then_some(make.ino),
                        _ => None,
                    };
                    if let Some(ino) = opened {
                        *cluster.opens.lock().unwrap().entry(ino).or_default() += 1;
                    }
                    Ok::<_, OpError>((reply, changes, directories))
                });
                let (reply, changes, directories) = written.await.map_err(WireError::from)?;
                self.tell(me, changes);
                self.tell_directories(me, &directories);
                Ok(reply)
            }
            MetaOp::Cluster(op) => self.cluster_op(me, op).await,
        }
    }

    fn now(&self) -> Timestamp {
        let now = Timestamp::now();
        Timestamp { secs: now.secs + self.clock_ahead_s.load(Ordering::SeqCst), ..now }
    }

    /// Whether the namespace still has the inode, once what nobody has open or named has been removed.
    pub async fn has_inode(self: &Arc<Self>, ino: Ino) -> bool {
        let cluster = self.clone();
        let reaped = self.store.write(Durability::Process, move |txn| {
            let is_open = |ino| cluster.opens.lock().unwrap().get(&ino).is_some_and(|n| *n > 0);
            let (now, mut changes) = (cluster.now(), Vec::new());
            let mut context = WriteContext { now, session: None, is_open: &is_open, changes: &mut changes };
            dfs_namespace::reap_orphan(txn, &mut context, ino, 1000)
        });
        assert!(reaped.await.unwrap());
        let op = ReadOp::GetAttr { ino };
        self.store.read(move |txn| dfs_namespace::read(txn, None, &op)).await.is_ok()
    }

    async fn cluster_op(&self, me: u64, op: ClusterOp) -> Result<MetaReply, WireError> {
        match op {
            ClusterOp::Cursor => Ok(MetaReply::Cursor(self.catch_up(me))),
            ClusterOp::Inodes { count } => {
                let first = self
                    .store
                    .write(Durability::Process, move |txn| txn.take(dfs_metastore::Counter::Inode, count))
                    .await
                    .map_err(|e: StoreError| WireError::new(ErrorCode::Io, e.to_string()))?;
                Ok(MetaReply::Inodes(InodeRange { first: Ino(first), count }))
            }
            ClusterOp::Close { ino, count } => {
                let mut opens = self.opens.lock().unwrap();
                let open = opens.entry(ino).or_default();
                *open = open.checked_sub(count).expect("nothing is closed more often than it was opened");
                Ok(MetaReply::Done)
            }
            ClusterOp::Space => {
                let free_bytes = self.free_bytes.load(Ordering::SeqCst);
                Ok(MetaReply::Space(Space {
                    total_bytes: FREE_BYTES,
                    free_bytes,
                    inodes: 1,
                    nodes: Vec::new(),
                }))
            }
            other => panic!("a mount does not ask for {other:?} by itself"),
        }
    }

    fn tell(&self, origin: u64, changes: Vec<dfs_proto::EventKind>) {
        let mut told = Vec::new();
        {
            let mut mounts = self.mounts.lock().unwrap();
            let holds = self.holds_events.load(Ordering::SeqCst);
            for kind in changes {
                let seq = self.events.fetch_add(1, Ordering::SeqCst) + 1;
                let event = Event { at: EventCursor { boot: 1, seq }, origin: None, kind };
                for mount in mounts.iter_mut().filter(|m| m.id != origin && !m.is_down) {
                    match holds {
                        true => mount.waiting.push_back(event.clone()),
                        false => told.extend(mount.vfs.upgrade().map(|vfs| (vfs, event.clone()))),
                    }
                }
            }
        }
        told.iter().for_each(|(vfs, event)| vfs.on_event(event));
    }

    fn tell_directories(&self, me: u64, directories: &[Attr]) {
        let mounts = self.mounts.lock().unwrap();
        let vfs = mounts.iter().find(|mount| mount.id == me).and_then(|mount| mount.vfs.upgrade());
        drop(mounts);
        if let Some(vfs) = vfs {
            directories.iter().for_each(|attr| vfs.on_directory(attr));
        }
    }

    /// From now on events wait for [`Cluster::deliver`].
    pub fn hold_events(&self) {
        self.holds_events.store(true, Ordering::SeqCst);
    }

    /// Delivers up to `count` of the events that wait for a mount (numbered from 0 as they were made).
    pub fn deliver(&self, mount: usize, count: usize) {
        let (vfs, events) = {
            let mut mounts = self.mounts.lock().unwrap();
            let mount = &mut mounts[mount];
            let count = count.min(mount.waiting.len());
            (mount.vfs.upgrade(), mount.waiting.drain(..count).collect::<Vec<_>>())
        };
        if let Some(vfs) = vfs {
            events.iter().for_each(|event| vfs.on_event(event));
        }
    }

    /// A mount asks how far the events go: those that wait for it are what it is about to hear.
    fn catch_up(&self, me: u64) -> EventCursor {
        let at = EventCursor { boot: 1, seq: self.events.load(Ordering::SeqCst) };
        let (vfs, events) = {
            let mut mounts = self.mounts.lock().unwrap();
            let mount = mounts.iter_mut().find(|mount| mount.id == me).unwrap();
            (mount.vfs.upgrade(), std::mem::take(&mut mount.waiting))
        };
        if let Some(vfs) = vfs {
            events.iter().for_each(|event| vfs.on_event(event));
            vfs.on_place(at);
        }
        at
    }

    /// The stream of events to a mount breaks: what waits is lost.
    pub fn stream_down(&self, mount: usize) {
        if let Some(vfs) = self.set_stream(mount, true) {
            vfs.on_down();
        }
    }

    /// The stream stands again, or is said to once more.
    pub fn stream_up(&self, mount: usize) {
        if let Some(vfs) = self.set_stream(mount, false) {
            vfs.on_reset();
        }
    }

    fn set_stream(&self, mount: usize, is_down: bool) -> Option<Arc<Vfs>> {
        let mut mounts = self.mounts.lock().unwrap();
        let mount = &mut mounts[mount];
        if is_down {
            mount.waiting.clear();
        }
        mount.is_down = is_down;
        mount.vfs.upgrade()
    }
}

/// What the call is counted as.
fn kind_of(op: &MetaOp) -> &'static str {
    match op {
        MetaOp::Read(ReadOp::Open { .. }) => "open",
        MetaOp::Read(_) => "read",
        MetaOp::Write(WriteOp::Commit(_)) => "commit",
        MetaOp::Write(WriteOp::Accessed { .. }) => "accessed",
        MetaOp::Write(_) => "write",
        MetaOp::Cluster(_) => "cluster",
    }
}

fn directories_of(txn: &dyn ReadTxn, changes: &[EventKind]) -> Result<Vec<Attr>, StoreError> {
    let mut directories = Vec::new();
    for change in changes {
        if let EventKind::Entry { parent, .. } = change {
            directories.extend(txn.inode(*parent)?.map(|row| row.attr()));
        }
    }
    Ok(directories)
}

struct Meta {
    cluster: Arc<Cluster>,
    me: u64,
}

#[async_trait]
impl MetaClient for Meta {
    async fn call(&self, op: MetaOp) -> Result<MetaReply, ClientError> {
        let what = kind_of(&op);
        let answer = self.cluster.carry_out(self.me, op).await;
        let meanwhile = self.cluster.meanwhile.lock().unwrap().take_if(|(awaited, _)| *awaited == what);
        if let Some((_, happens)) = meanwhile {
            happens.await;
        }
        Ok(answer?)
    }
}

struct Data {
    cluster: Arc<Cluster>,
}

#[async_trait]
impl DataClient for Data {
    async fn put(&self, data: Bytes, origin: BlobOrigin) -> Result<BlobRef, ClientError> {
        let sums = checksum::sums_of(std::slice::from_ref(&data)).await?.remove(0);
        self.put_summed(data, sums, origin).await
    }

    async fn put_summed(&self, data: Bytes, sums: Sums, _: BlobOrigin) -> Result<BlobRef, ClientError> {
        assert_eq!(sums.crc32c, checksum::crc32c_chunks(&data), "the sums of another blob");
        tokio::task::yield_now().await;
        let failing = &self.cluster.failing_puts;
        if failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok() {
            return Err(ClientError::local(ErrorCode::NoNodes, "no node takes data (as the test wants)"));
        }
        let n = self.cluster.next.fetch_add(1, Ordering::SeqCst);
        let id = BlobId { volume: VolumeId(1), key: BlobKey(n) };
        let blob = BlobRef { id, seq: Seq(n), length: data.len() as u32, md5: Md5([0; 16]) };
        self.cluster.blobs.lock().unwrap().insert(id, data);
        Ok(blob)
    }

    async fn get(&self, blob: &BlobRef) -> Result<Bytes, ClientError> {
        tokio::task::yield_now().await;
        self.cluster.gets.fetch_add(1, Ordering::SeqCst);
        self.cluster.asked_bytes.fetch_add(blob.length.into(), Ordering::SeqCst);
        Ok(self.cluster.blobs.lock().unwrap()[&blob.id].clone())
    }

    async fn get_range(&self, blob: &BlobRef, start: u32, length: u32) -> Result<Bytes, ClientError> {
        tokio::task::yield_now().await;
        let chunk = CHUNK_BYTES as u32;
        let asked = (start + length).next_multiple_of(chunk).min(blob.length) - start / chunk * chunk;
        self.cluster.asked_bytes.fetch_add(asked.into(), Ordering::SeqCst);
        let range = start as usize..(start + length) as usize;
        Ok(self.cluster.blobs.lock().unwrap()[&blob.id].slice(range))
    }

    async fn make_durable(&self, reach: &[VolumeReach]) -> Result<(), ClientError> {
        self.cluster.durable.lock().unwrap().extend_from_slice(reach);
        Ok(())
    }

    fn learn(&self, _: &[VolumeInfo]) {}

    fn forget_placement(&self) {}
}
