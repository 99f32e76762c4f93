//! An encoder as the pool runs it: whole numbers of tokens in, states, embeddings or scores out.

use std::sync::Arc;

use super::network::{Network, Tokens};
use super::pooling::Pooling;
use super::settings::{Head, Settings};
use crate::base::Datatype;
use crate::engine::error::Error;
use crate::engine::session::Session;
use crate::engine::spec::{LoadSpec, NamedTensor};
use crate::engine::transformer::ports::{Offer, Offers, indices, named};
use crate::engine::transformer::safetensors::Header;
use crate::engine::transformer::weights::Source;
use crate::engine::transformer::{NAME, file};

/// Tokens of one request, padding included.
const TOKENS_MAX: usize = 32_768;
/// Texts are computed together up to so many tokens: more would only need more memory.
const TOKENS_TOGETHER: usize = 1024;

/// An output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gives {
    States,
    Pooled,
    Embedding,
    Logits,
}

/// What a file with these files beside it takes and gives.
pub(in crate::engine::transformer) fn offered(spec: &LoadSpec) -> Result<Offers, String> {
    let settings = Settings::parse(file(spec, "config.json")?)?;
    let header = Header::read(&spec.bytes)?;
    let has_pooler = header.tensors.keys().any(|name| name.ends_with("pooler.dense.weight"));
    Ok(offers(&settings, has_pooler, pooling(spec, &settings)?).0)
}

fn pooling(spec: &LoadSpec, settings: &Settings) -> Result<Option<Pooling>, String> {
    let Some(pooling) = spec.files.get("pooling.json") else { return Ok(None) };
    Pooling::parse(pooling, spec.files.get("modules.json").map(AsRef::as_ref), settings.hidden).map(Some)
}

/// With what each output is, in the outputs' order.
fn offers(settings: &Settings, has_pooler: bool, pooling: Option<Pooling>) -> (Offers, Vec<Gives>) {
    let wide = |size: usize| i64::try_from(size).unwrap_or(i64::MAX);
    let (hidden, labels) = (wide(settings.hidden), wide(settings.labels.len()));
    let input = |name: &str, usual: bool| Offer::new(name, Datatype::Int64, &[-1, -1], usual);
    let mut inputs = vec![input("input_ids", true), input("attention_mask", true)];
    if settings.types > 0 {
        inputs.push(input("token_type_ids", settings.types > 1));
    }
    let plain = pooling.is_none() && settings.head == Head::None;
    let mut outputs = vec![(Offer::new("last_hidden_state", Datatype::Fp32, &[-1, -1, hidden], plain), Gives::States)];
    if has_pooler {
        outputs.push((Offer::new("pooler_output", Datatype::Fp32, &[-1, hidden], false), Gives::Pooled));
    }
    if pooling.is_some() {
        outputs.push((Offer::new("sentence_embedding", Datatype::Fp32, &[-1, hidden], true), Gives::Embedding));
    }
    match settings.head {
        Head::None => {}
        Head::Sequence => outputs.push((Offer::new("logits", Datatype::Fp32, &[-1, labels], true), Gives::Logits)),
        Head::Token => outputs.push((Offer::new("logits", Datatype::Fp32, &[-1, -1, labels], true), Gives::Logits)),
    }
    let (outputs, gives) = outputs.into_iter().unzip();
    (Offers { inputs, outputs }, gives)
}

/// Loads it; the weights stay in the file's bytes where they are 32-bit floats.
pub(in crate::engine::transformer) fn load(spec: &LoadSpec) -> Result<Box<dyn Session>, Error> {
    let failed = |reason: String| Error::Load { model: spec.title(), engine: NAME, reason };
    let settings = Settings::parse(file(spec, "config.json").map_err(failed)?).map_err(failed)?;
    let header = Header::read(&spec.bytes).map_err(failed)?;
    let source = Source::new(&spec.bytes, &header, "embeddings.word_embeddings.weight").map_err(failed)?;
    let pooling = pooling(spec, &settings).map_err(failed)?;
    let network = Network::load(settings, &source).map_err(failed)?;
    let (offers, gives) = offers(&network.settings, network.has_pooler(), pooling);
    let outputs = offers.agree(spec)?.into_iter().zip(&spec.outputs);
    let outputs = outputs.map(|(at, declared)| (Arc::clone(&declared.name), gives[at])).collect();
    Ok(Box::new(Encoder { model: spec.title(), network, pooling, outputs }))
}

struct Encoder {
    model: String,
    network: Network,
    pooling: Option<Pooling>,
    outputs: Vec<(Arc<str>, Gives)>,
}

impl Session for Encoder {
    fn run(&self, inputs: &[NamedTensor]) -> Result<Vec<NamedTensor>, Error> {
        // All that can be wrong here are the tokens.
        self.compute(inputs).map_err(|reason| Error::Unfit { what: format!("{}: {reason}", self.model) })
    }
}

impl Encoder {
    fn compute(&self, inputs: &[NamedTensor]) -> Result<Vec<NamedTensor>, String> {
        let settings = &self.network.settings;
        let shape = inputs.iter().find(|input| &*input.name == "input_ids").map_or(&[][..], |ids| ids.tensor.shape());
        let &[texts, length] = shape else { return Err("input_ids has no two dimensions".to_owned()) };
        if let Some(other) = inputs.iter().find(|input| input.tensor.shape() != shape) {
            return Err(format!(
                "{} has shape {:?}, expected that of input_ids, {shape:?}",
                other.name,
                other.tensor.shape()
            ));
        }
        if length > settings.length_max() {
            return Err(format!("input_ids has {length} tokens a text, the model takes {}", settings.length_max()));
        }
        let count = texts.saturating_mul(length);
        if count > TOKENS_MAX || texts > TOKENS_MAX {
            return Err(format!("input_ids has shape {shape:?}: {TOKENS_MAX} tokens of all texts are the most"));
        }
        let ids = indices(inputs, "input_ids", settings.vocabulary)?.unwrap_or_default();
        // Any number but 0 is no padding.
        let mask = indices(inputs, "attention_mask", usize::MAX)?;
        let mask: Vec<bool> = mask.map_or_else(|| vec![true; count], |mask| mask.into_iter().map(|m| m != 0).collect());
        let types = indices(inputs, "token_type_ids", settings.types)?.unwrap_or_else(|| vec![0; count]);
        let mut values: Vec<Vec<f32>> = vec![Vec::new(); self.outputs.len()];
        let together = (TOKENS_TOGETHER / length.max(1)).max(1) * length;
        if together > 0 {
            let parts = ids.chunks(together).zip(mask.chunks(together)).zip(types.chunks(together));
            for ((ids, mask), types) in parts {
                self.part(&Tokens { length, ids, mask, types }, &mut values);
            }
        } else if texts > 0 {
            return Err("input_ids has no tokens".to_owned());
        }
        let shapes = self.outputs.iter().map(|(_, gives)| match gives {
            Gives::States => vec![texts, length, settings.hidden],
            Gives::Pooled | Gives::Embedding => vec![texts, settings.hidden],
            Gives::Logits if settings.head == Head::Token => vec![texts, length, settings.labels.len()],
            Gives::Logits => vec![texts, settings.labels.len()],
        });
        let outputs = self.outputs.iter().zip(shapes).zip(values);
        outputs.map(|(((name, _), shape), values)| named(name, &shape, values)).collect()
    }

    fn part(&self, tokens: &Tokens<'_>, values: &mut [Vec<f32>]) {
        let (hidden, length) = (self.network.settings.hidden, tokens.length);
        let states = self.network.states(tokens);
        // Of each text.
        let first: Vec<f32> =
            states.chunks_exact(length * hidden).flat_map(|states| &states[..hidden]).copied().collect();
        for ((_, gives), values) in self.outputs.iter().zip(values) {
            match gives {
                Gives::States => values.extend_from_slice(&states),
                Gives::Pooled => values.extend(self.network.pooled(&first).unwrap_or_default()),
                Gives::Logits => {
                    let of = if self.network.settings.head == Head::Token { &states } else { &first };
                    values.extend(self.network.scores(of).unwrap_or_default());
                }
                Gives::Embedding => {
                    let Some(pooling) = self.pooling else { continue };
                    let mut embedding = vec![0.0; hidden];
                    for (states, mask) in states.chunks_exact(length * hidden).zip(tokens.mask.chunks_exact(length)) {
                        pooling.pool(states, mask, &mut embedding);
                        values.extend_from_slice(&embedding);
                    }
                }
            }
        }
    }
}
