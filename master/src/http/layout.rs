//! `/v1/files-layout`

use super::{Services, detached};
use crate::gateway::{Request, resolve};
use crate::master::Master;
use crate::meta::execute_one;
use actix_web::{HttpRequest, HttpResponse, web};
use dfs_proto::meta::{ClusterOp, Opened, ReadOp};
use dfs_proto::status::LayoutReply;
use dfs_proto::{Attr, ErrorCode, FileKind, MetaOp, MetaReply, WireError};
use dfs_service::HttpError;
use std::sync::Arc;

/// `GET /v1/files-layout/{path}`
pub async fn show(services: web::Data<Services>, request: HttpRequest) -> Result<HttpResponse, HttpError> {
    let path = Request::parse(request.uri().path(), "/v1/files-layout")?;
    let attr = resolve(&*services.meta, path.names).await?;
    let master = Arc::clone(&services.master);
    let reply = detached(async move { layout(&master, attr).await }).await?;
    Ok(HttpResponse::Ok().json(reply))
}

async fn layout(master: &Arc<Master>, attr: Attr) -> Result<LayoutReply, WireError> {
    let replicas = master.config.replicas;
    let nothing = |attr| LayoutReply {
        attr,
        md5: None,
        extents: Vec::new(),
        complete: true,
        volumes: Vec::new(),
        replicas,
    };
    if attr.kind != FileKind::File {
        return Ok(nothing(attr));
    }
    let ino = attr.ino;
    let opened = execute_one(master, MetaOp::Read(ReadOp::Open { ino, known: None })).await?;
    execute_one(master, MetaOp::Cluster(ClusterOp::Close { ino, count: 1 })).await?;
    match opened {
        MetaReply::Opened(Opened { attr, extents: Some(page), md5 }) => Ok(LayoutReply {
            attr,
            md5,
            extents: page.extents,
            complete: page.end,
            volumes: page.volumes,
            replicas,
        }),
        MetaReply::Opened(Opened { attr, .. }) => Ok(nothing(attr)),
        _ => Err(WireError::new(ErrorCode::Internal, "opening a file gave another kind of reply")),
    }
}
