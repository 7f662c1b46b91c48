//! Bytes that change on a disk.

use dfs_client::{HttpNodes, NodeClient};
use dfs_e2e::{Fleet, PATIENCE, Setup, noise, wait_for};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Bytes of the content that are looked for on the disk.
const NEEDLE: std::ops::Range<usize> = 150_000..150_064;

/// Where `needle` is in the files below `folder`.
fn find(folder: &Path, needle: &[u8]) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(find(&path, needle));
        } else {
            // A file that was there a moment ago may be gone.
            let bytes = fs::read(&path).unwrap_or_default();
            let places = bytes.windows(needle.len()).enumerate().filter(|(_, window)| *window == needle);
            found.extend(places.map(|(at, _)| (path.clone(), at as u64)));
        }
    }
    found
}

fn flip_a_byte(folder: &Path, needle: &[u8]) {
    let places = find(folder, needle);
    assert_eq!(places.len(), 1, "the record is once in {}: {places:?}", folder.display());
    let (path, at) = &places[0];
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(&[needle[0] ^ 0x10], *at).unwrap();
}

/// Damages the copy of the node that `pick` chooses among those that have the file, reads the file by every
/// way, and waits until the copy is replaced.
async fn damaged_copy_is_never_seen_and_replaced(pick: usize) {
    let fleet = Fleet::start(Setup::default()).await;
    let content = noise(5, 400_000);
    let needle = &content[NEEDLE];
    fleet.client().await.put("report.bin", content.clone()).await.unwrap();
    fleet.wait_whole("report.bin").await;
    let (blob, places) = fleet.first_blob("report.bin").await;
    let node = &fleet.nodes[places[pick]];
    flip_a_byte(&node.data, needle);

    for _ in 0..4 {
        assert!(fleet.client().await.get("report.bin").await.unwrap() == content);
        let answer = fleet.http().get("/files/report.bin").await.unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.body == content);
        let range = [("Range", "bytes=149990-150100")];
        let answer = fleet.http().request("GET", "/files/report.bin", &range, &[]).await.unwrap();
        assert_eq!(answer.status, 206);
        assert!(answer.body == content[149_990..=150_100]);
    }
    let nodes = HttpNodes::new(Duration::from_secs(5)).unwrap();
    wait_for("the damaged copy to be replaced", PATIENCE, async || {
        match nodes.check(&node.url, blob.id).await {
            Ok(reply) if reply.whole => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(!find(&node.data, needle).is_empty(), "the right bytes are on the node's disk");
    assert!(nodes.get(&node.url, blob.id).await.unwrap().data[..] == content[..]);
    fleet.wait_replicated().await;
    fleet.wait_whole("report.bin").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_byte_flipped_on_the_primary_is_never_seen_and_the_record_is_replaced() {
    damaged_copy_is_never_seen_and_replaced(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_byte_flipped_on_a_replica_is_never_seen_and_the_record_is_replaced() {
    damaged_copy_is_never_seen_and_replaced(1).await;
}
