use crate::cluster::{CALLER, Cluster, READ, READ_WRITE, TRUNCATE, TRUNCATE_READ, WRITE};
use crate::{close, content, name, names, store, write_all};
use dfs_proto::meta::{AttrChanges, SetTime};
use dfs_proto::{Attr, Ino, LockOwner, Timestamp};
use dfs_vfs::{Allocation, AtimePolicy, OpenFlags, Vfs, VfsConfig};
use std::sync::atomic::Ordering;

async fn attr(vfs: &Vfs, ino: Ino) -> Attr {
    vfs.getattr(ino).await.unwrap()
}

/// What one mount shows of its own changes never goes backwards, and ctime grows with each change, though the
/// clocks of the mount's host and of the master differ.
#[tokio::test]
async fn times_of_own_changes_never_go_backwards_whatever_the_clocks_say() {
    for ahead in [-3600, 0, 3600] {
        let cluster = Cluster::new().await;
        let vfs = cluster.mount(VfsConfig::default());
        cluster.clock_ahead_s.store(ahead, Ordering::SeqCst);
        let created = vfs.create(CALLER, Ino::ROOT, &name("f"), 0o644, TRUNCATE_READ).await.unwrap();
        let (ino, fh) = (created.attr.ino, created.opened.fh);
        let mut seen = created.attr;
        let mut check = |now: Attr, what: &str| {
            assert!(now.ctime > seen.ctime, "{what} with the master {ahead} s ahead: {seen:?} {now:?}");
            assert!(now.mtime >= seen.mtime, "{what} with the master {ahead} s ahead: {seen:?} {now:?}");
            seen = now;
        };
        write_all(&vfs, fh, 0, b"one").await;
        check(attr(&vfs, ino).await, "a write");
        vfs.fsync(fh).await.unwrap();
        write_all(&vfs, fh, 1, b"two").await;
        check(attr(&vfs, ino).await, "a write after an fsync");
        vfs.fallocate(fh, 0, 1, Allocation::PunchHole).await.unwrap();
        check(attr(&vfs, ino).await, "a hole");
        close(&vfs, fh).await.unwrap();
        let mode = AttrChanges { mode: Some(0o600), ..AttrChanges::default() };
        check(vfs.setattr(CALLER, ino, mode, None).await.unwrap(), "a change of the mode");
        check(vfs.link(ino, Ino::ROOT, &name("g")).await.unwrap(), "a link");
        let touch = AttrChanges { mtime: Some(SetTime::Now), ..AttrChanges::default() };
        check(vfs.setattr(CALLER, ino, touch, None).await.unwrap(), "a touch");
        let fh = vfs.open(CALLER, ino, WRITE).await.unwrap().fh;
        write_all(&vfs, fh, 0, b"three").await;
        check(attr(&vfs, ino).await, "a write after another open");
        close(&vfs, fh).await.unwrap();
        assert!(attr(&vfs, ino).await.ctime >= seen.ctime);
    }
}

/// Times that are set while a file is new or has changes that wait are those that everybody sees after the
/// close, to the nanosecond.
#[tokio::test]
async fn times_set_on_new_and_changed_files_are_kept_to_the_nanosecond() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.mount(VfsConfig::default()), cluster.mount(VfsConfig::default()));
    let (atime, mtime) =
        (Timestamp { secs: -5, nanos: 999_999_999 }, Timestamp { secs: 1_000_000_000, nanos: 1 });
    let changes = AttrChanges {
        atime: Some(SetTime::At(atime)),
        mtime: Some(SetTime::At(mtime)),
        ..AttrChanges::default()
    };
    let created = a.create(CALLER, Ino::ROOT, &name("f"), 0o644, TRUNCATE).await.unwrap();
    let (ino, fh) = (created.attr.ino, created.opened.fh);
    for _ in 0..2 {
        write_all(&a, fh, 0, b"copied").await;
        let set = a.setattr(CALLER, ino, changes, Some(fh)).await.unwrap();
        assert_eq!((set.atime, set.mtime), (atime, mtime));
        a.flush(fh, LockOwner(1), |_, _| false).await.unwrap();
        for vfs in [&a, &b] {
            let seen = attr(vfs, ino).await;
            assert_eq!((seen.atime, seen.mtime), (atime, mtime));
        }
    }
    close(&a, fh).await.unwrap();
}

/// Access times are kept as with `relatime` (mount(8)): a read counts when the file was changed since it was
/// last read, or that is a day ago. It shows at once on the mount and on others within seconds; it is no change
/// of the file.
#[tokio::test]
async fn a_read_after_a_change_is_noted_once() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.mount(VfsConfig::default()), cluster.mount(VfsConfig::default()));
    let ino = store(&a, "f", b"content").await;
    let before = b.lookup(Ino::ROOT, &name("f")).await.unwrap();
    for _ in 0..3 {
        content(&b, "f").await.unwrap();
    }
    let after = attr(&b, ino).await;
    assert!(after.atime > before.ctime);
    assert_eq!((after.ctime, after.version), (before.ctime, before.version));
    crate::until("the other mount sees it", async || attr(&a, ino).await.atime == after.atime).await;
    assert_eq!(cluster.calls_of("accessed"), 1, "reads that follow each other are one");
    let fh = b.open(CALLER, ino, READ_WRITE).await.unwrap().fh;
    write_all(&b, fh, 0, b"changed").await;
    b.read(fh, 0, 10).await.unwrap();
    let again = attr(&b, ino).await;
    assert!(again.atime > after.atime && again.atime > again.mtime);
    let set = Timestamp { secs: 5, nanos: 5 };
    let changes = AttrChanges { atime: Some(SetTime::At(set)), ..AttrChanges::default() };
    b.setattr(CALLER, ino, changes, Some(fh)).await.unwrap();
    close(&b, fh).await.unwrap();
    b.sync_all().await;
    for vfs in [&a, &b] {
        assert_eq!(attr(vfs, ino).await.atime, set, "what was set is not overtaken by an older read");
    }
}

#[tokio::test]
async fn listings_and_links_that_are_followed_are_noted_too() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(VfsConfig::default());
    let dir = vfs.mkdir(CALLER, Ino::ROOT, &name("d"), 0o755).await.unwrap();
    let link = vfs.symlink(CALLER, Ino::ROOT, &name("l"), b"d").await.unwrap();
    names(&vfs, dir.ino).await;
    vfs.readlink(link.ino).await.unwrap();
    for before in [dir, link] {
        let shown = attr(&vfs, before.ino).await.atime;
        assert!(shown > before.ctime);
        vfs.sync_all().await;
        assert_eq!(attr(&vfs, before.ino).await.atime, shown);
    }
    assert_eq!(cluster.calls_of("accessed"), 2);
}

/// O_NOATIME and a mount without access times leave them alone.
#[tokio::test]
async fn reads_that_are_not_to_be_noted_are_not() {
    let cluster = Cluster::new().await;
    let never = cluster.mount(VfsConfig { atime: AtimePolicy::Never, ..VfsConfig::default() });
    let vfs = cluster.mount(VfsConfig::default());
    let ino = store(&vfs, "f", b"content").await;
    let before = attr(&vfs, ino).await.atime;
    content(&never, "f").await.unwrap();
    let fh = vfs.open(CALLER, ino, OpenFlags { no_atime: true, ..READ }).await.unwrap().fh;
    vfs.read(fh, 0, 10).await.unwrap();
    close(&vfs, fh).await.unwrap();
    names(&never, Ino::ROOT).await;
    vfs.sync_all().await;
    never.sync_all().await;
    assert_eq!(attr(&vfs, ino).await.atime, before);
    assert_eq!(cluster.calls_of("accessed"), 0);
}
