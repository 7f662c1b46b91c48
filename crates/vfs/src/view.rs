//! A file's attributes as applications see them: what the master told, with what was changed here.

use crate::file::FileState;
use dfs_proto::Attr;

/// Blocks that the kernel caches; an estimate of what is backed never exceeds the size rounded up to these.
const PAGE_BYTES: u64 = 4096;

impl FileState {
    /// See the module.
    pub fn view(&self) -> Attr {
        let mut attr = self.attr.clone();
        attr.size = self.size;
        let layers = [Some(&self.dirty), self.in_flight.as_ref()];
        let layers = || layers.iter().copied().flatten();
        if let Some(mtime) = layers().find_map(|l| l.mtime) {
            attr.mtime = mtime;
        }
        if let Some(ctime) = layers().find_map(|l| l.ctime) {
            attr.ctime = attr.ctime.max(ctime);
        }
        let changed_by: i64 = layers().map(|l| l.allocated_by).sum();
        if changed_by != 0 {
            let most = self.size.next_multiple_of(PAGE_BYTES);
            attr.allocated = attr.allocated.saturating_add_signed(changed_by).min(most);
        }
        attr
    }
}
