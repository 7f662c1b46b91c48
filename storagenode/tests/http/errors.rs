//! What is refused, and that a refusal changes nothing.

use crate::support::*;
use dfs_client::{NodeClient, PutBlob, checksum};
use dfs_proto::{BlobKey, ErrorCode, VolumeId};
use dfs_service::{Capability, Rights, TokenKey};

fn raw_put(node: &Node, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    raw("PUT", &node.url, "/v1/blobs/3/1", headers, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_capabilities_are_refused() {
    let master = Master::start();
    let node = Node::primary(&master, 1).await;
    let data = content(1, 100);
    let sign = |c: Capability| master.key.sign(&c);
    let good = Capability {
        rights: Rights::Append,
        volume: V,
        first: BlobKey(0),
        end: BlobKey(10),
        expires_ms: u64::MAX,
    };
    for token in [
        String::new(),
        "garbage".into(),
        TokenKey::random().sign(&good),
        sign(Capability { expires_ms: 1, ..good }),
        sign(Capability { volume: VolumeId(4), ..good }),
        sign(Capability { first: BlobKey(2), ..good }),
        sign(Capability { end: BlobKey(1), ..good }),
        sign(Capability { rights: Rights::Pull, ..good }),
        sign(Capability { rights: Rights::Delete, ..good }),
    ] {
        let put = node.client.put(&node.url, blob(1), put_of(&data, token.clone())).await;
        assert_eq!(code(put), ErrorCode::Unauthorized, "{token}");
    }
    node.client.put(&node.url, blob(1), put_of(&data, sign(good))).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_that_are_not_open_here_take_nothing() {
    let master = Master::start();
    let node = Node::start(&master, 1).await;
    assert_eq!(code(node.put(&master, 1, &content(1, 10)).await), ErrorCode::Sealed);
    assert_eq!(raw("GET", &node.url, "/v1/volumes/3", &[], b"").0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_do_not_match_their_checksums_are_refused() {
    let master = Master::start();
    let node = Node::primary(&master, 1).await;
    let data = content(1, 300_000);
    let good = put_of(&data, master.append_token());
    let mut crcs = good.crc32c.clone();
    crcs[4] ^= 1;
    let put = node.client.put(&node.url, blob(1), PutBlob { crc32c: crcs, ..good.clone() }).await;
    assert_eq!(code(put), ErrorCode::ChecksumMismatch);
    let mut other = data.to_vec();
    other[299_999] ^= 1;
    let put = node.client.put(&node.url, blob(1), PutBlob { data: other.into(), ..good }).await;
    assert_eq!(code(put), ErrorCode::ChecksumMismatch);
    assert_eq!(code(node.get(1).await), ErrorCode::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_ends_early_stores_nothing() {
    let master = Master::start();
    let node = Node::primary(&master, 1).await;
    let data = content(1, 100_000);
    let (token, md5) = (master.append_token(), checksum::md5(&data).to_string());
    let headers = [("content-length", "100000"), ("x-dfs-token", &*token), ("x-dfs-md5", &*md5)];
    for sent in [0, 1, 65_536, 99_999] {
        let answer = raw_put(&node, &headers, &data[..sent]);
        assert_eq!((answer.0, wire_code(&answer)), (400, ErrorCode::Truncated), "after {sent} bytes");
        assert_eq!(code(node.get(1).await), ErrorCode::NotFound);
    }
    assert_eq!(raw_put(&node, &headers, &data).0, 201);
    assert_eq!(status(&node, V).await.seq.0, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_puts_are_told_what_is_wrong() {
    let master = Master::start();
    let node = Node::primary(&master, 1).await;
    let (token, md5) = (master.append_token(), checksum::md5(b"abc").to_string());
    let good = vec![("content-length", "3"), ("x-dfs-token", &*token), ("x-dfs-md5", &*md5)];
    let with = |name: &'static str, value: &'static str| {
        let mut headers = good.clone();
        headers.retain(|(n, _)| *n != name);
        headers.push((name, value));
        headers
    };
    let without = |name: &str| good.iter().filter(|(n, _)| *n != name).copied().collect::<Vec<_>>();
    let too_long = (dfs_proto::limits::BLOB_BYTES_MAX + 1).to_string();
    let too_long: &'static str = too_long.leak();
    for (headers, body, expected) in [
        (without("content-length"), &b""[..], ErrorCode::Malformed),
        (without("x-dfs-md5"), b"abc", ErrorCode::Malformed),
        (without("x-dfs-token"), b"abc", ErrorCode::Malformed),
        (with("x-dfs-md5", "abc"), b"abc", ErrorCode::Malformed),
        (with("x-dfs-crc32c", "123"), b"abc", ErrorCode::Malformed),
        (with("x-dfs-crc32c", "zzzzzzzz"), b"abc", ErrorCode::Malformed),
        (with("x-dfs-origin", "1,2"), b"abc", ErrorCode::Malformed),
        (with("x-dfs-origin", "1,2,3,4"), b"abc", ErrorCode::Malformed),
        (with("x-dfs-origin", "1,-2,3"), b"abc", ErrorCode::Malformed),
        (with("x-dfs-sync", "yes"), b"abc", ErrorCode::Malformed),
        (with("content-length", "0"), b"", ErrorCode::InvalidArgument),
        (with("content-length", too_long), b"abc", ErrorCode::BodyTooLarge),
    ] {
        let answer = raw_put(&node, &headers, body);
        assert_eq!(wire_code(&answer), expected, "{headers:?}");
        assert_eq!(answer.0, expected.http_status());
    }
    assert_eq!(code(node.get(1).await), ErrorCode::NotFound);
    assert_eq!(raw_put(&node, &with("x-dfs-origin", "1,2,3"), b"abc").0, 201);
    for path in ["/v1/blobs/x/1", "/v1/blobs/3/-1", "/v1/blobs/3/99999999999999999999999"] {
        assert_eq!(wire_code(&raw("GET", &node.url, path, &[], b"")), ErrorCode::Malformed, "{path}");
    }
    assert_eq!(raw("GET", &node.url, "/nowhere", &[], b"").0, 404);
    let answer = http("POST", &node.url, "/v1/blobs/delete", &[("x-dfs-token", &token)], b"{");
    assert_eq!(wire_code(&answer), ErrorCode::Malformed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_says_so() {
    let master = Master::start();
    master.open(dfs_proto::NodeId(1), &[V]);
    let dir = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let mut config = dfs_storagenode::Config::new(&master.url, dir.path());
    config.reserve_bytes = Some(u64::MAX);
    let node = Node::start_with(config, 1, dir).await;
    wait_for("it registers", async || http("GET", &node.url, "/healthz", &[], b"").0 == 200).await;
    assert_eq!(code(node.put(&master, 1, &content(1, 4 << 20)).await), ErrorCode::NoSpace);
    assert_eq!(master.books.lock().unwrap().registered[0].free_bytes, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_blob_is_not_served_but_reported() {
    let master = Master::start();
    let node = Node::primary(&master, 1).await;
    let (data, other) = (content(1, 150_000), content(2, 1000));
    node.put(&master, 1, &data).await.unwrap();
    node.put(&master, 2, &other).await.unwrap();
    node.damage(&data);
    let first = node.client.get_chunks(&node.url, blob(1), 0..1).await.unwrap();
    assert_eq!(first.data, data.slice(..65_536), "the damage is in another chunk");
    assert_eq!(code(node.get(1).await), ErrorCode::Corrupt);
    assert_eq!(code(node.client.record(&node.url, blob(1)).await), ErrorCode::Corrupt);
    let check = node.client.check(&node.url, blob(1)).await.unwrap();
    assert!(!check.whole && !check.reason.is_empty());
    assert_eq!(node.get(2).await.unwrap(), other);
    wait_for("the master hears of it", async || master.books.lock().unwrap().bad == [blob(1)]).await;
}
