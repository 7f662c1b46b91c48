//! `/v1/nodes`

use super::{Services, detached};
use actix_web::{HttpRequest, HttpResponse, web};
use dfs_proto::NodeId;
use dfs_proto::node::{DrainRequest, HeartbeatRequest, RebalanceRequest, RegisterRequest};
use dfs_service::HttpError;
use serde::Deserialize;
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

/// `POST /v1/nodes/{id}/drain`
pub async fn drain(
    services: web::Data<Services>,
    id: web::Path<u64>,
    body: web::Json<DrainRequest>,
) -> Result<HttpResponse, HttpError> {
    let cluster = Arc::clone(&services.master.cluster);
    let (id, draining) = (NodeId(id.into_inner()), body.draining);
    let status = detached(async move { cluster.drain(id, draining).await }).await?;
    Ok(HttpResponse::Ok().json(status))
}

/// Query of [`remove`].
#[derive(Deserialize)]
pub struct RemoveQuery {
    #[serde(default)]
    force: bool,
}

/// `DELETE /v1/nodes/{id}`
pub async fn remove(
    services: web::Data<Services>,
    id: web::Path<u64>,
    query: web::Query<RemoveQuery>,
) -> Result<HttpResponse, HttpError> {
    let cluster = Arc::clone(&services.master.cluster);
    let (id, force) = (NodeId(id.into_inner()), query.force);
    detached(async move { cluster.remove_node(id, force).await }).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// `GET /v1/rebalance`
pub async fn rebalance_status(services: web::Data<Services>) -> HttpResponse {
    HttpResponse::Ok().json(services.master.cluster.rebalance_status())
}

/// `POST /v1/rebalance`
pub async fn rebalance(services: web::Data<Services>, body: web::Json<RebalanceRequest>) -> HttpResponse {
    HttpResponse::Ok().json(services.master.cluster.rebalance(body.running))
}
