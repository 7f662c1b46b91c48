//! `/v1/backups`: copies of the master's database.

use super::body;
use crate::node::{Node, cut_off};
use actix_web::{HttpRequest, HttpResponse, web};
use dfs_proto::backup::{BackupName, HEADER_CLUSTER_KEY, PieceQuery};
use dfs_proto::blob::HEADER_TOKEN;
use dfs_proto::{ErrorCode, WireError};
use dfs_service::HttpError;
use dfs_service::http::required_header;

/// `GET /v1/backups`.
pub async fn list(node: web::Data<Node>) -> Result<HttpResponse, HttpError> {
    let names = blocking(&node, |node| node.backups.list()).await?;
    Ok(HttpResponse::Ok().json(names))
}

/// `PUT /v1/backups/{name}?at=N`: one piece. 201 with the last one, 202 before.
pub async fn put(
    node: web::Data<Node>,
    name: web::Path<String>,
    query: web::Query<PieceQuery>,
    request: HttpRequest,
    mut payload: web::Payload,
) -> Result<HttpResponse, HttpError> {
    node.allow_delete(required_header(&request, HEADER_TOKEN)?)?;
    let name: BackupName = name.parse()?;
    let length = body::stated_length(&request)?;
    node.store.check_space(length as u64).map_err(WireError::from)?;
    let (piece, _) = body::collect(&node, &mut payload, length).await?;
    let at = query.at;
    let is_whole = blocking(&node, move |node| node.backups.put(&name, at, &piece)).await?;
    Ok(if is_whole { HttpResponse::Created() } else { HttpResponse::Accepted() }.finish())
}

/// `GET /v1/backups/{name}?at=N`: a piece, empty at the end. Asks for the cluster's secret where there is one: who
/// has a backup has the key that signs capabilities.
pub async fn get(
    node: web::Data<Node>,
    name: web::Path<String>,
    query: web::Query<PieceQuery>,
    request: HttpRequest,
) -> Result<HttpResponse, HttpError> {
    let key = request.headers().get(HEADER_CLUSTER_KEY).map(|key| key.as_bytes()).unwrap_or_default();
    if key != node.cluster_key.as_bytes() {
        let message = "the cluster key is missing or wrong; backups are given to those who know it";
        return Err(HttpError::new(ErrorCode::Unauthorized, message));
    }
    let name: BackupName = name.parse()?;
    let at = query.at;
    let piece = blocking(&node, move |node| node.backups.read(&name, at)).await?;
    Ok(HttpResponse::Ok().content_type("application/octet-stream").body(piece))
}

async fn blocking<T: Send + 'static>(
    node: &web::Data<Node>,
    work: impl FnOnce(&Node) -> Result<T, WireError> + Send + 'static,
) -> Result<T, WireError> {
    let node = node.clone();
    tokio::task::spawn_blocking(move || work(&node)).await.map_err(cut_off)?
}
