//! When locks end, and what that costs.

use crate::world::*;
use dfs_proto::{LockMode, LockOwner};
use dfs_vfs::VfsError;

/// A close asks the master nothing when the process has no locks on the file, whether it had some before or not.
#[tokio::test]
async fn a_close_without_locks_costs_no_round_trip() {
    let world = World::new().await;
    let a = world.mount().await;
    a.store("f", b"content").await;
    // One more handle keeps the file open.
    let (_kept, fh) = (a.open_file("f", READ).await, a.open_file("f", BOTH).await);
    let never = a.open_file("f", BOTH).await;
    a.try_lock(fh, all(1)).await.unwrap();
    a.try_lock(fh, whole(2, LockMode::Shared)).await.unwrap();
    let before = a.calls();
    a.close(never, 9).await.unwrap();
    assert_eq!(a.calls(), before, "another process, which has no locks");
    a.free(fh, all(1)).await.unwrap();
    a.free(fh, whole(2, LockMode::Shared)).await.unwrap();
    let before = a.calls();
    a.close(fh, 1).await.unwrap();
    assert_eq!(a.calls(), before, "all had been given up");
}

/// A process that closes any descriptor of a file loses all its byte-range locks on the file, whichever descriptor
/// they were taken through, as fcntl(2) says; what was written is published first. Locks of other processes and
/// whole-file locks stay.
#[tokio::test]
async fn any_close_frees_the_byte_ranges_of_the_process() {
    let world = World::new().await;
    let (a, b) = (world.mount().await, world.mount().await);
    a.store("f", b"old").await;
    let (first, second) = (a.open_file("f", BOTH).await, a.open_file("f", READ).await);
    let at_b = b.open_file("f", BOTH).await;
    a.try_lock(first, range(1, bytes(0, 9), LockMode::Exclusive)).await.unwrap();
    a.try_lock(first, range(2, bytes(10, 19), LockMode::Exclusive)).await.unwrap();
    a.try_lock(first, whole(3, LockMode::Exclusive)).await.unwrap();
    a.put(first, 0, b"new").await.unwrap();
    a.close(second, 1).await.unwrap();
    b.try_lock(at_b, range(1, bytes(0, 9), LockMode::Exclusive)).await.unwrap();
    assert_eq!(b.get(at_b).await.unwrap(), "new");
    let held = b.test_lock(at_b, range(1, bytes(0, 99), LockMode::Shared)).await.unwrap().unwrap();
    assert_eq!((held.range, held.pid, held.mode), (bytes(10, 19), 2, LockMode::Exclusive));
    assert!(matches!(b.try_lock(at_b, whole(1, LockMode::Shared)).await, Err(VfsError::WouldBlock)));
}

/// Locks of an open file description (flock, OFD) end with it, not with a close of one of its descriptors.
#[tokio::test]
async fn locks_of_an_open_file_description_end_with_it() {
    let world = World::new().await;
    let (a, b) = (world.mount().await, world.mount().await);
    a.store("f", b"old").await;
    let (at_a, at_b) = (a.open_file("f", BOTH).await, b.open_file("f", BOTH).await);
    a.try_lock(at_a, whole(77, LockMode::Exclusive)).await.unwrap();
    a.try_lock(at_a, range(77, bytes(0, 9), LockMode::Exclusive)).await.unwrap();
    // A dup(2) of it is closed by process 1.
    a.flush(at_a, LockOwner(1), |_, _| false).await.unwrap();
    assert!(matches!(b.try_lock(at_b, whole(1, LockMode::Exclusive)).await, Err(VfsError::WouldBlock)));
    assert!(matches!(b.try_lock(at_b, all(1)).await, Err(VfsError::WouldBlock)));
    a.close(at_a, 1).await.unwrap();
    b.try_lock(at_b, whole(1, LockMode::Exclusive)).await.unwrap();
    b.try_lock(at_b, all(1)).await.unwrap();
}

/// A test for a lock tells of other owners only, on this mount and on others, and changes nothing.
#[tokio::test]
async fn a_test_tells_who_is_in_the_way() {
    let world = World::new().await;
    let (a, b) = (world.mount().await, world.mount().await);
    a.store("f", b"old").await;
    let (at_a, at_b) = (a.open_file("f", BOTH).await, b.open_file("f", BOTH).await);
    a.try_lock(at_a, range(1, bytes(5, 9), LockMode::Shared)).await.unwrap();
    assert_eq!(a.test_lock(at_a, all(1)).await.unwrap(), None);
    for (mount, fh, owner) in [(&a, at_a, 2), (&b, at_b, 1)] {
        let held = mount.test_lock(fh, all(owner)).await.unwrap().unwrap();
        assert_eq!((held.range, held.mode, held.pid), (bytes(5, 9), LockMode::Shared, 1));
        assert_eq!(mount.test_lock(fh, range(owner, bytes(0, 9), LockMode::Shared)).await.unwrap(), None);
        assert_eq!(mount.test_lock(fh, range(owner, bytes(0, 4), LockMode::Exclusive)).await.unwrap(), None);
    }
    assert_eq!(a.test_lock(at_a, whole(2, LockMode::Exclusive)).await.unwrap(), None);
}

/// Of a range that is unlocked in its middle both ends stay locked.
#[tokio::test]
async fn a_range_can_be_given_up_in_part() {
    let world = World::new().await;
    let (a, b) = (world.mount().await, world.mount().await);
    a.store("f", b"old").await;
    let (at_a, at_b) = (a.open_file("f", BOTH).await, b.open_file("f", BOTH).await);
    a.try_lock(at_a, range(1, bytes(0, 29), LockMode::Exclusive)).await.unwrap();
    a.unlock(at_a, range(1, bytes(10, 19), LockMode::Shared)).await.unwrap();
    b.try_lock(at_b, range(1, bytes(10, 19), LockMode::Exclusive)).await.unwrap();
    for (first, last) in [(0, 9), (20, 29)] {
        let end = range(1, bytes(first, last), LockMode::Exclusive);
        assert!(matches!(b.try_lock(at_b, end).await, Err(VfsError::WouldBlock)));
    }
    a.close(at_a, 1).await.unwrap();
    b.try_lock(at_b, all(1)).await.unwrap();
}
