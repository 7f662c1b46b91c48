//! Starting, stopping and starting again.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, helpers included")]

use dfs_client::MasterClient;
use dfs_cluster::{Cluster, ClusterConfig, wait_for};
use dfs_proto::NodeState;
use dfs_proto::status::ClusterStatus;
use std::path::Path;
use std::time::Duration;

/// How long the cluster may take to be what is expected of it.
const SETTLED: Duration = Duration::from_secs(30);

async fn start(data: &Path, nodes: usize) -> Cluster {
    Cluster::start(ClusterConfig { nodes, ..ClusterConfig::for_tests(data) }).await.unwrap()
}

fn master(cluster: &Cluster) -> MasterClient {
    MasterClient::new(cluster.master_url(), Duration::from_secs(5)).unwrap()
}

/// The status once so many nodes are live.
async fn with_live_nodes(cluster: &Cluster, live: usize) -> ClusterStatus {
    let master = &master(cluster);
    wait_for(&format!("{live} live nodes"), SETTLED, || async {
        let status = master.status().await.map_err(|e| e.to_string())?;
        let seen = status.nodes.iter().filter(|n| n.info.state == NodeState::Live).count();
        if seen == live { Ok(status) } else { Err(format!("{seen} live")) }
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn services_started_again_keep_address_and_data() {
    let data = tempfile::tempdir().unwrap();
    let mut cluster = start(data.path(), 2).await;
    let (master_url, node_url) = (cluster.master_url().to_owned(), cluster.node(1).url().to_owned());
    let before = with_live_nodes(&cluster, 2).await;

    cluster.stop_node(1).await;
    assert!(!cluster.node(1).is_running());
    with_live_nodes(&cluster, 1).await;
    cluster.start_node(1).await.unwrap();
    cluster.stop_master().await;
    assert!(master(&cluster).healthy().await.is_err());
    cluster.start_master().await.unwrap();
    cluster.stop_replicator().await;
    cluster.start_replicator().await.unwrap();

    let after = with_live_nodes(&cluster, 2).await;
    assert_eq!((cluster.master_url(), cluster.node(1).url()), (master_url.as_str(), node_url.as_str()));
    assert_eq!(after.cluster, before.cluster);
    let ids = |s: &ClusterStatus| s.nodes.iter().map(|n| n.info.id).collect::<Vec<_>>();
    assert_eq!(ids(&after), ids(&before));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_started_again_has_every_node_that_it_had() {
    let data = tempfile::tempdir().unwrap();
    let mut cluster = start(data.path(), 2).await;
    assert_eq!(cluster.add_node().await.unwrap(), 2);
    assert_eq!(cluster.node(2).name(), "sn3");
    assert!(cluster.node(2).data_dir().is_dir());
    let name = with_live_nodes(&cluster, 3).await.cluster;
    cluster.stop().await;

    let cluster = start(data.path(), 1).await;
    assert_eq!(cluster.node_count(), 3);
    let status = with_live_nodes(&cluster, 3).await;
    assert_eq!((status.cluster, status.nodes.len()), (name, 3));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_or_port_in_use_is_refused_with_the_reason() {
    let (data, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let cluster = start(data.path(), 1).await;
    let same_folder = Cluster::start(ClusterConfig::for_tests(data.path())).await.unwrap_err();
    assert!(same_folder.to_string().contains("in use by a running cluster"), "{same_folder}");
    let taken = cluster.master_url().strip_prefix("http://").unwrap().parse().unwrap();
    let config = ClusterConfig { listen: taken, ..ClusterConfig::for_tests(other.path()) };
    let same_port = Cluster::start(config).await.unwrap_err();
    assert!(same_port.to_string().contains(&format!("cannot listen at {taken}")), "{same_port}");
    with_live_nodes(&cluster, 1).await;
    cluster.stop().await;
    // What was given up can be had again.
    start(data.path(), 1).await.stop().await;
}
