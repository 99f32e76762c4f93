//! The models of this box as [`answer`](super::answer) asks them: a chat or a completion of a language model, vectors of an
//! encoder.
//!
//! A request becomes a prompt and terms (`generate`), is computed token by token on a thread of its own whose every step takes
//! its turn in the engine, and what comes is written in OpenAI's dialect. A caller who leaves ends the work with the next
//! token.
//!
//! Models are those of the catalog: a GGUF file speaks; a model with a `tokenizer.json` and an output that is an embedding
//! embeds. They are named as everywhere, `name` or `name@alias`, and loaded on request where that is set.
//!
//! Never here: who may ask, routes, limits, sockets.
//!
//! Limits: `[generate]`; 16 events wait for whoever reads an answer, then the model waits.

mod embedding;
mod failure;
mod library;
mod said;
mod speaking;
mod terms;

#[cfg(feature = "text")]
pub use embedding::Embedding;
pub use library::{CpuTime, Languages, Parts};
