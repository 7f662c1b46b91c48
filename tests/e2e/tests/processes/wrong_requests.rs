//! Requests that no well-behaved client sends.

use dfs_e2e::{Answer, Fleet, Http, Setup};
use dfs_proto::ErrorCode;
use dfs_proto::codec::POSTCARD;

async fn post(http: &Http, target: &str, content_type: &str, body: &[u8]) -> Answer {
    http.request("POST", target, &[("Content-Type", content_type)], body).await.unwrap()
}

fn insist(what: &str, answer: &Answer, code: ErrorCode) {
    let error = answer.error();
    assert_eq!((error.code, answer.status), (code, code.http_status()), "{what}: {error}");
    assert!(!error.message.is_empty(), "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn malformed_operations_are_refused_with_code_and_message() {
    let fleet = Fleet::start(Setup { nodes: 1, ..Setup::default() }).await;
    let http = fleet.http();
    let deep = "[".repeat(100_000);
    let many = format!(
        r#"{{"session":null,"acked_below":0,"calls":[{}]}}"#,
        vec![r#"{"seq":0,"op":{"read":{"get_attr":{"ino":1}}}}"#; 1025].join(",")
    );
    let bad_name = r#"{"session":null,"acked_below":0,"calls":[
        {"seq":0,"op":{"read":{"lookup":{"parent":1,"name":"../etc/passwd"}}}}]}"#;
    let negative =
        r#"{"session":null,"acked_below":-1,"calls":[{"seq":0,"op":{"read":{"get_attr":{"ino":-1}}}}]}"#;
    for body in ["", "{", "null", "[]", "{}", r#"{"calls":7}"#, "\u{0}", &deep, bad_name, negative] {
        let what = body.chars().take(60).collect::<String>();
        insist(
            &what,
            &post(&http, "/v1/meta", "application/json", body.as_bytes()).await,
            ErrorCode::Malformed,
        );
    }
    insist(
        "many",
        &post(&http, "/v1/meta", "application/json", many.as_bytes()).await,
        ErrorCode::InvalidArgument,
    );
    for body in [&b""[..], b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x00\x00\xff\xff\xff\xff\x0f"] {
        insist("postcard", &post(&http, "/v1/meta", POSTCARD, body).await, ErrorCode::Malformed);
    }
    for target in ["/v1/sessions", "/v1/nodes/register", "/v1/nodes/1/heartbeat", "/v1/orders/claim"] {
        insist(target, &post(&http, target, "application/json", b"{\"").await, ErrorCode::Malformed);
    }
    for target in ["/v1/nodes/abc/heartbeat", "/v1/events?since=nonsense", "/v1/files-layout/a/%2e%2e"] {
        let method = if target.ends_with("heartbeat") { "POST" } else { "GET" };
        let answer = http.request(method, target, &[], b"").await.unwrap();
        assert!((400..500).contains(&answer.status), "{target}: {answer:?}");
        answer.error();
    }
    insist("no such path", &http.get("/v2/anything").await.unwrap(), ErrorCode::NotFound);
    // It goes on as if nothing had been.
    assert_eq!(http.put("/files/after", b"well").await.unwrap().status, 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_sessions_and_callers_without_one_change_nothing() {
    let fleet = Fleet::start(Setup { nodes: 1, ..Setup::default() }).await;
    let http = fleet.http();
    let make = |session: &str| {
        format!(
            r#"{{"session":{session},"acked_below":0,"calls":[{{"seq":1,"op":{{"write":{{"make":{{
            "parent":1,"name":"made","ino":0,"kind":"directory","mode":493,"umask":0,"uid":0,"gid":0,"rdev":0,"target":[],"opened":false
            }}}}}}}}]}}"#
        )
    };
    let answer = post(&http, "/v1/meta", "application/json", make("999999").as_bytes()).await;
    insist("unknown session", &answer, ErrorCode::SessionExpired);
    let answer = post(&http, "/v1/meta", "application/json", make("null").as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let result = &answer.json()["results"][0];
    assert!(result["Err"]["code"].is_string() && result["Err"]["message"].is_string(), "{result}");
    assert_eq!(http.get("/files/made/").await.unwrap().status, 404);
    // The same request of somebody with a session is carried out: it was well-formed.
    let session = post(&http, "/v1/sessions", "application/json", br#"{"client":"by hand"}"#).await.json();
    let answer =
        post(&http, "/v1/meta", "application/json", make(&session["session"].to_string()).as_bytes()).await;
    assert!(answer.json()["results"][0]["Ok"].is_object(), "{}", answer.text());
    assert_eq!(http.get("/files/made/").await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absurd_sizes_are_refused() {
    let fleet = Fleet::start(Setup { nodes: 1, ..Setup::default() }).await;
    let http = fleet.http();
    let session = post(&http, "/v1/sessions", "application/json", br#"{"client":"by hand"}"#).await.json();
    let session = session["session"].to_string();
    for size in ["9223372036854775808", "18446744073709551615"] {
        let body = format!(
            r#"{{"session":{session},"acked_below":0,"calls":[{{"seq":0,"op":{{"write":{{"commit":{{
            "ino":0,"create":{{"parent":1,"name":"huge","mode":420,"umask":0,"uid":0,"gid":0,"collision":{{"explicit":"rename"}}}},
            "truncate_to":null,"extents":[],"size":{{"exactly":{size}}},"append_from":null,"mtime":null,"md5":null,
            "durable":false}}}}}}}}]}}"#
        );
        let answer = post(&http, "/v1/meta", "application/json", body.as_bytes()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.json()["results"][0]["Err"]["code"], "too_large", "{}", answer.text());
    }
    // Lengths that are lies: the head alone is judged, or the body is found to be missing.
    for (target, length) in
        [("/files/huge", "18446744073709551616"), ("/files/huge", "-1"), ("/files/huge", "many")]
    {
        let answer = http.exchange(&http.head("PUT", target, length)).await.unwrap();
        assert!((400..500).contains(&answer.status), "{length}: {answer:?}");
    }
    let body = vec![b' '; (32 << 20) + 1];
    let answer = post(&http, "/v1/meta", "application/json", &body).await;
    insist("a body over the limit", &answer, ErrorCode::BodyTooLarge);
    let long = format!("/files/{}", "x".repeat(256));
    insist("a long name", &http.put(&long, b"x").await.unwrap(), ErrorCode::NameTooLong);
    let deep = format!("/files{}", "/xxxxxxxxx".repeat(500));
    insist("a long path", &http.put(&deep, b"x").await.unwrap(), ErrorCode::NameTooLong);
    assert_eq!(fleet.status().await.unwrap().files, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_refuse_blobs_that_nobody_vouches_for() {
    let fleet = Fleet::start(Setup { nodes: 1, ..Setup::default() }).await;
    let node = Http::new(&fleet.nodes[0].url);
    let md5 = ("x-dfs-md5", "9a0364b9e99bb480dd25e1f0284c8555");
    let put = async |target: &str, headers: &[(&str, &str)], body: &[u8]| {
        let answer = node.request("PUT", target, headers, body).await.unwrap();
        assert!((400..500).contains(&answer.status), "{target}: {answer:?}");
        answer.error()
    };
    put("/v1/blobs/1/1", &[md5], b"content").await;
    put("/v1/blobs/1/1", &[md5, ("x-dfs-token", "forged")], b"content").await;
    put("/v1/blobs/1/1", &[md5, ("x-dfs-token", "forged")], b"").await;
    put("/v1/blobs/one/1", &[md5], b"content").await;
    put("/v1/blobs/99999999999999999999/1", &[md5], b"content").await;
    put("/v1/blobs/1/1", &[md5, ("x-dfs-token", "forged")], &vec![0; (4 << 20) + 1]).await;
    for target in [
        "/v1/blobs/1/1",
        "/v1/blobs/77777/1",
        "/v1/volumes/77777",
        "/v1/volumes/77777/log?after=0&max_bytes=1",
    ] {
        let answer = node.get(target).await.unwrap();
        assert_eq!(answer.status, 404, "{target}: {answer:?}");
        answer.error();
    }
    let answer = post(&node, "/v1/blobs/delete", "application/json", b"{").await;
    assert!((400..500).contains(&answer.status), "{answer:?}");
    answer.error();
    // It still takes what is right.
    let client = fleet.client().await;
    client.put("right", b"content".to_vec()).await.unwrap();
    assert_eq!(client.get("right").await.unwrap(), b"content");
}
