//! `/v1/nodes`

use super::{Services, detached};
use actix_web::{HttpRequest, HttpResponse, web};
use dfs_proto::NodeId;
use dfs_proto::node::{HeartbeatRequest, RegisterRequest};
use dfs_service::HttpError;
use std::sync::Arc;

/// `GET /v1/nodes`
pub async fn list(services: web::Data<Services>) -> HttpResponse {
    HttpResponse::Ok().json(services.master.cluster.node_statuses())
}

/// `POST /v1/nodes/register`
pub async fn register(
    services: web::Data<Services>,
    request: HttpRequest,
    body: web::Json<RegisterRequest>,
) -> Result<HttpResponse, HttpError> {
    let peer = request.peer_addr().map(|address| address.ip());
    let cluster = Arc::clone(&services.master.cluster);
    let reply = detached(async move { cluster.register(body.into_inner(), peer).await }).await?;
    Ok(HttpResponse::Ok().json(reply))
}

/// `POST /v1/nodes/{id}/heartbeat`
pub async fn heartbeat(
    services: web::Data<Services>,
    id: web::Path<u64>,
    body: web::Json<HeartbeatRequest>,
) -> Result<HttpResponse, HttpError> {
    let reply = services.master.cluster.heartbeat(NodeId(id.into_inner()), &body)?;
    Ok(HttpResponse::Ok().json(reply))
}
