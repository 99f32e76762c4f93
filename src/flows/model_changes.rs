//! What changes while the gateway runs: aliases, traffic, and which versions of a model there are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::conduct::BreakerView;
use super::models::{Loaded, Models, Versions};
use super::slot::{Slot, State};
use crate::base::Name;
use crate::catalog::{AliasError, SetTraffic, TrafficError};

impl Models {
    /// The aliases of a model by name, set or configured; None if there is no such model.
    pub fn aliases(&self, name: &str) -> Option<BTreeMap<Name, u32>> {
        let name = self.shelf().models.get_key_value(name).map(|(name, _)| name.clone())?;
        Some(self.aliases.of(&name))
    }

    /// `alias` means `version` from now on. Writes the disk: not for an async thread.
    pub(super) fn put_alias(&self, name: &Name, alias: &str, version: u32) -> Result<(), AliasError> {
        self.aliases.put(name, alias, version)
    }

    /// What was set for `alias` is forgotten. Writes the disk: not for an async thread.
    pub(super) fn remove_alias(&self, name: &Name, alias: &str) -> Result<(), AliasError> {
        self.aliases.remove(name, alias)
    }

    /// Requests for a model are spread like this from now on. Writes the disk: not for an async thread.
    pub(super) fn put_traffic(&self, name: &Name, traffic: SetTraffic) -> Result<(), TrafficError> {
        self.traffic.put(name, traffic)
    }

    /// What was set for a model's requests is forgotten. Writes the disk: not for an async thread.
    pub(super) fn remove_traffic(&self, name: &Name) -> Result<(), TrafficError> {
        self.traffic.remove(name)
    }

    /// The places of a model's versions, ascending.
    pub(super) fn slots_of(&self, name: &str) -> Vec<Arc<Slot>> {
        self.shelf().models.get(name).map_or_else(Vec::new, |versions| versions.values().map(Arc::clone).collect())
    }

    /// How a version does now.
    pub(super) fn breaker(&self, slot: &Slot) -> BreakerView {
        slot.conduct.breaker(self.clock.since_boot())
    }

    /// `stream` is scored by this version from now on, so it must stay, and the models that a pipeline asks with it.
    pub(super) fn keep_for(&self, stream: &str, loaded: &Loaded) {
        let about = &loaded.manifest.model;
        let mut kept = BTreeSet::from([(about.name.clone(), about.version)]);
        if let Some(pipeline) = loaded.handle.pipeline() {
            self.asked_by(&pipeline.graph, &mut kept);
        }
        let mut shelf = self.shelf_mut();
        for version in kept {
            shelf.streams.entry(version).or_default().push(stream.to_owned());
        }
    }

    /// The streams that versions of this model score for, by themselves or within a pipeline.
    pub(super) fn streams_of(&self, name: &str) -> BTreeSet<String> {
        let shelf = self.shelf();
        let of_model = shelf.streams.iter().filter(|((model, _), _)| model.as_str() == name);
        of_model.flat_map(|(_, streams)| streams).cloned().collect()
    }

    /// What is loaded of a version and unchanged, which need not be loaded again.
    pub(super) fn unchanged(&self, name: &Name, version: u32, new: &Slot) -> Option<Arc<Slot>> {
        let slot = self.slot(name, version)?;
        let as_served = slot.how == new.how && slot.request_rows_max == new.request_rows_max;
        let same_model = slot.model.manifest == new.model.manifest && slot.model.triton == new.model.triton;
        let same = same_model && as_served && slot.loaded().is_some();
        (same && new.problem().is_none()).then_some(slot)
    }

    /// Puts all versions of a model in the place of those that there were.
    pub(super) fn put(&self, name: &Name, versions: Versions, broken: Option<&BTreeMap<u32, String>>) {
        let mut shelf = self.shelf_mut();
        match broken {
            Some(broken) => drop(shelf.broken.insert(name.clone(), broken.clone())),
            None => drop(shelf.broken.remove(name)),
        }
        shelf.models.insert(name.clone(), versions);
    }

    /// The pipelines that ask a model, and those that ask these: all that cannot answer without it.
    pub(super) fn dependents(&self, name: &str) -> BTreeSet<Name> {
        let slots = self.all_slots();
        let graphs = slots
            .iter()
            .filter_map(|slot| Some((&slot.model.manifest.model.name, slot.graph.as_ref()?.as_ref().ok()?)));
        let graphs: Vec<_> = graphs.filter(|(pipeline, _)| pipeline.as_str() != name).collect();
        let mut found: BTreeSet<Name> = BTreeSet::new();
        loop {
            let gone = |asked: &str| asked == name || found.iter().any(|pipeline| pipeline.as_str() == asked);
            let more = graphs.iter().filter(|(pipeline, graph)| {
                !found.contains(*pipeline) && graph.members().any(|(_, member)| gone(member.name()))
            });
            let more: Vec<Name> = more.map(|(pipeline, _)| (*pipeline).clone()).collect();
            if more.is_empty() {
                return found;
            }
            found.extend(more);
        }
    }

    /// Takes every version of a model away. False if there is none of that name.
    pub(super) fn take(&self, name: &str) -> bool {
        match self.shelf().models.get(name) {
            None => false,
            Some(versions) => {
                versions.values().for_each(|slot| slot.set(State::Away("it was unloaded".into())));
                true
            }
        }
    }
}
