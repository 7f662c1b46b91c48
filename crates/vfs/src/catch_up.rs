//! Seeing what others have done: how far the stream of changes has been heard, and waiting until all that was done
//! before a lock was granted is known here and in the kernel.

use crate::KernelCaches;
use crate::file::File;
use crate::vfs::Vfs;
use dfs_proto::meta::ClusterOp;
use dfs_proto::{Attr, EventCursor, MetaOp, MetaReply};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How long changes that the master has told of may take to arrive. A stream that is silent for longer counts as
/// broken, and then nothing is cached.
const HEARD_WITHIN: Duration = Duration::from_secs(3);

/// How long the kernel may take to drop what it has cached: it waits for reads of the file that are under way.
const DROPPED_WITHIN: Duration = Duration::from_secs(3);

/// How far the stream has been heard.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Heard {
    /// Whether the stream stands. While it does not, nothing is served from a cache.
    pub is_up: bool,
    /// Everything up to here has been told.
    pub at: Option<EventCursor>,
}

impl Heard {
    fn covers(&self, wanted: EventCursor) -> bool {
        !self.is_up || self.at.is_some_and(|at| at.boot == wanted.boot && at.seq >= wanted.seq)
    }
}

impl Vfs {
    /// Makes sure that what others did before this call is seen: the file's content and attributes, and entries of
    /// all directories, by this mount and by the kernel. What cannot be made sure of is dropped from every cache.
    pub(crate) async fn catch_up(&self, file: &Arc<File>) {
        let revalidated = async {
            let _serial = file.publishing.lock().await;
            self.revalidate(file).await
        };
        let (revalidated, has_heard) = tokio::join!(revalidated, self.hear_all());
        if let Err(e) = &revalidated {
            log::debug!("inode {} was not validated after it was locked; reads will ask: {e}", file.ino);
            file.lock().changed_elsewhere();
        }
        if !has_heard {
            log::warn!(
                "inode {}: it is not certain that all changes by others were heard of after it was locked; \
                 everything that is cached is dropped",
                file.ino
            );
            self.forget_everything();
        }
        self.drop_from_kernel(file, revalidated.is_ok() && has_heard).await;
    }

    /// Makes sure that the kernel does not go on with the size that the file had before others changed it: an open
    /// sees what was closed before it, also when the news of that are still on their way.
    pub(crate) async fn drop_old_size(&self, file: &Arc<File>) {
        let version = file.lock().attr.version;
        let is_old = self.names.told(file.ino).is_some_and(|told| told.version != version);
        let Some(kernel) = self.kernel.get().filter(|_| is_old) else { return };
        if timeout(DROPPED_WITHIN, kernel.drop_attributes_then(file.ino)).await.is_ok() {
            self.names.attributes_dropped(file.ino, version);
        } else {
            log::warn!(
                "inode {}: the kernel has not dropped the attributes that it had cached within {} s; who has opened \
                 the file now may see its old size for a moment",
                file.ino,
                DROPPED_WITHIN.as_secs()
            );
        }
    }

    /// While nobody tells of changes the kernel asks for attributes before each read, and goes on with the pages that
    /// it has when size and mtime are those that it knows. Of a file with changes that wait here they are, whatever
    /// others have done: so pages of another version are dropped before the answer.
    pub(crate) async fn drop_old_pages(&self, attr: &Attr) {
        if self.is_pushed() || self.file(attr.ino).is_none() || self.names.keep_pages(attr.ino, attr.version)
        {
            return;
        }
        let Some(kernel) = self.kernel.get() else { return };
        if timeout(DROPPED_WITHIN, kernel.drop_pages_then(attr.ino)).await.is_err() {
            log::warn!(
                "inode {}: the kernel has not dropped the pages that it had cached within {} s; who reads the file now \
                 may see old content. Is a read of the file hanging?",
                attr.ino,
                DROPPED_WITHIN.as_secs()
            );
        }
    }

    /// Returns when the kernel has carried out all invalidations so far, and dropped the file's attributes, and its
    /// pages if they may not be those of the present content.
    async fn drop_from_kernel(&self, file: &Arc<File>, is_certain: bool) {
        let Some(kernel) = self.kernel.get() else { return };
        let version = file.lock().attr.version;
        let dropped = if is_certain && self.names.keep_pages(file.ino, version) {
            kernel.drop_attributes_then(file.ino)
        } else {
            kernel.drop_pages_then(file.ino)
        };
        if timeout(DROPPED_WITHIN, dropped).await.is_err() {
            log::warn!(
                "inode {}: the kernel has not dropped what it had cached within {} s; a program that has locked the \
                 file may read old content. Is a read of the file hanging?",
                file.ino,
                DROPPED_WITHIN.as_secs()
            );
        }
    }

    /// Has the kernel hand over what programs have written through mappings of the file, before a lock is given up
    /// under which process `pid` may have done so. By itself it does that at msync(2), at munmap(2), before a close,
    /// and when it likes.
    pub(crate) async fn collect_mapped(&self, file: &Arc<File>, pid: u32) {
        let Some(kernel) = self.kernel.get() else { return };
        if !is_mapped(kernel, file, pid).await {
            return;
        }
        if timeout(DROPPED_WITHIN, kernel.drop_pages_then(file.ino)).await.is_err() {
            log::warn!(
                "inode {}: the kernel has not handed over what programs have written to mapped pages within {} s; who \
                 gets the lock next may not see it. Is a read of the file hanging?",
                file.ino,
                DROPPED_WITHIN.as_secs()
            );
        }
    }

    /// Waits until everything has been heard that others have done before this call. Whether that is so.
    async fn hear_all(&self) -> bool {
        let mut heard = self.heard.subscribe();
        if !heard.borrow().is_up {
            return true;
        }
        let Ok(MetaReply::Cursor(wanted)) = self.meta.call(MetaOp::Cluster(ClusterOp::Cursor)).await else {
            return false;
        };
        timeout(HEARD_WITHIN, heard.wait_for(|heard| heard.covers(wanted))).await.is_ok_and(|r| r.is_ok())
    }
}

/// Whether the process has mapped the file, or somebody else has: then it counts as mapped for as long as it is open
/// here. That is asked each time because a mapping is made without this mount being told.
async fn is_mapped(kernel: &Arc<dyn KernelCaches>, file: &Arc<File>, pid: u32) -> bool {
    if file.lock().is_mapped {
        return true;
    }
    let (kernel, ino) = (kernel.clone(), file.ino);
    // Only the end of the runtime keeps the task from its answer.
    let found = tokio::task::spawn_blocking(move || kernel.has_mapped(pid, ino)).await.unwrap_or(false);
    file.lock().is_mapped |= found;
    found
}
