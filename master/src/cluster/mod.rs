//! The control plane: which nodes there are, where volumes belong, who may append, what replicators are to do.
//!
//! [`State`] has it in memory behind a lock that is held for map operations only. A change that has to survive
//! goes through [`Cluster::commit`]: it is written to the store first and put into memory afterwards, one set
//! of changes at a time (`changes`), so a plan made from memory still holds when it is applied. How far copies
//! reach is written down lazily, since nodes say it again when they register.
//!
//! Decisions are plain functions in `liveness`, `placement`, `grant_choice` and `repair_choice`, and methods of
//! `State`; this module and its neighbours bring them time, chance and rows. Knows nothing of files but the
//! names in hints.

mod garbage;
mod grant_choice;
mod liveness;
mod orders;
mod placement;
mod queue;
mod register;
mod repair_choice;
mod requests;
mod state;
mod status;
mod sweep;
mod trim;
mod upkeep;

pub use garbage::{collect_garbage, delete_token};
pub use liveness::Silence;
pub use queue::OrderQueue;

use crate::config::Config;
use crate::error::from_store;
use crate::events::Events;
use dfs_metastore::{Counter, Durability, Store, WriteTxn};
use dfs_proto::{EventKind, Name, Seq, VolumeId, VolumeInfo, WireError};
use dfs_service::{Clock, TokenKey};
use orders::Patience;
use parking_lot::Mutex;
use state::{Change, State};
use std::sync::Arc;
use tokio::sync::Notify;

/// Keys that are reserved in the store at a time: one write to disk for so many blobs of a volume.
const KEY_STEP: u64 = 65_536;

/// Numbers of volumes and of orders that are reserved at a time.
const NUMBERS_STEP: u64 = 4_096;

/// The control plane.
pub struct Cluster {
    config: Config,
    name: String,
    key: TokenKey,
    store: Store,
    events: Arc<Events>,
    queue: OrderQueue,
    /// Held for map operations, never over an await and never while a store transaction is waited for.
    state: Arc<Mutex<State>>,
    /// Whoever plans and commits a set of changes holds this from the plan until they are applied.
    changes: tokio::sync::Mutex<()>,
    /// Rung when orders may be wanted.
    wanted: Notify,
    /// Rung when the sweep should come early.
    sweep_soon: Notify,
}

impl Cluster {
    /// The control plane as the tables have it. `name` and `key` are the cluster's.
    pub async fn load(
        config: Config,
        name: String,
        key: TokenKey,
        store: Store,
        events: Arc<Events>,
        queue: OrderQueue,
    ) -> Result<Cluster, WireError> {
        let rows = store.read(|txn| Ok((txn.nodes()?, txn.volumes()?, txn.copies()?))).await;
        let (nodes, volumes, copies) = rows.map_err(from_store)?;
        let silence =
            Silence { suspect_after_ms: config.suspect_after_ms, dead_after_ms: config.dead_after_ms };
        let now_ms = config.clock.0.monotonic_ms();
        let state = State::load(config.replicas, silence, nodes, volumes, copies, now_ms);
        Ok(Cluster {
            name,
            key,
            store,
            events,
            queue,
            state: Arc::new(Mutex::new(state)),
            changes: tokio::sync::Mutex::new(()),
            wanted: Notify::new(),
            sweep_soon: Notify::new(),
            config,
        })
    }

    /// The cluster's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The queue of orders.
    pub fn queue(&self) -> &OrderQueue {
        &self.queue
    }

    fn clock(&self) -> &dyn Clock {
        &*self.config.clock.0
    }

    fn now_ms(&self) -> u64 {
        self.clock().monotonic_ms()
    }

    fn patience(&self) -> Patience {
        Patience {
            order_ms: self.config.order_patience_ms,
            pause_ms: self.config.order_pause_ms,
            outage_ms: self.config.sweep_ms,
            pace_ms: self.config.order_pace_ms,
        }
    }

    /// Makes `changes` durable, then has them in memory. The caller holds its turn.
    async fn commit(
        &self,
        _turn: &tokio::sync::MutexGuard<'_, ()>,
        changes: Vec<Change>,
    ) -> Result<(), WireError> {
        if changes.is_empty() {
            return Ok(());
        }
        let state = Arc::clone(&self.state);
        let rows = changes.clone();
        let written = self.store.write(Durability::Disk, move |txn| {
            rows.iter().try_for_each(|row| write_change(txn, row, &state))
        });
        written.await.map_err(from_store)?;
        let now_ms = self.now_ms();
        {
            let mut state = self.state.lock();
            changes.iter().for_each(|change| state.apply(change, now_ms));
        }
        if changes.iter().any(|c| !matches!(c, Change::Keys { .. })) {
            self.events.publish(None, [EventKind::Placement]);
            self.wanted.notify_one();
        }
        Ok(())
    }

    /// Sees to it that memory has `count` unused volume numbers. The caller holds its turn.
    async fn reserve_volume_ids(
        &self,
        _turn: &tokio::sync::MutexGuard<'_, ()>,
        count: u64,
    ) -> Result<(), WireError> {
        let left = {
            let ids = &self.state.lock().volume_ids;
            ids.end - ids.start
        };
        if left >= count {
            return Ok(());
        }
        let take = count.max(NUMBERS_STEP / 16);
        let taken = self.store.write(Durability::Disk, move |txn| txn.take(Counter::Volume, take));
        let first = taken.await.map_err(from_store)?;
        // What was left is given up: numbers need not be dense.
        self.state.lock().volume_ids = first..first + take;
        Ok(())
    }

    /// Where these volumes are; those that are not known are left out.
    pub fn volumes(&self, ids: impl IntoIterator<Item = VolumeId>) -> Vec<VolumeInfo> {
        let now_ms = self.now_ms();
        let state = self.state.lock();
        ids.into_iter().filter_map(|id| state.volume_info(id, now_ms)).collect()
    }

    /// A commit refers to these volumes up to these places; `name` is the file's, when it is known. Called
    /// from within the commit's transaction, so that a row of the volume that is written later never says
    /// less than an earlier commit.
    pub fn note_commit(&self, reach: &[(VolumeId, Seq)], name: Option<&Name>) {
        let now_ms = self.now_ms();
        {
            let mut state = self.state.lock();
            reach.iter().for_each(|(volume, seq)| state.note_commit(*volume, *seq, name, now_ms));
        }
        self.wanted.notify_one();
    }

    /// Asks the sweep to come early.
    pub fn sweep_soon(&self) {
        self.sweep_soon.notify_one();
    }
}

/// Writes one change. `state` lends the parts of a volume's row that the change does not say.
fn write_change(
    txn: &mut dyn WriteTxn,
    change: &Change,
    state: &Mutex<State>,
) -> Result<(), dfs_metastore::StoreError> {
    use dfs_metastore::{CopyRow, VolumeRow};
    let row_of = |id: VolumeId| state.lock().volume_row(id);
    match change {
        Change::Node(row) => txn.put_node(row),
        Change::NewVolume { id, incarnation, next_key, members } => {
            let Some(primary) = members.first() else { return Ok(()) };
            txn.put_volume(&VolumeRow {
                id: *id,
                primary: *primary,
                open_for: Some(*incarnation),
                next_key: *next_key,
                seq: Seq(0),
            })?;
            members
                .iter()
                .try_for_each(|node| txn.put_copy(&CopyRow { volume: *id, node: *node, seq: Seq(0) }))
        }
        Change::Reopen { id, incarnation } => match row_of(*id) {
            Some(row) => txn.put_volume(&VolumeRow { open_for: Some(*incarnation), ..row }),
            None => Ok(()),
        },
        Change::Seal { id } => match row_of(*id) {
            Some(row) => txn.put_volume(&VolumeRow { open_for: None, ..row }),
            None => Ok(()),
        },
        Change::Member(row) => txn.put_copy(row),
        Change::Leave { id, node, primary } => {
            txn.delete_copy(*id, *node)?;
            match row_of(*id) {
                Some(row) if row.primary == *node => txn.put_volume(&VolumeRow { primary: *primary, ..row }),
                _ => Ok(()),
            }
        }
        Change::Keys { id, next_key } => txn.set_volume_next_key(*id, *next_key),
    }
}
