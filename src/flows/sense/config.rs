//! `[[stream]]`: which topic feeds it, how its payloads are read, what judges it.

use serde::{Deserialize, Deserializer, de};

use crate::access::Filter;
use crate::base::Name;
use crate::signal::SketchConfig;
use crate::{rules, signal};

/// One stream.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Its name in the API, in metrics and in the cloud.
    pub name: Name,
    /// MQTT topic filter. A topic that matches several streams feeds the first of them.
    pub topic: Filter,
    /// What an acknowledgement means.
    #[serde(default)]
    pub durability: Durability,
    /// Payloads that may wait to be judged. Beyond it QoS 0 is dropped and counted, and other publishers wait.
    #[serde(default = "default_queue")]
    pub queue_payloads: usize,
    /// How payloads are read, what is let in, windows and features.
    #[serde(default)]
    pub signal: signal::Config,
    /// The model that scores each window.
    #[serde(default)]
    pub model: Option<ModelConfig>,
    /// When a score or a value becomes an alarm. A stream with a model whose manifest has thresholds has a rule without
    /// this section, too.
    #[serde(default)]
    pub rule: Option<rules::Config>,
    /// What the rule looks at; the score where there is a model, otherwise the first value.
    #[serde(default)]
    pub rule_on: Option<RuleOn>,
    /// Summaries for the cloud.
    #[serde(default)]
    pub summary: SummaryConfig,
    /// What else the cloud gets.
    #[serde(default)]
    pub cloud: CloudConfig,
}

fn default_queue() -> usize {
    1024
}

/// What an acknowledgement means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// The reading is on the disk.
    #[default]
    Disk,
    /// The reading is in memory and will be on the disk soon; a power cut may take it. HTTP answers say so.
    Memory,
}

/// What a rule looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleOn {
    /// The model's score.
    Score,
    /// The first field's value.
    Value,
}

/// `[stream.model]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Name in the catalog.
    pub name: Name,
    /// Version; the newest that serves if absent.
    #[serde(default)]
    pub version: Option<u32>,
    /// Output that holds the score.
    #[serde(default = "default_score")]
    pub score: String,
    /// Output that holds what the model expected of the first field, normalised; shown on the page.
    #[serde(default = "default_expected")]
    pub expected: String,
    /// How long a score may take before the reading goes on without one, in milliseconds.
    #[serde(default = "default_timeout")]
    pub timeout_ms: u64,
    /// Failures in a row after which the model is left alone for `rest_ms`.
    #[serde(default = "default_failures")]
    pub failures: u32,
    /// How long it is left alone, in milliseconds.
    #[serde(default = "default_rest")]
    pub rest_ms: u64,
}

fn default_score() -> String {
    "score".to_owned()
}

fn default_expected() -> String {
    "expected".to_owned()
}

fn default_timeout() -> u64 {
    500
}

fn default_failures() -> u32 {
    3
}

fn default_rest() -> u64 {
    10_000
}

/// `[stream.cloud]`: what the cloud gets beside alarms and summaries.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CloudConfig {
    /// Each reading with its verdict. About 70 bytes a reading; without it the cloud gets summaries, and readings on
    /// demand.
    pub verdicts: bool,
}

/// Most readings of one summary: they are in memory until it ends, eight bytes a value.
pub const MAX_SUMMARY_READINGS: u64 = 65_536;

/// `[stream.summary]`: a summary ends after so many readings or so long, whichever comes first.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SummaryConfig {
    /// Readings in one summary, up to 65,536 and to what history keeps; 0 for no summaries at all.
    #[serde(deserialize_with = "within::<_, 0, MAX_SUMMARY_READINGS>")]
    pub readings: u64,
    /// How long after its first reading a summary ends, in seconds by the box's clock; 0 to wait for `readings`. For
    /// sensors that speak seldom.
    #[serde(deserialize_with = "within::<_, 0, MAX_SUMMARY_AGE_S>")]
    pub max_age_s: u64,
    /// Values that the quantile sketch of a field retains, 8 to 200: four bytes each. See [`SketchConfig`].
    #[serde(deserialize_with = "within::<_, 8, 200>")]
    pub quantile_points: u64,
    /// Logarithm of the registers that count different values, 4 to 12. See [`SketchConfig`].
    #[serde(deserialize_with = "within::<_, 4, 12>")]
    pub distinct_lg_k: u64,
}

/// A year: an instant that far ahead is still one.
const MAX_SUMMARY_AGE_S: u64 = 366 * 86_400;

fn within<'de, D: Deserializer<'de>, const LEAST: u64, const MOST: u64>(deserializer: D) -> Result<u64, D::Error> {
    let number = u64::deserialize(deserializer)?;
    if (LEAST..=MOST).contains(&number) {
        return Ok(number);
    }
    Err(de::Error::custom(format!("expected {LEAST} to {MOST}, found {number}")))
}

impl Default for SummaryConfig {
    fn default() -> Self {
        let SketchConfig { quantile_points, distinct_lg_k } = SketchConfig::default();
        let (quantile_points, distinct_lg_k) = (quantile_points as u64, u64::from(distinct_lg_k));
        Self { readings: 2048, max_age_s: 3600, quantile_points, distinct_lg_k }
    }
}

impl SummaryConfig {
    /// How fine the sketches are.
    pub fn sketches(&self) -> SketchConfig {
        SketchConfig { quantile_points: self.quantile_points as usize, distinct_lg_k: self.distinct_lg_k as u8 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_beyond_its_bounds_is_refused_at_its_line() {
        for (text, expected) in [
            ("readings = 70000", "expected 0 to 65536, found 70000"),
            ("quantile_points = 500", "expected 8 to 200, found 500"),
            ("max_age_s = 1\ndistinct_lg_k = 3", "expected 4 to 12, found 3"),
        ] {
            let error = toml::from_str::<SummaryConfig>(text).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("line"), "{error}");
        }
        let config: SummaryConfig = toml::from_str("readings = 12").unwrap();
        assert_eq!((config.readings, config.max_age_s, config.sketches()), (12, 3600, SketchConfig::default()));
    }
}
