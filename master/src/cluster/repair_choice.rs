//! Which copies have to be brought up, and from where; which volumes want another member.

use dfs_proto::{NodeId, NodeState, Seq};

/// One member of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyView {
    /// The node.
    pub node: NodeId,
    /// How far its copy reaches.
    pub seq: Seq,
    /// How the node is.
    pub state: NodeState,
    /// The node is being emptied: its copy serves, and counts for nothing else.
    pub leaving: bool,
}

impl CopyView {
    fn counts(&self) -> bool {
        self.state != NodeState::Dead && !self.leaving
    }
}

/// A volume as far as repair is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeView {
    /// Whether the first member still appends.
    pub open: bool,
    /// The highest sequence number that a commit refers to.
    pub committed: Seq,
    /// The members, primary first.
    pub copies: Vec<CopyView>,
}

/// A copy that is one too many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spare {
    /// Who has it.
    pub node: NodeId,
    /// Who has those that stay.
    pub kept: Vec<NodeId>,
    /// How far those have to reach.
    pub needed: Seq,
}

/// An order that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatchUp {
    /// Who gets the copy.
    pub target: NodeId,
    /// How far it has to reach.
    pub at_least: Seq,
    /// Who is ahead of it, best first.
    pub sources: Vec<NodeId>,
}

impl VolumeView {
    /// How far every copy has to reach: as far as commits refer, and as the primary goes while it is live.
    pub fn needed(&self) -> Seq {
        let primary = self.copies.first().filter(|c| c.state == NodeState::Live).map(|c| c.seq);
        self.committed.max(primary.unwrap_or_default())
    }

    /// Copies that are whole on nodes that are neither dead nor being emptied.
    pub fn whole(&self) -> usize {
        let needed = self.needed();
        self.copies.iter().filter(|c| c.counts() && c.seq >= needed).count()
    }

    /// Copies on nodes that are neither dead nor being emptied, whole or not.
    pub fn present(&self) -> usize {
        self.copies.iter().filter(|c| c.counts()).count()
    }

    /// A copy that can be given up once the ones that are kept have been verified, and those. Who appends stays. Of
    /// those that may go, one on a node that is being emptied is first, then the one
    /// whose node has the highest `load`.
    pub fn spare(&self, replicas: usize, load: impl Fn(NodeId) -> u64) -> Option<Spare> {
        let needed = self.needed();
        let appends = self.copies.first().filter(|_| self.open).map(|c| c.node);
        let is_kept = |c: &&CopyView| c.state == NodeState::Live && !c.leaving && c.seq >= needed;
        let may_go = |c: &&CopyView| {
            let others = self.copies.iter().filter(|other| other.node != c.node && is_kept(other)).count();
            // A node that does not answer could not be told.
            c.state == NodeState::Live && appends != Some(c.node) && others >= replicas
        };
        let goes = self.copies.iter().filter(may_go).max_by_key(|c| (c.leaving, load(c.node), c.node))?.node;
        let kept = self.copies.iter().filter(|c| c.node != goes && is_kept(c)).map(|c| c.node).collect();
        Some(Spare { node: goes, kept, needed })
    }

    /// Members that are missing for `replicas` copies. A volume that holds nothing and never will wants none, unless
    /// somebody is to take the place of a node that leaves.
    pub fn members_missing(&self, replicas: usize) -> usize {
        let leaves = self.copies.iter().any(|c| c.leaving);
        if !self.open && self.needed() == Seq(0) && !leaves {
            return 0;
        }
        replicas.saturating_sub(self.present())
    }

    /// What is wanted: each live copy that is behind, with those ahead of it as sources: the live ones, the
    /// furthest first, then the suspect ones. A copy that nobody in reach is ahead of has to wait.
    pub fn catch_ups(&self) -> Vec<CatchUp> {
        let needed = self.needed();
        let appends = |place: usize| self.open && place == 0;
        self.copies
            .iter()
            .enumerate()
            .filter(|(place, c)| {
                c.state == NodeState::Live && !c.leaving && c.seq < needed && !appends(*place)
            })
            .filter_map(|(_, target)| self.catch_up(target, needed))
            .collect()
    }

    fn catch_up(&self, target: &CopyView, needed: Seq) -> Option<CatchUp> {
        let sources = self.sources(target.node, |c| c.seq > target.seq);
        let reach = |wanted| {
            let of_state = self.copies.iter().filter(|c| c.state == wanted && c.node != target.node);
            of_state.map(|c| c.seq).max().unwrap_or_default()
        };
        let live = reach(NodeState::Live);
        let furthest = if live > target.seq { live } else { reach(NodeState::Suspect) };
        let at_least = furthest.min(needed);
        (at_least > target.seq).then_some(CatchUp { target: target.node, at_least, sources })
    }

    /// Members other than `target` that fulfil `good` and are not dead: live ones first, the furthest first.
    pub fn sources(&self, target: NodeId, good: impl Fn(&CopyView) -> bool) -> Vec<NodeId> {
        let usable = |c: &&CopyView| c.node != target && c.state != NodeState::Dead && good(c);
        let mut sources: Vec<&CopyView> = self.copies.iter().filter(usable).collect();
        sources.sort_by_key(|c| (c.state != NodeState::Live, std::cmp::Reverse(c.seq)));
        sources.into_iter().map(|c| c.node).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use NodeState::{Dead, Live, Suspect};
    use proptest::prelude::*;

    fn view(open: bool, committed: u64, copies: &[(u64, u64, NodeState)]) -> VolumeView {
        let copy = |&(node, seq, state): &(u64, u64, NodeState)| CopyView {
            node: NodeId(node),
            seq: Seq(seq),
            state,
            leaving: false,
        };
        VolumeView { open, committed: Seq(committed), copies: copies.iter().map(copy).collect() }
    }

    fn wanted(view: &VolumeView) -> Vec<(u64, u64, Vec<u64>)> {
        let plain = |c: CatchUp| (c.target.0, c.at_least.0, c.sources.iter().map(|n| n.0).collect());
        view.catch_ups().into_iter().map(plain).collect()
    }

    #[test]
    fn a_replica_behind_a_live_primary_is_brought_up_to_it() {
        let v = view(true, 5, &[(1, 8, Live), (2, 3, Live), (3, 8, Live)]);
        assert_eq!(wanted(&v), [(2, 8, vec![1, 3])]);
        assert_eq!(v.whole(), 2);
    }

    #[test]
    fn with_the_primary_dead_commits_say_how_far() {
        let v = view(false, 5, &[(1, 8, Dead), (2, 6, Live), (3, 0, Live)]);
        assert_eq!(v.needed(), Seq(5));
        assert_eq!(wanted(&v), [(3, 5, vec![2])]);
        assert_eq!(v.members_missing(2), 0);
    }

    #[test]
    fn the_appending_primary_is_never_a_target() {
        assert_eq!(wanted(&view(true, 9, &[(1, 4, Live), (2, 9, Live)])), []);
        assert_eq!(wanted(&view(false, 9, &[(1, 4, Live), (2, 9, Live)])), [(1, 9, vec![2])]);
    }

    #[test]
    fn what_nobody_in_reach_has_is_not_ordered() {
        assert_eq!(wanted(&view(false, 9, &[(1, 9, Dead), (2, 4, Live), (3, 4, Live)])), []);
        assert_eq!(wanted(&view(false, 9, &[(1, 9, Dead), (2, 4, Live), (3, 2, Live)])), [(3, 4, vec![2])]);
    }

    #[test]
    fn suspect_sources_come_last() {
        let v = view(false, 9, &[(1, 9, Suspect), (2, 7, Live), (3, 0, Live)]);
        assert_eq!(wanted(&v), [(2, 9, vec![1]), (3, 7, vec![2, 1])]);
    }

    #[test]
    fn dead_members_are_replaced_and_empty_sealed_volumes_left_alone() {
        assert_eq!(view(true, 0, &[(1, 0, Live), (2, 0, Dead)]).members_missing(2), 1);
        assert_eq!(view(true, 0, &[(1, 0, Live), (2, 0, Suspect)]).members_missing(2), 0);
        assert_eq!(view(false, 0, &[(1, 0, Dead)]).members_missing(2), 0);
        assert_eq!(view(false, 1, &[(1, 0, Dead)]).members_missing(2), 2);
    }

    fn leaving(mut v: VolumeView, node: u64) -> VolumeView {
        v.copies.iter_mut().filter(|c| c.node == NodeId(node)).for_each(|c| c.leaving = true);
        v
    }

    fn spare(v: &VolumeView, replicas: usize) -> Option<(u64, Vec<u64>)> {
        let plain = |s: Spare| (s.node.0, s.kept.iter().map(|n| n.0).collect());
        v.spare(replicas, |node| 100 - node.0).map(plain)
    }

    #[test]
    fn a_node_that_is_emptied_is_replaced_and_goes_when_the_others_are_whole() {
        let v = leaving(view(false, 5, &[(1, 5, Live), (2, 5, Live)]), 1);
        assert_eq!((v.members_missing(2), v.whole(), spare(&v, 2)), (1, 1, None));
        let v = leaving(view(false, 5, &[(1, 5, Live), (2, 5, Live), (3, 2, Live)]), 1);
        assert_eq!(wanted(&v), [(3, 5, vec![1, 2])]);
        assert_eq!(spare(&v, 2), None);
        let v = leaving(view(false, 5, &[(1, 5, Live), (2, 5, Live), (3, 5, Live)]), 1);
        assert_eq!(spare(&v, 2), Some((1, vec![2, 3])));
    }

    #[test]
    fn a_leaving_copy_is_not_brought_up() {
        assert_eq!(wanted(&leaving(view(false, 5, &[(1, 5, Live), (2, 3, Live)]), 2)), []);
    }

    #[test]
    fn of_copies_that_are_too_many_the_one_on_the_fullest_node_goes() {
        let v = view(false, 5, &[(1, 5, Live), (2, 5, Live), (3, 5, Live)]);
        assert_eq!(spare(&v, 2), Some((1, vec![2, 3])));
        assert_eq!(spare(&v, 3), None);
        assert_eq!(
            spare(&view(true, 5, &[(1, 5, Live), (2, 5, Live), (3, 5, Live)]), 2),
            Some((2, vec![1, 3]))
        );
        assert_eq!(spare(&view(true, 5, &[(1, 5, Live), (2, 5, Live)]), 1), Some((2, vec![1])));
        assert_eq!(
            spare(&view(false, 5, &[(1, 5, Live), (2, 5, Live), (3, 4, Live)]), 2),
            Some((3, vec![1, 2]))
        );
        assert_eq!(spare(&view(false, 5, &[(1, 5, Dead), (2, 5, Live), (3, 5, Suspect)]), 1), None);
    }

    fn any_view() -> impl Strategy<Value = VolumeView> {
        let state = prop_oneof![Just(Live), Just(Suspect), Just(Dead)];
        (any::<bool>(), 0u64..6, prop::collection::vec((0u64..6, state), 1..5)).prop_map(
            |(open, committed, copies)| {
                let numbered: Vec<_> =
                    copies.into_iter().zip(1..).map(|((seq, state), node)| (node, seq, state)).collect();
                view(open, committed, &numbered)
            },
        )
    }

    proptest! {
        #[test]
        fn orders_go_to_live_copies_that_are_behind_from_others_that_are_ahead(v in any_view()) {
            let copy = |node: NodeId| *v.copies.iter().find(|c| c.node == node).unwrap();
            for order in v.catch_ups() {
                let target = copy(order.target);
                prop_assert_eq!(target.state, Live);
                prop_assert!(target.seq < order.at_least && order.at_least <= v.needed());
                prop_assert!(!order.sources.is_empty());
                for source in &order.sources {
                    prop_assert!(*source != order.target);
                    prop_assert!(copy(*source).state != Dead && copy(*source).seq > target.seq);
                }
                prop_assert!(order.sources.iter().any(|s| copy(*s).seq >= order.at_least));
            }
        }

        #[test]
        fn what_is_given_up_leaves_enough_whole_copies(v in any_view(), gone in 1u64..5, replicas in 1usize..4) {
            let v = leaving(v, gone);
            if let Some(spare) = v.spare(replicas, |node| node.0) {
                let copy = |node: NodeId| *v.copies.iter().find(|c| c.node == node).unwrap();
                prop_assert!(spare.kept.len() >= replicas && !spare.kept.contains(&spare.node));
                prop_assert!(!v.open || spare.node != v.copies[0].node);
                for node in &spare.kept {
                    let kept = copy(*node);
                    prop_assert!(kept.state == Live && !kept.leaving && kept.seq >= v.needed());
                }
            }
        }

        #[test]
        fn carrying_out_all_orders_again_and_again_comes_to_rest(v in any_view()) {
            let mut v = v;
            for _ in 0..=v.copies.len() {
                let orders = v.catch_ups();
                for order in &orders {
                    let copy = v.copies.iter_mut().find(|c| c.node == order.target).unwrap();
                    copy.seq = copy.seq.max(order.at_least);
                }
            }
            prop_assert_eq!(v.catch_ups(), vec![]);
        }
    }
}
