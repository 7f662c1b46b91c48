//! A storage node that joins during writes.

use crate::writers::{Writers, nothing_is_lost};
use dfs_e2e::{Fleet, PATIENCE, Setup, wait_for};
use std::time::{Duration, Instant};

/// A new node has data after so long at the latest. Seconds are promised; a busy machine gets some more.
const SECONDS_LATER: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_joins_during_writes_takes_its_share_within_seconds() {
    let mut fleet = Fleet::start(Setup { nodes: 3, ..Setup::default() }).await;
    let mut writers = Writers::start(&fleet).await;
    writers.more(20).await;
    let new = fleet.add_node().await;
    let joined = Instant::now();
    let url = fleet.nodes[new].url.clone();
    wait_for("the new node to have data", SECONDS_LATER, async || {
        writers.more(10).await;
        let nodes = fleet.status().await?.nodes;
        match nodes.iter().find(|node| node.info.url == url) {
            Some(node) if node.used_bytes > 1_000_000 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    eprintln!("the new node had its first MB after {:?}", joined.elapsed());
    writers.more(40).await;
    let acknowledged = writers.finish().await;
    nothing_is_lost(&fleet, &acknowledged).await;
    let mut primaries = vec![0; fleet.nodes.len()];
    for name in acknowledged.keys() {
        primaries[fleet.first_blob(name).await.1[0]] += 1;
    }
    assert!(primaries[new] > 0, "files by primary: {primaries:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_without_nodes_says_so_and_works_from_the_first_one_on() {
    let mut fleet = Fleet::start(Setup { nodes: 0, ..Setup::default() }).await;
    let http = fleet.http();
    // Without data there is nothing to store.
    assert_eq!(http.put("/files/empty", b"").await.unwrap().status, 201);
    fleet.add_node().await;
    wait_for("the first file to be stored", PATIENCE, async || {
        let answer = http.put("/files/first", b"content").await.map_err(|e| e.to_string())?;
        if answer.status == 201 { Ok(()) } else { Err(answer.text()) }
    })
    .await;
    assert_eq!(http.get("/files/first").await.unwrap().body, b"content");
}
