//! Starting, registering, the lease, restarts.

use crate::support::*;
use dfs_client::NodeClient;
use dfs_proto::ErrorCode;
use dfs_storagenode::Config;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_serves_before_its_master_is_there_and_registers_when_it_comes() {
    let place = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = place.local_addr().unwrap();
    drop(place);
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let node = Node::start_with(Config::new(format!("http://{address}"), dir.path()), 1, dir).await;
    assert_eq!(http("GET", &node.url, "/healthz", &[], b"").0, 503);
    assert_eq!(http("GET", &node.url, "/v1/volumes", &[], b"").2, b"[]");
    let put = http("PUT", &node.url, "/v1/blobs/3/1", &[("x-dfs-token", "a.b")], b"x");
    assert_eq!(wire_code(&put), ErrorCode::Unavailable);
    let master = Master::start_at(TcpListener::bind(address).unwrap());
    wait_for("it registers", async || http("GET", &node.url, "/healthz", &[], b"").0 == 200).await;
    let books = master.books.lock().unwrap();
    assert_eq!(books.registered[0].url, node.url);
    assert!(books.registered[0].capacity_bytes > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn identity_and_blobs_outlive_a_restart_and_the_run_does_not() {
    let master = Master::start();
    let mut node = Node::primary(&master, 1).await;
    let data = content(1, 1000);
    node.put(&master, 1, &data).await.unwrap();
    node.stop().await;
    let node = Node::start_in(&master, 1, node.dir.clone()).await;
    assert_eq!(node.get(1).await.unwrap(), data);
    let books = master.books.lock().unwrap();
    let [first, second] = &books.registered[..] else { panic!("two registrations") };
    assert_eq!(first.uuid, second.uuid);
    assert_ne!(first.incarnation, second.incarnation);
    assert_eq!((&*second.name, &*second.cluster), ("sn1", "test"));
    assert_eq!((second.copies.len(), second.copies[0].blobs), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_the_master_forgot_registers_again() {
    let master = Master::start();
    let node = Node::primary(&master, 1).await;
    for (i, code) in [ErrorCode::SessionExpired, ErrorCode::NotFound].into_iter().enumerate() {
        master.books.lock().unwrap().next_error = Some(code);
        wait_for("it registers again", async || master.books.lock().unwrap().registered.len() == i + 2).await;
    }
    node.put(&master, 1, &content(1, 10)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_lease_nothing_is_taken_and_everything_is_served() {
    let master = Master::start();
    master.books.lock().unwrap().lease_ms = 300;
    let node = Node::primary(&master, 1).await;
    let data = content(1, 10);
    node.put(&master, 1, &data).await.unwrap();
    master.books.lock().unwrap().silent = true;
    // A key that was stored is answered as stored, lease or not.
    let key = std::sync::atomic::AtomicU64::new(100);
    wait_for("the lease ends", async || {
        node.put(&master, key.fetch_add(1, Relaxed), &data)
            .await
            .is_err_and(|e| e.code() == ErrorCode::Unavailable)
    })
    .await;
    assert_eq!(node.get(1).await.unwrap(), data);
    master.books.lock().unwrap().silent = false;
    wait_for("the lease is back", async || node.put(&master, 3, &data).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_heartbeat_said_is_said_again() {
    let master = Master::start();
    let node = Node::primary(&master, 1).await;
    master.books.lock().unwrap().silent = true;
    let data = content(1, 100);
    node.put(&master, 1, &data).await.unwrap();
    node.damage(&data);
    assert!(node.get(1).await.is_err());
    let lost = master.books.lock().unwrap().lost;
    // The first of these may have been on its way before there was news.
    wait_for("news are lost", async || master.books.lock().unwrap().lost >= lost + 2).await;
    assert!(master.books.lock().unwrap().bad.is_empty());
    master.books.lock().unwrap().silent = false;
    wait_for("the news arrive", async || {
        let books = master.books.lock().unwrap();
        books.bad == [blob(1)] && books.copies.get(&(node.id, V)).is_some_and(|c| c.seq.0 == 1)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_cannot_share_a_directory() {
    let master = Master::start();
    let node = Node::start(&master, 1).await;
    let config = Config::new(&master.url, node.dir.path());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let error = dfs_storagenode::start(config, listener).await.unwrap_err();
    assert!(format!("{error:#}").contains("another storage node"), "{error:#}");
    assert!(node.client.check(&node.url, blob(1)).await.is_err());
}
