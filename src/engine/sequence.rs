//! Sequences of a decoder that stay between requests: what was read is not read again.

use std::sync::Arc;

use super::error::Error;
use super::handle::{Handle, Loaded, caught};
use super::memory::Room;
use super::pool::Shared;
use super::session::Reading;

/// A decoder's sequences. Cheap to clone; holds the model.
#[derive(Clone)]
pub struct Sequences {
    shared: Arc<Shared>,
    model: Arc<Loaded>,
    vocabulary: usize,
    context_tokens: usize,
    token_bytes: u64,
}

/// One of them. Its memory is reserved among the models'; dropped, it is free again.
pub struct Sequence {
    of: Sequences,
    /// None behind a panic.
    reading: Option<Box<dyn Reading>>,
    rooms: Vec<Room>,
}

impl Handle {
    /// Sequences of this model, if it is one that reads on where it stopped: a decoder of texts in this program.
    pub fn sequences(&self) -> Option<Sequences> {
        let decoder = self.model.session.decoder()?;
        Some(Sequences {
            shared: Arc::clone(&self.shared),
            vocabulary: decoder.vocabulary(),
            context_tokens: decoder.context_tokens(),
            token_bytes: decoder.token_bytes(),
            model: Arc::clone(&self.model),
        })
    }
}

impl Sequences {
    /// Scores that a read gives: one for each token.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// The most tokens of a sequence.
    pub fn context_tokens(&self) -> usize {
        self.context_tokens
    }

    /// Bytes that a token takes once it was read.
    pub fn token_bytes(&self) -> u64 {
        self.token_bytes
    }

    /// A sequence with room for `tokens_max` tokens, at most [`Self::context_tokens`].
    ///
    /// # Errors
    /// [`Error::NoRoom`] if it does not fit beside the models.
    pub fn open(&self, tokens_max: usize) -> Result<Sequence, Error> {
        let tokens_max = tokens_max.min(self.context_tokens);
        let room = self.room(tokens_max)?;
        let open = || {
            let decoder = self.model.session.decoder().ok_or("it reads no sequences")?;
            decoder.open(tokens_max)
        };
        let reading = caught(&self.model.title, || open().map_err(|reason| self.failed(reason)))?;
        Ok(Sequence { of: self.clone(), reading: Some(reading), rooms: vec![room] })
    }

    fn room(&self, tokens: usize) -> Result<Room, Error> {
        let bytes = self.token_bytes.saturating_mul(tokens as u64);
        let room = self.shared.memory.reserve(&format!("{} (a sequence)", self.model.title), bytes);
        room.inspect_err(|error| self.shared.metrics.failed(error))
    }

    fn failed(&self, reason: String) -> Error {
        Error::Run { model: self.model.title.clone(), engine: self.model.engine, reason }
    }
}

impl Sequence {
    /// Tokens that it has.
    pub fn tokens(&self) -> usize {
        self.reading.as_ref().map_or(0, |reading| reading.tokens())
    }

    /// Tokens that it has room for.
    pub fn tokens_max(&self) -> usize {
        self.reading.as_ref().map_or(0, |reading| reading.tokens_max())
    }

    /// Reads `tokens` behind those that it has, and gives the scores of what comes behind the last. Blocks: it waits for a place
    /// among the threads that compute, behind sensors and in turn with requests, and computes on this one. Never call it from async
    /// code, and read long texts in parts.
    ///
    /// # Errors
    /// [`Error::Run`] for tokens that there are not, none, or more than there is room for; [`Error::NotFinite`];
    /// [`Error::Panicked`], behind which it cannot be read any more; [`Error::Closed`].
    pub fn read(&mut self, tokens: &[u32]) -> Result<Vec<f32>, Error> {
        let scores = self.compute(tokens);
        scores.inspect_err(|error| self.of.shared.metrics.failed(error))
    }

    fn compute(&mut self, tokens: &[u32]) -> Result<Vec<f32>, Error> {
        let Sequences { shared, model, .. } = &self.of;
        let broken = || self.of.failed("the sequence broke before".to_owned());
        // Taken out, so that what a panic leaves behind is not used.
        let mut reading = self.reading.take().ok_or_else(broken)?;
        let Some(_place) = shared.queue.turn() else {
            self.reading = Some(reading);
            return Err(Error::Closed);
        };
        let noted = shared.begin_here();
        let scores = caught(&model.title, || Ok(reading.read(tokens)));
        if let Some(at) = noted {
            shared.end(at);
        }
        let scores = scores?;
        self.reading = Some(reading);
        let scores = scores.map_err(|reason| self.of.failed(reason))?;
        match scores.iter().position(|score| !score.is_finite()) {
            Some(at) => Err(Error::NotFinite { name: "logits".to_owned(), value: scores[at].to_string(), at }),
            None => Ok(scores),
        }
    }

    /// Forgets all but the first `tokens`. The memory stays its own.
    pub fn truncate(&mut self, tokens: usize) {
        if let Some(reading) = &mut self.reading {
            reading.truncate(tokens);
        }
    }

    /// Makes room for `tokens_max` tokens in all, if it has less.
    ///
    /// # Errors
    /// [`Error::NoRoom`]: it stays as it is.
    pub fn grow(&mut self, tokens_max: usize) -> Result<(), Error> {
        let tokens_max = tokens_max.min(self.of.context_tokens);
        let more = tokens_max.saturating_sub(self.tokens_max());
        let Some(reading) = self.reading.as_mut().filter(|_| more > 0) else { return Ok(()) };
        let room = self.of.room(more)?;
        let grown = reading.grow(tokens_max);
        grown.map_err(|reason| self.of.failed(reason))?;
        self.rooms.push(room);
        Ok(())
    }

    /// A copy of its first `tokens`, with room for `tokens_max`.
    ///
    /// # Errors
    /// As [`Sequences::open`].
    pub fn fork(&self, tokens: usize, tokens_max: usize) -> Result<Self, Error> {
        let tokens_max = tokens_max.max(tokens).min(self.of.context_tokens);
        let room = self.of.room(tokens_max)?;
        let reading = self.reading.as_ref().ok_or_else(|| self.of.failed("the sequence broke before".to_owned()))?;
        let fork = reading.fork(tokens, tokens_max).map_err(|reason| self.of.failed(reason))?;
        Ok(Self { of: self.of.clone(), reading: Some(fork), rooms: vec![room] })
    }
}

impl std::fmt::Debug for Sequences {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sequences").field("model", &self.model.title).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Sequence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sequence").field("model", &self.of.model.title).field("tokens", &self.tokens()).finish()
    }
}

#[cfg(test)]
#[cfg(feature = "transformer")]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;
    use crate::base::{ManualClock, Name, Tensor};
    use crate::engine::fake::Slow;
    use crate::engine::spec::{LoadSpec, NamedTensor};
    use crate::engine::{Config, Engine, Pool, Transformer, signature};

    fn spec(bytes: &[u8], format: &str) -> LoadSpec {
        let mut spec = LoadSpec {
            name: Name::new("texts").unwrap(),
            version: 1,
            format: format.to_owned(),
            engine: None,
            bytes: bytes.into(),
            files: Default::default(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            samples: Vec::new(),
            allow_non_finite: false,
        };
        if let Ok(signature) = signature(&spec) {
            (spec.inputs, spec.outputs) = (signature.inputs, signature.outputs);
        }
        spec
    }

    const QWEN3: &[u8] = include_bytes!("../../tests/fixtures/transformer/qwen3/model.gguf");

    fn pool(engines: Vec<Arc<dyn Engine>>, memory_bytes_max: u64) -> Pool {
        let config = Config { threads: 1, memory_bytes_max, ..Config::default() };
        Pool::start(&config, engines, Arc::new(ManualClock::at(0))).unwrap()
    }

    fn sequences(pool: &Pool) -> (Handle, Sequences) {
        let handle = pool.load(&spec(QWEN3, "gguf")).unwrap();
        let sequences = handle.sequences().unwrap();
        (handle, sequences)
    }

    fn near(a: &[f32], b: &[f32]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 2e-3)
    }

    #[test]
    fn a_sequence_that_is_read_on_cut_grown_or_copied_scores_as_the_whole_text_does() {
        let pool = pool(vec![Arc::new(Transformer)], 0);
        let (handle, sequences) = sequences(&pool);
        let whole = |tokens: &[u32]| -> Vec<f32> {
            let ids: Vec<i64> = tokens.iter().map(|&token| token.into()).collect();
            let ids = NamedTensor::new("input_ids", Tensor::new([1, ids.len()], ids).unwrap());
            handle.infer_blocking(vec![ids], None).unwrap().tensors[0].tensor.as_slice::<f32>().unwrap().to_vec()
        };
        let mut text = sequences.open(4).unwrap();
        assert!(near(&text.read(&[1, 17, 4]).unwrap(), &whole(&[1, 17, 4])));
        assert!(near(&text.read(&[29]).unwrap(), &whole(&[1, 17, 4, 29])));
        let full = text.read(&[2]).unwrap_err().to_string();
        assert!(full.contains("1 tokens for a cache with room for 0"), "{full}");
        let mut copy = text.fork(2, 9).unwrap();
        text.grow(6).unwrap();
        assert!(near(&text.read(&[2, 5]).unwrap(), &whole(&[1, 17, 4, 29, 2, 5])));
        assert!(near(&copy.read(&[8, 8, 9]).unwrap(), &whole(&[1, 17, 8, 8, 9])));
        text.truncate(1);
        assert!(near(&text.read(&[3]).unwrap(), &whole(&[1, 3])));
        assert_eq!((text.tokens(), text.tokens_max(), copy.tokens(), copy.tokens_max()), (2, 6, 5, 9));
        for wrong in [&[30][..], &[]] {
            assert!(matches!(text.read(wrong), Err(Error::Run { .. })));
        }
        assert!(near(&text.read(&[4]).unwrap(), &whole(&[1, 3, 4])));
    }

    #[test]
    fn sequences_take_their_memory_among_the_models_and_give_it_back() {
        let open = pool(vec![Arc::new(Transformer)], 0);
        let (handle, all) = sequences(&open);
        let taken = |pool: &Pool| pool.condition().memory_of.iter().map(|(_, bytes)| bytes).sum::<u64>();
        let model = taken(&open);
        let mut first = all.open(10).unwrap();
        first.grow(15).unwrap();
        let second = first.fork(0, 5).unwrap();
        assert_eq!(taken(&open) - model, 20 * all.token_bytes());
        drop((first, second));
        assert_eq!((taken(&open), all.context_tokens() > 15), (model, true));
        drop((all, handle));
        let tight = pool(vec![Arc::new(Transformer)], model + 10_000);
        let (_handle, all) = sequences(&tight);
        let most = usize::try_from(10_000 / all.token_bytes()).unwrap();
        let mut text = all.open(most).unwrap();
        assert!(matches!(
            all.open(1 + usize::try_from(10_000 % all.token_bytes()).unwrap()),
            Err(Error::NoRoom { .. })
        ));
        assert!(matches!(text.grow(most + 2), Err(Error::NoRoom { .. })));
        assert!(matches!(text.fork(0, 2), Err(Error::NoRoom { .. })));
        assert_eq!(text.tokens_max(), most);
    }

    fn slow_spec() -> LoadSpec {
        let mut spec = spec(&[], "onnx");
        let port = |name: &str, shape: &[i64]| crate::engine::TensorSpec {
            name: name.into(),
            datatype: crate::base::Datatype::Fp32,
            shape: shape.to_vec(),
        };
        (spec.inputs, spec.outputs) = (vec![port("x", &[-1, 2])], vec![port("y", &[-1, 1])]);
        spec
    }

    fn ask(requests: &Handle) {
        let x = NamedTensor::new("x", Tensor::new([1, 2], vec![1.0_f32, 1.0]).unwrap());
        requests.infer_blocking(vec![x], None).unwrap();
    }

    #[test]
    fn a_sequence_does_not_wait_for_requests_that_wait_for_something_else_than_a_place() {
        let slow = Slow::default();
        let config = Config { threads: 2, ..Config::default() };
        let engines: Vec<Arc<dyn Engine>> = vec![Arc::new(Transformer), Arc::new(slow.clone())];
        let pool = Pool::start(&config, engines, Arc::new(ManualClock::at(0))).unwrap();
        let (_handle, sequences) = sequences(&pool);
        let serving = crate::engine::Serving { concurrency_max: 1, ..Default::default() };
        let requests = pool.load_as(&slow_spec(), &serving).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| ask(&requests));
            slow.gate.wait_for_request();
            scope.spawn(|| ask(&requests));
            while pool.metrics().queue_depth.get() < 1 {
                thread::yield_now();
            }
            // The second request waits for the first one, which waits for the gate: a place is free.
            let scores = sequences.open(4).unwrap().read(&[1, 2]);
            slow.gate.open(2);
            assert_eq!(scores.unwrap().len(), 30);
        });
    }

    #[test]
    fn a_closed_pool_reads_no_further() {
        let pool = pool(vec![Arc::new(Transformer)], 0);
        let (_handle, sequences) = sequences(&pool);
        let mut text = sequences.open(4).unwrap();
        drop(pool);
        assert_eq!(text.read(&[1]), Err(Error::Closed));
    }

    /// One place, which a slow model has; a sequence that waits for it; and requests behind that.
    #[test]
    fn a_sequence_and_requests_take_turns() {
        let slow = Slow::default();
        let pool = pool(vec![Arc::new(Transformer), Arc::new(slow.clone())], 0);
        let (_handle, sequences) = sequences(&pool);
        let requests = pool.load(&slow_spec()).unwrap();
        let (done, order) = mpsc::channel();
        thread::scope(|scope| {
            let asked = |name: &'static str| {
                let (requests, done) = (requests.clone(), done.clone());
                scope.spawn(move || {
                    ask(&requests);
                    done.send(name).unwrap();
                });
            };
            asked("first");
            slow.gate.wait_for_request();
            let mut text = sequences.open(4).unwrap();
            let done_reading = done.clone();
            scope.spawn(move || {
                text.read(&[1, 2]).unwrap();
                done_reading.send("sequence").unwrap();
            });
            // Both are behind the sequence, whichever comes first.
            while pool.shared.queue.turns() == 0 {
                thread::yield_now();
            }
            asked("second");
            asked("third");
            while pool.metrics().queue_depth.get() < 2 {
                thread::yield_now();
            }
            slow.gate.open(2);
            // Nobody opens for a third request: were both before the sequence, nothing more would come.
            let mut three: Vec<&str> = (0..3).map(|_| order.recv().unwrap()).collect();
            three.sort_unstable();
            assert_eq!((three[0], three.contains(&"sequence")), ("first", true), "{three:?}");
            slow.gate.open(1);
        });
    }
}
