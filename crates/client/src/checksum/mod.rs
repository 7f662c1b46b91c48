//! MD5 of blobs and files, CRC32C of chunks.

mod lanes;

use crate::ClientError;
use crate::task::not_finished;
use bytes::Bytes;
use dfs_proto::{CHUNK_BYTES, Md5};
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
    lanes::md5(data).await
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
    let _slot = HASHERS.acquire().await;
    tokio::task::spawn_blocking(move || work(&data)).await.map_err(|e| not_finished(&e))
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
