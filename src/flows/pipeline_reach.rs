//! Whether a pipeline's models can answer: every version that a step may come to is looked at, and no way leads back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::key::Key;
use super::models::{Models, NotServing};
use super::pipeline_load::{ports, signature_of};
use super::slot::Slot;
use crate::base::Name;
use crate::pipeline::{Graph, Member, Port};

/// Pipelines within pipelines.
const NESTING_MAX: usize = 4;

/// Why a version cannot be asked, if that is so.
type Problem = fn(&Slot) -> Option<Arc<str>>;

impl Models {
    /// Why a pipeline cannot answer now, if that is so; None for any other model.
    pub(super) fn pipeline_problem(&self, slot: &Slot) -> Option<String> {
        self.problem_but(slot, Slot::problem)
    }

    /// The same, but for models that could not be loaded and that the next request tries again.
    pub(super) fn pipeline_hurdle(&self, slot: &Slot) -> Option<String> {
        self.problem_but(slot, Slot::hurdle)
    }

    fn problem_but(&self, slot: &Slot, problem: Problem) -> Option<String> {
        let graph = match slot.graph.as_ref()? {
            Ok(graph) => graph,
            Err(reason) => return Some(reason.clone()),
        };
        self.missing_but(slot.model.manifest.model.name.as_str(), graph, problem).or_else(|| {
            let checked = graph.check(&|member: &Member| self.signature(member));
            checked.err().map(|error| error.to_string())
        })
    }

    /// Which of a pipeline's models has no version that can be asked, if one has none, and of theirs. Pipelines that lead back
    /// to themselves are told with the way: names decide, as the newest version may be another tomorrow.
    pub(super) fn missing(&self, name: &str, graph: &Graph) -> Option<String> {
        // A step's request loads what could not be loaded before and is to be tried again.
        self.missing_but(name, graph, Slot::hurdle)
    }

    fn missing_but(&self, name: &str, graph: &Graph, problem: Problem) -> Option<String> {
        self.circle(&mut vec![name.to_owned()], &mut BTreeMap::new(), graph)
            .or_else(|| self.absent(&mut BTreeSet::new(), graph, problem))
    }

    /// A way back to where it began, or one that is too long. Follows every version that a step may come to, also those that
    /// stand in for others. `sound` are those that were followed already, with how deep that was.
    fn circle(&self, path: &mut Vec<String>, sound: &mut BTreeMap<String, usize>, graph: &Graph) -> Option<String> {
        for (step, member) in graph.members() {
            let told = |what: String| Some(format!("step {}: {what}", step.name));
            let name = member.name().to_owned();
            if let Some(at) = path.iter().position(|above| *above == name) {
                let way = path[at..].join(" -> ");
                return told(format!("pipelines ask each other in a circle: {way} -> {name}"));
            }
            for slot in self.reachable(&member.model, member.version).unwrap_or_default() {
                let Some(Ok(inner)) = slot.graph.as_ref().filter(|_| slot.hurdle().is_none()) else { continue };
                if path.len() >= NESTING_MAX {
                    let way = path.join(" -> ");
                    return told(format!("pipelines are nested more than {NESTING_MAX} deep: {way} -> {name}"));
                }
                let title = slot.title();
                if sound.get(&title).is_some_and(|&depth| depth >= path.len()) {
                    continue;
                }
                path.push(name.clone());
                let problem = self.circle(path, sound, inner);
                path.pop();
                if let Some(problem) = problem {
                    return told(slot.refusal(&problem).to_string());
                }
                sound.insert(title, path.len());
            }
        }
        None
    }

    /// A model none of whose versions can answer. Ends where there is no [`circle`](Self::circle).
    fn absent(&self, sound: &mut BTreeSet<String>, graph: &Graph, problem: Problem) -> Option<String> {
        for (step, member) in graph.members() {
            let told = |what: String| Some(format!("step {}: {what}", step.name));
            let slots = match self.reachable(&member.model, member.version) {
                Ok(slots) => slots,
                Err(error) => return told(error.to_string()),
            };
            let mut first = None;
            for slot in slots {
                let title = slot.title();
                let reason = if sound.contains(&title) { None } else { self.why_not(sound, &slot, problem) };
                let Some(reason) = reason else {
                    sound.insert(title);
                    first = None;
                    break;
                };
                first.get_or_insert_with(|| slot.refusal(&reason).to_string());
            }
            if let Some(first) = first {
                return told(first);
            }
        }
        None
    }

    fn why_not(&self, sound: &mut BTreeSet<String>, slot: &Slot, problem: Problem) -> Option<String> {
        if let Some(reason) = problem(slot) {
            return Some(reason.to_string());
        }
        match slot.graph.as_ref()? {
            Err(reason) => Some(reason.clone()),
            Ok(inner) => self.absent(sound, inner, problem),
        }
    }

    /// The places that a request may come to, at least one: that of its version; without one those of the split, the one
    /// with the most first, if there is a split.
    fn reachable(&self, name: &str, version: Option<u32>) -> Result<Vec<Arc<Slot>>, NotServing> {
        let plan = if version.is_none() { self.plan(name) } else { None };
        let Some(plan) = plan else { return Ok(vec![self.find(name, version)?]) };
        let names = plan.reachable();
        let slots: Vec<_> = names.iter().filter_map(|to| self.resolve(name, to.as_str()).ok()).collect();
        if slots.is_empty() {
            // Not one of its versions is there: perhaps neither is the model.
            self.find(name, None)?;
            let names = names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let reason = format!("none of those is there that its requests are spread over: {names}");
            return Err(NotServing::Refused { name: name.to_owned(), reason });
        }
        Ok(slots)
    }

    /// The version that stands for a model where chance must not decide: the first of those that can be asked.
    pub(super) fn standing(&self, name: &str, version: Option<u32>) -> Result<Arc<Slot>, NotServing> {
        first_usable(self.reachable(name, version)?).ok_or_else(|| NotServing::Unknown(name.to_owned()))
    }

    /// The version that a request which `key` holds comes to first, of those that can be asked.
    pub(super) fn held(&self, name: &str, version: Option<u32>, key: &Key) -> Result<Arc<Slot>, NotServing> {
        let plan = if version.is_none() { self.plan(name) } else { None };
        let Some(plan) = plan else { return self.find(name, version) };
        // Who settles nothing comes to the same one each time.
        let order = plan.order(&key.bytes(&plan, || 0));
        let slots = order.iter().filter_map(|to| self.resolve(name, to.as_str()).ok()).collect();
        first_usable(slots).map_or_else(|| self.standing(name, version), Ok)
    }

    /// Every version that the steps of a pipeline may come to now, and those of pipelines within it.
    pub(super) fn asked_by(&self, graph: &Graph, found: &mut BTreeSet<(Name, u32)>) {
        for (_, member) in graph.members() {
            for slot in self.reachable(&member.model, member.version).unwrap_or_default() {
                let is_new = found.insert((slot.model.manifest.model.name.clone(), slot.version()));
                if let Some(Ok(inner)) = slot.graph.as_ref().filter(|_| is_new) {
                    self.asked_by(inner, found);
                }
            }
        }
    }

    fn signature(&self, member: &Member) -> Option<(Vec<Port>, Vec<Port>)> {
        let slot = self.standing(&member.model, member.version).ok()?;
        match slot.loaded() {
            Some(loaded) => signature_of(&loaded.manifest),
            None => signature_of(&slot.model.manifest),
        }
    }

    /// What a model gives, loaded or not. An error if it cannot be asked, or says nothing of that before it is loaded.
    pub(super) fn gives(&self, member: &Member) -> Result<Vec<Port>, String> {
        let slot = self.standing(&member.model, member.version).map_err(|error| error.to_string())?;
        let loaded = slot.loaded();
        let manifest = loaded.as_ref().map_or(&slot.model.manifest, |loaded| &loaded.manifest);
        if manifest.outputs.is_empty() {
            return Err(format!("{} is not loaded, and its manifest does not say what it gives", slot.title()));
        }
        Ok(ports(&manifest.outputs))
    }
}

fn first_usable(slots: Vec<Arc<Slot>>) -> Option<Arc<Slot>> {
    let well = slots.iter().position(|slot| slot.problem().is_none());
    let usable = well.or_else(|| slots.iter().position(|slot| slot.hurdle().is_none()));
    slots.into_iter().nth(usable.unwrap_or(0))
}
