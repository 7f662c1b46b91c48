//! `/v1/volumes`: the status of copies, their logs, and bringing them up to others.

use super::body::{self, Pieces};
use crate::memory::POOLED_BYTES;
use crate::node::{Node, blocking};
use crate::pull;
use actix_web::{HttpRequest, HttpResponse, web};
use dfs_proto::blob::{DropReply, HEADER_SEQ, HEADER_TOKEN, PullRequest, SyncRequest, VerifyRequest};
use dfs_proto::{ErrorCode, Seq, VolumeId, WireError};
use dfs_service::HttpError;
use dfs_service::http::required_header;
use serde::Deserialize;

/// Log bytes in one answer; one record of the largest size always fits.
const LOG_BYTES_MAX: u64 = 4 << 20;

/// Bytes that one request has verified: a second's work, and less than any deadline.
const VERIFY_BYTES_MAX: u64 = 64 << 20;

/// `GET /v1/volumes`.
pub async fn list(node: web::Data<Node>) -> HttpResponse {
    HttpResponse::Ok().json(node.store.statuses())
}

/// `GET /v1/volumes/{volume}`.
pub async fn status(node: web::Data<Node>, path: web::Path<u64>) -> Result<HttpResponse, HttpError> {
    let status = node.store.status(VolumeId(path.into_inner())).map_err(WireError::from)?;
    Ok(HttpResponse::Ok().json(status))
}

/// Query of [`log`].
#[derive(Deserialize)]
pub struct LogQuery {
    #[serde(default)]
    after: Seq,
    max_bytes: Option<u64>,
}

/// `GET /v1/volumes/{volume}/log`.
pub async fn log(
    node: web::Data<Node>,
    path: web::Path<u64>,
    query: web::Query<LogQuery>,
) -> Result<HttpResponse, HttpError> {
    let volume = VolumeId(path.into_inner());
    let after = query.after;
    let reach = node.store.status(volume).map_err(WireError::from)?.seq;
    if after >= reach {
        return Ok(HttpResponse::Ok().insert_header((HEADER_SEQ, reach.to_string())).finish());
    }
    let max_bytes = query.max_bytes.unwrap_or(LOG_BYTES_MAX).min(LOG_BYTES_MAX) as usize;
    let mut buffer = body::answer_buffer(&node, POOLED_BYTES).await?;
    let store = node.store.clone();
    let (reach, records) = blocking(move || {
        let reach = store.log(volume, after, max_bytes, &mut buffer)?;
        Ok((reach, buffer.freeze()))
    })
    .await?;
    Ok(HttpResponse::Ok()
        .insert_header((HEADER_SEQ, reach.to_string()))
        .content_type("application/octet-stream")
        .body(Pieces::new(records)))
}

/// `POST /v1/volumes/{volume}/pull`.
pub async fn pull(
    node: web::Data<Node>,
    path: web::Path<u64>,
    request: HttpRequest,
    body: web::Json<PullRequest>,
) -> Result<HttpResponse, HttpError> {
    let volume = VolumeId(path.into_inner());
    node.allow_pull(required_header(&request, HEADER_TOKEN)?, volume)?;
    node.check_copy(volume)?;
    Ok(HttpResponse::Ok().json(pull::pull(&node, volume, &body).await?))
}

/// `POST /v1/volumes/{volume}/verify`.
pub async fn verify(
    node: web::Data<Node>,
    path: web::Path<u64>,
    body: web::Json<VerifyRequest>,
) -> Result<HttpResponse, HttpError> {
    let volume = VolumeId(path.into_inner());
    let mut buffer = body::answer_buffer(&node, POOLED_BYTES).await?;
    let store = node.store.clone();
    let max_bytes = body.max_bytes.min(VERIFY_BYTES_MAX);
    let reply = blocking(move || store.verify(volume, body.after, max_bytes, &mut buffer)).await?;
    Ok(HttpResponse::Ok().json(reply))
}

/// `POST /v1/volumes/{volume}/drop`.
pub async fn drop_copy(
    node: web::Data<Node>,
    path: web::Path<u64>,
    request: HttpRequest,
) -> Result<HttpResponse, HttpError> {
    node.allow_delete(required_header(&request, HEADER_TOKEN)?)?;
    let dropped = pull::drop_copy(&node, VolumeId(path.into_inner())).await?;
    Ok(HttpResponse::Ok().json(DropReply { dropped }))
}

/// `POST /v1/volumes/{volume}/sync`.
pub async fn sync(
    node: web::Data<Node>,
    path: web::Path<u64>,
    request: HttpRequest,
    body: web::Json<SyncRequest>,
) -> Result<HttpResponse, HttpError> {
    let volume = VolumeId(path.into_inner());
    node.allow_pull(required_header(&request, HEADER_TOKEN)?, volume)?;
    let status = node.store.status(volume).map_err(WireError::from)?;
    if status.seq < body.at_least {
        let message =
            format!("volume {volume} reaches {} here, which is short of {}", status.seq, body.at_least);
        return Err(HttpError::new(ErrorCode::Unavailable, message));
    }
    node.store.sync().await.map_err(WireError::from)?;
    // Taken before the sync, so that it says what is on disk.
    Ok(HttpResponse::Ok().json(status))
}
