//! What makes a loaded model one that speaks or embeds texts: its words, made once, and gone with the model.

use std::sync::{Arc, OnceLock};

use super::decoding::decoder;
use super::models::chain;
use crate::catalog::Model;
use crate::engine::Handle;
#[cfg(feature = "text")]
use crate::generate::Embedder;
use crate::generate::{self, Language, Words};

/// The format of models that speak.
pub(super) const SPEAKS: &str = "gguf";
/// The file beside a model that makes tokens of texts.
pub(super) const TOKENIZER: &str = "tokenizer.json";
/// Tokens of a text where neither `config.json` nor the tokenizer has a bound: that of BERT.
#[cfg(feature = "text")]
const LENGTH_USUAL: usize = 512;

/// Of one loaded version.
pub(super) struct Speech {
    #[cfg_attr(not(feature = "text"), allow(dead_code, reason = "embedders read files of it"))]
    model: Arc<Model>,
    /// None: no model that speaks.
    words: Option<Result<Words, String>>,
    language: OnceLock<Result<Arc<Language>, String>>,
    #[cfg(feature = "text")]
    embedder: OnceLock<Result<Arc<Embedder>, String>>,
}

impl Speech {
    /// Of a model and its file. A vocabulary that cannot be used keeps it from speaking and from nothing else.
    pub(super) fn of(model: &Arc<Model>, file: &[u8]) -> Self {
        let speaks = model.manifest.model.format == SPEAKS;
        let words = speaks.then(|| Words::read(file).map_err(|error| error.to_string()));
        if let Some(Err(reason)) = &words {
            let about = &model.manifest.model;
            tracing::warn!(model.name = %about.name, model.version = about.version, reason, "model does not speak");
        }
        Self { words, ..Self::none(model) }
    }

    /// Of one that does not speak.
    pub(super) fn none(model: &Arc<Model>) -> Self {
        Self {
            model: Arc::clone(model),
            words: None,
            language: OnceLock::new(),
            #[cfg(feature = "text")]
            embedder: OnceLock::new(),
        }
    }

    /// Its words, if it speaks.
    pub(super) fn words(&self) -> Option<&Words> {
        self.words.as_ref()?.as_ref().ok()
    }

    /// The model as it is asked, or the reason why it cannot be.
    pub(super) fn language(
        &self,
        handle: Option<&Handle>,
        config: &generate::Config,
        metrics: &generate::Metrics,
    ) -> Result<Arc<Language>, String> {
        let make = || {
            let words = self.words.clone().ok_or("it is no language model")??;
            let decoder = handle.and_then(decoder).ok_or("its engine does not read on where it stopped")?;
            let language = Language::new(words, decoder, config, metrics).map_err(|error| chain(&error))?;
            Ok(Arc::new(language))
        };
        self.language.get_or_init(make).clone()
    }

    /// What makes its inputs of texts, or the reason why nothing does. Reads the disk the first time: not for an async thread.
    #[cfg(feature = "text")]
    pub(super) fn embedder(&self) -> Result<Arc<Embedder>, String> {
        let make = || {
            let bytes = self.model.read_file(TOKENIZER).ok_or("it has no [[file]] tokenizer.json")?;
            let bytes = bytes.map_err(|error| chain(&error))?;
            let length = match self.model.read_file("config.json") {
                Some(config) => positions(&config.map_err(|error| chain(&error))?),
                None => None,
            };
            let length = length.or_else(|| cut_at(&bytes)).unwrap_or(LENGTH_USUAL);
            Embedder::new(&bytes, length).map(Arc::new).map_err(|error| chain(&error))
        };
        self.embedder.get_or_init(make).clone()
    }
}

/// The most tokens of a text by `config.json`.
#[cfg(feature = "text")]
fn positions(config: &[u8]) -> Option<usize> {
    #[derive(serde::Deserialize)]
    struct Config {
        max_position_embeddings: usize,
        #[serde(default)]
        model_type: String,
        #[serde(default)]
        pad_token_id: Option<usize>,
    }
    let config: Config = serde_json::from_slice(config).ok()?;
    // RoBERTa and its kin count from behind the padding's number.
    let offset = match config.model_type.as_str() {
        "roberta" | "xlm-roberta" | "camembert" => config.pad_token_id.unwrap_or(1) + 1,
        _ => 0,
    };
    config.max_position_embeddings.checked_sub(offset).filter(|length| *length > 0)
}

/// The most tokens of a text by the tokenizer's own settings.
#[cfg(feature = "text")]
fn cut_at(tokenizer: &[u8]) -> Option<usize> {
    #[derive(serde::Deserialize)]
    struct Truncation {
        max_length: usize,
    }
    #[derive(serde::Deserialize)]
    struct Tokenizer {
        truncation: Option<Truncation>,
    }
    let tokenizer: Tokenizer = serde_json::from_slice(tokenizer).ok()?;
    tokenizer.truncation.map(|truncation| truncation.max_length).filter(|length| *length > 0)
}

#[cfg(all(test, feature = "text"))]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_text_is_what_the_models_files_say() {
        assert_eq!(positions(br#"{"max_position_embeddings": 512, "model_type": "bert"}"#), Some(512));
        let roberta = br#"{"max_position_embeddings": 514, "model_type": "xlm-roberta", "pad_token_id": 1}"#;
        assert_eq!(positions(roberta), Some(512));
        assert_eq!(positions(br#"{"max_position_embeddings": 1, "model_type": "roberta"}"#), None);
        assert_eq!(positions(b"{}"), None);
        assert_eq!(cut_at(br#"{"truncation": {"max_length": 128, "stride": 0}, "model": {}}"#), Some(128));
        assert_eq!(cut_at(br#"{"truncation": null}"#), None);
    }
}
