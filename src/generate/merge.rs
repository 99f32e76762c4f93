//! Neighbours become one, the best pair first, until no pair is any: the heart of byte-pair encoding.
//!
//! "Neural Machine Translation of Rare Words with Subword Units", Sennrich and others, 2016 (arXiv 1508.07909). With a heap, so that
//! a word of a hundred thousand letters takes n log n steps and not n².

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A part of a text that is one token, or none yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) start: usize,
    pub(super) end: usize,
    /// None where no token is that text.
    pub(super) token: Option<u32>,
}

const NONE: usize = usize::MAX;

struct Link {
    part: Part,
    before: usize,
    behind: usize,
}

/// The lowest rank first, then the leftmost.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    rank: u32,
    left: usize,
    right: usize,
    /// Where the right one ends, so that a pair of which a side has grown is known.
    end: usize,
    token: u32,
}

/// Merges `parts`, which lie one behind the other. `join` says what two neighbours become, and how soon.
pub(super) fn merge(parts: &mut Vec<Part>, join: impl Fn(Part, Part) -> Option<(u32, u32)>) {
    let count = parts.len();
    let link = |(at, &part): (usize, &Part)| {
        let behind = if at + 1 < count { at + 1 } else { NONE };
        Link { part, before: at.checked_sub(1).unwrap_or(NONE), behind }
    };
    let mut links: Vec<Link> = parts.iter().enumerate().map(link).collect();
    let mut heap = BinaryHeap::new();
    let pair = |links: &[Link], left: usize, right: usize| {
        let (a, b) = (links[left].part, links[right].part);
        join(a, b).map(|(rank, token)| Reverse(Pair { rank, left, right, end: b.end, token }))
    };
    (1..count).for_each(|right| heap.extend(pair(&links, right - 1, right)));
    while let Some(Reverse(Pair { left, right, end, token, .. })) = heap.pop() {
        let is_current = links[left].behind == right && links[right].before == left && links[right].part.end == end;
        if !is_current {
            continue;
        }
        let (before, behind) = (links[left].before, links[right].behind);
        let grown = join(links[left].part, links[right].part).is_some_and(|(_, now)| now == token);
        if !grown {
            continue;
        }
        links[left].part = Part { start: links[left].part.start, end, token: Some(token) };
        links[left].behind = behind;
        (links[right].before, links[right].behind) = (NONE, NONE);
        if behind != NONE {
            links[behind].before = left;
            heap.extend(pair(&links, left, behind));
        }
        if before != NONE {
            heap.extend(pair(&links, before, left));
        }
    }
    parts.clear();
    let mut at = if count == 0 { NONE } else { 0 };
    while at != NONE {
        parts.push(links[at].part);
        at = links[at].behind;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As one would write it down: look for the best pair, again and again.
    fn slowly(mut parts: Vec<Part>, join: impl Fn(Part, Part) -> Option<(u32, u32)>) -> Vec<Part> {
        loop {
            let ranked = parts.windows(2).enumerate().filter_map(|(at, pair)| {
                let (rank, token) = join(pair[0], pair[1])?;
                Some((rank, at, token))
            });
            let Some((_, at, token)) = ranked.min() else { return parts };
            let end = parts.remove(at + 1).end;
            parts[at] = Part { start: parts[at].start, end, token: Some(token) };
        }
    }

    proptest! {
        #[test]
        fn the_heap_merges_what_a_search_for_the_best_pair_merges(
            text in "[abc]{0,40}",
            rules in proptest::collection::vec((0_u32..12, 0_u32..12), 0..12),
        ) {
            let parts: Vec<Part> = text.bytes().enumerate()
                .map(|(at, byte)| Part { start: at, end: at + 1, token: Some(u32::from(byte - b'a')) })
                .collect();
            let join = |a: Part, b: Part| {
                let at = rules.iter().position(|rule| Some(rule.0) == a.token && Some(rule.1) == b.token)?;
                Some((at as u32, at as u32 + 3))
            };
            let mut merged = parts.clone();
            merge(&mut merged, join);
            prop_assert_eq!(merged, slowly(parts, join));
        }
    }

    #[test]
    fn a_hundred_thousand_letters_are_merged_at_once() {
        let mut parts: Vec<Part> = (0..100_000).map(|at| Part { start: at, end: at + 1, token: Some(0) }).collect();
        let join = |a: Part, b: Part| (a.end - a.start == b.end - b.start && b.end - a.start <= 16).then_some((1, 1));
        merge(&mut parts, join);
        assert_eq!(parts.len(), 100_000 / 16);
    }
}
