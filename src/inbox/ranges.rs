//! Sets of numbers as ranges: a handful of pairs however many rows came.

/// Disjoint, ascending, never touching.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    pub(super) fn from_sorted(pairs: Vec<(u64, u64)>) -> Self {
        let mut ranges = Self::default();
        for (first, last) in pairs {
            ranges.insert(first, last);
        }
        ranges
    }

    pub(super) fn pairs(&self) -> &[(u64, u64)] {
        &self.0
    }

    pub(super) fn len(&self) -> u64 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < number);
        self.0.get(at).is_some_and(|(first, _)| *first <= number)
    }

    /// Adds `first..=last`, joining what overlaps or touches.
    pub(super) fn insert(&mut self, first: u64, last: u64) {
        let from = self.0.partition_point(|range| range.1 < first.saturating_sub(1));
        let until = from + self.0[from..].partition_point(|range| range.0 <= last.saturating_add(1));
        let joined =
            self.0[from..until].iter().fold((first, last), |sum, range| (sum.0.min(range.0), sum.1.max(range.1)));
        self.0.splice(from..until, [joined]);
    }

    /// What of `first..=last` is not in the set.
    pub(super) fn absent(&self, first: u64, last: u64) -> Vec<(u64, u64)> {
        let mut absent = Vec::new();
        let mut next = first;
        let from = self.0.partition_point(|range| range.1 < first);
        for &(have_first, have_last) in &self.0[from..] {
            if have_first > last {
                break;
            }
            if have_first > next {
                absent.push((next, have_first - 1));
            }
            next = have_last + 1;
        }
        if next <= last {
            absent.push((next, last));
        }
        absent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop_assert_eq, proptest};
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn ranges_are_the_set_they_stand_for(pairs in proptest::collection::vec((1_u64..60, 0_u64..8), 0..20)) {
            let (mut ranges, mut set) = (Ranges::default(), BTreeSet::new());
            for (first, more) in pairs {
                ranges.insert(first, first + more);
                set.extend(first..=first + more);
            }
            for number in 1..70 {
                prop_assert_eq!(ranges.contains(number), set.contains(&number));
            }
            let absent: Vec<u64> = ranges.absent(5, 66).into_iter().flat_map(|(a, b)| a..=b).collect();
            prop_assert_eq!(absent, (5..=66).filter(|n| !set.contains(n)).collect::<Vec<_>>());
            prop_assert_eq!(ranges.len(), set.len() as u64);
            prop_assert_eq!(Ranges::from_sorted(ranges.pairs().to_vec()), ranges);
        }
    }
}
