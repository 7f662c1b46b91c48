//! Totals, savepoints, and what a call leaves behind however it ends.

use super::*;

pub(super) fn stats_follow_every_change(store: &Store) -> Done {
    let stats = || read(store, |txn| txn.stats());
    assert_eq!(stats()?, StoreStats::default());
    write(store, |txn| {
        txn.put_inode(&inode(1, FileKind::Directory, 4096))?;
        txn.put_inode(&inode(2, FileKind::File, 10))?;
        txn.put_inode(&inode(3, FileKind::File, 20))?;
        txn.put_inode(&inode(4, FileKind::Symlink, 5))?;
        assert_eq!(
            txn.stats()?,
            StoreStats { files: 2, directories: 1, inodes: 4, file_bytes: 30, locks: 0 }
        );
        txn.put_inode(&inode(2, FileKind::File, 100))?;
        txn.put_inode(&inode(4, FileKind::Symlink, 7))
    })?;
    assert_eq!(stats()?, StoreStats { files: 2, directories: 1, inodes: 4, file_bytes: 120, locks: 0 });
    write(store, |txn| [1, 3, 3].into_iter().try_for_each(|ino| txn.delete_inode(Ino(ino))))?;
    assert_eq!(stats()?, StoreStats { files: 1, directories: 0, inodes: 2, file_bytes: 100, locks: 0 });
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
    assert_eq!(stats()?, StoreStats { files: 1, directories: 0, inodes: 2, file_bytes: 100, locks: 0 });
    Ok(())
}

pub(super) fn stats_saturate(store: &Store) -> Done {
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

pub(super) fn savepoint_kept_stays(store: &Store) -> Done {
    write(store, |txn| {
        txn.begin_savepoint()?;
        txn.put_setting("a", "1")?;
        txn.end_savepoint(true)
    })?;
    assert_eq!(setting(store, "a")?.as_deref(), Some("1"));
    Ok(())
}

pub(super) fn savepoint_undone_is_gone(store: &Store) -> Done {
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

pub(super) fn savepoints_nest(store: &Store) -> Done {
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
    txn.put_lock(&locks::whole(7, 1, 1))?;
    txn.put_lock(&locks::whole(8, 1, 1))?;
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
            (txn.locks(Ino(7))?, txn.locks(Ino(8))?),
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
    assert_eq!(txn.delete_session(SessionId(1))?, [Ino(8)]);
    txn.put_setting("k", "other")
}

pub(super) fn undone_savepoint_restores_every_table(store: &Store) -> Done {
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

pub(super) fn error_undoes_the_call(store: &Store) -> Done {
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

pub(super) fn store_error_undoes_the_call_even_if_swallowed(store: &Store) -> Done {
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

pub(super) fn savepoint_left_open_undoes_the_call(store: &Store) -> Done {
    refused(store, |txn| {
        txn.put_setting("a", "1")?;
        txn.begin_savepoint()
    });
    assert_eq!(setting(store, "a")?, None);
    write(store, |txn| txn.put_setting("a", "2"))
}

pub(super) fn savepoint_never_begun_is_an_error(store: &Store) -> Done {
    for keep in [true, false] {
        refused(store, move |txn| {
            txn.put_setting("a", "1")?;
            txn.end_savepoint(keep)
        });
    }
    assert_eq!(setting(store, "a")?, None);
    Ok(())
}

pub(super) fn panic_undoes_the_call_and_the_store_goes_on(store: &Store) -> Done {
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

pub(super) fn panic_in_a_read_is_an_error(store: &Store) -> Done {
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

pub(super) fn write_sees_its_own_writes(store: &Store) -> Done {
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

pub(super) fn read_sees_what_was_answered(store: &Store) -> Done {
    for i in 0..50 {
        write(store, move |txn| txn.put_setting("i", &i.to_string()))?;
        assert_eq!(setting(store, "i")?, Some(i.to_string()));
    }
    Ok(())
}

pub(super) fn both_durabilities_commit(store: &Store) -> Done {
    for durability in [Durability::Disk, Durability::Process, Durability::Disk] {
        let key = if durability == Durability::Disk { "disk" } else { "process" };
        store.write_blocking::<_, StoreError>(durability, move |txn| txn.put_setting(key, "1"))?;
        assert!(setting(store, key)?.is_some());
    }
    // Nothing to write, but everything before has to be on the disk.
    store.write_blocking::<_, StoreError>(Durability::Disk, |_| Ok(()))
}

pub(super) fn many_writers_at_once_all_commit(store: &Store) -> Done {
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
    let stats = StoreStats { files: kept, directories: 0, inodes: kept, file_bytes: kept, locks: 0 };
    assert_eq!(read(store, |txn| txn.stats())?, stats);
    assert_eq!(write(store, |txn| txn.take(Counter::Inode, 1))?, Counter::Inode.first() + kept);
    Ok(())
}

pub(super) fn clones_are_one_store(store: &Store) -> Done {
    let other = store.clone();
    write(&other, |txn| txn.put_setting("a", "1"))?;
    drop(other);
    assert!(setting(store, "a")?.is_some());
    Ok(())
}

pub(super) fn closed_store_says_so(store: &Store) -> Done {
    let other = store.clone();
    store.close();
    store.close();
    assert_eq!(setting(&other, "a"), Err(StoreError::Closed));
    assert_eq!(write(&other, |txn| txn.put_setting("a", "1")), Err(StoreError::Closed));
    Ok(())
}
