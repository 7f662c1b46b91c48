//! A cluster of real services in this process, with mounts that have no kernel but a record of what it would be told.

use async_trait::async_trait;
use dfs_client::{
    Blobs, BlobsConfig, ClientError, HttpNodes, MasterClient, MetaClient, Session, Subscription,
};
use dfs_cluster::{Cluster, ClusterConfig};
use dfs_proto::meta::{ReadOp, WriteOp};
use dfs_proto::{
    CollisionPolicy, Ino, LockMode, LockOwner, LockRange, LockSpace, MetaOp, MetaReply, Name, SessionId,
};
use dfs_vfs::{Caller, Fh, KernelCaches, LockWish, OpenFlags, Vfs, VfsConfig, VfsError};
use std::future::pending;
use std::io::{Read, Write};
use std::ops::Deref;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::sync::{Semaphore, oneshot};

pub const CALLER: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0o022 };
pub const READ: OpenFlags = OpenFlags {
    read: true,
    write: false,
    append: false,
    truncate: false,
    exclusive: false,
    no_atime: false,
    execute: false,
};
pub const BOTH: OpenFlags = OpenFlags { write: true, ..READ };
/// A whole new file, to be read as well.
pub const NEW: OpenFlags = OpenFlags { truncate: true, ..BOTH };

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct World {
    cluster: Cluster,
    _dir: TempDir,
}

impl World {
    pub async fn new() -> World {
        let dir = tempfile::tempdir().unwrap();
        let mut config = ClusterConfig::for_tests(dir.path());
        config.nodes = 1;
        config.replicas = 1;
        World { cluster: Cluster::start(config).await.unwrap(), _dir: dir }
    }

    pub async fn mount(&self) -> Mount {
        let master = MasterClient::new(self.cluster.master_url(), PATIENCE).unwrap();
        let session = Session::open(master, "a test".into()).await.unwrap();
        let meta = Arc::new(Watched {
            session: session.clone(),
            calls: AtomicUsize::default(),
            commits: AtomicUsize::default(),
            waits: AtomicUsize::default(),
            lock_answers: Semaphore::new(Semaphore::MAX_PERMITS),
            during_open: Mutex::default(),
        });
        let nodes = Arc::new(HttpNodes::new(PATIENCE).unwrap());
        let data = Blobs::new(session.clone(), nodes, BlobsConfig::default());
        let config = VfsConfig { collision: CollisionPolicy::Replace, ..VfsConfig::default() };
        let vfs = Vfs::new(config, meta.clone(), data);
        let kernel = Arc::new(Kernel::default());
        vfs.set_kernel(kernel.clone());
        let subscription = session.subscribe(vfs.clone());
        until("changes are pushed", async || vfs.is_pushed()).await;
        Mount { vfs, meta, kernel, session, _subscription: subscription }
    }

    /// The master forgets the session of a mount, as if its lease were over.
    pub fn end_session(&self, mount: &Mount) {
        let at = self.cluster.master_url().strip_prefix("http://").unwrap();
        let mut stream = std::net::TcpStream::connect(at).unwrap();
        let id = mount.session.id();
        write!(stream, "DELETE /v1/sessions/{id} HTTP/1.1\r\nhost: {at}\r\nconnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 20"), "{answer}");
    }
}

/// Waits until `condition` holds.
pub async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The master as one mount sees it.
pub struct Watched {
    session: Arc<Session>,
    pub calls: AtomicUsize,
    pub commits: AtomicUsize,
    /// Tries to take a lock by who would wait for it.
    pub waits: AtomicUsize,
    /// Answers to tries take one permit each.
    pub lock_answers: Semaphore,
    /// Done once, after the next open was carried out and before its answer arrives.
    pub during_open: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

#[async_trait]
impl MetaClient for Watched {
    async fn call(&self, op: MetaOp) -> Result<MetaReply, ClientError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let is_lock = matches!(op, MetaOp::Write(WriteOp::Lock { .. }));
        if let MetaOp::Write(WriteOp::Commit(_)) = &op {
            self.commits.fetch_add(1, Ordering::SeqCst);
        }
        if let MetaOp::Write(WriteOp::Lock { wait: true, .. }) = &op {
            self.waits.fetch_add(1, Ordering::SeqCst);
        }
        let is_open = matches!(op, MetaOp::Read(ReadOp::Open { .. }));
        let answer = self.session.call(op).await;
        let during_open = if is_open { self.during_open.lock().unwrap().take() } else { None };
        if let Some(happens) = during_open {
            happens();
        }
        if is_lock {
            self.lock_answers.acquire().await.unwrap().forget();
        }
        answer
    }

    fn session(&self) -> Option<SessionId> {
        MetaClient::session(&*self.session)
    }
}

/// What a kernel would have been told.
#[derive(Default)]
pub struct Kernel {
    pub told: Arc<Mutex<Vec<Told>>>,
    /// The process that has mapped the next file that somebody asks about; 0 is none.
    pub mapped_by: AtomicU32,
    /// What the kernel does before it drops pages: it hands over what was written to them through mappings.
    pub hands_over: Mutex<Option<Pin<Box<dyn Future<Output = ()> + Send>>>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Attributes(Ino),
    Pages(Ino),
    Entry(Ino, Name),
    /// Somebody who asked was told that all before this has been carried out.
    Done,
}

impl Kernel {
    fn note(&self, told: Told) {
        self.told.lock().unwrap().push(told);
    }

    /// Slow, so that nobody gets by without waiting.
    fn carry_out(&self, told: Told) -> oneshot::Receiver<()> {
        let drops_pages = matches!(told, Told::Pages(_));
        let hands_over = if drops_pages { self.hands_over.lock().unwrap().take() } else { None };
        self.note(told);
        let (done, waits) = oneshot::channel();
        let told = self.told.clone();
        tokio::spawn(async move {
            if let Some(hands_over) = hands_over {
                hands_over.await;
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
            told.lock().unwrap().push(Told::Done);
            let _ = done.send(());
        });
        waits
    }
}

impl KernelCaches for Kernel {
    fn drop_attributes(&self, ino: Ino) {
        self.note(Told::Attributes(ino));
    }

    fn drop_pages(&self, ino: Ino) {
        self.note(Told::Pages(ino));
    }

    fn drop_attributes_then(&self, ino: Ino) -> oneshot::Receiver<()> {
        self.carry_out(Told::Attributes(ino))
    }

    fn drop_pages_then(&self, ino: Ino) -> oneshot::Receiver<()> {
        self.carry_out(Told::Pages(ino))
    }

    fn has_mapped(&self, pid: u32, _: Ino) -> bool {
        self.mapped_by.load(Ordering::SeqCst) == pid
    }

    fn drop_entry(&self, parent: Ino, name: &Name) {
        self.note(Told::Entry(parent, name.clone()));
    }
}

pub struct Mount {
    pub vfs: Arc<Vfs>,
    pub meta: Arc<Watched>,
    pub kernel: Arc<Kernel>,
    session: Arc<Session>,
    _subscription: Subscription,
}

impl Deref for Mount {
    type Target = Arc<Vfs>;
    fn deref(&self) -> &Arc<Vfs> {
        &self.vfs
    }
}

pub fn name(text: &str) -> Name {
    Name::try_from(text).unwrap()
}

pub fn bytes(first: u64, last: u64) -> LockRange {
    LockRange { first, last }
}

/// A byte range for process `owner`.
pub fn range(owner: u64, range: LockRange, mode: LockMode) -> LockWish {
    LockWish { space: LockSpace::Range, owner: LockOwner(owner), range, mode, pid: owner as u32 }
}

/// All of the file for process `owner`.
pub fn all(owner: u64) -> LockWish {
    range(owner, LockRange::WHOLE, LockMode::Exclusive)
}

/// flock(2) by the open file description `owner`.
pub fn whole(owner: u64, mode: LockMode) -> LockWish {
    LockWish { space: LockSpace::Whole, ..range(owner, LockRange::WHOLE, mode) }
}

impl Mount {
    /// What `printf TEXT > NAME` does.
    pub async fn store(&self, file: &str, content: &[u8]) -> Ino {
        let created = self.create(CALLER, Ino::ROOT, &name(file), 0o644, NEW).await.unwrap();
        self.put(created.opened.fh, 0, content).await.unwrap();
        self.close(created.opened.fh, 0).await.unwrap();
        created.attr.ino
    }

    pub async fn open_file(&self, file: &str, flags: OpenFlags) -> Fh {
        let attr = self.lookup(Ino::ROOT, &name(file)).await.unwrap();
        self.open(CALLER, attr.ino, flags).await.unwrap().fh
    }

    pub async fn put(&self, fh: Fh, offset: u64, content: &[u8]) -> Result<(), VfsError> {
        let done = self.write(fh, offset, content, false).await?;
        assert_eq!(done as usize, content.len());
        Ok(())
    }

    pub async fn get(&self, fh: Fh) -> Result<String, VfsError> {
        let content = self.read(fh, 0, 1 << 16).await?;
        Ok(String::from_utf8(content.to_vec()).unwrap())
    }

    /// What close(2) by process `owner` does.
    pub async fn close(&self, fh: Fh, owner: u64) -> Result<(), VfsError> {
        let result = self.flush(fh, LockOwner(owner), |_, _| false).await;
        self.release(fh).await;
        result
    }

    pub async fn try_lock(&self, fh: Fh, wish: LockWish) -> Result<(), VfsError> {
        tokio::time::timeout(PATIENCE, self.lock(fh, wish, false, pending())).await.expect("it does not wait")
    }

    pub async fn wait_lock(&self, fh: Fh, wish: LockWish) -> Result<(), VfsError> {
        tokio::time::timeout(PATIENCE, self.lock(fh, wish, true, pending())).await.expect("the wait ends")
    }

    /// The same, but the wait is interrupted after a while.
    pub async fn wait_lock_or_interrupted(&self, fh: Fh, wish: LockWish) -> Result<(), VfsError> {
        self.lock(fh, wish, true, tokio::time::sleep(Duration::from_millis(100))).await
    }

    /// A wait for a lock, in a task of its own, that has been found blocked; ends with the sender.
    pub async fn start_waiting(&self, fh: Fh, wish: LockWish) -> Waiting {
        let (interrupt, interrupted) = oneshot::channel::<()>();
        let vfs = self.vfs.clone();
        let before = self.meta.waits.load(Ordering::SeqCst);
        let task = tokio::spawn(async move {
            let interrupted = async move {
                if interrupted.await.is_err() {
                    pending::<()>().await;
                }
            };
            vfs.lock(fh, wish, true, interrupted).await
        });
        until("somebody waits", async || self.meta.waits.load(Ordering::SeqCst) > before).await;
        Waiting { task, interrupt }
    }

    pub async fn free(&self, fh: Fh, wish: LockWish) -> Result<(), VfsError> {
        self.unlock(fh, wish).await
    }

    pub fn calls(&self) -> usize {
        self.meta.calls.load(Ordering::SeqCst)
    }

    /// Asks something, so that the mount finds out whether its session is still there.
    pub async fn ask_anything(&self) {
        let op = MetaOp::Read(ReadOp::GetAttr { ino: Ino::ROOT });
        self.meta.session.call(op).await.unwrap();
    }
}

pub struct Waiting {
    task: tokio::task::JoinHandle<Result<(), VfsError>>,
    pub interrupt: oneshot::Sender<()>,
}

impl Waiting {
    pub async fn interrupted(self) -> Result<(), VfsError> {
        self.interrupt.send(()).unwrap();
        tokio::time::timeout(PATIENCE, self.task).await.expect("the wait ends").unwrap()
    }

    pub async fn result(self) -> Result<(), VfsError> {
        let Waiting { task, interrupt } = self;
        let result = tokio::time::timeout(PATIENCE, task).await.expect("the wait ends").unwrap();
        drop(interrupt);
        result
    }
}
