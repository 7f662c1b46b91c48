//! Storing and reading, as they should go.

use crate::support::*;
use bytes::Bytes;
use dfs_client::NodeClient;
use dfs_proto::ErrorCode;
use dfs_service::Rights;
use std::sync::atomic::Ordering::Relaxed;

#[tokio::test(flavor = "multi_thread")]
async fn blobs_of_every_size_come_back() {
    let master = Master::start();
    let node = Node::primary(&master, 1).await;
    let sizes = [1, 7, 100, 65_535, 65_536, 65_537, 1 << 20, (4 << 20) - 1, 4 << 20];
    for (i, size) in sizes.into_iter().enumerate() {
        let data = content(i as u64, size);
        let key = i as u64 + 10;
        assert_eq!(node.put(&master, key, &data).await.unwrap(), ack(&node, i as u64 + 1, false));
        assert_eq!(node.get(key).await.unwrap(), data, "size {size}");
        let check = node.client.check(&node.url, blob(key)).await.unwrap();
        assert!(check.whole, "{}", check.reason);
    }
    let status = status(&node, V).await;
    assert_eq!((status.blobs, status.bytes), (9, sizes.iter().sum::<usize>() as u64));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_clients_at_once_each_get_their_own_bytes() {
    let master = Master::start();
    let node = Node::primary(&master, 1).await;
    let one = async |key: u64| {
        let data = content(key, if key.is_multiple_of(8) { 3 << 20 } else { 5000 * key as usize });
        node.put(&master, key, &data).await.unwrap();
        assert_eq!(node.get(key).await.unwrap(), data);
    };
    futures_util::future::join_all((1..=64).map(one)).await;
    assert_eq!(status(&node, V).await.seq.0, 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_put_again_is_answered_as_the_first_and_other_bytes_are_a_conflict() {
    let master = Master::start();
    let node = Node::primary(&master, 1).await;
    let data = content(1, 1000);
    let first = node.put(&master, 5, &data).await.unwrap();
    assert_eq!(node.put(&master, 5, &data).await.unwrap(), first);
    assert_eq!(code(node.put(&master, 5, &content(2, 1000)).await), ErrorCode::Conflict);
    // Also when the volume takes no more: the first answer may have been lost.
    master.open(node.id, &[]);
    let key = std::sync::atomic::AtomicU64::new(100);
    wait_for("the volume is sealed", async || {
        node.put(&master, key.fetch_add(1, Relaxed), &data)
            .await
            .is_err_and(|e| e.code() == ErrorCode::Sealed)
    })
    .await;
    assert_eq!(node.put(&master, 5, &data).await.unwrap(), first);
    assert_eq!(code(node.put(&master, 5, &content(2, 1000)).await), ErrorCode::Sealed);
    assert_eq!(node.get(5).await.unwrap(), data);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_synced_put_says_so() {
    let master = Master::start();
    let node = Node::primary(&master, 1).await;
    let data = content(1, 100);
    let put = dfs_client::PutBlob { sync: true, ..put_of(&data, master.append_token()) };
    assert_eq!(node.client.put(&node.url, blob(1), put).await.unwrap(), ack(&node, 1, true));
    let (_, _, metrics) = http("GET", &node.url, "/metrics", &[], b"");
    let metrics = String::from_utf8(metrics).unwrap();
    assert!(metrics.contains("dfs_storagenode_appends_total 1\n"), "{metrics}");
    assert!(!metrics.contains("dfs_storagenode_fdatasyncs_total 0\n"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_crcs_the_md5_is_verified() {
    let master = Master::start();
    let node = Node::primary(&master, 1).await;
    for (key, length) in [(1, 100), (2, 1 << 20)] {
        let data = content(key, length);
        let good = dfs_client::PutBlob { crc32c: Vec::new(), ..put_of(&data, master.append_token()) };
        let bad = dfs_client::PutBlob { md5: dfs_proto::Md5([1; 16]), ..good.clone() };
        assert_eq!(code(node.client.put(&node.url, blob(key), bad).await), ErrorCode::ChecksumMismatch);
        assert_eq!(code(node.get(key).await), ErrorCode::NotFound);
        node.client.put(&node.url, blob(key), good).await.unwrap();
        assert_eq!(node.get(key).await.unwrap(), data);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ranges_come_in_whole_chunks() {
    let master = Master::start();
    let node = Node::primary(&master, 1).await;
    let data = content(1, 200_000);
    node.put(&master, 1, &data).await.unwrap();
    let path = "/v1/blobs/3/1";
    for (range, status, content_range, bytes) in [
        ("bytes=0-0", 206, "bytes 0-65535/200000", 0..65_536),
        ("bytes=70000-140000", 206, "bytes 65536-196607/200000", 65_536..196_608),
        ("bytes=199999-", 206, "bytes 196608-199999/200000", 196_608..200_000),
        ("bytes=-5", 206, "bytes 196608-199999/200000", 196_608..200_000),
        ("bytes=5-999999999", 206, "bytes 0-199999/200000", 0..200_000),
        ("bytes=200000-", 416, "bytes */200000", 0..0),
        ("nonsense", 200, "", 0..200_000),
    ] {
        for method in ["GET", "HEAD"] {
            let (got, head, body) = http(method, &node.url, path, &[("range", range)], b"");
            assert_eq!(got, status, "{method} {range}");
            assert!(
                content_range.is_empty() || head.contains(&format!("content-range: {content_range}")),
                "{head}"
            );
            if status == 416 {
                continue;
            }
            assert!(head.contains(&format!("content-length: {}", bytes.len())), "{method} {range}: {head}");
            let expected: &[u8] = if method == "GET" { &data[bytes.clone()] } else { b"" };
            assert!(body == expected, "{method} {range}");
            let crcs = dfs_client::checksum::crc32c_chunks(&data[bytes.clone()]);
            let crcs: String = crcs.iter().map(|crc| format!("{crc:08x}")).collect();
            assert!(head.contains(&format!("x-dfs-crc32c: {crcs}")), "{method} {range}: {head}");
        }
    }
    let fetched = node.client.get_chunks(&node.url, blob(1), 1..3).await.unwrap();
    assert_eq!((fetched.first_chunk, fetched.data), (1, data.slice(65_536..196_608)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_delete_deletes_what_is_there() {
    let master = Master::start();
    let node = Node::primary(&master, 1).await;
    let data = content(1, 50_000);
    for key in 1..=3 {
        node.put(&master, key, &data).await.unwrap();
    }
    let token = master.token(Rights::Delete, dfs_proto::VolumeId(0));
    let doomed = [blob(1), blob(3), blob(9)];
    let reply = node.client.delete(&node.url, &doomed, &token).await.unwrap();
    assert_eq!((reply.deleted, reply.absent), (2, 1));
    let reply = node.client.delete(&node.url, &doomed, &token).await.unwrap();
    assert_eq!((reply.deleted, reply.absent), (0, 3));
    assert_eq!(code(node.get(1).await), ErrorCode::NotFound);
    assert_eq!(node.get(2).await.unwrap(), data);
    let append = master.append_token();
    assert_eq!(code(node.client.delete(&node.url, &[blob(2)], &append).await), ErrorCode::Unauthorized);
    let too_many: Vec<_> = (0..4097).map(blob).collect();
    assert!(node.client.delete(&node.url, &too_many, &token).await.is_err());
    assert_eq!(node.get(2).await.unwrap(), data);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_goes_away_harms_nobody() {
    let master = Master::start();
    let node = Node::primary(&master, 1).await;
    let data: Bytes = content(1, 4 << 20);
    node.put(&master, 1, &data).await.unwrap();
    for _ in 0..40 {
        use std::io::{Read, Write};
        let address = node.url.strip_prefix("http://").unwrap();
        let mut socket = std::net::TcpStream::connect(address).unwrap();
        socket.write_all(b"GET /v1/blobs/3/1 HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        socket.read_exact(&mut [0; 1000]).unwrap();
    }
    assert_eq!(node.get(1).await.unwrap(), data);
}
