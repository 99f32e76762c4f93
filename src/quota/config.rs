//! `[quota]`: who may take how much.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserializer, Error as _, Visitor};
use serde::{Deserialize, Serialize};

use super::budget::MAX_PER_MINUTE;
use super::calendar::Calendar;
use super::unit::{Span, Unit};

/// Most of anything that a limit may allow: rows hold signed integers.
const MAX_AMOUNT: u64 = i64::MAX as u64;
/// Millionths of a millionth of a dollar in a dollar.
const PICO_USD: u64 = 1_000_000_000_000;

/// `[quota]` in the configuration.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whose midnight ends a day and a month: `UTC`, a name such as `Europe/Berlin` if the machine has a time zone
    /// database, or a rule in POSIX form such as `CET-1CEST,M3.5.0,M10.5.0/3`.
    pub time_zone: String,
    /// Shares of a day's or month's budget, in percent, that are told when they are reached; at most 8, rising.
    pub warn_percent: Vec<u8>,
    /// What happens to a request whose tokens or cost nobody can tell, where a limit counts them.
    pub when_unknown: WhenUnknown,
    /// Most names of all levels together that are counted, about half a KiB of memory each. At the bound those that
    /// are idle, have spent nothing in their periods and wait for no write are forgotten; if there is none, a new name is
    /// refused.
    pub max_subjects: usize,
    /// How long a change of a budget may wait before it is written, in milliseconds. A budget that changed by more
    /// than a 128th of its limit is written at once.
    pub flush_ms: u64,
    /// `[[quota.limit]]`, at most 4,096.
    pub limit: Vec<LimitConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            time_zone: "UTC".to_owned(),
            warn_percent: vec![80, 95, 100],
            when_unknown: WhenUnknown::Refuse,
            max_subjects: 16_384,
            flush_ms: 1000,
            limit: Vec::new(),
        }
    }
}

/// What happens to a request of unknown size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenUnknown {
    /// It is refused: a budget that cannot see what is spent is none.
    Refuse,
    /// It passes and is counted in the metrics.
    Admit,
}

/// `[[quota.limit]]`: limits of one name, or of every name at a level.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitConfig {
    /// `key`, `user`, `team`, `tenant` or `model`, or what else the caller counts by.
    pub level: String,
    /// One name at that level. Absent: each name there has these limits for itself, unless it has an entry of its own,
    /// which then stands alone: what that leaves out is not limited.
    pub name: Option<String>,
    /// Requests a minute: so many at once, refilled evenly.
    pub requests_per_minute: Option<u64>,
    /// Tokens a minute, in and out together: so many at once, refilled evenly.
    pub tokens_per_minute: Option<u64>,
    /// Requests under way at the same time.
    pub concurrent_requests: Option<u64>,
    /// Requests a calendar day.
    pub requests_per_day: Option<u64>,
    /// Requests a calendar month.
    pub requests_per_month: Option<u64>,
    /// Tokens a calendar day.
    pub tokens_per_day: Option<u64>,
    /// Tokens a calendar month.
    pub tokens_per_month: Option<u64>,
    /// US dollars a calendar day, as `5`, `0.25` or `"0.25"`; exact to a millionth.
    pub usd_per_day: Option<Usd>,
    /// US dollars a calendar month.
    pub usd_per_month: Option<Usd>,
    /// Units (`tokens`, `money`, `requests`) of which nothing may be taken without a lease from the cloud.
    pub leased: Vec<Unit>,
}

/// An amount of US dollars, at most 9,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Usd(u64);

impl Usd {
    /// In millionths of a millionth of a dollar.
    pub fn pico(self) -> u64 {
        self.0
    }

    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no amount of dollars; use a number such as 5 or 0.25, at most 9000000");
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || whole.len() > 7 || part.len() > 6 || !is_digits(whole) || !is_digits(part) {
            return Err(wrong());
        }
        let whole: u64 = whole.parse().map_err(|_| wrong())?;
        let part: u64 = format!("{part:0<6}").parse().map_err(|_| wrong())?;
        let micro = whole * 1_000_000 + part;
        if micro > 9_000_000_000_000 {
            return Err(wrong());
        }
        Ok(Self(micro * (PICO_USD / 1_000_000)))
    }
}

impl<'de> Deserialize<'de> for Usd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Dollars;
        impl Visitor<'_> for Dollars {
            type Value = Usd;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount of US dollars")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Usd, E> {
                Usd::parse(text).map_err(E::custom)
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Usd, E> {
                Usd::parse(&value.to_string()).map_err(E::custom)
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Usd, E> {
                Usd::parse(&value.to_string()).map_err(E::custom)
            }

            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Usd, E> {
                // The shortest text that reads back as this number: what stood in the file.
                Usd::parse(&value.to_string()).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Dollars).map_err(|error| D::Error::custom(error.to_string()))
    }
}

/// One limit: so much of a unit in a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) unit: Unit,
    pub(super) span: Span,
    pub(super) amount: u64,
}

impl LimitConfig {
    /// The limits that are set, the quickest to check first.
    pub(super) fn limits(&self) -> Vec<Limit> {
        let set = [
            (Unit::Requests, Span::AtOnce, self.concurrent_requests),
            (Unit::Requests, Span::Minute, self.requests_per_minute),
            (Unit::Tokens, Span::Minute, self.tokens_per_minute),
            (Unit::Requests, Span::Day, self.requests_per_day),
            (Unit::Requests, Span::Month, self.requests_per_month),
            (Unit::Tokens, Span::Day, self.tokens_per_day),
            (Unit::Tokens, Span::Month, self.tokens_per_month),
            (Unit::Money, Span::Day, self.usd_per_day.map(Usd::pico)),
            (Unit::Money, Span::Month, self.usd_per_month.map(Usd::pico)),
        ];
        let mut limits: Vec<_> = set
            .into_iter()
            .filter_map(|(unit, span, amount)| amount.map(|amount| Limit { unit, span, amount }))
            .collect();
        // Without a lease there is nothing to take.
        limits.extend(self.leased.iter().map(|unit| Limit { unit: *unit, span: Span::Lease, amount: 0 }));
        limits
    }

    /// Who it is for, in words.
    fn whose(&self) -> String {
        match &self.name {
            Some(name) => format!("{} {name:?}", self.level),
            None => format!("every {}", self.level),
        }
    }
}

impl Config {
    /// Finds settings that mean nothing or contradict each other; the key and what is wrong with it.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        Calendar::new(&self.time_zone).map_err(|problem| ("time_zone", problem))?;
        let rises = self.warn_percent.windows(2).all(|pair| pair[0] < pair[1]);
        if self.warn_percent.len() > 8
            || !rises
            || self.warn_percent.iter().any(|&percent| percent == 0 || percent > 100)
        {
            let problem = "takes at most 8 numbers from 1 to 100, each larger than the one before".to_owned();
            return Err(("warn_percent", problem));
        }
        if !(1..=1_000_000).contains(&self.max_subjects) {
            return Err(("max_subjects", format!("is {}; use 1 to 1000000", self.max_subjects)));
        }
        if !(10..=60_000).contains(&self.flush_ms) {
            return Err(("flush_ms", format!("is {}; use 10 to 60000", self.flush_ms)));
        }
        if self.limit.len() > 4096 {
            return Err(("limit", format!("there are {}; 4096 is the most", self.limit.len())));
        }
        let mut seen = HashSet::new();
        for limit in &self.limit {
            check_limit(limit).map_err(|problem| ("limit", problem))?;
            if !seen.insert((&limit.level, &limit.name)) {
                return Err(("limit", format!("stands twice for {}: put its limits into one entry", limit.whose())));
            }
        }
        let levels: HashSet<_> = self.limit.iter().map(|limit| &limit.level).collect();
        if levels.len() > 64 {
            return Err(("limit", format!("names {} levels; 64 is the most", levels.len())));
        }
        Ok(())
    }
}

fn check_limit(limit: &LimitConfig) -> Result<(), String> {
    if limit.level.is_empty() || limit.level.len() > 64 {
        return Err(format!("level is {:?}; use key, user, team, tenant or model", limit.level));
    }
    if limit.name.as_ref().is_some_and(|name| name.is_empty() || name.len() > 256) {
        return Err(format!("name of {} must have 1 to 256 bytes; leave it out for every {0}", limit.level));
    }
    let limits = limit.limits();
    if limits.is_empty() {
        // Legal: it lifts the limits that every name at this level has.
        return match limit.name {
            Some(_) => Ok(()),
            None => Err(format!("for {} sets no limit", limit.whose())),
        };
    }
    for one in &limits {
        let most = if one.span == Span::Minute { MAX_PER_MINUTE } else { MAX_AMOUNT };
        if one.amount > most {
            let (unit, span) = (one.unit.as_str(), one.span.as_str());
            return Err(format!("for {} allows {} {unit} ({span}); {most} is the most", limit.whose(), one.amount));
        }
    }
    let mut leased = limit.leased.clone();
    leased.sort_unstable();
    leased.dedup();
    if leased.len() != limit.leased.len() {
        return Err(format!("for {} names a leased unit twice", limit.whose()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check().map_err(|(key, problem)| format!("{key} {problem}"))?;
        Ok(config)
    }

    #[test]
    fn dollars_are_exact_to_a_millionth() {
        let config = read(
            "[[limit]]\nlevel = 'key'\nusd_per_day = 0.1\nusd_per_month = '12.345678'\n[[limit]]\nlevel = 'tenant'\nusd_per_day = 5",
        )
        .unwrap();
        assert_eq!(config.limit[0].usd_per_day.unwrap().pico(), 100_000_000_000);
        assert_eq!(config.limit[0].usd_per_month.unwrap().pico(), 12_345_678_000_000);
        assert_eq!(config.limit[1].usd_per_day.unwrap().pico(), 5 * PICO_USD);
        for wrong in
            ["-1", "'1e3'", "0.0000001", "9000001", "9000000.000001", "nan", "inf", "''", "'.5'", "true", "[1]"]
        {
            let error = read(&format!("[[limit]]\nlevel = 'key'\nusd_per_day = {wrong}")).unwrap_err();
            assert!(error.contains("dollars"), "{wrong}: {error}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_and_named() {
        let cases = [
            ("[[limit]]\nlevel = 'key'", "every key sets no limit"),
            ("[[limit]]\nrequests_per_minute = 1", "level is \"\""),
            ("[[limit]]\nlevel = 'key'\nrequests_per_minut = 1", "unknown field"),
            ("[[limit]]\nlevel = 'key'\nrequests_per_minute = -1", "u64"),
            ("[[limit]]\nlevel = 'key'\ntokens_per_minute = 100000000001", "100000000000 is the most"),
            ("[[limit]]\nlevel = 'key'\nname = ''\nrequests_per_day = 1", "1 to 256 bytes"),
            (
                "[[limit]]\nlevel = 'key'\nname = 'a'\nrequests_per_day = 1\n[[limit]]\nlevel = 'key'\nname = 'a'\nrequests_per_minute = 1",
                "stands twice for key \"a\"",
            ),
            ("[[limit]]\nlevel = 'key'\nleased = ['money', 'money']", "twice"),
            ("warn_percent = [80, 80]", "larger than the one before"),
            ("warn_percent = [0]", "from 1 to 100"),
            ("time_zone = 'Mars'", "\"Mars\""),
            ("flush_ms = 0", "10 to 60000"),
            ("max_subjects = 0", "1 to 1000000"),
        ];
        for (text, expected) in cases {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        read("[[limit]]\nlevel = 'key'\nname = 'root'").expect("an entry without limits lifts those of its level");
    }
}
