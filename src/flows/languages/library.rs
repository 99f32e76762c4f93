//! Which models of this box can be asked with texts, and the way to them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::RngCore as _;
use rand::rngs::StdRng;

use super::failure;
use crate::base::{Clock, Datatype};
use crate::catalog::{Manifest, Port};
use crate::dialect::Operation;
use crate::flows::answer::{Local, LocalAsk, LocalAsking, LocalFailure, LocalModel};
use crate::flows::inference::Inference;
use crate::flows::models::{Loaded, Models};
use crate::flows::slot::Slot;
use crate::flows::speech::{SPEAKS, TOKENIZER};
use crate::generate;

/// How long a request waits for its model to be loaded at most; whoever asks waits less, mostly.
pub(super) const PATIENCE: Duration = Duration::from_secs(600);

/// The time that the calling thread has computed so far; none where nobody counts it.
pub type CpuTime = fn() -> Option<Duration>;

/// What it is made of.
pub struct Parts {
    /// Asks the encoders; has the models.
    pub inference: Arc<Inference>,
    /// Bounds.
    pub config: generate::Config,
    /// Counts.
    pub metrics: generate::Metrics,
    /// For templates that ask for the date.
    pub clock: Arc<dyn Clock>,
    /// Seeds of answers that name none.
    pub chance: StdRng,
    /// What an answer costs this box.
    pub cpu: CpuTime,
}

/// The models of this box that take texts.
pub struct Languages {
    pub(super) inference: Arc<Inference>,
    pub(super) config: generate::Config,
    pub(super) metrics: generate::Metrics,
    pub(super) clock: Arc<dyn Clock>,
    chance: Mutex<StdRng>,
    pub(super) cpu: CpuTime,
}

/// What a model does with a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Does {
    Speak,
    Embed,
}

fn does(slot: &Slot) -> Option<Does> {
    let loaded = slot.loaded();
    let manifest = loaded.as_ref().map_or(&slot.model.manifest, |loaded| &loaded.manifest);
    if manifest.model.format == SPEAKS {
        return Some(Does::Speak);
    }
    let has = |name: &str| manifest.files.iter().any(|file| file.name == name);
    // What is left to the file is known when it is loaded.
    let embeds = embedding_of(manifest).is_some() || (manifest.outputs.is_empty() && has("pooling.json"));
    (cfg!(feature = "text") && has(TOKENIZER) && embeds).then_some(Does::Embed)
}

/// The output that is an embedding of each text: numbers in two dimensions, called so, or of a model whose task it is.
pub(super) fn embedding_of(manifest: &Manifest) -> Option<&Port> {
    let is_task = manifest.model.task.contains("embed");
    let fits = |port: &&Port| port.datatype == Datatype::Fp32 && port.shape.len() == 2;
    let mut fitting = manifest.outputs.iter().filter(fits);
    fitting.clone().find(|port| port.name.contains("embed")).or_else(|| fitting.next().filter(|_| is_task))
}

impl Languages {
    /// Of its parts.
    pub fn new(parts: Parts) -> Self {
        let Parts { inference, config, metrics, clock, chance, cpu } = parts;
        Self { inference, config, metrics, clock, chance: Mutex::new(chance), cpu }
    }

    pub(super) fn models(&self) -> &Arc<Models> {
        &self.inference.models
    }

    pub(super) fn seed(&self) -> u64 {
        // A generator does not panic halfway.
        self.chance.lock().unwrap_or_else(PoisonError::into_inner).next_u64()
    }

    #[cfg(feature = "text")]
    pub(super) fn embeds(&self, slot: &Slot) -> bool {
        does(slot) == Some(Does::Embed)
    }

    pub(super) async fn ready(&self, model: &str) -> Result<Arc<Loaded>, LocalFailure> {
        self.models().ready(model, None, PATIENCE).await.map_err(|error| failure::of_models(&error))
    }

    /// The newest version of each that serves or can be loaded.
    fn slots(&self) -> Vec<(Arc<Slot>, Does)> {
        let mut slots: Vec<(Arc<Slot>, Does)> = Vec::new();
        for slot in self.models().all_known() {
            let Some(does) = does(&slot) else { continue };
            let same = |other: &Slot| other.model.manifest.model.name == slot.model.manifest.model.name;
            slots.retain(|(other, _)| !same(other));
            slots.push((slot, does));
        }
        slots
    }
}

impl Local for Languages {
    fn models(&self) -> Vec<LocalModel> {
        let line = |(slot, _): (Arc<Slot>, Does)| {
            let about = &slot.model.manifest.model;
            let loaded = slot.loaded();
            let said = loaded.as_ref().and_then(|loaded| Some(loaded.speech.words()?.about().clone()));
            let said = said.unwrap_or_default();
            LocalModel {
                name: about.name.to_string(),
                // Nobody writes it down.
                created_unix_s: 0,
                size_bytes: slot.model.size_bytes,
                digest: about.sha256.to_string(),
                family: said.architecture,
                parameter_size: said.size,
                quantization: said.quantization,
            }
        };
        self.slots().into_iter().map(line).collect()
    }

    fn has(&self, model: &str, operation: Operation) -> bool {
        let Ok(slot) = self.models().find(model, None) else { return false };
        if slot.problem().is_some() {
            return false;
        }
        match operation {
            Operation::Chat | Operation::Completions => does(&slot) == Some(Does::Speak),
            Operation::Embeddings => does(&slot) == Some(Does::Embed),
            Operation::CountTokens | Operation::Moderations => false,
        }
    }

    fn ask<'a>(&'a self, ask: LocalAsk<'a>) -> LocalAsking<'a> {
        Box::pin(async move {
            match ask.asked.operation {
                Operation::Chat | Operation::Completions => self.speak(ask).await,
                #[cfg(feature = "text")]
                Operation::Embeddings => self.embed_request(ask).await,
                other => Err(failure::cannot(&format!("Models of this box are not asked for {other}."))),
            }
        })
    }
}
