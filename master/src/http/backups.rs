//! `/v1/backups`

use super::{Services, detached};
use crate::backup;
use actix_web::{HttpResponse, web};
use dfs_service::HttpError;
use std::sync::Arc;

/// `POST /v1/backups`: takes one now.
pub async fn take(services: web::Data<Services>) -> Result<HttpResponse, HttpError> {
    let master = Arc::clone(&services.master);
    let taken = detached(async move { backup::take(&master).await }).await?;
    Ok(HttpResponse::Created().json(taken))
}
