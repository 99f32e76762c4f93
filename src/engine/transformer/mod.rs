//! Transformers out of the files that they are published in: encoders of texts in safetensors, decoders in GGUF.
//!
//! The networks are written here, over the products of the crate `gemm` and, where weights are quantised and a token comes
//! alone, over products in whole numbers of our own; nothing is traced, compiled or read from a graph. A
//! file's header, its `config.json` and every tensor's name, type and shape are checked against each other before anything is
//! computed. Weights stay in the file's bytes where they can: 32-bit floats and all quantised ones are never copied.
//!
//! Never here: texts (their tokens are made in front of it), chance (the next token is the caller's choice), threads.
//!
//! Limits: safetensors headers of 16 MiB with 100,000 tensors, GGUF files with 65,536 values and tensors; 32,768 tokens in a
//! request of an encoder, 128 MiB of keys and values in one of a decoder.

mod decoder;
mod encoder;
mod math;
mod ports;
mod safetensors;
#[cfg(test)]
mod tests;
mod weights;

use std::sync::Arc;

use super::error::Error;
use super::onnx::Signature;
use super::session::{Engine, Fit, Session};
use super::spec::LoadSpec;
use ports::{Offer, Offers};

const NAME: &str = "transformer";

/// Reads `safetensors` and `gguf`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Transformer;

impl Engine for Transformer {
    fn name(&self) -> &'static str {
        NAME
    }

    fn reads(&self, format: &str) -> bool {
        matches!(format, "safetensors" | "gguf")
    }

    fn suits(&self, spec: &LoadSpec) -> Result<Fit, String> {
        offered(spec).map(|_| Fit::Best)
    }

    fn load(&self, spec: &LoadSpec) -> Result<Box<dyn Session>, Error> {
        if spec.format == "gguf" { decoder::load(spec) } else { encoder::load(spec) }
    }

    fn memory_bytes(&self, spec: &LoadSpec) -> Option<u64> {
        (spec.format == "gguf").then(|| decoder::memory_bytes(&spec.bytes)).flatten()
    }
}

/// What the model's files say that it takes and gives.
fn offered(spec: &LoadSpec) -> Result<Offers, String> {
    if spec.format == "gguf" { decoder::offered(&spec.bytes) } else { encoder::offered(spec) }
}

/// What stands for a manifest without inputs or outputs: of a decoder the last token's scores.
pub(super) fn signature(spec: &LoadSpec) -> Result<Signature, String> {
    let Offers { inputs, outputs } = offered(spec)?;
    let usual = |offers: Vec<Offer>| offers.into_iter().filter(|offer| offer.usual).map(|offer| offer.spec).collect();
    let mut signature = Signature { inputs: usual(inputs), outputs: usual(outputs) };
    if spec.format == "gguf" {
        signature.outputs.iter_mut().for_each(|output| output.shape[1] = 1);
    }
    Ok(signature)
}

/// A file beside the model.
fn file<'a>(spec: &'a LoadSpec, name: &str) -> Result<&'a [u8], String> {
    let bytes: Option<&Arc<[u8]>> = spec.files.get(name);
    bytes.map(AsRef::as_ref).ok_or_else(|| format!("{name}: expected beside the model, in [[file]] with its sha256"))
}
