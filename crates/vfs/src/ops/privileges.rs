//! What a change of content takes away: set-user-id and set-group-id bits (inode(7)) and capabilities
//! (capabilities(7), "file capabilities").
//!
//! The kernel sees to it for what is written through its page cache. For truncation that comes with an open, and
//! for writes that go past the cache, it leaves it to the file system.

use super::Caller;
use super::xattrs::CAPABILITY;
use crate::VfsError;
use crate::file::File;
use crate::handle::{Fh, FileHandle};
use crate::vfs::Vfs;
use dfs_proto::meta::AttrChanges;
use dfs_proto::{ErrorCode, XattrName};
use std::sync::Arc;
use std::time::Duration;

/// How long a writer waits for the kernel to drop the mode that it has cached. It does so in microseconds, without
/// taking a lock that the writer's request could hold.
const DROPPED_WITHIN: Duration = Duration::from_secs(1);

/// The mode that a change of content by somebody without privileges leaves: set-user-id goes, and set-group-id
/// where the group may execute the file.
pub(super) fn without_set_id(mode: u16) -> u16 {
    const SET_UID: u16 = 0o4000;
    const SET_GID_WITH_EXEC: u16 = 0o2010;
    const SET_GID: u16 = 0o2000;
    match mode {
        _ if mode & SET_GID_WITH_EXEC == SET_GID_WITH_EXEC => mode & !(SET_UID | SET_GID),
        _ => mode & !SET_UID,
    }
}

/// Only root is taken to have CAP_FSETID; more is not known of who opens a file.
pub(super) fn may_keep_set_id(caller: Caller) -> bool {
    caller.uid == 0
}

impl Vfs {
    /// Whether [`Vfs::drop_privileges`] has to come before a write through this handle. `drops_set_id` is what
    /// the kernel says of whoever writes: that they have no CAP_FSETID.
    pub fn has_privileges(&self, fh: Fh, drops_set_id: bool) -> bool {
        self.handles.file(fh).is_ok_and(|handle| handle.direct && has_any(&handle.file, drops_set_id))
    }

    /// Takes away what a write past the kernel's page cache has to take away.
    pub async fn drop_privileges(&self, fh: Fh, drops_set_id: bool) -> Result<(), VfsError> {
        let handle: Arc<FileHandle> = self.handles.file(fh)?;
        let file = &handle.file;
        if !handle.direct {
            return Ok(());
        }
        if drops_set_id {
            self.drop_set_id(file).await?;
        }
        let known_to_have_none = file.lock().no_capability;
        if known_to_have_none {
            return Ok(());
        }
        let name = XattrName::new(CAPABILITY).expect("it is short and has no zero byte");
        match self.getxattr(file.ino, name.clone()).await {
            Ok(_) => self.removexattr(file.ino, name).await?,
            Err(e) if e.code() == ErrorCode::NoAttribute => {}
            Err(e) => return Err(e),
        }
        file.lock().no_capability = true;
        Ok(())
    }

    /// Takes set-id bits away, and sees to it that the kernel knows of it.
    pub(super) async fn drop_set_id(&self, file: &Arc<File>) -> Result<(), VfsError> {
        let mode = file.lock().attr.mode;
        let left = without_set_id(mode);
        if left == mode {
            return Ok(());
        }
        let changes = AttrChanges { mode: Some(left), ..AttrChanges::default() };
        let asked = self.names.ask();
        let attr = self.setattr_file(file, changes, true).await?;
        self.tell_changed(attr, asked);
        if let Some(kernel) = self.kernel.get() {
            let dropped = kernel.drop_attributes_then(file.ino);
            if tokio::time::timeout(DROPPED_WITHIN, dropped).await.is_err() {
                log::warn!(
                    "inode {}: the kernel may show the mode from before a write for a moment",
                    file.ino
                );
            }
        }
        Ok(())
    }
}

fn has_any(file: &File, drops_set_id: bool) -> bool {
    let state = file.lock();
    let has_set_id = || without_set_id(state.attr.mode) != state.attr.mode;
    !state.no_capability || (drops_set_id && has_set_id())
}
