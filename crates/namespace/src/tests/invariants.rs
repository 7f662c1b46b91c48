//! What must hold of the rows after every operation (the crate's documentation has it in prose).

use crate::access::{self, Which};
use dfs_metastore::ReadTxn;
use dfs_metastore::row::{DentryRow, GarbageRow, InodeRow};
use dfs_proto::{BlobId, BlobRef, DirCookie, FileKind, Ino, Name, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Panics with what does not hold. `blobs` are all that were ever committed.
pub fn check_invariants(txn: &dyn ReadTxn, blobs: &BTreeMap<BlobId, BlobRef>) {
    let tree = Tree::walk(txn);
    for (ino, names) in &tree.names {
        check_links(&tree, &tree.rows[ino], *names);
    }
    let mut used = BTreeSet::new();
    for row in tree.rows.values() {
        check_row(txn, row);
        check_extents(txn, row, &mut used);
    }
    check_blobs(txn, &used, blobs);
    check_stats(txn, &tree);
}

/// Everything that can be reached, as text.
pub fn dump(txn: &dyn ReadTxn) -> String {
    let tree = Tree::walk(txn);
    let mut text = String::new();
    let line = |text: &mut String, what: &dyn std::fmt::Debug| writeln!(text, "{what:?}").unwrap();
    for row in tree.rows.values() {
        line(&mut text, row);
        line(&mut text, &txn.extents(row.ino, 0, u32::MAX).unwrap());
        line(&mut text, &txn.symlink(row.ino).unwrap());
        line(&mut text, &txn.locks(row.ino).unwrap());
        for name in txn.xattr_names(row.ino).unwrap() {
            line(&mut text, &(&name, txn.xattr(row.ino, &name).unwrap()));
        }
    }
    line(&mut text, &tree.entries);
    line(&mut text, &tree.orphans);
    line(&mut text, &garbage(txn));
    line(&mut text, &txn.volumes().unwrap());
    text
}

/// The namespace in memory.
#[derive(Default)]
struct Tree {
    rows: BTreeMap<Ino, InodeRow>,
    entries: Vec<DentryRow>,
    /// How many entries name each inode that has any, and the root.
    names: BTreeMap<Ino, u32>,
    subdirectories: BTreeMap<Ino, u32>,
    orphans: Vec<Ino>,
}

impl Tree {
    fn walk(txn: &dyn ReadTxn) -> Tree {
        let mut tree = Tree::default();
        tree.rows.insert(Ino::ROOT, txn.inode(Ino::ROOT).unwrap().expect("there is a root"));
        tree.names.insert(Ino::ROOT, 1);
        let mut waiting = vec![Ino::ROOT];
        while let Some(directory) = waiting.pop() {
            let mut after = DirCookie(0);
            loop {
                let page = txn.dentries(directory, after, 100).unwrap();
                let Some((last, _)) = page.last() else { break };
                after = last.cookie;
                for (entry, row) in page {
                    assert!(entry.cookie.0 > DirCookie::RESERVED, "{entry:?}");
                    assert!(Name::new(entry.name.clone()).is_ok(), "{entry:?}");
                    *tree.names.entry(row.ino).or_default() += 1;
                    if row.kind == FileKind::Directory {
                        assert_eq!(row.parent, directory, "the parent of {row:?}");
                        *tree.subdirectories.entry(directory).or_default() += 1;
                        waiting.push(row.ino);
                    }
                    tree.rows.insert(row.ino, row);
                    tree.entries.push(entry);
                }
            }
        }
        tree.orphans = txn.orphans(Ino(0), u32::MAX).unwrap();
        for ino in &tree.orphans {
            let row = txn.inode(*ino).unwrap().expect("an orphan has a row");
            assert_eq!(row.nlink, 0, "{row:?}");
            assert!(tree.rows.insert(*ino, row).is_none(), "orphan {ino} has a name");
        }
        tree
    }
}

fn check_links(tree: &Tree, row: &InodeRow, names: u32) {
    if row.kind == FileKind::Directory {
        assert_eq!(names, 1, "names of directory {row:?}");
        let subdirectories = tree.subdirectories.get(&row.ino).copied().unwrap_or(0);
        assert_eq!(row.nlink, 2 + subdirectories, "nlink of {row:?}");
    } else {
        assert_eq!(row.nlink, names, "nlink of {row:?}");
    }
}

fn check_row(txn: &dyn ReadTxn, row: &InodeRow) {
    let is_directory = row.kind == FileKind::Directory;
    assert_eq!(row.mode & !0o7777, 0, "{row:?}");
    assert!(row.version.0 >= 1, "{row:?}");
    assert!(is_directory || row.parent == Ino(0) && row.collision.is_none(), "{row:?}");
    assert!(row.kind == FileKind::File || row.md5.is_none() && row.allocated == 0, "{row:?}");
    check_lists(txn, row);
    let target = txn.symlink(row.ino).unwrap();
    assert_eq!(target.is_some(), row.kind == FileKind::Symlink, "target of {row:?}");
    match row.kind {
        FileKind::Directory => assert_eq!(row.size, 4096, "{row:?}"),
        FileKind::Symlink => assert_eq!(Some(row.size), target.map(|t| t.len() as u64)),
        _ => {}
    }
}

fn check_lists(txn: &dyn ReadTxn, row: &InodeRow) {
    let names = txn.xattr_names(row.ino).unwrap();
    let system: Vec<_> = names.iter().filter(|name| name.starts_with(b"system.")).collect();
    assert!(system.iter().all(|name| Which::named(name).is_some()), "{system:?} of {row:?}");
    assert_eq!(row.has_acl, !system.is_empty(), "{system:?} of {row:?}");
    assert!(!row.has_acl || row.kind != FileKind::Symlink, "{row:?}");
    if let Some(list) = access::fetch(txn, row, Which::Access).unwrap() {
        assert!(!list.is_mode_alone(), "{list:?} of {row:?} says no more than the mode");
        assert_eq!(list.permissions(), row.mode & 0o777, "{list:?} of {row:?}");
    }
    let has_default = access::fetch(txn, row, Which::Default).unwrap().is_some();
    assert!(!has_default || row.kind == FileKind::Directory, "{row:?}");
}

fn check_extents(txn: &dyn ReadTxn, row: &InodeRow, used: &mut BTreeSet<BlobId>) {
    let extents = txn.extents(row.ino, 0, u32::MAX).unwrap();
    let is_condemned = row.nlink == 0 && row.size == 0;
    for extent in &extents {
        let blob = extent.blob.expect("stored extents have a blob");
        assert!(extent.length > 0, "{extent:?} of {row:?}");
        assert!(u64::from(extent.blob_offset) + extent.length <= u64::from(blob.length), "{extent:?}");
        assert!(is_condemned || extent.end() <= row.size, "{extent:?} beyond the end of {row:?}");
        assert!(txn.blob_in_use(blob.id).unwrap(), "{extent:?}");
        used.insert(blob.id);
    }
    for pair in extents.windows(2) {
        assert!(pair[0].end() <= pair[1].offset, "{pair:?} of {row:?}");
        assert!(!pair[0].continues_with(&pair[1]), "{pair:?} of {row:?} could be one");
    }
    assert_eq!(row.allocated, extents.iter().map(|e| e.length).sum::<u64>(), "allocated of {row:?}");
}

fn check_blobs(txn: &dyn ReadTxn, used: &BTreeSet<BlobId>, blobs: &BTreeMap<BlobId, BlobRef>) {
    let garbage: BTreeMap<BlobId, GarbageRow> = garbage(txn).into_iter().map(|g| (g.blob, g)).collect();
    for (id, blob) in blobs {
        match (used.contains(id), garbage.get(id)) {
            (true, None) => {}
            (false, Some(row)) => {
                assert_eq!(row.length, blob.length, "{row:?}");
                assert!(!txn.blob_in_use(*id).unwrap(), "{row:?}");
            }
            (true, Some(row)) => panic!("{row:?} is referred to"),
            (false, None) => panic!("blob {id} is neither referred to nor garbage"),
        }
    }
    assert!(used.iter().all(|id| blobs.contains_key(id)), "blobs from nowhere: {used:?}");
    assert!(garbage.keys().all(|id| blobs.contains_key(id)), "garbage from nowhere: {garbage:?}");
}

fn check_stats(txn: &dyn ReadTxn, tree: &Tree) {
    let stats = txn.stats().unwrap();
    let of = |kind| tree.rows.values().filter(move |row| row.kind == kind);
    assert_eq!(stats.inodes, tree.rows.len() as u64, "inodes that nothing leads to");
    assert_eq!(stats.directories, of(FileKind::Directory).count() as u64);
    assert_eq!(stats.files, of(FileKind::File).count() as u64);
    let locks = |row: &InodeRow| txn.locks(row.ino).unwrap().len() as u64;
    assert_eq!(stats.locks, tree.rows.values().map(locks).sum::<u64>(), "locks of no inode");
    assert_eq!(stats.file_bytes, of(FileKind::File).fold(0, |sum: u64, row| sum.saturating_add(row.size)));
}

fn garbage(txn: &dyn ReadTxn) -> Vec<GarbageRow> {
    let mut rows = txn.garbage(Timestamp { secs: i64::MAX, nanos: 0 }, u32::MAX).unwrap();
    rows.sort_by_key(|row| row.blob);
    rows
}
