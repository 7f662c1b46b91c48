//! `/v1/orders`

use super::Services;
use actix_web::{HttpResponse, web};
use dfs_proto::ErrorCode;
use dfs_proto::order::{ClaimRequest, FinishRequest, SettleRequest};
use dfs_service::HttpError;

/// `POST /v1/orders/claim`
pub async fn claim(
    services: web::Data<Services>,
    body: web::Json<ClaimRequest>,
) -> Result<HttpResponse, HttpError> {
    let mut stopper = services.stopper.clone();
    tokio::select! {
        claimed = services.master.cluster.queue().claim(&body) => Ok(HttpResponse::Ok().json(claimed?)),
        () = stopper.stopped() => Err(HttpError::new(ErrorCode::Unavailable, "the master is stopping")),
    }
}

/// `POST /v1/orders/settle`
pub async fn settle(
    services: web::Data<Services>,
    body: web::Json<SettleRequest>,
) -> Result<HttpResponse, HttpError> {
    services.master.cluster.queue().settle(&body)?;
    Ok(HttpResponse::NoContent().finish())
}

/// `POST /v1/orders/finish`
pub async fn finish(
    services: web::Data<Services>,
    body: web::Json<FinishRequest>,
) -> Result<HttpResponse, HttpError> {
    services.master.cluster.finish(&body).await?;
    Ok(HttpResponse::NoContent().finish())
}
