//! Deleting, and giving the space back.
//!
//! Order matters: a tombstone is on disk before its blob's bytes are punched out, and what tombstones say is
//! repeated (as a grave) and on disk before a segment with tombstones is removed. So a tombstone outlives
//! what it buries.

use super::writer::grave_pieces;
use super::{Append, BlobStore, Outcome, Shared};
use crate::error::StoreError;
use crate::index::Location;
use crate::record::{header_bytes, record_bytes};
use crate::segment::{Segment, SegmentId, segment_path, sidecar_path};
use crate::sys;
use dfs_proto::blob::DeleteReply;
use dfs_proto::{BlobId, VolumeId};
use dfs_service::durable::sync_dir;
use std::collections::BTreeSet;

/// What a hole is punched in units of.
const PAGE_BYTES: u64 = 4096;

impl BlobStore {
    /// Deletes blobs. They stay deleted whatever happens after the answer, also those that were not here:
    /// a copy that brings them later buries them again.
    pub async fn delete(&self, blobs: &[BlobId]) -> Result<DeleteReply, StoreError> {
        let tombstones = blobs.iter().map(|id| Append::Tombstone { id: *id }).collect();
        let outcomes = self.append(tombstones, true).await?;
        let (mut reply, mut dead) = (DeleteReply { deleted: 0, absent: 0 }, Vec::new());
        for outcome in outcomes {
            match outcome? {
                Outcome::Deleted(at) => {
                    reply.deleted += 1;
                    dead.push(at);
                }
                _ => reply.absent += 1,
            }
        }
        self.metrics().deleted.add(reply.deleted);
        self.punch_all(dead).await;
        // The blobs are deleted; that a segment could not be removed yet is no failure of the delete.
        if let Err(e) = self.reap().await {
            log::warn!("cannot remove dead segments: {e}");
        }
        Ok(reply)
    }

    /// Gives up the copy of `volume`: nothing of it is here any more, whatever happens after the answer, and
    /// its space is given back. A copy that comes later begins anew. False when there was none.
    pub async fn drop_copy(&self, volume: VolumeId) -> Result<bool, StoreError> {
        let held = self.shared.index.read().volume(volume).map(|v| v.locations()).unwrap_or_default();
        if self.append_one(Append::Drop { volume }, true).await? == Outcome::Absent {
            return Ok(false);
        }
        self.punch_all(held).await;
        if let Err(e) = self.reap().await {
            log::warn!("cannot remove dead segments: {e}");
        }
        Ok(true)
    }

    async fn punch_all(&self, dead: Vec<Location>) {
        let shared = self.shared.clone();
        let punched = tokio::task::spawn_blocking(move || dead.iter().for_each(|at| shared.punch(at))).await;
        if let Err(e) = punched {
            log::error!("giving the space of deleted blobs back failed: {e}");
        }
    }

    /// Removes the segments in which nothing lives; answers how many.
    pub async fn reap(&self) -> Result<usize, StoreError> {
        let _one_at_a_time = self.reaping.lock().await;
        let dead = self.shared.dead_segments();
        if dead.is_empty() {
            return Ok(0);
        }
        let outcomes = self.append(self.shared.graves(&dead), true).await?;
        outcomes.into_iter().collect::<Result<Vec<Outcome>, StoreError>>()?;
        let shared = self.shared.clone();
        let removing = tokio::task::spawn_blocking(move || shared.remove_segments(&dead));
        removing.await.map_err(|_| StoreError::Closed)?
    }
}

impl Shared {
    /// Segments before the active one that nothing points into and that wait for no sidecar.
    fn dead_segments(&self) -> Vec<SegmentId> {
        let Some(active) = self.segments.read().keys().next_back().copied() else { return Vec::new() };
        let mut dead = self.index.read().dead_segments(active);
        dead.retain(|id| !self.sync.is_sealing(*id));
        dead
    }

    /// What the tombstones in `segments` say, and how far the logs reached.
    fn graves(&self, segments: &[SegmentId]) -> Vec<Append> {
        let index = self.index.read();
        let volumes: BTreeSet<VolumeId> = segments.iter().flat_map(|id| index.volumes_in(*id)).collect();
        let mut graves = Vec::new();
        for volume in volumes {
            let pieces = index.volume(volume).map(|v| grave_pieces(v.buried())).unwrap_or_default();
            graves.extend(pieces.into_iter().map(|ranges| Append::Grave { volume, ranges }));
        }
        graves
    }

    fn remove_segments(&self, dead: &[SegmentId]) -> Result<usize, StoreError> {
        for &id in dead {
            let path = segment_path(&self.dir, id);
            std::fs::remove_file(&path).map_err(|e| StoreError::io("remove the segment", &path, e))?;
            // A sidecar that stays behind is removed at the next start.
            let _ = std::fs::remove_file(sidecar_path(&self.dir, id));
            self.segments.write().remove(&id);
            self.index.write().remove_segment(id);
            self.metrics.removed_segments.add(1);
            log::info!("removed {}: nothing in it lived", path.display());
        }
        sync_dir(&self.dir).map_err(|e| StoreError::io("sync the directory", &self.dir, e))?;
        Ok(dead.len())
    }

    /// Gives the pages of a dead blob's payload back. Its header stays, so that the segment can be read on.
    fn punch(&self, at: &Location) {
        let Some(segment) = self.segment(at.segment) else { return };
        let (start, end) = payload_pages(at);
        if start < end
            && let Err(e) = sys::punch_hole(&segment.file, start, end)
        {
            warn_punch(&segment, &e);
        }
    }
}

fn warn_punch(segment: &Segment, e: &std::io::Error) {
    log::warn!("cannot give space in {} back: {e}", segment.path.display());
}

/// The whole pages within a record's payload and padding.
fn payload_pages(at: &Location) -> (u64, u64) {
    let bytes = at.payload_bytes as usize;
    let start = u64::from(at.offset) + header_bytes(bytes) as u64;
    let end = u64::from(at.offset) + record_bytes(bytes) as u64;
    (start.next_multiple_of(PAGE_BYTES), end / PAGE_BYTES * PAGE_BYTES)
}
