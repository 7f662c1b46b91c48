//! Where copies go: random, with free space as the weight, other failure domains first.

use dfs_proto::NodeId;
use rand::{Rng, RngExt};

/// A node that could take a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub node: NodeId,
    /// Its failure domain; empty when it is one by itself.
    pub zone: String,
    /// What it can still take, bytes.
    pub free_bytes: u64,
}

/// Picks up to `count` different nodes from `candidates`, none of them in `members` (the nodes that have a
/// copy already, with their zones). Each pick is weighted by free space among the candidates in zones without
/// a copy; zones are repeated only when no other is left.
pub fn pick_members(
    rng: &mut impl Rng,
    candidates: &[Candidate],
    members: &[(NodeId, String)],
    count: usize,
) -> Vec<NodeId> {
    let mut taken: Vec<(NodeId, String)> = members.to_vec();
    let mut picked = Vec::new();
    while picked.len() < count {
        let is_free = |c: &&Candidate| taken.iter().all(|(node, _)| *node != c.node);
        let in_new_zone = |c: &&Candidate| c.zone.is_empty() || taken.iter().all(|(_, zone)| *zone != c.zone);
        let free: Vec<&Candidate> = candidates.iter().filter(is_free).collect();
        let apart: Vec<&Candidate> = free.iter().copied().filter(|c| in_new_zone(c)).collect();
        let choice = if apart.is_empty() { &free } else { &apart };
        let weights: Vec<u64> = choice.iter().map(|c| c.free_bytes).collect();
        let Some(at) = pick_weighted(rng, &weights) else { break };
        picked.push(choice[at].node);
        taken.push((choice[at].node, choice[at].zone.clone()));
    }
    picked
}

/// The place of one of `weights`, each as likely as its weight; a weight of 0 counts as 1, so that nothing is
/// beyond reach. `None` when there are none.
pub fn pick_weighted(rng: &mut impl Rng, weights: &[u64]) -> Option<usize> {
    order_weighted(rng, weights).first().copied()
}

/// All places of `weights` in random order, heavy ones early: drawing without putting back (the keys
/// `ln(u)/w` of Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006).
pub fn order_weighted(rng: &mut impl Rng, weights: &[u64]) -> Vec<usize> {
    let mut keyed: Vec<(f64, usize)> = weights
        .iter()
        .enumerate()
        .map(|(at, weight)| {
            // 1 - u is in (0, 1], so the logarithm is finite.
            let u = 1.0 - rng.random::<f64>();
            (u.ln() / (*weight).max(1) as f64, at)
        })
        .collect();
    keyed.sort_by(|a, b| b.0.total_cmp(&a.0));
    keyed.into_iter().map(|(_, at)| at).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;
    use std::collections::HashSet;

    fn candidate(node: u64, zone: &str, free_bytes: u64) -> Candidate {
        Candidate { node: NodeId(node), zone: zone.into(), free_bytes }
    }

    #[test]
    fn free_space_is_the_weight() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut hits = [0u32; 2];
        for _ in 0..4000 {
            hits[pick_weighted(&mut rng, &[100, 300]).unwrap()] += 1;
        }
        assert!((800..1200).contains(&hits[0]), "{hits:?}");
    }

    #[test]
    fn other_zones_come_first_and_the_same_one_when_there_is_no_other() {
        let mut rng = StdRng::seed_from_u64(2);
        let candidates = [candidate(2, "a", 1 << 40), candidate(3, "b", 1)];
        let members = [(NodeId(1), "a".to_string())];
        for _ in 0..50 {
            assert_eq!(pick_members(&mut rng, &candidates, &members, 1), [NodeId(3)]);
            assert_eq!(pick_members(&mut rng, &candidates, &members, 2), [NodeId(3), NodeId(2)]);
        }
    }

    proptest! {
        #[test]
        fn picks_are_distinct_candidates_and_as_many_as_there_can_be(
            nodes in prop::collection::vec((1u64..20, 0u8..4, 0u64..1000), 0..12),
            members in prop::collection::vec((1u64..20, 0u8..4), 0..4),
            count in 0usize..6,
            seed: u64,
        ) {
            let zone = |z: u8| if z == 0 { String::new() } else { z.to_string() };
            let mut seen = HashSet::new();
            let candidates: Vec<Candidate> = nodes
                .into_iter()
                .filter(|(n, _, _)| seen.insert(*n))
                .map(|(n, z, free)| candidate(n, &zone(z), free))
                .collect();
            let members: Vec<(NodeId, String)> =
                members.into_iter().map(|(n, z)| (NodeId(n), zone(z))).collect();
            let picked =
                pick_members(&mut StdRng::seed_from_u64(seed), &candidates, &members, count);
            let distinct: HashSet<NodeId> = picked.iter().copied().collect();
            prop_assert_eq!(distinct.len(), picked.len());
            let eligible: HashSet<NodeId> = candidates
                .iter()
                .map(|c| c.node)
                .filter(|n| members.iter().all(|(m, _)| m != n))
                .collect();
            prop_assert!(distinct.is_subset(&eligible));
            prop_assert_eq!(picked.len(), count.min(eligible.len()));
        }

        #[test]
        fn an_order_names_every_place_once(weights in prop::collection::vec(any::<u64>(), 0..40), seed: u64) {
            let mut order = order_weighted(&mut StdRng::seed_from_u64(seed), &weights);
            order.sort_unstable();
            prop_assert_eq!(order, (0..weights.len()).collect::<Vec<_>>());
        }
    }
}
