//! What a GGUF file says of speaking: its vocabulary, its template, and what it is.

use std::sync::Arc;

use super::error::Error;
use super::metadata::Metadata;
use super::template::Template;
use super::tokenizer::Tokenizer;

/// Bytes of a word that describes a model; a longer one is left out.
const WORD_BYTES_MAX: usize = 64;

/// What a model is, as its file says; each may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// `general.architecture`, such as `qwen2`.
    pub architecture: String,
    /// `general.size_label`, such as `0.5B`.
    pub size: String,
    /// `general.file_type` as llama.cpp calls it, such as `Q4_K_M`.
    pub quantization: String,
}

/// A model's vocabulary and template, without the model. Cheap to clone.
#[derive(Clone)]
pub struct Words {
    pub(super) tokenizer: Arc<Tokenizer>,
    pub(super) template: Option<Arc<Template>>,
    about: Arc<About>,
}

impl Words {
    /// Of a GGUF file's bytes, which are not kept.
    ///
    /// # Errors
    /// [`Error::File`] if vocabulary or template cannot be used.
    pub fn read(file: &[u8]) -> Result<Self, Error> {
        let metadata = Metadata::read(file)?;
        let tokenizer = Tokenizer::of(&metadata)?;
        let template = Template::new("tokenizer.chat_template", metadata.text("tokenizer.chat_template"), &tokenizer)?;
        let word = |key: &str| metadata.text(key).filter(|word| word.len() <= WORD_BYTES_MAX).unwrap_or("").to_owned();
        let about = About {
            architecture: word("general.architecture"),
            size: word("general.size_label"),
            quantization: metadata.whole("general.file_type").map_or("", quantization).to_owned(),
        };
        Ok(Self { tokenizer: Arc::new(tokenizer), template: template.map(Arc::new), about: Arc::new(about) })
    }

    /// What the model is.
    pub fn about(&self) -> &About {
        &self.about
    }
}

impl std::fmt::Debug for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Words").field("tokenizer", &self.tokenizer).finish_non_exhaustive()
    }
}

/// The names of `llama_ftype` in llama.cpp's `llama.h`, for those that can be loaded here.
fn quantization(file_type: i128) -> &'static str {
    match file_type {
        0 => "F32",
        1 => "F16",
        2 => "Q4_0",
        3 => "Q4_1",
        7 => "Q8_0",
        8 => "Q5_0",
        9 => "Q5_1",
        10 => "Q2_K",
        11 => "Q3_K_S",
        12 => "Q3_K_M",
        13 => "Q3_K_L",
        14 => "Q4_K_S",
        15 => "Q4_K_M",
        16 => "Q5_K_S",
        17 => "Q5_K_M",
        18 => "Q6_K",
        32 => "BF16",
        _ => "",
    }
}
