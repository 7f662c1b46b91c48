//! One fault after the other, at random, during writes.

use crate::writers::{Writers, nothing_is_lost};
use dfs_e2e::{Fleet, Process, RedisUse, Setup};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;

/// Faults, one at a time.
const FAULTS: usize = 14;

/// Changes that are acknowledged between two faults.
const CHANGES: usize = 6;

/// How long faults last, ms: gone at once, a hiccup, long enough for suspicion, long enough to be given up
/// (see the flags of the fleet's master).
const LENGTHS_MS: [u64; 4] = [0, 200, 2_000, 6_000];

#[derive(Clone, Copy, Debug)]
enum Victim {
    Master,
    Replicator(usize),
    Redis,
    Node(usize),
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Killed,
    Hangs,
}

fn process(fleet: &mut Fleet, victim: Victim) -> &mut Process {
    match victim {
        Victim::Master => &mut fleet.master,
        Victim::Replicator(i) => &mut fleet.replicators[i],
        Victim::Redis => &mut fleet.redis.as_mut().unwrap().process,
        Victim::Node(i) => &mut fleet.nodes[i].process,
    }
}

async fn strike(fleet: &mut Fleet, victim: Victim, fault: Fault, length: Duration) {
    match fault {
        Fault::Killed => process(fleet, victim).kill9(),
        Fault::Hangs => process(fleet, victim).stop(),
    }
    // Not waiting for anything: this is how long the fault lasts.
    tokio::time::sleep(length).await;
    match (fault, victim) {
        (Fault::Hangs, _) => process(fleet, victim).cont(),
        (Fault::Killed, Victim::Master) => fleet.restart_master().await,
        (Fault::Killed, Victim::Node(i)) => fleet.restart_node(i).await,
        (Fault::Killed, Victim::Redis) => fleet.redis.as_mut().unwrap().restart().await,
        (Fault::Killed, Victim::Replicator(i)) => fleet.replicators[i].restart(),
    }
}

fn seed() -> u64 {
    let seed =
        std::env::var("DFS_TEST_SEED").ok().map(|text| text.parse().expect("DFS_TEST_SEED is a number"));
    let seed = seed.unwrap_or_else(rand::random);
    eprintln!("DFS_TEST_SEED={seed} gives the same faults again");
    seed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_in_a_storm_of_kills_and_hangs() {
    let mut rng = StdRng::seed_from_u64(seed());
    let setup = Setup { nodes: 4, replicators: 2, redis: RedisUse::Forgetful };
    let mut fleet = Fleet::start(setup).await;
    let mut writers = Writers::start(&fleet).await;
    writers.add_program(fleet.mount().await);
    writers.more(CHANGES).await;
    for n in 0..FAULTS {
        let victim = match rng.random_range(0..8) {
            0 | 1 => Victim::Master,
            2 => Victim::Replicator(rng.random_range(0..2)),
            3 => Victim::Redis,
            _ => Victim::Node(rng.random_range(0..4)),
        };
        let fault = if rng.random_bool(0.5) { Fault::Killed } else { Fault::Hangs };
        let length = Duration::from_millis(LENGTHS_MS[rng.random_range(0..LENGTHS_MS.len())]);
        eprintln!("fault {n}: {victim:?} {fault:?} for {length:?}");
        strike(&mut fleet, victim, fault, length).await;
        writers.more(CHANGES).await;
    }
    let acknowledged = writers.finish().await;
    fleet.unmount(0);
    nothing_is_lost(&fleet, &acknowledged).await;
}
