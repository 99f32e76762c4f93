//! One request, as it is recorded and as it is read.

use serde::Serialize;

/// Tokens of one request; None is unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// In, those from the provider's cache included.
    pub input_tokens: Option<u64>,
    /// Out, those of reasoning included.
    pub output_tokens: Option<u64>,
    /// Of those in, read from the provider's cache.
    pub cached_tokens: Option<u64>,
    /// Of those out, for reasoning.
    pub reasoning_tokens: Option<u64>,
    /// Counted here rather than told by the model.
    pub estimated: bool,
}

/// What a request took of this box; None is unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Here {
    /// Time of cores, all threads together, in microseconds.
    pub cpu_us: Option<u64>,
    /// Energy, in microwatt-hours.
    pub energy_uwh: Option<u64>,
}

/// One candidate that was asked, or passed over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attempt<'a> {
    /// The candidate.
    pub candidate: &'a str,
    /// What came of it: `ok`, or the class of the error, or why it was not asked.
    pub outcome: &'a str,
    /// The status it answered with.
    pub status: Option<u16>,
    /// How long it took, in microseconds.
    pub duration_us: u64,
}

/// What is recorded of one request. Never what was asked or answered. An empty text is none.
///
/// Texts are cut to 256 bytes, attempts to the first 16.
#[derive(Debug, Clone, Copy, Default)]
pub struct Record<'a> {
    /// When it came, milliseconds since 1970.
    pub time_ms: i64,
    /// The calendar day that it is summed up in: days since 1970-01-01 of the gateway's date.
    pub day: i32,
    /// The request's id.
    pub id: &'a str,
    /// Whose it is.
    pub tenant: &'a str,
    /// The id of the key, which is not the key.
    pub key: &'a str,
    /// The key's team.
    pub team: &'a str,
    /// The user.
    pub user: &'a str,
    /// The dialect that it came in.
    pub dialect: &'a str,
    /// What was asked for: `chat`, `embeddings`, ...
    pub operation: &'a str,
    /// The route that took it.
    pub route: &'a str,
    /// The candidate that answered.
    pub candidate: &'a str,
    /// Why that one.
    pub reason: &'a str,
    /// The model as the caller named it.
    pub model_asked: &'a str,
    /// The model that answered.
    pub model_answered: &'a str,
    /// The stored prompt, or another name that the caller's costs are told apart by.
    pub prompt: &'a str,
    /// The state of the link when it was decided.
    pub link: &'a str,
    /// What the cache said, in a word.
    pub cache: &'a str,
    /// The class of the error, if there was one.
    pub error: &'a str,
    /// Who was asked, in order.
    pub attempts: &'a [Attempt<'a>],
    /// Its tokens.
    pub usage: Usage,
    /// What it cost, in millionths of a millionth of a dollar.
    pub cost_pico: Option<u64>,
    /// What an answer from the cache has saved, likewise.
    pub saved_pico: Option<u64>,
    /// What it took of this box; None: no model of this box worked for it.
    pub here: Option<Here>,
    /// The status that the caller got.
    pub status: u16,
    /// Answered as a stream.
    pub is_stream: bool,
    /// Answered from the cache.
    pub is_cached: bool,
    /// From the first byte in to the last byte out, in microseconds.
    pub total_us: u64,
    /// Until the first token went out.
    pub first_token_us: Option<u64>,
    /// What of it was spent in the gateway itself.
    pub overhead_us: u64,
}

impl Record<'_> {
    /// True for an answer that is none.
    pub(super) fn is_failed(&self) -> bool {
        self.status >= 400
    }
}

/// [`Attempt`] as it is read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tried {
    /// The candidate.
    pub candidate: String,
    /// What came of it.
    pub outcome: String,
    /// The status it answered with.
    pub status: Option<u16>,
    /// How long it took, in microseconds.
    pub duration_us: u64,
}

/// [`Record`] as it is read; empty texts are none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "each field is the one of Record")]
pub struct Call {
    pub time_ms: i64,
    pub day: i32,
    pub id: String,
    pub tenant: String,
    pub key: String,
    pub team: String,
    pub user: String,
    pub dialect: String,
    pub operation: String,
    pub route: String,
    pub candidate: String,
    pub reason: String,
    pub model_asked: String,
    pub model_answered: String,
    pub prompt: String,
    pub link: String,
    pub cache: String,
    pub error: String,
    pub attempts: Vec<Tried>,
    #[serde(flatten)]
    pub usage: Usage,
    pub cost_pico: Option<u64>,
    pub saved_pico: Option<u64>,
    #[serde(flatten)]
    pub here: Here,
    pub status: u16,
    pub is_stream: bool,
    pub is_cached: bool,
    pub total_us: u64,
    pub first_token_us: Option<u64>,
    pub overhead_us: u64,
}
