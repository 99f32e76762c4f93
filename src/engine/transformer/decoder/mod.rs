//! Decoders of texts out of GGUF: the Llama family with quantised weights.

mod blocks;
mod cache;
mod gguf;
mod lanes;
mod matrix;
mod network;
mod session;
mod settings;
mod whole;

pub(super) use session::{load, memory_bytes, offered};
