use crate::cluster::{CALLER, Cluster, TRUNCATE, WRITE};
use crate::{close, content, name, names, store, write_all};
use bytes::Bytes;
use dfs_proto::meta::{AttrChanges, SetTime, XattrMode};
use dfs_proto::{CollisionPolicy, Ino, Timestamp};
use dfs_vfs::{OpenFlags, VfsConfig};

fn replacing() -> VfsConfig {
    VfsConfig { collision: CollisionPolicy::Replace, ..VfsConfig::default() }
}

#[tokio::test]
async fn a_whole_new_file_goes_beside_the_one_that_has_the_name() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(VfsConfig::default());
    store(&vfs, "dummy.txt", b"the first").await;
    let old = vfs.lookup(Ino::ROOT, &name("dummy.txt")).await.unwrap();
    let opened = vfs.open(CALLER, old.ino, TRUNCATE).await.unwrap();
    assert!(opened.direct, "the old file's pages must not be written to");
    assert_eq!(vfs.getattr(old.ino).await.unwrap(), old);
    write_all(&vfs, opened.fh, 0, b"the second, which is longer").await;
    assert_eq!(vfs.getattr(old.ino).await.unwrap(), old);
    close(&vfs, opened.fh).await.unwrap();
    assert_eq!(vfs.getattr(old.ino).await.unwrap(), old);
    assert_eq!(names(&vfs, Ino::ROOT).await, ["dummy-1.txt", "dummy.txt"]);
    assert_eq!(content(&vfs, "dummy.txt").await.unwrap(), b"the first");
    assert_eq!(content(&vfs, "dummy-1.txt").await.unwrap(), b"the second, which is longer");
    let told = vfs.getxattr(old.ino, name("user.dfs.stored_as")).await.unwrap();
    assert_eq!(told, "dummy-1.txt");
}

#[tokio::test]
async fn attributes_set_by_the_writer_go_to_the_new_file() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(VfsConfig::default());
    let ino = store(&vfs, "f", b"old").await;
    let old = vfs.lookup(Ino::ROOT, &name("f")).await.unwrap();
    let fh = vfs.open(CALLER, ino, TRUNCATE).await.unwrap().fh;
    write_all(&vfs, fh, 0, b"new").await;
    let then = Timestamp { secs: 5, nanos: 0 };
    let changes = AttrChanges { mtime: Some(SetTime::At(then)), mode: Some(0o600), ..Default::default() };
    let seen = vfs.setattr(CALLER, ino, changes, None).await.unwrap();
    assert_eq!(seen, old, "the writer keeps seeing the file that it opened");
    close(&vfs, fh).await.unwrap();
    assert_eq!(vfs.getattr(ino).await.unwrap(), old);
    let new = vfs.lookup(Ino::ROOT, &name("f-1")).await.unwrap();
    assert_eq!((new.mtime, new.mode), (then, 0o600));
}

#[tokio::test]
async fn two_mounts_that_create_one_name_lose_nothing() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.mount(VfsConfig::default()), cluster.mount(VfsConfig::default()));
    let fa = a.create(CALLER, Ino::ROOT, &name("dummy.txt"), 0o644, TRUNCATE).await.unwrap();
    let fb = b.create(CALLER, Ino::ROOT, &name("dummy.txt"), 0o644, TRUNCATE).await.unwrap();
    write_all(&a, fa.opened.fh, 0, b"from a").await;
    write_all(&b, fb.opened.fh, 0, b"from b").await;
    close(&b, fb.opened.fh).await.unwrap();
    close(&a, fa.opened.fh).await.unwrap();
    for vfs in [&a, &b] {
        assert_eq!(names(vfs, Ino::ROOT).await, ["dummy-1.txt", "dummy.txt"]);
        assert_eq!(content(vfs, "dummy.txt").await.unwrap(), b"from b");
        assert_eq!(content(vfs, "dummy-1.txt").await.unwrap(), b"from a");
    }
    assert_eq!(a.getxattr(fa.attr.ino, name("user.dfs.stored_as")).await.unwrap(), "dummy-1.txt");
    assert!(b.getxattr(fb.attr.ino, name("user.dfs.stored_as")).await.is_err());
}

#[tokio::test]
async fn with_replace_a_whole_new_file_takes_the_place_of_the_old_at_close() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.mount(replacing()), cluster.mount(replacing()));
    let ino = store(&a, "f", b"the old one").await;
    let fh = a.open(CALLER, ino, TRUNCATE).await.unwrap().fh;
    write_all(&a, fh, 0, b"new").await;
    assert_eq!(content(&b, "f").await.unwrap(), b"the old one", "until the close it stands");
    close(&a, fh).await.unwrap();
    assert_eq!(content(&b, "f").await.unwrap(), b"new");
    assert_eq!(names(&b, Ino::ROOT).await, ["f"]);
}

#[tokio::test]
async fn the_rule_of_the_directory_wins_over_that_of_the_mount() {
    let cluster = Cluster::new().await;
    let (keeping, replacing) = (cluster.mount(VfsConfig::default()), cluster.mount(replacing()));
    let value = Bytes::from_static(b"replace");
    keeping.setxattr(Ino::ROOT, name("user.dfs.collision"), value, XattrMode::Any, false).await.unwrap();
    store(&keeping, "f", b"1").await;
    let attr = keeping.lookup(Ino::ROOT, &name("f")).await.unwrap();
    let fh = keeping.open(CALLER, attr.ino, TRUNCATE).await.unwrap().fh;
    write_all(&keeping, fh, 0, b"2").await;
    close(&keeping, fh).await.unwrap();
    assert_eq!(names(&keeping, Ino::ROOT).await, ["f"]);
    let value = Bytes::from_static(b"rename");
    keeping.setxattr(Ino::ROOT, name("user.dfs.collision"), value, XattrMode::Any, false).await.unwrap();
    let attr = replacing.lookup(Ino::ROOT, &name("f")).await.unwrap();
    let fh = replacing.open(CALLER, attr.ino, TRUNCATE).await.unwrap().fh;
    write_all(&replacing, fh, 0, b"3").await;
    close(&replacing, fh).await.unwrap();
    assert_eq!(names(&replacing, Ino::ROOT).await, ["f", "f-1"]);
}

#[tokio::test]
async fn edits_are_edits_under_either_rule() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(VfsConfig::default());
    let ino = store(&vfs, "f", b"0123456789").await;
    let fh = vfs.open(CALLER, ino, WRITE).await.unwrap().fh;
    write_all(&vfs, fh, 2, b"xx").await;
    close(&vfs, fh).await.unwrap();
    let fh = vfs.open(CALLER, ino, OpenFlags { append: true, ..WRITE }).await.unwrap().fh;
    write_all(&vfs, fh, 0, b"end").await;
    close(&vfs, fh).await.unwrap();
    vfs.setattr(CALLER, ino, AttrChanges { size: Some(12), ..Default::default() }, None).await.unwrap();
    assert_eq!(content(&vfs, "f").await.unwrap(), b"01xx456789en");
    assert_eq!(names(&vfs, Ino::ROOT).await, ["f"]);
}
