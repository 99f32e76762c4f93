//! Whole answers in memory, found by digest, bounded in bytes.
//!
//! What makes room at the bound is chosen by SIEVE (Zhang and others, NSDI 2024): entries stand in the order in which they
//! came, a hit only marks one, and a hand that moves from the oldest to the newest takes the first that is not marked
//! and unmarks those that it passes.

use std::sync::Arc;

use super::answer::{Answer, Hit};
use super::partition::{Place, Purge};
use crate::base::Map;

/// What an entry takes beside its answer: slot, place in the map and counts of the buffers.
pub(super) const OVERHEAD_BYTES: usize = 320;
/// No slot.
const NONE: u32 = u32::MAX;

struct Slot {
    digest: [u8; 32],
    answer: Answer,
    place: Arc<Place>,
    partition: [u8; 32],
    /// Of the time since boot.
    stored_ms: u64,
    until_ms: u64,
    is_marked: bool,
    /// Towards the newest.
    newer: u32,
    /// Towards the oldest.
    older: u32,
}

/// What became of an answer that was to be kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// False if the bound is too small for it.
    pub(super) is_kept: bool,
    /// How many others made room.
    pub(super) evicted: u64,
}

/// The answers.
pub(super) struct Exact {
    max_bytes: u64,
    bytes: u64,
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    by_digest: Map<[u8; 32], u32>,
    /// The words of each partition, once for all its entries.
    places: Map<[u8; 32], Arc<Place>>,
    newest: u32,
    oldest: u32,
    hand: u32,
}

impl Exact {
    pub(super) fn new(max_bytes: u64) -> Self {
        Self {
            max_bytes,
            bytes: 0,
            slots: Vec::new(),
            free: Vec::new(),
            by_digest: Map::default(),
            places: Map::default(),
            newest: NONE,
            oldest: NONE,
            hand: NONE,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_digest.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    fn slot(&mut self, at: u32) -> &mut Slot {
        self.slots[at as usize].as_mut().expect("a linked slot is filled")
    }

    /// The answer, or whether one had to go because its time was over.
    pub(super) fn find(&mut self, digest: &[u8; 32], now_ms: u64) -> Result<Hit, bool> {
        let Some(&at) = self.by_digest.get(digest) else { return Err(false) };
        let slot = self.slot(at);
        if now_ms >= slot.until_ms {
            self.remove(at);
            return Err(true);
        }
        slot.is_marked = true;
        Ok(Hit { answer: slot.answer.clone(), age_ms: now_ms.saturating_sub(slot.stored_ms), similarity: None })
    }

    pub(super) fn keep(
        &mut self,
        digest: [u8; 32],
        partition: [u8; 32],
        place: impl FnOnce() -> Place,
        answer: &Answer,
        (now_ms, until_ms): (u64, u64),
    ) -> Kept {
        if let Some(&at) = self.by_digest.get(&digest) {
            self.remove(at);
        }
        let place = match self.places.get(&partition) {
            Some(place) => Arc::clone(place),
            None => Arc::new(place()),
        };
        let bytes = cost(answer, &place);
        if bytes > self.max_bytes {
            self.forget_place(&partition, &place);
            return Kept::default();
        }
        self.places.entry(partition).or_insert_with(|| Arc::clone(&place));
        let mut evicted = 0;
        while self.bytes + bytes > self.max_bytes {
            self.evict();
            evicted += 1;
        }
        // It may have been the last of its partition that made room.
        self.places.entry(partition).or_insert_with(|| Arc::clone(&place));
        let slot = Slot {
            digest,
            answer: answer.compact(),
            place,
            partition,
            stored_ms: now_ms,
            until_ms,
            is_marked: false,
            newer: NONE,
            older: self.newest,
        };
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("the bound in bytes is reached long before")
        });
        self.slots[at as usize] = Some(slot);
        match self.newest {
            NONE => self.oldest = at,
            newest => self.slot(newest).newer = at,
        }
        self.newest = at;
        self.by_digest.insert(digest, at);
        self.bytes += bytes;
        Kept { is_kept: true, evicted }
    }

    fn evict(&mut self) {
        let mut at = if self.hand == NONE { self.oldest } else { self.hand };
        // Every step unmarks one, so the second round ends it.
        while self.slot(at).is_marked {
            let (newer, oldest) = (self.slot(at).newer, self.oldest);
            self.slot(at).is_marked = false;
            at = if newer == NONE { oldest } else { newer };
        }
        self.hand = self.slot(at).newer;
        self.remove(at);
    }

    fn remove(&mut self, at: u32) {
        let slot = self.slots[at as usize].take().expect("only filled slots are removed");
        self.by_digest.remove(&slot.digest);
        match slot.newer {
            NONE => self.newest = slot.older,
            newer => self.slot(newer).older = slot.older,
        }
        match slot.older {
            NONE => self.oldest = slot.newer,
            older => self.slot(older).newer = slot.newer,
        }
        if self.hand == at {
            self.hand = slot.newer;
        }
        self.bytes -= cost(&slot.answer, &slot.place);
        self.free.push(at);
        self.forget_place(&slot.partition, &slot.place);
    }

    /// The map and the caller hold one each; nobody else needs the words.
    fn forget_place(&mut self, partition: &[u8; 32], place: &Arc<Place>) {
        if Arc::strong_count(place) <= 2 {
            self.places.remove(partition);
        }
    }

    /// Takes answers away; returns how many.
    pub(super) fn purge(&mut self, purge: &Purge, now_ms: u64) -> u64 {
        let wanted = |slot: &Slot| purge.wants(&slot.place, now_ms.saturating_sub(slot.stored_ms));
        let gone: Vec<u32> =
            (0..).zip(&self.slots).filter(|(_, slot)| slot.as_ref().is_some_and(wanted)).map(|(at, _)| at).collect();
        for &at in &gone {
            self.remove(at);
        }
        if self.by_digest.is_empty() {
            // Back to where it takes no memory.
            *self = Self::new(self.max_bytes);
        }
        gone.len() as u64
    }
}

fn cost(answer: &Answer, place: &Place) -> u64 {
    (OVERHEAD_BYTES + answer.len() + place.bytes()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Partition, Scope, Worth};
    use bytes::Bytes;
    use proptest::prelude::*;

    fn answer(bytes: usize) -> Answer {
        Answer {
            body: Bytes::from(vec![7; bytes]),
            content_type: "".into(),
            note: Bytes::new(),
            worth: Worth::default(),
        }
    }

    fn digest(no: u8) -> [u8; 32] {
        [no; 32]
    }

    fn place(tenant: &str) -> Place {
        Partition { tenant, ..Partition::default() }.place(Scope::Key)
    }

    fn keep(exact: &mut Exact, no: u8, bytes: usize) -> Kept {
        exact.keep(digest(no), digest(0), || place("a"), &answer(bytes), (0, 1000))
    }

    #[test]
    fn an_answer_is_found_until_its_time_is_over() {
        let mut exact = Exact::new(10_000);
        exact.keep(digest(1), digest(0), || place("a"), &answer(5), (100, 200));
        let hit = exact.find(&digest(1), 150).unwrap();
        assert_eq!((hit.age_ms, hit.answer), (50, answer(5)));
        assert_eq!(exact.find(&digest(2), 150), Err(false));
        assert_eq!(exact.find(&digest(1), 200), Err(true));
        assert_eq!((exact.find(&digest(1), 150), exact.bytes(), exact.places.len()), (Err(false), 0, 0));
    }

    #[test]
    fn what_was_asked_for_again_outlives_what_was_not() {
        let mut exact = Exact::new(3 * (OVERHEAD_BYTES as u64 + 101));
        for no in 1..=3 {
            assert!(keep(&mut exact, no, 100).is_kept);
        }
        exact.find(&digest(1), 0).unwrap();
        assert_eq!(keep(&mut exact, 4, 100), Kept { is_kept: true, evicted: 1 });
        assert!(exact.find(&digest(1), 0).is_ok() && exact.find(&digest(2), 0).is_err());
    }

    #[test]
    fn an_answer_larger_than_the_bound_is_not_kept_and_drives_nobody_out() {
        let mut exact = Exact::new(OVERHEAD_BYTES as u64 + 200);
        keep(&mut exact, 1, 100);
        assert_eq!(keep(&mut exact, 2, 5000), Kept::default());
        assert!(exact.find(&digest(1), 0).is_ok());
    }

    #[test]
    fn a_small_body_does_not_hold_the_buffer_that_it_was_cut_from() {
        let mut exact = Exact::new(10_000);
        let large = Bytes::from(vec![1; 1 << 20]);
        let cut = Answer { body: large.slice(..10), ..answer(0) };
        exact.keep(digest(1), digest(0), || place("a"), &cut, (0, 9));
        drop(cut);
        assert!(large.try_into_mut().is_ok(), "nobody else holds it");
    }

    #[test]
    fn a_purge_takes_one_tenants_answers_and_all_of_them_give_the_memory_back() {
        let mut exact = Exact::new(100_000);
        for no in 1..=6 {
            let tenant = if no % 2 == 0 { "a" } else { "b" };
            exact.keep(digest(no), digest(100 + no % 2), || place(tenant), &answer(5), (u64::from(no), 1000));
        }
        let of = |text: &str| serde_json::from_str::<Purge>(text).unwrap();
        assert_eq!(exact.purge(&of(r#"{"tenant":"a"}"#), 10), 3);
        assert_eq!((exact.len(), exact.places.len()), (3, 1));
        assert!(exact.find(&digest(2), 10).is_err() && exact.find(&digest(3), 10).is_ok());
        assert_eq!(exact.purge(&of("{}"), 10), 3);
        assert_eq!((exact.bytes(), exact.slots.capacity(), exact.by_digest.capacity()), (0, 0, 0));
    }

    proptest! {
        #[test]
        fn the_bound_the_order_and_the_counts_hold_whatever_happens(
            steps in prop::collection::vec((0..5_u8, 0..20_u8, 0..400_usize), 0..200)
        ) {
            let mut exact = Exact::new(2000);
            for (step, no, bytes) in steps {
                match step {
                    0 => drop(exact.find(&digest(no), 0)),
                    1 => drop(exact.find(&digest(no), 5000)),
                    2 => drop(exact.purge(&Purge { tenant: Some(format!("t{}", no % 4)), ..Purge::default() }, 0)),
                    _ => {
                        let tenant = format!("t{}", no % 4);
                        exact.keep(digest(no), digest(no % 4), || place(&tenant), &answer(bytes), (0, 1000));
                    }
                }
                prop_assert!(exact.bytes() <= 2000);
                let mut walked = Vec::new();
                let mut at = exact.oldest;
                while at != NONE {
                    walked.push(at);
                    at = exact.slot(at).newer;
                }
                prop_assert_eq!(walked.len(), exact.len());
                let bytes: u64 = walked.iter().map(|&at| { let slot = exact.slot(at); cost(&slot.answer, &slot.place) }).sum();
                prop_assert_eq!(bytes, exact.bytes());
                let partitions: std::collections::HashSet<_> = walked.iter().map(|&at| exact.slot(at).partition).collect();
                prop_assert_eq!(partitions.len(), exact.places.len());
                prop_assert!(exact.hand == NONE || walked.contains(&exact.hand));
            }
        }
    }
}
