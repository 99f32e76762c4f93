//! The way of one request through a model's versions: who is asked first, who next, and why the others were passed over.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::conduct::{Pass, Why};
use super::fault::{Blame, Fault};
use super::inference::InferError;
use super::models::{Loaded, Models, NotServing};
use super::slot::Slot;
use super::traffic::Plan;
use crate::base::{Clock, Name};

/// Reasons of versions that were passed over are cut to so many bytes: they ride along in every answer.
const REASON_BYTES: usize = 200;

/// A version that is asked now.
pub(super) struct Turn {
    pub(super) loaded: Arc<Loaded>,
    pub(super) pass: Pass,
    /// The longest that it may take, where somebody else can be asked after it.
    pub(super) most: Option<Duration>,
}

/// A version that did not answer.
struct PassedOver {
    /// The name that its requests come by.
    to: Name,
    version: Option<u32>,
    reason: String,
}

/// The versions that a request may be asked of.
pub(super) struct Way {
    model: String,
    kind: Kind,
}

enum Kind {
    /// One version and nobody else; None is whatever answers by itself.
    One(Option<u32>),
    Split(Split),
}

struct Split {
    plan: Arc<Plan>,
    left: VecDeque<Name>,
    /// The one whose turn it is.
    current: Option<Name>,
    asked: Vec<u32>,
    passed: Vec<PassedOver>,
    /// The last one's.
    error: Option<InferError>,
}

impl Way {
    /// To this version and nobody else.
    pub(super) fn to(model: &str, version: Option<u32>) -> Self {
        Self { model: model.to_owned(), kind: Kind::One(version) }
    }

    /// Through the split of `plan`, to the version that `key` belongs to first.
    pub(super) fn through(plan: Arc<Plan>, key: &[u8]) -> Self {
        let left = plan.order(key).into();
        let model = plan.model.to_string();
        let split = Split { plan, left, current: None, asked: Vec::new(), passed: Vec::new(), error: None };
        Self { model, kind: Kind::Split(split) }
    }

    /// Whether anybody else may be asked after the first.
    pub(super) fn is_split(&self) -> bool {
        matches!(self.kind, Kind::Split(_))
    }

    pub(super) fn plan(&self) -> Option<&Arc<Plan>> {
        match &self.kind {
            Kind::One(_) => None,
            Kind::Split(split) => Some(&split.plan),
        }
    }

    /// Why it was not answered by the version that was to; none if it was.
    pub(super) fn reason(&self) -> Option<Arc<str>> {
        match &self.kind {
            Kind::Split(split) if !split.passed.is_empty() => Some(tell(&split.passed).into()),
            _ => None,
        }
    }

    /// The next version to ask, loaded. Waits at most `patience` for that. An error when there is nobody left: that of the
    /// last one, with what the others said.
    pub(super) async fn next(
        &mut self,
        models: &Arc<Models>,
        clock: &dyn Clock,
        patience: Duration,
    ) -> Result<Turn, InferError> {
        let split = match &mut self.kind {
            Kind::One(version) => {
                let loaded = models.ready(&self.model, *version, patience).await?;
                let pass = loaded.conduct.anyway();
                return Ok(Turn { loaded, pass, most: None });
            }
            Kind::Split(split) => split,
        };
        let Split { plan, left, current, asked, passed, error } = split;
        let started = clock.since_boot();
        while let Some(to) = left.pop_front() {
            let is_first = asked.is_empty() && passed.is_empty();
            let slot = match models.resolve(plan.model.as_str(), to.as_str()) {
                Ok(slot) => slot,
                Err(refusal) => {
                    passed.push(PassedOver { to, version: None, reason: refusal.to_string() });
                    *error = Some(refusal.into());
                    continue;
                }
            };
            let version = slot.version();
            if asked.contains(&version) {
                // Two names of one version.
                continue;
            }
            asked.push(version);
            if is_first {
                slot.conduct.chosen();
            }
            let mut over = |why: Why, reason: String| {
                slot.conduct.passed_over(why);
                tracing::debug!(model = slot.title(), why = why.as_str(), reason, "a version is passed over");
                passed.push(PassedOver { to: to.clone(), version: Some(version), reason });
            };
            let now = clock.since_boot();
            let pass = match slot.conduct.admit(now) {
                Ok(pass) => pass,
                Err(refused) => {
                    over(Why::Breaker, refused.to_string());
                    continue;
                }
            };
            let is_last = !another(models, plan, left, asked, now);
            let most = slot.conduct.slow().filter(|_| !is_last);
            let remaining = patience.saturating_sub(now.saturating_sub(started));
            match models.ready_in(&slot, most.map_or(remaining, |most| most.min(remaining))).await {
                Ok(loaded) => {
                    *current = Some(to);
                    return Ok(Turn { loaded, pass, most });
                }
                Err(refusal) => {
                    let why = match &refusal {
                        NotServing::Busy { .. } => Why::Busy,
                        NotServing::Loading { .. } => Why::Slow,
                        NotServing::Unknown(_) | NotServing::Refused { .. } => Why::NotServing,
                    };
                    over(why, refusal.to_string());
                    *error = Some(refusal.into());
                }
            }
        }
        if let Err(unknown @ NotServing::Unknown(_)) = models.find(plan.model.as_str(), None) {
            // Not one of its versions is there: neither is the model.
            return Err(unknown.into());
        }
        let said = tell(passed);
        Err(match error.take() {
            // One reason is the error itself.
            Some(error) if passed.len() == 1 => error,
            Some(error) => error.after(&said),
            None => InferError::NotServing { reason: format!("model {} has nobody to ask: {said}", plan.model) },
        })
    }

    /// Passes over a version that did not answer, or says that the request ends with its fault: it was the caller's, the
    /// time is over, or there is nobody else.
    pub(super) fn pass_over(&mut self, loaded: &Loaded, fault: Fault) -> Result<(), InferError> {
        let Kind::Split(split) = &mut self.kind else { return Err(fault.error) };
        let why = match fault.blame {
            Blame::Caller => return Err(fault.error),
            Blame::Nobody if split.passed.is_empty() => return Err(fault.error),
            Blame::Nobody => return Err(fault.error.after(&tell(&split.passed))),
            Blame::Failed => Why::Failed,
            Blame::Slow => Why::Slow,
            Blame::Busy => Why::Busy,
        };
        let (about, reason) = (&loaded.manifest.model, fault.error.to_string());
        let (name, version, word) = (&about.name, about.version, why.as_str());
        if why == Why::Busy {
            // A box that is full would fill its log as well.
            tracing::debug!(model.name = %name, model.version = version, why = word, reason, "a version has no room; the next one is asked");
        } else {
            tracing::warn!(model.name = %name, model.version = version, why = word, reason, "a version did not answer; the next one is asked");
        }
        split.passes_over(loaded, why, reason);
        split.error = Some(fault.error);
        Ok(())
    }

    /// Passes over a version for a reason that is not its engine's. False if there is nobody else in any case.
    pub(super) fn skip(&mut self, loaded: &Loaded, why: Why, reason: &str) -> bool {
        if let Kind::Split(split) = &mut self.kind {
            split.passes_over(loaded, why, reason.to_owned());
        }
        self.is_split()
    }

    /// This version answered: in its turn, or in the place of those before it.
    pub(super) fn answered_by(&self, loaded: &Loaded) {
        let Some(reason) = self.reason() else { return };
        loaded.conduct.stood_in();
        let about = &loaded.manifest.model;
        tracing::debug!(model.name = %about.name, model.version = about.version, reason = &*reason, "another version answered");
    }
}

impl Split {
    /// The one whose turn it was.
    fn passes_over(&mut self, loaded: &Loaded, why: Why, reason: String) {
        loaded.conduct.passed_over(why);
        if let Some(to) = self.current.take() {
            self.passed.push(PassedOver { to, version: Some(loaded.manifest.model.version), reason });
        }
    }
}

/// Whether any of those left could be asked now.
fn another(models: &Models, plan: &Plan, left: &VecDeque<Name>, asked: &[u32], now: Duration) -> bool {
    left.iter().any(|to| {
        let slot: Option<Arc<Slot>> = models.resolve(plan.model.as_str(), to.as_str()).ok();
        slot.is_some_and(|slot| {
            !asked.contains(&slot.version()) && slot.problem().is_none() && slot.conduct.admits(now)
        })
    })
}

/// What those that were passed over said, on one line.
fn tell(passed: &[PassedOver]) -> String {
    let mut text = String::new();
    for PassedOver { to, version, reason } in passed {
        let reason = match reason.char_indices().nth(REASON_BYTES) {
            Some((end, _)) => &reason[..end],
            None => reason,
        };
        let separator = if text.is_empty() { "" } else { "; " };
        let written = match version {
            Some(version) if version.to_string() == to.as_str() => {
                write!(text, "{separator}version {version}: {reason}")
            }
            Some(version) => write!(text, "{separator}version {version} ({to}): {reason}"),
            None => write!(text, "{separator}{to}: {reason}"),
        };
        written.expect("a text takes everything");
    }
    text
}
