use crate::bed::{Bed, noise, wait_for};
use dfs_client::MasterClient;
use std::fs;
use std::time::Duration;

pub fn wait_replicated(bed: &mut Bed) {
    let url = bed.cluster().master_url().to_owned();
    let master = MasterClient::new(&url, Duration::from_secs(5)).unwrap();
    wait_for("all copies to be whole", || {
        let status = bed.runtime.block_on(master.status()).map_err(|e| e.to_string())?;
        if status.replication.volumes_behind == 0 { Ok(()) } else { Err(format!("{:?}", status.replication)) }
    });
}

/// Reading goes on from the other copies when nodes are lost, as long as one copy is left.
#[test]
fn reading_goes_on_from_replicas_when_nodes_go_one_after_the_other() {
    let mut bed = Bed::new();
    let a = bed.mount();
    for i in 0..20 {
        fs::write(a.join(format!("f{i}")), noise(i, 100_000)).unwrap();
    }
    fs::write(a.join("large"), noise(99, 20 << 20)).unwrap();
    wait_replicated(&mut bed);
    for node in 0..3 {
        bed.runtime.block_on(bed.cluster.as_mut().unwrap().stop_node(node));
        // A fresh mount has nothing cached.
        let fresh = bed.mount();
        for i in 0..20 {
            assert!(fs::read(fresh.join(format!("f{i}"))).unwrap() == noise(i, 100_000));
        }
        assert!(fs::read(fresh.join("large")).unwrap() == noise(99, 20 << 20));
        bed.runtime.block_on(bed.cluster.as_mut().unwrap().start_node(node)).unwrap();
    }
}

/// Writing goes on when a node is lost: data that was on its way to it goes to another.
#[test]
fn writing_goes_on_when_a_node_goes() {
    let mut bed = Bed::new();
    let a = bed.mount();
    for i in 0..10 {
        fs::write(a.join(format!("before{i}")), noise(i, 50_000)).unwrap();
    }
    bed.runtime.block_on(bed.cluster.as_mut().unwrap().stop_node(1));
    for i in 0..10 {
        fs::write(a.join(format!("after{i}")), noise(i, 50_000)).unwrap();
    }
    bed.runtime.block_on(bed.cluster.as_mut().unwrap().start_node(1)).unwrap();
    wait_replicated(&mut bed);
    for i in 0..10 {
        assert!(fs::read(a.join(format!("after{i}"))).unwrap() == noise(i, 50_000));
    }
}

/// A mount outlives a restart of the master: operations wait for it and go on.
#[test]
fn a_mount_outlives_a_restart_of_the_master() {
    let mut bed = Bed::new();
    let a = bed.mount();
    fs::write(a.join("before"), "kept").unwrap();
    bed.runtime.block_on(bed.cluster.as_mut().unwrap().stop_master());
    let writer = {
        let path = a.join("meanwhile");
        std::thread::spawn(move || fs::write(path, "written while the master was away"))
    };
    bed.runtime.block_on(bed.cluster.as_mut().unwrap().start_master()).unwrap();
    writer.join().unwrap().unwrap();
    assert_eq!(fs::read_to_string(a.join("before")).unwrap(), "kept");
    assert_eq!(fs::read_to_string(a.join("meanwhile")).unwrap(), "written while the master was away");
    wait_replicated(&mut bed);
}

/// fsync(2) returns when two nodes (all, if there are fewer) have the data on their disks and the master
/// has the metadata on its own.
#[test]
fn fsync_leaves_two_copies_behind_without_the_replicator() {
    let mut bed = Bed::new();
    let a = bed.mount();
    bed.runtime.block_on(bed.cluster.as_mut().unwrap().stop_replicator());
    let path = a.join("f");
    let content = noise(4, 9 << 20);
    let mut file = fs::File::create(&path).unwrap();
    std::io::Write::write_all(&mut file, &content).unwrap();
    file.sync_all().unwrap();
    drop(file);
    for node in 0..3 {
        bed.runtime.block_on(bed.cluster.as_mut().unwrap().stop_node(node));
        let fresh = bed.mount();
        assert!(fs::read(fresh.join("f")).unwrap() == content, "node {node} was the only one that had it");
        bed.runtime.block_on(bed.cluster.as_mut().unwrap().start_node(node)).unwrap();
    }
}
