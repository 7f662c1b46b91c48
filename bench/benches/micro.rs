//! The parts that every byte or every record passes through, each by itself.
//!
//!     cargo bench -p dfs-bench                       # all
//!     cargo bench -p dfs-bench -- checksum           # those whose names have it
//!
//! docs/PERFORMANCE.md says how they relate to what users see.
#![allow(missing_docs)]

use bytes::Bytes;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use dfs_client::checksum;
use dfs_proto::{BlobId, BlobKey, BlobOrigin, VolumeId};
use dfs_storagenode::record::{Header, Kind, Record};
use dfs_storagenode::store::{Append, BlobStore, Payload, StoreConfig};
use dfs_vfs::range_map::{Piece, RangeMap, Source};
use md5::{Digest, Md5};
use std::hint::black_box;
use std::time::Duration;

const BLOB_BYTES: usize = 4 << 20;
const SMALL_BYTES: usize = 4 << 10;
const SEGMENT_BYTES: u64 = 256 << 20;
const VOLUME: VolumeId = VolumeId(1);

fn bytes(length: usize) -> Bytes {
    (0..length).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect::<Vec<u8>>().into()
}

/// One stream of MD5, lanes of it side by side, and CRC32C: what a writer, a reader and a node work out.
fn checksums(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    group.sample_size(20);
    let blob = bytes(BLOB_BYTES);
    group.throughput(Throughput::Bytes(BLOB_BYTES as u64));
    group.bench_function("md5-one-stream-4M", |b| b.iter(|| Md5::digest(black_box(&blob))));
    group.bench_function("crc32c-4M", |b| b.iter(|| checksum::crc32c_chunks(black_box(&blob))));
    for lanes in [3, 8, 16] {
        let blobs = vec![&blob[..]; lanes];
        let mut digests = vec![[0; 16]; lanes];
        group.throughput(Throughput::Bytes((lanes * BLOB_BYTES) as u64));
        group.bench_function(BenchmarkId::new("md5-lanes-4M", lanes), |b| {
            b.iter(|| md5_simd::md5_many(black_box(&blobs), &mut digests));
        });
    }
    group.finish();
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

/// Blobs appended to a storage node's log: one after the other, and many in one request; into the page cache, and on
/// the disk.
fn log_append(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let mut group = c.benchmark_group("log-append");
    // Short, for each second leaves up to a GiB in the temporary folder.
    group.sample_size(20).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    for (name, length, count, sync) in [
        ("4K-one", SMALL_BYTES, 1, false),
        ("4K-64-together", SMALL_BYTES, 64, false),
        ("4K-one-synced", SMALL_BYTES, 1, true),
        ("4K-64-together-synced", SMALL_BYTES, 64, true),
        ("4M-one", BLOB_BYTES, 1, false),
    ] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let config = StoreConfig {
            dir: dir.path().to_owned(),
            segment_bytes_max: SEGMENT_BYTES,
            reserve_bytes: Some(0),
        };
        let store = BlobStore::open(&config).expect("a new store");
        let (payload, mut key) = (payload(bytes(length)), 0);
        group.throughput(Throughput::Bytes((length * count) as u64));
        group.bench_function(name, |b| {
            b.iter_batched(
                || -> Vec<Append> {
                    let keys = key + 1..=key + count as u64;
                    key += count as u64;
                    keys.map(|key| Append::Put {
                        id: BlobId { volume: VOLUME, key: BlobKey(key) },
                        payload: payload.clone(),
                    })
                    .collect()
                },
                |records| {
                    let outcomes = runtime.block_on(store.append(records, sync)).expect("the store is open");
                    assert!(outcomes.iter().all(Result::is_ok), "not stored");
                },
                BatchSize::PerIteration,
            );
        });
        store.close();
    }
    group.finish();
}

/// Bytes of some buffer.
#[derive(Clone)]
struct InBuffer {
    buffer: u32,
    at: u64,
}

impl Source for InBuffer {
    fn advanced(&self, bytes: u64) -> InBuffer {
        InBuffer { buffer: self.buffer, at: self.at + bytes }
    }

    fn continues_with(&self, length: u64, next: &InBuffer) -> bool {
        self.buffer == next.buffer && self.at + length == next.at
    }
}

/// Writes laid over each other: in order, where they join, and at random places, where they cut what is there.
fn extent_overlay(c: &mut Criterion) {
    const WRITES: u64 = 10_000;
    const PAGE: u64 = 4096;
    let mut group = c.benchmark_group("extent-overlay");
    group.throughput(Throughput::Elements(WRITES));
    let laid = |offset: &dyn Fn(u64) -> (u64, u32)| {
        let mut map = RangeMap::default();
        for i in 0..WRITES {
            let (at, buffer) = offset(i);
            map.insert(Piece { offset: at, length: PAGE, source: InBuffer { buffer, at } });
        }
        map
    };
    // A permutation, shifted by half a page every other time: pieces are cut.
    let scattered = |i: u64| ((i * 7919 % WRITES) * PAGE + (i % 2) * PAGE / 2, i as u32);
    group.bench_function("in-order", |b| b.iter(|| laid(&|i| (i * PAGE, 0))));
    group.bench_function("scattered", |b| b.iter(|| laid(&scattered)));
    let map = laid(&scattered);
    group.bench_function("look-up-scattered", |b| {
        b.iter(|| (0..WRITES).map(|i| map.within(i * PAGE, (i + 1) * PAGE).len()).sum::<usize>());
    });
    group.finish();
}

/// A record's header and a whole small record, as recovery and copies between nodes read them.
fn record_parsing(c: &mut Criterion) {
    let mut group = c.benchmark_group("record");
    for (name, length) in [("4K", SMALL_BYTES), ("4M", BLOB_BYTES)] {
        let data = bytes(length);
        let id = BlobId { volume: VOLUME, key: BlobKey(7) };
        let header = Header {
            payload_bytes: length as u32,
            md5: checksum::md5(&data),
            crc32c: checksum::crc32c_chunks(&data),
            ..Header::bare(Kind::Blob, id, dfs_proto::Seq(9), 0)
        };
        let encoded: Bytes = Record { header: header.clone(), payload: data }.encode().into();
        group.throughput(Throughput::Elements(1));
        group.bench_function(BenchmarkId::new("parse-header", name), |b| {
            b.iter(|| Header::parse(black_box(&encoded)).expect("it is one"));
        });
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_function(BenchmarkId::new("take-verified", name), |b| {
            b.iter(|| Record::take(&mut black_box(encoded.clone())).expect("it is one"));
        });
    }
    group.finish();
}

criterion_group!(benches, checksums, log_append, extent_overlay, record_parsing);
criterion_main!(benches);
