//! What is wanted of replicators, and which of it has been ordered.
//!
//! Owns no intent: what a copy lacks follows from [`State`], and this only remembers what was pushed to the
//! queue and when to look again. At most one order is out for each (volume, target). An order whose copy makes
//! no progress is issued again when the queue turns out to hold fewer orders than are out, so an emptied queue
//! delays copies and loses none. Repairs of single blobs are the exception: nothing else knows of them, so
//! they are kept here until they are done, up to a bound; scrubbing and readers find them again after that, or
//! after a restart.

use crate::cluster::repair_choice::CatchUp;
use crate::cluster::state::{Hint, State};
use dfs_proto::order::OrderTask;
use dfs_proto::{BlobId, BlobKey, NodeId, NodeState, Order, OrderId, OrderOutcome, Seq, VolumeId};
use dfs_service::{Capability, Rights, TokenKey};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Damaged or missing records that are remembered. What goes beyond is found again by scrubs and readers.
pub const REPAIRS_MAX: usize = 65_536;

/// Orders in one push.
pub const ORDERS_PER_TICK_MAX: usize = 1_024;

/// How long the capability in an order is good, ms.
pub const TOKEN_LIFE_MS: u64 = 3_600_000;

/// Patience with an order doubles so many times at most.
const PATIENCE_DOUBLINGS_MAX: u32 = 5;

/// An order that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Issued {
    /// How far the copy was to reach; 0 for a repair.
    want: Seq,
    /// In the queue as far as is known; otherwise it waits for `look_again_ms`.
    pushed: bool,
    /// When to see to it, monotonic ms.
    look_again_ms: u64,
    tries: u32,
}

/// What is out, and what is to be looked at.
#[derive(Default)]
pub struct OrderBook {
    /// Volumes with copies behind that have not been looked at since.
    pub dirty: BTreeSet<VolumeId>,
    issued: BTreeMap<(VolumeId, NodeId), Issued>,
    /// `None` until the first order is made.
    repairs: BTreeMap<(BlobId, NodeId), Option<Issued>>,
    /// The queue holds fewer orders than are out.
    pub queue_lost_some: bool,
    /// Numbers for orders that the store has handed out.
    pub ids: Range<u64>,
}

/// How patient to be.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// With an order that makes no progress, ms.
    pub order_ms: u64,
    /// After one was given up, ms.
    pub pause_ms: u64,
    /// After the queue could not be reached, ms.
    pub outage_ms: u64,
    /// Between two orders for one volume, ms: what is written meanwhile goes with the second.
    pub pace_ms: u64,
}

impl Issued {
    fn is_due(&self, now_ms: u64, queue_lost_some: bool) -> bool {
        now_ms >= self.look_again_ms && (!self.pushed || queue_lost_some)
    }

    fn pushed(want: Seq, before: Option<&Issued>, now_ms: u64, patience: Patience) -> Issued {
        // What the queue did not take, or a replicator gave back, says nothing about orders being lost.
        let tries = before.map_or(0, |b| b.tries + u32::from(b.pushed));
        let wait = patience.order_ms << tries.min(PATIENCE_DOUBLINGS_MAX);
        Issued { want, pushed: true, look_again_ms: now_ms + wait, tries }
    }

    fn waiting(&mut self, until_ms: u64) {
        self.pushed = false;
        self.look_again_ms = until_ms;
    }
}

impl OrderBook {
    /// Orders that the queue should hold or replicators have in hand.
    pub fn out(&self) -> usize {
        let repairs = self.repairs.values().flatten();
        self.issued.values().chain(repairs).filter(|i| i.pushed).count()
    }

    /// Damaged or missing records that wait for repair.
    pub fn repairs(&self) -> usize {
        self.repairs.len()
    }

    /// Remembers that `node` has no good record of `blob`. False when too many are remembered already.
    pub fn want_repair(&mut self, blob: BlobId, node: NodeId) -> bool {
        if self.repairs.len() >= REPAIRS_MAX && !self.repairs.contains_key(&(blob, node)) {
            return false;
        }
        self.repairs.entry((blob, node)).or_insert(None);
        true
    }

    /// Blobs that nothing refers to any more need no repair.
    pub fn forget_blobs(&mut self, is_gone: impl Fn(BlobId) -> bool) {
        self.repairs.retain(|(blob, _), _| !is_gone(*blob));
    }

    /// The target starts anew, or is dead: what was ordered for it does not count.
    pub fn forget_target(&mut self, volume: VolumeId, node: NodeId) {
        self.issued.remove(&(volume, node));
    }

    /// A copy reaches `seq` now.
    pub fn progress(&mut self, volume: VolumeId, node: NodeId, seq: Seq, now_ms: u64) {
        let Some(issued) = self.issued.get_mut(&(volume, node)) else { return };
        if seq >= issued.want {
            self.issued.remove(&(volume, node));
        } else if issued.pushed {
            // Somebody is at it.
            let patience = issued.look_again_ms.saturating_sub(now_ms);
            issued.look_again_ms = now_ms + patience.max(1_000);
        }
    }
}

impl State {
    /// Takes the orders that are due, at most [`ORDERS_PER_TICK_MAX`] and as many as there are numbers for.
    /// They count as pushed.
    pub fn take_orders(
        &mut self,
        now_ms: u64,
        wall_ms: u64,
        key: &TokenKey,
        patience: Patience,
    ) -> Vec<Order> {
        let mut made = Vec::new();
        let maker = Maker { now_ms, expires_ms: wall_ms + TOKEN_LIFE_MS, key, patience };
        for volume in self.endangered_first(now_ms) {
            if made.len() >= ORDERS_PER_TICK_MAX || self.orders.ids.is_empty() {
                break;
            }
            let ordered_ms = self.volumes.get(&volume).and_then(|v| v.ordered_ms);
            if ordered_ms.is_some_and(|at| now_ms < at + patience.pace_ms) {
                // It stays where it is, to be looked at again.
                continue;
            }
            self.orders.dirty.remove(&volume);
            self.take_catch_ups(volume, &maker, &mut made);
        }
        self.take_repairs(&maker, &mut made);
        made
    }

    /// The volumes to be looked at, those with the fewest whole copies first.
    fn endangered_first(&self, now_ms: u64) -> Vec<VolumeId> {
        let whole = |id: &VolumeId| self.view(*id, now_ms).map_or(usize::MAX, |view| view.whole());
        let mut volumes: Vec<VolumeId> = self.orders.dirty.iter().copied().collect();
        volumes.sort_by_cached_key(|id| (whole(id), *id));
        volumes
    }

    fn take_catch_ups(&mut self, volume: VolumeId, maker: &Maker<'_>, made: &mut Vec<Order>) {
        let Some(view) = self.view(volume, maker.now_ms) else { return };
        let hint = self.volumes.get(&volume).map(|v| v.hint.text()).unwrap_or_default();
        let made_before = made.len();
        for CatchUp { target, at_least, sources } in view.catch_ups() {
            let before = self.orders.issued.get(&(volume, target));
            if before.is_some_and(|i| !i.is_due(maker.now_ms, self.orders.queue_lost_some)) {
                continue;
            }
            let Some(id) = self.orders.ids.next() else {
                self.orders.dirty.insert(volume);
                return;
            };
            let issued = Issued::pushed(at_least, before, maker.now_ms, maker.patience);
            let task = OrderTask::CatchUp(at_least);
            if let Some(order) = self.order(OrderId(id), volume, task, target, &sources, &hint, maker) {
                self.orders.issued.insert((volume, target), issued);
                made.push(order);
            }
        }
        if made.len() > made_before
            && let Some(volume) = self.volumes.get_mut(&volume)
        {
            volume.hint = Hint::default();
            volume.ordered_ms = Some(maker.now_ms);
        }
    }

    fn take_repairs(&mut self, maker: &Maker<'_>, made: &mut Vec<Order>) {
        let lost_some = self.orders.queue_lost_some;
        let room = ORDERS_PER_TICK_MAX.saturating_sub(made.len());
        let is_due = |issued: &Option<Issued>| issued.is_none_or(|i| i.is_due(maker.now_ms, lost_some));
        let due: Vec<(BlobId, NodeId)> =
            self.orders.repairs.iter().filter(|(_, i)| is_due(i)).map(|(key, _)| *key).take(room).collect();
        for (blob, target) in due {
            let Some(view) = self.view(blob.volume, maker.now_ms) else {
                self.orders.repairs.remove(&(blob, target));
                continue;
            };
            let sources = view.sources(target, |_| true);
            let target_is_live = self.node_state(target, maker.now_ms) == NodeState::Live;
            let before = self.orders.repairs.get(&(blob, target)).copied().flatten();
            let mut issued = Issued::pushed(Seq(0), before.as_ref(), maker.now_ms, maker.patience);
            if sources.is_empty() || !target_is_live {
                // Nobody to have it from, or nobody to bring it to: later.
                issued.waiting(maker.now_ms + maker.patience.order_ms);
            } else {
                let Some(id) = self.orders.ids.next() else { return };
                let task = OrderTask::Repair(blob.key);
                made.extend(self.order(OrderId(id), blob.volume, task, target, &sources, "repair", maker));
            }
            self.orders.repairs.insert((blob, target), Some(issued));
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of an order, once")]
    fn order(
        &self,
        id: OrderId,
        volume: VolumeId,
        task: OrderTask,
        target: NodeId,
        sources: &[NodeId],
        hint: &str,
        maker: &Maker<'_>,
    ) -> Option<Order> {
        Some(Order {
            id,
            volume,
            task,
            target: self.node_info(target, maker.now_ms)?,
            sources: sources.iter().filter_map(|node| self.node_info(*node, maker.now_ms)).collect(),
            token: maker.token(volume),
            hint: hint.to_owned(),
        })
    }

    /// Orders that the queue did not take: look again after the outage.
    pub fn not_pushed(&mut self, orders: &[Order], now_ms: u64, patience: Patience) {
        for order in orders {
            self.postpone(order, now_ms + patience.outage_ms);
        }
    }

    fn postpone(&mut self, order: &Order, until_ms: u64) {
        let issued = match order.repaired_blob() {
            Some(blob) => self.orders.repairs.get_mut(&(blob, order.target.id)).and_then(Option::as_mut),
            None => self.orders.issued.get_mut(&(order.volume, order.target.id)),
        };
        if let Some(issued) = issued {
            issued.waiting(until_ms);
        }
    }

    /// What a replicator says has become of an order. How far a copy reaches is believed up to what the
    /// volume is known to hold; the node itself says the rest.
    pub fn finish(&mut self, order: &Order, outcome: &OrderOutcome, now_ms: u64, patience: Patience) {
        let (volume, target) = (order.volume, order.target.id);
        match (outcome, order.repaired_blob()) {
            (OrderOutcome::Done { .. }, Some(blob)) => {
                self.orders.repairs.remove(&(blob, target));
            }
            (OrderOutcome::Done { seq, .. }, None) => {
                let Some(view) = self.view(volume, now_ms) else { return };
                self.raise_copy(volume, target, (*seq).min(view.needed()), now_ms);
                match order.task {
                    // Done, and yet not there: whatever the reason, at once again would be for ever again.
                    OrderTask::CatchUp(want) if *seq < want => {
                        self.postpone(order, now_ms + patience.order_ms);
                    }
                    _ => self.orders.forget_target(volume, target),
                }
                self.look_at(volume, now_ms);
            }
            (OrderOutcome::Dead { .. }, _) => self.postpone(order, now_ms + patience.pause_ms),
        }
    }

    /// Marks every volume that has copies behind, and drops what was ordered for nodes that are dead.
    pub fn look_at_all(&mut self, now_ms: u64) {
        let volumes: Vec<VolumeId> = self.volumes.keys().copied().collect();
        for id in volumes {
            self.look_at(id, now_ms);
        }
        let targets: Vec<(VolumeId, NodeId)> = self.orders.issued.keys().copied().collect();
        for (volume, node) in targets {
            if self.node_state(node, now_ms) == NodeState::Dead {
                self.orders.forget_target(volume, node);
            }
        }
    }
}

/// What orders are made with.
struct Maker<'a> {
    now_ms: u64,
    expires_ms: u64,
    key: &'a TokenKey,
    patience: Patience,
}

impl Maker<'_> {
    fn token(&self, volume: VolumeId) -> String {
        let expires_ms = self.expires_ms;
        let nothing = BlobKey(0);
        self.key.sign(&Capability { rights: Rights::Pull, volume, first: nothing, end: nothing, expires_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::liveness::Silence;
    use crate::cluster::state::Change;
    use dfs_metastore::{CopyRow, NodeDuty, NodeRow};

    const PATIENCE: Patience = Patience { order_ms: 100, pause_ms: 1_000, outage_ms: 10, pace_ms: 0 };
    const VOLUME: VolumeId = VolumeId(1);

    /// Nodes 1, 2, 3, live; volume 1 on 1 and 2.
    fn state() -> State {
        let silence = Silence { suspect_after_ms: 1 << 40, dead_after_ms: 1 << 41 };
        let mut state = State::load(2, silence, vec![], vec![], vec![], 0);
        for n in 1..=3 {
            let name = format!("sn{n}");
            let url = format!("http://{name}");
            let (uuid, zone, duty) = (name.clone(), String::new(), NodeDuty::Serve);
            let row = NodeRow { id: NodeId(n), uuid, name, url, zone, duty };
            state.apply(&Change::Node(row), 0);
            state.nodes.get_mut(&NodeId(n)).unwrap().incarnation = Some(1);
        }
        let members = vec![NodeId(1), NodeId(2)];
        state.apply(&Change::NewVolume { id: VOLUME, incarnation: 1, next_key: BlobKey(9), members }, 0);
        state.orders.ids = 1..1_000;
        state
    }

    fn take(state: &mut State, now_ms: u64) -> Vec<Order> {
        state.take_orders(now_ms, 0, &TokenKey::random(), PATIENCE)
    }

    fn done(seq: u64) -> OrderOutcome {
        OrderOutcome::Done { seq: Seq(seq), source: NodeId(1), bytes: 1 }
    }

    #[test]
    fn one_order_is_out_for_a_copy_until_it_is_finished() {
        let mut s = state();
        s.note_commit(VOLUME, Seq(3), Some(&dfs_proto::Name::new("a").unwrap()), 0);
        let orders = take(&mut s, 0);
        assert_eq!(orders.len(), 1);
        assert_eq!(orders[0].task, OrderTask::CatchUp(Seq(3)));
        assert_eq!((orders[0].target.id, orders[0].sources[0].id), (NodeId(2), NodeId(1)));
        assert_eq!(orders[0].hint, "a");
        s.note_commit(VOLUME, Seq(5), None, 1);
        assert_eq!(take(&mut s, 1), []);
        s.finish(&orders[0], &done(3), 2, PATIENCE);
        assert_eq!(take(&mut s, 2)[0].task, OrderTask::CatchUp(Seq(5)));
    }

    #[test]
    fn volumes_with_the_fewest_copies_are_seen_to_first() {
        let mut s = state();
        let other = VolumeId(2);
        let members = vec![NodeId(1), NodeId(2)];
        s.apply(&Change::NewVolume { id: other, incarnation: 1, next_key: BlobKey(9), members }, 0);
        s.apply(&Change::Member(CopyRow { volume: VOLUME, node: NodeId(3), seq: Seq(0) }), 0);
        s.note_commit(VOLUME, Seq(3), None, 0);
        s.raise_copy(VOLUME, NodeId(2), Seq(3), 0);
        s.note_commit(other, Seq(3), None, 0);
        let volumes: Vec<VolumeId> = take(&mut s, 0).iter().map(|order| order.volume).collect();
        assert_eq!(volumes, [other, VOLUME]);
    }

    #[test]
    fn what_is_written_soon_after_an_order_goes_with_the_next_one() {
        let mut s = state();
        let patience = Patience { pace_ms: 50, ..PATIENCE };
        let take = |s: &mut State, now_ms| s.take_orders(now_ms, 0, &TokenKey::random(), patience);
        s.note_commit(VOLUME, Seq(1), None, 0);
        let first = take(&mut s, 0);
        assert_eq!(first.len(), 1, "the first is not held up");
        s.finish(&first[0], &done(1), 1, patience);
        for seq in 2..10 {
            s.note_commit(VOLUME, Seq(seq), None, seq);
            assert_eq!(take(&mut s, seq), []);
        }
        assert!(s.orders.dirty.contains(&VOLUME), "it is looked at again without another commit");
        assert_eq!(take(&mut s, 50)[0].task, OrderTask::CatchUp(Seq(9)));
    }

    #[test]
    fn an_order_that_the_queue_lost_is_issued_again_after_a_while() {
        let mut s = state();
        s.note_commit(VOLUME, Seq(3), None, 0);
        assert_eq!(take(&mut s, 0).len(), 1);
        for (now_ms, lost, expected) in
            [(99, true, 0), (200, false, 0), (200, true, 1), (399, true, 0), (400, true, 1)]
        {
            s.look_at_all(now_ms);
            s.orders.queue_lost_some = lost;
            assert_eq!(take(&mut s, now_ms).len(), expected, "at {now_ms}");
        }
        assert_eq!(s.orders.out(), 1);
    }

    #[test]
    fn an_order_that_could_not_be_pushed_or_was_given_up_is_tried_later() {
        let mut s = state();
        s.note_commit(VOLUME, Seq(3), None, 0);
        let orders = take(&mut s, 0);
        s.not_pushed(&orders, 0, PATIENCE);
        assert_eq!(s.orders.out(), 0);
        s.look_at_all(10);
        let orders = take(&mut s, 10);
        assert_eq!(orders.len(), 1);
        s.finish(&orders[0], &OrderOutcome::Dead { reason: "x".into() }, 10, PATIENCE);
        s.look_at_all(1_009);
        assert_eq!(take(&mut s, 1_009), []);
        s.look_at_all(1_010);
        assert_eq!(take(&mut s, 1_010).len(), 1);
    }

    #[test]
    fn regression_an_outage_of_the_queue_does_not_use_up_the_patience_with_an_order() {
        let mut s = state();
        s.note_commit(VOLUME, Seq(3), None, 0);
        for now_ms in (0..100).step_by(10) {
            s.look_at_all(now_ms);
            let orders = take(&mut s, now_ms);
            assert_eq!(orders.len(), 1, "at {now_ms}");
            s.not_pushed(&orders, now_ms, PATIENCE);
        }
        s.look_at_all(100);
        assert_eq!(take(&mut s, 100).len(), 1);
        // The queue took it, and lost it.
        s.orders.queue_lost_some = true;
        s.look_at_all(200);
        assert_eq!(take(&mut s, 200).len(), 1);
    }

    #[test]
    fn a_copy_that_got_there_by_itself_needs_no_order() {
        let mut s = state();
        s.note_commit(VOLUME, Seq(3), None, 0);
        assert_eq!(take(&mut s, 0).len(), 1);
        s.raise_copy(VOLUME, NodeId(2), Seq(3), 1);
        assert_eq!(s.orders.out(), 0);
        s.look_at_all(2);
        assert_eq!(take(&mut s, 2), []);
        assert_eq!(s.volumes[&VOLUME].behind_since_ms, None);
    }

    #[test]
    fn a_new_member_gets_its_order() {
        let mut s = state();
        s.note_commit(VOLUME, Seq(3), None, 0);
        s.raise_copy(VOLUME, NodeId(2), Seq(3), 0);
        s.apply(&Change::Member(CopyRow { volume: VOLUME, node: NodeId(3), seq: Seq(0) }), 0);
        let orders = take(&mut s, 0);
        assert_eq!(orders.len(), 1);
        assert_eq!(orders[0].target.id, NodeId(3));
        assert_eq!(orders[0].sources.len(), 2);
    }

    #[test]
    fn a_claim_of_more_than_the_volume_holds_is_not_believed() {
        let mut s = state();
        s.note_commit(VOLUME, Seq(3), None, 0);
        let orders = take(&mut s, 0);
        s.finish(&orders[0], &done(u64::MAX), 0, PATIENCE);
        assert_eq!(s.volumes[&VOLUME].members[1].seq, Seq(3));
    }

    #[test]
    fn an_order_that_is_done_without_getting_there_is_not_repeated_at_once() {
        let mut s = state();
        s.note_commit(VOLUME, Seq(3), None, 0);
        let orders = take(&mut s, 0);
        s.finish(&orders[0], &done(2), 0, PATIENCE);
        assert_eq!(s.volumes[&VOLUME].members[1].seq, Seq(2));
        assert_eq!(take(&mut s, 99), []);
        s.look_at_all(100);
        assert_eq!(take(&mut s, 100).len(), 1);
    }

    #[test]
    fn repairs_are_ordered_once_and_forgotten_when_done() {
        let mut s = state();
        let blob = BlobId { volume: VOLUME, key: BlobKey(4) };
        assert!(s.orders.want_repair(blob, NodeId(2)));
        assert!(s.orders.want_repair(blob, NodeId(2)));
        let orders = take(&mut s, 0);
        assert_eq!(orders.len(), 1);
        assert_eq!(orders[0].repaired_blob(), Some(blob));
        assert_eq!(take(&mut s, 1), []);
        s.finish(&orders[0], &done(0), 1, PATIENCE);
        assert_eq!(s.orders.repairs(), 0);
    }

    #[test]
    fn without_numbers_nothing_is_made_and_nothing_lost() {
        let mut s = state();
        s.note_commit(VOLUME, Seq(3), None, 0);
        s.orders.ids = 0..0;
        assert_eq!(take(&mut s, 0), []);
        s.orders.ids = 5..6;
        assert_eq!(take(&mut s, 0)[0].id, OrderId(5));
    }
}
