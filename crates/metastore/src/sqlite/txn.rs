//! Transactions: the seam over one connection.
//!
//! A reader is a snapshot. A writer is a group of calls in one transaction, each in a savepoint of its own,
//! so that a refused call leaves the others alone. SQLite undoes a whole transaction by itself after some
//! errors (a full disk, a failed read): then [`Txn::lost`] says so, and nothing more is done with it.

use super::statement::run;
use super::totals::{self, Totals};
use super::{attached, cluster, dentry, extent, file_lock, inode, session, waiting};
use crate::check;
use crate::row::{CopyRow, DentryRow, GarbageRow, InodeRow, LockRow, NodeRow, SessionRow, VolumeRow};
use crate::seam::{Counter, ReadTxn, StoreError, StoreStats, WriteTxn};
use dfs_proto::{BlobId, BlobKey, DirCookie, Extent, Ino, NodeId, Seq, SessionId, Timestamp, VolumeId};
use rusqlite::Connection;
use std::cell::RefCell;

/// A snapshot.
pub(super) struct Snapshot<'c> {
    db: &'c Connection,
}

impl<'c> Snapshot<'c> {
    /// Begins a snapshot; the first read fixes what it sees.
    pub(super) fn begin(db: &'c Connection) -> Result<Snapshot<'c>, StoreError> {
        // A connection that could not end its last transaction tries again here.
        if !db.is_autocommit() {
            run(db, "end a snapshot", "ROLLBACK", [])?;
        }
        run(db, "begin a snapshot", "BEGIN", [])?;
        Ok(Snapshot { db })
    }

    pub(super) fn end(self) -> Result<(), StoreError> {
        run(self.db, "end a snapshot", "COMMIT", []).map(drop)
    }

    fn db(&self) -> Result<&Connection, StoreError> {
        Ok(self.db)
    }

    fn watch<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        result
    }

    fn totals(&self) -> Result<Totals, StoreError> {
        Totals::load(self.db)
    }
}

/// A group of calls in one transaction.
pub(super) struct Group<'c> {
    db: &'c Connection,
    totals: Totals,
    /// As they were when the group began, to write them only when they changed.
    totals_before: Totals,
    /// Totals at the beginning of each open savepoint; the first is that of the call.
    savepoints: Vec<Totals>,
    /// Why the call under way cannot be kept.
    failed: RefCell<Option<StoreError>>,
}

impl<'c> Group<'c> {
    pub(super) fn begin(db: &'c Connection) -> Result<Group<'c>, StoreError> {
        run(db, "begin a transaction", "BEGIN IMMEDIATE", [])?;
        let totals = Totals::load(db)?;
        let failed = RefCell::new(None);
        Ok(Group { db, totals, totals_before: totals, savepoints: Vec::new(), failed })
    }

    /// Runs one call, which says whether its writes are to stay. The inner error means that they cannot; the
    /// outer one that the whole group is lost.
    pub(super) fn call(
        &mut self,
        f: impl FnOnce(&mut dyn WriteTxn) -> bool,
    ) -> Result<Result<(), StoreError>, StoreError> {
        self.failed.replace(None);
        self.savepoints.clear();
        self.savepoints.push(self.totals);
        run(self.db, "begin a call", "SAVEPOINT call", [])?;
        let keep = f(self);
        let verdict = match self.failed.take() {
            Some(failed) => Err(failed),
            None if keep && self.savepoints.len() > 1 => Err(check::open_savepoint()),
            None => Ok(()),
        };
        if self.is_lost() {
            return Err(verdict.err().unwrap_or_else(lost));
        }
        if !keep || verdict.is_err() {
            run(self.db, "undo a call", "ROLLBACK TO call", [])?;
            self.totals = self.savepoints[0];
        }
        run(self.db, "end a call", "RELEASE call", [])?;
        Ok(verdict)
    }

    /// Whether SQLite has undone the transaction by itself.
    fn is_lost(&self) -> bool {
        self.db.is_autocommit()
    }

    pub(super) fn commit(self) -> Result<(), StoreError> {
        if self.totals != self.totals_before {
            self.totals.save(self.db)?;
        }
        run(self.db, "commit", "COMMIT", []).map(drop)
    }

    /// The connection, as long as the transaction stands: outside of it every write would commit by itself.
    fn db(&self) -> Result<&Connection, StoreError> {
        if !self.is_lost() {
            return Ok(self.db);
        }
        Err(self.failed.borrow().clone().unwrap_or_else(lost))
    }

    /// Keeps the error of a read that cost the whole transaction.
    fn watch<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if result.is_err() && self.is_lost() { self.doom(result) } else { result }
    }

    /// Keeps the error of a write: what it has left half done must not be committed.
    fn doom<T>(&self, result: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(e) = &result {
            self.failed.borrow_mut().get_or_insert_with(|| e.clone());
        }
        result
    }

    fn write<T>(&self, f: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.doom(self.db().and_then(f))
    }

    /// A write that brings the totals along.
    fn write_counted<T>(
        &mut self,
        f: impl FnOnce(&Connection, &mut Totals) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut totals = self.totals;
        let done = self.write(|db| f(db, &mut totals))?;
        self.totals = totals;
        Ok(done)
    }

    fn totals(&self) -> Result<Totals, StoreError> {
        Ok(self.totals)
    }
}

fn lost() -> StoreError {
    StoreError::Failed { action: "write", reason: "the database has undone the transaction".into() }
}

/// The reads are the same for both, row by row in the modules of their nouns.
macro_rules! read_txn {
    ($txn:ident) => {
        impl ReadTxn for $txn<'_> {
            fn inode(&self, ino: Ino) -> Result<Option<InodeRow>, StoreError> {
                self.watch(inode::get(self.db()?, ino))
            }

            fn dentry(&self, parent: Ino, name: &[u8]) -> Result<Option<DentryRow>, StoreError> {
                self.watch(dentry::get(self.db()?, parent, name))
            }

            fn dentries(
                &self,
                parent: Ino,
                after: DirCookie,
                limit: u32,
            ) -> Result<Vec<(DentryRow, InodeRow)>, StoreError> {
                self.watch(dentry::list(self.db()?, parent, after, limit))
            }

            fn has_dentries(&self, parent: Ino) -> Result<bool, StoreError> {
                self.watch(dentry::is_any(self.db()?, parent))
            }

            fn extents(&self, ino: Ino, from: u64, limit: u32) -> Result<Vec<Extent>, StoreError> {
                self.watch(extent::list(self.db()?, ino, from, limit))
            }

            fn blob_in_use(&self, blob: BlobId) -> Result<bool, StoreError> {
                self.watch(extent::blob_in_use(self.db()?, blob))
            }

            fn symlink(&self, ino: Ino) -> Result<Option<Vec<u8>>, StoreError> {
                self.watch(attached::symlink(self.db()?, ino))
            }

            fn xattr(&self, ino: Ino, name: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
                self.watch(attached::xattr(self.db()?, ino, name))
            }

            fn xattr_names(&self, ino: Ino) -> Result<Vec<Vec<u8>>, StoreError> {
                self.watch(attached::xattr_names(self.db()?, ino))
            }

            fn orphans(&self, after: Ino, limit: u32) -> Result<Vec<Ino>, StoreError> {
                self.watch(waiting::orphans(self.db()?, after, limit))
            }

            fn locks(&self, ino: Ino) -> Result<Vec<LockRow>, StoreError> {
                self.watch(file_lock::of_inode(self.db()?, ino))
            }

            fn garbage(&self, before: Timestamp, limit: u32) -> Result<Vec<GarbageRow>, StoreError> {
                self.watch(waiting::garbage(self.db()?, before, limit))
            }

            fn nodes(&self) -> Result<Vec<NodeRow>, StoreError> {
                self.watch(cluster::nodes(self.db()?))
            }

            fn volumes(&self) -> Result<Vec<VolumeRow>, StoreError> {
                self.watch(cluster::volumes(self.db()?))
            }

            fn copies(&self) -> Result<Vec<CopyRow>, StoreError> {
                self.watch(cluster::copies(self.db()?))
            }

            fn sessions(&self) -> Result<Vec<SessionRow>, StoreError> {
                self.watch(session::list(self.db()?))
            }

            fn call_result(&self, session: SessionId, seq: u64) -> Result<Option<Vec<u8>>, StoreError> {
                self.watch(session::result(self.db()?, session, seq))
            }

            fn setting(&self, key: &str) -> Result<Option<String>, StoreError> {
                self.watch(session::setting(self.db()?, key))
            }

            fn stats(&self) -> Result<StoreStats, StoreError> {
                self.watch(self.totals()).map(|totals| totals.stats())
            }
        }
    };
}

read_txn!(Snapshot);
read_txn!(Group);

impl WriteTxn for Group<'_> {
    fn take(&mut self, counter: Counter, count: u64) -> Result<u64, StoreError> {
        self.write(|db| totals::take(db, counter, count))
    }

    fn put_inode(&mut self, row: &InodeRow) -> Result<(), StoreError> {
        self.write_counted(|db, totals| inode::put(db, totals, row))
    }

    fn delete_inode(&mut self, ino: Ino) -> Result<(), StoreError> {
        self.write_counted(|db, totals| inode::delete(db, totals, ino))
    }

    fn put_dentry(&mut self, row: &DentryRow) -> Result<(), StoreError> {
        self.write(|db| dentry::put(db, row))
    }

    fn delete_dentry(&mut self, parent: Ino, name: &[u8]) -> Result<(), StoreError> {
        self.write(|db| dentry::delete(db, parent, name))
    }

    fn put_extent(&mut self, ino: Ino, extent: &Extent) -> Result<(), StoreError> {
        self.write(|db| extent::put(db, ino, extent))
    }

    fn delete_extent(&mut self, ino: Ino, offset: u64) -> Result<(), StoreError> {
        self.write(|db| extent::delete(db, ino, offset))
    }

    fn put_symlink(&mut self, ino: Ino, target: &[u8]) -> Result<(), StoreError> {
        self.write(|db| attached::put_symlink(db, ino, target))
    }

    fn put_xattr(&mut self, ino: Ino, name: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.write(|db| attached::put_xattr(db, ino, name, value))
    }

    fn delete_xattr(&mut self, ino: Ino, name: &[u8]) -> Result<(), StoreError> {
        self.write(|db| attached::delete_xattr(db, ino, name))
    }

    fn put_orphan(&mut self, ino: Ino) -> Result<(), StoreError> {
        self.write(|db| waiting::put_orphan(db, ino))
    }

    fn delete_orphan(&mut self, ino: Ino) -> Result<(), StoreError> {
        self.write(|db| waiting::delete_orphan(db, ino))
    }

    fn put_lock(&mut self, row: &LockRow) -> Result<(), StoreError> {
        self.write_counted(|db, totals| file_lock::put(db, totals, row))
    }

    fn delete_lock(&mut self, row: &LockRow) -> Result<(), StoreError> {
        self.write_counted(|db, totals| file_lock::delete(db, totals, row))
    }

    fn put_garbage(&mut self, row: &GarbageRow) -> Result<(), StoreError> {
        self.write(|db| waiting::put_garbage(db, row))
    }

    fn delete_garbage(&mut self, blob: BlobId) -> Result<(), StoreError> {
        self.write(|db| waiting::delete_garbage(db, blob))
    }

    fn put_node(&mut self, row: &NodeRow) -> Result<(), StoreError> {
        self.write(|db| cluster::put_node(db, row))
    }

    fn delete_node(&mut self, id: NodeId) -> Result<(), StoreError> {
        self.write(|db| cluster::delete_node(db, id))
    }

    fn put_volume(&mut self, row: &VolumeRow) -> Result<(), StoreError> {
        self.write(|db| cluster::put_volume(db, row))
    }

    fn raise_volume_seq(&mut self, volume: VolumeId, seq: Seq) -> Result<(), StoreError> {
        self.write(|db| cluster::raise_seq(db, volume, seq))
    }

    fn set_volume_next_key(&mut self, volume: VolumeId, next_key: BlobKey) -> Result<(), StoreError> {
        self.write(|db| cluster::set_next_key(db, volume, next_key))
    }

    fn put_copy(&mut self, row: &CopyRow) -> Result<(), StoreError> {
        self.write(|db| cluster::put_copy(db, row))
    }

    fn delete_copy(&mut self, volume: VolumeId, node: NodeId) -> Result<(), StoreError> {
        self.write(|db| cluster::delete_copy(db, volume, node))
    }

    fn put_session(&mut self, row: &SessionRow) -> Result<(), StoreError> {
        self.write(|db| session::put(db, row))
    }

    fn delete_session(&mut self, id: SessionId) -> Result<Vec<Ino>, StoreError> {
        self.write(|db| session::delete(db, id))?;
        self.write_counted(|db, totals| file_lock::delete_of_session(db, totals, id))
    }

    fn put_call_result(&mut self, session: SessionId, seq: u64, result: &[u8]) -> Result<(), StoreError> {
        self.write(|db| session::put_result(db, session, seq, result))
    }

    fn delete_call_results_below(&mut self, session: SessionId, seq: u64) -> Result<(), StoreError> {
        self.write(|db| session::delete_results_below(db, session, seq))
    }

    fn put_setting(&mut self, key: &str, value: &str) -> Result<(), StoreError> {
        self.write(|db| session::put_setting(db, key, value))
    }

    fn begin_savepoint(&mut self) -> Result<(), StoreError> {
        // SQLite takes the innermost of one name, so one name does for any depth.
        self.write(|db| run(db, "begin a savepoint", "SAVEPOINT nested", []))?;
        self.savepoints.push(self.totals);
        Ok(())
    }

    fn end_savepoint(&mut self, keep: bool) -> Result<(), StoreError> {
        // The first belongs to the call.
        if self.savepoints.len() < 2 {
            return self.doom(Err(check::no_savepoint()));
        }
        if !keep {
            self.write(|db| run(db, "undo a savepoint", "ROLLBACK TO nested", []))?;
        }
        self.write(|db| run(db, "end a savepoint", "RELEASE nested", []))?;
        if let Some(totals) = self.savepoints.pop().filter(|_| !keep) {
            self.totals = totals;
        }
        Ok(())
    }
}
