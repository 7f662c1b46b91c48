//! The world that a case runs in, and short words for what cases do in it.

use super::invariants::{check_invariants, dump};
use crate::{OpError, WriteContext, initialise, read, reap_orphan, write};
use dfs_metastore::{Durability, ReadTxn, Store, StoreError, WriteTxn};
use dfs_proto::meta::{
    Collision, Commit, CommitSize, Committed, Create, Make, ReadOp, Removed, Rename, RenameMode, Renamed,
    WriteOp, XattrMode,
};
use dfs_proto::{
    Attr, BlobId, BlobKey, BlobRef, CollisionPolicy, ErrorCode, EventKind, Extent, FileKind, Ino, Md5,
    MetaReply, Name, Seq, SessionId, Timestamp, VolumeId, WireError,
};
use std::collections::{BTreeMap, HashSet};

/// Defines cases, each as two tests: `memory::case` and `sqlite::case`.
macro_rules! on_each_store {
    ($(fn $name:ident($world:ident) $body:block)*) => {
        mod memory {
            $(#[test]
            fn $name() {
                crate::tests::harness::on_memory(super::$name);
            })*
        }
        mod sqlite {
            $(#[test]
            fn $name() {
                crate::tests::harness::on_sqlite(super::$name);
            })*
        }
        $(fn $name($world: &mut crate::tests::harness::World<'_>) $body)*
    };
}
pub(super) use on_each_store;

pub struct World<'a> {
    pub txn: &'a mut dyn WriteTxn,
    /// Who reads and writes.
    pub session: SessionId,
    /// Files that somebody has open.
    pub open: HashSet<Ino>,
    /// Seconds; grows by one with each write.
    pub clock: i64,
    /// What the last write announced.
    pub changes: Vec<EventKind>,
    /// Every blob that a commit brought.
    pub blobs: BTreeMap<BlobId, BlobRef>,
}

pub fn on_memory(case: impl FnOnce(&mut World<'_>) + Send + 'static) {
    run(&Store::in_memory(), case);
}

pub fn on_sqlite(case: impl FnOnce(&mut World<'_>) + Send + 'static) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open_sqlite(&directory.path().join("meta.db")).unwrap();
    run(&store, case);
    store.close();
}

fn run(store: &Store, case: impl FnOnce(&mut World<'_>) + Send + 'static) {
    let outcome = store.write_blocking(Durability::Process, move |txn| {
        World::in_txn(txn, case);
        Ok::<_, StoreError>(())
    });
    outcome.unwrap();
}

impl World<'_> {
    pub fn in_txn(txn: &mut dyn WriteTxn, case: impl FnOnce(&mut World<'_>)) {
        initialise(txn, Timestamp::default()).unwrap();
        let mut world = World {
            txn,
            session: SessionId(1),
            open: HashSet::new(),
            clock: 1000,
            changes: Vec::new(),
            blobs: BTreeMap::new(),
        };
        case(&mut world);
        world.check();
    }

    pub fn check(&self) {
        check_invariants(self.txn, &self.blobs);
    }

    pub fn now(&self) -> Timestamp {
        Timestamp { secs: self.clock, nanos: 0 }
    }

    /// Carries out a write. One that fails must have changed and announced nothing.
    pub fn write(&mut self, op: &WriteOp) -> Result<MetaReply, WireError> {
        let before = dump(self.txn);
        self.clock += 1;
        self.changes.clear();
        let open = &self.open;
        let mut context = WriteContext {
            now: Timestamp { secs: self.clock, nanos: 0 },
            session: Some(self.session),
            is_open: &|ino| open.contains(&ino),
            changes: &mut self.changes,
        };
        let result = write(self.txn, &mut context, op);
        match (&result, op) {
            (Ok(_), WriteOp::Commit(commit)) => {
                self.blobs.extend(commit.extents.iter().filter_map(|e| e.blob).map(|blob| (blob.id, blob)));
            }
            (Ok(_), _) => {}
            (Err(e), _) => {
                assert!(matches!(e, OpError::Refused(_)), "{op:?}: {e}");
                assert_eq!(dump(self.txn), before, "{op:?} failed and left something behind");
                assert!(self.changes.is_empty(), "{op:?} failed and announced {:?}", self.changes);
            }
        }
        result.map_err(WireError::from)
    }

    pub fn read(&self, op: &ReadOp) -> Result<MetaReply, WireError> {
        read(self.txn, Some(self.session), op).map_err(WireError::from)
    }

    pub fn reap(&mut self, ino: Ino, extents_max: u32) -> bool {
        let open = &self.open;
        let mut changes = Vec::new();
        let now = Timestamp { secs: self.clock, nanos: 0 };
        let is_open = |ino| open.contains(&ino);
        let mut context = WriteContext { now, session: None, is_open: &is_open, changes: &mut changes };
        reap_orphan(self.txn, &mut context, ino, extents_max).unwrap()
    }

    /// The code that the write fails with.
    pub fn refused(&mut self, op: &WriteOp) -> ErrorCode {
        match self.write(op) {
            Err(e) => e.code,
            Ok(reply) => panic!("{op:?} should have failed, and gave {reply:?}"),
        }
    }

    /// The code that the read fails with.
    pub fn unreadable(&self, op: &ReadOp) -> ErrorCode {
        match self.read(op) {
            Err(e) => e.code,
            Ok(reply) => panic!("{op:?} should have failed, and gave {reply:?}"),
        }
    }

    pub fn attr(&self, ino: Ino) -> Attr {
        match self.read(&ReadOp::GetAttr { ino }) {
            Ok(MetaReply::Attr(attr)) => attr,
            other => panic!("attributes of {ino}: {other:?}"),
        }
    }

    pub fn is_gone(&self, ino: Ino) -> bool {
        self.txn.inode(ino).unwrap().is_none()
    }

    pub fn lookup(&self, parent: Ino, entry: &str) -> Option<Ino> {
        match self.read(&ReadOp::Lookup { parent, name: name(entry) }) {
            Ok(MetaReply::Attr(attr)) => Some(attr.ino),
            Err(e) if e.code == ErrorCode::NotFound => None,
            other => panic!("{entry} in {parent}: {other:?}"),
        }
    }

    pub fn extents(&self, ino: Ino) -> Vec<Extent> {
        self.txn.extents(ino, 0, u32::MAX).unwrap()
    }

    pub fn garbage(&self) -> Vec<u64> {
        garbage(self.txn)
    }

    pub fn mkdir(&mut self, parent: Ino, entry: &str) -> Ino {
        made(self.write(&make(FileKind::Directory, parent, entry)))
    }

    pub fn touch(&mut self, parent: Ino, entry: &str) -> Ino {
        made(self.write(&make(FileKind::File, parent, entry)))
    }

    pub fn symlink(&mut self, parent: Ino, entry: &str, target: &str) -> Ino {
        made(self.write(&make_symlink(parent, entry, target)))
    }

    /// A new file with this content, under the rule `rename`.
    pub fn put(&mut self, parent: Ino, entry: &str, extents: Vec<Extent>) -> Committed {
        self.commit(create(parent, entry, extents, rename_rule()))
    }

    pub fn commit(&mut self, commit: Commit) -> Committed {
        match self.write(&WriteOp::Commit(commit)) {
            Ok(MetaReply::Committed(committed)) => committed,
            other => panic!("a commit gave {other:?}"),
        }
    }

    pub fn link(&mut self, ino: Ino, parent: Ino, entry: &str) -> Attr {
        match self.write(&WriteOp::Link { ino, parent, name: name(entry) }) {
            Ok(MetaReply::Attr(attr)) => attr,
            other => panic!("a link gave {other:?}"),
        }
    }

    pub fn unlink(&mut self, parent: Ino, entry: &str) -> Removed {
        removed(self.write(&unlink(parent, entry)))
    }

    pub fn rmdir(&mut self, parent: Ino, entry: &str) -> Removed {
        removed(self.write(&rmdir(parent, entry)))
    }

    pub fn rename(&mut self, from: (Ino, &str), to: (Ino, &str), mode: RenameMode) -> Renamed {
        match self.write(&rename(from, to, mode)) {
            Ok(MetaReply::Renamed(renamed)) => renamed,
            other => panic!("a rename gave {other:?}"),
        }
    }

    pub fn set_xattr(&mut self, ino: Ino, attribute: &str, value: &[u8]) {
        let reply = self.write(&set_xattr(ino, attribute, value, XattrMode::Any));
        assert_eq!(reply, Ok(MetaReply::Done));
    }

    pub fn xattr(&self, ino: Ino, attribute: &str) -> Result<Vec<u8>, ErrorCode> {
        match self.read(&ReadOp::GetXattr { ino, name: attribute.try_into().unwrap() }) {
            Ok(MetaReply::Value(value)) => Ok(value.to_vec()),
            Err(e) => Err(e.code),
            other => panic!("{attribute} of {ino}: {other:?}"),
        }
    }
}

fn made(reply: Result<MetaReply, WireError>) -> Ino {
    match reply {
        Ok(MetaReply::Attr(attr)) => attr.ino,
        other => panic!("a make gave {other:?}"),
    }
}

fn removed(reply: Result<MetaReply, WireError>) -> Removed {
    match reply {
        Ok(MetaReply::Removed(removed)) => removed,
        other => panic!("a removal gave {other:?}"),
    }
}

pub fn garbage(txn: &dyn ReadTxn) -> Vec<u64> {
    let all = txn.garbage(Timestamp { secs: i64::MAX, nanos: 0 }, u32::MAX).unwrap();
    let mut keys: Vec<u64> = all.iter().map(|row| row.blob.key.0).collect();
    keys.sort_unstable();
    keys
}

pub fn name(text: &str) -> Name {
    Name::try_from(text).unwrap()
}

/// Every blob of these tests has this length unless a test says otherwise.
pub const BLOB_LENGTH: u32 = 1000;

pub fn blob(key: u64) -> BlobRef {
    let id = BlobId { volume: VolumeId(1), key: BlobKey(key) };
    BlobRef { id, seq: Seq(key), length: BLOB_LENGTH, md5: Md5([key as u8; 16]) }
}

/// `length` bytes at `offset` from the start of blob `key`.
pub fn data(offset: u64, length: u64, key: u64) -> Extent {
    part(offset, length, key, 0)
}

/// `length` bytes at `offset` from `blob_offset` on in blob `key`.
pub fn part(offset: u64, length: u64, key: u64, blob_offset: u32) -> Extent {
    Extent { offset, length, blob: Some(blob(key)), blob_offset }
}

pub fn hole(offset: u64, length: u64) -> Extent {
    Extent { offset, length, blob: None, blob_offset: 0 }
}

pub fn rename_rule() -> Collision {
    Collision::Default(CollisionPolicy::Rename)
}

/// An edit of a file that exists.
pub fn edit(ino: Ino, extents: Vec<Extent>) -> Commit {
    Commit {
        ino,
        create: None,
        truncate_to: None,
        extents,
        size: CommitSize::AtLeast(0),
        append_from: None,
        mtime: None,
        ctime: None,
        md5: None,
        locked_by: None,
        durable: false,
    }
}

/// A new file that ends where its extents do.
pub fn create(parent: Ino, entry: &str, extents: Vec<Extent>, collision: Collision) -> Commit {
    let size = CommitSize::Exactly(extents.iter().map(Extent::end).max().unwrap_or(0));
    let create = Create {
        parent,
        name: name(entry),
        mode: 0o644,
        umask: 0,
        uid: 1000,
        gid: 1000,
        born: None,
        collision,
    };
    Commit { create: Some(create), size, ..edit(Ino(0), extents) }
}

pub fn make(kind: FileKind, parent: Ino, entry: &str) -> WriteOp {
    let name = name(entry);
    let (ino, mode, uid, gid, rdev) = (Ino(0), 0o755, 1000, 1000, 0);
    WriteOp::Make(Make {
        parent,
        name,
        ino,
        kind,
        mode,
        umask: 0,
        uid,
        gid,
        rdev,
        target: Default::default(),
        opened: false,
    })
}

pub fn make_symlink(parent: Ino, entry: &str, target: &str) -> WriteOp {
    match make(FileKind::Symlink, parent, entry) {
        WriteOp::Make(make) => WriteOp::Make(Make { target: target.to_owned().into(), ..make }),
        other => other,
    }
}

pub fn unlink(parent: Ino, entry: &str) -> WriteOp {
    WriteOp::Unlink { parent, name: name(entry) }
}

pub fn rmdir(parent: Ino, entry: &str) -> WriteOp {
    WriteOp::Rmdir { parent, name: name(entry) }
}

pub fn rename(from: (Ino, &str), to: (Ino, &str), mode: RenameMode) -> WriteOp {
    let (parent, new_parent) = (from.0, to.0);
    WriteOp::Rename(Rename { parent, name: name(from.1), new_parent, new_name: name(to.1), mode })
}

pub fn set_xattr(ino: Ino, attribute: &str, value: &[u8], mode: XattrMode) -> WriteOp {
    let name = attribute.try_into().unwrap();
    WriteOp::SetXattr { ino, name, value: value.to_vec().into(), mode, drops_set_gid: false }
}

pub fn entry(parent: Ino, text: &str) -> EventKind {
    EventKind::Entry { parent, name: name(text) }
}
