//! Sessions against a master that drops answers, forgets sessions and goes away.

use crate::server::{Reply, Request, Server, serve};
use crate::wait_for;
use dfs_client::{EventHandler, MasterClient, MetaClient, Session};
use dfs_proto::codec::Encoding;
use dfs_proto::event::{EventCursor, EventLine};
use dfs_proto::meta::{MetaCall, MetaRequest, MetaResponse, ReadOp, SessionReply, WriteOp};
use dfs_proto::{ErrorCode, Event, EventKind, Ino, MetaOp, MetaReply, SessionId, WireError};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc};

/// What happens to one meta request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Carried out, and the answer is lost.
    LoseAnswer,
    /// Refused.
    Refuse(ErrorCode),
}

/// A master as far as sessions go.
#[derive(Default)]
struct Master {
    /// What happens to the next requests; after that all goes well.
    turns: Mutex<VecDeque<Turn>>,
    requests: Mutex<Vec<MetaRequest>>,
    /// Writes that were carried out: session and number.
    effects: Mutex<Vec<(SessionId, u64)>>,
    sessions: AtomicU64,
    /// Sessions up to this number are over.
    expired: AtomicU64,
    lease_ms: AtomicU64,
    /// Requests wait here while it is held up.
    held_up: Mutex<Option<Arc<Notify>>>,
    streams: Mutex<Vec<(String, mpsc::UnboundedSender<String>)>>,
}

impl Master {
    async fn answer(self: Arc<Self>, r: Request) -> Reply {
        match (r.method.as_str(), r.path.split('?').next().unwrap()) {
            ("POST", "/v1/sessions") => {
                let session = SessionId(self.sessions.fetch_add(1, Ordering::SeqCst) + 1);
                let lease_ms = self.lease_ms.load(Ordering::SeqCst);
                Reply::json(&SessionReply { session, lease_ms, cluster: "test".into(), replicas: 2 })
            }
            ("DELETE", _) => Reply::json(&()),
            ("GET", "/v1/events") => {
                let (sender, receiver) = mpsc::unbounded_channel();
                self.streams.lock().push((r.path, sender));
                Reply::Lines(receiver)
            }
            ("POST", "/v1/meta") => {
                assert_eq!(r.header("content-type"), Some("application/x-dfs-postcard"));
                self.meta(Encoding::Postcard.decode(&r.body).unwrap()).await
            }
            other => panic!("not for this fake: {other:?}"),
        }
    }

    async fn meta(&self, request: MetaRequest) -> Reply {
        self.requests.lock().push(request.clone());
        let gate = self.held_up.lock().clone();
        if let Some(gate) = gate {
            gate.notified().await;
        }
        let session = request.session.unwrap();
        let turn = if request.calls.is_empty() { None } else { self.turns.lock().pop_front() };
        if session.0 <= self.expired.load(Ordering::SeqCst) {
            return Reply::error(ErrorCode::SessionExpired);
        }
        if let Some(Turn::Refuse(code)) = turn {
            return Reply::error(code);
        }
        let results: Vec<_> = request.calls.iter().map(|c| self.carry_out(session, c)).collect();
        if results.len() > 1 && results.iter().any(|r| r.is_err()) {
            return Reply::error(ErrorCode::Malformed);
        }
        match turn {
            Some(Turn::LoseAnswer) => Reply::Drop,
            _ => Reply::encoded(Encoding::Postcard, 200, &MetaResponse { results, directories: Vec::new() }),
        }
    }

    fn carry_out(&self, session: SessionId, call: &MetaCall) -> Result<MetaReply, WireError> {
        if call.op == getattr(0) {
            return Err(WireError::new(ErrorCode::InvalidArgument, "no inode has the number 0"));
        }
        if matches!(call.op, MetaOp::Write(_)) {
            assert_ne!(call.seq, 0);
            let mut effects = self.effects.lock();
            if !effects.contains(&(session, call.seq)) {
                effects.push((session, call.seq));
            }
        }
        Ok(MetaReply::Done)
    }

    fn calls(&self) -> Vec<usize> {
        self.requests.lock().iter().map(|r| r.calls.len()).filter(|n| *n > 0).collect()
    }
}

fn getattr(ino: u64) -> MetaOp {
    MetaOp::Read(ReadOp::GetAttr { ino: Ino(ino) })
}

fn write() -> MetaOp {
    MetaOp::Write(WriteOp::RemoveXattr { ino: Ino::ROOT, name: "user.x".try_into().unwrap() })
}

async fn started() -> (Arc<Master>, Server, Arc<Session>) {
    let master = Arc::new(Master { lease_ms: AtomicU64::new(60_000), ..Master::default() });
    let (server, session) = session_with(&master).await;
    (master, server, session)
}

async fn session_with(master: &Arc<Master>) -> (Server, Arc<Session>) {
    let shared = master.clone();
    let server = serve(move |r| shared.clone().answer(r)).await;
    let client = MasterClient::new(&server.url, Duration::from_secs(10)).unwrap();
    let session = Session::open(client, "a test".into()).await.unwrap();
    (server, session)
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_sent_again_under_its_number() {
    let (master, _server, session) = started().await;
    master.turns.lock().extend([Turn::LoseAnswer, Turn::Refuse(ErrorCode::Unavailable), Turn::LoseAnswer]);
    assert_eq!(session.call(write()).await.unwrap(), MetaReply::Done);
    assert_eq!(*master.effects.lock(), [(SessionId(1), 1)]);
    let numbers: Vec<_> = master.requests.lock().iter().map(|r| (r.calls[0].seq, r.acked_below)).collect();
    assert_eq!(numbers, [(1, 1); 4]);
    session.call(write()).await.unwrap();
    let last = master.requests.lock().last().cloned().unwrap();
    assert_eq!((last.calls[0].seq, last.acked_below), (2, 2));
}

#[tokio::test]
async fn operations_that_arrive_meanwhile_go_together() {
    let (master, _server, session) = started().await;
    let gate = Arc::new(Notify::new());
    *master.held_up.lock() = Some(gate.clone());
    let call = |ino| {
        let session = session.clone();
        tokio::spawn(async move { session.call(getattr(ino)).await })
    };
    let mut callers = Vec::new();
    for ino in 1..=4 {
        callers.push(call(ino));
        wait_for("the request", || master.calls().len() == ino as usize).await;
    }
    callers.extend((5..=54).map(call));
    // Nothing tells when all callers have queued but the batch itself: the first one may leave early.
    tokio::task::yield_now().await;
    *master.held_up.lock() = None;
    gate.notify_waiters();
    for caller in callers {
        assert!(caller.await.unwrap().is_ok());
    }
    let calls = master.calls();
    assert_eq!(calls.iter().sum::<usize>(), 54);
    assert!(calls.len() <= 8, "50 operations in {} requests: {calls:?}", calls.len() - 4);
}

#[tokio::test]
async fn one_bad_operation_does_not_fail_its_neighbours() {
    let (master, _server, session) = started().await;
    let gate = Arc::new(Notify::new());
    *master.held_up.lock() = Some(gate.clone());
    let call = |ino| {
        let session = session.clone();
        tokio::spawn(async move { session.call(getattr(ino)).await })
    };
    let first: Vec<_> = (1..=4).map(call).collect();
    wait_for("four requests", || !master.calls().is_empty()).await;
    let rest: Vec<_> = [0, 5, 6].map(call).into();
    tokio::task::yield_now().await;
    *master.held_up.lock() = None;
    gate.notify_waiters();
    let mut failed = 0;
    for caller in first.into_iter().chain(rest) {
        failed += usize::from(caller.await.unwrap().is_err());
    }
    assert_eq!(failed, 1);
    let with_neighbours = |r: &MetaRequest| r.calls.len() > 1 && r.calls.iter().any(|c| c.op == getattr(0));
    assert!(master.requests.lock().iter().any(with_neighbours));
}

#[tokio::test]
async fn what_an_expired_session_refused_goes_on_under_one_new_session() {
    let (master, _server, session) = started().await;
    master.expired.store(1, Ordering::SeqCst);
    let calls = (1..=20).map(|n| {
        let session = session.clone();
        tokio::spawn(async move { session.call(if n % 2 == 0 { write() } else { getattr(n) }).await })
    });
    for caller in calls.collect::<Vec<_>>() {
        assert!(caller.await.unwrap().is_ok());
    }
    assert_eq!(session.id(), SessionId(2));
    assert_eq!(master.sessions.load(Ordering::SeqCst), 2);
    assert_eq!(master.effects.lock().len(), 10);
}

#[tokio::test]
async fn a_write_that_may_have_been_done_under_an_old_session_is_not_done_again() {
    let (master, _server, session) = started().await;
    let gate = Arc::new(Notify::new());
    master.turns.lock().push_back(Turn::LoseAnswer);
    *master.held_up.lock() = Some(gate.clone());
    let caller = {
        let session = session.clone();
        tokio::spawn(async move { session.call(write()).await })
    };
    wait_for("the first try", || master.calls().len() == 1).await;
    // It is carried out, its answer is lost, and then the session is over.
    gate.notify_one();
    wait_for("the second try", || master.calls().len() == 2).await;
    master.expired.store(1, Ordering::SeqCst);
    *master.held_up.lock() = None;
    gate.notify_one();
    let error = caller.await.unwrap().unwrap_err();
    assert_eq!(error.code(), ErrorCode::SessionExpired, "{error}");
    assert_eq!(*master.effects.lock(), [(SessionId(1), 1)]);
    // The session goes on.
    assert!(session.call(write()).await.is_ok());
    assert_eq!(session.id(), SessionId(2));
}

#[tokio::test]
async fn a_master_that_is_away_is_an_error_at_the_deadline() {
    let (_master, server, session) = {
        let master = Arc::new(Master { lease_ms: AtomicU64::new(60_000), ..Master::default() });
        let shared = master.clone();
        let server = serve(move |r| shared.clone().answer(r)).await;
        let client = MasterClient::new(&server.url, Duration::from_millis(1500)).unwrap();
        let session = Session::open(client, "a test".into()).await.unwrap();
        (master, server, session)
    };
    let url = server.url.clone();
    drop(server);
    let started = std::time::Instant::now();
    let error = session.call(getattr(1)).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::Unreachable, "{error}");
    assert!(error.to_string().contains(&url), "{error}");
    assert!(started.elapsed() < Duration::from_secs(8));
}

#[tokio::test]
async fn an_idle_session_is_kept_up() {
    let master = Arc::new(Master { lease_ms: AtomicU64::new(150), ..Master::default() });
    let (_server, session) = session_with(&master).await;
    wait_for("renewals", || master.requests.lock().len() >= 3).await;
    assert!(master.requests.lock().iter().all(|r| r.calls.is_empty() && r.session == Some(SessionId(1))));
    session.close().await;
    assert_eq!(session.call(getattr(1)).await.unwrap_err().code(), ErrorCode::Unavailable);
}

#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl EventHandler for Heard {
    fn on_reset(&self) {
        self.0.lock().push("reset".into());
    }

    fn on_down(&self) {
        self.0.lock().push("down".into());
    }

    fn on_event(&self, event: &Event) {
        self.0.lock().push(format!("event {}", event.at));
    }
}

impl Heard {
    fn is(&self, wanted: &[&str]) -> bool {
        *self.0.lock() == wanted
    }
}

fn line(line: EventLine) -> String {
    String::from_utf8(Encoding::Json.encode(&line).unwrap()).unwrap()
}

fn at(seq: u64) -> EventCursor {
    EventCursor { boot: 9, seq }
}

fn event(seq: u64) -> String {
    line(EventLine::Event(Event { at: at(seq), origin: None, kind: EventKind::Placement }))
}

#[tokio::test]
async fn the_stream_is_taken_up_where_it_broke() {
    let (master, _server, session) = started().await;
    let heard = Arc::new(Heard::default());
    let subscription = session.subscribe(heard.clone());
    wait_for("a stream", || master.streams.lock().len() == 1).await;
    {
        let streams = master.streams.lock();
        assert_eq!(streams[0].0, "/v1/events?session=1");
        streams[0].1.send(line(EventLine::Ping(at(4)))).unwrap();
        streams[0].1.send(event(5)).unwrap();
    }
    wait_for("an event", || heard.is(&["reset", "event 9.5"])).await;
    master.streams.lock()[0].1 = mpsc::unbounded_channel().0;
    wait_for("another stream", || master.streams.lock().len() == 2).await;
    {
        let streams = master.streams.lock();
        assert_eq!(streams[1].0, "/v1/events?since=9.5&session=1");
        streams[1].1.send(event(6)).unwrap();
        streams[1].1.send(line(EventLine::Reset(at(20)))).unwrap();
    }
    let wanted = ["reset", "event 9.5", "down", "reset", "event 9.6", "reset"];
    wait_for("the rest", || heard.is(&wanted)).await;
    drop(subscription);
    let streams = master.clone();
    wait_for("the end of the stream", || streams.streams.lock()[1].1.send(event(7)).is_err()).await;
    assert!(heard.is(&wanted));
}

#[tokio::test]
async fn a_silent_or_senseless_stream_counts_as_down() {
    let (master, _server, session) = started().await;
    let heard = Arc::new(Heard::default());
    let _subscription = session.subscribe(heard.clone());
    wait_for("a stream", || master.streams.lock().len() == 1).await;
    master.streams.lock()[0].1.send(line(EventLine::Ping(at(1)))).unwrap();
    wait_for("the reset", || heard.is(&["reset"])).await;
    // Three pings are missed.
    wait_for("the down", || heard.is(&["reset", "down"])).await;
    wait_for("another stream", || master.streams.lock().len() == 2).await;
    master.streams.lock()[1].1.send(line(EventLine::Ping(at(1)))).unwrap();
    master.streams.lock()[1].1.send("{\"nonsense\":1}".into()).unwrap();
    wait_for("the second down", || heard.is(&["reset", "down", "reset", "down"])).await;
}

#[tokio::test]
async fn a_new_session_gets_a_new_stream() {
    let (master, _server, session) = started().await;
    let heard = Arc::new(Heard::default());
    let _subscription = session.subscribe(heard.clone());
    wait_for("a stream", || master.streams.lock().len() == 1).await;
    master.streams.lock()[0].1.send(line(EventLine::Ping(at(1)))).unwrap();
    wait_for("the reset", || heard.is(&["reset"])).await;
    master.expired.store(1, Ordering::SeqCst);
    session.call(getattr(1)).await.unwrap();
    wait_for("another stream", || master.streams.lock().len() == 2).await;
    assert_eq!(master.streams.lock()[1].0, "/v1/events?since=9.1&session=2");
    assert!(heard.is(&["reset", "down"]));
}
