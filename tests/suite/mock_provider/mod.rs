//! A provider of models that has none: it speaks every dialect, in the pace that it is told, and fails in the ways in
//! which providers fail. For tests, and as a program for benchmarks (`benches/answer/mock.rs`).
//!
//! What it does with a request: the fault that waits in the queue ([`Mock::next`]), else the one that the model's name
//! says ([`Fault::of_model`], so that a test can reach it through a gateway), else what [`Behaviour`] says.

#![allow(dead_code, unused_imports, reason = "a test or a benchmark uses a part of it")]
#![allow(clippy::needless_pass_by_value, reason = "`json!` only looks at what it is given")]

mod anthropic;
mod bedrock;
mod behaviour;
mod body;
mod gemini;
mod oip;
mod ollama;
mod openai;
mod routes;
mod server;

pub(crate) use bedrock::{event_message, read_events};
pub(crate) use behaviour::{Behaviour, Fault, Seen};
pub(crate) use server::Mock;
