//! Connections that break in the middle of a body.

use dfs_e2e::{Fleet, Http, PATIENCE, Setup, noise, wait_for};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn names_in_root(http: &Http) -> Vec<String> {
    let listing = http.get("/files/").await.unwrap().json();
    let entries = listing["entries"].as_array().unwrap();
    entries.iter().map(|e| e["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_is_cut_half_way_leaves_nothing() {
    let fleet = Fleet::start(Setup::default()).await;
    let http = fleet.http();
    let content = noise(1, 6 << 20);
    for (round, half) in [0, 1, 100_000, 4 << 20, (6 << 20) - 1].into_iter().enumerate() {
        let target = format!("/files/folder/cut-{round}.bin");
        // The client goes on listening: it is told.
        let mut stream = http.connect().await.unwrap();
        stream.write_all(&http.head("PUT", &target, &content.len().to_string())).await.unwrap();
        stream.write_all(&content[..half]).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        // A reset is as good as an answer.
        let _ = stream.read_to_end(&mut answer).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 4"), "{text}");
        // The client is gone.
        let mut stream = http.connect().await.unwrap();
        stream.write_all(&http.head("PUT", &target, &content.len().to_string())).await.unwrap();
        stream.write_all(&content[..half]).await.unwrap();
        drop(stream);
        assert_eq!(http.get(&target).await.unwrap().status, 404, "{target}");
    }
    // The same names are free, and nobody comes late.
    for round in 0..5 {
        let target = format!("/files/folder/cut-{round}.bin");
        let answer = http.put(&target, &content).await.unwrap();
        assert_eq!(answer.status, 201, "{}", answer.text());
        assert_eq!(answer.json()["renamed"], false);
    }
    assert_eq!(fleet.status().await.unwrap().files, 5);
    assert_eq!(names_in_root(&http).await, ["folder"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_hang_up_while_they_download_do_no_harm() {
    let fleet = Fleet::start(Setup::default()).await;
    let http = fleet.http();
    let content = noise(2, 24 << 20);
    assert_eq!(http.put("/files/large.bin", &content).await.unwrap().status, 201);
    let mut hanging = Vec::new();
    for round in 0..24 {
        let mut stream = http.connect().await.unwrap();
        stream.write_all(&http.head("GET", "/files/large.bin", "0")).await.unwrap();
        let mut piece = vec![0; 1 + round * 4096];
        stream.read_exact(&mut piece).await.unwrap();
        // Half of them stay without reading on, which must not keep others waiting.
        if round % 2 == 0 {
            hanging.push(stream);
        }
    }
    let answer = http.get("/files/large.bin").await.unwrap();
    assert!(answer.status == 200 && answer.body == content);
    assert_eq!(http.put("/files/other.bin", &content).await.unwrap().status, 201);
    drop(hanging);
    assert_eq!(http.request("DELETE", "/files/large.bin", &[], &[]).await.unwrap().status, 204);
    assert!(http.get("/files/other.bin").await.unwrap().body == content);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_that_is_cut_on_its_way_to_a_node_does_not_keep_the_node_from_work() {
    let fleet = Fleet::start(Setup { nodes: 1, ..Setup::default() }).await;
    let node = Http::new(&fleet.nodes[0].url);
    for _ in 0..40 {
        let mut stream = node.connect().await.unwrap();
        stream.write_all(&node.head("PUT", "/v1/blobs/1/1", "4194304")).await.unwrap();
        // Without a token it may be refused, and closed, before the body has gone out.
        let _ = stream.write_all(&noise(1, 1 << 20)).await;
    }
    let client = fleet.client().await;
    client.put("after.bin", noise(3, 9 << 20)).await.unwrap();
    assert!(client.get("after.bin").await.unwrap() == noise(3, 9 << 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_with_a_wrong_md5_is_refused_and_leaves_nothing() {
    let fleet = Fleet::start(Setup::default()).await;
    let http = fleet.http();
    let content = noise(4, 5 << 20);
    let wrong_hex = ("x-dfs-md5", "00000000000000000000000000000000");
    let wrong_base64 = ("Content-MD5", "AAAAAAAAAAAAAAAAAAAAAA==");
    for header in [wrong_hex, wrong_base64] {
        for target in ["/files/wrong.bin", "/files/new/folders/wrong.bin"] {
            for content in [&content[..], b"small", b""] {
                let answer = http.request("PUT", target, &[header], content).await.unwrap();
                assert_eq!(answer.status, 422, "{}", answer.text());
                assert_eq!(answer.error().code, dfs_proto::ErrorCode::ChecksumMismatch);
                assert_eq!(http.get(target).await.unwrap().status, 404);
            }
        }
    }
    for (header, value) in [("x-dfs-md5", "zz"), ("Content-MD5", "short")] {
        let answer = http.request("PUT", "/files/wrong.bin", &[(header, value)], b"small").await.unwrap();
        assert_eq!(answer.error().code, dfs_proto::ErrorCode::Malformed);
    }
    assert_eq!(names_in_root(&http).await, Vec::<String>::new());
    // The right one is taken.
    let right = dfs_client::checksum::md5(&content).to_string();
    let answer = http.request("PUT", "/files/right.bin", &[("x-dfs-md5", &right)], &content).await.unwrap();
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(fleet.status().await.unwrap().files, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_existing_file_stays_when_its_replacement_is_cut() {
    let fleet = Fleet::start(Setup::default()).await;
    let http = fleet.http();
    assert_eq!(http.put("/files/kept.txt", b"the old one").await.unwrap().status, 201);
    let target = "/files/kept.txt?collision=replace";
    let mut stream = http.connect().await.unwrap();
    stream.write_all(&http.head("PUT", target, "1000000")).await.unwrap();
    stream.write_all(&noise(5, 500_000)).await.unwrap();
    drop(stream);
    let answer = http.request("PUT", target, &[("x-dfs-md5", &"0".repeat(32))], b"x").await.unwrap();
    assert_eq!(answer.status, 422);
    assert_eq!(http.get("/files/kept.txt").await.unwrap().body, b"the old one");
    assert_eq!(http.put(target, b"the new one").await.unwrap().status, 200);
    wait_for("the new content", PATIENCE, async || {
        let body = http.get("/files/kept.txt").await.map_err(|e| e.to_string())?.text();
        if body == "the new one" { Ok(()) } else { Err(body) }
    })
    .await;
}
