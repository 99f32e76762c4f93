//! Requests that name no version, spread over the versions of a model: what is declared, what was set at run time, and
//! how it goes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use serde::Serialize;

use super::conduct::{BreakerView, ConductCounts};
use crate::base::Name;
pub use crate::catalog::SetTraffic;
use crate::catalog::{self, DEFAULT, Shadow, Splits, Sticky, TrafficError};
use crate::route::{Candidate, choose, order};

/// How one model's requests are spread. Swapped whole when it changes.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) model: Name,
    /// Whether some of it was set at run time.
    pub(super) is_set: bool,
    /// Those of the split, then those that are asked only in their place.
    pub(super) candidates: Vec<Candidate>,
    pub(super) fallback: Option<Vec<Name>>,
    pub(super) sticky: Sticky,
    pub(super) sticky_key: Box<str>,
    pub(super) slow_ms: Option<u64>,
    /// None also where it is set to nothing.
    pub(super) shadow: Option<Shadow>,
}

impl Plan {
    fn new(model: &Name, traffic: catalog::Traffic, is_set: bool) -> Self {
        let mut split = traffic.split;
        if split.is_empty() {
            // What answers by itself.
            split.insert(Name::new(DEFAULT).expect("a name"), 1);
        }
        let mut candidates: Vec<Candidate> =
            split.into_iter().map(|(name, weight)| Candidate { name, weight }).collect();
        for name in traffic.fallback.iter().flatten() {
            if !candidates.iter().any(|candidate| candidate.name == *name) {
                candidates.push(Candidate { name: name.clone(), weight: 0 });
            }
        }
        Self {
            model: model.clone(),
            is_set,
            candidates,
            fallback: traffic.fallback,
            sticky: traffic.sticky,
            sticky_key: traffic.sticky_key.into(),
            slow_ms: traffic.slow_ms,
            shadow: traffic.shadow.filter(|shadow| shadow.percent > 0.0),
        }
    }

    /// The names of the versions in the order in which a request with this key asks them.
    pub(super) fn order(&self, key: &[u8]) -> Vec<Name> {
        let Some(first) = choose(&self.candidates, self.model.as_str(), key) else { return Vec::new() };
        let places = order(&self.candidates, first, self.fallback.as_deref());
        places.into_iter().map(|at| self.candidates[at].name.clone()).collect()
    }

    /// Every name of a version in it.
    pub(super) fn targets(&self) -> impl Iterator<Item = &Name> {
        self.candidates.iter().map(|candidate| &candidate.name).chain(self.shadow.iter().map(|shadow| &shadow.to))
    }

    /// Those that get requests, the one with the most first: what the model is, to who asks without a version.
    pub(super) fn by_weight(&self) -> Vec<&Name> {
        let mut weighted: Vec<&Candidate> = self.candidates.iter().filter(|candidate| candidate.weight > 0).collect();
        weighted.sort_by_key(|candidate| std::cmp::Reverse(candidate.weight));
        weighted.into_iter().map(|candidate| &candidate.name).collect()
    }
}

/// The plans of all models that have one.
#[derive(Debug)]
pub(super) struct Traffic {
    splits: Splits,
    plans: RwLock<BTreeMap<Name, Arc<Plan>>>,
}

impl Traffic {
    /// What is configured, and what was set before. Reads the disk: not for an async thread.
    pub(super) fn open(config: &catalog::Config, state_dir: &Path) -> (Self, Option<String>) {
        let (splits, problem) = Splits::open(config, state_dir);
        let plan = |name: Name| {
            let (traffic, is_set) = splits.of(&name)?;
            let plan = Arc::new(Plan::new(&name, traffic, is_set));
            Some((name, plan))
        };
        let plans = splits.models().into_iter().filter_map(plan).collect();
        (Self { splits, plans: RwLock::new(plans) }, problem)
    }

    /// The plan of a model.
    pub(super) fn plan(&self, model: &str) -> Option<Arc<Plan>> {
        // Plans are put in place whole.
        self.plans.read().unwrap_or_else(PoisonError::into_inner).get(model).map(Arc::clone)
    }

    /// Every plan.
    pub(super) fn plans(&self) -> Vec<Arc<Plan>> {
        self.plans.read().unwrap_or_else(PoisonError::into_inner).values().map(Arc::clone).collect()
    }

    /// Writes the disk: not for an async thread.
    pub(super) fn put(&self, model: &Name, traffic: SetTraffic) -> Result<(), TrafficError> {
        self.change(model, || self.splits.put(model, traffic))
    }

    /// Writes the disk: not for an async thread.
    pub(super) fn remove(&self, model: &Name) -> Result<(), TrafficError> {
        self.change(model, || self.splits.remove(model))
    }

    /// Requests see the old plan or the new one. What is set is read while the plans are held, so that two changes at once
    /// end with the one that is on the disk; the disk is written before that, because requests wait for the plans.
    fn change(&self, model: &Name, write: impl FnOnce() -> Result<(), TrafficError>) -> Result<(), TrafficError> {
        write()?;
        let mut plans = self.plans.write().unwrap_or_else(PoisonError::into_inner);
        match self.splits.of(model) {
            Some((traffic, is_set)) => drop(plans.insert(model.clone(), Arc::new(Plan::new(model, traffic, is_set)))),
            None => drop(plans.remove(model)),
        }
        Ok(())
    }
}

/// A version that gets requests.
#[derive(Debug, Clone, Serialize)]
pub struct TargetView {
    /// Its alias or number.
    pub to: String,
    /// The version that this means now.
    pub version: Option<u32>,
    /// Why it would not answer; its share goes to the next ones.
    pub problem: Option<String>,
    /// Its weight; 0: it is asked only in the place of another one.
    pub weight: u32,
    /// Its part of all weights.
    pub share: f64,
}

/// Who gets copies.
#[derive(Debug, Clone, Serialize)]
pub struct ShadowView {
    /// Its alias or number.
    pub to: String,
    /// The version that this means now.
    pub version: Option<u32>,
    /// Percent of the requests.
    pub percent: f64,
    /// Largest absolute difference that is none.
    pub tolerance: f64,
    /// Added to it, as a part of the answer's value.
    pub relative_tolerance: f64,
}

/// How one version does.
#[derive(Debug, Clone, Serialize)]
pub struct VersionTraffic {
    /// The version.
    pub version: u32,
    /// Names for it.
    pub aliases: Vec<String>,
    /// Requests answered, over all doors, copies not among them.
    pub answered: u64,
    /// Requests without an answer.
    pub failed: u64,
    /// Its share of the split.
    #[serde(flatten)]
    pub counts: ConductCounts,
    /// Its breaker.
    pub breaker: BreakerView,
}

/// The traffic of a model as people see it.
#[derive(Debug, Clone, Serialize)]
pub struct TrafficView {
    /// The model.
    pub model: String,
    /// `none`: nothing is split; `configuration`; or `set`: at run time.
    pub source: &'static str,
    /// Who gets requests, as the weights say.
    pub split: Vec<TargetView>,
    /// Who is asked when the chosen one does not answer, if that is declared.
    pub fallback: Option<Vec<String>>,
    /// What holds requests to a version.
    pub sticky: Option<Sticky>,
    /// The header that has the key.
    pub sticky_key: Option<String>,
    /// Longer is slow, in milliseconds.
    pub slow_ms: Option<u64>,
    /// Who gets copies.
    pub shadow: Option<ShadowView>,
    /// Every version that can be asked.
    pub versions: Vec<VersionTraffic>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Plan {
        Plan::new(&Name::new("press").unwrap(), toml::from_str(text).unwrap(), false)
    }

    fn names(names: &[Name]) -> Vec<&str> {
        names.iter().map(Name::as_str).collect()
    }

    #[test]
    fn without_a_split_whatever_answers_by_itself_is_asked_before_the_fallback() {
        let plan = plan("fallback = [\"stable\"]");
        for key in 0_u8..9 {
            assert_eq!(names(&plan.order(&[key])), ["default", "stable"]);
        }
        assert_eq!(plan.by_weight(), [&Name::new("default").unwrap()]);
    }

    #[test]
    fn a_fallback_that_is_no_target_gets_nothing_by_itself() {
        let plan = plan("split = { prod = 1, canary = 3 }\nfallback = [\"stable\", \"prod\"]");
        for key in 0_u32..200 {
            let order = plan.order(&key.to_le_bytes());
            let expected: &[&str] =
                if order[0].as_str() == "prod" { &["prod", "stable"] } else { &["canary", "stable", "prod"] };
            assert_eq!(names(&order), expected);
        }
        assert_eq!(plan.by_weight()[0].as_str(), "canary");
    }

    #[test]
    fn a_shadow_of_nothing_is_none() {
        assert!(plan("shadow = { to = \"canary\", percent = 0 }").shadow.is_none());
        assert!(plan("shadow = { to = \"canary\" }").shadow.is_some());
    }
}
