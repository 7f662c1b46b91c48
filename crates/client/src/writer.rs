//! Stores one blob: on a random primary, and on another one when that fails.

use crate::blobs::{Inner, Tries, failed_at};
use crate::checksum::{Sums, sums_of};
use crate::grants::Place;
use crate::retry::Backoff;
use crate::{ClientError, PutBlob};
use bytes::Bytes;
use dfs_proto::limits::BLOB_BYTES_MAX;
use dfs_proto::{BlobOrigin, BlobRef, ErrorCode, Md5, NodeId, PutAck};
use tokio::time::Instant;

const BACKOFF: Backoff = Backoff::of_ms(20, 1000);

/// Tries on nodes that have not failed yet follow each other at once; after so many there is a pause in any
/// case.
const TRIES_AT_ONCE: u32 = 3;

/// Answers that should not happen to a correct client (a key that is taken, a capability that is not
/// accepted, bytes that arrived changed) are put down to bad luck so often.
const ODD_ANSWERS_MAX: u32 = 3;

/// What a failed PUT means for the next try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The node does not work: none of its grants is used for now.
    NodeFailed,
    /// The node is full.
    NodeFull,
    /// This grant is over; the node may be well.
    GrantOver,
    /// As `GrantOver`, but suspicious when it goes on.
    Odd,
    /// It would be the same everywhere.
    Hopeless,
}

fn verdict(code: ErrorCode) -> Verdict {
    use ErrorCode::*;
    match code {
        Timeout | Unreachable | Unavailable | Internal | Io | Corrupt | NoGoodCopy | NoNodes => {
            Verdict::NodeFailed
        }
        NoSpace => Verdict::NodeFull,
        Sealed | UnknownVolume | NotFound | Truncated | Stale => Verdict::GrantOver,
        Unauthorized | Conflict | ChecksumMismatch => Verdict::Odd,
        Exists | NotDirectory | IsDirectory | NotEmpty | NoAttribute | InvalidName | NameTooLong
        | InvalidArgument | TooLarge | ValueTooLarge | TooManyLinks | NotPermitted | NotSupported
        | Deadlock | TooManyLocks | LockLost | SessionExpired | Malformed | BodyTooLarge => Verdict::Hopeless,
    }
}

pub(crate) async fn put(inner: &Inner, data: Bytes, origin: BlobOrigin) -> Result<BlobRef, ClientError> {
    check_length(&data)?;
    let sums = sums_of(std::slice::from_ref(&data)).await?.into_iter().next();
    let sums = sums.ok_or_else(|| ClientError::local(ErrorCode::Internal, "a checksum was lost"))?;
    put_summed(inner, data, sums, origin).await
}

fn check_length(data: &[u8]) -> Result<(), ClientError> {
    if data.is_empty() || data.len() > BLOB_BYTES_MAX {
        let message = format!("a blob has 1 to {BLOB_BYTES_MAX} bytes, not {}", data.len());
        return Err(ClientError::local(ErrorCode::InvalidArgument, message));
    }
    Ok(())
}

pub(crate) async fn put_summed(
    inner: &Inner,
    data: Bytes,
    sums: Sums,
    origin: BlobOrigin,
) -> Result<BlobRef, ClientError> {
    check_length(&data)?;
    let Sums { md5, crc32c } = sums;
    let deadline = Instant::now() + inner.config.put_deadline;
    Put { inner, data, md5, crc32c, origin, deadline, tried: Vec::new(), tries: Tries::default() }.run().await
}

/// A blob on its way.
struct Put<'a> {
    inner: &'a Inner,
    data: Bytes,
    md5: Md5,
    crc32c: Vec<u32>,
    origin: BlobOrigin,
    deadline: Instant,
    /// Nodes that failed this blob.
    tried: Vec<NodeId>,
    tries: Tries,
}

impl Put<'_> {
    async fn run(mut self) -> Result<BlobRef, ClientError> {
        let mut attempt = 0;
        let mut odd_answers = 0;
        let mut last_failure: Option<(ErrorCode, String)> = None;
        loop {
            let place = match self.next_place().await {
                Ok(place) => place,
                Err(e) => return Err(self.not_stored(e.code(), e)),
            };
            if attempt >= TRIES_AT_ONCE || self.tried.contains(&place.primary.id) {
                BACKOFF.wait(attempt, self.deadline).await;
            }
            if let Some((_, line)) = &last_failure {
                log::warn!("{} bytes not stored yet: {line}; next: {}", self.data.len(), place.primary.name);
            }
            let error = match self.send(&place).await {
                Ok(ack) => return Ok(self.stored(&place, ack)),
                Err(error) => error,
            };
            let code = error.code();
            let line = failed_at(&place.primary, &error);
            self.tries.add(line.clone());
            let verdict = verdict(code);
            odd_answers += u32::from(verdict == Verdict::Odd);
            if verdict == Verdict::Hopeless || odd_answers >= ODD_ANSWERS_MAX {
                return Err(error);
            }
            self.take_in(&place, verdict);
            attempt += 1;
            last_failure = Some((code, line));
            if Instant::now() >= self.deadline {
                return Err(self.gave_up(code));
            }
        }
    }

    /// Where to try next. A master without a place is asked again until the deadline.
    async fn next_place(&self) -> Result<Place, ClientError> {
        let mut attempt = 0;
        loop {
            let mut avoid = self.inner.health.unfit_to_write();
            avoid.extend(&self.tried);
            let taken = tokio::time::timeout_at(self.deadline, self.inner.grants.take(&avoid)).await;
            let error = match taken {
                Ok(Ok(place)) => return Ok(place),
                Ok(Err(e)) => e,
                Err(_) => ClientError::local(ErrorCode::Timeout, "no grant came in time"),
            };
            // The master itself is asked again inside its client; here it is about nodes that may come back.
            let may_pass = matches!(error.code(), ErrorCode::NoNodes | ErrorCode::Unavailable);
            if !may_pass || Instant::now() >= self.deadline {
                return Err(error);
            }
            BACKOFF.wait(attempt, self.deadline).await;
            attempt += 1;
        }
    }

    async fn send(&self, place: &Place) -> Result<PutAck, ClientError> {
        let put = PutBlob {
            data: self.data.clone(),
            md5: self.md5,
            crc32c: self.crc32c.clone(),
            origin: self.origin,
            sync: false,
            token: place.token.to_string(),
        };
        let url = &place.primary.url;
        let limit = self.inner.config.put_try.min(self.deadline.saturating_duration_since(Instant::now()));
        match tokio::time::timeout(limit, self.inner.nodes.put(url, place.blob, put)).await {
            Ok(result) => result,
            Err(_) => Err(ClientError::Timeout {
                server: url.clone(),
                what: format!("PUT of blob {}", place.blob),
                deadline_ms: limit.as_millis() as u64,
            }),
        }
    }

    fn stored(&self, place: &Place, ack: PutAck) -> BlobRef {
        self.inner.health.note_good(place.primary.id);
        // Who reads it back need not ask where it is.
        self.inner.placement.learn_if_new(&place.volume);
        BlobRef { id: place.blob, seq: ack.seq, length: self.data.len() as u32, md5: self.md5 }
    }

    fn take_in(&mut self, place: &Place, verdict: Verdict) {
        let node = place.primary.id;
        match verdict {
            Verdict::NodeFailed => {
                self.inner.health.note_failed(node);
                self.inner.grants.drop_node(node);
                self.tried.push(node);
            }
            Verdict::NodeFull => {
                self.inner.health.note_full(node);
                self.inner.grants.drop_node(node);
                self.tried.push(node);
            }
            Verdict::GrantOver | Verdict::Odd => self.inner.grants.drop_volume(place.volume.id),
            Verdict::Hopeless => {}
        }
    }

    /// The error when no place is left to try.
    fn not_stored(mut self, code: ErrorCode, error: ClientError) -> ClientError {
        if self.tries.is_empty() {
            return error;
        }
        self.tries.add(format!("master: {error}"));
        self.gave_up(code)
    }

    fn gave_up(self, code: ErrorCode) -> ClientError {
        ClientError::NotStored { bytes: self.data.len(), code, tries: self.tries.into_lines() }
    }
}
