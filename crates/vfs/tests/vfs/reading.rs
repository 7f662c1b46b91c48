//! What is fetched for readers, and what is not.

use crate::cluster::{CALLER, Cluster, READ};
use crate::{close, store};
use dfs_proto::CHUNK_BYTES;
use dfs_proto::limits::BLOB_BYTES_MAX;
use dfs_vfs::{Fh, Vfs, VfsConfig};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const CHUNK: u64 = CHUNK_BYTES as u64;
const BLOB: u64 = BLOB_BYTES_MAX as u64;

/// Every eight bytes tell where they are.
fn pattern(length: u64) -> Vec<u8> {
    (0..length.div_ceil(8)).flat_map(|n| (n ^ 0x5aa5).to_le_bytes()).take(length as usize).collect()
}

/// A file of `length` bytes made by one mount and opened by another.
async fn opened(cluster: &Arc<Cluster>, length: u64, config: VfsConfig) -> (Arc<Vfs>, Fh, Vec<u8>) {
    let (writer, reader) = (cluster.mount(VfsConfig::default()), cluster.mount(config));
    let data = pattern(length);
    let ino = store(&writer, "file", &data).await;
    let fh = reader.open(CALLER, ino, READ).await.unwrap().fh;
    (reader, fh, data)
}

async fn check(vfs: &Vfs, fh: Fh, data: &[u8], offset: u64, length: u64) {
    let got = vfs.read(fh, offset, length as u32).await.unwrap();
    let end = (offset + length).min(data.len() as u64);
    assert!(got == data[offset as usize..end as usize], "{length} bytes from {offset} on");
}

/// Lets everything that was begun in the background end.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

fn asked(cluster: &Cluster) -> u64 {
    cluster.asked_bytes.load(Ordering::SeqCst)
}

/// Reads at random places fetch the 64 KiB that each of them needs, which is the least that can be verified, and
/// nothing else.
#[tokio::test]
async fn random_reads_fetch_only_what_they_need() {
    let cluster = Cluster::new().await;
    let (vfs, fh, data) = opened(&cluster, 16 * BLOB, VfsConfig::default()).await;
    let reads = 300u64;
    let mut place = 12345u64;
    for _ in 0..reads {
        place = place.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let offset = (place >> 20) % (data.len() as u64 / 4096) * 4096;
        check(&vfs, fh, &data, offset, 4096).await;
    }
    settle().await;
    assert!(asked(&cluster) <= reads * CHUNK, "{} bytes were asked for", asked(&cluster));
    assert_eq!(cluster.gets.load(Ordering::SeqCst), 0);
    close(&vfs, fh).await.unwrap();
}

/// Whoever reads a file from its end to its beginning has the next blobs fetched ahead, each once.
#[tokio::test]
async fn a_file_read_backwards_is_fetched_ahead() {
    for block in [64 << 10, 1 << 20, BLOB] {
        let cluster = Cluster::new().await;
        let (vfs, fh, data) = opened(&cluster, 12 * BLOB, VfsConfig::default()).await;
        let mut was_ahead = 0;
        for n in (0..12 * BLOB / block).rev() {
            check(&vfs, fh, &data, n * block, block).await;
            settle().await;
            let read = data.len() as u64 - n * block;
            assert!(asked(&cluster) <= data.len() as u64, "nothing is fetched twice");
            was_ahead += usize::from(asked(&cluster) >= read + BLOB);
        }
        assert!(was_ahead > 0, "blocks of {block}: nothing was fetched ahead");
        assert_eq!(asked(&cluster), data.len() as u64);
        close(&vfs, fh).await.unwrap();
    }
}

/// Whoever reads a part of a file every so many bytes has those parts fetched ahead, and not what is between them.
#[tokio::test]
async fn a_file_read_in_strides_is_fetched_ahead_in_strides() {
    for (stride, length) in [(BLOB / 4, 4096), (3 * BLOB / 2, 128 << 10), (BLOB, 4096)] {
        let cluster = Cluster::new().await;
        let (vfs, fh, data) = opened(&cluster, 12 * BLOB, VfsConfig::default()).await;
        let each = length.max(CHUNK);
        let reads = data.len() as u64 / stride;
        let mut was_ahead = 0;
        for n in 0..reads {
            check(&vfs, fh, &data, n * stride, length).await;
            settle().await;
            was_ahead += usize::from(n > 3 && asked(&cluster) > (n + 1) * each);
        }
        assert!(was_ahead > 0, "strides of {stride}: nothing was fetched ahead");
        // The first read looks like the beginning of a whole file: two blobs are fetched for it.
        let most = reads * each + 2 * BLOB;
        assert!(asked(&cluster) <= most, "strides of {stride}: {} of {most}", asked(&cluster));
        close(&vfs, fh).await.unwrap();
    }
}

/// However much is read in order, what others read again and again stays in the cache.
#[tokio::test]
async fn a_scan_evicts_nothing_from_the_cache() {
    let cluster = Cluster::new().await;
    let config = VfsConfig { cache_bytes_max: 2 * BLOB_BYTES_MAX, ..VfsConfig::default() };
    let (vfs, fh, data) = opened(&cluster, 20 * BLOB, config).await;
    let mut hot = Vec::new();
    for n in 0..10 {
        let content = vec![n as u8; 200 << 10];
        let ino = store(&cluster.mount(VfsConfig::default()), &format!("hot{n}"), &content).await;
        hot.push((vfs.open(CALLER, ino, READ).await.unwrap().fh, content));
    }
    for (fh, content) in &hot {
        check(&vfs, *fh, content, 0, 100 << 10).await;
    }
    for offset in (0..data.len() as u64).step_by(1 << 20) {
        check(&vfs, fh, &data, offset, 1 << 20).await;
    }
    let before = asked(&cluster);
    for (fh, content) in &hot {
        check(&vfs, *fh, content, 100 << 10, 100 << 10).await;
    }
    assert_eq!(asked(&cluster), before, "the hot files were fetched again");
}

/// Many readers share the memory for what is fetched ahead; those who get none read what they ask for, and
/// nothing is fetched in vain.
#[tokio::test]
async fn readers_that_get_no_room_ahead_fetch_nothing_twice() {
    let cluster = Cluster::new().await;
    let config = VfsConfig { readahead_bytes_max: 3 * BLOB_BYTES_MAX, ..VfsConfig::default() };
    let (vfs, first, data) = opened(&cluster, 6 * BLOB, config).await;
    let ino = vfs.lookup(dfs_proto::Ino::ROOT, &crate::name("file")).await.unwrap().ino;
    let mut readers = vec![first];
    for _ in 1..12 {
        readers.push(vfs.open(CALLER, ino, READ).await.unwrap().fh);
    }
    for offset in (0..data.len() as u64).step_by(1 << 20) {
        for fh in &readers {
            check(&vfs, *fh, &data, offset, 1 << 20).await;
        }
    }
    settle().await;
    let most = readers.len() as u64 * data.len() as u64;
    assert!(asked(&cluster) <= most, "{} of {most}", asked(&cluster));
}

/// What was fetched ahead and is out of date by the time that it is read is not used: a read sees what others have
/// closed before it.
#[tokio::test]
async fn what_was_fetched_ahead_of_a_change_is_not_read_after_it() {
    let cluster = Cluster::new().await;
    let (vfs, fh, mut data) = opened(&cluster, 8 * BLOB, VfsConfig::default()).await;
    for offset in [0, 1 << 20] {
        check(&vfs, fh, &data, offset, 1 << 20).await;
    }
    settle().await;
    let writer = cluster.mount(VfsConfig::default());
    let ino = writer.lookup(dfs_proto::Ino::ROOT, &crate::name("file")).await.unwrap().ino;
    let other = writer.open(CALLER, ino, crate::cluster::WRITE).await.unwrap().fh;
    writer.write(other, 2 * BLOB + 77, b"changed", false).await.unwrap();
    close(&writer, other).await.unwrap();
    data[2 * BLOB as usize + 77..][..7].copy_from_slice(b"changed");
    for offset in (0..data.len() as u64).step_by(1 << 20) {
        check(&vfs, fh, &data, offset, 1 << 20).await;
    }
    close(&vfs, fh).await.unwrap();
}

/// Memory that a reader does not come back for goes to those who read.
#[tokio::test(start_paused = true)]
async fn what_was_fetched_for_an_idle_reader_gives_way() {
    let cluster = Cluster::new().await;
    let config = VfsConfig { readahead_bytes_max: 4 * BLOB_BYTES_MAX, ..VfsConfig::default() };
    let (vfs, idle, data) = opened(&cluster, 16 * BLOB, config).await;
    for offset in (0..5 * BLOB).step_by(1 << 20) {
        check(&vfs, idle, &data, offset, 1 << 20).await;
        settle().await;
    }
    tokio::time::advance(std::time::Duration::from_secs(10)).await;
    let ino = vfs.lookup(dfs_proto::Ino::ROOT, &crate::name("file")).await.unwrap().ino;
    let other = vfs.open(CALLER, ino, READ).await.unwrap().fh;
    let gets = cluster.gets.load(Ordering::SeqCst);
    for offset in (0..data.len() as u64).step_by(1 << 20) {
        check(&vfs, other, &data, offset, 1 << 20).await;
        settle().await;
    }
    let fetched = cluster.gets.load(Ordering::SeqCst) - gets;
    assert!(fetched >= 12, "only {fetched} blobs were fetched ahead");
    for offset in (5 * BLOB..data.len() as u64).step_by(1 << 20) {
        check(&vfs, idle, &data, offset, 1 << 20).await;
    }
}
