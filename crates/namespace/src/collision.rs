//! Which number a file gets whose name is taken.

use dfs_proto::limits::COLLISION_TRIES_MAX;

/// A number `n` from 1 on whose name is free; `None` when the search comes upon nothing free up to
/// [`COLLISION_TRIES_MAX`].
///
/// Looks at 1, 2, 4, 8, ... until one is free and then halves the gap between the last taken and the first
/// free number that it has seen. While files are only added, taken numbers have no gaps and the result is the
/// lowest free one; where some were removed it is some free number that follows directly upon a taken one.
/// Either way about 2 * log2(n) names are looked up, so that the thousandth file of a name costs hardly more
/// than the first.
pub fn free_number<E>(mut is_taken: impl FnMut(u64) -> Result<bool, E>) -> Result<Option<u64>, E> {
    let (mut taken, mut free) = (0, 1);
    while is_taken(free)? {
        if free == COLLISION_TRIES_MAX {
            return Ok(None);
        }
        taken = free;
        free = (free * 2).min(COLLISION_TRIES_MAX);
    }
    while free - taken > 1 {
        let middle = taken + (free - taken) / 2;
        if is_taken(middle)? {
            taken = middle;
        } else {
            free = middle;
        }
    }
    Ok(Some(free))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::convert::Infallible;

    fn search(taken: &BTreeSet<u64>) -> (Option<u64>, u32) {
        let mut lookups = 0;
        let found = free_number(|n| {
            lookups += 1;
            Ok::<_, Infallible>(taken.contains(&n))
        });
        (found.unwrap(), lookups)
    }

    #[test]
    fn without_gaps_the_lowest_free_number_is_found() {
        for count in 0..300 {
            assert_eq!(search(&(1..=count).collect()).0, Some(count + 1));
        }
    }

    #[test]
    fn the_hundred_thousandth_name_costs_few_lookups() {
        let (found, lookups) = search(&(1..=100_000).collect());
        assert_eq!(found, Some(100_001));
        assert!(lookups <= 40, "{lookups}");
    }

    #[test]
    fn when_all_numbers_are_taken_there_is_none() {
        assert_eq!(free_number(|_| Ok::<_, Infallible>(true)).unwrap(), None);
    }

    proptest::proptest! {
        #[test]
        fn with_gaps_the_number_is_free_and_follows_a_taken_one(
            taken in proptest::collection::btree_set(1u64..200, 0..150),
        ) {
            let found = search(&taken).0.unwrap();
            assert!(!taken.contains(&found));
            assert!(found == 1 || taken.contains(&(found - 1)));
        }
    }
}
