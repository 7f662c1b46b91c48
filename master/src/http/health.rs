//! `/healthz`

use actix_web::HttpResponse;

/// `GET /healthz`: it answers, so it serves.
pub async fn show() -> HttpResponse {
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").body("ok\n")
}
