//! What the story counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::dialect::{Dialect, Operation, Usage};

/// Bounds of the gateway's own part, in seconds.
const OVERHEAD_S: [f64; 9] = [10e-6, 20e-6, 50e-6, 100e-6, 250e-6, 1e-3, 5e-3, 25e-3, 250e-3];
/// Bounds of times to a first token and to the end, in seconds.
const TIME_S: [f64; 12] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    dialect: &'static str,
    operation: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

/// Counters of the story; clones share them. Labels are of this binary's words only, never a caller's.
#[derive(Debug, Clone)]
pub struct Metrics {
    requests: Family<Ended, Counter>,
    under_way: Gauge,
    tokens: Family<Kind, Counter>,
    cost_pico_usd: Counter,
    unknown_cost: Counter,
    attempts: Counter,
    fallbacks: Counter,
    abandoned: Counter,
    warnings: Counter,
    overhead: Histogram,
    first_token: Histogram,
    duration: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            under_way: Gauge::default(),
            tokens: Family::default(),
            cost_pico_usd: Counter::default(),
            unknown_cost: Counter::default(),
            attempts: Counter::default(),
            fallbacks: Counter::default(),
            abandoned: Counter::default(),
            warnings: Counter::default(),
            overhead: Histogram::new(OVERHEAD_S),
            first_token: Histogram::new(TIME_S),
            duration: Histogram::new(TIME_S),
        }
    }
}

/// One call that is over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Over {
    pub(super) dialect: Dialect,
    pub(super) operation: Operation,
    pub(super) status: u16,
    pub(super) attempts: u32,
    pub(super) usage: Usage,
    pub(super) cost_pico: Option<u64>,
    pub(super) total_s: f64,
    pub(super) overhead_s: f64,
    pub(super) first_token_s: Option<f64>,
    pub(super) is_abandoned: bool,
}

impl Metrics {
    /// Puts the counters into `registry`, as `answer_*`.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("answer");
        registry.register("requests", "Questions to models, by what came of them", self.requests.clone());
        registry.register("under_way", "Questions whose answer has not ended", self.under_way.clone());
        registry.register("tokens", "Tokens of answers from models, told or estimated", self.tokens.clone());
        registry.register("cost_pico_usd", "What answers cost, as far as known", self.cost_pico_usd.clone());
        registry.register("unknown_cost", "Answers whose cost is unknown", self.unknown_cost.clone());
        registry.register("attempts", "Candidates that were asked", self.attempts.clone());
        registry.register("fallbacks", "Attempts after the first of their request", self.fallbacks.clone());
        registry.register("abandoned", "Callers that left before the end", self.abandoned.clone());
        registry.register("budget_warnings", "Budgets that reached a share of their limit", self.warnings.clone());
        registry.register("overhead_seconds", "The gateway's own part of a request", self.overhead.clone());
        registry.register("first_token_seconds", "Time until a stream's first bytes", self.first_token.clone());
        registry.register("duration_seconds", "Time until the last byte", self.duration.clone());
    }

    pub(super) fn began(&self) {
        self.under_way.inc();
    }

    pub(super) fn warned(&self) {
        self.warnings.inc();
    }

    pub(super) fn over(&self, over: &Over) {
        self.under_way.dec();
        let (dialect, operation) = (over.dialect.name(), over.operation.name());
        self.requests.get_or_create(&Ended { dialect, operation, status: over.status }).inc();
        let kinds = [("input", over.usage.input_tokens), ("output", over.usage.output_tokens)];
        for (kind, tokens) in kinds.into_iter().filter_map(|(kind, tokens)| Some((kind, tokens.filter(|n| *n > 0)?))) {
            self.tokens.get_or_create(&Kind { kind }).inc_by(tokens);
        }
        match over.cost_pico {
            Some(pico) => drop(self.cost_pico_usd.inc_by(pico)),
            None => drop(self.unknown_cost.inc()),
        }
        self.attempts.inc_by(u64::from(over.attempts));
        self.fallbacks.inc_by(u64::from(over.attempts.saturating_sub(1)));
        if over.is_abandoned {
            self.abandoned.inc();
        }
        self.overhead.observe(over.overhead_s);
        self.duration.observe(over.total_s);
        if let Some(first_s) = over.first_token_s {
            self.first_token.observe(first_s);
        }
    }
}
