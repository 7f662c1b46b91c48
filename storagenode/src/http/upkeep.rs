//! What the master and replicators ask of blobs: delete, check, hand over the record, repair.

use super::body::{self, Pieces};
use crate::memory::POOLED_BYTES;
use crate::node::{Node, blob_id, blocking};
use crate::{pull, record};
use actix_web::{HttpRequest, HttpResponse, web};
use dfs_proto::blob::{CheckReply, DeleteRequest, HEADER_TOKEN, RepairRequest};
use dfs_proto::limits::DELETE_BLOBS_MAX;
use dfs_proto::{BlobId, ErrorCode, WireError};
use dfs_service::HttpError;
use dfs_service::http::required_header;

/// `POST /v1/blobs/delete`.
pub async fn delete(
    node: web::Data<Node>,
    request: HttpRequest,
    body: web::Json<DeleteRequest>,
) -> Result<HttpResponse, HttpError> {
    node.allow_delete(required_header(&request, HEADER_TOKEN)?)?;
    let blobs = &body.blobs;
    if blobs.len() > DELETE_BLOBS_MAX {
        let message = format!("{} blobs in one request; at most {DELETE_BLOBS_MAX} are taken", blobs.len());
        return Err(HttpError::new(ErrorCode::InvalidArgument, message));
    }
    let reply = node.store.delete(blobs).await.map_err(WireError::from)?;
    Ok(HttpResponse::Ok().json(reply))
}

/// `GET /v1/blobs/{volume}/{key}/record`: the raw record, for a repair elsewhere.
pub async fn record(node: web::Data<Node>, path: web::Path<(u64, u64)>) -> Result<HttpResponse, HttpError> {
    let id = blob_id(path.into_inner());
    let buffer = record_buffer(&node, id).await?;
    let store = node.store.clone();
    let record = blocking(move || store.record(id, buffer)).await?;
    Ok(HttpResponse::Ok().content_type("application/octet-stream").body(Pieces::new(record)))
}

/// `GET /v1/blobs/{volume}/{key}/check`: reads and verifies everything.
pub async fn check(node: web::Data<Node>, path: web::Path<(u64, u64)>) -> Result<HttpResponse, HttpError> {
    let id = blob_id(path.into_inner());
    let mut buffer = record_buffer(&node, id).await?;
    let store = node.store.clone();
    let reply = match blocking(move || store.check(id, &mut buffer)).await {
        Ok(()) => CheckReply { whole: true, reason: String::new() },
        Err(e) if e.code == ErrorCode::Corrupt => CheckReply { whole: false, reason: e.message },
        Err(e) => return Err(e.into()),
    };
    Ok(HttpResponse::Ok().json(reply))
}

async fn record_buffer(node: &Node, id: BlobId) -> Result<crate::memory::Buffer, WireError> {
    let length = node.store.find(id).map_err(WireError::from)?.at.payload_bytes;
    let bytes = record::record_bytes(length as usize).min(POOLED_BYTES);
    body::answer_buffer(node, bytes).await
}

/// `POST /v1/blobs/{volume}/{key}/repair`.
pub async fn repair(
    node: web::Data<Node>,
    path: web::Path<(u64, u64)>,
    request: HttpRequest,
    body: web::Json<RepairRequest>,
) -> Result<HttpResponse, HttpError> {
    let id = blob_id(path.into_inner());
    node.allow_pull(required_header(&request, HEADER_TOKEN)?, id.volume)?;
    pull::repair(&node, id, &body.source).await?;
    Ok(HttpResponse::NoContent().finish())
}
