//! Which nodes are alive: a function of when they were last heard of.

use dfs_proto::NodeState;

/// Bounds of silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Silence {
    /// From here on a node is suspect, ms.
    pub suspect_after_ms: u64,
    /// From here on it is dead, ms.
    pub dead_after_ms: u64,
}

impl Silence {
    /// The state of a node that was last heard of `age_ms` ago. One that has not registered with this run of
    /// the master is suspect at best: its address may be an old one.
    pub fn judge(&self, age_ms: u64, registered: bool) -> NodeState {
        if age_ms >= self.dead_after_ms {
            NodeState::Dead
        } else if age_ms >= self.suspect_after_ms || !registered {
            NodeState::Suspect
        } else {
            NodeState::Live
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Silence = Silence { suspect_after_ms: 5, dead_after_ms: 30 };

    #[test]
    fn silence_makes_suspect_then_dead() {
        let states: Vec<NodeState> = [0, 4, 5, 29, 30, u64::MAX].map(|age| SILENCE.judge(age, true)).into();
        use NodeState::*;
        assert_eq!(states, [Live, Live, Suspect, Suspect, Dead, Dead]);
    }

    #[test]
    fn a_node_from_before_a_restart_is_not_live_before_it_registers() {
        assert_eq!(SILENCE.judge(0, false), NodeState::Suspect);
        assert_eq!(SILENCE.judge(30, false), NodeState::Dead);
    }
}
