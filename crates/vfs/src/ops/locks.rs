//! Locks: flock(2), and byte ranges of fcntl(2), OFD locks among them.
//!
//! The master says who gets a lock. Here is what makes locks useful: what the last holder wrote is seen by the
//! next one, what is written under a lock is published before the lock is given up, a wait can be interrupted, and
//! a lock is never left behind.

use crate::VfsError;
use crate::file::{File, FileState, Origin};
use crate::handle::Fh;
use crate::locks::{LockKey, Span, gaps};
use crate::vfs::Vfs;
use dfs_client::{ClientError, MetaClient};
use dfs_proto::meta::{ReadOp, WriteOp};
use dfs_proto::{
    ErrorCode, Ino, LockHolder, LockMode, LockOwner, LockRange, LockRequest, LockSpace, Locked, MetaOp,
    MetaReply, SessionId,
};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{Notify, OwnedMutexGuard};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// How often a waiter asks again unless it is woken: below [`dfs_proto::lock::WAITER_FORGOTTEN_MS`], with room for
/// an answer that is late.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// How long an interrupted caller waits for the answer that is under way, so that it leaves nothing to be cleaned
/// up behind it. Within it a master that is well answers many times over.
const INTERRUPT_GRACE: Duration = Duration::from_millis(500);

/// How often what could not be given up is tried again.
const SETTLE_EVERY: Duration = Duration::from_secs(1);

/// How often a lock is asked for anew because the session changed meanwhile.
const RESTARTS_MAX: usize = 4;

/// A lock that an application wants, or asks about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockWish {
    /// Which kind.
    pub space: LockSpace,
    /// Who, as the kernel tells owners apart.
    pub owner: LockOwner,
    /// Where; [`LockRange::WHOLE`] for flock(2).
    pub range: LockRange,
    /// How.
    pub mode: LockMode,
    /// The process, for F_GETLK.
    pub pid: u32,
}

impl LockWish {
    fn key(&self) -> LockKey {
        LockKey { space: self.space, owner: self.owner }
    }

    fn span(&self) -> Span {
        Span { range: self.range, mode: self.mode }
    }

    fn of(&self, ino: Ino) -> LockRequest {
        let LockWish { space, owner, range, mode, pid } = *self;
        LockRequest { ino, space, owner, range, mode, pid }
    }
}

impl Vfs {
    /// The first lock that is in the way of `wish` (F_GETLK); locks of the same owner never are.
    pub async fn test_lock(&self, fh: Fh, wish: LockWish) -> Result<Option<LockHolder>, VfsError> {
        let handle = self.handles.file(fh)?;
        if !Vfs::is_published(&handle.file) {
            // Nobody else knows the file, and it becomes known with the first lock.
            return Ok(None);
        }
        match self.read_op(ReadOp::TestLock(wish.of(handle.file.ino))).await? {
            MetaReply::Lock(holder) => Ok(holder),
            _ => Err(VfsError::OddAnswer("a test for a lock")),
        }
    }

    /// Takes a lock, or changes what its owner has. When this returns, everything that others did before they gave
    /// up a lock that was in the way is seen here: content, attributes and directory entries.
    ///
    /// Fails with [`VfsError::WouldBlock`] when somebody is in the way and the caller does not `wait`, with
    /// [`VfsError::Interrupted`] when `interrupted` ends before the wait does, and with `deadlock` when the wait never
    /// would. The owner then has what it had before, but for a whole-file lock that was to be converted (flock(2)).
    /// `lock_lost` when the owner had locks that were lost: it has to give them up first.
    pub async fn lock(
        &self,
        fh: Fh,
        wish: LockWish,
        wait: bool,
        interrupted: impl Future<Output = ()> + Send,
    ) -> Result<(), VfsError> {
        let handle = self.handles.file(fh)?;
        let file = &handle.file;
        let had_it = file.lock().locks.has_exclusively(wish.key(), wish.range);
        // From before the first try on, so that no lock is given up unheard between a try and the wait.
        let waiter = wait.then(|| Waiter::new(file));
        let mut interrupted = pin!(interrupted);
        while !self.try_lock(file, fh, wish, wait, interrupted.as_mut()).await? {
            let Some(waiter) = &waiter else { return Err(VfsError::WouldBlock) };
            tokio::select! {
                () = waiter.notify.notified() => {}
                () = sleep(ASK_AGAIN) => {}
                () = interrupted.as_mut() => {
                    self.withdraw(file.ino, wish).await;
                    return Err(VfsError::Interrupted);
                }
            }
        }
        drop(waiter);
        // While it had the range for itself nobody else could change what it covers.
        if !had_it {
            self.catch_up(file).await;
        }
        Ok(())
    }

    /// One try. It is a task of its own: when the caller goes, it still hears the answer, and gives back what nobody
    /// wants any more.
    async fn try_lock(
        &self,
        file: &Arc<File>,
        fh: Fh,
        wish: LockWish,
        wait: bool,
        interrupted: Pin<&mut (impl Future<Output = ()> + Send)>,
    ) -> Result<bool, VfsError> {
        let wanted = Wanted::default();
        let Some(vfs) = self.me.upgrade() else { return Err(VfsError::Interrupted) };
        let (task_file, still) = (file.clone(), wanted.0.clone());
        task_file.lock().opens += 1;
        let mut attempt: JoinHandle<Result<bool, VfsError>> = tokio::spawn(async move {
            let result = vfs.attempt(&task_file, fh, wish, wait, &still).await;
            vfs.let_go(&task_file);
            result
        });
        tokio::select! {
            result = &mut attempt => return finished(result),
            () = interrupted => {}
        }
        match timeout(INTERRUPT_GRACE, &mut attempt).await {
            Ok(result) => match finished(result)? {
                true => Ok(true),
                false => {
                    self.withdraw(file.ino, wish).await;
                    Err(VfsError::Interrupted)
                }
            },
            Err(_) if wanted.give_up() => Err(VfsError::Interrupted),
            Err(_) => finished(attempt.await),
        }
    }

    async fn attempt(
        &self,
        file: &Arc<File>,
        fh: Fh,
        wish: LockWish,
        wait: bool,
        still_wanted: &AtomicU8,
    ) -> Result<bool, VfsError> {
        let turn = Turn::take(file, wish.key()).await;
        self.make_lockable(file).await?;
        for _ in 0..RESTARTS_MAX {
            self.refuse_lost(file, wish.key())?;
            let before = file.lock().locks.held(wish.key(), wish.range);
            // It is given up, at least in part, by being changed.
            if !before.is_empty() && (wish.mode == LockMode::Shared || wish.space == LockSpace::Whole) {
                if has_exclusive(&before) {
                    self.collect_mapped(file, wish.pid).await;
                }
                self.publish_unless_gone(file, false).await?;
            }
            let session = self.meta.session();
            let answer = self.write_op(WriteOp::Lock { request: wish.of(file.ino), wait }).await;
            if self.meta.session() != session {
                // Nobody can tell in which of the two it was granted, if it was.
                continue;
            }
            return match answer {
                Ok(MetaReply::Locked(Locked::Granted)) => {
                    let is_wanted = || {
                        still_wanted
                            .compare_exchange(WANTED, DONE, Ordering::AcqRel, Ordering::Acquire)
                            .is_ok()
                    };
                    self.take_over(file, fh, &wish, &before, session);
                    if is_wanted() {
                        return Ok(true);
                    }
                    self.put_back(file, fh, &wish, &before, session);
                    self.settle_in_background(turn, file, restoring(file.ino, &wish, &before));
                    Err(VfsError::Interrupted)
                }
                Ok(MetaReply::Locked(Locked::Blocked(_))) => {
                    if wait && wish.space == LockSpace::Whole && !before.is_empty() {
                        self.put_back(file, fh, &wish, &[], session);
                    }
                    if still_wanted.load(Ordering::Acquire) == GIVEN_UP {
                        self.withdraw(file.ino, wish).await;
                    }
                    Ok(false)
                }
                Ok(_) => Err(VfsError::OddAnswer("a wish for a lock")),
                Err(e) => {
                    if is_outcome_unknown(&e) {
                        self.settle_in_background(turn, file, restoring(file.ino, &wish, &before));
                    }
                    Err(e)
                }
            };
        }
        let message =
            format!("inode {} was not locked: the session with the master keeps changing", file.ino);
        Err(ClientError::local(ErrorCode::Unavailable, message).into())
    }

    /// Notes what was granted; a part of it may have been given up with that.
    fn take_over(&self, file: &File, fh: Fh, wish: &LockWish, before: &[Span], session: Option<SessionId>) {
        let mut state = file.lock();
        state.locks.granted(wish.key(), fh, wish.span(), session);
        if has_exclusive(before) {
            state.locks.wake();
        }
    }

    /// Notes that the owner has again what it had before a lock that nobody wanted any more.
    fn put_back(&self, file: &File, fh: Fh, wish: &LockWish, before: &[Span], session: Option<SessionId>) {
        let mut state = file.lock();
        state.locks.freed(wish.key(), wish.range);
        before.iter().for_each(|span| state.locks.granted(wish.key(), fh, *span, session));
        state.locks.wake();
    }

    /// Takes back that somebody waits, so that nobody is told of a deadlock with it.
    async fn withdraw(&self, ino: Ino, wish: LockWish) {
        let meta = self.meta.clone();
        let told = tokio::spawn(async move {
            if let Err(e) = meta.call(MetaOp::Read(ReadOp::TestLock(wish.of(ino)))).await {
                log::debug!("the master forgets by itself that a lock of inode {ino} was waited for: {e}");
            }
        });
        // Not for longer than the caller has time: the master hears of it all the same.
        let _ = timeout(INTERRUPT_GRACE, told).await;
    }

    /// Makes a file that exists here only known to the master.
    async fn make_lockable(&self, file: &Arc<File>) -> Result<(), VfsError> {
        let is_known = matches!(file.lock().origin, Origin::Published);
        if is_known { Ok(()) } else { self.publish_all(file).await }
    }

    /// Gives up what the owner of `what` has of its range, whatever the mode. What was written to the file here is
    /// published first, by whomever, and through mappings by process `what.pid`; if that fails, so does this, and the
    /// lock stays.
    pub async fn unlock(&self, fh: Fh, what: LockWish) -> Result<(), VfsError> {
        let handle = self.handles.file(fh)?;
        let held = handle.file.lock().locks.held(what.key(), what.range);
        if has_exclusive(&held) {
            self.collect_mapped(&handle.file, what.pid).await;
        }
        self.give_up_locks(&handle.file, what.key(), what.range, false).await
    }

    /// The same. `at_any_price` leaves no lock behind that could be given up, whatever else goes wrong.
    pub(super) async fn give_up_locks(
        &self,
        file: &Arc<File>,
        key: LockKey,
        range: LockRange,
        at_any_price: bool,
    ) -> Result<(), VfsError> {
        if file.lock().locks.has_none(key) {
            return Ok(());
        }
        let turn = Turn::take(file, key).await;
        if file.lock().locks.held(key, range).is_empty() {
            return Ok(());
        }
        let published = self.publish_unless_gone(file, false).await;
        if let Err(e) = &published
            && e.code() != ErrorCode::LockLost
            && !at_any_price
        {
            return published;
        }
        let lost = self.refuse_lost(file, key);
        if lost.is_ok() {
            let unlock = WriteOp::Unlock { ino: file.ino, space: key.space, owner: key.owner, range };
            let freed = self.write_op(unlock.clone()).await;
            file.lock().locks.freed(key, range);
            file.lock().locks.wake();
            if let Err(e) = freed {
                if is_outcome_unknown(&e) || e.code().is_transient() {
                    self.settle_in_background(turn, file, vec![unlock]);
                }
                return Err(e);
            }
        } else {
            file.lock().locks.freed(key, range);
        }
        published.and(lost)
    }

    /// A process has closed a descriptor of the file: by POSIX that frees all its byte ranges. The kernel has handed
    /// over before what was written through mappings.
    pub(super) async fn free_ranges_of(&self, file: &Arc<File>, owner: LockOwner) -> Result<(), VfsError> {
        let key = LockKey { space: LockSpace::Range, owner };
        self.give_up_locks(file, key, LockRange::WHOLE, false).await
    }

    /// The open file description is gone, and with it all locks that were taken through it.
    pub(super) async fn free_locks_through(&self, file: &Arc<File>, fh: Fh) {
        let owners = file.lock().locks.owners_through(fh);
        for key in owners {
            if let Err(e) = self.give_up_locks(file, key, LockRange::WHOLE, true).await {
                log::warn!("inode {}: locks were not given up as they should have been: {e}", file.ino);
            }
        }
        file.lock().locks.take_untold(fh);
    }

    /// Carries out what nobody waits for, again and again until it is done or the session is over; the owner's
    /// other changes wait for it.
    fn settle_in_background(&self, turn: Turn, file: &Arc<File>, ops: Vec<WriteOp>) {
        let (vfs, meta, session) = (self.me.clone(), self.meta.clone(), self.meta.session());
        let file = file.clone();
        file.lock().opens += 1;
        tokio::spawn(async move {
            for op in ops {
                settle(&vfs, &*meta, session, op).await;
            }
            drop(turn);
            file.lock().locks.wake();
            if let Some(vfs) = vfs.upgrade() {
                vfs.let_go(&file);
            }
        });
    }

    /// Fails when the locks that were taken through the handle are gone, or changes that it may have made.
    pub(crate) fn check_locks(&self, state: &mut FileState, fh: Fh) -> Result<(), VfsError> {
        self.note_session(state);
        if state.locks.has_lost_through(fh) { Err(lock_lost(state.attr.ino)) } else { Ok(()) }
    }

    /// The same, once more after changes were thrown away that the handle may have made.
    pub(super) fn check_locks_and_changes(&self, state: &mut FileState, fh: Fh) -> Result<(), VfsError> {
        let was_untold = state.locks.take_untold(fh);
        self.check_locks(state, fh)?;
        if was_untold { Err(lock_lost(state.attr.ino)) } else { Ok(()) }
    }

    fn refuse_lost(&self, file: &File, key: LockKey) -> Result<(), VfsError> {
        let mut state = file.lock();
        self.note_session(&mut state);
        if state.locks.has_lost(key) { Err(lock_lost(file.ino)) } else { Ok(()) }
    }

    /// Notices when the locks of a file have ended with their session.
    pub(crate) fn note_session(&self, state: &mut FileState) {
        if state.locks.is_empty() {
            return;
        }
        if let Some(over) = state.locks.lose_all_but(self.meta.session()) {
            log::error!(
                "inode {}: the locks that programs had on it were lost with session {over}, because the master had not \
                 heard of this mount for too long. What they do with the file fails until they unlock or close it; \
                 others may have changed it meanwhile: let them start again.",
                state.attr.ino
            );
        }
    }

    /// Throws away changes that the master refused because the locks that they were made under are gone: they must
    /// not lie over what the next holder has written. Whoever can write the file is told.
    pub(crate) fn throw_away(&self, file: &Arc<File>, state: &mut FileState) {
        log::error!(
            "inode {}: changes made under locks that were lost are thrown away, because others may have changed the \
             file since",
            file.ino
        );
        state.discard_changes();
        state.locks.tell_later(self.handles.writers_of(file));
        if let Some(kernel) = self.kernel.get() {
            kernel.drop_pages(file.ino);
        }
    }
}

/// Whether something may have been written under these.
fn has_exclusive(held: &[Span]) -> bool {
    held.iter().any(|span| span.mode == LockMode::Exclusive)
}

fn lock_lost(ino: Ino) -> VfsError {
    let message = format!(
        "locks on inode {ino} were lost, because the master had not heard of this mount for too long; unlock or close \
         the file and start again"
    );
    ClientError::local(ErrorCode::LockLost, message).into()
}

fn is_outcome_unknown(e: &VfsError) -> bool {
    matches!(
        e.code(),
        ErrorCode::Timeout | ErrorCode::Unreachable | ErrorCode::SessionExpired | ErrorCode::Unavailable
    )
}

fn finished(result: Result<Result<bool, VfsError>, tokio::task::JoinError>) -> Result<bool, VfsError> {
    match result {
        Ok(result) => result,
        // Only when the runtime ends, and nobody is left to hear of it.
        Err(e) if e.is_cancelled() => Err(VfsError::Interrupted),
        Err(e) => std::panic::resume_unwind(e.into_panic()),
    }
}

/// What gives the owner of `wish` the locks that it had before in that place, whether it has got it or not.
fn restoring(ino: Ino, wish: &LockWish, before: &[Span]) -> Vec<WriteOp> {
    let LockWish { space, owner, .. } = *wish;
    let weaken = before.iter().map(|span| {
        let request = LockRequest { range: span.range, mode: span.mode, ..wish.of(ino) };
        WriteOp::Lock { request, wait: false }
    });
    let free = gaps(before, wish.range).into_iter().map(|range| WriteOp::Unlock { ino, space, owner, range });
    weaken.chain(free).collect()
}

async fn settle(vfs: &Weak<Vfs>, meta: &dyn MetaClient, session: Option<SessionId>, op: WriteOp) {
    loop {
        // Locks end with their session, and with the mount.
        if meta.session() != session || vfs.strong_count() == 0 {
            return;
        }
        match meta.call(MetaOp::Write(op.clone())).await {
            Ok(_) => return,
            Err(e) if e.code().is_transient() => {
                log::debug!("a lock that nobody wants is not given back yet: {e}");
                sleep(SETTLE_EVERY).await;
            }
            Err(e) => {
                log::debug!("a lock that nobody wants is left to its session: {e}");
                return;
            }
        }
    }
}

/// Somebody is waiting for the answer.
const WANTED: u8 = 0;
/// It has been given.
const DONE: u8 = 1;
/// Nobody is there to be given it.
const GIVEN_UP: u8 = 2;

/// Whether a try is still wanted. Given up when dropped.
#[derive(Default)]
struct Wanted(Arc<AtomicU8>);

impl Wanted {
    /// False when the try was faster.
    fn give_up(&self) -> bool {
        self.0.compare_exchange(WANTED, GIVEN_UP, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Drop for Wanted {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// An owner's turn to change its locks of a file.
struct Turn {
    file: Arc<File>,
    key: LockKey,
    guard: Option<OwnedMutexGuard<()>>,
}

impl Turn {
    async fn take(file: &Arc<File>, key: LockKey) -> Turn {
        let mutex = file.lock().locks.enter(key);
        // Made before the wait, so that one that is given up leaves too.
        let mut turn = Turn { file: file.clone(), key, guard: None };
        turn.guard = Some(mutex.lock_owned().await);
        turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        drop(self.guard.take());
        self.file.lock().locks.leave(self.key);
    }
}

/// One who waits for locks of a file to be given up.
struct Waiter {
    file: Arc<File>,
    notify: Arc<Notify>,
}

impl Waiter {
    fn new(file: &Arc<File>) -> Waiter {
        Waiter { file: file.clone(), notify: file.lock().locks.wait() }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.file.lock().locks.stop_waiting(&self.notify);
    }
}
