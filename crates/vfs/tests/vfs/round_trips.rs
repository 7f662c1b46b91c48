//! How often the master and the nodes are asked, operation by operation as the kernel sends them.

use crate::cluster::{CALLER, Cluster, READ, TRUNCATE};
use dfs_proto::meta::RenameMode;
use dfs_proto::{Ino, LockOwner, Name};
use dfs_vfs::{Vfs, VfsConfig};
use std::sync::Arc;
use std::sync::atomic::Ordering;

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// What has been asked so far: of the master, and of nodes.
fn asked(cluster: &Cluster) -> (usize, usize) {
    (cluster.calls_in_all(), cluster.blobs() + cluster.gets.load(Ordering::SeqCst))
}

/// What `work` asks for.
async fn cost(cluster: &Cluster, work: impl Future<Output = ()>) -> (usize, usize) {
    let before = asked(cluster);
    work.await;
    let after = asked(cluster);
    (after.0 - before.0, after.1 - before.1)
}

/// The kernel checks the directory's permissions, and then looks for the name.
async fn look_up(vfs: &Vfs, directory: Ino, entry: &str) -> Option<Ino> {
    vfs.getattr(directory).await.unwrap();
    vfs.lookup(directory, &name(entry)).await.ok().map(|attr| attr.ino)
}

async fn write_file(vfs: &Vfs, directory: Ino, entry: &str) {
    assert_eq!(look_up(vfs, directory, entry).await, None);
    let made = vfs.create(CALLER, directory, &name(entry), 0o644, TRUNCATE).await.unwrap();
    let fh = made.opened.fh;
    vfs.write(fh, 0, &[7; 4096], false).await.unwrap();
    vfs.flush(fh, LockOwner(1), |_, _| false).await.unwrap();
    vfs.release(fh).await;
}

async fn list(vfs: &Vfs, directory: Ino) -> usize {
    let fh = vfs.opendir(directory).await.unwrap();
    let (mut at, mut count) = (0, 0);
    loop {
        let before = at;
        let fill = |entry: &dfs_vfs::Listed| {
            vfs.remember(directory, entry);
            (at, count) = (entry.cookie, count + 1);
            true
        };
        vfs.readdir(fh, before, fill).await.unwrap();
        if at == before {
            vfs.releasedir(fh);
            return count - 2;
        }
    }
}

/// A mount with a directory that the kernel knows.
async fn mount(cluster: &Arc<Cluster>) -> (Arc<Vfs>, Ino) {
    let vfs = cluster.mount(VfsConfig::default());
    vfs.getattr(Ino::ROOT).await.unwrap();
    let directory = match look_up(&vfs, Ino::ROOT, "d").await {
        Some(directory) => directory,
        None => vfs.mkdir(CALLER, Ino::ROOT, &name("d"), 0o755).await.unwrap().ino,
    };
    vfs.getattr(directory).await.unwrap();
    (vfs, directory)
}

/// The table "Round trips" of docs/PERFORMANCE.md.
#[tokio::test]
async fn no_operation_asks_more_often_than_the_table_says() {
    let cluster = Cluster::new().await;
    let (vfs, d) = mount(&cluster).await;
    write_file(&vfs, d, "first").await;

    // The lookup of a name that may exist by now, and one commit with content and name; one blob.
    assert_eq!(cost(&cluster, write_file(&vfs, d, "f")).await, (2, 1), "create, write, close");
    let mkdir = async {
        assert_eq!(look_up(&vfs, d, "k").await, None);
        vfs.mkdir(CALLER, d, &name("k"), 0o755).await.unwrap();
    };
    assert_eq!(cost(&cluster, mkdir).await, (2, 0), "mkdir");
    let rmdir = async {
        vfs.getattr(d).await.unwrap();
        vfs.rmdir(d, &name("k")).await.unwrap();
    };
    assert_eq!(cost(&cluster, rmdir).await, (1, 0), "rmdir");
    let rename = async {
        assert_eq!(look_up(&vfs, d, "g").await, None);
        vfs.rename(d, &name("f"), d, &name("g"), RenameMode::Replace).await.unwrap();
    };
    assert_eq!(cost(&cluster, rename).await, (2, 0), "rename");
    let unlink = async {
        vfs.getattr(d).await.unwrap();
        vfs.unlink(d, &name("g")).await.unwrap();
    };
    assert_eq!(cost(&cluster, unlink).await, (1, 0), "unlink of what the kernel knows");
    let temporary = async {
        let made = vfs.create(CALLER, d, &name("t"), 0o600, TRUNCATE).await.unwrap();
        vfs.write(made.opened.fh, 0, b"x", false).await.unwrap();
        vfs.unlink(d, &name("t")).await.unwrap();
        vfs.flush(made.opened.fh, LockOwner(1), |_, _| false).await.unwrap();
        vfs.release(made.opened.fh).await;
    };
    assert_eq!(cost(&cluster, temporary).await, (0, 0), "a file that is removed before it is closed");
}

/// Reading: the same table.
#[tokio::test]
async fn a_cold_read_asks_once_for_the_file_and_once_for_its_bytes() {
    let cluster = Cluster::new().await;
    let (writer, d) = mount(&cluster).await;
    for n in 0..2000 {
        writer.mknod(CALLER, d, &name(&format!("n{n}")), dfs_proto::FileKind::File, 0o644, 0).await.unwrap();
    }
    write_file(&writer, d, "f").await;
    let (vfs, d) = mount(&cluster).await;

    let (of_master, of_nodes) = cost(&cluster, async { assert_eq!(list(&vfs, d).await, 2001) }).await;
    assert!(of_master <= 3 && of_nodes == 0, "ls -l of 2,001 files asks {of_master} times");
    let ino = look_up(&vfs, d, "f").await.unwrap();
    let read = async {
        let opened = vfs.open(CALLER, ino, READ).await.unwrap();
        assert_eq!(vfs.read(opened.fh, 0, 65_536).await.unwrap().len(), 4096);
        vfs.flush(opened.fh, LockOwner(1), |_, _| false).await.unwrap();
        vfs.release(opened.fh).await;
    };
    assert_eq!(cost(&cluster, read).await, (1, 1), "open, read, close");
    cluster.nothing_is_open().await;
}

/// A directory shows what was made in it here at once, and what others made when the news of it have come.
#[tokio::test]
async fn attributes_of_a_directory_are_answered_from_memory_and_never_old() {
    let cluster = Cluster::new().await;
    let (one, d) = mount(&cluster).await;
    let (two, _) = mount(&cluster).await;
    let mut seen = Vec::new();
    for n in 0..4 {
        one.mkdir(CALLER, d, &name(&format!("a{n}")), 0o755).await.unwrap();
        let mut here = None;
        let look = async { here = Some(one.getattr(d).await.unwrap()) };
        let (of_master, _) = cost(&cluster, look).await;
        let here = here.unwrap();
        assert_eq!(of_master, 0, "its own change is no reason to ask");
        let there = two.getattr(d).await.unwrap();
        assert_eq!((here.nlink, here.mtime), (there.nlink, there.mtime));
        assert_eq!(here.nlink, 3 + n);
        seen.push(here.mtime);
    }
    assert!(seen.is_sorted_by(|a, b| a < b), "{seen:?}");
    two.rmdir(d, &name("a0")).await.unwrap();
    assert_eq!(one.getattr(d).await.unwrap().nlink, 5, "the news have come");
    cluster.stream_down(0);
    two.rmdir(d, &name("a1")).await.unwrap();
    assert_eq!(one.getattr(d).await.unwrap().nlink, 4, "without news it asks");
    cluster.stream_up(0);
    assert_eq!(one.getattr(d).await.unwrap().nlink, 4);
}
