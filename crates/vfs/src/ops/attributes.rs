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
        if let Some(file) = self.file(ino) {
            let state = file.lock();
            if !matches!(state.origin, Origin::Published) {
                return Ok(state.view());
            }
        }
        match self.read_op(ReadOp::GetAttr { ino }).await? {
            MetaReply::Attr(attr) => Ok(self.overlaid(attr)),
            _ => Err(VfsError::OddAnswer("a getattr")),
        }
    }

    /// Changes attributes. A size is changed through the handle when there is one, and then published with
    /// what is written; without a handle at once.
    pub async fn setattr(
        &self,
        caller: Caller,
        ino: Ino,
        changes: AttrChanges,
        fh: Option<Fh>,
    ) -> Result<Attr, VfsError> {
        if changes.size.is_some_and(|size| size > FILE_BYTES_MAX) {
            return Err(VfsError::TooLarge);
        }
        if let Some(handle) = self.handle_of(fh, ino, caller) {
            let attr = self.setattr_file(&handle.file, changes, true).await?;
            // A writer whose writes go to another file keeps seeing the one it opened.
            return if handle.diverted_from.is_some() { self.getattr(ino).await } else { Ok(attr) };
        }
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

    async fn setattr_file(
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

    async fn setattr_at_master(&self, ino: Ino, changes: AttrChanges) -> Result<Attr, VfsError> {
        match self.write_op(WriteOp::SetAttr { ino, changes }).await? {
            MetaReply::Attr(attr) => {
                self.clock.saw(attr.ctime);
                Ok(self.overlaid(attr))
            }
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

impl crate::file::FileState {
    /// Carries out what concerns content or a file that exists here only; returns what is for the master.
    fn take_local_changes(&mut self, mut changes: AttrChanges, now: Timestamp) -> AttrChanges {
        let time = |t: SetTime| match t {
            SetTime::Now => now,
            SetTime::At(t) => t,
        };
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
        self.attr.atime = changes.atime.map_or(self.attr.atime, time);
        self.attr.ctime = now;
        AttrChanges::default()
    }
}
