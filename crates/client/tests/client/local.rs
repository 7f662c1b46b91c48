//! Reading from files of a node on the same host.

use crate::fakes::{Cluster, cluster, config, content};
use crate::wait_for;
use bytes::Bytes;
use dfs_client::checksum::crc32c_chunks;
use dfs_client::local::socket::{Listener, Packets};
use dfs_client::{Blobs, BlobsConfig, DataClient};
use dfs_proto::codec::Encoding;
use dfs_proto::local::{LocalBlob, LocalSocket, PACKET_BYTES_MAX, WhereIs, Whereabouts};
use dfs_proto::{BlobOrigin, BlobRef, CHUNK_BYTES};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Where blobs begin in the file.
const AT: u64 = 1000;

/// A node that passes a file with one blob in it.
struct Near {
    file: Arc<File>,
    asked: Arc<AtomicUsize>,
    /// Whether it knows the blob; else it answers that it be asked by HTTP.
    knows: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

impl Near {
    fn start(cluster: &Cluster, node: u64, blob: BlobRef, data: &Bytes) -> Near {
        let name = format!("dfs-test-{:032x}", rand::random::<u128>());
        let listener = Listener::bind(&name).unwrap();
        cluster.nodes.sockets.lock().insert(node, LocalSocket { name });
        let file = Arc::new(tempfile::tempfile().unwrap());
        file.write_all_at(data, AT).unwrap();
        let (asked, knows) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(true)));
        let place = LocalBlob {
            blob: blob.id,
            file: 1,
            at: AT,
            length: blob.length,
            md5: blob.md5,
            crc32c: crc32c_chunks(data),
            seq: blob.seq,
        };
        let task = tokio::spawn(serve(listener, file.clone(), place, asked.clone(), knows.clone()));
        Near { file, asked, knows, task }
    }

    /// Flips a byte of the blob.
    fn damage(&self, at: u64) {
        let mut byte = [0];
        self.file.read_exact_at(&mut byte, AT + at).unwrap();
        self.file.write_all_at(&[byte[0] ^ 1], AT + at).unwrap();
    }
}

async fn serve(
    listener: Listener,
    file: Arc<File>,
    place: LocalBlob,
    asked: Arc<AtomicUsize>,
    knows: Arc<AtomicBool>,
) {
    let mut readers = tokio::task::JoinSet::new();
    loop {
        let connection = listener.accept().await.unwrap();
        let (file, place, asked, knows) = (file.clone(), place.clone(), asked.clone(), knows.clone());
        readers.spawn(async move {
            while let Ok(Some((packet, _))) = connection.receive(PACKET_BYTES_MAX).await {
                asked.fetch_add(1, Ordering::SeqCst);
                let WhereIs { blob } = Encoding::Postcard.decode(&packet).unwrap();
                let is_here = blob == place.blob && knows.load(Ordering::SeqCst);
                // An answer that nobody waits for any more comes first.
                let other = Whereabouts::AskByHttp(dfs_proto::BlobId {
                    volume: dfs_proto::VolumeId(999),
                    key: dfs_proto::BlobKey(999),
                });
                send(&connection, &other, None).await;
                match is_here {
                    true => send(&connection, &Whereabouts::Here(place.clone()), Some(&file)).await,
                    false => send(&connection, &Whereabouts::AskByHttp(blob), None).await,
                }
            }
        });
    }
}

async fn send(connection: &Packets, answer: &Whereabouts, file: Option<&Arc<File>>) {
    let packet = Encoding::Postcard.encode(answer).unwrap();
    // The reader may be gone.
    let _ = connection.send(&packet, file.map(|file| file.as_fd())).await;
}

/// One blob on one node of one, with its content.
async fn one_blob(length: usize) -> (Cluster, BlobRef, Bytes) {
    let cluster = cluster(1);
    let data = content(length);
    let blob = cluster.blobs.put(data.clone(), BlobOrigin::default()).await.unwrap();
    cluster.nodes.take_calls();
    (cluster, blob, data)
}

#[tokio::test]
async fn whole_blobs_and_ranges_come_from_the_file_and_the_node_is_asked_once() {
    let length = 20 * CHUNK_BYTES + 9;
    let (cluster, blob, data) = one_blob(length).await;
    let near = Near::start(&cluster, 1, blob, &data);
    for _ in 0..3 {
        assert_eq!(cluster.blobs.get(&blob).await.unwrap(), data);
        let range = cluster.blobs.get_range(&blob, 70_000, 5).await.unwrap();
        assert_eq!(range, data.slice(70_000..70_005));
        let last = cluster.blobs.get_range(&blob, length as u32 - 3, 3).await.unwrap();
        assert_eq!(last, data.slice(length - 3..));
    }
    assert!(cluster.nodes.take_calls().is_empty(), "nothing went over the network");
    assert_eq!(near.asked.load(Ordering::SeqCst), 1);
    // What is in the page cache needs no waiting; a file that was just written is.
    let at_hand = cluster.blobs.try_get_range(&blob, 70_000, 5).expect("the place is known");
    assert_eq!(at_hand, data.slice(70_000..70_005));
}

#[tokio::test]
async fn bytes_that_do_not_match_are_never_returned_and_the_node_is_asked_by_http() {
    let (cluster, blob, data) = one_blob(3 * CHUNK_BYTES).await;
    let near = Near::start(&cluster, 1, blob, &data);
    assert_eq!(cluster.blobs.get(&blob).await.unwrap(), data);
    cluster.nodes.take_calls();
    near.damage(10);
    assert_eq!(cluster.blobs.try_get_range(&blob, 0, 100), None);
    assert_eq!(cluster.blobs.get_range(&blob, 0, 100).await.unwrap(), data.slice(..100));
    assert_eq!(cluster.blobs.get(&blob).await.unwrap(), data);
    let calls: Vec<_> = cluster.nodes.take_calls().into_iter().map(|c| c.what).collect();
    assert_eq!(calls, ["get_chunks", "get"]);
    assert!(cluster.master.bad_copies.lock().is_empty(), "a place that is out of date is no bad copy");
    // The other chunks are as they were.
    assert_eq!(cluster.blobs.get_range(&blob, 70_000, 9).await.unwrap(), data.slice(70_000..70_009));
    assert!(cluster.nodes.take_calls().is_empty());
    // A deleted blob's place reads as zeros, or ends.
    near.file.set_len(AT).unwrap();
    assert_eq!(cluster.blobs.get(&blob).await.unwrap(), data);
    near.file.set_len(AT + 3 * CHUNK_BYTES as u64).unwrap();
    assert_eq!(cluster.blobs.get_range(&blob, 70_000, 9).await.unwrap(), data.slice(70_000..70_009));
}

#[tokio::test]
async fn a_node_that_does_not_know_the_blob_or_goes_away_is_asked_by_http() {
    let (cluster, blob, data) = one_blob(100_000).await;
    let near = Near::start(&cluster, 1, blob, &data);
    near.knows.store(false, Ordering::SeqCst);
    assert_eq!(cluster.blobs.get(&blob).await.unwrap(), data);
    assert_eq!(cluster.nodes.take_calls().len(), 1);
    near.task.abort();
    wait_for("the node to be gone", || near.task.is_finished()).await;
    for _ in 0..3 {
        assert_eq!(cluster.blobs.get(&blob).await.unwrap(), data);
    }
    assert_eq!(cluster.nodes.take_calls().len(), 3);
}

#[tokio::test]
async fn a_socket_of_another_host_is_no_matter() {
    let (cluster, blob, data) = one_blob(100_000).await;
    cluster.nodes.sockets.lock().insert(1, LocalSocket { name: "dfs-test-that-nobody-has".into() });
    assert_eq!(cluster.blobs.get(&blob).await.unwrap(), data);
    assert_eq!(cluster.nodes.take_calls().len(), 1);
}

#[tokio::test]
async fn files_are_not_read_when_that_is_switched_off() {
    let (mut cluster, blob, data) = one_blob(100_000).await;
    let near = Near::start(&cluster, 1, blob, &data);
    let config = BlobsConfig { local_reads: false, ..config() };
    cluster.blobs = Blobs::new(cluster.master.clone(), cluster.nodes.clone(), config);
    assert_eq!(cluster.blobs.get(&blob).await.unwrap(), data);
    assert_eq!((cluster.nodes.take_calls().len(), near.asked.load(Ordering::SeqCst)), (1, 0));
}
