//! `/v1/meta`

use super::{Services, detached, whole_body};
use crate::meta;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpRequest, HttpResponse, web};
use dfs_proto::MetaRequest;
use dfs_proto::codec::Encoding;
use dfs_proto::limits::META_BODY_BYTES_MAX;
use dfs_service::HttpError;
use dfs_service::http::optional_header;
use std::sync::Arc;

/// `POST /v1/meta`
pub async fn execute(
    services: web::Data<Services>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, HttpError> {
    let content_type = optional_header(&request, CONTENT_TYPE.as_str())?.unwrap_or_default();
    let encoding = Encoding::of_content_type(content_type);
    let body = whole_body(payload, META_BODY_BYTES_MAX).await?;
    let request: MetaRequest = encoding.decode(&body)?;
    drop(body);
    let master = Arc::clone(&services.master);
    let response = detached(async move { meta::execute(&master, request).await }).await?;
    let body = encoding.encode(&response)?;
    Ok(HttpResponse::Ok().content_type(encoding.content_type()).body(body))
}
