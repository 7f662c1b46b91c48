//! The index: where each blob of each volume is. Lives in memory and is rebuilt at the start.
//!
//! Invariants: a volume's log is sorted by sequence number, one slot for each; a key that was buried never
//! comes back; the same function applies a record when it is written and when it is found at the start, and
//! later records win. Knows nothing of files. A blob costs 32 bytes in the log and 16 in the key table
//! (before the tables' spare room).

use crate::ranges::Ranges;
use crate::record::Kind;
use crate::segment::SegmentId;
use crate::sidecar::Entry;
use dfs_proto::blob::CopyStatus;
use dfs_proto::{BlobId, BlobKey, Seq, VolumeId};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Dead slots are kept until there are so many, and more of them than of live ones.
const DEAD_SLOTS_KEPT: usize = 1024;

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Location {
    /// In which segment.
    pub segment: SegmentId,
    /// Where it starts.
    pub offset: u32,
    /// Length of its payload.
    pub payload_bytes: u32,
}

/// Whether a blob can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// As far as is known.
    Good,
    /// Its record was found damaged; the location is that of the damaged bytes.
    Quarantined,
    /// Its bytes never came here; the location is that of the record that says so.
    Missing,
    /// Deleted.
    Dead,
}

/// One blob in a volume's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its number.
    pub seq: Seq,
    /// Its key.
    pub key: BlobKey,
    /// Where it is.
    pub at: Location,
    /// Whether it can be served.
    pub health: Health,
}

/// What a record changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is in force.
    Done,
    /// It is in force and took this one's place, or buried it.
    Instead(Location),
    /// An earlier burial stands.
    Buried,
    /// It contradicts what is there: the same key under another number, or another key under its number.
    Clash(Slot),
}

/// One volume.
#[derive(Debug, Default)]
pub struct Volume {
    log: Vec<Slot>,
    dead: usize,
    by_key: HashMap<BlobKey, Seq>,
    buried: Ranges,
    reach: Seq,
    bytes: u64,
    blobs: u64,
}

/// What of a segment is in use.
#[derive(Debug, Default)]
pub struct SegmentUse {
    /// Slots that point into it.
    pub live: u64,
    /// Volumes with records in it.
    pub volumes: HashSet<VolumeId>,
    /// Volumes of which it says that what stands before was given up.
    pub drops: HashSet<VolumeId>,
}

/// All volumes.
#[derive(Debug, Default)]
pub struct Index {
    volumes: BTreeMap<VolumeId, Volume>,
    segments: BTreeMap<SegmentId, SegmentUse>,
    /// Volumes whose status changed since [`Index::take_changed`].
    changed: BTreeSet<VolumeId>,
    /// Blobs whose bytes are not good here.
    bad: BTreeSet<BlobId>,
    /// Those of them that have not been reported.
    unreported: BTreeSet<BlobId>,
}

impl Volume {
    fn position(&self, seq: Seq) -> Result<usize, usize> {
        match self.log.last() {
            Some(last) if last.seq < seq => Err(self.log.len()),
            _ => self.log.binary_search_by_key(&seq, |slot| slot.seq),
        }
    }

    /// The slot of `key`, unless the blob is dead or was never here.
    pub fn find(&self, key: BlobKey) -> Option<&Slot> {
        let seq = *self.by_key.get(&key)?;
        self.position(seq).ok().map(|at| &self.log[at])
    }

    /// The blob with number `seq`, if it lives.
    pub fn at(&self, seq: Seq) -> Option<&Slot> {
        self.position(seq).ok().map(|at| &self.log[at]).filter(|slot| slot.health != Health::Dead)
    }

    /// Blobs above `after` that live, in order.
    pub fn after(&self, after: Seq) -> impl Iterator<Item = &Slot> {
        let start = self.log.partition_point(|slot| slot.seq <= after);
        self.log[start..].iter().filter(|slot| slot.health != Health::Dead)
    }

    /// How far its log reaches.
    pub fn reach(&self) -> Seq {
        self.reach
    }

    /// Whether `key` was deleted.
    pub fn is_buried(&self, key: BlobKey) -> bool {
        self.buried.contains(key.0)
    }

    /// The deleted keys.
    pub fn buried(&self) -> &Ranges {
        &self.buried
    }

    /// Where its living and damaged records are.
    pub fn locations(&self) -> Vec<Location> {
        self.log.iter().filter(|slot| slot.health != Health::Dead).map(|slot| slot.at).collect()
    }

    fn status(&self, volume: VolumeId) -> CopyStatus {
        CopyStatus { volume, seq: self.reach, bytes: self.bytes, blobs: self.blobs }
    }

    fn count(&mut self, slot: &Slot) {
        if matches!(slot.health, Health::Good | Health::Quarantined) {
            self.blobs += 1;
            self.bytes += u64::from(slot.at.payload_bytes);
        }
    }

    fn uncount(&mut self, slot: &Slot) {
        if matches!(slot.health, Health::Good | Health::Quarantined) {
            self.blobs -= 1;
            self.bytes -= u64::from(slot.at.payload_bytes);
        }
    }

    /// Takes a blob out; answers its slot.
    fn kill(&mut self, key: BlobKey) -> Option<Slot> {
        let seq = self.by_key.remove(&key)?;
        let at = self.position(seq).ok()?;
        let slot = self.log[at];
        self.uncount(&slot);
        self.log[at].health = Health::Dead;
        self.dead += 1;
        if self.dead > DEAD_SLOTS_KEPT && self.dead > self.log.len() / 2 {
            self.log.retain(|slot| slot.health != Health::Dead);
            self.dead = 0;
        }
        Some(slot)
    }

    /// Puts a slot in, or in the place of the one with its number, which it answers.
    fn put(&mut self, slot: Slot) -> Option<Slot> {
        self.by_key.insert(slot.key, slot.seq);
        self.count(&slot);
        match self.position(slot.seq) {
            Ok(at) => {
                let old = std::mem::replace(&mut self.log[at], slot);
                if old.health == Health::Dead {
                    self.dead -= 1;
                    return None;
                }
                self.uncount(&old);
                Some(old)
            }
            Err(at) => {
                self.log.insert(at, slot);
                None
            }
        }
    }
}

impl Index {
    /// Takes note of a segment, which may be empty.
    pub fn add_segment(&mut self, segment: SegmentId) {
        self.segments.entry(segment).or_default();
    }

    /// Takes note of a record in `segment`. `grave` are the ranges of a [`Kind::Grave`].
    pub fn apply(&mut self, segment: SegmentId, e: &Entry, grave: &[(u64, u64)]) -> Applied {
        let location = Location { segment, offset: e.offset, payload_bytes: e.payload_bytes };
        if e.kind == Kind::Drop {
            self.segments.entry(segment).or_default().drops.insert(e.id.volume);
            self.drop_volume(e.id.volume);
            return Applied::Done;
        }
        self.segments.entry(segment).or_default().volumes.insert(e.id.volume);
        let volume = self.volumes.entry(e.id.volume).or_default();
        let applied = match e.kind {
            Kind::Blob | Kind::Missing => {
                if volume.is_buried(e.id.key) {
                    Applied::Buried
                } else if let Some(clash) = clash(volume, e) {
                    return Applied::Clash(clash);
                } else if e.kind == Kind::Blob {
                    self.put_blob(e, location)
                } else {
                    self.put_missing(e, location)
                }
            }
            Kind::Tombstone => self.bury(e.id),
            Kind::Hole => Applied::Done,
            Kind::Grave => {
                self.bury_ranges(e.id.volume, grave);
                Applied::Done
            }
            Kind::Drop => unreachable!("it was dealt with before"),
        };
        let volume = self.volumes.entry(e.id.volume).or_default();
        volume.reach = volume.reach.max(e.seq);
        self.changed.insert(e.id.volume);
        applied
    }

    fn put_blob(&mut self, e: &Entry, at: Location) -> Applied {
        let slot = Slot { seq: e.seq, key: e.id.key, at, health: Health::Good };
        self.bad.remove(&e.id);
        self.unreported.remove(&e.id);
        self.put_slot(e.id, slot)
    }

    fn put_missing(&mut self, e: &Entry, at: Location) -> Applied {
        self.mark_bad(e.id);
        let volume = self.volumes.entry(e.id.volume).or_default();
        let health = match volume.find(e.id.key).copied() {
            Some(slot) if matches!(slot.health, Health::Good | Health::Quarantined) => {
                // The damaged bytes stay where they are; what is known of the blob is still true.
                if let Ok(at) = volume.position(slot.seq) {
                    volume.log[at].health = Health::Quarantined;
                }
                return Applied::Done;
            }
            _ => Health::Missing,
        };
        self.put_slot(e.id, Slot { seq: e.seq, key: e.id.key, at, health })
    }

    fn put_slot(&mut self, id: BlobId, slot: Slot) -> Applied {
        let old = self.volumes.entry(id.volume).or_default().put(slot);
        self.segments.entry(slot.at.segment).or_default().live += 1;
        match old {
            Some(old) => {
                self.release(old.at.segment);
                Applied::Instead(old.at)
            }
            None => Applied::Done,
        }
    }

    fn bury(&mut self, id: BlobId) -> Applied {
        let volume = self.volumes.entry(id.volume).or_default();
        volume.buried.insert(id.key.0, id.key.0);
        let slot = volume.kill(id.key);
        self.bad.remove(&id);
        self.unreported.remove(&id);
        match slot {
            Some(slot) => {
                self.release(slot.at.segment);
                if slot.health == Health::Missing { Applied::Done } else { Applied::Instead(slot.at) }
            }
            None => Applied::Done,
        }
    }

    fn bury_ranges(&mut self, id: VolumeId, ranges: &[(u64, u64)]) {
        let volume = self.volumes.entry(id).or_default();
        for &(first, last) in ranges {
            volume.buried.insert(first, last);
        }
        let doomed: Vec<BlobKey> =
            volume.by_key.keys().copied().filter(|key| volume.is_buried(*key)).collect();
        for key in doomed {
            self.bury(BlobId { volume: id, key });
        }
    }

    /// Forgets a volume with all that it had.
    fn drop_volume(&mut self, id: VolumeId) {
        let Some(volume) = self.volumes.remove(&id) else { return };
        for slot in volume.log.iter().filter(|slot| slot.health != Health::Dead) {
            self.release(slot.at.segment);
        }
        self.changed.remove(&id);
        self.bad.retain(|blob| blob.volume != id);
        self.unreported.retain(|blob| blob.volume != id);
    }

    fn release(&mut self, segment: SegmentId) {
        if let Some(usage) = self.segments.get_mut(&segment) {
            usage.live = usage.live.saturating_sub(1);
        }
    }

    fn mark_bad(&mut self, id: BlobId) {
        if self.bad.insert(id) {
            self.unreported.insert(id);
        }
    }

    /// Marks the record at `at` as damaged, if the blob still is there.
    pub fn quarantine(&mut self, id: BlobId, at: Location) -> bool {
        let Some(volume) = self.volumes.get_mut(&id.volume) else { return false };
        let Some(slot) = volume.find(id.key).copied() else { return false };
        let Ok(position) = volume.position(slot.seq) else { return false };
        if slot.at != at || slot.health != Health::Good {
            return false;
        }
        volume.log[position].health = Health::Quarantined;
        self.mark_bad(id);
        true
    }

    /// The volume, if a copy is here.
    pub fn volume(&self, id: VolumeId) -> Option<&Volume> {
        self.volumes.get(&id)
    }

    /// The slot of a blob that lives.
    pub fn find(&self, id: BlobId) -> Option<Slot> {
        self.volumes.get(&id.volume)?.find(id.key).copied()
    }

    /// Status of one copy.
    pub fn status(&self, id: VolumeId) -> Option<CopyStatus> {
        self.volumes.get(&id).map(|volume| volume.status(id))
    }

    /// Status of every copy.
    pub fn statuses(&self) -> Vec<CopyStatus> {
        self.volumes.iter().map(|(id, volume)| volume.status(*id)).collect()
    }

    /// Status of the copies that changed since the last call.
    pub fn take_changed(&mut self) -> Vec<CopyStatus> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().filter_map(|id| self.status(id)).collect()
    }

    /// Undoes [`Index::take_changed`] for volumes whose report did not arrive.
    pub fn mark_changed(&mut self, volumes: impl IntoIterator<Item = VolumeId>) {
        self.changed.extend(volumes);
    }

    /// Takes at most `max` damaged blobs that have not been reported.
    pub fn take_unreported(&mut self, max: usize) -> Vec<BlobId> {
        let taken: Vec<BlobId> = self.unreported.iter().copied().take(max).collect();
        taken.iter().for_each(|id| {
            self.unreported.remove(id);
        });
        taken
    }

    /// Undoes [`Index::take_unreported`] for those whose report did not arrive.
    pub fn mark_unreported(&mut self, blobs: impl IntoIterator<Item = BlobId>) {
        let bad = &self.bad;
        self.unreported.extend(blobs.into_iter().filter(|id| bad.contains(id)));
    }

    /// Blobs whose bytes are not good here.
    pub fn bad(&self) -> &BTreeSet<BlobId> {
        &self.bad
    }

    /// Segments below `before` that no slot points into, and that no earlier one needs to be read rightly:
    /// a volume that was given up would come back with what is left of it before the record that says so.
    pub fn dead_segments(&self, before: SegmentId) -> Vec<SegmentId> {
        let has_earlier = |id: SegmentId, volume: &VolumeId| {
            self.segments.range(..id).any(|(_, earlier)| earlier.volumes.contains(volume))
        };
        let is_dead = |(id, usage): &(&SegmentId, &SegmentUse)| {
            usage.live == 0 && !usage.drops.iter().any(|volume| has_earlier(**id, volume))
        };
        self.segments.range(..before).filter(is_dead).map(|(id, _)| *id).collect()
    }

    /// Volumes with records in `segment`.
    pub fn volumes_in(&self, segment: SegmentId) -> Vec<VolumeId> {
        self.segments.get(&segment).map(|usage| usage.volumes.iter().copied().collect()).unwrap_or_default()
    }

    /// Forgets a segment that has been removed.
    pub fn remove_segment(&mut self, segment: SegmentId) {
        self.segments.remove(&segment);
    }

    /// Numbers of `volume` up to its reach that no living blob has and `explained` does not contain.
    pub fn unexplained(&self, volume: VolumeId, explained: &Ranges) -> Ranges {
        let mut known = explained.clone();
        let Some(volume) = self.volumes.get(&volume) else { return Ranges::default() };
        for slot in &volume.log {
            known.insert(slot.seq.0, slot.seq.0);
        }
        let (mut gaps, mut next) = (Ranges::default(), 1);
        for (first, last) in known.runs() {
            if first > next {
                gaps.insert(next, first - 1);
            }
            next = last.saturating_add(1).max(next);
        }
        if next <= volume.reach.0 {
            gaps.insert(next, volume.reach.0);
        }
        gaps
    }
}

/// What stands in the way of `e`, if anything does.
fn clash(volume: &Volume, e: &Entry) -> Option<Slot> {
    let same_key = volume.find(e.id.key).filter(|slot| slot.seq != e.seq);
    same_key.or_else(|| volume.at(e.seq).filter(|slot| slot.key != e.id.key)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const V: VolumeId = VolumeId(1);

    fn entry(kind: Kind, key: u64, seq: u64, offset: u32) -> Entry {
        let id = BlobId { volume: V, key: BlobKey(key) };
        let payload_bytes = if kind == Kind::Blob { 10 } else { 0 };
        Entry { kind, replacement: false, id, seq: Seq(seq), offset, payload_bytes }
    }

    fn blob(key: u64) -> BlobId {
        BlobId { volume: V, key: BlobKey(key) }
    }

    fn with_blobs(count: u64) -> Index {
        let mut index = Index::default();
        for n in 1..=count {
            index.apply(SegmentId(1), &entry(Kind::Blob, 100 + n, n, 8 * n as u32), &[]);
        }
        index
    }

    #[test]
    fn blobs_are_found_by_key_and_in_order() {
        let index = with_blobs(5);
        assert_eq!(index.find(blob(103)).unwrap().seq, Seq(3));
        assert!(index.find(blob(99)).is_none());
        let volume = index.volume(V).unwrap();
        let keys: Vec<u64> = volume.after(Seq(2)).map(|slot| slot.key.0).collect();
        assert_eq!(keys, [103, 104, 105]);
        assert_eq!(index.status(V), Some(CopyStatus { volume: V, seq: Seq(5), bytes: 50, blobs: 5 }));
    }

    #[test]
    fn a_buried_key_never_comes_back_in_either_order() {
        let mut index = with_blobs(2);
        assert!(matches!(
            index.apply(SegmentId(2), &entry(Kind::Tombstone, 101, 1, 64), &[]),
            Applied::Instead(_)
        ));
        assert_eq!(index.apply(SegmentId(2), &entry(Kind::Blob, 101, 1, 128), &[]), Applied::Buried);
        assert_eq!(index.apply(SegmentId(2), &entry(Kind::Tombstone, 107, 0, 192), &[]), Applied::Done);
        assert_eq!(index.apply(SegmentId(2), &entry(Kind::Blob, 107, 3, 256), &[]), Applied::Buried);
        assert_eq!(index.status(V), Some(CopyStatus { volume: V, seq: Seq(3), bytes: 10, blobs: 1 }));
    }

    #[test]
    fn a_replacement_wins_and_ends_the_quarantine() {
        let mut index = with_blobs(2);
        let damaged = index.find(blob(101)).unwrap().at;
        assert!(index.quarantine(blob(101), damaged));
        assert!(!index.quarantine(blob(101), damaged), "twice");
        assert_eq!(index.take_unreported(10), [blob(101)]);
        assert_eq!(index.apply(SegmentId(2), &entry(Kind::Missing, 101, 1, 64), &[]), Applied::Done);
        assert_eq!(index.find(blob(101)).unwrap().at, damaged);
        assert_eq!(
            index.apply(SegmentId(2), &entry(Kind::Blob, 101, 1, 128), &[]),
            Applied::Instead(damaged)
        );
        assert_eq!(index.find(blob(101)).unwrap().health, Health::Good);
        assert!(index.bad().is_empty());
        assert_eq!(index.status(V).unwrap().blobs, 2);
    }

    #[test]
    fn contradictions_are_told_and_change_nothing() {
        let mut index = with_blobs(2);
        for (key, seq) in [(101, 9), (200, 1)] {
            assert!(matches!(
                index.apply(SegmentId(2), &entry(Kind::Blob, key, seq, 64), &[]),
                Applied::Clash(_)
            ));
        }
        assert_eq!(index.status(V).unwrap(), with_blobs(2).status(V).unwrap());
    }

    #[test]
    fn a_segment_is_dead_when_nothing_in_it_lives() {
        let mut index = with_blobs(2);
        index.add_segment(SegmentId(2));
        index.apply(SegmentId(2), &entry(Kind::Tombstone, 101, 1, 64), &[]);
        assert!(index.dead_segments(SegmentId(2)).is_empty());
        index.apply(SegmentId(2), &entry(Kind::Blob, 102, 2, 128), &[]);
        assert_eq!(index.dead_segments(SegmentId(2)), [SegmentId(1)]);
        assert_eq!(index.volumes_in(SegmentId(1)), [V]);
    }

    #[test]
    fn a_grave_buries_what_is_there_and_what_comes() {
        let mut index = with_blobs(3);
        index.apply(SegmentId(2), &entry(Kind::Grave, 0, 7, 64), &[(101, 102), (110, 120)]);
        assert_eq!(index.status(V), Some(CopyStatus { volume: V, seq: Seq(7), bytes: 10, blobs: 1 }));
        assert_eq!(index.apply(SegmentId(2), &entry(Kind::Blob, 115, 8, 128), &[]), Applied::Buried);
    }

    #[test]
    fn a_volume_that_was_given_up_is_gone_and_begins_anew() {
        let mut index = with_blobs(3);
        let at = index.find(blob(102)).unwrap().at;
        index.quarantine(blob(102), at);
        index.apply(SegmentId(2), &entry(Kind::Drop, 0, 0, 64), &[]);
        assert!(index.volume(V).is_none() && index.bad().is_empty() && index.statuses().is_empty());
        assert_eq!(index.take_changed(), []);
        index.apply(SegmentId(2), &entry(Kind::Blob, 101, 1, 128), &[]);
        assert_eq!(index.status(V), Some(CopyStatus { volume: V, seq: Seq(1), bytes: 10, blobs: 1 }));
    }

    #[test]
    fn what_says_that_a_volume_was_given_up_outlives_what_it_gave_up() {
        let mut index = with_blobs(1);
        index.apply(SegmentId(2), &entry(Kind::Drop, 0, 0, 64), &[]);
        index.add_segment(SegmentId(3));
        assert_eq!(index.dead_segments(SegmentId(3)), [SegmentId(1)]);
        index.remove_segment(SegmentId(1));
        assert_eq!(index.dead_segments(SegmentId(3)), [SegmentId(2)]);
    }

    #[test]
    fn many_deaths_do_not_lose_the_living() {
        let mut index = with_blobs(5000);
        for n in (1..=5000).filter(|n| n % 5 != 0) {
            index.apply(SegmentId(2), &entry(Kind::Tombstone, 100 + n, n, 64), &[]);
        }
        let volume = index.volume(V).unwrap();
        assert!(volume.log.len() < 2500, "dead slots are given up");
        assert_eq!(volume.after(Seq(0)).count(), 1000);
        assert!((1..=5000).all(|n| index.find(blob(100 + n)).is_some() == (n % 5 == 0)));
        assert_eq!(volume.buried().runs().count(), 1000);
    }

    #[test]
    fn gaps_are_what_nothing_explains() {
        let mut index = with_blobs(3);
        index.apply(SegmentId(1), &entry(Kind::Blob, 150, 9, 640), &[]);
        let mut explained = Ranges::default();
        explained.insert(5, 6);
        let gaps = index.unexplained(V, &explained);
        assert_eq!(gaps.runs().collect::<Vec<_>>(), [(4, 4), (7, 8)]);
    }
}
