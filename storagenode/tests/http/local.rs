//! Readers on the node's host.

use crate::support::*;
use dfs_client::NodeClient;
use dfs_client::local::socket::Packets;
use dfs_proto::BlobId;
use dfs_proto::codec::Encoding;
use dfs_proto::local::{LocalBlob, PACKET_BYTES_MAX, WhereIs, Whereabouts};
use dfs_service::Rights;
use std::fs::File;
use std::os::unix::fs::FileExt;

async fn ask(connection: &Packets, blob: BlobId) -> Option<(LocalBlob, File)> {
    connection.send(&Encoding::Postcard.encode(&WhereIs { blob }).unwrap(), None).await.unwrap();
    let (packet, file) = connection.receive(PACKET_BYTES_MAX).await.unwrap().expect("an answer");
    match Encoding::Postcard.decode(&packet).unwrap() {
        Whereabouts::Here(place) => {
            assert_eq!(place.blob, blob);
            Some((place, file.expect("a descriptor")))
        }
        Whereabouts::AskByHttp(about) => {
            assert_eq!((about, file.is_none()), (blob, true));
            None
        }
    }
}

async fn connect(node: &Node) -> Packets {
    Packets::connect(&node.client.local_socket(&node.url).await.unwrap().name).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_on_the_host_get_a_descriptor_for_reading_and_the_place_of_the_blob() {
    let master = Master::start();
    let node = Node::primary(&master, 1).await;
    let (small, large) = (content(1, 100), content(2, (4 << 20) - 5));
    node.put(&master, 1, &small).await.unwrap();
    node.put(&master, 2, &large).await.unwrap();
    let connection = connect(&node).await;
    let mut numbers = Vec::new();
    for (key, data) in [(1, &small), (2, &large)] {
        let (place, file) = ask(&connection, blob(key)).await.expect("it is here");
        let mut bytes = vec![0; place.length as usize];
        file.read_exact_at(&mut bytes, place.at).unwrap();
        assert!(bytes == data[..]);
        assert_eq!(place.md5, dfs_client::checksum::md5(data));
        assert_eq!(place.crc32c, dfs_client::checksum::crc32c_chunks(data));
        assert_eq!(place.seq.0, key);
        assert!(file.write_all_at(b"x", place.at).is_err(), "it is for reading only");
        assert!(file.set_len(0).is_err());
        numbers.push(place.file);
    }
    assert_eq!(numbers[0], numbers[1], "they are in one file");
    assert!(ask(&connection, blob(3)).await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_and_damaged_blobs_are_left_to_http() {
    let master = Master::start();
    let node = Node::primary(&master, 1).await;
    let data = content(1, 200_000);
    for key in 1..=2 {
        node.put(&master, key, &data).await.unwrap();
    }
    let connection = connect(&node).await;
    let (place, file) = ask(&connection, blob(1)).await.expect("it is here");
    let token = master.token(Rights::Delete, dfs_proto::VolumeId(0));
    node.client.delete(&node.url, &[blob(1)], &token).await.unwrap();
    assert!(ask(&connection, blob(1)).await.is_none());
    // The old descriptor stays; what is read there is not what it was, and does not match.
    let mut bytes = vec![0; place.length as usize];
    file.read_exact_at(&mut bytes, place.at).unwrap();
    assert_ne!(dfs_client::checksum::crc32c_chunks(&bytes), place.crc32c);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_ends_with_the_node_and_is_another_one_after_a_start() {
    let master = Master::start();
    let mut node = Node::primary(&master, 1).await;
    let data = content(1, 1000);
    node.put(&master, 1, &data).await.unwrap();
    let name = node.client.local_socket(&node.url).await.unwrap().name;
    let connection = Packets::connect(&name).unwrap();
    let dir = node.dir.clone();
    node.stop().await;
    wait_for("the socket to end", async || Packets::connect(&name).is_err()).await;
    assert!(connection.receive(PACKET_BYTES_MAX).await.unwrap().is_none());
    let node = Node::start_in(&master, 1, dir).await;
    assert_ne!(node.client.local_socket(&node.url).await.unwrap().name, name);
    assert!(ask(&connect(&node).await, blob(1)).await.is_some());
}
