//! The arithmetic of a commit: what its extents, sizes and appends come to. Pure: no store, no clock.

use crate::error::{OpError, refuse};
use dfs_proto::limits::{BLOB_BYTES_MAX, COMMIT_EXTENTS_MAX, FILE_BYTES_MAX};
use dfs_proto::meta::{Commit, CommitSize};
use dfs_proto::{BlobId, BlobRef, ErrorCode, Extent};
use std::collections::{BTreeMap, HashMap};

/// The largest id or sequence number that every store can keep.
const ID_MAX: u64 = i64::MAX as u64;

/// What a commit, or a copy, does to content of a known size.
#[derive(Debug, PartialEq, Eq)]
pub struct Layer {
    /// Old content from here on goes first; [`u64::MAX`] when none does.
    pub cut_at: u64,
    /// What is laid over the rest, holes included: sorted, not overlapping.
    pub extents: Vec<Extent>,
    /// The blobs that `extents` refer to.
    pub blobs: HashMap<BlobId, BlobRef>,
    /// Blobs of the commit that its own later extents hide altogether.
    pub hidden: Vec<BlobRef>,
    /// The size afterwards.
    pub size: u64,
    /// By how much appended extents were moved.
    pub appended_by: i64,
    /// Whether the commit says of every byte what it is, so that its writer can know the MD5 of the whole.
    pub is_whole: bool,
    /// Whether data or size may change at all.
    pub changes_content: bool,
}

impl Layer {
    /// Checks the commit and works out what it does to content of `old_size` bytes (0 for a new file).
    ///
    /// - A writer that truncated said itself where the file ends: nothing is moved then. Otherwise the end that
    ///   an append goes to is that of the file, or of what the same commit wrote below the append.
    /// - `AtLeast` grows with the data: an extent beyond the stated size is a write that found the file cut
    ///   short by somebody else, and a write extends. Data beyond `Exactly` is a mistake of the writer.
    /// - Holes never make a file longer.
    pub fn of(commit: &Commit, old_size: u64) -> Result<Layer, OpError> {
        check_extents(&commit.extents)?;
        let (CommitSize::AtLeast(stated) | CommitSize::Exactly(stated)) = commit.size;
        check_offset(stated, "the size of the file")?;
        let cut_to = commit.truncate_to.unwrap_or(u64::MAX);
        if commit.truncate_to.is_some() {
            check_offset(cut_to, "the size to truncate to")?;
        }
        let kept = old_size.min(cut_to);

        let (moved, appended_by) = match commit.append_from {
            Some(from) if commit.truncate_to.is_none() => move_append(&commit.extents, from, kept)?,
            _ => (commit.extents.clone(), 0),
        };
        let stated = match commit.append_from {
            Some(from) if stated >= from => shifted(stated, appended_by)?,
            _ => stated,
        };
        let data_end = moved.iter().filter(|e| e.blob.is_some()).map(Extent::end).max().unwrap_or(0);
        let (size, cut_at) = match commit.size {
            CommitSize::AtLeast(_) => (kept.max(stated).max(data_end), cut_to),
            CommitSize::Exactly(_) if data_end > stated => {
                let message = format!("data up to {data_end} does not fit in a size of exactly {stated}");
                return refuse(ErrorCode::InvalidArgument, message);
            }
            CommitSize::Exactly(_) => (stated, cut_to.min(stated)),
        };

        let named = describe_blobs(&moved)?;
        let extents = flatten(moved);
        let blobs: HashMap<_, _> = extents.iter().filter_map(|e| e.blob).map(|b| (b.id, b)).collect();
        let hidden = named.into_values().filter(|b| !blobs.contains_key(&b.id)).collect();
        let is_whole = appended_by == 0 && (kept == 0 || covers(&extents, size));
        let changes_content = commit.truncate_to.is_some() || !extents.is_empty() || size != old_size;
        Ok(Layer { cut_at, extents, blobs, hidden, size, appended_by, is_whole, changes_content })
    }

    /// What a copy does: its extents are in order already, and nothing is cut or moved. They are taken from what
    /// is stored, so they need no check.
    pub fn of_clone(extents: Vec<Extent>, size: u64) -> Layer {
        Layer {
            cut_at: u64::MAX,
            blobs: extents.iter().filter_map(|e| e.blob).map(|b| (b.id, b)).collect(),
            extents,
            hidden: Vec::new(),
            size,
            appended_by: 0,
            is_whole: false,
            changes_content: true,
        }
    }

    /// Runs of extents that touch each other.
    pub fn runs(&self) -> impl Iterator<Item = &[Extent]> {
        self.extents.chunk_by(|a, b| a.end() == b.offset)
    }
}

/// Joins neighbours that continue each other and leaves out holes.
pub fn join(run: &[Extent]) -> Vec<Extent> {
    let mut joined: Vec<Extent> = Vec::new();
    for extent in run.iter().filter(|e| e.blob.is_some()) {
        match joined.last_mut() {
            Some(last) if last.continues_with(extent) => last.length += extent.length,
            _ => joined.push(*extent),
        }
    }
    joined
}

/// Refuses an offset or a size that no file can have.
pub fn check_offset(bytes: u64, what: &str) -> Result<(), OpError> {
    if bytes > FILE_BYTES_MAX {
        return refuse(ErrorCode::TooLarge, format!("{what} is {bytes}, more than {FILE_BYTES_MAX} bytes"));
    }
    Ok(())
}

fn check_extents(extents: &[Extent]) -> Result<(), OpError> {
    if extents.len() > COMMIT_EXTENTS_MAX {
        let message =
            format!("a commit may bring {COMMIT_EXTENTS_MAX} extents, this one has {}", extents.len());
        return refuse(ErrorCode::InvalidArgument, message);
    }
    extents.iter().try_for_each(check_extent)
}

fn check_extent(extent: &Extent) -> Result<(), OpError> {
    let Extent { offset, length, blob, blob_offset } = *extent;
    let wrong = |why: String| refuse(ErrorCode::InvalidArgument, format!("the extent at {offset} {why}"));
    if length == 0 {
        return wrong("has no bytes".into());
    }
    check_offset(offset.saturating_add(length), "the end of an extent")?;
    let Some(blob) = blob else {
        return if blob_offset == 0 { Ok(()) } else { wrong("is a hole with an offset in a blob".into()) };
    };
    if blob.length == 0 || blob.length as usize > BLOB_BYTES_MAX {
        return wrong(format!("refers to a blob of {} bytes", blob.length));
    }
    if u64::from(blob_offset).checked_add(length).is_none_or(|end| end > u64::from(blob.length)) {
        return wrong(format!("reaches beyond the {} bytes of its blob", blob.length));
    }
    if blob.id.volume.0 > ID_MAX || blob.id.key.0 > ID_MAX || blob.seq.0 > ID_MAX {
        return wrong(format!("refers to blob {} at {}, which cannot be", blob.id, blob.seq));
    }
    Ok(())
}

/// Moves what was appended from `from` on to the end of a file of `old_size` bytes. An extent across `from` is
/// divided there.
fn move_append(extents: &[Extent], from: u64, old_size: u64) -> Result<(Vec<Extent>, i64), OpError> {
    check_offset(from, "the end that was appended to")?;
    let below = extents.iter().filter_map(|e| e.clipped(0, from));
    let end = below.filter(|e| e.blob.is_some()).map(|e| e.end()).fold(old_size, u64::max);
    // Neither is more than i64::MAX.
    let by = end as i64 - from as i64;
    let mut moved = Vec::with_capacity(extents.len() + 1);
    for extent in extents {
        moved.extend(extent.clipped(0, from));
        if let Some(appended) = extent.clipped(from, u64::MAX) {
            let offset = shifted(appended.offset, by)?;
            check_offset(offset.saturating_add(appended.length), "the end of an append")?;
            moved.push(Extent { offset, ..appended });
        }
    }
    Ok((moved, by))
}

fn shifted(offset: u64, by: i64) -> Result<u64, OpError> {
    let moved = offset.saturating_add_signed(by);
    check_offset(moved, "the end of an append")?;
    Ok(moved)
}

/// The blobs by id; refuses two descriptions of one blob.
fn describe_blobs(extents: &[Extent]) -> Result<HashMap<BlobId, BlobRef>, OpError> {
    let mut blobs = HashMap::new();
    for blob in extents.iter().filter_map(|e| e.blob) {
        if blobs.insert(blob.id, blob).is_some_and(|other| other != blob) {
            let message = format!("the commit describes blob {} in two ways", blob.id);
            return refuse(ErrorCode::InvalidArgument, message);
        }
    }
    Ok(blobs)
}

/// Lays extents over each other in their order.
fn flatten(extents: Vec<Extent>) -> Vec<Extent> {
    if extents.windows(2).all(|pair| pair[0].end() <= pair[1].offset) {
        return extents;
    }
    let mut flat: BTreeMap<u64, Extent> = BTreeMap::new();
    for extent in extents {
        let end = extent.end();
        while let Some((&offset, below)) = flat.range(..end).next_back() {
            if below.end() <= extent.offset {
                break;
            }
            let parts = below.without(extent.offset, end);
            flat.remove(&offset);
            flat.extend(parts.into_iter().flatten().map(|part| (part.offset, part)));
            // The part before ends where the new extent begins and ends the loop; the part after begins at
            // `end` and is not looked at again.
        }
        flat.insert(extent.offset, extent);
    }
    flat.into_values().collect()
}

/// Whether the extents, holes included, leave no gap in `0..size`.
fn covers(extents: &[Extent], size: u64) -> bool {
    let mut end = 0;
    for extent in extents {
        if extent.offset > end {
            break;
        }
        end = extent.end();
    }
    end >= size
}
