use crate::cluster::{APPEND, CALLER, Cluster, READ, READ_WRITE, WRITE};
use crate::regressions::Dropped;
use crate::{close, content, name, names, store, write_all};
use dfs_proto::meta::AttrChanges;
use dfs_proto::{CollisionPolicy, ErrorCode, Ino};
use dfs_vfs::{Caller, VfsConfig, VfsError};
use std::sync::Arc;

fn with(collision: CollisionPolicy) -> VfsConfig {
    VfsConfig { collision, ..VfsConfig::default() }
}

/// Programs on two mounts that open the same new name at the same moment with O_CREAT, and neither O_EXCL nor
/// O_TRUNC, have one file open, whatever the collision rule is: lock files, logs and databases are made so.
#[tokio::test]
async fn two_mounts_that_open_one_new_name_have_one_file() {
    for collision in [CollisionPolicy::Rename, CollisionPolicy::Replace] {
        let cluster = Cluster::new().await;
        let (a, b) = (cluster.mount(with(collision)), cluster.mount(with(collision)));
        // Both kernels have found the name free.
        let fa = a.create(CALLER, Ino::ROOT, &name("log"), 0o644, APPEND).await.unwrap();
        let fb = b.create(CALLER, Ino::ROOT, &name("log"), 0o644, APPEND).await.unwrap();
        assert_eq!(fa.attr.ino, fb.attr.ino);
        write_all(&a, fa.opened.fh, 0, b"from a\n").await;
        write_all(&b, fb.opened.fh, 0, b"from b\n").await;
        close(&b, fb.opened.fh).await.unwrap();
        close(&a, fa.opened.fh).await.unwrap();
        for vfs in [&a, &b] {
            assert_eq!(names(vfs, Ino::ROOT).await, ["log"]);
            assert_eq!(content(vfs, "log").await.unwrap(), b"from b\nfrom a\n");
        }
        cluster.nothing_is_open().await;
    }
}

/// What another mount has made and written since the name was found free is opened as it is.
#[tokio::test]
async fn a_file_that_others_have_made_meanwhile_is_opened_and_edited() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.mount(VfsConfig::default()), cluster.mount(VfsConfig::default()));
    let ino = store(&a, "db", b"0123456789").await;
    let opened = b.create(CALLER, Ino::ROOT, &name("db"), 0o600, READ_WRITE).await.unwrap();
    assert_eq!((opened.attr.ino, opened.attr.size, opened.attr.mode), (ino, 10, 0o644));
    assert_eq!(b.read(opened.opened.fh, 0, 100).await.unwrap(), "0123456789");
    write_all(&b, opened.opened.fh, 2, b"xx").await;
    close(&b, opened.opened.fh).await.unwrap();
    assert_eq!(content(&a, "db").await.unwrap(), b"01xx456789");
    assert_eq!(names(&a, Ino::ROOT).await, ["db"]);
    cluster.nothing_is_open().await;
}

/// The kernel gives back each lookup that it was told of, and a create tells of one.
#[tokio::test]
async fn a_create_that_was_an_open_counts_as_one_lookup() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.mount(VfsConfig::default()), cluster.mount(VfsConfig::default()));
    let kernel = Arc::new(Dropped::default());
    b.set_kernel(kernel.clone());
    let ino = store(&a, "f", b"content").await;
    let opened = b.create(CALLER, Ino::ROOT, &name("f"), 0o644, READ).await.unwrap();
    close(&b, opened.opened.fh).await.unwrap();
    let grow = async |size| {
        let changes = AttrChanges { size: Some(size), ..AttrChanges::default() };
        a.setattr(CALLER, ino, changes, None).await.unwrap();
    };
    kernel.take();
    grow(20).await;
    assert_eq!(kernel.take(), [format!("pages {ino}")], "the kernel knows the file");
    b.forget(ino, 1);
    grow(30).await;
    assert!(kernel.take().is_empty(), "and has forgotten it");
}

/// The kernel checks no rights for a file that it takes for a new one. Where an owner's rights do not settle it,
/// and where no file has got the name, it looks the name up once more and sees to the rest itself.
#[tokio::test]
async fn what_others_have_made_is_opened_only_where_the_caller_surely_may() {
    const SOMEBODY: Caller = Caller { uid: 7, gid: 7, ..CALLER };
    const ROOT: Caller = Caller { uid: 0, gid: 0, ..CALLER };
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.mount(VfsConfig::default()), cluster.mount(VfsConfig::default()));
    let ino = store(&a, "f", b"content").await;
    a.mkdir(CALLER, Ino::ROOT, &name("d"), 0o777).await.unwrap();
    a.symlink(CALLER, Ino::ROOT, &name("l"), b"f").await.unwrap();
    let set_mode = async |mode| {
        let changes = AttrChanges { mode: Some(mode), ..AttrChanges::default() };
        a.setattr(CALLER, ino, changes, None).await.unwrap();
    };
    for (mode, caller, file, flags, is_opened) in [
        (0o600, CALLER, "f", READ_WRITE, true),
        (0o400, CALLER, "f", READ, true),
        (0o466, CALLER, "f", WRITE, false),
        (0o277, CALLER, "f", READ, false),
        (0o600, SOMEBODY, "f", READ, false),
        (0o666, ROOT, "f", READ, false),
        (0o600, CALLER, "d", READ, false),
        (0o600, CALLER, "l", READ, false),
    ] {
        set_mode(mode).await;
        match b.create(caller, Ino::ROOT, &name(file), 0o644, flags).await {
            Ok(opened) => {
                assert!(is_opened, "{file} with mode {mode:o}");
                close(&b, opened.opened.fh).await.unwrap();
            }
            Err(e) => assert!(!is_opened && matches!(e, VfsError::Appeared), "{file}, {mode:o}: {e}"),
        }
    }
    cluster.nothing_is_open().await;
}

/// Names that others make and remove all the time can be opened with O_CREAT all the same.
#[test]
fn a_name_that_comes_and_goes_can_always_be_opened() {
    const ROUNDS: usize = 300;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let cluster = Cluster::new().await;
        let mounts = [cluster.mount(VfsConfig::default()), cluster.mount(VfsConfig::default())];
        let tasks = mounts.map(|vfs| {
            tokio::spawn(async move {
                for _ in 0..ROUNDS {
                    let made = vfs.create(CALLER, Ino::ROOT, &name("lock"), 0o644, READ_WRITE).await;
                    let made = made.unwrap_or_else(|e| panic!("open with O_CREAT: {e}"));
                    write_all(&vfs, made.opened.fh, 0, b"x").await;
                    assert_eq!(vfs.read(made.opened.fh, 0, 10).await.unwrap(), "x");
                    match vfs.unlink(Ino::ROOT, &name("lock")).await {
                        Ok(()) => {}
                        Err(e) => assert_eq!(e.code(), ErrorCode::NotFound, "unlink"),
                    }
                    close(&vfs, made.opened.fh).await.unwrap();
                }
            })
        });
        for task in tasks {
            task.await.unwrap();
        }
        cluster.nothing_is_open().await;
    });
}

/// A file that was made here and is open outlives its name, also when another mount removes that at once.
#[tokio::test]
async fn a_file_that_was_just_made_outlives_its_removal_by_others() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.mount(VfsConfig::default()), cluster.mount(VfsConfig::default()));
    let made = a.create(CALLER, Ino::ROOT, &name("f"), 0o644, READ_WRITE).await.unwrap();
    b.unlink(Ino::ROOT, &name("f")).await.unwrap();
    assert!(cluster.has_inode(made.attr.ino).await);
    write_all(&a, made.opened.fh, 0, b"kept").await;
    a.fsync(made.opened.fh).await.unwrap();
    assert_eq!(a.read(made.opened.fh, 0, 10).await.unwrap(), "kept");
    close(&a, made.opened.fh).await.unwrap();
    cluster.nothing_is_open().await;
    assert!(!cluster.has_inode(made.attr.ino).await);
}

/// What others write while the answer to a create or to an open is on its way is not taken for what was there
/// before.
#[tokio::test]
async fn regression_a_change_that_is_heard_before_the_answer_to_an_open_is_not_lost() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.mount(VfsConfig::default()), cluster.mount(VfsConfig::default()));
    for (call, text) in [("write", "made"), ("open", "opened")] {
        let writer = b.clone();
        cluster.before_the_answer(call, async move {
            let ino = writer.lookup(Ino::ROOT, &name("f")).await.unwrap().ino;
            let fh = writer.open(CALLER, ino, WRITE).await.unwrap().fh;
            write_all(&writer, fh, 0, text.as_bytes()).await;
            close(&writer, fh).await.unwrap();
        });
        let fh = match call {
            "write" => a.create(CALLER, Ino::ROOT, &name("f"), 0o666, READ_WRITE).await.unwrap().opened.fh,
            _ => {
                let ino = a.lookup(Ino::ROOT, &name("f")).await.unwrap().ino;
                a.open(CALLER, ino, READ_WRITE).await.unwrap().fh
            }
        };
        assert_eq!(a.read(fh, 0, 100).await.unwrap(), text);
        close(&a, fh).await.unwrap();
    }
}
