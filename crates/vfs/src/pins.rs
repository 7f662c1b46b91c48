//! Opens that the master knows of: it keeps the inode of an open file when the last name goes, whoever removes it.
//!
//! Opening a file tells the master by itself. A file that was made here is open without that, so once others can
//! see it (and remove it) the master has to be told. Most new files are closed as soon as they are published, and
//! those need not be.

use crate::VfsError;
use crate::file::{File, FileState};
use crate::vfs::Vfs;
use dfs_client::MetaClient;
use dfs_proto::meta::{ClusterOp, ReadOp};
use dfs_proto::{Ino, MetaOp, MetaReply};
use std::sync::Arc;
use std::time::Duration;

/// A file that is still open so long after it was published stays open.
const STAYS_OPEN_AFTER: Duration = Duration::from_millis(50);

impl Vfs {
    /// Makes sure that the master keeps an open file's inode when its last name goes.
    pub(crate) async fn pin(&self, ino: Ino) -> Result<(), VfsError> {
        let Some(file) = self.hold_if(ino, FileState::needs_pin) else { return Ok(()) };
        let serial = file.publishing.lock().await;
        let pinned = self.revalidate(&file).await;
        drop(serial);
        self.let_go(&file);
        pinned
    }

    /// The file was published and is going to stay open.
    pub(crate) async fn pin_published(&self, file: &Arc<File>) {
        if file.lock().is_unpinned() {
            pin_if_open(&*self.meta, file).await;
        }
    }

    /// The file was published and is most likely going to be closed.
    pub(crate) fn pin_if_it_stays_open(&self, file: &Arc<File>) {
        if file.lock().is_unpinned() {
            let (meta, file) = (self.meta.clone(), file.clone());
            tokio::spawn(async move {
                tokio::time::sleep(STAYS_OPEN_AFTER).await;
                pin_if_open(&*meta, &file).await;
            });
        }
    }
}

async fn pin_if_open(meta: &dyn MetaClient, file: &File) {
    let _serial = file.publishing.lock().await;
    let known = {
        let state = file.lock();
        if !state.is_unpinned() {
            return;
        }
        // What the answer says of the content is not used.
        Some(state.attr.version)
    };
    match meta.call(MetaOp::Read(ReadOp::Open { ino: file.ino, known })).await {
        Ok(MetaReply::Opened(_)) => {}
        // It lives as long as its names, as it did before.
        other => return log::debug!("the master was not told that inode {} is open: {other:?}", file.ino),
    }
    let closed = {
        let mut state = file.lock();
        if state.opens > 0 {
            state.pins += 1;
        }
        state.opens == 0
    };
    if closed && let Err(e) = meta.call(MetaOp::Cluster(ClusterOp::Close { ino: file.ino, count: 1 })).await {
        // Should it get lost, the end of the session closes the file too.
        log::debug!("the master was not told that inode {} is closed: {e}", file.ino);
    }
}
