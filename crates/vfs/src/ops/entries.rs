//! Names: lookup, make, link, unlink, rename.

use super::Caller;
use crate::VfsError;
use crate::file::{File, Origin};
use crate::names::Asked;
use crate::vfs::Vfs;
use bytes::Bytes;
use dfs_proto::meta::{Make, ReadOp, Removed, Rename, RenameMode, WriteOp};
use dfs_proto::{Attr, ErrorCode, FileKind, Ino, MetaReply, Name};
use std::sync::Arc;

/// What [`Vfs::make`] makes.
#[derive(Clone, Debug)]
pub(crate) struct NewNode {
    pub kind: FileKind,
    pub mode: u16,
    pub rdev: u32,
    pub target: Bytes,
}

impl Vfs {
    /// The entry's attributes. The kernel is taken to remember them: one [`Vfs::forget`] will come for it.
    pub async fn lookup(&self, parent: Ino, name: &Name) -> Result<Attr, VfsError> {
        let asked = self.names.ask();
        let attr = self.find(parent, name).await?;
        self.names.remember(attr.ino, parent, name);
        Ok(self.tell(attr, asked))
    }

    pub(super) async fn find(&self, parent: Ino, name: &Name) -> Result<Attr, VfsError> {
        if let Some(file) = self.pending_file(parent, name) {
            return Ok(file.lock().view());
        }
        match self.read_op(ReadOp::Lookup { parent, name: name.clone() }).await {
            Ok(MetaReply::Attr(attr)) => Ok(self.overlaid(attr)),
            Ok(_) => Err(VfsError::OddAnswer("a lookup")),
            // It may have been published between the two looks.
            Err(e) => match self.pending_file(parent, name) {
                Some(file) => Ok(file.lock().view()),
                None => Err(e),
            },
        }
    }

    pub(crate) fn pending_file(&self, parent: Ino, name: &Name) -> Option<Arc<File>> {
        self.file(self.names.pending(parent, name)?)
    }

    /// Makes a directory; `mode` is before the umask.
    pub async fn mkdir(&self, caller: Caller, parent: Ino, name: &Name, mode: u16) -> Result<Attr, VfsError> {
        let node = NewNode { kind: FileKind::Directory, mode, rdev: 0, target: Bytes::new() };
        self.make(caller, parent, name, node).await
    }

    /// Makes a symlink.
    pub async fn symlink(
        &self,
        caller: Caller,
        parent: Ino,
        name: &Name,
        target: &[u8],
    ) -> Result<Attr, VfsError> {
        let target = Bytes::copy_from_slice(target);
        let node = NewNode { kind: FileKind::Symlink, mode: 0o777, rdev: 0, target };
        self.make(caller, parent, name, node).await
    }

    /// Makes a device, a FIFO, a socket or an empty file.
    pub async fn mknod(
        &self,
        caller: Caller,
        parent: Ino,
        name: &Name,
        kind: FileKind,
        mode: u16,
        rdev: u32,
    ) -> Result<Attr, VfsError> {
        self.make(caller, parent, name, NewNode { kind, mode, rdev, target: Bytes::new() }).await
    }

    pub(crate) async fn make(
        &self,
        caller: Caller,
        parent: Ino,
        name: &Name,
        node: NewNode,
    ) -> Result<Attr, VfsError> {
        let (attr, asked) = self.make_at_master(caller, parent, name, node, false).await?;
        Ok(self.tell_made(parent, name, attr, asked))
    }

    /// See [`dfs_proto::meta::Make`] for `opened`. The kernel has not been told of it yet.
    pub(super) async fn make_at_master(
        &self,
        caller: Caller,
        parent: Ino,
        name: &Name,
        node: NewNode,
        opened: bool,
    ) -> Result<(Attr, Asked), VfsError> {
        if self.names.pending(parent, name).is_some() {
            return Err(VfsError::NameTaken);
        }
        let make = Make {
            parent,
            name: name.clone(),
            ino: self.numbers.take(&*self.meta).await?,
            kind: node.kind,
            mode: node.mode,
            // Symlinks have no permissions to lose.
            umask: if node.kind == FileKind::Symlink { 0 } else { caller.umask },
            uid: caller.uid,
            gid: caller.gid,
            rdev: node.rdev,
            target: node.target,
            opened,
        };
        let asked = self.names.ask();
        self.names.entries_will_change(parent);
        match self.write_op(WriteOp::Make(make)).await? {
            MetaReply::Attr(attr) => Ok((attr, asked)),
            _ => Err(VfsError::OddAnswer("a make")),
        }
    }

    /// The kernel is about to be told of an entry that was made here.
    pub(super) fn tell_made(&self, parent: Ino, name: &Name, attr: Attr, asked: Asked) -> Attr {
        self.entry_changed(parent, name);
        self.names.remember(attr.ino, parent, name);
        self.tell_changed(attr, asked)
    }

    /// Target of a symlink.
    pub async fn readlink(&self, ino: Ino) -> Result<Bytes, VfsError> {
        match self.read_op(ReadOp::ReadLink { ino }).await? {
            MetaReply::Target(target) => {
                self.note_visit(ino);
                Ok(target)
            }
            _ => Err(VfsError::OddAnswer("a readlink")),
        }
    }

    /// Gives a file another name.
    pub async fn link(&self, ino: Ino, parent: Ino, name: &Name) -> Result<Attr, VfsError> {
        if self.names.pending(parent, name).is_some() {
            return Err(VfsError::NameTaken);
        }
        self.publish_if_new(ino).await?;
        let asked = self.names.ask();
        self.names.entries_will_change(parent);
        let MetaReply::Attr(attr) = self.write_op(WriteOp::Link { ino, parent, name: name.clone() }).await?
        else {
            return Err(VfsError::OddAnswer("a link"));
        };
        self.entry_changed(parent, name);
        if let Some(file) = self.file(ino) {
            file.lock().is_nameless = false;
        }
        let attr = self.overlaid(attr);
        self.names.remember(ino, parent, name);
        Ok(self.tell_changed(attr, asked))
    }

    /// Makes sure that the master knows the inode, and if it has no name what was written to it.
    pub(crate) async fn publish_if_new(&self, ino: Ino) -> Result<(), VfsError> {
        match self.file(ino) {
            Some(file) if file.lock().is_new() => {
                self.publish(&file, false).await?;
                self.pin_published(&file).await;
                Ok(())
            }
            Some(file) if file.lock().attr.nlink == 0 => self.publish_all(&file).await,
            _ => Ok(()),
        }
    }

    /// Removes a name of what is no directory.
    pub async fn unlink(&self, parent: Ino, name: &Name) -> Result<(), VfsError> {
        if let Some(file) = self.pending_file(parent, name) {
            // A publish under way decides first whether the file still exists here only.
            let serial = file.publishing.lock().await;
            if self.drop_pending(&file, parent, name) {
                return Ok(());
            }
            drop(serial);
            // By now it has the name that the collision rule left it.
            if let Some(stored_as) = self.names.stored_as(file.ino) {
                return self.unlink_published(parent, &stored_as).await;
            }
        }
        self.unlink_published(parent, name).await
    }

    async fn unlink_published(&self, parent: Ino, name: &Name) -> Result<(), VfsError> {
        if let Some(ino) = self.open_target(parent, name).await? {
            self.pin(ino).await?;
        }
        self.names.entries_will_change(parent);
        let op = WriteOp::Unlink { parent, name: name.clone() };
        // Closes go ahead, in the same request: what is closed need not be kept for those who have it open.
        let ((), removed) = tokio::join!(self.closes.send(&*self.meta), self.write_op(op));
        let MetaReply::Removed(removed) = removed? else { return Err(VfsError::OddAnswer("an unlink")) };
        self.entry_changed(parent, name);
        self.note_removed(&removed, parent, name);
        Ok(())
    }

    /// Forgets a file that exists here only; `false` when it has been published meanwhile.
    fn drop_pending(&self, file: &Arc<File>, parent: Ino, name: &Name) -> bool {
        let mut state = file.lock();
        if !state.is_new() {
            return false;
        }
        state.origin = Origin::Dropped;
        state.attr.nlink = 0;
        let ctime = self.clock.now();
        state.attr.ctime = ctime;
        state.dirty.ctime = Some(ctime);
        let unused = state.opens == 0;
        drop(state);
        self.names.remove_pending(parent, name, file.ino);
        if unused {
            self.files.lock().remove(&file.ino);
        }
        true
    }

    /// The inode behind a name, if it is open here and the master has not been told so.
    async fn open_target(&self, parent: Ino, name: &Name) -> Result<Option<Ino>, VfsError> {
        let any_unpinned = self.files.lock().values().any(|f| f.lock().needs_pin());
        if !any_unpinned {
            return Ok(None);
        }
        match self.read_op(ReadOp::Lookup { parent, name: name.clone() }).await? {
            MetaReply::Attr(attr) => Ok(Some(attr.ino)),
            _ => Err(VfsError::OddAnswer("a lookup")),
        }
    }

    /// The name of an inode has been removed here. When the kernel has the inode under another name still, which it
    /// has lost elsewhere, it does not know that the inode has none.
    pub(crate) fn note_removed(&self, removed: &Removed, parent: Ino, name: &Name) {
        self.names.changed_here(removed.ino);
        if let Some(file) = self.file(removed.ino) {
            let is_known = self.names.is_known_only_as(removed.ino, parent, name);
            let mut state = file.lock();
            state.attr.nlink = removed.nlink;
            state.is_nameless = removed.nlink == 0 && is_known;
        }
    }

    /// Removes an empty directory.
    pub async fn rmdir(&self, parent: Ino, name: &Name) -> Result<(), VfsError> {
        if self.names.pending(parent, name).is_some() {
            return Err(dfs_client::ClientError::local(ErrorCode::NotDirectory, "this is a file").into());
        }
        if self.names.has_pending() {
            // To the master a directory with files that exist here only is empty.
            let MetaReply::Attr(dir) = self.read_op(ReadOp::Lookup { parent, name: name.clone() }).await?
            else {
                return Err(VfsError::OddAnswer("a lookup"));
            };
            if !self.names.pending_in(dir.ino).is_empty() {
                return Err(VfsError::NotEmpty);
            }
        }
        self.names.entries_will_change(parent);
        let MetaReply::Removed(removed) =
            self.write_op(WriteOp::Rmdir { parent, name: name.clone() }).await?
        else {
            return Err(VfsError::OddAnswer("an rmdir"));
        };
        self.entry_changed(parent, name);
        self.note_removed(&removed, parent, name);
        Ok(())
    }

    /// rename(2).
    pub async fn rename(
        &self,
        parent: Ino,
        name: &Name,
        new_parent: Ino,
        new_name: &Name,
        mode: RenameMode,
    ) -> Result<(), VfsError> {
        let mut name = name.clone();
        if let Some(file) = self.pending_file(parent, &name) {
            self.publish(&file, false).await?;
            self.pin_published(&file).await;
            name = self.names.stored_as(file.ino).unwrap_or(name);
        }
        let replaced_here = self.make_way(parent, &name, new_parent, new_name, mode).await?;
        if mode == RenameMode::Replace {
            self.must_hold_nothing_unpublished(parent, &name, new_parent, new_name).await?;
        }
        // A publish under way decides first whether what is replaced still exists here only.
        let serial = match &replaced_here {
            Some(file) => Some(file.publishing.lock().await),
            None => None,
        };
        if mode == RenameMode::Replace {
            match self.open_target(new_parent, new_name).await {
                Ok(Some(ino)) => self.pin(ino).await?,
                Ok(None) => {}
                Err(e) if e.code() == ErrorCode::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        self.names.entries_will_change(parent);
        self.names.entries_will_change(new_parent);
        let rename = Rename { parent, name: name.clone(), new_parent, new_name: new_name.clone(), mode };
        let MetaReply::Renamed(renamed) = self.write_op(WriteOp::Rename(rename)).await? else {
            return Err(VfsError::OddAnswer("a rename"));
        };
        self.entry_changed(parent, &name);
        self.entry_changed(new_parent, new_name);
        if let Some(file) = &replaced_here {
            self.drop_pending(file, new_parent, new_name);
        }
        drop(serial);
        if !self.names.is_known_as(renamed.moved.ino, parent, &name)
            && let Some(kernel) = self.kernel.get()
        {
            // The kernel moves the entry that it has, and that was of another inode: others had replaced it.
            kernel.drop_entry(new_parent, new_name);
            kernel.drop_entry(parent, &name);
        }
        self.names.renamed(renamed.moved.ino, new_parent, new_name);
        self.names.changed_here(renamed.moved.ino);
        self.overlaid(renamed.moved);
        match renamed.replaced {
            Some(other) if mode == RenameMode::Exchange => {
                self.names.renamed(other.ino, parent, &name);
                self.names.changed_here(other.ino);
            }
            Some(removed) => self.note_removed(&removed, new_parent, new_name),
            None => {}
        }
        Ok(())
    }
    /// Refuses to put a directory in the place of one that holds files which exist here only: to the master that
    /// one is empty.
    async fn must_hold_nothing_unpublished(
        &self,
        parent: Ino,
        name: &Name,
        new_parent: Ino,
        new_name: &Name,
    ) -> Result<(), VfsError> {
        if !self.names.has_pending() {
            return Ok(());
        }
        let there = match self.find(new_parent, new_name).await {
            Ok(there) => there,
            Err(e) if e.code() == ErrorCode::NotFound => return Ok(()),
            Err(e) => return Err(e),
        };
        if there.kind != FileKind::Directory || self.names.pending_in(there.ino).is_empty() {
            return Ok(());
        }
        let moved = self.find(parent, name).await?;
        // The master refuses what is no directory, and has nothing to do for a directory that stays itself.
        let replaces = moved.kind == FileKind::Directory && moved.ino != there.ino;
        if replaces { Err(VfsError::NotEmpty) } else { Ok(()) }
    }

    /// Sees to a file that exists here only and has the new name of a rename. One that is replaced is returned:
    /// it goes with the rename, and need not be published for that. One that is swapped has to be.
    async fn make_way(
        &self,
        parent: Ino,
        name: &Name,
        new_parent: Ino,
        new_name: &Name,
        mode: RenameMode,
    ) -> Result<Option<Arc<File>>, VfsError> {
        let Some(there) = self.pending_file(new_parent, new_name) else { return Ok(None) };
        let MetaReply::Attr(moved) = self.read_op(ReadOp::Lookup { parent, name: name.clone() }).await?
        else {
            return Err(VfsError::OddAnswer("a lookup"));
        };
        match mode {
            RenameMode::NoReplace => Err(VfsError::NameTaken),
            RenameMode::Exchange => self.publish(&there, false).await.map(|()| None),
            RenameMode::Replace if moved.kind == FileKind::Directory => {
                let message = "a directory cannot replace a file";
                Err(dfs_client::ClientError::local(ErrorCode::NotDirectory, message).into())
            }
            RenameMode::Replace => Ok(Some(there)),
        }
    }
}
