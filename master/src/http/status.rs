//! `/v1/status`

use super::Services;
use actix_web::{HttpResponse, web};
use dfs_proto::status::ClusterStatus;
use dfs_service::HttpError;

/// `GET /v1/status`
pub async fn show(services: web::Data<Services>) -> Result<HttpResponse, HttpError> {
    let master = &services.master;
    let stats = master.stats().await?;
    let status = ClusterStatus {
        cluster: master.cluster.name().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        nodes: master.cluster.node_statuses(),
        replicas: master.config.replicas,
        files: stats.files,
        directories: stats.directories,
        file_bytes: stats.file_bytes,
        volumes: master.cluster.totals().volumes,
        replication: master.cluster.replication().await,
        sessions: master.sessions.count() as u64,
        locks: stats.locks,
        lock_waiters: master.locks.count() as u64,
    };
    Ok(HttpResponse::Ok().json(status))
}
