//! The cases that every store has to pass, each on an empty store of its own.
//!
//! Small and named, so that a failure says what is broken. Where a promise has an order, rows are written in
//! another one.

mod calls;
mod cluster;
mod locks;
mod namespace;

use crate::row::{
    CopyRow, DentryRow, GarbageRow, InodeRow, LockRow, NodeDuty, NodeRow, SessionRow, VolumeRow,
};
use crate::seam::{Counter, Durability, ReadTxn, StoreError, StoreStats, WriteTxn};
use crate::store::Store;
use dfs_proto::{
    BlobId, BlobKey, BlobRef, CollisionPolicy, DirCookie, Extent, FileKind, Ino, Md5, NodeId, Seq, SessionId,
    Timestamp, Version, VolumeId,
};

#[cfg(test)]
pub(crate) use locks::whole as whole_lock;

type Done = Result<(), StoreError>;
type Case = (&'static str, fn(&Store) -> Done);

/// Runs every case on a store that `open` makes; panics with the name of the one that fails.
pub fn all(mut open: impl FnMut() -> Store) {
    for (name, case) in CASES {
        eprintln!("conformance: {name}");
        if let Err(e) = case(&open()) {
            panic!("conformance case {name} failed: {e}");
        }
    }
}

macro_rules! cases {
    ($($module:ident :: $name:ident),* $(,)?) => {
        /// Every case with its name.
        pub const CASES: &[Case] = &[$((stringify!($name), $module::$name)),*];
    };
}

cases![
    namespace::inode_comes_back_as_it_was_written,
    namespace::inode_is_replaced,
    namespace::extreme_values_of_an_inode_survive,
    namespace::absent_rows_are_none_and_may_be_deleted,
    namespace::numbers_that_cannot_be_kept_are_refused,
    namespace::delete_inode_takes_symlink_and_xattrs_along,
    namespace::dentry_is_found_by_its_exact_name,
    namespace::dentries_come_by_cookie_in_pages,
    namespace::replaced_dentry_gives_up_its_cookie,
    namespace::cookie_of_another_dentry_is_refused,
    namespace::dentry_without_inode_is_corrupt,
    namespace::has_dentries_sees_the_directory_only,
    namespace::extents_come_by_offset_in_pages,
    namespace::extents_begin_with_the_one_that_covers_from,
    namespace::put_extent_replaces_the_one_at_its_offset,
    namespace::extents_that_make_no_sense_are_refused,
    namespace::blob_in_use_counts_every_file,
    namespace::symlinks_and_xattrs_keep_any_bytes,
    cluster::orphans_come_sorted_in_pages,
    cluster::garbage_comes_oldest_first,
    cluster::garbage_put_again_has_its_new_age,
    cluster::nodes_are_kept,
    cluster::nodes_do_not_share_a_name_or_identity,
    cluster::volumes_are_kept,
    cluster::volume_seq_only_rises,
    cluster::copies_are_kept,
    cluster::call_results_are_kept_per_session,
    cluster::settings_are_kept,
    cluster::counters_begin_where_they_should,
    cluster::counters_never_hand_out_twice,
    cluster::exhausted_counter_is_an_error,
    locks::locks_come_by_space_session_owner_and_first_byte,
    locks::lock_put_again_is_replaced,
    locks::lock_is_deleted_by_its_key,
    locks::locks_end_with_their_session,
    locks::locks_go_with_their_inode,
    locks::locks_that_cannot_be_kept_are_refused,
    calls::stats_follow_every_change,
    calls::stats_saturate,
    calls::savepoint_kept_stays,
    calls::savepoint_undone_is_gone,
    calls::savepoints_nest,
    calls::undone_savepoint_restores_every_table,
    calls::error_undoes_the_call,
    calls::store_error_undoes_the_call_even_if_swallowed,
    calls::savepoint_left_open_undoes_the_call,
    calls::savepoint_never_begun_is_an_error,
    calls::panic_undoes_the_call_and_the_store_goes_on,
    calls::panic_in_a_read_is_an_error,
    calls::write_sees_its_own_writes,
    calls::read_sees_what_was_answered,
    calls::both_durabilities_commit,
    calls::many_writers_at_once_all_commit,
    calls::clones_are_one_store,
    calls::closed_store_says_so,
];

fn write<R: Send + 'static>(
    store: &Store,
    f: impl FnOnce(&mut dyn WriteTxn) -> Result<R, StoreError> + Send + 'static,
) -> Result<R, StoreError> {
    store.write_blocking(Durability::Process, f)
}

fn read<R: Send + 'static>(
    store: &Store,
    f: impl FnOnce(&dyn ReadTxn) -> Result<R, StoreError> + Send + 'static,
) -> Result<R, StoreError> {
    store.read_blocking(f)
}

fn at(secs: i64, nanos: u32) -> Timestamp {
    Timestamp { secs, nanos }
}

fn inode(ino: u64, kind: FileKind, size: u64) -> InodeRow {
    InodeRow {
        ino: Ino(ino),
        kind,
        mode: 0o644,
        nlink: 1,
        uid: 1000,
        gid: 1001,
        rdev: 0,
        size,
        allocated: 512,
        atime: at(1, 2),
        mtime: at(3, 4),
        ctime: at(5, 6),
        btime: at(7, 8),
        version: Version(9),
        parent: Ino(0),
        collision: None,
        md5: None,
        has_acl: false,
    }
}

pub(crate) fn file(ino: u64) -> InodeRow {
    inode(ino, FileKind::File, 0)
}

fn dentry(parent: u64, name: &[u8], cookie: u64, ino: u64) -> DentryRow {
    DentryRow { parent: Ino(parent), name: name.to_vec(), cookie: DirCookie(cookie), ino: Ino(ino) }
}

fn blob(volume: u64, key: u64) -> BlobId {
    BlobId { volume: VolumeId(volume), key: BlobKey(key) }
}

fn extent(offset: u64, length: u64, id: BlobId) -> Extent {
    let blob = BlobRef { id, seq: Seq(offset + 1), length: 4 << 20, md5: Md5([offset as u8; 16]) };
    Extent { offset, length, blob: Some(blob), blob_offset: 3 }
}

fn garbage(key: u64, secs: i64, nanos: u32) -> GarbageRow {
    GarbageRow { blob: blob(1, key), length: 100, since: at(secs, nanos) }
}

fn node(id: u64, uuid: &str, name: &str) -> NodeRow {
    NodeRow {
        id: NodeId(id),
        uuid: uuid.into(),
        name: name.into(),
        url: "http://h".into(),
        zone: "z".into(),
        duty: NodeDuty::Serve,
    }
}

fn volume(id: u64) -> VolumeRow {
    VolumeRow { id: VolumeId(id), primary: NodeId(2), open_for: None, next_key: BlobKey(1), seq: Seq(0) }
}

/// The error of a write that must be refused with [`StoreError::Failed`].
fn refused(
    store: &Store,
    f: impl FnOnce(&mut dyn WriteTxn) -> Result<(), StoreError> + Send + 'static,
) -> String {
    match write(store, f) {
        Err(e @ StoreError::Failed { .. }) => e.to_string(),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_passes() {
        all(Store::in_memory);
    }

    #[test]
    fn sqlite_passes() {
        let directory = tempfile::tempdir().unwrap();
        let mut databases = 0;
        all(|| {
            databases += 1;
            Store::open_sqlite(&directory.path().join(format!("{databases}.db"))).unwrap()
        });
    }
}
