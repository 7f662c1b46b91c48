//! Extents: which bytes of a file are in which blob.

use crate::id::{BlobId, Seq};
use crate::md5::Md5;
use serde::{Deserialize, Serialize};

/// A blob as a file refers to it: enough to fetch it, verify it and judge which copies have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BlobRef {
    /// Where it is.
    pub id: BlobId,
    /// Its place in the volume's log: a copy has the blob when its log reaches this far.
    pub seq: Seq,
    /// Length of the whole blob, bytes.
    pub length: u32,
    /// MD5 of the whole blob.
    pub md5: Md5,
}

/// `length` bytes of a file from `offset` on. Holes between extents read as zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Extent {
    /// Where in the file, bytes.
    pub offset: u64,
    /// How much, bytes; at least 1.
    pub length: u64,
    /// The data; `None` in a commit digs a hole. Stored extents always have a blob.
    pub blob: Option<BlobRef>,
    /// Where in the blob the bytes begin; 0 for a hole.
    pub blob_offset: u32,
}

impl Extent {
    /// The file offset just after the extent.
    pub fn end(&self) -> u64 {
        self.offset + self.length
    }

    /// The part of the extent within `from..to`, if any.
    pub fn clipped(&self, from: u64, to: u64) -> Option<Extent> {
        let start = self.offset.max(from);
        let end = self.end().min(to);
        (start < end).then(|| Extent {
            offset: start,
            length: end - start,
            blob: self.blob,
            blob_offset: if self.blob.is_some() {
                self.blob_offset + (start - self.offset) as u32
            } else {
                0
            },
        })
    }

    /// What is left of the extent when `from..to` is overwritten: the part before and the part after.
    pub fn without(&self, from: u64, to: u64) -> [Option<Extent>; 2] {
        [self.clipped(0, from), self.clipped(to, u64::MAX)]
    }

    /// Whether `next` goes on exactly where this extent ends, in the file and in the blob, so that one
    /// extent can stand for both.
    pub fn continues_with(&self, next: &Extent) -> bool {
        self.end() == next.offset
            && self.blob == next.blob
            && (self.blob.is_none()
                || u64::from(self.blob_offset) + self.length == u64::from(next.blob_offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{BlobKey, VolumeId};

    fn extent(offset: u64, length: u64, blob_offset: u32) -> Extent {
        let id = BlobId { volume: VolumeId(1), key: BlobKey(1) };
        let blob = Some(BlobRef { id, seq: Seq(1), length: 1 << 20, md5: Md5([0; 16]) });
        Extent { offset, length, blob, blob_offset }
    }

    #[test]
    fn overwriting_the_middle_leaves_both_ends() {
        let [before, after] = extent(100, 50, 7).without(110, 120);
        assert_eq!(before, Some(extent(100, 10, 7)));
        assert_eq!(after, Some(extent(120, 30, 27)));
    }

    #[test]
    fn overwriting_everything_leaves_nothing() {
        assert_eq!(extent(100, 50, 0).without(0, 150), [None, None]);
        assert_eq!(extent(100, 50, 0).without(100, 150), [None, None]);
    }

    #[test]
    fn only_neighbours_in_file_and_blob_continue() {
        assert!(extent(0, 10, 0).continues_with(&extent(10, 5, 10)));
        assert!(!extent(0, 10, 0).continues_with(&extent(10, 5, 11)));
        assert!(!extent(0, 10, 0).continues_with(&extent(11, 5, 10)));
    }
}
