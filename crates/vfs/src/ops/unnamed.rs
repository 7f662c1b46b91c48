//! Files without a name: those made so (O_TMPFILE), and those whose name went before they were published.

use super::{Caller, Created, OpenFlags};
use crate::VfsError;
use crate::file::{File, Origin};
use crate::vfs::Vfs;
use dfs_proto::meta::{AttrChanges, MakeUnnamed, WriteOp};
use dfs_proto::{Attr, Ino, MetaReply};
use std::sync::Arc;

impl Vfs {
    /// Makes and opens a file without a name, which is gone when it is closed unless [`Vfs::link`] gives it one
    /// (O_TMPFILE of open(2)). `mode` is before the umask.
    pub async fn tmpfile(
        &self,
        caller: Caller,
        parent: Ino,
        mode: u16,
        flags: OpenFlags,
    ) -> Result<Created, VfsError> {
        let ino = self.numbers.take(&*self.meta).await?;
        let make = MakeUnnamed { parent, ino, mode, umask: caller.umask, uid: caller.uid, gid: caller.gid };
        let attr = self.make_unnamed(make).await?;
        self.names.remember_unnamed(attr.ino, parent);
        let attr = self.tell_changed(attr, self.names.ask());
        let file = self.hold(&attr, Origin::Published);
        {
            let mut state = file.lock();
            // The master counts a file that is made without a name as opened.
            state.pins += 1;
            state.is_nameless = true;
            state.base_known_to = u64::MAX;
            state.stale = false;
        }
        Ok(Created { attr, opened: self.handle_for(file, flags, None) })
    }

    async fn make_unnamed(&self, make: MakeUnnamed) -> Result<Attr, VfsError> {
        match self.write_op(WriteOp::MakeUnnamed(make)).await? {
            MetaReply::Attr(attr) => Ok(attr),
            _ => Err(VfsError::OddAnswer("a make of a file without a name")),
        }
    }

    /// Makes sure that the master knows the file and all that has been written to it so far.
    pub(crate) async fn publish_all(&self, file: &Arc<File>) -> Result<(), VfsError> {
        self.make_known(file).await?;
        self.publish(file, false).await
    }

    /// Makes a file whose name went before it was published known to the master, without a name: it is still
    /// open, and an operation needs more than what is here.
    pub(crate) async fn make_known(&self, file: &Arc<File>) -> Result<(), VfsError> {
        let serial = file.publishing.lock().await;
        let wanted = {
            let state = file.lock();
            match state.origin {
                Origin::Dropped => state.attr.clone(),
                Origin::New(_) | Origin::Published => return Ok(()),
            }
        };
        let Attr { ino, mode, uid, gid, .. } = wanted;
        // Its directory may be gone; what it would have passed on has been settled when the file was made.
        let make = MakeUnnamed { parent: Ino::ROOT, ino, mode, umask: 0, uid, gid };
        let mut attr = self.make_unnamed(make).await?;
        if (attr.mode, attr.gid) != (mode, gid) {
            let changes = AttrChanges { mode: Some(mode), gid: Some(gid), ..AttrChanges::default() };
            let MetaReply::Attr(changed) = self.write_op(WriteOp::SetAttr { ino, changes }).await? else {
                return Err(VfsError::OddAnswer("a setattr"));
            };
            attr = changed;
        }
        let mut state = file.lock();
        state.pins += 1;
        state.is_nameless = true;
        state.origin = Origin::Published;
        state.stale = false;
        state.dirty.dirty = true;
        state.attr = attr;
        drop(state);
        drop(serial);
        Ok(())
    }
}
