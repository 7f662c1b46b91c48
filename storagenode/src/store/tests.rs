//! The store on a real directory: order, group commit, recovery, deletes.

use super::*;
use crate::memory::Memory;
use crate::record::{Header, Kind, Record};
use crate::segment::{SEGMENT_HEADER_BYTES, segment_path, sidecar_path};
use bytes::Bytes;
use dfs_client::checksum;
use dfs_proto::{BlobKey, BlobOrigin, ErrorCode};
use std::fs;
use std::time::Duration;
use tempfile::TempDir;

const V: VolumeId = VolumeId(7);

struct Fixture {
    dir: TempDir,
    segment_bytes_max: u64,
}

impl Fixture {
    fn new(segment_bytes_max: u64) -> Fixture {
        Fixture { dir: tempfile::tempdir().unwrap(), segment_bytes_max }
    }

    fn config(&self) -> StoreConfig {
        StoreConfig {
            dir: self.dir.path().to_owned(),
            segment_bytes_max: self.segment_bytes_max,
            reserve_bytes: Some(0),
        }
    }

    fn open(&self) -> BlobStore {
        BlobStore::open(&self.config()).unwrap()
    }

    /// What a kill at this moment would leave behind, opened in another place.
    fn after_a_kill(&self) -> (Fixture, BlobStore) {
        let copy = Fixture::new(self.segment_bytes_max);
        for entry in fs::read_dir(self.dir.path()).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, copy.dir.path().join(path.file_name().unwrap())).unwrap();
        }
        let store = copy.open();
        (copy, store)
    }

    fn segment(&self, number: u32) -> PathBuf {
        segment_path(self.dir.path(), SegmentId(number))
    }

    fn sidecar(&self, number: u32) -> PathBuf {
        sidecar_path(self.dir.path(), SegmentId(number))
    }
}

fn id(key: u64) -> BlobId {
    BlobId { volume: V, key: BlobKey(key) }
}

fn content(key: u64, length: usize) -> Bytes {
    (0..length).map(|i| (i as u64 * 31 + key * 7 + i as u64 / 256) as u8).collect::<Vec<u8>>().into()
}

fn payload(data: Bytes) -> Payload {
    Payload {
        md5: checksum::md5(&data),
        crc32c: checksum::crc32c_chunks(&data),
        origin: BlobOrigin::default(),
        written_ms: 0,
        data,
    }
}

async fn put(store: &BlobStore, key: u64, length: usize) -> Result<Outcome, StoreError> {
    store.append_one(Append::Put { id: id(key), payload: payload(content(key, length)) }, false).await
}

async fn fill(store: &BlobStore, keys: std::ops::RangeInclusive<u64>, length: usize) {
    for key in keys {
        put(store, key, length).await.unwrap();
    }
}

async fn get(store: &BlobStore, key: u64) -> Result<Bytes, StoreError> {
    let buffer = Memory::new(0).buffer(5 << 20, Duration::ZERO).await.unwrap();
    store.read(id(key), None, buffer).map(|blob| blob.data)
}

async fn assert_holds(store: &BlobStore, keys: impl IntoIterator<Item = u64>, length: usize) {
    for key in keys {
        assert_eq!(get(store, key).await.unwrap(), content(key, length), "key {key}");
    }
}

async fn log(store: &BlobStore, after: u64, max_bytes: usize) -> (Seq, Vec<Header>) {
    let mut buffer = Memory::new(0).buffer(4 << 20, Duration::ZERO).await.unwrap();
    let reach = store.log(V, Seq(after), max_bytes, &mut buffer).unwrap();
    let (mut bytes, mut headers) = (buffer.freeze(), Vec::new());
    while !bytes.is_empty() {
        headers.push(Record::take(&mut bytes).unwrap().header);
    }
    (reach, headers)
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn what_was_put_is_read_back_also_after_a_stop_and_after_a_kill() {
    let fixture = Fixture::new(1 << 20);
    let store = fixture.open();
    fill(&store, 1..=30, 100_000).await;
    assert!(store.segments() > 2);
    let (_copy, killed) = fixture.after_a_kill();
    assert_holds(&killed, 1..=30, 100_000).await;
    store.close();
    assert!(fixture.sidecar(1).exists());
    drop(store);
    let store = fixture.open();
    assert_holds(&store, 1..=30, 100_000).await;
    assert_eq!(store.status(V).unwrap(), CopyStatus { volume: V, seq: Seq(30), bytes: 3_000_000, blobs: 30 });
    assert_eq!(put(&store, 31, 5).await.unwrap(), Outcome::Stored(Seq(31)));
    assert_eq!(store.metrics().damaged_places.get(), 0);
}

#[tokio::test]
async fn a_put_again_is_the_same_and_other_bytes_are_a_conflict() {
    let fixture = Fixture::new(1 << 20);
    let store = fixture.open();
    assert_eq!(put(&store, 5, 10).await.unwrap(), Outcome::Stored(Seq(1)));
    assert_eq!(put(&store, 5, 10).await.unwrap(), Outcome::Existing(Seq(1)));
    assert_eq!(put(&store, 5, 11).await.unwrap_err().code(), ErrorCode::Conflict);
    // The same within one group.
    let twice = |length| Append::Put { id: id(6), payload: payload(content(6, length)) };
    let outcomes = store.append(vec![twice(9), twice(9), twice(8)], false).await.unwrap();
    assert_eq!(*outcomes[0].as_ref().unwrap(), Outcome::Stored(Seq(2)));
    assert_eq!(*outcomes[1].as_ref().unwrap(), Outcome::Existing(Seq(2)));
    assert!(outcomes[2].is_err());
    assert_eq!(store.reach(V), Seq(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_appends_share_writes_and_syncs_and_get_numbers_without_gaps() {
    const APPENDS: u64 = 2000;
    let fixture = Fixture::new(1 << 30);
    let store = Arc::new(fixture.open());
    let tasks: Vec<_> = (1..=APPENDS)
        .map(|key| {
            let store = store.clone();
            tokio::spawn(async move {
                let record = Append::Put { id: id(key), payload: payload(content(key, 300)) };
                store.append_one(record, true).await.unwrap()
            })
        })
        .collect();
    let mut seqs = Vec::new();
    for task in tasks {
        let Outcome::Stored(seq) = task.await.unwrap() else { panic!("not stored") };
        seqs.push(seq.0);
    }
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=APPENDS).collect::<Vec<_>>());
    let metrics = store.metrics();
    assert_eq!(metrics.appends.get(), APPENDS);
    assert!(metrics.syncs.get() < APPENDS / 2, "{} syncs", metrics.syncs.get());
    assert!(metrics.writes.get() < APPENDS / 2, "{} writes", metrics.writes.get());
    assert_holds(&store, 1..=APPENDS, 300).await;
}

#[tokio::test]
async fn plain_appends_are_synced_within_a_second_or_two() {
    let fixture = Fixture::new(1 << 20);
    let store = fixture.open();
    put(&store, 1, 10).await.unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while store.metrics().syncs.get() == 0 {
        assert!(std::time::Instant::now() < deadline, "nothing was synced");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_tail_cut_at_any_byte_loses_only_the_records_that_were_cut() {
    const LENGTH: usize = 100;
    let fixture = Fixture::new(1 << 20);
    let store = fixture.open();
    fill(&store, 1..=4, LENGTH).await;
    let whole = fs::read(fixture.segment(1)).unwrap();
    let record = crate::record::record_bytes(LENGTH);
    let padding = record - crate::record::header_bytes(LENGTH) - LENGTH;
    let start = SEGMENT_HEADER_BYTES as usize;
    assert_eq!(whole.len(), start + 4 * record);
    for length in start + 2 * record..=whole.len() {
        let cut = Fixture::new(1 << 20);
        fs::write(cut.segment(1), &whole[..length]).unwrap();
        let store = cut.open();
        // Lost padding is no loss.
        let left = ((length - start + padding) / record) as u64;
        assert_eq!(store.reach(V), Seq(left), "cut at {length}");
        assert_holds(&store, 1..=left, LENGTH).await;
        assert_eq!(store.metrics().damaged_places.get(), 0, "cut at {length}");
        assert_eq!(put(&store, 50, LENGTH).await.unwrap(), Outcome::Stored(Seq(left + 1)));
        drop(store);
        let store = cut.open();
        assert_holds(&store, (1..=left).chain([50]), LENGTH).await;
    }
}

#[tokio::test]
async fn any_flipped_byte_in_the_middle_is_noticed_and_harms_one_blob() {
    const LENGTH: usize = 90;
    let fixture = Fixture::new(1 << 20);
    let store = fixture.open();
    fill(&store, 1..=3, LENGTH).await;
    let whole = fs::read(fixture.segment(1)).unwrap();
    let record = crate::record::record_bytes(LENGTH);
    let header = crate::record::header_bytes(LENGTH);
    let start = SEGMENT_HEADER_BYTES as usize + record;
    for at in 0..header + LENGTH {
        let damaged = Fixture::new(1 << 20);
        let mut bytes = whole.clone();
        bytes[start + at] ^= 0x40;
        fs::write(damaged.segment(1), bytes).unwrap();
        let store = damaged.open();
        assert_holds(&store, [1, 3], LENGTH).await;
        assert_eq!(store.reach(V), Seq(3));
        assert!(store.metrics().damaged_places.get() > 0, "byte {at} went unnoticed");
        let code = get(&store, 2).await.unwrap_err().code();
        if at < header {
            assert_eq!(code, ErrorCode::NotFound, "byte {at}");
        } else {
            assert_eq!(code, ErrorCode::Corrupt, "byte {at}");
            assert_eq!(store.take_bad(10), [id(2)], "byte {at}");
        }
    }
}

#[tokio::test]
async fn a_damaged_segment_header_costs_no_blob() {
    let fixture = Fixture::new(1 << 20);
    let store = fixture.open();
    fill(&store, 1..=3, 500).await;
    let (copy, killed) = fixture.after_a_kill();
    drop(killed);
    fs::remove_file(copy.sidecar(1)).unwrap();
    flip(&copy.segment(1), 20);
    for _ in 0..2 {
        let store = copy.open();
        assert_holds(&store, 1..=3, 500).await;
        assert!(store.metrics().damaged_places.get() > 0);
    }
    let store = copy.open();
    assert_eq!(put(&store, 4, 10).await.unwrap(), Outcome::Stored(Seq(4)));
    assert_holds(&store, [4], 10).await;
}

#[tokio::test]
async fn a_sealed_segment_without_its_sidecar_is_read_and_gets_one() {
    let fixture = Fixture::new(100_000);
    let store = fixture.open();
    fill(&store, 1..=40, 10_000).await;
    store.close();
    drop(store);
    fs::remove_file(fixture.sidecar(1)).unwrap();
    flip(&fixture.sidecar(2), 50);
    // Half of a sidecar that was being written, and one whose segment was removed.
    fs::write(fixture.dir.path().join("0000000003.idx.new"), b"half").unwrap();
    fs::write(fixture.sidecar(99), b"left over").unwrap();
    let store = fixture.open();
    assert_holds(&store, 1..=40, 10_000).await;
    assert!(fixture.sidecar(1).exists() && !fixture.sidecar(99).exists());
    assert_eq!(store.metrics().damaged_places.get(), 0);
}

#[tokio::test]
async fn a_segment_that_was_never_finished_is_removed() {
    let fixture = Fixture::new(1 << 20);
    let store = fixture.open();
    fill(&store, 1..=2, 10).await;
    store.close();
    drop(store);
    fs::write(fixture.segment(2), b"torn").unwrap();
    let store = fixture.open();
    assert!(!fixture.segment(2).exists());
    put(&store, 3, 10).await.unwrap();
    assert_holds(&store, 1..=3, 10).await;
}

#[tokio::test]
async fn damage_under_a_sidecar_is_found_by_reading_and_stays_known() {
    let fixture = Fixture::new(1 << 20);
    let store = fixture.open();
    fill(&store, 1..=3, 1000).await;
    store.close();
    drop(store);
    let record = crate::record::record_bytes(1000);
    flip(&fixture.segment(1), SEGMENT_HEADER_BYTES as usize + record + 500);
    let store = fixture.open();
    assert!(store.take_bad(10).is_empty());
    assert_eq!(get(&store, 2).await.unwrap_err().code(), ErrorCode::Corrupt);
    assert_eq!(store.take_bad(10), [id(2)]);
    assert!(store.take_bad(10).is_empty(), "reported once");
    let (_, headers) = log(&store, 0, 1 << 20).await;
    assert_eq!(headers.iter().map(|h| h.kind).collect::<Vec<_>>(), [Kind::Blob, Kind::Missing, Kind::Blob]);
    store.close();
    drop(store);
    let store = fixture.open();
    assert_eq!(store.bad(), [id(2)]);
    let again = payload(content(2, 1000));
    let repair = Append::Copy { id: id(2), seq: Seq(2), payload: again, replacement: true };
    assert_eq!(store.append_one(repair, true).await.unwrap(), Outcome::Stored(Seq(2)));
    assert!(store.bad().is_empty());
    drop(store);
    let store = fixture.open();
    assert_holds(&store, 1..=3, 1000).await;
    assert!(store.bad().is_empty());
}

#[tokio::test]
async fn a_file_shorter_than_its_sidecar_says_costs_what_is_missing_and_says_so() {
    let fixture = Fixture::new(1 << 20);
    let store = fixture.open();
    fill(&store, 1..=3, 1000).await;
    store.close();
    drop(store);
    let file = fs::OpenOptions::new().write(true).open(fixture.segment(1)).unwrap();
    file.set_len(SEGMENT_HEADER_BYTES + 2 * crate::record::record_bytes(1000) as u64 + 7).unwrap();
    let store = fixture.open();
    assert_holds(&store, 1..=2, 1000).await;
    assert_eq!(store.take_bad(10), [id(3)]);
    assert_eq!(put(&store, 4, 10).await.unwrap(), Outcome::Stored(Seq(4)), "the number is not used again");
}

#[tokio::test]
async fn a_segment_stored_as_a_blob_is_not_taken_for_records() {
    let fixture = Fixture::new(8 << 20);
    let store = fixture.open();
    fill(&store, 1..=20, 1000).await;
    let inner: Bytes = fs::read(fixture.segment(1)).unwrap().into();
    let trick = Append::Put { id: id(100), payload: payload(inner) };
    store.append_one(trick, false).await.unwrap();
    put(&store, 101, 10).await.unwrap();
    let (copy, killed) = fixture.after_a_kill();
    drop(killed);
    fs::remove_file(copy.sidecar(1)).unwrap();
    // The header of the blob that holds the segment is damaged, so that the search goes through its bytes.
    flip(&copy.segment(1), SEGMENT_HEADER_BYTES as usize + 20 * crate::record::record_bytes(1000) + 30);
    let store = copy.open();
    assert_eq!(store.status(V).unwrap().blobs, 21);
    assert_eq!(store.metrics().damaged_places.get(), 2, "one place, one number that is lost");
    assert_holds(&store, 1..=20, 1000).await;
    assert_holds(&store, [101], 10).await;
}

#[tokio::test]
async fn a_full_disk_refuses_and_leaves_the_store_as_it_was() {
    let fixture = Fixture::new(1 << 20);
    let store = fixture.open();
    fill(&store, 1..=2, 5000).await;
    let before = fs::read(fixture.segment(1)).unwrap();
    for room in [0, 50, 3000] {
        *store.shared.full_after.lock() = Some(room);
        assert_eq!(put(&store, 3, 5000).await.unwrap_err().code(), ErrorCode::NoSpace);
        assert_eq!(fs::read(fixture.segment(1)).unwrap(), before);
    }
    assert_eq!(put(&store, 3, 5000).await.unwrap(), Outcome::Stored(Seq(3)));
    assert_holds(&store, 1..=3, 5000).await;
    drop(store);
    let full = BlobStore::open(&StoreConfig { reserve_bytes: Some(u64::MAX), ..fixture.config() }).unwrap();
    assert_eq!(put(&full, 4, 10).await.unwrap_err().code(), ErrorCode::NoSpace);
    assert_eq!(full.check_space(1).unwrap_err().code(), ErrorCode::NoSpace);
    assert_eq!(full.delete(&[id(3)]).await.unwrap().deleted, 1, "a full disk can be emptied");
}

#[tokio::test]
async fn deleted_blobs_stay_deleted_and_give_their_space_back() {
    let fixture = Fixture::new(16 << 20);
    let store = fixture.open();
    fill(&store, 1..=10, 200_000).await;
    store.sync().await.unwrap();
    let used = store.used_bytes();
    let reply = store.delete(&[id(1), id(2), id(3), id(77), id(2)]).await.unwrap();
    assert_eq!((reply.deleted, reply.absent), (3, 2));
    assert!(store.used_bytes() + 500_000 < used, "{} of {used}", store.used_bytes());
    let again = store.delete(&[id(1)]).await.unwrap();
    assert_eq!((again.deleted, again.absent), (0, 1));
    assert_eq!(get(&store, 1).await.unwrap_err().code(), ErrorCode::NotFound);
    assert_eq!(put(&store, 1, 200_000).await.unwrap_err().code(), ErrorCode::Conflict);
    let (reach, headers) = log(&store, 0, 1).await;
    assert_eq!((reach, headers.len()), (Seq(10), 2));
    assert_eq!((headers[0].kind, headers[0].key.0, headers[0].seq), (Kind::Hole, 1, Seq(3)));
    assert_eq!(headers[1].seq, Seq(4));
    let (_copy, killed) = fixture.after_a_kill();
    for store in [&store, &killed] {
        assert_eq!(
            store.status(V).unwrap(),
            CopyStatus { volume: V, seq: Seq(10), bytes: 1_400_000, blobs: 7 }
        );
        assert_holds(store, 4..=10, 200_000).await;
        assert!(store.bad().is_empty());
        assert_eq!(
            put(store, 77, 10).await.unwrap_err().code(),
            ErrorCode::Conflict,
            "buried before it came"
        );
    }
    assert_eq!(killed.metrics().damaged_places.get(), 0);
}

#[tokio::test]
async fn dead_segments_go_and_what_they_buried_stays_buried() {
    let fixture = Fixture::new(100_000);
    let store = fixture.open();
    fill(&store, 1..=30, 10_000).await;
    let before = store.segments();
    let doomed: Vec<BlobId> = (1..=29).map(id).collect();
    store.delete(&doomed[..15]).await.unwrap();
    store.delete(&doomed[15..]).await.unwrap();
    // Moves the tombstones' segment away from the end, so that it can die as well.
    fill(&store, 31..=45, 10_000).await;
    let rest: Vec<BlobId> = (30..=45).map(id).collect();
    store.delete(&rest).await.unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while store.segments() > 2 {
        assert!(std::time::Instant::now() < deadline, "{} of {before} segments are left", store.segments());
        store.reap().await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(!fixture.segment(1).exists() && !fixture.sidecar(1).exists());
    drop(store);
    let store = fixture.open();
    assert_eq!(store.status(V).unwrap(), CopyStatus { volume: V, seq: Seq(45), bytes: 0, blobs: 0 });
    for key in 1..=45 {
        assert_eq!(put(&store, key, 10).await.unwrap_err().code(), ErrorCode::Conflict, "key {key}");
    }
    assert_eq!(store.metrics().damaged_places.get(), 0);
    assert_eq!(put(&store, 46, 10).await.unwrap(), Outcome::Stored(Seq(46)));
}

#[tokio::test]
async fn copies_keep_their_numbers_and_refuse_what_does_not_follow() {
    let fixture = Fixture::new(1 << 20);
    let store = fixture.open();
    let copy = |key, seq| Append::Copy {
        id: id(key),
        seq: Seq(seq),
        payload: payload(content(key, 10)),
        replacement: false,
    };
    let hole = |first, last| Append::Hole { volume: V, first: Seq(first), last: Seq(last) };
    let records = vec![
        copy(1, 1),
        hole(2, 4),
        Append::Missing { id: id(5), seq: Seq(5) },
        copy(6, 6),
        copy(9, 9),
        copy(60, 6),
        copy(6, 7),
    ];
    let outcomes = store.append(records, false).await.unwrap();
    let codes: Vec<_> = outcomes.iter().map(|o| o.as_ref().err().map(StoreError::code)).collect();
    let (gap, conflict) = (Some(ErrorCode::Unavailable), Some(ErrorCode::Conflict));
    assert_eq!(codes, [None, None, None, None, gap, conflict, conflict]);
    assert_eq!(store.reach(V), Seq(6));
    assert_eq!(store.take_bad(10), [id(5)], "what the source did not have is reported");
    drop(store);
    let store = fixture.open();
    assert_eq!(store.metrics().damaged_places.get(), 0);
    assert_eq!((store.reach(V), store.bad()), (Seq(6), vec![id(5)]));
    let (_, headers) = log(&store, 0, 1 << 20).await;
    let shape: Vec<_> = headers.iter().map(|h| (h.kind, h.seq.0)).collect();
    assert_eq!(shape, [(Kind::Blob, 1), (Kind::Hole, 4), (Kind::Missing, 5), (Kind::Blob, 6)]);
    assert_eq!(store.append_one(copy(5, 5), true).await.unwrap(), Outcome::Stored(Seq(5)));
    assert!(store.bad().is_empty());
    assert_holds(&store, [1, 5, 6], 10).await;
}

#[tokio::test]
async fn a_blob_that_was_deleted_before_it_came_stays_dead_and_the_copy_goes_on() {
    let fixture = Fixture::new(1 << 20);
    let store = fixture.open();
    put(&store, 1, 10).await.unwrap();
    store.delete(&[id(2)]).await.unwrap();
    let late = Append::Copy { id: id(2), seq: Seq(2), payload: payload(content(2, 10)), replacement: false };
    store.append_one(late, false).await.unwrap();
    assert_eq!(store.reach(V), Seq(2));
    assert_eq!(get(&store, 2).await.unwrap_err().code(), ErrorCode::NotFound);
}

#[tokio::test]
async fn chunks_are_read_alone() {
    let fixture = Fixture::new(1 << 20);
    let store = fixture.open();
    put(&store, 1, 200_000).await.unwrap();
    for chunks in [0..1, 1..3, 3..4, 0..4] {
        let buffer = Memory::new(0).buffer(200_000, Duration::ZERO).await.unwrap();
        let blob = store.read(id(1), Some(chunks.clone()), buffer).unwrap();
        let bytes = chunks.start as usize * 65536..(chunks.end as usize * 65536).min(200_000);
        assert_eq!(blob.data, content(1, 200_000).slice(bytes));
        assert_eq!(blob.first_chunk, chunks.start);
    }
}

#[tokio::test]
async fn a_closed_store_refuses() {
    let fixture = Fixture::new(1 << 20);
    let store = fixture.open();
    store.close();
    assert_eq!(put(&store, 1, 10).await.unwrap_err().code(), ErrorCode::Unavailable);
    assert_eq!(store.sync().await.unwrap_err().code(), ErrorCode::Unavailable);
}

#[tokio::test]
async fn a_copy_that_was_given_up_stays_away_and_gives_its_space_back() {
    let fixture = Fixture::new(300_000);
    let store = fixture.open();
    fill(&store, 1..=10, 100_000).await;
    let other = BlobId { volume: VolumeId(8), key: BlobKey(1) };
    store.append_one(Append::Put { id: other, payload: payload(content(1, 10)) }, true).await.unwrap();
    let before = store.segments();
    assert!(store.drop_copy(V).await.unwrap());
    assert!(!store.drop_copy(V).await.unwrap(), "there is none any more");
    assert!(store.status(V).is_err());
    assert_eq!(get(&store, 1).await.unwrap_err().code(), ErrorCode::NotFound);
    let (_copy, killed) = fixture.after_a_kill();
    for store in [&store, &killed] {
        assert_eq!(store.statuses().iter().map(|s| s.volume).collect::<Vec<_>>(), [VolumeId(8)]);
        assert_eq!(store.metrics().damaged_places.get(), 0);
    }
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while store.segments() + 1 >= before {
        assert!(std::time::Instant::now() < deadline, "{} of {before} segments are left", store.segments());
        store.reap().await.unwrap();
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_copy_that_comes_after_one_was_given_up_begins_anew() {
    let fixture = Fixture::new(1 << 20);
    let store = fixture.open();
    fill(&store, 1..=5, 1_000).await;
    store.delete(&[id(2)]).await.unwrap();
    store.drop_copy(V).await.unwrap();
    let copy = |key, seq| Append::Copy {
        id: id(key),
        seq: Seq(seq),
        payload: payload(content(key, 1_000)),
        replacement: false,
    };
    let late = store.append_one(copy(4, 4), false).await.unwrap_err();
    assert_eq!(late.code(), ErrorCode::Unavailable, "what does not begin at the beginning is refused");
    let hole = Append::Hole { volume: V, first: Seq(2), last: Seq(2) };
    for outcome in store.append(vec![copy(1, 1), hole, copy(3, 3)], true).await.unwrap() {
        outcome.unwrap();
    }
    drop(store);
    let store = fixture.open();
    assert_eq!(store.status(V).unwrap(), CopyStatus { volume: V, seq: Seq(3), bytes: 2_000, blobs: 2 });
    assert_holds(&store, [1, 3], 1_000).await;
    assert_eq!(get(&store, 5).await.unwrap_err().code(), ErrorCode::NotFound);
    assert_eq!(store.metrics().damaged_places.get(), 0);
}

#[tokio::test]
async fn verifying_goes_through_everything_and_finds_what_is_damaged() {
    let fixture = Fixture::new(1 << 20);
    let store = fixture.open();
    fill(&store, 1..=20, 100_000).await;
    let at = store.find(id(7)).unwrap().at;
    flip(&segment_path(fixture.dir.path(), at.segment), at.offset as usize + 5_000);
    let mut buffer = Memory::new(0).buffer(4 << 20, Duration::ZERO).await.unwrap();
    let (mut after, mut records, mut bad, mut turns) = (Seq(0), 0, 0, 0);
    loop {
        let reply = store.verify(V, after, 300_000, &mut buffer).unwrap();
        (records, bad, turns) = (records + reply.records, bad + reply.bad, turns + 1);
        assert!(reply.next > after && reply.bytes <= 400_000);
        after = reply.next;
        if after == reply.reach {
            break;
        }
    }
    assert_eq!((records, bad, after), (20, 1, Seq(20)));
    let again = store.verify(V, Seq(0), u64::MAX, &mut buffer).unwrap();
    assert_eq!((again.bad, again.found), (1, 0), "it is known by now");
    assert!(turns > 4);
    assert_eq!(store.take_bad(10), [id(7)]);
}
