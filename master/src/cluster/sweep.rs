//! What is done again and again: noticing the dead, sealing, opening, replacing members, issuing orders, and
//! writing down how far copies reach.

use crate::cluster::placement::pick_members;
use crate::cluster::register::plan_volume;
use crate::cluster::state::{Change, State};
use crate::cluster::upkeep::plan_moves;
use crate::cluster::{Cluster, KEY_STEP, NUMBERS_STEP, orders::ORDERS_PER_TICK_MAX};
use crate::error::from_store;
use dfs_metastore::{CopyRow, Counter, Durability};
use dfs_proto::{NodeId, NodeState, Order, Seq, VolumeId, WireError};
use dfs_service::Stopper;
use rand::Rng;
use std::sync::Arc;
use std::time::Duration;

/// Changes of one sweep; the next goes on.
const CHANGES_MAX: usize = 1_024;

/// Reaches that are written down at a time.
const KEPT_COPIES_MAX: usize = 8_192;

impl Cluster {
    /// Sweeps until it is time to end.
    pub async fn sweep_forever(self: Arc<Self>, mut stopper: Stopper) {
        let pause = Duration::from_millis(self.config.sweep_ms);
        let mut failing = false;
        while !stopper.is_stopped() {
            match self.sweep().await {
                Ok(()) => failing = false,
                Err(e) if failing => log::debug!("the sweep failed again: {e}"),
                Err(e) => {
                    log::error!("the sweep failed and is tried again: {e}");
                    failing = true;
                }
            }
            tokio::select! {
                _ = stopper.sleep(pause) => {}
                () = self.sweep_soon.notified() => {}
            }
        }
    }

    /// Looks once at everything.
    pub async fn sweep(&self) -> Result<(), WireError> {
        self.announce_states();
        self.change_placement().await?;
        self.refill_keys().await?;
        let depth = self.queue.depth().await.unwrap_or(0);
        {
            let now_ms = self.now_ms();
            let mut state = self.state.lock();
            state.orders.queue_lost_some = (state.orders.out() as u64) > depth;
            state.look_at_all(now_ms);
        }
        self.wanted.notify_one();
        self.keep_reaches().await
    }

    fn announce_states(&self) {
        let now_ms = self.now_ms();
        let mut changed = false;
        {
            let mut state = self.state.lock();
            let states: Vec<(NodeId, NodeState)> =
                state.present_nodes().map(|id| (id, state.node_state(id, now_ms))).collect();
            for (id, now) in states {
                let Some(node) = state.nodes.get_mut(&id).filter(|n| n.announced != now) else { continue };
                let age_ms = now_ms.saturating_sub(node.heard_ms);
                match now {
                    NodeState::Live => log::info!("{} is live", node.row.name),
                    NodeState::Suspect => log::warn!("{} is suspect: silent for {age_ms} ms", node.row.name),
                    NodeState::Dead => log::warn!("{} is dead: silent for {age_ms} ms", node.row.name),
                }
                node.announced = now;
                changed = true;
            }
        }
        if changed {
            self.events.publish(None, [dfs_proto::EventKind::Placement]);
        }
    }

    async fn change_placement(&self) -> Result<(), WireError> {
        let turn = self.changes.lock().await;
        let per_node = self.config.open_volumes_per_node as usize;
        let wanted_ids = {
            let now_ms = self.now_ms();
            let state = self.state.lock();
            state.live_nodes(now_ms).count() * per_node
        };
        self.reserve_volume_ids(&turn, wanted_ids as u64).await?;
        let changes = {
            let now_ms = self.now_ms();
            let mut state = self.state.lock();
            plan(&mut state, per_node, self.config.volume_bytes_max, now_ms, &mut rand::rng())
        };
        for change in &changes {
            match change {
                Change::Seal { id } => log::info!("volume {id} takes no more appends"),
                Change::Member(row) => log::info!("node {} gets a copy of volume {}", row.node, row.volume),
                _ => {}
            }
        }
        self.commit(&turn, changes).await
    }

    async fn refill_keys(&self) -> Result<(), WireError> {
        let low: Vec<VolumeId> = {
            let state = self.state.lock();
            let is_low = |id: &&VolumeId| {
                state.volumes.get(id).is_some_and(|v| v.next_key.0 - v.cursor.0 < KEY_STEP / 2)
            };
            state.open.iter().filter(is_low).copied().collect()
        };
        if low.is_empty() { Ok(()) } else { self.reserve_keys(&low).await }
    }

    /// Writes down how far copies reach, as much as changed since. A crash costs nothing: nodes say it again.
    async fn keep_reaches(&self) -> Result<(), WireError> {
        let rows: Vec<CopyRow> = {
            let state = self.state.lock();
            let changed = |(id, volume): (&VolumeId, &crate::cluster::state::Volume)| {
                let (id, members) = (*id, volume.members.clone());
                members.into_iter().filter(|m| m.seq != m.kept_seq).map(move |m| CopyRow {
                    volume: id,
                    node: m.node,
                    seq: m.seq,
                })
            };
            state.volumes.iter().flat_map(changed).take(KEPT_COPIES_MAX).collect()
        };
        if rows.is_empty() {
            return Ok(());
        }
        let written = rows.clone();
        let write = self
            .store
            .write(Durability::Process, move |txn| written.iter().try_for_each(|row| txn.put_copy(row)));
        write.await.map_err(from_store)?;
        let mut state = self.state.lock();
        for row in rows {
            let volume = state.volumes.get_mut(&row.volume);
            if let Some(member) = volume.and_then(|v| v.member_mut(row.node)) {
                member.kept_seq = row.seq;
            }
        }
        Ok(())
    }

    /// Pushes orders as they become wanted, until it is time to end.
    pub async fn order_forever(self: Arc<Self>, mut stopper: Stopper) {
        let tick = Duration::from_millis(self.config.order_tick_ms);
        let mut away = false;
        loop {
            tokio::select! {
                () = self.wanted.notified() => {}
                () = stopper.stopped() => return,
            }
            // Wants gather for a moment: a thousand small files are one order for each volume.
            if !stopper.sleep(tick).await {
                return;
            }
            if let Err(e) = self.push_orders(&mut away).await {
                log::error!("orders cannot be made; the sweep tries again: {e}");
            } else if !self.state.lock().orders.dirty.is_empty() {
                // Put off, for the sake of the pace.
                self.wanted.notify_one();
            }
        }
    }

    async fn push_orders(&self, away: &mut bool) -> Result<(), WireError> {
        loop {
            self.reserve_order_ids().await?;
            let orders = {
                let (now_ms, wall_ms) = (self.now_ms(), self.clock().wall_ms());
                self.state.lock().take_orders(now_ms, wall_ms, &self.key, self.patience())
            };
            self.push(&orders, away).await;
            if orders.len() < ORDERS_PER_TICK_MAX {
                return Ok(());
            }
        }
    }

    /// Pushes until the queue refuses one; the rest waits for the sweep.
    async fn push(&self, orders: &[Order], away: &mut bool) {
        for (at, order) in orders.iter().enumerate() {
            match self.queue.push(order).await {
                Ok(()) if *away => {
                    log::info!("the order queue answers again");
                    *away = false;
                }
                Ok(()) => {}
                Err(e) => {
                    if !*away {
                        log::warn!("orders wait in the master: {e}");
                        *away = true;
                    }
                    let now_ms = self.now_ms();
                    self.state.lock().not_pushed(&orders[at..], now_ms, self.patience());
                    return;
                }
            }
        }
    }

    async fn reserve_order_ids(&self) -> Result<(), WireError> {
        let enough = {
            let ids = &self.state.lock().orders.ids;
            ids.end - ids.start >= ORDERS_PER_TICK_MAX as u64
        };
        if enough {
            return Ok(());
        }
        let taken = self.store.write(Durability::Process, |txn| txn.take(Counter::Order, NUMBERS_STEP));
        let first = taken.await.map_err(from_store)?;
        self.state.lock().orders.ids = first..first + NUMBERS_STEP;
        Ok(())
    }
}

/// What has to change so that every volume has its members and every live node volumes to append to.
fn plan(
    state: &mut State,
    per_node: usize,
    volume_bytes_max: u64,
    now_ms: u64,
    rng: &mut impl Rng,
) -> Vec<Change> {
    let mut changes = plan_seals(state, volume_bytes_max, now_ms);
    let sealed: Vec<VolumeId> =
        changes.iter().filter_map(|c| if let Change::Seal { id } = c { Some(*id) } else { None }).collect();
    let serving = state.live_nodes(now_ms).filter(|n| state.serves(n.row.id));
    let serving: Vec<(NodeId, String, Option<u64>)> =
        serving.map(|n| (n.row.id, n.row.zone.clone(), n.incarnation)).collect();
    for (node, zone, incarnation) in serving {
        let Some(incarnation) = incarnation else { continue };
        let open = state.open_volumes_of(node).iter().filter(|id| !sealed.contains(id)).count();
        for _ in open..per_node {
            changes.extend(plan_volume(state, (node, zone.clone()), incarnation, now_ms, rng));
        }
    }
    plan_members(state, &mut changes, now_ms, rng);
    changes.extend(plan_moves(state, now_ms));
    changes
}

/// Volumes that are full, whose primary is dead or runs in another incarnation, or that a member is to leave.
fn plan_seals(state: &State, volume_bytes_max: u64, now_ms: u64) -> Vec<Change> {
    let is_over = |id: &&VolumeId| {
        let Some(volume) = state.volumes.get(id) else { return false };
        let Some(node) = volume.primary().and_then(|p| state.nodes.get(&p)) else { return true };
        let is_stale = node.incarnation.is_some() && node.incarnation != volume.open_for;
        volume.bytes > volume_bytes_max
            || is_stale
            || state.has_leaving(volume)
            || state.judge(node, now_ms) == NodeState::Dead
    };
    state.open.iter().filter(is_over).map(|id| Change::Seal { id: *id }).take(CHANGES_MAX).collect()
}

/// Other members in the place of dead ones, and those that were missing from the start.
fn plan_members(state: &State, changes: &mut Vec<Change>, now_ms: u64, rng: &mut impl Rng) {
    let candidates = state.candidates(now_ms);
    for (id, volume) in &state.volumes {
        if changes.len() >= CHANGES_MAX {
            return;
        }
        let missing = state.view(*id, now_ms).map_or(0, |view| view.members_missing(state.replicas));
        if missing > 0 {
            let picked = pick_members(rng, &candidates, &state.taken_nodes(*id, volume), missing);
            let member = |node| Change::Member(CopyRow { volume: *id, node, seq: Seq(0) });
            changes.extend(picked.into_iter().map(member));
        }
    }
}
