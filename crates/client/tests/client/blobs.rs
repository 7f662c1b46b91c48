//! Storing, reading and syncing blobs while nodes fail.

use crate::fakes::{BadCopy, Cluster, Fault, cluster, config, content};
use crate::wait_for;
use dfs_client::{Blobs, ClientError, DataClient};
use dfs_proto::meta::{CopyProblem, VolumeReach};
use dfs_proto::{BlobOrigin, BlobRef, CHUNK_BYTES, ErrorCode, VolumeId};
use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

async fn put(cluster: &Cluster, length: usize) -> Result<BlobRef, ClientError> {
    cluster.blobs.put(content(length), BlobOrigin::default()).await
}

/// A blob with two whole copies: its primary and the other member, in this order.
async fn stored_twice(cluster: &Cluster, length: usize) -> (BlobRef, u64, u64) {
    let blob = put(cluster, length).await.unwrap();
    let primary = blob.id.volume.0;
    let other = primary % 3 + 1;
    cluster.nodes.replicate(blob.id.volume, primary, other);
    cluster.nodes.take_calls();
    // The answers to come know of the second copy.
    cluster.blobs.forget_placement();
    (blob, primary, other)
}

fn nodes_asked(cluster: &Cluster) -> Vec<u64> {
    cluster.nodes.take_calls().into_iter().map(|c| c.node).collect()
}

#[tokio::test(start_paused = true)]
async fn put_goes_to_another_node_when_one_fails_and_never_uses_a_key_twice() {
    let faults = [
        Fault::Away,
        Fault::Hangs,
        Fault::Refuses(ErrorCode::Unavailable),
        Fault::Refuses(ErrorCode::Io),
        Fault::Refuses(ErrorCode::Internal),
        Fault::Refuses(ErrorCode::NoSpace),
        Fault::Refuses(ErrorCode::Timeout),
    ];
    for fault in faults {
        let cluster = cluster(3);
        cluster.nodes.set(1, fault);
        cluster.nodes.set(3, fault);
        for _ in 0..10 {
            let blob = put(&cluster, 1000).await.unwrap();
            assert_eq!(blob.id.volume, VolumeId(2), "{fault:?}");
        }
        let calls = cluster.nodes.take_calls();
        let keys: HashSet<_> = calls.iter().map(|c| c.blob).collect();
        assert_eq!(keys.len(), calls.len(), "{fault:?}");
        // Each failing node costs one try, not one for each blob.
        assert!(calls.iter().filter(|c| c.node != 2).count() <= 2, "{fault:?}: {calls:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn put_takes_another_grant_when_one_is_over() {
    for code in [ErrorCode::Sealed, ErrorCode::Unauthorized, ErrorCode::UnknownVolume, ErrorCode::Conflict] {
        let cluster = cluster(3);
        cluster.nodes.set(1, Fault::Refuses(code));
        cluster.nodes.set(2, Fault::Refuses(code));
        let blob = put(&cluster, 10).await.unwrap();
        assert_eq!(blob.id.volume, VolumeId(3), "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn put_reports_a_faulty_request_at_once() {
    for code in [ErrorCode::Malformed, ErrorCode::BodyTooLarge, ErrorCode::InvalidArgument] {
        let cluster = cluster(3);
        (1..=3).for_each(|n| cluster.nodes.set(n, Fault::Refuses(code)));
        assert_eq!(put(&cluster, 10).await.unwrap_err().code(), code);
        assert_eq!(cluster.nodes.take_calls().len(), 1, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn put_does_not_go_on_for_ever_when_no_capability_is_accepted() {
    let cluster = cluster(3);
    (1..=3).for_each(|n| cluster.nodes.set(n, Fault::Refuses(ErrorCode::Unauthorized)));
    assert_eq!(put(&cluster, 10).await.unwrap_err().code(), ErrorCode::Unauthorized);
    assert!(cluster.nodes.take_calls().len() <= 3);
}

#[tokio::test(start_paused = true)]
async fn put_tells_what_it_tried_when_its_deadline_passes() {
    let cluster = cluster(2);
    cluster.nodes.set(1, Fault::Away);
    cluster.nodes.set(2, Fault::Refuses(ErrorCode::NoSpace));
    let started = Instant::now();
    let error = put(&cluster, 10).await.unwrap_err();
    assert!(started.elapsed() <= config().put_deadline + config().put_try, "{:?}", started.elapsed());
    let text = error.to_string();
    assert!(matches!(error, ClientError::NotStored { .. }), "{text}");
    assert!(text.contains("sn1") && text.contains("sn2") && text.contains("no_space"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn put_waits_for_a_cluster_that_has_no_nodes_yet() {
    let cluster = cluster(1);
    cluster.master.refuse_grants.store(3, Ordering::SeqCst);
    assert!(put(&cluster, 10).await.is_ok());
}

#[tokio::test]
async fn put_refuses_what_is_no_blob() {
    let cluster = cluster(1);
    for length in [0, dfs_proto::limits::BLOB_BYTES_MAX + 1] {
        assert_eq!(put(&cluster, length).await.unwrap_err().code(), ErrorCode::InvalidArgument);
    }
    assert!(cluster.nodes.take_calls().is_empty());
}

#[tokio::test(start_paused = true)]
async fn get_reads_another_copy_and_reports_the_bad_one() {
    let cases = [
        (Fault::Flips, CopyProblem::Damaged),
        (Fault::CutsShort, CopyProblem::Damaged),
        (Fault::Refuses(ErrorCode::Corrupt), CopyProblem::Damaged),
        (Fault::Refuses(ErrorCode::NotFound), CopyProblem::Missing),
        (Fault::Refuses(ErrorCode::Unavailable), CopyProblem::Unreachable),
        (Fault::Away, CopyProblem::Unreachable),
    ];
    for (fault, problem) in cases {
        let cluster = cluster(3);
        let (blob, primary, _) = stored_twice(&cluster, 100_000).await;
        cluster.nodes.set(primary, fault);
        // Which copy is asked first is chance: read until the bad one was.
        while !nodes_asked(&cluster).contains(&primary) {
            assert_eq!(cluster.blobs.get(&blob).await.unwrap(), content(100_000), "{fault:?}");
        }
        let wanted = BadCopy { blob: blob.id, node: primary, problem };
        wait_for("the report", || cluster.master.bad_copies.lock().contains(&wanted)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn flipped_bytes_are_never_returned() {
    let cluster = cluster(3);
    let (blob, primary, other) = stored_twice(&cluster, 3 * CHUNK_BYTES).await;
    for node in [primary, other] {
        cluster.nodes.set(node, Fault::Flips);
    }
    let error = cluster.blobs.get(&blob).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NoGoodCopy);
    let asked = nodes_asked(&cluster);
    assert_eq!(asked.len(), 4, "each copy is asked again after asking the master: {asked:?}");
    let error = cluster.blobs.get_range(&blob, 10, 20).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NoGoodCopy);
    cluster.nodes.set(other, None);
    assert_eq!(cluster.blobs.get(&blob).await.unwrap(), content(3 * CHUNK_BYTES));
    assert_eq!(cluster.blobs.get_range(&blob, 10, 20).await.unwrap(), content(100).slice(10..30));
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_is_only_behind_is_not_reported() {
    let cluster = cluster(3);
    let blob = put(&cluster, 1000).await.unwrap();
    let (primary, other) = (blob.id.volume.0, blob.id.volume.0 % 3 + 1);
    // So the other copy is asked first.
    cluster.nodes.set(primary, Fault::Away);
    cluster.blobs.forget_placement();
    assert_eq!(cluster.blobs.get(&blob).await.unwrap_err().code(), ErrorCode::NoGoodCopy);
    cluster.nodes.set(primary, None);
    assert!(cluster.blobs.get(&blob).await.is_ok());
    assert!(nodes_asked(&cluster).contains(&other));
    wait_for("a report", || !cluster.master.bad_copies.lock().is_empty()).await;
    let reports = cluster.master.bad_copies.lock().clone();
    assert!(reports.iter().all(|r| r.node == primary), "{reports:?}");
}

#[tokio::test(start_paused = true)]
async fn a_copy_that_hangs_costs_one_hedge_delay_and_then_none() {
    let cluster = cluster(3);
    let (blob, primary, other) = stored_twice(&cluster, 1000).await;
    cluster.nodes.set(primary, Fault::Hangs);
    let hedge = config().hedge_delay;
    loop {
        let started = Instant::now();
        assert_eq!(cluster.blobs.get(&blob).await.unwrap(), content(1000));
        assert!(started.elapsed() < 2 * hedge, "{:?}", started.elapsed());
        let asked = nodes_asked(&cluster);
        if asked == [primary, other] {
            break;
        }
        assert_eq!(asked, [other]);
    }
    for _ in 0..20 {
        let started = Instant::now();
        assert!(cluster.blobs.get(&blob).await.is_ok());
        assert_eq!(nodes_asked(&cluster), [other]);
        assert!(started.elapsed() < hedge);
    }
}

/// A copy that is later than copies usually are is overtaken by another one, long before its node is given up.
#[tokio::test(start_paused = true)]
async fn a_copy_that_is_late_is_overtaken_by_another() {
    let cluster = cluster(3);
    let (blob, primary, other) = stored_twice(&cluster, 1000).await;
    for _ in 0..100 {
        cluster.blobs.get(&blob).await.unwrap();
    }
    cluster.nodes.take_calls();
    cluster.nodes.set(primary, Fault::Slow(400));
    let (mut overtaken, mut avoided) = (0, 0);
    for _ in 0..40 {
        let started = Instant::now();
        assert_eq!(cluster.blobs.get(&blob).await.unwrap(), content(1000));
        assert!(started.elapsed() < Duration::from_millis(100), "{:?}", started.elapsed());
        match &nodes_asked(&cluster)[..] {
            asked if asked == [primary, other] => overtaken += 1,
            asked => {
                assert_eq!(asked, [other]);
                avoided += 1;
            }
        }
    }
    assert_eq!(overtaken, 3, "then the node is asked last for a while");
    assert_eq!(avoided, 37);
}

/// When all are slow, asking again helps nobody: few requests are made twice.
#[tokio::test(start_paused = true)]
async fn few_requests_are_made_again_because_all_are_slow() {
    let cluster = cluster(3);
    let (blob, primary, other) = stored_twice(&cluster, 1000).await;
    for _ in 0..100 {
        cluster.blobs.get(&blob).await.unwrap();
    }
    cluster.nodes.take_calls();
    for node in [primary, other] {
        cluster.nodes.set(node, Fault::Slow(300));
    }
    for _ in 0..400 {
        cluster.blobs.get(&blob).await.unwrap();
    }
    let calls = nodes_asked(&cluster).len();
    assert!(calls <= 400 + 400 / 20 + 10, "{calls} requests for 400 reads");
}

#[tokio::test(start_paused = true)]
async fn get_waits_for_a_node_that_comes_back() {
    let mut cluster = cluster(1);
    let config = dfs_client::BlobsConfig { get_patience: Duration::from_secs(10), ..config() };
    cluster.blobs = Blobs::new(cluster.master.clone(), cluster.nodes.clone(), config);
    let blob = put(&cluster, 1000).await.unwrap();
    cluster.nodes.set(1, Fault::Away);
    let nodes = cluster.nodes.clone();
    tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(3)).await;
        nodes.set(1, None);
    });
    assert_eq!(cluster.blobs.get(&blob).await.unwrap(), content(1000));
}

#[tokio::test(start_paused = true)]
async fn where_volumes_are_is_asked_once() {
    let cluster = cluster(3);
    let (blob, ..) = stored_twice(&cluster, 1000).await;
    for _ in 0..5 {
        cluster.blobs.get(&blob).await.unwrap();
    }
    assert_eq!(cluster.master.volumes_asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn ranges_are_exactly_what_was_asked_for() {
    let cluster = cluster(3);
    let length = 3 * CHUNK_BYTES + 17;
    let (blob, ..) = stored_twice(&cluster, length).await;
    let whole = content(length);
    let chunk = CHUNK_BYTES as u32;
    for (start, count) in
        [(0, 1), (chunk - 1, 2), (chunk, chunk), (3 * chunk + 3, 14), (5, 3 * chunk), (7, 0)]
    {
        let got = cluster.blobs.get_range(&blob, start, count).await.unwrap();
        assert_eq!(got, whole.slice(start as usize..(start + count) as usize), "{start}+{count}");
    }
    for (start, count) in [(0, length as u32 + 1), (length as u32, 1), (u32::MAX, 2)] {
        let error = cluster.blobs.get_range(&blob, start, count).await.unwrap_err();
        assert_eq!(error.code(), ErrorCode::InvalidArgument);
    }
}

fn reach(blob: &BlobRef) -> VolumeReach {
    VolumeReach { volume: blob.id.volume, seq: blob.seq }
}

#[tokio::test(start_paused = true)]
async fn durable_means_synced_on_the_primary_and_on_one_other() {
    let cluster = cluster(3);
    let blob = put(&cluster, 1000).await.unwrap();
    cluster.nodes.take_calls();
    cluster.blobs.make_durable(&[reach(&blob), reach(&blob)]).await.unwrap();
    let (primary, other) = (blob.id.volume.0, blob.id.volume.0 % 3 + 1);
    let mut calls: Vec<_> = cluster.nodes.take_calls().into_iter().map(|c| (c.what, c.node)).collect();
    calls.sort_unstable();
    assert_eq!(calls, [("pull", other), ("sync", primary)]);
    assert!(cluster.nodes.holds(other, blob.id));
}

#[tokio::test(start_paused = true)]
async fn durable_uses_another_member_when_one_fails() {
    let cluster = cluster(3);
    let blob = put(&cluster, 1000).await.unwrap();
    let (primary, other) = (blob.id.volume.0, blob.id.volume.0 % 3 + 1);
    let third = other % 3 + 1;
    assert_ne!(third, primary);
    cluster.nodes.set(other, Fault::Refuses(ErrorCode::Unavailable));
    cluster.blobs.make_durable(&[reach(&blob)]).await.unwrap();
    assert!(cluster.nodes.holds(third, blob.id));
}

#[tokio::test(start_paused = true)]
async fn durable_fails_with_reasons_when_too_few_nodes_answer() {
    let cluster = cluster(2);
    let blob = put(&cluster, 1000).await.unwrap();
    let other = blob.id.volume.0 % 2 + 1;
    cluster.nodes.set(other, Fault::Away);
    let error = cluster.blobs.make_durable(&[reach(&blob)]).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unreachable);
    assert!(error.to_string().contains(&format!("sn{other}")), "{error}");
}

#[tokio::test(start_paused = true)]
async fn durable_hangs_no_longer_than_its_deadline() {
    let cluster = cluster(2);
    let blob = put(&cluster, 1000).await.unwrap();
    cluster.nodes.set(1, Fault::Hangs);
    let started = Instant::now();
    let error = cluster.blobs.make_durable(&[reach(&blob)]).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Timeout);
    assert!(started.elapsed() <= config().durable_deadline + Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn durable_does_without_a_member_that_hangs() {
    let cluster = cluster(3);
    let blob = put(&cluster, 1000).await.unwrap();
    let other = blob.id.volume.0 % 3 + 1;
    cluster.nodes.set(other, Fault::Hangs);
    cluster.blobs.make_durable(&[reach(&blob)]).await.unwrap();
    assert!(cluster.nodes.holds(other % 3 + 1, blob.id));
}
