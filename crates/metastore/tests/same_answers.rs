//! Whatever is done to the two stores, in whatever order, they give the same answers.

#![allow(clippy::unwrap_used)] // The lint spares test functions only, not their helpers.

use dfs_metastore::{
    CopyRow, Counter, DentryRow, Durability, GarbageRow, InodeRow, LockRow, NodeDuty, NodeRow, ReadTxn,
    SessionRow, Store, StoreError, VolumeRow, WriteTxn,
};
use dfs_proto::{
    BlobId, BlobKey, BlobRef, DirCookie, Extent, FileKind, Ino, LockHolder, LockMode, LockOwner, LockRange,
    LockSpace, Md5, NodeId, Seq, SessionId, Timestamp, Version, VolumeId,
};
use proptest::prelude::*;

/// Ids come from a small range, so that operations meet each other's rows.
#[derive(Clone, Debug)]
enum Op {
    Take(usize, u64),
    PutInode { ino: u64, kind: u8, size: u64 },
    DeleteInode(u64),
    PutDentry { parent: u64, name: u64, cookie: u64, ino: u64 },
    DeleteDentry(u64, u64),
    PutExtent { ino: u64, slot: u64, length: u64, key: u64 },
    DeleteExtent(u64, u64),
    PutSymlink(u64, u8),
    PutXattr(u64, u8, u8),
    DeleteXattr(u64, u8),
    PutOrphan(u64),
    DeleteOrphan(u64),
    PutLock(LockKey, u64),
    DeleteLock(LockKey),
    PutGarbage(u64, i64, u32),
    DeleteGarbage(u64),
    PutNode(u64, u64),
    DeleteNode(u64),
    PutVolume(u64, Option<u64>, u64),
    RaiseSeq(u64, u64),
    SetNextKey(u64, u64),
    PutCopy(u64, u64, u64),
    DeleteCopy(u64, u64),
    PutSession(u64),
    DeleteSession(u64),
    PutResult(u64, u64, u8),
    DeleteResultsBelow(u64, u64),
    PutSetting(u8, u8),
    Refused,
    Begin,
    End(bool),
    Look { id: u64, from: u64, limit: u32 },
}

/// Inode, session, owner, first byte, and whether it is of the whole file.
type LockKey = (u64, u64, u64, u64, bool);

const ID: std::ops::Range<u64> = 1..6;
const SLOT_BYTES: u64 = 10;

fn lock_key() -> impl Strategy<Value = LockKey> {
    (ID, ID, prop_oneof![0u64..2, Just(u64::MAX)], 0u64..3, any::<bool>())
}

fn lock((ino, session, owner, first, is_whole): LockKey, length: u64) -> LockRow {
    let space = if is_whole { LockSpace::Whole } else { LockSpace::Range };
    let mode = if length.is_multiple_of(2) { LockMode::Shared } else { LockMode::Exclusive };
    let (session, owner) = (SessionId(session), LockOwner(owner));
    let range = LockRange { first, last: first + length };
    LockRow { ino: Ino(ino), space, holder: LockHolder { session, owner, range, mode, pid: 1 } }
}

fn op() -> impl Strategy<Value = Op> {
    let namespace = prop_oneof![
        4 => (ID, 0u8..4, 0u64..1000).prop_map(|(ino, kind, size)| Op::PutInode { ino, kind, size }),
        2 => ID.prop_map(Op::DeleteInode),
        // Three cookies that only this name has; now and then one that another may have.
        4 => (ID, ID, 0u64..3, ID)
            .prop_map(|(parent, name, c, ino)| Op::PutDentry { parent, name, cookie: 20 + name * 3 + c, ino }),
        1 => (ID, ID, 20u64..40, ID)
            .prop_map(|(parent, name, cookie, ino)| Op::PutDentry { parent, name, cookie, ino }),
        2 => (ID, ID).prop_map(|(parent, name)| Op::DeleteDentry(parent, name)),
        4 => (ID, 0u64..6, 1..=SLOT_BYTES, ID)
            .prop_map(|(ino, slot, length, key)| Op::PutExtent { ino, slot, length, key }),
        2 => (ID, 0u64..6).prop_map(|(ino, slot)| Op::DeleteExtent(ino, slot)),
        1 => (ID, any::<u8>()).prop_map(|(ino, byte)| Op::PutSymlink(ino, byte)),
        2 => (ID, 0u8..4, any::<u8>()).prop_map(|(ino, name, value)| Op::PutXattr(ino, name, value)),
        1 => (ID, 0u8..4).prop_map(|(ino, name)| Op::DeleteXattr(ino, name)),
        1 => ID.prop_map(Op::PutOrphan),
        1 => ID.prop_map(Op::DeleteOrphan),
        4 => (lock_key(), 0u64..9).prop_map(|(key, length)| Op::PutLock(key, length)),
        2 => lock_key().prop_map(Op::DeleteLock),
        2 => (ID, -2i64..3, 0u32..3).prop_map(|(key, secs, nanos)| Op::PutGarbage(key, secs, nanos)),
        1 => ID.prop_map(Op::DeleteGarbage),
    ];
    let cluster = prop_oneof![
        (0usize..6, 0u64..100).prop_map(|(counter, count)| Op::Take(counter, count)),
        (ID, ID).prop_map(|(id, name)| Op::PutNode(id, if name == 1 { 1 } else { id })),
        ID.prop_map(Op::DeleteNode),
        (ID, any::<Option<u64>>(), 0u64..9).prop_map(|(id, open_for, seq)| Op::PutVolume(id, open_for, seq)),
        (ID, 0u64..99).prop_map(|(id, seq)| Op::RaiseSeq(id, seq)),
        (ID, 0u64..99).prop_map(|(id, key)| Op::SetNextKey(id, key)),
        (ID, ID, 0u64..9).prop_map(|(volume, node, seq)| Op::PutCopy(volume, node, seq)),
        (ID, ID).prop_map(|(volume, node)| Op::DeleteCopy(volume, node)),
        ID.prop_map(Op::PutSession),
        ID.prop_map(Op::DeleteSession),
        (ID, 0u64..9, any::<u8>()).prop_map(|(session, seq, byte)| Op::PutResult(session, seq, byte)),
        (ID, 0u64..9).prop_map(|(session, seq)| Op::DeleteResultsBelow(session, seq)),
        (0u8..3, any::<u8>()).prop_map(|(key, value)| Op::PutSetting(key, value)),
    ];
    let look = (0u64..7, 0u64..70, 0u32..5).prop_map(|(id, from, limit)| Op::Look { id, from, limit });
    prop_oneof![
        40 => namespace,
        20 => cluster,
        20 => look,
        8 => Just(Op::Begin),
        8 => any::<bool>().prop_map(Op::End),
        1 => Just(Op::Refused),
    ]
}

/// One call: its operations, and whether it asks to be kept.
fn call() -> impl Strategy<Value = (Vec<Op>, bool)> {
    (prop::collection::vec(op(), 1..25), prop::bool::weighted(0.8))
}

fn inode(ino: u64, kind: u8, size: u64) -> InodeRow {
    let kinds = [FileKind::File, FileKind::Directory, FileKind::Symlink, FileKind::CharDevice];
    let when = Timestamp { secs: -(size as i64), nanos: size as u32 };
    InodeRow {
        ino: Ino(ino),
        kind: kinds[kind as usize],
        mode: size as u16 & 0o7777,
        nlink: 1,
        uid: size as u32,
        gid: 1,
        rdev: 0,
        size,
        allocated: size,
        atime: when,
        mtime: when,
        ctime: when,
        btime: when,
        version: Version(size),
        parent: Ino(0),
        collision: None,
        md5: size.is_multiple_of(2).then_some(Md5([size as u8; 16])),
        has_acl: size.is_multiple_of(3),
    }
}

fn blob(key: u64) -> BlobId {
    BlobId { volume: VolumeId(key % 2), key: BlobKey(key) }
}

fn extent(slot: u64, length: u64, key: u64) -> Extent {
    let blob = BlobRef { id: blob(key), seq: Seq(key), length: 99, md5: Md5([key as u8; 16]) };
    Extent { offset: slot * SLOT_BYTES, length, blob: Some(blob), blob_offset: slot as u32 }
}

/// Every read there is, around these numbers.
fn look(txn: &dyn ReadTxn, id: u64, from: u64, limit: u32) -> Result<String, StoreError> {
    let listing = txn.dentries(Ino(id), DirCookie(from), limit).map_err(|e| e.to_string());
    let before = Timestamp { secs: id as i64 - 3, nanos: limit };
    let namespace = (
        (txn.inode(Ino(id))?, txn.dentry(Ino(id), &[limit as u8])?, listing, txn.has_dentries(Ino(id))?),
        (txn.extents(Ino(id), from, limit)?, txn.blob_in_use(blob(id))?, txn.symlink(Ino(id))?),
        (txn.xattr(Ino(id), &[limit as u8])?, txn.xattr_names(Ino(id))?, txn.orphans(Ino(id), limit)?),
        (txn.locks(Ino(id))?, txn.garbage(before, limit)?, txn.stats()?),
    );
    let cluster = (txn.nodes()?, txn.volumes()?, txn.copies()?, txn.sessions()?);
    let kept = (txn.call_result(SessionId(id), u64::from(limit))?, txn.setting(&limit.to_string())?);
    Ok(format!("{namespace:?} {cluster:?} {kept:?}"))
}

fn run(txn: &mut dyn WriteTxn, depth: &mut u32, op: &Op) -> Result<String, StoreError> {
    match *op {
        Op::Take(counter, count) => return Ok(txn.take(Counter::ALL[counter], count)?.to_string()),
        Op::Look { id, from, limit } => return look(txn, id, from, limit),
        Op::PutInode { ino, kind, size } => txn.put_inode(&inode(ino, kind, size)),
        Op::DeleteInode(ino) => txn.delete_inode(Ino(ino)),
        Op::PutDentry { parent, name, cookie, ino } => {
            let (parent, cookie, ino) = (Ino(parent), DirCookie(cookie), Ino(ino));
            txn.put_dentry(&DentryRow { parent, name: vec![name as u8], cookie, ino })
        }
        Op::DeleteDentry(parent, name) => txn.delete_dentry(Ino(parent), &[name as u8]),
        Op::PutExtent { ino, slot, length, key } => txn.put_extent(Ino(ino), &extent(slot, length, key)),
        Op::DeleteExtent(ino, slot) => txn.delete_extent(Ino(ino), slot * SLOT_BYTES),
        Op::PutSymlink(ino, byte) => txn.put_symlink(Ino(ino), &[byte]),
        Op::PutXattr(ino, name, value) => txn.put_xattr(Ino(ino), &[name], &[value]),
        Op::DeleteXattr(ino, name) => txn.delete_xattr(Ino(ino), &[name]),
        Op::PutOrphan(ino) => txn.put_orphan(Ino(ino)),
        Op::DeleteOrphan(ino) => txn.delete_orphan(Ino(ino)),
        Op::PutLock(key, length) => txn.put_lock(&lock(key, length)),
        Op::DeleteLock(key) => txn.delete_lock(&lock(key, 0)),
        Op::PutGarbage(key, secs, nanos) => {
            txn.put_garbage(&GarbageRow { blob: blob(key), length: 9, since: Timestamp { secs, nanos } })
        }
        Op::DeleteGarbage(key) => txn.delete_garbage(blob(key)),
        Op::PutNode(id, name) => {
            let (uuid, name) = (format!("u{id}"), format!("n{name}"));
            txn.put_node(&NodeRow {
                id: NodeId(id),
                uuid,
                name,
                url: "u".into(),
                zone: "z".into(),
                duty: NodeDuty::Serve,
            })
        }
        Op::DeleteNode(id) => txn.delete_node(NodeId(id)),
        Op::PutVolume(id, open_for, seq) => {
            let (id, primary, next_key) = (VolumeId(id), NodeId(1), BlobKey(1));
            txn.put_volume(&VolumeRow { id, primary, open_for, next_key, seq: Seq(seq) })
        }
        Op::RaiseSeq(id, seq) => txn.raise_volume_seq(VolumeId(id), Seq(seq)),
        Op::SetNextKey(id, key) => txn.set_volume_next_key(VolumeId(id), BlobKey(key)),
        Op::PutCopy(volume, node, seq) => {
            txn.put_copy(&CopyRow { volume: VolumeId(volume), node: NodeId(node), seq: Seq(seq) })
        }
        Op::DeleteCopy(volume, node) => txn.delete_copy(VolumeId(volume), NodeId(node)),
        Op::PutSession(id) => txn.put_session(&SessionRow { id: SessionId(id), client: "c".into() }),
        Op::DeleteSession(id) => return Ok(format!("{:?}", txn.delete_session(SessionId(id))?)),
        Op::PutResult(session, seq, byte) => txn.put_call_result(SessionId(session), seq, &[byte]),
        Op::DeleteResultsBelow(session, seq) => txn.delete_call_results_below(SessionId(session), seq),
        Op::PutSetting(key, value) => txn.put_setting(&key.to_string(), &value.to_string()),
        Op::Refused => txn.put_orphan(Ino(u64::MAX)),
        Op::Begin => {
            *depth += 1;
            txn.begin_savepoint()
        }
        Op::End(_) if *depth == 0 => Ok(()),
        Op::End(keep) => {
            *depth -= 1;
            txn.end_savepoint(keep)
        }
    }?;
    Ok(String::new())
}

/// What the call answered, and what is there after it. The texts of errors are each store's own.
fn answers(store: &Store, (ops, keep): (Vec<Op>, bool)) -> (Result<Vec<String>, String>, Vec<String>) {
    let result = store.write_blocking(Durability::Process, move |txn| {
        let mut depth = 0;
        let mut seen = Vec::new();
        for op in &ops {
            seen.push(run(txn, &mut depth, op)?);
        }
        for _ in 0..depth {
            txn.end_savepoint(true)?;
        }
        if keep { Ok(seen) } else { Err(StoreError::Closed) }
    });
    let result = result.map_err(|e| match e {
        StoreError::Failed { .. } => "failed".to_string(),
        other => other.to_string(),
    });
    let left = store.read_blocking(|txn| (0..7).map(|id| look(txn, id, 0, 9)).collect::<Result<Vec<_>, _>>());
    (result, left.unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_and_sqlite_give_the_same_answers(calls in prop::collection::vec(call(), 1..12)) {
        let directory = tempfile::tempdir().unwrap();
        let sqlite = Store::open_sqlite(&directory.path().join("meta.db")).unwrap();
        let memory = Store::in_memory();
        for call in calls {
            prop_assert_eq!(answers(&sqlite, call.clone()), answers(&memory, call));
        }
    }
}
