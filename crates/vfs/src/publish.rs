//! Publishing: what was staged becomes the file's content, at once and whole.

use crate::VfsError;
use crate::file::{File, FileState, Origin};
use crate::layer::{BlobSlice, Layer};
use crate::range_map::{Piece, RangeMap};
use crate::staging::Buffer;
use crate::vfs::Vfs;
use bytes::Bytes;
use dfs_client::ClientError;
use dfs_proto::meta::{Commit, Committed, Create, ReadOp, VolumeReach, WriteOp};
use dfs_proto::{BlobOrigin, ErrorCode, Ino, MetaReply, Seq, VolumeId};
use futures_util::stream::{self, StreamExt};
use std::collections::HashMap;
use std::sync::Arc;

/// Files published at the same time when all are.
const SYNCED_AT_ONCE: usize = 16;

impl Vfs {
    /// Sends a file's open buffer off, if it has one.
    pub(crate) fn seal_tail(&self, file: &Arc<File>) {
        let sealed = file.lock().seal_tail();
        if let Some(sealed) = sealed {
            self.upload_now(sealed);
        }
    }

    /// Sends a file's open buffer off because it is full.
    pub(crate) fn seal_full_tail(&self, file: &Arc<File>) {
        let sealed = file.lock().seal_tail();
        if let Some(sealed) = sealed {
            self.upload_with_others(sealed);
        }
    }

    /// Tries again what could not be stored, so that its bytes do not stand in the way of everybody's.
    pub(crate) fn retry_failed_uploads(&self) {
        let files: Vec<Arc<File>> = self.files.lock().values().cloned().collect();
        for file in files {
            let uploads: Vec<Upload> = {
                let state = file.lock();
                let version = state.attr.version;
                let layers = state.in_flight.iter().chain([&state.dirty]);
                let failed = |layer: &Layer| -> Vec<Upload> {
                    let buffers = layer.buffers().into_iter();
                    let retried = buffers.filter_map(|buffer| buffer.retry().map(|bytes| (buffer, bytes)));
                    retried
                        .map(|(buffer, bytes)| {
                            let origin = layer.origin_of(&buffer, file.ino, version);
                            Upload { buffer, bytes, origin }
                        })
                        .collect()
                };
                layers.flat_map(failed).collect()
            };
            uploads.into_iter().for_each(|upload| self.upload_now(upload));
        }
    }

    /// Publishes all changes made to the file so far. With `durable`, returns only when they, and all that
    /// was published before, are on the disks that fsync promises.
    ///
    /// On an error the changes stay staged, for another try or until the file is dropped.
    pub(crate) async fn publish(&self, file: &Arc<File>, durable: bool) -> Result<(), VfsError> {
        let _serial = file.publishing.lock().await;
        let (layer, sealed) = {
            let mut state = file.lock();
            if matches!(state.origin, Origin::Dropped) {
                return Ok(());
            }
            // Under one lock: a layer must not leave with a buffer that is still written to.
            let sealed = state.seal_tail();
            (state.take_dirty(), sealed)
        };
        match sealed {
            Some(sealed) => self.upload_now(sealed),
            // The last buffer was full, and waits for others that do not come.
            None => drop(self.upload_waiting()),
        }
        match layer {
            Some(layer) => {
                self.publish_layer(file, layer, durable).await?;
                self.pin_if_it_stays_open(file);
                self.set_postponed(file).await
            }
            None if durable => self.make_published_durable(file).await,
            None => Ok(()),
        }
    }

    async fn publish_layer(&self, file: &Arc<File>, layer: Layer, durable: bool) -> Result<(), VfsError> {
        let result = match self.find_out_if_made(file).await {
            Ok(()) => self.store_and_commit(file, &layer, durable).await,
            Err(e) => Err(e),
        };
        let mut state = file.lock();
        let mut layer = state.in_flight.take().unwrap_or(layer);
        match result {
            Ok(committed) => {
                self.apply_commit(file.ino, &mut state, &layer, &committed);
                if durable {
                    state.durable_version = Some(committed.attr.version);
                }
                Ok(())
            }
            Err(e) if e.code() == ErrorCode::LockLost => {
                self.throw_away(file, &mut state);
                Err(e)
            }
            Err(e) => {
                state.maybe_made |= state.is_new() && is_outcome_unknown(&e);
                let newer = std::mem::take(&mut state.dirty);
                layer.absorb(newer);
                state.dirty = layer;
                Err(e)
            }
        }
    }

    /// A commit that got no answer may have made the file all the same; asking for it once more under a name
    /// of its own would be refused for ever.
    async fn find_out_if_made(&self, file: &Arc<File>) -> Result<(), VfsError> {
        if !std::mem::take(&mut file.lock().maybe_made) {
            return Ok(());
        }
        let attr = match self.read_op(ReadOp::GetAttr { ino: file.ino }).await {
            Ok(MetaReply::Attr(attr)) => attr,
            Err(e) if e.code() == ErrorCode::NotFound => return Ok(()),
            Ok(_) => return Err(VfsError::OddAnswer("a getattr")),
            Err(e) => {
                file.lock().maybe_made = true;
                return Err(e);
            }
        };
        let mut state = file.lock();
        if let Origin::New(create) = std::mem::replace(&mut state.origin, Origin::Published) {
            self.names.remove_pending(create.parent, &create.name, file.ino);
        }
        state.forget_base();
        state.set_attr(attr);
        Ok(())
    }

    async fn store_and_commit(
        &self,
        file: &Arc<File>,
        layer: &Layer,
        durable: bool,
    ) -> Result<Committed, VfsError> {
        let version = file.lock().attr.version;
        for buffer in layer.buffers() {
            if let Some(bytes) = buffer.retry() {
                let origin = layer.origin_of(&buffer, file.ino, version);
                self.upload_now(Upload { buffer, bytes, origin });
            }
        }
        for buffer in layer.buffers() {
            buffer.uploaded().await?;
        }
        let extents = layer.extents().expect("every buffer was waited for");
        let (create, ctime) = {
            let state = file.lock();
            match &state.origin {
                Origin::New(create) => (Some(create.clone()), layer.ctime.max(Some(state.attr.ctime))),
                Origin::Published | Origin::Dropped => (None, layer.ctime),
            }
        };
        if durable {
            // What an edit leaves standing has to be as safe as what it adds.
            let mut reach = reach_of(extents.iter().filter_map(|e| e.blob));
            if create.is_none() && !file.lock().is_durable() {
                self.load_all_extents(file).await?;
                merge_reach(&mut reach, reach_of(file.lock().base.iter().map(|p| p.source.blob)));
            }
            self.make_durable(reach).await?;
        }
        let commit = Commit {
            ino: file.ino,
            truncate_to: layer.truncate_to,
            size: layer.commit_size(create.is_some()),
            append_from: layer.append_from.filter(|_| create.is_none() && layer.truncate_to.is_none()),
            mtime: layer.mtime,
            ctime,
            md5: None,
            locked_by: layer.locked_by,
            durable,
            extents,
            create,
        };
        self.commit(file, commit).await
    }

    async fn commit(&self, file: &Arc<File>, commit: Commit) -> Result<Committed, VfsError> {
        if let Some(create) = &commit.create {
            self.names.entries_will_change(create.parent);
        }
        match self.write_op(WriteOp::Commit(commit)).await? {
            MetaReply::Committed(committed) => Ok(committed),
            _ => {
                log::error!("inode {}: the master answered a commit with something else", file.ino);
                Err(VfsError::OddAnswer("a commit"))
            }
        }
    }

    fn apply_commit(&self, ino: Ino, state: &mut FileState, layer: &Layer, committed: &Committed) {
        self.clock.saw(committed.attr.ctime);
        let before = state.attr.version;
        // With nothing laid over it the base is still good if there is no other version, and of a version that
        // somebody else made if there is one.
        let alone = match layer.pieces.is_empty() {
            _ if state.is_new() => true,
            true => committed.attr.version == before,
            false => committed.attr.version == before.next(),
        };
        if let Origin::New(create) = std::mem::replace(&mut state.origin, Origin::Published) {
            self.name_is_published(ino, &create, committed);
            state.gid_to_set = (create.gid != committed.attr.gid).then_some(create.gid);
        }
        if alone && committed.appended_by == 0 && !state.stale {
            if let Some(cut) = layer.truncate_to {
                state.base.remove(cut, u64::MAX);
            }
            for piece in layer.pieces.iter() {
                lay_over(&mut state.base, &piece);
            }
            self.names.pages_moved(ino, before, committed.attr.version);
        } else {
            state.forget_base();
            if let Some(kernel) = self.kernel.get() {
                kernel.drop_pages(ino);
            }
        }
        state.set_attr(committed.attr.clone());
        self.names.changed_here(ino);
    }

    fn name_is_published(&self, ino: Ino, create: &Create, committed: &Committed) {
        self.names.remove_pending(create.parent, &create.name, ino);
        self.entry_changed(create.parent, committed.stored_as.as_ref().unwrap_or(&create.name));
        let Some(stored_as) = &committed.stored_as else { return };
        log::info!("{} was taken: the new file is stored as {stored_as} (inode {ino})", create.name);
        self.names.note_stored_as(ino, stored_as);
        self.names.renamed(ino, create.parent, stored_as);
        if let Some(kernel) = self.kernel.get() {
            kernel.drop_entry(create.parent, &create.name);
            kernel.drop_entry(create.parent, stored_as);
        }
    }

    /// fsync of a file without changes: what was closed before has to be as safe as what is fsynced.
    async fn make_published_durable(&self, file: &Arc<File>) -> Result<(), VfsError> {
        if file.lock().stale {
            self.revalidate(file).await?;
        }
        if file.lock().is_durable() {
            return Ok(());
        }
        self.load_all_extents(file).await?;
        let (version, reach) = {
            let state = file.lock();
            (state.attr.version, reach_of(state.base.iter().map(|p| p.source.blob)))
        };
        self.make_durable(reach).await?;
        self.write_op(WriteOp::Sync).await?;
        file.lock().durable_version = Some(version);
        Ok(())
    }

    /// The caller holds `file.publishing`.
    async fn load_all_extents(&self, file: &Arc<File>) -> Result<(), VfsError> {
        loop {
            let (stale, complete) = {
                let state = file.lock();
                (state.stale, state.base_known_to >= state.attr.size)
            };
            if stale {
                self.revalidate(file).await?;
            } else if complete {
                return Ok(());
            } else {
                self.fetch_extents(file).await?;
            }
        }
    }

    async fn make_durable(&self, reach: HashMap<VolumeId, Seq>) -> Result<(), VfsError> {
        if reach.is_empty() {
            return Ok(());
        }
        let reach: Vec<VolumeReach> =
            reach.into_iter().map(|(volume, seq)| VolumeReach { volume, seq }).collect();
        Ok(self.data.make_durable(&reach).await?)
    }

    /// Publishes every file that has changes: before the mount goes. Returns what could not be saved.
    pub async fn sync_all(&self) -> Vec<(Ino, VfsError)> {
        let dirty: Vec<Arc<File>> =
            self.files.lock().values().filter(|f| f.lock().is_dirty()).cloned().collect();
        let publishing = dirty.into_iter().map(|file| async move {
            let result = self.publish(&file, false).await;
            result.err().filter(|e| !is_gone(e)).map(|e| (file.ino, e))
        });
        let results = stream::iter(publishing).buffer_unordered(SYNCED_AT_ONCE);
        let unsaved = results.filter_map(|lost| async { lost }).collect().await;
        self.access_times.send(&*self.meta).await;
        unsaved
    }
}

/// Bytes that are to be stored.
pub(crate) struct Upload {
    pub buffer: Arc<Buffer>,
    pub bytes: Bytes,
    pub origin: BlobOrigin,
}

impl FileState {
    /// Ends the filling of the open buffer; what has to be uploaded for it.
    fn seal_tail(&mut self) -> Option<Upload> {
        let buffer = self.tail.take()?;
        let bytes = buffer.seal()?;
        let origin = self.dirty.origin_of(&buffer, self.attr.ino, self.attr.version);
        Some(Upload { buffer, bytes, origin })
    }

    /// Whether the published content is known to be on the disks of enough nodes.
    fn is_durable(&self) -> bool {
        self.durable_version == Some(self.attr.version)
    }

    /// Moves the changes out of the way of new ones, to be published.
    fn take_dirty(&mut self) -> Option<Layer> {
        if !self.dirty.dirty {
            return None;
        }
        let mut layer = std::mem::take(&mut self.dirty);
        layer.size = self.size;
        self.in_flight = Some(layer.clone());
        Some(layer)
    }
}

/// Whether the error only says that the file has been removed meanwhile, with which its content may go too.
pub(crate) fn is_gone(e: &VfsError) -> bool {
    matches!(e, VfsError::Client(ClientError::Remote(w)) if matches!(w.code, ErrorCode::Stale))
}

/// Whether the operation may have been carried out although it failed here.
fn is_outcome_unknown(e: &VfsError) -> bool {
    matches!(e.code(), ErrorCode::Timeout | ErrorCode::Unreachable | ErrorCode::SessionExpired)
}

fn lay_over(base: &mut RangeMap<BlobSlice>, piece: &Piece<crate::layer::Written>) {
    match piece.source.buffer.as_ref().and_then(|b| b.stored()) {
        Some(blob) => {
            let source = BlobSlice { blob, at: piece.source.at };
            base.insert(Piece { offset: piece.offset, length: piece.length, source });
        }
        None => base.remove(piece.offset, piece.end()),
    }
}

fn reach_of(blobs: impl Iterator<Item = dfs_proto::BlobRef>) -> HashMap<VolumeId, Seq> {
    let mut reach = HashMap::new();
    merge_reach(&mut reach, blobs.map(|b| (b.id.volume, b.seq)));
    reach
}

fn merge_reach(reach: &mut HashMap<VolumeId, Seq>, more: impl IntoIterator<Item = (VolumeId, Seq)>) {
    for (volume, seq) in more {
        let known = reach.entry(volume).or_default();
        *known = (*known).max(seq);
    }
}
