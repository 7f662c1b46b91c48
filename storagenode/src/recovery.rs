//! Recovery: what the segments of a directory hold, after whatever happened to them.
//!
//! What a sidecar covers is taken from it; the rest is read, headers and payloads verified. At a place
//! without a good header the search goes on for the next record. With one further on, the bytes between are
//! damage: they stay, and are reported. Without, they are a torn tail: cut off from the last segment, so
//! that appends can go on there. A good header over a bad payload is a quarantined blob. `docs/STORAGE.md`
//! has the rules as a table.

use crate::error::StoreError;
use crate::index::{Applied, Index, Location};
use crate::ranges::Ranges;
use crate::record::{ALIGN, HEADER_BYTES_MAX, Header, Kind, MAGIC, header_bytes};
use crate::segment::{SEGMENT_HEADER_BYTES, Segment, SegmentId, id_of_name, segment_path, sidecar_path};
use crate::sidecar::{Entry, Sidecar};
use crate::store::SEGMENT_RECORDS_MAX;
use dfs_proto::{BlobId, Seq, VolumeId};
use dfs_service::durable::replace_file;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// How much is read at a time.
const WINDOW_BYTES: usize = 1 << 20;

/// When the disk refuses a read, it is tried again in pieces of this size.
const SECTOR_BYTES: usize = 4096;

/// A store as it was found.
#[derive(Debug)]
pub struct Recovered {
    /// Where everything is.
    pub index: Index,
    /// Every segment.
    pub segments: BTreeMap<SegmentId, Arc<Segment>>,
    /// The segment that appends go to.
    pub active: Arc<Segment>,
    /// Where in it.
    pub tail: u64,
    /// What it holds.
    pub entries: Vec<Entry>,
    /// Number of places that could not be read, and of numbers that are missing from logs.
    pub damage: u64,
    /// Blobs that were found damaged just now.
    pub set_aside: Vec<(BlobId, Seq)>,
}

/// What was found in one segment.
struct Found {
    segment: Segment,
    entries: Vec<Entry>,
    /// End of the last good record.
    tail: u64,
    /// Whether more records may follow on `tail`.
    appendable: bool,
    /// Whether a sidecar covers all of it.
    covered: bool,
}

#[derive(Default)]
struct Recovery {
    index: Index,
    /// Per volume, numbers that need no living blob: deleted, or known to be lost.
    explained: HashMap<VolumeId, Ranges>,
    bad: Vec<(BlobId, Location)>,
    damage: u64,
    set_aside: Vec<(BlobId, Seq)>,
}

/// Recovers the store in `dir`.
pub fn recover(dir: &Path, segment_bytes_max: u64) -> Result<Recovered, StoreError> {
    let ids = list(dir)?;
    let mut recovery = Recovery::default();
    let mut segments = BTreeMap::new();
    let mut last = None;
    let last_id = ids.last().copied();
    for id in ids {
        let Some(found) = recovery.segment(dir, id)? else { continue };
        recovery.index.add_segment(id);
        if Some(id) != last_id && !found.covered {
            report_tail(&found)?;
        }
        if Some(id) == last_id && found.appendable {
            last = Some(found);
        } else {
            if !found.covered {
                seal(dir, &found);
            }
            segments.insert(id, Arc::new(found.segment));
        }
    }
    recovery.finish();
    let (active, tail, entries) = match last {
        Some(found) if found.tail < segment_bytes_max && found.entries.len() < SEGMENT_RECORDS_MAX => {
            cut_tail(&found)?;
            (Arc::new(found.segment), found.tail, found.entries)
        }
        full => {
            if let Some(found) = full {
                seal(dir, &found);
                segments.insert(found.segment.id, Arc::new(found.segment));
            }
            let next = SegmentId(last_id.map_or(1, |id| id.0 + 1));
            (Arc::new(Segment::create(dir, next)?), SEGMENT_HEADER_BYTES, Vec::new())
        }
    };
    segments.insert(active.id, active.clone());
    let Recovery { mut index, damage, set_aside, .. } = recovery;
    index.add_segment(active.id);
    Ok(Recovered { index, segments, active, tail, entries, damage, set_aside })
}

/// The segments in `dir`, in order. Sidecars without a segment, and files that were never finished, go.
fn list(dir: &Path) -> Result<BTreeSet<SegmentId>, StoreError> {
    let fail = |e| StoreError::io("list", dir, e);
    let (mut ids, mut sidecars) = (BTreeSet::new(), Vec::new());
    for entry in std::fs::read_dir(dir).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if let Some(id) = id_of_name(&path, "seg") {
            ids.insert(id);
        } else if let Some(id) = id_of_name(&path, "idx") {
            sidecars.push((id, path));
        } else if path.extension().is_some_and(|e| e == "new") {
            // The rest of a sidecar whose writing was cut short.
            std::fs::remove_file(&path).map_err(fail)?;
        }
    }
    for (id, path) in sidecars {
        if !ids.contains(&id) {
            std::fs::remove_file(&path).map_err(fail)?;
        }
    }
    Ok(ids)
}

impl Recovery {
    /// Takes in one segment; `None` when it was never finished and is gone now.
    fn segment(&mut self, dir: &Path, id: SegmentId) -> Result<Option<Found>, StoreError> {
        let (mut segment, header_ok) = Segment::open(dir, id)?;
        let length = segment.length()?;
        if !header_ok && length <= SEGMENT_HEADER_BYTES {
            log::warn!("{} was never finished; removed", segment.path.display());
            let path = segment_path(dir, id);
            std::fs::remove_file(&path).map_err(|e| StoreError::io("remove", &path, e))?;
            return Ok(None);
        }
        let path = sidecar_path(dir, id);
        let sidecar = Sidecar::load(&path).map_err(|e| StoreError::io("read", &path, e))?;
        let sidecar = sidecar.filter(|s| s.segment == id && (!header_ok || s.salt == segment.salt));
        if !header_ok {
            log::error!(
                "the header of {} is damaged; its records are read all the same",
                segment.path.display()
            );
            self.damage += 1;
            segment.salt = match &sidecar {
                Some(sidecar) => sidecar.salt,
                None => Window::new(&segment, length).find_salt().unwrap_or(0),
            };
        }
        let mut entries = Vec::new();
        let mut from = SEGMENT_HEADER_BYTES;
        if let Some(sidecar) = sidecar {
            from = sidecar.covers.max(from);
            entries = sidecar.entries;
            self.covered(&segment, length, &entries);
        }
        let cut_short = from > length;
        let covered = from == length;
        let tail = if cut_short { length } else { self.scan(&segment, from, length, &mut entries) };
        Ok(Some(Found { segment, entries, tail, appendable: header_ok && !cut_short, covered }))
    }

    /// Takes in what a sidecar says.
    fn covered(&mut self, segment: &Segment, length: u64, entries: &[Entry]) {
        for entry in entries {
            let whole = entry.end() <= length;
            let grave = if entry.kind == Kind::Grave { read_grave(segment, entry) } else { Some(Vec::new()) };
            if !whole || grave.is_none() {
                self.damage += 1;
                log::error!("{} does not hold {:?} any more", segment.path.display(), entry);
            }
            self.apply(segment.id, entry, &grave.unwrap_or_default(), whole);
        }
    }

    fn apply(&mut self, segment: SegmentId, entry: &Entry, grave: &[(u64, u64)], whole: bool) {
        let at = Location { segment, offset: entry.offset, payload_bytes: entry.payload_bytes };
        let applied = self.index.apply(segment, entry, grave);
        if entry.kind == Kind::Drop {
            self.explained.remove(&entry.id.volume);
            self.bad.retain(|(id, _)| id.volume != entry.id.volume);
            return;
        }
        let explained = self.explained.entry(entry.id.volume).or_default();
        match (entry.kind, applied) {
            (_, Applied::Clash(slot)) => {
                self.damage += 1;
                log::error!("segment {segment}: {entry:?} contradicts {slot:?}, which stays");
            }
            (Kind::Hole, _) => explained.insert(entry.id.key.0, entry.seq.0),
            (Kind::Grave, _) => explained.insert(1, entry.seq.0),
            (Kind::Tombstone, _) | (_, Applied::Buried) => explained.insert(entry.seq.0, entry.seq.0),
            _ => {}
        }
        if !whole && entry.kind == Kind::Blob {
            self.bad.push((entry.id, at));
        }
    }

    /// Reads `segment` from `from` on and takes in what is there; answers the end of the last good record.
    fn scan(&mut self, segment: &Segment, from: u64, length: u64, entries: &mut Vec<Entry>) -> u64 {
        let mut window = Window::new(segment, length);
        let mut at = from;
        while at < length {
            let Some((header, whole)) = window.record(at) else {
                let Some(next) = window.next_record(at + ALIGN) else { break };
                self.damage += 1;
                let path = segment.path.display();
                log::error!("{path}: bytes {at} to {next} are damaged; they are left where they are");
                at = next;
                continue;
            };
            let entry = Entry::of(&header, u32::try_from(at).unwrap_or(u32::MAX));
            let grave = match entry.kind {
                Kind::Grave if whole => read_grave(segment, &entry).unwrap_or_default(),
                _ => Vec::new(),
            };
            self.apply(segment.id, &entry, &grave, whole);
            entries.push(entry);
            at += header.record_bytes() as u64;
        }
        at
    }

    /// What can only be said when all segments have been seen.
    fn finish(&mut self) {
        for (id, at) in std::mem::take(&mut self.bad) {
            // Deleted and replaced ones are not found there any more, and need no report.
            if self.index.quarantine(id, at) {
                self.damage += 1;
                self.set_aside.extend(self.index.find(id).map(|slot| (id, slot.seq)));
                log::error!("blob {id} is damaged and set aside");
            }
        }
        for status in self.index.statuses() {
            let explained = self.explained.remove(&status.volume).unwrap_or_default();
            for (first, last) in self.index.unexplained(status.volume, &explained).runs() {
                self.damage += 1;
                log::error!("volume {}: records {first} to {last} are lost here", status.volume);
            }
        }
    }
}

/// A segment that another one followed on can end in what a power failure kept off the disk.
fn report_tail(found: &Found) -> Result<(), StoreError> {
    let length = found.segment.length()?;
    if length > found.tail {
        let path = found.segment.path.display();
        log::warn!("{path}: no record after byte {} of {length}; they are left where they are", found.tail);
    }
    Ok(())
}

/// Cuts a torn tail off, so that the next record follows on the last good one.
fn cut_tail(found: &Found) -> Result<(), StoreError> {
    let segment = &found.segment;
    let length = segment.length()?;
    if length == found.tail {
        return Ok(());
    }
    if length > found.tail {
        log::warn!("{}: cut off a torn tail of {} bytes", segment.path.display(), length - found.tail);
    }
    segment.file.set_len(found.tail).map_err(|e| StoreError::io("cut the tail off", &segment.path, e))?;
    segment.sync()
}

/// Writes the sidecar of a segment that was found without one. It is not needed, only faster.
fn seal(dir: &Path, found: &Found) {
    let segment = &found.segment;
    let path = sidecar_path(dir, segment.id);
    let written = segment.length().and_then(|length| {
        segment.sync()?;
        let bytes = Sidecar::encode(segment.id, segment.salt, length, &found.entries);
        replace_file(&path, &bytes).map_err(|e| StoreError::io("write", &path, e))
    });
    if let Err(e) = written {
        log::warn!("{e}; the segment will be read again at the next start");
    }
}

fn read_grave(segment: &Segment, entry: &Entry) -> Option<Vec<(u64, u64)>> {
    let length = entry.payload_bytes as usize;
    let mut bytes = vec![0; header_bytes(length) + length];
    segment.read(&mut bytes, entry.offset.into()).ok()?;
    let header = Header::parse(&bytes).ok()?;
    let payload = &bytes[header_bytes(length)..];
    header.verify_chunks(0, payload).ok()?;
    Some(crate::store::grave_ranges(payload))
}

/// A moving view of a segment.
struct Window<'a> {
    segment: &'a Segment,
    length: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    fn new(segment: &'a Segment, length: u64) -> Window<'a> {
        Window { segment, length, start: 0, bytes: Vec::new() }
    }

    /// At most `want` bytes from `at` on; fewer only at the end.
    fn get(&mut self, at: u64, want: usize) -> &[u8] {
        let want = want.min(usize::try_from(self.length.saturating_sub(at)).unwrap_or(usize::MAX));
        let inside = at >= self.start && at + want as u64 <= self.start + self.bytes.len() as u64;
        if !inside {
            self.fill(at, want.max(WINDOW_BYTES));
        }
        let from = (at - self.start) as usize;
        &self.bytes[from..(from + want).min(self.bytes.len())]
    }

    fn fill(&mut self, at: u64, want: usize) {
        let want = want.min(usize::try_from(self.length - at).unwrap_or(usize::MAX));
        self.start = at;
        self.bytes.clear();
        self.bytes.resize(want, 0);
        if self.segment.file.read_exact_at(&mut self.bytes, at).is_ok() {
            return;
        }
        // Sectors that cannot be read stay zeros, which no record survives.
        for (i, sector) in self.bytes.chunks_mut(SECTOR_BYTES).enumerate() {
            let offset = at + (i * SECTOR_BYTES) as u64;
            if let Err(e) = self.segment.file.read_exact_at(sector, offset) {
                log::error!("{} cannot be read at {offset}: {e}", self.segment.path.display());
                sector.fill(0);
            }
        }
    }

    /// The header of the record at `at`, if it belongs there.
    fn header(&mut self, at: u64) -> Option<Header> {
        let header = Header::parse(self.get(at, HEADER_BYTES_MAX)).ok()?;
        (header.stamp == self.segment.stamp(at)).then_some(header)
    }

    /// The record at `at`, and whether its payload is good; `None` without a good header, or when the file
    /// ends before the payload does.
    fn record(&mut self, at: u64) -> Option<(Header, bool)> {
        let header = self.header(at)?;
        let length = header.payload_bytes as usize;
        let payload = self.get(at + header.encoded_bytes() as u64, length);
        if payload.len() < length {
            return None;
        }
        let whole = header.verify_chunks(0, payload).is_ok();
        Some((header, whole))
    }

    /// The first place from `at` on where a good header of this segment stands.
    fn next_record(&mut self, at: u64) -> Option<u64> {
        self.find(at, |window, at| window.header(at).is_some())
    }

    /// The salt, concluded from the first good header.
    fn find_salt(&mut self) -> Option<u64> {
        let parse = |window: &mut Window<'_>, at| Header::parse(window.get(at, HEADER_BYTES_MAX)).ok();
        let at = self.find(SEGMENT_HEADER_BYTES, |window, at| parse(window, at).is_some())?;
        parse(self, at).map(|header| header.stamp ^ at)
    }

    fn find(&mut self, mut at: u64, mut fits: impl FnMut(&mut Self, u64) -> bool) -> Option<u64> {
        while at < self.length {
            let piece = self.get(at, WINDOW_BYTES);
            let step = piece.len() as u64;
            let candidates: Vec<u64> = piece
                .chunks_exact(ALIGN as usize)
                .enumerate()
                .filter(|(_, word)| *word == MAGIC)
                .map(|(i, _)| at + i as u64 * ALIGN)
                .collect();
            if let Some(found) = candidates.into_iter().find(|at| fits(self, *at)) {
                return Some(found);
            }
            at += step;
        }
        None
    }
}
