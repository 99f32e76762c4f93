//! Limits of the outbox.

use std::time::Duration;

use serde::Deserialize;

use super::error::Error;
use super::stream::Class;

/// `[outbox]` in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Numbers reserved at a time; a crash burns up to twice as many per stream.
    pub reserve_rows: u64,
    /// Most streams; each costs memory and a look-up at start.
    pub max_streams: usize,
    /// Most bytes of queued rows, all classes together. Absent: 70 % of what the file may grow to. If the other tables
    /// leave less than this, that is the limit.
    pub max_bytes: Option<u64>,
    /// Most ledger entries of a stream of telemetry. At the bound the rows between the two oldest are given up and the
    /// entries become one. An alarm's stream has at most one entry more than rows.
    pub ledger_entries: u64,
    /// `[outbox.pack]`
    pub pack: PackConfig,
    /// `[outbox.alarm]`
    pub alarm: ClassConfig,
    /// `[outbox.verdict]`
    pub verdict: ClassConfig,
    /// `[outbox.summary]`
    pub summary: ClassConfig,
    /// `[outbox.raw]`
    pub raw: ClassConfig,
}

impl Default for Config {
    fn default() -> Self {
        let [alarm, verdict, summary, raw] = [ClassConfig::default(); 4];
        Self {
            reserve_rows: 1024,
            max_streams: 1024,
            max_bytes: None,
            ledger_entries: 1024,
            pack: PackConfig::default(),
            alarm,
            verdict,
            summary,
            raw,
        }
    }
}

/// When rows are packed into blocks, which take a fraction of the space.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PackConfig {
    /// A row that has waited so long is packed, in seconds of the box being on; 0 turns packing off.
    pub after_s: u64,
    /// More single rows than so many, all streams together, are packed however new they are. If most of them are no
    /// block, everything but the newest so many of each stream is.
    pub keep_rows: u64,
    /// Most rows of a block, at most 256. Larger blocks compress better; one is unpacked whole to send any of it.
    pub block_rows: usize,
    /// Rows of a stream that come in one commit are a block from the start if they are so many.
    pub commit_rows: usize,
}

impl Default for PackConfig {
    fn default() -> Self {
        Self { after_s: 600, keep_rows: 4096, block_rows: 256, commit_rows: 16 }
    }
}

/// One class of streams; what is absent has the class's default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClassConfig {
    /// Most of `max_bytes` that the class may take, in percent. Alarms may take more: telemetry makes room for them.
    /// Defaults: alarm 10, verdict 40, summary 30, raw 20.
    pub share_percent: Option<u8>,
    /// What happens at the share. Defaults: `block` for alarms, `summarise` for verdicts and raw rows, `drop_oldest`
    /// for summaries.
    pub policy: Option<Policy>,
    /// How long a row may wait, in seconds of the box being on; 0 for as long as there is room. The default.
    pub ttl_s: Option<u64>,
}

/// What happens when a class has used up its share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// Nothing more is acknowledged until the cloud has taken rows.
    Block,
    /// The oldest rows of the class go; the ledger says which.
    DropOldest,
    /// New rows are not kept; the ledger says which. Their readings are acknowledged.
    DropNewest,
    /// The oldest rows of the class become a summary of their range; the ledger says which.
    Summarise,
}

impl Policy {
    /// The word used in the configuration and in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::DropOldest => "drop_oldest",
            Self::DropNewest => "drop_newest",
            Self::Summarise => "summarise",
        }
    }
}

/// A class's limits with the defaults filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClassLimits {
    pub(super) share_percent: u64,
    pub(super) policy: Policy,
    pub(super) ttl: Option<Duration>,
}

impl Config {
    pub(super) fn class(&self, class: Class) -> ClassLimits {
        let (config, share_percent, policy) = match class {
            Class::Alarm => (self.alarm, 10, Policy::Block),
            Class::Verdict => (self.verdict, 40, Policy::Summarise),
            Class::Summary => (self.summary, 30, Policy::DropOldest),
            Class::Raw => (self.raw, 20, Policy::Summarise),
        };
        ClassLimits {
            share_percent: config.share_percent.unwrap_or(share_percent).into(),
            policy: config.policy.unwrap_or(policy),
            ttl: config.ttl_s.filter(|ttl_s| *ttl_s > 0).map(Duration::from_secs),
        }
    }

    /// Finds settings that contradict each other.
    pub fn check(&self) -> Result<(), Error> {
        let wrong = |key, problem: String| Err(Error::Setting { key, problem });
        let keys = ["alarm.share_percent", "verdict.share_percent", "summary.share_percent", "raw.share_percent"];
        for (class, key) in Class::ALL.into_iter().zip(keys) {
            if self.class(class).share_percent == 0 {
                return wrong(key, "a class without a share could keep nothing; use 1 to 97".to_owned());
            }
        }
        let sum: u64 = Class::ALL.into_iter().map(|class| self.class(class).share_percent).sum();
        if sum > 100 {
            return wrong("raw.share_percent", format!("the four classes have {sum} % together; 100 is the most"));
        }
        for (class, key) in [(Class::Alarm, "alarm.policy"), (Class::Summary, "summary.policy")] {
            if self.class(class).policy == Policy::Summarise {
                return wrong(key, "only verdicts and raw rows can be summarised".to_owned());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_over_a_hundred_percent_and_summaries_of_summaries_are_refused() {
        let said = |config: &Config| config.check().unwrap_err().to_string();
        assert!(Config::default().check().is_ok());
        let greedy = ClassConfig { share_percent: Some(41), ..ClassConfig::default() };
        assert!(said(&Config { verdict: greedy, ..Config::default() }).contains("101 %"));
        let nothing = ClassConfig { share_percent: Some(0), ..ClassConfig::default() };
        assert!(said(&Config { raw: nothing, ..Config::default() }).contains("raw.share_percent"));
        let twice = ClassConfig { policy: Some(Policy::Summarise), ..ClassConfig::default() };
        assert!(said(&Config { summary: twice, ..Config::default() }).contains("summary.policy"));
    }
}
