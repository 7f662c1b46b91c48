//! The master behind a real listener, with nodes that only talk.

// Helpers are no test functions to clippy; a failed unwrap is a failed test here.
#![allow(clippy::unwrap_used)]

mod support;

use dfs_proto::event::EventLine;
use dfs_proto::meta::{ClusterOp, CopyProblem, MetaCall, ReadOp, WriteOp};
use dfs_proto::order::{OrderOutcome, OrderTask};
use dfs_proto::{
    BlobId, BlobKey, BlobRef, ErrorCode, EventKind, Ino, Md5, MetaOp, MetaReply, MetaResponse, Name, NodeId,
    NodeState, Seq, SessionId, VolumeId,
};
use std::collections::{BTreeSet, HashSet};
use support::*;

fn open_volumes(node: &FakeNode) -> BTreeSet<VolumeId> {
    node.reply.open_volumes.iter().copied().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_keeps_its_number_across_addresses_and_restarts_of_the_master() {
    let mut h = Harness::start().await;
    let a = FakeNode::join(&h, "a").await;
    let b = FakeNode::join(&h, "b").await;
    assert_ne!(a.id(), b.id());
    assert_eq!((a.reply.name.as_str(), b.reply.name.as_str()), ("sn1", "sn2"));
    h.restart().await;
    let mut moved = registration("a");
    moved.url = "http://0.0.0.0:6000".into();
    moved.cluster = a.reply.cluster.clone();
    let again = FakeNode::join_as(&h, moved).await;
    assert_eq!((again.id(), &again.reply.name), (a.id(), &a.reply.name));
    assert_eq!(again.reply.cluster, a.reply.cluster);
    assert_eq!(again.reply.token_key, a.reply.token_key);
    let status = h.status().await;
    let node = status.nodes.iter().find(|n| n.info.id == a.id()).unwrap();
    assert_eq!(node.info.url, "http://127.0.0.1:6000");
    assert_eq!(node.info.state, NodeState::Live);
    let silent = status.nodes.iter().find(|n| n.info.id == b.id()).unwrap();
    assert_eq!(silent.info.state, NodeState::Suspect);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_unique_and_strangers_are_refused() {
    let h = Harness::with(|c| c.cluster_key = "secret".into()).await;
    let named = |uuid: &str| {
        let mut r = registration(uuid);
        r.cluster_key = "secret".into();
        r.name = "disk".into();
        r
    };
    let a = FakeNode::join_as(&h, named("a")).await;
    let b = FakeNode::join_as(&h, named("b")).await;
    assert_eq!((a.reply.name.as_str(), b.reply.name.as_str()), ("disk", "disk-2"));
    assert_eq!(FakeNode::join_as(&h, named("b")).await.reply.name, "disk-2");

    let mut wrong_key = named("c");
    wrong_key.cluster_key = "guess".into();
    let mut wrong_cluster = named("c");
    wrong_cluster.cluster = "dfs-other".into();
    let mut wrong_url = named("c");
    wrong_url.url = "ftp://x".into();
    let mut wrong_name = named("c");
    wrong_name.name = "a\nb".into();
    for (request, status, code) in [
        (wrong_key, 401, ErrorCode::Unauthorized),
        (wrong_cluster, 409, ErrorCode::Conflict),
        (wrong_url, 400, ErrorCode::InvalidArgument),
        (wrong_name, 400, ErrorCode::InvalidArgument),
    ] {
        let answer = h.post("/v1/nodes/register", &request).await;
        assert_eq!((answer.status, answer.error().code), (status, code));
    }
    assert_eq!(h.status().await.nodes.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_is_appended_by_one_incarnation_only() {
    let mut h = Harness::start().await;
    let first = FakeNode::join(&h, "a").await;
    assert_eq!(first.reply.open_volumes.len(), 4);
    let session = h.session("test").await;
    let granted = h.grants(session, 2, vec![]).await.unwrap();
    let granted: BTreeSet<VolumeId> = granted.iter().map(|g| g.volume.id).collect();
    assert_eq!(granted.len(), 2);

    // The same run of the process, as after a restart of the master: nothing changes.
    h.restart().await;
    assert_eq!(first.beat_with(&h, vec![], vec![]).await.error().code, ErrorCode::SessionExpired);
    assert_eq!(open_volumes(&FakeNode::join(&h, "a").await), open_volumes(&first));

    let mut next = registration("a");
    next.incarnation = 2;
    let second = FakeNode::join_as(&h, next).await;
    assert_eq!(second.reply.open_volumes.len(), 4);
    assert!(open_volumes(&second).is_disjoint(&granted));
    assert_eq!(first.beat_with(&h, vec![], vec![]).await.status, 440);
    assert_eq!(second.beat(&h).await.open_volumes.len(), 4);
    let session = h.session("test").await;
    for grant in h.grants(session, 64, vec![]).await.unwrap() {
        assert!(open_volumes(&second).contains(&grant.volume.id));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_that_nobody_could_have_written_to_go_over_to_the_next_incarnation() {
    let h = Harness::start().await;
    let mut request = registration("a");
    let first = FakeNode::join_as(&h, request.clone()).await;
    for incarnation in 2..20 {
        request.incarnation = incarnation;
        let next = FakeNode::join_as(&h, request.clone()).await;
        assert_eq!(open_volumes(&next), open_volumes(&first));
    }
    assert_eq!(h.status().await.volumes, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_spread_over_live_nodes_and_never_share_keys() {
    let h = Harness::start().await;
    let mut nodes = Vec::new();
    for uuid in ["a", "b", "c", "d"] {
        nodes.push(FakeNode::join(&h, uuid).await);
    }
    let session = h.session("test").await;
    let mut keys: HashSet<(VolumeId, BlobKey)> = HashSet::new();
    let mut primaries: HashSet<NodeId> = HashSet::new();
    for _ in 0..30 {
        for grant in h.grants(session, 3, vec![]).await.unwrap() {
            assert!(keys.insert((grant.volume.id, grant.first_key)), "{grant:?}");
            assert!(grant.volume.open && grant.keys == 256);
            primaries.insert(grant.volume.copies[0].node.id);
        }
    }
    assert_eq!(primaries.len(), 4);

    let avoid: Vec<NodeId> = nodes[..3].iter().map(FakeNode::id).collect();
    for grant in h.grants(session, 64, avoid).await.unwrap() {
        assert_eq!(grant.volume.copies[0].node.id, nodes[3].id());
    }

    // Two of them fall silent: suspect, and no longer chosen, dead, and still not.
    for age_ms in [6_000, 31_000] {
        for _ in 0..age_ms / 1_000 {
            h.clock.advance_ms(1_000);
            nodes[0].beat(&h).await;
            nodes[1].beat(&h).await;
        }
        h.call(Some(session), 0, MetaOp::Cluster(ClusterOp::Space)).await.unwrap();
        for grant in h.grants(session, 64, vec![]).await.unwrap() {
            let primary = grant.volume.copies[0].node.id;
            assert!([nodes[0].id(), nodes[1].id()].contains(&primary), "after {age_ms} ms: {primary}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_nodes_or_room_the_error_says_so() {
    let h = Harness::start().await;
    let session = h.session("test").await;
    assert_eq!(h.grants(session, 1, vec![]).await.unwrap_err().code, ErrorCode::NoNodes);
    let mut full = registration("a");
    full.free_bytes = 1_000;
    FakeNode::join_as(&h, full).await;
    assert_eq!(h.grants(session, 1, vec![]).await.unwrap_err().code, ErrorCode::NoSpace);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_never_handed_out_twice_even_across_a_restart() {
    let mut h = Harness::with(|c| c.open_volumes_per_node = 1).await;
    let node = FakeNode::join(&h, "a").await;
    let mut seen = HashSet::new();
    for round in 0..3 {
        let session = h.session("test").await;
        // More than one step of reserved keys.
        for _ in 0..300 {
            for grant in h.grants(session, 1, vec![]).await.unwrap() {
                assert!(seen.insert((grant.volume.id, grant.first_key)), "round {round}: {grant:?}");
            }
        }
        h.restart().await;
        FakeNode::join_as(&h, node.register.clone()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_comes_again_has_one_effect_and_the_same_answer() {
    let mut h = Harness::start().await;
    FakeNode::join(&h, "a").await;
    let session = h.session("test").await;
    let grant = h.grants(session, 1, vec![]).await.unwrap().remove(0);
    let commit = new_file("report.txt", Some(blob(&grant, 1)));
    let first = h.commit(session, 1, commit.clone()).await.unwrap();
    assert_eq!(h.commit(session, 1, commit.clone()).await.unwrap(), first);
    h.restart().await;
    assert_eq!(h.commit(session, 1, commit.clone()).await.unwrap(), first);
    assert_eq!(h.status().await.files, 1);

    // Refusals are kept as well.
    let unlink = MetaOp::Write(WriteOp::Unlink { parent: Ino::ROOT, name: Name::new("later").unwrap() });
    assert_eq!(h.call(Some(session), 2, unlink.clone()).await.unwrap_err().code, ErrorCode::NotFound);
    h.commit(session, 3, new_file("later", None)).await.unwrap();
    assert_eq!(h.call(Some(session), 2, unlink.clone()).await.unwrap_err().code, ErrorCode::NotFound);
    assert!(h.lookup("later").await.is_ok());

    // What was acknowledged is forgotten, and never carried out again.
    let next = MetaCall { seq: 4, op: MetaOp::Write(WriteOp::Sync) };
    assert_eq!(h.batch(Some(session), 4, vec![next]).await.status, 200);
    let e = h.commit(session, 1, commit).await.unwrap_err();
    assert_eq!(e.code, ErrorCode::InvalidArgument);
    assert_eq!(h.status().await.files, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_number_at_the_same_time_has_one_effect() {
    let h = Harness::start().await;
    let session = h.session("test").await;
    for seq in 1..=20u64 {
        let commit = new_file(&format!("f{seq}"), None);
        let (a, b, c) = tokio::join!(
            h.commit(session, seq, commit.clone()),
            h.commit(session, seq, commit.clone()),
            h.commit(session, seq, commit.clone())
        );
        assert_eq!(a, b);
        assert_eq!(b, c);
    }
    assert_eq!(h.status().await.files, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sessions_that_store_one_name_keep_both_files() {
    let h = Harness::start().await;
    let (a, b) = (h.session("a").await, h.session("b").await);
    let (one, two) =
        tokio::join!(h.commit(a, 1, new_file("d.txt", None)), h.commit(b, 1, new_file("d.txt", None)));
    let names: BTreeSet<Option<String>> =
        [one, two].into_iter().map(|c| c.unwrap().stored_as.map(|n| n.to_string())).collect();
    assert_eq!(names, BTreeSet::from([None, Some("d-1.txt".to_owned())]));
    assert_ne!(h.lookup("d.txt").await.unwrap().ino, h.lookup("d-1.txt").await.unwrap().ino);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_session_ends_and_a_live_one_stays() {
    let h = Harness::start().await;
    let (live, silent) = (h.session("live").await, h.session("silent").await);
    for _ in 0..7 {
        h.clock.advance_ms(10_000);
        assert_eq!(h.batch(Some(live), 0, vec![]).await.status, 200);
    }
    eventually("the end of the session", || async { (h.status().await.sessions == 1).then_some(()) }).await;
    let answer = h.batch(Some(silent), 0, vec![]).await;
    assert_eq!((answer.status, answer.error().code), (440, ErrorCode::SessionExpired));
    assert_eq!(h.commit(silent, 1, new_file("x", None)).await.unwrap_err().code, ErrorCode::SessionExpired);
    assert_eq!(h.status().await.files, 0);
    let ended = request(h.at, "DELETE", &format!("/v1/sessions/{live}"), &[], &[]).await;
    assert_eq!(ended.status, 204);
    assert_eq!(h.batch(Some(live), 0, vec![]).await.status, 440);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_file_outlives_its_last_name() {
    let h = Harness::start().await;
    FakeNode::join(&h, "a").await;
    let (reader, other) = (h.session("reader").await, h.session("other").await);
    let grant = h.grants(other, 1, vec![]).await.unwrap().remove(0);
    let ino = h.commit(other, 1, new_file("f", Some(blob(&grant, 1)))).await.unwrap().attr.ino;
    let open = MetaOp::Read(ReadOp::Open { ino, known: None });
    h.call(Some(reader), 0, open).await.unwrap();
    let unlink = MetaOp::Write(WriteOp::Unlink { parent: Ino::ROOT, name: Name::new("f").unwrap() });
    h.call(Some(other), 2, unlink).await.unwrap();
    let extents = MetaOp::Read(ReadOp::Extents { ino, from: 0, limit: 10 });
    let MetaReply::Extents(page) = h.call(Some(reader), 0, extents.clone()).await.unwrap() else { panic!() };
    assert_eq!(page.extents.len(), 1);
    assert_eq!(page.volumes.len(), 1);
    let close = MetaOp::Cluster(ClusterOp::Close { ino, count: 1 });
    h.call(Some(reader), 0, close).await.unwrap();
    eventually("the orphan's end", || async {
        let gone = h.call(None, 0, MetaOp::Read(ReadOp::GetAttr { ino })).await;
        gone.is_err().then_some(())
    })
    .await;
}

/// Two nodes, and a file committed in a volume of the first.
async fn with_file(h: &Harness) -> (FakeNode, FakeNode, SessionId, VolumeId) {
    let (a, b) = (FakeNode::join(h, "a").await, FakeNode::join(h, "b").await);
    let session = h.session("test").await;
    // The volumes of the first node got their second member when the second one came.
    let grant = eventually("a volume with two members", || async {
        let grants = h.grants(session, 64, vec![b.id()]).await.unwrap();
        grants.into_iter().find(|g| g.volume.copies.len() == 2)
    })
    .await;
    h.commit(session, 1, new_file("report.txt", Some(blob(&grant, 5)))).await.unwrap();
    (a, b, session, grant.volume.id)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_followed_by_an_order_and_its_end_by_whole_copies() {
    let h = Harness::start().await;
    let (a, b, _, volume) = with_file(&h).await;
    let claimed = h.claim_until(|c| c.order.volume == volume).await;
    assert_eq!(claimed.order.task, OrderTask::CatchUp(Seq(5)));
    assert_eq!(claimed.order.target.id, b.id());
    assert_eq!(claimed.order.sources[0].id, a.id());
    assert_eq!(claimed.order.hint, "report.txt");
    assert_eq!(h.status().await.replication.volumes_behind, 1);
    h.finish(&claimed, Seq(5)).await;
    let replication = h.status().await.replication;
    assert_eq!((replication.volumes_behind, replication.records_behind), (0, 0));
    assert_eq!(replication.orders_queued, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_the_queue_lost_is_issued_again() {
    let mut h = Harness::start().await;
    let (a, b, _, volume) = with_file(&h).await;
    let lost = h.claim_until(|c| c.order.volume == volume).await;
    h.settle(&lost).await;
    for _ in 0..=h.config.order_patience_ms / 1_000 {
        h.clock.advance_ms(1_000);
        a.beat(&h).await;
        b.beat(&h).await;
    }
    let again = h.claim_until(|c| c.order.volume == volume).await;
    assert_ne!(again.order.id, lost.order.id);
    assert_eq!(again.order.task, OrderTask::CatchUp(Seq(5)));

    // A master that starts anew knows it from its tables and the nodes.
    h.restart().await;
    let mut has_it = a.register.clone();
    has_it.copies = vec![copy(volume, 5)];
    FakeNode::join_as(&h, has_it).await;
    FakeNode::join_as(&h, b.register.clone()).await;
    let anew = h.claim_until(|c| c.order.volume == volume).await;
    assert_eq!(anew.order.task, OrderTask::CatchUp(Seq(5)));
    assert_eq!(anew.order.target.id, b.id());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_place_of_a_dead_node_is_taken_by_another() {
    let h = Harness::start().await;
    let (a, b, session, volume) = with_file(&h).await;
    let claimed = h.claim_until(|c| c.order.volume == volume).await;
    h.finish(&claimed, Seq(5)).await;
    let c = FakeNode::join(&h, "c").await;
    for _ in 0..32 {
        h.clock.advance_ms(1_000);
        b.beat(&h).await;
        c.beat(&h).await;
    }
    let order = h.claim_until(|o| o.order.volume == volume && o.order.target.id == c.id()).await;
    assert_eq!(order.order.task, OrderTask::CatchUp(Seq(5)));
    assert_eq!(order.order.sources.iter().map(|s| s.id).collect::<Vec<_>>(), [b.id()]);
    h.finish(&order, Seq(5)).await;
    let MetaReply::Volumes(volumes) =
        h.call(None, 0, MetaOp::Cluster(ClusterOp::Volumes { ids: vec![volume] })).await.unwrap()
    else {
        panic!()
    };
    assert!(!volumes[0].open);
    let whole = volumes[0].copies.iter().filter(|m| m.seq == Seq(5) && m.node.id != a.id()).count();
    assert_eq!(whole, 2);
    assert_eq!(h.status().await.replication.volumes_behind, 0);

    // It comes back in the same run: it may append again, to other volumes.
    let old = open_volumes(&a);
    let new = eventually("volumes for the one that came back", || async {
        let open = a.beat(&h).await.open_volumes;
        (open.len() == 4).then_some(open)
    })
    .await;
    assert!(new.iter().all(|id| !old.contains(id)));
    assert!(h.grants(session, 1, vec![b.id(), c.id()]).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn heartbeats_tell_how_far_logs_reach_and_full_volumes_are_sealed() {
    let h = Harness::with(|c| c.volume_bytes_max = 100 * 4096).await;
    let (a, b, _, volume) = with_file(&h).await;
    let first = h.claim_until(|c| c.order.volume == volume).await;
    h.finish(&first, Seq(5)).await;
    a.beat_with(&h, vec![copy(volume, 9)], vec![]).await;
    let second = h.claim_until(|c| c.order.volume == volume).await;
    assert_eq!(second.order.task, OrderTask::CatchUp(Seq(9)));
    // The target says so itself, before the replicator does.
    b.beat_with(&h, vec![copy(volume, 9)], vec![]).await;
    assert_eq!(h.status().await.replication.volumes_behind, 0);

    a.beat_with(&h, vec![copy(volume, 101)], vec![]).await;
    let open = eventually("the seal", || async {
        let open = a.beat(&h).await.open_volumes;
        (!open.contains(&volume) && open.len() == 4).then_some(open)
    })
    .await;
    assert!(!open.contains(&volume));
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_copies_are_repaired_and_hearsay_kills_nobody() {
    let h = Harness::start().await;
    let (a, b, session, volume) = with_file(&h).await;
    let claimed = h.claim_until(|c| c.order.volume == volume).await;
    h.finish(&claimed, Seq(5)).await;
    // The key of the file's blob; others are nobody's, and their reports are passed over.
    let layout: dfs_proto::status::LayoutReply = h.get("/v1/files-layout/report.txt").await.json();
    let key = layout.extents[0].blob.unwrap().id.key;
    let report = |node: NodeId, problem| {
        MetaOp::Cluster(ClusterOp::BadCopy { blob: BlobId { volume, key }, node, problem })
    };
    h.call(Some(session), 0, report(a.id(), CopyProblem::Unreachable)).await.unwrap();
    h.call(Some(session), 0, report(NodeId(99), CopyProblem::Damaged)).await.unwrap();
    let nobodys = BlobId { volume, key: BlobKey(key.0 + 1) };
    let missing = ClusterOp::BadCopy { blob: nobodys, node: b.id(), problem: CopyProblem::Missing };
    h.call(Some(session), 0, MetaOp::Cluster(missing)).await.unwrap();
    let status = h.status().await;
    assert_eq!(status.replication.bad_blobs, 0);
    assert!(status.nodes.iter().all(|n| n.info.state == NodeState::Live));

    h.call(Some(session), 0, report(b.id(), CopyProblem::Damaged)).await.unwrap();
    let repair = h.claim_until(|c| c.order.task == OrderTask::Repair(key)).await;
    assert_eq!((repair.order.target.id, repair.order.sources[0].id), (b.id(), a.id()));
    assert_eq!(h.status().await.replication.bad_blobs, 1);
    h.finish(&repair, Seq(5)).await;
    assert_eq!(h.status().await.replication.bad_blobs, 0);

    a.beat_with(&h, vec![], vec![BlobId { volume, key }]).await;
    let repair = h.claim_until(|c| c.order.task == OrderTask::Repair(key)).await;
    assert_eq!(repair.order.target.id, a.id());
    // Given up: tried again after a pause.
    let finish = dfs_proto::order::FinishRequest {
        order: repair.order.clone(),
        outcome: OrderOutcome::Dead { reason: "no".into() },
    };
    assert_eq!(h.post("/v1/orders/finish", &finish).await.status, 204);
    h.settle(&repair).await;
    for _ in 0..61 {
        h.clock.advance_ms(1_000);
        a.beat(&h).await;
        b.beat(&h).await;
    }
    let again = h.claim_until(|c| c.order.task == OrderTask::Repair(key)).await;
    assert_ne!(again.order.id, repair.order.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn fsync_gets_another_member_for_one_that_fails() {
    let h = Harness::start().await;
    let (a, b, session, volume) = with_file(&h).await;
    let c = FakeNode::join(&h, "c").await;
    let ask = |failed: Vec<NodeId>| MetaOp::Cluster(ClusterOp::Members { volume, failed });
    let MetaReply::Members(members) = h.call(Some(session), 0, ask(vec![])).await.unwrap() else { panic!() };
    let ids =
        |m: &dfs_proto::meta::Members| -> Vec<NodeId> { m.volume.copies.iter().map(|c| c.node.id).collect() };
    assert_eq!((members.needed, ids(&members)), (2, vec![a.id(), b.id()]));
    let MetaReply::Members(members) = h.call(Some(session), 0, ask(vec![b.id()])).await.unwrap() else {
        panic!()
    };
    assert_eq!((members.needed, ids(&members)), (2, vec![a.id(), b.id(), c.id()]));
    let unknown = MetaOp::Cluster(ClusterOp::Members { volume: VolumeId(999), failed: vec![] });
    assert_eq!(h.call(Some(session), 0, unknown).await.unwrap_err().code, ErrorCode::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_told_to_others_and_a_restart_resets_them() {
    let mut h = Harness::start().await;
    let (writer, reader) = (h.session("writer").await, h.session("reader").await);
    let (at, own) = (h.at, format!("/v1/events?session={writer}"));
    let other = format!("/v1/events?session={reader}");
    let (mut mine, mut others) =
        tokio::task::spawn_blocking(move || (Lines::open(at, &own), Lines::open(at, &other))).await.unwrap();
    let start: EventLine = others.next();
    let EventLine::Ping(start) = start else { panic!("{start:?}") };
    assert!(matches!(mine.next(), EventLine::Ping(_)));
    h.commit(writer, 1, new_file("f", None)).await.unwrap();
    let name = Name::new("f").unwrap();
    let wanted = EventKind::Entry { parent: Ino::ROOT, name };
    let (event, echo) = tokio::task::spawn_blocking(move || {
        let event = loop {
            match others.next() {
                EventLine::Event(event) => break event,
                EventLine::Ping(_) => {}
                EventLine::Reset(at) => panic!("{at}"),
            }
        };
        let echo: Vec<EventLine> = (0..3).map(|_| mine.next()).collect();
        (event, echo)
    })
    .await
    .unwrap();
    assert_eq!((&event.kind, event.origin), (&wanted, Some(writer)));
    assert!(echo.iter().all(|line| matches!(line, EventLine::Ping(_))), "{echo:?}");

    // Who comes back in time gets what it missed.
    let (at, since) = (h.at, format!("/v1/events?since={start}&session={reader}"));
    let missed = tokio::task::spawn_blocking(move || {
        let mut lines = Lines::open(at, &since);
        [lines.next::<EventLine>(), lines.next::<EventLine>()]
    });
    assert_eq!(missed.await.unwrap()[1], EventLine::Event(event));

    h.restart().await;
    let (at, since) = (h.at, format!("/v1/events?since={start}&session={reader}"));
    let first = tokio::task::spawn_blocking(move || Lines::open(at, &since).next::<EventLine>());
    assert!(matches!(first.await.unwrap(), EventLine::Reset(_)));
    assert_eq!(h.get("/v1/events?since=x").await.status, 400);
    assert_eq!(h.get("/v1/events?session=999").await.status, 440);
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_refused_in_json_and_change_nothing() {
    let h = Harness::start().await;
    FakeNode::join(&h, "a").await;
    let before = h.status().await;
    let json = [("content-type", "application/json")];
    let postcard = [("content-type", "application/x-dfs-postcard")];
    for (method, path, headers, body, status, code) in [
        ("POST", "/v1/meta", &json, &b"{"[..], 400, ErrorCode::Malformed),
        ("POST", "/v1/meta", &json, b"{\"session\":1}", 400, ErrorCode::Malformed),
        ("POST", "/v1/meta", &postcard, b"\xff\xff\xff\xff", 400, ErrorCode::Malformed),
        ("POST", "/v1/sessions", &json, b"[]", 400, ErrorCode::Malformed),
        ("POST", "/v1/nodes/register", &json, b"{\"uuid\":3}", 400, ErrorCode::Malformed),
        ("POST", "/v1/nodes/x/heartbeat", &json, b"{}", 400, ErrorCode::Malformed),
        ("POST", "/v1/orders/claim", &json, b"nonsense", 400, ErrorCode::Malformed),
        ("DELETE", "/v1/sessions/x", &json, b"", 400, ErrorCode::Malformed),
        ("DELETE", "/v1/sessions/0", &json, b"", 440, ErrorCode::SessionExpired),
        ("GET", "/v1/meta", &json, b"", 405, ErrorCode::NotSupported),
        ("DELETE", "/v1/status", &json, b"", 405, ErrorCode::NotSupported),
        ("POST", "/files/x", &json, b"", 405, ErrorCode::NotSupported),
        ("GET", "/v2/meta", &json, b"", 404, ErrorCode::NotFound),
        ("GET", "/files/a/../b", &json, b"", 400, ErrorCode::InvalidName),
        ("PUT", "/files/%2e%2e/b", &json, b"x", 400, ErrorCode::InvalidName),
        ("PUT", "/files/a%00", &json, b"x", 400, ErrorCode::InvalidName),
        ("PUT", "/files/a?collision=maybe", &json, b"x", 400, ErrorCode::InvalidArgument),
        ("PUT", "/files/a/", &json, b"x", 409, ErrorCode::IsDirectory),
        ("DELETE", "/files/", &json, b"", 403, ErrorCode::NotPermitted),
        ("GET", "/files/none", &json, b"", 404, ErrorCode::NotFound),
        ("GET", "/v1/files-layout/none", &json, b"", 404, ErrorCode::NotFound),
        ("GET", "/files/?limit=x", &json, b"", 400, ErrorCode::Malformed),
    ] {
        let answer = request(h.at, method, path, headers, body).await;
        assert_eq!((answer.status, answer.error().code), (status, code), "{method} {path}: {answer:?}");
        assert!(!answer.error().message.is_empty());
    }
    let after = h.status().await;
    assert_eq!((after.files, after.directories), (before.files, before.directories));
    assert_eq!(after.sessions, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn operations_that_cannot_be_are_refused_one_by_one() {
    let h = Harness::start().await;
    FakeNode::join(&h, "a").await;
    let session = h.session("test").await;
    let grant = h.grants(session, 1, vec![]).await.unwrap().remove(0);
    let good = blob(&grant, 1);
    let with = |change: fn(&mut BlobRef)| {
        let mut blob = good;
        change(&mut blob);
        blob
    };
    for bad in [
        with(|b| b.id.volume = VolumeId(999)),
        with(|b| b.id.key = BlobKey(1 << 40)),
        with(|b| b.seq = Seq(0)),
        with(|b| b.seq = Seq(u64::MAX)),
    ] {
        let e = h.commit(session, 0, new_file("f", Some(bad))).await.unwrap_err();
        assert_eq!(e.code, ErrorCode::InvalidArgument, "{bad:?}");
    }
    let mut stranger = new_file("f", Some(good));
    stranger.ino = Ino(1 << 40);
    assert_eq!(h.commit(session, 0, stranger).await.unwrap_err().code, ErrorCode::InvalidArgument);
    assert_eq!(
        h.call(Some(session), u64::MAX, MetaOp::Write(WriteOp::Sync)).await.unwrap_err().code,
        ErrorCode::InvalidArgument
    );

    // Without a session nothing is written or handed out.
    for op in [
        MetaOp::Write(WriteOp::Commit(new_file("f", None))),
        MetaOp::Cluster(ClusterOp::Inodes { count: 1 }),
        MetaOp::Cluster(ClusterOp::Grants { count: 1, avoid: vec![] }),
    ] {
        assert_eq!(h.call(None, 0, op).await.unwrap_err().code, ErrorCode::SessionExpired);
    }

    // One that fails does not stop the others, and the order is kept.
    let call = |op| MetaCall { seq: 0, op };
    let name = |n: &str| Name::new(n).unwrap();
    let calls = vec![
        call(MetaOp::Write(WriteOp::Commit(new_file("one", None)))),
        call(MetaOp::Write(WriteOp::Unlink { parent: Ino::ROOT, name: name("none") })),
        call(MetaOp::Read(ReadOp::Lookup { parent: Ino::ROOT, name: name("one") })),
        call(MetaOp::Write(WriteOp::Unlink { parent: Ino::ROOT, name: name("one") })),
        call(MetaOp::Read(ReadOp::Lookup { parent: Ino::ROOT, name: name("one") })),
    ];
    let results = h.batch(Some(session), 0, calls).await.json::<MetaResponse>().results;
    let ok: Vec<bool> = results.iter().map(Result::is_ok).collect();
    assert_eq!(ok, [true, false, true, true, false]);

    let many = vec![call(MetaOp::Read(ReadOp::GetAttr { ino: Ino::ROOT })); 1025];
    assert_eq!(h.batch(None, 0, many).await.status, 400);
    assert_eq!(h.status().await.files, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_body_is_refused() {
    let h = Harness::start().await;
    let length = (33u64 << 20).to_string();
    let headers = [("content-length", length.as_str())];
    let answer = request(h.at, "POST", "/v1/meta", &headers, &vec![b' '; 33 << 20]).await;
    assert_eq!((answer.status, answer.error().code), (413, ErrorCode::BodyTooLarge));
}

#[tokio::test(flavor = "multi_thread")]
async fn leased_inode_numbers_are_never_handed_out_twice() {
    let mut h = Harness::start().await;
    let mut seen = HashSet::new();
    for _ in 0..3 {
        let session = h.session("test").await;
        for _ in 0..3 {
            let op = MetaOp::Cluster(ClusterOp::Inodes { count: 100 });
            let MetaReply::Inodes(range) = h.call(Some(session), 0, op).await.unwrap() else { panic!() };
            for ino in range.first.0..range.first.0 + range.count {
                assert!(seen.insert(ino));
            }
        }
        let mut commit = new_file("f", None);
        commit.ino = Ino(*seen.iter().max().unwrap());
        h.commit(session, 1, commit).await.unwrap();
        h.restart().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_files_nodes_and_volumes() {
    let mut h = Harness::start().await;
    let (a, _, session, volume) = with_file(&h).await;
    let mut durable = new_file("durable", None);
    durable.durable = true;
    h.commit(session, 2, durable).await.unwrap();
    let attr = h.lookup("report.txt").await.unwrap();
    let before = h.status().await;
    h.restart().await;
    let after = h.status().await;
    assert_eq!(h.lookup("report.txt").await.unwrap(), attr);
    assert_eq!(
        (after.cluster, after.files, after.volumes, after.sessions),
        (before.cluster, 2, before.volumes, 1)
    );
    let open = MetaOp::Read(ReadOp::Open { ino: attr.ino, known: None });
    let MetaReply::Opened(opened) = h.call(None, 0, open).await.unwrap() else { panic!() };
    let page = opened.extents.unwrap();
    assert_eq!(page.extents[0].blob.unwrap().md5, Md5([7; 16]));
    assert_eq!((page.volumes[0].id, page.volumes[0].copies[0].node.id), (volume, a.id()));
    let layout = h.get("/v1/files-layout/report.txt").await;
    let layout: dfs_proto::status::LayoutReply = layout.json();
    assert_eq!((layout.extents.len(), layout.volumes.len(), layout.replicas), (1, 1, 2));
    // The session goes on as well.
    h.commit(session, 3, new_file("after", None)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn room_is_what_live_nodes_have_for_whole_sets_of_copies() {
    let h = Harness::start().await;
    FakeNode::join(&h, "a").await;
    FakeNode::join(&h, "b").await;
    let MetaReply::Space(space) = h.call(None, 0, MetaOp::Cluster(ClusterOp::Space)).await.unwrap() else {
        panic!()
    };
    assert_eq!((space.total_bytes, space.free_bytes), (100 * GIB, 50 * GIB));
    assert_eq!((space.inodes, space.nodes.len()), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_away_stops_nothing_but_the_orders() {
    // Nobody listens at the discard port.
    let h = Harness::with(|c| c.redis = Some("redis://127.0.0.1:9".into())).await;
    let (_, _, session, _) = with_file(&h).await;
    h.commit(session, 2, new_file("g", None)).await.unwrap();
    assert_eq!(h.status().await.files, 2);
    let claim = dfs_proto::order::ClaimRequest { worker: "w".into(), max: 1, wait_ms: 0 };
    let answer = h.post("/v1/orders/claim", &claim);
    assert_eq!(answer.await.error().code, ErrorCode::NotSupported);
}

#[tokio::test(flavor = "multi_thread")]
async fn people_and_prometheus_are_served() {
    let h = Harness::start().await;
    FakeNode::join(&h, "a").await;
    assert_eq!(h.get("/healthz").await.body, b"ok\n");
    let metrics = String::from_utf8(h.get("/metrics").await.body).unwrap();
    assert!(metrics.contains("dfs_master_nodes{state=\"live\"} 1\n"), "{metrics}");
    assert!(metrics.contains("dfs_master_volumes_open 4\n"), "{metrics}");
    let page = h.get("/").await;
    assert!(page.header("content-type").unwrap().starts_with("text/html"));
    assert!(String::from_utf8(page.body).unwrap().contains("/v1/status"));
}
