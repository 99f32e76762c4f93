//! `[catalog.models.NAME.traffic]`: which of a model's versions gets a request that names none, and what happens when that one does not answer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::Name;

/// Names for versions that requests go to: aliases, or numbers of versions.
pub type Split = BTreeMap<Name, u32>;

/// Targets of one model.
const TARGETS_MAX: usize = 16;
const WEIGHT_MAX: u32 = 1_000_000;
/// A day; whoever waits longer for anything here has meant something else.
const TIME_MAX_MS: u64 = 24 * 3_600_000;
const COUNT_MAX: u32 = 1_000_000;
const HEADER_MAX: usize = 64;

/// How requests that name no version are spread over the versions.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Traffic {
    /// Aliases or versions with their weights; `{ prod = 90, canary = 10 }`. Empty: whatever answers without a split.
    pub split: Split,
    /// What holds a request to the same version as others.
    pub sticky: Sticky,
    /// The header, or entry of gRPC's metadata, that has the key.
    pub sticky_key: String,
    /// A copy of a share of the requests goes to another version, whose answer is compared and thrown away.
    pub shadow: Option<Shadow>,
    /// Who is asked, in this order, when the chosen one does not answer. None: the others of the split, the heaviest
    /// first.
    pub fallback: Option<Vec<Name>>,
    /// A version that takes longer gives its request to the next one, in milliseconds. None: it may take the caller's time.
    pub slow_ms: Option<u64>,
    /// When a version is not asked for a while.
    pub breaker: BreakerTerms,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            split: Split::new(),
            sticky: Sticky::default(),
            sticky_key: "x-forebay-sticky".to_owned(),
            shadow: None,
            fallback: None,
            slow_ms: None,
            breaker: BreakerTerms::default(),
        }
    }
}

/// What a request's version depends on, beside the weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Sticky {
    /// The key that the request has: the header `sticky_key`, or Triton's `sequence_id`; else chance.
    #[default]
    Request,
    /// That key, else the name of the caller's identity, else chance.
    Caller,
    /// Chance alone.
    Never,
}

/// A version that gets copies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shadow {
    /// Its alias or number.
    pub to: Name,
    /// Percent of the requests; 0: none, also where the configuration says otherwise.
    #[serde(default = "all")]
    pub percent: f64,
    /// Largest absolute difference that is none.
    #[serde(default = "close")]
    pub tolerance: f64,
    /// Added to it, as a part of the answer's value.
    #[serde(default)]
    pub relative_tolerance: f64,
}

fn all() -> f64 {
    100.0
}

fn close() -> f64 {
    1e-4
}

/// `breaker` of a model's traffic.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerTerms {
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

impl Default for BreakerTerms {
    fn default() -> Self {
        Self {
            failures: 5,
            failure_percent: 50,
            requests_min: 20,
            window_s: 60,
            open_ms: 5000,
            open_most_ms: 120_000,
            probes: 3,
        }
    }
}

impl Traffic {
    /// What is wrong with it: the key, and a sentence.
    pub fn check(&self) -> Result<(), (String, String)> {
        let wrong = |key: &str, what: String| Err((key.to_owned(), what));
        check_split(&self.split).map_err(|what| ("split".to_owned(), what))?;
        if let Some(shadow) = &self.shadow {
            shadow.check().map_err(|what| ("shadow".to_owned(), what))?;
        }
        if let Some(fallback) = &self.fallback {
            if fallback.len() > TARGETS_MAX {
                return wrong("fallback", format!("it has {} names, the most is {TARGETS_MAX}", fallback.len()));
            }
            if let Some((_, twice)) = fallback.iter().enumerate().find(|(at, name)| fallback[..*at].contains(name)) {
                return wrong("fallback", format!("{twice} stands in it twice; nobody is asked twice"));
            }
        }
        match self.slow_ms {
            Some(0) => return wrong("slow_ms", "0 ms is too slow for everybody; leave it out for no bound".to_owned()),
            Some(ms) if ms > TIME_MAX_MS => {
                return wrong("slow_ms", format!("it is {ms}, the most is {TIME_MAX_MS}"));
            }
            _ => {}
        }
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
        let key = &self.sticky_key;
        if key.is_empty() || key.len() > HEADER_MAX || !key.chars().all(plain) || key.ends_with("-bin") {
            let what = format!(
                "{key:?} is no name of a header: 1 to {HEADER_MAX} of a-z 0-9 - _ . and, for gRPC, not ending in -bin"
            );
            return wrong("sticky_key", what);
        }
        self.breaker.check().map_err(|(key, what)| (format!("breaker.{key}"), what))
    }

    /// Every name of a version in it, with the key that it stands under.
    pub fn targets(&self) -> impl Iterator<Item = (&'static str, &Name)> {
        let split = self.split.keys().map(|name| ("split", name));
        let fallback = self.fallback.iter().flatten().map(|name| ("fallback", name));
        split.chain(fallback).chain(self.shadow.iter().map(|shadow| ("shadow", &shadow.to)))
    }
}

/// What is wrong with weights.
pub(super) fn check_split(split: &Split) -> Result<(), String> {
    if split.len() > TARGETS_MAX {
        return Err(format!("it has {} versions, the most is {TARGETS_MAX}", split.len()));
    }
    if let Some((name, weight)) = split.iter().find(|(_, weight)| **weight > WEIGHT_MAX) {
        return Err(format!("the weight of {name} is {weight}, the most is {WEIGHT_MAX}"));
    }
    if !split.is_empty() && split.values().all(|weight| *weight == 0) {
        return Err("all weights are 0, so nobody would answer".to_owned());
    }
    Ok(())
}

impl Shadow {
    /// What is wrong with it.
    pub(super) fn check(&self) -> Result<(), String> {
        if !(0.0..=100.0).contains(&self.percent) {
            return Err(format!("percent is {}; expected 0 to 100", self.percent));
        }
        for (key, value) in [("tolerance", self.tolerance), ("relative_tolerance", self.relative_tolerance)] {
            if !value.is_finite() || value < 0.0 {
                return Err(format!("{key} is {value}; expected a number from 0"));
            }
        }
        Ok(())
    }
}

impl BreakerTerms {
    fn check(&self) -> Result<(), (&'static str, String)> {
        let most = |key, given: u64, most: u64| Err((key, format!("it is {given}, the most is {most}")));
        let counts = [("failures", self.failures), ("requests_min", self.requests_min), ("probes", self.probes)];
        if let Some((key, count)) = counts.into_iter().find(|(_, count)| *count > COUNT_MAX) {
            return most(key, u64::from(count), u64::from(COUNT_MAX));
        }
        if self.failure_percent > 100 {
            return most("failure_percent", u64::from(self.failure_percent), 100);
        }
        if self.window_s == 0 || self.window_s > 86_400 {
            return Err(("window_s", format!("it is {}; expected 1 to 86400 seconds", self.window_s)));
        }
        if self.probes == 0 {
            return Err(("probes", "without a request that tries it, it would never close: at least 1".to_owned()));
        }
        if self.open_ms == 0 || self.open_ms > TIME_MAX_MS {
            return Err(("open_ms", format!("it is {}; expected 1 to {TIME_MAX_MS}", self.open_ms)));
        }
        if self.open_most_ms < self.open_ms || self.open_most_ms > TIME_MAX_MS {
            let what = format!("it is {}; expected open_ms ({}) to {TIME_MAX_MS}", self.open_most_ms, self.open_ms);
            return Err(("open_most_ms", what));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), String> {
        let traffic: Traffic = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        traffic.check().map_err(|(key, what)| format!("{key}: {what}"))
    }

    #[test]
    fn a_whole_section_is_read() {
        let text = r#"
            split = { prod = 90, canary = 10, 3 = 0 }
            sticky = "caller"
            sticky_key = "x-user"
            shadow = { to = "canary", percent = 2.5, tolerance = 1e-3 }
            fallback = ["prod"]
            slow_ms = 250
            breaker = { failures = 3, open_ms = 1000 }
        "#;
        check(text).unwrap();
        let traffic: Traffic = toml::from_str(text).unwrap();
        assert_eq!((traffic.split.values().sum::<u32>(), traffic.sticky), (100, Sticky::Caller));
        assert_eq!(traffic.breaker, BreakerTerms { failures: 3, open_ms: 1000, ..BreakerTerms::default() });
        let targets: Vec<_> = traffic.targets().map(|(key, name)| format!("{key} {name}")).collect();
        assert_eq!(targets, ["split 3", "split canary", "split prod", "fallback prod", "shadow canary"]);
        check("").unwrap();
    }

    #[test]
    fn what_is_wrong_is_told_with_its_key() {
        let many = format!("split = {{ {} }}", (0..17).map(|n| format!("a{n} = 1")).collect::<Vec<_>>().join(", "));
        for (text, says) in [
            ("split = { prod = 0, canary = 0 }", "split: all weights are 0"),
            ("split = { prod = 2000000 }", "split: the weight of prod is 2000000, the most is 1000000"),
            ("split = { prod = -1 }", "expected u32"),
            ("split = { \"a/b\" = 1 }", "a name has only letters"),
            (many.as_str(), "split: it has 17 versions"),
            ("shadow = { to = \"canary\", percent = 101 }", "shadow: percent is 101"),
            ("shadow = { to = \"canary\", tolerance = -1 }", "shadow: tolerance is -1"),
            ("shadow = { to = \"canary\", tolerance = inf }", "shadow: tolerance is inf"),
            ("shadow = { percent = 5 }", "missing field `to`"),
            ("fallback = [\"prod\", \"prod\"]", "fallback: prod stands in it twice"),
            ("slow_ms = 0", "slow_ms: 0 ms"),
            ("slow_ms = 90000000", "slow_ms: it is 90000000"),
            ("sticky = \"always\"", "unknown variant `always`"),
            ("sticky_key = \"X User\"", "sticky_key: \"X User\" is no name of a header"),
            ("sticky_key = \"user-bin\"", "sticky_key"),
            ("breaker = { failure_percent = 101 }", "breaker.failure_percent: it is 101"),
            ("breaker = { probes = 0 }", "breaker.probes"),
            ("breaker = { open_ms = 9, open_most_ms = 8 }", "breaker.open_most_ms: it is 8; expected open_ms (9)"),
            ("breaker = { window_s = 0 }", "breaker.window_s"),
            ("brake = {}", "unknown field `brake`"),
        ] {
            let said = check(text).expect_err(text);
            assert!(said.contains(says), "{text}: {said}");
        }
    }
}
