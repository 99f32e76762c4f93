//! Answers in the database, found through an index in memory.
//!
//! An answer counts once its commit has returned, and goes from the index before its rows go, so what is found is there.
//! Cached answers never make anything else wait: if the writer's queue has no room, they are not kept.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::answer::{Answer, Hit};
use super::metrics::{Kind, Metrics, Passed};
use super::partition::{Place, Purge};
use super::rows::{self, Entry};
use super::wish::Wish;
use crate::base::Clock;
use crate::store::{Error, Reader, Writer};

/// What an answer takes in the database beside its bytes: three rows and their numbers.
const ROW_BYTES: usize = 256;
/// A clock that is set back makes answers come from the future. This much is taken for a slip.
const SLACK_MS: i64 = 60_000;
/// Answers that go in one commit.
const REMOVED: usize = 512;

/// One answer in the index.
#[derive(Debug, Clone, Copy)]
struct Item {
    no: i64,
    stored_ms: i64,
    until_ms: i64,
    bytes: u32,
}

impl Item {
    fn age_ms(&self, now_ms: i64) -> u64 {
        now_ms.saturating_sub(self.stored_ms).max(0).cast_unsigned()
    }

    fn is_good(&self, now_ms: i64, wish: &Wish) -> bool {
        self.stored_ms <= now_ms.saturating_add(SLACK_MS) && now_ms < self.until_ms && wish.wants(self.age_ms(now_ms))
    }
}

/// What one digest finds: one answer of a request, or all those of a partition with their bits side by side.
#[derive(Default)]
struct Part {
    items: Vec<Item>,
    bits: Vec<u64>,
}

impl Part {
    fn words(&self) -> usize {
        self.bits.len().checked_div(self.items.len()).unwrap_or(0)
    }

    fn push(&mut self, item: Item, bits: &[u64]) {
        if self.items.is_empty() {
            // Most parts stay with one, and a vector begins with room for four.
            self.items.reserve_exact(1);
        }
        self.items.push(item);
        self.bits.extend_from_slice(bits);
    }

    fn remove(&mut self, no: i64) -> Option<Item> {
        let words = self.words();
        let at = self.items.iter().position(|item| item.no == no)?;
        self.bits.drain(at * words..(at + 1) * words);
        Some(self.items.remove(at))
    }
}

#[derive(Default)]
struct Index {
    parts: HashMap<[u8; 32], Part>,
    /// By age: numbers rise.
    order: BTreeMap<i64, [u8; 32]>,
    /// Of what is there and of what is being written.
    bytes: u64,
    writing: usize,
    /// Requests whose answer is being written: another to the same request is not.
    pending: HashSet<[u8; 32]>,
}

impl Index {
    fn put(&mut self, entry: &Entry) {
        let Entry { no, found_by, stored_ms, until_ms, bytes, ref bits } = *entry;
        self.parts.entry(found_by).or_default().push(Item { no, stored_ms, until_ms, bytes }, bits);
        self.order.insert(no, found_by);
    }

    fn remove(&mut self, no: i64) -> bool {
        let Some(found_by) = self.order.remove(&no) else { return false };
        let Some(part) = self.parts.get_mut(&found_by) else { return false };
        let Some(item) = part.remove(no) else { return false };
        self.bytes = self.bytes.saturating_sub(item.bytes.into());
        if part.items.is_empty() {
            self.parts.remove(&found_by);
        }
        true
    }

    fn remove_all(&mut self, numbers: &[i64]) {
        for &no in numbers {
            self.remove(no);
        }
    }

    /// Takes the oldest out until another of `bytes` fits; their numbers.
    fn make_room(&mut self, bytes: u64, limits: Limits) -> Vec<i64> {
        let mut gone = Vec::new();
        while self.bytes + bytes > limits.max_bytes || self.order.len() + self.writing >= limits.max_entries {
            let Some((&no, _)) = self.order.first_key_value() else { break };
            self.remove(no);
            gone.push(no);
        }
        gone
    }
}

/// Bounds of a shelf.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) max_bytes: u64,
    pub(super) max_entries: usize,
}

/// Answers of one kind.
pub(super) struct Shelf {
    kind: Kind,
    limits: Limits,
    index: Arc<Mutex<Index>>,
    reader: Reader,
    writer: Writer,
    clock: Arc<dyn Clock>,
    next_no: Arc<AtomicI64>,
    metrics: Metrics,
}

impl Shelf {
    /// Reads the index. Rows beyond the bounds, past their time or with a wrong checksum are taken away.
    pub(super) async fn open(
        kind: Kind,
        limits: Limits,
        (reader, writer): (Reader, Writer),
        clock: Arc<dyn Clock>,
        next_no: Arc<AtomicI64>,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        let shelf = Self { kind, limits, index: Arc::default(), reader, writer, clock, next_no, metrics };
        let name = shelf.name();
        let (entries, mut gone) = shelf.reader.read(move |connection| rows::load(connection, name)).await?;
        shelf.metrics.unreadable(kind, gone.len() as u64);
        let now_ms = shelf.clock.wall_ms();
        {
            let mut index = shelf.index();
            for entry in entries {
                if now_ms < entry.until_ms {
                    index.put(&entry);
                    index.bytes += u64::from(entry.bytes);
                } else {
                    gone.push(entry.no);
                }
            }
            gone.extend(index.make_room(0, Limits { max_entries: limits.max_entries.saturating_add(1), ..limits }));
        }
        shelf.remove_rows(gone).await?;
        shelf.tell();
        Ok(shelf)
    }

    fn name(&self) -> &'static str {
        match self.kind {
            Kind::Semantic => "semantic",
            Kind::Exact | Kind::Disk | Kind::Flight => "exact",
        }
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The newest good answer that `found_by` finds, without looking at bits.
    pub(super) fn newest(&self, found_by: &[u8; 32], wish: &Wish) -> Option<i64> {
        let now_ms = self.clock.wall_ms();
        let index = self.index();
        let items = &index.parts.get(found_by)?.items;
        items.iter().rev().find(|item| item.is_good(now_ms, wish)).map(|item| item.no)
    }

    /// Up to `most` good answers of a partition whose bits are nearest, the nearest first.
    pub(super) fn nearest(&self, found_by: &[u8; 32], bits: &[u64], most: usize, wish: &Wish) -> Vec<i64> {
        let now_ms = self.clock.wall_ms();
        let index = self.index();
        let Some(part) = index.parts.get(found_by) else { return Vec::new() };
        if part.words() != bits.len() || bits.is_empty() {
            return Vec::new();
        }
        let far = |other: &[u64]| other.iter().zip(bits).map(|(one, other)| (one ^ other).count_ones()).sum::<u32>();
        let items = part.items.iter().zip(part.bits.chunks_exact(bits.len()));
        let mut near: Vec<(u32, i64)> =
            items.filter(|(item, _)| item.is_good(now_ms, wish)).map(|(item, other)| (far(other), item.no)).collect();
        if near.len() > most {
            near.select_nth_unstable(most);
            near.truncate(most);
        }
        near.sort_unstable();
        near.into_iter().map(|(_, no)| no).collect()
    }

    /// Reads an answer. One that is not what was written is forgotten.
    pub(super) async fn read(&self, no: i64) -> Result<Option<Hit>, Error> {
        let stored_ms = {
            let index = self.index();
            let part = index.order.get(&no).and_then(|found_by| index.parts.get(found_by));
            part.and_then(|part| part.items.iter().find(|item| item.no == no)).map(|item| item.stored_ms)
        };
        let Some(stored_ms) = stored_ms else { return Ok(None) };
        let Some(answer) = self.reader.read(move |connection| rows::answer(connection, no)).await? else {
            self.forget(&[no]);
            return Ok(None);
        };
        let age_ms = self.clock.wall_ms().saturating_sub(stored_ms).max(0).cast_unsigned();
        Ok(Some(Hit { answer, age_ms, similarity: None }))
    }

    /// The one of `numbers` whose vector is most like `vector`, and how much.
    pub(super) async fn most_alike(&self, numbers: Vec<i64>, vector: &[f32]) -> Result<Option<(i64, f32)>, Error> {
        let vector: Box<[f32]> = vector.into();
        let (best, bad) = self
            .reader
            .read(move |connection| {
                let (mut best, mut bad) = (None::<(i64, f32)>, Vec::new());
                for no in numbers {
                    match rows::vector(connection, no)? {
                        Some(other) if other.len() == vector.len() => {
                            let cosine = other.iter().zip(&vector).map(|(one, other)| one * other).sum();
                            if best.is_none_or(|(_, least)| cosine > least) {
                                best = Some((no, cosine));
                            }
                        }
                        _ => bad.push(no),
                    }
                }
                Ok((best, bad))
            })
            .await?;
        self.forget(&bad);
        Ok(best)
    }

    /// Rows of these are not what was written, or are gone since they were chosen.
    fn forget(&self, numbers: &[i64]) {
        let mut index = self.index();
        let gone: Vec<i64> = numbers.iter().copied().filter(|&no| index.remove(no)).collect();
        drop(index);
        if gone.is_empty() {
            return;
        }
        self.metrics.unreadable(self.kind, gone.len() as u64);
        // What is not removed now is found again by the next start.
        let _ = self.writer.try_submit(0, move |tx| rows::remove(tx, &gone), |_| ());
        self.tell();
    }

    /// Keeps an answer under `found_by`, in the place of others there if it is the only one. Returns at once.
    pub(super) fn keep(&self, found_by: [u8; 32], place: Place, answer: &Answer, vector: Vec<f32>, ttl_ms: i64) {
        let bits = signs(&vector);
        let size = ROW_BYTES + place.bytes() + answer.len() + vector.len() * 4 + bits.len() * 8;
        if size as u64 > self.limits.max_bytes || self.limits.max_entries == 0 {
            return self.metrics.passed(Passed::LargeAnswer);
        }
        let bytes = u32::try_from(size).unwrap_or(u32::MAX);
        let now_ms = self.clock.wall_ms();
        let no = self.next_no.fetch_add(1, Ordering::Relaxed);
        let until_ms = now_ms.saturating_add(ttl_ms);
        let entry = Entry { no, found_by, stored_ms: now_ms, until_ms, bytes, bits };
        let is_only = vector.is_empty();
        let mut gone = Vec::new();
        {
            let mut index = self.index();
            if is_only {
                if !index.pending.insert(found_by) {
                    return;
                }
                let items = index.parts.get(&found_by).map(|part| &part.items);
                gone.extend(items.into_iter().flatten().map(|item| item.no));
                index.remove_all(&gone);
            }
            let evicted = index.make_room(bytes.into(), self.limits);
            self.metrics.evicted(self.kind, evicted.len() as u64);
            gone.extend(evicted);
            index.bytes += u64::from(bytes);
            index.writing += 1;
        }
        let (name, written, answer) = (self.name(), entry.clone(), answer.compact());
        let work = move |tx: &crate::store::Tx<'_>| {
            rows::remove(tx, &gone)?;
            rows::insert(tx, name, &written, &place, &answer, &vector)
        };
        let (index, metrics, kind) = (Arc::clone(&self.index), self.metrics.clone(), self.kind);
        let settle = move |is_written: bool| {
            let mut index = index.lock().unwrap_or_else(PoisonError::into_inner);
            index.writing -= 1;
            if is_only {
                index.pending.remove(&entry.found_by);
            }
            if is_written {
                index.put(&entry);
                metrics.kept(kind);
            } else {
                index.bytes = index.bytes.saturating_sub(bytes.into());
                metrics.passed(Passed::Disk);
            }
            metrics.holds(kind, index.order.len(), index.bytes);
        };
        let refused = settle.clone();
        if self.writer.try_submit(size, work, move |outcome| settle(outcome.is_ok())).is_err() {
            refused(false);
        }
    }

    /// Takes answers away; returns how many, after the last commit.
    pub(super) async fn purge(&self, purge: &Purge) -> Result<u64, Error> {
        let mut count = 0;
        loop {
            let (name, purge, now_ms) = (self.name(), purge.clone(), self.clock.wall_ms());
            let read = move |connection: &rusqlite::Connection| rows::wanted(connection, name, &purge, now_ms, REMOVED);
            let numbers = self.reader.read(read).await?;
            if numbers.is_empty() {
                self.tell();
                return Ok(count);
            }
            self.index().remove_all(&numbers);
            count += numbers.len() as u64;
            self.metrics.purged(self.kind, numbers.len() as u64);
            self.remove_rows(numbers).await?;
        }
    }

    async fn remove_rows(&self, numbers: Vec<i64>) -> Result<(), Error> {
        for part in numbers.chunks(REMOVED) {
            let part = part.to_vec();
            // Deletes make room, so they may use what a full file keeps in reserve.
            self.writer.commit_from_reserve(move |tx| rows::remove(tx, &part)).await?;
        }
        Ok(())
    }

    fn tell(&self) {
        let index = self.index();
        self.metrics.holds(self.kind, index.order.len(), index.bytes);
    }
}

/// One bit a number: whether it is positive.
pub(super) fn signs(vector: &[f32]) -> Vec<u64> {
    let word = |numbers: &[f32]| {
        numbers.iter().enumerate().fold(0, |word, (at, number)| word | u64::from(*number > 0.0) << at)
    };
    vector.chunks(64).map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_are_one_bit_a_number_and_the_rest_of_a_word_is_empty() {
        assert!(signs(&[]).is_empty());
        assert_eq!(signs(&[1.0, -1.0, 0.0, 0.5]), [0b1001]);
        let mut long = vec![-1.0; 65];
        long[64] = 1.0;
        assert_eq!(signs(&long), [0, 1]);
    }

    #[test]
    fn a_part_keeps_bits_beside_their_items() {
        let mut part = Part::default();
        for no in 0..4 {
            part.push(Item { no, stored_ms: 0, until_ms: 0, bytes: 0 }, &[no as u64, 100 + no as u64]);
        }
        assert_eq!(part.remove(1).unwrap().no, 1);
        assert!(part.remove(1).is_none());
        assert_eq!(part.bits, [0, 100, 2, 102, 3, 103]);
        for no in [0, 3, 2] {
            part.remove(no).unwrap();
        }
        assert_eq!((part.bits.len(), part.words()), (0, 0));
    }

    #[test]
    fn room_is_made_by_the_oldest_and_what_is_being_written_counts() {
        let mut index = Index::default();
        for no in 1..=4 {
            let entry = Entry { no, found_by: [no as u8 % 2; 32], stored_ms: 0, until_ms: 9, bytes: 10, bits: vec![0] };
            index.put(&entry);
            index.bytes += 10;
        }
        let limits = Limits { max_bytes: 100, max_entries: 5 };
        assert!(index.make_room(10, limits).is_empty());
        index.writing = 1;
        assert_eq!(index.make_room(10, limits), [1]);
        assert_eq!(index.make_room(75, limits), [2]);
        assert_eq!((index.bytes, index.parts.len()), (20, 2));
        assert_eq!(index.make_room(1000, limits), [3, 4], "it ends when nothing is left");
        assert_eq!((index.bytes, index.parts.len()), (0, 0));
    }
}
