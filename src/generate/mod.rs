//! Language models on this box: from messages to tokens, from scores to an answer, one token at a time.
//!
//! A [`Language`] is a GGUF file's vocabulary and chat template with a [`Decoder`] that scores tokens. [`Language::chat`] makes the
//! [`Prompt`] of messages, [`Language::start`] begins a [`Generation`], and each [`Generation::step`] computes one token or a part
//! of the prompt; [`Generation::send_to`] does so until somebody has the answer or nobody wants it. Text comes out in whole characters,
//! with thoughts and calls of tools apart, and nothing that may yet become a stop. What a sequence has read is kept for the next prompt
//! that begins alike. With the feature `text` an [`Embedder`] makes an encoder's batches of texts, and vectors of what it computes.
//!
//! Never here: weights, threads, clocks, chance (a request has its seed), dialects, prices. What was said never steers: names of control
//! tokens in messages stay text. A form that cannot be promised is refused: JSON objects, schemas and calls of tools are promised.
//!
//! Limits: [`Config`]; 2^20 tokens of a vocabulary, 1 MiB of a template, 5 million steps and 16 MiB of what it writes, 16 stops of
//! 1,024 bytes, 1,024 biases, 20 alternatives, 256 KiB of a tool's call, 64 levels of JSON; of a schema 256 KiB, 4,096 schemas and values, 64 levels, 512 properties. Texts are not normalised (NFC) before they
//! become tokens, as in llama.cpp.

mod config;
mod controls;
mod decoder;
#[cfg(feature = "text")]
mod embed;
mod error;
mod fake;
#[cfg(test)]
mod fixture;
mod generation;
mod grammar;
mod json;
mod language;
mod lead;
mod merge;
mod messages;
mod metadata;
mod metrics;
#[cfg(test)]
mod promises;
mod reply;
mod sampler;
mod sampling;
mod schema;
mod script;
mod sequences;
mod shape;
mod split;
mod template;
#[cfg(test)]
mod tests;
mod text;
mod tokenizer;
mod vocabulary;
mod words;

pub use config::Config;
pub use decoder::{Decoder, Sequence};
#[cfg(feature = "text")]
pub use embed::{Batch, Embedder, Long};
pub use error::Error;
pub use fake::{Counting, Fake};
pub use generation::{Chosen, Event, Finish, Format, Generation, Terms, Usage};
pub use language::{Language, Prompt};
pub use metrics::Metrics;
pub use reply::{Piece, Reader, ToolCall};
pub use sampling::Sampling;
pub use script::{Script, ScriptFiles};
pub use template::Chat;
pub use tokenizer::Tokenizer;
pub use words::{About, Words};
