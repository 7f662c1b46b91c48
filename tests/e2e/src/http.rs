//! HTTP by hand: requests that a well-behaved client would never send, and answers as they came.

use dfs_proto::{Md5, WireError};
use std::io::{Error, ErrorKind, Result};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One request and its answer may take so long.
const EXCHANGE_MAX: Duration = Duration::from_secs(60);

/// One server, a new connection for each request.
#[derive(Clone, Debug)]
pub struct Http {
    address: String,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, of the length that was announced.
    pub body: Vec<u8>,
}

impl Http {
    /// The server at a base URL (`http://host:port`).
    pub fn new(url: &str) -> Http {
        let address = url.strip_prefix("http://").expect("base URLs begin with http://");
        Http { address: address.to_owned() }
    }

    /// A connection, for those who break it.
    pub async fn connect(&self) -> Result<TcpStream> {
        TcpStream::connect(&self.address).await
    }

    /// `GET`
    pub async fn get(&self, target: &str) -> Result<Answer> {
        self.request("GET", target, &[], &[]).await
    }

    /// `PUT`
    pub async fn put(&self, target: &str, body: &[u8]) -> Result<Answer> {
        self.request("PUT", target, &[], body).await
    }

    /// A request with a `Content-Length`.
    pub async fn request(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer> {
        let mut raw = head(&self.address, method, target, headers, &body.len().to_string()).into_bytes();
        raw.extend_from_slice(body);
        self.exchange(&raw).await
    }

    /// Sends bytes as they are and reads the answer.
    pub async fn exchange(&self, raw: &[u8]) -> Result<Answer> {
        let exchange = async {
            let (mut receive, mut send) = self.connect().await?.into_split();
            // A server may answer before it has read everything, and close.
            let (sent, received) = tokio::join!(send.write_all(raw), read_answer(&mut receive));
            received.map_err(|e| Error::new(e.kind(), format!("{e} (sending: {sent:?})")))
        };
        tokio::time::timeout(EXCHANGE_MAX, exchange).await?
    }
}

/// The head of a request, for those who send the body themselves.
fn head(address: &str, method: &str, target: &str, headers: &[(&str, &str)], length: &str) -> String {
    let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {length}\r\n\r\n"));
    head
}

impl Http {
    /// The head of a request whose body is announced with `length`, which may be a lie.
    pub fn head(&self, method: &str, target: &str, length: &str) -> Vec<u8> {
        head(&self.address, method, target, &[], length).into_bytes()
    }
}

/// Reads one answer. `UnexpectedEof` when the body is shorter than announced.
pub(crate) async fn read_answer(stream: &mut (impl AsyncReadExt + Unpin)) -> Result<Answer> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            return Err(Error::new(
                ErrorKind::UnexpectedEof,
                format!("the answer ends in its head: {text:?}"),
            ));
        }
    };
    let mut body = bytes.split_off(head_end);
    let head = String::from_utf8(bytes).map_err(Error::other)?;
    let mut lines = head.trim_end().split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line.split(' ').nth(1).and_then(|s| s.parse().ok());
    let status: u16 = status.ok_or_else(|| Error::other(format!("no status in {status_line:?}")))?;
    if (100..200).contains(&status) {
        return Err(Error::other(format!("an interim answer that was not asked for: {status_line}")));
    }
    let split = |line: &str| line.split_once(':').map(|(n, v)| (n.to_lowercase(), v.trim().to_owned()));
    let headers: Vec<(String, String)> = lines.filter_map(split).collect();
    let answer = Answer { status, headers, body: Vec::new() };
    let length: Option<usize> = answer.header("content-length").and_then(|l| l.parse().ok());
    while length.is_none_or(|length| body.len() < length) {
        let got = stream.read_buf(&mut body).await?;
        match (got, length) {
            (0, None) => break,
            (0, Some(length)) => {
                let message = format!("the body ends after {} of {length} bytes", body.len());
                return Err(Error::new(ErrorKind::UnexpectedEof, message));
            }
            _ => {}
        }
    }
    Ok(Answer { body, ..answer })
}

impl Answer {
    /// A header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e} in {self:?}"))
    }

    /// The error that it says; panics when it is none in the documented form.
    pub fn error(&self) -> WireError {
        assert!(self.status >= 400, "not an error: {self:?}");
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{} without code and message ({e}): {}", self.status, self.text()))
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// MD5 of the body.
    pub fn md5(&self) -> Md5 {
        dfs_client::checksum::md5(&self.body)
    }
}

/// `name` for a URL: everything but letters and digits as `%XX`.
pub fn percent_encoded(name: &[u8]) -> String {
    name.iter()
        .map(|b| if b.is_ascii_alphanumeric() { char::from(*b).to_string() } else { format!("%{b:02X}") })
        .collect()
}
