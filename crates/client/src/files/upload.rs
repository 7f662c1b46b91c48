//! A stream of bytes becomes a file.

use super::BLOBS_IN_FLIGHT;
use crate::checksum::{Md5Hasher, off_worker};
use crate::task::not_finished;
use crate::{ClientError, DataClient, MetaClient, ask};
use bytes::{Bytes, BytesMut};
use dfs_proto::limits::{BLOB_BYTES_MAX, COMMIT_EXTENTS_MAX};
use dfs_proto::meta::{Collision, Commit, CommitSize, Create};
use dfs_proto::{
    Attr, BlobOrigin, BlobRef, CollisionPolicy, ErrorCode, Extent, FileKind, Ino, Md5, Name, Version,
};
use futures_util::{Stream, StreamExt};
use std::sync::Arc;
use tokio::task::JoinSet;

/// What to make of a stream.
#[derive(Clone, Debug)]
pub struct Target {
    /// The directory.
    pub parent: Ino,
    /// The wanted name.
    pub name: Name,
    /// Low 12 bits of the mode.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// What to do when the name is taken.
    pub collision: Collision,
    /// The content must have this MD5.
    pub expected_md5: Option<Md5>,
    /// The content must have this length.
    pub expected_bytes: Option<u64>,
}

/// A file that was stored.
#[derive(Clone, Debug)]
pub struct Uploaded {
    /// Its attributes.
    pub attr: Attr,
    /// The name it got.
    pub name: Name,
    /// Whether that is another than the one asked for.
    pub renamed: bool,
    /// Whether there was a file of that name just before.
    pub replaced: bool,
    /// MD5 of the content.
    pub md5: Md5,
    /// Length of the content.
    pub bytes: u64,
}

/// Stores `body` as the file that `target` says. The file appears whole or not at all: a body that breaks
/// off (its error is returned), `checksum_mismatch`, and a wrong length (`truncated` when it is short,
/// `invalid_argument` when it is long) leave nothing behind in the namespace.
pub async fn upload<S>(
    meta: Arc<dyn MetaClient>,
    data: Arc<dyn DataClient>,
    target: Target,
    body: S,
) -> Result<Uploaded, ClientError>
where
    S: Stream<Item = Result<Bytes, ClientError>> + Send + Unpin,
{
    let mut blocks = Blocks::new(body);
    let mut sender = Sender { data, in_flight: JoinSet::new(), extents: Vec::new(), bytes: 0 };
    let mut digest = Digest::Nothing;
    while let Some(block) = blocks.next().await? {
        sender.expect_room(block.len(), target.expected_bytes)?;
        sender.send(block.clone()).await?;
        digest = digest.add(block).await?;
    }
    let bytes = sender.bytes;
    if let Some(expected) = target.expected_bytes.filter(|expected| *expected != bytes) {
        let message = format!("the content ended after {bytes} bytes, {expected} were announced");
        return Err(ClientError::local(ErrorCode::Truncated, message));
    }
    let extents = sender.finish().await?;
    let md5 = digest.finish(&extents);
    if let Some(expected) = target.expected_md5.filter(|expected| *expected != md5) {
        let message = format!("the content has MD5 {md5}, {expected} was announced; nothing was stored");
        return Err(ClientError::local(ErrorCode::ChecksumMismatch, message));
    }
    publish(&*meta, target, extents, md5, bytes).await
}

async fn publish(
    meta: &dyn MetaClient,
    target: Target,
    extents: Vec<Extent>,
    md5: Md5,
    bytes: u64,
) -> Result<Uploaded, ClientError> {
    let Target { parent, name, mode, uid, gid, collision, .. } = target;
    // The commit does not say what it replaced; asking just before is right unless somebody else stores the
    // same name in the same moment.
    let was_there = match collision {
        Collision::Explicit(CollisionPolicy::Rename) => false,
        _ => ask::lookup(meta, parent, name.clone()).await?.is_some_and(|a| a.kind != FileKind::Directory),
    };
    let commit = Commit {
        ino: Ino(0),
        create: Some(Create { parent, name: name.clone(), mode, umask: 0, uid, gid, born: None, collision }),
        truncate_to: None,
        extents,
        size: CommitSize::Exactly(bytes),
        append_from: None,
        mtime: None,
        ctime: None,
        md5: Some(md5),
        locked_by: None,
        durable: false,
    };
    let committed = ask::commit(meta, commit).await?;
    let renamed = committed.stored_as.is_some();
    Ok(Uploaded {
        attr: committed.attr,
        name: committed.stored_as.unwrap_or(name),
        renamed,
        replaced: was_there && !renamed,
        md5,
        bytes,
    })
}

/// Cuts a stream into blocks of [`BLOB_BYTES_MAX`], the last one shorter.
struct Blocks<S> {
    body: S,
    /// What was received beyond the last block.
    rest: Bytes,
    /// The stream has said so: it must not be asked again.
    ended: bool,
}

impl<S: Stream<Item = Result<Bytes, ClientError>> + Unpin> Blocks<S> {
    fn new(body: S) -> Blocks<S> {
        Blocks { body, rest: Bytes::new(), ended: false }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        let mut block = BytesMut::new();
        loop {
            let room = BLOB_BYTES_MAX - block.len();
            let part = self.rest.split_to(self.rest.len().min(room));
            if block.is_empty() && part.len() == BLOB_BYTES_MAX {
                return Ok(Some(part));
            }
            block.extend_from_slice(&part);
            if block.len() == BLOB_BYTES_MAX {
                return Ok(Some(block.freeze()));
            }
            match if self.ended { None } else { self.body.next().await } {
                Some(piece) => self.rest = piece?,
                None => {
                    self.ended = true;
                    return Ok((!block.is_empty()).then(|| block.freeze()));
                }
            }
        }
    }
}

/// Stores blocks, a few at a time. Dropping it ends what is under way; blobs that were stored for nothing
/// are found and removed by the servers.
struct Sender {
    data: Arc<dyn DataClient>,
    in_flight: JoinSet<(u64, Result<BlobRef, ClientError>)>,
    extents: Vec<Extent>,
    bytes: u64,
}

impl Sender {
    fn expect_room(&self, more: usize, expected: Option<u64>) -> Result<(), ClientError> {
        let after = self.bytes + more as u64;
        if let Some(expected) = expected.filter(|expected| after > *expected) {
            let message = format!("the content has more than the {expected} bytes that were announced");
            return Err(ClientError::local(ErrorCode::InvalidArgument, message));
        }
        let bytes_max = (COMMIT_EXTENTS_MAX * BLOB_BYTES_MAX) as u64;
        if after > bytes_max {
            let message = format!("a file can be stored in one piece up to {bytes_max} bytes");
            return Err(ClientError::local(ErrorCode::TooLarge, message));
        }
        Ok(())
    }

    async fn send(&mut self, block: Bytes) -> Result<(), ClientError> {
        while self.in_flight.len() >= BLOBS_IN_FLIGHT {
            self.settle_one().await?;
        }
        let data = self.data.clone();
        let origin = BlobOrigin { ino: Ino(0), offset: self.bytes, version: Version(1) };
        self.bytes += block.len() as u64;
        self.in_flight.spawn(async move { (origin.offset, data.put(block, origin).await) });
        Ok(())
    }

    async fn settle_one(&mut self) -> Result<(), ClientError> {
        let Some(joined) = self.in_flight.join_next().await else { return Ok(()) };
        let (offset, result) = joined.map_err(|e| not_finished(&e))?;
        let blob = result?;
        self.extents.push(Extent { offset, length: blob.length.into(), blob: Some(blob), blob_offset: 0 });
        Ok(())
    }

    /// The extents, by offset, once all is stored.
    async fn finish(mut self) -> Result<Vec<Extent>, ClientError> {
        while !self.in_flight.is_empty() {
            self.settle_one().await?;
        }
        self.extents.sort_unstable_by_key(|e| e.offset);
        Ok(self.extents)
    }
}

/// MD5 of the whole content. Content of one block is not hashed twice: its blob's MD5 is its own.
enum Digest {
    Nothing,
    OneBlock(Bytes),
    Running(Box<Md5Hasher>),
}

impl Digest {
    async fn add(self, block: Bytes) -> Result<Digest, ClientError> {
        let hasher = match self {
            Digest::Nothing => return Ok(Digest::OneBlock(block)),
            Digest::OneBlock(first) => hashed(Box::default(), first).await?,
            Digest::Running(hasher) => hasher,
        };
        Ok(Digest::Running(hashed(hasher, block).await?))
    }

    fn finish(self, extents: &[Extent]) -> Md5 {
        match (self, extents) {
            (Digest::Running(hasher), _) => hasher.finish(),
            (Digest::OneBlock(_), [Extent { blob: Some(blob), .. }]) => blob.md5,
            (Digest::OneBlock(block), _) => crate::checksum::md5(&block),
            (Digest::Nothing, _) => Md5Hasher::new().finish(),
        }
    }
}

async fn hashed(mut hasher: Box<Md5Hasher>, block: Bytes) -> Result<Box<Md5Hasher>, ClientError> {
    off_worker(block, move |block| {
        hasher.update(block);
        hasher
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;
    use proptest::prelude::*;

    async fn cut(pieces: &[usize]) -> Vec<usize> {
        let body = stream::iter(pieces.iter().map(|n| Ok(Bytes::from(vec![0u8; *n]))).collect::<Vec<_>>());
        let mut blocks = Blocks::new(body);
        let mut lengths = Vec::new();
        while let Some(block) = blocks.next().await.unwrap() {
            lengths.push(block.len());
        }
        lengths
    }

    #[tokio::test]
    async fn a_stream_is_cut_into_full_blocks_and_a_rest() {
        assert_eq!(cut(&[]).await, [0usize; 0]);
        assert_eq!(cut(&[0, 0]).await, [0usize; 0]);
        assert_eq!(cut(&[1, 2]).await, [3]);
        assert_eq!(cut(&[BLOB_BYTES_MAX]).await, [BLOB_BYTES_MAX]);
        assert_eq!(cut(&[2 * BLOB_BYTES_MAX + 1]).await, [BLOB_BYTES_MAX, BLOB_BYTES_MAX, 1]);
    }

    #[tokio::test]
    async fn regression_a_stream_is_not_asked_again_after_its_end() {
        // An unfold panics when it is.
        let body =
            stream::unfold(0, |n| async move { (n < 2).then(|| (Ok(Bytes::from_static(b"x")), n + 1)) });
        let mut blocks = Blocks::new(Box::pin(body));
        assert_eq!(blocks.next().await.unwrap().unwrap().len(), 2);
        assert!(blocks.next().await.unwrap().is_none());
        assert!(blocks.next().await.unwrap().is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn blocks_hold_every_byte_in_order(
            pieces in proptest::collection::vec(0usize..3_000_000, 0..6),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let content: Vec<u8> = (0..pieces.iter().sum::<usize>()).map(|n| (n / 251) as u8).collect();
            let mut at = 0;
            let parts: Vec<_> = pieces
                .iter()
                .map(|n| {
                    at += n;
                    Ok(Bytes::copy_from_slice(&content[at - n..at]))
                })
                .collect();
            let got = runtime.block_on(async {
                let mut blocks = Blocks::new(stream::iter(parts));
                let mut got = Vec::new();
                while let Some(block) = blocks.next().await.unwrap() {
                    assert!(got.len() % BLOB_BYTES_MAX == 0 && !block.is_empty());
                    got.extend_from_slice(&block);
                }
                got
            });
            prop_assert!(got == content);
        }
    }
}
