//! The tables, and which versions of them this program understands.
//!
//! Tables with one integer as key are keyed by SQLite's row number; all others are `WITHOUT ROWID`, so that a
//! row is found by one descent. Names, values and digests are BLOBs: SQLite must not take them for text.

use super::statement::failed;
use crate::seam::{Counter, StoreError};
use rusqlite::{Connection, params};
use std::path::Path;

/// "dfsM" in ASCII, in the header of every database of this store.
const APPLICATION_ID: i32 = 0x6466_734d;
/// To be raised with every change of the tables, with a step in [`STEPS`] that brings older ones up.
const VERSION: i32 = 3;

/// Advisory locks, new in version 2. A macro, as `concat!` takes nothing else that is not written in place.
macro_rules! file_lock {
    () => {
        "
CREATE TABLE file_lock (
    ino INTEGER NOT NULL, space INTEGER NOT NULL, session INTEGER NOT NULL, owner BLOB NOT NULL,
    first INTEGER NOT NULL, last INTEGER NOT NULL, mode INTEGER NOT NULL, pid INTEGER NOT NULL,
    PRIMARY KEY (ino, space, session, owner, first)
) STRICT, WITHOUT ROWID;
CREATE INDEX file_lock_by_session ON file_lock (session, ino);
"
    };
}

/// What brings tables of version 1 to version 2, those of version 2 to version 3, and so on up to [`VERSION`].
///
/// 2: inodes say whether they have access control lists, and of `system.` there are no other attributes; files
/// have locks. Sessions end: their clients speak the protocol of version 1, and so do the results that are kept for
/// them.
///
/// 3: nodes have a duty: to serve, to be emptied, or none any more.
const STEPS: [&str; VERSION as usize - 1] = [
    concat!(
        "
ALTER TABLE inode ADD COLUMN flags INTEGER NOT NULL DEFAULT 0;
DELETE FROM xattr WHERE name >= CAST('system.' AS BLOB) AND name < CAST('system/' AS BLOB) AND name NOT IN
    (CAST('system.posix_acl_access' AS BLOB), CAST('system.posix_acl_default' AS BLOB));
UPDATE inode SET flags = 1 WHERE ino IN (SELECT ino FROM xattr
    WHERE name IN (CAST('system.posix_acl_access' AS BLOB), CAST('system.posix_acl_default' AS BLOB)));
ALTER TABLE totals ADD COLUMN locks INTEGER NOT NULL DEFAULT 0;
DELETE FROM session;
DELETE FROM call_result;
",
        file_lock!(),
    ),
    "ALTER TABLE node ADD COLUMN duty INTEGER NOT NULL DEFAULT 0;",
];

const TABLES: &str = concat!(
    "
CREATE TABLE counter (id INTEGER PRIMARY KEY, next INTEGER NOT NULL) STRICT;
CREATE TABLE totals (
    id INTEGER PRIMARY KEY CHECK (id = 1), files INTEGER NOT NULL, directories INTEGER NOT NULL,
    inodes INTEGER NOT NULL, file_bytes BLOB NOT NULL, locks INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE inode (
    ino INTEGER PRIMARY KEY, kind INTEGER NOT NULL, mode INTEGER NOT NULL, nlink INTEGER NOT NULL,
    uid INTEGER NOT NULL, gid INTEGER NOT NULL, rdev INTEGER NOT NULL,
    size INTEGER NOT NULL, allocated INTEGER NOT NULL,
    atime_secs INTEGER NOT NULL, atime_nanos INTEGER NOT NULL,
    mtime_secs INTEGER NOT NULL, mtime_nanos INTEGER NOT NULL,
    ctime_secs INTEGER NOT NULL, ctime_nanos INTEGER NOT NULL,
    btime_secs INTEGER NOT NULL, btime_nanos INTEGER NOT NULL,
    version INTEGER NOT NULL, parent INTEGER NOT NULL, collision INTEGER, md5 BLOB,
    flags INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE dentry (
    parent INTEGER NOT NULL, name BLOB NOT NULL, cookie INTEGER NOT NULL, ino INTEGER NOT NULL,
    PRIMARY KEY (parent, name)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX dentry_by_cookie ON dentry (parent, cookie);
CREATE TABLE extent (
    ino INTEGER NOT NULL, start INTEGER NOT NULL, length INTEGER NOT NULL,
    volume INTEGER NOT NULL, key INTEGER NOT NULL, seq INTEGER NOT NULL,
    blob_length INTEGER NOT NULL, md5 BLOB NOT NULL, blob_offset INTEGER NOT NULL,
    PRIMARY KEY (ino, start)
) STRICT, WITHOUT ROWID;
CREATE INDEX extent_by_blob ON extent (volume, key);
CREATE TABLE symlink (ino INTEGER PRIMARY KEY, target BLOB NOT NULL) STRICT;
CREATE TABLE xattr (
    ino INTEGER NOT NULL, name BLOB NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (ino, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE orphan (ino INTEGER PRIMARY KEY) STRICT;
CREATE TABLE garbage (
    volume INTEGER NOT NULL, key INTEGER NOT NULL, length INTEGER NOT NULL,
    since_secs INTEGER NOT NULL, since_nanos INTEGER NOT NULL,
    PRIMARY KEY (volume, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX garbage_by_age ON garbage (since_secs, since_nanos, volume, key);
CREATE TABLE node (
    id INTEGER PRIMARY KEY, uuid TEXT NOT NULL UNIQUE, name TEXT NOT NULL UNIQUE, url TEXT NOT NULL,
    zone TEXT NOT NULL, duty INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE volume (
    id INTEGER PRIMARY KEY, primary_node INTEGER NOT NULL, open_for BLOB, next_key INTEGER NOT NULL,
    seq INTEGER NOT NULL
) STRICT;
CREATE TABLE copy (
    volume INTEGER NOT NULL, node INTEGER NOT NULL, seq INTEGER NOT NULL,
    PRIMARY KEY (volume, node)
) STRICT, WITHOUT ROWID;
CREATE TABLE session (id INTEGER PRIMARY KEY, client TEXT NOT NULL) STRICT;
CREATE TABLE call_result (
    session INTEGER NOT NULL, seq INTEGER NOT NULL, result BLOB NOT NULL,
    PRIMARY KEY (session, seq)
) STRICT, WITHOUT ROWID;
CREATE TABLE setting (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
",
    file_lock!()
);

/// What there is in a database file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing: it has to be set up.
    Nothing,
    /// Tables of this version, which may be an older one.
    Version(i32),
}

/// Looks into the database. Fails for one that is not ours or too new, before anything in it is touched.
pub(super) fn inspect(db: &Connection, path: &Path) -> Result<Found, StoreError> {
    let number = |pragma: &str| {
        db.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0))
            .map_err(|e| failed("read the version of the database", e))
    };
    let tables: i64 = db
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(|e| failed("read the tables of the database", e))?;
    let reason = match (number("application_id")?, number("user_version")?) {
        (APPLICATION_ID, version @ 1..=VERSION) => return Ok(Found::Version(version)),
        (0, 0) if tables == 0 => return Ok(Found::Nothing),
        (APPLICATION_ID, version) => format!(
            "{} has tables of version {version}, this program knows version {VERSION}: use the dfs-master \
             that wrote it last, or a newer one",
            path.display()
        ),
        _ => format!("{} is a database of another program; choose another file", path.display()),
    };
    Err(StoreError::Failed { action: "open the database", reason })
}

/// Sets up an empty database, all at once or not at all.
pub(super) fn create(db: &mut Connection) -> Result<(), StoreError> {
    let mut create = || -> rusqlite::Result<()> {
        let txn = db.transaction()?;
        txn.execute_batch(TABLES)?;
        for counter in Counter::ALL {
            let first = i64::try_from(counter.first()).unwrap_or(i64::MAX);
            txn.execute("INSERT INTO counter (id, next) VALUES (?1, ?2)", params![counter.id(), first])?;
        }
        let none = 0u128.to_be_bytes();
        txn.execute(
            "INSERT INTO totals (id, files, directories, inodes, file_bytes) VALUES (1, 0, 0, 0, ?1)",
            [none],
        )?;
        txn.pragma_update(None, "application_id", APPLICATION_ID)?;
        txn.pragma_update(None, "user_version", VERSION)?;
        txn.commit()
    };
    create().map_err(|e| failed("set up the tables", e))
}

/// Brings the tables of an older version up to [`VERSION`], all at once or not at all.
pub(super) fn upgrade(db: &mut Connection, from: i32) -> Result<(), StoreError> {
    let steps = usize::try_from(from - 1).ok().and_then(|done| STEPS.get(done..)).unwrap_or_default();
    if steps.is_empty() {
        return Ok(());
    }
    let mut upgrade = || -> rusqlite::Result<()> {
        let txn = db.transaction()?;
        steps.iter().try_for_each(|step| txn.execute_batch(step))?;
        txn.pragma_update(None, "user_version", VERSION)?;
        txn.commit()
    };
    upgrade().map_err(|e| failed("bring the tables up to date", e))?;
    log::info!("the tables of the metadata store are of version {VERSION} now; they were of version {from}");
    Ok(())
}
