//! Storage nodes that die or hang.

use dfs_client::checksum::md5;
use dfs_e2e::{Fleet, PATIENCE, Setup, noise, wait_for};
use futures_util::StreamExt;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_read_from_its_replica_when_its_primary_is_killed_and_the_node_is_used_again_later() {
    let mut fleet = Fleet::start(Setup::default()).await;
    let content = noise(1, 3 << 20);
    let client = fleet.client().await;
    client.put("report.txt", content.clone()).await.unwrap();
    fleet.wait_whole("report.txt").await;
    let (_, places) = fleet.first_blob("report.txt").await;
    let primary = places[0];

    fleet.nodes[primary].process.kill9();
    // The one that knows where everything is, one that knows nothing, and the gateway.
    assert!(client.get("report.txt").await.unwrap() == content);
    assert!(fleet.client().await.get("report.txt").await.unwrap() == content);
    let answer = fleet.http().get("/files/report.txt").await.unwrap();
    assert!(answer.status == 200 && answer.body == content, "{} {}", answer.status, answer.body.len());

    fleet.restart_node(primary).await;
    fleet.wait_live(3).await;
    let mut n = 0;
    wait_for("the node to be primary of new files", PATIENCE, async || {
        n += 1;
        let name = format!("later-{n}.txt");
        client.put(&name, noise(n, 1000)).await.map_err(|e| e.to_string())?;
        match fleet.first_blob(&name).await.1.first() {
            Some(at) if *at == primary => Ok(()),
            other => Err(format!("{name} is on {other:?}")),
        }
    })
    .await;
    fleet.wait_replicated().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn puts_and_gets_go_on_while_a_node_hangs() {
    let fleet = Fleet::start(Setup::default()).await;
    let client = fleet.client().await;
    let mut names = Vec::new();
    for i in 0..12 {
        let name = format!("before-{i}.bin");
        client.put(&name, noise(i, 200_000)).await.unwrap();
        names.push((name, i));
    }
    fleet.wait_replicated().await;
    fleet.nodes[1].process.stop();
    let other = fleet.client().await;
    for i in 100..112 {
        let name = format!("meanwhile-{i}.bin");
        let by = if i % 2 == 0 { &client } else { &other };
        by.put(&name, noise(i, 200_000)).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        names.push((name, i));
    }
    let answer = fleet.http().put("/files/gateway.bin", &noise(200, 200_000)).await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text());
    names.push(("gateway.bin".into(), 200));
    for (name, seed) in &names {
        let got = other.read_md5(name).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(got, md5(&noise(*seed, 200_000)), "{name}");
    }
    fleet.nodes[1].process.cont();
    fleet.wait_live(3).await;
    fleet.wait_replicated().await;
    for (name, _) in &names {
        fleet.wait_whole(name).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_node_of_five_takes_the_writes_and_the_others_get_copies_when_they_return() {
    let mut fleet = Fleet::start(Setup { nodes: 5, ..Setup::default() }).await;
    let client = fleet.client().await;
    client.put("before.bin", noise(0, 100_000)).await.unwrap();
    for i in 1..5 {
        fleet.nodes[i].process.kill9();
    }
    for i in 1..=10 {
        let name = format!("alone-{i}.bin");
        client.put(&name, noise(i, 100_000)).await.unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    let answer = fleet.http().put("/files/alone-11.bin", &noise(11, 100_000)).await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text());
    fleet.wait_live(1).await;
    client.put("alone-12.bin", noise(12, 100_000)).await.unwrap();
    for i in 1..5 {
        fleet.restart_node(i).await;
    }
    fleet.wait_live(5).await;
    fleet.wait_replicated().await;
    for i in 1..=12 {
        fleet.wait_whole(&format!("alone-{i}.bin")).await;
    }
    // The one that took them may go now.
    fleet.nodes[0].process.kill9();
    let other = fleet.client().await;
    for i in 1..=12 {
        let name = format!("alone-{i}.bin");
        let got = other.read_md5(&name).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(got, md5(&noise(i, 100_000)), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_download_goes_on_from_other_copies_when_a_node_dies_in_its_midst() {
    let mut fleet = Fleet::start(Setup::default()).await;
    let client = fleet.client().await;
    let content = noise(3, 48 << 20);
    client.put("large.bin", content.clone()).await.unwrap();
    fleet.wait_whole("large.bin").await;
    let reader = fleet.client().await;
    let file = reader.open("large.bin").await.unwrap();
    let mut pieces = std::pin::pin!(file.read(0..file.attr.size));
    let mut got = pieces.next().await.unwrap().unwrap().to_vec();
    // Twelve blobs, of which a stream has a few at a time; each node is primary of some with near certainty,
    // and every blob that this node has is on another.
    fleet.nodes[0].process.kill9();
    while let Some(piece) = pieces.next().await {
        got.extend_from_slice(&piece.unwrap());
    }
    assert!(got == content, "{} bytes came", got.len());
}
