//! Locks between owners of several sessions.

use super::harness::*;
use dfs_metastore::row::LockRow;
use dfs_proto::limits::LOCKS_PER_FILE_MAX;
use dfs_proto::meta::{ReadOp, WriteOp};
use dfs_proto::{
    ErrorCode, EventKind, FileKind, Ino, LockHolder, LockMode, LockOwner, LockRange, LockRequest, LockSpace,
    Locked, MetaReply, SessionId,
};

const ROOT: Ino = Ino::ROOT;
const A: (SessionId, LockOwner) = (SessionId(1), LockOwner(7));
/// The same owner's number in another session is somebody else.
const B: (SessionId, LockOwner) = (SessionId(2), LockOwner(7));
const C: (SessionId, LockOwner) = (SessionId(2), LockOwner(u64::MAX));

fn request(ino: Ino, who: (SessionId, LockOwner), first: u64, last: u64, mode: LockMode) -> LockRequest {
    let range = LockRange { first, last };
    LockRequest { ino, space: LockSpace::Range, owner: who.1, range, mode, pid: 42 }
}

fn whole(ino: Ino, who: (SessionId, LockOwner), mode: LockMode) -> LockRequest {
    let space = LockSpace::Whole;
    LockRequest { ino, space, owner: who.1, range: LockRange::WHOLE, mode, pid: 42 }
}

fn holder(who: (SessionId, LockOwner), first: u64, last: u64, mode: LockMode) -> LockHolder {
    LockHolder { session: who.0, owner: who.1, range: LockRange { first, last }, mode, pid: 42 }
}

fn lock(world: &mut World<'_>, who: (SessionId, LockOwner), request: LockRequest, wait: bool) -> Locked {
    world.session = who.0;
    match world.write(&WriteOp::Lock { request, wait }) {
        Ok(MetaReply::Locked(locked)) => locked,
        other => panic!("{request:?} gave {other:?}"),
    }
}

fn grant(world: &mut World<'_>, who: (SessionId, LockOwner), request: LockRequest) {
    assert_eq!(lock(world, who, request, false), Locked::Granted, "{request:?}");
}

fn unlock(world: &mut World<'_>, who: (SessionId, LockOwner), request: LockRequest) {
    world.session = who.0;
    let LockRequest { ino, space, owner, range, .. } = request;
    assert_eq!(world.write(&WriteOp::Unlock { ino, space, owner, range }), Ok(MetaReply::Done));
}

fn test(world: &mut World<'_>, who: (SessionId, LockOwner), request: LockRequest) -> Option<LockHolder> {
    world.session = who.0;
    match world.read(&ReadOp::TestLock(request)) {
        Ok(MetaReply::Lock(holder)) => holder,
        other => panic!("{request:?} gave {other:?}"),
    }
}

fn held(world: &World<'_>, ino: Ino) -> Vec<LockHolder> {
    world.txn.locks(ino).unwrap().into_iter().map(|row| row.holder).collect()
}

on_each_store! {
    fn who_is_in_the_way_is_told(world) {
        use LockMode::*;
        let file = world.touch(ROOT, "f");
        grant(world, A, request(file, A, 0, 9, Shared));
        grant(world, B, request(file, B, 5, 20, Shared));
        let wanted = request(file, C, 8, 30, Exclusive);
        let expected = [holder(A, 0, 9, Shared), holder(B, 5, 20, Shared)];
        assert_eq!(lock(world, C, wanted, true), Locked::Blocked(expected.to_vec()));
        assert_eq!(test(world, C, wanted), Some(expected[0]));
        assert_eq!(held(world, file), expected);
        grant(world, C, request(file, C, 8, 30, Shared));
        assert_eq!(test(world, C, request(file, C, 21, 30, Exclusive)), None);
        assert!(world.changes.is_empty(), "nobody gave anything up: {:?}", world.changes);
    }

    fn an_owner_is_never_in_its_own_way_and_the_kinds_do_not_know_of_each_other(world) {
        use LockMode::*;
        let file = world.touch(ROOT, "f");
        grant(world, A, request(file, A, 0, 9, Exclusive));
        grant(world, A, request(file, A, 5, 30, Exclusive));
        assert_eq!(held(world, file), [holder(A, 0, 30, Exclusive)]);
        grant(world, B, whole(file, B, Exclusive));
        assert_eq!(test(world, A, request(file, A, 0, LockRange::END, Exclusive)), None);
        assert!(matches!(lock(world, C, whole(file, C, Shared), false), Locked::Blocked(_)));
    }

    fn what_lets_others_in_is_announced(world) {
        use LockMode::*;
        let file = world.touch(ROOT, "f");
        let freed = [EventKind::Unlocked(file)];
        grant(world, A, request(file, A, 0, 9, Shared));
        grant(world, A, request(file, A, 0, 9, Exclusive));
        assert_eq!(world.changes, [], "an upgrade");
        grant(world, A, request(file, A, 3, 4, Shared));
        assert_eq!(world.changes, freed, "a downgrade of a part");
        unlock(world, A, request(file, A, 100, 200, Shared));
        assert_eq!(world.changes, [], "nothing was held there");
        unlock(world, A, request(file, A, 9, 9, Shared));
        assert_eq!(world.changes, freed);
        assert_eq!(held(world, file).len(), 3);
        unlock(world, B, request(file, B, 0, LockRange::END, Shared));
        assert_eq!(world.changes, [], "another owner's locks stay");
        assert_eq!(held(world, file).len(), 3);
    }

    fn two_that_wait_to_convert_their_shared_flock_do_not_wait_for_each_other(world) {
        use LockMode::*;
        let file = world.touch(ROOT, "f");
        grant(world, A, whole(file, A, Shared));
        grant(world, B, whole(file, B, Shared));
        // Who does not wait keeps what it has.
        assert!(matches!(lock(world, A, whole(file, A, Exclusive), false), Locked::Blocked(_)));
        assert_eq!(held(world, file).len(), 2);
        assert!(matches!(lock(world, A, whole(file, A, Exclusive), true), Locked::Blocked(_)));
        assert_eq!(world.changes, [EventKind::Unlocked(file)]);
        grant(world, B, whole(file, B, Exclusive));
        assert!(matches!(lock(world, A, whole(file, A, Exclusive), true), Locked::Blocked(_)));
        unlock(world, B, whole(file, B, Shared));
        grant(world, A, whole(file, A, Exclusive));
    }

    fn everything_that_has_an_inode_can_be_locked(world) {
        for (kind, name) in [(FileKind::Directory, "d"), (FileKind::Fifo, "p"), (FileKind::Symlink, "s")] {
            let ino = match kind {
                FileKind::Directory => world.mkdir(ROOT, name),
                FileKind::Symlink => world.symlink(ROOT, name, "t"),
                _ => match world.write(&make(kind, ROOT, name)) {
                    Ok(MetaReply::Attr(attr)) => attr.ino,
                    other => panic!("{other:?}"),
                },
            };
            grant(world, A, whole(ino, A, LockMode::Exclusive));
        }
    }

    fn locks_that_cannot_be_meant_are_refused(world) {
        use LockMode::*;
        let file = world.touch(ROOT, "f");
        let backwards = request(file, A, 5, 4, Shared);
        let beyond = request(file, A, 0, LockRange::END + 1, Shared);
        let part = LockRequest { range: LockRange { first: 0, last: 9 }, ..whole(file, A, Shared) };
        for request in [backwards, beyond, part] {
            let LockRequest { ino, space, owner, range, .. } = request;
            assert_eq!(world.refused(&WriteOp::Lock { request, wait: true }), ErrorCode::InvalidArgument);
            let unlock = WriteOp::Unlock { ino, space, owner, range };
            assert_eq!(world.refused(&unlock), ErrorCode::InvalidArgument);
            assert_eq!(world.unreadable(&ReadOp::TestLock(request)), ErrorCode::InvalidArgument);
        }
        let absent = request(Ino(99), A, 0, 0, Shared);
        assert_eq!(world.refused(&WriteOp::Lock { request: absent, wait: false }), ErrorCode::Stale);
        assert_eq!(world.unreadable(&ReadOp::TestLock(absent)), ErrorCode::Stale);
        unlock(world, A, absent);
    }

    fn without_a_session_nothing_can_be_locked(world) {
        let request = request(world.touch(ROOT, "f"), A, 0, 9, LockMode::Shared);
        let mut changes = Vec::new();
        let now = world.now();
        let mut context =
            crate::WriteContext { now, session: None, is_open: &|_| false, changes: &mut changes };
        let refused = crate::write(world.txn, &mut context, &WriteOp::Lock { request, wait: false });
        let refused = dfs_proto::WireError::from(refused.unwrap_err());
        assert_eq!(refused.code, ErrorCode::SessionExpired);
        assert!(crate::read(world.txn, None, &ReadOp::TestLock(request)).is_ok());
    }

    fn locks_go_with_the_inode_and_who_waits_hears_of_it(world) {
        let (file, directory) = (world.touch(ROOT, "f"), world.mkdir(ROOT, "d"));
        world.open.insert(file);
        for ino in [file, directory] {
            grant(world, A, whole(ino, A, LockMode::Exclusive));
        }
        world.rmdir(ROOT, "d");
        assert!(world.changes.contains(&EventKind::Unlocked(directory)));
        world.unlink(ROOT, "f");
        assert!(!world.changes.contains(&EventKind::Unlocked(file)));
        assert!(matches!(lock(world, B, whole(file, B, LockMode::Shared), false), Locked::Blocked(_)));
        world.open.clear();
        assert!(world.reap(file, 10));
        assert_eq!((held(world, file), held(world, directory)), (vec![], vec![]));
    }

    fn a_file_has_so_many_locks_and_no_more(world) {
        let file = world.touch(ROOT, "f");
        // Every other byte, so that none can be joined. Not through the world, which looks at every row.
        for n in 0..LOCKS_PER_FILE_MAX as u64 {
            let holder = holder(B, 2 * n + 10, 2 * n + 10, LockMode::Shared);
            world.txn.put_lock(&LockRow { ino: file, space: LockSpace::Range, holder }).unwrap();
        }
        world.session = A.0;
        let one_more = WriteOp::Lock { request: request(file, A, 0, 0, LockMode::Shared), wait: false };
        assert_eq!(world.refused(&one_more), ErrorCode::TooManyLocks);
        // What makes them fewer is possible, and then there is room.
        grant(world, B, request(file, B, 10, 100, LockMode::Shared));
        grant(world, A, request(file, A, 0, 0, LockMode::Shared));
    }
}
