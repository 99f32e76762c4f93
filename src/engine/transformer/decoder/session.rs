//! A decoder as the pool runs it: a text's tokens in, scores of the next one out. Every request is a text of its own; sequences are
//! read on where they stopped.

use std::sync::Arc;

use super::cache::Cache;
use super::gguf::Gguf;
use super::network::{Decoder, Scores};
use super::settings::Settings;
use crate::base::Datatype;
use crate::engine::error::Error;
use crate::engine::session::{Decoder as Reads, Reading, Session};
use crate::engine::spec::{LoadSpec, NamedTensor};
use crate::engine::transformer::NAME;
use crate::engine::transformer::ports::{Offer, Offers, indices, named};

/// Of one request's cache.
const CACHE_BYTES_MAX: usize = 128 * 1024 * 1024;
/// Beside weights and cache: a few hundred tokens' states, and a panel of weights as floats.
const BESIDE_BYTES: u64 = 32 * 1024 * 1024;

/// The most tokens of a request.
fn tokens_max(settings: &Settings) -> usize {
    settings.context.min(CACHE_BYTES_MAX / Cache::token_bytes(settings.layers, settings.key_width()).max(1))
}

/// What a file takes and gives.
pub(in crate::engine::transformer) fn offered(file: &[u8]) -> Result<Offers, String> {
    Ok(offers(&Settings::of(&Gguf::read(file)?)?))
}

/// What a loaded model needs: the file's bytes, which stay as they are, and one request's cache.
pub(in crate::engine::transformer) fn memory_bytes(file: &[u8]) -> Option<u64> {
    let settings = Settings::of(&Gguf::read(file).ok()?).ok()?;
    let cache = tokens_max(&settings).saturating_mul(Cache::token_bytes(settings.layers, settings.key_width()));
    Some((file.len() as u64).saturating_add(cache as u64).saturating_add(BESIDE_BYTES))
}

fn offers(settings: &Settings) -> Offers {
    let vocabulary = i64::try_from(settings.vocabulary).unwrap_or(i64::MAX);
    Offers {
        inputs: vec![Offer::new("input_ids", Datatype::Int64, &[1, -1], true)],
        outputs: vec![Offer::new("logits", Datatype::Fp32, &[1, -1, vocabulary], true)],
    }
}

/// Loads it; the weights stay in the file's bytes.
pub(in crate::engine::transformer) fn load(spec: &LoadSpec) -> Result<Box<dyn Session>, Error> {
    let failed = |reason: String| Error::Load { model: spec.title(), engine: NAME, reason };
    let gguf = Gguf::read(&spec.bytes).map_err(failed)?;
    let decoder = Decoder::load(&spec.bytes, &gguf).map_err(failed)?;
    offers(&decoder.settings).agree(spec)?;
    // The declared shape says whose scores are wanted.
    let outputs = spec.outputs.iter().map(|output| {
        let scores = if output.shape.get(1) == Some(&1) { Scores::Last } else { Scores::All };
        (Arc::clone(&output.name), scores)
    });
    let session = Text {
        model: spec.title(),
        outputs: outputs.collect(),
        tokens_max: tokens_max(&decoder.settings),
        decoder: Arc::new(decoder),
    };
    Ok(Box::new(session))
}

struct Text {
    model: String,
    decoder: Arc<Decoder>,
    outputs: Vec<(Arc<str>, Scores)>,
    tokens_max: usize,
}

impl Session for Text {
    fn decoder(&self) -> Option<&dyn Reads> {
        Some(self)
    }

    fn run(&self, inputs: &[NamedTensor]) -> Result<Vec<NamedTensor>, Error> {
        let unfit = |reason: String| Error::Unfit { what: format!("{}: {reason}", self.model) };
        let tokens = self.tokens(inputs).map_err(unfit)?;
        self.compute(&tokens).map_err(|reason| Error::Run { model: self.model.clone(), engine: NAME, reason })
    }
}

impl Reads for Text {
    fn vocabulary(&self) -> usize {
        self.decoder.settings.vocabulary
    }

    fn context_tokens(&self) -> usize {
        self.decoder.settings.context
    }

    fn token_bytes(&self) -> u64 {
        let settings = &self.decoder.settings;
        Cache::token_bytes(settings.layers, settings.key_width()) as u64
    }

    fn open(&self, tokens_max: usize) -> Result<Box<dyn Reading>, String> {
        let settings = &self.decoder.settings;
        let cache = Cache::try_new(settings.layers, settings.key_width(), tokens_max.min(settings.context))?;
        Ok(Box::new(Read { decoder: Arc::clone(&self.decoder), cache }))
    }
}

/// What was read of one sequence.
struct Read {
    decoder: Arc<Decoder>,
    cache: Cache,
}

impl Reading for Read {
    fn tokens(&self) -> usize {
        self.cache.tokens()
    }

    fn tokens_max(&self) -> usize {
        self.cache.tokens_max()
    }

    fn read(&mut self, tokens: &[u32]) -> Result<Vec<f32>, String> {
        let vocabulary = self.decoder.settings.vocabulary;
        if let Some(token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(format!("token {token}, expected 0 to {}", vocabulary.saturating_sub(1)));
        }
        if tokens.is_empty() {
            return Err("no tokens, expected one at least".to_owned());
        }
        let tokens: Vec<usize> = tokens.iter().map(|&token| token as usize).collect();
        self.decoder.read(&tokens, &mut self.cache, Scores::Last)
    }

    fn truncate(&mut self, tokens: usize) {
        self.cache.truncate(tokens);
    }

    fn grow(&mut self, tokens_max: usize) -> Result<(), String> {
        self.cache.grow(tokens_max.min(self.decoder.settings.context))
    }

    fn fork(&self, tokens: usize, tokens_max: usize) -> Result<Box<dyn Reading>, String> {
        let cache = self.cache.fork(tokens, tokens_max.min(self.decoder.settings.context))?;
        Ok(Box::new(Self { decoder: Arc::clone(&self.decoder), cache }))
    }
}

impl Text {
    fn tokens(&self, inputs: &[NamedTensor]) -> Result<Vec<usize>, String> {
        let tokens = indices(inputs, "input_ids", self.decoder.settings.vocabulary)?.unwrap_or_default();
        if tokens.is_empty() || tokens.len() > self.tokens_max {
            return Err(format!("input_ids has {} tokens, expected 1 to {}", tokens.len(), self.tokens_max));
        }
        Ok(tokens)
    }

    fn compute(&self, tokens: &[usize]) -> Result<Vec<NamedTensor>, String> {
        let vocabulary = self.decoder.settings.vocabulary;
        let answer = |(name, scores): &(Arc<str>, Scores)| {
            let mut cache = self.decoder.cache(tokens.len());
            let values = self.decoder.read(tokens, &mut cache, *scores)?;
            named(name, &[1, values.len() / vocabulary, vocabulary], values)
        };
        self.outputs.iter().map(answer).collect()
    }
}
