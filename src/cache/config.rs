//! `[cache]` and the policy that a route has of it.

use serde::{Deserialize, Serialize};

/// `[cache]`: how much the whole box keeps. Nothing is kept, and no memory taken, unless a bound is set.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Memory for whole answers, found by their whole request. 0 keeps none. At the bound answers that were not asked
    /// for again make room.
    pub max_bytes: u64,
    /// Largest answer that is kept, in bytes. Larger ones pass through, and are counted.
    pub max_answer_bytes: usize,
    /// Largest request that is looked up, in bytes. Larger ones pass by, and are counted.
    pub max_request_bytes: usize,
    /// Most different requests that wait for one answer together. Beyond it each asks for itself.
    pub max_flights: usize,
    /// Most requests that wait for the same answer. Beyond it each asks for itself.
    pub max_followers: usize,
    /// `[cache.disk]`: answers that outlive a restart.
    pub disk: DiskConfig,
    /// `[cache.semantic]`: answers that are found by what a request means.
    pub semantic: SemanticConfig,
    /// `[[cache.policy]]`: what routes do with answers. The first that names a route counts; without one a route does nothing.
    pub policy: Vec<Policy>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_bytes: 0,
            max_answer_bytes: 256 << 10,
            max_request_bytes: 1 << 20,
            max_flights: 1024,
            max_followers: 256,
            disk: DiskConfig::default(),
            semantic: SemanticConfig::default(),
            policy: Vec::new(),
        }
    }
}

/// `[cache.disk]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DiskConfig {
    /// Bytes of answers in the database. 0 keeps none. At the bound the oldest go.
    pub max_bytes: u64,
}

/// `[cache.semantic]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SemanticConfig {
    /// Most answers. 0 keeps none. One takes about 250 bytes of memory and a bit a dimension, the rest of it lies in the
    /// database. At the bound the oldest go.
    pub max_entries: usize,
    /// The model on this box that makes vectors of texts; needed where `max_entries` is not 0. Others' vectors are never compared
    /// with its own.
    pub model: String,
    /// Bytes of answers and vectors in the database. At the bound the oldest go.
    pub max_bytes: u64,
    /// Answers whose bits are nearest and whose vectors are then compared in full. More is more exact and slower.
    pub rescored: usize,
}

impl Default for SemanticConfig {
    fn default() -> Self {
        Self { max_entries: 0, model: String::new(), max_bytes: 64 << 20, rescored: 32 }
    }
}

/// Most policies.
const MAX_POLICIES: usize = 256;
/// Most answers that are looked through bit by bit.
const MAX_ENTRIES: usize = 100_000;
/// Most vectors that are read for one look-up.
const MAX_RESCORED: usize = 1024;

impl Config {
    /// Whether anything is ever kept.
    pub fn is_on(&self) -> bool {
        self.max_bytes > 0 || self.disk.max_bytes > 0 || self.semantic.max_entries > 0
    }

    /// Whether the whole of it can be used.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.semantic.max_entries > MAX_ENTRIES {
            return Err(ConfigError::Entries(self.semantic.max_entries));
        }
        if !(1..=MAX_RESCORED).contains(&self.semantic.rescored) {
            return Err(ConfigError::Rescored(self.semantic.rescored));
        }
        if self.policy.len() > MAX_POLICIES {
            return Err(ConfigError::Policies(self.policy.len()));
        }
        self.policy.iter().try_for_each(Policy::check)
    }

    /// What an operator should know about a configuration that is valid: one sentence each.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        let wants = |what: fn(&Policy) -> bool| self.policy.iter().any(what);
        if wants(|policy| policy.exact) && self.max_bytes == 0 && self.disk.max_bytes == 0 {
            remarks.push("a cache.policy has `exact`, and nothing is kept: give cache.max_bytes a bound".to_owned());
        }
        if wants(|policy| policy.semantic) && self.semantic.max_entries == 0 {
            remarks.push(
                "a cache.policy has `semantic`, and nothing is kept: give cache.semantic.max_entries a bound"
                    .to_owned(),
            );
        }
        if self.is_on() && !wants(|policy| policy.exact || policy.semantic) {
            remarks.push("cache has room and no cache.policy uses it: add one with `exact` or `semantic`".to_owned());
        }
        remarks
    }
}

/// With whom answers are shared. A tenant's never leave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// With requests of the same key only.
    #[default]
    Key,
    /// With all of the tenant's requests.
    Tenant,
}

/// What routes do with answers: `[[cache.policy]]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Policy {
    /// The routes by name; all of them if left out.
    pub routes: Vec<String>,
    /// Answers a request that was asked before, byte for byte but for the order of members and the white space between.
    pub exact: bool,
    /// Answers a request that means the same as one before.
    pub semantic: bool,
    /// Lets requests that are the same wait for the first one's answer. A stream's followers get nothing before its end.
    pub single_flight: bool,
    /// How long an answer is good, in seconds.
    pub ttl_s: u64,
    /// With whom answers are shared.
    pub scope: Scope,
    /// Members of the request's outermost object that make no difference, such as `user` or `metadata`.
    pub leave_out: Vec<String>,
    /// How alike two meanings must be, as the cosine of their vectors, 0 to 1.
    pub threshold: f32,
}

impl Policy {
    /// Keeps nothing and finds nothing.
    pub const OFF: Self = Self {
        routes: Vec::new(),
        exact: false,
        semantic: false,
        single_flight: false,
        ttl_s: 3600,
        scope: Scope::Key,
        leave_out: Vec::new(),
        threshold: 0.95,
    };
}

impl Default for Policy {
    fn default() -> Self {
        Self::OFF
    }
}

/// Most names in `leave_out`.
const MAX_LEFT_OUT: usize = 32;
/// Members without which another question would be the same.
const NEVER_LEFT_OUT: [&str; 7] = ["messages", "input", "prompt", "contents", "model", "system", "tools"];

/// Why `[cache]` cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// Over 100,000 answers by meaning.
    #[error("cache.semantic.max_entries is at most {MAX_ENTRIES}, not {0}: every look-up goes through the bits of all")]
    Entries(usize),
    /// None, or over 1,024.
    #[error("cache.semantic.rescored is 1 to {MAX_RESCORED}, not {0}: 32 finds nearly everything")]
    Rescored(usize),
    /// Over 256 policies.
    #[error("cache has at most {MAX_POLICIES} policies, this one has {0}")]
    Policies(usize),
    /// Outside 0 to 1, or not a number.
    #[error("cache.policy threshold is a cosine from 0 to 1, not {0}: 0.95 is a careful start")]
    Threshold(f32),
    /// Answers that are never good.
    #[error("cache.policy ttl_s must be at least 1: leave `exact` and `semantic` off to keep nothing")]
    Ttl,
    /// Too many names.
    #[error("cache.policy leave_out has at most {MAX_LEFT_OUT} names, this one has {0}")]
    LeftOut(usize),
    /// What is asked would make no difference.
    #[error("cache.policy leave_out must not name `{0}`: different questions would get the same answer")]
    Question(String),
}

impl Policy {
    /// Whether the policy can be used.
    pub fn check(&self) -> Result<(), ConfigError> {
        if !(0.0..=1.0).contains(&self.threshold) {
            return Err(ConfigError::Threshold(self.threshold));
        }
        if self.ttl_s == 0 {
            return Err(ConfigError::Ttl);
        }
        if self.leave_out.len() > MAX_LEFT_OUT {
            return Err(ConfigError::LeftOut(self.leave_out.len()));
        }
        match self.leave_out.iter().find(|name| NEVER_LEFT_OUT.contains(&name.as_str())) {
            Some(name) => Err(ConfigError::Question(name.clone())),
            None => Ok(()),
        }
    }

    pub(super) fn ttl_ms(&self) -> i64 {
        i64::try_from(self.ttl_s.saturating_mul(1000)).unwrap_or(i64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_unless_a_bound_is_set() {
        assert!(!toml::from_str::<Config>("").unwrap().is_on());
        assert!(toml::from_str::<Config>("max_bytes = 1").unwrap().is_on());
        assert!(toml::from_str::<Config>("[semantic]\nmax_entries = 1").unwrap().is_on());
        let policy: Policy = toml::from_str("").unwrap();
        assert!(!policy.exact && !policy.semantic && !policy.single_flight);
        assert_eq!((policy.scope, policy.check()), (Scope::Key, Ok(())));
    }

    #[test]
    fn a_policy_under_which_questions_are_confused_is_refused() {
        let check = |text: &str| toml::from_str::<Policy>(text).unwrap().check();
        assert_eq!(check("leave_out = [\"user\", \"metadata\"]"), Ok(()));
        assert_eq!(check("leave_out = [\"messages\"]"), Err(ConfigError::Question("messages".to_owned())));
        assert_eq!(check("threshold = 1.5"), Err(ConfigError::Threshold(1.5)));
        assert!(matches!(check("threshold = nan"), Err(ConfigError::Threshold(_))));
        assert_eq!(check("ttl_s = 0"), Err(ConfigError::Ttl));
        let names = vec!["\"a\""; 33].join(",");
        assert_eq!(check(&format!("leave_out = [{names}]")), Err(ConfigError::LeftOut(33)));
    }

    #[test]
    fn bounds_that_cost_too_much_are_refused_and_idle_ones_are_pointed_out() {
        let read = |text: &str| toml::from_str::<Config>(text).unwrap();
        assert_eq!(read("[semantic]\nmax_entries = 100001").check(), Err(ConfigError::Entries(100_001)));
        assert_eq!(read("[semantic]\nrescored = 0").check(), Err(ConfigError::Rescored(0)));
        assert_eq!(read("[[policy]]\nttl_s = 0").check(), Err(ConfigError::Ttl));
        let good = read("max_bytes = 1\n[[policy]]\nroutes = [\"chat\"]\nexact = true");
        assert_eq!((good.check(), good.remarks()), (Ok(()), vec![]));
        assert!(read("max_bytes = 1").remarks()[0].contains("no cache.policy uses it"));
        assert!(read("[[policy]]\nexact = true").remarks()[0].contains("cache.max_bytes"));
        assert!(read("[[policy]]\nsemantic = true").remarks()[0].contains("max_entries"));
    }

    #[test]
    fn an_unknown_setting_is_refused() {
        assert!(toml::from_str::<Config>("enabled = true").is_err());
        assert!(toml::from_str::<Policy>("scope = \"world\"").is_err());
    }
}
