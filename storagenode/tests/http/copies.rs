//! Pull, sync and repair between nodes.

use crate::support::*;
use bytes::Bytes;
use dfs_client::{ClientError, NodeClient};
use dfs_proto::blob::{PullReply, PullRequest};
use dfs_proto::{ErrorCode, Seq, VolumeId};
use dfs_service::Rights;

async fn pull(to: &Node, from: &Node, master: &Master, at_least: u64) -> Result<PullReply, ClientError> {
    let request = PullRequest { source: from.url.clone(), at_least: Seq(at_least), sync: true };
    to.client.pull(&to.url, V, &request, &master.token(Rights::Pull, V)).await
}

async fn pair(master: &Master) -> (Node, Node) {
    (Node::primary(master, 1).await, Node::start(master, 2).await)
}

async fn fill(node: &Node, master: &Master, keys: std::ops::RangeInclusive<u64>) -> Vec<Bytes> {
    let mut all = Vec::new();
    for key in keys {
        let data = content(key, if key.is_multiple_of(10) { 3 << 20 } else { 2000 });
        node.put(master, key, &data).await.unwrap();
        all.push(data);
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_copies_the_log_and_the_copy_can_be_copied() {
    let master = Master::start();
    let (first, second) = pair(&master).await;
    let data = fill(&first, &master, 1..=40).await;
    let reply = pull(&second, &first, &master, 40).await.unwrap();
    assert_eq!((reply.seq, reply.records), (Seq(40), 40));
    assert!(reply.bytes > 12 << 20);
    assert_eq!(status(&second, V).await, status(&first, V).await);
    let again = pull(&second, &first, &master, 40).await.unwrap();
    assert_eq!((again.seq, again.records, again.bytes), (Seq(40), 0, 0));
    let third = Node::start(&master, 3).await;
    pull(&third, &second, &master, 40).await.unwrap();
    for (key, data) in (1..).zip(&data) {
        assert_eq!(third.get(key).await.unwrap(), *data);
    }
    wait_for("the master hears how far the copy reaches", async || {
        let books = master.books.lock().unwrap();
        books.copies.get(&(second.id, V)).is_some_and(|c| c.seq == Seq(40))
    })
    .await;
    let token = master.token(Rights::Pull, V);
    assert_eq!(second.client.sync(&second.url, V, Seq(40), &token).await.unwrap().seq, Seq(40));
    assert_eq!(code(second.client.sync(&second.url, V, Seq(41), &token).await), ErrorCode::Unavailable);
    let other = VolumeId(99);
    let token = master.token(Rights::Pull, other);
    assert_eq!(code(second.client.sync(&second.url, other, Seq(0), &token).await), ErrorCode::UnknownVolume);
}

#[tokio::test(flavor = "multi_thread")]
async fn pulls_at_the_same_time_copy_everything_once() {
    let master = Master::start();
    let (first, second) = pair(&master).await;
    fill(&first, &master, 1..=30).await;
    let pulls = (0..6).map(|_| pull(&second, &first, &master, 30));
    let replies = futures_util::future::join_all(pulls).await;
    let records: u64 = replies.into_iter().map(|r| r.unwrap().records).sum();
    assert_eq!(records, 30);
}

/// Begins a PUT of a large blob and sends nothing of it: the node is busy with a client until the socket is closed.
fn stalled_put(node: &Node, master: &Master, volume: VolumeId) -> std::net::TcpStream {
    use std::io::{Read, Write};
    let mut socket = std::net::TcpStream::connect(node.url.strip_prefix("http://").unwrap()).unwrap();
    let (token, md5) = (master.token(Rights::Append, volume), "0".repeat(32));
    let head = format!(
        "PUT /v1/blobs/{volume}/1 HTTP/1.1\r\nhost: node\r\nx-dfs-token: {token}\r\nx-dfs-md5: {md5}\r\n\
         content-length: 4194304\r\nexpect: 100-continue\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).unwrap();
    // The node asks for the body once it has begun to take it in.
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100");
    socket
}

/// A copy that nobody waits for stands back while a client is at work; one that an fsync waits for does not, and is
/// not held up by the other. However long clients work, the copy is made in the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_background_pull_stands_back_for_clients_and_is_made_in_the_end() {
    let master = Master::start();
    let own = VolumeId(7);
    master.open(dfs_proto::NodeId(2), &[own]);
    let (first, second) = pair(&master).await;
    fill(&first, &master, 1..=20).await;
    let client = stalled_put(&second, &master, own);
    let request = PullRequest { source: first.url.clone(), at_least: Seq(20), sync: false };
    let token = master.token(Rights::Pull, V);
    let mut background = std::pin::pin!(second.client.pull(&second.url, V, &request, &token));
    let waited_for = tokio::select! {
        biased;
        early = &mut background => panic!("it did not stand back: {early:?}"),
        reply = pull(&second, &first, &master, 10) => reply.unwrap(),
    };
    assert!(waited_for.seq >= Seq(10));
    assert_eq!(background.await.unwrap().seq, Seq(20));
    drop(client);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_cannot_be_done_says_why() {
    let master = Master::start();
    let (first, second) = pair(&master).await;
    assert_eq!(code(pull(&second, &first, &master, 1).await), ErrorCode::UnknownVolume);
    fill(&first, &master, 1..=2).await;
    assert_eq!(code(pull(&second, &first, &master, 5).await), ErrorCode::Unavailable);
    assert_eq!(status(&second, V).await.seq, Seq(2), "what there was is kept");
    assert_eq!(code(pull(&first, &second, &master, 5).await), ErrorCode::NotPermitted);
    let request = PullRequest { source: "http://127.0.0.1:1".into(), at_least: Seq(9), sync: false };
    let token = master.token(Rights::Pull, V);
    let refused = second.client.pull(&second.url, V, &request, &token).await;
    assert_eq!(code(refused), ErrorCode::Unreachable);
    let wrong = master.token(Rights::Pull, VolumeId(9));
    assert_eq!(code(second.client.pull(&second.url, V, &request, &wrong).await), ErrorCode::Unauthorized);
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_and_damaged_records_do_not_stop_a_pull() {
    let master = Master::start();
    let (first, second) = pair(&master).await;
    let data = fill(&first, &master, 1..=9).await;
    let delete = master.token(Rights::Delete, VolumeId(0));
    first.client.delete(&first.url, &[blob(1), blob(4), blob(5), blob(9)], &delete).await.unwrap();
    first.damage(&data[6]);
    let reply = pull(&second, &first, &master, 9).await.unwrap();
    assert_eq!(reply.seq, Seq(9));
    for key in [2, 3, 6, 8] {
        assert_eq!(second.get(key).await.unwrap(), data[key as usize - 1]);
    }
    assert_eq!(code(second.get(4).await), ErrorCode::NotFound);
    assert_eq!(code(second.get(7).await), ErrorCode::Corrupt);
    wait_for("both report the damaged blob", async || {
        let books = master.books.lock().unwrap();
        books.bad.iter().filter(|id| **id == blob(7)).count() == 2
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_replaces_what_is_damaged_or_missing() {
    let master = Master::start();
    let (first, mut second) = pair(&master).await;
    let data = fill(&first, &master, 1..=3).await;
    pull(&second, &first, &master, 3).await.unwrap();
    let token = master.token(Rights::Pull, V);
    second.damage(&data[1]);
    assert_eq!(code(second.get(2).await), ErrorCode::Corrupt);
    second.client.repair(&second.url, blob(2), &first.url, &token).await.unwrap();
    assert_eq!(second.get(2).await.unwrap(), data[1]);
    assert!(second.client.check(&second.url, blob(2)).await.unwrap().whole);
    // A good one stays, also when the source is of no use.
    second.client.repair(&second.url, blob(2), "http://127.0.0.1:1", &token).await.unwrap();
    assert_eq!(status(&second, V).await, status(&first, V).await);
    // The primary can be repaired from its copy as well.
    first.damage(&data[2]);
    first.client.repair(&first.url, blob(3), &second.url, &token).await.unwrap();
    assert_eq!(first.get(3).await.unwrap(), data[2]);
    second.stop().await;
    let second = Node::start_in(&master, 2, second.dir.clone()).await;
    for key in 1..=3 {
        assert_eq!(second.get(key).await.unwrap(), data[key as usize - 1]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repair_from_a_damaged_source_changes_nothing() {
    let master = Master::start();
    let (first, second) = pair(&master).await;
    let data = fill(&first, &master, 1..=2).await;
    pull(&second, &first, &master, 2).await.unwrap();
    first.damage(&data[0]);
    second.damage(&data[0]);
    let token = master.token(Rights::Pull, V);
    let repair = second.client.repair(&second.url, blob(1), &first.url, &token).await;
    assert_eq!(code(repair), ErrorCode::Corrupt);
    let wrong = master.token(Rights::Delete, V);
    let repair = second.client.repair(&second.url, blob(1), &first.url, &wrong).await;
    assert_eq!(code(repair), ErrorCode::Unauthorized);
    assert_eq!(second.get(2).await.unwrap(), data[1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_given_up_on_the_masters_word_and_never_by_the_one_that_appends() {
    let master = Master::start();
    let (first, second) = pair(&master).await;
    let data = fill(&first, &master, 1..=12).await;
    pull(&second, &first, &master, 12).await.unwrap();
    let delete = master.token(Rights::Delete, VolumeId(0));
    let refused = second.client.drop_copy(&second.url, V, &master.token(Rights::Pull, V)).await;
    assert_eq!(code(refused), ErrorCode::Unauthorized);
    assert_eq!(code(first.client.drop_copy(&first.url, V, &delete).await), ErrorCode::NotPermitted);
    assert!(second.client.drop_copy(&second.url, V, &delete).await.unwrap());
    assert!(!second.client.drop_copy(&second.url, V, &delete).await.unwrap());
    assert_eq!(code(second.get(1).await), ErrorCode::NotFound);
    // It can be had again, from the beginning.
    pull(&second, &first, &master, 12).await.unwrap();
    for (key, data) in (1..).zip(&data) {
        assert_eq!(second.get(key).await.unwrap(), *data);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scrubbing_finds_damage_that_nobody_reads_and_goes_on_after_a_restart() {
    let master = Master::start();
    let mut node = Node::primary(&master, 1).await;
    let data = fill(&node, &master, 1..=20).await;
    node.damage(&data[12]);
    node.stop().await;
    let dir = node.dir.clone();
    let mut config = dfs_storagenode::Config::new(&master.url, dir.path());
    config.scrub_every = std::time::Duration::from_secs(1);
    // The first run of the process went through before the damage was done.
    let node = Node::start_with(config, 1, dir).await;
    wait_for("the damage is reported", async || master.books.lock().unwrap().bad.contains(&blob(13))).await;
    wait_for("a whole round is reported", async || {
        let books = master.books.lock().unwrap();
        let scrub = books.heartbeats.last().map(|beat| beat.scrub).unwrap_or_default();
        scrub.finished_ms >= scrub.began_ms && scrub.found == 1 && scrub.verified_bytes > 6 << 20
    })
    .await;
    let kept = std::fs::read_to_string(node.dir.path().join("scrub.json")).unwrap();
    assert!(kept.contains("\"found\":1"), "{kept}");
}
