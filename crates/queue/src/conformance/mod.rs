//! What every [`RepairQueue`] has to do, as small named cases. [`crate::queue_conformance`] makes a test of
//! each. A queue under test has the lease [`LEASE`] and is empty.

mod redis_server;

pub use redis_server::RedisServer;

use crate::RepairQueue;
use dfs_proto::order::{ClaimedOrder, Order, OrderTask, Verdict};
use dfs_proto::{NodeId, NodeInfo, NodeState, OrderId, Seq, VolumeId};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// The claim lease of a queue under test: short, but longer than a busy machine pauses a test for.
pub const LEASE: Duration = Duration::from_millis(600);

/// A wait that no case reaches unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(20);

/// Makes a `#[tokio::test]` of every case. `$make` is an async function without parameters that answers an
/// `Arc<dyn RepairQueue>` with the lease [`LEASE`], and something to keep alive meanwhile.
#[macro_export]
macro_rules! queue_conformance {
    ($make:path) => {
        $crate::queue_conformance! { $make,
            a_pushed_order_is_claimed_settled_and_gone
            an_order_comes_back_as_it_was_pushed
            a_claim_takes_no_more_than_asked_for
            an_empty_queue_answers_after_the_wait
            a_waiting_claim_gets_what_is_pushed
            consumers_share_the_work_without_overlap
            an_unsettled_claim_is_handed_out_again_after_its_lease
            a_consumer_that_calls_keeps_its_claims
            a_retry_waits_for_its_delay
            a_waiting_claim_gets_a_retry_when_it_is_due
            attempts_are_counted_over_retries_and_lost_claims
            buried_orders_are_listed_newest_first
            settling_a_lost_claim_does_nothing
            settling_twice_does_nothing_more
        }
    };
    ($make:path, $($case:ident)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let (queue, _guard) = $make().await;
                $crate::conformance::$case(&*queue).await;
            }
        )*
    };
}

/// An order that is told apart by its number.
pub fn order(id: u64) -> Order {
    let node = |n: u64| NodeInfo {
        id: NodeId(n),
        name: format!("sn{n}"),
        url: format!("http://127.0.0.1:{n}"),
        zone: String::new(),
        state: NodeState::Live,
    };
    Order {
        id: OrderId(id),
        volume: VolumeId(7),
        task: OrderTask::CatchUp(Seq(id)),
        target: node(4),
        sources: vec![node(1), node(2)],
        token: "p.7.0.0.1.00".into(),
        hint: "report.txt (+41 more)".into(),
    }
}

async fn push_all(queue: &dyn RepairQueue, ids: impl IntoIterator<Item = u64>) {
    for id in ids {
        queue.push(&order(id)).await.expect("push");
    }
}

async fn claim(queue: &dyn RepairQueue, worker: &str, max: usize, wait: Duration) -> Vec<ClaimedOrder> {
    queue.claim(worker, max, wait).await.expect("claim")
}

async fn claim_one(queue: &dyn RepairQueue, worker: &str) -> ClaimedOrder {
    let mut claimed = claim(queue, worker, 1, PATIENCE).await;
    assert_eq!(claimed.len(), 1, "one order was to be had");
    claimed.remove(0)
}

async fn settle(queue: &dyn RepairQueue, claimed: &ClaimedOrder, verdict: Verdict) {
    queue.settle(claimed, &verdict).await.expect("settle");
}

async fn depth(queue: &dyn RepairQueue) -> u64 {
    queue.depth().await.expect("depth")
}

fn retry(delay_ms: u64) -> Verdict {
    Verdict::Retry { delay_ms, reason: "not now".into() }
}

fn bury(reason: &str) -> Verdict {
    Verdict::Bury { reason: reason.into() }
}

/// Push, claim, settle; the depth follows.
pub async fn a_pushed_order_is_claimed_settled_and_gone(queue: &dyn RepairQueue) {
    assert_eq!(depth(queue).await, 0);
    push_all(queue, [1]).await;
    assert_eq!(depth(queue).await, 1);
    let claimed = claim_one(queue, "a").await;
    assert_eq!((claimed.attempt, claimed.order.id), (1, OrderId(1)));
    assert_eq!(depth(queue).await, 1, "an order in hand counts");
    settle(queue, &claimed, Verdict::Done).await;
    assert_eq!(depth(queue).await, 0);
    assert_eq!(claim(queue, "b", 1, LEASE * 2).await, []);
}

/// Every field survives, odd texts included, on the way through a retry as well.
pub async fn an_order_comes_back_as_it_was_pushed(queue: &dyn RepairQueue) {
    let mut odd = order(u64::MAX);
    odd.hint = "a \"b\" 'c' \\ \n 100 % {} ] ünïcode 漢字 \u{0}".into();
    odd.sources.clear();
    queue.push(&odd).await.expect("push");
    let claimed = claim_one(queue, "worker @ host, 1").await;
    assert_eq!(claimed.order, odd);
    settle(queue, &claimed, retry(0)).await;
    let claimed = claim_one(queue, "worker @ host, 1").await;
    assert_eq!(claimed.order, odd);
    settle(queue, &claimed, bury("no \"good\"\n")).await;
    let letters = queue.dead_letters(10).await.expect("dead letters");
    assert_eq!(letters.len(), 1);
    assert_eq!((&letters[0].order, letters[0].reason.as_str()), (&odd, "no \"good\"\n"));
}

/// `max` bounds a claim; the oldest orders come first.
pub async fn a_claim_takes_no_more_than_asked_for(queue: &dyn RepairQueue) {
    push_all(queue, 1..=5).await;
    assert_eq!(claim(queue, "a", 0, PATIENCE).await, [], "0 takes nothing and does not wait");
    let first: Vec<u64> = claim(queue, "a", 3, PATIENCE).await.iter().map(|c| c.order.id.0).collect();
    let rest: Vec<u64> = claim(queue, "a", 9, PATIENCE).await.iter().map(|c| c.order.id.0).collect();
    assert_eq!((first, rest), (vec![1, 2, 3], vec![4, 5]));
}

/// Nothing to do: the claim ends when its wait does, not before and not much later.
pub async fn an_empty_queue_answers_after_the_wait(queue: &dyn RepairQueue) {
    let start = Instant::now();
    assert_eq!(claim(queue, "a", 1, Duration::ZERO).await, []);
    assert_eq!(claim(queue, "a", 1, Duration::from_millis(300)).await, []);
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(300), "{took:?}");
    assert!(took < PATIENCE / 2, "{took:?}");
}

/// A consumer that waits has the order as soon as it is pushed.
pub async fn a_waiting_claim_gets_what_is_pushed(queue: &dyn RepairQueue) {
    // The join polls the claim first, so that it waits when the push comes.
    let (claimed, ()) = tokio::join!(claim(queue, "a", 4, PATIENCE), async {
        tokio::task::yield_now().await;
        push_all(queue, [1]).await;
    });
    assert_eq!(claimed.len(), 1);
}

/// Several consumers: each order goes to exactly one.
pub async fn consumers_share_the_work_without_overlap(queue: &dyn RepairQueue) {
    push_all(queue, 1..=40).await;
    let consume = async |worker: &'static str| {
        let mut ids = Vec::new();
        loop {
            let claimed = claim(queue, worker, 3, Duration::ZERO).await;
            if claimed.is_empty() {
                return ids;
            }
            for c in &claimed {
                settle(queue, c, Verdict::Done).await;
                ids.push(c.order.id.0);
            }
        }
    };
    let (a, b, c) = tokio::join!(consume("a"), consume("b"), consume("c"));
    let all: Vec<u64> = a.into_iter().chain(b).chain(c).collect();
    assert_eq!(all.len(), 40, "{all:?}");
    assert_eq!(all.into_iter().collect::<BTreeSet<_>>(), (1..=40).collect());
    assert_eq!(depth(queue).await, 0);
}

/// A consumer died: another one has its order after the lease, and not before.
pub async fn an_unsettled_claim_is_handed_out_again_after_its_lease(queue: &dyn RepairQueue) {
    push_all(queue, [1]).await;
    let start = Instant::now();
    let lost = claim_one(queue, "dies").await;
    let again = claim_one(queue, "lives").await;
    let took = start.elapsed();
    // The lease may run on a clock of whole milliseconds.
    assert!(took + Duration::from_millis(2) >= LEASE, "{took:?}");
    assert!(took < LEASE + Duration::from_secs(5), "{took:?}");
    assert_eq!((again.attempt, &again.order), (2, &lost.order));
    settle(queue, &again, Verdict::Done).await;
    assert_eq!(depth(queue).await, 0);
}

/// Long work: a consumer that calls now and then keeps what it holds.
pub async fn a_consumer_that_calls_keeps_its_claims(queue: &dyn RepairQueue) {
    push_all(queue, [1]).await;
    let held = claim_one(queue, "busy").await;
    let end = Instant::now() + LEASE * 4;
    while Instant::now() < end {
        assert_eq!(claim(queue, "busy", 0, PATIENCE).await, []);
        assert_eq!(claim(queue, "idle", 1, LEASE / 10).await, [], "it was taken away");
    }
    settle(queue, &held, Verdict::Done).await;
    assert_eq!(depth(queue).await, 0, "the claim was held to the end");
}

/// A retry is handed out after its delay, and not before.
pub async fn a_retry_waits_for_its_delay(queue: &dyn RepairQueue) {
    push_all(queue, [1]).await;
    let claimed = claim_one(queue, "a").await;
    let start = Instant::now();
    settle(queue, &claimed, retry(400)).await;
    assert_eq!(depth(queue).await, 1, "a delayed order counts");
    assert_eq!(claim(queue, "a", 1, Duration::ZERO).await, []);
    let again = claim_one(queue, "b").await;
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(398), "{took:?}");
    assert_eq!(again.attempt, 2);
}

/// A consumer that waits already has a delayed order when its time comes, not when the wait ends.
pub async fn a_waiting_claim_gets_a_retry_when_it_is_due(queue: &dyn RepairQueue) {
    push_all(queue, [1]).await;
    let claimed = claim_one(queue, "a").await;
    let start = Instant::now();
    settle(queue, &claimed, retry(200)).await;
    claim_one(queue, "a").await;
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// The attempt number goes on over retries and over consumers that died.
pub async fn attempts_are_counted_over_retries_and_lost_claims(queue: &dyn RepairQueue) {
    push_all(queue, [1]).await;
    for attempt in 1..=3 {
        let claimed = claim_one(queue, "a").await;
        assert_eq!(claimed.attempt, attempt);
        settle(queue, &claimed, retry(0)).await;
    }
    assert_eq!(claim_one(queue, "dies").await.attempt, 4);
    let claimed = claim_one(queue, "lives").await;
    assert_eq!(claimed.attempt, 5);
    settle(queue, &claimed, retry(0)).await;
    assert_eq!(claim_one(queue, "lives").await.attempt, 6);
}

/// Given-up orders are kept for people, newest first, and never handed out.
pub async fn buried_orders_are_listed_newest_first(queue: &dyn RepairQueue) {
    push_all(queue, 1..=3).await;
    for claimed in claim(queue, "a", 3, PATIENCE).await {
        settle(queue, &claimed, bury(&format!("reason {}", claimed.order.id))).await;
    }
    let letters = queue.dead_letters(2).await.expect("dead letters");
    let seen: Vec<_> = letters.iter().map(|l| (l.order.id.0, l.reason.as_str())).collect();
    assert_eq!(seen, [(3, "reason 3"), (2, "reason 2")]);
    assert!(letters.iter().all(|l| l.at_ms > 1_700_000_000_000), "{letters:?}");
    assert_eq!(queue.dead_letters(0).await.expect("dead letters"), []);
    assert_eq!(depth(queue).await, 0);
    assert_eq!(claim(queue, "a", 1, Duration::ZERO).await, []);
}

/// Whoever lost a claim to another consumer changes nothing any more.
pub async fn settling_a_lost_claim_does_nothing(queue: &dyn RepairQueue) {
    push_all(queue, [1]).await;
    let lost = claim_one(queue, "slow").await;
    let held = claim_one(queue, "fast").await;
    for verdict in [Verdict::Done, retry(0), bury("late")] {
        settle(queue, &lost, verdict).await;
    }
    let unknown = ClaimedOrder { claim: "never given".into(), ..lost };
    settle(queue, &unknown, Verdict::Done).await;
    assert_eq!(depth(queue).await, 1);
    assert_eq!(queue.dead_letters(10).await.expect("dead letters"), []);
    settle(queue, &held, Verdict::Done).await;
    assert_eq!(depth(queue).await, 0);
}

/// The answer to a settle may be lost and the settle sent again.
pub async fn settling_twice_does_nothing_more(queue: &dyn RepairQueue) {
    push_all(queue, [1, 2]).await;
    let first = claim_one(queue, "a").await;
    for _ in 0..2 {
        settle(queue, &first, bury("no")).await;
    }
    assert_eq!(queue.dead_letters(10).await.expect("dead letters").len(), 1);
    let second = claim_one(queue, "a").await;
    for _ in 0..2 {
        settle(queue, &second, retry(0)).await;
    }
    assert_eq!(depth(queue).await, 1);
}
