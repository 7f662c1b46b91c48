//! kill -9 of the programs that keep no files, during writes.

use crate::writers::{Writers, nothing_is_lost};
use dfs_e2e::{Fleet, RedisUse, Setup};

/// Files that are acknowledged before and after each blow.
const FILES: usize = 25;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_master_is_killed_during_writes() {
    let mut fleet = Fleet::start(Setup::default()).await;
    let mut writers = Writers::start(&fleet).await;
    for _ in 0..3 {
        writers.more(FILES).await;
        fleet.restart_master().await;
    }
    writers.more(FILES).await;
    nothing_is_lost(&fleet, &writers.finish().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_are_made_after_the_only_replicator_was_killed_during_writes() {
    let setup = Setup { redis: RedisUse::Kept, ..Setup::default() };
    let mut fleet = Fleet::start(setup).await;
    let mut writers = Writers::start(&fleet).await;
    for _ in 0..2 {
        writers.more(FILES).await;
        fleet.replicators[0].kill9();
        writers.more(FILES).await;
        fleet.replicators[0].restart();
    }
    nothing_is_lost(&fleet, &writers.finish().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_replicator_takes_over_the_orders_of_a_killed_one() {
    let setup = Setup { redis: RedisUse::Kept, replicators: 2, ..Setup::default() };
    let mut fleet = Fleet::start(setup).await;
    let mut writers = Writers::start(&fleet).await;
    writers.more(FILES).await;
    fleet.replicators[0].kill9();
    writers.more(FILES).await;
    nothing_is_lost(&fleet, &writers.finish().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_are_made_after_redis_was_killed_during_writes() {
    let setup = Setup { redis: RedisUse::Kept, ..Setup::default() };
    let mut fleet = Fleet::start(setup).await;
    let mut writers = Writers::start(&fleet).await;
    for _ in 0..2 {
        writers.more(FILES).await;
        fleet.redis.as_mut().unwrap().process.kill9();
        writers.more(FILES).await;
        fleet.redis.as_mut().unwrap().restart().await;
    }
    nothing_is_lost(&fleet, &writers.finish().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_are_made_after_redis_was_emptied_during_writes() {
    let setup = Setup { redis: RedisUse::Forgetful, ..Setup::default() };
    let mut fleet = Fleet::start(setup).await;
    let mut writers = Writers::start(&fleet).await;
    writers.more(FILES).await;
    // Orders wait while nobody takes them, so that there is something to forget.
    fleet.replicators[0].kill9();
    writers.more(FILES).await;
    let answer = fleet.redis.as_ref().unwrap().command("FLUSHALL").await.unwrap();
    assert!(answer.starts_with("+OK"), "{answer}");
    writers.more(FILES).await;
    // This one comes back with an empty database.
    fleet.redis.as_mut().unwrap().process.kill9();
    fleet.redis.as_mut().unwrap().restart().await;
    fleet.replicators[0].restart();
    writers.more(FILES).await;
    let answer = fleet.redis.as_ref().unwrap().command("FLUSHALL").await.unwrap();
    assert!(answer.starts_with("+OK"), "{answer}");
    nothing_is_lost(&fleet, &writers.finish().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_programs_end_when_they_are_told_to_and_come_back_with_everything() {
    let mut fleet = Fleet::start(Setup::default()).await;
    let mut writers = Writers::start(&fleet).await;
    writers.more(FILES).await;
    let acknowledged = writers.finish().await;
    for process in fleet.replicators.iter_mut().chain(fleet.nodes.iter_mut().map(|node| &mut node.process)) {
        process.terminate();
    }
    fleet.master.terminate();
    fleet.restart_master().await;
    for i in 0..fleet.nodes.len() {
        fleet.restart_node(i).await;
    }
    fleet.replicators[0].restart();
    fleet.wait_live(3).await;
    nothing_is_lost(&fleet, &acknowledged).await;
}
