//! Counters that only grow, and the totals of the namespace.

use super::statement::{key, one, run};
use crate::check::{NUMBER_MAX, exhausted, number};
use crate::seam::{Counter, StoreError, StoreStats};
use dfs_proto::FileKind;
use rusqlite::{Connection, params};

/// Totals as they are kept: one row, read when a group of writes begins and written when it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Totals {
    files: u64,
    directories: u64,
    inodes: u64,
    /// Wider than the sizes it sums up: a sparse file of 8 EiB is one truncate(2) away, and so are many.
    file_bytes: u128,
    locks: u64,
}

impl Totals {
    pub(super) fn load(db: &Connection) -> Result<Totals, StoreError> {
        const SQL: &str = "SELECT files, directories, inodes, file_bytes, locks FROM totals WHERE id = 1";
        let totals = one(db, "read the totals", SQL, [], |c| {
            let (files, directories, inodes) = (c.number()?, c.number()?, c.number()?);
            let file_bytes = u128::from_be_bytes(c.get()?);
            Ok(Totals { files, directories, inodes, file_bytes, locks: c.number()? })
        })?;
        totals.ok_or_else(|| StoreError::Corrupt("the row of totals is missing".into()))
    }

    pub(super) fn save(&self, db: &Connection) -> Result<(), StoreError> {
        const SQL: &str = "UPDATE totals SET files = ?1, directories = ?2, inodes = ?3, file_bytes = ?4, \
            locks = ?5 WHERE id = 1";
        let (files, directories) = (number("files", self.files)?, number("directories", self.directories)?);
        let inodes = number("inodes", self.inodes)?;
        let locks = number("locks", self.locks)?;
        let values = params![files, directories, inodes, self.file_bytes.to_be_bytes(), locks];
        run(db, "write the totals", SQL, values).map(drop)
    }

    pub(super) fn add(&mut self, kind: FileKind, size: u64) {
        self.inodes += 1;
        match kind {
            FileKind::Directory => self.directories += 1,
            FileKind::File => {
                self.files += 1;
                self.file_bytes += u128::from(size);
            }
            FileKind::Symlink
            | FileKind::Fifo
            | FileKind::Socket
            | FileKind::CharDevice
            | FileKind::BlockDevice => {}
        }
    }

    /// Takes an inode that was added out again; `Corrupt` if it cannot have been.
    pub(super) fn remove(&mut self, kind: FileKind, size: u64) -> Result<(), StoreError> {
        let (file, directory) = (u64::from(kind == FileKind::File), u64::from(kind == FileKind::Directory));
        let less = || {
            Some(Totals {
                files: self.files.checked_sub(file)?,
                directories: self.directories.checked_sub(directory)?,
                inodes: self.inodes.checked_sub(1)?,
                file_bytes: self.file_bytes.checked_sub(u128::from(size) * u128::from(file))?,
                locks: self.locks,
            })
        };
        *self = less().ok_or_else(|| StoreError::Corrupt("the totals are below what is there".into()))?;
        Ok(())
    }

    pub(super) fn add_lock(&mut self) {
        self.locks += 1;
    }

    /// Takes locks that were added out again; `Corrupt` if they cannot have been.
    pub(super) fn remove_locks(&mut self, count: usize) -> Result<(), StoreError> {
        let less = self.locks.checked_sub(count as u64);
        self.locks =
            less.ok_or_else(|| StoreError::Corrupt("there are more locks than the total says".into()))?;
        Ok(())
    }

    pub(super) fn stats(&self) -> StoreStats {
        StoreStats {
            files: self.files,
            directories: self.directories,
            inodes: self.inodes,
            file_bytes: u64::try_from(self.file_bytes).unwrap_or(u64::MAX),
            locks: self.locks,
        }
    }
}

/// Hands out `count` numbers; answers the first.
pub(super) fn take(db: &Connection, counter: Counter, count: u64) -> Result<u64, StoreError> {
    const SQL: &str = "UPDATE counter SET next = next + ?2 WHERE id = ?1 AND next <= ?3 RETURNING next - ?2";
    let ceiling = NUMBER_MAX.checked_sub(count).and_then(key);
    let (Some(count_key), Some(ceiling)) = (key(count), ceiling) else { return Err(exhausted(count)) };
    let values = params![counter.id(), count_key, ceiling];
    one(db, "hand out numbers", SQL, values, |c| c.number())?.ok_or_else(|| exhausted(count))
}
