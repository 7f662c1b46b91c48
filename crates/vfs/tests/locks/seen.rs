//! What the next holder sees, and what a lock publishes.

use crate::world::*;
use dfs_client::EventHandler;
use dfs_proto::meta::AttrChanges;
use dfs_proto::{Ino, LockMode};
use dfs_vfs::VfsError;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Who gets a lock sees all that its former holder wrote, on whichever mount and without a close or an fsync:
/// content and size of the file, and which other files were made or removed meanwhile. The kernel's caches have
/// forgotten what was there before when the lock is granted.
#[tokio::test]
async fn the_next_holder_sees_what_the_former_one_did() {
    let world = World::new().await;
    let (a, b) = (world.mount().await, world.mount().await);
    let ino = a.store("db", b"old").await;
    a.store("going", b"x").await;
    let (at_a, at_b) = (a.open_file("db", BOTH).await, b.open_file("db", BOTH).await);
    b.lookup(Ino::ROOT, &name("going")).await.unwrap();
    assert_eq!(b.get(at_b).await.unwrap(), "old");
    for turn in 0..5 {
        a.wait_lock(at_a, all(1)).await.unwrap();
        let content = "longer ".repeat(turn + 1);
        a.put(at_a, 0, content.as_bytes()).await.unwrap();
        let journal = format!("journal-{turn}");
        a.store(&journal, b"j").await;
        let waiting = b.start_waiting(at_b, all(1)).await;
        if turn == 0 {
            a.unlink(Ino::ROOT, &name("going")).await.unwrap();
        }
        b.kernel.told.lock().unwrap().clear();
        a.free(at_a, all(1)).await.unwrap();
        waiting.result().await.unwrap();
        let told = b.kernel.told.lock().unwrap().clone();
        assert_eq!(told.last(), Some(&Told::Done), "{told:?}");
        assert!(told.contains(&Told::Pages(ino)), "{told:?}");
        assert_eq!(b.get(at_b).await.unwrap(), content);
        assert_eq!(b.getattr(ino).await.unwrap().size, content.len() as u64);
        assert!(b.lookup(Ino::ROOT, &name(&journal)).await.is_ok());
        assert!(b.lookup(Ino::ROOT, &name("going")).await.is_err());
        b.free(at_b, all(1)).await.unwrap();
    }
}

/// An entry that was made or removed just before a lock was given up has been told to the kernel of the next holder
/// when that gets the lock, though nobody there looked it up again.
#[tokio::test]
async fn entries_that_changed_under_a_lock_are_dropped_before_the_next_holder_goes_on() {
    let world = World::new().await;
    let (a, b) = (world.mount().await, world.mount().await);
    a.store("db", b"old").await;
    let (at_a, at_b) = (a.open_file("db", BOTH).await, b.open_file("db", BOTH).await);
    for turn in 0..20 {
        let journal = name(&format!("journal-{turn}"));
        a.try_lock(at_a, all(1)).await.unwrap();
        a.store(&format!("journal-{turn}"), b"j").await;
        a.free(at_a, all(1)).await.unwrap();
        b.try_lock(at_b, all(1)).await.unwrap();
        let told = b.kernel.told.lock().unwrap().clone();
        let entry = told.iter().position(|t| *t == Told::Entry(Ino::ROOT, journal.clone()));
        let done = told.iter().rposition(|t| *t == Told::Done);
        assert!(entry.is_some() && entry < done, "turn {turn}: {told:?}");
        b.free(at_b, all(1)).await.unwrap();
    }
}

/// Two mounts that each lock, read a number, write the next one and unlock lose not one step.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_between_two_writers_that_lock() {
    const STEPS: usize = 25;
    let world = World::new().await;
    let (a, b) = (world.mount().await, world.mount().await);
    a.store("count", b"0").await;
    let step = async |mount: &Mount| {
        let fh = mount.open_file("count", BOTH).await;
        for _ in 0..STEPS {
            mount.wait_lock(fh, all(1)).await.unwrap();
            let count: usize = mount.get(fh).await.unwrap().parse().unwrap();
            mount.put(fh, 0, (count + 1).to_string().as_bytes()).await.unwrap();
            mount.free(fh, all(1)).await.unwrap();
        }
        mount.close(fh, 1).await.unwrap();
    };
    tokio::join!(step(&a), step(&b));
    let fh = b.open_file("count", READ).await;
    assert_eq!(b.get(fh).await.unwrap(), (2 * STEPS).to_string());
}

/// A lock that is weakened from exclusive to shared publishes what was written under it, too.
#[tokio::test]
async fn what_was_written_is_published_when_a_lock_becomes_shared() {
    let world = World::new().await;
    let (a, b) = (world.mount().await, world.mount().await);
    a.store("f", b"old").await;
    let (at_a, at_b) = (a.open_file("f", BOTH).await, b.open_file("f", READ).await);
    a.try_lock(at_a, all(1)).await.unwrap();
    a.put(at_a, 0, b"new").await.unwrap();
    assert!(matches!(
        b.try_lock(at_b, range(1, bytes(0, 9), LockMode::Shared)).await,
        Err(VfsError::WouldBlock)
    ));
    a.try_lock(at_a, range(1, bytes(0, 99), LockMode::Shared)).await.unwrap();
    b.try_lock(at_b, range(1, bytes(0, 9), LockMode::Shared)).await.unwrap();
    assert_eq!(b.get(at_b).await.unwrap(), "new");
}

/// A truncation under a lock is seen by the next holder.
#[tokio::test]
async fn the_size_is_that_of_the_former_holder() {
    let world = World::new().await;
    let (a, b) = (world.mount().await, world.mount().await);
    let ino = a.store("f", b"0123456789").await;
    let (at_a, at_b) = (a.open_file("f", BOTH).await, b.open_file("f", BOTH).await);
    a.try_lock(at_a, whole(7, LockMode::Exclusive)).await.unwrap();
    let cut = AttrChanges { size: Some(4), ..AttrChanges::default() };
    a.setattr(CALLER, ino, cut, Some(at_a)).await.unwrap();
    a.free(at_a, whole(7, LockMode::Exclusive)).await.unwrap();
    b.try_lock(at_b, whole(7, LockMode::Shared)).await.unwrap();
    assert_eq!(b.getattr(ino).await.unwrap().size, 4);
    assert_eq!(b.get(at_b).await.unwrap(), "0123");
}

/// Who holds a lock keeps what the kernel has cached: nothing is dropped while nobody else changes the file.
#[tokio::test]
async fn locking_again_costs_no_pages() {
    let world = World::new().await;
    let a = world.mount().await;
    let ino = a.store("f", b"content").await;
    let fh = a.open_file("f", BOTH).await;
    a.kernel.told.lock().unwrap().clear();
    for _ in 0..3 {
        a.try_lock(fh, all(1)).await.unwrap();
        a.put(fh, 0, b"CONTENT").await.unwrap();
        a.free(fh, all(1)).await.unwrap();
    }
    assert!(!a.kernel.told.lock().unwrap().contains(&Told::Pages(ino)));
}

/// A file that exists on this mount only is published by its first lock: locks are between all mounts.
#[tokio::test]
async fn a_lock_makes_a_new_file_known() {
    let world = World::new().await;
    let (a, b) = (world.mount().await, world.mount().await);
    let created = a.create(CALLER, Ino::ROOT, &name("new"), 0o644, NEW).await.unwrap();
    assert_eq!(a.test_lock(created.opened.fh, all(1)).await.unwrap(), None);
    a.put(created.opened.fh, 0, b"so far").await.unwrap();
    a.try_lock(created.opened.fh, all(1)).await.unwrap();
    let at_b = b.open_file("new", BOTH).await;
    assert_eq!(b.get(at_b).await.unwrap(), "so far");
    assert!(matches!(b.try_lock(at_b, all(1)).await, Err(VfsError::WouldBlock)));
}

/// Programs on two mounts that make a lock file at the same moment (O_CREAT) lock one file: one gets it.
#[tokio::test]
async fn a_lock_file_that_two_mounts_make_at_the_same_moment_is_one() {
    let world = World::new().await;
    let (a, b) = (world.mount().await, world.mount().await);
    for turn in 0..10 {
        let file = name(&format!("lock-{turn}"));
        let create = |mount: &Mount| {
            let (vfs, file) = (mount.vfs.clone(), file.clone());
            async move { vfs.create(CALLER, Ino::ROOT, &file, 0o644, BOTH).await.unwrap().opened.fh }
        };
        let (at_a, at_b) = tokio::join!(create(&a), create(&b));
        a.try_lock(at_a, all(1)).await.unwrap();
        assert!(matches!(b.try_lock(at_b, all(1)).await, Err(VfsError::WouldBlock)));
        a.put(at_a, 0, b"a was here").await.unwrap();
        a.free(at_a, all(1)).await.unwrap();
        b.try_lock(at_b, all(1)).await.unwrap();
        assert_eq!(b.get(at_b).await.unwrap(), "a was here");
        a.close(at_a, 1).await.unwrap();
        b.close(at_b, 1).await.unwrap();
    }
}

/// Giving up a lock writes nothing when nothing was changed.
#[tokio::test]
async fn readers_that_lock_commit_nothing() {
    let world = World::new().await;
    let a = world.mount().await;
    a.store("f", b"content").await;
    let fh = a.open_file("f", BOTH).await;
    let before = a.meta.commits.load(Ordering::SeqCst);
    a.try_lock(fh, all(1)).await.unwrap();
    a.get(fh).await.unwrap();
    a.free(fh, all(1)).await.unwrap();
    assert_eq!(a.meta.commits.load(Ordering::SeqCst), before);
}

/// A change that is heard of while a file is validated has it validated once more, and the read goes on.
#[tokio::test]
async fn regression_a_change_during_validation_does_not_keep_a_read_busy_for_ever() {
    let world = World::new().await;
    let a = world.mount().await;
    a.store("f", b"content").await;
    let fh = a.open_file("f", READ).await;
    a.on_reset();
    let vfs = a.vfs.clone();
    *a.meta.during_open.lock().unwrap() = Some(Box::new(move || vfs.on_reset()));
    let read = tokio::time::timeout(Duration::from_secs(10), a.get(fh)).await;
    assert_eq!(read.expect("the read ends").unwrap(), "content");
}
