//! The way to the cluster: one session for one command, and the namespace operations that commands share.

use crate::failure::{Failure, OrFail};
use crate::remote::RemotePath;
use dfs_client::{
    Blobs, BlobsConfig, ClientError, DataClient, HttpNodes, MasterClient, MetaClient, NodeClient, Session,
};
use dfs_proto::meta::{DirPage, Make, ReadOp, WriteOp};
use dfs_proto::{Attr, DirCookie, ErrorCode, FileKind, Ino, MetaOp, MetaReply, Name};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

/// How long one question to the master may take, retries included.
const MASTER_DEADLINE: Duration = Duration::from_secs(15);
/// How long one request to a storage node may take.
const NODE_DEADLINE: Duration = Duration::from_secs(15);
/// Mode of directories that are made on the way.
const DIRECTORY_MODE: u16 = 0o755;

/// A plain client of the master, for what needs no session.
pub(crate) fn master(url: &str) -> Result<MasterClient, Failure> {
    MasterClient::new(url, MASTER_DEADLINE).or_fail(|| format!("use the address {url}"))
}

/// A session with the master and the way to the nodes.
pub(crate) struct Connection {
    session: Arc<Session>,
    master: MasterClient,
    nodes: Arc<dyn NodeClient>,
    data: Arc<dyn DataClient>,
}

impl Connection {
    /// Opens a session for `command`.
    pub(crate) async fn open(url: &str, command: &str) -> Result<Connection, Failure> {
        let master = master(url)?;
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let client = format!("dfs {command}@{}:{}", host.trim(), std::process::id());
        let reach = || format!("reach the master at {url}");
        // A session waits for a master that is away. Whoever typed a command wants to hear at once.
        if let Err(e @ ClientError::Unreachable { .. }) = master.healthy().await {
            return Err(e).or_fail(reach);
        }
        let session = Session::open(master.clone(), client).await.or_fail(reach)?;
        let nodes: Arc<dyn NodeClient> = Arc::new(HttpNodes::new(NODE_DEADLINE).or_fail(reach)?);
        let data = Blobs::new(session.clone(), nodes.clone(), BlobsConfig::default());
        Ok(Connection { session, master, nodes, data })
    }

    pub(crate) fn master(&self) -> &MasterClient {
        &self.master
    }

    pub(crate) fn meta(&self) -> Arc<dyn MetaClient> {
        self.session.clone()
    }

    pub(crate) fn data(&self) -> Arc<dyn DataClient> {
        self.data.clone()
    }

    pub(crate) fn nodes(&self) -> &Arc<dyn NodeClient> {
        &self.nodes
    }

    /// Ends the session; what it had leased is free at once.
    pub(crate) async fn close(self) {
        self.session.close().await;
    }

    /// Carries out a read.
    pub(crate) async fn read(&self, op: ReadOp) -> Result<MetaReply, ClientError> {
        self.session.call(MetaOp::Read(op)).await
    }

    /// Carries out a write.
    pub(crate) async fn write(&self, op: WriteOp) -> Result<MetaReply, ClientError> {
        self.session.call(MetaOp::Write(op)).await
    }

    /// What is at `path`; `not_found` when nothing is.
    pub(crate) async fn resolve(&self, path: &RemotePath) -> Result<Attr, ClientError> {
        attr(self.read(ReadOp::Resolve { path: path.names().to_vec() }).await?)
    }

    /// What is at `path`, if anything is.
    pub(crate) async fn find(&self, path: &RemotePath) -> Result<Option<Attr>, ClientError> {
        match self.resolve(path).await {
            Ok(attr) => Ok(Some(attr)),
            Err(e) if e.code() == ErrorCode::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// A page of the listing of `directory`.
    pub(crate) async fn list(
        &self,
        directory: Ino,
        after: DirCookie,
        limit: u32,
    ) -> Result<DirPage, ClientError> {
        match self.read(ReadOp::ReadDir { ino: directory, after, limit }).await? {
            MetaReply::Dir(page) => Ok(page),
            other => Err(unexpected(&other)),
        }
    }

    /// Makes a directory; `exists` when the name is taken.
    pub(crate) async fn make_directory(&self, parent: Ino, name: &Name) -> Result<Attr, ClientError> {
        let owner = Owner::me();
        let make = Make {
            parent,
            name: name.clone(),
            ino: Ino(0),
            kind: FileKind::Directory,
            mode: DIRECTORY_MODE,
            umask: 0,
            uid: owner.uid,
            gid: owner.gid,
            rdev: 0,
            target: bytes::Bytes::new(),
            opened: false,
        };
        attr(self.write(WriteOp::Make(make)).await?)
    }

    /// The directory at `path`, made with those above it where they are missing.
    pub(crate) async fn ensure_directory(&self, path: &RemotePath) -> Result<Attr, ClientError> {
        if let Some(found) = self.find(path).await? {
            return directory(found, path);
        }
        let mut at = RemotePath::root();
        let mut here = self.resolve(&at).await?;
        for name in path.names() {
            at = at.join(name);
            // Somebody else may make it at the same moment: then theirs is as good.
            here = match self.find(&at).await? {
                Some(found) => found,
                None => match self.make_directory(here.ino, name).await {
                    Err(e) if e.code() == ErrorCode::Exists => self.resolve(&at).await?,
                    made => made?,
                },
            };
            here = directory(here, &at)?;
        }
        Ok(here)
    }
}

/// Who new files belong to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    pub uid: u32,
    pub gid: u32,
}

impl Owner {
    /// Whoever runs this process: proc(5) has its effective ids as those of its folder.
    pub(crate) fn me() -> Owner {
        match std::fs::metadata("/proc/self") {
            Ok(me) => Owner { uid: me.uid(), gid: me.gid() },
            Err(_) => Owner { uid: 0, gid: 0 },
        }
    }
}

fn directory(found: Attr, path: &RemotePath) -> Result<Attr, ClientError> {
    if found.kind == FileKind::Directory {
        return Ok(found);
    }
    Err(ClientError::local(ErrorCode::NotDirectory, format!("{path} is not a directory")))
}

/// The attributes that a reply has to consist of.
pub(crate) fn attr(reply: MetaReply) -> Result<Attr, ClientError> {
    match reply {
        MetaReply::Attr(attr) => Ok(attr),
        other => Err(unexpected(&other)),
    }
}

/// A reply of another kind than the operation has.
pub(crate) fn unexpected(reply: &MetaReply) -> ClientError {
    ClientError::local(ErrorCode::Internal, format!("the master answered something else: {reply:?}"))
}
