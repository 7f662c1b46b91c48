//! MD5 of blobs and files, CRC32C of chunks.

mod lanes;

use crate::ClientError;
use crate::task::not_finished;
use bytes::Bytes;
use dfs_proto::{CHUNK_BYTES, ErrorCode, Md5};
use md5::Digest;
use std::sync::LazyLock;
use tokio::sync::Semaphore;

/// Below this length, hashing where the caller stands costs less than handing it to another thread (64 KiB
/// of MD5 take about 150 µs).
const INLINE_BYTES_MAX: usize = 64 << 10;

/// MD5 (RFC 1321) of `data`.
pub fn md5(data: &[u8]) -> Md5 {
    Md5(md5_simd::digest(data))
}

/// CRC32C of each [`CHUNK_BYTES`] of `data`, the last one shorter; empty for no data.
pub fn crc32c_chunks(data: &[u8]) -> Vec<u32> {
    data.chunks(CHUNK_BYTES).map(crc32c::crc32c).collect()
}

/// [`crc32c_chunks`] of data that comes in pieces.
#[derive(Clone, Debug, Default)]
pub struct ChunkSums {
    whole: Vec<u32>,
    /// Of the chunk that is not whole yet, and how long it is.
    part: (u32, usize),
}

impl ChunkSums {
    /// Takes in the next piece.
    pub fn update(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            let (sum, length) = self.part;
            let (head, rest) = piece.split_at(piece.len().min(CHUNK_BYTES - length));
            self.part = (crc32c::crc32c_append(sum, head), length + head.len());
            if self.part.1 == CHUNK_BYTES {
                self.whole.push(std::mem::take(&mut self.part).0);
            }
            piece = rest;
        }
    }

    /// The checksum of each chunk.
    pub fn finish(mut self) -> Vec<u32> {
        if self.part.1 > 0 {
            self.whole.push(self.part.0);
        }
        self.whole
    }
}

/// MD5 of data that comes in pieces.
#[derive(Clone, Default)]
pub struct Md5Hasher(md5::Md5);

impl Md5Hasher {
    /// Of nothing so far.
    pub fn new() -> Md5Hasher {
        Md5Hasher::default()
    }

    /// Takes in the next piece.
    pub fn update(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    /// The digest of all pieces.
    pub fn finish(self) -> Md5 {
        Md5(self.0.finalize().into())
    }
}

/// MD5 of a blob without holding up the async worker; blobs that come together are hashed together.
pub(crate) async fn md5_of_blob(data: Bytes) -> Result<Md5, ClientError> {
    if data.len() <= INLINE_BYTES_MAX {
        return Ok(md5(&data));
    }
    let digests = lanes::md5_of_all([data]).await?;
    digests.into_iter().next().ok_or_else(|| ClientError::local(ErrorCode::Internal, "a digest was lost"))
}

/// What is known of a blob before it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sums {
    /// MD5 of all of it.
    pub md5: Md5,
    /// CRC32C of each chunk.
    pub crc32c: Vec<u32>,
}

/// The checksums of `blobs`, in their order, worked out side by side and without holding up the async worker.
/// Eight blobs of one length together take little longer than one.
pub async fn sums_of(blobs: &[Bytes]) -> Result<Vec<Sums>, ClientError> {
    let is_large = |blob: &&Bytes| blob.len() > INLINE_BYTES_MAX;
    let large: Vec<Bytes> = blobs.iter().filter(is_large).cloned().collect();
    let crcs_of = |blobs: Vec<Bytes>| blobs.iter().map(|blob| crc32c_chunks(blob)).collect::<Vec<_>>();
    let (digests, crcs) = match large.is_empty() {
        true => (Vec::new(), Vec::new()),
        false => tokio::try_join!(lanes::md5_of_all(large.clone()), on_hasher(move || crcs_of(large)))?,
    };
    let mut of_large = digests.into_iter().zip(crcs);
    let sums = blobs.iter().map(|blob| {
        if !is_large(&blob) {
            return Ok(Sums { md5: md5(blob), crc32c: crc32c_chunks(blob) });
        }
        let lost = || ClientError::local(ErrorCode::Internal, "a checksum was lost");
        let (md5, crc32c) = of_large.next().ok_or_else(lost)?;
        Ok(Sums { md5, crc32c })
    });
    sums.collect()
}

/// A blob of `length` bytes that is being read and will be hashed by [`md5_of_blob`] in a moment; to be dropped
/// after that was asked for.
pub(crate) fn announce(length: usize) -> Option<lanes::Announced> {
    (length > INLINE_BYTES_MAX).then(lanes::Announced::new)
}

/// Threads that hash at a time: more than there are processors only push each other aside.
static HASHERS: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)));

/// Runs `work` over `data` without holding up the async worker: on a blocking thread unless `data` is small.
pub(crate) async fn off_worker<R: Send + 'static>(
    data: Bytes,
    work: impl FnOnce(&[u8]) -> R + Send + 'static,
) -> Result<R, ClientError> {
    if data.len() <= INLINE_BYTES_MAX {
        return Ok(work(&data));
    }
    on_hasher(move || work(&data)).await
}

async fn on_hasher<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> Result<R, ClientError> {
    let _slot = HASHERS.acquire().await;
    tokio::task::spawn_blocking(work).await.map_err(|e| not_finished(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_match_the_published_test_vectors() {
        // RFC 1321 A.5; RFC 3720 B.4 (32 bytes of zeros).
        assert_eq!(md5(b"").to_string(), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(md5(b"message digest").to_string(), "f96b697d7cb7938d525a2f31aaf161d0");
        assert_eq!(crc32c_chunks(&[0; 32]), [0x8a91_36aa]);
    }

    #[test]
    fn pieces_hash_like_the_whole() {
        let mut hasher = Md5Hasher::new();
        for piece in [&b"mess"[..], b"", b"age digest"] {
            hasher.update(piece);
        }
        assert_eq!(hasher.finish(), md5(b"message digest"));
    }

    #[test]
    fn chunks_that_come_in_pieces_have_the_sums_of_the_whole() {
        for length in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 7] {
            let data: Vec<u8> = (0..length).map(|i| (i * 31) as u8).collect();
            for piece in [1, 1000, CHUNK_BYTES - 1, CHUNK_BYTES, 5 * CHUNK_BYTES] {
                let mut sums = ChunkSums::default();
                data.chunks(piece).for_each(|piece| sums.update(piece));
                assert_eq!(sums.finish(), crc32c_chunks(&data), "{length} bytes in pieces of {piece}");
            }
        }
    }

    #[tokio::test]
    async fn blobs_of_any_lengths_get_their_own_sums_in_their_order() {
        let lengths = [1, 200_000, 0, 70_000, 64 << 10, 200_001, 3];
        let blobs: Vec<Bytes> = lengths.iter().zip(0u8..).map(|(l, n)| vec![n; *l].into()).collect();
        let sums = sums_of(&blobs).await.unwrap();
        let expected = blobs.iter().map(|b| Sums { md5: md5(b), crc32c: crc32c_chunks(b) });
        assert_eq!(sums, expected.collect::<Vec<_>>());
    }

    #[test]
    fn every_chunk_has_its_own_checksum() {
        let mut data = vec![7u8; 2 * CHUNK_BYTES + 1];
        let before = crc32c_chunks(&data);
        assert_eq!(before.len(), 3);
        assert!(crc32c_chunks(&[]).is_empty());
        data[CHUNK_BYTES] ^= 1;
        let after = crc32c_chunks(&data);
        assert_eq!([before[0], before[2]], [after[0], after[2]]);
        assert_ne!(before[1], after[1]);
    }
}
