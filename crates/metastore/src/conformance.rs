//! The cases that every store has to pass, each on an empty store of its own.
//!
//! Small and named, so that a failure says what is broken. Where a promise has an order, rows are written in
//! another one.

use crate::row::{CopyRow, DentryRow, GarbageRow, InodeRow, NodeRow, SessionRow, VolumeRow};
use crate::seam::{Counter, Durability, ReadTxn, StoreError, StoreStats, WriteTxn};
use crate::store::Store;
use dfs_proto::{
    BlobId, BlobKey, BlobRef, CollisionPolicy, DirCookie, Extent, FileKind, Ino, Md5, NodeId, Seq, SessionId,
    Timestamp, Version, VolumeId,
};

type Done = Result<(), StoreError>;
type Case = (&'static str, fn(&Store) -> Done);

/// Runs every case on a store that `open` makes; panics with the name of the one that fails.
pub fn all(mut open: impl FnMut() -> Store) {
    for (name, case) in CASES {
        eprintln!("conformance: {name}");
        if let Err(e) = case(&open()) {
            panic!("conformance case {name} failed: {e}");
        }
    }
}

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        /// Every case with its name.
        pub const CASES: &[Case] = &[$((stringify!($name), $name)),*];
    };
}

cases![
    inode_comes_back_as_it_was_written,
    inode_is_replaced,
    extreme_values_of_an_inode_survive,
    absent_rows_are_none_and_may_be_deleted,
    numbers_that_cannot_be_kept_are_refused,
    delete_inode_takes_symlink_and_xattrs_along,
    dentry_is_found_by_its_exact_name,
    dentries_come_by_cookie_in_pages,
    replaced_dentry_gives_up_its_cookie,
    cookie_of_another_dentry_is_refused,
    dentry_without_inode_is_corrupt,
    has_dentries_sees_the_directory_only,
    extents_come_by_offset_in_pages,
    extents_begin_with_the_one_that_covers_from,
    put_extent_replaces_the_one_at_its_offset,
    extents_that_make_no_sense_are_refused,
    blob_in_use_counts_every_file,
    symlinks_and_xattrs_keep_any_bytes,
    orphans_come_sorted_in_pages,
    garbage_comes_oldest_first,
    garbage_put_again_has_its_new_age,
    nodes_are_kept,
    nodes_do_not_share_a_name_or_identity,
    volumes_are_kept,
    volume_seq_only_rises,
    copies_are_kept,
    call_results_are_kept_per_session,
    settings_are_kept,
    counters_begin_where_they_should,
    counters_never_hand_out_twice,
    exhausted_counter_is_an_error,
    stats_follow_every_change,
    stats_saturate,
    savepoint_kept_stays,
    savepoint_undone_is_gone,
    savepoints_nest,
    undone_savepoint_restores_every_table,
    error_undoes_the_call,
    store_error_undoes_the_call_even_if_swallowed,
    savepoint_left_open_undoes_the_call,
    savepoint_never_begun_is_an_error,
    panic_undoes_the_call_and_the_store_goes_on,
    panic_in_a_read_is_an_error,
    write_sees_its_own_writes,
    read_sees_what_was_answered,
    both_durabilities_commit,
    many_writers_at_once_all_commit,
    clones_are_one_store,
    closed_store_says_so,
];

fn write<R: Send + 'static>(
    store: &Store,
    f: impl FnOnce(&mut dyn WriteTxn) -> Result<R, StoreError> + Send + 'static,
) -> Result<R, StoreError> {
    store.write_blocking(Durability::Process, f)
}

fn read<R: Send + 'static>(
    store: &Store,
    f: impl FnOnce(&dyn ReadTxn) -> Result<R, StoreError> + Send + 'static,
) -> Result<R, StoreError> {
    store.read_blocking(f)
}

fn at(secs: i64, nanos: u32) -> Timestamp {
    Timestamp { secs, nanos }
}

fn inode(ino: u64, kind: FileKind, size: u64) -> InodeRow {
    InodeRow {
        ino: Ino(ino),
        kind,
        mode: 0o644,
        nlink: 1,
        uid: 1000,
        gid: 1001,
        rdev: 0,
        size,
        allocated: 512,
        atime: at(1, 2),
        mtime: at(3, 4),
        ctime: at(5, 6),
        btime: at(7, 8),
        version: Version(9),
        parent: Ino(0),
        collision: None,
        md5: None,
    }
}

fn file(ino: u64) -> InodeRow {
    inode(ino, FileKind::File, 0)
}

fn dentry(parent: u64, name: &[u8], cookie: u64, ino: u64) -> DentryRow {
    DentryRow { parent: Ino(parent), name: name.to_vec(), cookie: DirCookie(cookie), ino: Ino(ino) }
}

fn blob(volume: u64, key: u64) -> BlobId {
    BlobId { volume: VolumeId(volume), key: BlobKey(key) }
}

fn extent(offset: u64, length: u64, id: BlobId) -> Extent {
    let blob = BlobRef { id, seq: Seq(offset + 1), length: 4 << 20, md5: Md5([offset as u8; 16]) };
    Extent { offset, length, blob: Some(blob), blob_offset: 3 }
}

fn garbage(key: u64, secs: i64, nanos: u32) -> GarbageRow {
    GarbageRow { blob: blob(1, key), length: 100, since: at(secs, nanos) }
}

fn node(id: u64, uuid: &str, name: &str) -> NodeRow {
    NodeRow { id: NodeId(id), uuid: uuid.into(), name: name.into(), url: "http://h".into(), zone: "z".into() }
}

fn volume(id: u64) -> VolumeRow {
    VolumeRow { id: VolumeId(id), primary: NodeId(2), open_for: None, next_key: BlobKey(1), seq: Seq(0) }
}

/// The error of a write that must be refused with [`StoreError::Failed`].
fn refused(
    store: &Store,
    f: impl FnOnce(&mut dyn WriteTxn) -> Result<(), StoreError> + Send + 'static,
) -> String {
    match write(store, f) {
        Err(e @ StoreError::Failed { .. }) => e.to_string(),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn inode_comes_back_as_it_was_written(store: &Store) -> Done {
    let kinds = [
        FileKind::File,
        FileKind::Directory,
        FileKind::Symlink,
        FileKind::Fifo,
        FileKind::Socket,
        FileKind::CharDevice,
        FileKind::BlockDevice,
    ];
    for (i, kind) in kinds.into_iter().enumerate() {
        let mut row = inode(i as u64 + 1, kind, 77);
        row.rdev = 0x0801;
        row.collision = [None, Some(CollisionPolicy::Rename), Some(CollisionPolicy::Replace)][i % 3];
        row.md5 = (i % 2 == 0).then_some(Md5([i as u8; 16]));
        let written = row.clone();
        write(store, move |txn| txn.put_inode(&written))?;
        let ino = row.ino;
        assert_eq!(read(store, move |txn| txn.inode(ino))?, Some(row));
    }
    Ok(())
}

fn inode_is_replaced(store: &Store) -> Done {
    write(store, |txn| txn.put_inode(&InodeRow { md5: Some(Md5([1; 16])), ..file(5) }))?;
    write(store, |txn| txn.put_inode(&InodeRow { size: 9, mode: 0o600, ..file(5) }))?;
    let expected = InodeRow { size: 9, mode: 0o600, ..file(5) };
    assert_eq!(read(store, |txn| txn.inode(Ino(5)))?, Some(expected));
    Ok(())
}

fn extreme_values_of_an_inode_survive(store: &Store) -> Done {
    const MAX: u64 = i64::MAX as u64;
    let row = InodeRow {
        mode: 0o7777,
        nlink: u32::MAX,
        uid: u32::MAX,
        gid: u32::MAX,
        rdev: u32::MAX,
        size: MAX,
        allocated: MAX,
        atime: at(i64::MIN, 0),
        mtime: at(i64::MAX, 999_999_999),
        ctime: at(-1, 1),
        version: Version(MAX),
        parent: Ino(MAX),
        ..file(MAX)
    };
    let written = row.clone();
    write(store, move |txn| txn.put_inode(&written))?;
    assert_eq!(read(store, |txn| txn.inode(Ino(MAX)))?, Some(row));
    Ok(())
}

fn absent_rows_are_none_and_may_be_deleted(store: &Store) -> Done {
    for absent in [7, u64::MAX] {
        write(store, move |txn| {
            assert_eq!(txn.inode(Ino(absent))?, None);
            assert_eq!(txn.dentry(Ino(absent), b"a")?, None);
            assert_eq!(txn.dentries(Ino(absent), DirCookie(0), 9)?, []);
            assert_eq!(txn.dentries(Ino(1), DirCookie(absent), 9)?, []);
            assert!(!txn.has_dentries(Ino(absent))?);
            assert_eq!(txn.extents(Ino(absent), 0, 9)?, []);
            assert_eq!(txn.extents(Ino(1), absent, 9)?, []);
            assert!(!txn.blob_in_use(blob(absent, 1))? && !txn.blob_in_use(blob(1, absent))?);
            assert_eq!(txn.symlink(Ino(absent))?, None);
            assert_eq!(txn.xattr(Ino(absent), b"a")?, None);
            assert_eq!(txn.xattr_names(Ino(absent))?, Vec::<Vec<u8>>::new());
            assert_eq!(txn.orphans(Ino(absent), 9)?, []);
            assert_eq!(txn.call_result(SessionId(absent), 1)?, None);
            assert_eq!(txn.call_result(SessionId(1), absent)?, None);
            txn.delete_inode(Ino(absent))?;
            txn.delete_dentry(Ino(absent), b"a")?;
            txn.delete_extent(Ino(absent), 0)?;
            txn.delete_extent(Ino(1), absent)?;
            txn.delete_xattr(Ino(absent), b"a")?;
            txn.delete_orphan(Ino(absent))?;
            txn.delete_garbage(blob(absent, absent))?;
            txn.delete_node(NodeId(absent))?;
            txn.delete_copy(VolumeId(absent), NodeId(absent))?;
            txn.delete_session(SessionId(absent))?;
            txn.delete_call_results_below(SessionId(absent), absent)?;
            txn.raise_volume_seq(VolumeId(absent), Seq(1))?;
            txn.set_volume_next_key(VolumeId(absent), BlobKey(1))
        })?;
    }
    assert_eq!(read(store, |txn| txn.setting("absent"))?, None);
    Ok(())
}

fn numbers_that_cannot_be_kept_are_refused(store: &Store) -> Done {
    const TOO_LARGE: u64 = i64::MAX as u64 + 1;
    let message = refused(store, |txn| txn.put_inode(&InodeRow { size: TOO_LARGE, ..file(5) }));
    assert!(message.contains("size 9223372036854775808"), "{message}");
    refused(store, |txn| txn.put_inode(&file(TOO_LARGE)));
    refused(store, |txn| txn.put_dentry(&dentry(1, b"a", TOO_LARGE, 2)));
    refused(store, |txn| txn.put_extent(Ino(1), &extent(0, 1, blob(1, TOO_LARGE))));
    refused(store, |txn| txn.put_orphan(Ino(TOO_LARGE)));
    refused(store, |txn| txn.put_xattr(Ino(TOO_LARGE), b"a", b"b"));
    refused(store, |txn| txn.put_symlink(Ino(TOO_LARGE), b"a"));
    refused(store, |txn| txn.put_garbage(&garbage(TOO_LARGE, 1, 1)));
    refused(store, |txn| txn.put_volume(&VolumeRow { seq: Seq(TOO_LARGE), ..volume(1) }));
    refused(store, |txn| txn.raise_volume_seq(VolumeId(1), Seq(TOO_LARGE)));
    refused(store, |txn| txn.put_call_result(SessionId(1), TOO_LARGE, b""));
    assert_eq!(read(store, |txn| txn.inode(Ino(5)))?, None);
    Ok(())
}

fn delete_inode_takes_symlink_and_xattrs_along(store: &Store) -> Done {
    write(store, |txn| {
        for ino in [3, 4] {
            txn.put_inode(&inode(ino, FileKind::Symlink, 6))?;
            txn.put_symlink(Ino(ino), b"target")?;
            txn.put_xattr(Ino(ino), b"user.a", b"1")?;
            txn.put_xattr(Ino(ino), b"user.b", b"2")?;
        }
        txn.delete_inode(Ino(3))
    })?;
    read(store, |txn| {
        assert_eq!(txn.inode(Ino(3))?, None);
        assert_eq!(txn.symlink(Ino(3))?, None);
        assert_eq!(txn.xattr_names(Ino(3))?, Vec::<Vec<u8>>::new());
        assert_eq!(txn.xattr(Ino(3), b"user.a")?, None);
        assert_eq!(txn.symlink(Ino(4))?.as_deref(), Some(&b"target"[..]));
        assert_eq!(txn.xattr_names(Ino(4))?.len(), 2);
        Ok(())
    })
}

fn dentry_is_found_by_its_exact_name(store: &Store) -> Done {
    let names: [&[u8]; 6] = [b"a", b"A", b"a ", b"1", b"\xff\xfe", b"a-rather-long-name"];
    write(store, move |txn| {
        names.iter().zip(20..).try_for_each(|(name, i)| txn.put_dentry(&dentry(1, name, i, i + 100)))
    })?;
    for (name, i) in names.into_iter().zip(20..) {
        assert_eq!(read(store, move |txn| txn.dentry(Ino(1), name))?, Some(dentry(1, name, i, i + 100)));
        assert_eq!(read(store, move |txn| txn.dentry(Ino(2), name))?, None);
    }
    write(store, |txn| txn.delete_dentry(Ino(1), b"a"))?;
    assert_eq!(read(store, |txn| txn.dentry(Ino(1), b"a"))?, None);
    assert!(read(store, |txn| txn.dentry(Ino(1), b"A"))?.is_some());
    Ok(())
}

fn dentries_come_by_cookie_in_pages(store: &Store) -> Done {
    write(store, |txn| {
        for cookie in [23, 20, 25, 21, 24, 22] {
            txn.put_inode(&file(cookie + 100))?;
            txn.put_dentry(&dentry(1, format!("n{}", 99 - cookie).as_bytes(), cookie, cookie + 100))?;
        }
        txn.put_dentry(&dentry(2, b"other", 19, 120))
    })?;
    let page = |after, limit| {
        read(store, move |txn| txn.dentries(Ino(1), DirCookie(after), limit)).map(|page| {
            page.into_iter()
                .map(|(d, i)| {
                    assert_eq!((i.ino, i), (d.ino, file(d.cookie.0 + 100)));
                    d.cookie.0
                })
                .collect::<Vec<_>>()
        })
    };
    assert_eq!(page(0, 3)?, [20, 21, 22]);
    assert_eq!(page(22, 3)?, [23, 24, 25]);
    assert_eq!(page(25, 3)?, Vec::<u64>::new());
    assert_eq!(page(0, 0)?, Vec::<u64>::new());
    assert_eq!(page(0, u32::MAX)?.len(), 6);
    Ok(())
}

fn replaced_dentry_gives_up_its_cookie(store: &Store) -> Done {
    write(store, |txn| {
        txn.put_inode(&file(7))?;
        txn.put_dentry(&dentry(1, b"a", 20, 7))?;
        txn.put_dentry(&dentry(1, b"a", 30, 7))?;
        txn.put_dentry(&dentry(1, b"b", 20, 7))
    })?;
    let listed = read(store, |txn| txn.dentries(Ino(1), DirCookie(0), 9))?;
    let listed: Vec<_> = listed.into_iter().map(|(dentry, _)| dentry).collect();
    assert_eq!(listed, [dentry(1, b"b", 20, 7), dentry(1, b"a", 30, 7)]);
    Ok(())
}

fn cookie_of_another_dentry_is_refused(store: &Store) -> Done {
    write(store, |txn| txn.put_dentry(&dentry(1, b"a", 20, 7)))?;
    refused(store, |txn| txn.put_dentry(&dentry(1, b"b", 20, 7)));
    assert!(read(store, |txn| txn.dentry(Ino(1), b"a"))?.is_some());
    write(store, |txn| txn.put_dentry(&dentry(2, b"b", 20, 7)))
}

fn dentry_without_inode_is_corrupt(store: &Store) -> Done {
    write(store, |txn| txn.put_dentry(&dentry(1, b"a", 20, 7)))?;
    match read(store, |txn| txn.dentries(Ino(1), DirCookie(0), 9)) {
        Err(StoreError::Corrupt(message)) => assert!(message.contains("inode 7"), "{message}"),
        other => panic!("expected Corrupt, got {other:?}"),
    }
    Ok(())
}

fn has_dentries_sees_the_directory_only(store: &Store) -> Done {
    write(store, |txn| {
        txn.put_dentry(&dentry(1, b"a", 20, 7))?;
        txn.put_dentry(&dentry(3, b"a", 20, 7))
    })?;
    read(store, |txn| {
        assert!(txn.has_dentries(Ino(1))? && !txn.has_dentries(Ino(2))? && txn.has_dentries(Ino(3))?);
        Ok(())
    })
}

fn offsets(store: &Store, ino: u64, from: u64, limit: u32) -> Result<Vec<u64>, StoreError> {
    let page = read(store, move |txn| txn.extents(Ino(ino), from, limit))?;
    Ok(page.into_iter().map(|e| e.offset).collect())
}

fn extents_come_by_offset_in_pages(store: &Store) -> Done {
    write(store, |txn| {
        [40, 0, 30, 20]
            .into_iter()
            .try_for_each(|at| txn.put_extent(Ino(5), &extent(at, 10, blob(1, at))))?;
        txn.put_extent(Ino(4), &extent(5, 10, blob(1, 5)))?;
        txn.put_extent(Ino(6), &extent(5, 10, blob(1, 5)))
    })?;
    assert_eq!(offsets(store, 5, 0, 3)?, [0, 20, 30]);
    assert_eq!(offsets(store, 5, 40, 3)?, [40]);
    assert_eq!(offsets(store, 5, 0, 0)?, Vec::<u64>::new());
    let whole = read(store, |txn| txn.extents(Ino(5), 20, 1))?;
    assert_eq!(whole, [extent(20, 10, blob(1, 20))]);
    Ok(())
}

fn extents_begin_with_the_one_that_covers_from(store: &Store) -> Done {
    write(store, |txn| {
        [10, 20, 50].into_iter().try_for_each(|at| txn.put_extent(Ino(5), &extent(at, 10, blob(1, at))))
    })?;
    for (from, expected) in [
        (0, vec![10, 20, 50]),
        (10, vec![10, 20, 50]),
        (19, vec![10, 20, 50]),
        (20, vec![20, 50]),
        (29, vec![20, 50]),
        (30, vec![50]),
        (49, vec![50]),
        (59, vec![50]),
        (60, vec![]),
    ] {
        assert_eq!(offsets(store, 5, from, 9)?, expected, "from {from}");
        assert_eq!(offsets(store, 5, from, 1)?, expected[..expected.len().min(1)], "first from {from}");
    }
    Ok(())
}

fn put_extent_replaces_the_one_at_its_offset(store: &Store) -> Done {
    write(store, |txn| {
        txn.put_extent(Ino(5), &extent(0, 10, blob(1, 1)))?;
        txn.put_extent(Ino(5), &extent(0, 4, blob(2, 2)))?;
        txn.put_extent(Ino(5), &extent(4, 6, blob(3, 3)))
    })?;
    read(store, |txn| {
        assert_eq!(txn.extents(Ino(5), 0, 9)?, [extent(0, 4, blob(2, 2)), extent(4, 6, blob(3, 3))]);
        assert!(!txn.blob_in_use(blob(1, 1))? && txn.blob_in_use(blob(2, 2))?);
        Ok(())
    })?;
    write(store, |txn| txn.delete_extent(Ino(5), 0))?;
    assert_eq!(offsets(store, 5, 0, 9)?, [4]);
    Ok(())
}

fn extents_that_make_no_sense_are_refused(store: &Store) -> Done {
    refused(store, |txn| txn.put_extent(Ino(5), &extent(0, 0, blob(1, 1))));
    refused(store, |txn| txn.put_extent(Ino(5), &Extent { blob: None, ..extent(0, 1, blob(1, 1)) }));
    refused(store, |txn| txn.put_extent(Ino(5), &extent(i64::MAX as u64, 1, blob(1, 1))));
    refused(store, |txn| txn.put_extent(Ino(5), &Extent { length: u64::MAX, ..extent(9, 1, blob(1, 1)) }));
    assert_eq!(offsets(store, 5, 0, 9)?, Vec::<u64>::new());
    Ok(())
}

fn blob_in_use_counts_every_file(store: &Store) -> Done {
    write(store, |txn| {
        txn.put_extent(Ino(5), &extent(0, 1, blob(7, 8)))?;
        txn.put_extent(Ino(5), &extent(9, 1, blob(7, 8)))?;
        txn.put_extent(Ino(6), &extent(0, 1, blob(7, 8)))
    })?;
    for (ino, offset) in [(5, 0), (6, 0), (5, 9)] {
        assert!(read(store, |txn| txn.blob_in_use(blob(7, 8)))?);
        write(store, move |txn| txn.delete_extent(Ino(ino), offset))?;
    }
    read(store, |txn| {
        assert!(!txn.blob_in_use(blob(7, 8))? && !txn.blob_in_use(blob(7, 9))?);
        Ok(())
    })
}

fn symlinks_and_xattrs_keep_any_bytes(store: &Store) -> Done {
    let large = vec![0xa5; 65_536];
    let value = large.clone();
    write(store, move |txn| {
        txn.put_symlink(Ino(5), b"old")?;
        txn.put_symlink(Ino(5), b"\xff../\x00x")?;
        txn.put_xattr(Ino(5), b"user.z", b"")?;
        txn.put_xattr(Ino(5), b"user.\xff", b"old")?;
        txn.put_xattr(Ino(5), b"user.\xff", &value)?;
        txn.put_xattr(Ino(5), b"user.a", b"1")?;
        txn.put_xattr(Ino(5), b"user.gone", b"1")?;
        txn.delete_xattr(Ino(5), b"user.gone")
    })?;
    read(store, move |txn| {
        assert_eq!(txn.symlink(Ino(5))?.as_deref(), Some(&b"\xff../\x00x"[..]));
        assert_eq!(txn.xattr(Ino(5), b"user.z")?, Some(vec![]));
        assert_eq!(txn.xattr(Ino(5), b"user.\xff")?, Some(large));
        assert_eq!(txn.xattr_names(Ino(5))?, [&b"user.a"[..], b"user.z", b"user.\xff"]);
        assert_eq!(txn.xattr_names(Ino(4))?, Vec::<Vec<u8>>::new());
        Ok(())
    })
}

fn orphans_come_sorted_in_pages(store: &Store) -> Done {
    write(store, |txn| {
        [9, 3, 7, 5, 3].into_iter().try_for_each(|ino| txn.put_orphan(Ino(ino)))?;
        txn.delete_orphan(Ino(5))
    })?;
    read(store, |txn| {
        assert_eq!(txn.orphans(Ino(0), 2)?, [Ino(3), Ino(7)]);
        assert_eq!(txn.orphans(Ino(7), 2)?, [Ino(9)]);
        assert_eq!(txn.orphans(Ino(0), 0)?, []);
        Ok(())
    })
}

fn garbage_comes_oldest_first(store: &Store) -> Done {
    write(store, |txn| {
        let rows =
            [garbage(4, 10, 5), garbage(1, 20, 0), garbage(3, 10, 6), garbage(2, 10, 5), garbage(5, -1, 0)];
        rows.iter().try_for_each(|row| txn.put_garbage(row))
    })?;
    let keys = |secs, nanos, limit| {
        let rows = read(store, move |txn| txn.garbage(at(secs, nanos), limit))?;
        Ok::<_, StoreError>(rows.into_iter().map(|row| row.blob.key.0).collect::<Vec<_>>())
    };
    assert_eq!(keys(100, 0, 9)?, [5, 2, 4, 3, 1]);
    assert_eq!(keys(100, 0, 2)?, [5, 2]);
    assert_eq!(keys(20, 0, 9)?, [5, 2, 4, 3]);
    assert_eq!(keys(10, 6, 9)?, [5, 2, 4]);
    assert_eq!(keys(10, 5, 9)?, [5]);
    assert_eq!(keys(-1, 0, 9)?, Vec::<u64>::new());
    write(store, |txn| txn.delete_garbage(blob(1, 2)))?;
    assert_eq!(keys(100, 0, 9)?, [5, 4, 3, 1]);
    assert_eq!(read(store, |txn| txn.garbage(at(0, 0), 1))?, [garbage(5, -1, 0)]);
    Ok(())
}

fn garbage_put_again_has_its_new_age(store: &Store) -> Done {
    write(store, |txn| {
        txn.put_garbage(&garbage(1, 10, 0))?;
        txn.put_garbage(&garbage(1, 30, 0))
    })?;
    assert_eq!(read(store, |txn| txn.garbage(at(20, 0), 9))?, []);
    assert_eq!(read(store, |txn| txn.garbage(at(40, 0), 9))?, [garbage(1, 30, 0)]);
    Ok(())
}

fn nodes_are_kept(store: &Store) -> Done {
    write(store, |txn| {
        txn.put_node(&node(3, "u3", "three"))?;
        txn.put_node(&node(1, "u1", "one"))?;
        txn.put_node(&node(2, "u2", "two"))?;
        txn.put_node(&NodeRow { url: "http://moved".into(), ..node(1, "u1", "uno") })?;
        txn.delete_node(NodeId(2))
    })?;
    let moved = NodeRow { url: "http://moved".into(), ..node(1, "u1", "uno") };
    assert_eq!(read(store, |txn| txn.nodes())?, [moved, node(3, "u3", "three")]);
    Ok(())
}

fn nodes_do_not_share_a_name_or_identity(store: &Store) -> Done {
    write(store, |txn| txn.put_node(&node(1, "u1", "one")))?;
    refused(store, |txn| txn.put_node(&node(2, "u1", "two")));
    refused(store, |txn| txn.put_node(&node(2, "u2", "one")));
    assert_eq!(read(store, |txn| txn.nodes())?, [node(1, "u1", "one")]);
    Ok(())
}

fn volumes_are_kept(store: &Store) -> Done {
    let open = VolumeRow { open_for: Some(u64::MAX), ..volume(1) };
    write(store, move |txn| {
        txn.put_volume(&volume(2))?;
        txn.put_volume(&open)?;
        txn.put_volume(&VolumeRow { open_for: Some(5), ..volume(3) })?;
        txn.put_volume(&volume(3))?;
        txn.set_volume_next_key(VolumeId(2), BlobKey(256))
    })?;
    let moved = VolumeRow { next_key: BlobKey(256), ..volume(2) };
    assert_eq!(read(store, |txn| txn.volumes())?, [open, moved, volume(3)]);
    Ok(())
}

fn volume_seq_only_rises(store: &Store) -> Done {
    write(store, |txn| {
        txn.put_volume(&volume(1))?;
        txn.raise_volume_seq(VolumeId(1), Seq(5))?;
        txn.raise_volume_seq(VolumeId(1), Seq(3))
    })?;
    assert_eq!(read(store, |txn| txn.volumes())?[0].seq, Seq(5));
    Ok(())
}

fn copies_are_kept(store: &Store) -> Done {
    let copy = |v, n, s| CopyRow { volume: VolumeId(v), node: NodeId(n), seq: Seq(s) };
    write(store, move |txn| {
        let rows = [copy(2, 1, 0), copy(1, 9, 4), copy(1, 2, 0), copy(1, 9, 5), copy(3, 3, 3)];
        rows.iter().try_for_each(|row| txn.put_copy(row))?;
        txn.delete_copy(VolumeId(3), NodeId(3))
    })?;
    assert_eq!(read(store, |txn| txn.copies())?, [copy(1, 2, 0), copy(1, 9, 5), copy(2, 1, 0)]);
    Ok(())
}

fn call_results_are_kept_per_session(store: &Store) -> Done {
    let session = |id| SessionRow { id: SessionId(id), client: format!("client {id}") };
    write(store, move |txn| {
        for id in [2, 1] {
            txn.put_session(&session(id))?;
            (1..=4).try_for_each(|seq| txn.put_call_result(SessionId(id), seq, &[id as u8, seq as u8]))?;
        }
        txn.put_call_result(SessionId(1), 4, b"again")?;
        txn.delete_call_results_below(SessionId(1), 3)?;
        txn.delete_call_results_below(SessionId(1), 0)
    })?;
    read(store, move |txn| {
        assert_eq!(txn.sessions()?, [session(1), session(2)]);
        assert_eq!(txn.call_result(SessionId(1), 2)?, None);
        assert_eq!(txn.call_result(SessionId(1), 3)?, Some(vec![1, 3]));
        assert_eq!(txn.call_result(SessionId(1), 4)?.as_deref(), Some(&b"again"[..]));
        assert_eq!(txn.call_result(SessionId(2), 1)?, Some(vec![2, 1]));
        Ok(())
    })?;
    write(store, |txn| txn.delete_session(SessionId(1)))?;
    read(store, move |txn| {
        assert_eq!(txn.sessions()?, [session(2)]);
        assert_eq!(txn.call_result(SessionId(1), 4)?, None);
        assert_eq!(txn.call_result(SessionId(2), 4)?, Some(vec![2, 4]));
        Ok(())
    })
}

fn settings_are_kept(store: &Store) -> Done {
    write(store, |txn| {
        txn.put_setting("name", "old")?;
        txn.put_setting("name", "näme")?;
        txn.put_setting("NAME", "")
    })?;
    assert_eq!(read(store, |txn| txn.setting("name"))?.as_deref(), Some("näme"));
    assert_eq!(read(store, |txn| txn.setting("NAME"))?.as_deref(), Some(""));
    Ok(())
}

fn counters_begin_where_they_should(store: &Store) -> Done {
    for (counter, first) in [
        (Counter::Inode, 2),
        (Counter::Cookie, DirCookie::RESERVED + 1),
        (Counter::Node, 1),
        (Counter::Volume, 1),
        (Counter::Session, 1),
        (Counter::Order, 1),
    ] {
        assert_eq!(write(store, move |txn| txn.take(counter, 1))?, first, "{counter:?}");
    }
    Ok(())
}

fn counters_never_hand_out_twice(store: &Store) -> Done {
    let mut next = Counter::Inode.first();
    for count in [1, 10, 0, 65_536, 1] {
        assert_eq!(write(store, move |txn| txn.take(Counter::Inode, count))?, next);
        next += count;
    }
    assert_eq!(write(store, |txn| Ok((txn.take(Counter::Node, 2)?, txn.take(Counter::Node, 2)?)))?, (1, 3));
    Ok(())
}

fn exhausted_counter_is_an_error(store: &Store) -> Done {
    let left = i64::MAX as u64 - 1;
    for too_many in [u64::MAX, i64::MAX as u64, left + 1] {
        refused(store, move |txn| txn.take(Counter::Node, too_many).map(drop));
    }
    assert_eq!(write(store, move |txn| txn.take(Counter::Node, left))?, 1);
    refused(store, |txn| txn.take(Counter::Node, 1).map(drop));
    Ok(())
}

fn stats_follow_every_change(store: &Store) -> Done {
    let stats = || read(store, |txn| txn.stats());
    assert_eq!(stats()?, StoreStats::default());
    write(store, |txn| {
        txn.put_inode(&inode(1, FileKind::Directory, 4096))?;
        txn.put_inode(&inode(2, FileKind::File, 10))?;
        txn.put_inode(&inode(3, FileKind::File, 20))?;
        txn.put_inode(&inode(4, FileKind::Symlink, 5))?;
        assert_eq!(txn.stats()?, StoreStats { files: 2, directories: 1, inodes: 4, file_bytes: 30 });
        txn.put_inode(&inode(2, FileKind::File, 100))?;
        txn.put_inode(&inode(4, FileKind::Symlink, 7))
    })?;
    assert_eq!(stats()?, StoreStats { files: 2, directories: 1, inodes: 4, file_bytes: 120 });
    write(store, |txn| [1, 3, 3].into_iter().try_for_each(|ino| txn.delete_inode(Ino(ino))))?;
    assert_eq!(stats()?, StoreStats { files: 1, directories: 0, inodes: 2, file_bytes: 100 });
    let undone: Done = write(store, |txn| {
        txn.delete_inode(Ino(2))?;
        Err(StoreError::Closed)
    });
    assert!(undone.is_err());
    write(store, |txn| {
        txn.begin_savepoint()?;
        txn.put_inode(&inode(9, FileKind::File, 1))?;
        txn.end_savepoint(false)?;
        assert_eq!(txn.stats()?.files, 1);
        Ok(())
    })?;
    assert_eq!(stats()?, StoreStats { files: 1, directories: 0, inodes: 2, file_bytes: 100 });
    Ok(())
}

fn stats_saturate(store: &Store) -> Done {
    let huge = |ino| inode(ino, FileKind::File, i64::MAX as u64);
    write(store, move |txn| (1..=4).try_for_each(|ino| txn.put_inode(&huge(ino))))?;
    assert_eq!(read(store, |txn| txn.stats())?.file_bytes, u64::MAX);
    write(store, |txn| (1..=3).try_for_each(|ino| txn.delete_inode(Ino(ino))))?;
    assert_eq!(read(store, |txn| txn.stats())?.file_bytes, i64::MAX as u64);
    Ok(())
}

fn setting(store: &Store, key: &'static str) -> Result<Option<String>, StoreError> {
    read(store, move |txn| txn.setting(key))
}

fn savepoint_kept_stays(store: &Store) -> Done {
    write(store, |txn| {
        txn.begin_savepoint()?;
        txn.put_setting("a", "1")?;
        txn.end_savepoint(true)
    })?;
    assert_eq!(setting(store, "a")?.as_deref(), Some("1"));
    Ok(())
}

fn savepoint_undone_is_gone(store: &Store) -> Done {
    write(store, |txn| {
        txn.put_setting("a", "1")?;
        txn.begin_savepoint()?;
        txn.put_setting("a", "2")?;
        txn.put_setting("b", "2")?;
        assert_eq!(txn.setting("a")?.as_deref(), Some("2"));
        txn.end_savepoint(false)?;
        assert_eq!(txn.setting("a")?.as_deref(), Some("1"));
        txn.put_setting("c", "3")
    })?;
    assert_eq!(setting(store, "a")?.as_deref(), Some("1"));
    assert_eq!(setting(store, "b")?, None);
    assert_eq!(setting(store, "c")?.as_deref(), Some("3"));
    Ok(())
}

fn savepoints_nest(store: &Store) -> Done {
    write(store, |txn| {
        txn.begin_savepoint()?;
        txn.put_setting("outer", "1")?;
        txn.begin_savepoint()?;
        txn.put_setting("undone", "1")?;
        txn.end_savepoint(false)?;
        txn.begin_savepoint()?;
        txn.put_setting("kept", "1")?;
        txn.end_savepoint(true)?;
        txn.end_savepoint(true)?;
        txn.begin_savepoint()?;
        txn.begin_savepoint()?;
        txn.put_setting("kept in undone", "1")?;
        txn.end_savepoint(true)?;
        txn.end_savepoint(false)
    })?;
    assert!(setting(store, "outer")?.is_some() && setting(store, "kept")?.is_some());
    assert_eq!(setting(store, "undone")?, None);
    assert_eq!(setting(store, "kept in undone")?, None);
    Ok(())
}

/// One row in every table.
fn fill(txn: &mut dyn WriteTxn) -> Done {
    txn.put_inode(&file(7))?;
    txn.put_dentry(&dentry(1, b"a", 20, 7))?;
    txn.put_extent(Ino(7), &extent(0, 10, blob(1, 1)))?;
    txn.put_symlink(Ino(7), b"t")?;
    txn.put_xattr(Ino(7), b"x", b"v")?;
    txn.put_orphan(Ino(7))?;
    txn.put_garbage(&garbage(1, 1, 1))?;
    txn.put_node(&node(1, "u", "n"))?;
    txn.put_volume(&volume(1))?;
    txn.put_copy(&CopyRow { volume: VolumeId(1), node: NodeId(1), seq: Seq(1) })?;
    txn.put_session(&SessionRow { id: SessionId(1), client: "c".into() })?;
    txn.put_call_result(SessionId(1), 1, b"r")?;
    txn.put_setting("k", "v")
}

/// Everything that [`fill`] can have written, to compare.
fn seen(txn: &dyn ReadTxn) -> Result<String, StoreError> {
    Ok(format!(
        "{:?}",
        (
            (txn.inode(Ino(7))?, txn.dentry(Ino(1), b"a")?, txn.dentries(Ino(1), DirCookie(0), 9)?),
            (txn.has_dentries(Ino(1))?, txn.extents(Ino(7), 0, 9)?, txn.blob_in_use(blob(1, 1))?),
            (txn.symlink(Ino(7))?, txn.xattr_names(Ino(7))?, txn.orphans(Ino(0), 9)?),
            (txn.garbage(at(9, 9), 9)?, txn.nodes()?, txn.volumes()?, txn.copies()?),
            (txn.sessions()?, txn.call_result(SessionId(1), 1)?, txn.setting("k")?, txn.stats()?),
        )
    ))
}

fn empty_all(txn: &mut dyn WriteTxn) -> Done {
    txn.delete_extent(Ino(7), 0)?;
    txn.delete_inode(Ino(7))?;
    txn.delete_dentry(Ino(1), b"a")?;
    txn.delete_orphan(Ino(7))?;
    txn.delete_garbage(blob(1, 1))?;
    txn.delete_node(NodeId(1))?;
    txn.raise_volume_seq(VolumeId(1), Seq(99))?;
    txn.set_volume_next_key(VolumeId(1), BlobKey(99))?;
    txn.delete_copy(VolumeId(1), NodeId(1))?;
    txn.delete_session(SessionId(1))?;
    txn.put_setting("k", "other")
}

fn undone_savepoint_restores_every_table(store: &Store) -> Done {
    write(store, |txn| {
        let empty = seen(txn)?;
        txn.begin_savepoint()?;
        fill(txn)?;
        txn.end_savepoint(false)?;
        assert_eq!(seen(txn)?, empty);
        fill(txn)?;
        let full = seen(txn)?;
        assert_ne!(full, empty);
        txn.begin_savepoint()?;
        empty_all(txn)?;
        assert_ne!(seen(txn)?, full);
        txn.end_savepoint(false)?;
        assert_eq!(seen(txn)?, full);
        Ok(())
    })
}

fn error_undoes_the_call(store: &Store) -> Done {
    #[derive(Debug, PartialEq)]
    enum Refusal {
        Mine,
        Store(StoreError),
    }
    impl From<StoreError> for Refusal {
        fn from(e: StoreError) -> Refusal {
            Refusal::Store(e)
        }
    }
    let before = read(store, seen)?;
    let result: Result<(), Refusal> = store.write_blocking(Durability::Process, |txn| {
        fill(txn)?;
        txn.take(Counter::Inode, 100)?;
        txn.begin_savepoint()?;
        Err(Refusal::Mine)
    });
    assert_eq!(result, Err(Refusal::Mine));
    assert_eq!(read(store, seen)?, before);
    assert_eq!(write(store, |txn| txn.take(Counter::Inode, 1))?, Counter::Inode.first());
    Ok(())
}

fn store_error_undoes_the_call_even_if_swallowed(store: &Store) -> Done {
    let message = refused(store, |txn| {
        txn.put_setting("a", "1")?;
        assert!(txn.put_orphan(Ino(u64::MAX)).is_err());
        txn.put_setting("b", "1")
    });
    assert!(message.contains("18446744073709551615"), "{message}");
    assert_eq!(setting(store, "a")?, None);
    assert_eq!(setting(store, "b")?, None);
    write(store, |txn| txn.put_setting("a", "2"))
}

fn savepoint_left_open_undoes_the_call(store: &Store) -> Done {
    refused(store, |txn| {
        txn.put_setting("a", "1")?;
        txn.begin_savepoint()
    });
    assert_eq!(setting(store, "a")?, None);
    write(store, |txn| txn.put_setting("a", "2"))
}

fn savepoint_never_begun_is_an_error(store: &Store) -> Done {
    for keep in [true, false] {
        refused(store, move |txn| {
            txn.put_setting("a", "1")?;
            txn.end_savepoint(keep)
        });
    }
    assert_eq!(setting(store, "a")?, None);
    Ok(())
}

fn panic_undoes_the_call_and_the_store_goes_on(store: &Store) -> Done {
    let message = refused(store, |txn| {
        txn.put_setting("a", "1")?;
        txn.begin_savepoint()?;
        panic!("on purpose");
    });
    assert!(message.contains("on purpose"), "{message}");
    assert_eq!(setting(store, "a")?, None);
    write(store, |txn| txn.put_setting("b", "1"))?;
    assert!(setting(store, "b")?.is_some());
    Ok(())
}

fn panic_in_a_read_is_an_error(store: &Store) -> Done {
    // More often than there are connections to lose.
    for _ in 0..20 {
        let result: Done = read(store, |txn| {
            txn.setting("a")?;
            panic!("on purpose")
        });
        assert!(matches!(result, Err(StoreError::Failed { .. })), "{result:?}");
    }
    assert_eq!(setting(store, "a")?, None);
    Ok(())
}

fn write_sees_its_own_writes(store: &Store) -> Done {
    write(store, |txn| {
        fill(txn)?;
        assert!(txn.has_dentries(Ino(1))? && txn.blob_in_use(blob(1, 1))?);
        assert_eq!(txn.dentries(Ino(1), DirCookie(0), 9)?.len(), 1);
        assert_eq!(txn.stats()?.files, 1);
        empty_all(txn)?;
        assert!(!txn.has_dentries(Ino(1))? && !txn.blob_in_use(blob(1, 1))?);
        assert_eq!(txn.stats()?.files, 0);
        Ok(())
    })
}

fn read_sees_what_was_answered(store: &Store) -> Done {
    for i in 0..50 {
        write(store, move |txn| txn.put_setting("i", &i.to_string()))?;
        assert_eq!(setting(store, "i")?, Some(i.to_string()));
    }
    Ok(())
}

fn both_durabilities_commit(store: &Store) -> Done {
    for durability in [Durability::Disk, Durability::Process, Durability::Disk] {
        let key = if durability == Durability::Disk { "disk" } else { "process" };
        store.write_blocking::<_, StoreError>(durability, move |txn| txn.put_setting(key, "1"))?;
        assert!(setting(store, key)?.is_some());
    }
    // Nothing to write, but everything before has to be on the disk.
    store.write_blocking::<_, StoreError>(Durability::Disk, |_| Ok(()))
}

fn many_writers_at_once_all_commit(store: &Store) -> Done {
    const WRITERS: u64 = 8;
    const CALLS: u64 = 25;
    std::thread::scope(|scope| {
        for _ in 0..WRITERS {
            scope.spawn(|| {
                for call in 0..CALLS {
                    let result = write(store, move |txn| {
                        let ino = txn.take(Counter::Inode, 1)?;
                        txn.put_inode(&inode(ino, FileKind::File, 1))?;
                        if call % 5 == 4 { Err(StoreError::Full) } else { Ok(()) }
                    });
                    assert_eq!(result.is_err(), call % 5 == 4, "{result:?}");
                }
            });
        }
    });
    let kept = WRITERS * CALLS * 4 / 5;
    let stats = StoreStats { files: kept, directories: 0, inodes: kept, file_bytes: kept };
    assert_eq!(read(store, |txn| txn.stats())?, stats);
    assert_eq!(write(store, |txn| txn.take(Counter::Inode, 1))?, Counter::Inode.first() + kept);
    Ok(())
}

fn clones_are_one_store(store: &Store) -> Done {
    let other = store.clone();
    write(&other, |txn| txn.put_setting("a", "1"))?;
    drop(other);
    assert!(setting(store, "a")?.is_some());
    Ok(())
}

fn closed_store_says_so(store: &Store) -> Done {
    let other = store.clone();
    store.close();
    store.close();
    assert_eq!(setting(&other, "a"), Err(StoreError::Closed));
    assert_eq!(write(&other, |txn| txn.put_setting("a", "1")), Err(StoreError::Closed));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_passes() {
        all(Store::in_memory);
    }

    #[test]
    fn sqlite_passes() {
        let directory = tempfile::tempdir().unwrap();
        let mut databases = 0;
        all(|| {
            databases += 1;
            Store::open_sqlite(&directory.path().join(format!("{databases}.db"))).unwrap()
        });
    }
}
