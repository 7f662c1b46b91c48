//! Changes of a file's extents, page by page, with `allocated` and the garbage list kept right.

use crate::error::OpError;
use crate::layer::{Layer, join};
use dfs_metastore::WriteTxn;
use dfs_metastore::row::{GarbageRow, InodeRow};
use dfs_proto::{BlobRef, Extent, Seq, Timestamp, VolumeId};
use std::collections::BTreeMap;

/// Extents looked at first; most writes meet one or two. Each further page is twice as long.
const FIRST_PAGE: u32 = 4;
/// Extents held in memory at once, whatever the size of the file.
const PAGE_MAX: u32 = 1024;

/// Lays a commit over the file's content: extents, `size` and `allocated` of the row (which is not written),
/// the garbage list and how far the volumes reach.
pub fn apply(
    txn: &mut dyn WriteTxn,
    row: &mut InodeRow,
    layer: &Layer,
    now: Timestamp,
) -> Result<(), OpError> {
    cut(txn, row, layer.cut_at..u64::MAX, now)?;
    // Nothing is stored at or above this, which spares new files and plain appends every look at the store.
    let old_end = row.size.min(layer.cut_at);
    for run in layer.runs() {
        lay_run(txn, row, run, old_end, now)?;
    }
    row.size = layer.size;
    release(txn, now, layer.hidden.iter().copied())?;
    // After everything that was released: what the old content lost and the new one has is no garbage.
    adopt(txn, layer.blobs.values())
}

/// Removes content within `range`; what lies across an end of it is clipped. Blobs that lose their last extent
/// become garbage.
pub fn cut(
    txn: &mut dyn WriteTxn,
    row: &mut InodeRow,
    range: std::ops::Range<u64>,
    now: Timestamp,
) -> Result<(), OpError> {
    let (from, to) = (range.start, range.end.min(row.size));
    let (mut at, mut limit) = (from, FIRST_PAGE);
    while at < to {
        let page = txn.extents(row.ino, at, limit)?;
        let is_last = page.len() < limit as usize;
        let within: Vec<Extent> = page.into_iter().take_while(|e| e.offset < to).collect();
        for extent in &within {
            row.allocated -= cut_extent(txn, row, extent, from, to)?;
        }
        release(txn, now, within.iter().filter_map(|e| e.blob))?;
        match within.last() {
            Some(last) if !is_last => at = last.end(),
            _ => break,
        }
        limit = (limit * 2).min(PAGE_MAX);
    }
    Ok(())
}

/// Returns by how many bytes the extent has become shorter.
fn cut_extent(
    txn: &mut dyn WriteTxn,
    row: &InodeRow,
    extent: &Extent,
    from: u64,
    to: u64,
) -> Result<u64, OpError> {
    let [before, after] = extent.without(from, to);
    match before {
        Some(part) => txn.put_extent(row.ino, &part)?,
        None => txn.delete_extent(row.ino, extent.offset)?,
    }
    if let Some(part) = after {
        txn.put_extent(row.ino, &part)?;
    }
    let left: u64 = [before, after].iter().flatten().map(|part| part.length).sum();
    Ok(extent.length - left)
}

/// Lays extents that touch each other over the content, and joins them with the neighbours at both ends.
fn lay_run(
    txn: &mut dyn WriteTxn,
    row: &mut InodeRow,
    run: &[Extent],
    old_end: u64,
    now: Timestamp,
) -> Result<(), OpError> {
    let (Some(first), Some(last)) = (run.first(), run.last()) else {
        return Ok(());
    };
    let (from, to) = (first.offset, last.end());
    cut(txn, row, from..to.min(old_end), now)?;
    let mut extents = join(run);
    row.allocated += extents.iter().map(|e| e.length).sum::<u64>();
    if let Some(first) = extents.first_mut().filter(|e| e.offset == from && from > 0 && from <= old_end) {
        let left = txn.extents(row.ino, from - 1, 1)?.into_iter().next();
        if let Some(left) = left.filter(|left| left.continues_with(first)) {
            *first = Extent { length: left.length + first.length, ..left };
        }
    }
    if let Some(last) = extents.last_mut().filter(|e| e.end() == to && to < old_end) {
        let right = txn.extents(row.ino, to, 1)?.into_iter().next();
        if let Some(right) = right.filter(|right| last.continues_with(right)) {
            txn.delete_extent(row.ino, right.offset)?;
            last.length += right.length;
        }
    }
    for extent in &extents {
        txn.put_extent(row.ino, extent)?;
    }
    Ok(())
}

/// Puts those blobs on the garbage list that no extent refers to any more.
pub fn release(
    txn: &mut dyn WriteTxn,
    now: Timestamp,
    blobs: impl Iterator<Item = BlobRef>,
) -> Result<(), OpError> {
    let mut last = None;
    for blob in blobs {
        // Extents of one blob tend to be neighbours.
        if last.replace(blob.id) == Some(blob.id) || txn.blob_in_use(blob.id)? {
            continue;
        }
        txn.put_garbage(&GarbageRow { blob: blob.id, length: blob.length, since: now })?;
    }
    Ok(())
}

/// Notes that the blobs are referred to: none of them is garbage (any more: a file may be copied by its
/// extents while the original is removed), and their volumes reach as far as they do.
fn adopt<'a>(txn: &mut dyn WriteTxn, blobs: impl Iterator<Item = &'a BlobRef>) -> Result<(), OpError> {
    let mut reach: BTreeMap<VolumeId, Seq> = BTreeMap::new();
    for blob in blobs {
        txn.delete_garbage(blob.id)?;
        let seq = reach.entry(blob.id.volume).or_default();
        *seq = blob.seq.max(*seq);
    }
    for (volume, seq) in reach {
        txn.raise_volume_seq(volume, seq)?;
    }
    Ok(())
}
