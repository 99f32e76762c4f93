//! The dialects in which models are asked: OpenAI's chat and responses, Anthropic's messages, those of Gemini, Ollama and
//! Bedrock, of callers Google's interactions, and of servers the Open Inference Protocol; what a request says, and its translation, its answer's, its stream's and its errors', into another one.
//!
//! A request is read once for its [`Facts`]. [`request`] makes of it what the model's server wants, [`answer`] or a
//! [`Stream`] make of what comes back what the caller wants, [`Failure`] does it for errors. Dialects are translated pair
//! by pair ([`can_translate`]): what one side cannot say is either refused with its name or named in
//! [`Outgoing::left_out`], and members that nobody here knows pass through. In the same dialect bytes pass through.
//!
//! Never here: sockets, headers, keys, prices, a clock, chance, and who may do what. Prompts and answers appear in no
//! error and no log of this room.
//!
//! Limits: bodies are bounded by whoever reads them; a frame of a stream and the text kept of one by [`Limits`]. JSON may
//! be nested 128 deep where it is looked into.
//!
//! To add a dialect: its folder (what its bodies look like, one reader and one writer), an arm in `frame.rs` for its
//! framing, in `facts.rs` and `walk.rs` for its members, in `failure.rs` for its errors, in `same/` for passing through,
//! and a file in `pairs/` for each dialect beside it; or, where one side is Gemini, Ollama, Bedrock or interactions, a reader and a
//! writer of its requests in `talk/`, who listens to its answers in `hear/`, who tells it answers in `tell/`, and rows in
//! `pairs/between.rs`.

mod anthropic;
mod asked;
mod bedrock;
mod chat;
mod count;
mod embeddings;
mod error;
mod event_stream;
mod facts;
mod failure;
mod frame;
mod gemini;
mod hear;
mod interactions;
mod json;
mod kind;
mod lines;
mod listing;
mod local;
mod metrics;
mod oip;
mod ollama;
mod pair;
mod pairs;
mod question;
mod responses;
mod same;
mod sse;
mod stream;
mod talk;
mod tell;
#[cfg(test)]
mod trial;
mod turn;
mod usage;
mod walk;
mod wants;
mod write;

pub use asked::{Asked, Limits};
pub use count::estimate_tokens;
pub use embeddings::EmbeddingsRequest;
pub use error::Error;
pub use facts::Facts;
pub use failure::{Failure, FailureKind};
pub use gemini::{GeminiArray, GeminiCall, gemini_call, gemini_models, gemini_path, gemini_tokens, vertex_path};
pub use kind::{Dialect, Finish, Operation};
pub use listing::{ModelEntry, model_entry, model_list, token_count};
pub use local::{
    ChatRequest, ChatWriter, CompletionRequest, CompletionWriter, LocalAnswer, LocalCall, LocalChoice, LocalPrompt,
    LocalSettings, LocalToken, completion_body,
};
pub use metrics::Metrics;
pub use oip::{OipModel, TextReader};
pub use ollama::{OllamaModel, ollama_tags};
pub use pair::{Answer, Outgoing, Step, Target, answer, can_translate, request};
pub use pairs::{operation_there, text_request};
pub use question::{UserText, user_text};
pub use stream::Stream;
pub use usage::{Served, Usage};
