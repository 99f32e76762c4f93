//! `[routing]` and `[[route]]`: which candidates answer for a model, under which conditions, and in which order.

use std::time::Duration;

use serde::Deserialize;

use super::ask::{Link, Need, Reach};
use super::breaker::Terms;
use super::table::LOCAL;
use crate::base::Name;

/// `[routing]`: what holds for all routes and for the targets they share.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How long a better link must last before it is believed, in milliseconds; longer after relapses
    /// ([`LinkGate`](super::LinkGate)). A worse one is believed at once.
    pub link_back_ms: u64,
    /// How long a target is left alone that answered 429 without saying when to come back, in milliseconds.
    pub retry_after_ms: u64,
    /// Longest time that a target's `Retry-After` is obeyed, in milliseconds; after it, it is asked again.
    pub retry_after_max_ms: u64,
    /// Time in which the average of a target's times forgets two thirds of what it was, in milliseconds.
    pub latency_memory_ms: u64,
    /// Whom probes go to. Never to what the link, as it is, leaves out; nor over one whose bytes cost money.
    pub probes: Probing,
    /// From one round of probes to the next, in milliseconds.
    pub probe_every_ms: u64,
    /// Probes that fail in a row before a target is not asked; 0: probes change nothing.
    pub unhealthy_after: u32,
    /// Probes that succeed in a row before it is asked again.
    pub healthy_after: u32,
    /// When a target is left alone because its requests fail.
    pub breaker: BreakerSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            link_back_ms: 30_000,
            retry_after_ms: 1000,
            retry_after_max_ms: 60_000,
            latency_memory_ms: 10_000,
            probes: Probing::default(),
            probe_every_ms: 60_000,
            unhealthy_after: 3,
            healthy_after: 2,
            breaker: BreakerSettings::default(),
        }
    }
}

/// Whom probes go to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probing {
    /// Nobody.
    Never,
    /// Targets whose breaker is not closed or whose probes failed before: no request has to try them then.
    #[default]
    Failing,
    /// Every target.
    All,
}

/// `[routing.breaker]`; the keys are those of a model's traffic.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerSettings {
    /// Failures in a row that open it; 0: none do.
    pub failures: u32,
    /// Percent of the requests of the window that open it; 0: none do.
    pub failure_percent: u8,
    /// With fewer requests in the window the share says nothing.
    pub requests_min: u32,
    /// The window in seconds.
    pub window_s: u64,
    /// How long it stays open the first time, in milliseconds; about twice as long each time.
    pub open_ms: u64,
    /// The longest of these times, in milliseconds.
    pub open_most_ms: u64,
    /// Requests, one at a time, whose answers close it.
    pub probes: u32,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        let Terms { failures, failure_percent, requests_min, window, open, open_most, probes } = Terms::default();
        let ms = |time: Duration| u64::try_from(time.as_millis()).expect("seconds");
        Self {
            failures,
            failure_percent,
            requests_min,
            window_s: window.as_secs(),
            open_ms: ms(open),
            open_most_ms: ms(open_most),
            probes,
        }
    }
}

impl BreakerSettings {
    pub(super) fn terms(&self) -> Terms {
        Terms {
            failures: self.failures,
            failure_percent: self.failure_percent,
            requests_min: self.requests_min,
            window: Duration::from_secs(self.window_s),
            open: Duration::from_millis(self.open_ms),
            open_most: Duration::from_millis(self.open_most_ms),
            probes: self.probes,
        }
    }
}

/// `[[route]]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// Its name, in headers, records, metrics and the scopes of keys.
    pub name: Name,
    /// Models that it answers for, as callers name them; `*` stands for any run of characters. A name without a star
    /// goes before patterns, then the pattern that says more, then the order of the file.
    pub models: Vec<String>,
    /// Requests that it is for; one that it is not for goes to the next route with the same model.
    #[serde(default)]
    pub when: When,
    /// The order of candidates of one tier.
    #[serde(default)]
    pub strategy: Strategy,
    /// What holds a request to the same candidate as others, with the strategy `weights`, and where the others are equal.
    #[serde(default)]
    pub sticky: Sticky,
    /// The header that has the key.
    #[serde(default = "sticky_key")]
    pub sticky_key: String,
    /// How far what is asked over this route may go; the request itself may say less.
    #[serde(default)]
    pub reach: Reach,
    /// What happens when one does not answer.
    #[serde(default)]
    pub retries: Retries,
    /// Ask a second one when the first takes long. Absent: no. Both are paid for.
    #[serde(default)]
    pub hedge: Option<Hedge>,
    /// Longest time for the whole answer, attempts and waits included, in milliseconds. Absent: the caller's.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// Who may be asked, in the order of preference.
    #[serde(default)]
    pub candidate: Vec<CandidateConfig>,
}

impl RouteConfig {
    /// A route with which the model of this box that is called so answers to its own name.
    pub fn to_this_box(name: Name, model: &str) -> Self {
        let candidate = CandidateConfig {
            provider: Name::new(LOCAL).expect("a plain word"),
            model: Some(model.to_owned()),
            tier: 0,
            weight: one(),
            reach: None,
            links: None,
            context_tokens: None,
            lacks: Vec::new(),
            requests_max: None,
            when: When::default(),
            first_byte_timeout_ms: None,
        };
        Self {
            name,
            models: vec![model.to_owned()],
            when: When::default(),
            strategy: Strategy::default(),
            sticky: Sticky::default(),
            sticky_key: sticky_key(),
            reach: Reach::default(),
            retries: Retries::default(),
            hedge: None,
            timeout_ms: None,
            candidate: vec![candidate],
        }
    }
}

fn sticky_key() -> String {
    "x-forebay-sticky".to_owned()
}

/// `[[route.candidate]]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CandidateConfig {
    /// Name of a `[[provider]]`, or `local`: a model on this box.
    pub provider: Name,
    /// The model as the provider names it; a `*` in it becomes what the star in the route's pattern stood for.
    /// Absent: as the caller named it.
    #[serde(default)]
    pub model: Option<String>,
    /// A candidate of a higher tier is asked only after all of the lower ones.
    #[serde(default)]
    pub tier: u32,
    /// Its share with the strategy `weights`, its size with `busy`. 0: only after the others.
    #[serde(default = "one")]
    pub weight: u32,
    /// Where it is. Absent: `box` for `local`, else `cloud`.
    #[serde(default)]
    pub reach: Option<Reach>,
    /// Links with which it is asked. Absent: all of them, and for one in the cloud all but `down`.
    #[serde(default)]
    pub links: Option<Vec<Link>>,
    /// Tokens that fit into it, prompt and answer together. Absent: unknown, everything fits.
    #[serde(default)]
    pub context_tokens: Option<u64>,
    /// What it cannot do.
    #[serde(default)]
    pub lacks: Vec<Need>,
    /// Most requests that it gets at once from this gateway; more go to the next one. Absent: any number.
    #[serde(default)]
    pub requests_max: Option<u32>,
    /// Requests that it is for.
    #[serde(default)]
    pub when: When,
    /// Longest time to the first byte of its answer, in milliseconds; then the next one is asked. Absent: the provider's.
    #[serde(default)]
    pub first_byte_timeout_ms: Option<u64>,
}

fn one() -> u32 {
    1
}

/// `when`: conditions, all of which must hold. An empty list, or an absent key, is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct When {
    /// One of these operations: `chat`, `completion`, `response`, `embedding`, `moderation`.
    pub operations: Vec<String>,
    /// One of these tenants; `*` as in models.
    pub tenants: Vec<String>,
    /// At least one of these tags.
    pub tags: Vec<String>,
    /// None of these tags.
    pub tags_none: Vec<String>,
    /// The caller said one of these tasks. Where nobody said any, `code` is guessed from the text.
    pub tasks: Vec<String>,
    /// The text is in one of these languages (ISO 639-1), by a guess.
    pub languages: Vec<String>,
    /// One of these is in the text, in upper or lower case. ASCII letters only are the same in both.
    pub words: Vec<String>,
    /// At least so many tokens in the prompt, by estimate. A length that is unknown is none.
    pub prompt_tokens_min: Option<u64>,
    /// At most so many.
    pub prompt_tokens_max: Option<u64>,
    /// It needs all of these.
    pub needs: Vec<Need>,
    /// It needs none of these.
    pub needs_none: Vec<Need>,
    /// It is a stream, or it is none.
    pub stream: Option<bool>,
    /// With one of these links.
    pub links: Vec<Link>,
    /// It may go at most this far: `["box"]` for what must not leave.
    pub reach: Vec<Reach>,
}

/// In which order the candidates of a tier are asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// As they stand in the file.
    #[default]
    Priority,
    /// By chance in the shares of their weights, the same for the same sticky key.
    Weights,
    /// The quickest to begin an answer first: average time, times the requests that it has.
    Latency,
    /// The cheapest for this request first; unknown prices last.
    Cost,
    /// The one with the fewest requests for its weight first.
    Busy,
}

impl Strategy {
    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Priority => "priority",
            Self::Weights => "weights",
            Self::Latency => "latency",
            Self::Cost => "cost",
            Self::Busy => "busy",
        }
    }
}

/// What a request's candidate depends on, beside the weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sticky {
    /// The key that the request has in the header `sticky_key`; else chance.
    #[default]
    Request,
    /// That key, else the user that the request names, else chance.
    User,
    /// That key, else the name of the caller's key, else chance.
    Caller,
    /// That key, else the beginning of the conversation (system prompt and first message), so that a provider finds it in
    /// its cache.
    Conversation,
    /// Chance alone.
    Never,
}

/// `retries` of a route.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retries {
    /// Attempts of one request, over all candidates, the first included.
    pub attempts_max: u32,
    /// Of these at the same candidate, after the first.
    pub same_candidate_max: u32,
    /// Wait before the first of those, in milliseconds; about twice as long each time, at most 64 times.
    pub wait_ms: u64,
    /// Retries at the same candidate and hedges, as percent of the requests.
    pub budget_percent: u32,
    /// And so many a second without any.
    pub budget_per_s: u32,
    /// Ask the next one when a candidate will not answer such content.
    pub after_content_refused: bool,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            attempts_max: 4,
            same_candidate_max: 0,
            wait_ms: 100,
            budget_percent: 20,
            budget_per_s: 2,
            after_content_refused: false,
        }
    }
}

/// `hedge` of a route: after the time that so many percent of the answers of the first candidate took to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Hedge {
    /// The percentile of the candidate's own times.
    pub percentile: u8,
    /// Never before, in milliseconds.
    pub after_ms_min: u64,
    /// At the latest, in milliseconds, and while fewer than 20 times are known.
    pub after_ms_max: u64,
}

impl Default for Hedge {
    fn default() -> Self {
        Self { percentile: 95, after_ms_min: 50, after_ms_max: 5000 }
    }
}
