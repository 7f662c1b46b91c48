//! `Clone`: copies a part of a file's content by its extents. The bytes stay where they are; the blobs have one
//! more reference each.
//!
//! Set-id bits stay: who copies is known to the kernel that mounts, which takes them away itself where they have
//! to go (copy_file_range(2) is a write to it).

use crate::error::{OpError, refuse};
use crate::layer::{Layer, check_offset};
use crate::{WriteContext, content, fetch};
use dfs_metastore::row::InodeRow;
use dfs_metastore::{ReadTxn, WriteTxn};
use dfs_proto::limits::CLONE_EXTENTS_MAX;
use dfs_proto::meta::{CloneRange, Cloned};
use dfs_proto::{ErrorCode, EventKind, Extent, MetaReply};

pub fn clone(
    txn: &mut dyn WriteTxn,
    context: &mut WriteContext<'_>,
    clone: &CloneRange,
) -> Result<MetaReply, OpError> {
    let source = fetch::file(txn, clone.source)?;
    let mut target = fetch::file(txn, clone.target)?;
    let length = clone.length.min(source.size.saturating_sub(clone.source_offset));
    check_offset(clone.source_offset, "the place to copy from")?;
    check_offset(clone.target_offset.saturating_add(length), "the end of the copy")?;
    if length == 0 {
        return Ok(MetaReply::Cloned(Cloned { attr: target.attr(), length }));
    }
    let apart = clone.source_offset.abs_diff(clone.target_offset);
    if source.ino == target.ino && apart < length {
        let message = format!("{length} bytes of file {} would be copied onto themselves", source.ino);
        return refuse(ErrorCode::InvalidArgument, message);
    }
    let range = CloneRange { length, ..*clone };
    let (length, extents) = moved_extents(txn, &source, &range, CLONE_EXTENTS_MAX)?;
    let end = clone.target_offset + length;
    let layer = Layer::of_clone(extents, target.size.max(end));
    content::apply(txn, &mut target, &layer, context.now)?;
    target.version = target.version.next();
    target.md5 = None;
    target.mtime = context.now;
    target.ctime = context.now;
    txn.put_inode(&target)?;
    context.changes.push(EventKind::Content(target.ino));
    Ok(MetaReply::Cloned(Cloned { attr: target.attr(), length }))
}

/// The range, which lies within the source, as it will be in the target: its extents, at most `extents_max`, and
/// the holes between them. Together they cover the bytes whose number comes first.
pub fn moved_extents(
    txn: &dyn ReadTxn,
    source: &InodeRow,
    range: &CloneRange,
    extents_max: u32,
) -> Result<(u64, Vec<Extent>), OpError> {
    let (from, to) = (range.source_offset, range.source_offset + range.length);
    let mut found = match source.allocated {
        0 => Vec::new(),
        // One more than is taken tells how far these reach.
        _ => txn.extents(source.ino, from, extents_max + 1)?,
    };
    let end = match found.get(extents_max as usize) {
        Some(next) => next.offset.min(to),
        None => to,
    };
    found.truncate(extents_max as usize);
    let mut moved = Vec::with_capacity(found.len() * 2 + 1);
    let mut at = from;
    for extent in found.iter().filter_map(|extent| extent.clipped(from, end)) {
        if extent.offset > at {
            moved.push(hole(at, extent.offset));
        }
        at = extent.end();
        moved.push(extent);
    }
    if at < end {
        moved.push(hole(at, end));
    }
    for extent in &mut moved {
        extent.offset = extent.offset - from + range.target_offset;
    }
    Ok((end - from, moved))
}

fn hole(from: u64, to: u64) -> Extent {
    Extent { offset: from, length: to - from, blob: None, blob_offset: 0 }
}
