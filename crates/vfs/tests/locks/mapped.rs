//! What programs write to mapped files under locks.

use crate::world::*;
use dfs_proto::{Ino, LockMode};
use dfs_vfs::Fh;
use std::sync::atomic::Ordering;

/// A write through a mapping of process 1: the kernel has it until it is asked to drop the pages.
fn write_mapped(mount: &Mount, fh: Fh, text: &'static str) {
    let vfs = mount.vfs.clone();
    *mount.kernel.hands_over.lock().unwrap() = Some(Box::pin(async move {
        vfs.write(fh, 0, text.as_bytes(), true).await.unwrap();
    }));
}

fn pages_dropped(mount: &Mount, ino: Ino) -> usize {
    let told = std::mem::take(&mut *mount.kernel.told.lock().unwrap());
    told.iter().filter(|told| **told == Told::Pages(ino)).count()
}

/// What a program has written through a shared mapping under a lock is there for the next holder of the lock, as
/// what it has written by write(2) is: also when the lock is only made a shared one.
#[tokio::test]
async fn what_was_written_through_a_mapping_is_there_for_the_next_holder() {
    let world = World::new().await;
    let (a, b) = (world.mount().await, world.mount().await);
    a.store("f", b"old content").await;
    let (at_a, at_b) = (a.open_file("f", BOTH).await, b.open_file("f", BOTH).await);
    a.kernel.mapped_by.store(1, Ordering::SeqCst);
    for (text, weakened) in [("first", false), ("again", false), ("third", true)] {
        for wish in [all(1), whole(1, LockMode::Exclusive)] {
            a.wait_lock(at_a, wish).await.unwrap();
            write_mapped(&a, at_a, text);
            let shared = dfs_vfs::LockWish { mode: LockMode::Shared, ..wish };
            if weakened {
                a.wait_lock(at_a, shared).await.unwrap();
            } else {
                a.free(at_a, wish).await.unwrap();
            }
            b.wait_lock(at_b, shared).await.unwrap();
            assert_eq!(&b.get(at_b).await.unwrap()[..5], text);
            b.free(at_b, wish).await.unwrap();
            a.free(at_a, wish).await.unwrap();
            b.put(at_b, 0, b"other").await.unwrap();
            b.fsync(at_b).await.unwrap();
        }
    }
}

/// The kernel keeps the pages of files that nobody has mapped, and of those that were only read under the lock.
#[tokio::test]
async fn locks_cost_no_pages_where_nothing_was_written_through_a_mapping() {
    let world = World::new().await;
    let a = world.mount().await;
    let ino = a.store("f", b"content").await;
    let fh = a.open_file("f", BOTH).await;
    let shared = whole(1, LockMode::Shared);
    a.try_lock(fh, shared).await.unwrap();
    pages_dropped(&a, ino);
    a.kernel.mapped_by.store(1, Ordering::SeqCst);
    a.free(fh, shared).await.unwrap();
    assert_eq!(pages_dropped(&a, ino), 0, "it was read");
    a.kernel.mapped_by.store(2, Ordering::SeqCst);
    a.try_lock(fh, all(1)).await.unwrap();
    a.free(fh, all(1)).await.unwrap();
    assert_eq!(pages_dropped(&a, ino), 0, "somebody else has mapped it, and not the holder of the lock");
    a.kernel.mapped_by.store(1, Ordering::SeqCst);
    a.try_lock(fh, all(1)).await.unwrap();
    a.free(fh, all(1)).await.unwrap();
    assert_eq!(pages_dropped(&a, ino), 1);
}
