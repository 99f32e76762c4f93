//! A decoder for tests of whoever asks one: it scores as it is told, fails when it is told, and counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::decoder::{Decoder, Sequence};
use super::error::Error;

/// What became of a [`Fake`]'s sequences, and what shall become of them.
#[derive(Debug)]
pub struct Counting {
    opened: AtomicUsize,
    forked: AtomicUsize,
    alive: AtomicUsize,
    read: AtomicUsize,
    alive_max: AtomicUsize,
    fails: AtomicBool,
}

impl Default for Counting {
    fn default() -> Self {
        let zero = || AtomicUsize::new(0);
        Self {
            opened: zero(),
            forked: zero(),
            alive: zero(),
            read: zero(),
            alive_max: AtomicUsize::new(usize::MAX),
            fails: AtomicBool::new(false),
        }
    }
}

impl Counting {
    /// Sequences that were opened, those not counted that were copied.
    pub fn opened(&self) -> usize {
        self.opened.load(Ordering::Relaxed)
    }

    /// Sequences that were copied.
    pub fn forked(&self) -> usize {
        self.forked.load(Ordering::Relaxed)
    }

    /// Sequences that there are.
    pub fn alive(&self) -> usize {
        self.alive.load(Ordering::Relaxed)
    }

    /// Tokens that were read.
    pub fn read(&self) -> usize {
        self.read.load(Ordering::Relaxed)
    }

    /// From now on there is memory for so many sequences.
    pub fn allow(&self, alive_max: usize) {
        self.alive_max.store(alive_max, Ordering::Relaxed);
    }

    /// From now on reading fails, or works again.
    pub fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::Relaxed);
    }
}

type Scores = Arc<dyn Fn(&[u32]) -> Vec<f32> + Send + Sync>;

/// Scores the next token by a function of all those before it.
pub struct Fake {
    vocabulary: usize,
    context_tokens: usize,
    counting: Arc<Counting>,
    scores: Scores,
}

impl Fake {
    /// Of so many tokens, and sequences of at most so many; finds the token best that has the number behind the last one's.
    pub fn new(vocabulary: usize, context_tokens: usize, counting: Arc<Counting>) -> Self {
        let next = move |tokens: &[u32]| {
            let best = tokens.last().map_or(0, |&last| (last as usize + 1) % vocabulary.max(1));
            (0..vocabulary).map(|token| if token == best { 9.0 } else { 0.0 }).collect()
        };
        Self { vocabulary, context_tokens, counting, scores: Arc::new(next) }
    }

    /// The same with another function.
    #[must_use]
    pub fn scoring(self, scores: impl Fn(&[u32]) -> Vec<f32> + Send + Sync + 'static) -> Self {
        Self { scores: Arc::new(scores), ..self }
    }

    /// Says `answer` behind the prompt that begins with its first token, whatever the prompt is, and then its token `end`.
    #[must_use]
    pub fn saying(self, prompt_tokens: usize, answer: Vec<u32>, end: u32) -> Self {
        let vocabulary = self.vocabulary;
        self.scoring(move |tokens| {
            let best = tokens.len().checked_sub(prompt_tokens).and_then(|at| answer.get(at)).copied().unwrap_or(end);
            (0..vocabulary).map(|token| if token == best as usize { 9.0 } else { 0.0 }).collect()
        })
    }
}

impl Decoder for Fake {
    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    fn context_tokens(&self) -> usize {
        self.context_tokens
    }

    fn token_bytes(&self) -> u64 {
        10
    }

    fn open(&self, tokens_max: usize) -> Result<Box<dyn Sequence>, Error> {
        let sequence = Told::new(&self.counting, &self.scores, Vec::new(), tokens_max)?;
        self.counting.opened.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(sequence))
    }
}

struct Told {
    counting: Arc<Counting>,
    scores: Scores,
    tokens: Vec<u32>,
    tokens_max: usize,
}

impl Told {
    fn new(counting: &Arc<Counting>, scores: &Scores, tokens: Vec<u32>, tokens_max: usize) -> Result<Self, Error> {
        if counting.alive() >= counting.alive_max.load(Ordering::Relaxed) {
            return Err(Error::NoRoom { tokens: tokens_max, why: "as the test wants it".to_owned() });
        }
        counting.alive.fetch_add(1, Ordering::Relaxed);
        Ok(Self { counting: Arc::clone(counting), scores: Arc::clone(scores), tokens, tokens_max })
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.counting.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Sequence for Told {
    fn tokens(&self) -> usize {
        self.tokens.len()
    }

    fn tokens_max(&self) -> usize {
        self.tokens_max
    }

    fn read(&mut self, tokens: &[u32]) -> Result<Vec<f32>, Error> {
        if self.counting.fails.load(Ordering::Relaxed) {
            return Err(Error::Scores("as the test wants it".to_owned()));
        }
        self.tokens.extend_from_slice(tokens);
        self.counting.read.fetch_add(tokens.len(), Ordering::Relaxed);
        if self.tokens.len() > self.tokens_max {
            return Err(Error::Scores(format!("{} tokens, room for {}", self.tokens.len(), self.tokens_max)));
        }
        Ok((self.scores)(&self.tokens))
    }

    fn truncate(&mut self, tokens: usize) {
        self.tokens.truncate(tokens);
    }

    fn grow(&mut self, tokens_max: usize) -> Result<(), Error> {
        self.tokens_max = self.tokens_max.max(tokens_max);
        Ok(())
    }

    fn fork(&self, tokens: usize, tokens_max: usize) -> Result<Box<dyn Sequence>, Error> {
        let tokens = self.tokens[..tokens.min(self.tokens.len())].to_vec();
        let forked = Self::new(&self.counting, &self.scores, tokens, tokens_max)?;
        self.counting.forked.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(forked))
    }
}
