//! Whole files in and out.

use crate::fakes::{Cluster, FILE, Fault, cluster, config, content};
use crate::wait_for;
use bytes::Bytes;
use dfs_client::checksum::md5;
use dfs_client::files::{BLOBS_IN_FLIGHT, OpenFile, Target, Uploaded, open, upload};
use dfs_client::{Blobs, BlobsConfig, ClientError, DataClient};
use dfs_proto::limits::BLOB_BYTES_MAX;
use dfs_proto::meta::{Collision, CommitSize};
use dfs_proto::{BlobOrigin, CollisionPolicy, ErrorCode, Extent, Ino, Name};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::sync::atomic::Ordering;
use std::time::Duration;

fn target() -> Target {
    Target {
        parent: Ino::ROOT,
        name: Name::try_from("a.bin").unwrap(),
        mode: 0o644,
        uid: 0,
        gid: 0,
        collision: Collision::Explicit(CollisionPolicy::Rename),
        expected_md5: None,
        expected_bytes: None,
    }
}

async fn store(cluster: &Cluster, target: Target, data: Bytes) -> Result<Uploaded, ClientError> {
    let pieces: Vec<_> = data.chunks(1_000_003).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
    upload(cluster.master.clone(), cluster.blobs.clone(), target, stream::iter(pieces)).await
}

async fn opened(cluster: &Cluster) -> OpenFile {
    open(cluster.master.clone(), cluster.blobs.clone(), FILE).await.unwrap()
}

async fn read(file: &OpenFile, range: std::ops::Range<u64>) -> Result<Vec<u8>, ClientError> {
    file.read(range)
        .try_fold(Vec::new(), |mut all, piece| async move {
            assert!(!piece.is_empty() && piece.len() <= BLOB_BYTES_MAX);
            all.extend_from_slice(&piece);
            Ok(all)
        })
        .await
}

#[tokio::test]
async fn what_is_uploaded_comes_back_from_any_range() {
    let mut cluster = cluster(3);
    // Megabytes are hashed by the real clock: no matter how long that takes on a busy machine.
    let patient =
        BlobsConfig { get_try: Duration::from_secs(60), put_try: Duration::from_secs(60), ..config() };
    let patient = BlobsConfig { put_deadline: Duration::from_secs(120), ..patient };
    cluster.blobs = Blobs::new(cluster.master.clone(), cluster.nodes.clone(), patient);
    let data = content(2 * BLOB_BYTES_MAX + 12_345);
    let length = data.len() as u64;
    let stored = store(&cluster, target(), data.clone()).await.unwrap();
    assert_eq!(
        (stored.bytes, stored.md5, stored.renamed, stored.replaced),
        (length, md5(&data), false, false)
    );
    let commit = cluster.master.commits.lock()[0].clone();
    assert_eq!(commit.size, CommitSize::Exactly(length));
    assert_eq!((commit.md5, commit.extents.len()), (Some(md5(&data)), 3));

    let file = opened(&cluster).await;
    let blob = BLOB_BYTES_MAX as u64;
    for range in
        [0..length, 0..1, blob - 3..blob + 3, length - 1..length, 5..length + 100, length..length + 1, 9..9]
    {
        let wanted = data.slice(range.start.min(length) as usize..range.end.min(length) as usize);
        assert!(read(&file, range.clone()).await.unwrap() == wanted, "{range:?}");
    }
    assert_eq!(file.content_md5().await.unwrap(), md5(&data));
}

#[tokio::test]
async fn small_and_empty_files_are_stored_with_their_md5() {
    for length in [0, 1, 70_000, BLOB_BYTES_MAX] {
        let cluster = cluster(1);
        let data = content(length);
        let expected =
            Target { expected_md5: Some(md5(&data)), expected_bytes: Some(length as u64), ..target() };
        let stored = store(&cluster, expected, data.clone()).await.unwrap();
        assert_eq!(stored.md5, md5(&data), "{length}");
        assert_eq!(cluster.master.file.lock().len(), usize::from(length > 0));
        assert!(read(&opened(&cluster).await, 0..length as u64).await.unwrap() == data);
    }
}

#[tokio::test]
async fn wrong_content_is_not_published() {
    let data = content(BLOB_BYTES_MAX + 10);
    let length = data.len() as u64;
    let wrong_md5 = Target { expected_md5: Some(md5(b"other")), ..target() };
    let too_short = Target { expected_bytes: Some(length + 1), ..target() };
    let too_long = Target { expected_bytes: Some(length - 1), ..target() };
    let cases = [
        (wrong_md5, ErrorCode::ChecksumMismatch),
        (too_short, ErrorCode::Truncated),
        (too_long, ErrorCode::InvalidArgument),
    ];
    for (target, code) in cases {
        let cluster = cluster(2);
        assert_eq!(store(&cluster, target, data.clone()).await.unwrap_err().code(), code);
        assert!(cluster.master.commits.lock().is_empty(), "{code}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_published() {
    let cluster = cluster(2);
    let broken = ClientError::local(ErrorCode::Truncated, "the sender went away");
    let body = stream::iter([Ok(content(1000)), Err(broken)]);
    let result = upload(cluster.master.clone(), cluster.blobs.clone(), target(), body).await;
    assert_eq!(result.unwrap_err().code(), ErrorCode::Truncated);
    assert!(cluster.master.commits.lock().is_empty());
}

#[tokio::test]
async fn an_upload_says_whether_it_replaced_a_file() {
    let cluster = cluster(1);
    *cluster.master.taken_name.lock() = Some(target().name);
    let replace = Target { collision: Collision::Explicit(CollisionPolicy::Replace), ..target() };
    assert!(store(&cluster, replace, content(10)).await.unwrap().replaced);
}

#[tokio::test(start_paused = true)]
async fn at_most_a_few_blobs_of_a_stream_are_in_flight() {
    let cluster = cluster(3);
    cluster.nodes.delay_ms.store(50, Ordering::SeqCst);
    let data = content(8 * BLOB_BYTES_MAX);
    store(&cluster, target(), data.clone()).await.unwrap();
    assert_eq!(cluster.nodes.most_running.swap(0, Ordering::SeqCst), BLOBS_IN_FLIGHT);
    assert!(read(&opened(&cluster).await, 0..data.len() as u64).await.unwrap() == data);
    assert_eq!(cluster.nodes.most_running.load(Ordering::SeqCst), BLOBS_IN_FLIGHT);
}

/// A file of blobs of 1000 bytes at these offsets.
async fn sparse(cluster: &Cluster, offsets: &[u64]) {
    let mut extents = Vec::new();
    for offset in offsets {
        let blob = cluster.blobs.put(content(1000), BlobOrigin::default()).await.unwrap();
        extents.push(Extent { offset: *offset, length: 900, blob: Some(blob), blob_offset: 50 });
    }
    *cluster.master.file.lock() = extents;
}

#[tokio::test]
async fn holes_are_zeros_and_extents_come_page_by_page() {
    let cluster = cluster(2);
    let offsets = [100, 1000, 5000, 700_000, 2_000_000];
    sparse(&cluster, &offsets).await;
    let mut wanted = vec![0u8; 2_000_900];
    for offset in offsets {
        wanted[offset as usize..offset as usize + 900].copy_from_slice(&content(1000)[50..950]);
    }
    for page in [1, 2, 4096] {
        cluster.master.page_extents.store(page, Ordering::SeqCst);
        let file = opened(&cluster).await;
        for range in [0..2_000_900, 950..1001, 699_999..700_001, 1_999_000..2_000_000] {
            let part = &wanted[range.start as usize..range.end as usize];
            assert!(read(&file, range.clone()).await.unwrap() == part, "{range:?}, pages of {page}");
        }
    }
}

#[tokio::test]
async fn a_file_that_changes_between_pages_is_stale() {
    let cluster = cluster(2);
    sparse(&cluster, &[0, 1000, 2000]).await;
    cluster.master.page_extents.store(1, Ordering::SeqCst);
    let file = opened(&cluster).await;
    cluster.master.file_version.store(2, Ordering::SeqCst);
    assert_eq!(read(&file, 0..2900).await.unwrap_err().code(), ErrorCode::Stale);
}

#[tokio::test]
async fn the_master_hears_of_the_close_after_the_last_stream() {
    let cluster = cluster(1);
    // More than is fetched ahead.
    let offsets: Vec<u64> = (0..10).map(|n| n * 900).collect();
    sparse(&cluster, &offsets).await;
    let file = opened(&cluster).await;
    let mut body = Box::pin(file.read(0..9000));
    drop(file);
    assert_eq!(body.next().await.unwrap().unwrap().len(), 900);
    assert_eq!(cluster.master.closes.load(Ordering::SeqCst), 0);
    drop(body);
    wait_for("the close", || cluster.master.closes.load(Ordering::SeqCst) == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_blob_without_a_good_copy_ends_the_stream_with_its_error() {
    let cluster = cluster(1);
    sparse(&cluster, &[0, 1000]).await;
    let file = opened(&cluster).await;
    cluster.nodes.set(1, Fault::Flips);
    assert_eq!(read(&file, 0..1900).await.unwrap_err().code(), ErrorCode::NoGoodCopy);
}
