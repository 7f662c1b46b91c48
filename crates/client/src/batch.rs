//! Gathers operations into requests: those that arrive while requests are under way go together in the next.
//!
//! Invariants: a call number is used for one operation only and stays outstanding until its [`Pending`] is
//! gone, so the master never forgets a result that may still be asked for; an operation whose caller has
//! given up is not sent (again).

use crate::ClientError;
use dfs_proto::meta::{ClusterOp, MetaCall, ReadOp, WriteOp};
use dfs_proto::{ErrorCode, MetaOp, MetaReply, SessionId, limits};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Operations in one request; below [`limits::META_OPS_MAX`], because a smaller batch sooner answers its
/// callers.
const BATCH_OPS_MAX: usize = 256;

/// Size of one request, bytes, as far as it can be told before encoding. One operation may be larger.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// Operations in one request whose answers are pages of up to a MiB: with them the answer stays below what
/// is accepted.
const BATCH_PAGES_MAX: usize = 32;

const _: () = assert!(BATCH_OPS_MAX <= limits::META_OPS_MAX);
const _: () = assert!(BATCH_BYTES_MAX < limits::META_BODY_BYTES_MAX);

/// Numbers for writes. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct CallNumbers(Arc<Mutex<Numbers>>);

#[derive(Default)]
struct Numbers {
    last: u64,
    outstanding: BTreeSet<u64>,
}

/// A number that is outstanding until this is dropped.
struct CallNumber {
    seq: u64,
    numbers: CallNumbers,
}

impl CallNumbers {
    fn next(&self) -> CallNumber {
        let mut numbers = self.0.lock();
        numbers.last += 1;
        let seq = numbers.last;
        numbers.outstanding.insert(seq);
        CallNumber { seq, numbers: self.clone() }
    }

    /// Nobody asks for results below this any more.
    pub fn acked_below(&self) -> u64 {
        let numbers = self.0.lock();
        numbers.outstanding.first().copied().unwrap_or(numbers.last + 1)
    }
}

impl Drop for CallNumber {
    fn drop(&mut self) {
        self.numbers.0.lock().outstanding.remove(&self.seq);
    }
}

/// An operation that waits for its reply.
pub(crate) struct Pending {
    op: MetaOp,
    number: Option<CallNumber>,
    reply: oneshot::Sender<Result<MetaReply, ClientError>>,
    pub deadline: Instant,
    /// The session under which the operation may have been carried out without our seeing the answer.
    pub perhaps_done_under: Option<SessionId>,
    /// It was in a batch that was refused as a whole: send it by itself, so that one bad operation does not
    /// fail its neighbours.
    pub alone: bool,
}

pub(crate) type ReplyReceiver = oneshot::Receiver<Result<MetaReply, ClientError>>;

impl Pending {
    pub fn new(op: MetaOp, numbers: &CallNumbers, deadline: Instant) -> (Pending, ReplyReceiver) {
        let number = matches!(op, MetaOp::Write(_)).then(|| numbers.next());
        let (reply, receiver) = oneshot::channel();
        (Pending { op, number, reply, deadline, perhaps_done_under: None, alone: false }, receiver)
    }

    /// Whether anybody still waits for it.
    pub fn wanted(&self) -> bool {
        !self.reply.is_closed() && Instant::now() < self.deadline
    }

    pub fn is_write(&self) -> bool {
        self.number.is_some()
    }

    pub fn call(&self) -> MetaCall {
        MetaCall { seq: self.number.as_ref().map_or(0, |n| n.seq), op: self.op.clone() }
    }

    pub fn answer(self, result: Result<MetaReply, ClientError>) {
        // A caller that has given up misses nothing.
        let _ = self.reply.send(result);
    }

    /// The answer to a write that a session took with it.
    pub fn answer_lost(self) {
        let message = format!(
            "the session ended while the answer to {} was outstanding: whether it took effect is not known",
            describe(&self.op)
        );
        self.answer(Err(ClientError::local(ErrorCode::SessionExpired, message)));
    }
}

/// Takes operations from the queue in batches.
pub(crate) struct Batcher {
    queue: mpsc::Receiver<Pending>,
    /// Taken from the queue, but too much for the last batch.
    held: Option<Pending>,
}

impl Batcher {
    pub fn new(queue: mpsc::Receiver<Pending>) -> Batcher {
        Batcher { queue, held: None }
    }

    /// Waits until there is something to send; `None` when there never will be.
    pub async fn ready(&mut self) -> Option<()> {
        if self.held.is_none() {
            self.held = Some(self.queue.recv().await?);
        }
        // Callers that were woken together enqueue together.
        tokio::task::yield_now().await;
        Some(())
    }

    /// What has gathered, as much as one request takes.
    pub fn take(&mut self) -> Vec<Pending> {
        let mut batch = Vec::new();
        let mut load = Load::default();
        while let Some(next) = self.held.take().or_else(|| self.queue.try_recv().ok()) {
            if !next.wanted() {
                continue;
            }
            if !load.add(&next.op) && !batch.is_empty() {
                self.held = Some(next);
                break;
            }
            batch.push(next);
        }
        batch
    }
}

/// How much a batch has in it.
#[derive(Default)]
struct Load {
    ops: usize,
    bytes: usize,
    pages: usize,
}

impl Load {
    /// Adds `op`; false when that is too much.
    fn add(&mut self, op: &MetaOp) -> bool {
        self.ops += 1;
        self.bytes += request_bytes(op);
        self.pages += usize::from(answers_with_a_page(op));
        self.ops <= BATCH_OPS_MAX && self.bytes <= BATCH_BYTES_MAX && self.pages <= BATCH_PAGES_MAX
    }
}

/// About how long `op` is on the wire: what has no bound of a few KiB is counted.
fn request_bytes(op: &MetaOp) -> usize {
    const FIXED_BYTES: usize = 1024;
    const EXTENT_BYTES: usize = 80;
    const ID_BYTES: usize = 10;
    FIXED_BYTES
        + match op {
            MetaOp::Write(WriteOp::Commit(commit)) => commit.extents.len() * EXTENT_BYTES,
            MetaOp::Write(WriteOp::SetXattr { value, .. }) => value.len(),
            MetaOp::Write(WriteOp::Make(make)) => make.target.len(),
            MetaOp::Read(ReadOp::Resolve { path }) => path.iter().map(|n| n.as_bytes().len() + 2).sum(),
            MetaOp::Cluster(ClusterOp::Volumes { ids }) => ids.len() * ID_BYTES,
            _ => 0,
        }
}

fn answers_with_a_page(op: &MetaOp) -> bool {
    matches!(
        op,
        MetaOp::Read(
            ReadOp::ReadDir { .. } | ReadOp::Open { .. } | ReadOp::Extents { .. } | ReadOp::ListXattr { .. }
        ) | MetaOp::Cluster(ClusterOp::Volumes { .. } | ClusterOp::Grants { .. } | ClusterOp::Space)
    )
}

/// The operation's name for error messages.
pub(crate) fn describe(op: &MetaOp) -> &'static str {
    match op {
        MetaOp::Read(op) => match op {
            ReadOp::Lookup { .. } => "lookup",
            ReadOp::Resolve { .. } => "resolve",
            ReadOp::GetAttr { .. } => "getattr",
            ReadOp::ReadLink { .. } => "readlink",
            ReadOp::ReadDir { .. } => "readdir",
            ReadOp::Open { .. } => "open",
            ReadOp::Extents { .. } => "extents",
            ReadOp::GetXattr { .. } => "getxattr",
            ReadOp::ListXattr { .. } => "listxattr",
            ReadOp::TestLock(_) => "test_lock",
        },
        MetaOp::Write(op) => match op {
            WriteOp::Make(_) => "make",
            WriteOp::MakeUnnamed(_) => "make_unnamed",
            WriteOp::Clone(_) => "clone",
            WriteOp::Accessed { .. } => "accessed",
            WriteOp::Lock { .. } => "lock",
            WriteOp::Unlock { .. } => "unlock",
            WriteOp::Commit(_) => "commit",
            WriteOp::SetAttr { .. } => "setattr",
            WriteOp::Link { .. } => "link",
            WriteOp::Unlink { .. } => "unlink",
            WriteOp::Rmdir { .. } => "rmdir",
            WriteOp::Rename(_) => "rename",
            WriteOp::SetXattr { .. } => "setxattr",
            WriteOp::RemoveXattr { .. } => "removexattr",
            WriteOp::Sync => "sync",
        },
        MetaOp::Cluster(op) => match op {
            ClusterOp::Grants { .. } => "grants",
            ClusterOp::Inodes { .. } => "inodes",
            ClusterOp::Volumes { .. } => "volumes",
            ClusterOp::Close { .. } => "close",
            ClusterOp::BadCopy { .. } => "bad_copy",
            ClusterOp::Members { .. } => "members",
            ClusterOp::Space => "space",
            ClusterOp::Cursor => "cursor",
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_proto::{DirCookie, Ino};
    use std::time::Duration;

    fn read() -> MetaOp {
        MetaOp::Read(ReadOp::GetAttr { ino: Ino::ROOT })
    }

    fn write() -> MetaOp {
        MetaOp::Write(WriteOp::RemoveXattr { ino: Ino::ROOT, name: "user.x".try_into().unwrap() })
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn only_writes_are_numbered_and_results_are_kept_until_all_before_are_answered() {
        let numbers = CallNumbers::default();
        assert_eq!(numbers.acked_below(), 1);
        let (first, _r1) = Pending::new(write(), &numbers, soon());
        let (second, _r2) = Pending::new(write(), &numbers, soon());
        let (get, _r3) = Pending::new(read(), &numbers, soon());
        assert_eq!([first.call().seq, second.call().seq, get.call().seq], [1, 2, 0]);
        second.answer(Ok(MetaReply::Done));
        assert_eq!(numbers.acked_below(), 1);
        first.answer(Ok(MetaReply::Done));
        assert_eq!(numbers.acked_below(), 3);
    }

    #[tokio::test]
    async fn what_has_gathered_goes_together_within_the_limits() {
        let numbers = CallNumbers::default();
        let (queue, receiver) = mpsc::channel(4096);
        let mut batcher = Batcher::new(receiver);
        let mut waiting = Vec::new();
        for n in 0..BATCH_OPS_MAX + 40 {
            let op = match n {
                0..40 => MetaOp::Read(ReadOp::ReadDir { ino: Ino::ROOT, after: DirCookie(0), limit: 1 }),
                _ => read(),
            };
            let (pending, receiver) = Pending::new(op, &numbers, soon());
            queue.try_send(pending).ok().unwrap();
            waiting.push(receiver);
        }
        let mut sizes = Vec::new();
        for _ in 0..3 {
            batcher.ready().await.unwrap();
            sizes.push(batcher.take().len());
        }
        assert_eq!(sizes, [BATCH_PAGES_MAX, BATCH_OPS_MAX, 8]);
    }

    #[tokio::test]
    async fn operations_of_callers_that_gave_up_are_not_sent() {
        let numbers = CallNumbers::default();
        let (queue, receiver) = mpsc::channel(8);
        let mut batcher = Batcher::new(receiver);
        let (gone, receiver) = Pending::new(write(), &numbers, soon());
        drop(receiver);
        let (kept, _receiver) = Pending::new(write(), &numbers, soon());
        queue.try_send(gone).ok().unwrap();
        queue.try_send(kept).ok().unwrap();
        batcher.ready().await.unwrap();
        let batch = batcher.take();
        assert_eq!(batch.iter().map(|p| p.call().seq).collect::<Vec<_>>(), [2]);
        assert_eq!(numbers.acked_below(), 2);
    }
}
