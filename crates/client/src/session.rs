//! A client's session with the master: operations in batches, each write carried out exactly once, the lease
//! kept up, and a new session when the old one is over.
//!
//! Order between concurrent callers is not kept. A caller that waits for its answer before the next call has
//! its operations carried out in that order.

use crate::batch::{Batcher, CallNumbers, Pending, describe};
use crate::events::{self, Subscription};
use crate::http::Failure;
use crate::retry::{Backoff, passes_by_itself};
use crate::task::AbortOnDrop;
use crate::{ClientError, EventHandler, MasterClient, MetaClient};
use async_trait::async_trait;
use dfs_proto::meta::{MetaRequest, MetaResponse, SessionReply, SessionRequest};
use dfs_proto::{ErrorCode, MetaOp, MetaReply, SessionId};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;

/// Requests under way at a time: more than one, so that a slow operation does not hold up the others.
const REQUESTS_MAX: usize = 4;

/// Operations that wait to be sent; more callers than that wait to be queued.
const QUEUE_OPS_MAX: usize = 4096;

/// One try of a request: after this a master that does not answer is asked again over a new connection.
const TRY_MS_MAX: u64 = 10_000;

/// The master is told of the end of a session, if it answers within this.
const CLOSE_MS_MAX: u64 = 2000;

/// Short at first: a master that restarts is back within a second or two.
const BACKOFF: Backoff = Backoff::of_ms(50, 2000);

/// A session with the master. Dropping it leaves the session to its lease; [`Session::close`] ends it.
///
/// When the master no longer knows the session (it was away for longer than the lease), a new one is opened
/// and what is safe is sent again. A write that may have been carried out under the old session fails with
/// `session_expired`, because nobody can tell whether it was. What the old session held (opens, inode ranges,
/// grants) is gone then; [`EventHandler::on_reset`] tells subscribers so.
pub struct Session {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Pending>,
    _dispatcher: AbortOnDrop<()>,
    keeper: AbortOnDrop<()>,
}

/// What the tasks of a session have in common.
pub(crate) struct Shared {
    pub master: MasterClient,
    client: String,
    /// The present session; those who need to act on a new one watch it.
    pub current: watch::Sender<SessionReply>,
    /// Held while a new session is opened, so that it is opened once for all who wait. An async mutex,
    /// because it is held over the request.
    opening: tokio::sync::Mutex<()>,
    numbers: CallNumbers,
    /// When the master last answered: the lease runs from then.
    renewed: Mutex<Instant>,
    /// The error of the last request when it failed; told to callers whose time runs out.
    outage: Mutex<Option<Outage>>,
    closed: AtomicBool,
    /// Who subscribed first. Weak: it holds the session.
    observer: OnceLock<Weak<dyn EventHandler>>,
}

struct Outage {
    since: Instant,
    error: ClientError,
}

impl Session {
    /// Opens a session for `client` (for people: program, host and process). A master that is away is asked
    /// again until the deadline of `master`.
    pub async fn open(master: MasterClient, client: String) -> Result<Arc<Session>, ClientError> {
        let deadline = Instant::now() + master.deadline();
        let reply = open_patiently(&master, &client, deadline).await?;
        let shared = Arc::new(Shared {
            master,
            client,
            current: watch::Sender::new(reply),
            opening: tokio::sync::Mutex::new(()),
            numbers: CallNumbers::default(),
            renewed: Mutex::new(Instant::now()),
            outage: Mutex::new(None),
            closed: AtomicBool::new(false),
            observer: OnceLock::new(),
        });
        let (queue, receiver) = mpsc::channel(QUEUE_OPS_MAX);
        let dispatcher = AbortOnDrop::spawn(dispatch(shared.clone(), Batcher::new(receiver)));
        let keeper = AbortOnDrop::spawn(keep(shared.clone()));
        Ok(Arc::new(Session { shared, queue, _dispatcher: dispatcher, keeper }))
    }

    /// Number of the present session.
    pub fn id(&self) -> SessionId {
        self.shared.id()
    }

    /// What the master said of the present session.
    pub fn info(&self) -> SessionReply {
        self.shared.current.borrow().clone()
    }

    /// The present session, and each that takes its place.
    pub fn watch(&self) -> watch::Receiver<SessionReply> {
        self.shared.current.subscribe()
    }

    /// Ends another session, whose client is known to be gone.
    pub async fn end_another(&self, id: SessionId) -> Result<(), ClientError> {
        self.shared.master.close_session(id, self.shared.master.deadline()).await
    }

    /// Tells `handler` of changes by others until the subscription is dropped.
    ///
    /// `on_reset` is called each time the stream stands: at first, after each `on_down`, and when the master
    /// says that events were lost. Events that were missed while the stream was down and can be had again
    /// follow; they do no harm after the reset. Before the first `on_reset`, nothing may be cached.
    pub fn subscribe(self: &Arc<Self>, handler: Arc<dyn EventHandler>) -> Subscription {
        // The first one is told of what changes made here have done to directories.
        let _ = self.shared.observer.set(Arc::downgrade(&handler));
        events::subscribe(self.shared.clone(), handler)
    }

    /// Ends the session; later calls fail. Opens and grants are given up.
    pub async fn close(&self) {
        self.shared.closed.store(true, Ordering::Release);
        self.keeper.abort();
        let id = self.id();
        let deadline = Duration::from_millis(CLOSE_MS_MAX).min(self.shared.master.deadline());
        if let Err(e) = self.shared.master.close_session(id, deadline).await {
            log::debug!("session {id} is left to its lease: {e}");
        }
    }
}

#[async_trait]
impl MetaClient for Session {
    async fn call(&self, op: MetaOp) -> Result<MetaReply, ClientError> {
        if self.shared.closed.load(Ordering::Acquire) {
            return Err(closed());
        }
        let what = describe(&op);
        let deadline = Instant::now() + self.shared.master.deadline();
        let (pending, reply) = Pending::new(op, &self.shared.numbers, deadline);
        let answered = async {
            self.queue.send(pending).await.map_err(|_| closed())?;
            reply.await.map_err(|_| closed())?
        };
        match tokio::time::timeout_at(deadline, answered).await {
            Ok(result) => result,
            Err(_) => Err(self.shared.too_late(what)),
        }
    }

    fn session(&self) -> Option<SessionId> {
        Some(self.id())
    }
}

fn closed() -> ClientError {
    ClientError::local(ErrorCode::Unavailable, "the session with the master was closed")
}

impl Shared {
    pub fn id(&self) -> SessionId {
        self.current.borrow().session
    }

    /// The error of a call whose deadline has passed: why the master could not be asked, where that is known.
    fn too_late(&self, what: &str) -> ClientError {
        if let Some(outage) = &*self.outage.lock() {
            return outage.error.clone();
        }
        ClientError::Timeout {
            server: self.master.url().to_owned(),
            what: what.to_owned(),
            deadline_ms: self.master.deadline().as_millis() as u64,
        }
    }

    fn note_answer(&self) {
        *self.renewed.lock() = Instant::now();
        if let Some(outage) = self.outage.lock().take() {
            let ms = outage.since.elapsed().as_millis();
            log::info!("the master at {} answers again, after {ms} ms", self.master.url());
        }
    }

    fn note_failure(&self, error: &ClientError) {
        let mut outage = self.outage.lock();
        let since = outage.as_ref().map_or_else(Instant::now, |o| o.since);
        if outage.is_none() {
            log::warn!("the master did not answer; trying again: {error}");
        }
        *outage = Some(Outage { since, error: error.clone() });
    }

    fn observer(&self) -> Option<Arc<dyn EventHandler>> {
        self.observer.get()?.upgrade()
    }

    fn tell_directories(&self, response: &MetaResponse) {
        if let Some(observer) = self.observer().filter(|_| !response.directories.is_empty()) {
            response.directories.iter().for_each(|attr| observer.on_directory(attr));
        }
    }

    /// The answer to a change that is sent again does not tell of directories.
    fn tell_unclear_change(&self, batch: &[Pending]) {
        if let Some(observer) = self.observer().filter(|_| batch.iter().any(Pending::is_write)) {
            observer.on_unclear_change();
        }
    }

    /// Opens a new session in place of `expired`, unless somebody has done so already.
    pub async fn reopen(&self, expired: SessionId) -> Result<(), ClientError> {
        let _one_at_a_time = self.opening.lock().await;
        if self.id() != expired || self.closed.load(Ordering::Acquire) {
            return Ok(());
        }
        let request = SessionRequest { client: self.client.clone() };
        let deadline = self.master.deadline().min(Duration::from_millis(TRY_MS_MAX));
        let reply = self.master.open_session(&request, deadline).await?;
        log::warn!("session {expired} with the master is over; it goes on as session {}", reply.session);
        self.note_answer();
        self.current.send_replace(reply);
        Ok(())
    }

    /// One try of a request.
    async fn send(&self, batch: &[Pending], id: SessionId) -> Result<MetaResponse, Failure> {
        let calls = batch.iter().map(Pending::call).collect();
        let request = MetaRequest { session: Some(id), acked_below: self.numbers.acked_below(), calls };
        let latest = batch.iter().map(|p| p.deadline).max();
        let left = latest.map_or(self.master.deadline(), |at| at.saturating_duration_since(Instant::now()));
        self.master.meta(&request, left.min(Duration::from_millis(TRY_MS_MAX))).await
    }
}

async fn open_patiently(
    master: &MasterClient,
    client: &str,
    deadline: Instant,
) -> Result<SessionReply, ClientError> {
    let request = SessionRequest { client: client.to_owned() };
    let mut attempt = 0;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let error = match master.open_session(&request, left.min(Duration::from_millis(TRY_MS_MAX))).await {
            Ok(reply) => return Ok(reply),
            Err(error) => error,
        };
        // A session too many ends with its lease.
        if !passes_by_itself(error.code()) || Instant::now() >= deadline {
            return Err(error);
        }
        if attempt == 0 {
            log::warn!("no session yet; trying for another {} s: {error}", left.as_secs());
        }
        BACKOFF.wait(attempt, deadline).await;
        attempt += 1;
    }
}

/// Sends what gathers, a few requests at a time.
async fn dispatch(shared: Arc<Shared>, mut batcher: Batcher) {
    let slots = Arc::new(Semaphore::new(REQUESTS_MAX));
    while batcher.ready().await.is_some() {
        let Ok(slot) = slots.clone().acquire_owned().await else { return };
        let batch = batcher.take();
        if batch.is_empty() {
            continue;
        }
        let shared = shared.clone();
        tokio::spawn(async move {
            carry_out(&shared, batch).await;
            drop(slot);
        });
    }
}

/// Sends a batch until each of its operations is answered or nobody wants it any more.
async fn carry_out(shared: &Shared, mut batch: Vec<Pending>) {
    let mut attempt = 0;
    loop {
        let id = shared.id();
        batch = fail_lost_writes(batch, id);
        batch.retain(Pending::wanted);
        let Some(latest) = batch.iter().map(|p| p.deadline).max() else { return };
        // Those to be sent alone come one after the other; the rest of the batch waits for its turn.
        let rest = if batch[0].alone { batch.split_off(1) } else { Vec::new() };
        let outcome = match shared.send(&batch, id).await {
            Ok(response) => {
                shared.note_answer();
                shared.tell_directories(&response);
                if attempt > 0 {
                    shared.tell_unclear_change(&batch);
                }
                deliver(batch, response)
            }
            Err(failure) => {
                shared.tell_unclear_change(&batch);
                refused(shared, batch, failure, id)
            }
        };
        batch = outcome.again;
        let made_progress = batch.is_empty();
        batch.extend(rest);
        if outcome.expired
            && let Err(e) = shared.reopen(id).await
        {
            shared.note_failure(&e);
            if !passes_by_itself(e.code()) {
                batch.into_iter().for_each(|p| p.answer(Err(e.clone())));
                return;
            }
            BACKOFF.wait(attempt, latest).await;
        } else if outcome.pause {
            BACKOFF.wait(attempt, latest).await;
        }
        attempt = if made_progress { 0 } else { attempt + 1 };
    }
}

/// What is left to do after a try.
struct Outcome {
    /// To be sent again.
    again: Vec<Pending>,
    /// The session is over: open another one first.
    expired: bool,
    /// Wait a little first.
    pause: bool,
}

/// Hands out the results; operations that the master could not carry out just now stay.
fn deliver(batch: Vec<Pending>, response: MetaResponse) -> Outcome {
    let mut outcome = Outcome { again: Vec::new(), expired: false, pause: false };
    for (pending, result) in batch.into_iter().zip(response.results) {
        match result {
            Err(e) if e.code == ErrorCode::SessionExpired => {
                outcome.expired = true;
                outcome.again.push(pending);
            }
            Err(e) if e.code == ErrorCode::Unavailable => {
                outcome.pause = true;
                outcome.again.push(pending);
            }
            result => pending.answer(result.map_err(ClientError::from)),
        }
    }
    outcome
}

/// What becomes of a batch whose request did not succeed.
fn refused(shared: &Shared, mut batch: Vec<Pending>, failure: Failure, id: SessionId) -> Outcome {
    let code = failure.error.code();
    if code == ErrorCode::SessionExpired {
        return Outcome { again: batch, expired: true, pause: false };
    }
    // Every operation may be repeated within its session: reads always, writes because of their number.
    if passes_by_itself(code) {
        shared.note_failure(&failure.error);
        if failure.sent {
            batch.iter_mut().filter(|p| p.is_write()).for_each(|p| p.perhaps_done_under = Some(id));
        }
        // A fault of the server may be one operation's doing.
        let isolate = code == ErrorCode::Internal && batch.len() > 1;
        batch.iter_mut().for_each(|p| p.alone |= isolate);
        return Outcome { again: batch, expired: false, pause: true };
    }
    if batch.len() > 1 {
        batch.iter_mut().for_each(|p| p.alone = true);
        return Outcome { again: batch, expired: false, pause: false };
    }
    batch.into_iter().for_each(|p| p.answer(Err(failure.error.clone())));
    Outcome { again: Vec::new(), expired: false, pause: false }
}

/// Writes that may have been carried out under another session than `id` are not sent under `id`: it would
/// take their numbers for new ones.
fn fail_lost_writes(batch: Vec<Pending>, id: SessionId) -> Vec<Pending> {
    let lost = |p: &Pending| p.perhaps_done_under.is_some_and(|under| under != id);
    let (lost, kept): (Vec<_>, Vec<_>) = batch.into_iter().partition(lost);
    lost.into_iter().for_each(Pending::answer_lost);
    kept
}

/// Renews the lease while there is nothing else to say.
async fn keep(shared: Arc<Shared>) {
    loop {
        let lease = Duration::from_millis(shared.current.borrow().lease_ms);
        let due = *shared.renewed.lock() + lease / 3;
        if Instant::now() < due {
            tokio::time::sleep_until(due).await;
            continue;
        }
        let id = shared.id();
        let problem = match shared.send(&[], id).await {
            Ok(_) => {
                shared.note_answer();
                continue;
            }
            Err(failure) if failure.error.code() == ErrorCode::SessionExpired => {
                shared.reopen(id).await.err()
            }
            Err(failure) => Some(failure.error),
        };
        if let Some(error) = problem {
            shared.note_failure(&error);
            tokio::time::sleep(BACKOFF.cap).await;
        }
    }
}
