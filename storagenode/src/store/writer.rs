//! The writer thread: the only one that appends, and so the one that gives out sequence numbers.
//!
//! What waits is gathered into a group and written with one vectored write; then the index learns of it and
//! the waiting are answered, or handed to the syncer. Either a whole group is in the log or nothing of it.
//! The queue's bound is its producers': payloads are paid for out of a memory budget, deletes come in
//! batches of limited length.

use super::syncer::SealJob;
use super::{SEGMENT_RECORDS_MAX, Shared};
use crate::error::StoreError;
use crate::index::{Applied, Health, Location, Slot};
use crate::ranges::Ranges;
use crate::record::{HEADER_BYTES_MAX, Header, Kind};
use crate::segment::{SEGMENT_HEADER_BYTES, Segment, SegmentId};
use crate::sidecar::Entry;
use bytes::Bytes;
use dfs_proto::{BlobId, BlobKey, BlobOrigin, Md5, Seq, VolumeId};
use std::collections::{HashMap, HashSet};
use std::io::{self, IoSlice, Seek, SeekFrom, Write};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::oneshot;

/// Requests in one group.
const GROUP_REQUESTS_MAX: usize = 256;
/// Payload bytes that end the gathering of a group.
const GROUP_BYTES_MAX: usize = 8 << 20;
/// Records in one vectored write: two slices each stay below IOV_MAX (1024).
const WRITE_RECORDS_MAX: usize = 400;

/// A blob's bytes with what belongs to them; the checksums have been verified.
#[derive(Clone, Debug)]
pub struct Payload {
    /// The bytes; not empty.
    pub data: Bytes,
    /// Their MD5.
    pub md5: Md5,
    /// Their CRC32C by chunk.
    pub crc32c: Vec<u32>,
    /// The file they were written for.
    pub origin: BlobOrigin,
    /// When the primary accepted them, ms since 1970; 0 for now.
    pub written_ms: u64,
}

/// What to append.
#[derive(Clone, Debug)]
pub enum Append {
    /// A new blob, under the next number of its volume.
    Put {
        /// Its name.
        id: BlobId,
        /// Its bytes.
        payload: Payload,
    },
    /// A blob from another node, under the number it has there.
    Copy {
        /// Its name.
        id: BlobId,
        /// Its number.
        seq: Seq,
        /// Its bytes.
        payload: Payload,
        /// Whether it takes the place of one that is damaged here.
        replacement: bool,
    },
    /// A blob whose bytes the other node did not have either.
    Missing {
        /// Its name.
        id: BlobId,
        /// Its number.
        seq: Seq,
    },
    /// Numbers that the other node knows nothing of.
    Hole {
        /// The volume.
        volume: VolumeId,
        /// The first.
        first: Seq,
        /// The last.
        last: Seq,
    },
    /// Deletes a blob for good.
    Tombstone {
        /// Its name.
        id: BlobId,
    },
    /// Repeats which keys of a volume are deleted, as [`Kind::Grave`].
    Grave {
        /// The volume.
        volume: VolumeId,
        /// The ranges.
        ranges: Vec<(u64, u64)>,
    },
    /// Gives up the copy of a volume.
    Drop {
        /// The volume.
        volume: VolumeId,
    },
}

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Appended under this number.
    Stored(Seq),
    /// The same was there already.
    Existing(Seq),
    /// The blob is deleted; its bytes were there.
    Deleted(Location),
    /// The blob was not there, or deleted before.
    Absent,
}

pub(super) type Reply = oneshot::Sender<Result<Vec<Result<Outcome, StoreError>>, StoreError>>;

/// One caller's records.
pub(super) struct Request {
    pub records: Vec<Append>,
    pub sync: bool,
    pub reply: Reply,
}

impl Append {
    fn id(&self) -> BlobId {
        match self {
            Append::Put { id, .. }
            | Append::Copy { id, .. }
            | Append::Missing { id, .. }
            | Append::Tombstone { id } => *id,
            Append::Hole { volume, first, .. } => BlobId { volume: *volume, key: BlobKey(first.0) },
            Append::Grave { volume, .. } | Append::Drop { volume } => {
                BlobId { volume: *volume, key: BlobKey(0) }
            }
        }
    }

    fn payload_bytes(&self) -> usize {
        match self {
            Append::Put { payload, .. } | Append::Copy { payload, .. } => payload.data.len(),
            Append::Grave { ranges, .. } => ranges.len() * 16,
            Append::Missing { .. } | Append::Hole { .. } | Append::Tombstone { .. } | Append::Drop { .. } => {
                0
            }
        }
    }
}

/// What to do with one record.
enum Decision {
    Answer(Result<Outcome, StoreError>),
    Write(Header, Bytes),
}

/// A record that is to be written.
struct Planned {
    entry: Entry,
    /// Its header's place in [`Plan::headers`]; the padding of the record before stands in front.
    headers_end: usize,
    payload: Bytes,
    grave: Vec<(u64, u64)>,
    request: usize,
    record: usize,
}

/// Records that one vectored write will carry.
#[derive(Default)]
struct Plan {
    headers: Vec<u8>,
    records: Vec<Planned>,
    bytes: u64,
    payload_bytes: u64,
    ids: HashSet<BlobId>,
    seqs: HashSet<(VolumeId, Seq)>,
    reach: HashMap<VolumeId, Seq>,
}

type Outcomes = Vec<Vec<Result<Outcome, StoreError>>>;

/// The thread's state: the end of the log.
pub(super) struct Writer {
    shared: Arc<Shared>,
    active: Arc<Segment>,
    tail: u64,
    entries: Vec<Entry>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, active: Arc<Segment>, tail: u64, entries: Vec<Entry>) -> Writer {
        Writer { shared, active, tail, entries }
    }

    /// Runs until the last sender is gone; then seals the active segment and lets the syncer end.
    pub(super) fn run(mut self, requests: Receiver<Request>) {
        while let Ok(first) = requests.recv() {
            let mut bytes = request_bytes(&first);
            let mut group = vec![first];
            while bytes < GROUP_BYTES_MAX && group.len() < GROUP_REQUESTS_MAX {
                let Ok(next) = requests.try_recv() else { break };
                bytes += request_bytes(&next);
                group.push(next);
            }
            self.carry_out(group);
        }
        let entries = std::mem::take(&mut self.entries);
        if self.shared.check().is_ok() {
            self.shared.sync.seal(SealJob { segment: self.active.clone(), covers: self.tail, entries });
        }
        self.shared.sync.stop();
    }

    fn carry_out(&mut self, mut group: Vec<Request>) {
        let mut outcomes: Outcomes = group.iter().map(|r| Vec::with_capacity(r.records.len())).collect();
        let mut plan = Plan::default();
        for (i, request) in group.iter_mut().enumerate() {
            for record in std::mem::take(&mut request.records) {
                self.add(record, i, &mut plan, &mut outcomes);
            }
        }
        self.flush(&mut plan, &mut outcomes);
        for (request, outcomes) in group.into_iter().zip(outcomes) {
            self.answer(request, outcomes);
        }
    }

    fn answer(&self, request: Request, outcomes: Vec<Result<Outcome, StoreError>>) {
        let Request { sync, reply, .. } = request;
        // A caller that gave up leaves nobody to answer; what was appended stays and is found again.
        if !sync || outcomes.iter().all(Result::is_err) {
            let _ = reply.send(Ok(outcomes));
            return;
        }
        self.shared.sync.wait(Box::new(move |synced| {
            let _ = reply.send(synced.map(|()| outcomes));
        }));
    }

    /// Takes `record` into the plan, which is written first when it has to be.
    fn add(&mut self, record: Append, request: usize, plan: &mut Plan, outcomes: &mut Outcomes) {
        let length = crate::record::record_bytes(record.payload_bytes()) as u64;
        let full = self.tail + plan.bytes + length > self.shared.segment_bytes_max
            || self.entries.len() + plan.records.len() >= SEGMENT_RECORDS_MAX;
        // Nothing of a volume may be decided on together with the end of what was there before.
        let ends_volume = matches!(record, Append::Drop { .. });
        if full || ends_volume || plan.touches(&record) || plan.records.len() >= WRITE_RECORDS_MAX {
            self.flush(plan, outcomes);
        }
        let has_room = !full || self.tail <= SEGMENT_HEADER_BYTES;
        let decision = match if has_room { Ok(()) } else { self.roll() } {
            Err(e) => Decision::Answer(Err(e)),
            Ok(()) => self.decide(&record, plan),
        };
        match decision {
            Decision::Answer(outcome) => outcomes[request].push(outcome),
            Decision::Write(header, payload) => {
                let outcome = Ok(Outcome::Stored(header.seq));
                let grave = match record {
                    Append::Grave { ranges, .. } => ranges,
                    _ => Vec::new(),
                };
                let place = (request, outcomes[request].len());
                plan.push(header, payload, grave, place, &self.active, self.tail);
                outcomes[request].push(outcome);
            }
        }
        if ends_volume {
            self.flush(plan, outcomes);
        }
    }

    /// What to do with `record`, given the index and what the plan already holds.
    fn decide(&self, record: &Append, plan: &Plan) -> Decision {
        if let Err(e) = self.shared.check() {
            return Decision::Answer(Err(e));
        }
        let id = record.id();
        let index = self.shared.index.read();
        let volume = index.volume(id.volume);
        let planned = plan.reach.get(&id.volume).copied().unwrap_or_default();
        let reach = volume.map_or(Seq(0), |v| v.reach()).max(planned);
        let buried = volume.is_some_and(|v| v.is_buried(id.key));
        let slot = volume.and_then(|v| v.find(id.key)).copied();
        let taken = |seq: Seq| volume.and_then(|v| v.at(seq)).is_some_and(|other| other.key != id.key);
        let now = now_ms();
        match record {
            Append::Put { payload, .. } => match slot {
                _ if buried => Decision::Answer(Err(StoreError::Deleted(id))),
                Some(slot) => {
                    drop(index);
                    Decision::Answer(self.compare(id, slot, payload.md5))
                }
                None => blob(id, Seq(reach.0 + 1), payload, false, now),
            },
            Append::Copy { seq, .. } | Append::Missing { seq, .. } if seq.0 > reach.0 + 1 => {
                Decision::Answer(Err(StoreError::Gap { volume: id.volume, reach, seq: *seq }))
            }
            Append::Copy { seq, .. } | Append::Missing { seq, .. }
                if taken(*seq) || slot.is_some_and(|slot| slot.seq != *seq) =>
            {
                Decision::Answer(Err(StoreError::Conflict(id)))
            }
            Append::Copy { seq, .. } | Append::Missing { seq, .. } if buried => {
                if *seq <= reach {
                    return Decision::Answer(Ok(Outcome::Absent));
                }
                // The number has to be accounted for, the blob stays dead.
                Decision::Write(Header::bare(Kind::Tombstone, id, *seq, now), Bytes::new())
            }
            Append::Copy { seq, payload, replacement, .. } => match slot {
                Some(slot) if slot.health == Health::Good && !replacement => {
                    Decision::Answer(Ok(Outcome::Existing(slot.seq)))
                }
                slot => blob(id, *seq, payload, *replacement || slot.is_some(), now),
            },
            Append::Missing { seq, .. } => match slot {
                Some(slot) if slot.health != Health::Quarantined => {
                    Decision::Answer(Ok(Outcome::Existing(slot.seq)))
                }
                _ => Decision::Write(Header::bare(Kind::Missing, id, *seq, now), Bytes::new()),
            },
            Append::Hole { first, .. } if first.0 > reach.0 + 1 => {
                Decision::Answer(Err(StoreError::Gap { volume: id.volume, reach, seq: *first }))
            }
            Append::Hole { last, .. } if *last <= reach => Decision::Answer(Ok(Outcome::Existing(*last))),
            Append::Hole { last, .. } => {
                Decision::Write(Header::bare(Kind::Hole, id, *last, now), Bytes::new())
            }
            Append::Tombstone { .. } => {
                if volume.is_none() || buried {
                    return Decision::Answer(Ok(Outcome::Absent));
                }
                let seq = slot.map_or(Seq(0), |slot| slot.seq);
                Decision::Write(Header::bare(Kind::Tombstone, id, seq, now), Bytes::new())
            }
            Append::Grave { ranges, .. } => grave(id, reach, ranges, now),
            Append::Drop { .. } if volume.is_none() => Decision::Answer(Ok(Outcome::Absent)),
            Append::Drop { .. } => Decision::Write(Header::bare(Kind::Drop, id, Seq(0), now), Bytes::new()),
        }
    }

    /// The answer to a PUT of a key that is there: fine if it is the same blob.
    fn compare(&self, id: BlobId, slot: Slot, md5: Md5) -> Result<Outcome, StoreError> {
        let stored = self.shared.stored_header(id, &slot)?;
        if stored.md5 == md5 { Ok(Outcome::Existing(slot.seq)) } else { Err(StoreError::Conflict(id)) }
    }

    /// Writes the plan and empties it.
    fn flush(&mut self, plan: &mut Plan, outcomes: &mut Outcomes) {
        let plan = std::mem::take(plan);
        if plan.records.is_empty() {
            return;
        }
        match self.write(&plan) {
            Ok(()) => self.publish(plan, outcomes),
            Err(e) => {
                for planned in &plan.records {
                    outcomes[planned.request][planned.record] = Err(e.clone());
                }
            }
        }
    }

    fn write(&mut self, plan: &Plan) -> Result<(), StoreError> {
        if plan.payload_bytes > 0 {
            self.shared.space.refresh(&self.active.file);
            self.shared.space.check(plan.payload_bytes)?;
        }
        let mut slices = Vec::with_capacity(2 * plan.records.len() + 1);
        let mut start = 0;
        for planned in &plan.records {
            slices.push(IoSlice::new(&plan.headers[start..planned.headers_end]));
            start = planned.headers_end;
            if !planned.payload.is_empty() {
                slices.push(IoSlice::new(&planned.payload));
            }
        }
        slices.push(IoSlice::new(&plan.headers[start..]));
        #[cfg(test)]
        self.write_part(&slices)?;
        let written = write_all_at(&self.active, self.tail, &mut slices);
        self.shared.metrics.writes.add(1);
        written.map_err(|e| self.undo(e))
    }

    /// Does what a disk does that is full after some bytes.
    #[cfg(test)]
    fn write_part(&self, slices: &[IoSlice<'_>]) -> Result<(), StoreError> {
        let Some(room) = self.shared.full_after.lock().take() else { return Ok(()) };
        let mut bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        bytes.truncate(room);
        write_all_at(&self.active, self.tail, &mut [IoSlice::new(&bytes)]).unwrap();
        Err(self.undo(io::ErrorKind::StorageFull.into()))
    }

    /// Cuts off what a failed write left behind.
    fn undo(&self, e: io::Error) -> StoreError {
        if let Err(cut) = self.active.file.set_len(self.tail) {
            self.shared.fail(format!(
                "an append to {} failed ({e}) and could not be undone ({cut})",
                self.active.path.display()
            ));
        }
        self.shared.space.refresh(&self.active.file);
        StoreError::io("append to", &self.active.path, e)
    }

    /// Makes what was written known.
    fn publish(&mut self, plan: Plan, outcomes: &mut Outcomes) {
        self.tail += plan.bytes;
        self.shared.metrics.appends.add(plan.records.len() as u64);
        self.shared.metrics.appended_bytes.add(plan.bytes);
        // Dirty before visible: whoever sees a record and asks for a sync gets it synced.
        self.shared.sync.written(&self.active);
        let mut index = self.shared.index.write();
        for planned in plan.records {
            let applied = index.apply(self.active.id, &planned.entry, &planned.grave);
            self.entries.push(planned.entry);
            let outcome = &mut outcomes[planned.request][planned.record];
            match (planned.entry.kind, applied) {
                (_, Applied::Clash(slot)) => {
                    log::error!("record {:?} contradicts {slot:?}, which stays", planned.entry);
                    *outcome = Err(StoreError::Conflict(planned.entry.id));
                }
                (Kind::Tombstone, Applied::Instead(at)) => *outcome = Ok(Outcome::Deleted(at)),
                (Kind::Tombstone, _) => *outcome = Ok(Outcome::Absent),
                _ => {}
            }
        }
    }

    /// Begins a new segment.
    fn roll(&mut self) -> Result<(), StoreError> {
        self.shared.check()?;
        let segment = Arc::new(Segment::create(&self.shared.dir, SegmentId(self.active.id.0 + 1))?);
        self.shared.segments.write().insert(segment.id, segment.clone());
        self.shared.index.write().add_segment(segment.id);
        let full = std::mem::replace(&mut self.active, segment);
        let entries = std::mem::take(&mut self.entries);
        self.shared.sync.seal(SealJob { segment: full, covers: self.tail, entries });
        self.tail = SEGMENT_HEADER_BYTES;
        Ok(())
    }
}

impl Plan {
    /// Whether it holds something that has to be in the index before `record` can be decided on.
    fn touches(&self, record: &Append) -> bool {
        let id = record.id();
        let seq = match record {
            Append::Copy { seq, .. } | Append::Missing { seq, .. } => Some(*seq),
            Append::Put { .. }
            | Append::Hole { .. }
            | Append::Tombstone { .. }
            | Append::Grave { .. }
            | Append::Drop { .. } => None,
        };
        self.ids.contains(&id) || seq.is_some_and(|seq| self.seqs.contains(&(id.volume, seq)))
    }

    fn push(
        &mut self,
        mut header: Header,
        payload: Bytes,
        grave: Vec<(u64, u64)>,
        (request, record): (usize, usize),
        segment: &Segment,
        tail: u64,
    ) {
        let offset = tail + self.bytes;
        header.stamp = segment.stamp(offset);
        self.headers.reserve(HEADER_BYTES_MAX);
        header.encode(&mut self.headers);
        let headers_end = self.headers.len();
        // The padding is the start of the next slice of headers.
        self.headers.resize(headers_end + header.padding_bytes(), 0);
        self.bytes += header.record_bytes() as u64;
        if header.kind == Kind::Blob {
            self.payload_bytes += header.record_bytes() as u64;
        }
        self.ids.insert(header.id());
        self.seqs.insert((header.volume, header.seq));
        let reach = self.reach.entry(header.volume).or_default();
        *reach = (*reach).max(header.seq);
        // Segments end below 1 GiB, so an offset fits.
        let entry = Entry::of(&header, u32::try_from(offset).unwrap_or(u32::MAX));
        self.records.push(Planned { entry, headers_end, payload, grave, request, record });
    }
}

fn request_bytes(request: &Request) -> usize {
    request.records.iter().map(Append::payload_bytes).sum()
}

fn blob(id: BlobId, seq: Seq, payload: &Payload, replacement: bool, now: u64) -> Decision {
    let Ok(payload_bytes) = u32::try_from(payload.data.len()) else {
        return Decision::Answer(Err(StoreError::NoSpace("the payload is too large for a record".into())));
    };
    let header = Header {
        payload_bytes,
        replacement,
        origin: payload.origin,
        md5: payload.md5,
        crc32c: payload.crc32c.clone(),
        ..Header::bare(Kind::Blob, id, seq, if payload.written_ms == 0 { now } else { payload.written_ms })
    };
    Decision::Write(header, payload.data.clone())
}

fn grave(id: BlobId, reach: Seq, ranges: &[(u64, u64)], now: u64) -> Decision {
    if ranges.is_empty() {
        let hole = Header::bare(Kind::Hole, id, reach, now);
        return Decision::Write(hole, Bytes::new());
    }
    let bytes: Vec<u8> =
        ranges.iter().flat_map(|(first, last)| [first.to_le_bytes(), last.to_le_bytes()].concat()).collect();
    let header = Header {
        payload_bytes: bytes.len() as u32,
        md5: dfs_client::checksum::md5(&bytes),
        crc32c: dfs_client::checksum::crc32c_chunks(&bytes),
        ..Header::bare(Kind::Grave, id, reach, now)
    };
    Decision::Write(header, bytes.into())
}

/// The ranges that [`Kind::Grave`] carries.
pub(crate) fn grave_ranges(payload: &[u8]) -> Vec<(u64, u64)> {
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
    payload.chunks_exact(16).map(|pair| (number(&pair[..8]), number(&pair[8..]))).collect()
}

/// Cuts ranges into pieces that fit into one record each.
pub(super) fn grave_pieces(ranges: &Ranges) -> Vec<Vec<(u64, u64)>> {
    let all: Vec<(u64, u64)> = ranges.runs().collect();
    if all.is_empty() {
        return vec![Vec::new()];
    }
    all.chunks(dfs_proto::limits::BLOB_BYTES_MAX / 16).map(<[_]>::to_vec).collect()
}

fn write_all_at(segment: &Segment, at: u64, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    let mut file = &segment.file;
    file.seek(SeekFrom::Start(at))?;
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => IoSlice::advance_slices(&mut slices, written),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
