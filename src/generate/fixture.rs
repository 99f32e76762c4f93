//! What `tests/fixtures/generate.py` wrote.

use super::tokenizer::Tokenizer;

/// A file of metadata without tensors.
pub(super) fn gguf(name: &str) -> &'static [u8] {
    match name {
        "gpt-2" => include_bytes!("../../tests/fixtures/generate/gpt-2.gguf"),
        "llama-bpe" => include_bytes!("../../tests/fixtures/generate/llama-bpe.gguf"),
        "qwen2" => include_bytes!("../../tests/fixtures/generate/qwen2.gguf"),
        "sentences" => include_bytes!("../../tests/fixtures/generate/sentences.gguf"),
        "smollm" => include_bytes!("../../tests/fixtures/generate/smollm.gguf"),
        "tekken" => include_bytes!("../../tests/fixtures/generate/tekken.gguf"),
        other => panic!("no fixture {other}"),
    }
}

pub(super) fn tokenizer(name: &str) -> Tokenizer {
    Tokenizer::of_gguf(gguf(name)).unwrap()
}

/// What other libraries made of texts, chats and scores.
pub(super) fn expected(name: &str) -> serde_json::Value {
    let bytes = match name {
        "tokens" => include_str!("../../tests/fixtures/generate/tokens.json"),
        "chats" => include_str!("../../tests/fixtures/generate/chats.json"),
        "sampled" => include_str!("../../tests/fixtures/generate/sampled.json"),
        other => panic!("no fixture {other}"),
    };
    serde_json::from_str(bytes).unwrap()
}
