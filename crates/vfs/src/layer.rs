//! What was done to a file's content since it was last published.

use crate::VfsError;
use crate::range_map::{Piece, RangeMap, Source};
use crate::staging::Buffer;
use dfs_proto::meta::CommitSize;
use dfs_proto::{BlobOrigin, BlobRef, Extent, Ino, SessionId, Timestamp, Version};
use std::sync::Arc;

/// Bytes of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlobSlice {
    pub blob: BlobRef,
    pub at: u32,
}

impl Source for BlobSlice {
    fn advanced(&self, bytes: u64) -> Self {
        BlobSlice { blob: self.blob, at: self.at + bytes as u32 }
    }

    fn continues_with(&self, length: u64, next: &Self) -> bool {
        self.blob == next.blob && u64::from(self.at) + length == u64::from(next.at)
    }
}

/// Bytes that were written here: in a buffer, or on a node by way of one. `None` is a hole that hides what is
/// below.
#[derive(Clone)]
pub(crate) struct Written {
    pub buffer: Option<Arc<Buffer>>,
    pub at: u32,
}

impl Source for Written {
    fn advanced(&self, bytes: u64) -> Self {
        let at = if self.buffer.is_some() { self.at + bytes as u32 } else { 0 };
        Written { buffer: self.buffer.clone(), at }
    }

    fn continues_with(&self, length: u64, next: &Self) -> bool {
        match (&self.buffer, &next.buffer) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b) && u64::from(self.at) + length == u64::from(next.at),
            (None, None) => true,
            _ => false,
        }
    }
}

/// See the module.
#[derive(Clone, Default)]
pub(crate) struct Layer {
    /// New bytes.
    pub pieces: RangeMap<Written>,
    /// The smallest size that a truncation gave the file; nothing below shows through beyond it.
    pub truncate_to: Option<u64>,
    /// Where writes with O_APPEND began, if all writes were such.
    pub append_from: Option<u64>,
    /// Size of the file with this layer, from the moment it is published.
    pub size: u64,
    /// The file ends here or later: where writes and reservations of the layer ended.
    pub floor: u64,
    /// By how many bytes the layer changes what is backed by blobs, as far as what is below was known.
    pub allocated_by: i64,
    /// Modification time.
    pub mtime: Option<Timestamp>,
    /// When the last change was made here.
    pub ctime: Option<Timestamp>,
    /// Whether there is anything to publish, were it only the creation.
    pub dirty: bool,
    /// The session that had granted the locks under which it was made, if there were any.
    pub locked_by: Option<SessionId>,
}

impl Layer {
    /// The layer's commit fields: extents, once every buffer has been stored, and the size.
    pub fn extents(&self) -> Option<Vec<Extent>> {
        self.pieces
            .iter()
            .map(|piece| {
                let blob = match &piece.source.buffer {
                    Some(buffer) => Some(buffer.stored()?),
                    None => None,
                };
                Some(Extent {
                    offset: piece.offset,
                    length: piece.length,
                    blob,
                    blob_offset: piece.source.at,
                })
            })
            .collect()
    }

    /// What the commit says about the size. A plain write or a reservation vouches for its own end only:
    /// somebody else may have truncated the file meanwhile.
    pub fn commit_size(&self, is_new: bool) -> CommitSize {
        if is_new || self.truncate_to.is_some() {
            CommitSize::Exactly(self.size)
        } else {
            CommitSize::AtLeast(self.floor)
        }
    }

    /// What is noted with the blob that `buffer` becomes, in a file of content version `version`.
    pub fn origin_of(&self, buffer: &Arc<Buffer>, ino: Ino, version: Version) -> BlobOrigin {
        let holds = |p: &Piece<Written>| p.source.buffer.as_ref().is_some_and(|b| Arc::ptr_eq(b, buffer));
        let offset = self.pieces.iter().find(holds).map_or(0, |p| p.offset);
        BlobOrigin { ino, offset, version: version.next() }
    }

    /// Every buffer of the layer, each once.
    pub fn buffers(&self) -> Vec<Arc<Buffer>> {
        let mut buffers: Vec<Arc<Buffer>> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for piece in self.pieces.iter() {
            if let Some(buffer) = piece.source.buffer.filter(|b| seen.insert(Arc::as_ptr(b))) {
                buffers.push(buffer);
            }
        }
        buffers
    }

    /// Moves what was appended to the file's present end, `size`, where it will be published.
    pub fn move_append(&mut self, size: u64) {
        if let Some(from) = self.append_from.filter(|from| *from != size) {
            self.pieces = std::mem::take(&mut self.pieces).moved(from, size);
            self.append_from = Some(size);
            self.floor = self.pieces.end();
        }
    }

    /// Cuts the layer to `size` bytes.
    pub fn truncate(&mut self, size: u64) {
        self.pieces.remove(size, u64::MAX);
        self.truncate_to = Some(self.truncate_to.map_or(size, |before| before.min(size)));
        self.append_from = None;
        self.floor = 0;
        self.dirty = true;
    }

    /// Lays `upper`, made after this layer, over it: what both did, as one.
    pub fn absorb(&mut self, upper: Layer) {
        if let Some(size) = upper.truncate_to {
            self.pieces.remove(size, u64::MAX);
            self.truncate_to = Some(self.truncate_to.map_or(size, |before| before.min(size)));
            self.floor = 0;
        }
        self.append_from = match (self.pieces.is_empty(), upper.pieces.is_empty()) {
            // A reservation stays where it was made.
            (true, _) => upper.append_from.filter(|_| self.floor == 0),
            (false, true) => self.append_from,
            (false, false) => self.append_from.filter(|_| upper.append_from.is_some()),
        };
        self.append_from = self.append_from.filter(|_| self.truncate_to.is_none());
        self.pieces.overlay(upper.pieces);
        self.floor = self.floor.max(upper.floor);
        self.allocated_by = self.allocated_by.saturating_add(upper.allocated_by);
        self.mtime = upper.mtime.or(self.mtime);
        self.ctime = upper.ctime.or(self.ctime);
        self.dirty |= upper.dirty;
        self.locked_by = self.locked_by.or(upper.locked_by);
    }
}

/// Adds extents that the master told of to a base map; refuses those that cannot be.
pub(crate) fn base_of(extents: &[Extent], map: &mut RangeMap<BlobSlice>) -> Result<(), VfsError> {
    for e in extents {
        let Some(blob) = e.blob else { continue };
        let end_in_blob = u64::from(e.blob_offset).checked_add(e.length);
        let is_within = end_in_blob.is_some_and(|end| end <= u64::from(blob.length));
        if !is_within || e.offset.checked_add(e.length).is_none() {
            return Err(VfsError::OddAnswer("a request for extents"));
        }
        map.insert(Piece {
            offset: e.offset,
            length: e.length,
            source: BlobSlice { blob, at: e.blob_offset },
        });
    }
    Ok(())
}
