//! `/files` of a master with real storage nodes.

// Helpers are no test functions to clippy; a failed unwrap is a failed test here.
#![allow(clippy::unwrap_used)]

mod support;

use dfs_master::SharedClock;
use dfs_proto::blob::CopyStatus;
use dfs_proto::status::LayoutReply;
use dfs_proto::{ErrorCode, NodeState};
use dfs_service::{Running, SystemClock};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use support::*;

/// A master and real nodes.
struct Cluster {
    h: Harness,
    nodes: Vec<(Running, tempfile::TempDir)>,
}

impl Cluster {
    async fn start(nodes: usize) -> Cluster {
        let h = Harness::with(|c| {
            c.clock = SharedClock(Arc::new(SystemClock::default()));
            c.heartbeat_ms = 100;
            c.garbage_grace_ms = 100;
        })
        .await;
        let mut cluster = Cluster { h, nodes: Vec::new() };
        for _ in 0..nodes {
            let dir = tempfile::tempdir().unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let config = dfs_storagenode::Config::new(format!("http://{}", cluster.h.at), dir.path());
            cluster.nodes.push((dfs_storagenode::start(config, listener).await.unwrap(), dir));
        }
        eventually("live nodes", || async {
            let status = cluster.h.status().await;
            let live = status.nodes.iter().filter(|n| n.info.state == NodeState::Live).count();
            (live == nodes).then_some(())
        })
        .await;
        cluster
    }

    async fn put(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        request(self.h.at, "PUT", path, headers, body).await
    }

    async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        request(self.h.at, "GET", path, headers, &[]).await
    }

    async fn stop(mut self) {
        self.h.stop().await;
        for (node, _) in self.nodes {
            node.stop(std::time::Duration::from_secs(5)).await;
        }
    }
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u8
    };
    (0..bytes).map(|_| next()).collect()
}

/// The content of an answer in chunks or with a length.
fn content(answer: &Answer) -> &[u8] {
    assert!(answer.header("transfer-encoding").is_none(), "{}", answer.head);
    &answer.body
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_put_comes_back_whole_and_in_ranges() {
    let c = Cluster::start(2).await;
    let body = noise((9 << 20) + 12_345);
    let stored = c.put("/files/dir/sub/big.bin", &[], &body).await;
    assert_eq!(stored.status, 201, "{stored:?}");
    let stored: Value = stored.json();
    assert_eq!(stored["path"], "/dir/sub/big.bin");
    assert_eq!((&stored["stored_as"], &stored["renamed"]), (&"big.bin".into(), &false.into()));
    assert_eq!(stored["size"], body.len());

    let whole = c.get("/files/dir/sub/big.bin", &[]).await;
    assert_eq!(whole.status, 200);
    assert!(content(&whole) == body, "{} bytes", whole.body.len());
    assert_eq!(whole.header("x-dfs-md5").unwrap(), stored["md5"]);
    let etag = whole.header("etag").unwrap();
    let modified = whole.header("last-modified").unwrap();

    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=4194300-4194310", 4_194_300, 4_194_311),
        ("bytes=-5", body.len() - 5, body.len()),
        ("bytes=9000000-", 9_000_000, body.len()),
    ] {
        let part = c.get("/files/dir/sub/big.bin", &[("range", range)]).await;
        assert_eq!(part.status, 206);
        assert!(content(&part) == &body[from..to], "{range}");
        let expected = format!("bytes {from}-{}/{}", to - 1, body.len());
        assert_eq!(part.header("content-range").unwrap(), expected);
    }
    for (headers, status) in [
        (vec![("if-none-match", etag.as_str())], 304),
        (vec![("if-match", "\"1-1\"")], 412),
        (vec![("if-match", etag.as_str())], 200),
        (vec![("range", "bytes=99999999-")], 416),
        (vec![("range", "bytes=0-9"), ("if-range", "\"0-0\"")], 200),
        (vec![("range", "bytes=0-9"), ("if-range", modified.as_str())], 206),
    ] {
        assert_eq!(c.get("/files/dir/sub/big.bin", &headers).await.status, status, "{headers:?}");
    }
    let head = request(c.h.at, "HEAD", "/files/dir/sub/big.bin", &[], &[]).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(head.header("content-length").unwrap(), body.len().to_string());
    assert_eq!(head.header("etag").unwrap(), etag);
    c.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_names_empty_files_and_collisions() {
    let c = Cluster::start(1).await;
    let long = format!("/files/{}", "%C3%A9".repeat(127));
    for path in [
        "/files/no-extension",
        "/files/%22double%22",
        "/files/'single'",
        "/files/%ff%fe",
        "/files/100%25",
        "/files/a%20b.txt",
        long.as_str(),
    ] {
        let body = path.as_bytes();
        assert_eq!(c.put(path, &[], body).await.status, 201, "{path}");
        assert_eq!(content(&c.get(path, &[]).await), body, "{path}");
    }
    assert_eq!(c.put("/files/empty", &[], b"").await.status, 201);
    let empty = c.get("/files/empty", &[]).await;
    assert_eq!((empty.status, empty.body.len()), (200, 0));
    assert_eq!(empty.header("x-dfs-md5").unwrap(), "d41d8cd98f00b204e9800998ecf8427e");

    for (query, body, status, stored_as, renamed) in [
        ("", "one", 201, "d.txt", false),
        ("", "two", 201, "d-1.txt", true),
        ("?collision=replace", "three", 200, "d.txt", false),
        ("?collision=rename", "four", 201, "d-2.txt", true),
        ("?collision=replace", "five", 200, "d.txt", false),
    ] {
        let answer = c.put(&format!("/files/d.txt{query}"), &[], body.as_bytes()).await;
        assert_eq!(answer.status, status, "{body}: {answer:?}");
        let stored: Value = answer.json();
        assert_eq!((&stored["stored_as"], &stored["renamed"]), (&stored_as.into(), &renamed.into()));
        assert_eq!(content(&c.get(&format!("/files/{stored_as}"), &[]).await), body.as_bytes());
    }
    assert_eq!(content(&c.get("/files/d-1.txt", &[]).await), b"two");
    c.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_checksums_leave_nothing_behind() {
    let c = Cluster::start(1).await;
    let wrong = "00000000000000000000000000000000";
    // RFC 1321's MD5 of "abc", in both forms.
    let (hex, base64) = ("900150983cd24fb0d6963f7d28e17f72", "kAFQmDzST7DWlj99KOF/cg==");
    for (header, value, status) in [
        ("x-dfs-md5", wrong, 422),
        ("content-md5", "1B2M2Y8AsgTpgAmY7PhCfg==", 422),
        ("content-md5", "nonsense", 400),
        ("x-dfs-md5", "nonsense", 400),
    ] {
        let answer = c.put("/files/new/dir/f", &[(header, value)], b"abc").await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(matches!(answer.error().code, ErrorCode::ChecksumMismatch | ErrorCode::Malformed));
    }
    let status = c.h.status().await;
    assert_eq!((status.files, status.directories), (0, 1));
    for (header, value) in [("x-dfs-md5", hex), ("content-md5", base64)] {
        assert_eq!(c.put("/files/new/dir/f", &[(header, value)], b"abc").await.status, 201);
    }
    let status = c.h.status().await;
    assert_eq!((status.files, status.directories), (2, 3));
    c.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_breaks_off_is_not_stored() {
    let c = Cluster::start(1).await;
    let at = c.h.at;
    let cut = |head: &'static str, body: Vec<u8>| {
        tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(at).unwrap();
            write!(stream, "PUT /files/cut/f HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n").unwrap();
            stream.write_all(&body).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            // Whatever it answers: it has seen the end of the connection then.
            let _ = stream.read_to_end(&mut Vec::new());
        })
    };
    cut("content-length: 20000000", noise(6 << 20)).await.unwrap();
    cut("transfer-encoding: chunked", b"100000\r\nnot so many".to_vec()).await.unwrap();
    // A later request of the same kind is served, and only that is there.
    assert_eq!(c.put("/files/after", &[], b"x").await.status, 201);
    let status = c.h.status().await;
    assert_eq!((status.files, status.directories), (1, 1));

    let chunked = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(at).unwrap();
        let head =
            "PUT /files/chunked HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked";
        write!(stream, "{head}\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    });
    assert!(chunked.await.unwrap().starts_with("HTTP/1.1 201"));
    assert_eq!(content(&c.get("/files/chunked", &[]).await), b"hello world");
    c.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_are_made_listed_in_pages_and_removed() {
    let c = Cluster::start(1).await;
    assert_eq!(c.put("/files/a/b/?kind=directory", &[], b"").await.status, 201);
    assert_eq!(c.put("/files/a/b/?kind=directory", &[], b"").await.status, 200);
    for n in 0..7 {
        assert_eq!(c.put(&format!("/files/a/f{n}"), &[], b"x").await.status, 201);
    }
    let mut names = Vec::new();
    let mut after = 0;
    loop {
        let page: Value = c.get(&format!("/files/a/?limit=3&after={after}"), &[]).await.json();
        assert_eq!(page["path"], "/a");
        let entries = page["entries"].as_array().unwrap();
        assert!(entries.len() <= 3);
        names.extend(entries.iter().map(|e| e["name"].as_str().unwrap().to_owned()));
        match page["next"].as_u64() {
            Some(next) => after = next,
            None => break,
        }
    }
    names.sort();
    assert_eq!(names, ["b", "f0", "f1", "f2", "f3", "f4", "f5", "f6"]);

    let delete = |path: &'static str| request(c.h.at, "DELETE", path, &[], &[]);
    assert_eq!(delete("/files/a").await.error().code, ErrorCode::NotEmpty);
    assert_eq!(delete("/files/a/f0/").await.error().code, ErrorCode::NotDirectory);
    assert_eq!(delete("/files/a/b").await.status, 204);
    assert_eq!(delete("/files/a/f0").await.status, 204);
    assert_eq!(delete("/files/a/f0").await.error().code, ErrorCode::NotFound);
    assert_eq!(c.put("/files/a/f1/g", &[], b"x").await.error().code, ErrorCode::NotDirectory);
    assert_eq!(c.get("/files/a/f1/", &[]).await.error().code, ErrorCode::NotDirectory);
    c.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_files_free_the_nodes() {
    let c = Cluster::start(1).await;
    for n in 0..5 {
        assert_eq!(c.put(&format!("/files/f{n}"), &[], &noise(100_000)).await.status, 201);
    }
    let layout: LayoutReply = c.h.get("/v1/files-layout/f0").await.json();
    assert_eq!(layout.extents.len(), 1);
    assert!(layout.complete && layout.md5.is_some());
    let node = c.nodes[0].0.address().unwrap();
    let blobs = || async move {
        let copies: Vec<CopyStatus> = request(node, "GET", "/v1/volumes", &[], &[]).await.json();
        copies.iter().map(|c| c.blobs).sum::<u64>()
    };
    assert_eq!(blobs().await, 5);
    for n in 1..5 {
        assert_eq!(request(c.h.at, "DELETE", &format!("/files/f{n}"), &[], &[]).await.status, 204);
    }
    eventually("the end of the garbage", || async { (blobs().await == 1).then_some(()) }).await;
    assert_eq!(content(&c.get("/files/f0", &[]).await), noise(100_000));
    c.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_nodes_a_put_fails_in_json_and_leaves_nothing() {
    let mut h = Harness::start().await;
    let started = std::time::Instant::now();
    let answer = request(h.at, "PUT", "/files/f", &[], b"x").await;
    // It waits a while for a node: either the time is up, or the last try says why.
    assert!(matches!(answer.error().code, ErrorCode::NoNodes | ErrorCode::Timeout), "{answer:?}");
    assert!([503, 504].contains(&answer.status));
    assert!(started.elapsed().as_secs() < 20);
    assert_eq!(h.status().await.files, 0);
    h.stop().await;
}
