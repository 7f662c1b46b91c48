//! Carries out batches of operations: consecutive reads on one snapshot, consecutive writes in one transaction
//! with a savepoint each, and those about the cluster by the control plane; all in the order of the batch.
//!
//! A write with a number is carried out once: its result is kept in the transaction that made it, and found
//! there when it comes again. Knows neither HTTP nor encodings.

use crate::error::from_store;
use crate::locks::LockWaiters;
use crate::master::{Counts, Master};
use crate::sessions::{GATEWAY, Sessions, expired};
use crate::stamps::Stamps;
use dfs_metastore::{Counter, Durability, ReadTxn, WriteTxn};
use dfs_namespace::{OpError, WriteContext};
use dfs_proto::codec::Encoding;
use dfs_proto::limits::{COMMIT_EXTENTS_MAX, INODES_MAX, META_OPS_MAX};
use dfs_proto::meta::{ClusterOp, Commit, ExtentPage, InodeRange, MetaCall, ReadOp, WriteOp};
use dfs_proto::{
    Attr, BlobId, ErrorCode, EventKind, Ino, LockRequest, LockSpace, Locked, MetaOp, MetaReply, MetaRequest,
    MetaResponse, Name, Seq, SessionId, VolumeId, WireError,
};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Entries and extents in the answer to one batch: what a few full pages hold. It bounds the memory for an
/// answer; what goes beyond is answered `unavailable` and asked for again.
const ANSWER_ROWS_MAX: usize = 65_536;

/// Volumes in one question.
const VOLUMES_ASKED_MAX: usize = 4_096;

/// Operations that the thread which read a request carries out itself, if each is small: handing them to another one
/// would take longer. A few of them take less than a millisecond.
const HERE_OPS_MAX: usize = 8;

/// Directories in an answer; clients ask for the others.
const DIRECTORIES_TOLD_MAX: usize = 64;

/// Largest number of a call: what the store can keep.
const CALL_SEQ_MAX: u64 = i64::MAX as u64;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Somebody without a session: may read.
    Nobody,
    /// A client.
    Session(SessionId),
    /// This process itself: the gateway. Its calls are never sent again.
    Gateway,
}

impl Caller {
    /// Under which results are kept, and whose changes are no news to it.
    fn session(self) -> Option<SessionId> {
        match self {
            Caller::Session(id) => Some(id),
            Caller::Nobody | Caller::Gateway => None,
        }
    }

    /// Under which opens are noted.
    fn holder(self) -> Option<SessionId> {
        match self {
            Caller::Session(id) => Some(id),
            Caller::Gateway => Some(GATEWAY),
            Caller::Nobody => None,
        }
    }
}

type CallResult = Result<MetaReply, WireError>;

/// Directories with changed entries, as they are after the change.
type Directories = BTreeMap<Ino, Attr>;

/// Carries out a request of a client. Fails as a whole, with nothing done, when the session is over or there
/// are too many operations.
pub async fn execute(master: &Arc<Master>, request: MetaRequest) -> Result<MetaResponse, WireError> {
    if request.calls.len() > META_OPS_MAX {
        let message = format!("a batch has at most {META_OPS_MAX} operations, not {}", request.calls.len());
        return Err(WireError::new(ErrorCode::InvalidArgument, message));
    }
    let caller = request.session.map_or(Caller::Nobody, Caller::Session);
    if let Some(id) = request.session {
        master.sessions.renew(id)?;
    }
    Counts::add(&master.counts.batches, 1);
    let mut directories = Directories::default();
    let results = run(master, caller, request.acked_below, request.calls, &mut directories).await;
    Ok(MetaResponse { results, directories: directories.into_values().collect() })
}

/// Carries out one operation of the gateway.
pub async fn execute_one(master: &Arc<Master>, op: MetaOp) -> CallResult {
    let calls = vec![MetaCall { seq: 0, op }];
    let mut results = run(master, Caller::Gateway, 0, calls, &mut Directories::default()).await;
    results.pop().unwrap_or_else(|| Err(WireError::new(ErrorCode::Internal, "an operation was lost")))
}

async fn run(
    master: &Arc<Master>,
    caller: Caller,
    acked_below: u64,
    calls: Vec<MetaCall>,
    directories: &mut Directories,
) -> Vec<CallResult> {
    let mut results = Vec::with_capacity(calls.len());
    let mut rows_left = ANSWER_ROWS_MAX;
    let mut calls = calls.into_iter().peekable();
    while let Some(call) = calls.next() {
        match call.op {
            MetaOp::Read(first) => {
                let mut ops = vec![first];
                while let Some(MetaCall { op: MetaOp::Read(op), .. }) =
                    calls.next_if(|c| matches!(c.op, MetaOp::Read(_)))
                {
                    ops.push(op);
                }
                results.extend(read_all(master, caller, ops, &mut rows_left).await);
            }
            MetaOp::Write(first) => {
                let mut ops = vec![(call.seq, first)];
                while let Some(MetaCall { seq, op: MetaOp::Write(op) }) =
                    calls.next_if(|c| matches!(c.op, MetaOp::Write(_)))
                {
                    ops.push((seq, op));
                }
                results.extend(write_all(master, caller, acked_below, ops, directories).await);
            }
            MetaOp::Cluster(op) => {
                Counts::add(&master.counts.cluster_ops, 1);
                results.push(cluster_op(master, caller, op).await);
            }
        }
    }
    results
}

async fn read_all(
    master: &Arc<Master>,
    caller: Caller,
    ops: Vec<ReadOp>,
    rows_left: &mut usize,
) -> Vec<CallResult> {
    Counts::add(&master.counts.reads, ops.len());
    let count = ops.len();
    // Before reading, so that what is read stays until it is closed.
    let pins: Vec<Result<Option<Ino>, WireError>> = ops.iter().map(|op| pin(master, caller, op)).collect();
    note_tests(master, caller, &ops);
    let budget = *rows_left;
    let session = caller.session();
    let is_small = ops.len() <= HERE_OPS_MAX && ops.iter().all(reads_few_rows);
    let read = move |txn: &dyn ReadTxn| Ok::<_, OpError>(read_each(txn, session, &ops, budget));
    let read = if is_small { master.store.read_here(read).await } else { master.store.read(read).await };
    let (mut results, left) = match read {
        Ok(done) => done,
        Err(e) => (vec![Err(WireError::from(e)); count], budget),
    };
    *rows_left = left;
    for (result, pin) in results.iter_mut().zip(pins) {
        match pin {
            Ok(Some(ino)) if result.is_err() => {
                if let Some(id) = caller.holder() {
                    master.sessions.unpin(id, ino, 1);
                }
            }
            Ok(_) => {}
            Err(e) => *result = Err(e),
        }
        if let Ok(reply) = result {
            fill_volumes(master, reply);
        }
    }
    results
}

/// Notes an open of a client; gives back the file when it did.
fn pin(master: &Master, caller: Caller, op: &ReadOp) -> Result<Option<Ino>, WireError> {
    match (caller.holder(), op) {
        (Some(id), ReadOp::Open { ino, .. }) => master.sessions.pin(id, *ino).map(|()| Some(*ino)),
        _ => Ok(None),
    }
}

/// Who tests for a lock does not wait for it any more.
fn note_tests(master: &Master, caller: Caller, ops: &[ReadOp]) {
    let Some(id) = caller.session() else { return };
    for op in ops {
        if let ReadOp::TestLock(request) = op {
            master.locks.remove(id, request);
        }
    }
}

fn read_each(
    txn: &dyn ReadTxn,
    session: Option<SessionId>,
    ops: &[ReadOp],
    budget: usize,
) -> (Vec<CallResult>, usize) {
    let mut left = budget;
    let mut read_one = |op: &ReadOp| {
        let is_page = matches!(op, ReadOp::ReadDir { .. } | ReadOp::Open { .. } | ReadOp::Extents { .. });
        if is_page && left == 0 {
            let message = "the answer to this batch is full; ask again in another one";
            return Err(WireError::new(ErrorCode::Unavailable, message));
        }
        let reply = dfs_namespace::read(txn, session, op)?;
        left = left.saturating_sub(rows_in(&reply));
        Ok(reply)
    };
    let results = ops.iter().map(&mut read_one).collect();
    (results, left)
}

fn rows_in(reply: &MetaReply) -> usize {
    match reply {
        MetaReply::Dir(page) => page.entries.len(),
        MetaReply::Extents(page) => page.extents.len(),
        MetaReply::Opened(opened) => opened.extents.as_ref().map_or(0, |page| page.extents.len()),
        _ => 0,
    }
}

/// Says in pages of extents where their volumes are.
fn fill_volumes(master: &Master, reply: &mut MetaReply) {
    let page: &mut ExtentPage = match reply {
        MetaReply::Extents(page) => page,
        MetaReply::Opened(opened) => match &mut opened.extents {
            Some(page) => page,
            None => return,
        },
        _ => return,
    };
    let ids: BTreeSet<VolumeId> =
        page.extents.iter().filter_map(|e| e.blob.as_ref()).map(|blob| blob.id.volume).collect();
    page.volumes = master.cluster.volumes(ids);
}

async fn write_all(
    master: &Arc<Master>,
    caller: Caller,
    acked_below: u64,
    ops: Vec<(u64, WriteOp)>,
    directories: &mut Directories,
) -> Vec<CallResult> {
    Counts::add(&master.counts.writes, ops.len());
    let count = ops.len();
    if caller == Caller::Nobody {
        return vec![Err(session_needed()); count];
    }
    let durability =
        if ops.iter().any(|(_, op)| op.is_durable()) { Durability::Disk } else { Durability::Process };
    let session = caller.session();
    let holder = session.unwrap_or(GATEWAY);
    let pinned = Arc::new(Mutex::new(Vec::new()));
    let mut batch = WriteBatch {
        session,
        holder,
        pinned: Arc::clone(&pinned),
        acked_below,
        stamps: Arc::clone(&master.stamps),
        sessions: Arc::clone(&master.sessions),
        cluster: Arc::clone(&master.cluster),
        locks: Arc::clone(&master.locks),
        condemned: Arc::clone(&master.condemned),
        highest_ino: Arc::clone(&master.highest_ino),
        changes: Vec::new(),
    };
    let is_small = ops.len() <= HERE_OPS_MAX && ops.iter().all(|(_, op)| writes_few_rows(op));
    let write = move |txn: &mut dyn WriteTxn| {
        let results = batch.run(txn, ops)?;
        let changed = directories_of(txn, &batch.changes)?;
        Ok::<_, OpError>((results, batch.changes, changed))
    };
    let written = match durability {
        Durability::Process if is_small => master.store.write_here(write).await,
        durability => master.store.write(durability, write).await,
    };
    match written {
        Ok((results, changes, changed)) => {
            directories.extend(changed);
            if let Some(id) = session {
                master.sessions.note_pruned(id, acked_below);
            }
            master.publish(session, changes);
            results
        }
        Err(e) => {
            for ino in pinned.lock().drain(..) {
                master.sessions.unpin(holder, ino, 1);
            }
            vec![Err(e.into()); count]
        }
    }
}

/// Whether the operation makes a file that is open from the start.
fn opens_what_it_makes(op: &WriteOp) -> bool {
    match op {
        WriteOp::MakeUnnamed(_) => true,
        WriteOp::Make(make) => make.opened,
        _ => false,
    }
}

/// What a client that has changed entries would ask for next: its kernel looks at the directory before the next change.
fn directories_of(txn: &dyn ReadTxn, changes: &[EventKind]) -> Result<Directories, OpError> {
    let mut directories = Directories::new();
    for change in changes {
        let EventKind::Entry { parent, .. } = change else { continue };
        if directories.len() < DIRECTORIES_TOLD_MAX
            && !directories.contains_key(parent)
            && let Some(row) = txn.inode(*parent)?
        {
            directories.insert(*parent, row.attr());
        }
    }
    Ok(directories)
}

/// Whether it takes a moment only, if the disk need not be waited for.
fn reads_few_rows(op: &ReadOp) -> bool {
    match op {
        ReadOp::Lookup { .. }
        | ReadOp::GetAttr { .. }
        | ReadOp::ReadLink { .. }
        | ReadOp::Open { .. }
        | ReadOp::GetXattr { .. } => true,
        ReadOp::Resolve { .. }
        | ReadOp::ReadDir { .. }
        | ReadOp::Extents { .. }
        | ReadOp::ListXattr { .. }
        | ReadOp::TestLock(_) => false,
    }
}

/// The same for a write.
fn writes_few_rows(op: &WriteOp) -> bool {
    match op {
        WriteOp::Make(_)
        | WriteOp::MakeUnnamed(_)
        | WriteOp::Accessed { .. }
        | WriteOp::Link { .. }
        | WriteOp::Rmdir { .. }
        | WriteOp::RemoveXattr { .. } => true,
        // What is cut off may have many extents.
        WriteOp::SetAttr { changes, .. } => changes.size.is_none(),
        WriteOp::Commit(commit) => commit.create.is_some() && commit.extents.len() <= HERE_OPS_MAX,
        // A file of more than a few GiB is not taken apart at once.
        WriteOp::Unlink { .. } => true,
        WriteOp::Rename(_)
        | WriteOp::Clone(_)
        | WriteOp::Lock { .. }
        | WriteOp::Unlock { .. }
        | WriteOp::SetXattr { .. }
        | WriteOp::Sync => false,
    }
}

fn session_needed() -> WireError {
    let message = "this operation needs a session; POST /v1/sessions opens one";
    WireError::new(ErrorCode::SessionExpired, message)
}

/// What a run of writes needs inside its transaction, and what comes of it.
struct WriteBatch {
    session: Option<SessionId>,
    /// Who has open what is made without a name.
    holder: SessionId,
    /// What was made without a name: nobody has it open should the transaction fail.
    pinned: Arc<Mutex<Vec<Ino>>>,
    acked_below: u64,
    stamps: Arc<Stamps>,
    sessions: Arc<Sessions>,
    cluster: Arc<crate::cluster::Cluster>,
    locks: Arc<LockWaiters>,
    condemned: Arc<Mutex<HashSet<BlobId>>>,
    highest_ino: Arc<AtomicU64>,
    changes: Vec<EventKind>,
}

impl WriteBatch {
    fn run(&mut self, txn: &mut dyn WriteTxn, ops: Vec<(u64, WriteOp)>) -> Result<Vec<CallResult>, OpError> {
        if let Some(id) = self.session {
            // Within the transaction: a session that ends from now on takes its kept results with it.
            if !self.sessions.exists(id) {
                return Err(OpError::Refused(expired(id)));
            }
            if self.sessions.wants_pruning(id, self.acked_below) {
                txn.delete_call_results_below(id, self.acked_below.min(CALL_SEQ_MAX))?;
            }
        }
        ops.iter().map(|(seq, op)| self.once(txn, *seq, op)).collect()
    }

    /// Carries out `op`, or gives the result that it had.
    fn once(&mut self, txn: &mut dyn WriteTxn, seq: u64, op: &WriteOp) -> Result<CallResult, OpError> {
        let Some(id) = self.session.filter(|_| seq > 0) else { return self.write(txn, op) };
        if seq < self.acked_below.max(self.sessions.pruned_below(id)) || seq > CALL_SEQ_MAX {
            let message = format!("call {seq} of session {id} has been answered, or its number is too large");
            return Ok(Err(WireError::new(ErrorCode::InvalidArgument, message)));
        }
        if let Some(kept) = txn.call_result(id, seq)? {
            let result = Encoding::Postcard.decode::<CallResult>(&kept)?;
            self.pin_again(txn, op, &result)?;
            return Ok(result);
        }
        let result = self.write(txn, op)?;
        txn.put_call_result(id, seq, &Encoding::Postcard.encode(&result)?)?;
        Ok(result)
    }

    fn write(&mut self, txn: &mut dyn WriteTxn, op: &WriteOp) -> Result<CallResult, OpError> {
        if let Err(refused) = self.check(op) {
            return Ok(Err(refused));
        }
        let announced = self.changes.len();
        txn.begin_savepoint()?;
        let sessions = Arc::clone(&self.sessions);
        let is_open = |ino| sessions.is_open(ino);
        let mut context = WriteContext {
            now: self.stamps.next(),
            session: self.session,
            is_open: &is_open,
            changes: &mut self.changes,
        };
        let result = dfs_namespace::write(txn, &mut context, op);
        let result = result.and_then(|reply| self.pin_opened(op, &reply).map(|()| reply));
        let result = self.note_wait(txn, op, result);
        txn.end_savepoint(result.is_ok())?;
        match result {
            Ok(reply) => {
                self.note_commit(op, &reply);
                Ok(Ok(reply))
            }
            Err(OpError::Refused(refused)) => {
                self.changes.truncate(announced);
                Ok(Err(refused))
            }
            Err(failed) => Err(failed),
        }
    }

    /// Who is blocked and waits is noted, in the transaction that found it blocked: whoever gives the lock up
    /// later finds the waiter. `deadlock` instead when the wait would never end.
    fn note_wait(
        &self,
        txn: &dyn ReadTxn,
        op: &WriteOp,
        result: Result<MetaReply, OpError>,
    ) -> Result<MetaReply, OpError> {
        let (Some(id), WriteOp::Lock { request, wait }) = (self.session, op) else { return result };
        if !(*wait && matches!(result, Ok(MetaReply::Locked(Locked::Blocked(_))))) {
            self.locks.remove(id, request);
            return result;
        }
        self.locks.note(id, request);
        if request.space == LockSpace::Whole {
            return result;
        }
        let blockers_of = |session, request: &LockRequest| dfs_namespace::blockers(txn, session, request);
        let blockers = blockers_of(id, request)?;
        if self.locks.closes_circle((id, request.owner), &blockers, blockers_of)? {
            self.locks.remove(id, request);
            let LockRequest { ino, range, .. } = request;
            let message = format!(
                "waiting for bytes {} to {} of inode {ino} would never end: who has them waits for the caller",
                range.first, range.last
            );
            return Err(OpError::Refused(WireError::new(ErrorCode::Deadlock, message)));
        }
        result
    }

    /// A file without a name, or one that is made to be open, is open from the start, in this same transaction: it
    /// never goes before its maker has heard of it.
    fn pin_opened(&self, op: &WriteOp, reply: &MetaReply) -> Result<(), OpError> {
        let (true, MetaReply::Attr(attr)) = (opens_what_it_makes(op), reply) else { return Ok(()) };
        self.sessions.pin(self.holder, attr.ino).map_err(OpError::Refused)?;
        self.pinned.lock().push(attr.ino);
        Ok(())
    }

    /// The same for a call whose answer was lost, perhaps with the master that knew of the open.
    fn pin_again(&self, txn: &dyn WriteTxn, op: &WriteOp, result: &CallResult) -> Result<(), OpError> {
        let (true, Ok(MetaReply::Attr(attr))) = (opens_what_it_makes(op), result) else { return Ok(()) };
        if txn.inode(attr.ino)?.is_none() {
            return Ok(());
        }
        self.sessions.pin_once(self.holder, attr.ino).map_err(OpError::Refused)
    }

    /// What the namespace cannot know: which numbers were handed out, which blobs can be, whose session it is.
    fn check(&self, op: &WriteOp) -> Result<(), WireError> {
        match op {
            WriteOp::Make(make) => self.check_leased(make.ino),
            WriteOp::MakeUnnamed(make) => self.check_leased(make.ino),
            WriteOp::Clone(clone) => self.check_locks(clone.locked_by),
            WriteOp::Commit(commit) => {
                self.check_locks(commit.locked_by)?;
                if commit.create.is_some() {
                    self.check_leased(commit.ino)?;
                }
                self.check_blobs(commit)
            }
            _ => Ok(()),
        }
    }

    /// Locks end with the session that they were taken in. What was written under them must not lie over what
    /// others, who could take them since, have written.
    fn check_locks(&self, locked_by: Option<SessionId>) -> Result<(), WireError> {
        match locked_by {
            Some(id) if self.session != Some(id) => {
                let message =
                    format!("the data was written under locks of session {id}, which ended with it");
                Err(WireError::new(ErrorCode::LockLost, message))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn check_leased(&self, ino: Ino) -> Result<(), WireError> {
        if ino.0 > self.highest_ino.load(Ordering::Acquire) {
            let message = format!("inode number {ino} was never handed out; lease a range first");
            return Err(WireError::new(ErrorCode::InvalidArgument, message));
        }
        Ok(())
    }

    fn check_blobs(&self, commit: &Commit) -> Result<(), WireError> {
        if commit.extents.len() > COMMIT_EXTENTS_MAX {
            let message = format!(
                "a commit has at most {COMMIT_EXTENTS_MAX} extents, not {}; use several",
                commit.extents.len()
            );
            return Err(WireError::new(ErrorCode::TooLarge, message));
        }
        let condemned = self.condemned.lock();
        for blob in commit.extents.iter().filter_map(|e| e.blob.as_ref()) {
            self.cluster.check_blob(blob)?;
            if condemned.contains(&blob.id) {
                let message = format!("blob {} is being deleted; store the data again", blob.id);
                return Err(WireError::new(ErrorCode::Stale, message));
            }
        }
        Ok(())
    }

    fn note_commit(&self, op: &WriteOp, reply: &MetaReply) {
        let (WriteOp::Commit(commit), MetaReply::Committed(committed)) = (op, reply) else { return };
        let mut reach: BTreeMap<VolumeId, Seq> = BTreeMap::new();
        for blob in commit.extents.iter().filter_map(|e| e.blob.as_ref()) {
            let seq = reach.entry(blob.id.volume).or_default();
            *seq = (*seq).max(blob.seq);
        }
        if reach.is_empty() {
            return;
        }
        let wanted = commit.create.as_ref().map(|c| &c.name);
        let name: Option<&Name> = committed.stored_as.as_ref().or(wanted);
        let reach: Vec<(VolumeId, Seq)> = reach.into_iter().collect();
        self.cluster.note_commit(&reach, name);
    }
}

async fn cluster_op(master: &Arc<Master>, caller: Caller, op: ClusterOp) -> CallResult {
    let is_question = matches!(op, ClusterOp::Volumes { .. } | ClusterOp::Space);
    if caller == Caller::Nobody && !is_question {
        return Err(session_needed());
    }
    match op {
        ClusterOp::Grants { count, avoid } => {
            master.cluster.grants(count, &avoid).await.map(MetaReply::Grants)
        }
        ClusterOp::Inodes { count } => lease_inodes(master, count).await,
        ClusterOp::Volumes { ids } => {
            if ids.len() > VOLUMES_ASKED_MAX {
                let message = format!("ask for at most {VOLUMES_ASKED_MAX} volumes, not {}", ids.len());
                return Err(WireError::new(ErrorCode::InvalidArgument, message));
            }
            Ok(MetaReply::Volumes(master.cluster.volumes(ids)))
        }
        ClusterOp::Close { ino, count } => {
            if let Some(id) = caller.holder() {
                master.sessions.unpin(id, ino, count);
            }
            Ok(MetaReply::Done)
        }
        ClusterOp::BadCopy { blob, node, problem } => {
            master.cluster.bad_copy(blob, node, problem).await?;
            Ok(MetaReply::Done)
        }
        ClusterOp::Members { volume, failed } => {
            master.cluster.members(volume, &failed).await.map(MetaReply::Members)
        }
        ClusterOp::Space => {
            let stats = master.stats().await?;
            Ok(MetaReply::Space(master.cluster.space(stats.inodes)))
        }
        ClusterOp::Cursor => Ok(MetaReply::Cursor(master.events.newest_for(caller.session()))),
    }
}

/// On the disk before it is used: the same numbers must never be handed out twice.
async fn lease_inodes(master: &Arc<Master>, count: u64) -> CallResult {
    let count = count.clamp(1, INODES_MAX);
    let taken = master.store.write(Durability::Disk, move |txn| txn.take(Counter::Inode, count));
    let first = taken.await.map_err(from_store)?;
    master.highest_ino.fetch_max(first + count - 1, Ordering::AcqRel);
    Ok(MetaReply::Inodes(InodeRange { first: Ino(first), count }))
}
