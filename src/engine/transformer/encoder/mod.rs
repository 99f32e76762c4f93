//! Encoders of texts out of safetensors: BERT and its kin, with their heads and sentence embeddings.

mod network;
mod pooling;
mod session;
mod settings;

pub(super) use session::{load, offered};
#[cfg(test)]
pub(super) use settings::tests::tiny;
