//! Sequences of one model: so many at a time, so many bytes, and those whose answer is there are kept for requests that begin
//! alike.
//!
//! Only within a partition: whether a prompt was read before can be felt in the time of the answer, so nobody's prompt may
//! speed up somebody else's.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::config::Config;
use super::decoder::{Decoder, Sequence};
use super::error::Error;
use super::metrics::Metrics;

/// Shorter beginnings are not worth looking after.
const SHARED_LEAST: usize = 8;

struct Kept {
    partition: Box<str>,
    tokens: Vec<u32>,
    sequence: Box<dyn Sequence>,
    /// The larger, the later.
    used: u64,
}

#[derive(Default)]
struct State {
    kept: Vec<Kept>,
    active: usize,
    /// Of those that are being made.
    active_bytes: u64,
    clock: u64,
}

/// Those of one model.
pub(super) struct Sequences {
    decoder: Arc<dyn Decoder>,
    state: Mutex<State>,
    active_max: usize,
    kept_max: usize,
    bytes_max: u64,
    metrics: Metrics,
}

impl Sequences {
    pub(super) fn new(decoder: Arc<dyn Decoder>, config: &Config, metrics: Metrics) -> Self {
        Self {
            decoder,
            state: Mutex::default(),
            active_max: config.sequences_max.max(1),
            kept_max: config.kept_max,
            bytes_max: config.cache_bytes_max,
            metrics,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing below panics halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A sequence with room for `tokens_max` tokens, that has as many of the first tokens of `prompt` as one of `partition` has, but
    /// never all: somebody has to say what comes behind the last.
    ///
    /// # Errors
    /// [`Error::Busy`] and [`Error::NoRoom`].
    pub(super) fn take(self: &Arc<Self>, partition: &str, prompt: &[u32], tokens_max: usize) -> Result<Lease, Error> {
        let mut state = self.lock();
        if state.active >= self.active_max {
            self.metrics.turned_away.inc();
            return Err(Error::Busy { active: state.active, most: self.active_max });
        }
        let taken = self.take_locked(&mut state, partition, prompt, tokens_max);
        self.show(&state);
        let (sequence, bytes) = taken.inspect_err(|_| {
            self.metrics.turned_away.inc();
        })?;
        let tokens = prompt[..sequence.tokens()].to_vec();
        Ok(Lease { of: Arc::clone(self), partition: partition.into(), tokens, bytes, sequence: Some(sequence) })
    }

    fn take_locked(
        &self,
        state: &mut State,
        partition: &str,
        prompt: &[u32],
        tokens_max: usize,
    ) -> Result<(Box<dyn Sequence>, u64), Error> {
        let shared = |kept: &Kept| {
            let most = prompt.len().saturating_sub(1);
            kept.tokens.iter().zip(&prompt[..most]).take_while(|(a, b)| a == b).count()
        };
        let candidates = state.kept.iter().enumerate().filter(|(_, kept)| *kept.partition == *partition);
        let best = candidates.map(|(at, kept)| (shared(kept), kept.used, at)).max();
        let best = best.filter(|(shared, _, _)| *shared >= SHARED_LEAST);
        // What it has beyond the shared beginning would be lost: a long rest stays where it is.
        let forks = |shared: usize, at: usize| shared * 2 < state.kept[at].tokens.len();
        let mut sequence = match best {
            Some((shared, _, at)) if !forks(shared, at) => {
                let mut kept = state.kept.swap_remove(at);
                kept.sequence.truncate(shared);
                Some(kept.sequence)
            }
            _ => None,
        };
        let has = sequence.as_ref().map_or(0, |sequence| sequence.tokens_max()).max(tokens_max);
        let bytes = self.bytes_of(has);
        let fork_of = best.filter(|_| sequence.is_none()).map(|(shared, _, at)| (shared, state.kept[at].used));
        self.make_room(state, bytes, tokens_max, fork_of.map(|(_, used)| used))?;
        loop {
            let opened = match (&mut sequence, fork_of) {
                (Some(sequence), _) => sequence.grow(tokens_max).map(|()| None),
                (None, Some((shared, used))) => match state.kept.iter().find(|kept| kept.used == used) {
                    Some(kept) => kept.sequence.fork(shared, tokens_max).map(Some),
                    None => self.decoder.open(tokens_max).map(Some),
                },
                (None, None) => self.decoder.open(tokens_max).map(Some),
            };
            match opened {
                Ok(opened) => {
                    let sequence = opened.or(sequence).expect("it was opened or was there");
                    state.active += 1;
                    state.active_bytes += bytes;
                    state.clock += 1;
                    let (now, copied) = (state.clock, fork_of.map(|(_, used)| used));
                    if let Some(kept) = state.kept.iter_mut().find(|kept| Some(kept.used) == copied) {
                        kept.used = now;
                    }
                    return Ok((sequence, bytes));
                }
                // The box may have less memory than this model's bound: what is kept gives way to what is needed.
                Err(error @ Error::NoRoom { .. }) if !self.evict(state, None) => return Err(error),
                Err(Error::NoRoom { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn bytes_of(&self, tokens: usize) -> u64 {
        self.decoder.token_bytes().saturating_mul(tokens as u64)
    }

    fn kept_bytes(&self, state: &State) -> u64 {
        state.kept.iter().map(|kept| self.bytes_of(kept.sequence.tokens_max())).sum()
    }

    /// Lets go of what is kept, the oldest first and `spared` last, until `bytes` more fit.
    fn make_room(&self, state: &mut State, bytes: u64, tokens: usize, spared: Option<u64>) -> Result<(), Error> {
        while state.active_bytes + self.kept_bytes(state) + bytes > self.bytes_max {
            if !self.evict(state, spared) && !self.evict(state, None) {
                let (used, most) = (state.active_bytes, self.bytes_max);
                let why = format!("it takes {bytes} bytes, {used} of {most} are in use (generate.cache_bytes_max)");
                return Err(Error::NoRoom { tokens, why });
            }
        }
        Ok(())
    }

    fn evict(&self, state: &mut State, spared: Option<u64>) -> bool {
        let others = state.kept.iter().enumerate().filter(|(_, kept)| Some(kept.used) != spared);
        let Some((at, _)) = others.min_by_key(|(_, kept)| kept.used) else { return false };
        drop(state.kept.swap_remove(at));
        self.metrics.evicted.inc();
        true
    }

    fn give_back(&self, partition: &str, tokens: Vec<u32>, sequence: Option<Box<dyn Sequence>>, bytes: u64) {
        let mut state = self.lock();
        state.active -= 1;
        state.active_bytes -= bytes;
        if let Some(sequence) = sequence.filter(|sequence| self.kept_max > 0 && sequence.tokens() == tokens.len()) {
            state.clock += 1;
            let used = state.clock;
            state.kept.push(Kept { partition: partition.into(), tokens, sequence, used });
            while state.kept.len() > self.kept_max {
                self.evict(&mut state, Some(used));
            }
        }
        self.show(&state);
    }

    /// Forgets what is kept: all, or one partition's.
    pub(super) fn forget(&self, partition: Option<&str>) {
        let mut state = self.lock();
        state.kept.retain(|kept| partition.is_some_and(|partition| *kept.partition != *partition));
        self.show(&state);
    }

    fn show(&self, state: &State) {
        let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.active.set(number(state.active as u64));
        self.metrics.kept.set(number(state.kept.len() as u64));
        self.metrics.cache_bytes.set(number(state.active_bytes + self.kept_bytes(state)));
    }
}

/// A sequence while an answer is made. Dropped, it is kept or freed.
pub(super) struct Lease {
    of: Arc<Sequences>,
    partition: Box<str>,
    /// Those that the sequence has read.
    tokens: Vec<u32>,
    bytes: u64,
    /// None behind a failure.
    sequence: Option<Box<dyn Sequence>>,
}

impl Lease {
    /// Tokens that it has read.
    pub(super) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Reads on.
    pub(super) fn read(&mut self, tokens: &[u32]) -> Result<Vec<f32>, Error> {
        // Put back only when it is whole: neither a failure nor a panic leaves half a token behind.
        let taken = self.sequence.take();
        let mut sequence = taken.ok_or_else(|| Error::Scores("it failed before".to_owned()))?;
        let scores = sequence.read(tokens)?;
        self.sequence = Some(sequence);
        self.tokens.extend_from_slice(tokens);
        Ok(scores)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.of.give_back(&self.partition, std::mem::take(&mut self.tokens), self.sequence.take(), self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::fake::{Counting, Fake};

    fn sequences(config: &Config) -> (Arc<Sequences>, Arc<Counting>, Metrics) {
        let (counting, metrics) = (Arc::new(Counting::default()), Metrics::default());
        let decoder = Arc::new(Fake::new(16, 1000, Arc::clone(&counting)));
        (Arc::new(Sequences::new(decoder, config, metrics.clone())), counting, metrics)
    }

    fn config() -> Config {
        // A token takes ten bytes there.
        Config { sequences_max: 2, kept_max: 2, cache_bytes_max: 10 * 300, ..Config::default() }
    }

    fn prompt(length: usize, last: u32) -> Vec<u32> {
        (0..length).map(|at| if at + 1 == length { last } else { at as u32 % 16 }).collect()
    }

    /// Has it read, and gives it back.
    fn read(of: &Arc<Sequences>, partition: &str, prompt: &[u32]) -> usize {
        let mut lease = of.take(partition, prompt, 100).unwrap();
        let shared = lease.tokens().len();
        lease.read(&prompt[shared..]).unwrap();
        shared
    }

    #[test]
    fn what_begins_alike_is_not_read_again_but_for_its_last_token() {
        let (sequences, counting, _) = sequences(&config());
        assert_eq!(read(&sequences, "a", &prompt(40, 1)), 0);
        assert_eq!(read(&sequences, "a", &prompt(40, 1)), 39);
        let longer = [prompt(40, 1), prompt(10, 3)].concat();
        assert_eq!(read(&sequences, "a", &longer), 40);
        assert_eq!(counting.opened(), 1);
        assert_eq!(read(&sequences, "a", &[9; 20]), 0);
    }

    #[test]
    fn nobody_profits_from_the_prompt_of_another_partition() {
        let (sequences, counting, _) = sequences(&config());
        assert_eq!(read(&sequences, "a", &prompt(40, 1)), 0);
        assert_eq!(read(&sequences, "b", &prompt(40, 1)), 0);
        assert_eq!((counting.opened(), read(&sequences, "b", &prompt(40, 1))), (2, 39));
        sequences.forget(Some("b"));
        assert_eq!((read(&sequences, "b", &prompt(40, 1)), read(&sequences, "a", &prompt(40, 1))), (0, 39));
    }

    #[test]
    fn a_long_conversation_is_copied_from_and_not_cut_for_another_that_begins_alike() {
        let (sequences, counting, _) = sequences(&config());
        let long = [prompt(20, 1), prompt(60, 2)].concat();
        let other = [prompt(20, 1), vec![7; 9]].concat();
        assert_eq!(read(&sequences, "a", &long), 0);
        assert_eq!(read(&sequences, "a", &other), 20);
        assert_eq!((counting.opened(), counting.forked()), (1, 1));
        assert_eq!((read(&sequences, "a", &long), read(&sequences, "a", &other)), (79, 28));
    }

    #[test]
    fn there_are_bounds_of_answers_and_of_bytes_and_what_is_kept_gives_way() {
        let (sequences, counting, metrics) = sequences(&config());
        let first = sequences.take("a", &prompt(9, 1), 100).unwrap();
        let second = sequences.take("a", &prompt(9, 2), 100).unwrap();
        assert_eq!(sequences.take("a", &prompt(9, 3), 1).err().unwrap(), Error::Busy { active: 2, most: 2 });
        drop((first, second));
        assert_eq!((metrics.kept.get(), metrics.active.get(), metrics.cache_bytes.get()), (2, 0, 2000));
        let big = sequences.take("a", &prompt(9, 4), 250).unwrap();
        assert_eq!((metrics.kept.get(), metrics.evicted.get(), metrics.cache_bytes.get()), (0, 2, 2500));
        let error = sequences.take("a", &prompt(9, 5), 51).err().unwrap();
        assert_eq!(
            error.to_string(),
            "no room for a sequence of 51 tokens: it takes 510 bytes, 2500 of 3000 are in use (generate.cache_bytes_max)"
        );
        drop(big);
        for last in 0..9 {
            drop(sequences.take("a", &prompt(9, last), 20).unwrap());
        }
        assert_eq!((metrics.kept.get(), counting.alive()), (2, 2));
        assert_eq!(metrics.turned_away.get(), 2);
    }

    #[test]
    fn a_box_without_memory_takes_it_from_what_is_kept() {
        let (sequences, counting, metrics) = sequences(&config());
        read(&sequences, "a", &prompt(9, 1));
        read(&sequences, "a", &[5; 9]);
        counting.allow(2);
        drop(sequences.take("a", &[6; 9], 50).unwrap());
        assert_eq!(metrics.evicted.get(), 1);
        counting.allow(0);
        assert!(matches!(sequences.take("a", &[7; 9], 50), Err(Error::NoRoom { .. })));
        assert_eq!((counting.alive(), metrics.active.get()), (0, 0));
    }

    #[test]
    fn a_sequence_that_failed_is_not_kept() {
        let (sequences, counting, metrics) = sequences(&config());
        let mut lease = sequences.take("a", &prompt(9, 1), 50).unwrap();
        counting.fail(true);
        assert!(lease.read(&prompt(9, 1)).is_err());
        counting.fail(false);
        assert!(lease.read(&[1]).unwrap_err().to_string().contains("it failed before"));
        drop(lease);
        assert_eq!((counting.alive(), metrics.kept.get(), metrics.active.get()), (0, 0, 0));
    }
}
