//! Which open volumes a writer is given.

use crate::cluster::placement::order_weighted;
use dfs_proto::{ErrorCode, NodeId, NodeState, VolumeId, WireError};
use rand::Rng;
use std::collections::HashMap;

/// A node with less room than this is left alone, bytes: what a few writers may have on the way to it.
pub const NODE_FREE_BYTES_MIN: u64 = 64 << 20;

/// A volume that takes appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenVolume {
    /// The volume.
    pub volume: VolumeId,
    /// Who appends.
    pub primary: NodeId,
    /// How the primary is.
    pub state: NodeState,
    /// What the primary can still take, bytes.
    pub free_bytes: u64,
}

/// Puts those of `volumes` that may be given out in random order, weighted by their primary's free space; the
/// volumes of one node share its weight. `avoid`ed nodes are left out as long as there are others.
///
/// `no_nodes` when no live node has an open volume, `no_space` when none of those has room.
pub fn choose(
    rng: &mut impl Rng,
    volumes: &[OpenVolume],
    avoid: &[NodeId],
) -> Result<Vec<VolumeId>, WireError> {
    let live: Vec<&OpenVolume> = volumes.iter().filter(|v| v.state == NodeState::Live).collect();
    if live.is_empty() {
        let message = "no storage node can take data: none is live (see /v1/status)";
        return Err(WireError::new(ErrorCode::NoNodes, message));
    }
    let roomy: Vec<&OpenVolume> = live.into_iter().filter(|v| v.free_bytes >= NODE_FREE_BYTES_MIN).collect();
    if roomy.is_empty() {
        let message = "every live storage node is full; add a node or delete files";
        return Err(WireError::new(ErrorCode::NoSpace, message));
    }
    let welcome: Vec<&OpenVolume> = roomy.iter().copied().filter(|v| !avoid.contains(&v.primary)).collect();
    let chosen = if welcome.is_empty() { roomy } else { welcome };

    let mut per_node: HashMap<NodeId, u64> = HashMap::new();
    chosen.iter().for_each(|v| *per_node.entry(v.primary).or_default() += 1);
    let weights: Vec<u64> = chosen.iter().map(|v| v.free_bytes / per_node[&v.primary]).collect();
    Ok(order_weighted(rng, &weights).into_iter().map(|at| chosen[at].volume).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn volume(volume: u64, primary: u64, state: NodeState, free_bytes: u64) -> OpenVolume {
        OpenVolume { volume: VolumeId(volume), primary: NodeId(primary), state, free_bytes }
    }

    const ROOM: u64 = 1 << 30;

    #[test]
    fn only_live_nodes_with_room_are_chosen() {
        let mut rng = StdRng::seed_from_u64(1);
        let volumes = [
            volume(1, 1, NodeState::Live, ROOM),
            volume(2, 2, NodeState::Suspect, ROOM),
            volume(3, 3, NodeState::Dead, ROOM),
            volume(4, 4, NodeState::Live, NODE_FREE_BYTES_MIN - 1),
        ];
        assert_eq!(choose(&mut rng, &volumes, &[]).unwrap(), [VolumeId(1)]);
    }

    #[test]
    fn avoided_nodes_are_used_only_when_there_is_no_other() {
        let mut rng = StdRng::seed_from_u64(1);
        let volumes = [volume(1, 1, NodeState::Live, ROOM), volume(2, 2, NodeState::Live, ROOM)];
        assert_eq!(choose(&mut rng, &volumes, &[NodeId(1)]).unwrap(), [VolumeId(2)]);
        assert_eq!(choose(&mut rng, &volumes, &[NodeId(1), NodeId(2)]).unwrap().len(), 2);
    }

    #[test]
    fn the_error_says_whether_nodes_or_room_are_missing() {
        let mut rng = StdRng::seed_from_u64(1);
        let code = |volumes: &[OpenVolume], rng: &mut StdRng| choose(rng, volumes, &[]).unwrap_err().code;
        assert_eq!(code(&[], &mut rng), ErrorCode::NoNodes);
        assert_eq!(code(&[volume(1, 1, NodeState::Dead, ROOM)], &mut rng), ErrorCode::NoNodes);
        assert_eq!(code(&[volume(1, 1, NodeState::Live, 0)], &mut rng), ErrorCode::NoSpace);
    }

    #[test]
    fn a_node_is_weighted_by_its_room_not_by_its_volumes() {
        let mut rng = StdRng::seed_from_u64(3);
        let volumes = [
            volume(1, 1, NodeState::Live, ROOM),
            volume(2, 2, NodeState::Live, ROOM),
            volume(3, 2, NodeState::Live, ROOM),
            volume(4, 2, NodeState::Live, ROOM),
        ];
        let firsts = (0..3000).filter(|_| choose(&mut rng, &volumes, &[]).unwrap()[0] == VolumeId(1));
        let share = firsts.count();
        assert!((1300..1700).contains(&share), "{share} of 3000");
    }
}
