use crate::cluster::{CALLER, Cluster, READ_WRITE, TRUNCATE_READ};
use crate::{close, content, name, names, store};
use dfs_proto::limits::{FILE_BYTES_MAX, NAME_BYTES_MAX};
use dfs_proto::meta::AttrChanges;
use dfs_proto::{ErrorCode, Ino, Name};
use dfs_vfs::{OpenFlags, VfsConfig};

#[tokio::test]
async fn sizes_and_offsets_beyond_the_limit_are_refused_and_change_nothing() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(VfsConfig::default());
    let ino = store(&vfs, "f", b"content").await;
    let before = vfs.getattr(ino).await.unwrap();
    let fh = vfs.open(CALLER, ino, OpenFlags { no_atime: true, ..READ_WRITE }).await.unwrap().fh;
    for size in [FILE_BYTES_MAX + 1, u64::MAX] {
        let changes = AttrChanges { size: Some(size), ..AttrChanges::default() };
        for handle in [Some(fh), None] {
            let refused = vfs.setattr(CALLER, ino, changes, handle).await.unwrap_err();
            assert_eq!(refused.code(), ErrorCode::TooLarge);
        }
    }
    for offset in [FILE_BYTES_MAX, u64::MAX] {
        assert_eq!(vfs.write(fh, offset, b"x", false).await.unwrap_err().code(), ErrorCode::TooLarge);
        assert!(vfs.read(fh, offset, u32::MAX).await.unwrap().is_empty());
    }
    assert_eq!(vfs.getattr(ino).await.unwrap(), before);
    let largest = AttrChanges { size: Some(FILE_BYTES_MAX), ..AttrChanges::default() };
    assert_eq!(vfs.setattr(CALLER, ino, largest, Some(fh)).await.unwrap().size, FILE_BYTES_MAX);
    assert_eq!(vfs.read(fh, FILE_BYTES_MAX - 2, 100).await.unwrap(), "\0\0");
    close(&vfs, fh).await.unwrap();
    assert_eq!(vfs.getattr(ino).await.unwrap().size, FILE_BYTES_MAX);
}

#[tokio::test]
async fn a_listing_goes_on_after_an_entry_that_is_gone() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(VfsConfig::default());
    for i in 0..10 {
        store(&vfs, &format!("f{i}"), b"").await;
    }
    let list = async |fh, cookie: u64| {
        let mut found: Vec<(String, u64)> = Vec::new();
        let fill = |e: &dfs_vfs::Listed| {
            found.push((String::from_utf8_lossy(&e.name).into_owned(), e.cookie));
            true
        };
        vfs.readdir(fh, cookie, fill).await.unwrap();
        found
    };
    let fh = vfs.opendir(Ino::ROOT).await.unwrap();
    let all = list(fh, 0).await;
    assert_eq!(all.len(), 12);
    let (gone, cookie) = all[5].clone();
    vfs.unlink(Ino::ROOT, &name(&gone)).await.unwrap();
    assert_eq!(list(fh, cookie).await, all[6..]);
    let other = vfs.opendir(Ino::ROOT).await.unwrap();
    assert_eq!(list(other, cookie).await, all[6..], "a place means the same to every handle");
    for nowhere in [all[11].1 + 1, 1 << 62, (1 << 62) + 7, i64::MAX as u64, u64::MAX] {
        assert!(list(other, nowhere).await.is_empty());
    }
    vfs.releasedir(fh);
    vfs.releasedir(other);
}

#[tokio::test]
async fn names_are_any_bytes_up_to_the_limit() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(VfsConfig::default());
    let longest = "n".repeat(NAME_BYTES_MAX);
    store(&vfs, &longest, b"long").await;
    assert_eq!(content(&vfs, &longest).await.unwrap(), b"long");
    let too_long = Name::new(vec![b'n'; NAME_BYTES_MAX + 1]).unwrap_err();
    assert_eq!(too_long.code, ErrorCode::NameTooLong);
    let odd = Name::new(&b"\xff\xfe\n"[..]).unwrap();
    let created = vfs.create(CALLER, Ino::ROOT, &odd, 0o644, TRUNCATE_READ).await.unwrap();
    close(&vfs, created.opened.fh).await.unwrap();
    assert_eq!(vfs.lookup(Ino::ROOT, &odd).await.unwrap().ino, created.attr.ino);
    assert_eq!(names(&vfs, Ino::ROOT).await.len(), 2);
}
