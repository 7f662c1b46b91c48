//! Background work beside the control plane's: sessions that are over, orphans, garbage.

use crate::cluster::collect_garbage;
use crate::error::from_store;
use crate::master::Master;
use dfs_client::NodeClient;
use dfs_metastore::Durability;
use dfs_namespace::{OpError, WriteContext, reap_orphan};
use dfs_proto::limits::DELETE_BLOBS_MAX;
use dfs_proto::{Ino, WireError};
use dfs_service::Stopper;
use std::sync::Arc;
use std::time::Duration;

/// Orphans that are looked at together.
const ORPHANS_PER_PAGE: u32 = 256;

/// Extents of an orphan that one transaction takes apart, so that other writers do not wait for long.
const ORPHAN_EXTENTS_MAX: u32 = 1_024;

/// Longest time between looks for garbage.
const GARBAGE_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Ends sessions and reaps orphans, until it is time to end.
pub async fn tidy_forever(master: Arc<Master>, mut stopper: Stopper) {
    let pause = Duration::from_millis(master.config.sweep_ms);
    let mut trouble = Trouble::new("tidying up");
    while stopper.sleep(pause).await {
        let expired = master.expire_sessions().await;
        trouble.note(expired.and(reap_orphans(&master, &stopper).await));
    }
}

/// Deletes garbage, until it is time to end.
pub async fn collect_forever(master: Arc<Master>, nodes: Arc<dyn NodeClient>, mut stopper: Stopper) {
    let sweep = Duration::from_millis(master.config.sweep_ms);
    let grace = Duration::from_millis(master.config.garbage_grace_ms);
    let pause = (grace / 4).clamp(sweep, GARBAGE_PAUSE_MAX.max(sweep));
    let mut trouble = Trouble::new("collecting garbage");
    while stopper.sleep(pause).await {
        // A full batch says that there is more; one that shrinks does so because the rest went to the end.
        while !stopper.is_stopped() {
            let collected = collect_garbage(&master, &nodes).await;
            let full = collected.as_ref().is_ok_and(|n| *n == DELETE_BLOBS_MAX);
            trouble.note(collected.map(drop));
            if !full {
                break;
            }
        }
    }
}

/// Takes apart every orphan that nobody has open.
async fn reap_orphans(master: &Arc<Master>, stopper: &Stopper) -> Result<(), WireError> {
    if master.sessions.opens_are_unknown() {
        return Ok(());
    }
    let mut after = Ino(0);
    while !stopper.is_stopped() {
        let page = master.store.read(move |txn| txn.orphans(after, ORPHANS_PER_PAGE)).await;
        let page = page.map_err(from_store)?;
        let Some(last) = page.last() else { return Ok(()) };
        after = *last;
        for ino in page {
            while !stopper.is_stopped() && !master.sessions.is_open(ino) && !reap_piece(master, ino).await? {}
        }
    }
    Ok(())
}

/// One piece of one orphan; true when nothing is left to do.
async fn reap_piece(master: &Arc<Master>, ino: Ino) -> Result<bool, WireError> {
    let sessions = Arc::clone(&master.sessions);
    let stamps = Arc::clone(&master.stamps);
    let reaped = master.store.write(Durability::Process, move |txn| {
        let mut changes = Vec::new();
        let is_open = |ino| sessions.is_open(ino);
        let now = stamps.next();
        let mut context = WriteContext { now, session: None, is_open: &is_open, changes: &mut changes };
        let finished = reap_orphan(txn, &mut context, ino, ORPHAN_EXTENTS_MAX)?;
        Ok::<_, OpError>((finished, changes))
    });
    let (finished, changes) = reaped.await?;
    master.publish(None, changes);
    Ok(finished)
}

/// Logs the first of a row of failures as an error, and the others quietly.
struct Trouble {
    what: &'static str,
    lasts: bool,
}

impl Trouble {
    fn new(what: &'static str) -> Trouble {
        Trouble { what, lasts: false }
    }

    fn note(&mut self, result: Result<(), WireError>) {
        match result {
            Ok(()) => self.lasts = false,
            Err(e) if self.lasts => log::debug!("{} failed again: {e}", self.what),
            Err(e) => {
                log::error!("{} failed and is tried again: {e}", self.what);
                self.lasts = true;
            }
        }
    }
}
