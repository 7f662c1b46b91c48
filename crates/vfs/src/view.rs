//! A file's attributes as applications see them: what the master told, with what was changed here.

use crate::file::FileState;
use crate::layer::Layer;
use dfs_proto::{Attr, Timestamp};

/// Size of the kernel's pages: an estimate of what is backed never exceeds the size rounded up to these.
const PAGE_BYTES: u64 = 4096;

impl FileState {
    /// See the module.
    pub fn view(&self) -> Attr {
        let mut attr = self.attr.clone();
        attr.size = self.size;
        (attr.atime, attr.mtime, attr.ctime) = (self.atime(), self.mtime(), self.ctime());
        let changed_by = self.layers().map(|l| l.allocated_by).fold(0, i64::saturating_add);
        if changed_by != 0 {
            let most = self.size.next_multiple_of(PAGE_BYTES);
            attr.allocated = attr.allocated.saturating_add_signed(changed_by).min(most);
        }
        attr
    }

    /// Changes made here, the latest first.
    fn layers(&self) -> impl Iterator<Item = &Layer> {
        [Some(&self.dirty), self.in_flight.as_ref()].into_iter().flatten()
    }

    /// Last access.
    pub fn atime(&self) -> Timestamp {
        let atime = self.atime_to_set.unwrap_or(self.attr.atime);
        self.accessed.map_or(atime, |accessed| accessed.max(atime))
    }

    /// Last change of content.
    pub fn mtime(&self) -> Timestamp {
        self.layers().find_map(|l| l.mtime).unwrap_or(self.attr.mtime)
    }

    /// Last change of the inode.
    pub fn ctime(&self) -> Timestamp {
        let here = self.layers().find_map(|l| l.ctime);
        here.map_or(self.attr.ctime, |ctime| ctime.max(self.attr.ctime))
    }
}
