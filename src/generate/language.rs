//! A language model as it is asked: its tokenizer, its template, and the decoder that scores tokens.

use std::sync::{Arc, OnceLock};

use super::config::Config;
use super::decoder::Decoder;
use super::error::Error;
use super::generation::{Format, Generation, Terms};
use super::grammar::Grammars;
use super::metrics::Metrics;
use super::reply::{CALL, Forms};
use super::sequences::Sequences;
use super::template::Chat;
use super::tokenizer::Tokenizer;
use super::words::Words;

/// What a model shall go on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    pub(super) tokens: Vec<u32>,
    /// What comes is the beginning of a text and not the rest of one.
    pub(super) begins: bool,
    pub(super) forms: Forms,
}

impl Prompt {
    /// Its tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }
}

/// A model that can be asked.
pub struct Language {
    words: Words,
    context_tokens: usize,
    pub(super) config: Config,
    pub(super) metrics: Metrics,
    sequences: Arc<Sequences>,
    /// Made when the first schema comes.
    grammars: OnceLock<Result<Grammars, Error>>,
}

impl Language {
    /// Of a GGUF file's bytes and the decoder that was loaded from them. The bytes are not kept.
    ///
    /// # Errors
    /// [`Error::File`] if vocabulary or template cannot be used, or are not the decoder's.
    pub fn open(file: &[u8], decoder: Arc<dyn Decoder>, config: &Config, metrics: &Metrics) -> Result<Self, Error> {
        Self::new(Words::read(file)?, decoder, config, metrics)
    }

    /// Of what was read of the file, and the decoder that was loaded from it.
    ///
    /// # Errors
    /// [`Error::File`] if they are not of one model.
    pub fn new(words: Words, decoder: Arc<dyn Decoder>, config: &Config, metrics: &Metrics) -> Result<Self, Error> {
        let tokenizer = &words.tokenizer;
        if tokenizer.len() > decoder.vocabulary() {
            let (words, scores) = (tokenizer.len(), decoder.vocabulary());
            return Err(Error::File(format!("tokenizer.ggml.tokens has {words} tokens, the model scores {scores}")));
        }
        Ok(Self {
            words,
            context_tokens: config.context_tokens_max.min(decoder.context_tokens()),
            sequences: Arc::new(Sequences::new(decoder, config, metrics.clone())),
            config: config.clone(),
            metrics: metrics.clone(),
            grammars: OnceLock::new(),
        })
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.words.tokenizer
    }

    /// The most tokens of prompt and answer together.
    pub fn context_tokens(&self) -> usize {
        self.context_tokens
    }

    /// Whether it can be asked with messages.
    pub fn takes_messages(&self) -> bool {
        self.words.template.is_some()
    }

    /// The prompt of messages.
    ///
    /// # Errors
    /// [`Error::Request`] and [`Error::Template`] say what is wrong with the messages; [`Error::Unsupported`] what this
    /// model does not take.
    pub fn chat(&self, chat: &Chat<'_>) -> Result<Prompt, Error> {
        let template = self.words.template.as_ref().ok_or_else(|| Error::Unsupported {
            what: "a chat".to_owned(),
            instead: "the model's file has no chat template, so it completes texts only".to_owned(),
        })?;
        let (text, forms) = template.turns(chat, &*self.words.tokenizer)?;
        Ok(Prompt { tokens: self.words.tokenizer.encode_turns(&text), begins: true, forms })
    }

    /// The prompt of a text that is to be completed.
    pub fn text(&self, text: &str) -> Prompt {
        Prompt { tokens: self.words.tokenizer.encode(text), begins: false, forms: Forms::default() }
    }

    /// The prompt of tokens that the caller has made.
    ///
    /// # Errors
    /// [`Error::Request`] names one that there is not.
    pub fn tokens(&self, tokens: Vec<u32>) -> Result<Prompt, Error> {
        match tokens.iter().find(|&&token| token as usize >= self.words.tokenizer.len()) {
            Some(token) => {
                let expected = format!("tokens of 0 to {}", self.words.tokenizer.len() - 1);
                Err(Error::request("prompt", expected, token.to_string()))
            }
            None => Ok(Prompt { tokens, begins: false, forms: Forms::default() }),
        }
    }

    /// Begins an answer; nothing is computed yet. Prompts of one `partition` (a tenant and a key, say) may begin with what
    /// another one of it has read, and no others. May copy what another one has read: like [`Self::chat`], whose template takes its
    /// steps, this is for a thread that may block; so is the grammar of a schema.
    ///
    /// # Errors
    /// [`Error::Request`] and [`Error::Unsupported`] are the caller's; [`Error::TooLong`]; [`Error::Busy`] and
    /// [`Error::NoRoom`] pass.
    pub fn start(self: &Arc<Self>, mut prompt: Prompt, terms: Terms, partition: &str) -> Result<Generation, Error> {
        if prompt.tokens.is_empty() {
            return Err(Error::request("prompt", "at least one token", "none"));
        }
        if matches!(terms.format, Format::Call { .. }) && !prompt.forms.thinks {
            // The call is begun for the model, which goes on with what the grammar holds it to.
            self.words.tokenizer.extend(&format!("{CALL}\n"), false, &mut prompt.tokens);
        }
        let room = self.context_tokens.saturating_sub(prompt.tokens.len());
        if room == 0 {
            let most = self.context_tokens.saturating_sub(1);
            return Err(Error::TooLong { tokens: prompt.tokens.len(), most });
        }
        let wanted = terms.tokens_max.unwrap_or(self.config.answer_tokens).min(self.config.answer_tokens_max);
        if wanted == 0 {
            return Err(Error::request("max_tokens", "at least 1", "0"));
        }
        Generation::begin(self, prompt, terms, wanted.min(room), |prompt, tokens_max| {
            self.sequences.take(partition, prompt, tokens_max)
        })
    }

    /// What grammars are made with.
    pub(super) fn grammars(&self) -> Result<&Grammars, Error> {
        self.grammars.get_or_init(|| Grammars::new(&self.words.tokenizer)).as_ref().map_err(Clone::clone)
    }

    /// Forgets what is kept for prompts that begin alike: everybody's, or one partition's.
    pub fn forget(&self, partition: Option<&str>) {
        self.sequences.forget(partition);
    }
}

impl std::fmt::Debug for Language {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Language").field("tokenizer", &self.words.tokenizer).finish_non_exhaustive()
    }
}
