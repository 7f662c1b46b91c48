//! `DELETE`.

use super::{PREFIX, Request, resolve, shown};
use crate::http::Services;
use actix_web::{HttpRequest, HttpResponse, web};
use dfs_proto::meta::WriteOp;
use dfs_proto::{ErrorCode, FileKind, MetaOp, WireError};
use dfs_service::HttpError;

/// `DELETE /files/{path}`: a name, or an empty directory.
pub async fn delete(services: web::Data<Services>, request: HttpRequest) -> Result<HttpResponse, HttpError> {
    let Request { mut names, is_directory } = Request::parse(request.uri().path(), PREFIX)?;
    let path = shown(&names);
    let Some(name) = names.pop() else {
        return Err(HttpError::new(ErrorCode::NotPermitted, "the root directory cannot be removed"));
    };
    let meta = &*services.meta;
    let parent = resolve(meta, names.clone()).await?.ino;
    names.push(name.clone());
    let attr = resolve(meta, names).await?;
    let op = match attr.kind {
        FileKind::Directory => WriteOp::Rmdir { parent, name },
        _ if is_directory => {
            return Err(HttpError::new(ErrorCode::NotDirectory, format!("{path} is not a directory")));
        }
        _ => WriteOp::Unlink { parent, name },
    };
    meta.call(MetaOp::Write(op)).await.map_err(WireError::from)?;
    Ok(HttpResponse::NoContent().finish())
}
