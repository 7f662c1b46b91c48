//! Carries out the master's replication orders: tells the target of each to pull from the best source, tries
//! again what failed, gives up what cannot work, and tells the master how each one ended.
//!
//! It moves no bytes itself and decides nothing about placement. Any number of replicators share one queue;
//! one that dies loses nothing, since its claims lapse and the others take them. Orders come from a Redis
//! Stream or, without Redis, from the master.

mod carry;
mod config;
mod judge;
mod master_queue;
mod outage;
mod report;
mod work;

pub use config::Config;
pub use master_queue::MasterQueue;

use anyhow::Context;
use dfs_client::{HttpNodes, MasterClient};
use dfs_queue::{RedisQueue, RepairQueue};
use dfs_service::{Running, Stopper, server_url};
use outage::Outage;
use std::sync::Arc;
use std::time::Duration;
use work::{Replicator, RetryRules};

/// Port of a master whose address names none.
const MASTER_PORT: u16 = 8820;
/// One call to the master; what it is asked to wait comes on top.
const MASTER_DEADLINE: Duration = Duration::from_secs(5);
/// How often the master is asked which cluster it is, for the name of the stream in Redis.
const CLUSTER_CHECK: Duration = Duration::from_secs(30);

/// Starts a replicator. Neither the master nor Redis need be up: it waits for them. Fails only when an
/// address makes no sense.
pub async fn start(config: Config) -> anyhow::Result<Running> {
    let url = server_url(&config.master, MASTER_PORT).map_err(anyhow::Error::msg)?;
    let master = MasterClient::new(&url, MASTER_DEADLINE).context("cannot make a client for the master")?;
    let nodes = HttpNodes::new(config.node_deadline).context("cannot make a client for storage nodes")?;
    let master_outage = Arc::new(Outage::new(format!("the master at {url}")));
    let replicator = Arc::new(Replicator {
        nodes: Arc::new(nodes),
        books: Arc::new(master.clone()),
        books_outage: master_outage.clone(),
        name: config.name.clone(),
        parallel: config.parallel.max(1),
        rules: RetryRules::default(),
    });
    let mut running = Running::new("replicator");
    let stopper = running.stopper();
    match config.redis {
        None => {
            log::info!("replicator {} takes orders from the master at {url}", config.name);
            let queue: Arc<dyn RepairQueue> = Arc::new(MasterQueue::new(master));
            running.spawn(async move { replicator.run(queue, &master_outage, stopper).await });
        }
        Some(redis) => {
            // The name of the cluster is not known yet; this finds a URL that makes no sense at once.
            let server = RedisQueue::new(&redis, "")?.server().to_owned();
            log::info!("replicator {} takes orders from Redis at {server}", config.name);
            running.spawn(run_with_redis(replicator, master, redis, server, stopper));
        }
    }
    Ok(running)
}

/// Works on the stream of the master's cluster. A master that was set up anew is another cluster with
/// another stream, so it is asked again now and then.
async fn run_with_redis(
    replicator: Arc<Replicator>,
    master: MasterClient,
    redis: String,
    server: String,
    mut stopper: Stopper,
) {
    let outage = Outage::new(format!("the order queue in Redis at {server}"));
    while let Some(cluster) = other_cluster(&replicator, &master, "", &mut stopper).await {
        log::info!("replicator {} works for cluster {cluster}", replicator.name);
        match RedisQueue::new(&redis, &cluster) {
            Ok(queue) => {
                let mut watching = stopper.clone();
                tokio::select! {
                    () = replicator.run(Arc::new(queue), &outage, stopper.clone()) => return,
                    Some(new) = other_cluster(&replicator, &master, &cluster, &mut watching) => {
                        log::warn!("the master's cluster is {new} now and was {cluster} before");
                    }
                }
            }
            // The same URL made sense when the replicator was started.
            Err(e) => outage.failed(&e),
        }
    }
}

/// Asks the master for the name of its cluster until it is another one than `known` (empty: none is known
/// yet, so it is asked at once and more often); `None` when it is time to end.
async fn other_cluster(
    replicator: &Replicator,
    master: &MasterClient,
    known: &str,
    stopper: &mut Stopper,
) -> Option<String> {
    let mut failures = 0;
    loop {
        let pause = if !known.is_empty() { CLUSTER_CHECK } else { replicator.rules.outage_delay(failures) };
        if (failures > 0 || !known.is_empty()) && !stopper.sleep(pause).await {
            return None;
        }
        let status = tokio::select! {
            status = master.status() => status,
            () = stopper.stopped() => return None,
        };
        match status {
            Ok(status) => {
                replicator.books_outage.over();
                if status.cluster != known {
                    return Some(status.cluster);
                }
            }
            Err(e) => {
                replicator.books_outage.failed(&e);
                failures += 1;
            }
        }
    }
}
