//! `/v1/sessions`

use super::{CONTROL_BODY_BYTES_MAX, Services, detached, whole_body};
use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpRequest, HttpResponse, web};
use dfs_proto::SessionId;
use dfs_proto::codec::Encoding;
use dfs_proto::meta::{SessionReply, SessionRequest};
use dfs_service::HttpError;
use dfs_service::http::optional_header;
use std::sync::Arc;

/// `POST /v1/sessions`
pub async fn open(
    services: web::Data<Services>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, HttpError> {
    let content_type = optional_header(&request, CONTENT_TYPE.as_str())?.unwrap_or_default();
    let encoding = Encoding::of_content_type(content_type);
    let body = whole_body(payload, CONTROL_BODY_BYTES_MAX).await?;
    let SessionRequest { client } = encoding.decode(&body)?;
    let master = Arc::clone(&services.master);
    let reply = detached(async move {
        let session = master.sessions.open(client.clone()).await?;
        log::info!("session {session} is {client:?}");
        Ok(SessionReply {
            session,
            lease_ms: master.sessions.lease_ms(),
            cluster: master.cluster.name().to_owned(),
            replicas: master.config.replicas,
        })
    });
    let reply = encoding.encode(&reply.await?)?;
    Ok(HttpResponse::Ok().content_type(encoding.content_type()).body(reply))
}

/// `DELETE /v1/sessions/{id}`
pub async fn close(services: web::Data<Services>, id: web::Path<u64>) -> Result<HttpResponse, HttpError> {
    let id = SessionId(id.into_inner());
    let master = Arc::clone(&services.master);
    detached(async move { master.close_session(id).await }).await?;
    Ok(HttpResponse::NoContent().finish())
}
