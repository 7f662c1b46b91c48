//! Inodes, directory entries, extents and what hangs on inodes.

use super::*;

pub(super) fn inode_comes_back_as_it_was_written(store: &Store) -> Done {
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
        row.has_acl = i % 2 == 1;
        let written = row.clone();
        write(store, move |txn| txn.put_inode(&written))?;
        let ino = row.ino;
        assert_eq!(read(store, move |txn| txn.inode(ino))?, Some(row));
    }
    Ok(())
}

pub(super) fn inode_is_replaced(store: &Store) -> Done {
    write(store, |txn| txn.put_inode(&InodeRow { md5: Some(Md5([1; 16])), ..file(5) }))?;
    write(store, |txn| txn.put_inode(&InodeRow { size: 9, mode: 0o600, ..file(5) }))?;
    let expected = InodeRow { size: 9, mode: 0o600, ..file(5) };
    assert_eq!(read(store, |txn| txn.inode(Ino(5)))?, Some(expected));
    Ok(())
}

pub(super) fn extreme_values_of_an_inode_survive(store: &Store) -> Done {
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

pub(super) fn absent_rows_are_none_and_may_be_deleted(store: &Store) -> Done {
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

pub(super) fn numbers_that_cannot_be_kept_are_refused(store: &Store) -> Done {
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

pub(super) fn delete_inode_takes_symlink_and_xattrs_along(store: &Store) -> Done {
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

pub(super) fn dentry_is_found_by_its_exact_name(store: &Store) -> Done {
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

pub(super) fn dentries_come_by_cookie_in_pages(store: &Store) -> Done {
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

pub(super) fn replaced_dentry_gives_up_its_cookie(store: &Store) -> Done {
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

pub(super) fn cookie_of_another_dentry_is_refused(store: &Store) -> Done {
    write(store, |txn| txn.put_dentry(&dentry(1, b"a", 20, 7)))?;
    refused(store, |txn| txn.put_dentry(&dentry(1, b"b", 20, 7)));
    assert!(read(store, |txn| txn.dentry(Ino(1), b"a"))?.is_some());
    write(store, |txn| txn.put_dentry(&dentry(2, b"b", 20, 7)))
}

pub(super) fn dentry_without_inode_is_corrupt(store: &Store) -> Done {
    write(store, |txn| txn.put_dentry(&dentry(1, b"a", 20, 7)))?;
    match read(store, |txn| txn.dentries(Ino(1), DirCookie(0), 9)) {
        Err(StoreError::Corrupt(message)) => assert!(message.contains("inode 7"), "{message}"),
        other => panic!("expected Corrupt, got {other:?}"),
    }
    Ok(())
}

pub(super) fn has_dentries_sees_the_directory_only(store: &Store) -> Done {
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

pub(super) fn extents_come_by_offset_in_pages(store: &Store) -> Done {
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

pub(super) fn extents_begin_with_the_one_that_covers_from(store: &Store) -> Done {
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

pub(super) fn put_extent_replaces_the_one_at_its_offset(store: &Store) -> Done {
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

pub(super) fn extents_that_make_no_sense_are_refused(store: &Store) -> Done {
    refused(store, |txn| txn.put_extent(Ino(5), &extent(0, 0, blob(1, 1))));
    refused(store, |txn| txn.put_extent(Ino(5), &Extent { blob: None, ..extent(0, 1, blob(1, 1)) }));
    refused(store, |txn| txn.put_extent(Ino(5), &extent(i64::MAX as u64, 1, blob(1, 1))));
    refused(store, |txn| txn.put_extent(Ino(5), &Extent { length: u64::MAX, ..extent(9, 1, blob(1, 1)) }));
    assert_eq!(offsets(store, 5, 0, 9)?, Vec::<u64>::new());
    Ok(())
}

pub(super) fn blob_in_use_counts_every_file(store: &Store) -> Done {
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

pub(super) fn symlinks_and_xattrs_keep_any_bytes(store: &Store) -> Done {
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
