//! Locks that end with their session.

use crate::world::*;
use dfs_proto::meta::AttrChanges;
use dfs_proto::{ErrorCode, LockMode};
use dfs_vfs::{Allocation, VfsError};

fn is_lost<T: std::fmt::Debug>(result: Result<T, VfsError>) -> bool {
    matches!(&result, Err(e) if e.code() == ErrorCode::LockLost) || panic!("{result:?}")
}

/// A mount that the master has not heard of for longer than its lease has lost its locks. The programs that held
/// them are told by EIO, at each read, write, fsync and lock of the file until they have unlocked or closed it.
/// What they had written under the locks and not published is thrown away: it never lies over what the next holder
/// has written.
#[tokio::test]
async fn who_has_lost_a_lock_is_told_and_changes_nothing() {
    let world = World::new().await;
    let (a, b) = (world.mount().await, world.mount().await);
    let ino = a.store("f", b"old").await;
    let (at_a, at_b) = (a.open_file("f", BOTH).await, b.open_file("f", BOTH).await);
    a.try_lock(at_a, all(1)).await.unwrap();
    a.put(at_a, 0, b"under the lock").await.unwrap();
    world.end_session(&a);
    b.wait_lock(at_b, all(1)).await.unwrap();
    b.put(at_b, 0, b"new").await.unwrap();
    b.free(at_b, all(1)).await.unwrap();
    a.ask_anything().await;
    assert!(is_lost(a.get(at_a).await));
    assert!(is_lost(a.put(at_a, 0, b"x").await));
    assert!(is_lost(a.try_write(at_a, 0, b"x", false).unwrap()));
    assert!(is_lost(a.fsync(at_a).await));
    assert!(is_lost(a.fallocate(at_a, 0, 5, Allocation::PunchHole).await));
    let cut = AttrChanges { size: Some(1), ..AttrChanges::default() };
    assert!(is_lost(a.setattr(CALLER, ino, cut, Some(at_a)).await));
    assert!(is_lost(a.try_lock(at_a, all(1)).await));
    assert!(is_lost(a.close(at_a, 1).await));
    let again = b.open_file("f", READ).await;
    assert_eq!(b.get(again).await.unwrap(), "new");
    let again = a.open_file("f", BOTH).await;
    assert_eq!(a.get(again).await.unwrap(), "new");
    a.try_lock(again, all(1)).await.unwrap();
    a.put(again, 0, b"NEW").await.unwrap();
    a.close(again, 1).await.unwrap();
}

/// An unlock ends it as well: it fails once, and then the file can be used again.
#[tokio::test]
async fn after_an_unlock_the_file_can_be_used_again() {
    let world = World::new().await;
    let a = world.mount().await;
    a.store("f", b"old").await;
    let fh = a.open_file("f", BOTH).await;
    a.try_lock(fh, all(1)).await.unwrap();
    a.try_lock(fh, whole(5, LockMode::Shared)).await.unwrap();
    world.end_session(&a);
    a.ask_anything().await;
    assert!(is_lost(a.get(fh).await));
    assert!(is_lost(a.free(fh, all(1)).await));
    assert!(is_lost(a.get(fh).await), "the other lock is lost, too");
    assert!(is_lost(a.free(fh, whole(5, LockMode::Shared)).await));
    assert_eq!(a.get(fh).await.unwrap(), "old");
    a.try_lock(fh, all(1)).await.unwrap();
}

/// A commit that was made under a lock is refused when the session is another one by then, though the mount has not
/// noticed yet. All that can write the file there are told that changes are gone, each once; handles through which
/// nothing was locked go on afterwards.
#[tokio::test]
async fn changes_made_under_a_lost_lock_are_refused_by_the_master() {
    let world = World::new().await;
    let (a, b) = (world.mount().await, world.mount().await);
    a.store("f", b"old").await;
    let (locked, other) = (a.open_file("f", BOTH).await, a.open_file("f", BOTH).await);
    let at_b = b.open_file("f", BOTH).await;
    a.try_lock(locked, all(1)).await.unwrap();
    a.put(locked, 0, b"under the lock").await.unwrap();
    a.put(other, 20, b"beside it").await.unwrap();
    world.end_session(&a);
    b.wait_lock(at_b, all(1)).await.unwrap();
    b.put(at_b, 0, b"new").await.unwrap();
    b.free(at_b, all(1)).await.unwrap();
    // The first that it asks the master since.
    assert!(is_lost(a.fsync(other).await));
    assert!(is_lost(a.fsync(other).await), "once as one who can write");
    assert_eq!(a.get(other).await.unwrap(), "new");
    a.put(other, 3, b"er").await.unwrap();
    a.fsync(other).await.unwrap();
    assert!(is_lost(a.get(locked).await));
    assert!(is_lost(a.close(locked, 1).await));
    let again = b.open_file("f", READ).await;
    assert_eq!(b.get(again).await.unwrap(), "newer");
}

/// A mount without locks goes on over the end of its session.
#[tokio::test]
async fn without_locks_nothing_is_lost_with_a_session() {
    let world = World::new().await;
    let a = world.mount().await;
    a.store("f", b"old").await;
    let fh = a.open_file("f", BOTH).await;
    a.try_lock(fh, all(1)).await.unwrap();
    a.free(fh, all(1)).await.unwrap();
    a.put(fh, 0, b"new").await.unwrap();
    world.end_session(&a);
    a.ask_anything().await;
    a.close(fh, 1).await.unwrap();
    let again = a.open_file("f", READ).await;
    assert_eq!(a.get(again).await.unwrap(), "new");
}
