use super::*;
use crate::conformance::{LEASE, RedisServer, order};
use std::collections::BTreeSet;
use std::sync::Arc;

/// More than any single step may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// A call to a server that is away must have failed by then, with slack for a busy machine.
const QUICK: Duration = Duration::from_secs(6);

fn config() -> QueueConfig {
    QueueConfig { claim_lease: LEASE, ..QueueConfig::default() }
}

fn queue_at(server: &RedisServer) -> RedisQueue {
    RedisQueue::with_config(&server.url(), "test", config()).unwrap()
}

async fn queue() -> (Arc<dyn RepairQueue>, RedisServer) {
    let server = RedisServer::start();
    (Arc::new(queue_at(&server)), server)
}

crate::queue_conformance!(queue);

/// Calls until the server answers again.
async fn until_ok<T>(mut call: impl AsyncFnMut() -> Result<T, QueueError>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match call().await {
            Ok(value) => return value,
            Err(e) => assert!(Instant::now() < deadline, "still failing: {e}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn claim_ids(queue: &RedisQueue, max: usize) -> Vec<u64> {
    queue.claim("w", max, PATIENCE).await.unwrap().iter().map(|c| c.order.id.0).collect()
}

#[tokio::test]
async fn a_server_that_is_away_is_an_error_within_seconds_and_no_more() {
    let mut server = RedisServer::stopped();
    let queue = queue_at(&server);
    let start = Instant::now();
    let e = queue.push(&order(1)).await.unwrap_err().to_string();
    assert!(e.contains(&server.url()["redis://".len()..]) && e.contains("take an order"), "{e}");
    assert!(queue.claim("w", 1, PATIENCE).await.is_err());
    assert!(start.elapsed() < QUICK, "{:?}", start.elapsed());
    server.resume();
    until_ok(async || queue.push(&order(2)).await).await;
    assert_eq!(claim_ids(&queue, 1).await, [2]);
}

#[tokio::test]
async fn orders_outlive_a_killed_server() {
    let mut server = RedisServer::start();
    let queue = queue_at(&server);
    for id in 1..=3 {
        queue.push(&order(id)).await.unwrap();
    }
    let claimed = queue.claim("w", 2, PATIENCE).await.unwrap();
    queue.settle(&claimed[0], &Verdict::Retry { delay_ms: 1, reason: "later".into() }).await.unwrap();
    server.kill();
    assert!(queue.claim("w", 1, Duration::ZERO).await.is_err());
    server.resume();
    let third = until_ok(async || queue.claim("other", 2, PATIENCE).await).await;
    let ids: BTreeSet<u64> = third.iter().map(|c| c.order.id.0).collect();
    assert_eq!(ids, BTreeSet::from([1, 3]), "the delayed one and the one that waited");
    queue.settle(&claimed[1], &Verdict::Done).await.unwrap();
    assert_eq!(queue.depth().await.unwrap(), 2, "the claim from before the restart was settled");
}

#[tokio::test]
async fn a_waiting_claim_ends_when_the_server_is_killed() {
    let mut server = RedisServer::start();
    let queue = queue_at(&server);
    queue.push(&order(1)).await.unwrap();
    assert_eq!(claim_ids(&queue, 1).await, [1]);
    let (claimed, ()) = tokio::join!(queue.claim("w", 1, Duration::from_secs(60)), async {
        until_blocked(&server).await;
        server.kill();
    });
    claimed.unwrap_err();
}

/// Returns when a client waits in the server.
async fn until_blocked(server: &RedisServer) {
    let deadline = Instant::now() + PATIENCE;
    while server.cli(&["INFO", "clients"]).lines().any(|line| line == "blocked_clients:0") {
        assert!(Instant::now() < deadline, "nobody waits");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_goes_on_in_an_emptied_database() {
    let server = RedisServer::start();
    let queue = Arc::new(queue_at(&server));
    queue.push(&order(1)).await.unwrap();
    queue.push(&order(2)).await.unwrap();
    let claimed = queue.claim("w", 1, PATIENCE).await.unwrap();
    server.cli(&["FLUSHALL"]);
    for verdict in [
        Verdict::Done,
        Verdict::Retry { delay_ms: 0, reason: "r".into() },
        Verdict::Bury { reason: "b".into() },
    ] {
        queue.settle(&claimed[0], &verdict).await.unwrap();
    }
    assert_eq!(queue.depth().await.unwrap(), 0);
    assert_eq!(queue.claim("w", 1, Duration::ZERO).await.unwrap(), []);
    queue.push(&order(3)).await.unwrap();
    assert_eq!(claim_ids(&queue, 1).await, [3]);

    let waiting = tokio::spawn({
        let queue = queue.clone();
        async move { claim_ids(&queue, 1).await }
    });
    until_blocked(&server).await;
    server.cli(&["FLUSHALL"]);
    queue.push(&order(4)).await.unwrap();
    assert_eq!(waiting.await.unwrap(), [4]);
}

#[tokio::test]
async fn what_is_no_order_is_removed_and_the_rest_goes_on() {
    let server = RedisServer::start();
    let queue = queue_at(&server);
    let stream = "dfs:test:orders";
    server.cli(&["XADD", stream, "*", "something", "else"]);
    server.cli(&["XADD", stream, "*", "attempt", "x", "order", "{\"id\":1}"]);
    server.cli(&["EVAL", "redis.call('XADD', KEYS[1], '*', 'order', '\\255\\0', '\\254', '')", "1", stream]);
    server.cli(&["ZADD", "dfs:test:delayed", "1", "not an order"]);
    queue.push(&order(1)).await.unwrap();
    assert_eq!(claim_ids(&queue, 10).await, [1]);
    assert_eq!(queue.depth().await.unwrap(), 1, "only the order in hand is left");
    assert_eq!(server.cli(&["XPENDING", stream, GROUP]).lines().next(), Some("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_that_reaches_a_waiting_claim_is_removed_too() {
    let server = RedisServer::start();
    let queue = Arc::new(queue_at(&server));
    let waiting = tokio::spawn({
        let queue = queue.clone();
        async move { claim_ids(&queue, 10).await }
    });
    until_blocked(&server).await;
    server.cli(&["XADD", "dfs:test:orders", "*", "order", "garbage"]);
    queue.push(&order(1)).await.unwrap();
    assert_eq!(waiting.await.unwrap(), [1]);
    assert_eq!(queue.depth().await.unwrap(), 1);
}

#[tokio::test]
async fn dead_letters_are_capped_and_foreign_entries_among_them_skipped() {
    let server = RedisServer::start();
    let queue =
        RedisQueue::with_config(&server.url(), "test", QueueConfig { dead_letters_max: 3, ..config() })
            .unwrap();
    for id in 1..=5 {
        queue.push(&order(id)).await.unwrap();
    }
    for claimed in queue.claim("w", 5, PATIENCE).await.unwrap() {
        queue.settle(&claimed, &Verdict::Bury { reason: "no".into() }).await.unwrap();
    }
    assert_eq!(server.cli(&["XLEN", "dfs:test:dead"]), "3");
    server.cli(&["XADD", "dfs:test:dead", "*", "what", "ever"]);
    let ids: Vec<u64> = queue.dead_letters(10).await.unwrap().iter().map(|d| d.order.id.0).collect();
    assert_eq!(ids, [5, 4, 3]);
}

#[tokio::test]
async fn the_stream_is_bounded() {
    let server = RedisServer::start();
    let queue =
        RedisQueue::with_config(&server.url(), "test", QueueConfig { orders_max: 100, ..config() }).unwrap();
    for id in 1..=500 {
        queue.push(&order(id)).await.unwrap();
    }
    // Redis cuts whole blocks of up to 100 entries.
    assert!((100..=200).contains(&queue.depth().await.unwrap()));
}

#[tokio::test]
async fn a_full_delayed_set_drops() {
    let server = RedisServer::start();
    let queue =
        RedisQueue::with_config(&server.url(), "test", QueueConfig { orders_max: 2, ..config() }).unwrap();
    for id in 1..=3 {
        queue.push(&order(id)).await.unwrap();
        let claimed = queue.claim("w", 1, PATIENCE).await.unwrap();
        let later = Verdict::Retry { delay_ms: 60_000, reason: "later".into() };
        queue.settle(&claimed[0], &later).await.unwrap();
    }
    assert_eq!(queue.depth().await.unwrap(), 2);
}

#[tokio::test]
async fn a_server_that_hangs_is_an_error_and_is_used_again_when_it_goes_on() {
    let server = RedisServer::start();
    let queue = queue_at(&server);
    queue.push(&order(1)).await.unwrap();
    server.signal("STOP");
    let start = Instant::now();
    let e = queue.depth().await.unwrap_err().to_string();
    assert!(e.contains("no answer within"), "{e}");
    assert!(start.elapsed() < QUICK, "{:?}", start.elapsed());
    server.signal("CONT");
    until_ok(async || queue.depth().await).await;
    assert_eq!(claim_ids(&queue, 1).await, [1]);
}

#[tokio::test]
async fn consumers_that_are_gone_are_forgotten_unless_they_hold_something() {
    let server = RedisServer::start();
    let queue = queue_at(&server);
    queue.push(&order(1)).await.unwrap();
    queue.claim("holds", 1, PATIENCE).await.unwrap();
    server.cli(&["XGROUP", "CREATECONSUMER", &queue.stream, GROUP, "gone"]);
    let mut command = redis::cmd("EVAL");
    command.arg(CONSUMERS).arg(1).arg(&queue.stream).arg(GROUP).arg(-1);
    assert_eq!(queue.run::<u64>("forget", &command).await.unwrap(), 1);
    assert!(server.cli(&["XINFO", "CONSUMERS", &queue.stream, GROUP]).contains("holds"));
}

#[tokio::test]
async fn passwords_stay_out_of_messages() {
    let queue = RedisQueue::new("redis://user:hunter2@127.0.0.1:1", "test").unwrap();
    assert_eq!(queue.server(), "127.0.0.1:1");
    let e = queue.depth().await.unwrap_err().to_string();
    assert!(!e.contains("hunter2") && !format!("{queue:?}").contains("hunter2"), "{e}");
    let e = RedisQueue::new("http://user:hunter2@x", "test").unwrap_err().to_string();
    assert!(!e.contains("hunter2"), "{e}");
}
