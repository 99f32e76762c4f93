//! What the cache found, missed, kept and saved.

use std::fmt::Write as _;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::answer::Worth;

/// Where an answer was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// In memory, by the whole request.
    Exact,
    /// In the database, by the whole request.
    Disk,
    /// By meaning.
    Semantic,
    /// With a request that was on its way.
    Flight,
}

impl Kind {
    /// In the order of their declaration.
    const ALL: [Self; 4] = [Self::Exact, Self::Disk, Self::Semantic, Self::Flight];
}

impl EncodeLabelValue for Kind {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(match self {
            Self::Exact => "exact",
            Self::Disk => "disk",
            Self::Semantic => "semantic",
            Self::Flight => "flight",
        })
    }
}

/// Why a request was not looked up, or an answer not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Passed {
    /// The request has no normal form.
    Abnormal,
    /// The request is over `max_request_bytes`.
    LargeRequest,
    /// The answer is over `max_answer_bytes`, or over the whole bound.
    LargeAnswer,
    /// Too many requests are on their way, or wait for the same.
    Crowded,
    /// The writer had no room, or the disk refused.
    Disk,
    /// The vector is empty, of another length, or not finite.
    Vector,
    /// The model that makes vectors failed.
    Embed,
}

impl EncodeLabelValue for Passed {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(match self {
            Self::Abnormal => "abnormal",
            Self::LargeRequest => "large_request",
            Self::LargeAnswer => "large_answer",
            Self::Crowded => "crowded",
            Self::Disk => "disk",
            Self::Vector => "vector",
            Self::Embed => "embed",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PassedLabel {
    reason: Passed,
}

type Counters = ByKind<Counter>;
type Gauges = ByKind<Gauge>;

/// One of each kind, found without a lock and a hash: every request counts several.
#[derive(Debug, Clone)]
struct ByKind<M> {
    family: Family<KindLabel, M>,
    each: [M; Kind::ALL.len()],
}

impl<M: Clone + Default> Default for ByKind<M> {
    fn default() -> Self {
        let family = Family::<KindLabel, M>::default();
        let each = Kind::ALL.map(|kind| family.get_or_create_owned(&KindLabel { kind }));
        Self { family, each }
    }
}

impl<M> ByKind<M> {
    fn of(&self, kind: Kind) -> &M {
        &self.each[kind as usize]
    }
}

/// Counters of one cache. Clones share their values.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    hits: Counters,
    misses: Counters,
    saved_tokens: Counters,
    saved_pico_usd: Counters,
    kept: Counters,
    evicted: Counters,
    expired: Counters,
    purged: Counters,
    unreadable: Counters,
    passed: Family<PassedLabel, Counter>,
    entries: Gauges,
    bytes: Gauges,
}

impl Metrics {
    /// Adds them to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        let mut family = |name, help, counters: &Counters| registry.register(name, help, counters.family.clone());
        family("cache_hits", "Requests answered without asking a model", &self.hits);
        family("cache_misses", "Requests that were looked up and not found", &self.misses);
        family("cache_saved_tokens", "Tokens that hits saved, as far as known", &self.saved_tokens);
        family("cache_saved_pico_usd", "Money that hits saved in pico-USD, as far as known", &self.saved_pico_usd);
        family("cache_kept", "Answers kept", &self.kept);
        family("cache_evicted", "Answers that made room for others", &self.evicted);
        family("cache_expired", "Answers whose time was over when they were asked for", &self.expired);
        family("cache_purged", "Answers taken away by an operator", &self.purged);
        family("cache_unreadable", "Rows whose checksum did not hold", &self.unreadable);
        registry.register("cache_passed", "Requests and answers that passed by, by reason", self.passed.clone());
        registry.register("cache_entries", "Answers that are there", self.entries.family.clone());
        registry.register(
            "cache_bytes",
            "Bytes that they take, in memory or in the database",
            self.bytes.family.clone(),
        );
    }

    pub(super) fn hit(&self, kind: Kind, worth: &Worth) {
        self.hits.of(kind).inc();
        if let Some(tokens) = worth.tokens {
            self.saved_tokens.of(kind).inc_by(tokens);
        }
        if let Some(cost) = worth.cost_pico_usd {
            self.saved_pico_usd.of(kind).inc_by(cost);
        }
    }

    pub(super) fn missed(&self, kind: Kind) {
        self.misses.of(kind).inc();
    }

    pub(super) fn kept(&self, kind: Kind) {
        self.kept.of(kind).inc();
    }

    pub(super) fn evicted(&self, kind: Kind, count: u64) {
        if count > 0 {
            self.evicted.of(kind).inc_by(count);
        }
    }

    pub(super) fn expired(&self, kind: Kind) {
        self.expired.of(kind).inc();
    }

    pub(super) fn purged(&self, kind: Kind, count: u64) {
        if count > 0 {
            self.purged.of(kind).inc_by(count);
        }
    }

    pub(super) fn unreadable(&self, kind: Kind, count: u64) {
        if count > 0 {
            self.unreadable.of(kind).inc_by(count);
        }
    }

    pub(super) fn passed(&self, reason: Passed) {
        self.passed.get_or_create(&PassedLabel { reason }).inc();
    }

    pub(super) fn holds(&self, kind: Kind, entries: usize, bytes: u64) {
        self.entries.of(kind).set(i64::try_from(entries).unwrap_or(i64::MAX));
        self.bytes.of(kind).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

/// For tests.
#[cfg(test)]
impl Metrics {
    pub(super) fn passed_count(&self, reason: Passed) -> u64 {
        self.passed.get_or_create(&PassedLabel { reason }).get()
    }

    pub(super) fn saved_tokens(&self, kind: Kind) -> u64 {
        self.saved_tokens.of(kind).get()
    }

    pub(super) fn hit_count(&self, kind: Kind) -> u64 {
        self.hits.of(kind).get()
    }

    pub(super) fn evicted_count(&self, kind: Kind) -> u64 {
        self.evicted.of(kind).get()
    }

    pub(super) fn unreadable_count(&self, kind: Kind) -> u64 {
        self.unreadable.of(kind).get()
    }
}
