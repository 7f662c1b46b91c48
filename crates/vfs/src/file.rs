//! A file that is open here, or has content that is not published yet.

use crate::layer::{BlobSlice, Layer, Written, base_of};
use crate::locks::FileLocks;
use crate::range_map::{Piece, RangeMap};
use crate::staging::Buffer;
use crate::{Allocation, VfsError};
use dfs_proto::meta::{Create, ExtentPage};
use dfs_proto::{Attr, Ino, Name, Timestamp, Version};
use parking_lot::{Mutex, MutexGuard};
use std::sync::Arc;

/// One file. The async mutex serialises publishing and refreshing (both span round trips); the other lock
/// guards the state for moments only and is never held across an await.
pub(crate) struct File {
    pub ino: Ino,
    pub publishing: tokio::sync::Mutex<()>,
    state: Mutex<FileState>,
}

/// Where a file comes from.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// The master knows it.
    Published,
    /// It exists here only, and will be made by its first commit.
    New(Create),
    /// It existed here only and its name has been removed: nothing is ever published.
    Dropped,
}

pub(crate) struct FileState {
    /// As the master told, or as it was made here.
    pub attr: Attr,
    pub origin: Origin,
    /// Published content, as far as it has been fetched.
    pub base: RangeMap<BlobSlice>,
    /// The base is complete up to here.
    pub base_known_to: u64,
    /// The base and the attributes may be out of date: ask before they are used.
    pub stale: bool,
    /// Changes that are being published.
    pub in_flight: Option<Layer>,
    /// Changes since.
    pub dirty: Layer,
    /// The buffer that writes of the dirty layer go to.
    pub tail: Option<Arc<Buffer>>,
    /// Size with all changes made here.
    pub size: u64,
    /// Open handles.
    pub opens: u32,
    /// Locks that were taken here.
    pub locks: FileLocks,
    /// How many opens the master has noted for this session.
    pub pins: u32,
    /// The kernel knows that it has no name: it lost the last one here, or never had one.
    pub is_nameless: bool,
    /// The content version that is known to be on the disks of enough nodes.
    pub durable_version: Option<Version>,
    /// How often others have been heard to change it: an answer that was under way meanwhile is old.
    pub changes: u64,
    /// When the content was read here, if that counts and nobody has changed the file since.
    pub accessed: Option<Timestamp>,
    /// An access time that was set before the file was made: the commit that makes it cannot carry it.
    pub atime_to_set: Option<Timestamp>,
    /// The group that the file has had here, when its directory has passed on another one by the time that the
    /// file was made.
    pub gid_to_set: Option<u32>,
    /// The commit that makes the file got no answer, and may have been carried out.
    pub maybe_made: bool,
    /// Programs here have it mapped, or had: what they write there stays with the kernel until that is asked for it.
    pub is_mapped: bool,
    /// The file is known to have no `security.capability`: the kernel asks for it with every write.
    pub no_capability: bool,
}

impl File {
    pub fn new(attr: Attr, origin: Origin) -> Arc<File> {
        let is_new = !matches!(origin, Origin::Published);
        let state = FileState {
            size: attr.size,
            base: RangeMap::default(),
            base_known_to: if is_new { u64::MAX } else { 0 },
            stale: !is_new,
            in_flight: None,
            // A new file keeps the times of its making, whenever it is published.
            dirty: Layer { dirty: is_new, mtime: is_new.then_some(attr.mtime), ..Layer::default() },
            tail: None,
            opens: 0,
            locks: FileLocks::default(),
            pins: 0,
            is_nameless: false,
            durable_version: None,
            changes: 0,
            accessed: None,
            atime_to_set: None,
            gid_to_set: None,
            maybe_made: false,
            is_mapped: false,
            no_capability: is_new,
            origin,
            attr,
        };
        Arc::new(File {
            ino: state.attr.ino,
            publishing: tokio::sync::Mutex::new(()),
            state: Mutex::new(state),
        })
    }

    pub fn lock(&self) -> MutexGuard<'_, FileState> {
        self.state.lock()
    }
}

impl FileState {
    /// Whether the file exists here only.
    pub fn is_new(&self) -> bool {
        matches!(self.origin, Origin::New(_))
    }

    /// The wanted name of a new file that nothing was written to so far.
    pub fn untouched_name(&self) -> Option<Name> {
        match &self.origin {
            Origin::New(create)
                if self.dirty.pieces.is_empty() && self.size == 0 && self.in_flight.is_none() =>
            {
                Some(create.name.clone())
            }
            Origin::New(_) | Origin::Published | Origin::Dropped => None,
        }
    }

    /// Whether the published content is known up to `to`, and not known to be out of date.
    pub fn is_known_to(&self, to: u64) -> bool {
        !self.stale && self.base_known_to >= to.min(self.attr.size)
    }

    /// Whether there is anything to publish.
    pub fn is_dirty(&self) -> bool {
        self.dirty.dirty || self.in_flight.is_some()
    }

    /// Whether it is open and the master may not have it noted: it was published by an open handle, or the
    /// session that noted it may be over.
    pub fn needs_pin(&self) -> bool {
        self.opens > 0 && (self.pins == 0 || self.stale) && matches!(self.origin, Origin::Published)
    }

    /// Whether it is open and the master has not been told so.
    pub fn is_unpinned(&self) -> bool {
        self.opens > 0 && self.pins == 0 && matches!(self.origin, Origin::Published)
    }

    /// Takes over an answer of the master, if nothing later has been taken over meanwhile. Changes made here
    /// stay on top. `changes_before` is [`FileState::changes`] from before the question.
    pub fn refresh(
        &mut self,
        attr: Attr,
        extents: Option<ExtentPage>,
        changes_before: u64,
    ) -> Result<(), VfsError> {
        let fits = extents.is_some() || attr.version == self.attr.version;
        if attr.version < self.attr.version || !fits {
            self.stale |= attr.version > self.attr.version;
            return Ok(());
        }
        if let Some(page) = extents {
            self.base = RangeMap::default();
            self.base_known_to = 0;
            self.add_extents(&page)?;
        }
        self.set_attr(attr);
        self.stale = self.changes != changes_before;
        self.no_capability = false;
        Ok(())
    }

    /// The content version that the base is of, if any of it is known.
    pub fn base_version(&self) -> Option<Version> {
        (self.base_known_to > 0).then_some(self.attr.version)
    }

    /// Notes that somebody else has changed the file.
    pub fn changed_elsewhere(&mut self) {
        if matches!(self.origin, Origin::Published) {
            self.changes += 1;
            self.stale = true;
            self.accessed = None;
            self.no_capability = false;
        }
    }

    /// The published content is not what is known here.
    pub fn forget_base(&mut self) {
        self.base = RangeMap::default();
        self.base_known_to = 0;
        self.stale = true;
    }

    /// Takes over attributes; the size is what the changes made here leave of the published one.
    pub fn set_attr(&mut self, attr: Attr) {
        self.attr = attr;
        if self.in_flight.is_none() {
            self.dirty.move_append(self.attr.size);
        }
        let mut size = self.attr.size;
        for layer in self.in_flight.iter().chain([&self.dirty]) {
            if layer.truncate_to.is_some() {
                // The layer's own idea of the size holds, and that is what `size` was made of.
                return;
            }
            size = size.max(layer.floor);
        }
        self.size = size;
    }

    /// Adds a page of extents that follows what is known.
    pub fn add_extents(&mut self, page: &ExtentPage) -> Result<(), VfsError> {
        base_of(&page.extents, &mut self.base)?;
        self.base_known_to = match page.extents.last() {
            _ if page.end => u64::MAX,
            Some(last) => last.end(),
            None => u64::MAX,
        };
        Ok(())
    }

    /// Where the next write with O_APPEND goes: on from those that wait to be published, so that they can be
    /// moved as one when the file has grown elsewhere.
    pub fn append_at(&self) -> u64 {
        match self.dirty.append_from {
            Some(_) => self.dirty.pieces.end(),
            None => self.size,
        }
    }

    /// Forgets changes that cannot be stored and that nobody can ask for any more; the file, if it existed
    /// here only.
    pub fn give_up(&mut self) -> Option<Create> {
        self.tail = None;
        self.dirty = Layer::default();
        match std::mem::replace(&mut self.origin, Origin::Published) {
            Origin::New(create) => {
                self.origin = Origin::Dropped;
                Some(create)
            }
            other => {
                self.origin = other;
                None
            }
        }
    }

    /// Forgets changes that must not be published.
    pub fn discard_changes(&mut self) {
        self.tail = None;
        self.in_flight = None;
        self.dirty = Layer::default();
        self.size = self.attr.size;
        self.forget_base();
    }

    /// Puts written bytes in place; the caller has taken them from the budget. Returns how many of `data` the
    /// present buffer took: 0 when there is none or it is full.
    pub fn put_bytes(&mut self, offset: u64, data: &[u8], appending: bool, now: Timestamp) -> usize {
        let Some(buffer) = &self.tail else { return 0 };
        let length = buffer.room().min(data.len());
        if length == 0 {
            return 0;
        }
        let at = buffer.append(&data[..length]);
        let source = Written { buffer: Some(buffer.clone()), at };
        if self.dirty.pieces.is_empty() && self.dirty.floor == 0 {
            // After a truncation the writer says where the file ends: nothing is moved.
            self.dirty.append_from = (appending && self.dirty.truncate_to.is_none()).then_some(offset);
        } else if !appending {
            self.dirty.append_from = None;
        }
        let end = offset + length as u64;
        self.backed_changes_by(length as i64 - self.backed_within(offset, end) as i64);
        self.dirty.pieces.insert(Piece { offset, length: length as u64, source });
        self.wrote_to(end, now);
        length
    }

    /// Overwrites bytes that are still in the open buffer, which costs no memory. Returns how many of `data`
    /// lay in one such piece.
    pub fn overwrite_staged(&mut self, offset: u64, data: &[u8], now: Timestamp) -> usize {
        let Some(tail) = &self.tail else { return 0 };
        let Some(piece) = self.dirty.pieces.at(offset) else { return 0 };
        let Some(buffer) = piece.source.buffer.as_ref().filter(|b| Arc::ptr_eq(b, tail)) else { return 0 };
        let skip = offset - piece.offset;
        let length = (piece.length - skip).min(data.len() as u64) as usize;
        if !buffer.overwrite(piece.source.at + skip as u32, &data[..length]) {
            return 0;
        }
        self.wrote_to(offset + length as u64, now);
        length
    }

    fn wrote_to(&mut self, end: u64, now: Timestamp) {
        self.size = self.size.max(end);
        self.dirty.floor = self.dirty.floor.max(end);
        self.content_changed(now);
    }

    fn content_changed(&mut self, now: Timestamp) {
        self.dirty.mtime = Some(now);
        self.dirty.ctime = Some(now);
        self.dirty.dirty = true;
        self.dirty.locked_by = self.dirty.locked_by.or(self.locks.session());
    }

    /// Carries out fallocate(2) on `from..to`. A hole is staged like a write of zeros, but nothing vouches for
    /// its end: the file may have been cut elsewhere.
    pub fn allocate(&mut self, from: u64, to: u64, how: Allocation, now: Timestamp) {
        match how {
            Allocation::Reserve { keep_size: true } => {}
            Allocation::Reserve { keep_size: false } => self.grow_to(to, now),
            Allocation::PunchHole | Allocation::Zero { keep_size: true } => self.punch(from, to, now),
            Allocation::Zero { keep_size: false } => {
                self.punch(from, to, now);
                self.grow_to(to, now);
            }
        }
    }

    /// Where the published content is not known, all of a range counts as backed: estimates may be as large as a
    /// file.
    fn backed_changes_by(&mut self, bytes: i64) {
        self.dirty.allocated_by = self.dirty.allocated_by.saturating_add(bytes);
    }

    fn punch(&mut self, from: u64, to: u64, now: Timestamp) {
        let to = to.min(self.size);
        if from >= to {
            return;
        }
        self.backed_changes_by(-(self.backed_within(from, to) as i64));
        let source = Written { buffer: None, at: 0 };
        self.dirty.pieces.insert(Piece { offset: from, length: to - from, source });
        self.dirty.append_from = None;
        self.content_changed(now);
    }

    fn grow_to(&mut self, end: u64, now: Timestamp) {
        if end > self.size {
            self.dirty.append_from = None;
            self.wrote_to(end, now);
        }
    }

    /// Changes the size here.
    pub fn truncate(&mut self, size: u64, now: Timestamp) {
        // Extending is a truncation too: the size is to be exactly this.
        let cut = size.min(self.size);
        self.backed_changes_by(-(self.backed_within(cut, self.size) as i64));
        self.dirty.truncate(cut);
        self.size = size;
        self.content_changed(now);
    }
}
