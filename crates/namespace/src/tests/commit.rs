//! Commit: what it does to inodes, entries, blobs and volumes. What it does to bytes is in `commit_model`.

use super::harness::*;
use dfs_metastore::row::VolumeRow;
use dfs_proto::limits::{COMMIT_EXTENTS_MAX, FILE_BYTES_MAX};
use dfs_proto::meta::{Collision, Commit, CommitSize, ReadOp, WriteOp};
use dfs_proto::{
    BlobKey, BlobRef, CollisionPolicy, ErrorCode, EventKind, Extent, Ino, MetaReply, NodeId, Seq, Timestamp,
    VolumeId,
};

const ROOT: Ino = Ino::ROOT;
const RENAME: Collision = Collision::Explicit(CollisionPolicy::Rename);
const REPLACE: Collision = Collision::Explicit(CollisionPolicy::Replace);

fn put(world: &mut World<'_>, parent: Ino, text: &str, collision: Collision) -> (Ino, Option<String>) {
    let committed = world.commit(create(parent, text, vec![], collision));
    (committed.attr.ino, committed.stored_as.map(|name| name.to_string()))
}

fn md5_of(world: &World<'_>, ino: Ino) -> Option<dfs_proto::Md5> {
    match world.read(&ReadOp::Open { ino, known: None }) {
        Ok(MetaReply::Opened(opened)) => opened.md5,
        other => panic!("an open gave {other:?}"),
    }
}

on_each_store! {
    fn a_new_file_appears_whole(world) {
        let mut new = create(ROOT, "file", vec![data(0, 10, 1), data(20, 5, 2)], rename_rule());
        new.ino = Ino(700);
        new.size = CommitSize::Exactly(40);
        new.mtime = Some(Timestamp { secs: 3, nanos: 4 });
        new.md5 = Some(blob(9).md5);
        let version = world.attr(ROOT).version;
        let committed = world.commit(new);
        assert_eq!(world.changes, [entry(ROOT, "file")]);
        assert_eq!((committed.stored_as, committed.appended_by), (None, 0));
        let attr = committed.attr;
        assert_eq!(world.attr(Ino(700)), attr);
        assert_eq!(world.lookup(ROOT, "file"), Some(Ino(700)));
        assert_eq!((attr.size, attr.allocated, attr.version.0, attr.nlink), (40, 15, 1, 1));
        assert_eq!((attr.mode, attr.uid, attr.gid), (0o644, 1000, 1000));
        assert_eq!((attr.mtime, attr.ctime), (Timestamp { secs: 3, nanos: 4 }, world.now()));
        assert_eq!(md5_of(world, attr.ino), Some(blob(9).md5));
        let parent = world.attr(ROOT);
        assert_eq!((parent.mtime, parent.version), (world.now(), version.next()));
    }

    fn a_taken_name_gets_a_number_under_rename(world) {
        let (first, _) = put(world, ROOT, "a.txt", RENAME);
        for n in 1..20 {
            let stored_as = format!("a-{n}.txt");
            assert_eq!(put(world, ROOT, "a.txt", RENAME).1, Some(stored_as.clone()));
            assert_eq!(world.changes, [entry(ROOT, &stored_as)]);
        }
        assert_eq!(world.lookup(ROOT, "a.txt"), Some(first));
        world.unlink(ROOT, "a-1.txt");
        assert_eq!(put(world, ROOT, "a.txt", RENAME).1, Some("a-1.txt".into()));
        world.unlink(ROOT, "a.txt");
        assert_eq!(put(world, ROOT, "a.txt", RENAME).1, None);
    }

    fn a_directory_in_the_way_is_a_collision_like_any_other(world) {
        world.mkdir(ROOT, "a");
        assert_eq!(put(world, ROOT, "a", RENAME).1, Some("a-1".into()));
        let replace = create(ROOT, "a", vec![], REPLACE);
        assert_eq!(world.refused(&WriteOp::Commit(replace)), ErrorCode::IsDirectory);
    }

    fn replace_puts_the_new_file_in_the_place_of_the_old(world) {
        let old = world.put(ROOT, "a", vec![data(0, 10, 1)]).attr.ino;
        let new = world.commit(create(ROOT, "a", vec![data(0, 5, 2)], REPLACE));
        assert_eq!(world.changes, [entry(ROOT, "a"), EventKind::Attr(old)]);
        assert_eq!(new.stored_as, None);
        assert_eq!(world.lookup(ROOT, "a"), Some(new.attr.ino));
        assert!(world.is_gone(old));
        assert_eq!(world.garbage(), [1]);
    }

    fn replace_leaves_other_names_and_open_files_alone(world) {
        let old = world.put(ROOT, "a", vec![data(0, 10, 1)]).attr.ino;
        world.link(old, ROOT, "b");
        world.commit(create(ROOT, "a", vec![], REPLACE));
        assert_eq!(world.attr(old).nlink, 1);
        world.open.insert(old);
        world.commit(create(ROOT, "b", vec![], REPLACE));
        assert_eq!((world.attr(old).nlink, world.extents(old).len()), (0, 1));
        world.symlink(ROOT, "link", "x");
        world.commit(create(ROOT, "link", vec![], REPLACE));
    }

    fn a_new_file_may_take_over_blobs_of_the_one_it_replaces(world) {
        world.put(ROOT, "a", vec![data(0, 10, 1), data(10, 10, 2)]);
        world.commit(create(ROOT, "a", vec![data(0, 10, 2)], REPLACE));
        assert_eq!(world.garbage(), [1]);
    }

    fn explicit_outdoes_the_directory_and_the_directory_the_default(world) {
        use CollisionPolicy::{Rename, Replace};
        let (keep, over) = (world.mkdir(ROOT, "keep"), world.mkdir(ROOT, "over"));
        world.set_xattr(keep, "user.dfs.collision", b"rename");
        world.set_xattr(over, "user.dfs.collision", b"replace");
        for directory in [ROOT, keep, over] {
            put(world, directory, "a", RENAME);
        }
        for (directory, collision, renamed) in [
            (ROOT, Collision::Default(Rename), true),
            (ROOT, Collision::Default(Replace), false),
            (keep, Collision::Default(Replace), true),
            (keep, Collision::Explicit(Replace), false),
            (over, Collision::Default(Rename), false),
            (over, Collision::Explicit(Rename), true),
        ] {
            let stored_as = put(world, directory, "a", collision).1;
            assert_eq!(stored_as.is_some(), renamed, "{collision:?} in {directory}");
        }
    }

    fn a_new_file_needs_a_directory_and_a_fresh_number(world) {
        let file = world.touch(ROOT, "file");
        for (parent, ino, code) in [
            (file, Ino(0), ErrorCode::NotDirectory),
            (Ino(999), Ino(0), ErrorCode::NotFound),
            (ROOT, file, ErrorCode::Conflict),
            (ROOT, ROOT, ErrorCode::Conflict),
            (ROOT, Ino(u64::MAX), ErrorCode::InvalidArgument),
        ] {
            let new = Commit { ino, ..create(parent, "new", vec![data(0, 1, 1)], RENAME) };
            assert_eq!(world.refused(&WriteOp::Commit(new)), code, "{parent} {ino}");
        }
        let removed = world.mkdir(ROOT, "directory");
        world.rmdir(ROOT, "directory");
        let new = create(removed, "new", vec![], RENAME);
        assert_eq!(world.refused(&WriteOp::Commit(new)), ErrorCode::NotFound);
    }

    fn an_edit_makes_a_new_version_of_a_file_that_exists(world) {
        let ino = world.put(ROOT, "file", vec![data(0, 30, 1)]).attr.ino;
        let directory = world.attr(ROOT);
        let attr = world.commit(edit(ino, vec![data(10, 10, 2)])).attr;
        assert_eq!(world.changes, [EventKind::Content(ino)]);
        assert_eq!((attr.version.0, attr.size, attr.allocated), (2, 30, 30));
        assert_eq!((attr.mtime, attr.ctime), (world.now(), world.now()));
        assert_eq!(world.extents(ino), [data(0, 10, 1), data(10, 10, 2), part(20, 10, 1, 20)]);
        assert_eq!(world.attr(ROOT), directory);
        let mtime = Some(Timestamp { secs: 9, nanos: 0 });
        let attr = world.commit(Commit { mtime, ..edit(ino, vec![data(0, 1, 3)]) }).attr;
        assert_eq!(Some(attr.mtime), mtime);
    }

    fn a_change_keeps_its_time_unless_that_is_in_the_future_or_before_another_change(world) {
        let ctime = Some(Timestamp { secs: 900, nanos: 1 });
        let mut new = Commit { ctime, ..create(ROOT, "file", vec![data(0, 30, 1)], rename_rule()) };
        let born = Timestamp { secs: 800, nanos: 0 };
        new.create.as_mut().unwrap().born = Some(born);
        let attr = world.commit(new).attr;
        assert_eq!((attr.atime, attr.btime), (born, born));
        assert_eq!((Some(attr.ctime), attr.mtime), (ctime, world.now()));
        let later = Some(Timestamp { secs: 900, nanos: 2 });
        let attr = world.commit(Commit { ctime: later, ..edit(attr.ino, vec![data(0, 1, 2)]) }).attr;
        assert_eq!(Some(attr.ctime), later);
        for wrong in [ctime, Some(Timestamp { secs: 5_000, nanos: 0 })] {
            let attr = world.commit(Commit { ctime: wrong, ..edit(attr.ino, vec![data(0, 1, 3)]) }).attr;
            assert_eq!(attr.ctime, world.now(), "{wrong:?}");
        }
        let ahead = Commit { ctime: Some(Timestamp { secs: 5_000, nanos: 0 }), ..edit(attr.ino, vec![]) };
        let new = Commit { create: create(ROOT, "other", vec![], rename_rule()).create, ino: Ino(0), ..ahead };
        assert_eq!(world.commit(new).attr.ctime, world.now());
    }

    fn an_edit_that_changes_nothing_makes_no_version(world) {
        let ino = world.put(ROOT, "file", vec![data(0, 30, 1)]).attr.ino;
        let before = world.attr(ino);
        assert_eq!(world.commit(edit(ino, vec![])).attr, before);
        assert!(world.changes.is_empty());
        let mtime = Some(Timestamp { secs: 9, nanos: 0 });
        let attr = world.commit(Commit { mtime, ..edit(ino, vec![]) }).attr;
        assert_eq!((Some(attr.mtime), attr.version), (mtime, before.version));
        assert_eq!(world.changes, [EventKind::Attr(ino)]);
        let mut grown = edit(ino, vec![]);
        grown.size = CommitSize::AtLeast(50);
        assert_eq!(world.commit(grown).attr.version, before.version.next());
    }

    fn edits_are_for_files_that_are_there(world) {
        let link = world.symlink(ROOT, "link", "x");
        for (ino, code) in [
            (ROOT, ErrorCode::IsDirectory),
            (link, ErrorCode::InvalidArgument),
            (Ino(999), ErrorCode::Stale),
            (Ino(0), ErrorCode::Stale),
            (Ino(u64::MAX), ErrorCode::Stale),
        ] {
            assert_eq!(world.refused(&WriteOp::Commit(edit(ino, vec![data(0, 1, 1)]))), code, "{ino}");
        }
    }

    fn an_edit_leaves_set_id_bits_to_the_kernel_that_wrote(world) {
        let mut new = create(ROOT, "file", vec![], RENAME);
        if let Some(create) = &mut new.create {
            create.mode = 0o6755;
        }
        let attr = world.commit(new).attr;
        assert_eq!(attr.mode, 0o6755);
        assert_eq!(world.commit(edit(attr.ino, vec![data(0, 1, 1)])).attr.mode, 0o6755);
    }

    fn blobs_that_lose_their_last_extent_become_garbage(world) {
        let ino = world.put(ROOT, "file", vec![data(0, 10, 1), data(10, 10, 2), data(20, 10, 3)]).attr.ino;
        world.commit(edit(ino, vec![data(5, 10, 4)]));
        assert!(world.garbage().is_empty());
        world.commit(edit(ino, vec![data(0, 5, 5), hole(15, 5)]));
        assert_eq!(world.garbage(), [1, 2]);
        // A blob that the same commit puts elsewhere is not.
        world.commit(edit(ino, vec![data(20, 10, 6), data(30, 10, 3)]));
        assert_eq!(world.garbage(), [1, 2]);
    }

    fn garbage_that_is_used_again_is_garbage_no_more(world) {
        world.put(ROOT, "a", vec![data(0, 10, 1)]);
        world.unlink(ROOT, "a");
        assert_eq!(world.garbage(), [1]);
        world.put(ROOT, "b", vec![data(0, 10, 1)]);
        assert!(world.garbage().is_empty());
    }

    fn a_blob_that_its_own_commit_hides_is_garbage(world) {
        world.put(ROOT, "a", vec![data(0, 10, 1), data(0, 10, 2)]);
        assert_eq!(world.garbage(), [1]);
    }

    fn neighbours_that_continue_each_other_become_one(world) {
        let ino = world.put(ROOT, "file", vec![part(0, 10, 1, 0), part(10, 10, 1, 10)]).attr.ino;
        assert_eq!(world.extents(ino), [part(0, 20, 1, 0)]);
        world.commit(edit(ino, vec![part(30, 10, 1, 30)]));
        world.commit(edit(ino, vec![part(20, 10, 1, 20)]));
        assert_eq!(world.extents(ino), [part(0, 40, 1, 0)]);
        world.commit(edit(ino, vec![data(5, 10, 2)]));
        world.commit(edit(ino, vec![part(5, 10, 1, 5)]));
        assert_eq!(world.extents(ino), [part(0, 40, 1, 0)]);
        assert_eq!(world.garbage(), [2]);
    }

    fn volumes_reach_as_far_as_their_blobs(world) {
        for id in [1, 2] {
            let row = VolumeRow {
                id: VolumeId(id),
                primary: NodeId(1),
                open_for: None,
                next_key: BlobKey(1),
                seq: Seq(5),
            };
            world.txn.put_volume(&row).unwrap();
        }
        world.put(ROOT, "file", vec![data(0, 10, 9), data(10, 10, 7)]);
        let reach: Vec<_> = world.txn.volumes().unwrap().iter().map(|row| row.seq.0).collect();
        assert_eq!(reach, [9, 5]);
        world.put(ROOT, "file", vec![data(0, 10, 3)]);
        let reach: Vec<_> = world.txn.volumes().unwrap().iter().map(|row| row.seq.0).collect();
        assert_eq!(reach, [9, 5]);
    }

    fn an_append_goes_to_where_the_file_ends_by_now(world) {
        let ino = world.put(ROOT, "log", vec![data(0, 100, 1)]).attr.ino;
        let append = |from: u64, length: u64, key: u64| Commit {
            append_from: Some(from),
            size: CommitSize::AtLeast(from + length),
            ..edit(ino, vec![data(from, length, key)])
        };
        let first = world.commit(append(100, 10, 2));
        let second = world.commit(append(100, 20, 3));
        assert_eq!((first.appended_by, second.appended_by), (0, 10));
        assert_eq!(second.attr.size, 130);
        assert_eq!(world.extents(ino), [data(0, 100, 1), data(100, 10, 2), data(110, 20, 3)]);
        world.commit(Commit { truncate_to: Some(50), ..edit(ino, vec![]) });
        let third = world.commit(append(130, 5, 4));
        assert_eq!((third.appended_by, third.attr.size), (-80, 55));
        assert_eq!(world.extents(ino), [data(0, 50, 1), data(50, 5, 4)]);
    }

    fn what_the_same_commit_wrote_below_an_append_stays_below(world) {
        let ino = world.touch(ROOT, "log");
        // Ten bytes by pwrite(2), then ten with O_APPEND, in one staged block.
        let commit = Commit { append_from: Some(10), ..edit(ino, vec![data(0, 20, 1)]) };
        assert_eq!(world.commit(commit.clone()).appended_by, 0);
        assert_eq!(world.extents(ino), [data(0, 20, 1)]);
        // The same again: the first ten bytes lie over the old ones, the others follow.
        let again = world.commit(Commit { extents: vec![data(0, 20, 2)], ..commit });
        assert_eq!((again.appended_by, again.attr.size), (10, 30));
        assert_eq!(world.extents(ino), [data(0, 10, 2), part(10, 10, 1, 10), part(20, 10, 2, 10)]);
    }

    fn a_writer_that_truncated_appends_where_it_said(world) {
        let ino = world.put(ROOT, "log", vec![data(0, 100, 1)]).attr.ino;
        let commit = Commit {
            truncate_to: Some(0),
            append_from: Some(30),
            size: CommitSize::Exactly(40),
            ..edit(ino, vec![data(30, 10, 2)])
        };
        let committed = world.commit(commit);
        assert_eq!((committed.appended_by, committed.attr.size), (0, 40));
        assert_eq!(world.extents(ino), [data(30, 10, 2)]);
    }

    fn an_md5_is_kept_only_with_the_whole_content(world) {
        let md5 = Some(blob(50).md5);
        let whole = Commit { md5, ..create(ROOT, "file", vec![data(0, 10, 1)], RENAME) };
        let ino = world.commit(whole).attr.ino;
        assert_eq!(md5_of(world, ino), md5);
        world.commit(Commit { md5, ..edit(ino, vec![data(0, 5, 2)]) });
        assert_eq!(md5_of(world, ino), None, "half of it may be somebody else's");
        world.commit(Commit { md5, ..edit(ino, vec![data(0, 10, 3)]) });
        assert_eq!(md5_of(world, ino), md5);
        world.commit(edit(ino, vec![data(0, 10, 4)]));
        assert_eq!(md5_of(world, ino), None, "the writer does not know it");
        let anew = Commit { md5, truncate_to: Some(0), ..edit(ino, vec![data(0, 3, 5)]) };
        world.commit(anew);
        assert_eq!(md5_of(world, ino), md5);
        world.commit(edit(ino, vec![]));
        assert_eq!(md5_of(world, ino), md5, "nothing has changed");
        let append = Commit { md5, append_from: Some(0), ..edit(ino, vec![data(0, 3, 6)]) };
        assert_eq!(world.commit(append).appended_by, 3);
        assert_eq!(md5_of(world, ino), None, "something came before it");
    }

    fn commits_that_cannot_be_are_refused(world) {
        let ino = world.put(ROOT, "file", vec![data(0, 100, 1)]).attr.ino;
        let with_blob = |change: fn(&mut BlobRef)| {
            let mut described = blob(2);
            change(&mut described);
            vec![Extent { blob: Some(described), ..data(0, 10, 2) }]
        };
        use ErrorCode::{InvalidArgument, TooLarge};
        for (extents, code) in [
            (vec![data(0, 0, 2)], InvalidArgument),
            (vec![hole(0, 0)], InvalidArgument),
            (vec![part(0, 10, 2, 991)], InvalidArgument),
            (vec![part(0, 1001, 2, 0)], InvalidArgument),
            (vec![part(0, 10, 2, u32::MAX)], InvalidArgument),
            (vec![Extent { blob_offset: 1, ..hole(0, 10) }], InvalidArgument),
            (vec![data(u64::MAX, 10, 2)], TooLarge),
            (vec![data(0, u64::MAX, 2)], TooLarge),
            (vec![hole(1, u64::MAX)], TooLarge),
            (vec![data(FILE_BYTES_MAX - 9, 10, 2)], TooLarge),
            (with_blob(|b| b.length = 0), InvalidArgument),
            (with_blob(|b| b.length = (4 << 20) + 1), InvalidArgument),
            (with_blob(|b| b.seq = Seq(u64::MAX)), InvalidArgument),
            (with_blob(|b| b.id.volume = VolumeId(u64::MAX)), InvalidArgument),
            (with_blob(|b| b.id.key = BlobKey(u64::MAX)), InvalidArgument),
            ([with_blob(|b| b.seq = Seq(77)), vec![data(10, 10, 2)]].concat(), InvalidArgument),
            (vec![hole(0, 1); COMMIT_EXTENTS_MAX + 1], InvalidArgument),
            // The first is right, and must not have been written.
            (vec![data(0, 10, 3), data(10, 0, 4)], InvalidArgument),
        ] {
            let text = format!("{:?}", &extents[..extents.len().min(2)]);
            assert_eq!(world.refused(&WriteOp::Commit(edit(ino, extents))), code, "{text}");
        }
        let ten = || edit(ino, vec![data(100, 10, 2)]);
        for (commit, code) in [
            (Commit { size: CommitSize::AtLeast(FILE_BYTES_MAX + 1), ..ten() }, TooLarge),
            (Commit { size: CommitSize::Exactly(u64::MAX), ..ten() }, TooLarge),
            (Commit { size: CommitSize::Exactly(109), ..ten() }, InvalidArgument),
            (Commit { truncate_to: Some(u64::MAX), ..ten() }, TooLarge),
            (Commit { append_from: Some(u64::MAX), ..ten() }, TooLarge),
            (Commit { mtime: Some(Timestamp { secs: 0, nanos: u32::MAX }), ..ten() }, InvalidArgument),
            (Commit { ctime: Some(Timestamp { secs: 0, nanos: u32::MAX }), ..ten() }, InvalidArgument),
        ] {
            let text = format!("{commit:?}");
            assert_eq!(world.refused(&WriteOp::Commit(commit)), code, "{text}");
        }
        let mut end = edit(ino, vec![]);
        end.size = CommitSize::AtLeast(FILE_BYTES_MAX);
        world.commit(end);
        let append = Commit { append_from: Some(100), ..ten() };
        assert_eq!(world.refused(&WriteOp::Commit(append)), TooLarge);
    }

    fn a_thousand_files_of_one_name_are_all_kept(world) {
        let now = world.now();
        // Not through the world, which looks at every row after each write.
        for _ in 0..1000 {
            let op = WriteOp::Commit(create(ROOT, "same", vec![], RENAME));
            let mut changes = Vec::new();
            let mut context = crate::WriteContext {
                now,
                session: None,
                is_open: &|_| false,
                changes: &mut changes,
            };
            crate::write(world.txn, &mut context, &op).unwrap();
        }
        assert!(world.lookup(ROOT, "same-999").is_some());
    }
}
