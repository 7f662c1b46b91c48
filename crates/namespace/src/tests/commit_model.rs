//! Commits against a model that keeps, for each byte of a small file, which byte of which blob it is.

use super::harness::*;
use dfs_proto::meta::{Commit, CommitSize, ReadOp, WriteOp};
use dfs_proto::{ErrorCode, Extent, Ino, Md5, MetaReply};
use proptest::prelude::*;

/// Offsets and sizes stay below this.
const SPAN: u64 = 120;
/// Few blobs, so that they meet themselves.
const BLOBS: u64 = 6;
const SOME_MD5: Md5 = Md5([7; 16]);

/// Where a byte is: (key, offset in the blob); `None` reads as zero.
type Byte = Option<(u64, u32)>;

/// What a commit makes of `content`: the new content and by how much an append was moved. `None` when it is
/// to be refused.
fn apply(content: &[Byte], commit: &Commit) -> Option<(Vec<Byte>, i64)> {
    let mut bytes = content.to_vec();
    if let Some(size) = commit.truncate_to {
        bytes.truncate(size as usize);
    }
    let data = || commit.extents.iter().filter(|e| e.blob.is_some()).flat_map(|e| e.offset..e.end());
    let from = commit.append_from.filter(|_| commit.truncate_to.is_none()).unwrap_or(u64::MAX);
    let below = data().filter(|at| *at < from).map(|at| at + 1).max().unwrap_or(0);
    let moved_by = if from == u64::MAX { 0 } else { below.max(bytes.len() as u64) as i64 - from as i64 };
    let moved = |at: u64| if at >= from { at.saturating_add_signed(moved_by) } else { at };
    let stated = match commit.size {
        CommitSize::AtLeast(size) | CommitSize::Exactly(size) => moved(size) as usize,
    };
    let data_end = data().map(|at| moved(at) as usize + 1).max().unwrap_or(0);
    let size = match commit.size {
        CommitSize::Exactly(_) if data_end > stated => return None,
        CommitSize::Exactly(_) => stated,
        CommitSize::AtLeast(_) => stated.max(bytes.len()).max(data_end),
    };
    bytes.resize(size, None);
    for extent in &commit.extents {
        for at in extent.offset..extent.end() {
            let byte =
                extent.blob.map(|blob| (blob.id.key.0, extent.blob_offset + (at - extent.offset) as u32));
            if let Some(place) = bytes.get_mut(moved(at) as usize) {
                *place = byte;
            }
        }
    }
    Some((bytes, moved_by))
}

fn stored(world: &World<'_>, ino: Ino) -> Vec<Byte> {
    let mut bytes = vec![None; world.attr(ino).size as usize];
    for extent in world.extents(ino) {
        for at in 0..extent.length {
            let key = extent.blob.unwrap().id.key.0;
            bytes[(extent.offset + at) as usize] = Some((key, extent.blob_offset + at as u32));
        }
    }
    bytes
}

fn some_extent() -> impl Strategy<Value = Extent> {
    (0..SPAN, 1..40u64, 0..=BLOBS, 0..30u32).prop_map(|(offset, length, key, blob_offset)| match key {
        0 => hole(offset, length),
        key => part(offset, length, key, blob_offset),
    })
}

fn some_commit() -> impl Strategy<Value = Commit> {
    let size = prop_oneof![
        3 => (0..SPAN).prop_map(CommitSize::AtLeast),
        1 => (0..SPAN * 2).prop_map(CommitSize::Exactly),
    ];
    let extents = proptest::collection::vec(some_extent(), 0..5);
    let truncate_to = proptest::option::weighted(0.2, 0..SPAN);
    let append_from = proptest::option::weighted(0.3, 0..SPAN);
    (extents, size, truncate_to, append_from).prop_map(|(extents, size, truncate_to, append_from)| Commit {
        truncate_to,
        size,
        append_from,
        md5: Some(SOME_MD5),
        ..edit(Ino(0), extents)
    })
}

fn follow(world: &mut World<'_>, commits: Vec<Commit>) {
    let mut model: Option<(Ino, Vec<Byte>)> = None;
    for commit in commits {
        let before = model.as_ref().map_or(&[][..], |(_, bytes)| bytes);
        let expected = apply(before, &commit);
        let commit = match &model {
            Some((ino, _)) => Commit { ino: *ino, ..commit },
            None => Commit { create: create(Ino::ROOT, "file", vec![], rename_rule()).create, ..commit },
        };
        let Some((bytes, moved_by)) = expected else {
            assert_eq!(world.refused(&WriteOp::Commit(commit)), ErrorCode::InvalidArgument);
            continue;
        };
        let committed = world.commit(commit.clone());
        let ino = committed.attr.ino;
        assert_eq!(stored(world, ino), bytes, "{commit:?}");
        assert_eq!(committed.appended_by, moved_by, "{commit:?}");
        assert_eq!(committed.attr, world.attr(ino));
        check_md5(world, ino, &commit, moved_by, before.is_empty());
        world.check();
        model = Some((ino, bytes));
    }
}

/// An MD5 may only be kept when no byte of the content is from before the commit.
fn check_md5(world: &World<'_>, ino: Ino, commit: &Commit, moved_by: i64, was_empty: bool) {
    let Ok(MetaReply::Opened(opened)) = world.read(&ReadOp::Open { ino, known: None }) else {
        panic!("{ino} cannot be opened");
    };
    let is_untouched = commit.truncate_to.is_none() && commit.extents.is_empty();
    if opened.md5.is_none() || is_untouched {
        return;
    }
    let touched = |at: u64| commit.extents.iter().any(|e| (e.offset..e.end()).contains(&at));
    let cut = commit.truncate_to.unwrap_or(u64::MAX);
    let is_own = |at: u64| was_empty || at >= cut || touched(at);
    assert_eq!(moved_by, 0, "{commit:?}");
    assert!((0..opened.attr.size).all(is_own), "{commit:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn commits_do_to_bytes_what_the_model_does(
        commits in proptest::collection::vec(some_commit(), 1..12),
    ) {
        on_memory(move |world| follow(world, commits));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(25))]
    #[test]
    fn commits_do_to_bytes_what_the_model_does_in_sqlite(
        commits in proptest::collection::vec(some_commit(), 1..12),
    ) {
        on_sqlite(move |world| follow(world, commits));
    }
}
