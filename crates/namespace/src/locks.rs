//! The arithmetic of advisory locks: who is in the way of whom, and what becomes of an owner's locks when it
//! takes or frees a range (fcntl(2), flock(2)). Pure: no store, no clock.
//!
//! The locks of one owner on one file are sorted, do not overlap, and no two neighbours of the same mode touch.

use crate::error::{OpError, refuse};
use dfs_proto::{ErrorCode, LockHolder, LockMode, LockOwner, LockRange, LockRequest, LockSpace, SessionId};
use std::collections::{HashMap, HashSet};

/// Who holds a lock: an owner is one within its session only.
pub type Owner = (SessionId, LockOwner);

/// Whose lock it is.
pub fn owner_of(holder: &LockHolder) -> Owner {
    (holder.session, holder.owner)
}

/// Whether `holder` keeps `who` from having `range` in `mode`.
pub fn is_in_the_way(holder: &LockHolder, who: Owner, range: LockRange, mode: LockMode) -> bool {
    let may_share = mode == LockMode::Shared && holder.mode == LockMode::Shared;
    !may_share && owner_of(holder) != who && holder.range.overlaps(&range)
}

/// `invalid_argument` for a range that cannot be meant: one that ends before it begins, or beyond the last byte
/// that a file can have, and anything but the whole for flock(2).
pub fn check_range(space: LockSpace, range: LockRange) -> Result<(), OpError> {
    let LockRange { first, last } = range;
    let wrong = match space {
        LockSpace::Range if first > last => "ends before it begins",
        LockSpace::Range if last > LockRange::END => "ends past the last byte that a file can have",
        LockSpace::Whole if range != LockRange::WHOLE => "is not all of the file, as this kind of lock is",
        LockSpace::Range | LockSpace::Whole => return Ok(()),
    };
    refuse(ErrorCode::InvalidArgument, format!("the lock of bytes {first} to {last} {wrong}"))
}

/// What an owner's locks come to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Those that are to go.
    pub gone: Vec<LockHolder>,
    /// Those that are new or have changed. One of the same first byte takes the place of the old one.
    pub put: Vec<LockHolder>,
    /// By how many locks there are more afterwards; 0 when there are fewer.
    pub grows_by: usize,
    /// Whether somebody else could get a lock now that could not before.
    pub weakens: bool,
}

/// What `who` holds after it took the range of `request`, given all that it holds (`own`, sorted).
pub fn take(own: &[LockHolder], (session, owner): Owner, request: &LockRequest) -> Change {
    let LockRequest { mut range, mode, pid, .. } = *request;
    // The new one swallows what it covers, and grows over those of its mode that it overlaps or touches.
    for lock in own.iter().filter(|lock| lock.mode == mode && touches(&lock.range, &request.range)) {
        range.first = range.first.min(lock.range.first);
        range.last = range.last.max(lock.range.last);
    }
    let mut after = without(own, range);
    after.push(LockHolder { session, owner, range, mode, pid });
    let weakens = mode == LockMode::Shared
        && own.iter().any(|lock| lock.mode == LockMode::Exclusive && lock.range.overlaps(&request.range));
    difference(own, after, weakens)
}

/// What is left after an owner with the locks `own` (sorted) gave up a range.
pub fn free(own: &[LockHolder], range: LockRange) -> Change {
    let weakens = own.iter().any(|lock| lock.range.overlaps(&range));
    difference(own, without(own, range), weakens)
}

/// Whether the two overlap or are neighbours. No end of a range is so large that one more would overflow.
fn touches(a: &LockRange, b: &LockRange) -> bool {
    a.first <= b.last + 1 && b.first <= a.last + 1
}

/// What is left of the locks outside of the range.
fn without(own: &[LockHolder], range: LockRange) -> Vec<LockHolder> {
    let mut left = Vec::with_capacity(own.len() + 1);
    for lock in own {
        if !lock.range.overlaps(&range) {
            left.push(*lock);
            continue;
        }
        let LockRange { first, last } = lock.range;
        if first < range.first {
            left.push(LockHolder { range: LockRange { first, last: range.first - 1 }, ..*lock });
        }
        if last > range.last {
            left.push(LockHolder { range: LockRange { first: range.last + 1, last }, ..*lock });
        }
    }
    left
}

fn difference(before: &[LockHolder], after: Vec<LockHolder>, weakens: bool) -> Change {
    let grows_by = after.len().saturating_sub(before.len());
    let firsts: HashSet<u64> = after.iter().map(|lock| lock.range.first).collect();
    let known: HashMap<u64, &LockHolder> = before.iter().map(|lock| (lock.range.first, lock)).collect();
    let gone = before.iter().filter(|lock| !firsts.contains(&lock.range.first)).copied().collect();
    let put = after.into_iter().filter(|lock| known.get(&lock.range.first) != Some(&lock)).collect();
    Change { gone, put, grows_by, weakens }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_proto::Ino;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const ME: Owner = (SessionId(1), LockOwner(1));
    /// Bytes of the model; the last one stands for everything up to [`LockRange::END`].
    const BYTES: usize = 24;

    fn range(first: usize, last: usize) -> LockRange {
        let last = if last == BYTES - 1 { LockRange::END } else { last as u64 };
        LockRange { first: first as u64, last }
    }

    fn request(range: LockRange, mode: LockMode) -> LockRequest {
        LockRequest { ino: Ino(1), space: LockSpace::Range, owner: ME.1, range, mode, pid: 7 }
    }

    fn lock(first: usize, last: usize, mode: LockMode) -> LockHolder {
        LockHolder { session: ME.0, owner: ME.1, range: range(first, last), mode, pid: 7 }
    }

    /// Carries a change out as a store with rows by first byte does.
    fn apply(own: &[LockHolder], change: &Change) -> Vec<LockHolder> {
        let mut rows: BTreeMap<u64, LockHolder> = own.iter().map(|lock| (lock.range.first, *lock)).collect();
        for gone in &change.gone {
            assert_eq!(rows.remove(&gone.range.first), Some(*gone));
        }
        rows.extend(change.put.iter().map(|lock| (lock.range.first, *lock)));
        rows.into_values().collect()
    }

    fn modes(own: &[LockHolder]) -> Vec<Option<LockMode>> {
        let at = |byte: usize| {
            let byte = range(byte, byte);
            own.iter().find(|lock| lock.range.overlaps(&byte)).map(|lock| lock.mode)
        };
        (0..BYTES).map(at).collect()
    }

    #[test]
    fn a_lock_in_the_middle_splits_and_giving_it_back_merges() {
        use LockMode::*;
        let mut own = vec![lock(0, 9, Exclusive)];
        own = apply(&own, &take(&own, ME, &request(range(3, 5), Shared)));
        assert_eq!(own, [lock(0, 2, Exclusive), lock(3, 5, Shared), lock(6, 9, Exclusive)]);
        own = apply(&own, &take(&own, ME, &request(range(3, 5), Exclusive)));
        assert_eq!(own, [lock(0, 9, Exclusive)]);
        own = apply(&own, &free(&own, range(0, BYTES - 1)));
        assert_eq!(own, []);
    }

    #[test]
    fn taking_what_one_has_changes_nothing() {
        let own = vec![lock(0, 9, LockMode::Exclusive)];
        let change = take(&own, ME, &request(range(2, 4), LockMode::Exclusive));
        assert_eq!(change, Change::default());
        assert_eq!(free(&own, range(10, 12)), Change::default());
    }

    #[test]
    fn only_shared_locks_of_others_are_not_in_each_others_way() {
        use LockMode::*;
        let other = (SessionId(2), ME.1);
        for (held, wanted, expected) in
            [(Shared, Shared, false), (Shared, Exclusive, true), (Exclusive, Shared, true)]
        {
            let holder = lock(5, 9, held);
            assert_eq!(is_in_the_way(&holder, other, range(9, 12), wanted), expected);
            assert!(!is_in_the_way(&holder, other, range(10, 12), wanted));
            assert!(!is_in_the_way(&holder, ME, range(5, 9), wanted));
        }
    }

    #[test]
    fn ranges_that_cannot_be_meant_are_refused() {
        let check = |space, first, last| check_range(space, LockRange { first, last }).is_ok();
        assert!(check(LockSpace::Range, 5, 5) && check(LockSpace::Range, 0, LockRange::END));
        assert!(!check(LockSpace::Range, 6, 5));
        assert!(!check(LockSpace::Range, 6, LockRange::END + 1) && !check(LockSpace::Range, 6, u64::MAX));
        assert!(check(LockSpace::Whole, 0, LockRange::END) && !check(LockSpace::Whole, 0, 5));
    }

    fn step() -> impl Strategy<Value = (LockRange, Option<LockMode>)> {
        let mode = prop_oneof![Just(None), Just(Some(LockMode::Shared)), Just(Some(LockMode::Exclusive))];
        (0..BYTES, 0..BYTES, mode).prop_map(|(a, b, mode)| (range(a.min(b), a.max(b)), mode))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn an_owners_locks_are_those_of_a_model_of_bytes(steps in prop::collection::vec(step(), 1..30)) {
            let mut own: Vec<LockHolder> = Vec::new();
            let mut model: Vec<Option<LockMode>> = vec![None; BYTES];
            for (range, mode) in steps {
                let change = match mode {
                    Some(mode) => take(&own, ME, &request(range, mode)),
                    None => free(&own, range),
                };
                let before = model.clone();
                for byte in range.first..=range.last.min(BYTES as u64 - 1) {
                    model[byte as usize] = mode;
                }
                // Less is: nothing where there was something, or shared where it was exclusive.
                let strength = |mode: &Option<LockMode>| mode.map_or(0, |m| 1 + u8::from(m == LockMode::Exclusive));
                let weaker = before.iter().zip(&model).any(|(old, new)| strength(new) < strength(old));
                own = apply(&own, &change);
                prop_assert_eq!(modes(&own), model.clone());
                prop_assert_eq!(change.weakens, weaker);
                for pair in own.windows(2) {
                    prop_assert!(pair[0].range.last < pair[1].range.first, "{:?} overlap", pair);
                    let apart = pair[0].mode != pair[1].mode || pair[0].range.last + 1 < pair[1].range.first;
                    prop_assert!(apart, "{:?} could be one", pair);
                }
            }
        }
    }
}
