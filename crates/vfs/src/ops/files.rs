//! Files: create, open, read, write, flush, fsync, release.

use super::privileges::{may_keep_set_id, without_set_id};
use super::{Caller, OpenFlags, OpenedFile};
use crate::VfsError;
use crate::file::{File, Origin};
use crate::handle::{Fh, FileHandle};
use crate::publish::is_gone;
use crate::staging::Buffer;
use crate::vfs::Vfs;
use dfs_proto::limits::FILE_BYTES_MAX;
use dfs_proto::meta::{Collision, Create, ReadOp};
use dfs_proto::{CollisionPolicy, ErrorCode, FileKind, Ino, LockOwner, MetaReply, Name};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long a writer waits for room among the staged bytes.
const STAGING_WAIT: Duration = Duration::from_secs(60);

/// How often a waiting writer has uploads tried again that had failed.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// What a write of the sync kind could do with the bytes it was given.
enum Staged {
    All,
    /// Bytes taken until there was no more room.
    Some(usize),
}

impl Vfs {
    pub(super) fn handle_for(
        &self,
        file: Arc<File>,
        flags: OpenFlags,
        diverted_from: Option<(Ino, u32)>,
    ) -> OpenedFile {
        let version = file.lock().attr.version;
        let keep_pages = diverted_from.is_none() && self.names.keep_pages(file.ino, version);
        let only_writes = flags.write && !flags.read;
        let direct = diverted_from.is_some() || (only_writes && self.config.direct_writers);
        let fh = self.handles.add_file(FileHandle {
            file,
            readable: flags.read,
            writable: flags.write,
            append: flags.append,
            no_atime: flags.no_atime,
            executed: flags.execute,
            direct,
            diverted_from,
            pattern: Default::default(),
            window: Default::default(),
        });
        OpenedFile { fh, keep_pages, direct }
    }

    /// Opens a file. What was published before is seen, whoever did it.
    ///
    /// With O_TRUNC under the collision rule `rename` the file stays as it is and writes go to a new one
    /// beside it, which gets its name when it is published.
    pub async fn open(&self, caller: Caller, ino: Ino, flags: OpenFlags) -> Result<OpenedFile, VfsError> {
        // An open for writing the kernel refuses before it gets here, but O_RDONLY | O_TRUNC only afterwards.
        if flags.truncate && !flags.write && self.handles.is_executed(ino) {
            return Err(VfsError::Executed);
        }
        if let Some(file) = self.hold_if(ino, |state| !matches!(state.origin, Origin::Published)) {
            // Still the same whole new file, with its name or without: nobody else has seen it.
            if flags.truncate {
                self.empty(caller, &file).await?;
            }
            return Ok(self.handle_for(file, flags, None));
        }
        if flags.truncate && self.keeps_what_is_there(ino).await? {
            return self.open_diverted(caller, ino, flags).await;
        }
        let file = self.open_published(ino).await?;
        self.drop_old_size(&file).await;
        if flags.truncate {
            self.empty(caller, &file).await?;
        }
        Ok(self.handle_for(file, flags, None))
    }

    /// O_TRUNC. Whoever changes content without privileges takes set-id bits away (inode(7)). The kernel sees to
    /// that itself, but for the truncation that it hands over with an open. A failure lets the file go.
    async fn empty(&self, caller: Caller, file: &Arc<File>) -> Result<(), VfsError> {
        if !may_keep_set_id(caller)
            && let Err(e) = self.drop_set_id(file).await
        {
            self.let_go(file);
            return Err(e);
        }
        file.lock().truncate(0, self.clock.now());
        Ok(())
    }

    /// An inode that others have removed is refused with `stale`, also when somebody has it open still: the path
    /// that the kernel came by is out of date then, and it looks it up once more. One that is known to have no
    /// name has been opened by its descriptor (`/proc/self/fd`).
    async fn open_published(&self, ino: Ino) -> Result<Arc<File>, VfsError> {
        let (open_here, asked) = (self.file(ino), self.names.ask());
        let (known, changes) = open_here.as_ref().map_or((None, 0), |file| {
            let state = file.lock();
            (state.base_version(), state.changes)
        });
        let opened = match self.read_op(ReadOp::Open { ino, known }).await {
            Ok(MetaReply::Opened(opened)) => opened,
            Ok(_) => return Err(VfsError::OddAnswer("an open")),
            Err(e) if e.code() == ErrorCode::NotFound => return Err(VfsError::Removed(ino)),
            Err(e) => return Err(e),
        };
        let is_news = |file: &Arc<File>| !std::mem::replace(&mut file.lock().is_nameless, true);
        if opened.attr.nlink == 0 && open_here.as_ref().is_none_or(is_news) {
            self.close_at_master(ino, 1);
            return Err(VfsError::Removed(ino));
        }
        if let Some(page) = &opened.extents {
            self.data.learn(&page.volumes);
        }
        let file = self.hold(&opened.attr, Origin::Published);
        let mut state = file.lock();
        state.pins += 1;
        let taken_over = state.refresh(opened.attr, opened.extents, changes);
        // A file that was not open here took no note of what was heard while the answer was on its way.
        state.stale |= self.names.is_outdated(ino, asked);
        drop(state);
        match taken_over {
            Ok(()) => Ok(file),
            Err(e) => {
                self.let_go(&file);
                Err(e)
            }
        }
    }

    /// Whether the collision rule that holds where the file is says that a whole new one must not take its
    /// place.
    async fn keeps_what_is_there(&self, ino: Ino) -> Result<bool, VfsError> {
        let Some(known) = self.names.known(ino) else {
            return Ok(self.config.collision == CollisionPolicy::Rename);
        };
        let parent = self.getattr(known.parent).await?;
        Ok(parent.collision.unwrap_or(self.config.collision) == CollisionPolicy::Rename)
    }

    async fn open_diverted(
        &self,
        caller: Caller,
        ino: Ino,
        flags: OpenFlags,
    ) -> Result<OpenedFile, VfsError> {
        let known = self.names.known(ino).ok_or(VfsError::Forgotten(ino))?;
        let name = known.name.ok_or(VfsError::Forgotten(ino))?;
        let old = self.getattr(ino).await?;
        if old.kind == FileKind::Directory {
            return Err(dfs_client::ClientError::local(
                dfs_proto::ErrorCode::IsDirectory,
                "this is a directory",
            )
            .into());
        }
        let create = Create {
            parent: known.parent,
            name,
            mode: if may_keep_set_id(caller) { old.mode } else { without_set_id(old.mode) },
            umask: 0,
            uid: caller.uid,
            gid: self.passed_on(known.parent).await?.gid.unwrap_or(caller.gid),
            born: Some(self.clock.now()),
            collision: Collision::Explicit(CollisionPolicy::Rename),
        };
        let file = self.make_here(create).await?;
        Ok(self.handle_for(file, flags, Some((ino, caller.pid))))
    }

    /// Stages `data` if that needs no waiting; `None` when it does, and then nothing has happened. `mapped`
    /// tells that the bytes come from a mapping: they belong where they say, O_APPEND or not.
    pub fn try_write(&self, fh: Fh, offset: u64, data: &[u8], mapped: bool) -> Option<Result<u32, VfsError>> {
        let handle = match self.handles.file(fh) {
            Ok(handle) => handle,
            Err(e) => return Some(Err(e)),
        };
        if let Err(e) = check_write(&handle, fh, offset, data, mapped) {
            return Some(Err(e));
        }
        // A stale size would put an append in the wrong place.
        if handle.append && handle.file.lock().stale {
            return None;
        }
        if self.budget.used() + data.len() > self.config.staged_bytes_max {
            return None;
        }
        match self.stage(fh, &handle, offset, data, mapped) {
            Err(e) => Some(Err(e)),
            Ok(Staged::All) => Some(Ok(data.len() as u32)),
            // Others took the room between the check and now: what is staged counts as a short write.
            Ok(Staged::Some(0)) => None,
            Ok(Staged::Some(taken)) => Some(Ok(taken as u32)),
        }
    }

    /// Stages `data`, waiting for room if there is none. See [`Vfs::try_write`].
    pub async fn write(&self, fh: Fh, offset: u64, data: &[u8], mapped: bool) -> Result<u32, VfsError> {
        let handle = self.handles.file(fh)?;
        if handle.append && Self::is_published(&handle.file) {
            self.freshen(&handle.file, 0).await?;
        }
        check_write(&handle, fh, offset, data, mapped)?;
        let mut done = 0;
        let deadline = tokio::time::Instant::now() + STAGING_WAIT;
        loop {
            let freed = self.budget.freed();
            match self.stage(fh, &handle, offset + done as u64, &data[done..], mapped)? {
                Staged::All => return Ok(data.len() as u32),
                Staged::Some(taken) => done += taken,
            }
            self.send_off_oldest();
            if tokio::time::timeout(RETRY_EVERY, freed).await.is_ok() {
                continue;
            }
            self.retry_failed_uploads();
            if tokio::time::Instant::now() >= deadline {
                let staged = self.budget.used();
                // What is staged counts as a short write.
                return match done {
                    0 => Err(VfsError::StagingFull { staged, waited_s: STAGING_WAIT.as_secs() }),
                    _ => Ok(done as u32),
                };
            }
        }
    }

    /// Starts uploads so that room comes free: of what waits for others, or of this file's buffer or whichever has
    /// been open for longest.
    fn send_off_oldest(&self) {
        if self.makes_room() {
            return;
        }
        while let Some((ino, buffer)) = self.open_buffers.oldest() {
            let Some(file) = self.file(ino) else { continue };
            let is_tail = file.lock().tail.as_ref().is_some_and(|tail| Arc::ptr_eq(tail, &buffer));
            if is_tail {
                self.seal_tail(&file);
                return;
            }
        }
    }

    fn stage(
        &self,
        fh: Fh,
        handle: &FileHandle,
        offset: u64,
        data: &[u8],
        mapped: bool,
    ) -> Result<Staged, VfsError> {
        let file = &handle.file;
        let mut done = 0;
        let now = self.clock.now();
        let mut state = file.lock();
        state.is_mapped |= mapped;
        let appending = handle.append && !mapped;
        let start = if appending { state.append_at() } else { offset };
        while done < data.len() {
            // With the state in hand: nothing is staged by one who has lost the locks meanwhile.
            self.check_locks(&mut state, fh)?;
            let (at, rest) = (start + done as u64, &data[done..]);
            let overwritten = state.overwrite_staged(at, rest, now);
            if overwritten > 0 {
                done += overwritten;
                continue;
            }
            if state.tail.as_ref().is_none_or(|tail| tail.room() == 0) {
                drop(state);
                self.seal_full_tail(file);
                state = file.lock();
                if state.tail.is_none() {
                    let buffer = Buffer::new(self.budget.clone());
                    self.open_buffers.add(file.ino, &buffer);
                    state.tail = Some(buffer);
                }
                continue;
            }
            let room = state.tail.as_ref().map_or(0, |tail| tail.room());
            let length = room.min(rest.len());
            if !self.budget.try_take(length) {
                return Ok(Staged::Some(done));
            }
            let taken = state.put_bytes(at, &rest[..length], appending, now);
            debug_assert_eq!(taken, length, "the lock was held since the room was looked at");
            done += taken;
        }
        let full = state.tail.as_ref().is_some_and(|tail| tail.room() == 0);
        drop(state);
        if full {
            self.seal_full_tail(file);
        }
        Ok(Staged::All)
    }

    /// A descriptor was closed by the process `owner`: publishes what was written, and then gives up the byte
    /// ranges of the file that the process has locked, through whichever descriptor (fcntl(2)). `others_open` tells whether the caller has the
    /// file open by another descriptor; it is asked only for a new file that nothing was
    /// written to yet, which a shell that redirects closes once before it is used.
    pub async fn flush(
        &self,
        fh: Fh,
        owner: LockOwner,
        others_open: impl FnOnce(&Name, Ino) -> bool,
    ) -> Result<(), VfsError> {
        let handle = self.handles.file(fh)?;
        let published = self.flush_changes(&handle, others_open).await;
        let told = self.check_locks_and_changes(&mut handle.file.lock(), fh);
        let freed = self.free_ranges_of(&handle.file, owner).await;
        published.and(told).and(freed)
    }

    async fn flush_changes(
        &self,
        handle: &FileHandle,
        others_open: impl FnOnce(&Name, Ino) -> bool,
    ) -> Result<(), VfsError> {
        if !handle.writable {
            return Ok(());
        }
        let untouched = handle.file.lock().untouched_name();
        if untouched.is_some_and(|name| others_open(&name, handle.file.ino)) {
            return Ok(());
        }
        self.publish_unless_gone(&handle.file, false).await?;
        self.tell_stored_as(handle);
        let has_other_handles = handle.file.lock().opens > 1;
        if has_other_handles {
            self.pin_published(&handle.file).await;
        }
        Ok(())
    }

    /// Publishes, and makes what was published safe against power loss and the loss of a node.
    pub async fn fsync(&self, fh: Fh) -> Result<(), VfsError> {
        let handle = self.handles.file(fh)?;
        self.check_locks_and_changes(&mut handle.file.lock(), fh)?;
        self.publish_unless_gone(&handle.file, true).await?;
        self.tell_stored_as(&handle);
        self.pin_published(&handle.file).await;
        Ok(())
    }

    pub(super) async fn publish_unless_gone(&self, file: &Arc<File>, durable: bool) -> Result<(), VfsError> {
        match self.publish(file, durable).await {
            Err(e) if is_gone(&e) && file.lock().attr.nlink == 0 => {
                // Its content may go where its name went.
                file.lock().give_up();
                Ok(())
            }
            other => other,
        }
    }

    /// Lets a writer whose file was stored beside the one it had opened find out where.
    fn tell_stored_as(&self, handle: &FileHandle) {
        let Some((asked, _)) = handle.diverted_from else { return };
        if let Some(name) = self.names.stored_as(handle.file.ino) {
            self.names.note_stored_as(asked, &name);
        }
        if let Some(kernel) = self.kernel.get() {
            kernel.drop_pages(asked);
        }
    }

    /// The last descriptor of a handle is gone. What flush could not publish is tried once more; an error
    /// then is logged, because nobody is left to be told. Locks that were taken through the handle are given up.
    pub async fn release(&self, fh: Fh) {
        let Some(handle) = self.handles.remove_file(fh) else { return };
        let is_last = handle.file.lock().opens <= 1;
        if (handle.writable || is_last) && handle.file.lock().is_dirty() {
            if let Err(e) = self.publish_unless_gone(&handle.file, false).await {
                log::error!("inode {}: closed with changes that could not be stored: {e}", handle.file.ino);
            }
            self.tell_stored_as(&handle);
        }
        self.free_locks_through(&handle.file, fh).await;
        self.let_go(&handle.file);
    }

    /// Whether changes by others reach this mount by push.
    pub fn is_pushed(&self) -> bool {
        self.pushed.load(Ordering::Acquire)
    }
}

fn check_write(handle: &FileHandle, fh: Fh, offset: u64, data: &[u8], mapped: bool) -> Result<(), VfsError> {
    if !handle.writable {
        return Err(VfsError::BadHandle(fh));
    }
    let start = if handle.append && !mapped { handle.file.lock().append_at() } else { offset };
    match start.checked_add(data.len() as u64) {
        Some(end) if end <= FILE_BYTES_MAX => Ok(()),
        _ => Err(VfsError::TooLarge),
    }
}
