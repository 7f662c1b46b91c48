//! `Commit`: publishes content, of a new file or of one that exists, in one step.
//!
//! What the commit comes to is worked out by [`Layer`], applied by [`content::apply`]. Here is what it does to
//! inodes and entries.

use crate::WriteContext;
use crate::birth::{self, Wanted};
use crate::collision::free_number;
use crate::directory::{put_entry, touch};
use crate::error::{OpError, refuse};
use crate::layer::Layer;
use crate::{content, fetch, removal};
use dfs_metastore::WriteTxn;
use dfs_metastore::row::{DentryRow, InodeRow};
use dfs_proto::limits::COLLISION_TRIES_MAX;
use dfs_proto::meta::{Collision, Commit, Committed, Create};
use dfs_proto::{CollisionPolicy, ErrorCode, EventKind, FileKind, Ino, MetaReply, Name, Timestamp};

/// The largest part of a second, ns.
const NANOS_MAX: u32 = 999_999_999;

pub fn commit(
    txn: &mut dyn WriteTxn,
    context: &mut WriteContext<'_>,
    commit: &Commit,
) -> Result<MetaReply, OpError> {
    let born = commit.create.as_ref().and_then(|create| create.born);
    [commit.mtime, commit.ctime, born].into_iter().flatten().try_for_each(check_time)?;
    match &commit.create {
        Some(create) => make_file(txn, context, commit, create),
        None => change_file(txn, context, commit),
    }
}

/// Refuses a time that is none.
pub fn check_time(time: Timestamp) -> Result<(), OpError> {
    if time.nanos > NANOS_MAX {
        return refuse(ErrorCode::InvalidArgument, format!("{} ns are more than a second", time.nanos));
    }
    Ok(())
}

fn make_file(
    txn: &mut dyn WriteTxn,
    context: &mut WriteContext<'_>,
    commit: &Commit,
    create: &Create,
) -> Result<MetaReply, OpError> {
    let layer = Layer::of(commit, 0)?;
    let mut parent = fetch::directory(txn, create.parent)?;
    let place = find_place(txn, &parent, create)?;
    birth::check_number(txn, commit.ino)?;

    let ino = birth::number(txn, commit.ino)?;
    let Create { mode, umask, uid, gid, .. } = *create;
    let wanted = Wanted { kind: FileKind::File, mode, umask, uid, gid };
    let mut child = birth::child(txn, &parent, ino, wanted, context.now)?;
    let row = &mut child.row;
    row.mtime = commit.mtime.unwrap_or(context.now);
    let now = context.now;
    let not_later = |time: Option<Timestamp>| time.filter(|time| *time <= now).unwrap_or(now);
    row.ctime = not_later(commit.ctime);
    (row.btime, row.atime) = (not_later(create.born), not_later(create.born));
    row.md5 = commit.md5.filter(|_| layer.is_whole);
    content::apply(txn, row, &layer, context.now)?;
    child.put(txn)?;
    put_entry(txn, context, create.parent, &place.name, ino, place.replaced.as_ref().map(|r| &r.0))?;
    touch(&mut parent, context.now);
    txn.put_inode(&parent)?;
    // Last, so that blobs which the new file has taken over from the old one do not become garbage.
    if let Some((_, old)) = place.replaced {
        removal::drop_name(txn, context, old)?;
    }
    let stored_as = (place.name != create.name).then_some(place.name);
    Ok(MetaReply::Committed(Committed { attr: child.row.attr(), stored_as, appended_by: layer.appended_by }))
}

/// Where a new file goes.
struct Place {
    name: Name,
    /// What has that name and loses it.
    replaced: Option<(DentryRow, InodeRow)>,
}

/// Applies the collision rule.
fn find_place(txn: &dyn WriteTxn, parent: &InodeRow, create: &Create) -> Result<Place, OpError> {
    let Create { name, collision, .. } = create;
    let Some(present) = txn.dentry(parent.ino, name.as_bytes())? else {
        return Ok(Place { name: name.clone(), replaced: None });
    };
    let policy = match *collision {
        Collision::Explicit(policy) => policy,
        Collision::Default(policy) => parent.collision.unwrap_or(policy),
    };
    match policy {
        CollisionPolicy::Replace => {
            let old = fetch::named(txn, &present)?;
            if old.kind == FileKind::Directory {
                let message = format!("`{name}` in directory {} is a directory", parent.ino);
                return refuse(ErrorCode::IsDirectory, message);
            }
            Ok(Place { name: name.clone(), replaced: Some((present, old)) })
        }
        CollisionPolicy::Rename => Ok(Place { name: numbered_name(txn, parent.ino, name)?, replaced: None }),
    }
}

fn numbered_name(txn: &dyn WriteTxn, parent: Ino, name: &Name) -> Result<Name, OpError> {
    let is_taken = |n| Ok::<_, OpError>(txn.dentry(parent, name.numbered(n).as_bytes())?.is_some());
    match free_number(is_taken)? {
        Some(n) => Ok(name.numbered(n)),
        None => {
            let message = format!(
                "`{name}` and {COLLISION_TRIES_MAX} numbered names are in directory {parent} already"
            );
            refuse(ErrorCode::Exists, message)
        }
    }
}

fn change_file(
    txn: &mut dyn WriteTxn,
    context: &mut WriteContext<'_>,
    commit: &Commit,
) -> Result<MetaReply, OpError> {
    let ino = commit.ino;
    let mut row = match txn.inode(ino)? {
        Some(row) if !fetch::is_condemned(&row) => row,
        _ => return refuse(ErrorCode::Stale, format!("inode {ino} is gone; its content has no place")),
    };
    fetch::must_be_file(&row)?;
    let layer = Layer::of(commit, row.size)?;
    // Who looks at the file between the change and its commit sees the time of the change: that time stays.
    let is_later = |ctime: &Timestamp| row.ctime < *ctime && *ctime <= context.now;
    let ctime = commit.ctime.filter(is_later).unwrap_or(context.now);
    // Set-id bits stay: who wrote, and when, is known to the kernel that mounts. It takes them away with the
    // write (write(2)), and a commit comes later, perhaps after the writer has set them on purpose.
    if layer.changes_content {
        content::apply(txn, &mut row, &layer, context.now)?;
        row.version = row.version.next();
        row.md5 = commit.md5.filter(|_| layer.is_whole);
        row.mtime = commit.mtime.unwrap_or(context.now);
        row.ctime = ctime;
        txn.put_inode(&row)?;
        context.changes.push(EventKind::Content(ino));
    } else if let Some(mtime) = commit.mtime.filter(|mtime| *mtime != row.mtime) {
        row.mtime = mtime;
        row.ctime = ctime;
        txn.put_inode(&row)?;
        context.changes.push(EventKind::Attr(ino));
    }
    let committed = Committed { attr: row.attr(), stored_as: None, appended_by: layer.appended_by };
    Ok(MetaReply::Committed(committed))
}
