//! Attributes and room.

use super::Caller;
use crate::Fh;
use crate::VfsError;
use crate::file::{File, Origin};
use crate::vfs::Vfs;
use dfs_proto::limits::FILE_BYTES_MAX;
use dfs_proto::meta::{AttrChanges, ClusterOp, ReadOp, SetTime, Space, WriteOp};
use dfs_proto::{Attr, Ino, MetaOp, MetaReply, Timestamp};
use std::sync::Arc;

impl Vfs {
    /// Attributes, with what has been changed here.
    pub async fn getattr(&self, ino: Ino) -> Result<Attr, VfsError> {
        let asked = self.names.ask();
        if let Some(view) = self.unpublished_view(ino) {
            return Ok(self.tell(view, asked));
        }
        if let Some(attr) = self.names.directory(ino).filter(|_| self.is_pushed()) {
            return Ok(self.tell(attr, asked));
        }
        match self.read_op(ReadOp::GetAttr { ino }).await? {
            MetaReply::Attr(attr) => {
                self.drop_old_pages(&attr).await;
                Ok(self.tell(self.overlaid(attr), asked))
            }
            _ => Err(VfsError::OddAnswer("a getattr")),
        }
    }

    /// Attributes of a file that the master does not know.
    fn unpublished_view(&self, ino: Ino) -> Option<Attr> {
        let file = self.file(ino)?;
        let state = file.lock();
        (!matches!(state.origin, Origin::Published)).then(|| state.view())
    }

    /// Changes attributes. A size is changed through the handle when there is one, and then published with
    /// what is written; without a handle at once.
    pub async fn setattr(
        &self,
        caller: Caller,
        ino: Ino,
        mut changes: AttrChanges,
        fh: Option<Fh>,
    ) -> Result<Attr, VfsError> {
        if changes.size.is_some_and(|size| size > FILE_BYTES_MAX) {
            return Err(VfsError::TooLarge);
        }
        let asked = self.names.ask();
        // One clock for all times that applications see of what they do here.
        let now = self.clock.now();
        let at_once = |time: Option<SetTime>| time.map(|t| SetTime::At(moment(t, now)));
        (changes.atime, changes.mtime) = (at_once(changes.atime), at_once(changes.mtime));
        let handle = self.handle_of(fh, ino, caller);
        if let (Some(fh), Some(handle), Some(_)) = (fh, &handle, changes.size) {
            self.check_locks(&mut handle.file.lock(), fh)?;
        }
        if changes.atime.is_some() {
            self.access_times.forget(handle.as_ref().map_or(ino, |handle| handle.file.ino));
        }
        let changed = match &handle {
            Some(handle) => self.setattr_file(&handle.file, changes, true).await,
            None => self.setattr_without_handle(ino, changes).await,
        };
        // A writer whose writes go to another file keeps seeing the one it opened.
        match changed {
            Ok(_) if handle.is_some_and(|handle| handle.diverted_from.is_some()) => self.getattr(ino).await,
            Ok(attr) => Ok(self.tell_changed(attr, asked)),
            Err(e) => Err(e),
        }
    }

    async fn setattr_without_handle(&self, ino: Ino, changes: AttrChanges) -> Result<Attr, VfsError> {
        match self.hold_if(ino, |_| true) {
            Some(file) => {
                let result = self.setattr_file(&file, changes, false).await;
                self.let_go(&file);
                result
            }
            None => self.setattr_at_master(ino, changes).await,
        }
    }

    fn handle_of(&self, fh: Option<Fh>, ino: Ino, caller: Caller) -> Option<Arc<crate::handle::FileHandle>> {
        match fh {
            Some(fh) => self.handles.file(fh).ok(),
            None => self.handles.diverted(ino, caller.pid),
        }
    }

    pub(super) async fn setattr_file(
        &self,
        file: &Arc<File>,
        mut changes: AttrChanges,
        has_handle: bool,
    ) -> Result<Attr, VfsError> {
        if let Some(size) = changes.size {
            if Vfs::is_published(file) {
                self.freshen(file, 0).await?;
            }
            changes.size = None;
            file.lock().truncate(size, self.clock.now());
        }
        // A file that is being made just now takes them before or after that, never beside it.
        let serial = if Vfs::is_published(file) { None } else { Some(file.publishing.lock().await) };
        let left = file.lock().take_local_changes(changes, self.clock.now());
        let published = Vfs::is_published(file);
        drop(serial);
        if published && left != AttrChanges::default() {
            self.setattr_at_master(file.ino, left).await?;
        }
        // Without a handle no close will come that publishes a new size.
        if published && !has_handle && file.lock().dirty.truncate_to.is_some() {
            self.publish(file, false).await?;
        }
        Ok(file.lock().view())
    }

    /// Sets what was asked for before the file was made and the commit that made it could not carry: the access
    /// time, and a group other than the one that a set-group-id directory passes on.
    pub(crate) async fn set_postponed(&self, file: &Arc<File>) -> Result<(), VfsError> {
        let changes = {
            let state = file.lock();
            AttrChanges {
                atime: state.atime_to_set.map(SetTime::At),
                gid: state.gid_to_set,
                // A new group would take set-id bits away.
                mode: state.gid_to_set.map(|_| state.attr.mode),
                ..AttrChanges::default()
            }
        };
        if changes == AttrChanges::default() {
            return Ok(());
        }
        self.setattr_at_master(file.ino, changes).await?;
        let mut state = file.lock();
        state.attr.atime = state.atime_to_set.take().unwrap_or(state.attr.atime);
        state.attr.gid = state.gid_to_set.take().unwrap_or(state.attr.gid);
        Ok(())
    }

    async fn setattr_at_master(&self, ino: Ino, changes: AttrChanges) -> Result<Attr, VfsError> {
        match self.write_op(WriteOp::SetAttr { ino, changes }).await? {
            MetaReply::Attr(attr) => Ok(self.overlaid(attr)),
            _ => Err(VfsError::OddAnswer("a setattr")),
        }
    }

    /// Room in the cluster.
    pub async fn statfs(&self) -> Result<Space, VfsError> {
        match self.meta.call(MetaOp::Cluster(ClusterOp::Space)).await? {
            MetaReply::Space(space) => Ok(space),
            _ => Err(VfsError::OddAnswer("a statfs")),
        }
    }
}

fn moment(time: SetTime, now: Timestamp) -> Timestamp {
    match time {
        SetTime::Now => now,
        SetTime::At(time) => time,
    }
}

impl crate::file::FileState {
    /// Carries out what concerns content or a file that exists here only; returns what is for the master.
    fn take_local_changes(&mut self, mut changes: AttrChanges, now: Timestamp) -> AttrChanges {
        let time = |t: SetTime| moment(t, now);
        if changes.atime.is_some() {
            self.accessed = None;
        }
        // With changes that wait to be published, the time goes with them; sent ahead it would be overwritten.
        if self.is_dirty()
            && let Some(mtime) = changes.mtime.take()
        {
            self.dirty.mtime = Some(time(mtime));
            self.dirty.ctime = Some(now);
            self.dirty.dirty = true;
        }
        if matches!(self.origin, Origin::Published) {
            return changes;
        }
        if let Origin::New(create) = &mut self.origin {
            if let Some(mode) = changes.mode {
                (create.mode, create.umask) = (mode, 0);
            }
            create.uid = changes.uid.unwrap_or(create.uid);
            create.gid = changes.gid.unwrap_or(create.gid);
        }
        self.attr.mode = changes.mode.unwrap_or(self.attr.mode);
        self.attr.uid = changes.uid.unwrap_or(self.attr.uid);
        self.attr.gid = changes.gid.unwrap_or(self.attr.gid);
        if let Some(atime) = changes.atime.map(time) {
            self.atime_to_set = Some(atime);
        }
        self.attr.ctime = now;
        AttrChanges::default()
    }
}
