//! Requests to storage nodes, one at a time: the [`NodeClient`] seam and its HTTP implementation.
//!
//! Knows paths and headers. It does not retry, choose nodes or verify what comes back; that is the business
//! of [`crate::Blobs`] and of the servers that pull from each other.

use crate::ClientError;
use crate::http::{Answer, Call, Transport};
use async_trait::async_trait;
use bytes::Bytes;
use dfs_proto::blob::{
    CheckReply, CopyStatus, DeleteReply, DeleteRequest, DropReply, HEADER_CRC32C, HEADER_MD5, HEADER_ORIGIN,
    HEADER_SEQ, HEADER_SYNC, HEADER_TOKEN, PullReply, PullRequest, RepairRequest, SyncRequest, VerifyReply,
    VerifyRequest, blob_path, volume_path,
};
use dfs_proto::codec::Encoding;
use dfs_proto::limits::BLOB_BYTES_MAX;
use dfs_proto::local::{LOCAL_PATH, LocalSocket};
use dfs_proto::{BlobId, BlobOrigin, CHUNK_BYTES, ErrorCode, Md5, PutAck, Seq, VolumeId};
use reqwest::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::ops::Range;
use std::time::Duration;

/// Idle connections to each node: reads ahead and writes of one mount.
const IDLE_CONNECTIONS_MAX: usize = 16;

/// Longest answer that holds no blob, bytes.
const CONTROL_BYTES_MAX: usize = 1 << 20;

/// What a record has beside its payload: header and checksums, with room to spare, bytes.
const RECORD_EXTRA_BYTES_MAX: usize = 64 << 10;

/// A blob to store.
#[derive(Clone, Debug)]
pub struct PutBlob {
    /// Its bytes, 1 to [`BLOB_BYTES_MAX`].
    pub data: Bytes,
    /// MD5 of all of them.
    pub md5: Md5,
    /// CRC32C of each chunk. When it is empty the node verifies the MD5 instead.
    pub crc32c: Vec<u32>,
    /// Which file it belongs to.
    pub origin: BlobOrigin,
    /// Answer only after fdatasync.
    pub sync: bool,
    /// The right to do so.
    pub token: String,
}

/// A blob, or whole chunks of one, as a node sent it: **not yet verified**.
#[derive(Clone, Debug)]
pub struct FetchedBlob {
    /// The bytes.
    pub data: Bytes,
    /// The chunk that they begin with.
    pub first_chunk: u32,
    /// CRC32C of each chunk, as the node has it.
    pub crc32c: Vec<u32>,
    /// MD5 of the whole blob, as the node has it.
    pub md5: Md5,
    /// Its place in the volume's log.
    pub seq: Seq,
}

/// One request to one storage node, without retries. Errors are those of the node, or `unreachable` and
/// `timeout`.
#[async_trait]
pub trait NodeClient: Send + Sync + 'static {
    /// Appends `put` to the blob's volume; the node must be its primary.
    async fn put(&self, node_url: &str, blob: BlobId, put: PutBlob) -> Result<PutAck, ClientError>;
    /// The whole blob.
    async fn get(&self, node_url: &str, blob: BlobId) -> Result<FetchedBlob, ClientError>;
    /// Some chunks of the blob, at least one; the last may be past its end.
    async fn get_chunks(
        &self,
        node_url: &str,
        blob: BlobId,
        chunks: Range<u32>,
    ) -> Result<FetchedBlob, ClientError>;
    /// Makes the node bring its copy of `volume` up to the source's.
    async fn pull(
        &self,
        node_url: &str,
        volume: VolumeId,
        r: &PullRequest,
        token: &str,
    ) -> Result<PullReply, ClientError>;
    /// Makes the node fdatasync its copy of `volume`, which must reach `at_least`.
    async fn sync(
        &self,
        node_url: &str,
        volume: VolumeId,
        at_least: Seq,
        token: &str,
    ) -> Result<CopyStatus, ClientError>;
    /// Makes the node replace its record of `blob` by the one of the node at `source`.
    async fn repair(
        &self,
        node_url: &str,
        blob: BlobId,
        source: &str,
        token: &str,
    ) -> Result<(), ClientError>;
    /// Deletes `blobs`, at most [`dfs_proto::limits::DELETE_BLOBS_MAX`].
    async fn delete(&self, node_url: &str, blobs: &[BlobId], token: &str)
    -> Result<DeleteReply, ClientError>;
    /// Makes the node read and verify its record of `blob`.
    async fn check(&self, node_url: &str, blob: BlobId) -> Result<CheckReply, ClientError>;
    /// Makes the node read and verify a piece of its copy of `volume`.
    async fn verify(
        &self,
        node_url: &str,
        volume: VolumeId,
        request: VerifyRequest,
    ) -> Result<VerifyReply, ClientError>;
    /// Makes the node give up its copy of `volume`; false when it has none.
    async fn drop_copy(&self, node_url: &str, volume: VolumeId, token: &str) -> Result<bool, ClientError>;
    /// How far the node's copy of `volume` reaches, and its raw records after `after`: about `max_bytes`,
    /// and at least one if there is any.
    async fn log(
        &self,
        node_url: &str,
        volume: VolumeId,
        after: Seq,
        max_bytes: u64,
    ) -> Result<(Seq, Bytes), ClientError>;
    /// The raw record of `blob`.
    async fn record(&self, node_url: &str, blob: BlobId) -> Result<Bytes, ClientError>;
    /// Where the node listens for readers on its own host.
    async fn local_socket(&self, _node_url: &str) -> Result<LocalSocket, ClientError> {
        Err(ClientError::local(ErrorCode::NotSupported, "there is no such socket"))
    }
}

/// [`NodeClient`] over HTTP.
pub struct HttpNodes {
    transport: Transport,
    deadline: Duration,
}

impl HttpNodes {
    /// Requests that each end within `deadline`. A pull moves a volume's tail within one request, so who
    /// orders pulls needs a longer one than who reads blobs.
    pub fn new(deadline: Duration) -> Result<HttpNodes, ClientError> {
        Ok(HttpNodes { transport: Transport::new(IDLE_CONNECTIONS_MAX)?, deadline })
    }

    fn call<'a>(&self, url: &'a str, method: Method, path: String) -> Call<'a> {
        let url = url.trim_end_matches('/');
        Call::new(url, method, path, self.deadline).answer_bytes_max(CONTROL_BYTES_MAX)
    }

    async fn send(&self, call: Call<'_>) -> Result<Answer, ClientError> {
        Ok(self.transport.send(call).await?)
    }

    async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        url: &str,
        path: String,
        body: &B,
        token: &str,
    ) -> Result<T, ClientError> {
        let call = self.call(url, Method::POST, path).header(HEADER_TOKEN, token.to_owned()).json(body)?;
        self.send(call).await?.decode(Encoding::Json)
    }
}

#[async_trait]
impl NodeClient for HttpNodes {
    async fn put(&self, node_url: &str, blob: BlobId, put: PutBlob) -> Result<PutAck, ClientError> {
        let mut call = self
            .call(node_url, Method::PUT, blob_path(blob))
            .header(HEADER_TOKEN, put.token)
            .header(HEADER_MD5, put.md5.to_string())
            .header(HEADER_ORIGIN, origin_text(&put.origin));
        if !put.crc32c.is_empty() {
            call = call.header(HEADER_CRC32C, crc32c_text(&put.crc32c));
        }
        if put.sync {
            call = call.header(HEADER_SYNC, "1".to_owned());
        }
        self.send(call.body(put.data)).await?.decode(Encoding::Json)
    }

    async fn get(&self, node_url: &str, blob: BlobId) -> Result<FetchedBlob, ClientError> {
        let call = self.call(node_url, Method::GET, blob_path(blob)).answer_bytes_max(BLOB_BYTES_MAX);
        fetched(self.send(call).await?, 0)
    }

    async fn get_chunks(
        &self,
        node_url: &str,
        blob: BlobId,
        chunks: Range<u32>,
    ) -> Result<FetchedBlob, ClientError> {
        let at = |chunk: u32| u64::from(chunk) * CHUNK_BYTES as u64;
        let range = format!("bytes={}-{}", at(chunks.start), at(chunks.end).saturating_sub(1));
        let call = self
            .call(node_url, Method::GET, blob_path(blob))
            .header("range", range)
            .answer_bytes_max(BLOB_BYTES_MAX);
        let answer = self.send(call).await?;
        let first_chunk = first_chunk_of(&answer)?;
        fetched(answer, first_chunk)
    }

    async fn pull(
        &self,
        node_url: &str,
        volume: VolumeId,
        r: &PullRequest,
        token: &str,
    ) -> Result<PullReply, ClientError> {
        self.post(node_url, volume_path(volume, "pull"), r, token).await
    }

    async fn sync(
        &self,
        node_url: &str,
        volume: VolumeId,
        at_least: Seq,
        token: &str,
    ) -> Result<CopyStatus, ClientError> {
        self.post(node_url, volume_path(volume, "sync"), &SyncRequest { at_least }, token).await
    }

    async fn repair(
        &self,
        node_url: &str,
        blob: BlobId,
        source: &str,
        token: &str,
    ) -> Result<(), ClientError> {
        let call = self
            .call(node_url, Method::POST, format!("{}/repair", blob_path(blob)))
            .header(HEADER_TOKEN, token.to_owned())
            .json(&RepairRequest { source: source.to_owned() })?;
        self.send(call).await.map(drop)
    }

    async fn delete(
        &self,
        node_url: &str,
        blobs: &[BlobId],
        token: &str,
    ) -> Result<DeleteReply, ClientError> {
        let request = DeleteRequest { blobs: blobs.to_vec() };
        self.post(node_url, "/v1/blobs/delete".to_owned(), &request, token).await
    }

    async fn check(&self, node_url: &str, blob: BlobId) -> Result<CheckReply, ClientError> {
        let call = self.call(node_url, Method::GET, format!("{}/check", blob_path(blob)));
        self.send(call).await?.decode(Encoding::Json)
    }

    async fn verify(
        &self,
        node_url: &str,
        volume: VolumeId,
        request: VerifyRequest,
    ) -> Result<VerifyReply, ClientError> {
        let call = self.call(node_url, Method::POST, volume_path(volume, "verify")).json(&request)?;
        self.send(call).await?.decode(Encoding::Json)
    }

    async fn drop_copy(&self, node_url: &str, volume: VolumeId, token: &str) -> Result<bool, ClientError> {
        let call = self
            .call(node_url, Method::POST, volume_path(volume, "drop"))
            .header(HEADER_TOKEN, token.to_owned());
        let reply: DropReply = self.send(call).await?.decode(Encoding::Json)?;
        Ok(reply.dropped)
    }

    async fn log(
        &self,
        node_url: &str,
        volume: VolumeId,
        after: Seq,
        max_bytes: u64,
    ) -> Result<(Seq, Bytes), ClientError> {
        let path = format!("{}?after={after}&max_bytes={max_bytes}", volume_path(volume, "log"));
        // The last record may go over the wanted length.
        let bytes_max = usize::try_from(max_bytes)
            .unwrap_or(usize::MAX)
            .saturating_add(BLOB_BYTES_MAX + RECORD_EXTRA_BYTES_MAX);
        let answer = self.send(self.call(node_url, Method::GET, path).answer_bytes_max(bytes_max)).await?;
        Ok((answer.parsed_header(HEADER_SEQ)?, answer.body))
    }

    async fn record(&self, node_url: &str, blob: BlobId) -> Result<Bytes, ClientError> {
        let call = self
            .call(node_url, Method::GET, format!("{}/record", blob_path(blob)))
            .answer_bytes_max(BLOB_BYTES_MAX + RECORD_EXTRA_BYTES_MAX);
        Ok(self.send(call).await?.body)
    }

    async fn local_socket(&self, node_url: &str) -> Result<LocalSocket, ClientError> {
        self.send(self.call(node_url, Method::GET, LOCAL_PATH.to_owned())).await?.decode(Encoding::Json)
    }
}

fn fetched(answer: Answer, first_chunk: u32) -> Result<FetchedBlob, ClientError> {
    let text = answer.header(HEADER_CRC32C).unwrap_or_default();
    let crc32c = parse_crc32c(text)
        .ok_or_else(|| answer.bad(format!("the header {HEADER_CRC32C} is not made of 8 hex digits each")))?;
    let md5 = answer.parsed_header(HEADER_MD5)?;
    let seq = answer.parsed_header(HEADER_SEQ)?;
    Ok(FetchedBlob { data: answer.body, first_chunk, crc32c, md5, seq })
}

/// The chunk that a partial answer begins with; 0 for an answer with the whole blob.
fn first_chunk_of(answer: &Answer) -> Result<u32, ClientError> {
    let Some(text) = answer.header("content-range") else { return Ok(0) };
    let start = text
        .strip_prefix("bytes ")
        .and_then(|t| t.split_once('-'))
        .and_then(|(start, _)| start.parse::<u64>().ok())
        .filter(|start| start % CHUNK_BYTES as u64 == 0)
        .and_then(|start| u32::try_from(start / CHUNK_BYTES as u64).ok());
    start.ok_or_else(|| answer.bad(format!("a range that does not begin with a chunk: {text:?}")))
}

fn origin_text(origin: &BlobOrigin) -> String {
    format!("{},{},{}", origin.ino, origin.offset, origin.version)
}

fn crc32c_text(crcs: &[u32]) -> String {
    crcs.iter().map(|crc| format!("{crc:08x}")).collect()
}

fn parse_crc32c(text: &str) -> Option<Vec<u32>> {
    if !text.len().is_multiple_of(8) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let digits = |part: &[u8]| u32::from_str_radix(std::str::from_utf8(part).ok()?, 16).ok();
    text.as_bytes().chunks_exact(8).map(digits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_survive_their_header() {
        let crcs = vec![0, 1, u32::MAX, 0x0123_4567];
        assert_eq!(parse_crc32c(&crc32c_text(&crcs)), Some(crcs));
        assert_eq!(parse_crc32c(""), Some(vec![]));
        for bad in ["1234567", "123456789", "0000000g", "+0000001", "é000000"] {
            assert_eq!(parse_crc32c(bad), None, "{bad}");
        }
    }
}
