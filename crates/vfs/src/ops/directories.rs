//! Listings.

use super::Listed;
use crate::Fh;
use crate::VfsError;
use crate::handle::{DirHandle, Listing};
use crate::names::Asked;
use crate::vfs::Vfs;
use dfs_proto::meta::{DirEntry, ReadOp, WriteOp};
use dfs_proto::{Attr, DirCookie, ErrorCode, FileKind, Ino, MetaReply, Name};

/// Entries in one request to the master.
const PAGE_ENTRIES: u32 = 1024;

/// Cookies of `.` and `..`; both are below [`DirCookie::RESERVED`].
const DOT: u64 = 1;
const DOT_DOT: u64 = 2;

/// Cookies of names that exist here only: they come after all that the master has.
const PENDING: u64 = 1 << 62;

impl Vfs {
    /// Opens a directory.
    pub async fn opendir(&self, ino: Ino) -> Result<Fh, VfsError> {
        let attr = self.getattr(ino).await?;
        if attr.kind != FileKind::Directory {
            return Err(dfs_client::ClientError::local(
                dfs_proto::ErrorCode::NotDirectory,
                "this is no directory",
            )
            .into());
        }
        Ok(self.handles.add_dir(DirHandle::new(ino)))
    }

    /// Makes names that were made, moved or removed here durable: on the master's disk.
    pub async fn fsyncdir(&self) -> Result<(), VfsError> {
        // Everything that the master has acknowledged before goes to its disk with any durable write.
        let op = WriteOp::Sync;
        self.write_op(op).await.map(|_| ())
    }

    /// Closes a directory.
    pub fn releasedir(&self, fh: Fh) {
        self.handles.remove_dir(fh);
    }

    /// Entries after the place `cookie` (0 is the start), for as long as `fill` takes them (it answers
    /// `false` for one that it had no room for). The listing is steady while the directory changes: what
    /// stays is listed once.
    pub async fn readdir(
        &self,
        fh: Fh,
        cookie: u64,
        mut fill: impl FnMut(&Listed) -> bool,
    ) -> Result<(), VfsError> {
        let dir = self.handles.dir(fh)?;
        let mut listing = dir.listing.lock().await;
        if cookie == 0 {
            self.note_visit(dir.ino);
            let pending = self.names.pending_in(dir.ino).into_iter().map(Some).collect();
            *listing = Listing { pending, ..Listing::default() };
        }
        if cookie < DOT_DOT && !self.list_dots(&dir, cookie, &mut fill).await? {
            return Ok(());
        }
        let mut at = cookie.max(DOT_DOT);
        while at < PENDING {
            match self.load_page(&dir, &mut listing, at).await {
                Ok(()) => {}
                // What has been filled in counts; the next call brings the error.
                Err(_) if at > cookie => return Ok(()),
                Err(e) => return Err(e),
            }
            for entry in listing.page.iter().filter(|e| e.cookie.0 > at) {
                let Some((attr, asked)) = self.entry_now(&dir, &listing, entry).await? else { continue };
                let name = entry.name.as_bytes().to_vec();
                let (cookie, entry) = (entry.cookie.0, Some(entry.name.clone()));
                if !fill(&Listed { name, entry, cookie, attr, asked }) {
                    return Ok(());
                }
            }
            at = match listing.page.last() {
                Some(last) if !listing.end => last.cookie.0,
                _ => PENDING,
            };
        }
        self.list_pending(&dir, &listing, at, &mut fill).await
    }

    async fn list_dots(
        &self,
        dir: &DirHandle,
        cookie: u64,
        fill: &mut impl FnMut(&Listed) -> bool,
    ) -> Result<bool, VfsError> {
        let parent = self.getattr(dir.ino).await?.parent;
        for (name, at, ino) in [(&b"."[..], DOT, dir.ino), (b"..", DOT_DOT, parent)] {
            if at > cookie {
                let asked = self.names.ask();
                let attr = self.getattr(ino).await?;
                if !fill(&Listed { name: name.to_vec(), entry: None, cookie: at, attr, asked }) {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    /// Makes sure that the page at hand is the one with the entries after `at`.
    async fn load_page(&self, dir: &DirHandle, listing: &mut Listing, at: u64) -> Result<(), VfsError> {
        let covers = |page: &[DirEntry]| {
            at >= listing.page_after && page.last().is_some_and(|last| last.cookie.0 > at)
        };
        let is_usable = listing.asked.is_some_and(|asked| !self.names.is_all_outdated(asked));
        if is_usable && (covers(&listing.page) || (listing.end && at >= listing.page_after)) {
            return Ok(());
        }
        let asked = self.names.ask();
        dir.changed.lock().clear();
        let after = if at <= DirCookie::RESERVED { DirCookie(0) } else { DirCookie(at) };
        let op = ReadOp::ReadDir { ino: dir.ino, after, limit: PAGE_ENTRIES };
        let MetaReply::Dir(page) = self.read_op(op).await? else {
            return Err(VfsError::OddAnswer("a listing"));
        };
        // What has been published meanwhile is listed by the master.
        for place in &mut listing.pending {
            if place.as_ref().is_some_and(|(name, _)| page.entries.iter().any(|e| e.name == *name)) {
                *place = None;
            }
        }
        listing.page = page.entries;
        listing.page_after = at;
        listing.end = page.end;
        listing.asked = Some(asked);
        Ok(())
    }

    /// What is listed for an entry of the page: the page may be older than what the kernel has been told since.
    /// `None` when the entry is gone.
    async fn entry_now(
        &self,
        dir: &DirHandle,
        listing: &Listing,
        entry: &DirEntry,
    ) -> Result<Option<(Attr, Asked)>, VfsError> {
        let asked = listing.asked.unwrap_or_else(|| self.names.ask());
        let has_changed = dir.changed.lock().contains(&entry.name);
        if !has_changed && !self.names.is_outdated(entry.attr.ino, asked) {
            return Ok(Some((self.tell(self.overlaid(entry.attr.clone()), asked), asked)));
        }
        self.ask_for_entry(dir, &entry.name).await
    }

    async fn ask_for_entry(&self, dir: &DirHandle, name: &Name) -> Result<Option<(Attr, Asked)>, VfsError> {
        let asked = self.names.ask();
        match self.find(dir.ino, name).await {
            Ok(attr) => Ok(Some((self.tell(attr, asked), asked))),
            Err(e) if e.code() == ErrorCode::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    async fn list_pending(
        &self,
        dir: &DirHandle,
        listing: &Listing,
        at: u64,
        fill: &mut impl FnMut(&Listed) -> bool,
    ) -> Result<(), VfsError> {
        let skip = at.saturating_sub(PENDING) as usize;
        for (i, place) in listing.pending.iter().enumerate().skip(skip) {
            let Some((name, ino)) = place else { continue };
            // It may have been published since, or renamed, or unlinked.
            let found = self.ask_for_entry(dir, name).await?;
            let Some((attr, asked)) = found.filter(|(attr, _)| attr.ino == *ino) else { continue };
            let cookie = PENDING + i as u64 + 1;
            let entry = Some(name.clone());
            if !fill(&Listed { name: name.as_bytes().to_vec(), entry, cookie, attr, asked }) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The entry was changed, and with it the directory: listings under way must not show what they fetched before.
    pub(crate) fn entry_changed(&self, parent: Ino, name: &Name) {
        self.names.entry_changed_here(parent);
        for dir in self.handles.dirs_of(parent) {
            dir.changed.lock().insert(name.clone());
        }
    }
}
