//! The models of the box as people see them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::conduct::BreakerView;
use super::models::Models;
use super::slot::{Slot, State};
use crate::base::Name;
use crate::engine::Handle;

/// One version of a model as people see it.
#[derive(Debug, Clone, Serialize)]
pub struct ModelView {
    /// Name.
    pub name: String,
    /// Version.
    pub version: u32,
    /// True if it answers, be it after loading.
    pub serving: bool,
    /// `serving`, `asleep` (loads with the next request), `loading`, `refused`, `away`, `waiting`: a pipeline one of whose
    /// models does not serve; or `not_loaded`, in the repository's index alone.
    pub state: &'static str,
    /// Names for this version.
    pub aliases: Vec<String>,
    /// What computes it.
    pub engine: Option<String>,
    /// Engines that were asked before it, with their reasons.
    pub passed_over: Vec<String>,
    /// Bytes of memory that it reserved.
    pub memory_bytes: Option<u64>,
    /// Whether requests that wait are computed together, and why or why not.
    pub batching: Option<String>,
    /// Why it does not serve, or what went wrong when it was loaded last.
    pub problem: Option<String>,
    /// The process that computes it, where it is not this one.
    pub delegate: Option<DelegateView>,
    /// Its breaker, where the model's requests are spread over versions.
    pub breaker: Option<BreakerView>,
}

/// A process that computes a model.
#[derive(Debug, Clone, Serialize)]
pub struct DelegateView {
    /// The configuration's name for the device.
    pub device: String,
    /// `starting`, `serving` or `down`.
    pub state: &'static str,
    /// What computes while it does not.
    pub stand_in: Option<&'static str>,
    /// ONNX Runtime's version and the device in its driver's words.
    pub runtime: String,
    /// Who computes how many of the model's operators.
    pub placement: String,
    /// Its process.
    pub pid: Option<u32>,
    /// Starts after the first.
    pub restarts: u64,
    /// Why it was last started again or is down.
    pub reason: Option<String>,
    /// Memory of its own, in bytes.
    pub memory_bytes: u64,
    /// Above this it is started anew, in bytes.
    pub memory_limit_bytes: u64,
    /// Whether the kernel holds it to a hard limit, too.
    pub memory_limited_by_kernel: bool,
    /// What keeps it off the network.
    pub network: &'static str,
}

impl ModelView {
    /// The state in the words of Triton's index. One that loads on request is ready: it answers.
    pub fn state_word(&self) -> &'static str {
        match self.state {
            "loading" => "LOADING",
            _ if self.serving => "READY",
            _ => "UNAVAILABLE",
        }
    }
}

impl ModelView {
    /// One whose folder is there, and that nobody has looked into.
    pub(super) fn not_loaded(name: &Name, version: u32) -> Self {
        let problem = Some("not loaded".to_owned());
        Self { problem, ..unloaded(name, version, "not_loaded", &BTreeMap::new()) }
    }
}

impl Models {
    /// All of them, by name and version.
    pub fn views(&self) -> Vec<ModelView> {
        let now = self.clock.since_boot();
        let shelf = self.shelf();
        let mut views: Vec<ModelView> = Vec::new();
        let mut pipelines: Vec<(usize, Arc<Slot>)> = Vec::new();
        for (name, versions) in &shelf.models {
            let (aliases, is_split) = (self.aliases.of(name), self.plan(name.as_str()).is_some());
            for (version, slot) in versions {
                if slot.graph.is_some() {
                    pipelines.push((views.len(), Arc::clone(slot)));
                }
                let breaker = is_split.then(|| slot.conduct.breaker(now));
                views.push(ModelView { breaker, ..view(name, *version, slot, &aliases) });
            }
        }
        for (name, versions) in &shelf.broken {
            let none = BTreeMap::new();
            let broken = |(version, reason): (&u32, &String)| ModelView {
                problem: Some(reason.clone()),
                ..unloaded(name, *version, "refused", &none)
            };
            views.extend(versions.iter().map(broken));
        }
        // A pipeline looks its models up by itself.
        drop(shelf);
        for (at, slot) in pipelines {
            let view = &mut views[at];
            if view.serving {
                match self.pipeline_problem(&slot) {
                    Some(problem) => (view.serving, view.state, view.problem) = (false, "waiting", Some(problem)),
                    // What was wrong when it was loaded last is no more.
                    None => view.problem = None,
                }
            }
        }
        views.sort_by(|a, b| (&a.name, a.version).cmp(&(&b.name, b.version)));
        views
    }
}

fn delegate_view(handle: &Handle) -> Option<DelegateView> {
    let state = handle.delegate()?;
    Some(DelegateView {
        device: state.device,
        state: state.phase.as_str(),
        stand_in: handle.stand_in(),
        runtime: state.runtime,
        placement: state.placement,
        pid: state.pid,
        restarts: state.restarts,
        reason: state.reason,
        memory_bytes: state.memory_bytes,
        memory_limit_bytes: state.memory_limit_bytes,
        memory_limited_by_kernel: state.memory_limited_by_kernel,
        network: state.isolation.as_str(),
    })
}

fn unloaded(name: &Name, version: u32, state: &'static str, aliases: &BTreeMap<Name, u32>) -> ModelView {
    let aliases = aliases.iter().filter(|(_, of)| **of == version).map(|(alias, _)| alias.to_string()).collect();
    ModelView {
        name: name.to_string(),
        version,
        serving: false,
        state,
        aliases,
        engine: None,
        passed_over: Vec::new(),
        memory_bytes: None,
        batching: None,
        problem: None,
        delegate: None,
        breaker: None,
    }
}

fn view(name: &Name, version: u32, slot: &Slot, aliases: &BTreeMap<Name, u32>) -> ModelView {
    let view = |state: &'static str| unloaded(name, version, state, aliases);
    let text = |reason: &Arc<str>| Some(reason.to_string());
    match slot.state() {
        State::Asleep(reason) => ModelView { serving: true, problem: reason.as_ref().and_then(text), ..view("asleep") },
        State::Loading => view("loading"),
        State::Serving(loaded) => ModelView {
            serving: true,
            engine: Some(loaded.handle.engine().to_owned()),
            passed_over: loaded.handle.handle().map(passed_over).unwrap_or_default(),
            memory_bytes: Some(loaded.handle.memory_bytes()),
            batching: Some(loaded.handle.batching().to_owned()),
            delegate: loaded.handle.handle().and_then(delegate_view),
            ..view("serving")
        },
        State::Refused { .. } => ModelView { problem: slot.problem().as_ref().and_then(text), ..view("refused") },
        State::Away(reason) => ModelView { problem: text(&reason), ..view("away") },
    }
}

/// `engine: reason`, one each.
pub(super) fn passed_over(handle: &Handle) -> Vec<String> {
    handle.passed_over().iter().map(|passed| format!("{}: {}", passed.engine, passed.reason)).collect()
}
