//! Advisory locks.

use super::*;
use dfs_proto::{LockHolder, LockMode, LockOwner, LockRange, LockSpace};

fn held(ino: u64, space: LockSpace, session: u64, owner: u64, first: u64, last: u64) -> LockRow {
    let (session, owner, range) = (SessionId(session), LockOwner(owner), LockRange { first, last });
    let holder = LockHolder { session, owner, range, mode: LockMode::Shared, pid: 7 };
    LockRow { ino: Ino(ino), space, holder }
}

fn range(ino: u64, session: u64, owner: u64, first: u64) -> LockRow {
    held(ino, LockSpace::Range, session, owner, first, first + 9)
}

pub(crate) fn whole(ino: u64, session: u64, owner: u64) -> LockRow {
    held(ino, LockSpace::Whole, session, owner, 0, LockRange::END)
}

fn of(store: &Store, ino: u64) -> Result<Vec<LockRow>, StoreError> {
    read(store, move |txn| txn.locks(Ino(ino)))
}

fn count(store: &Store) -> Result<u64, StoreError> {
    Ok(read(store, |txn| txn.stats())?.locks)
}

pub(super) fn locks_come_by_space_session_owner_and_first_byte(store: &Store) -> Done {
    let huge = held(5, LockSpace::Range, i64::MAX as u64, u64::MAX, LockRange::END, LockRange::END);
    let sorted = [
        range(5, 1, 2, 100),
        range(5, 2, 1, 0),
        range(5, 2, 1, 30),
        range(5, 2, 1 << 63, 0),
        huge,
        whole(5, 1, 1),
    ];
    write(store, move |txn| {
        txn.put_lock(&range(4, 1, 1, 0))?;
        [3, 0, 5, 2, 4, 1].into_iter().try_for_each(|i| txn.put_lock(&sorted[i]))?;
        txn.put_lock(&range(6, 1, 1, 0))
    })?;
    assert_eq!(of(store, 5)?, sorted);
    assert_eq!((of(store, 4)?, of(store, 7)?), (vec![range(4, 1, 1, 0)], vec![]));
    assert_eq!(count(store)?, 8);
    Ok(())
}

pub(super) fn lock_put_again_is_replaced(store: &Store) -> Done {
    let mut stronger = range(5, 1, 1, 10);
    stronger.holder.mode = LockMode::Exclusive;
    stronger.holder.range.last = 99;
    stronger.holder.pid = u32::MAX;
    write(store, move |txn| {
        txn.put_lock(&range(5, 1, 1, 10))?;
        txn.put_lock(&stronger)
    })?;
    assert_eq!((of(store, 5)?, count(store)?), (vec![stronger], 1));
    Ok(())
}

pub(super) fn lock_is_deleted_by_its_key(store: &Store) -> Done {
    let row = range(5, 1, 1, 10);
    write(store, move |txn| {
        txn.put_lock(&row)?;
        for other in [range(6, 1, 1, 10), range(5, 2, 1, 10), range(5, 1, 2, 10), range(5, 1, 1, 11)] {
            txn.delete_lock(&other)?;
        }
        txn.delete_lock(&held(5, LockSpace::Whole, 1, 1, 10, 19))?;
        txn.delete_lock(&range(u64::MAX, 1, 1, 10))
    })?;
    assert_eq!((of(store, 5)?, count(store)?), (vec![row], 1));
    write(store, move |txn| txn.delete_lock(&held(5, LockSpace::Range, 1, 1, 10, 10)))?;
    assert_eq!((of(store, 5)?, count(store)?), (vec![], 0));
    Ok(())
}

pub(super) fn locks_end_with_their_session(store: &Store) -> Done {
    let freed = write(store, |txn| {
        for row in [range(9, 1, 1, 0), range(9, 1, 1, 50), whole(9, 1, 3), range(4, 1, 1, 0)] {
            txn.put_lock(&row)?;
        }
        txn.put_lock(&range(9, 2, 1, 0))?;
        txn.put_lock(&range(3, 2, 1, 0))?;
        txn.delete_session(SessionId(1))
    })?;
    assert_eq!(freed, [Ino(4), Ino(9)]);
    assert_eq!((of(store, 9)?, of(store, 4)?, count(store)?), (vec![range(9, 2, 1, 0)], vec![], 2));
    assert_eq!(write(store, |txn| txn.delete_session(SessionId(1)))?, []);
    assert_eq!(write(store, |txn| txn.delete_session(SessionId(u64::MAX)))?, []);
    Ok(())
}

pub(super) fn locks_go_with_their_inode(store: &Store) -> Done {
    write(store, |txn| {
        for ino in [4, 5] {
            txn.put_inode(&file(ino))?;
            txn.put_lock(&range(ino, 1, 1, 0))?;
            txn.put_lock(&whole(ino, 2, 1))?;
        }
        txn.delete_inode(Ino(5))
    })?;
    assert_eq!((of(store, 5)?, of(store, 4)?.len(), count(store)?), (vec![], 2, 2));
    assert_eq!(write(store, |txn| txn.delete_session(SessionId(2)))?, [Ino(4)]);
    Ok(())
}

pub(super) fn locks_that_cannot_be_kept_are_refused(store: &Store) -> Done {
    const TOO_LARGE: u64 = i64::MAX as u64 + 1;
    refused(store, |txn| txn.put_lock(&range(TOO_LARGE, 1, 1, 0)));
    refused(store, |txn| txn.put_lock(&range(1, TOO_LARGE, 1, 0)));
    refused(store, |txn| txn.put_lock(&held(1, LockSpace::Range, 1, 1, 0, TOO_LARGE)));
    refused(store, |txn| txn.put_lock(&held(1, LockSpace::Range, 1, 1, TOO_LARGE, TOO_LARGE)));
    assert_eq!((of(store, 1)?, count(store)?), (vec![], 0));
    Ok(())
}
