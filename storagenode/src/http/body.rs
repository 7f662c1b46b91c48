//! Bodies: taken in within a memory budget and a time, and given out without keeping memory for long.

use crate::memory::Buffer;
use crate::node::Node;
use actix_web::HttpRequest;
use actix_web::body::{BodySize, MessageBody};
use actix_web::http::header::CONTENT_LENGTH;
use actix_web::web;
use bytes::Bytes;
use dfs_client::checksum::ChunkSums;
use dfs_proto::limits::BLOB_BYTES_MAX;
use dfs_proto::{ErrorCode, WireError};
use futures_util::StreamExt;
use parking_lot::Mutex;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// A request waits so long for memory.
pub const MEMORY_PATIENCE: Duration = Duration::from_secs(20);

/// A client that sends nothing for so long has its PUT ended, so that others get its memory.
const IDLE_MAX: Duration = Duration::from_secs(20);

/// A refused body is taken in for so long.
const DISCARD_MAX: Duration = Duration::from_secs(2);

/// A client that has not taken an answer within this has it cut off, for the same reason.
const SEND_MAX: Duration = Duration::from_secs(60);

/// Answers go out in pieces of this size: the server copies each piece it is given.
const PIECE_BYTES: usize = 64 << 10;

/// The length that the request states; it must be that of a blob.
pub fn stated_length(request: &HttpRequest) -> Result<usize, WireError> {
    let malformed = |why: &str| WireError::new(ErrorCode::Malformed, why);
    let header = request.headers().get(CONTENT_LENGTH);
    let text = header.ok_or_else(|| malformed("the header content-length is missing"))?.to_str();
    let length = text.ok().and_then(|text| text.parse::<u64>().ok());
    match length.ok_or_else(|| malformed("the header content-length is not a number"))? {
        0 => Err(WireError::new(ErrorCode::InvalidArgument, "a blob has at least one byte")),
        length if length > BLOB_BYTES_MAX as u64 => Err(WireError::new(
            ErrorCode::BodyTooLarge,
            format!("a blob has at most {BLOB_BYTES_MAX} bytes, this has {length}"),
        )),
        length => Ok(length as usize),
    }
}

/// Takes in a body of exactly `length` bytes; answers them with the CRC32C of each chunk, which costs least while
/// the pieces are still in the processor's cache.
pub async fn collect(
    node: &Node,
    payload: &mut web::Payload,
    length: usize,
) -> Result<(Bytes, Vec<u32>), WireError> {
    let Some(mut buffer) = node.put_memory.buffer(length, MEMORY_PATIENCE).await else {
        return Err(overloaded());
    };
    let mut sums = ChunkSums::default();
    while let Some(piece) = next_piece(payload).await? {
        if buffer.len() + piece.len() > length || !buffer.extend(&piece) {
            let message = format!("the body is longer than the {length} bytes that were stated");
            return Err(WireError::new(ErrorCode::Malformed, message));
        }
        sums.update(&piece);
    }
    if buffer.len() < length {
        return Err(truncated(&format!("it ended after {} of {length} bytes", buffer.len())));
    }
    Ok((buffer.freeze(), sums.finish()))
}

/// Takes a body in and forgets it, so that a client that is still sending gets to read its refusal.
pub async fn discard(payload: &mut web::Payload) {
    let discarding = async {
        let mut left = BLOB_BYTES_MAX;
        while let Some(Ok(piece)) = payload.next().await {
            match left.checked_sub(piece.len()) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    // Whoever sends nothing any more is reading, or gone.
    let _ = tokio::time::timeout(DISCARD_MAX, discarding).await;
}

async fn next_piece(payload: &mut web::Payload) -> Result<Option<Bytes>, WireError> {
    match tokio::time::timeout(IDLE_MAX, payload.next()).await {
        Ok(Some(Ok(piece))) => Ok(Some(piece)),
        Ok(Some(Err(e))) => Err(truncated(&e.to_string())),
        Ok(None) => Ok(None),
        Err(_) => Err(truncated(&format!("nothing came for {IDLE_MAX:?}"))),
    }
}

/// A buffer for an answer.
pub async fn answer_buffer(node: &Node, bytes: usize) -> Result<Buffer, WireError> {
    node.get_memory.buffer(bytes, MEMORY_PATIENCE).await.ok_or_else(overloaded)
}

fn truncated(why: &str) -> WireError {
    WireError::new(ErrorCode::Truncated, format!("the body was cut off, nothing was stored: {why}"))
}

fn overloaded() -> WireError {
    let message = format!("this node is overloaded: no memory became free for {MEMORY_PATIENCE:?}");
    WireError::new(ErrorCode::Unavailable, message)
}

/// Bytes that are given out piece by piece. What the client has not taken in time is let go of.
pub struct Pieces {
    held: Arc<Mutex<Option<Bytes>>>,
    length: u64,
    deadline: Option<tokio::task::JoinHandle<()>>,
}

impl Pieces {
    /// Gives `bytes` out.
    pub fn new(bytes: Bytes) -> Pieces {
        let length = bytes.len() as u64;
        let held = Arc::new(Mutex::new(Some(bytes)));
        // What fits into one piece is copied out at once and needs no deadline.
        let deadline = (length > PIECE_BYTES as u64).then(|| {
            let held = held.clone();
            tokio::spawn(async move {
                tokio::time::sleep(SEND_MAX).await;
                held.lock().take();
            })
        });
        Pieces { held, length, deadline }
    }
}

impl MessageBody for Pieces {
    type Error = io::Error;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.length)
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let mut held = self.held.lock();
        let Some(bytes) = &mut *held else {
            return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
        };
        if bytes.is_empty() {
            return Poll::Ready(None);
        }
        let piece = bytes.len().min(PIECE_BYTES);
        Poll::Ready(Some(Ok(bytes.split_to(piece))))
    }
}

impl Drop for Pieces {
    fn drop(&mut self) {
        if let Some(deadline) = &self.deadline {
            deadline.abort();
        }
    }
}
