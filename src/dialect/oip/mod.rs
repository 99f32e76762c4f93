//! The Open Inference Protocol, version 2, over HTTP, as a language of models' servers: texts as a tensor of `infer` for
//! vectors, and the text of `generate` and `generate_stream` for what follows it (the protocol's `generate_rest.yaml`,
//! Triton's generate extension). Nobody asks here in it.
//!
//! Text does not go over `infer`: Triton's vLLM backend is decoupled by itself, and `infer` over HTTP refuses such models.

mod error;
mod generate;
mod infer;
mod text;
mod told;

use std::collections::BTreeMap;

use serde_json::Value;

pub(crate) use error::{error, read_error};
use generate::Piece;
pub(crate) use generate::write_generate;
pub(crate) use infer::{vectors, write_texts};
pub use text::TextReader;
pub(crate) use told::{Heard, Told};

/// How a model's tensors are called: the protocol leaves that to each model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OipModel<'a> {
    /// The input that takes texts.
    pub input: &'a str,
    /// The output; none: `text_output` of generated text, the first of floating point numbers for vectors.
    pub output: Option<&'a str>,
    /// Whether texts have the shape `[n, 1]` instead of `[n]`.
    pub column: bool,
    /// Whether vectors may be cut to the dimensions that a caller wants, and scaled to length 1 again: right only for
    /// models that were trained for it (Matryoshka).
    pub shorten: bool,
    /// The parameter for texts that end an answer.
    pub stop: &'a str,
    /// Parameters of every request.
    pub parameters: Option<&'a BTreeMap<String, Value>>,
}

impl OipModel<'_> {
    /// What a model is taken for of which nothing is said: `text_input`, as Triton's backends for language models have it.
    pub const DEFAULT: OipModel<'static> =
        OipModel { input: "text_input", output: None, column: false, shorten: false, stop: "stop", parameters: None };

    fn has(&self, parameter: &str) -> bool {
        self.parameters.is_some_and(|all| all.contains_key(parameter))
    }
}
