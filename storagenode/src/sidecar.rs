//! Sidecar index files: what a segment holds, so that a start need not read it.
//!
//! A sidecar covers its segment up to a stated length and is written only after those bytes are on disk.

use crate::record::{Header, Kind};
use crate::segment::SegmentId;
use dfs_proto::{BlobId, BlobKey, Seq, VolumeId};
use std::io;
use std::path::Path;

const MAGIC: [u8; 8] = *b"\x89DFSidx\n";
const FORMAT: u32 = 1;
const HEADER_BYTES: usize = 40;
const ENTRY_BYTES: usize = 40;

/// What the index has to know of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it says.
    pub kind: Kind,
    /// See [`Header::replacement`].
    pub replacement: bool,
    /// The blob.
    pub id: BlobId,
    /// Its place in the volume's log.
    pub seq: Seq,
    /// Where the record starts in its segment.
    pub offset: u32,
    /// Length of its payload.
    pub payload_bytes: u32,
}

impl Entry {
    /// The entry of a record at `offset`.
    pub fn of(header: &Header, offset: u32) -> Entry {
        Entry {
            kind: header.kind,
            replacement: header.replacement,
            id: header.id(),
            seq: header.seq,
            offset,
            payload_bytes: header.payload_bytes,
        }
    }

    /// Where the record ends.
    pub fn end(&self) -> u64 {
        u64::from(self.offset) + crate::record::record_bytes(self.payload_bytes as usize) as u64
    }
}

/// The content of a sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sidecar {
    /// The segment it is about.
    pub segment: SegmentId,
    /// That segment's salt.
    pub salt: u64,
    /// How much of the segment it covers.
    pub covers: u64,
    /// One for each record, in the segment's order.
    pub entries: Vec<Entry>,
}

impl Sidecar {
    /// Its bytes on disk.
    pub fn encode(segment: SegmentId, salt: u64, covers: u64, entries: &[Entry]) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES + entries.len() * ENTRY_BYTES + 4);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&segment.0.to_le_bytes());
        out.extend_from_slice(&salt.to_le_bytes());
        out.extend_from_slice(&covers.to_le_bytes());
        out.extend_from_slice(&(entries.len() as u64).to_le_bytes());
        for e in entries {
            for number in [e.id.volume.0, e.id.key.0, e.seq.0] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            out.extend_from_slice(&e.offset.to_le_bytes());
            out.extend_from_slice(&e.payload_bytes.to_le_bytes());
            out.extend_from_slice(&[e.kind.code(), u8::from(e.replacement), 0, 0, 0, 0, 0, 0]);
        }
        let crc = crc32c::crc32c(&out);
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    /// What `bytes` say; `None` when anything about them is wrong.
    pub fn decode(bytes: &[u8]) -> Option<Sidecar> {
        let (body, crc) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
        if crc32c::crc32c(body).to_le_bytes() != crc {
            return None;
        }
        let (header, entries) = body.split_at_checked(HEADER_BYTES)?;
        if header[..8] != MAGIC || u32_at(header, 8)? != FORMAT || entries.len() % ENTRY_BYTES != 0 {
            return None;
        }
        let entries: Vec<Entry> = entries.chunks_exact(ENTRY_BYTES).map(entry).collect::<Option<_>>()?;
        (u64_at(header, 32)? == entries.len() as u64).then_some(Sidecar {
            segment: SegmentId(u32_at(header, 12)?),
            salt: u64_at(header, 16)?,
            covers: u64_at(header, 24)?,
            entries,
        })
    }

    /// The sidecar at `path`; `None` when there is none or it cannot be trusted, in which case the segment
    /// has to be read.
    pub fn load(path: &Path) -> io::Result<Option<Sidecar>> {
        match std::fs::read(path) {
            Ok(bytes) => {
                let sidecar = Sidecar::decode(&bytes);
                if sidecar.is_none() {
                    log::warn!("{} is damaged; its segment is read instead", path.display());
                }
                Ok(sidecar)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }
}

fn entry(bytes: &[u8]) -> Option<Entry> {
    Some(Entry {
        id: BlobId { volume: VolumeId(u64_at(bytes, 0)?), key: BlobKey(u64_at(bytes, 8)?) },
        seq: Seq(u64_at(bytes, 16)?),
        offset: u32_at(bytes, 24)?,
        payload_bytes: u32_at(bytes, 28)?,
        kind: Kind::of_code(bytes[32])?,
        replacement: bytes[33] != 0,
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sidecar() -> Sidecar {
        let entry = |n: u64, kind| Entry {
            kind,
            replacement: n.is_multiple_of(2),
            id: BlobId { volume: VolumeId(n), key: BlobKey(n + 1) },
            seq: Seq(n + 2),
            offset: 8 * n as u32,
            payload_bytes: 17,
        };
        let entries = vec![entry(1, Kind::Blob), entry(2, Kind::Tombstone), entry(3, Kind::Hole)];
        Sidecar { segment: SegmentId(9), salt: 77, covers: 4096, entries }
    }

    #[test]
    fn what_is_encoded_is_read_back() {
        let s = sidecar();
        let bytes = Sidecar::encode(s.segment, s.salt, s.covers, &s.entries);
        assert_eq!(Sidecar::decode(&bytes), Some(s));
    }

    #[test]
    fn cut_and_changed_ones_are_not_trusted() {
        let s = sidecar();
        let bytes = Sidecar::encode(s.segment, s.salt, s.covers, &s.entries);
        for at in 0..bytes.len() {
            assert_eq!(Sidecar::decode(&bytes[..at]), None, "cut at {at}");
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(Sidecar::decode(&changed), None, "changed at {at}");
        }
    }
}
