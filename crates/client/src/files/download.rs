//! A file becomes a stream of bytes.

use super::BLOBS_IN_FLIGHT;
use crate::checksum::{Md5Hasher, off_worker};
use crate::task::AbortOnDrop;
use crate::{ClientError, DataClient, MetaClient, ask};
use bytes::Bytes;
use dfs_proto::meta::ExtentPage;
use dfs_proto::{Attr, ErrorCode, Extent, FileKind, Ino, Md5, Version};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// Zeros of holes come in pieces of this length at most.
const ZEROS_BYTES: usize = 256 << 10;

static ZEROS: [u8; ZEROS_BYTES] = [0; ZEROS_BYTES];

/// A file of one content version. The master counts it as open until this is dropped and all streams from it
/// are at their end or dropped.
pub struct OpenFile {
    /// Attributes when it was opened.
    pub attr: Attr,
    /// MD5 of the whole content, when the master knows it.
    pub md5: Option<Md5>,
    content: Arc<Content>,
}

/// What streams need of a file.
struct Content {
    meta: Arc<dyn MetaClient>,
    data: Arc<dyn DataClient>,
    ino: Ino,
    size: u64,
    version: Version,
    first_page: Vec<Extent>,
    /// Whether the first page has all extents.
    is_complete: bool,
}

/// Opens a regular file; `is_directory` or `invalid_argument` for what is none.
pub async fn open(
    meta: Arc<dyn MetaClient>,
    data: Arc<dyn DataClient>,
    ino: Ino,
) -> Result<OpenFile, ClientError> {
    let opened = ask::open(&*meta, ino).await?;
    let page = opened.extents.unwrap_or(ExtentPage {
        version: opened.attr.version,
        extents: Vec::new(),
        end: false,
        volumes: Vec::new(),
    });
    data.learn(&page.volumes);
    let content = Arc::new(Content {
        meta,
        data,
        ino,
        size: opened.attr.size,
        version: page.version,
        first_page: page.extents,
        is_complete: page.end,
    });
    match opened.attr.kind {
        FileKind::File => Ok(OpenFile { attr: opened.attr, md5: opened.md5, content }),
        FileKind::Directory => {
            Err(ClientError::local(ErrorCode::IsDirectory, format!("inode {ino} is a directory")))
        }
        other => {
            let message = format!("inode {ino} is no regular file but a {other:?}");
            Err(ClientError::local(ErrorCode::InvalidArgument, message))
        }
    }
}

impl OpenFile {
    /// The bytes of `range`, as far as they are within the file: verified, holes as zeros, in pieces of at
    /// most a blob, a few blobs ahead of the reader. `stale` when the file changes before all of its extents
    /// are known (files of more than [`dfs_proto::limits::EXTENT_PAGE_MAX`] extents).
    pub fn read(&self, range: Range<u64>) -> impl Stream<Item = Result<Bytes, ClientError>> + Send + 'static {
        let content = self.content.clone();
        let end = range.end.min(content.size);
        let walk = Walk {
            extents: content.first_page.iter().copied().collect(),
            is_complete: content.is_complete,
            position: range.start.min(end),
            end,
            content,
        };
        stream::try_unfold(walk, |mut walk| async move {
            let piece = walk.next().await?;
            Ok(piece.map(|piece| (walk.content.clone().fetch(piece), walk)))
        })
        .try_buffered(BLOBS_IN_FLIGHT)
    }

    /// MD5 of the whole content: what the master knows, or computed by reading all of it.
    pub async fn content_md5(&self) -> Result<Md5, ClientError> {
        if let Some(md5) = self.md5 {
            return Ok(md5);
        }
        let mut body = std::pin::pin!(self.read(0..self.attr.size));
        let mut hasher = Md5Hasher::new();
        while let Some(piece) = body.next().await {
            hasher = off_worker(piece?, move |piece| {
                hasher.update(piece);
                hasher
            })
            .await?;
        }
        Ok(hasher.finish())
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        let (meta, ino) = (self.meta.clone(), self.ino);
        // Outside of a runtime there is nobody to tell it; the end of the session does.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            if let Err(e) = ask::close(&*meta, ino).await {
                log::debug!("the master was not told that inode {ino} is closed: {e}");
            }
        });
    }
}

/// What comes next in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    Zeros(usize),
    Data(Extent),
}

/// A walk over the pieces of a range, which fetches further pages of extents as it needs them.
struct Walk {
    content: Arc<Content>,
    /// Known extents that have not been passed, by offset.
    extents: VecDeque<Extent>,
    /// Whether there are no further pages.
    is_complete: bool,
    position: u64,
    end: u64,
}

impl Walk {
    async fn next(&mut self) -> Result<Option<Piece>, ClientError> {
        if self.position >= self.end {
            return Ok(None);
        }
        loop {
            while self.extents.front().is_some_and(|e| e.end() <= self.position) {
                self.extents.pop_front();
            }
            if !self.extents.is_empty() || self.is_complete {
                break;
            }
            self.fetch_page().await?;
        }
        let piece = piece_at(self.extents.front(), self.position, self.end);
        self.position += piece.length();
        Ok(Some(piece))
    }

    async fn fetch_page(&mut self) -> Result<(), ClientError> {
        let Content { meta, data, ino, version, .. } = &*self.content;
        let page = ask::extents(&**meta, *ino, self.position).await?;
        if page.version != *version {
            let message = format!("inode {ino} was changed while it was read; open it again");
            return Err(ClientError::local(ErrorCode::Stale, message));
        }
        if page.extents.is_empty() && !page.end {
            let message =
                format!("the master gave an empty page of extents of inode {ino} and says more follow");
            return Err(ClientError::local(ErrorCode::Internal, message));
        }
        data.learn(&page.volumes);
        self.is_complete = page.end;
        self.extents.extend(page.extents.into_iter().filter(|e| e.end() > self.position));
        // A page that only repeats what was passed would be asked for for ever.
        if self.extents.is_empty() && !self.is_complete {
            let message = format!("the master repeats extents of inode {ino} before {}", self.position);
            return Err(ClientError::local(ErrorCode::Internal, message));
        }
        Ok(())
    }
}

/// The piece at `position`, which is before `end` and before the end of `next`.
fn piece_at(next: Option<&Extent>, position: u64, end: u64) -> Piece {
    let clipped = next.and_then(|e| e.clipped(position, end));
    let hole_end = match clipped {
        Some(extent) if extent.offset == position && extent.blob.is_some() => return Piece::Data(extent),
        Some(extent) if extent.offset == position => extent.end(),
        Some(extent) => extent.offset,
        None => end,
    };
    Piece::Zeros((hole_end - position).min(ZEROS_BYTES as u64) as usize)
}

impl Piece {
    fn length(&self) -> u64 {
        match self {
            Piece::Zeros(length) => *length as u64,
            Piece::Data(extent) => extent.length,
        }
    }
}

impl Content {
    /// Begins to fetch a piece; awaiting the result gives its bytes.
    fn fetch(self: Arc<Self>, piece: Piece) -> impl Future<Output = Result<Bytes, ClientError>> + Send {
        // A task of its own, so that it goes on while the reader is busy with earlier pieces.
        let fetching = match piece {
            Piece::Zeros(length) => Err(Bytes::from_static(&ZEROS[..length])),
            Piece::Data(extent) => Ok(AbortOnDrop::spawn(async move { self.extent(extent).await })),
        };
        async move {
            match fetching {
                Ok(task) => task.await,
                Err(zeros) => Ok(zeros),
            }
        }
    }

    async fn extent(&self, extent: Extent) -> Result<Bytes, ClientError> {
        let bad = |what: &str| {
            let message = format!("inode {}: {what} at {}", self.ino, extent.offset);
            ClientError::local(ErrorCode::Internal, message)
        };
        let blob = extent.blob.ok_or_else(|| bad("an extent without a blob"))?;
        let length = u32::try_from(extent.length).map_err(|_| bad("an extent that is longer than a blob"))?;
        if extent.blob_offset == 0 && length == blob.length {
            return self.data.get(&blob).await;
        }
        self.data.get_range(&blob, extent.blob_offset, length).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_proto::{BlobId, BlobKey, BlobRef, Seq, VolumeId};

    fn extent(offset: u64, length: u64) -> Extent {
        let id = BlobId { volume: VolumeId(1), key: BlobKey(1) };
        let blob = Some(BlobRef { id, seq: Seq(1), length: 1 << 20, md5: Md5([0; 16]) });
        Extent { offset, length, blob, blob_offset: 5 }
    }

    #[test]
    fn data_is_clipped_to_the_range_and_gaps_are_zeros() {
        let e = extent(100, 50);
        assert_eq!(piece_at(Some(&e), 90, 300), Piece::Zeros(10));
        assert_eq!(piece_at(Some(&e), 100, 300), Piece::Data(e));
        let Piece::Data(clipped) = piece_at(Some(&e), 120, 130) else { panic!() };
        assert_eq!((clipped.offset, clipped.length, clipped.blob_offset), (120, 10, 25));
        assert_eq!(piece_at(Some(&e), 10, 60), Piece::Zeros(50));
        assert_eq!(piece_at(None, 150, 160), Piece::Zeros(10));
        assert_eq!(piece_at(None, 0, u64::MAX), Piece::Zeros(ZEROS_BYTES));
    }
}
