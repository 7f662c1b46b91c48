//! Where volumes are, as the master told last, and in which order to ask their members.

use dfs_proto::node::CopyInfo;
use dfs_proto::{NodeId, NodeInfo, NodeState, Seq, VolumeId, VolumeInfo};
use parking_lot::Mutex;
use rand::RngExt;
use std::collections::HashMap;
use std::sync::Arc;

/// Volumes that are remembered: at 8 GiB each 128 TiB, and about 10 MiB of memory.
const VOLUMES_MAX: usize = 16_384;

/// A bounded cache of [`VolumeInfo`]. What was learned last counts.
#[derive(Default)]
pub(crate) struct Placement {
    volumes: Mutex<HashMap<VolumeId, Arc<VolumeInfo>>>,
}

impl Placement {
    pub fn learn(&self, volume: Arc<VolumeInfo>) {
        let mut volumes = self.volumes.lock();
        if volumes.len() >= VOLUMES_MAX && !volumes.contains_key(&volume.id) {
            // Any one: who needs it asks the master again.
            if let Some(id) = volumes.keys().next().copied() {
                volumes.remove(&id);
            }
        }
        volumes.insert(volume.id, volume);
    }

    /// As [`Placement::learn`], but what is known already stays.
    pub fn learn_if_new(&self, volume: &Arc<VolumeInfo>) {
        if self.get(volume.id).is_none() {
            self.learn(volume.clone());
        }
    }

    pub fn get(&self, id: VolumeId) -> Option<Arc<VolumeInfo>> {
        self.volumes.lock().get(&id).cloned()
    }

    pub fn forget(&self) {
        self.volumes.lock().clear();
    }
}

/// The members of `volume` in the order to ask them for what has the sequence number `wanted`: those that
/// `has_failed` names last, live before suspect before dead, copies that reach `wanted` before those that do
/// not, among the latter the primary first (it alone appends, so it is ahead of what the master knows), those
/// on this host before others, and at random among equals.
pub(crate) fn replica_order(
    volume: &VolumeInfo,
    wanted: Seq,
    has_failed: impl Fn(NodeId) -> bool,
    is_near: impl Fn(&NodeInfo) -> bool,
    rng: &mut impl rand::Rng,
) -> Vec<CopyInfo> {
    let rank = |(place, copy): (usize, &CopyInfo)| {
        let behind = copy.seq < wanted;
        let is_far = !is_near(&copy.node);
        (has_failed(copy.node.id), distance(copy.node.state), behind, behind && place > 0, is_far)
    };
    let mut ranked: Vec<_> = volume
        .copies
        .iter()
        .enumerate()
        .map(|(place, copy)| ((rank((place, copy)), rng.random::<u32>()), copy))
        .collect();
    ranked.sort_by_key(|(key, _)| *key);
    ranked.into_iter().map(|(_, copy)| copy.clone()).collect()
}

fn distance(state: NodeState) -> u8 {
    match state {
        NodeState::Live => 0,
        NodeState::Suspect => 1,
        NodeState::Dead => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn copy(node: u64, state: NodeState, seq: u64) -> CopyInfo {
        let (name, url) = (format!("sn{node}"), format!("http://sn{node}"));
        CopyInfo { node: NodeInfo { id: NodeId(node), name, url, zone: String::new(), state }, seq: Seq(seq) }
    }

    fn volume(id: u64, copies: Vec<CopyInfo>) -> VolumeInfo {
        VolumeInfo { id: VolumeId(id), seq: Seq(10), open: true, copies }
    }

    fn order(volume: &VolumeInfo, failed: &[u64], seed: u64) -> Vec<u64> {
        order_near(volume, failed, 0, seed)
    }

    /// With node `near` on this host.
    fn order_near(volume: &VolumeInfo, failed: &[u64], near: u64, seed: u64) -> Vec<u64> {
        let mut rng = StdRng::seed_from_u64(seed);
        let order = replica_order(volume, Seq(5), |n| failed.contains(&n.0), |n| n.id.0 == near, &mut rng);
        order.iter().map(|c| c.node.id.0).collect()
    }

    #[test]
    fn whole_live_copies_come_first_and_failed_nodes_last() {
        use NodeState::*;
        let copies =
            vec![copy(1, Live, 9), copy(2, Dead, 9), copy(3, Live, 4), copy(4, Suspect, 9), copy(5, Live, 5)];
        assert_eq!(order(&volume(1, copies), &[1], 7), [5, 3, 4, 2, 1]);
    }

    #[test]
    fn of_copies_that_seem_behind_the_primary_is_asked_first() {
        let copies = vec![copy(1, NodeState::Live, 1), copy(2, NodeState::Live, 2)];
        let volume = volume(1, copies);
        assert!((0..50).all(|seed| order(&volume, &[], seed) == [1, 2]));
    }

    #[test]
    fn equals_share_the_load() {
        let volume = volume(1, vec![copy(1, NodeState::Live, 9), copy(2, NodeState::Live, 9)]);
        let first_ones = (0..100).filter(|seed| order(&volume, &[], *seed)[0] == 1).count();
        assert!((20..=80).contains(&first_ones), "{first_ones}");
    }

    #[test]
    fn of_whole_copies_the_one_on_this_host_is_asked_first() {
        use NodeState::*;
        let whole = volume(1, vec![copy(1, Live, 9), copy(2, Live, 9), copy(3, Live, 9)]);
        assert!((0..50).all(|seed| order_near(&whole, &[], 2, seed)[0] == 2));
        assert!((0..50).all(|seed| order_near(&whole, &[2], 2, seed)[2] == 2));
        let behind = volume(1, vec![copy(1, Live, 9), copy(2, Live, 4)]);
        assert!((0..50).all(|seed| order_near(&behind, &[], 2, seed) == [1, 2]));
    }

    proptest! {
        #[test]
        fn every_member_is_asked_once(
            members in proptest::collection::vec((0u8..3, 0u64..10), 0..6),
            failed in proptest::collection::vec(0u64..6, 0..3),
            seed: u64,
        ) {
            let states = [NodeState::Live, NodeState::Suspect, NodeState::Dead];
            let copies: Vec<_> = members
                .iter()
                .enumerate()
                .map(|(n, (state, seq))| copy(n as u64, states[usize::from(*state)], *seq))
                .collect();
            let got = order(&volume(1, copies.clone()), &failed, seed);
            let mut sorted = got.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sorted, (0..copies.len() as u64).collect::<Vec<_>>());
            for pair in got.windows(2) {
                let [a, b] = [&copies[pair[0] as usize], &copies[pair[1] as usize]];
                let rank = |c: &CopyInfo| {
                    (failed.contains(&c.node.id.0), distance(c.node.state), c.seq < Seq(5))
                };
                prop_assert!(rank(a) <= rank(b));
            }
        }
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_what_came_last() {
        let placement = Placement::default();
        for id in 0..VOLUMES_MAX as u64 + 10 {
            placement.learn(Arc::new(volume(id, vec![])));
        }
        let last = VolumeId(VOLUMES_MAX as u64 + 9);
        assert_eq!(placement.volumes.lock().len(), VOLUMES_MAX);
        assert!(placement.get(last).is_some());
        placement.forget();
        assert!(placement.get(last).is_none());
    }
}
