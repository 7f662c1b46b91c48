//! `Rename`: rename(2) with RENAME_NOREPLACE and RENAME_EXCHANGE.

use crate::directory::{delete_entry, must_be_empty, must_take_subdirectory, put_entry, touch};
use crate::error::{OpError, refuse};
use crate::{WriteContext, fetch, removal};
use dfs_metastore::row::{DentryRow, InodeRow};
use dfs_metastore::{StoreError, WriteTxn};
use dfs_proto::meta::{Removed, Rename, RenameMode, Renamed};
use dfs_proto::{ErrorCode, EventKind, FileKind, Ino, MetaReply, Timestamp};

/// Steps of a walk towards the root. A path of this depth cannot be named; more of them is a loop, and that
/// is damage.
const DEPTH_MAX: u32 = 1 << 20;

pub fn rename(
    txn: &mut dyn WriteTxn,
    context: &mut WriteContext<'_>,
    rename: &Rename,
) -> Result<MetaReply, OpError> {
    let parents = Parents::fetch(txn, rename)?;
    let source = fetch::entry(txn, rename.parent, &rename.name)?;
    let moved = fetch::named(txn, &source)?;
    let target = match txn.dentry(rename.new_parent, rename.new_name.as_bytes())? {
        Some(entry) => {
            let row = fetch::named(txn, &entry)?;
            Some((entry, row))
        }
        None => None,
    };
    match (rename.mode, target) {
        (RenameMode::Exchange, Some((entry, row))) => {
            exchange(txn, context, rename, parents, (source, moved), (entry, row))
        }
        (RenameMode::Exchange, None) => refuse(
            ErrorCode::NotFound,
            format!("there is no `{}` in directory {} to swap with", rename.new_name, rename.new_parent),
        ),
        (RenameMode::NoReplace, Some(_)) => refuse(
            ErrorCode::Exists,
            format!("`{}` is in directory {} already", rename.new_name, rename.new_parent),
        ),
        (RenameMode::Replace | RenameMode::NoReplace, target) => {
            replace(txn, context, rename, parents, moved, target)
        }
    }
}

/// The directories of both names, which may be the same one: then there is one row to change.
struct Parents {
    old: InodeRow,
    new: Option<InodeRow>,
}

impl Parents {
    fn fetch(txn: &dyn WriteTxn, rename: &Rename) -> Result<Parents, OpError> {
        let old = fetch::directory(txn, rename.parent)?;
        let new = match rename.new_parent == rename.parent {
            true => None,
            false => Some(fetch::directory(txn, rename.new_parent)?),
        };
        Ok(Parents { old, new })
    }

    /// Refuses directories that change their parent for one that has no room for them.
    fn must_take(&self, moved: &InodeRow, back: Option<&InodeRow>) -> Result<(), OpError> {
        let Some(new) = &self.new else { return Ok(()) };
        if moved.kind == FileKind::Directory {
            must_take_subdirectory(new)?;
        }
        match back {
            Some(back) if back.kind == FileKind::Directory => must_take_subdirectory(&self.old),
            Some(_) | None => Ok(()),
        }
    }

    fn new_mut(&mut self) -> &mut InodeRow {
        self.new.as_mut().unwrap_or(&mut self.old)
    }

    /// A directory leaves the old parent for the new one.
    fn shift_link(&mut self) {
        self.old.nlink = self.old.nlink.saturating_sub(1);
        self.new_mut().nlink += 1;
    }

    /// A directory leaves the new parent for the old one.
    fn shift_link_back(&mut self) {
        self.old.nlink += 1;
        let new = self.new_mut();
        new.nlink = new.nlink.saturating_sub(1);
    }

    fn save(self, txn: &mut dyn WriteTxn, now: Timestamp) -> Result<(), OpError> {
        for mut directory in [Some(self.old), self.new].into_iter().flatten() {
            touch(&mut directory, now);
            txn.put_inode(&directory)?;
        }
        Ok(())
    }
}

fn replace(
    txn: &mut dyn WriteTxn,
    context: &mut WriteContext<'_>,
    rename: &Rename,
    mut parents: Parents,
    mut moved: InodeRow,
    target: Option<(DentryRow, InodeRow)>,
) -> Result<MetaReply, OpError> {
    let is_directory = moved.kind == FileKind::Directory;
    if is_directory {
        must_not_be_above(txn, &moved, rename.new_parent)?;
    }
    if let Some((_, row)) = &target {
        if row.ino == moved.ino {
            // "If oldpath and newpath are existing hard links referring to the same file, then rename() does
            // nothing" (rename(2)).
            return Ok(MetaReply::Renamed(Renamed { moved: moved.attr(), replaced: None }));
        }
        must_fit(txn, &moved, row)?;
    }
    parents.must_take(&moved, None)?;

    delete_entry(txn, context, rename.parent, &rename.name)?;
    let present = target.as_ref().map(|(entry, _)| entry);
    put_entry(txn, context, rename.new_parent, &rename.new_name, moved.ino, present)?;
    if is_directory {
        parents.shift_link();
        moved.parent = rename.new_parent;
    }
    if target.as_ref().is_some_and(|(_, row)| row.kind == FileKind::Directory) {
        let new = parents.new_mut();
        new.nlink = new.nlink.saturating_sub(1);
    }
    parents.save(txn, context.now)?;
    moved.ctime = context.now;
    txn.put_inode(&moved)?;
    context.changes.push(EventKind::Attr(moved.ino));
    let replaced = match target {
        Some((_, row)) => Some(remove_replaced(txn, context, row)?),
        None => None,
    };
    Ok(MetaReply::Renamed(Renamed { moved: moved.attr(), replaced }))
}

fn remove_replaced(
    txn: &mut dyn WriteTxn,
    context: &mut WriteContext<'_>,
    row: InodeRow,
) -> Result<Removed, OpError> {
    if row.kind != FileKind::Directory {
        return removal::drop_name(txn, context, row);
    }
    removal::delete_inode(txn, context, row.ino)?;
    context.changes.push(EventKind::Attr(row.ino));
    Ok(Removed { ino: row.ino, nlink: 0 })
}

fn exchange(
    txn: &mut dyn WriteTxn,
    context: &mut WriteContext<'_>,
    rename: &Rename,
    mut parents: Parents,
    (source, mut moved): (DentryRow, InodeRow),
    (target, mut other): (DentryRow, InodeRow),
) -> Result<MetaReply, OpError> {
    let answer = |moved: &InodeRow, other: &InodeRow| {
        let replaced = Some(Removed { ino: other.ino, nlink: other.nlink });
        Ok(MetaReply::Renamed(Renamed { moved: moved.attr(), replaced }))
    };
    if moved.kind == FileKind::Directory {
        must_not_be_above(txn, &moved, rename.new_parent)?;
    }
    if other.kind == FileKind::Directory {
        must_not_be_above(txn, &other, rename.parent)?;
    }
    if moved.ino == other.ino {
        return answer(&moved, &other);
    }
    parents.must_take(&moved, Some(&other))?;

    put_entry(txn, context, rename.parent, &rename.name, other.ino, Some(&source))?;
    put_entry(txn, context, rename.new_parent, &rename.new_name, moved.ino, Some(&target))?;
    if moved.kind == FileKind::Directory {
        parents.shift_link();
        moved.parent = rename.new_parent;
    }
    if other.kind == FileKind::Directory {
        parents.shift_link_back();
        other.parent = rename.parent;
    }
    parents.save(txn, context.now)?;
    for row in [&mut moved, &mut other] {
        row.ctime = context.now;
        txn.put_inode(row)?;
        context.changes.push(EventKind::Attr(row.ino));
    }
    answer(&moved, &other)
}

/// Whether `moved` may take the place of `there`.
fn must_fit(txn: &dyn WriteTxn, moved: &InodeRow, there: &InodeRow) -> Result<(), OpError> {
    let is_directory = |row: &InodeRow| row.kind == FileKind::Directory;
    match (is_directory(moved), is_directory(there)) {
        (true, true) => must_be_empty(txn, there),
        (false, false) => Ok(()),
        (true, false) => {
            let message = format!("directory {} cannot replace {}, which is none", moved.ino, there.ino);
            refuse(ErrorCode::NotDirectory, message)
        }
        (false, true) => {
            let message = format!("{} cannot replace {}, which is a directory", moved.ino, there.ino);
            refuse(ErrorCode::IsDirectory, message)
        }
    }
}

/// Refuses to move a directory into itself or to somewhere below itself.
fn must_not_be_above(txn: &dyn WriteTxn, directory: &InodeRow, place: Ino) -> Result<(), OpError> {
    // Within its own parent it can only change its name.
    if directory.parent == place {
        return Ok(());
    }
    let mut at = place;
    for _ in 0..DEPTH_MAX {
        if at == directory.ino {
            let message = format!("directory {} cannot be moved into itself", directory.ino);
            return refuse(ErrorCode::InvalidArgument, message);
        }
        if at == Ino::ROOT {
            return Ok(());
        }
        at = fetch::directory(txn, at)?.parent;
    }
    Err(StoreError::Corrupt(format!("walking up from directory {place} never meets the root")).into())
}
