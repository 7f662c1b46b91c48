//! The format of one record: what a volume's log is made of, on disk and between nodes.
//!
//! Owns encoding, parsing and verification of single records; knows nothing of files, indexes or requests.
//! Parsing never panics, whatever the bytes are. `docs/STORAGE.md` has the layout as a table.

use bytes::Bytes;
use dfs_proto::limits::BLOB_BYTES_MAX;
use dfs_proto::{
    BlobId, BlobKey, BlobOrigin, CHUNK_BYTES, Ino, Md5, Seq, Version, VolumeId, blob::chunks_of,
};

/// First bytes of every record. The high bit and the control characters keep it apart from text.
pub const MAGIC: [u8; 8] = *b"\x89DFSrec\n";

/// Version of the format.
pub const FORMAT: u16 = 1;

/// Records start at multiples of this, so that a search after damage has few places to look at.
pub const ALIGN: u64 = 8;

/// Bytes before the list of checksums.
pub const FIXED_BYTES: usize = 96;

/// The longest header: that of a blob of the largest size.
pub const HEADER_BYTES_MAX: usize = header_bytes(BLOB_BYTES_MAX);

const FLAG_REPLACEMENT: u8 = 1;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The bytes of a blob.
    Blob,
    /// The blob of this key is deleted for good; `seq` is the number it had (0 when it was never here).
    Tombstone,
    /// The blob of this key and number exists, but its bytes are not good here.
    Missing,
    /// Nothing is known here of the numbers from `key` (as a number) to `seq`: deleted or lost.
    Hole,
    /// A list of deleted keys, as ranges (first, last) of two `u64` each; `seq` is how far the log reached.
    /// Written before the segments with their tombstones are removed.
    Grave,
    /// This copy of the volume was given up: nothing of it that stands before in the log counts any more.
    Drop,
}

impl Kind {
    /// The byte that stands for it.
    pub fn code(self) -> u8 {
        match self {
            Kind::Blob => 1,
            Kind::Tombstone => 2,
            Kind::Missing => 3,
            Kind::Hole => 4,
            Kind::Grave => 5,
            Kind::Drop => 6,
        }
    }

    /// What `code` stands for.
    pub fn of_code(code: u8) -> Option<Kind> {
        [Kind::Blob, Kind::Tombstone, Kind::Missing, Kind::Hole, Kind::Grave, Kind::Drop]
            .into_iter()
            .find(|kind| kind.code() == code)
    }
}

/// Everything of a record but its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it says.
    pub kind: Kind,
    /// Whether it takes the place of an earlier record of the same key and number.
    pub replacement: bool,
    /// Length of the payload.
    pub payload_bytes: u32,
    /// The volume.
    pub volume: VolumeId,
    /// The blob; see [`Kind::Hole`] for its other use.
    pub key: BlobKey,
    /// Its place in the volume's log.
    pub seq: Seq,
    /// The file it was written for.
    pub origin: BlobOrigin,
    /// When the primary accepted it, ms since 1970.
    pub written_ms: u64,
    /// MD5 of the payload.
    pub md5: Md5,
    /// Where it stands: the segment's salt xor its offset. A copy of a segment that somebody stored as a
    /// file is therefore never mistaken for records. Of no meaning between nodes.
    pub stamp: u64,
    /// CRC32C of each [`CHUNK_BYTES`] of the payload.
    pub crc32c: Vec<u32>,
}

/// Why bytes are not a good record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// More bytes are needed to tell.
    #[error("the record is cut off")]
    Short,
    /// The magic is not there.
    #[error("there is no record at this place")]
    NoMagic,
    /// Written by a later version of dfs.
    #[error("the record has format {0}, which this version does not know")]
    Format(u16),
    /// A field that no writer writes.
    #[error("the record's {0} makes no sense")]
    Field(&'static str),
    /// The header's checksum does not match.
    #[error("the header's CRC32C does not match")]
    HeaderChecksum,
    /// A chunk's checksum does not match.
    #[error("the CRC32C of chunk {0} does not match")]
    ChunkChecksum(usize),
    /// Every CRC32C matches and the MD5 does not.
    #[error("the MD5 does not match")]
    Md5,
    /// A good record of something else.
    #[error("another record stands at this place")]
    Misplaced,
}

/// Length of the header of a record with a payload of `payload_bytes`.
pub const fn header_bytes(payload_bytes: usize) -> usize {
    FIXED_BYTES + 4 * payload_bytes.div_ceil(CHUNK_BYTES) + 4
}

/// Length of a whole record, padding included.
pub const fn record_bytes(payload_bytes: usize) -> usize {
    (header_bytes(payload_bytes) + payload_bytes).next_multiple_of(ALIGN as usize)
}

impl Header {
    /// A header without payload.
    pub fn bare(kind: Kind, id: BlobId, seq: Seq, written_ms: u64) -> Header {
        Header {
            kind,
            replacement: false,
            payload_bytes: 0,
            volume: id.volume,
            key: id.key,
            seq,
            origin: BlobOrigin::default(),
            written_ms,
            md5: Md5([0; 16]),
            stamp: 0,
            crc32c: Vec::new(),
        }
    }

    /// The blob it is about.
    pub fn id(&self) -> BlobId {
        BlobId { volume: self.volume, key: self.key }
    }

    /// Length of its encoded form.
    pub fn encoded_bytes(&self) -> usize {
        header_bytes(self.payload_bytes as usize)
    }

    /// Length of the whole record.
    pub fn record_bytes(&self) -> usize {
        record_bytes(self.payload_bytes as usize)
    }

    /// Zeros between the payload's end and the next record.
    pub fn padding_bytes(&self) -> usize {
        self.record_bytes() - self.encoded_bytes() - self.payload_bytes as usize
    }

    /// Appends its encoded form to `out`. The list of checksums must fit the payload's length.
    pub fn encode(&self, out: &mut Vec<u8>) {
        debug_assert_eq!(self.crc32c.len(), chunks_of(self.payload_bytes as usize));
        let start = out.len();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.push(self.kind.code());
        out.push(if self.replacement { FLAG_REPLACEMENT } else { 0 });
        out.extend_from_slice(&self.payload_bytes.to_le_bytes());
        for number in [
            self.volume.0,
            self.key.0,
            self.seq.0,
            self.origin.ino.0,
            self.origin.offset,
            self.origin.version.0,
            self.written_ms,
        ] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.md5.0);
        out.extend_from_slice(&self.stamp.to_le_bytes());
        for crc in &self.crc32c {
            out.extend_from_slice(&crc.to_le_bytes());
        }
        let crc = crc32c::crc32c(&out[start..]);
        out.extend_from_slice(&crc.to_le_bytes());
    }

    /// Reads the header at the start of `bytes` and checks everything about it that needs no other source.
    pub fn parse(bytes: &[u8]) -> Result<Header, ParseError> {
        let magic = bytes.get(..8).ok_or(ParseError::Short)?;
        if magic != MAGIC {
            return Err(ParseError::NoMagic);
        }
        let fixed = bytes.get(..FIXED_BYTES).ok_or(ParseError::Short)?;
        let payload_bytes = u32_at(fixed, 12);
        if payload_bytes as usize > BLOB_BYTES_MAX {
            return Err(ParseError::Field("length"));
        }
        let length = header_bytes(payload_bytes as usize);
        let whole = bytes.get(..length).ok_or(ParseError::Short)?;
        if crc32c::crc32c(&whole[..length - 4]) != u32_at(whole, length - 4) {
            return Err(ParseError::HeaderChecksum);
        }
        Header::of_fields(whole, payload_bytes)
    }

    /// Takes the fields out of a header whose checksum is right.
    fn of_fields(whole: &[u8], payload_bytes: u32) -> Result<Header, ParseError> {
        let format = u16::from_le_bytes([whole[8], whole[9]]);
        if format != FORMAT {
            return Err(ParseError::Format(format));
        }
        let kind = Kind::of_code(whole[10]).ok_or(ParseError::Field("kind"))?;
        if whole[11] & !FLAG_REPLACEMENT != 0 {
            return Err(ParseError::Field("flags"));
        }
        let has_payload = matches!(kind, Kind::Blob | Kind::Grave);
        if has_payload != (payload_bytes > 0) {
            return Err(ParseError::Field("length"));
        }
        let mut md5 = [0; 16];
        md5.copy_from_slice(&whole[72..88]);
        Ok(Header {
            kind,
            replacement: whole[11] & FLAG_REPLACEMENT != 0,
            payload_bytes,
            volume: VolumeId(u64_at(whole, 16)),
            key: BlobKey(u64_at(whole, 24)),
            seq: Seq(u64_at(whole, 32)),
            origin: BlobOrigin {
                ino: Ino(u64_at(whole, 40)),
                offset: u64_at(whole, 48),
                version: Version(u64_at(whole, 56)),
            },
            written_ms: u64_at(whole, 64),
            md5: Md5(md5),
            stamp: u64_at(whole, 88),
            crc32c: whole[FIXED_BYTES..whole.len() - 4].chunks_exact(4).map(|c| u32_at(c, 0)).collect(),
        })
    }

    /// Checks `data`, the payload from chunk `first` on, against the checksums.
    pub fn verify_chunks(&self, first: usize, data: &[u8]) -> Result<(), ParseError> {
        for (i, chunk) in data.chunks(CHUNK_BYTES).enumerate() {
            if self.crc32c.get(first + i) != Some(&crc32c::crc32c(chunk)) {
                return Err(ParseError::ChunkChecksum(first + i));
            }
        }
        Ok(())
    }
}

/// A record with its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Everything else.
    pub header: Header,
    /// The payload; its checksums have been verified.
    pub payload: Bytes,
}

impl Record {
    /// Takes one record, all checksums but the MD5 verified, off the front of `bytes`.
    pub fn take(bytes: &mut Bytes) -> Result<Record, ParseError> {
        let header = Header::parse(bytes)?;
        if bytes.len() < header.record_bytes() {
            return Err(ParseError::Short);
        }
        let mut whole = bytes.split_to(header.record_bytes());
        let payload = whole.split_off(header.encoded_bytes()).slice(..header.payload_bytes as usize);
        header.verify_chunks(0, &payload)?;
        Ok(Record { header, payload })
    }

    /// The whole record as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.header.record_bytes());
        self.header.encode(&mut out);
        out.extend_from_slice(&self.payload);
        out.resize(self.header.record_bytes(), 0);
        out
    }

    /// Checks the MD5 as well.
    pub fn verify_md5(&self) -> Result<(), ParseError> {
        if dfs_client::checksum::md5(&self.payload) == self.header.md5 {
            Ok(())
        } else {
            Err(ParseError::Md5)
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn blob(payload: Vec<u8>) -> Record {
        let header = Header {
            payload_bytes: payload.len() as u32,
            md5: dfs_client::checksum::md5(&payload),
            crc32c: payload.chunks(CHUNK_BYTES).map(crc32c::crc32c).collect(),
            replacement: payload.len().is_multiple_of(2),
            origin: BlobOrigin { ino: Ino(5), offset: 6, version: Version(7) },
            stamp: 8,
            ..Header::bare(Kind::Blob, BlobId { volume: VolumeId(1), key: BlobKey(2) }, Seq(3), 4)
        };
        Record { header, payload: payload.into() }
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read_back(payload in proptest::collection::vec(any::<u8>(), 1..200_000)) {
            let record = blob(payload);
            let mut bytes = Bytes::from(record.encode());
            prop_assert_eq!(bytes.len() % ALIGN as usize, 0);
            prop_assert_eq!(Record::take(&mut bytes).unwrap(), record.clone());
            prop_assert!(bytes.is_empty());
            record.verify_md5().unwrap();
        }

        #[test]
        fn garbage_is_refused_and_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..600), magic: bool) {
            if magic && bytes.len() >= 8 {
                bytes[..8].copy_from_slice(&MAGIC);
            }
            prop_assert!(Record::take(&mut Bytes::from(bytes)).is_err());
        }

        #[test]
        fn any_changed_byte_is_noticed(length in 1usize..70_000, at: prop::sample::Index, flip in 1u8..) {
            let record = blob(vec![7; length]);
            let mut bytes = record.encode();
            let covered = bytes.len() - record.header.padding_bytes();
            bytes[at.index(covered)] ^= flip;
            prop_assert!(Record::take(&mut Bytes::from(bytes)).is_err());
        }
    }

    #[test]
    fn a_record_cut_at_any_byte_is_short() {
        let bytes = blob(vec![3; 300]).encode();
        for length in 0..bytes.len() {
            let cut = Record::take(&mut Bytes::copy_from_slice(&bytes[..length]));
            assert_eq!(cut, Err(ParseError::Short), "cut at {length}");
        }
    }

    #[test]
    fn a_wrong_md5_under_right_crcs_is_noticed() {
        let mut record = blob(vec![1; 10]);
        record.header.md5 = Md5([9; 16]);
        assert_eq!(record.verify_md5(), Err(ParseError::Md5));
    }
}
