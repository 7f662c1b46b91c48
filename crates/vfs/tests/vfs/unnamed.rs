use crate::cluster::{CALLER, Cluster, READ_WRITE, TRUNCATE_READ};
use crate::{close, content, name, names, store, write_all};
use bytes::Bytes;
use dfs_proto::meta::{AttrChanges, XattrMode};
use dfs_proto::{Ino, LockOwner};
use dfs_vfs::{Allocation, Fh, Seek, Vfs, VfsConfig};

/// A file made with O_TMPFILE has no name. linkat(2) gives it one, with all that was written to it; without
/// that its close leaves nothing.
#[tokio::test]
async fn a_file_without_a_name_gets_one_or_leaves_nothing() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.mount(VfsConfig::default()), cluster.mount(VfsConfig::default()));
    let kept = a.tmpfile(CALLER, Ino::ROOT, 0o666, READ_WRITE).await.unwrap();
    let lost = a.tmpfile(CALLER, Ino::ROOT, 0o600, READ_WRITE).await.unwrap();
    assert_eq!((kept.attr.nlink, kept.attr.mode), (0, 0o644), "the umask counts");
    write_all(&a, kept.opened.fh, 0, b"whole").await;
    write_all(&a, lost.opened.fh, 0, b"scratch").await;
    assert!(names(&a, Ino::ROOT).await.is_empty());
    a.flush(lost.opened.fh, LockOwner(1), |_, _| false).await.unwrap();
    assert_eq!(a.read(lost.opened.fh, 0, 10).await.unwrap(), "scratch");
    let named = a.link(kept.attr.ino, Ino::ROOT, &name("f")).await.unwrap();
    assert_eq!((named.nlink, named.size), (1, 5));
    assert_eq!(content(&b, "f").await.unwrap(), b"whole");
    close(&a, kept.opened.fh).await.unwrap();
    close(&a, lost.opened.fh).await.unwrap();
    assert_eq!(content(&b, "f").await.unwrap(), b"whole");
    crate::until("the file is gone", async || !cluster.has_inode(lost.attr.ino).await).await;
}

/// Everything that can be done with an open file.
async fn use_it(vfs: &Vfs, ino: Ino, fh: Fh) {
    let other = store(vfs, "other", b"of another file").await;
    let source = vfs.open(CALLER, other, READ_WRITE).await.unwrap().fh;
    vfs.fallocate(fh, 1, 2, Allocation::PunchHole).await.unwrap();
    assert_eq!(vfs.seek(fh, 1, Seek::Data).await.unwrap(), 3);
    assert_eq!(vfs.copy_range(source, 0, fh, 10, 100).await.unwrap(), 15);
    assert_eq!(vfs.copy_range(fh, 3, source, 0, 4).await.unwrap(), 4);
    assert_eq!(vfs.read(source, 0, 100).await.unwrap(), "3456nother file");
    assert_eq!(vfs.read(fh, 0, 100).await.unwrap(), "0\0\x003456789of another file");
    let (note, value) = (name("user.note"), Bytes::from_static(b"kept"));
    vfs.setxattr(ino, note.clone(), value.clone(), XattrMode::Any, false).await.unwrap();
    assert_eq!(vfs.getxattr(ino, note.clone()).await.unwrap(), value);
    vfs.removexattr(ino, note).await.unwrap();
    let changes = AttrChanges { mode: Some(0o600), size: Some(5), ..AttrChanges::default() };
    let attr = vfs.setattr(CALLER, ino, changes, None).await.unwrap();
    assert_eq!((attr.mode, attr.size, attr.nlink), (0o600, 5, 0));
    write_all(vfs, fh, 5, b"!").await;
    assert_eq!(vfs.read(fh, 0, 100).await.unwrap(), "0\0\x0034!");
    vfs.fsync(fh).await.unwrap();
    assert_eq!(vfs.read(fh, 0, 100).await.unwrap(), "0\0\x0034!");
    close(vfs, source).await.unwrap();
    close(vfs, fh).await.unwrap();
}

/// An open file that has lost its last name can be used like any other until it is closed: read, written, cut,
/// punched, copied from and to, its attributes and extended attributes changed.
#[tokio::test]
async fn an_open_file_without_a_name_can_do_all_that_others_can() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(VfsConfig::default());
    let published = store(&vfs, "published", b"0123456789").await;
    let fh = vfs.open(CALLER, published, READ_WRITE).await.unwrap().fh;
    vfs.unlink(Ino::ROOT, &name("published")).await.unwrap();
    use_it(&vfs, published, fh).await;
    crate::until("the file is gone", async || !cluster.has_inode(published).await).await;
    vfs.unlink(Ino::ROOT, &name("other")).await.unwrap();

    let new = vfs.create(CALLER, Ino::ROOT, &name("new"), 0o644, TRUNCATE_READ).await.unwrap();
    write_all(&vfs, new.opened.fh, 0, b"0123456789").await;
    vfs.unlink(Ino::ROOT, &name("new")).await.unwrap();
    use_it(&vfs, new.attr.ino, new.opened.fh).await;
    crate::until("the file is gone", async || !cluster.has_inode(new.attr.ino).await).await;
    assert_eq!(names(&vfs, Ino::ROOT).await, ["other"]);
}
