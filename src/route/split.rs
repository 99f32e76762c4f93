//! Shares of requests, and the order in which others are asked.

use crate::base::Name;

/// One who could take a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name, by which keys are held to it: renaming moves its keys, changing what the name stands for does not.
    pub name: Name,
    /// Its part of the sum of all weights. 0: it gets a request only after another one did not answer.
    pub weight: u32,
}

/// The place of the candidate that `key` belongs to; none if no weight is over 0. `salt` makes the choices of two
/// splits independent of each other, so that the same callers are not the ones to try everything new.
///
/// Weighted rendezvous hashing by the logarithmic method (Schindelhauer and Schomaker, "Weighted distributed hash
/// tables", 2005): each candidate draws a number from the key, `-ln(u) / weight`, and the smallest wins. A candidate's
/// share is its weight's, and a weight that changes moves keys only to or from its own candidate. A random key is a
/// request that belongs to nobody.
pub fn choose(candidates: &[Candidate], salt: &str, key: &[u8]) -> Option<usize> {
    let drawn = |candidate: &Candidate| Lot::new(salt, candidate.name.as_str()).draw(key, candidate.weight);
    let weighted = candidates.iter().enumerate().filter(|(_, candidate)| candidate.weight > 0);
    weighted.map(|(at, candidate)| (at, drawn(candidate))).min_by(|a, b| a.1.total_cmp(&b.1)).map(|(at, _)| at)
}

/// Places in the order in which candidates are asked: `first`, then those of `declared`, or, where nobody said, the
/// others that have a weight, the heaviest first. Nobody is asked twice.
pub fn order(candidates: &[Candidate], first: usize, declared: Option<&[Name]>) -> Vec<usize> {
    let mut places = vec![first];
    let others: Vec<usize> = match declared {
        Some(names) => names.iter().filter_map(|name| candidates.iter().position(|c| c.name == *name)).collect(),
        None => {
            let mut weighted: Vec<usize> = (0..candidates.len()).filter(|&at| candidates[at].weight > 0).collect();
            weighted.sort_by_key(|&at| std::cmp::Reverse(candidates[at].weight));
            weighted
        }
    };
    for other in others {
        if !places.contains(&other) {
            places.push(other);
        }
    }
    places
}

/// What a candidate draws with: the part of the hash that does not depend on the key, computed once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lot(u64);

impl Lot {
    pub(super) fn new(salt: &str, name: &str) -> Self {
        Self(take(take(0xcbf2_9ce4_8422_2325, salt.as_bytes()), name.as_bytes()))
    }

    /// The number that `key` draws; the smallest of all candidates' wins. Infinite without a weight.
    pub(super) fn draw(self, key: &[u8], weight: u32) -> f64 {
        let hash = spread(take(self.0, key));
        // 53 bits, over 0 and at most 1.
        #[allow(clippy::cast_precision_loss, reason = "53 bits are exact")]
        let uniform = ((hash >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        // A logarithm of exactly 1 would be 0, and 0 / 0 is no number.
        if weight == 0 { f64::INFINITY } else { -uniform.ln() / f64::from(weight) }
    }
}

/// FNV-1a over a part, its length before it. With [`spread`] the same on every machine and in every release: keys stay
/// where they are.
fn take(hash: u64, part: &[u8]) -> u64 {
    let length = (part.len() as u64).to_le_bytes();
    let bytes = length.iter().chain(part);
    bytes.fold(hash, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The finaliser of MurmurHash3 (Appleby), which spreads what a short key leaves close together.
fn spread(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{RngCore as _, SeedableRng as _};

    fn candidates(weights: &[u32]) -> Vec<Candidate> {
        let named = |(at, &weight): (usize, &u32)| Candidate { name: Name::new(&format!("v{at}")).unwrap(), weight };
        weights.iter().enumerate().map(named).collect()
    }

    fn names(names: &[&str]) -> Vec<Name> {
        names.iter().map(|name| Name::new(name).unwrap()).collect()
    }

    #[test]
    fn the_same_key_gets_the_same_candidate_in_every_release() {
        // Fixed for ever: whoever changes these moves every user of every split.
        let split = candidates(&[90, 10]);
        let chosen: Vec<_> =
            (0..40).map(|user| choose(&split, "press", format!("user-{user}").as_bytes()).unwrap()).collect();
        let canary: Vec<_> = (0..40).filter(|&user| chosen[user] == 1).collect();
        assert_eq!(canary, CANARY_OF_FORTY);
        assert_ne!(Lot::new("a", "bc"), Lot::new("ab", "c"), "parts do not run together");
    }

    const CANARY_OF_FORTY: [usize; 3] = [12, 26, 38];

    #[test]
    fn nobody_gets_a_request_without_a_weight() {
        assert_eq!(choose(&[], "s", b"k"), None);
        assert_eq!(choose(&candidates(&[0, 0]), "s", b"k"), None);
        for key in 0_u32..1000 {
            assert_eq!(choose(&candidates(&[0, 3, 0]), "s", &key.to_le_bytes()), Some(1));
        }
    }

    #[test]
    fn two_splits_do_not_choose_the_same_users() {
        let split = candidates(&[50, 50]);
        let pairs = (0_u32..4000).map(|key| {
            let of = |salt: &str| choose(&split, salt, &key.to_le_bytes()).unwrap();
            (of("press"), of("drill"))
        });
        let both = pairs.filter(|pair| *pair == (1, 1)).count();
        // A quarter of 4,000, within six standard deviations.
        assert!((1000_usize.abs_diff(both)) < 165, "{both}");
    }

    #[test]
    fn who_is_asked_next_is_declared_or_the_heaviest_of_the_others() {
        let split = candidates(&[10, 60, 30, 0]);
        assert_eq!(order(&split, 0, None), [0, 1, 2]);
        assert_eq!(order(&split, 2, None), [2, 1, 0]);
        assert_eq!(order(&split, 1, Some(&names(&["v3", "v1", "v3", "gone", "v0"]))), [1, 3, 0]);
        assert_eq!(order(&split, 1, Some(&[])), [1]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

        /// Shares within six standard deviations, over random keys from a fixed seed for each case.
        #[test]
        fn everybody_gets_the_share_of_its_weight(weights in prop::collection::vec(0_u32..100, 1..6), seed: u64) {
            let split = candidates(&weights);
            let sum: u32 = weights.iter().sum();
            prop_assume!(sum > 0);
            let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
            let (draws, mut counts) = (4000, vec![0_u32; weights.len()]);
            for _ in 0..draws {
                counts[choose(&split, "press", &rng.next_u64().to_le_bytes()).unwrap()] += 1;
            }
            for (count, weight) in counts.into_iter().zip(weights) {
                let share = f64::from(weight) / f64::from(sum);
                let expected = f64::from(draws) * share;
                let bound = 6.0 * (expected * (1.0 - share)).sqrt() + 1.0;
                prop_assert!((f64::from(count) - expected).abs() <= bound, "{count} of {draws}, expected {expected}");
            }
        }

        /// A heavier candidate takes keys from the others and gives none away; the others exchange none.
        #[test]
        fn a_weight_that_changes_moves_keys_only_to_or_from_its_own(
            weights in prop::collection::vec(1_u32..100, 2..6), which: prop::sample::Index, more in 1_u32..200, salt in "[a-z]{1,8}",
        ) {
            let (before, which) = (candidates(&weights), which.index(weights.len()));
            let mut after = before.clone();
            after[which].weight += more;
            let (mut moved, keys) = (0, 1000_u32);
            for key in 0..keys {
                let of = |split: &[Candidate]| choose(split, &salt, &key.to_le_bytes()).unwrap();
                let (was, is) = (of(&before), of(&after));
                if was != is {
                    prop_assert_eq!(is, which);
                    moved += 1;
                }
            }
            // As many as the share grew by, and no more.
            let sum: u32 = weights.iter().sum();
            let share = |weight: u32, sum: u32| f64::from(weight) / f64::from(sum);
            let grown = share(weights[which] + more, sum + more) - share(weights[which], sum);
            let expected = f64::from(keys) * grown;
            prop_assert!((f64::from(moved) - expected).abs() <= 6.0 * expected.sqrt() + 2.0, "{} moved, expected {}", moved, expected);
        }

        #[test]
        fn nobody_is_asked_twice_and_the_chosen_one_first(
            weights in prop::collection::vec(0_u32..9, 1..8), first: prop::sample::Index,
            declared in prop::option::of(prop::collection::vec(0_usize..9, 0..9)),
        ) {
            let split = candidates(&weights);
            let first = first.index(weights.len());
            let declared: Option<Vec<Name>> =
                declared.map(|places| places.iter().map(|at| Name::new(&format!("v{at}")).unwrap()).collect());
            let order = order(&split, first, declared.as_deref());
            prop_assert_eq!(order[0], first);
            let mut once = order.clone();
            once.sort_unstable();
            once.dedup();
            prop_assert_eq!(once.len(), order.len());
            prop_assert!(order.iter().all(|&at| at < weights.len()));
        }
    }
}
