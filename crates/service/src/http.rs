//! Errors over HTTP: every answer that is not a success has the body `{"code": .., "message": ..}`.

use actix_web::body::BoxBody;
use actix_web::error::{JsonPayloadError, PathError, QueryPayloadError};
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, ResponseError, web};
use dfs_proto::{ErrorCode, WireError};
use std::fmt;

/// A [`WireError`] as an answer of a handler.
#[derive(Debug)]
pub struct HttpError(pub WireError);

impl HttpError {
    /// An error of `code` that says `message`.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> HttpError {
        HttpError(WireError::new(code, message))
    }
}

impl From<WireError> for HttpError {
    fn from(e: WireError) -> HttpError {
        HttpError(e)
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl ResponseError for HttpError {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.0.code.http_status()).expect("every code has a valid status")
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        HttpResponse::build(self.status_code()).json(&self.0)
    }
}

/// The JSON extractor's limits and errors, in our form. `body_bytes_max` bounds what it buffers.
pub fn json_config(body_bytes_max: usize) -> web::JsonConfig {
    fn refuse(e: JsonPayloadError, _: &HttpRequest) -> actix_web::Error {
        let code = match e {
            JsonPayloadError::Overflow { .. } | JsonPayloadError::OverflowKnownLength { .. } => {
                ErrorCode::BodyTooLarge
            }
            _ => ErrorCode::Malformed,
        };
        HttpError::new(code, format!("cannot read the body: {e}")).into()
    }
    web::JsonConfig::default().limit(body_bytes_max).content_type_required(false).error_handler(refuse)
}

/// The path extractor's errors in our form.
pub fn path_config() -> web::PathConfig {
    fn refuse(e: PathError, _: &HttpRequest) -> actix_web::Error {
        HttpError::new(ErrorCode::Malformed, format!("cannot read the path: {e}")).into()
    }
    web::PathConfig::default().error_handler(refuse)
}

/// The query extractor's errors in our form.
pub fn query_config() -> web::QueryConfig {
    fn refuse(e: QueryPayloadError, _: &HttpRequest) -> actix_web::Error {
        HttpError::new(ErrorCode::Malformed, format!("cannot read the query: {e}")).into()
    }
    web::QueryConfig::default().error_handler(refuse)
}

/// The answer to paths that nothing serves.
pub async fn no_such_path(request: HttpRequest) -> HttpResponse {
    let message = format!("nothing is served at {} {}", request.method(), request.path());
    HttpError::new(ErrorCode::NotFound, message).error_response()
}

/// A header's value as text; `malformed` when it is missing or not text.
pub fn required_header<'a>(request: &'a HttpRequest, name: &str) -> Result<&'a str, HttpError> {
    optional_header(request, name)?
        .ok_or_else(|| HttpError::new(ErrorCode::Malformed, format!("the header {name} is missing")))
}

/// A header's value as text, if it is there; `malformed` when it is not text.
pub fn optional_header<'a>(request: &'a HttpRequest, name: &str) -> Result<Option<&'a str>, HttpError> {
    request
        .headers()
        .get(name)
        .map(|v| {
            v.to_str()
                .map_err(|_| HttpError::new(ErrorCode::Malformed, format!("the header {name} is not text")))
        })
        .transpose()
}
