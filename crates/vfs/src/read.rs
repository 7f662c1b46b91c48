//! Reading: parts are gathered from what is staged here and from blobs; sequential readers have the next
//! blobs fetched ahead.

use crate::VfsError;
use crate::file::{File, Origin};
use crate::handle::FileHandle;
use crate::layer::BlobSlice;
use crate::vfs::Vfs;
use crate::walk::Part;
use bytes::{Bytes, BytesMut};
use dfs_proto::limits::EXTENT_PAGE_MAX;
use dfs_proto::meta::ReadOp;
use dfs_proto::{BlobRef, Ino, MetaReply};
use futures_util::future::try_join_all;
use std::sync::Arc;

/// Blobs up to this size are fetched whole even by a random reader: one request brings all there is.
const SMALL_BLOB_BYTES: u32 = 256 << 10;

/// How often a read starts again because the file changed under it, before it gives up.
const RESTARTS_MAX: usize = 8;

/// How often a file is validated in a row because it changed meanwhile: far more than happens by chance.
const VALIDATIONS_MAX: usize = 64;

impl Vfs {
    /// Bytes of an open file: fewer than asked for at its end only.
    pub(crate) async fn read_file(
        &self,
        handle: &FileHandle,
        offset: u64,
        size: u32,
    ) -> Result<Bytes, VfsError> {
        let file = &handle.file;
        for _ in 0..RESTARTS_MAX {
            self.freshen(file, offset.saturating_add(u64::from(size))).await?;
            let parts = {
                let state = file.lock();
                let end = offset.saturating_add(u64::from(size)).min(state.size);
                if offset >= end {
                    return Ok(Bytes::new());
                }
                state.parts(offset, end)
            };
            let Some(parts) = parts else { continue };
            let sequential = handle.pattern.lock().note(offset, u64::from(size));
            if sequential {
                self.read_ahead(handle, offset + u64::from(size));
            }
            return self.gather(parts, sequential).await;
        }
        Err(changes_too_fast(file.ino))
    }

    /// Makes sure that the published content is known up to `to`, and not known to be out of date.
    pub(crate) async fn freshen(&self, file: &Arc<File>, to: u64) -> Result<(), VfsError> {
        let known = |file: &File| {
            let state = file.lock();
            !state.stale && state.base_known_to >= to.min(state.attr.size)
        };
        if known(file) {
            return Ok(());
        }
        let _serial = file.publishing.lock().await;
        let mut validations = 0;
        while !known(file) {
            // It may be changed again while it is validated.
            let is_stale = file.lock().stale;
            if !is_stale {
                self.fetch_extents(file).await?;
            } else if validations < VALIDATIONS_MAX {
                validations += 1;
                self.revalidate(file).await?;
            } else {
                return Err(changes_too_fast(file.ino));
            }
        }
        Ok(())
    }

    /// Asks the master for attributes and, if the content is another one by now, extents. The caller holds
    /// `file.publishing`.
    pub(crate) async fn revalidate(&self, file: &File) -> Result<(), VfsError> {
        let (known, changes) = {
            let state = file.lock();
            (state.base_version(), state.changes)
        };
        let MetaReply::Opened(opened) = self.read_op(ReadOp::Open { ino: file.ino, known }).await? else {
            return Err(VfsError::OddAnswer("an open"));
        };
        if let Some(page) = &opened.extents {
            self.data.learn(&page.volumes);
        }
        let mut state = file.lock();
        state.pins += 1;
        state.refresh(opened.attr, opened.extents, changes)
    }

    /// Fetches the next page of extents. The caller holds `file.publishing`.
    pub(crate) async fn fetch_extents(&self, file: &File) -> Result<(), VfsError> {
        let from = file.lock().base_known_to;
        let op = ReadOp::Extents { ino: file.ino, from, limit: EXTENT_PAGE_MAX };
        let MetaReply::Extents(page) = self.read_op(op).await? else {
            return Err(VfsError::OddAnswer("a request for extents"));
        };
        self.data.learn(&page.volumes);
        {
            let mut state = file.lock();
            if page.version == state.attr.version && state.base_known_to == from {
                return state.add_extents(&page);
            }
        }
        self.revalidate(file).await
    }

    /// Fetches parts side by side and puts them together.
    async fn gather(&self, parts: Vec<Part>, whole_blobs: bool) -> Result<Bytes, VfsError> {
        let mut pieces = try_join_all(parts.into_iter().map(|part| async move {
            match part {
                Part::Bytes(bytes) => Ok(bytes),
                Part::Hole(length) => Ok(Bytes::from(vec![0; length as usize])),
                Part::Blob { slice, length } => self.fetch(&slice, length as u32, whole_blobs).await,
            }
        }))
        .await?;
        if pieces.len() == 1 {
            return Ok(pieces.remove(0));
        }
        let mut all = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
        pieces.iter().for_each(|piece| all.extend_from_slice(piece));
        Ok(all.freeze())
    }

    async fn fetch(&self, slice: &BlobSlice, length: u32, whole_blob: bool) -> Result<Bytes, VfsError> {
        let BlobSlice { blob, at } = slice;
        if whole_blob || blob.length <= SMALL_BLOB_BYTES || length == blob.length {
            let whole = self.cache.whole(blob).await?;
            return Ok(whole.slice(*at as usize..(at + length) as usize));
        }
        Ok(self.cache.range(blob, *at, length).await?)
    }

    /// Asks for the blobs that follow `from`, unless they have been asked for.
    fn read_ahead(&self, handle: &FileHandle, from: u64) {
        if self.config.readahead_blobs == 0 {
            return;
        }
        let blobs = {
            let state = handle.file.lock();
            let mut pattern = handle.pattern.lock();
            let mut blobs: Vec<BlobRef> = Vec::new();
            let mut at = from;
            while blobs.len() < self.config.readahead_blobs && at < state.size {
                let Some(piece) = state.base.at(at) else {
                    match state.base.next_start(at) {
                        Some(next) => at = next,
                        None => break,
                    }
                    continue;
                };
                if piece.end() > pattern.ahead_to {
                    blobs.push(piece.source.blob);
                }
                at = piece.end();
            }
            pattern.ahead_to = pattern.ahead_to.max(at);
            blobs
        };
        for blob in blobs {
            self.prefetch(blob);
        }
    }

    fn prefetch(&self, blob: BlobRef) {
        // Without a free slot the reader is ahead of us anyway.
        let Ok(slot) = self.prefetches.clone().try_acquire_owned() else { return };
        let cache = self.cache.clone();
        tokio::spawn(async move {
            // The read that needs the blob reports the error.
            let _ = cache.whole(&blob).await;
            drop(slot);
        });
    }

    /// Whether a published file may be used as it is known here; see [`Vfs::freshen`].
    pub(crate) fn is_published(file: &File) -> bool {
        matches!(file.lock().origin, Origin::Published)
    }
}

/// A file that was changed each time that it was looked at.
pub(crate) fn changes_too_fast(ino: Ino) -> VfsError {
    let message = format!("inode {ino} changes faster than it can be read");
    dfs_client::ClientError::local(dfs_proto::ErrorCode::Unavailable, message).into()
}
