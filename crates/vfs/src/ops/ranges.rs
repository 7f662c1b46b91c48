//! Ranges of a file: allocation, the search for data and holes, copies between files.

use super::{Allocation, Seek};
use crate::VfsError;
use crate::file::{File, FileState};
use crate::handle::Fh;
use crate::vfs::Vfs;
use crate::walk::Found;
use dfs_client::ClientError;
use dfs_proto::limits::FILE_BYTES_MAX;
use dfs_proto::meta::{CloneRange, Cloned, WriteOp};
use dfs_proto::{ErrorCode, MetaReply};
use std::sync::Arc;

/// How often a search starts again because the file changed under it, before it gives up.
const RESTARTS_MAX: usize = 8;

impl Vfs {
    /// fallocate(2). What it does is staged like a write, in order with writes and truncations, and published
    /// by close or fsync.
    ///
    /// Room is not set aside in this system: [`Allocation::Reserve`] fails with `no_space` when the cluster could
    /// not take what the range still lacks, and otherwise only makes the file longer.
    pub async fn fallocate(&self, fh: Fh, offset: u64, length: u64, how: Allocation) -> Result<(), VfsError> {
        let handle = self.handles.file(fh)?;
        if !handle.writable {
            return Err(VfsError::BadHandle(fh));
        }
        if length == 0 {
            return Err(VfsError::InvalidArgument("a range of no bytes cannot be allocated"));
        }
        let end = end_of(offset, length)?;
        let file = &handle.file;
        self.check_locks(&mut file.lock(), fh)?;
        // A hole among appends that wait to be published could not be moved with them.
        let has_appends = file.lock().has_movable_appends();
        if has_appends {
            self.publish(file, false).await?;
        }
        self.freshen(file, 0).await?;
        if let Allocation::Reserve { .. } = how {
            self.check_room(file, offset, end).await?;
        }
        let now = self.clock.now();
        file.lock().allocate(offset, end, how, now);
        Ok(())
    }

    /// Refuses a reservation that the cluster could not fulfil now.
    async fn check_room(&self, file: &Arc<File>, from: u64, to: u64) -> Result<(), VfsError> {
        self.freshen(file, to).await?;
        let wanted = (to - from) - file.lock().backed_within(from, to);
        if wanted == 0 {
            return Ok(());
        }
        let free = self.statfs().await?.free_bytes;
        if wanted > free {
            let message = format!(
                "{wanted} bytes cannot be reserved: the cluster has room for {free}; add storage nodes"
            );
            return Err(ClientError::local(ErrorCode::NoSpace, message).into());
        }
        Ok(())
    }

    /// lseek(2) with SEEK_DATA and SEEK_HOLE: the first offset, from `offset` on, of data or of a hole. The end
    /// of the file counts as one. [`VfsError::NothingThere`] at or after the end, and when no data follows.
    pub async fn seek(&self, fh: Fh, offset: u64, what: Seek) -> Result<u64, VfsError> {
        let handle = self.handles.file(fh)?;
        let file = &handle.file;
        let mut known_to = offset.saturating_add(1);
        let mut restarts = 0;
        while restarts < RESTARTS_MAX {
            self.freshen(file, known_to).await?;
            let found = file.lock().search(offset, what == Seek::Data);
            match found {
                Found::At(at) => return Ok(at),
                Found::End(size) if what == Seek::Hole && offset < size => return Ok(size),
                Found::End(_) => return Err(VfsError::NothingThere),
                Found::NotBefore(at) if at >= known_to => known_to = at.saturating_add(1),
                Found::NotBefore(_) => restarts += 1,
            }
        }
        Err(crate::read::changes_too_fast(file.ino))
    }

    /// copy_file_range(2): the bytes that are copied, fewer than `length` at the end of the source or after an
    /// error. No byte moves: the target refers to the source's blobs from then on. Changes that wait in either
    /// file are published first.
    pub async fn copy_range(
        &self,
        from: Fh,
        from_offset: u64,
        to: Fh,
        to_offset: u64,
        length: u64,
    ) -> Result<u64, VfsError> {
        let (source, target) = (self.handles.file(from)?, self.handles.file(to)?);
        if !source.readable {
            return Err(VfsError::BadHandle(from));
        }
        if !target.writable || target.append {
            return Err(VfsError::BadHandle(to));
        }
        self.check_locks(&mut source.file.lock(), from)?;
        self.check_locks(&mut target.file.lock(), to)?;
        self.publish_all(&source.file).await?;
        self.publish_all(&target.file).await?;
        self.freshen(&source.file, 0).await?;
        let left = source.file.lock().size.saturating_sub(from_offset);
        let length = length.min(left);
        end_of(to_offset, length)?;
        let is_same = source.file.ino == target.file.ino;
        if is_same && from_offset < to_offset + length && to_offset < from_offset + length {
            return Err(VfsError::InvalidArgument("the ranges to copy between overlap in one file"));
        }
        let mut done = 0;
        while done < length {
            let range = CloneRange {
                source: source.file.ino,
                source_offset: from_offset + done,
                target: target.file.ino,
                target_offset: to_offset + done,
                length: length - done,
                locked_by: target.file.lock().locks.session(),
            };
            match self.clone_range(&target.file, range).await {
                Ok(0) => break,
                Ok(cloned) => done += cloned.min(length - done),
                Err(_) if done > 0 => break,
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    async fn clone_range(&self, target: &Arc<File>, range: CloneRange) -> Result<u64, VfsError> {
        let _serial = target.publishing.lock().await;
        let MetaReply::Cloned(cloned) = self.write_op(WriteOp::Clone(range)).await? else {
            return Err(VfsError::OddAnswer("a copy of extents"));
        };
        self.names.changed_here(target.ino);
        let mut state = target.lock();
        let before = state.attr.version;
        if state.take_clone(&cloned) {
            self.names.pages_moved(target.ino, before, cloned.attr.version);
        } else if let Some(kernel) = self.kernel.get() {
            kernel.drop_pages(target.ino);
        }
        Ok(cloned.length)
    }
}

/// Where a range ends; refuses one that no file can have.
fn end_of(offset: u64, length: u64) -> Result<u64, VfsError> {
    offset.checked_add(length).filter(|end| *end <= FILE_BYTES_MAX).ok_or(VfsError::TooLarge)
}

impl FileState {
    /// Whether appends wait that are moved when the file has grown elsewhere.
    fn has_movable_appends(&self) -> bool {
        self.dirty.append_from.is_some() && !self.is_new()
    }

    /// Takes over a copy of extents into the published content, which has to be asked for again. Whether nobody
    /// else has changed it meanwhile; the kernel has dropped its pages of the range by itself.
    fn take_clone(&mut self, cloned: &Cloned) -> bool {
        let alone = cloned.attr.version == self.attr.version.next() && !self.stale;
        self.forget_base();
        self.stale = !alone;
        self.set_attr(cloned.attr.clone());
        alone
    }
}
