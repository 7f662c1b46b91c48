//! A small HTTP/1.1 server whose answers are up to the test.

use bytes::{Bytes, BytesMut};
use dfs_proto::codec::Encoding;
use dfs_proto::{ErrorCode, WireError};
use serde::Serialize;
use std::future::Future;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub struct Request {
    pub method: String,
    pub path: String,
    head: String,
    pub body: Bytes,
}

impl Request {
    /// A header's value; names are compared without case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }
}

pub enum Reply {
    Answer {
        status: u16,
        headers: Vec<(&'static str, String)>,
        body: Bytes,
    },
    /// The connection is closed without an answer.
    Drop,
    /// An answer whose body ends this many bytes early, with the connection closed or left open.
    Short {
        body: Bytes,
        missing: usize,
        closes: bool,
    },
    /// A body of lines until the sender is dropped.
    Lines(tokio::sync::mpsc::UnboundedReceiver<String>),
}

impl Reply {
    pub fn encoded<T: Serialize>(encoding: Encoding, status: u16, value: &T) -> Reply {
        let body = encoding.encode(value).unwrap().into();
        Reply::Answer { status, headers: vec![("content-type", encoding.content_type().into())], body }
    }

    pub fn json<T: Serialize>(value: &T) -> Reply {
        Reply::encoded(Encoding::Json, 200, value)
    }

    pub fn error(code: ErrorCode) -> Reply {
        Reply::encoded(Encoding::Json, code.http_status(), &WireError::new(code, "as the test wants it"))
    }

    pub fn plain(status: u16, body: impl Into<Bytes>) -> Reply {
        Reply::Answer { status, headers: vec![("content-type", "text/html".into())], body: body.into() }
    }
}

/// Runs until dropped.
pub struct Server {
    pub url: String,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers every request with what `answer` says.
pub async fn serve<F, A>(answer: F) -> Server
where
    F: Fn(Request) -> A + Send + Sync + 'static,
    A: Future<Output = Reply> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let answer = answer.clone();
            connections.spawn(async move {
                let mut connection = Connection { stream, buffer: BytesMut::new() };
                while let Some(request) = connection.request().await {
                    if !connection.reply(answer(request).await).await {
                        return;
                    }
                }
            });
        }
    });
    Server { url, task }
}

struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Connection {
    async fn request(&mut self) -> Option<Request> {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
            if self.stream.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        };
        let head = String::from_utf8(self.buffer.split_to(end).to_vec()).unwrap();
        let mut first = head.split_whitespace();
        let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
        let mut request = Request { method, path, head, body: Bytes::new() };
        let length = request.header("content-length").map_or(0, |v| v.parse().unwrap());
        while self.buffer.len() < length {
            if self.stream.read_buf(&mut self.buffer).await.ok()? == 0 {
                return None;
            }
        }
        request.body = self.buffer.split_to(length).freeze();
        Some(request)
    }

    /// Sends the answer; false when the connection is over.
    async fn reply(&mut self, reply: Reply) -> bool {
        let (status, headers, body, missing, closes) = match reply {
            Reply::Drop => return false,
            Reply::Lines(lines) => return self.lines(lines).await,
            Reply::Answer { status, headers, body } => (status, headers, body, 0, false),
            Reply::Short { body, missing, closes } => (200, vec![], body, missing, closes),
        };
        let mut head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let sent = async {
            self.stream.write_all(head.as_bytes()).await?;
            self.stream.write_all(&body[..body.len() - missing]).await
        };
        if sent.await.is_err() || closes {
            return false;
        }
        if missing > 0 {
            std::future::pending::<()>().await;
        }
        true
    }

    async fn lines(&mut self, mut lines: tokio::sync::mpsc::UnboundedReceiver<String>) -> bool {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        if self.stream.write_all(head.as_bytes()).await.is_err() {
            return false;
        }
        while let Some(line) = lines.recv().await {
            let chunk = format!("{:x}\r\n{line}\n\r\n", line.len() + 1);
            if self.stream.write_all(chunk.as_bytes()).await.is_err() {
                return false;
            }
        }
        false
    }
}
