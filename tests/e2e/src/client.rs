//! A client with a session, as the mount and the command line are.

use bytes::Bytes;
use dfs_client::{
    Blobs, BlobsConfig, ClientError, DataClient, HttpNodes, MasterClient, MetaClient, Session, checksum,
    files,
};
use dfs_proto::meta::{Collision, ReadOp, WriteOp};
use dfs_proto::{Attr, CollisionPolicy, ErrorCode, Ino, Md5, MetaOp, MetaReply, Name};
use futures_util::{TryStreamExt, stream};
use std::sync::Arc;
use std::time::Duration;

/// An operation on the master, its retries included.
const MASTER_DEADLINE: Duration = Duration::from_secs(60);

/// One request to a node.
const NODE_DEADLINE: Duration = Duration::from_secs(10);

/// Bodies are handed over in pieces of this length.
const PIECE_BYTES: usize = 64 << 10;

/// A client with a session, as the mount and the command line are.
#[derive(Clone)]
pub struct Client {
    /// The namespace.
    pub session: Arc<Session>,
    /// The bytes.
    pub data: Arc<dyn DataClient>,
}

impl Client {
    /// Opens a session with the master at `url`.
    pub async fn connect(url: &str) -> Client {
        let master = MasterClient::new(url, MASTER_DEADLINE).expect("the URL of a master");
        let session = Session::open(master, "dfs-e2e".into()).await.expect("a session");
        let nodes = Arc::new(HttpNodes::new(NODE_DEADLINE).expect("a client of nodes"));
        let data = Blobs::new(session.clone(), nodes, BlobsConfig::default());
        Client { session, data }
    }

    /// Stores a file in the root directory, beside what has the name.
    pub async fn put(&self, name: &str, content: Vec<u8>) -> Result<files::Uploaded, ClientError> {
        self.upload(name, content, CollisionPolicy::Rename).await
    }

    /// Stores a file in the root directory, in the place of what has the name.
    pub async fn replace(&self, name: &str, content: Vec<u8>) -> Result<files::Uploaded, ClientError> {
        self.upload(name, content, CollisionPolicy::Replace).await
    }

    /// Removes a file of the root directory.
    pub async fn remove(&self, name: &str) -> Result<(), ClientError> {
        let unlink = WriteOp::Unlink { parent: Ino::ROOT, name: Name::try_from(name)? };
        self.session.call(MetaOp::Write(unlink)).await.map(drop)
    }

    async fn upload(
        &self,
        name: &str,
        content: Vec<u8>,
        policy: CollisionPolicy,
    ) -> Result<files::Uploaded, ClientError> {
        let target = files::Target {
            parent: Ino::ROOT,
            name: Name::try_from(name)?,
            mode: 0o644,
            uid: 0,
            gid: 0,
            collision: Collision::Explicit(policy),
            expected_md5: Some(checksum::md5(&content)),
            expected_bytes: Some(content.len() as u64),
        };
        let content = Bytes::from(content);
        let pieces = (0..content.len()).step_by(PIECE_BYTES);
        let pieces: Vec<Result<Bytes, ClientError>> =
            pieces.map(|at| Ok(content.slice(at..content.len().min(at + PIECE_BYTES)))).collect();
        files::upload(self.meta(), self.data.clone(), target, stream::iter(pieces)).await
    }

    /// The namespace as the library takes it.
    pub fn meta(&self) -> Arc<dyn MetaClient> {
        self.session.clone()
    }

    /// Attributes of a file in the root directory.
    pub async fn stat(&self, name: &str) -> Result<Attr, ClientError> {
        let path = Name::split_path(name.as_bytes())?;
        match self.session.call(MetaOp::Read(ReadOp::Resolve { path })).await? {
            MetaReply::Attr(attr) => Ok(attr),
            other => Err(ClientError::local(ErrorCode::Internal, format!("an odd reply: {other:?}"))),
        }
    }

    /// Opens a file of the root directory.
    pub async fn open(&self, name: &str) -> Result<files::OpenFile, ClientError> {
        let ino = self.stat(name).await?.ino;
        files::open(self.meta(), self.data.clone(), ino).await
    }

    /// The content of a file in the root directory.
    pub async fn get(&self, name: &str) -> Result<Vec<u8>, ClientError> {
        let file = self.open(name).await?;
        let pieces: Vec<Bytes> = file.read(0..file.attr.size).try_collect().await?;
        Ok(pieces.concat())
    }

    /// MD5 of what comes when a file of the root directory is read.
    pub async fn read_md5(&self, name: &str) -> Result<Md5, ClientError> {
        Ok(checksum::md5(&self.get(name).await?))
    }
}
