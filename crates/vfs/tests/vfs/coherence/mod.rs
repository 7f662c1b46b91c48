//! Several mounts of one cluster against the contract, with kernels that cache and events that come late, twice
//! or not at all.

mod contract;
mod kernel;
mod locks;
mod world;

use crate::posix::steps::Steps;
use crate::whole::{blocking, cases};
use proptest::prelude::*;
use world::{Step, World};

/// Sequences in a run; more come by `DFS_MODEL_CASES`.
const CASES: u32 = 300;

async fn run(steps: &[Step]) {
    let mut world = World::new().await;
    for step in steps {
        world.step(step).await;
    }
    world.finish().await;
}

fn step() -> impl Strategy<Value = Step> {
    let (mount, name, handle) = (|| 0..world::MOUNTS, || 0..world::NAMES, || 0..8usize);
    let offset = || prop_oneof![0..50u64, 4070..4110u64, 8180..8200u64];
    let length = || prop_oneof![4 => 1..40u64, 1 => 4000..9000u64];
    prop_oneof![
        8 => (mount(), name(), 0..3u8, any::<bool>(), prop_oneof![3 => Just(false), 1 => Just(true)])
            .prop_map(|(mount, name, access, create, truncate)| Step::Open { mount, name, access, create, truncate }),
        8 => (handle(), offset(), length()).prop_map(|(handle, offset, length)| Step::Read { handle, offset, length }),
        8 => (handle(), offset(), length()).prop_map(|(handle, offset, length)| Step::Write { handle, offset, length }),
        2 => (handle(), offset()).prop_map(|(handle, size)| Step::Truncate { handle, size }),
        3 => handle().prop_map(|handle| Step::Fsync { handle }),
        5 => handle().prop_map(|handle| Step::Close { handle }),
        2 => (mount(), name()).prop_map(|(mount, name)| Step::Stat { mount, name }),
        2 => (mount(), name()).prop_map(|(mount, name)| Step::Unlink { mount, name }),
        3 => (mount(), name(), name()).prop_map(|(mount, from, to)| Step::Rename { mount, from, to }),
        3 => (mount(), 1..5usize).prop_map(|(mount, count)| Step::Deliver { mount, count }),
        3 => (mount(), 1..5usize).prop_map(|(mount, count)| Step::Drop { mount, count }),
        1 => mount().prop_map(|mount| Step::Down { mount }),
        2 => mount().prop_map(|mount| Step::Up { mount }),
        1 => mount().prop_map(|mount| Step::Evict { mount }),
        2 => Just(Step::Quiet),
        4 => (handle(), any::<bool>(), any::<bool>())
            .prop_map(|(handle, whole, exclusive)| Step::Lock { handle, whole, exclusive }),
        3 => (handle(), any::<bool>()).prop_map(|(handle, whole)| Step::Unlock { handle, whole }),
        4 => handle().prop_map(|handle| Step::Increment { handle }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(CASES),
        max_shrink_iters: 4000,
        ..ProptestConfig::default()
    })]

    /// Whatever several mounts do with the same files: an open sees all that was closed or fsynced before, on any
    /// mount; a new file appears whole; appends lose nothing; a file that is open when another mount replaces or
    /// removes it goes on with its content; no byte is read that was never written there; whoever gets a lock reads
    /// what the last holder wrote, so that a number that is read and written under an exclusive lock loses no step;
    /// and when it is quiet, what every mount has cached is what there is.
    #[test]
    fn several_mounts_keep_to_the_contract(steps in prop::collection::vec(step(), 1..100).prop_map(Steps)) {
        blocking(run(&steps.0));
    }
}
