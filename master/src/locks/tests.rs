use super::*;
use dfs_proto::{LockMode, LockRange};
use dfs_service::ManualClock;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;

fn waiters() -> (LockWaiters, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::default());
    (LockWaiters::new(SharedClock(clock.clone())), clock)
}

fn owner(number: u64) -> Owner {
    // Two sessions, whose owners have the same numbers.
    (SessionId(1 + number % 2), LockOwner(number / 2))
}

fn request(who: u64, ino: u64) -> LockRequest {
    let (range, mode) = (LockRange { first: 0, last: 9 }, LockMode::Exclusive);
    LockRequest { ino: Ino(ino), space: LockSpace::Range, owner: owner(who).1, range, mode, pid: who as u32 }
}

fn holder(who: u64) -> LockHolder {
    let request = request(who, 1);
    let (session, owner) = owner(who);
    LockHolder { session, owner, range: request.range, mode: request.mode, pid: 1 }
}

/// Each of `holders` (owner, file) has a lock that keeps all others from the file.
fn circle(waiters: &LockWaiters, holders: &[(u64, u64)], me: u64, ino: u64) -> bool {
    let of = |ino: u64| -> Vec<LockHolder> {
        holders.iter().filter(|(_, of)| *of == ino).map(|(who, _)| holder(*who)).collect()
    };
    let blockers_of = |session, request: &LockRequest| {
        let others = of(request.ino.0).into_iter();
        Ok::<_, Infallible>(others.filter(|h| owner_of(h) != (session, request.owner)).collect::<Vec<_>>())
    };
    waiters.closes_circle(owner(me), &of(ino), blockers_of).unwrap()
}

#[test]
fn two_that_wait_for_each_other_are_a_circle() {
    let (waiters, _) = waiters();
    let holders = [(1, 10), (2, 20)];
    assert!(!circle(&waiters, &holders, 1, 20));
    waiters.note(owner(1).0, &request(1, 20));
    assert!(circle(&waiters, &holders, 2, 10));
    // The other has given its lock up: what waits for it will get it.
    assert!(!circle(&waiters, &[(2, 20)], 2, 10));
    waiters.remove(owner(1).0, &LockRequest { pid: 99, ..request(1, 20) });
    assert!(!circle(&waiters, &holders, 2, 10));
    assert_eq!((waiters.count(), waiters.is_awaited(Ino(20))), (0, false));
}

#[test]
fn a_silent_waiter_is_forgotten_and_one_that_asks_again_is_not() {
    let (waiters, clock) = waiters();
    let holders = [(1, 10), (2, 20), (3, 30)];
    waiters.note(owner(1).0, &request(1, 20));
    waiters.note(owner(3).0, &request(3, 20));
    clock.advance_ms(WAITER_FORGOTTEN_MS);
    waiters.note(owner(3).0, &request(3, 20));
    clock.advance_ms(1);
    assert!(!circle(&waiters, &holders, 2, 10) && circle(&waiters, &holders, 2, 30));
    waiters.forget_silent();
    assert_eq!((waiters.count(), waiters.is_awaited(Ino(20))), (1, true));
    clock.advance_ms(WAITER_FORGOTTEN_MS);
    waiters.forget_silent();
    assert_eq!((waiters.count(), waiters.is_awaited(Ino(20))), (0, false));
}

#[test]
fn waits_for_whole_files_are_woken_and_never_a_deadlock() {
    let (waiters, _) = waiters();
    let whole = LockRequest { space: LockSpace::Whole, range: LockRange::WHOLE, ..request(1, 20) };
    waiters.note(owner(1).0, &whole);
    assert!(waiters.is_awaited(Ino(20)));
    assert!(!circle(&waiters, &[(1, 10), (2, 20)], 2, 10));
}

#[test]
fn every_thread_of_an_owner_may_wait() {
    let (waiters, _) = waiters();
    let holders = [(1, 10), (2, 20), (3, 30)];
    waiters.note(owner(1).0, &request(1, 20));
    waiters.note(owner(1).0, &request(1, 30));
    assert!(circle(&waiters, &holders, 2, 10) && circle(&waiters, &holders, 3, 10));
    waiters.remove(owner(1).0, &request(1, 20));
    assert!(!circle(&waiters, &holders, 2, 10) && circle(&waiters, &holders, 3, 10));
}

#[test]
fn there_are_so_many_waits_and_no_more() {
    let (mut waiters, clock) = waiters();
    waiters.waits_max = 3;
    (0..9).for_each(|who| waiters.note(owner(who).0, &request(who, 20)));
    assert_eq!((waiters.count(), waiters.table.lock().by_owner.len()), (3, 3));
    // Those that are there stay there.
    clock.advance_ms(WAITER_FORGOTTEN_MS);
    (0..2).for_each(|who| waiters.note(owner(who).0, &request(who, 20)));
    clock.advance_ms(1);
    waiters.forget_silent();
    assert_eq!(waiters.count(), 2);
    waiters.note(owner(7).0, &request(7, 20));
    assert_eq!(waiters.count(), 3);
}

/// A search must not keep all writers waiting: a longer circle is not found, and its members wait.
#[test]
fn a_search_follows_so_many_waits_and_no_more() {
    let (waiters, _) = waiters();
    let last = FOLLOWED_MAX as u64 + 1;
    let holders: Vec<(u64, u64)> = (0..=last).map(|who| (who, who)).collect();
    (0..last).for_each(|who| waiters.note(owner(who).0, &request(who, who + 1)));
    assert!(circle(&waiters, &holders, last, 1));
    assert!(!circle(&waiters, &holders, last, 0));
}

const OWNERS: u64 = 6;
const FILES: u64 = 5;

/// What an owner does on a file.
#[derive(Clone, Copy, Debug)]
enum Step {
    Ask(u64, u64),
    Free(u64, u64),
    GiveUp(u64, u64),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..OWNERS, 0..FILES).prop_map(|(who, ino)| Step::Ask(who, ino)),
        2 => (0..OWNERS, 0..FILES).prop_map(|(who, ino)| Step::Free(who, ino)),
        1 => (0..OWNERS, 0..FILES).prop_map(|(who, ino)| Step::GiveUp(who, ino)),
        1 => (0..WAITER_FORGOTTEN_MS).prop_map(Step::Pass),
    ]
}

/// The exact graph: who holds each file, and who waits for which since when.
#[derive(Default)]
struct Model {
    holder: BTreeMap<u64, u64>,
    waits: BTreeMap<(u64, u64), u64>,
    now_ms: u64,
}

impl Model {
    /// Whether `me` can be reached from itself over edges that are there, by widening the set of what can be.
    fn waits_for_itself(&self, me: u64) -> bool {
        let there = self.waits.iter().filter(|(_, asked)| self.now_ms - **asked <= WAITER_FORGOTTEN_MS);
        let edges: Vec<(u64, u64)> = there
            .filter_map(|((who, ino), _)| Some((*who, *self.holder.get(ino)?)))
            .filter(|(who, holder)| who != holder)
            .collect();
        let mut reached: BTreeSet<u64> = edges.iter().filter(|(who, _)| *who == me).map(|e| e.1).collect();
        for _ in 0..OWNERS {
            let more: Vec<u64> = edges.iter().filter(|e| reached.contains(&e.0)).map(|e| e.1).collect();
            reached.extend(more);
        }
        reached.contains(&me)
    }
}

fn ask(waiters: &LockWaiters, model: &mut Model, who: u64, ino: u64) -> Result<(), TestCaseError> {
    if model.holder.get(&ino).is_none_or(|holder| *holder == who) {
        model.holder.insert(ino, who);
        model.waits.remove(&(who, ino));
        waiters.remove(owner(who).0, &request(who, ino));
        return Ok(());
    }
    model.waits.insert((who, ino), model.now_ms);
    waiters.note(owner(who).0, &request(who, ino));
    let holders: Vec<(u64, u64)> = model.holder.iter().map(|(ino, who)| (*who, *ino)).collect();
    let found = circle(waiters, &holders, who, ino);
    prop_assert_eq!(found, model.waits_for_itself(who));
    if found {
        model.waits.remove(&(who, ino));
        waiters.remove(owner(who).0, &request(who, ino));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    /// Of exclusive locks on whole files, so that the graph is plain to see: a deadlock is reported when and
    /// only when the wait that is just asked for closes a circle.
    #[test]
    fn circles_are_found_when_they_close_and_never_otherwise(steps in prop::collection::vec(step(), 1..60)) {
        let (waiters, clock) = waiters();
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Pass(ms) => {
                    clock.advance_ms(ms);
                    model.now_ms += ms;
                    waiters.forget_silent();
                }
                Step::Free(who, ino) => {
                    if model.holder.get(&ino) == Some(&who) {
                        model.holder.remove(&ino);
                    }
                }
                Step::GiveUp(who, ino) => {
                    model.waits.remove(&(who, ino));
                    waiters.remove(owner(who).0, &request(who, ino));
                }
                Step::Ask(who, ino) => {
                    // An owner is one thread here, which waits for one lock at a time.
                    for other in (0..FILES).filter(|other| *other != ino) {
                        model.waits.remove(&(who, other));
                        waiters.remove(owner(who).0, &request(who, other));
                    }
                    ask(&waiters, &mut model, who, ino)?;
                }
            }
        }
    }
}
