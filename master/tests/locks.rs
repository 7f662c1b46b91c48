//! Locks between sessions, over HTTP.

// Helpers are no test functions to clippy; a failed unwrap is a failed test here.
#![allow(clippy::unwrap_used)]

mod support;

use dfs_proto::event::EventLine;
use dfs_proto::lock::WAITER_FORGOTTEN_MS;
use dfs_proto::meta::{ClusterOp, MetaCall, ReadOp, WriteOp};
use dfs_proto::{
    ErrorCode, Event, EventKind, Ino, LockHolder, LockMode, LockOwner, LockRange, LockRequest, LockSpace,
    Locked, MetaOp, MetaReply, Name, SessionId, WireError,
};
use std::sync::atomic::{AtomicU64, Ordering};
use support::*;

const OWNER: LockOwner = LockOwner(u64::MAX);

/// A session that numbers its calls.
struct Client<'h> {
    h: &'h Harness,
    id: SessionId,
    seq: AtomicU64,
}

impl<'h> Client<'h> {
    async fn open(h: &'h Harness, name: &str) -> Client<'h> {
        Client::come_back(h, h.session(name).await, 1)
    }

    fn come_back(h: &'h Harness, id: SessionId, seq: u64) -> Client<'h> {
        Client { h, id, seq: AtomicU64::new(seq) }
    }

    async fn write(&self, op: WriteOp) -> Result<MetaReply, WireError> {
        let seq = self.seq.fetch_add(1, Ordering::SeqCst);
        self.h.call(Some(self.id), seq, MetaOp::Write(op)).await
    }

    async fn lock(&self, request: LockRequest, wait: bool) -> Result<Locked, WireError> {
        match self.write(WriteOp::Lock { request, wait }).await? {
            MetaReply::Locked(locked) => Ok(locked),
            other => panic!("not about a lock: {other:?}"),
        }
    }

    /// Asks for the lock and gets it.
    async fn take(&self, request: LockRequest) {
        assert_eq!(self.lock(request, false).await, Ok(Locked::Granted), "{request:?}");
    }

    /// Asks for the lock, does not get it, and waits.
    async fn wait_for(&self, request: LockRequest) -> Vec<LockHolder> {
        match self.lock(request, true).await {
            Ok(Locked::Blocked(holders)) => holders,
            other => panic!("{request:?}: {other:?}"),
        }
    }

    async fn unlock(&self, request: LockRequest) {
        let LockRequest { ino, space, owner, range, .. } = request;
        let done = self.write(WriteOp::Unlock { ino, space, owner, range }).await;
        assert_eq!(done, Ok(MetaReply::Done));
    }

    async fn test(&self, request: LockRequest) -> Option<LockHolder> {
        match self.h.call(Some(self.id), 0, MetaOp::Read(ReadOp::TestLock(request))).await {
            Ok(MetaReply::Lock(holder)) => holder,
            other => panic!("{request:?}: {other:?}"),
        }
    }

    /// What this session is told from now on.
    fn listen(&self) -> Lines {
        let mut lines = Lines::open(self.h.at, &format!("/v1/events?session={}", self.id));
        assert!(matches!(lines.next(), EventLine::Ping(_)));
        lines
    }

    async fn renew(&self) {
        self.h.call(Some(self.id), 0, MetaOp::Cluster(ClusterOp::Space)).await.unwrap();
    }
}

/// The next event that is no ping.
fn next_event(lines: &mut Lines) -> EventKind {
    loop {
        match lines.next() {
            EventLine::Event(Event { kind, .. }) => return kind,
            EventLine::Ping(_) => {}
            EventLine::Reset(at) => panic!("the stream was reset at {at}"),
        }
    }
}

async fn make_file(h: &Harness, name: &str) -> Ino {
    let maker = h.session("maker").await;
    h.commit(maker, 1, new_file(name, None)).await.unwrap().attr.ino
}

fn range(ino: Ino, first: u64, last: u64, mode: LockMode) -> LockRequest {
    let range = LockRange { first, last };
    LockRequest { ino, space: LockSpace::Range, owner: OWNER, range, mode, pid: 42 }
}

fn whole(ino: Ino, mode: LockMode) -> LockRequest {
    LockRequest { space: LockSpace::Whole, ..range(ino, 0, LockRange::END, mode) }
}

use LockMode::{Exclusive, Shared};

/// flock(2) and fcntl(2) locks hold between all mounts. Who waits for one that another mount has is
/// told as soon as it is given up, or a part of it, or made shared.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_is_told_when_the_lock_is_given_up() {
    let h = Harness::start().await;
    let file = make_file(&h, "f").await;
    let (a, b) = (Client::open(&h, "a").await, Client::open(&h, "b").await);
    let mut told = b.listen();
    a.take(range(file, 0, 99, Exclusive)).await;
    let wanted = range(file, 50, 60, Exclusive);
    let in_the_way = LockHolder {
        session: a.id,
        owner: OWNER,
        range: range(file, 0, 99, Exclusive).range,
        mode: Exclusive,
        pid: 42,
    };
    assert_eq!(b.wait_for(wanted).await, [in_the_way]);
    assert_eq!((h.status().await.locks, h.status().await.lock_waiters), (1, 1));
    let metrics = String::from_utf8(h.get("/metrics").await.body).unwrap();
    assert!(metrics.contains("\ndfs_master_locks 1\n") && metrics.contains("\ndfs_master_lock_waiters 1\n"));

    // A part is made weaker, another is freed: each may let somebody in.
    a.take(range(file, 0, 9, Shared)).await;
    assert_eq!(next_event(&mut told), EventKind::Unlocked(file));
    assert_eq!(b.wait_for(wanted).await.len(), 1);
    a.unlock(range(file, 40, 99, Exclusive)).await;
    assert_eq!(next_event(&mut told), EventKind::Unlocked(file));
    assert_eq!(b.lock(wanted, true).await, Ok(Locked::Granted));
    assert_eq!(h.status().await.lock_waiters, 0);

    // Nobody waits any more, so nothing is said until something else happens.
    a.unlock(range(file, 0, 9, Exclusive)).await;
    let marker = make_file(&h, "marker").await;
    assert!(matches!(next_event(&mut told), EventKind::Entry { .. }), "{marker}");
}

/// The locks of a mount that ends, or that has not been heard of for as long as its lease, are free,
/// and who waits for them is told.
#[tokio::test(flavor = "multi_thread")]
async fn locks_end_with_their_session_and_who_waits_is_told() {
    let h = Harness::start().await;
    let file = make_file(&h, "f").await;
    let (a, b, c) = (Client::open(&h, "a").await, Client::open(&h, "b").await, Client::open(&h, "c").await);
    let mut told = b.listen();
    a.take(range(file, 0, 9, Exclusive)).await;
    b.wait_for(range(file, 5, 5, Shared)).await;
    let closed = request(h.at, "DELETE", &format!("/v1/sessions/{}", a.id), &[], &[]).await;
    assert_eq!(closed.status, 204);
    assert_eq!(next_event(&mut told), EventKind::Unlocked(file));
    assert_eq!(a.lock(range(file, 0, 9, Shared), false).await.unwrap_err().code, ErrorCode::SessionExpired);

    // Another falls silent.
    c.take(whole(file, Exclusive)).await;
    b.wait_for(whole(file, Exclusive)).await;
    h.clock.advance_ms(h.config.session_lease_ms - 1);
    b.renew().await;
    b.wait_for(whole(file, Exclusive)).await;
    h.clock.advance_ms(2);
    assert_eq!(next_event(&mut told), EventKind::Unlocked(file));
    assert_eq!(b.lock(whole(file, Exclusive), true).await, Ok(Locked::Granted));
    assert_eq!(h.status().await.locks, 1);
}

/// Locks outlive a restart of the master. Those of a mount that does not come back within its lease are
/// free when the lease is over.
#[tokio::test(flavor = "multi_thread")]
async fn locks_outlive_the_master_and_go_when_their_session_does_not_come_back() {
    let mut h = Harness::start().await;
    let file = make_file(&h, "f").await;
    let (a, b) = (h.session("a").await, h.session("b").await);
    Client::come_back(&h, a, 1).take(range(file, 0, 9, Exclusive)).await;
    h.restart().await;
    let (a, b) = (Client::come_back(&h, a, 2), Client::come_back(&h, b, 2));
    assert_eq!(b.wait_for(range(file, 9, 9, Shared)).await[0].session, a.id);
    // A call that comes again has the answer that it had, and no second effect.
    let again = WriteOp::Lock { request: range(file, 0, 9, Exclusive), wait: false };
    let answer = h.call(Some(a.id), 1, MetaOp::Write(again)).await;
    assert_eq!(answer, Ok(MetaReply::Locked(Locked::Granted)));
    assert_eq!(h.status().await.locks, 1);

    h.clock.advance_ms(h.config.session_lease_ms - 1);
    b.renew().await;
    assert_eq!(b.wait_for(range(file, 9, 9, Shared)).await.len(), 1);
    let mut told = b.listen();
    h.clock.advance_ms(2);
    assert_eq!(next_event(&mut told), EventKind::Unlocked(file));
    assert_eq!(b.lock(range(file, 9, 9, Shared), true).await, Ok(Locked::Granted));
}

/// A wait for a byte range that would never end, because the holder waits for the caller in turn,
/// directly or over others on any mount, fails with EDEADLK. Whoever is refused keeps the locks that it
/// has.
#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_would_never_end_is_refused() {
    let h = Harness::start().await;
    let (x, y) = (make_file(&h, "x").await, make_file(&h, "y").await);
    let (a, b, c) = (Client::open(&h, "a").await, Client::open(&h, "b").await, Client::open(&h, "c").await);
    a.take(range(x, 0, 9, Exclusive)).await;
    b.take(range(y, 0, 9, Exclusive)).await;
    a.wait_for(range(y, 0, 9, Exclusive)).await;
    // Without waiting there is nothing to refuse; somebody else may wait.
    assert!(matches!(b.lock(range(x, 0, 9, Exclusive), false).await, Ok(Locked::Blocked(_))));
    c.wait_for(range(x, 0, 9, Exclusive)).await;
    let refused = b.lock(range(x, 5, 5, Shared), true).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Deadlock, "{refused}");
    // The one who is refused keeps what it has, and gives it up.
    assert!(a.test(range(y, 0, 9, Shared)).await.is_some());
    b.unlock(range(y, 0, 9, Exclusive)).await;
    assert_eq!(a.lock(range(y, 0, 9, Exclusive), true).await, Ok(Locked::Granted));
    b.wait_for(range(x, 5, 5, Shared)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn owners_of_one_session_deadlock_too_even_within_one_batch() {
    let h = Harness::start().await;
    let file = make_file(&h, "f").await;
    let a = Client::open(&h, "a").await;
    let other = |request: LockRequest| LockRequest { owner: LockOwner(1), ..request };
    let ops = [
        WriteOp::Lock { request: range(file, 0, 9, Shared), wait: false },
        WriteOp::Lock { request: other(range(file, 0, 9, Shared)), wait: false },
        WriteOp::Lock { request: range(file, 0, 9, Exclusive), wait: true },
        WriteOp::Lock { request: other(range(file, 0, 9, Exclusive)), wait: true },
    ];
    let calls = ops.into_iter().zip(1..).map(|(op, seq)| MetaCall { seq, op: MetaOp::Write(op) }).collect();
    let results = h.batch(Some(a.id), 0, calls).await.json::<dfs_proto::MetaResponse>().results;
    let codes: Vec<Option<ErrorCode>> = results.iter().map(|r| r.as_ref().err().map(|e| e.code)).collect();
    assert_eq!(codes, [None, None, None, Some(ErrorCode::Deadlock)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gives_up_or_falls_silent_waits_no_more() {
    let h = Harness::start().await;
    let (x, y) = (make_file(&h, "x").await, make_file(&h, "y").await);
    let (a, b) = (Client::open(&h, "a").await, Client::open(&h, "b").await);
    a.take(range(x, 0, 9, Exclusive)).await;
    b.take(range(y, 0, 9, Exclusive)).await;
    a.wait_for(range(y, 0, 9, Exclusive)).await;
    assert_eq!(a.test(range(y, 0, 9, Exclusive)).await.map(|holder| holder.session), Some(b.id));
    b.wait_for(range(x, 0, 9, Exclusive)).await;
    assert_eq!(b.test(range(x, 0, 9, Exclusive)).await.map(|holder| holder.session), Some(a.id));

    a.wait_for(range(y, 0, 9, Exclusive)).await;
    h.clock.advance_ms(WAITER_FORGOTTEN_MS + 1);
    b.wait_for(range(x, 0, 9, Exclusive)).await;
    let waits = || async { (h.status().await.lock_waiters == 1).then_some(()) };
    eventually("the silent one is forgotten", waits).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_go_with_a_file_that_is_removed_for_good() {
    let h = Harness::start().await;
    let file = make_file(&h, "f").await;
    let (a, b) = (Client::open(&h, "a").await, Client::open(&h, "b").await);
    let mut told = b.listen();
    a.take(whole(file, Exclusive)).await;
    b.wait_for(whole(file, Exclusive)).await;
    let unlink = WriteOp::Unlink { parent: Ino::ROOT, name: Name::new("f").unwrap() };
    a.write(unlink).await.unwrap();
    while next_event(&mut told) != EventKind::Unlocked(file) {}
    let refused = b.lock(whole(file, Exclusive), true).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Stale);
    assert_eq!((h.status().await.locks, h.status().await.lock_waiters), (0, 0));
}

/// Locks are advisory: they keep nobody from reading, writing or removing a file without asking for
/// them.
#[tokio::test(flavor = "multi_thread")]
async fn locks_are_advice_to_those_who_ask() {
    let h = Harness::start().await;
    let file = make_file(&h, "f").await;
    let (a, b) = (Client::open(&h, "a").await, Client::open(&h, "b").await);
    a.take(whole(file, Exclusive)).await;
    a.take(range(file, 0, LockRange::END, Exclusive)).await;
    let changes = dfs_proto::meta::AttrChanges { size: Some(10), ..Default::default() };
    assert!(b.write(WriteOp::SetAttr { ino: file, changes }).await.is_ok());
    // Without a session one may ask, and not lock.
    let asked = h.call(None, 0, MetaOp::Read(ReadOp::TestLock(whole(file, Shared)))).await;
    assert!(matches!(asked, Ok(MetaReply::Lock(Some(_)))), "{asked:?}");
    let lock = WriteOp::Lock { request: whole(file, Shared), wait: false };
    let refused = h.call(None, 0, MetaOp::Write(lock)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::SessionExpired);
}

/// Converting a lock of flock(2) is not atomic for who waits, as on Linux: the old lock is given up first, so
/// that of two that wait to have their shared locks made exclusive, one gets it. Who does not wait (LOCK_NB)
/// and is refused keeps the lock that it has, where Linux takes it away.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_wait_to_have_a_shared_flock_made_exclusive_one_gets_it() {
    let h = Harness::start().await;
    let file = make_file(&h, "f").await;
    let (a, b) = (Client::open(&h, "a").await, Client::open(&h, "b").await);
    a.take(whole(file, Shared)).await;
    b.take(whole(file, Shared)).await;
    assert!(matches!(a.lock(whole(file, Exclusive), false).await, Ok(Locked::Blocked(_))));
    assert_eq!(h.status().await.locks, 2);
    a.wait_for(whole(file, Exclusive)).await;
    let mut told = a.listen();
    assert_eq!(b.lock(whole(file, Exclusive), true).await, Ok(Locked::Granted));
    assert_eq!(a.wait_for(whole(file, Exclusive)).await[0].session, b.id);
    b.unlock(whole(file, Exclusive)).await;
    assert_eq!(next_event(&mut told), EventKind::Unlocked(file));
    assert_eq!(a.lock(whole(file, Exclusive), true).await, Ok(Locked::Granted));
}
