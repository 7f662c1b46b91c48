//! What random sequences of operations have found.

use crate::cluster::{APPEND, CALLER, Cluster, READ, READ_WRITE, TRUNCATE, TRUNCATE_READ, WRITE};
use crate::{close, content, name, names, store, write_all};
use dfs_client::EventHandler;
use dfs_proto::limits::FILE_BYTES_MAX;
use dfs_proto::meta::{AttrChanges, RenameMode};
use dfs_proto::{CollisionPolicy, ErrorCode, Ino, Name};
use dfs_vfs::{Allocation, Fh, KernelCaches, Listed, OpenFlags, Vfs, VfsConfig, VfsError};
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;

fn replacing() -> VfsConfig {
    VfsConfig { collision: CollisionPolicy::Replace, ..VfsConfig::default() }
}

fn size(size: u64) -> AttrChanges {
    AttrChanges { size: Some(size), ..AttrChanges::default() }
}

/// Entries after `cookie`, at most `room`.
async fn list(vfs: &Vfs, fh: Fh, cookie: u64, room: usize) -> Vec<Listed> {
    let mut page: Vec<Listed> = Vec::new();
    let fill = |entry: &Listed| {
        let fits = page.len() < room;
        if fits {
            page.push(entry.clone());
        }
        fits
    };
    vfs.readdir(fh, cookie, fill).await.unwrap();
    page
}

#[tokio::test]
async fn regression_an_append_after_ftruncate_goes_to_the_new_end() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(VfsConfig::default());
    let ino = store(&vfs, "log", b"").await;
    let fh = vfs.open(CALLER, ino, APPEND).await.unwrap().fh;
    vfs.setattr(CALLER, ino, size(1), Some(fh)).await.unwrap();
    write_all(&vfs, fh, 0, b"abc").await;
    assert_eq!(content(&vfs, "log").await.unwrap(), b"\0abc");
    close(&vfs, fh).await.unwrap();
    assert_eq!(content(&vfs, "log").await.unwrap(), b"\0abc");
}

#[tokio::test]
async fn regression_appends_end_where_files_do() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(VfsConfig::default());
    let ino = store(&vfs, "f", b"").await;
    vfs.setattr(CALLER, ino, size(FILE_BYTES_MAX), None).await.unwrap();
    let fh = vfs.open(CALLER, ino, APPEND).await.unwrap().fh;
    let refused = vfs.write(fh, 0, b"x", false).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::TooLarge);
    close(&vfs, fh).await.unwrap();
}

#[tokio::test]
async fn regression_a_new_file_keeps_the_time_of_its_making() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(VfsConfig::default());
    let made = vfs.create(CALLER, Ino::ROOT, &name("f"), 0o644, TRUNCATE).await.unwrap();
    let other = vfs.create(CALLER, Ino::ROOT, &name("later"), 0o644, TRUNCATE).await.unwrap();
    close(&vfs, made.opened.fh).await.unwrap();
    close(&vfs, other.opened.fh).await.unwrap();
    assert_eq!(vfs.getattr(made.attr.ino).await.unwrap().mtime, made.attr.mtime);
}

/// What a program saw of a file that it had just written stays true when the file is published.
#[tokio::test]
async fn regression_publishing_a_change_does_not_change_the_file_once_more() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(VfsConfig::default());
    let made = vfs.create(CALLER, Ino::ROOT, &name("f"), 0o644, TRUNCATE_READ).await.unwrap();
    close(&vfs, made.opened.fh).await.unwrap();
    let closed = vfs.getattr(made.attr.ino).await.unwrap();
    assert_eq!((closed.atime, closed.ctime), (made.attr.atime, made.attr.ctime));
    let fh = vfs.open(CALLER, made.attr.ino, READ_WRITE).await.unwrap().fh;
    write_all(&vfs, fh, 0, b"abc").await;
    let written = vfs.getattr(made.attr.ino).await.unwrap();
    close(&vfs, fh).await.unwrap();
    let published = vfs.getattr(made.attr.ino).await.unwrap();
    assert_eq!((published.mtime, published.ctime), (written.mtime, written.ctime));
}

#[tokio::test]
async fn regression_a_group_set_before_the_close_stays_in_a_set_group_id_directory() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(VfsConfig::default());
    let dir = vfs.mkdir(CALLER, Ino::ROOT, &name("d"), 0o2775).await.unwrap();
    let group = |gid| AttrChanges { gid: Some(gid), ..AttrChanges::default() };
    vfs.setattr(CALLER, dir.ino, group(50), None).await.unwrap();
    vfs.setattr(CALLER, dir.ino, AttrChanges { mode: Some(0o2775), ..AttrChanges::default() }, None)
        .await
        .unwrap();
    let made = vfs.create(CALLER, dir.ino, &name("f"), 0o644, TRUNCATE).await.unwrap();
    assert_eq!(made.attr.gid, 50, "the group of the directory is passed on at once");
    vfs.setattr(CALLER, made.attr.ino, group(60), None).await.unwrap();
    close(&vfs, made.opened.fh).await.unwrap();
    assert_eq!(vfs.getattr(made.attr.ino).await.unwrap().gid, 60);
    let made = vfs.create(CALLER, dir.ino, &name("g"), 0o644, TRUNCATE).await.unwrap();
    vfs.setattr(CALLER, dir.ino, group(70), None).await.unwrap();
    close(&vfs, made.opened.fh).await.unwrap();
    assert_eq!(vfs.getattr(made.attr.ino).await.unwrap().gid, 50, "the file was there before");
}

#[tokio::test]
async fn regression_a_rename_that_fails_publishes_nothing_and_one_that_replaces_needs_not() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.mount(replacing()), cluster.mount(replacing()));
    let fh = a.create(CALLER, Ino::ROOT, &name("new"), 0o644, TRUNCATE).await.unwrap().opened.fh;
    write_all(&a, fh, 0, b"half").await;
    let to = name("new");
    let refused = a.rename(Ino::ROOT, &name("none"), Ino::ROOT, &to, RenameMode::Replace).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::NotFound);
    assert!(names(&b, Ino::ROOT).await.is_empty());
    store(&a, "whole", b"whole").await;
    let commits = cluster.calls_of("commit");
    a.rename(Ino::ROOT, &name("whole"), Ino::ROOT, &to, RenameMode::Replace).await.unwrap();
    close(&a, fh).await.unwrap();
    assert_eq!(cluster.calls_of("commit"), commits, "what was replaced was never published");
    assert_eq!(content(&b, "new").await.unwrap(), b"whole");
    assert_eq!(names(&a, Ino::ROOT).await, ["new"]);
}

#[tokio::test]
async fn regression_a_listing_shows_no_entry_as_it_was_before() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(replacing());
    store(&vfs, "a", b"1").await;
    let first = store(&vfs, "b", b"22").await;
    store(&vfs, "c", b"333").await;
    let fh = vfs.opendir(Ino::ROOT).await.unwrap();
    let begun = list(&vfs, fh, 0, 3).await;
    vfs.rename(Ino::ROOT, &name("b"), Ino::ROOT, &name("a"), RenameMode::Replace).await.unwrap();
    let second = store(&vfs, "b", b"another").await;
    let grown = vfs.lookup(Ino::ROOT, &name("c")).await.unwrap();
    vfs.setattr(CALLER, grown.ino, size(5), None).await.unwrap();
    let rest = list(&vfs, fh, begun.last().unwrap().cookie, 10).await;
    let shown: Vec<_> = rest.iter().map(|l| (l.entry.clone().unwrap(), l.attr.ino, l.attr.size)).collect();
    assert_eq!(shown, [(name("b"), second, 7), (name("c"), grown.ino, 5)]);
    assert_ne!(first, second);
    vfs.releasedir(fh);
}

#[tokio::test]
async fn regression_a_file_that_is_closed_during_a_listing_is_listed() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(VfsConfig::default());
    let mut open = Vec::new();
    for file in ["a", "b", "c"] {
        open.push(vfs.create(CALLER, Ino::ROOT, &name(file), 0o644, TRUNCATE_READ).await.unwrap().opened.fh);
    }
    let fh = vfs.opendir(Ino::ROOT).await.unwrap();
    let mut listed = list(&vfs, fh, 0, 3).await;
    for fh in open {
        close(&vfs, fh).await.unwrap();
    }
    listed.extend(list(&vfs, fh, listed.last().unwrap().cookie, 10).await);
    let names: Vec<_> = listed.iter().map(|l| String::from_utf8_lossy(&l.name)).collect();
    assert_eq!(names, [".", "..", "a", "b", "c"]);
    vfs.releasedir(fh);
    let fh = vfs.open(CALLER, listed[2].attr.ino, READ).await.unwrap().fh;
    close(&vfs, fh).await.unwrap();
}

#[tokio::test]
async fn regression_holes_as_large_as_a_file_can_be_are_counted() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(VfsConfig::default());
    let ino = store(&vfs, "f", b"x").await;
    let fh = vfs.open(CALLER, ino, READ_WRITE).await.unwrap().fh;
    write_all(&vfs, fh, FILE_BYTES_MAX - 1, b"y").await;
    // What the copy leaves of the published content is not known until it is asked for.
    assert_eq!(vfs.copy_range(fh, 0, fh, 10, 1).await.unwrap(), 1);
    for _ in 0..3 {
        vfs.fallocate(fh, 0, FILE_BYTES_MAX, Allocation::PunchHole).await.unwrap();
    }
    vfs.setattr(CALLER, ino, size(0), Some(fh)).await.unwrap();
    close(&vfs, fh).await.unwrap();
    let attr = vfs.getattr(ino).await.unwrap();
    assert_eq!((attr.size, attr.allocated), (0, 0));
}

#[tokio::test]
async fn regression_a_program_that_runs_is_not_emptied() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(replacing());
    let ino = store(&vfs, "program", b"code").await;
    let empty = OpenFlags { truncate: true, ..READ };
    let running = vfs.open(CALLER, ino, OpenFlags { execute: true, ..READ }).await.unwrap().fh;
    assert!(matches!(vfs.open(CALLER, ino, empty).await, Err(VfsError::Executed)));
    assert_eq!(content(&vfs, "program").await.unwrap(), b"code");
    close(&vfs, running).await.unwrap();
    close(&vfs, vfs.open(CALLER, ino, empty).await.unwrap().fh).await.unwrap();
    assert_eq!(content(&vfs, "program").await.unwrap(), b"");
}

#[tokio::test]
async fn regression_a_file_made_here_outlives_its_removal_by_others_while_it_is_open() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.mount(replacing()), cluster.mount(replacing()));
    let made = a.create(CALLER, Ino::ROOT, &name("f"), 0o644, TRUNCATE_READ).await.unwrap();
    write_all(&a, made.opened.fh, 0, b"kept").await;
    a.fsync(made.opened.fh).await.unwrap();
    b.unlink(Ino::ROOT, &name("f")).await.unwrap();
    assert_eq!(a.read(made.opened.fh, 0, 10).await.unwrap(), "kept");
    write_all(&a, made.opened.fh, 4, b"!").await;
    a.fsync(made.opened.fh).await.unwrap();
    assert_eq!(a.read(made.opened.fh, 0, 10).await.unwrap(), "kept!");
    close(&a, made.opened.fh).await.unwrap();
    cluster.nothing_is_open().await;
}

/// The kernel comes with the inode of a path that it has cached. `stale` makes it look the path up once more.
#[tokio::test]
async fn regression_a_path_that_others_have_replaced_is_looked_up_again() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.mount(replacing()), cluster.mount(replacing()));
    let old = store(&a, "f", b"old").await;
    store(&a, "new", b"new").await;
    let reader = b.open(CALLER, old, READ).await.unwrap().fh;
    a.rename(Ino::ROOT, &name("new"), Ino::ROOT, &name("f"), RenameMode::Replace).await.unwrap();
    assert_eq!(b.open(CALLER, old, READ).await.unwrap_err().code(), ErrorCode::Stale);
    assert_eq!(b.read(reader, 0, 10).await.unwrap(), "old", "who has it open goes on with it");
    let again = b.open(CALLER, old, READ).await.unwrap().fh;
    assert_eq!(b.read(again, 0, 10).await.unwrap(), "old", "through /proc/self/fd, too");
    close(&b, again).await.unwrap();
    close(&b, reader).await.unwrap();
    cluster.nothing_is_open().await;
    assert_eq!(b.open(CALLER, old, READ).await.unwrap_err().code(), ErrorCode::Stale);
}

/// The kernel has an inode under a name that another mount has changed, when this one removes the new name.
#[tokio::test]
async fn regression_a_name_that_others_have_changed_leads_to_no_file_that_is_gone() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.mount(replacing()), cluster.mount(replacing()));
    let made = a.create(CALLER, Ino::ROOT, &name("old"), 0o644, READ_WRITE).await.unwrap();
    cluster.hold_events();
    b.rename(Ino::ROOT, &name("old"), Ino::ROOT, &name("new"), RenameMode::Replace).await.unwrap();
    a.lookup(Ino::ROOT, &name("new")).await.unwrap();
    a.unlink(Ino::ROOT, &name("new")).await.unwrap();
    let by_old_name = a.open(CALLER, made.attr.ino, READ).await.unwrap_err();
    assert_eq!(by_old_name.code(), ErrorCode::Stale, "the kernel has to look the name up again");
    let by_descriptor = a.open(CALLER, made.attr.ino, READ).await.unwrap().fh;
    close(&a, by_descriptor).await.unwrap();
    close(&a, made.opened.fh).await.unwrap();
    cluster.nothing_is_open().await;
}

#[tokio::test]
async fn regression_a_file_that_lost_its_name_before_it_was_published_can_be_opened_by_its_descriptor() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(replacing());
    let made = vfs.create(CALLER, Ino::ROOT, &name("f"), 0o644, TRUNCATE).await.unwrap();
    write_all(&vfs, made.opened.fh, 0, b"scratch").await;
    vfs.unlink(Ino::ROOT, &name("f")).await.unwrap();
    let again = vfs.open(CALLER, made.attr.ino, READ).await.unwrap().fh;
    close(&vfs, made.opened.fh).await.unwrap();
    assert_eq!(vfs.read(again, 0, 100).await.unwrap(), "scratch");
    close(&vfs, again).await.unwrap();
}

#[tokio::test]
async fn regression_a_writer_sees_how_long_others_have_made_the_file() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.mount(replacing()), cluster.mount(replacing()));
    let ino = store(&a, "f", b"").await;
    let fh = a.open(CALLER, ino, READ_WRITE).await.unwrap().fh;
    write_all(&a, fh, 0, b"a").await;
    let other = b.open(CALLER, ino, WRITE).await.unwrap().fh;
    write_all(&b, other, 3, b"b").await;
    close(&b, other).await.unwrap();
    assert_eq!(a.getattr(ino).await.unwrap().size, 4);
    assert_eq!(a.read(fh, 0, 10).await.unwrap(), "a\0\0b".as_bytes());
    close(&a, fh).await.unwrap();
}

/// A kernel that keeps everything: it takes note of what it is told to drop.
#[derive(Default)]
pub struct Dropped(Mutex<Vec<String>>);

impl Dropped {
    fn note(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }

    fn note_then(&self, what: String) -> oneshot::Receiver<()> {
        self.note(what);
        let (done, carried_out) = oneshot::channel();
        done.send(()).unwrap();
        carried_out
    }

    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl KernelCaches for Dropped {
    fn drop_attributes(&self, ino: Ino) {
        self.note(format!("attributes {ino}"));
    }

    fn drop_pages(&self, ino: Ino) {
        self.note(format!("pages {ino}"));
    }

    fn drop_attributes_then(&self, ino: Ino) -> oneshot::Receiver<()> {
        self.note_then(format!("attributes {ino}"))
    }

    fn drop_pages_then(&self, ino: Ino) -> oneshot::Receiver<()> {
        self.note_then(format!("pages {ino}"))
    }

    fn has_mapped(&self, _: u32, _: Ino) -> bool {
        false
    }

    fn drop_entry(&self, _: Ino, name: &Name) {
        self.note(format!("entry {name}"));
    }
}

/// The kernel reads no further than the size that it knows.
#[tokio::test]
async fn regression_an_open_ends_the_size_that_the_kernel_had_before() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.mount(replacing()), cluster.mount(replacing()));
    let kernel = Arc::new(Dropped::default());
    b.set_kernel(kernel.clone());
    cluster.hold_events();
    let ino = store(&a, "f", b"old").await;
    b.lookup(Ino::ROOT, &name("f")).await.unwrap();
    let fh = a.open(CALLER, ino, WRITE).await.unwrap().fh;
    write_all(&a, fh, 0, b"longer").await;
    close(&a, fh).await.unwrap();
    assert!(kernel.take().is_empty(), "the news are still on their way");
    let fh = b.open(CALLER, ino, READ).await.unwrap().fh;
    assert_eq!(kernel.take(), [format!("attributes {ino}")]);
    close(&b, fh).await.unwrap();
    let fh = b.open(CALLER, ino, READ).await.unwrap().fh;
    assert!(kernel.take().is_empty(), "once is enough");
    close(&b, fh).await.unwrap();
}

/// Without the stream of changes the kernel tells old pages by size and mtime, and those of a file with changes that
/// wait here do not move.
#[tokio::test]
async fn regression_pages_of_a_file_that_two_mounts_change_are_dropped_while_nobody_tells_of_changes() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.mount(replacing()), cluster.mount(replacing()));
    let kernel = Arc::new(Dropped::default());
    b.set_kernel(kernel.clone());
    let ino = store(&a, "f", b"0123456789").await;
    b.lookup(Ino::ROOT, &name("f")).await.unwrap();
    cluster.stream_down(1);
    let fh = b.open(CALLER, ino, READ_WRITE).await.unwrap().fh;
    write_all(&b, fh, 0, b"b").await;
    let before = b.getattr(ino).await.unwrap();
    let other = a.open(CALLER, ino, WRITE).await.unwrap().fh;
    write_all(&a, other, 5, b"a").await;
    close(&a, other).await.unwrap();
    kernel.take();
    let after = b.getattr(ino).await.unwrap();
    assert_eq!((after.size, after.mtime), (before.size, before.mtime));
    assert_eq!(kernel.take(), [format!("pages {ino}")]);
    b.getattr(ino).await.unwrap();
    assert!(kernel.take().is_empty(), "once is enough");
    assert_eq!(b.read(fh, 0, 100).await.unwrap(), "b1234a6789");
    close(&b, fh).await.unwrap();
}

/// A rename moves the entry that the kernel has, whatever it names.
#[tokio::test]
async fn regression_a_rename_of_what_others_have_replaced_leaves_no_wrong_entry() {
    let cluster = Cluster::new().await;
    let (a, b) = (cluster.mount(replacing()), cluster.mount(replacing()));
    let kernel = Arc::new(Dropped::default());
    b.set_kernel(kernel.clone());
    cluster.hold_events();
    store(&a, "f", b"old").await;
    store(&a, "new", b"new").await;
    b.lookup(Ino::ROOT, &name("f")).await.unwrap();
    a.rename(Ino::ROOT, &name("new"), Ino::ROOT, &name("f"), RenameMode::Replace).await.unwrap();
    b.rename(Ino::ROOT, &name("f"), Ino::ROOT, &name("g"), RenameMode::Replace).await.unwrap();
    assert!(kernel.take().contains(&"entry g".to_owned()));
}

#[tokio::test]
async fn regression_every_name_of_a_file_is_dropped_when_nobody_tells_of_changes_any_more() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(replacing());
    let kernel = Arc::new(Dropped::default());
    vfs.set_kernel(kernel.clone());
    let ino = store(&vfs, "one", b"1").await;
    vfs.link(ino, Ino::ROOT, &name("two")).await.unwrap();
    vfs.on_down();
    let dropped = kernel.take();
    for entry in ["entry one", "entry two"] {
        assert!(dropped.contains(&entry.to_owned()), "{dropped:?}");
    }
}

#[tokio::test]
async fn regression_a_directory_with_a_file_that_is_being_written_is_not_replaced() {
    let cluster = Cluster::new().await;
    let vfs = cluster.mount(replacing());
    let dir = vfs.mkdir(CALLER, Ino::ROOT, &name("d"), 0o755).await.unwrap();
    vfs.mkdir(CALLER, Ino::ROOT, &name("empty"), 0o755).await.unwrap();
    let fh = vfs.create(CALLER, dir.ino, &name("f"), 0o644, TRUNCATE).await.unwrap().opened.fh;
    write_all(&vfs, fh, 0, b"precious").await;
    let (empty, full) = (name("empty"), name("d"));
    let refused = vfs.rename(Ino::ROOT, &empty, Ino::ROOT, &full, RenameMode::Replace).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::NotEmpty);
    vfs.rename(Ino::ROOT, &full, Ino::ROOT, &full, RenameMode::Replace).await.unwrap();
    close(&vfs, fh).await.unwrap();
    let stored = vfs.lookup(dir.ino, &name("f")).await.unwrap();
    assert_eq!(stored.size, 8);
}
