//! Requests to nodes and to the master over HTTP, with answers good and bad.

use crate::server::{Reply, Request, Server, serve};
use bytes::Bytes;
use dfs_client::checksum::{crc32c_chunks, md5};
use dfs_client::{ClientError, HttpNodes, MasterClient, NodeClient, PutBlob};
use dfs_proto::blob::PutAck;
use dfs_proto::{BlobId, BlobKey, BlobOrigin, CHUNK_BYTES, ErrorCode, Ino, NodeId, Seq, Version, VolumeId};
use std::time::Duration;

const BLOB: BlobId = BlobId { volume: VolumeId(3), key: BlobKey(9) };

fn nodes() -> HttpNodes {
    HttpNodes::new(Duration::from_secs(5)).unwrap()
}

async fn always(reply: impl Fn() -> Reply + Send + Sync + 'static) -> Server {
    serve(move |_| std::future::ready(reply())).await
}

#[tokio::test]
async fn a_put_carries_all_that_the_node_needs() {
    let data = Bytes::from(vec![7u8; CHUNK_BYTES + 1]);
    let put = PutBlob {
        data: data.clone(),
        md5: md5(&data),
        crc32c: crc32c_chunks(&data),
        origin: BlobOrigin { ino: Ino(4), offset: 5, version: Version(6) },
        sync: true,
        token: "the-token".into(),
    };
    let wanted = put.clone();
    let server = serve(move |r: Request| {
        assert_eq!((r.method.as_str(), r.path.as_str()), ("PUT", "/v1/blobs/3/9"));
        assert_eq!(r.body, wanted.data);
        assert_eq!(r.header("x-dfs-token"), Some("the-token"));
        assert_eq!(r.header("x-dfs-md5"), Some(wanted.md5.to_string().as_str()));
        assert_eq!(r.header("x-dfs-origin"), Some("4,5,6"));
        assert_eq!(r.header("x-dfs-sync"), Some("1"));
        let crcs: String = wanted.crc32c.iter().map(|c| format!("{c:08x}")).collect();
        assert_eq!(r.header("x-dfs-crc32c"), Some(crcs.as_str()));
        std::future::ready(Reply::json(&PutAck { node: NodeId(1), seq: Seq(2), synced: true }))
    })
    .await;
    let ack = nodes().put(&server.url, BLOB, put).await.unwrap();
    assert_eq!((ack.node, ack.seq), (NodeId(1), Seq(2)));
}

fn blob_answer(data: &Bytes, range: Option<&str>) -> Reply {
    let crcs: String = crc32c_chunks(data).iter().map(|c| format!("{c:08x}")).collect();
    let mut headers =
        vec![("x-dfs-md5", md5(data).to_string()), ("x-dfs-seq", "12".to_owned()), ("x-dfs-crc32c", crcs)];
    headers.extend(range.map(|r| ("content-range", r.to_owned())));
    Reply::Answer { status: if range.is_some() { 206 } else { 200 }, headers, body: data.clone() }
}

#[tokio::test]
async fn a_get_brings_bytes_and_checksums() {
    let data = Bytes::from(vec![1u8; CHUNK_BYTES + 5]);
    let sent = data.clone();
    let server = always(move || blob_answer(&sent, None)).await;
    let got = nodes().get(&server.url, BLOB).await.unwrap();
    assert_eq!((got.seq, got.md5, got.first_chunk), (Seq(12), md5(&data), 0));
    assert_eq!((got.crc32c, got.data), (crc32c_chunks(&data), data));
}

#[tokio::test]
async fn chunks_are_asked_for_by_range() {
    let data = Bytes::from(vec![1u8; CHUNK_BYTES]);
    let server = serve(move |r: Request| {
        assert_eq!(r.header("range"), Some("bytes=131072-196607"));
        std::future::ready(blob_answer(&data, Some("bytes 131072-196607/1000000")))
    })
    .await;
    let got = nodes().get_chunks(&server.url, BLOB, 2..3).await.unwrap();
    assert_eq!((got.first_chunk, got.data.len()), (2, CHUNK_BYTES));
}

#[tokio::test]
async fn a_range_that_does_not_begin_with_a_chunk_makes_no_sense() {
    let data = Bytes::from(vec![1u8; 10]);
    let server = always(move || blob_answer(&data, Some("bytes 5-14/1000000"))).await;
    let error = nodes().get_chunks(&server.url, BLOB, 0..1).await.unwrap_err();
    assert!(matches!(error, ClientError::BadAnswer { .. }), "{error}");
}

#[tokio::test]
async fn the_code_of_an_error_survives() {
    for code in [ErrorCode::Sealed, ErrorCode::Corrupt, ErrorCode::NoSpace, ErrorCode::NotFound] {
        let server = always(move || Reply::error(code)).await;
        assert_eq!(nodes().get(&server.url, BLOB).await.unwrap_err().code(), code);
    }
}

#[tokio::test]
async fn an_error_in_other_words_is_told_by_its_status() {
    for (status, code) in
        [(503, ErrorCode::Unavailable), (404, ErrorCode::NotFound), (500, ErrorCode::Internal)]
    {
        let server = always(move || Reply::plain(status, "<h1>sorry</h1>")).await;
        let error = nodes().get(&server.url, BLOB).await.unwrap_err();
        assert_eq!(error.code(), code);
        assert!(error.to_string().contains("sorry") && error.to_string().contains(&server.url), "{error}");
    }
}

#[tokio::test]
async fn answers_that_make_no_sense_are_told_as_such() {
    let answers: [fn() -> Reply; 4] = [
        || Reply::plain(200, "no headers"),
        || Reply::plain(302, ""),
        || Reply::plain(200, vec![0u8; dfs_proto::limits::BLOB_BYTES_MAX + 1]),
        || Reply::Answer {
            status: 200,
            headers: vec![
                ("x-dfs-md5", "zz".into()),
                ("x-dfs-seq", "1".into()),
                ("x-dfs-crc32c", String::new()),
            ],
            body: Bytes::new(),
        },
    ];
    for answer in answers {
        let server = always(answer).await;
        let error = nodes().get(&server.url, BLOB).await.unwrap_err();
        assert!(matches!(error, ClientError::BadAnswer { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_body_that_ends_early_is_no_answer() {
    let server = always(|| Reply::Short { body: Bytes::from(vec![0; 1000]), missing: 1, closes: true }).await;
    let error = nodes().get(&server.url, BLOB).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn a_server_that_hangs_or_stalls_is_given_up_at_the_deadline() {
    let nodes = HttpNodes::new(Duration::from_millis(200)).unwrap();
    let hanging = serve(|_| std::future::pending()).await;
    let stalling =
        always(|| Reply::Short { body: Bytes::from(vec![0; 1000]), missing: 500, closes: false }).await;
    for server in [hanging, stalling] {
        let error = nodes.get(&server.url, BLOB).await.unwrap_err();
        assert!(matches!(error, ClientError::Timeout { .. }), "{error}");
    }
}

#[tokio::test]
async fn nobody_listening_is_unreachable() {
    let server = always(|| Reply::Drop).await;
    let error = nodes().get(&server.url, BLOB).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unreachable);
    let url = server.url.clone();
    drop(server);
    let error = nodes().get(&url, BLOB).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unreachable);
    assert!(error.to_string().contains(&url), "{error}");
}

#[tokio::test]
async fn logs_come_with_how_far_they_reach() {
    let server = serve(|r: Request| {
        assert_eq!(r.path, "/v1/volumes/3/log?after=5&max_bytes=100");
        let headers = vec![("x-dfs-seq", "77".to_owned())];
        std::future::ready(Reply::Answer { status: 200, headers, body: Bytes::from_static(b"records") })
    })
    .await;
    let (seq, records) = nodes().log(&server.url, VolumeId(3), Seq(5), 100).await.unwrap();
    assert_eq!((seq, &records[..]), (Seq(77), &b"records"[..]));
}

#[tokio::test]
async fn paths_of_files_reach_the_master_as_they_are() {
    let server = serve(|r: Request| {
        assert_eq!(r.path, "/v1/files-layout/a%20b/%C3%A9%3F");
        std::future::ready(Reply::error(ErrorCode::NotFound))
    })
    .await;
    let master = MasterClient::new(&server.url, Duration::from_secs(5)).unwrap();
    let error = master.layout("/a b/é?".as_bytes()).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NotFound);
}
