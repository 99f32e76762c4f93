//! Which tokens may come next if an answer is to be what a schema describes: `llguidance`'s grammars over this vocabulary.
//!
//! It has its own order of a vocabulary, a tree of bytes, which is made once for a model, when the first schema comes. Its tokenizers stay
//! out: it would ask one only to force tokens, and here the model chooses among those that fit.

use std::sync::Arc;

use llguidance::api::{ParserLimits, StopReason, TopLevelGrammar};
use llguidance::toktrie::{
    ApproximateTokEnv, INVALID_TOKEN, InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie,
};
use llguidance::{Matcher, ParserFactory};

use super::error::Error;
use super::schema::Schema;
use super::tokenizer::Tokenizer;

/// The tree takes tokens of at most 1,024 bytes; a longer one is never chosen here.
const TOKEN_BYTES_MAX: usize = 1000;
/// It numbers its nodes, of which every byte may make one, with 22 bits.
const VOCABULARY_BYTES_MAX: usize = (1 << 22) - 1;
/// Of what the library says against a schema.
const REASON_CHARACTERS: usize = 300;

/// Smaller than the library's where memory is meant: 20,000 states are 40 MB at most, while an answer is made.
fn limits() -> ParserLimits {
    ParserLimits {
        max_items_in_row: 1000,
        initial_lexer_fuel: 500_000,
        step_lexer_fuel: 200_000,
        step_max_items: 50_000,
        max_lexer_states: 20_000,
        max_grammar_size: 100_000,
        precompute_large_lexemes: true,
        verbose_errors: false,
    }
}

/// What all grammars of one model share.
pub(super) struct Grammars {
    factory: ParserFactory,
}

impl Grammars {
    /// # Errors
    /// [`Error::Unsupported`] if the vocabulary is larger than the tree of it may be.
    pub(super) fn new(tokenizer: &Tokenizer) -> Result<Self, Error> {
        let unable = |why: String| Error::Unsupported {
            what: "a schema or a tool that must be called".to_owned(),
            instead: why,
        };
        let tokens = u32::try_from(tokenizer.len()).unwrap_or(u32::MAX);
        let ends: Vec<u32> = (0..tokens).filter(|&token| tokenizer.is_end(token)).collect();
        let word = |token: u32| match tokenizer.piece(token) {
            piece if piece.len() > TOKEN_BYTES_MAX || tokenizer.is_end(token) => Vec::new(),
            piece => piece.to_vec(),
        };
        let words: Vec<Vec<u8>> = (0..tokens).map(word).collect();
        let bytes: usize = words.iter().map(Vec::len).sum();
        if bytes > VOCABULARY_BYTES_MAX {
            return Err(unable(format!("this one has {bytes} bytes of tokens, the most is {VOCABULARY_BYTES_MAX}")));
        }
        let info = TokRxInfo::new(tokens, ends.first().copied().unwrap_or(INVALID_TOKEN));
        let mut trie = TokTrie::from(&info, &words);
        if !ends.is_empty() {
            trie = trie.with_eos_tokens(&ends);
        }
        let vocabulary: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        // Without its slices of the vocabulary: they were measured to take 50 MB of 150,000 tokens, and to save no time.
        let factory = ParserFactory::new(&vocabulary, InferenceCapabilities::default(), &[]);
        let mut factory = factory.map_err(|error| unable(reason(&error)))?;
        factory.quiet();
        *factory.limits_mut() = limits();
        Ok(Self { factory })
    }

    /// The grammar of one answer. Takes milliseconds, with a large schema more.
    ///
    /// # Errors
    /// [`Error::Request`] says what no grammar can be made of.
    pub(super) fn of(&self, field: &str, schema: Schema) -> Result<Grammar, Error> {
        let parser = self.factory.create_parser(TopLevelGrammar::from_json_schema(schema.into_value()));
        let parser = parser.map_err(|error| {
            let expected = "a schema of those keywords that docs/local-llm.md names";
            Error::request(field, expected, reason(&error))
        })?;
        let mut grammar =
            Grammar { matcher: Matcher::new(Ok(parser)), mask: SimpleVob::new(), field: field.to_owned() };
        grammar.look()?;
        Ok(grammar)
    }
}

/// How far one answer is.
pub(super) struct Grammar {
    matcher: Matcher,
    /// Tokens that may come next.
    mask: SimpleVob,
    field: String,
}

impl Grammar {
    /// Whether this token may come next; one that ends the answer only if nothing is missing.
    pub(super) fn may(&self, token: u32) -> bool {
        (token as usize) < self.mask.len() && self.mask.is_allowed(token)
    }

    /// Reads on by one token that may come next.
    ///
    /// # Errors
    /// [`Error::Request`] if what may come behind it takes more than its bounds to find out.
    pub(super) fn read(&mut self, token: u32) -> Result<(), Error> {
        self.matcher.consume_token(token).map_err(|error| self.beyond(&error))?;
        self.look()
    }

    /// Whether nothing may follow.
    pub(super) fn is_done(&self) -> bool {
        matches!(
            self.matcher.stop_reason(),
            StopReason::NoExtension | StopReason::NoExtensionBias | StopReason::EndOfSentence
        )
    }

    fn look(&mut self) -> Result<(), Error> {
        if !self.is_done() {
            self.mask = self.matcher.compute_mask().map_err(|error| self.beyond(&error))?;
        }
        Ok(())
    }

    fn beyond(&self, error: &dyn std::fmt::Display) -> Error {
        let why = first_line(&error.to_string());
        let (expected, given) = match why.as_str() {
            "NoExtensionBias" => ("a schema that an answer can have", "one that none can have"),
            why => ("a schema whose next token is found within bounds", why),
        };
        Error::request(self.field.as_str(), expected, given)
    }
}

/// What went wrong, without what only its authors can read.
fn reason(error: &impl std::fmt::Display) -> String {
    first_line(&format!("{error:#}"))
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(REASON_CHARACTERS).collect()
}
