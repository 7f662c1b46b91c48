//! Reading: parts are gathered from what is staged here and from blobs. What is at hand is read where the caller
//! stands, the rest in a task.

use crate::VfsError;
use crate::file::{File, Origin};
use crate::handle::{Fh, FileHandle};
use crate::layer::BlobSlice;
use crate::ops::ReadData;
use crate::readahead::InWindow;
use crate::vfs::Vfs;
use crate::walk::Part;
use bytes::{Bytes, BytesMut};
use dfs_proto::limits::EXTENT_PAGE_MAX;
use dfs_proto::meta::ReadOp;
use dfs_proto::{Ino, MetaReply};
use futures_util::future::try_join_all;
use std::sync::Arc;

/// Blobs up to this size are fetched whole even by a random reader: one request brings all there is.
const SMALL_BLOB_BYTES: u32 = 256 << 10;

/// How often a read starts again because the file changed under it, before it gives up.
const RESTARTS_MAX: usize = 8;

/// How often a file is validated in a row because it changed meanwhile: far more than happens by chance.
const VALIDATIONS_MAX: usize = 64;

/// Zeros for holes, as long as the kernel's longest request.
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

/// A read that has been begun.
pub enum ReadStart {
    /// All that it asked for was at hand.
    Done(Result<ReadData, VfsError>),
    /// It has to wait for the master, a node or a disk.
    Waits(WaitingRead),
}

/// For [`Vfs::finish_read`].
pub struct WaitingRead {
    handle: Arc<FileHandle>,
    offset: u64,
    size: u32,
    /// Where the bytes come from; `None` when the master has to be asked first.
    parts: Option<Vec<Part>>,
}

impl Vfs {
    /// Up to `size` bytes from `offset` on; fewer at the end of the file only.
    pub async fn read(&self, fh: Fh, offset: u64, size: u32) -> Result<ReadData, VfsError> {
        match self.begin_read(fh, offset, size) {
            ReadStart::Done(result) => result,
            ReadStart::Waits(waiting) => self.finish_read(waiting).await,
        }
    }

    /// Reads what is at hand without waiting for anybody. To be called within the runtime: what the reader is
    /// expected to want next is fetched in the background.
    pub fn begin_read(&self, fh: Fh, offset: u64, size: u32) -> ReadStart {
        let handle = match self.handles.file(fh) {
            Ok(handle) if handle.readable => handle,
            Ok(_) => return ReadStart::Done(Err(VfsError::BadHandle(fh))),
            Err(e) => return ReadStart::Done(Err(e)),
        };
        if let Err(e) = self.check_locks(&mut handle.file.lock(), fh) {
            return ReadStart::Done(Err(e));
        }
        let parts = self.plan(&handle, offset, size);
        if let Some(data) = parts.as_ref().and_then(|parts| self.at_hand(&handle, parts)) {
            self.note_read(&handle);
            return ReadStart::Done(Ok(data));
        }
        ReadStart::Waits(WaitingRead { handle, offset, size, parts })
    }

    /// Reads what [`Vfs::begin_read`] could not.
    pub async fn finish_read(&self, waiting: WaitingRead) -> Result<ReadData, VfsError> {
        let WaitingRead { handle, offset, size, mut parts } = waiting;
        for _ in 0..RESTARTS_MAX {
            if let Some(parts) = parts.take() {
                let data = self.gather(&handle, parts).await?;
                self.note_read(&handle);
                return Ok(data);
            }
            self.freshen(&handle.file, offset.saturating_add(u64::from(size))).await?;
            parts = self.plan(&handle, offset, size);
        }
        Err(changes_too_fast(handle.file.ino))
    }

    /// Where the bytes come from; none beyond the end of the file. `None` when the master has to be asked. What
    /// the reader will want next is fetched from now on.
    fn plan(&self, handle: &FileHandle, offset: u64, size: u32) -> Option<Vec<Part>> {
        let state = handle.file.lock();
        if !state.is_known_to(offset.saturating_add(u64::from(size))) {
            return None;
        }
        let end = offset.saturating_add(u64::from(size)).min(state.size);
        if offset >= end {
            return Some(Vec::new());
        }
        let parts = state.parts(offset, end)?;
        let stream = handle.pattern.lock().note(offset, end - offset);
        self.read_ahead(handle, &state, stream, offset, end);
        Some(parts)
    }

    /// The parts put together, if each of them is in memory, or in the page cache of this host.
    fn at_hand(&self, handle: &FileHandle, parts: &[Part]) -> Option<Bytes> {
        let piece = |part: &Part| match part {
            Part::Bytes(bytes) => Some(bytes.clone()),
            Part::Hole(length) => Some(zeros(*length)),
            Part::Blob { slice, length } => {
                let length = *length as u32;
                match handle.window.lock().find(slice, length) {
                    InWindow::Here(bytes) => return Some(bytes),
                    InWindow::Coming(..) => return None,
                    InWindow::Not => {}
                }
                match self.cache.peek(&slice.blob) {
                    Some(whole) => Some(cut(&whole, slice, length)),
                    None if slice.blob.length <= SMALL_BLOB_BYTES => None,
                    None => self.data.try_get_range(&slice.blob, slice.at, length),
                }
            }
        };
        Some(joined(parts.iter().map(piece).collect::<Option<Vec<Bytes>>>()?))
    }

    /// Makes sure that the published content is known up to `to`, and not known to be out of date.
    pub(crate) async fn freshen(&self, file: &Arc<File>, to: u64) -> Result<(), VfsError> {
        let known = |file: &File| file.lock().is_known_to(to);
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
    async fn gather(&self, handle: &FileHandle, parts: Vec<Part>) -> Result<Bytes, VfsError> {
        let pieces = try_join_all(parts.into_iter().map(|part| async move {
            match part {
                Part::Bytes(bytes) => Ok(bytes),
                Part::Hole(length) => Ok(zeros(length)),
                Part::Blob { slice, length } => self.fetch(handle, &slice, length as u32).await,
            }
        }));
        Ok(joined(pieces.await?))
    }

    async fn fetch(&self, handle: &FileHandle, slice: &BlobSlice, length: u32) -> Result<Bytes, VfsError> {
        let found = handle.window.lock().find(slice, length);
        match found {
            InWindow::Here(bytes) => return Ok(bytes),
            InWindow::Coming(mut arrival, start) => {
                // An error means that the window was dropped meanwhile.
                if let Ok(arrived) = arrival.wait_for(Option::is_some).await
                    && let Some(Some(bytes)) = &*arrived
                {
                    return Ok(bytes.slice(start as usize..(start + length) as usize));
                }
            }
            InWindow::Not => {}
        }
        let blob = &slice.blob;
        if let Some(whole) = self.cache.peek(blob) {
            return Ok(cut(&whole, slice, length));
        }
        if blob.length <= SMALL_BLOB_BYTES {
            return Ok(cut(&self.cache.whole(blob).await?, slice, length));
        }
        Ok(self.data.get_range(blob, slice.at, length).await?)
    }

    /// Whether a published file may be used as it is known here; see [`Vfs::freshen`].
    pub(crate) fn is_published(file: &File) -> bool {
        matches!(file.lock().origin, Origin::Published)
    }
}

fn zeros(length: u64) -> Bytes {
    match ZEROS.get(..length as usize) {
        Some(zeros) => Bytes::from_static(zeros),
        None => Bytes::from(vec![0; length as usize]),
    }
}

fn cut(whole: &Bytes, slice: &BlobSlice, length: u32) -> Bytes {
    whole.slice(slice.at as usize..(slice.at + length) as usize)
}

fn joined(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() <= 1 {
        return pieces.pop().unwrap_or_default();
    }
    let mut all = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    pieces.iter().for_each(|piece| all.extend_from_slice(piece));
    all.freeze()
}

/// A file that was changed each time that it was looked at.
pub(crate) fn changes_too_fast(ino: Ino) -> VfsError {
    let message = format!("inode {ino} changes faster than it can be read");
    dfs_client::ClientError::local(dfs_proto::ErrorCode::Unavailable, message).into()
}
