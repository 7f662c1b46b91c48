//! One HTTP request: sent with a deadline, its answer read within bounds, whatever goes wrong turned into a
//! [`ClientError`].
//!
//! The one place that names the HTTP library. It knows nothing of retries or of what is being asked for.

use crate::ClientError;
use crate::buffers::Buffer;
use bytes::{Bytes, BytesMut};
use dfs_proto::codec::{Encoding, JSON};
use dfs_proto::{ErrorCode, WireError};
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Method, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::error::Error as _;
use std::time::Duration;

/// How long a connection may take to stand: a dead host on a LAN must not cost more.
const CONNECT_MS_MAX: u64 = 1000;

/// How long the body of an answer may stand still once it has begun.
const STALL_MS_MAX: u64 = 5000;

/// Idle connections are dropped after this, before the servers' own keep-alive (5 s in actix-web) ends them
/// at the moment of the next request.
const IDLE_MS_MAX: u64 = 4000;

/// Body of an answer that is not 2xx, bytes.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// How much of a body that is not ours goes into an error message, characters.
const EXCERPT_CHARS_MAX: usize = 120;

/// A pool of connections to servers of one kind.
#[derive(Clone)]
pub(crate) struct Transport {
    client: reqwest::Client,
}

/// One request.
pub(crate) struct Call<'a> {
    /// Base URL.
    pub server: &'a str,
    pub method: Method,
    /// Path and query.
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Bytes,
    /// For the whole request and answer.
    pub deadline: Duration,
    /// Longer answers are refused, bytes.
    pub answer_bytes_max: usize,
}

/// A 2xx answer.
pub(crate) struct Answer {
    what: What,
    headers: HeaderMap,
    pub body: Bytes,
}

/// A request that did not succeed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub error: ClientError,
    /// Whether the server may have received the request.
    pub sent: bool,
}

impl From<Failure> for ClientError {
    fn from(f: Failure) -> ClientError {
        f.error
    }
}

/// Names a request in errors.
#[derive(Clone)]
struct What {
    server: String,
    request: String,
}

impl<'a> Call<'a> {
    /// A request without a body.
    pub fn new(server: &'a str, method: Method, path: String, deadline: Duration) -> Call<'a> {
        Call { server, method, path, headers: Vec::new(), body: Bytes::new(), deadline, answer_bytes_max: 0 }
    }

    /// Sends `value` in JSON.
    pub fn json<T: Serialize>(self, value: &T) -> Result<Call<'a>, ClientError> {
        let body = Encoding::Json.encode(value)?;
        Ok(self.header("content-type", JSON.to_owned()).body(body.into()))
    }

    pub fn header(mut self, name: &'static str, value: String) -> Call<'a> {
        self.headers.push((name, value));
        self
    }

    pub fn body(mut self, body: Bytes) -> Call<'a> {
        self.body = body;
        self
    }

    pub fn answer_bytes_max(mut self, bytes: usize) -> Call<'a> {
        self.answer_bytes_max = bytes;
        self
    }

    fn what(&self) -> What {
        let path = self.path.split('?').next().unwrap_or_default();
        What { server: self.server.to_owned(), request: format!("{} {path}", self.method) }
    }
}

/// Checks a base URL and brings it into the form that paths are put after. Without a scheme it gets
/// `http://`.
pub(crate) fn base_url(text: &str) -> Result<String, ClientError> {
    let refuse = |reason: String| {
        let message = format!("{text:?} is not a server's address: {reason}; write http://HOST:PORT");
        ClientError::local(ErrorCode::InvalidArgument, message)
    };
    let text_given = text.trim();
    let full =
        if text_given.contains("://") { text_given.to_owned() } else { format!("http://{text_given}") };
    let full = full.trim_end_matches('/').to_owned();
    let url = Url::parse(&full).map_err(|e| refuse(e.to_string()))?;
    match url.scheme() {
        "http" if url.host_str().is_some() && url.query().is_none() && url.fragment().is_none() => Ok(full),
        "http" => Err(refuse("it has no host, or more than a host and a path".to_owned())),
        other => Err(refuse(format!("the scheme {other} is not supported"))),
    }
}

impl Transport {
    /// Keeps at most `idle_per_host` idle connections to each server.
    pub fn new(idle_per_host: usize) -> Result<Transport, ClientError> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(Duration::from_millis(CONNECT_MS_MAX))
            .pool_idle_timeout(Duration::from_millis(IDLE_MS_MAX))
            .pool_max_idle_per_host(idle_per_host)
            .build()
            .map_err(|e| {
                ClientError::local(ErrorCode::Internal, format!("no HTTP client could be made: {e}"))
            })?;
        Ok(Transport { client })
    }

    /// Sends the request and reads the whole answer.
    pub async fn send(&self, call: Call<'_>) -> Result<Answer, Failure> {
        let what = call.what();
        let deadline = call.deadline;
        match tokio::time::timeout(deadline, self.exchange(call, &what)).await {
            Ok(result) => result,
            Err(_) => Err(Failure { error: what.timeout(deadline), sent: true }),
        }
    }

    /// Sends the request; the answer's body is read piece by piece. The call's deadline is for its head.
    pub async fn open(&self, call: Call<'_>) -> Result<BodyStream, Failure> {
        let what = call.what();
        let deadline = call.deadline;
        let opened = async {
            let response = self.head(call, &what).await?;
            if response.status().is_success() {
                return Ok(BodyStream { what: what.clone(), response });
            }
            Err(Failure { error: refusal(response, &what).await, sent: true })
        };
        match tokio::time::timeout(deadline, opened).await {
            Ok(result) => result,
            Err(_) => Err(Failure { error: what.timeout(deadline), sent: true }),
        }
    }

    async fn exchange(&self, call: Call<'_>, what: &What) -> Result<Answer, Failure> {
        let bytes_max = call.answer_bytes_max;
        let response = self.head(call, what).await?;
        let received = |error| Failure { error, sent: true };
        if !response.status().is_success() {
            return Err(received(refusal(response, what).await));
        }
        let headers = response.headers().clone();
        let body = read_body(response, bytes_max, what).await.map_err(received)?;
        Ok(Answer { what: what.clone(), headers, body })
    }

    async fn head(&self, call: Call<'_>, what: &What) -> Result<reqwest::Response, Failure> {
        let mut request = self.client.request(call.method, format!("{}{}", call.server, call.path));
        for (name, value) in call.headers {
            request = request.header(name, value);
        }
        if !call.body.is_empty() {
            request = request.body(call.body);
        }
        request
            .send()
            .await
            .map_err(|e| Failure { sent: !e.is_connect() && !e.is_builder(), error: what.transport(e) })
    }
}

impl What {
    fn timeout(&self, deadline: Duration) -> ClientError {
        ClientError::Timeout {
            server: self.server.clone(),
            what: self.request.clone(),
            deadline_ms: deadline.as_millis() as u64,
        }
    }

    fn bad(&self, reason: impl Into<String>) -> ClientError {
        ClientError::BadAnswer {
            server: self.server.clone(),
            what: self.request.clone(),
            reason: reason.into(),
        }
    }

    fn transport(&self, e: reqwest::Error) -> ClientError {
        if e.is_builder() {
            let message = format!("{} cannot be asked of {}: {}", self.request, self.server, chain(&e));
            return ClientError::local(ErrorCode::InvalidArgument, message);
        }
        let reason = if e.is_connect() && e.is_timeout() {
            format!("no connection within {CONNECT_MS_MAX} ms")
        } else {
            format!("{}: {}", self.request, chain(&e))
        };
        ClientError::Unreachable { server: self.server.clone(), reason }
    }
}

/// The causes of a transport error from the second on: the first only repeats the URL.
fn chain(e: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut next = e.source();
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    if causes.is_empty() { e.to_string() } else { causes.join(": ") }
}

async fn read_body(
    mut response: reqwest::Response,
    bytes_max: usize,
    what: &What,
) -> Result<Bytes, ClientError> {
    let too_long = || what.bad(format!("a body of more than {bytes_max} bytes"));
    let announced = response.content_length().unwrap_or(0);
    if announced > bytes_max as u64 {
        return Err(too_long());
    }
    let announced = announced as usize;
    let mut body = Buffer::of(announced);
    let (mut filled, mut beyond) = (0, BytesMut::new());
    loop {
        let piece = next_piece(&mut response, what, Duration::from_millis(STALL_MS_MAX)).await?;
        let Some(piece) = piece else { break };
        if filled == 0 && piece.len() == announced {
            return Ok(piece);
        }
        // Without a stated length (a chunked body) there is no room to fill.
        if let Some(room) = body.room().get_mut(filled..filled + piece.len()) {
            room.copy_from_slice(&piece);
            filled += piece.len();
            continue;
        }
        if announced > 0 || beyond.len() + piece.len() > bytes_max {
            return Err(too_long());
        }
        beyond.extend_from_slice(&piece);
    }
    let body = if announced > 0 { body.freeze().slice(..filled) } else { beyond.freeze() };
    Ok(body)
}

/// The next piece of a body; `None` at its end. A body that ends before its stated length is an error.
async fn next_piece(
    response: &mut reqwest::Response,
    what: &What,
    patience: Duration,
) -> Result<Option<Bytes>, ClientError> {
    match tokio::time::timeout(patience, response.chunk()).await {
        Ok(Ok(piece)) => Ok(piece),
        Ok(Err(e)) => Err(what.transport(e)),
        Err(_) => Err(what.timeout(patience)),
    }
}

/// The error that an answer other than 2xx tells of.
async fn refusal(response: reqwest::Response, what: &What) -> ClientError {
    let status = response.status();
    let encoding = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .map_or(Encoding::Json, Encoding::of_content_type);
    // A refusal without a readable body is still a refusal: the status says which.
    let body = read_body(response, ERROR_BYTES_MAX, what).await.unwrap_or_default();
    if let Ok(error) = encoding.decode::<WireError>(&body) {
        return ClientError::Remote(error);
    }
    let Some(code) = code_of_status(status) else {
        return what.bad(format!("status {status}"));
    };
    let excerpt: String =
        String::from_utf8_lossy(&body).chars().filter(|c| !c.is_control()).take(EXCERPT_CHARS_MAX).collect();
    let message = format!("{} answered {} with status {status} {excerpt}", what.server, what.request);
    ClientError::Remote(WireError::new(code, message.trim_end().to_owned()))
}

/// What a status stands for when the body does not say; `None` for those that are no error and no success.
fn code_of_status(status: StatusCode) -> Option<ErrorCode> {
    Some(match status.as_u16() {
        401 => ErrorCode::Unauthorized,
        403 => ErrorCode::NotPermitted,
        404 => ErrorCode::NotFound,
        408 | 504 => ErrorCode::Timeout,
        409 => ErrorCode::Conflict,
        410 => ErrorCode::Sealed,
        413 => ErrorCode::BodyTooLarge,
        422 => ErrorCode::ChecksumMismatch,
        429 | 503 => ErrorCode::Unavailable,
        440 => ErrorCode::SessionExpired,
        400..=499 => ErrorCode::Malformed,
        501 => ErrorCode::NotSupported,
        502 => ErrorCode::Unreachable,
        507 => ErrorCode::NoSpace,
        500..=599 => ErrorCode::Internal,
        _ => return None,
    })
}

impl Answer {
    /// The body as a `T`, in `encoding`.
    pub fn decode<T: DeserializeOwned>(&self, encoding: Encoding) -> Result<T, ClientError> {
        encoding.decode(&self.body).map_err(|e| self.what.bad(e.message))
    }

    /// A header as text, if it is there.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// A header that must be there, read as a `T`.
    pub fn parsed_header<T: std::str::FromStr>(&self, name: &str) -> Result<T, ClientError> {
        let text = self.header(name).ok_or_else(|| self.what.bad(format!("the header {name} is missing")))?;
        text.parse().map_err(|_| self.what.bad(format!("the header {name} is {text:?}")))
    }

    /// An error about this answer.
    pub fn bad(&self, reason: impl Into<String>) -> ClientError {
        self.what.bad(reason)
    }
}

/// The body of an answer that goes on.
pub(crate) struct BodyStream {
    what: What,
    response: reqwest::Response,
}

impl BodyStream {
    /// The next piece, waited for at most `patience`; `None` at the end.
    pub async fn next(&mut self, patience: Duration) -> Result<Option<Bytes>, ClientError> {
        next_piece(&mut self.response, &self.what, patience).await
    }

    /// An error about this answer.
    pub fn bad(&self, reason: impl Into<String>) -> ClientError {
        self.what.bad(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_brought_into_one_form() {
        for (given, wanted) in [
            ("host:8820", "http://host:8820"),
            ("http://host:8820/", "http://host:8820"),
            (" http://[::1]:1 ", "http://[::1]:1"),
        ] {
            assert_eq!(base_url(given).unwrap(), wanted);
        }
        for bad in ["", "http://", "https://host", "ftp://host", "http://host?x=1", "http://host:notaport"] {
            assert_eq!(base_url(bad).unwrap_err().code(), ErrorCode::InvalidArgument, "{bad}");
        }
    }

    #[test]
    fn every_error_status_of_the_protocol_has_a_code_of_that_status() {
        use ErrorCode::*;
        for code in [NotFound, Conflict, BodyTooLarge, ChecksumMismatch, NotPermitted, Unauthorized] {
            let status = StatusCode::from_u16(code.http_status()).unwrap();
            assert_eq!(code_of_status(status), Some(code));
        }
        for status in 400..600 {
            let code = code_of_status(StatusCode::from_u16(status).unwrap()).unwrap();
            let retryable = matches!(status, 408 | 429);
            assert_eq!(code.http_status() >= 500, retryable || status >= 500, "{status} is {code}");
        }
        assert_eq!(code_of_status(StatusCode::FOUND), None);
    }
}
