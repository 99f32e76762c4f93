//! The configuration file: composed of what each room owns, read once, consumed by the build.

mod answering;
mod diagnosis;
mod overrides;
mod place;
mod review;
mod spending;

pub use diagnosis::{Diagnosis, nearest};
pub use overrides::Overrides;
pub(super) use place::place;
pub use review::{Review, review};

use std::path::Path;

use serde::Deserialize;

use crate::base::Name;
use crate::flows::{self, sense};
use crate::{
    access, broker, cache, catalog, doors, engine, generate, history, ledger, outbox, price, provider, quota, route,
    store, telemetry, uplink,
};

/// Largest configuration file that is read.
const MAX_BYTES: u64 = 4 << 20;

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Who this box is.
    pub gateway: Gateway,
    /// Logs.
    #[serde(default)]
    pub log: telemetry::Config,
    /// The database.
    #[serde(default)]
    pub store: store::Config,
    /// The queue to the cloud.
    #[serde(default)]
    pub outbox: outbox::Config,
    /// What stays on the box.
    #[serde(default)]
    pub history: history::Config,
    /// Where the models are.
    #[serde(default)]
    pub catalog: catalog::Config,
    /// What runs them.
    #[serde(default)]
    pub engine: engine::Config,
    /// Bounds on pictures, sounds, texts and records for models.
    #[serde(default)]
    pub predict: flows::predict::Limits,
    /// A second program that computes models on devices; absent, there is none.
    #[serde(default)]
    pub delegate: Option<engine::delegate::Config>,
    /// Who may do what.
    #[serde(default)]
    pub access: access::Config,
    /// The broker's bounds.
    #[serde(default)]
    pub broker: broker::Config,
    /// The MQTT door.
    #[serde(default)]
    pub mqtt: doors::mqtt::Config,
    /// The HTTP door.
    #[serde(default)]
    pub http: doors::http::Config,
    /// The gRPC door; absent, there is none.
    #[cfg(feature = "grpc")]
    #[serde(default)]
    pub grpc: Option<doors::grpc::Config>,
    /// Tensors in memory that programs on this machine share; absent, there are none.
    #[serde(default)]
    pub shared_memory: Option<doors::shared_memory::Config>,
    /// The cloud's broker; absent, everything stays in the queue.
    #[serde(default)]
    pub cloud: Option<uplink::Config>,
    /// How the queue is sent.
    #[serde(default)]
    pub sync: flows::SyncConfig,
    /// Streams.
    #[serde(default)]
    pub stream: Vec<sense::Config>,
    /// Language models of this box.
    #[serde(default)]
    pub generate: generate::Config,
    /// Questions to language models.
    #[serde(default)]
    pub answer: flows::answer::Config,
    /// What is common to all routes.
    #[serde(default)]
    pub routing: route::Settings,
    /// Who answers for which model; without one, nobody is asked.
    #[serde(default)]
    pub route: Vec<route::RouteConfig>,
    /// Those elsewhere who have models.
    #[serde(default)]
    pub provider: Vec<provider::Config>,
    /// How much callers may take.
    #[serde(default)]
    pub quota: quota::Config,
    /// Records of questions, and the audit.
    #[serde(default)]
    pub ledger: ledger::Config,
    /// Answers that are kept.
    #[serde(default)]
    pub cache: cache::Config,
    /// What tokens cost.
    #[serde(default)]
    pub prices: price::Config,
}

/// `[gateway]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    /// The box's name: unique in its tenant, because the cloud tells boxes apart by it.
    pub name: Name,
}

/// A file that was read and what it says.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// File name as given.
    pub file: String,
    /// Its text, for places.
    pub text: String,
}

impl Loaded {
    /// Reads `path` and applies the environment's overrides.
    pub fn read(path: &Path, overrides: &Overrides) -> Result<Self, Diagnosis> {
        let file = path.display().to_string();
        let text = read_text(path, &file)?;
        // The file by itself first: its mistakes have places.
        let mut config: Config = toml::from_str(&text).map_err(|error| Diagnosis::of_toml(&file, &text, &error))?;
        if !overrides.is_empty() {
            config = overrides.apply(&text)?;
        }
        Ok(Self { config, file, text })
    }
}

pub(super) fn read_text(path: &Path, file: &str) -> Result<String, Diagnosis> {
    let hint = match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => Some("name the file, not its folder".to_owned()),
        Ok(metadata) if metadata.len() > MAX_BYTES => {
            let message = format!("the file has {} bytes, the most is {MAX_BYTES}", metadata.len());
            return Err(Diagnosis::whole(file, message, Some("is this a configuration file?".to_owned())));
        }
        Ok(_) => None,
        Err(_) => Some("name another one with --config FILE; examples/forebay.toml is one to begin with".to_owned()),
    };
    let bytes = std::fs::read(path)
        .map_err(|error| Diagnosis::whole(file, format!("failed to read the file: {error}"), hint))?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Diagnosis::whole(file, format!("the file is not UTF-8 from byte {at} on"), Some("save it as UTF-8".to_owned()))
    })
}
