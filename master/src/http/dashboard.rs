//! `/`: a page for people that shows `/v1/status`.

use actix_web::HttpResponse;

/// `GET /`
pub async fn show() -> HttpResponse {
    HttpResponse::Ok().content_type("text/html; charset=utf-8").body(include_str!("dashboard.html"))
}
