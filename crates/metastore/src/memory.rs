//! The reference implementation: ordered maps behind one lock.
//!
//! Owns nothing on disk and is meant for tests: small enough to be seen to be right, and stricter than the
//! database where a check is cheap here and dear there (extents that overlap are refused). Each write to a
//! map leaves its inverse in an undo log; a savepoint is a length of that log.

use crate::check;
use crate::row::{CopyRow, DentryRow, GarbageRow, InodeRow, LockRow, NodeRow, SessionRow, VolumeRow};
use crate::seam::{Counter, ReadTxn, StoreError, StoreStats, WriteTxn};
use crate::store::guarded;
use dfs_proto::{
    BlobId, BlobKey, DirCookie, Extent, FileKind, Ino, LockOwner, LockSpace, NodeId, Seq, SessionId,
    Timestamp, VolumeId,
};
use parking_lot::RwLock;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included, Unbounded};

/// All tables behind one lock: readers share it, so each sees one state; a writer has it alone.
#[derive(Default)]
pub(crate) struct Memory {
    /// `None` once closed.
    tables: RwLock<Option<Tables>>,
}

impl Memory {
    pub(crate) fn new() -> Memory {
        Memory { tables: RwLock::new(Some(Tables::default())) }
    }

    pub(crate) fn read<R, E: From<StoreError>>(
        &self,
        f: impl FnOnce(&dyn ReadTxn) -> Result<R, E>,
    ) -> Result<R, E> {
        let tables = self.tables.read();
        let tables = tables.as_ref().ok_or(StoreError::Closed)?;
        guarded(|| f(tables))
    }

    pub(crate) fn write<R, E: From<StoreError>>(
        &self,
        f: impl FnOnce(&mut dyn WriteTxn) -> Result<R, E>,
    ) -> Result<R, E> {
        let mut tables = self.tables.write();
        let tables = tables.as_mut().ok_or(StoreError::Closed)?;
        let result = guarded(|| f(tables));
        let result = match (tables.failed.take(), tables.savepoints.is_empty()) {
            (Some(failed), _) => Err(failed.into()),
            (None, false) if result.is_ok() => Err(check::open_savepoint().into()),
            (None, _) => result,
        };
        if result.is_err() {
            tables.undo_down_to(0);
        }
        tables.undo.clear();
        tables.savepoints.clear();
        result
    }

    pub(crate) fn close(&self) {
        *self.tables.write() = None;
    }
}

type Table<K, V> = BTreeMap<K, V>;
/// What tells locks of one inode apart: their kind, whose they are, and their first byte.
type LockKey = (LockSpace, SessionId, LockOwner, u64);
type Undo = Box<dyn FnOnce(&mut Tables) + Send + Sync>;

#[derive(Default)]
struct Tables {
    counters: Table<u8, u64>,
    inodes: Table<Ino, InodeRow>,
    dentries: Table<(Ino, Vec<u8>), DentryRow>,
    names_by_cookie: Table<(Ino, DirCookie), Vec<u8>>,
    extents: Table<(Ino, u64), Extent>,
    users_of_blobs: Table<(BlobId, Ino, u64), ()>,
    symlinks: Table<Ino, Vec<u8>>,
    xattrs: Table<(Ino, Vec<u8>), Vec<u8>>,
    orphans: Table<Ino, ()>,
    locks: Table<(Ino, LockKey), LockRow>,
    locks_by_session: Table<(SessionId, Ino, LockKey), ()>,
    garbage: Table<BlobId, GarbageRow>,
    garbage_by_age: Table<(Timestamp, BlobId), ()>,
    nodes: Table<NodeId, NodeRow>,
    volumes: Table<VolumeId, VolumeRow>,
    copies: Table<(VolumeId, NodeId), CopyRow>,
    sessions: Table<SessionId, SessionRow>,
    call_results: Table<(SessionId, u64), Vec<u8>>,
    settings: Table<String, String>,
    /// How to take back each write of the call under way, oldest first.
    undo: Vec<Undo>,
    /// Lengths of `undo` at which savepoints began.
    savepoints: Vec<usize>,
    /// The first write of the call under way that was refused: it dooms the call.
    failed: Option<StoreError>,
}

impl Tables {
    /// Puts `value` under `key`, or removes what is there for `None`; gives back what was there.
    fn set<K, V>(&mut self, table: fn(&mut Tables) -> &mut Table<K, V>, key: K, value: Option<V>) -> Option<V>
    where
        K: Ord + Clone + Send + Sync + 'static,
        V: Clone + Send + Sync + 'static,
    {
        fn place<K: Ord, V>(table: &mut Table<K, V>, key: K, value: Option<V>) -> Option<V> {
            match value {
                Some(value) => table.insert(key, value),
                None => table.remove(&key),
            }
        }
        let old = place(table(self), key.clone(), value);
        let before = old.clone();
        self.undo.push(Box::new(move |tables| {
            place(table(tables), key, before);
        }));
        old
    }

    fn undo_down_to(&mut self, length: usize) {
        while self.undo.len() > length {
            if let Some(undo) = self.undo.pop() {
                undo(self);
            }
        }
    }

    /// Notes that the call cannot be kept, whatever it makes of the error.
    fn doom<T>(&mut self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(e) = &result {
            self.failed.get_or_insert_with(|| e.clone());
        }
        result
    }

    fn refuse_large(&mut self, numbers: &[(&'static str, u64)]) -> Result<(), StoreError> {
        let result = numbers.iter().try_for_each(|&(what, value)| check::number(what, value).map(drop));
        self.doom(result)
    }

    fn refuse(&mut self, action: &'static str, reason: String) -> Result<(), StoreError> {
        self.doom(Err(StoreError::Failed { action, reason }))
    }

    fn delete_lock_at(&mut self, ino: Ino, key: LockKey) {
        self.set(|t| &mut t.locks, (ino, key), None);
        self.set(|t| &mut t.locks_by_session, (key.1, ino, key), None);
    }

    /// Another extent of the file that shares bytes with this one.
    fn overlap(&self, ino: Ino, extent: &Extent) -> Option<Extent> {
        let others = self.extents.range((ino, 0)..(ino, extent.end())).rev();
        others
            .map(|(_, other)| *other)
            .find(|other| other.offset != extent.offset)
            .filter(|other| other.end() > extent.offset)
    }
}

fn lock_key(row: &LockRow) -> LockKey {
    (row.space, row.holder.session, row.holder.owner, row.holder.range.first)
}

fn limited<T>(rows: impl Iterator<Item = T>, limit: u32) -> Vec<T> {
    rows.take(limit as usize).collect()
}

impl ReadTxn for Tables {
    fn inode(&self, ino: Ino) -> Result<Option<InodeRow>, StoreError> {
        Ok(self.inodes.get(&ino).cloned())
    }

    fn dentry(&self, parent: Ino, name: &[u8]) -> Result<Option<DentryRow>, StoreError> {
        Ok(self.dentries.get(&(parent, name.to_vec())).cloned())
    }

    fn dentries(
        &self,
        parent: Ino,
        after: DirCookie,
        limit: u32,
    ) -> Result<Vec<(DentryRow, InodeRow)>, StoreError> {
        let range = (Excluded((parent, after)), Included((parent, DirCookie(u64::MAX))));
        let rows = if after.0 == u64::MAX { None } else { Some(self.names_by_cookie.range(range)) };
        let rows = rows.into_iter().flatten().map(|(_, name)| {
            let dentry = self.dentries[&(parent, name.clone())].clone();
            let inode = self.inodes.get(&dentry.ino).ok_or_else(|| check::dangling(parent, dentry.ino))?;
            Ok((dentry, inode.clone()))
        });
        limited(rows, limit).into_iter().collect()
    }

    fn has_dentries(&self, parent: Ino) -> Result<bool, StoreError> {
        let first = self.dentries.range((parent, Vec::new())..).next();
        Ok(first.is_some_and(|((of, _), _)| *of == parent))
    }

    fn extents(&self, ino: Ino, from: u64, limit: u32) -> Result<Vec<Extent>, StoreError> {
        let all = self.extents.range((ino, 0)..=(ino, u64::MAX)).map(|(_, extent)| *extent);
        Ok(limited(all.filter(|extent| extent.end() > from), limit))
    }

    fn blob_in_use(&self, blob: BlobId) -> Result<bool, StoreError> {
        let first = self.users_of_blobs.range((blob, Ino(0), 0)..).next();
        Ok(first.is_some_and(|((of, _, _), ())| *of == blob))
    }

    fn symlink(&self, ino: Ino) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.symlinks.get(&ino).cloned())
    }

    fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.xattrs.get(&(ino, name.to_vec())).cloned())
    }

    fn xattr_names(&self, ino: Ino) -> Result<Vec<Vec<u8>>, StoreError> {
        let of_inode = self.xattrs.range((ino, Vec::new())..).take_while(|((of, _), _)| *of == ino);
        Ok(of_inode.map(|((_, name), _)| name.clone()).collect())
    }

    fn orphans(&self, after: Ino, limit: u32) -> Result<Vec<Ino>, StoreError> {
        Ok(limited(self.orphans.range((Excluded(after), Unbounded)).map(|(ino, ())| *ino), limit))
    }

    fn locks(&self, ino: Ino) -> Result<Vec<LockRow>, StoreError> {
        let from = (ino, (LockSpace::Range, SessionId(0), LockOwner(0), 0));
        let of_inode = self.locks.range(from..).take_while(|((of, _), _)| *of == ino);
        Ok(of_inode.map(|(_, row)| *row).collect())
    }

    fn garbage(&self, before: Timestamp, limit: u32) -> Result<Vec<GarbageRow>, StoreError> {
        let old = self.garbage_by_age.keys().take_while(|(since, _)| *since < before);
        Ok(limited(old.map(|(_, blob)| self.garbage[blob]), limit))
    }

    fn nodes(&self) -> Result<Vec<NodeRow>, StoreError> {
        Ok(self.nodes.values().cloned().collect())
    }

    fn volumes(&self) -> Result<Vec<VolumeRow>, StoreError> {
        Ok(self.volumes.values().copied().collect())
    }

    fn copies(&self) -> Result<Vec<CopyRow>, StoreError> {
        Ok(self.copies.values().copied().collect())
    }

    fn sessions(&self) -> Result<Vec<SessionRow>, StoreError> {
        Ok(self.sessions.values().cloned().collect())
    }

    fn call_result(&self, session: SessionId, seq: u64) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.call_results.get(&(session, seq)).cloned())
    }

    fn setting(&self, key: &str) -> Result<Option<String>, StoreError> {
        Ok(self.settings.get(key).cloned())
    }

    /// Counted anew each time, so that it can judge stores that keep totals.
    fn stats(&self) -> Result<StoreStats, StoreError> {
        let of_kind = |kind| self.inodes.values().filter(move |row| row.kind == kind);
        Ok(StoreStats {
            files: of_kind(FileKind::File).count() as u64,
            directories: of_kind(FileKind::Directory).count() as u64,
            inodes: self.inodes.len() as u64,
            file_bytes: of_kind(FileKind::File).fold(0, |sum: u64, row| sum.saturating_add(row.size)),
            locks: self.locks.len() as u64,
        })
    }
}

impl WriteTxn for Tables {
    fn take(&mut self, counter: Counter, count: u64) -> Result<u64, StoreError> {
        let first = self.counters.get(&counter.id()).copied().unwrap_or(counter.first());
        match first.checked_add(count).filter(|next| *next <= check::NUMBER_MAX) {
            Some(next) => self.set(|t| &mut t.counters, counter.id(), Some(next)),
            None => return self.doom(Err(check::exhausted(count))),
        };
        Ok(first)
    }

    fn put_inode(&mut self, row: &InodeRow) -> Result<(), StoreError> {
        self.refuse_large(&[
            ("inode", row.ino.0),
            ("size", row.size),
            ("allocated", row.allocated),
            ("version", row.version.0),
            ("parent", row.parent.0),
        ])?;
        self.set(|t| &mut t.inodes, row.ino, Some(row.clone()));
        Ok(())
    }

    fn delete_inode(&mut self, ino: Ino) -> Result<(), StoreError> {
        for name in self.xattr_names(ino)? {
            self.delete_xattr(ino, &name)?;
        }
        for lock in self.locks(ino)? {
            self.delete_lock_at(ino, lock_key(&lock));
        }
        self.set(|t| &mut t.symlinks, ino, None);
        self.set(|t| &mut t.inodes, ino, None);
        Ok(())
    }

    fn put_dentry(&mut self, row: &DentryRow) -> Result<(), StoreError> {
        self.refuse_large(&[("parent", row.parent.0), ("cookie", row.cookie.0), ("inode", row.ino.0)])?;
        let holder = self.names_by_cookie.get(&(row.parent, row.cookie));
        if holder.is_some_and(|name| *name != row.name) {
            let reason = format!("another entry of directory {} has the cookie {}", row.parent, row.cookie);
            return self.refuse("write a directory entry", reason);
        }
        let key = (row.parent, row.name.clone());
        if let Some(old) = self.set(|t| &mut t.dentries, key, Some(row.clone())) {
            self.set(|t| &mut t.names_by_cookie, (old.parent, old.cookie), None);
        }
        self.set(|t| &mut t.names_by_cookie, (row.parent, row.cookie), Some(row.name.clone()));
        Ok(())
    }

    fn delete_dentry(&mut self, parent: Ino, name: &[u8]) -> Result<(), StoreError> {
        if let Some(old) = self.set(|t| &mut t.dentries, (parent, name.to_vec()), None) {
            self.set(|t| &mut t.names_by_cookie, (parent, old.cookie), None);
        }
        Ok(())
    }

    fn put_extent(&mut self, ino: Ino, extent: &Extent) -> Result<(), StoreError> {
        let checked = check::extent(ino, extent);
        self.doom(checked)?;
        let Some(blob) = extent.blob else { return Ok(()) };
        self.refuse_large(&[
            ("inode", ino.0),
            ("volume", blob.id.volume.0),
            ("key", blob.id.key.0),
            ("seq", blob.seq.0),
        ])?;
        if let Some(other) = self.overlap(ino, extent) {
            let reason = format!(
                "{} bytes at {} of inode {ino} overlap {} bytes at {}",
                extent.length, extent.offset, other.length, other.offset
            );
            return self.refuse("write an extent", reason);
        }
        self.delete_extent(ino, extent.offset)?;
        self.set(|t| &mut t.extents, (ino, extent.offset), Some(*extent));
        self.set(|t| &mut t.users_of_blobs, (blob.id, ino, extent.offset), Some(()));
        Ok(())
    }

    fn delete_extent(&mut self, ino: Ino, offset: u64) -> Result<(), StoreError> {
        let old = self.set(|t| &mut t.extents, (ino, offset), None);
        if let Some(blob) = old.and_then(|extent| extent.blob) {
            self.set(|t| &mut t.users_of_blobs, (blob.id, ino, offset), None);
        }
        Ok(())
    }

    fn put_symlink(&mut self, ino: Ino, target: &[u8]) -> Result<(), StoreError> {
        self.refuse_large(&[("inode", ino.0)])?;
        self.set(|t| &mut t.symlinks, ino, Some(target.to_vec()));
        Ok(())
    }

    fn put_xattr(&mut self, ino: Ino, name: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.refuse_large(&[("inode", ino.0)])?;
        self.set(|t| &mut t.xattrs, (ino, name.to_vec()), Some(value.to_vec()));
        Ok(())
    }

    fn delete_xattr(&mut self, ino: Ino, name: &[u8]) -> Result<(), StoreError> {
        self.set(|t| &mut t.xattrs, (ino, name.to_vec()), None);
        Ok(())
    }

    fn put_orphan(&mut self, ino: Ino) -> Result<(), StoreError> {
        self.refuse_large(&[("inode", ino.0)])?;
        self.set(|t| &mut t.orphans, ino, Some(()));
        Ok(())
    }

    fn delete_orphan(&mut self, ino: Ino) -> Result<(), StoreError> {
        self.set(|t| &mut t.orphans, ino, None);
        Ok(())
    }

    fn put_lock(&mut self, row: &LockRow) -> Result<(), StoreError> {
        let holder = row.holder;
        self.refuse_large(&[
            ("inode", row.ino.0),
            ("session", holder.session.0),
            ("first byte", holder.range.first),
            ("last byte", holder.range.last),
        ])?;
        let key = lock_key(row);
        self.set(|t| &mut t.locks, (row.ino, key), Some(*row));
        self.set(|t| &mut t.locks_by_session, (holder.session, row.ino, key), Some(()));
        Ok(())
    }

    fn delete_lock(&mut self, row: &LockRow) -> Result<(), StoreError> {
        self.delete_lock_at(row.ino, lock_key(row));
        Ok(())
    }

    fn put_garbage(&mut self, row: &GarbageRow) -> Result<(), StoreError> {
        self.refuse_large(&[("volume", row.blob.volume.0), ("key", row.blob.key.0)])?;
        self.delete_garbage(row.blob)?;
        self.set(|t| &mut t.garbage, row.blob, Some(*row));
        self.set(|t| &mut t.garbage_by_age, (row.since, row.blob), Some(()));
        Ok(())
    }

    fn delete_garbage(&mut self, blob: BlobId) -> Result<(), StoreError> {
        if let Some(old) = self.set(|t| &mut t.garbage, blob, None) {
            self.set(|t| &mut t.garbage_by_age, (old.since, blob), None);
        }
        Ok(())
    }

    fn put_node(&mut self, row: &NodeRow) -> Result<(), StoreError> {
        self.refuse_large(&[("node", row.id.0)])?;
        let others = self.nodes.values().filter(|other| other.id != row.id);
        if let Some(other) = { others }.find(|other| other.uuid == row.uuid || other.name == row.name) {
            let reason = format!("node {} has the same name or identity as node {}", other.id, row.id);
            return self.refuse("write a node", reason);
        }
        self.set(|t| &mut t.nodes, row.id, Some(row.clone()));
        Ok(())
    }

    fn delete_node(&mut self, id: NodeId) -> Result<(), StoreError> {
        self.set(|t| &mut t.nodes, id, None);
        Ok(())
    }

    fn put_volume(&mut self, row: &VolumeRow) -> Result<(), StoreError> {
        self.refuse_large(&[
            ("volume", row.id.0),
            ("node", row.primary.0),
            ("key", row.next_key.0),
            ("seq", row.seq.0),
        ])?;
        self.set(|t| &mut t.volumes, row.id, Some(*row));
        Ok(())
    }

    fn raise_volume_seq(&mut self, volume: VolumeId, seq: Seq) -> Result<(), StoreError> {
        self.refuse_large(&[("seq", seq.0)])?;
        if let Some(old) = self.volumes.get(&volume).copied() {
            self.set(|t| &mut t.volumes, volume, Some(VolumeRow { seq: old.seq.max(seq), ..old }));
        }
        Ok(())
    }

    fn set_volume_next_key(&mut self, volume: VolumeId, next_key: BlobKey) -> Result<(), StoreError> {
        self.refuse_large(&[("key", next_key.0)])?;
        if let Some(old) = self.volumes.get(&volume).copied() {
            self.set(|t| &mut t.volumes, volume, Some(VolumeRow { next_key, ..old }));
        }
        Ok(())
    }

    fn put_copy(&mut self, row: &CopyRow) -> Result<(), StoreError> {
        self.refuse_large(&[("volume", row.volume.0), ("node", row.node.0), ("seq", row.seq.0)])?;
        self.set(|t| &mut t.copies, (row.volume, row.node), Some(*row));
        Ok(())
    }

    fn delete_copy(&mut self, volume: VolumeId, node: NodeId) -> Result<(), StoreError> {
        self.set(|t| &mut t.copies, (volume, node), None);
        Ok(())
    }

    fn put_session(&mut self, row: &SessionRow) -> Result<(), StoreError> {
        self.refuse_large(&[("session", row.id.0)])?;
        self.set(|t| &mut t.sessions, row.id, Some(row.clone()));
        Ok(())
    }

    fn delete_session(&mut self, id: SessionId) -> Result<Vec<Ino>, StoreError> {
        self.delete_call_results_below(id, u64::MAX)?;
        self.set(|t| &mut t.sessions, id, None);
        let from = (id, Ino(0), (LockSpace::Range, SessionId(0), LockOwner(0), 0));
        let of_session = self.locks_by_session.range(from..).take_while(|((of, ..), ())| *of == id);
        let held: Vec<(Ino, LockKey)> = of_session.map(|((_, ino, key), ())| (*ino, *key)).collect();
        held.iter().for_each(|(ino, key)| self.delete_lock_at(*ino, *key));
        Ok(held.into_iter().map(|(ino, _)| ino).collect::<BTreeSet<_>>().into_iter().collect())
    }

    fn put_call_result(&mut self, session: SessionId, seq: u64, result: &[u8]) -> Result<(), StoreError> {
        self.refuse_large(&[("session", session.0), ("call", seq)])?;
        self.set(|t| &mut t.call_results, (session, seq), Some(result.to_vec()));
        Ok(())
    }

    fn delete_call_results_below(&mut self, session: SessionId, seq: u64) -> Result<(), StoreError> {
        let old: Vec<_> =
            self.call_results.range((session, 0)..(session, seq)).map(|(key, _)| *key).collect();
        for key in old {
            self.set(|t| &mut t.call_results, key, None);
        }
        Ok(())
    }

    fn put_setting(&mut self, key: &str, value: &str) -> Result<(), StoreError> {
        self.set(|t| &mut t.settings, key.to_string(), Some(value.to_string()));
        Ok(())
    }

    fn begin_savepoint(&mut self) -> Result<(), StoreError> {
        self.savepoints.push(self.undo.len());
        Ok(())
    }

    fn end_savepoint(&mut self, keep: bool) -> Result<(), StoreError> {
        match self.savepoints.pop() {
            None => self.doom(Err(check::no_savepoint())),
            Some(begin) => {
                if !keep {
                    self.undo_down_to(begin);
                }
                Ok(())
            }
        }
    }
}
