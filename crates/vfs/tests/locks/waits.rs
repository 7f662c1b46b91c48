//! Waits: how they end.

use crate::world::*;
use dfs_proto::{ErrorCode, LockMode};
use dfs_vfs::VfsError;
use std::time::{Duration, Instant};

/// A waiter that asks again by itself does so after a second; one that was woken is faster.
const WOKEN: Duration = Duration::from_millis(600);

/// Whether one of a few hand-overs was too fast for a waiter that was not woken: a busy machine may delay some.
async fn is_woken(hand_over: impl AsyncFn() -> Duration) -> bool {
    for _ in 0..5 {
        if hand_over().await < WOKEN {
            return true;
        }
    }
    false
}

/// Who waits for a lock gets it as soon as it is given up, on another mount or on the same one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_is_woken_by_an_unlock() {
    let world = World::new().await;
    let (a, b) = (world.mount().await, world.mount().await);
    a.store("f", b"content").await;
    let (at_a, at_b) = (a.open_file("f", BOTH).await, b.open_file("f", BOTH).await);
    for (holder, its) in [(&b, at_b), (&a, at_a)] {
        let hand_over = async || {
            holder.try_lock(its, all(2)).await.unwrap();
            let waiting = a.start_waiting(at_a, all(1)).await;
            let started = Instant::now();
            holder.free(its, all(2)).await.unwrap();
            waiting.result().await.unwrap();
            let took = started.elapsed();
            a.free(at_a, all(1)).await.unwrap();
            took
        };
        assert!(is_woken(hand_over).await);
    }
}

/// A close and a lock that becomes shared wake those who wait, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_is_woken_by_a_close_and_by_a_weaker_lock() {
    let world = World::new().await;
    let a = world.mount().await;
    a.store("f", b"content").await;
    let reads = a.open_file("f", READ).await;
    let shared = range(1, bytes(0, 9), LockMode::Shared);
    let by_close = async || {
        let holds = a.open_file("f", BOTH).await;
        a.try_lock(holds, all(2)).await.unwrap();
        let waiting = a.start_waiting(reads, shared).await;
        let started = Instant::now();
        a.close(holds, 2).await.unwrap();
        waiting.result().await.unwrap();
        let took = started.elapsed();
        a.free(reads, shared).await.unwrap();
        took
    };
    assert!(is_woken(by_close).await);
    let holds = a.open_file("f", BOTH).await;
    let by_weakening = async || {
        a.try_lock(holds, all(2)).await.unwrap();
        let waiting = a.start_waiting(reads, shared).await;
        let started = Instant::now();
        a.try_lock(holds, range(2, bytes(0, 99), LockMode::Shared)).await.unwrap();
        waiting.result().await.unwrap();
        let took = started.elapsed();
        a.free(reads, shared).await.unwrap();
        a.free(holds, all(2)).await.unwrap();
        took
    };
    assert!(is_woken(by_weakening).await);
}

/// A wait that is interrupted leaves nothing behind: the lock is free for the next one as soon as its holder has
/// given it up, and the owner still has what it had before.
#[tokio::test]
async fn an_interrupted_wait_leaves_nothing_behind() {
    let world = World::new().await;
    let (a, b, c) = (world.mount().await, world.mount().await, world.mount().await);
    a.store("f", b"content").await;
    let (at_a, at_b, at_c) =
        (a.open_file("f", BOTH).await, b.open_file("f", BOTH).await, c.open_file("f", BOTH).await);
    a.try_lock(at_a, range(1, bytes(90, 99), LockMode::Exclusive)).await.unwrap();
    b.try_lock(at_b, range(1, bytes(0, 9), LockMode::Exclusive)).await.unwrap();
    let waiting = a.start_waiting(at_a, range(1, bytes(0, 19), LockMode::Exclusive)).await;
    assert!(matches!(waiting.interrupted().await, Err(VfsError::Interrupted)));
    b.free(at_b, range(1, bytes(0, 9), LockMode::Exclusive)).await.unwrap();
    c.try_lock(at_c, range(1, bytes(0, 19), LockMode::Exclusive)).await.unwrap();
    let kept = range(1, bytes(90, 99), LockMode::Exclusive);
    assert!(matches!(c.try_lock(at_c, kept).await, Err(VfsError::WouldBlock)));
    // Nobody takes it for one who waits, either.
    b.wait_lock(at_b, range(1, bytes(20, 29), LockMode::Exclusive)).await.unwrap();
}

/// A lock whose grant arrives after its waiter was interrupted and has gone is given back, and what the owner had in
/// its place is there again.
#[tokio::test]
async fn a_lock_that_comes_too_late_is_given_back() {
    let world = World::new().await;
    let (a, b) = (world.mount().await, world.mount().await);
    a.store("f", b"content").await;
    let (at_a, at_b) = (a.open_file("f", BOTH).await, b.open_file("f", BOTH).await);
    a.try_lock(at_a, range(1, bytes(0, 4), LockMode::Shared)).await.unwrap();
    a.meta.lock_answers.forget_permits(usize::MAX);
    let waiting = a.start_waiting(at_a, range(1, bytes(0, 9), LockMode::Exclusive)).await;
    until("the lock is granted", async || {
        b.test_lock(at_b, range(1, bytes(9, 9), LockMode::Shared)).await.unwrap().is_some()
    })
    .await;
    assert!(matches!(waiting.interrupted().await, Err(VfsError::Interrupted)));
    a.meta.lock_answers.add_permits(1000);
    until("the lock is given back", async || {
        b.test_lock(at_b, range(1, bytes(5, 9), LockMode::Exclusive)).await.unwrap().is_none()
            && b.test_lock(at_b, range(1, bytes(0, 4), LockMode::Shared)).await.unwrap().is_none()
    })
    .await;
    let held = b.test_lock(at_b, all(1)).await.unwrap().unwrap();
    assert_eq!((held.range, held.mode), (bytes(0, 4), LockMode::Shared));
    a.close(at_a, 1).await.unwrap();
    b.try_lock(at_b, all(1)).await.unwrap();
}

/// Two processes on two mounts that each wait for what the other has: the second is told (EDEADLK), and keeps what it
/// had.
#[tokio::test]
async fn a_wait_that_would_never_end_is_refused() {
    let world = World::new().await;
    let (a, b) = (world.mount().await, world.mount().await);
    a.store("f", b"content").await;
    let (at_a, at_b) = (a.open_file("f", BOTH).await, b.open_file("f", BOTH).await);
    let (low, high) =
        (range(1, bytes(0, 9), LockMode::Exclusive), range(1, bytes(10, 19), LockMode::Exclusive));
    a.try_lock(at_a, low).await.unwrap();
    b.try_lock(at_b, high).await.unwrap();
    let waiting = a.start_waiting(at_a, high).await;
    // The first is noted once it has been answered.
    let mut refused = b.wait_lock_or_interrupted(at_b, low).await;
    while matches!(refused, Err(VfsError::Interrupted)) {
        refused = b.wait_lock_or_interrupted(at_b, low).await;
    }
    assert_eq!(refused.unwrap_err().code(), ErrorCode::Deadlock);
    b.free(at_b, high).await.unwrap();
    waiting.result().await.unwrap();
}

/// Who does not want to wait is told at once.
#[tokio::test]
async fn without_a_wait_a_lock_that_is_taken_would_block() {
    let world = World::new().await;
    let (a, b) = (world.mount().await, world.mount().await);
    a.store("f", b"content").await;
    let (at_a, at_b) = (a.open_file("f", BOTH).await, b.open_file("f", BOTH).await);
    a.try_lock(at_a, whole(1, LockMode::Shared)).await.unwrap();
    b.try_lock(at_b, whole(1, LockMode::Shared)).await.unwrap();
    assert!(matches!(b.try_lock(at_b, whole(1, LockMode::Exclusive)).await, Err(VfsError::WouldBlock)));
    // It still has the shared one.
    a.free(at_a, whole(1, LockMode::Shared)).await.unwrap();
    assert!(matches!(a.try_lock(at_a, whole(1, LockMode::Exclusive)).await, Err(VfsError::WouldBlock)));
}
