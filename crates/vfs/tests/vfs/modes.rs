use crate::cluster::{CALLER, Cluster, TRUNCATE, WRITE};
use crate::{close, name, store, write_all};
use bytes::Bytes;
use dfs_client::EventHandler;
use dfs_proto::meta::{AttrChanges, XattrMode};
use dfs_proto::{CollisionPolicy, ErrorCode, FileKind, Ino, Name};
use dfs_vfs::{Caller, OpenFlags, Vfs, VfsConfig};

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

/// A list (acl(5)) that gives the owner and the group `rw` and others nothing, as the kernel passes it.
fn owner_and_group() -> Bytes {
    let mut value = 2u32.to_le_bytes().to_vec();
    for (tag, permissions) in [(0x01u16, 6u16), (0x04, 6), (0x20, 0)] {
        value.extend(tag.to_le_bytes());
        value.extend(permissions.to_le_bytes());
        value.extend(u32::MAX.to_le_bytes());
    }
    value.into()
}

async fn mode_of_new(vfs: &Vfs, dir: Ino, file: &str, flags: OpenFlags) -> u16 {
    let created = vfs.create(CALLER, dir, &name(file), 0o666, flags).await.unwrap();
    let at_once = created.attr.mode;
    close(vfs, created.opened.fh).await.unwrap();
    assert_eq!(vfs.lookup(dir, &name(file)).await.unwrap().mode, at_once, "it stays what it was");
    at_once
}

/// New files lose the bits of the umask, at once and for good.
#[tokio::test]
async fn new_files_lose_the_bits_of_the_umask() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(VfsConfig::default());
    let exclusive = OpenFlags { exclusive: true, ..WRITE };
    for (file, flags) in [("f", WRITE), ("t", TRUNCATE), ("e", exclusive)] {
        assert_eq!(mode_of_new(&vfs, Ino::ROOT, file, flags).await, 0o644);
    }
    assert_eq!(vfs.mkdir(CALLER, Ino::ROOT, &name("d"), 0o777).await.unwrap().mode, 0o755);
    let fifo = vfs.mknod(CALLER, Ino::ROOT, &name("p"), FileKind::Fifo, 0o666, 0).await.unwrap();
    assert_eq!(fifo.mode, 0o644);
    assert_eq!(vfs.symlink(CALLER, Ino::ROOT, &name("l"), b"f").await.unwrap().mode, 0o777);
    let created = vfs.create(CALLER, Ino::ROOT, &name("c"), 0o666, TRUNCATE).await.unwrap();
    let changes = AttrChanges { mode: Some(0o666), ..AttrChanges::default() };
    vfs.setattr(CALLER, created.attr.ino, changes, None).await.unwrap();
    close(&vfs, created.opened.fh).await.unwrap();
    let changed = vfs.getattr(created.attr.ino).await.unwrap();
    assert_eq!(changed.mode, 0o666, "the umask is for new files, not for chmod");
}

/// In a directory with a default access control list, the list takes the place of the umask: the mode that a
/// program sees right after it made a file is the one that the file keeps.
#[tokio::test]
async fn the_default_list_of_the_directory_takes_the_place_of_the_umask() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.mount(VfsConfig::default()), cluster.mount(VfsConfig::default()));
    let dir = a.mkdir(CALLER, Ino::ROOT, &name("d"), 0o777).await.unwrap().ino;
    let seen = b.lookup(Ino::ROOT, &name("d")).await.unwrap().ino;
    assert_eq!(mode_of_new(&b, seen, "before", TRUNCATE).await, 0o644);
    a.setxattr(dir, name(DEFAULT), owner_and_group(), XattrMode::Any, false).await.unwrap();
    for (vfs, file, flags) in [(&a, "a", WRITE), (&b, "b", TRUNCATE), (&a, "at", TRUNCATE)] {
        assert_eq!(mode_of_new(vfs, dir, file, flags).await, 0o660);
    }
    let unnamed = a.tmpfile(CALLER, dir, 0o666, WRITE).await.unwrap();
    assert_eq!(unnamed.attr.mode, 0o660);
    close(&a, unnamed.opened.fh).await.unwrap();
    a.removexattr(dir, name(DEFAULT)).await.unwrap();
    for (vfs, file) in [(&a, "a2"), (&b, "b2")] {
        assert_eq!(mode_of_new(vfs, dir, file, TRUNCATE).await, 0o644);
    }
}

#[tokio::test]
async fn the_absence_of_a_list_is_known_until_somebody_sets_one() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.mount(VfsConfig::default()), cluster.mount(VfsConfig::default()));
    let ino = crate::store(&a, "f", b"content").await;
    b.lookup(Ino::ROOT, &name("f")).await.unwrap();
    let calls = cluster.calls_in_all();
    let ask = async |list: &str| b.getxattr(ino, Name::try_from(list).unwrap()).await;
    for list in [ACCESS, DEFAULT] {
        assert_eq!(ask(list).await.unwrap_err().code(), ErrorCode::NoAttribute);
    }
    assert_eq!(cluster.calls_in_all(), calls, "nobody had to be asked");
    b.on_down();
    b.getattr(ino).await.unwrap();
    let calls = cluster.calls_in_all();
    assert_eq!(ask(ACCESS).await.unwrap_err().code(), ErrorCode::NoAttribute);
    assert_eq!(cluster.calls_in_all(), calls + 1, "changes are not heard of, so each time is asked");
    b.on_reset();
    a.setxattr(ino, name(ACCESS), owner_and_group(), XattrMode::Any, false).await.unwrap();
    // Whether it is kept beside the mode or as the mode alone is the master's business: it is asked.
    let calls = cluster.calls_in_all();
    let _ = ask(ACCESS).await;
    assert_eq!(cluster.calls_in_all(), calls + 1);
    assert_eq!(b.getattr(ino).await.unwrap().mode, 0o660);
}

#[tokio::test]
async fn regression_only_root_empties_a_file_and_leaves_its_set_id_bits() {
    const ROOT: Caller = Caller { uid: 0, ..CALLER };
    let replacing = || VfsConfig { collision: CollisionPolicy::Replace, ..VfsConfig::default() };
    for (config, caller, before, stored_as, after) in [
        (replacing(), CALLER, 0o6777, "tool", 0o777),
        (replacing(), CALLER, 0o6767, "tool", 0o2767),
        (replacing(), ROOT, 0o6777, "tool", 0o6777),
        (VfsConfig::default(), CALLER, 0o6777, "tool-1", 0o777),
    ] {
        let cluster = Cluster::new().await;
        let vfs = cluster.mount(config);
        let ino = store(&vfs, "tool", b"old").await;
        let changes = AttrChanges { mode: Some(before), ..AttrChanges::default() };
        vfs.setattr(CALLER, ino, changes, None).await.unwrap();
        let fh = vfs.open(caller, ino, TRUNCATE).await.unwrap().fh;
        write_all(&vfs, fh, 0, b"new").await;
        close(&vfs, fh).await.unwrap();
        let attr = vfs.lookup(Ino::ROOT, &name(stored_as)).await.unwrap();
        assert_eq!((attr.mode, attr.size), (after, 3), "{stored_as}, {before:o} before");
    }
}
