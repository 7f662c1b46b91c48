//! What the master adds to operations on the namespace: opens, the sessions of locks, times.

// Helpers are no test functions to clippy; a failed unwrap is a failed test here.
#![allow(clippy::unwrap_used)]

mod support;

use dfs_proto::meta::{ClusterOp, Commit, Make, MakeUnnamed, ReadOp, WriteOp};
use dfs_proto::{Attr, ErrorCode, FileKind, Ino, MetaOp, MetaReply, Name, SessionId, Timestamp, WireError};
use support::*;

/// A file without a name, made with call 1 of the session.
fn unnamed() -> MetaOp {
    let (ino, mode, umask, uid, gid) = (Ino(0), 0o600, 0, 0, 0);
    MetaOp::Write(WriteOp::MakeUnnamed(MakeUnnamed { parent: Ino::ROOT, ino, mode, umask, uid, gid }))
}

async fn attr(h: &Harness, session: SessionId, seq: u64, op: MetaOp) -> Result<Attr, WireError> {
    match h.call(Some(session), seq, op).await? {
        MetaReply::Attr(attr) => Ok(attr),
        other => panic!("no attributes: {other:?}"),
    }
}

/// Waits until the reaper has been by: it has taken a file that was made and closed after `ino`.
async fn reaper_has_passed(h: &Harness, session: SessionId) {
    let marker = attr(h, session, 0, unnamed()).await.unwrap().ino;
    h.call(Some(session), 0, MetaOp::Cluster(ClusterOp::Close { ino: marker, count: 1 })).await.unwrap();
    is_reaped(h, marker).await;
}

async fn is_reaped(h: &Harness, ino: Ino) {
    eventually("the orphan's end", || async {
        let gone = h.call(None, 0, MetaOp::Read(ReadOp::GetAttr { ino })).await;
        gone.is_err().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_a_name_is_open_from_the_start_and_goes_with_its_close() {
    let h = Harness::start().await;
    let (maker, other) = (h.session("maker").await, h.session("other").await);
    let ino = attr(&h, maker, 1, unnamed()).await.unwrap().ino;
    assert_eq!(attr(&h, maker, 1, unnamed()).await.unwrap().ino, ino, "the answer was lost");
    reaper_has_passed(&h, other).await;
    let read = || MetaOp::Read(ReadOp::GetAttr { ino });
    assert_eq!(attr(&h, other, 0, read()).await.unwrap().nlink, 0);
    h.call(Some(maker), 0, MetaOp::Cluster(ClusterOp::Close { ino, count: 1 })).await.unwrap();
    is_reaped(&h, ino).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_a_name_goes_with_its_session_and_stays_when_it_was_named() {
    let h = Harness::start().await;
    let (maker, other) = (h.session("maker").await, h.session("other").await);
    let lost = attr(&h, maker, 1, unnamed()).await.unwrap().ino;
    let kept = attr(&h, maker, 2, unnamed()).await.unwrap().ino;
    let link = WriteOp::Link { ino: kept, parent: Ino::ROOT, name: Name::new("kept").unwrap() };
    assert_eq!(attr(&h, maker, 3, MetaOp::Write(link)).await.unwrap().nlink, 1);
    assert_eq!(request(h.at, "DELETE", &format!("/v1/sessions/{maker}"), &[], &[]).await.status, 204);
    is_reaped(&h, lost).await;
    reaper_has_passed(&h, other).await;
    assert_eq!(h.lookup("kept").await.unwrap().ino, kept);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_without_a_name_survives_a_restart_that_its_maker_did_not_notice() {
    let mut h = Harness::with(|c| c.session_lease_ms = 1_000).await;
    let maker = h.session("maker").await;
    let ino = attr(&h, maker, 1, unnamed()).await.unwrap().ino;
    h.restart().await;
    assert_eq!(attr(&h, maker, 1, unnamed()).await.unwrap().ino, ino);
    // From here on the master knows itself what is open.
    h.clock.advance_ms(600);
    assert_eq!(h.batch(Some(maker), 0, vec![]).await.status, 200);
    h.clock.advance_ms(600);
    assert_eq!(h.batch(Some(maker), 0, vec![]).await.status, 200);
    let other = h.session("other").await;
    reaper_has_passed(&h, other).await;
    assert_eq!(attr(&h, maker, 0, MetaOp::Read(ReadOp::GetAttr { ino })).await.unwrap().ino, ino);
}

/// Whoever makes a file to use it has it open before anybody can remove it.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_made_to_be_open_outlives_its_name_until_it_is_closed() {
    let h = Harness::start().await;
    let (maker, other) = (h.session("maker").await, h.session("other").await);
    let make = |opened, name: &str| {
        let (kind, name, target) = (FileKind::File, Name::new(name).unwrap(), bytes::Bytes::new());
        let (parent, ino, mode, umask, uid, gid, rdev) = (Ino::ROOT, Ino(0), 0o600, 0, 0, 0, 0);
        MetaOp::Write(WriteOp::Make(Make {
            parent,
            name,
            ino,
            kind,
            mode,
            umask,
            uid,
            gid,
            rdev,
            target,
            opened,
        }))
    };
    let open = attr(&h, maker, 1, make(true, "open")).await.unwrap().ino;
    assert_eq!(attr(&h, maker, 1, make(true, "open")).await.unwrap().ino, open, "the answer was lost");
    let closed = attr(&h, maker, 2, make(false, "closed")).await.unwrap().ino;
    for (seq, name) in [(1, "open"), (2, "closed")] {
        let unlink = WriteOp::Unlink { parent: Ino::ROOT, name: Name::new(name).unwrap() };
        h.call(Some(other), seq, MetaOp::Write(unlink)).await.unwrap();
    }
    is_reaped(&h, closed).await;
    reaper_has_passed(&h, other).await;
    assert_eq!(attr(&h, other, 0, MetaOp::Read(ReadOp::GetAttr { ino: open })).await.unwrap().nlink, 0);
    h.call(Some(maker), 0, MetaOp::Cluster(ClusterOp::Close { ino: open, count: 1 })).await.unwrap();
    is_reaped(&h, open).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_under_locks_of_an_ended_session_is_refused() {
    let h = Harness::start().await;
    let (former, session) = (h.session("former").await, h.session("present").await);
    let ino = h.commit(session, 1, new_file("f", None)).await.unwrap().attr.ino;
    let commit = |locked_by| Commit { locked_by, create: None, ino, ..new_file("f", None) };
    let refused = h.commit(session, 2, commit(Some(former))).await;
    assert_eq!(refused.unwrap_err().code, ErrorCode::LockLost);
    h.commit(session, 3, commit(Some(session))).await.unwrap();
    h.commit(session, 4, commit(None)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_has_a_later_time_than_those_before() {
    let h = Harness::start().await;
    let session = h.session("test").await;
    let mut before = Timestamp::default();
    for seq in 1..20 {
        let make = h.commit(session, seq, new_file(&format!("f{seq}"), None)).await.unwrap();
        assert!(make.attr.ctime > before, "{:?} after {before:?}", make.attr.ctime);
        before = make.attr.ctime;
    }
}
