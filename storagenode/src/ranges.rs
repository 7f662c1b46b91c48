//! A set of numbers that come in runs, kept as its runs.

use std::collections::BTreeMap;

/// A set of `u64`; memory grows with the number of runs, not of members.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    /// First of a run to its last. Runs neither touch nor overlap.
    runs: BTreeMap<u64, u64>,
}

impl Ranges {
    /// Whether `n` is a member.
    pub fn contains(&self, n: u64) -> bool {
        self.runs.range(..=n).next_back().is_some_and(|(_, last)| *last >= n)
    }

    /// Adds all from `first` to `last`; nothing when `last` is below `first`.
    pub fn insert(&mut self, mut first: u64, mut last: u64) {
        if last < first {
            return;
        }
        if let Some((&before, &end)) = self.runs.range(..=first).next_back()
            && end >= first.saturating_sub(1)
        {
            first = before;
            last = last.max(end);
        }
        while let Some((&next, &end)) = self.runs.range(first..=last.saturating_add(1)).next() {
            self.runs.remove(&next);
            last = last.max(end);
        }
        self.runs.insert(first, last);
    }

    /// The runs, in order, as (first, last).
    pub fn runs(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.runs.iter().map(|(first, last)| (*first, *last))
    }

    /// Whether it has no members.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_the_set_it_stands_for(inserts in proptest::collection::vec((0u64..60, 0u64..8), 0..40)) {
            let (mut ranges, mut model) = (Ranges::default(), BTreeSet::new());
            for (first, more) in inserts {
                ranges.insert(first, first + more);
                model.extend(first..=first + more);
            }
            prop_assert!((0..80).all(|n| ranges.contains(n) == model.contains(&n)));
            let runs: Vec<_> = ranges.runs().collect();
            prop_assert!(runs.windows(2).all(|w| w[0].1 + 1 < w[1].0), "runs touch: {:?}", runs);
        }
    }

    #[test]
    fn the_ends_of_the_numbers_do_not_overflow() {
        let mut ranges = Ranges::default();
        ranges.insert(0, 0);
        ranges.insert(u64::MAX, u64::MAX);
        ranges.insert(5, 4);
        assert_eq!(ranges.runs().collect::<Vec<_>>(), [(0, 0), (u64::MAX, u64::MAX)]);
    }
}
