//! The whole file system against a plain one: random operations of every kind, one after the other, give the
//! same answers, errors included, and leave the same tree.

use crate::posix::driver::Driver;
use crate::posix::steps::{Step, Steps, step};
use proptest::prelude::*;

/// Sequences in a run; more come by `DFS_MODEL_CASES`.
const CASES: u32 = 400;

pub fn cases(default: u32) -> u32 {
    let asked = std::env::var("DFS_MODEL_CASES").ok();
    asked.map_or(default, |n| n.parse().expect("DFS_MODEL_CASES is a number"))
}

async fn run(steps: &[Step]) {
    let mut driver = Driver::new().await;
    for step in steps {
        driver.step(step).await;
    }
    driver.finish().await;
}

pub fn blocking(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(CASES),
        max_shrink_iters: 4000,
        ..ProptestConfig::default()
    })]

    /// Any sequence of operations on a mount has the results, the errors and the outcome that it has on a plain
    /// local file system, whether files are open, closed or without a name; and when all is closed, another
    /// mount sees the same tree.
    #[test]
    fn any_sequence_of_operations_does_what_it_does_on_a_local_file_system(
        steps in prop::collection::vec(step(), 1..80).prop_map(Steps),
    ) {
        blocking(run(&steps.0));
    }
}
