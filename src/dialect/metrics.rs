//! How often a body was refused, an answer made no sense, a usage had to be estimated.

use std::fmt::Write as _;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::{Dialect, Error, Usage};

impl EncodeLabelValue for Dialect {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(self.name())
    }
}

/// What was wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Wrong {
    Request,
    Unsupported,
    Malformed,
    TooLong,
}

impl EncodeLabelValue for Wrong {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        encoder.write_str(match self {
            Self::Request => "request",
            Self::Unsupported => "unsupported",
            Self::Malformed => "malformed",
            Self::TooLong => "too_long",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    dialect: Dialect,
    wrong: Wrong,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DialectLabels {
    dialect: Dialect,
}

/// Counters of this room. It is pure, so whoever calls it counts: labels are the caller's dialect.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    errors: Family<ErrorLabels, Counter>,
    cut: Family<DialectLabels, Counter>,
    estimated: Family<DialectLabels, Counter>,
    left_out: Family<DialectLabels, Counter>,
}

impl Metrics {
    /// Adds them to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("dialect_errors", "Bodies and frames that could not be translated", self.errors.clone());
        registry.register("dialect_streams_cut", "Streams that ended before the answer did", self.cut.clone());
        registry.register("dialect_usage_estimated", "Answers whose usage was counted here", self.estimated.clone());
        registry.register("dialect_members_left_out", "Members left out of requests", self.left_out.clone());
    }

    /// Counts an error.
    pub fn error(&self, dialect: Dialect, error: &Error) {
        let wrong = match error {
            Error::RequestJson { .. } | Error::Missing { .. } | Error::Field { .. } => Wrong::Request,
            Error::Unsupported { .. } | Error::NoPair { .. } => Wrong::Unsupported,
            Error::Malformed { .. } => Wrong::Malformed,
            Error::TooLong { .. } => Wrong::TooLong,
        };
        self.errors.get_or_create(&ErrorLabels { dialect, wrong }).inc();
    }

    /// Counts a stream that was cut.
    pub fn cut(&self, dialect: Dialect) {
        self.cut.get_or_create(&DialectLabels { dialect }).inc();
    }

    /// Counts an answer if its usage is estimated.
    pub fn usage(&self, dialect: Dialect, usage: &Usage) {
        if usage.estimated {
            self.estimated.get_or_create(&DialectLabels { dialect }).inc();
        }
    }

    /// Counts members that were left out.
    pub fn left_out(&self, dialect: Dialect, members: &[String]) {
        if !members.is_empty() {
            self.left_out.get_or_create(&DialectLabels { dialect }).inc_by(members.len() as u64);
        }
    }
}
