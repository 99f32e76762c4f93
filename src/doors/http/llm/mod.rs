//! Language models over HTTP, in the dialects that their clients speak: OpenAI's, Anthropic's, Gemini's and Ollama's paths,
//! and what operators look up and change about keys, tenants, records, limits and kept answers.
//!
//! One request walks: host and origin -> a place -> who asks -> the body, whole -> one question to the story -> the answer, the
//! stream or the error in the caller's dialect. It does not pass the guard of the other paths: an answer may take minutes,
//! and an error has the shape that the client's library knows. Paths, headers and errors follow OpenAI's API, Anthropic's
//! (2023-06-01), Gemini's and Google's interactions (v1beta) and Ollama's (0.12) as of November 2026.
//!
//! A key comes as a bearer token, `x-api-key`, `x-goog-api-key`, `api-key`, or Google's `?key=`. Answers carry
//! `x-request-id`, `x-forebay-{route,model,cache,link,attempts,cost-usd,overhead-us,left-out}` as far as each is known, the rates
//! in OpenAI's or Anthropic's headers, and `retry-after` where waiting helps.
//!
//! Never here: what an answer says, prices, whom to ask. A caller that goes away drops its answer, which cancels it.
//!
//! Limits: [`Config`]; a stream that is silent carries a comment now and then, other than Ollama's, whose clients know none.

mod answer;
mod anthropic;
mod array;
mod ask;
mod body;
mod caller;
mod config;
mod first;
mod gemini;
mod interactions;
mod metrics;
mod office;
mod ollama;
mod openai;
mod pings;
mod tenants;

use std::sync::Arc;

use axum::Router;
use tokio::sync::Semaphore;

use crate::access::{Access, NewKey};
use crate::base::Clock;
use crate::flows::answer::{Answer, Office};

pub(super) use gemini::readdress;

pub use config::Config;
pub use metrics::Metrics;

/// What this part of the door is made of.
pub struct Parts {
    /// Answers.
    pub answer: Arc<Answer>,
    /// Looks up and enters.
    pub office: Arc<Office>,
    /// Knows callers.
    pub access: Arc<Access>,
    /// Names of this gateway, as `hosts` in `[http]`.
    pub hosts: Vec<String>,
    /// Counters.
    pub metrics: Metrics,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Makes an `x-request-id` where the client sent none: 1 to 64 visible ASCII characters.
    pub request_id: Box<dyn Fn() -> String + Send + Sync>,
    /// Draws a key.
    pub new_key: Box<dyn Fn() -> NewKey + Send + Sync>,
}

/// Language models behind the HTTP door.
pub struct Llm {
    config: Config,
    parts: Parts,
    places: Arc<Semaphore>,
}

impl Llm {
    /// Puts the parts together.
    pub fn new(config: Config, parts: Parts) -> Self {
        let places = Arc::new(Semaphore::new(config.requests_max));
        Self { config, parts, places }
    }
}

/// The paths, for any router: they bring everything that they need. The door merges them with its own; a caller without a
/// key is let in only where the door says which connection it came on.
pub fn routes<S: Clone + Send + Sync + 'static>(llm: Arc<Llm>) -> Router<S> {
    Router::new()
        .merge(openai::routes())
        .merge(anthropic::routes())
        .merge(gemini::routes())
        .merge(interactions::routes())
        .merge(ollama::routes())
        .merge(office::routes())
        .merge(tenants::routes())
        .with_state(llm)
}
