//! Operations of the master with their replies as types, so that each reply is taken apart in one place.

use crate::{ClientError, MetaClient};
use dfs_proto::meta::{
    ClusterOp, Commit, Committed, CopyProblem, ExtentPage, Members, Opened, ReadOp, WriteOp,
};
use dfs_proto::{
    Attr, BlobId, ErrorCode, Grant, Ino, MetaOp, MetaReply, Name, NodeId, VolumeId, VolumeInfo, limits,
};

/// Takes the wanted variant out of a reply.
macro_rules! reply {
    ($meta:expr, $what:literal, $op:expr, $variant:path) => {
        match $meta.call($op).await? {
            $variant(value) => Ok(value),
            other => Err(unexpected($what, &other)),
        }
    };
}

pub(crate) async fn grants(
    meta: &dyn MetaClient,
    count: u32,
    avoid: Vec<NodeId>,
) -> Result<Vec<Grant>, ClientError> {
    reply!(meta, "grants", MetaOp::Cluster(ClusterOp::Grants { count, avoid }), MetaReply::Grants)
}

pub(crate) async fn volume(meta: &dyn MetaClient, id: VolumeId) -> Result<Option<VolumeInfo>, ClientError> {
    let op = MetaOp::Cluster(ClusterOp::Volumes { ids: vec![id] });
    let found: Vec<VolumeInfo> = reply!(meta, "volumes", op, MetaReply::Volumes)?;
    Ok(found.into_iter().find(|v| v.id == id))
}

pub(crate) async fn members(
    meta: &dyn MetaClient,
    volume: VolumeId,
    failed: Vec<NodeId>,
) -> Result<Members, ClientError> {
    reply!(meta, "members", MetaOp::Cluster(ClusterOp::Members { volume, failed }), MetaReply::Members)
}

pub(crate) async fn bad_copy(
    meta: &dyn MetaClient,
    blob: BlobId,
    node: NodeId,
    problem: CopyProblem,
) -> Result<(), ClientError> {
    meta.call(MetaOp::Cluster(ClusterOp::BadCopy { blob, node, problem })).await.map(drop)
}

/// The entry's attributes, or `None` when there is no such entry.
pub(crate) async fn lookup(
    meta: &dyn MetaClient,
    parent: Ino,
    name: Name,
) -> Result<Option<Attr>, ClientError> {
    let found: Result<Attr, ClientError> =
        async { reply!(meta, "lookup", MetaOp::Read(ReadOp::Lookup { parent, name }), MetaReply::Attr) }
            .await;
    match found {
        Ok(attr) => Ok(Some(attr)),
        Err(e) if e.code() == ErrorCode::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

pub(crate) async fn open(meta: &dyn MetaClient, ino: Ino) -> Result<Opened, ClientError> {
    reply!(meta, "open", MetaOp::Read(ReadOp::Open { ino, known: None }), MetaReply::Opened)
}

pub(crate) async fn close(meta: &dyn MetaClient, ino: Ino) -> Result<(), ClientError> {
    meta.call(MetaOp::Cluster(ClusterOp::Close { ino, count: 1 })).await.map(drop)
}

pub(crate) async fn extents(meta: &dyn MetaClient, ino: Ino, from: u64) -> Result<ExtentPage, ClientError> {
    let op = MetaOp::Read(ReadOp::Extents { ino, from, limit: limits::EXTENT_PAGE_MAX });
    reply!(meta, "extents", op, MetaReply::Extents)
}

pub(crate) async fn commit(meta: &dyn MetaClient, commit: Commit) -> Result<Committed, ClientError> {
    reply!(meta, "commit", MetaOp::Write(WriteOp::Commit(commit)), MetaReply::Committed)
}

fn unexpected(what: &str, reply: &MetaReply) -> ClientError {
    let text: String = format!("{reply:?}").chars().take(80).collect();
    ClientError::BadAnswer {
        server: "the master".to_owned(),
        what: what.to_owned(),
        reason: format!("a reply of another kind: {text}"),
    }
}
