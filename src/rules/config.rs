//! Settings of one rule, and what can be wrong with them.

use serde::{Deserialize, Serialize};

use super::quiet::QuietConfig;

/// Most severities above the first.
const MAX_LEVELS: usize = 8;
/// Most quiet periods.
const MAX_QUIET: usize = 32;

/// When a score is an alert, and when it is over.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Which side of `raise` is bad.
    pub direction: Direction,
    /// A score beyond this is bad. Without it the rule never raises; the flow may take it from the model's manifest.
    pub raise: Option<f64>,
    /// A score at this or on its good side is good; between the two nothing changes (hysteresis). Default: `raise`.
    pub clear: Option<f64>,
    /// Bad scores in a row before the alert is raised.
    pub raise_after: u32,
    /// Good scores in a row before it is cleared.
    pub clear_after: u32,
    /// For how long scores must stay bad before the alert is raised; ms of source time.
    pub raise_hold_ms: u64,
    /// For how long scores must stay good before it is cleared; ms of source time.
    pub clear_hold_ms: u64,
    /// How bad an alert of this rule is at least.
    pub severity: Severity,
    /// Scores further beyond `raise` that are worse. The worst that applies counts.
    pub levels: Vec<Level>,
    /// Raise the severity of an alert that stays open.
    pub escalate: Option<EscalateConfig>,
    /// Shortest time between two alerts that are told; one raised sooner is recorded and suppressed; ms.
    pub min_interval_ms: u64,
    /// Times of day in which alerts are recorded and suppressed.
    pub quiet: Vec<QuietConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            direction: Direction::Above,
            raise: None,
            clear: None,
            raise_after: 1,
            clear_after: 1,
            raise_hold_ms: 0,
            clear_hold_ms: 0,
            severity: Severity::Warning,
            levels: Vec::new(),
            escalate: None,
            min_interval_ms: 0,
            quiet: Vec::new(),
        }
    }
}

/// Which side is bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Scores above `raise`.
    Above,
    /// Scores below `raise`.
    Below,
}

/// How bad an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Look at it today.
    Warning,
    /// Look at it now.
    Critical,
}

impl Severity {
    /// The word used in topics, rows, metrics and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// A threshold with its severity.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Level {
    /// A score beyond this, in the rule's direction.
    pub beyond: f64,
    /// Is this bad.
    pub severity: Severity,
}

/// An alert that nobody cleared gets worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EscalateConfig {
    /// Open for this long; ms of source time.
    pub after_ms: u64,
    /// To at least this severity.
    pub severity: Severity,
}

/// A setting that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Found before anything runs.
    #[error("failed to use setting `{key}`: {problem}")]
    Setting {
        /// The key, relative to the rule's table.
        key: String,
        /// What is wrong and what would be right.
        problem: String,
    },
}

impl Config {
    /// Checks everything.
    ///
    /// # Errors
    /// The first setting that is wrong, with its key.
    pub fn check(&self) -> Result<(), Error> {
        let wrong = |key: &str, problem: &str| Err(Error::Setting { key: key.to_owned(), problem: problem.to_owned() });
        for (key, threshold) in [("raise", self.raise), ("clear", self.clear)] {
            if threshold.is_some_and(|threshold| !threshold.is_finite()) {
                return wrong(key, "a threshold is a finite number");
            }
        }
        match (self.raise, self.clear) {
            (None, Some(_)) => return wrong("clear", "needs `raise`"),
            (Some(raise), Some(clear)) if self.is_beyond(clear, raise) => {
                return wrong("clear", "lies on the bad side of `raise`: the alert would clear while it is raised");
            }
            _ => {}
        }
        if self.raise_after == 0 {
            return wrong("raise_after", "at least 1 score raises an alert");
        }
        if self.clear_after == 0 {
            return wrong("clear_after", "at least 1 score clears an alert");
        }
        if self.levels.len() > MAX_LEVELS {
            return wrong("levels", "at most 8 levels");
        }
        for (at, level) in self.levels.iter().enumerate() {
            let key = format!("levels[{at}].beyond");
            if !level.beyond.is_finite() {
                return wrong(&key, "a threshold is a finite number");
            }
            if self.raise.is_some_and(|raise| self.is_beyond(raise, level.beyond)) {
                return wrong(&key, "lies on the good side of `raise`: it would never count");
            }
        }
        if self.quiet.len() > MAX_QUIET {
            return wrong("quiet", "at most 32 quiet periods");
        }
        for (at, quiet) in self.quiet.iter().enumerate() {
            if let Err(problem) = quiet.check() {
                return wrong(&format!("quiet[{at}]"), problem);
            }
        }
        Ok(())
    }

    /// True if `score` lies on the bad side of `threshold`. Equal is not beyond.
    pub(super) fn is_beyond(&self, score: f64, threshold: f64) -> bool {
        match self.direction {
            Direction::Above => score > threshold,
            Direction::Below => score < threshold,
        }
    }

    /// The worst severity that applies to a score.
    pub(super) fn severity_of(&self, score: f64) -> Severity {
        let beyond = self.levels.iter().filter(|level| self.is_beyond(score, level.beyond));
        beyond.map(|level| level.severity).fold(self.severity, Severity::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_written_in_a_few_lines() {
        let config: Config = toml::from_str(
            r#"
            raise = 1.4351
            clear = 1.0046
            raise_after = 12
            clear_after = 72
            severity = "warning"
            levels = [{ beyond = 3.0, severity = "critical" }]
            escalate = { after_ms = 3600000, severity = "critical" }
            quiet = [{ from = "22:00", to = "06:00", utc_offset_minutes = 60, days = ["sat", "sun"] }]
            "#,
        )
        .unwrap();
        config.check().unwrap();
        assert!(toml::from_str::<Config>("rise = 1").is_err());
        Config::default().check().unwrap();
    }

    #[test]
    fn contradicting_settings_name_their_key() {
        for (text, expected) in [
            ("raise=nan", "raise"),
            ("clear=1", "clear"),
            ("raise=1\nclear=2", "clear"),
            ("raise=2\nclear=1\ndirection='below'", "clear"),
            ("raise_after=0", "raise_after"),
            ("clear_after=0", "clear_after"),
            ("raise=5\nlevels=[{beyond=4, severity='critical'}]", "levels[0].beyond"),
            ("quiet=[{from='08:00', to='08:00'}]", "quiet[0]"),
            ("quiet=[{from='08:00', to='09:00', utc_offset_minutes=2000}]", "quiet[0]"),
        ] {
            let Error::Setting { key, .. } = toml::from_str::<Config>(text).unwrap().check().unwrap_err();
            assert_eq!(key, expected, "{text}");
        }
    }
}
