//! What only the store on disk promises.

use super::*;
use crate::conformance;
use crate::row::{InodeRow, SessionRow};
use crate::seam::Counter;
use crate::store::Store;
use dfs_proto::{Ino, SessionId};
use std::collections::BTreeSet;
use tempfile::TempDir;

static STATEMENTS: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// Called with every statement that any test runs.
pub(super) fn note_statement(sql: &'static str) {
    STATEMENTS.lock().insert(sql);
}

fn fresh() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("meta.db");
    (directory, path)
}

fn put(store: &Store, key: &'static str, durability: Durability) -> Result<(), StoreError> {
    store.write_blocking(durability, move |txn| txn.put_setting(key, "1"))
}

fn setting(store: &Store, key: &'static str) -> Result<Option<String>, StoreError> {
    store.read_blocking(move |txn| txn.setting(key))
}

fn reason(result: Result<Store, StoreError>) -> String {
    result.expect_err("must not open").to_string()
}

#[test]
fn rows_and_counters_survive_a_restart() {
    let (_directory, path) = fresh();
    for round in 0..3u64 {
        let store = Store::open_sqlite(&path).unwrap();
        let ino = store.write_blocking(Durability::Process, |txn| txn.take(Counter::Inode, 10)).unwrap();
        assert_eq!(Ok::<_, StoreError>(ino), Ok(2 + round * 10));
        if round > 0 {
            assert_eq!(setting(&store, "kept").unwrap().as_deref(), Some("1"));
        }
        put(&store, "kept", Durability::Process).unwrap();
        // Once by the end of the last handle, otherwise by closing it.
        if round != 1 {
            store.close();
        }
    }
}

#[test]
fn closed_database_is_one_file() {
    let (directory, path) = fresh();
    let store = Store::open_sqlite(&path).unwrap();
    put(&store, "a", Durability::Process).unwrap();
    store.close();
    let files = std::fs::read_dir(directory.path()).unwrap().map(|f| f.unwrap().file_name());
    let files: BTreeSet<_> = files.collect();
    assert_eq!(files, BTreeSet::from(["meta.db".into(), "meta.db.lock".into()]));
}

#[test]
fn second_master_is_refused_and_told_who_has_it() {
    let (_directory, path) = fresh();
    let first = Store::open_sqlite(&path).unwrap();
    let linked = path.with_file_name("link.db");
    std::os::unix::fs::symlink(&path, &linked).unwrap();
    for path in [&path, &linked] {
        let reason = reason(Store::open_sqlite(path));
        assert!(reason.contains("only one master"), "{reason}");
        assert!(reason.contains(&format!("process {}", std::process::id())), "{reason}");
    }
    put(&first, "a", Durability::Process).unwrap();
    drop(first);
    let second = Store::open_sqlite(&linked).unwrap();
    assert!(setting(&second, "a").unwrap().is_some());
}

#[test]
fn newer_database_is_refused_untouched() {
    let (_directory, path) = fresh();
    Store::open_sqlite(&path).unwrap().close();
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 7).unwrap();
    let before = std::fs::read(&path).unwrap();
    let reason = reason(Store::open_sqlite(&path));
    assert!(reason.contains("version 7") && reason.contains("knows version 3"), "{reason}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

#[test]
fn tables_of_version_1_are_brought_up_with_what_is_in_them() {
    let (_directory, path) = fresh();
    let store = Store::open_sqlite(&path).unwrap();
    let rows = [7, 8].map(crate::conformance::file);
    let written = rows.clone();
    let write = move |txn: &mut dyn WriteTxn| {
        written.iter().try_for_each(|row| txn.put_inode(row))?;
        txn.put_xattr(Ino(7), b"user.a", b"1")?;
        txn.put_xattr(Ino(7), b"system.other", b"1")?;
        txn.put_xattr(Ino(8), b"system.posix_acl_access", b"1")?;
        txn.put_session(&SessionRow { id: SessionId(1), client: "old".into() })?;
        txn.put_call_result(SessionId(1), 1, b"1")
    };
    store.write_blocking(Durability::Process, write).unwrap();
    store.close();
    let db = Connection::open(&path).unwrap();
    db.execute_batch(
        "ALTER TABLE inode DROP COLUMN flags; ALTER TABLE totals DROP COLUMN locks; DROP TABLE file_lock;
         ALTER TABLE node DROP COLUMN duty; PRAGMA user_version = 1",
    )
    .unwrap();
    drop(db);
    for _ in 0..2 {
        let store = Store::open_sqlite(&path).unwrap();
        let read = |txn: &dyn ReadTxn| {
            let found = [txn.inode(Ino(7))?, txn.inode(Ino(8))?];
            Ok::<_, StoreError>((found, txn.xattr_names(Ino(7))?, txn.xattr_names(Ino(8))?))
        };
        let (found, plain, listed) = store.read_blocking(read).unwrap();
        assert_eq!(store.read_blocking(|txn| txn.sessions()), Ok(vec![]));
        assert_eq!(store.read_blocking(|txn| txn.call_result(SessionId(1), 1)), Ok(None));
        let [first, second] = rows.clone();
        assert_eq!(found, [Some(first), Some(InodeRow { has_acl: true, ..second })]);
        assert_eq!((plain, listed), (vec![b"user.a".to_vec()], vec![b"system.posix_acl_access".to_vec()]));
        let lock = crate::conformance::whole_lock(7, 1, 1);
        store.write_blocking(Durability::Process, move |txn| txn.put_lock(&lock)).unwrap();
        assert_eq!(store.read_blocking(|txn| txn.locks(Ino(7))), Ok(vec![lock]));
        assert_eq!(store.read_blocking(|txn| txn.stats()).unwrap().locks, 1);
        store.close();
    }
}

#[test]
fn foreign_files_are_refused_untouched() {
    let (_directory, path) = fresh();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE mine (a)").unwrap();
    let before = std::fs::read(&path).unwrap();
    let message = reason(Store::open_sqlite(&path));
    assert!(message.contains("another program"), "{message}");
    assert_eq!(std::fs::read(&path).unwrap(), before);

    let text = path.with_file_name("text");
    std::fs::write(&text, "no database at all, but a text that is longer than a header of one ".repeat(99))
        .unwrap();
    let message = reason(Store::open_sqlite(&text));
    assert!(message.contains("not a database"), "{message}");

    let message = reason(Store::open_sqlite(&path.with_file_name("absent").join("meta.db")));
    assert!(message.contains("absent"), "{message}");
}

#[test]
fn full_database_says_so_and_goes_on() {
    let (_directory, path) = fresh();
    let sqlite = Arc::new(Sqlite::open_with(&path, Options { pages_max: Some(200), wal: None }).unwrap());
    let store = Store::from_sqlite(Arc::clone(&sqlite));
    put(&store, "before", Durability::Process).unwrap();
    let filled = (1u64..).find_map(|ino| {
        let write = move |txn: &mut dyn WriteTxn| txn.put_xattr(Ino(ino), b"user.large", &[1; 60_000]);
        store.write_blocking(Durability::Process, write).err()
    });
    assert_eq!(filled, Some(StoreError::Full));
    assert!(setting(&store, "before").unwrap().is_some());
    // Making room works, and what is written then stays.
    store.write_blocking(Durability::Disk, |txn| txn.delete_xattr(Ino(1), b"user.large")).unwrap();
    put(&store, "after", Durability::Disk).unwrap();
    store.close();
    assert_whole(&path);
    let store = Store::open_sqlite(&path).unwrap();
    assert!(setting(&store, "after").unwrap().is_some());
}

/// A full disk may undo a whole transaction: then nobody in it may be told that his write is there.
#[test]
fn who_was_answered_in_a_full_database_is_in_it() {
    let (_directory, path) = fresh();
    let sqlite = Arc::new(Sqlite::open_with(&path, Options { pages_max: Some(300), wal: None }).unwrap());
    let store = Store::from_sqlite(Arc::clone(&sqlite));
    let answered = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for writer in 0..8u64 {
            let (store, answered) = (&store, &answered);
            scope.spawn(move || {
                for i in 0..40 {
                    let ino = writer * 1000 + i;
                    let result = store.write_blocking(Durability::Process, move |txn: &mut dyn WriteTxn| {
                        txn.put_orphan(Ino(ino))?;
                        // Goes on after the error, as no caller should.
                        let _ = txn.put_xattr(Ino(ino), b"user.large", &[1; 30_000]);
                        txn.put_symlink(Ino(ino), b"target")
                    });
                    if result.is_ok() {
                        answered.lock().push(ino);
                    }
                }
            });
        }
    });
    let mut answered = answered.into_inner();
    answered.sort_unstable();
    assert!(!answered.is_empty() && answered.len() < 320, "{} answered", answered.len());
    let kept = store.read_blocking(|txn| {
        let orphans = txn.orphans(Ino(0), u32::MAX)?;
        for ino in &orphans {
            assert!(txn.xattr(*ino, b"user.large")?.is_some() && txn.symlink(*ino)?.is_some(), "{ino}");
        }
        Ok::<_, StoreError>(orphans)
    });
    let kept: Vec<u64> = kept.unwrap().into_iter().map(|ino| ino.0).filter(|ino| *ino != 0).collect();
    assert_eq!(kept, answered.into_iter().filter(|ino| *ino != 0).collect::<Vec<_>>());
    store.close();
    assert_whole(&path);
}

#[test]
fn disk_durability_fails_when_the_disk_does() {
    let (_directory, path) = fresh();
    // A device that cannot be synced stands for a disk that fails.
    let wal = Some(std::fs::File::open("/dev/null").unwrap());
    let sqlite = Sqlite::open_with(&path, Options { pages_max: None, wal }).unwrap();
    let store = Store::from_sqlite(Arc::new(sqlite));
    put(&store, "process", Durability::Process).unwrap();
    let failed = put(&store, "disk", Durability::Disk).unwrap_err();
    assert!(failed.to_string().contains("bring commits to the disk"), "{failed}");
    // What is on the disk is not known any more: nothing may be built on it.
    assert_eq!(put(&store, "more", Durability::Process), Err(failed));
    assert_eq!(setting(&store, "more"), Ok(None));
}

#[test]
fn disk_durability_covers_earlier_commits_when_it_writes_nothing() {
    let (_directory, path) = fresh();
    let wal = Some(std::fs::File::open("/dev/null").unwrap());
    let sqlite = Sqlite::open_with(&path, Options { pages_max: None, wal }).unwrap();
    let store = Store::from_sqlite(Arc::new(sqlite));
    put(&store, "process", Durability::Process).unwrap();
    let synced = store.write_blocking(Durability::Disk, |_| Ok::<_, StoreError>(()));
    assert!(synced.is_err(), "it said that the disk has it without having tried");
}

#[test]
fn closing_answers_everybody_truthfully() {
    let (_directory, path) = fresh();
    let store = Store::open_sqlite(&path).unwrap();
    let answered = Mutex::new(BTreeSet::new());
    std::thread::scope(|scope| {
        for writer in 0..8u64 {
            let (store, answered) = (&store, &answered);
            scope.spawn(move || {
                for ino in (1..).map(|i| writer << 32 | i) {
                    match store.write_blocking(Durability::Process, move |txn| txn.put_orphan(Ino(ino))) {
                        Ok(()) => answered.lock().insert(Ino(ino)),
                        Err(StoreError::Closed) => break,
                        Err(e) => panic!("{e}"),
                    };
                }
            });
        }
        while answered.lock().len() < 100 {
            std::thread::yield_now();
        }
        store.close();
    });
    let store = Store::open_sqlite(&path).unwrap();
    let kept = store.read_blocking(|txn| txn.orphans(Ino(0), u32::MAX)).unwrap();
    assert_eq!(kept, answered.into_inner().into_iter().collect::<Vec<_>>());
}

fn assert_whole(path: &Path) {
    let db = Connection::open(path).unwrap();
    let verdict: String = db.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
}

#[test]
fn damaged_rows_are_corrupt_and_not_taken_for_something() {
    let (_directory, path) = fresh();
    Store::open_sqlite(&path).unwrap().close();
    let db = Connection::open(&path).unwrap();
    db.execute_batch(
        "INSERT INTO inode VALUES (5, 99, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, NULL, NULL, 0);
         INSERT INTO inode VALUES (6, 1, 0, 1, 0, 0, 0, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, NULL, NULL, 0);
         INSERT INTO inode VALUES (7, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, NULL, x'00', 0);
         INSERT INTO inode VALUES (8, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, NULL, NULL, 2);",
    )
    .unwrap();
    drop(db);
    let store = Store::open_sqlite(&path).unwrap();
    for ino in [5, 6, 7, 8] {
        let read = store.read_blocking(move |txn| txn.inode(Ino(ino)));
        assert!(matches!(read, Err(StoreError::Corrupt(_))), "inode {ino}: {read:?}");
    }
    // The totals know nothing of these: taking one away must not wrap them.
    let removed = store.write_blocking(Durability::Process, |txn| txn.delete_inode(Ino(6)));
    assert!(matches!(removed, Err(StoreError::Corrupt(_))), "{removed:?}");
}

#[tokio::test]
async fn more_readers_than_connections_take_turns() {
    let (_directory, path) = fresh();
    let store = Store::open_sqlite(&path).unwrap();
    let reads = (0..readers::READERS * 8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.read(|txn| txn.stats()).await })
    });
    for read in reads.collect::<Vec<_>>() {
        read.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn snapshot_does_not_see_later_commits() {
    let (_directory, path) = fresh();
    let store = Store::open_sqlite(&path).unwrap();
    let (begun, wait_begun) = tokio::sync::oneshot::channel();
    let (go_on, wait_go_on) = std::sync::mpsc::channel::<()>();
    let reading = tokio::spawn({
        let store = store.clone();
        async move {
            let read = move |txn: &dyn ReadTxn| {
                let before = txn.setting("a")?;
                begun.send(()).ok();
                wait_go_on.recv().ok();
                Ok::<_, StoreError>((before, txn.setting("a")?))
            };
            store.read(read).await
        }
    });
    wait_begun.await.unwrap();
    store.write(Durability::Process, |txn| txn.put_setting("a", "1")).await.unwrap();
    go_on.send(()).unwrap();
    assert_eq!(reading.await.unwrap(), Ok((None, None)));
    assert_eq!(store.read(|txn| txn.setting("a")).await, Ok(Some("1".into())));
}

#[tokio::test]
async fn cancelled_write_is_still_done() {
    let (_directory, path) = fresh();
    let store = Store::open_sqlite(&path).unwrap();
    let (started, wait_started) = tokio::sync::oneshot::channel();
    let (go_on, wait_go_on) = std::sync::mpsc::channel::<()>();
    let writing = tokio::spawn({
        let store = store.clone();
        async move {
            let write = move |txn: &mut dyn WriteTxn| {
                started.send(()).ok();
                wait_go_on.recv().ok();
                txn.put_setting("a", "1")
            };
            store.write(Durability::Process, write).await
        }
    });
    wait_started.await.unwrap();
    writing.abort();
    assert!(writing.await.unwrap_err().is_cancelled());
    go_on.send(()).unwrap();
    // The next write is answered after the one before it.
    store.write(Durability::Process, |txn| txn.put_setting("b", "1")).await.unwrap();
    assert_eq!(store.read(|txn| txn.setting("a")).await, Ok(Some("1".into())));
}

#[tokio::test]
async fn last_handle_may_end_on_the_writer_thread() {
    let (_directory, path) = fresh();
    let store = Store::open_sqlite(&path).unwrap();
    let (go_on, wait_go_on) = std::sync::mpsc::channel::<()>();
    let inner = store.clone();
    let write = tokio::spawn(async move {
        let keep = inner.clone();
        let write = move |txn: &mut dyn WriteTxn| {
            let _keep = keep;
            wait_go_on.recv().ok();
            txn.put_setting("a", "1")
        };
        inner.write(Durability::Process, write).await
    });
    tokio::task::yield_now().await;
    drop(store);
    write.abort();
    let _ = write.await;
    go_on.send(()).ok();
    let began = std::time::Instant::now();
    let reopened = loop {
        match Store::open_sqlite(&path) {
            Ok(store) => break store,
            Err(e) => assert!(began.elapsed() < Duration::from_secs(10), "still locked: {e}"),
        }
        tokio::task::yield_now().await;
    };
    reopened.read(|txn| txn.stats()).await.unwrap();
}

/// No statement may take time that grows with the namespace: each has to find its rows by a key, in order.
#[test]
fn every_statement_goes_by_an_index() {
    /// Read whole, by contract: as many rows as the cluster has parts.
    const READ_WHOLE: [&str; 4] = ["node", "volume", "copy", "session"];
    let (directory, path) = fresh();
    let mut databases = 0;
    conformance::all(|| {
        databases += 1;
        Store::open_sqlite(&directory.path().join(format!("{databases}.db"))).unwrap()
    });
    Store::open_sqlite(&path).unwrap().close();
    let db = Connection::open(&path).unwrap();
    let statements = STATEMENTS.lock().clone();
    assert!(statements.len() > 50, "only {} statements were seen", statements.len());
    for sql in statements {
        let mut plan = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
        let steps = plan.raw_query().mapped(|row| row.get::<_, String>(3)).collect::<Result<Vec<_>, _>>();
        for step in steps.unwrap() {
            let scanned = step.strip_prefix("SCAN ").map(|rest| rest.split(' ').next().unwrap());
            assert!(scanned.is_none_or(|table| READ_WHOLE.contains(&table)), "{sql}\n{step}");
            assert!(!step.contains("TEMP B-TREE"), "{sql}\n{step}");
        }
        if sql.contains("start + length > ?2") {
            let mut plan = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
            let first = plan.raw_query().next().unwrap().unwrap().get::<_, String>(3).unwrap();
            assert!(
                first.contains("ino=? AND start>?"),
                "the walk must not begin at the file's begin: {first}"
            );
        }
    }
}

#[tokio::test]
async fn what_callers_write_and_read_themselves_is_in_step_with_the_thread() {
    let (_directory, path) = fresh();
    let store = Store::open_sqlite(&path).unwrap();
    let (entered, has_entered) = std::sync::mpsc::channel();
    let (release, is_released) = std::sync::mpsc::channel::<()>();
    let slow = tokio::spawn({
        let store = store.clone();
        async move {
            let write = store.write(Durability::Process, move |txn| {
                entered.send(()).unwrap();
                // Until the test lets it go, or ends.
                let _ = is_released.recv();
                txn.put_setting("slow", "1")
            });
            write.await
        }
    });
    tokio::task::spawn_blocking(move || has_entered.recv().unwrap()).await.unwrap();
    let beside = store.write_here(|txn| {
        assert_eq!(txn.setting("slow")?.as_deref(), Some("1"), "it comes after the call that runs");
        txn.put_setting("beside", "1")
    });
    let (beside, ()) = tokio::join!(beside, async { release.send(()).unwrap() });
    beside.unwrap();
    slow.await.unwrap().unwrap();
    store.write_here(|txn| txn.put_setting("here", "1")).await.unwrap();
    for key in ["slow", "beside", "here"] {
        assert_eq!(store.read_here(move |txn| txn.setting(key)).await, Ok(Some("1".into())), "{key}");
    }
    let refused: Result<(), StoreError> = store
        .write_here(|txn| {
            txn.put_setting("undone", "1")?;
            Err(StoreError::Full)
        })
        .await;
    assert_eq!(refused, Err(StoreError::Full));
    assert_eq!(store.read_here(|txn| txn.setting("undone")).await, Ok(None));
    store.close();
    assert_eq!(store.write_here(|txn| txn.put_setting("late", "1")).await, Err(StoreError::Closed));
    assert_eq!(store.read_here(|txn| txn.setting("here")).await, Err(StoreError::Closed));
}

#[tokio::test]
async fn the_wal_stays_short_while_callers_write_themselves() {
    let (_directory, path) = fresh();
    let store = Store::open_sqlite(&path).unwrap();
    let wal = path.with_file_name("meta.db-wal");
    let mebibyte: Arc<str> = "x".repeat(1 << 20).into();
    for _ in 0..160 {
        let value = mebibyte.clone();
        store.write_here(move |txn| txn.put_setting("large", &value)).await.unwrap();
    }
    let length = std::fs::metadata(wal).unwrap().len();
    assert!(length < 100 << 20, "the WAL has {} MiB after 160 MiB of writes", length >> 20);
}

#[tokio::test]
async fn reads_go_on_after_one_that_was_slow() {
    let (_directory, path) = fresh();
    let store = Store::open_sqlite(&path).unwrap();
    let slow = store.read_here(|txn| {
        std::thread::sleep(2 * readers::HERE_MAX);
        txn.setting("a")
    });
    assert_eq!(slow.await, Ok(None));
    // More than there are connections.
    for _ in 0..2 * readers::READERS {
        assert_eq!(store.read_here(|txn| txn.setting("a")).await, Ok(None));
    }
}
