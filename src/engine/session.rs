//! The outside world of this room: something that computes.

use std::sync::Arc;

use super::delegate;
use super::error::Error;
use super::spec::{LoadSpec, NamedTensor};

/// How well an engine suits a model. Those of the best fit are asked first, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fit {
    /// It is made for such models.
    Best,
    /// It computes them, and others are likely to be faster.
    Able,
}

/// Reads models of some formats.
pub trait Engine: Send + Sync {
    /// Its name in answers, logs and messages.
    fn name(&self) -> &'static str;

    /// Whether it reads `format`.
    fn reads(&self, format: &str) -> bool;

    /// Whether it is one for this model, judged by the file before anything is loaded: its operators, above all. The error
    /// says in a few words why not.
    fn suits(&self, _spec: &LoadSpec) -> Result<Fit, String> {
        Ok(Fit::Best)
    }

    /// None for an engine that computes in this program. Some for one that has another program compute, which may be gone when
    /// a request comes; true if an engine of this program shall be loaded as well, to answer then.
    fn wants_stand_in(&self, _spec: &LoadSpec) -> Option<bool> {
        None
    }

    /// Whether it takes only models that come with samples, unless the manifest asks for it: one that may compute with
    /// less precision than the model has must show that nobody will notice.
    fn needs_samples(&self) -> bool {
        false
    }

    /// Bytes that the model needs when it is loaded, where its file says more than its size does. None leaves it to the size.
    fn memory_bytes(&self, _spec: &LoadSpec) -> Option<u64> {
        None
    }

    /// Loads a model and checks it against its declaration. Takes as long as the model needs; called on the loader's
    /// thread, never on the pool's. May panic on a hostile file: the caller catches it.
    fn load(&self, spec: &LoadSpec) -> Result<Box<dyn Session>, Error>;
}

/// A loaded model. Shared by the pool's threads: an engine that computes one request at a time locks inside.
pub trait Session: Send + Sync {
    /// Computes the declared outputs in their order. The inputs are in the declared order, with admitted shapes. May
    /// panic: the caller catches it, and the session must stay usable for the next request.
    fn run(&self, inputs: &[NamedTensor]) -> Result<Vec<NamedTensor>, Error>;

    /// How the host is that computes it. None for a model that is computed in this program.
    fn delegate(&self) -> Option<delegate::State> {
        None
    }

    /// Whether how long a run takes follows from its inputs' sizes alone, on the thread that asks for it: no loop that an input
    /// keeps going, nobody else who is waited for. Such runs may be computed on their callers' threads once they are known to
    /// be short.
    fn is_steady(&self) -> bool {
        false
    }

    /// What reads on where it stopped, of a model that can.
    fn decoder(&self) -> Option<&dyn Decoder> {
        None
    }

    /// Threads that a run keeps busy on this box; so many places of the pool it takes.
    fn threads(&self) -> usize {
        1
    }
}

/// A model that reads tokens, and scores the one that comes next.
pub trait Decoder {
    /// Scores that it gives.
    fn vocabulary(&self) -> usize;

    /// The most tokens of a sequence.
    fn context_tokens(&self) -> usize;

    /// Bytes that a token takes once it was read.
    fn token_bytes(&self) -> u64;

    /// A sequence with room for `tokens_max` tokens, none of which was read. The error says why there is no memory for it.
    fn open(&self, tokens_max: usize) -> Result<Box<dyn Reading>, String>;
}

/// A sequence of tokens that were read. It holds the model.
pub trait Reading: Send {
    /// Tokens that were read.
    fn tokens(&self) -> usize;

    /// Tokens that fit.
    fn tokens_max(&self) -> usize;

    /// Reads `tokens`, of which there is one at least, and gives the scores of what comes behind the last. May panic: the caller
    /// catches it, and reads no further.
    fn read(&mut self, tokens: &[u32]) -> Result<Vec<f32>, String>;

    /// Forgets all but the first `tokens`.
    fn truncate(&mut self, tokens: usize);

    /// Makes room for `tokens_max` in all.
    fn grow(&mut self, tokens_max: usize) -> Result<(), String>;

    /// A copy of its first `tokens`, with room for `tokens_max`.
    fn fork(&self, tokens: usize, tokens_max: usize) -> Result<Box<dyn Reading>, String>;
}

/// The engines of this build, in the order in which they are tried.
pub fn built_in() -> Vec<Arc<dyn Engine>> {
    vec![
        Arc::new(super::classical::Classical),
        #[cfg(feature = "tract")]
        Arc::new(super::tract::Tract),
        #[cfg(feature = "transformer")]
        Arc::new(super::transformer::Transformer),
    ]
}
