//! Reading: positioned reads, verified before anybody sees the bytes. All of it blocks.

use super::{Append, BlobStore, Shared};
use crate::error::StoreError;
use crate::index::{Health, Slot};
use crate::memory::Buffer;
use crate::record::{Header, Kind, ParseError, header_bytes, record_bytes};
use crate::segment::{ReadError, Segment};
use bytes::Bytes;
use dfs_proto::blob::VerifyReply;
use dfs_proto::{BlobId, BlobKey, CHUNK_BYTES, Seq, VolumeId};
use std::ops::Range;
use std::sync::Arc;

/// A record that is replaced or moved while it is read is looked for again so often.
const READ_TRIES: usize = 3;

/// Records in one answer of [`BlobStore::log`].
const LOG_RECORDS_MAX: usize = 16_384;

/// A blob, or chunks of it, that matched its CRC32Cs.
#[derive(Clone, Debug)]
pub struct ReadBlob {
    /// Its record's header.
    pub header: Header,
    /// The chunk that `data` begins with.
    pub first_chunk: u32,
    /// The bytes.
    pub data: Bytes,
}

impl Shared {
    /// The verified header of the record that `slot` points to.
    pub(super) fn stored_header(&self, id: BlobId, slot: &Slot) -> Result<Header, StoreError> {
        let corrupt = |reason: String| StoreError::Corrupt { id, reason };
        let segment =
            self.segment(slot.at.segment).ok_or_else(|| corrupt("its segment is gone".to_owned()))?;
        read_header(&segment, id, slot).map_err(|e| corrupt(e.to_string()))
    }
}

impl BlobStore {
    /// Reads a blob, or the chunks `chunks` of it (which must be some of its own), into `buffer`, which has
    /// to have room for a whole record (or for the chunks).
    pub fn read(
        &self,
        id: BlobId,
        chunks: Option<Range<u32>>,
        mut buffer: Buffer,
    ) -> Result<ReadBlob, StoreError> {
        let (header, start) = self.verified(id, |segment, slot| {
            buffer.clear();
            match &chunks {
                Some(chunks) => {
                    let header = read_header(segment, id, slot)?;
                    read_chunks(segment, slot, &header, chunks, &mut buffer).map(|()| (header, 0))
                }
                None => read_record(segment, id, slot, &mut buffer).map(|h| {
                    let start = h.encoded_bytes();
                    (h, start)
                }),
            }
        })?;
        let bytes = buffer.freeze();
        let data = match chunks {
            Some(_) => bytes,
            None => bytes.slice(start..start + header.payload_bytes as usize),
        };
        self.metrics().reads.add(1);
        self.metrics().read_bytes.add(data.len() as u64);
        Ok(ReadBlob { header, first_chunk: chunks.map_or(0, |c| c.start), data })
    }

    /// The raw record of a blob, verified but for the MD5.
    pub fn record(&self, id: BlobId, mut buffer: Buffer) -> Result<Bytes, StoreError> {
        self.verified(id, |segment, slot| {
            buffer.clear();
            read_record(segment, id, slot, &mut buffer)
        })?;
        Ok(buffer.freeze())
    }

    /// The header of a blob's record.
    pub fn header(&self, id: BlobId) -> Result<Header, StoreError> {
        self.verified(id, |segment, slot| read_header(segment, id, slot))
    }

    /// The header of a blob's record, where in its segment the payload begins, and the segment.
    pub fn place(&self, id: BlobId) -> Result<(Header, u64, Arc<Segment>), StoreError> {
        self.verified(id, |segment, slot| {
            let header = read_header(segment, id, slot)?;
            let at = u64::from(slot.at.offset) + header.encoded_bytes() as u64;
            Ok((header, at, segment.clone()))
        })
    }

    /// Reads a blob and verifies everything about it, MD5 included.
    pub fn check(&self, id: BlobId, buffer: &mut Buffer) -> Result<(), StoreError> {
        self.verified(id, |segment, slot| {
            buffer.clear();
            let header = read_record(segment, id, slot, buffer)?;
            let start = header.encoded_bytes();
            let payload = &buffer.as_ref()[start..start + header.payload_bytes as usize];
            if dfs_client::checksum::md5(payload) == header.md5 {
                Ok(())
            } else {
                Err(ParseError::Md5.into())
            }
        })
    }

    /// Reads and verifies what lives of `volume` above `after`, MD5s included: at least one record if there is
    /// any, and no more when they come to `max_bytes` of payload. `buffer` has to have room for a record.
    /// Damage that is found is set aside and reported as when a reader finds it.
    pub fn verify(
        &self,
        volume: VolumeId,
        after: Seq,
        max_bytes: u64,
        buffer: &mut Buffer,
    ) -> Result<VerifyReply, StoreError> {
        let (reach, slots, complete) = self.log_slots(volume, after, max_bytes as usize)?;
        let mut reply = VerifyReply { next: reach, reach, records: 0, bytes: 0, bad: 0, found: 0 };
        if !complete {
            reply.next = slots.last().map_or(after, |slot| slot.seq);
        }
        for slot in slots {
            reply.records += 1;
            reply.bytes += u64::from(slot.at.payload_bytes);
            match self.check(BlobId { volume, key: slot.key }, buffer) {
                Ok(()) | Err(StoreError::NotFound(_)) => {}
                Err(StoreError::Corrupt { .. }) => {
                    reply.bad += 1;
                    reply.found += u64::from(slot.health == Health::Good);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(reply)
    }

    /// Fills `buffer` with the raw records of `volume` above `after`, in order, at least one if there is any,
    /// up to `max_bytes`. Numbers without a living blob come as holes, blobs that are damaged here as
    /// missing, so a copy made of them can always go on. Answers how far the volume reaches.
    pub fn log(
        &self,
        volume: VolumeId,
        after: Seq,
        max_bytes: usize,
        buffer: &mut Buffer,
    ) -> Result<Seq, StoreError> {
        let (reach, slots, complete) = self.log_slots(volume, after, max_bytes)?;
        let mut next = Seq(after.0.saturating_add(1));
        for slot in slots {
            if slot.seq > next && !put_hole(buffer, volume, next, Seq(slot.seq.0 - 1)) {
                return Ok(reach);
            }
            if !self.put_log_record(volume, slot.seq, slot.key, buffer) {
                return Ok(reach);
            }
            next = Seq(slot.seq.0 + 1);
        }
        if complete && next <= reach {
            put_hole(buffer, volume, next, reach);
        }
        Ok(reach)
    }

    /// What to send, whether that is all there is, and how far the volume reaches.
    fn log_slots(
        &self,
        volume: VolumeId,
        after: Seq,
        max_bytes: usize,
    ) -> Result<(Seq, Vec<Slot>, bool), StoreError> {
        let index = self.shared.index.read();
        let copy = index.volume(volume).ok_or(StoreError::UnknownVolume(volume))?;
        let (mut slots, mut bytes) = (Vec::new(), 0);
        for slot in copy.after(after) {
            bytes += record_bytes(slot.at.payload_bytes as usize);
            if (!slots.is_empty() && bytes > max_bytes) || slots.len() == LOG_RECORDS_MAX {
                return Ok((copy.reach(), slots, false));
            }
            slots.push(*slot);
        }
        Ok((copy.reach(), slots, true))
    }

    /// Appends one blob's record, or what stands for it; `false` when the buffer is full.
    fn put_log_record(&self, volume: VolumeId, seq: Seq, key: BlobKey, buffer: &mut Buffer) -> bool {
        let id = BlobId { volume, key };
        let mut full = false;
        let read = self.verified(id, |segment, slot| {
            let length = record_bytes(slot.at.payload_bytes as usize);
            let filled = buffer.extend_with(length, |room| fill_record(segment, id, slot, room).map(drop));
            full = filled.is_none();
            filled.unwrap_or(Ok(()))
        });
        match read {
            Ok(()) => !full,
            Err(StoreError::NotFound(_)) => put_hole(buffer, volume, seq, seq),
            Err(_) => put_header(buffer, &Header::bare(Kind::Missing, id, seq, 0)),
        }
    }

    /// Has `read` look at the blob's record. When that fails although the record still is the blob's, the
    /// record is damaged: it is set aside and reported.
    fn verified<T>(
        &self,
        id: BlobId,
        mut read: impl FnMut(&Arc<Segment>, &Slot) -> Result<T, ReadError>,
    ) -> Result<T, StoreError> {
        for _ in 0..READ_TRIES {
            let slot = self.find(id)?;
            match slot.health {
                Health::Good => {}
                Health::Dead => return Err(StoreError::NotFound(id)),
                Health::Quarantined => {
                    return Err(StoreError::Corrupt { id, reason: "it was found before".to_owned() });
                }
                Health::Missing => {
                    return Err(StoreError::Corrupt { id, reason: "it never came here whole".to_owned() });
                }
            }
            let Some(segment) = self.shared.segment(slot.at.segment) else { continue };
            match read(&segment, &slot) {
                Ok(found) => return Ok(found),
                Err(_) if self.find(id).ok() != Some(slot) => {}
                Err(e) => return Err(self.set_aside(id, &slot, &segment, &e)),
            }
        }
        Err(StoreError::NotFound(id))
    }

    /// Quarantines a damaged record: it stays on disk, is marked in the index, and a record says so for the
    /// next start.
    fn set_aside(&self, id: BlobId, slot: &Slot, segment: &Segment, e: &ReadError) -> StoreError {
        if self.shared.index.write().quarantine(id, slot.at) {
            self.metrics().damaged_records.add(1);
            let path = segment.path.display();
            log::error!("blob {id} in {path} at {} is damaged and set aside: {e}", slot.at.offset);
            self.append_later(Append::Missing { id, seq: slot.seq });
        }
        StoreError::Corrupt { id, reason: e.to_string() }
    }
}

fn check_place(segment: &Segment, id: BlobId, slot: &Slot, header: &Header) -> Result<(), ReadError> {
    let expected = header.kind == Kind::Blob
        && header.id() == id
        && header.seq == slot.seq
        && header.payload_bytes == slot.at.payload_bytes
        && header.stamp == segment.stamp(slot.at.offset.into());
    if expected { Ok(()) } else { Err(ParseError::Misplaced.into()) }
}

fn read_header(segment: &Segment, id: BlobId, slot: &Slot) -> Result<Header, ReadError> {
    let mut bytes = vec![0; header_bytes(slot.at.payload_bytes as usize)];
    segment.read(&mut bytes, slot.at.offset.into())?;
    let header = Header::parse(&bytes)?;
    check_place(segment, id, slot, &header)?;
    Ok(header)
}

fn read_chunks(
    segment: &Segment,
    slot: &Slot,
    header: &Header,
    chunks: &Range<u32>,
    buffer: &mut Buffer,
) -> Result<(), ReadError> {
    let start = chunks.start as usize * CHUNK_BYTES;
    let end = (chunks.end as usize * CHUNK_BYTES).min(header.payload_bytes as usize);
    let offset = u64::from(slot.at.offset) + (header.encoded_bytes() + start) as u64;
    let filled = buffer.extend_with(end.saturating_sub(start), |room| {
        segment.read(room, offset)?;
        Ok(header.verify_chunks(chunks.start as usize, room)?)
    });
    filled.unwrap_or(Err(ReadError::Damaged(ParseError::Short)))
}

fn read_record(segment: &Segment, id: BlobId, slot: &Slot, buffer: &mut Buffer) -> Result<Header, ReadError> {
    let mut header = None;
    let length = record_bytes(slot.at.payload_bytes as usize);
    let filled = buffer.extend_with(length, |room| {
        header = Some(fill_record(segment, id, slot, room)?);
        Ok::<(), ReadError>(())
    });
    filled.unwrap_or(Err(ReadError::Damaged(ParseError::Short)))?;
    header.ok_or(ReadError::Damaged(ParseError::Short))
}

/// Fills `room`, which has the record's length, with the verified record.
fn fill_record(segment: &Segment, id: BlobId, slot: &Slot, room: &mut [u8]) -> Result<Header, ReadError> {
    segment.read(room, slot.at.offset.into())?;
    let header = Header::parse(room)?;
    check_place(segment, id, slot, &header)?;
    let start = header.encoded_bytes();
    header.verify_chunks(0, &room[start..start + header.payload_bytes as usize])?;
    Ok(header)
}

fn put_hole(buffer: &mut Buffer, volume: VolumeId, first: Seq, last: Seq) -> bool {
    let id = BlobId { volume, key: BlobKey(first.0) };
    put_header(buffer, &Header::bare(Kind::Hole, id, last, 0))
}

fn put_header(buffer: &mut Buffer, header: &Header) -> bool {
    let mut bytes = Vec::with_capacity(header.record_bytes());
    header.encode(&mut bytes);
    bytes.resize(header.record_bytes(), 0);
    buffer.extend(&bytes)
}
