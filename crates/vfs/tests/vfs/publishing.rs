use crate::cluster::{APPEND, CALLER, Cluster, READ, READ_WRITE, TRUNCATE, TRUNCATE_READ, WRITE};
use crate::{close, content, name, names, store, write_all};
use dfs_client::EventHandler;
use dfs_proto::limits::BLOB_BYTES_MAX;
use dfs_proto::meta::{AttrChanges, RenameMode, SetTime};
use dfs_proto::{ErrorCode, Ino, LockOwner, Timestamp};
use dfs_vfs::{OpenFlags, VfsConfig};
use std::sync::atomic::Ordering;

#[tokio::test]
async fn a_new_file_appears_elsewhere_when_it_is_closed_and_whole() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.mount(VfsConfig::default()), cluster.mount(VfsConfig::default()));
    let created = a.create(CALLER, Ino::ROOT, &name("f"), 0o644, TRUNCATE).await.unwrap();
    let half = vec![7; 3 * BLOB_BYTES_MAX];
    write_all(&a, created.opened.fh, 0, &half).await;
    assert_eq!(content(&b, "f").await.unwrap_err().code(), ErrorCode::NotFound);
    assert_eq!(names(&a, Ino::ROOT).await, ["f"], "it is there for those who write it");
    assert!(names(&b, Ino::ROOT).await.is_empty());
    close(&a, created.opened.fh).await.unwrap();
    assert_eq!(content(&b, "f").await.unwrap(), half);
    assert_eq!(names(&b, Ino::ROOT).await, ["f"]);
}

#[tokio::test]
async fn a_small_new_file_costs_one_commit_and_a_removed_one_none() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(VfsConfig::default());
    store(&vfs, "first", b"the inode numbers are leased by now").await;
    let before = cluster.calls_in_all();
    store(&vfs, "f", b"hello").await;
    assert_eq!(cluster.calls_in_all() - before, 1);
    let before = (cluster.calls_in_all(), cluster.blobs());
    let created = vfs.create(CALLER, Ino::ROOT, &name("temporary"), 0o600, TRUNCATE_READ).await.unwrap();
    write_all(&vfs, created.opened.fh, 0, b"scratch").await;
    vfs.unlink(Ino::ROOT, &name("temporary")).await.unwrap();
    assert_eq!(vfs.read(created.opened.fh, 0, 100).await.unwrap(), "scratch", "it is still open");
    close(&vfs, created.opened.fh).await.unwrap();
    assert_eq!((cluster.calls_in_all(), cluster.blobs()), before);
}

#[tokio::test]
async fn a_shell_that_duplicates_the_descriptor_does_not_publish_an_empty_file() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(VfsConfig::default());
    let fh = vfs.create(CALLER, Ino::ROOT, &name("f"), 0o644, TRUNCATE).await.unwrap().opened.fh;
    vfs.flush(fh, LockOwner(1), |_, _| true).await.unwrap();
    assert_eq!(cluster.calls_of("commit"), 0);
    write_all(&vfs, fh, 0, b"output").await;
    close(&vfs, fh).await.unwrap();
    assert_eq!(cluster.calls_of("commit"), 1);
    let fh = vfs.create(CALLER, Ino::ROOT, &name("touched"), 0o644, TRUNCATE).await.unwrap().opened.fh;
    close(&vfs, fh).await.unwrap();
    assert_eq!(content(&vfs, "touched").await.unwrap(), b"");
}

#[tokio::test]
async fn data_that_cannot_be_stored_fails_the_close_and_is_kept_for_another_try() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(VfsConfig::default());
    let fh = vfs.create(CALLER, Ino::ROOT, &name("f"), 0o644, TRUNCATE).await.unwrap().opened.fh;
    write_all(&vfs, fh, 0, b"precious").await;
    cluster.failing_puts.store(1, Ordering::SeqCst);
    assert_eq!(vfs.flush(fh, LockOwner(1), |_, _| false).await.unwrap_err().code(), ErrorCode::NoNodes);
    assert_eq!(cluster.calls_of("commit"), 0);
    vfs.flush(fh, LockOwner(1), |_, _| false).await.unwrap();
    vfs.release(fh).await;
    assert_eq!(content(&vfs, "f").await.unwrap(), b"precious");
}

#[tokio::test]
async fn a_file_that_could_not_be_stored_by_its_last_close_is_gone() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(VfsConfig::default());
    let fh = vfs.create(CALLER, Ino::ROOT, &name("f"), 0o644, TRUNCATE).await.unwrap().opened.fh;
    write_all(&vfs, fh, 0, b"lost").await;
    cluster.failing_puts.store(2, Ordering::SeqCst);
    assert!(close(&vfs, fh).await.is_err());
    assert_eq!(content(&vfs, "f").await.unwrap_err().code(), ErrorCode::NotFound);
    store(&vfs, "f", b"the name is free again").await;
}

#[tokio::test]
async fn staging_is_bounded_over_many_open_files() {
    let cluster = Cluster::new().await;
    let config = VfsConfig { staged_bytes_max: 2 * BLOB_BYTES_MAX, ..VfsConfig::default() };
    let vfs = cluster.mount(config);
    let mut open = Vec::new();
    for i in 0..40 {
        let file = format!("f{i}");
        open.push(vfs.create(CALLER, Ino::ROOT, &name(&file), 0o644, TRUNCATE).await.unwrap().opened.fh);
    }
    // Every file has an unfinished buffer; together they are five times what may be staged.
    let block = vec![1; 1 << 20];
    for fh in &open {
        write_all(&vfs, *fh, 0, &block).await;
    }
    for fh in open {
        close(&vfs, fh).await.unwrap();
    }
    assert_eq!(content(&vfs, "f39").await.unwrap(), block);
}

#[tokio::test]
async fn fsync_asks_for_durable_copies_of_old_and_new_data() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(VfsConfig::default());
    let ino = store(&vfs, "f", b"closed before").await;
    assert!(cluster.durable.lock().unwrap().is_empty());
    let fh = vfs.open(CALLER, ino, READ).await.unwrap().fh;
    vfs.fsync(fh).await.unwrap();
    assert_eq!(cluster.durable.lock().unwrap().len(), 1, "what was closed is made safe by a later fsync");
    vfs.fsync(fh).await.unwrap();
    assert_eq!(cluster.durable.lock().unwrap().len(), 1, "once is enough");
    close(&vfs, fh).await.unwrap();
}

#[tokio::test]
async fn appends_of_two_mounts_lose_no_record() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.mount(VfsConfig::default()), cluster.mount(VfsConfig::default()));
    let ino = store(&a, "log", b"start\n").await;
    let (fa, fb) =
        (a.open(CALLER, ino, APPEND).await.unwrap().fh, b.open(CALLER, ino, APPEND).await.unwrap().fh);
    for i in 0..5 {
        write_all(&a, fa, 0, format!("a{i}\n").as_bytes()).await;
        write_all(&b, fb, 0, format!("b{i}\n").as_bytes()).await;
        a.fsync(fa).await.unwrap();
        b.fsync(fb).await.unwrap();
    }
    close(&a, fa).await.unwrap();
    close(&b, fb).await.unwrap();
    let log = String::from_utf8(content(&a, "log").await.unwrap()).unwrap();
    let mut lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.remove(0), "start");
    lines.sort_unstable();
    assert_eq!(lines, ["a0", "a1", "a2", "a3", "a4", "b0", "b1", "b2", "b3", "b4"]);
}

#[tokio::test]
async fn times_set_before_the_close_stay() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(VfsConfig::default());
    let exclusive = OpenFlags { exclusive: true, ..WRITE };
    let created = vfs.create(CALLER, Ino::ROOT, &name("f"), 0o644, exclusive).await.unwrap();
    write_all(&vfs, created.opened.fh, 0, b"copied").await;
    let then = Timestamp { secs: 1_000_000_000, nanos: 5 };
    let changes =
        AttrChanges { mtime: Some(SetTime::At(then)), mode: Some(0o4755), ..AttrChanges::default() };
    vfs.setattr(CALLER, created.attr.ino, changes, None).await.unwrap();
    close(&vfs, created.opened.fh).await.unwrap();
    let attr = vfs.getattr(created.attr.ino).await.unwrap();
    assert_eq!((attr.mtime, attr.mode), (then, 0o4755));
}

#[tokio::test]
async fn an_exclusive_create_is_refused_when_the_name_is_taken_anywhere() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.mount(VfsConfig::default()), cluster.mount(VfsConfig::default()));
    let exclusive = OpenFlags { exclusive: true, ..WRITE };
    let lock = a.create(CALLER, Ino::ROOT, &name("lock"), 0o644, exclusive).await.unwrap();
    let refused = b.create(CALLER, Ino::ROOT, &name("lock"), 0o644, exclusive).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::Exists);
    close(&a, lock.opened.fh).await.unwrap();
    let fh = a.create(CALLER, Ino::ROOT, &name("pending"), 0o644, TRUNCATE).await.unwrap().opened.fh;
    assert!(a.create(CALLER, Ino::ROOT, &name("pending"), 0o644, exclusive).await.is_err());
    close(&a, fh).await.unwrap();
}

#[tokio::test]
async fn a_file_being_written_can_be_renamed_and_its_directory_is_not_empty() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(VfsConfig::default());
    let dir = vfs.mkdir(CALLER, Ino::ROOT, &name("d"), 0o755).await.unwrap();
    let fh = vfs.create(CALLER, dir.ino, &name("new"), 0o644, TRUNCATE).await.unwrap().opened.fh;
    write_all(&vfs, fh, 0, b"one").await;
    assert_eq!(vfs.rmdir(Ino::ROOT, &name("d")).await.unwrap_err().code(), ErrorCode::NotEmpty);
    vfs.rename(dir.ino, &name("new"), Ino::ROOT, &name("moved"), RenameMode::Replace).await.unwrap();
    write_all(&vfs, fh, 3, b" two").await;
    close(&vfs, fh).await.unwrap();
    assert_eq!(content(&vfs, "moved").await.unwrap(), b"one two");
    vfs.rmdir(Ino::ROOT, &name("d")).await.unwrap();
}

#[tokio::test]
async fn an_open_file_outlives_its_last_name() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.mount(VfsConfig::default()), cluster.mount(VfsConfig::default()));
    let created = a.create(CALLER, Ino::ROOT, &name("f"), 0o644, READ_WRITE).await.unwrap();
    write_all(&a, created.opened.fh, 0, b"kept").await;
    a.flush(created.opened.fh, LockOwner(1), |_, _| false).await.unwrap();
    a.unlink(Ino::ROOT, &name("f")).await.unwrap();
    assert!(content(&b, "f").await.is_err());
    assert_eq!(a.read(created.opened.fh, 0, 10).await.unwrap(), "kept");
    write_all(&a, created.opened.fh, 4, b"!").await;
    close(&a, created.opened.fh).await.unwrap();
}

#[tokio::test]
async fn what_others_write_is_seen_by_the_next_open_and_by_open_files() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.mount(VfsConfig::default()), cluster.mount(VfsConfig::default()));
    let ino = store(&a, "f", b"old").await;
    let reader = b.open(CALLER, ino, READ).await.unwrap();
    assert_eq!(b.read(reader.fh, 0, 10).await.unwrap(), "old");
    let fh = a.open(CALLER, ino, WRITE).await.unwrap().fh;
    write_all(&a, fh, 0, b"newer").await;
    close(&a, fh).await.unwrap();
    assert_eq!(b.read(reader.fh, 0, 10).await.unwrap(), "newer");
    assert_eq!(content(&b, "f").await.unwrap(), b"newer");
    close(&b, reader.fh).await.unwrap();
}

#[tokio::test]
async fn without_the_stream_of_changes_the_kernel_may_keep_nothing() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(VfsConfig::default());
    assert!(!vfs.kernel_ttl().is_zero());
    vfs.on_down();
    assert!(vfs.kernel_ttl().is_zero());
    vfs.on_reset();
    assert!(!vfs.kernel_ttl().is_zero());
}

#[tokio::test]
async fn regression_each_byte_of_a_file_read_in_order_is_fetched_once() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.mount(VfsConfig::default()), cluster.mount(VfsConfig::default()));
    let blobs = 20;
    let large = vec![3; blobs * BLOB_BYTES_MAX];
    store(&a, "large", &large).await;
    assert!(content(&b, "large").await.unwrap() == large);
    assert_eq!(cluster.asked_bytes.load(Ordering::SeqCst), large.len() as u64);
    assert!(cluster.gets.load(Ordering::SeqCst) >= blobs - 2, "most of it comes in whole blobs");
}

#[tokio::test]
async fn regression_a_publish_that_met_another_writers_shows_both() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.mount(VfsConfig::default()), cluster.mount(VfsConfig::default()));
    let ino = store(&a, "f", b"0123456789").await;
    let fa = a.open(CALLER, ino, READ_WRITE).await.unwrap().fh;
    assert_eq!(a.read(fa, 0, 100).await.unwrap(), "0123456789");
    let fb = b.open(CALLER, ino, WRITE).await.unwrap().fh;
    write_all(&b, fb, 8, b"bbbb").await;
    close(&b, fb).await.unwrap();
    write_all(&a, fa, 0, b"aa").await;
    a.fsync(fa).await.unwrap();
    assert_eq!(a.read(fa, 0, 100).await.unwrap(), "aa234567bbbb");
    close(&a, fa).await.unwrap();
}

#[tokio::test]
async fn regression_fsync_of_an_unchanged_file_changes_nothing() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(VfsConfig::default());
    let ino = store(&vfs, "f", b"content").await;
    let (before, commits) = (vfs.getattr(ino).await.unwrap(), cluster.calls_of("commit"));
    let fh = vfs.open(CALLER, ino, READ).await.unwrap().fh;
    vfs.fsync(fh).await.unwrap();
    close(&vfs, fh).await.unwrap();
    assert_eq!(cluster.calls_of("commit"), commits);
    assert_eq!(vfs.getattr(ino).await.unwrap(), before);
}

#[tokio::test]
async fn regression_appends_on_both_sides_of_anothers_leave_no_gap() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.mount(VfsConfig::default()), cluster.mount(VfsConfig::default()));
    let ino = store(&a, "log", b"start\n").await;
    let (fa, fb) =
        (a.open(CALLER, ino, APPEND).await.unwrap().fh, b.open(CALLER, ino, APPEND).await.unwrap().fh);
    write_all(&a, fa, 0, b"a1\n").await;
    write_all(&b, fb, 0, b"something longer of b\n").await;
    close(&b, fb).await.unwrap();
    write_all(&a, fa, 0, b"a2\n").await;
    close(&a, fa).await.unwrap();
    assert_eq!(content(&b, "log").await.unwrap(), b"start\nsomething longer of b\na1\na2\n");
}

#[tokio::test]
async fn regression_changes_that_cannot_be_stored_do_not_outlive_the_last_handle() {
    let cluster = Cluster::new().await;
    let config = VfsConfig { staged_bytes_max: 2 * BLOB_BYTES_MAX, ..VfsConfig::default() };
    let vfs = cluster.mount(config);
    let ino = store(&vfs, "f", b"old").await;
    let reader = vfs.open(CALLER, ino, READ).await.unwrap().fh;
    let writer = vfs.open(CALLER, ino, WRITE).await.unwrap().fh;
    write_all(&vfs, writer, 0, &vec![1; BLOB_BYTES_MAX]).await;
    cluster.failing_puts.store(usize::MAX, Ordering::SeqCst);
    assert!(close(&vfs, writer).await.is_err());
    close(&vfs, reader).await.unwrap();
    cluster.failing_puts.store(0, Ordering::SeqCst);
    assert_eq!(content(&vfs, "f").await.unwrap(), b"old");
    let whole = vec![2; 3 * BLOB_BYTES_MAX];
    store(&vfs, "g", &whole).await;
    assert_eq!(content(&vfs, "g").await.unwrap(), whole);
}

#[tokio::test]
async fn regression_writers_wait_for_failed_uploads_of_others_only_until_nodes_are_back() {
    let cluster = Cluster::new().await;
    let config = VfsConfig { staged_bytes_max: 2 * BLOB_BYTES_MAX, ..VfsConfig::default() };
    let vfs = cluster.mount(config);
    cluster.failing_puts.store(2, Ordering::SeqCst);
    let idle = vfs.create(CALLER, Ino::ROOT, &name("idle"), 0o644, TRUNCATE).await.unwrap().opened.fh;
    write_all(&vfs, idle, 0, &vec![1; 2 * BLOB_BYTES_MAX]).await;
    store(&vfs, "other", &vec![2; BLOB_BYTES_MAX]).await;
    close(&vfs, idle).await.unwrap();
    assert_eq!(content(&vfs, "idle").await.unwrap().len(), 2 * BLOB_BYTES_MAX);
}
