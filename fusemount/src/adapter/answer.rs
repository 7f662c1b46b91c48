//! How a request becomes a task and the task an answer.
//!
//! An operation is never ended half-way. When its caller must not wait any longer, the caller gets EINTR and
//! the operation goes on; what it makes that nobody has then (a handle, a lookup, a lock) is given back.

use super::Adapter;
use crate::convert::file_attr;
use crate::errno::errno;
use crate::requests::{Interrupted, Patience, Ticket};
use bytes::Bytes;
use dfs_client::ClientError;
use dfs_proto::lock::LockHolder;
use dfs_proto::meta::Space;
use dfs_proto::{Attr, ErrorCode, Ino, SessionId};
use dfs_vfs::{Created, Fh, LockWish, OpenedFile, Vfs, VfsError};
use fuser::{
    Errno, FileHandle, FopenFlags, Generation, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLock, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request,
};
use parking_lot::Mutex;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// Inode numbers are never reused, so there is only one generation.
pub(super) const GENERATION: Generation = Generation(0);

/// Unit of block counts in statfs, bytes.
const STATFS_BLOCK_BYTES: u64 = 4096;

/// What an operation has made that the kernel gives back later, if it gets to know of it.
#[derive(Default)]
pub(super) struct Leftover {
    open: Option<Fh>,
    open_directory: Option<Fh>,
    looked_up: Option<Ino>,
    locked: Option<(Fh, LockWish)>,
}

impl Leftover {
    async fn give_back(self, vfs: &Vfs) {
        if let Some((fh, wish)) = self.locked
            && let Err(e) = vfs.unlock(fh, wish).await
        {
            log::debug!("a lock that nobody waits for could not be given back: {e}");
        }
        if let Some(fh) = self.open {
            vfs.release(fh).await;
        }
        if let Some(fh) = self.open_directory {
            vfs.releasedir(fh);
        }
        if let Some(ino) = self.looked_up {
            vfs.forget(ino, 1);
        }
    }
}

/// A reply that can carry an error.
pub(super) trait Refuse: Send + 'static {
    fn refuse(self, e: Errno);
}

/// What comes of an operation, as an answer of kind `R`.
pub(super) trait Outcome<R>: Send + 'static {
    fn send(self, vfs: &Vfs, reply: R);

    fn leftover(&self) -> Leftover {
        Leftover::default()
    }
}

impl Adapter {
    /// Runs the operation and sends its result, or EINTR when its caller must not wait for it.
    ///
    /// It is begun on the thread that read the request: what needs nothing from the network is answered there, and
    /// no other thread is woken for it. What has to wait goes on in a task.
    pub(super) fn answer<R, T, F>(
        &self,
        request: &Request,
        patience: Patience,
        what: &'static str,
        reply: R,
        call: impl FnOnce(Arc<Vfs>) -> F,
    ) where
        R: Refuse,
        T: Outcome<R>,
        F: Future<Output = Result<T, VfsError>> + Send + 'static,
    {
        let in_runtime = self.runtime.enter();
        let mut work = Box::pin(call(self.vfs.clone()));
        if let Poll::Ready(result) = begin(work.as_mut()) {
            return send(result, what, &self.vfs, reply);
        }
        drop(in_runtime);
        // An interrupt that came already is remembered for the ticket.
        let ticket = self.requests.enter(request.unique().0, request.pid());
        self.go_on(ticket, patience, what, reply, work);
    }

    /// The same, for an operation that ends by itself when it is interrupted.
    pub(super) fn answer_listening<R, T, F>(
        &self,
        request: &Request,
        patience: Patience,
        what: &'static str,
        reply: R,
        call: impl FnOnce(Arc<Vfs>, Interrupted) -> F,
    ) where
        R: Refuse,
        T: Outcome<R>,
        F: Future<Output = Result<T, VfsError>> + Send + 'static,
    {
        let ticket = self.requests.enter(request.unique().0, request.pid());
        let work = Box::pin(call(self.vfs.clone(), ticket.interrupted()));
        self.go_on(ticket, patience, what, reply, work);
    }

    /// The rest of an operation, in a task.
    fn go_on<R, T, F>(
        &self,
        ticket: Ticket,
        patience: Patience,
        what: &'static str,
        reply: R,
        mut work: Pin<Box<F>>,
    ) where
        R: Refuse,
        T: Outcome<R>,
        F: Future<Output = Result<T, VfsError>> + Send + 'static,
    {
        let vfs = self.vfs.clone();
        self.runtime.spawn(async move {
            let done = tokio::select! {
                biased;
                result = &mut work => Some(result),
                () = ticket.cut_short(patience) => None,
            };
            match done {
                Some(result) => return send(result, what, &vfs, reply),
                None => reply.refuse(Errno::EINTR),
            }
            drop(ticket);
            match work.await {
                Ok(outcome) => outcome.leftover().give_back(&vfs).await,
                Err(e) => log::debug!("{what} of a caller that did not wait: {e}"),
            }
        });
    }
}

/// Polls without being told when to do so again: whoever waits for the future has to poll it once more. A panic must not
/// end the thread, which serves everybody: it is an answer like any other.
fn begin<T, F>(work: Pin<&mut F>) -> Poll<Result<T, VfsError>>
where
    F: Future<Output = Result<T, VfsError>>,
{
    let polled = AssertUnwindSafe(|| work.poll(&mut Context::from_waker(Waker::noop())));
    catch_unwind(polled).unwrap_or_else(|_| {
        let message = "the operation ended with a panic; the log has it";
        Poll::Ready(Err(ClientError::local(ErrorCode::Internal, message).into()))
    })
}

fn send<R: Refuse, T: Outcome<R>>(result: Result<T, VfsError>, what: &'static str, vfs: &Vfs, reply: R) {
    match result {
        Ok(outcome) => outcome.send(vfs, reply),
        Err(e) => reply.refuse(errno(what, &e)),
    }
}

/// A reply that the operation fills while it runs; whoever takes it out first answers.
pub(super) struct Slot<R>(Arc<Mutex<Option<R>>>);

impl<R> Clone for Slot<R> {
    fn clone(&self) -> Self {
        Slot(self.0.clone())
    }
}

impl<R> Slot<R> {
    pub fn new(reply: R) -> Slot<R> {
        Slot(Arc::new(Mutex::new(Some(reply))))
    }

    /// Whether there is still a reply and `put` says that it took something.
    pub fn put(&self, put: impl FnOnce(&mut R) -> bool) -> bool {
        self.0.lock().as_mut().is_some_and(put)
    }

    fn take(&self) -> Option<R> {
        self.0.lock().take()
    }
}

impl<R: Refuse> Refuse for Slot<R> {
    fn refuse(self, e: Errno) {
        if let Some(reply) = self.take() {
            reply.refuse(e);
        }
    }
}

macro_rules! refuse_by_error {
    ($($reply:ty),*) => {
        $(impl Refuse for $reply {
            fn refuse(self, e: Errno) {
                self.error(e);
            }
        })*
    };
}

refuse_by_error!(
    ReplyAttr,
    ReplyCreate,
    ReplyData,
    ReplyDirectory,
    ReplyDirectoryPlus,
    ReplyEmpty,
    ReplyEntry,
    ReplyLock,
    ReplyLseek,
    ReplyOpen,
    ReplyStatfs,
    ReplyWrite,
    ReplyXattr
);

impl Outcome<ReplyEmpty> for () {
    fn send(self, _: &Vfs, reply: ReplyEmpty) {
        reply.ok();
    }
}

impl Outcome<Slot<ReplyDirectory>> for () {
    fn send(self, _: &Vfs, reply: Slot<ReplyDirectory>) {
        if let Some(reply) = reply.take() {
            reply.ok();
        }
    }
}

impl Outcome<Slot<ReplyDirectoryPlus>> for () {
    fn send(self, _: &Vfs, reply: Slot<ReplyDirectoryPlus>) {
        if let Some(reply) = reply.take() {
            reply.ok();
        }
    }
}

impl Outcome<ReplyEntry> for Attr {
    fn send(self, vfs: &Vfs, reply: ReplyEntry) {
        reply.entry(&vfs.kernel_ttl(), &file_attr(&self), GENERATION);
    }

    fn leftover(&self) -> Leftover {
        Leftover { looked_up: Some(self.ino), ..Leftover::default() }
    }
}

impl Outcome<ReplyAttr> for Attr {
    fn send(self, vfs: &Vfs, reply: ReplyAttr) {
        reply.attr(&vfs.kernel_ttl(), &file_attr(&self));
    }
}

impl Outcome<ReplyOpen> for OpenedFile {
    fn send(self, _: &Vfs, reply: ReplyOpen) {
        reply.opened(FileHandle(self.fh.0), fopen_flags(&self));
    }

    fn leftover(&self) -> Leftover {
        Leftover { open: Some(self.fh), ..Leftover::default() }
    }
}

/// An open directory.
pub(super) struct OpenedDirectory(pub Fh);

impl Outcome<ReplyOpen> for OpenedDirectory {
    fn send(self, _: &Vfs, reply: ReplyOpen) {
        reply.opened(FileHandle(self.0.0), FopenFlags::empty());
    }

    fn leftover(&self) -> Leftover {
        Leftover { open_directory: Some(self.0), ..Leftover::default() }
    }
}

impl Outcome<ReplyCreate> for Created {
    fn send(self, vfs: &Vfs, reply: ReplyCreate) {
        let (attr, opened) = (file_attr(&self.attr), self.opened);
        reply.created(&vfs.kernel_ttl(), &attr, GENERATION, FileHandle(opened.fh.0), fopen_flags(&opened));
    }

    fn leftover(&self) -> Leftover {
        Leftover { open: Some(self.opened.fh), looked_up: Some(self.attr.ino), ..Leftover::default() }
    }
}

impl Outcome<ReplyData> for Bytes {
    fn send(self, _: &Vfs, reply: ReplyData) {
        reply.data(&self);
    }
}

impl Outcome<ReplyWrite> for u32 {
    fn send(self, _: &Vfs, reply: ReplyWrite) {
        reply.written(self);
    }
}

impl Outcome<ReplyLseek> for i64 {
    fn send(self, _: &Vfs, reply: ReplyLseek) {
        reply.offset(self);
    }
}

/// A lock that was taken.
pub(super) struct Taken(pub Fh, pub LockWish);

impl Outcome<ReplyEmpty> for Taken {
    fn send(self, _: &Vfs, reply: ReplyEmpty) {
        reply.ok();
    }

    fn leftover(&self) -> Leftover {
        Leftover { locked: Some((self.0, self.1)), ..Leftover::default() }
    }
}

/// What is in the way of a lock, as the mount of session `own` tells it.
pub(super) struct InTheWay {
    pub holder: Option<LockHolder>,
    pub own: SessionId,
}

impl Outcome<ReplyLock> for InTheWay {
    fn send(self, _: &Vfs, reply: ReplyLock) {
        match self.holder {
            None => reply.locked(0, 0, libc::F_UNLCK, 0),
            Some(holder) => {
                // Another machine numbers its processes by itself.
                let pid = if holder.session == self.own { holder.pid } else { 0 };
                let kind = crate::convert::lock_type(holder.mode);
                reply.locked(holder.range.first, holder.range.last, kind, pid);
            }
        }
    }
}

/// A value for a caller that has room for `room` bytes, or asks for the length with 0.
pub(super) struct Valued {
    pub room: u32,
    pub value: Bytes,
}

impl Outcome<ReplyXattr> for Valued {
    fn send(self, _: &Vfs, reply: ReplyXattr) {
        if self.room == 0 {
            reply.size(self.value.len() as u32);
        } else if self.value.len() > self.room as usize {
            reply.error(Errno::ERANGE);
        } else {
            reply.data(&self.value);
        }
    }
}

impl Outcome<ReplyStatfs> for Space {
    fn send(self, _: &Vfs, reply: ReplyStatfs) {
        let blocks = |bytes: u64| bytes / STATFS_BLOCK_BYTES;
        // Inode numbers do not run out before the room for files does.
        let free_inodes = blocks(self.free_bytes);
        reply.statfs(
            blocks(self.total_bytes),
            blocks(self.free_bytes),
            blocks(self.free_bytes),
            self.inodes + free_inodes,
            free_inodes,
            STATFS_BLOCK_BYTES as u32,
            dfs_proto::limits::NAME_BYTES_MAX as u32,
            STATFS_BLOCK_BYTES as u32,
        );
    }
}

fn fopen_flags(opened: &OpenedFile) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    if opened.keep_pages {
        flags |= FopenFlags::FOPEN_KEEP_CACHE;
    }
    if opened.direct {
        flags |= FopenFlags::FOPEN_DIRECT_IO;
    }
    flags
}
