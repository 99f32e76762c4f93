//! `[[provider]]`: where a provider is, how to get in, what it has and how long to wait for it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::address::Origin;
use super::error::Error;
use super::kind::Kind;
use super::oip::OipModel;
use super::secret::{carries_key, looks_like_key};
use crate::base::Name;

/// Headers that the room writes itself or that carry a key, which has its own place.
pub(super) const OWN_HEADERS: [&str; 18] = [
    "authorization",
    "proxy-authorization",
    "x-api-key",
    "x-goog-api-key",
    "api-key",
    "cookie",
    "host",
    "content-length",
    "content-type",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "accept-encoding",
    "te",
    "upgrade",
    "expect",
    "accept",
    "user-agent",
];

/// `[[provider]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Its name in routes, records and metrics.
    pub name: Name,
    /// What it is.
    pub kind: Kind,
    /// Where it is, as its own SDK takes it (`https://api.openai.com/v1`, `https://api.anthropic.com`). Kinds that are
    /// one service know their own; `azure-openai`, `vllm`, `openai-compatible` and `oip` need it.
    #[serde(default)]
    pub base_url: Option<String>,
    /// A file that holds the key and nothing else: a text; for AWS a credentials file; for Vertex a service account's
    /// JSON. It is read again when it changes.
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    /// The name of a systemd credential (`LoadCredential=`) that holds the key, instead of `key_file`.
    #[serde(default)]
    pub credential: Option<String>,
    /// The profile of an AWS credentials file.
    #[serde(default = "profile")]
    pub profile: String,
    /// Headers for every request, such as `OpenAI-Organization`. Never a key.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The models that it has. Empty: whatever it is asked for.
    #[serde(default)]
    pub models: Vec<Model>,
    /// `bedrock`, `sagemaker`: the AWS region.
    #[serde(default)]
    pub region: Option<String>,
    /// `vertex`: the Google Cloud project; without it that of the service account.
    #[serde(default)]
    pub project: Option<String>,
    /// `vertex`: the location; `global` unless set.
    #[serde(default)]
    pub location: Option<String>,
    /// `azure-openai`: with it requests go to deployments (`2024-10-21`), without it to the v1 address. `anthropic`:
    /// another `anthropic-version`.
    #[serde(default)]
    pub api_version: Option<String>,
    /// PEM file with the authorities that may sign its certificate, instead of the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// For a place among the connections, and then for name look-up, TCP and TLS together.
    #[serde(default = "connect_timeout_ms")]
    pub connect_timeout_ms: u64,
    /// From the request's first byte to the head of the answer. A model that thinks before it answers needs time.
    #[serde(default = "first_byte_timeout_ms")]
    pub first_byte_timeout_ms: u64,
    /// The longest silence within an answer.
    #[serde(default = "idle_timeout_ms")]
    pub idle_timeout_ms: u64,
    /// The longest time from the head of an answer to its end.
    #[serde(default = "total_timeout_ms")]
    pub total_timeout_ms: u64,
    /// Connections at the same time, which is requests at the same time. More of them wait.
    #[serde(default = "connections_max")]
    pub connections_max: u32,
    /// Requests that may wait for a connection; more are refused at once.
    #[serde(default = "waiting_max")]
    pub waiting_max: u32,
    /// An unused connection is closed after this time; 0 keeps none.
    #[serde(default = "keep_idle_ms")]
    pub keep_idle_ms: u64,
    /// The longest answer, whole or streamed, in bytes.
    #[serde(default = "answer_bytes_max")]
    pub answer_bytes_max: u64,
}

/// A model of a provider: its name there, or a table with the name that routes use and the one there.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a model is its name, or { name = \"NAME IN ROUTES\", upstream = \"NAME THERE\" }")]
pub enum Model {
    /// The same name here and there.
    Same(String),
    /// A name of our own.
    Renamed(RenamedModel),
}

/// `{ name = "fast", upstream = "gpt-4.1-mini" }`, and what `oip` needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenamedModel {
    /// The name in routes.
    pub name: String,
    /// The name at the provider: of a model, of a deployment (Azure), of an endpoint (SageMaker). The same one without.
    #[serde(default)]
    pub upstream: Option<String>,
    /// `oip`: the model's tensors.
    #[serde(default)]
    pub oip: Option<OipModel>,
}

impl Model {
    /// The name in routes.
    pub fn name(&self) -> &str {
        match self {
            Self::Same(name) => name,
            Self::Renamed(renamed) => &renamed.name,
        }
    }

    /// The name at the provider.
    pub fn upstream(&self) -> &str {
        match self {
            Self::Same(name) => name,
            Self::Renamed(renamed) => renamed.upstream.as_deref().unwrap_or(&renamed.name),
        }
    }

    /// Its tensors, if it says what they are called.
    pub fn oip(&self) -> Option<&OipModel> {
        match self {
            Self::Same(_) => None,
            Self::Renamed(renamed) => renamed.oip.as_ref(),
        }
    }
}

fn profile() -> String {
    "default".to_owned()
}

fn connect_timeout_ms() -> u64 {
    5000
}

fn first_byte_timeout_ms() -> u64 {
    60_000
}

fn idle_timeout_ms() -> u64 {
    60_000
}

fn total_timeout_ms() -> u64 {
    600_000
}

fn connections_max() -> u32 {
    1024
}

fn waiting_max() -> u32 {
    256
}

fn keep_idle_ms() -> u64 {
    30_000
}

fn answer_bytes_max() -> u64 {
    64 * 1024 * 1024
}

impl Config {
    /// The name at the provider of the model that routes call `model`; none: it has no such model.
    pub fn upstream_model<'a>(&'a self, model: &'a str) -> Option<&'a str> {
        if self.models.is_empty() {
            return Some(model);
        }
        self.models.iter().find(|known| known.name() == model).map(Model::upstream)
    }

    /// Where the key is. `credentials` is systemd's `$CREDENTIALS_DIRECTORY`, where there is one.
    pub(super) fn key_path(&self, credentials: Option<&Path>) -> Result<Option<PathBuf>, Error> {
        match (&self.key_file, &self.credential) {
            (Some(path), None) => Ok(Some(path.clone())),
            (None, Some(credential)) => match credentials {
                Some(folder) => Ok(Some(folder.join(credential))),
                None => Err(self.wrong(
                    "credential",
                    "is set, and systemd passed no credentials: add `LoadCredential=` to the unit, or use key_file",
                )),
            },
            _ => Ok(None),
        }
    }

    fn wrong(&self, setting: &'static str, problem: impl Into<String>) -> Error {
        Error::Setting { provider: self.name.clone(), setting, problem: problem.into() }
    }

    /// Finds what cannot work, before anything is opened. Reads no file.
    pub fn check(&self) -> Result<(), Error> {
        match &self.base_url {
            Some(url) => drop(Origin::parse(url).map_err(|problem| self.wrong("base_url", problem))?),
            None if matches!(self.kind, Kind::AzureOpenai | Kind::Vllm | Kind::OpenaiCompatible | Kind::Oip) => {
                return Err(
                    self.wrong("base_url", format!("is missing: the kind {} has no address of its own", self.kind))
                );
            }
            None => {}
        }
        self.check_key()?;
        self.check_kind()?;
        self.check_bounds()?;
        for (name, value) in &self.headers {
            if OWN_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
                let problem = format!("holds {name:?}, which the gateway writes itself; a key belongs into key_file");
                return Err(self.wrong("headers", problem));
            }
            if carries_key(name) || looks_like_key(value) {
                let problem =
                    format!("holds {name:?}, which carries a key; a key belongs into key_file, never in here");
                return Err(self.wrong("headers", problem));
            }
        }
        let mut names: Vec<_> = self.models.iter().map(Model::name).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(self.wrong("models", format!("holds {:?} twice", twice[0])));
        }
        if self.models.iter().any(|model| model.name().is_empty() || model.upstream().is_empty()) {
            return Err(self.wrong("models", "holds an empty name"));
        }
        self.check_tensors()
    }

    fn check_tensors(&self) -> Result<(), Error> {
        for model in &self.models {
            match model.oip() {
                Some(_) if self.kind != Kind::Oip => {
                    return Err(
                        self.wrong("models", format!("holds `oip`, which means nothing to the kind {}", self.kind))
                    );
                }
                Some(oip) => {
                    if let Some(problem) = oip.problem() {
                        return Err(self.wrong("models", problem));
                    }
                }
                None => {}
            }
        }
        Ok(())
    }

    fn check_key(&self) -> Result<(), Error> {
        match (&self.key_file, &self.credential) {
            (Some(_), Some(_)) => Err(self.wrong("key_file and credential", "exclude each other")),
            (Some(path), None) if path.to_str().is_some_and(looks_like_key) => {
                let problem = "holds what looks like a key: write that into a file and name the file here";
                Err(self.wrong("key_file", problem))
            }
            (None, None) if self.kind.needs_key() => {
                Err(self.wrong("key_file", format!("is missing: {} lets nobody in without a key", self.kind)))
            }
            (None, Some(name)) if name.is_empty() || name.contains(['/', '\0']) || name.starts_with('.') => {
                Err(self.wrong("credential", "must be the plain name that LoadCredential= gives"))
            }
            _ => Ok(()),
        }
    }

    fn check_kind(&self) -> Result<(), Error> {
        let plain = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':'))
        };
        let aws = matches!(self.kind, Kind::Bedrock | Kind::Sagemaker);
        let settings = [
            ("region", &self.region, aws),
            ("project", &self.project, self.kind == Kind::Vertex),
            ("location", &self.location, self.kind == Kind::Vertex),
            ("api_version", &self.api_version, matches!(self.kind, Kind::AzureOpenai | Kind::Anthropic)),
        ];
        for (setting, value, has) in settings {
            match value {
                Some(_) if !has => return Err(self.wrong(setting, format!("means nothing to the kind {}", self.kind))),
                Some(text) if !plain(text) => {
                    return Err(self.wrong(setting, "may have only letters, digits, `-`, `_`, `.` and `:`"));
                }
                _ => {}
            }
        }
        if aws && self.region.is_none() {
            return Err(self.wrong("region", "is missing: for example `eu-central-1`"));
        }
        Ok(())
    }

    fn check_bounds(&self) -> Result<(), Error> {
        let times = [
            ("connect_timeout_ms", self.connect_timeout_ms),
            ("first_byte_timeout_ms", self.first_byte_timeout_ms),
            ("idle_timeout_ms", self.idle_timeout_ms),
            ("total_timeout_ms", self.total_timeout_ms),
        ];
        for (setting, value) in times {
            if !(1..=86_400_000).contains(&value) {
                return Err(self.wrong(setting, "must be 1 to 86400000 (a day)"));
            }
        }
        if !(1..=65_535).contains(&self.connections_max) {
            return Err(self.wrong("connections_max", "must be 1 to 65535"));
        }
        if self.waiting_max > 65_535 {
            return Err(self.wrong("waiting_max", "must be 0 to 65535"));
        }
        if self.answer_bytes_max == 0 {
            return Err(self.wrong("answer_bytes_max", "must not be 0"));
        }
        Ok(())
    }

    /// What an operator should know about a configuration that is valid: one sentence each.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        let has_key = self.key_file.is_some() || self.credential.is_some();
        if let Some(Ok(origin)) = self.base_url.as_deref().map(Origin::parse)
            && !origin.tls
            && has_key
            && !is_loopback(&origin.host)
        {
            remarks.push(format!(
                "provider {}: the key and every prompt go to {} without encryption; use https",
                self.name, origin.host
            ));
        }
        remarks
    }
}

/// Whether `host` is this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::provider) fn config(text: &str) -> Config {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_provider_needs_a_name_a_kind_and_what_its_kind_needs() {
        config("name = \"o\"\nkind = \"openai\"\nkey_file = \"/k\"").check().unwrap();
        config("name = \"o\"\nkind = \"ollama\"").check().unwrap();
        let cases = [
            ("kind = \"openai\"", "key_file is missing"),
            ("kind = \"vllm\"", "base_url is missing"),
            ("kind = \"bedrock\"\nkey_file = \"k\"", "region is missing"),
            ("kind = \"ollama\"\nregion = \"eu\"", "region means nothing"),
            ("kind = \"bedrock\"\nkey_file = \"k\"\nregion = \"eu/../x\"", "region may have only"),
            ("kind = \"openai\"\nkey_file = \"k\"\ncredential = \"c\"", "exclude each other"),
            ("kind = \"openai\"\ncredential = \"../c\"", "credential must be the plain name"),
            ("kind = \"vllm\"\nbase_url = \"localhost:8000\"", "base_url"),
            ("kind = \"ollama\"\nconnections_max = 0", "connections_max must be 1 to 65535"),
            ("kind = \"ollama\"\nidle_timeout_ms = 0", "idle_timeout_ms must be 1"),
            ("kind = \"ollama\"\nmodels = [\"a\", { name = \"a\", upstream = \"b\" }]", "holds \"a\" twice"),
            ("kind = \"ollama\"\nmodels = [{ name = \"a\", oip = {} }]", "holds `oip`"),
            ("kind = \"ollama\"\n[headers]\nAuthorization = \"Bearer x\"", "belongs into key_file"),
            ("kind = \"ollama\"\n[headers]\nx-title = \"sk-0123456789ab\"", "carries a key"),
            ("kind = \"openai\"\nkey_file = \"sk-0123456789ab\"", "looks like a key"),
        ];
        for (text, expected) in cases {
            let error = config(&format!("name = \"o\"\n{text}")).check().unwrap_err().to_string();
            assert!(error.starts_with("failed to set up provider o: ") && error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn an_unknown_setting_and_a_key_in_the_configuration_are_refused() {
        for text in ["key = \"sk-1\"", "api_key = \"sk-1\"", "models = [{ name = \"a\", upstram = \"b\" }]"] {
            assert!(toml::from_str::<Config>(&format!("name = \"o\"\nkind = \"openai\"\n{text}")).is_err(), "{text}");
        }
    }

    #[test]
    fn a_model_may_have_another_name_there_and_an_empty_list_takes_all() {
        let some = config(
            "name = \"o\"\nkind = \"ollama\"\nmodels = [\"gemma\", { name = \"fast\", upstream = \"qwen2.5:0.5b\" }]",
        );
        assert_eq!(some.upstream_model("gemma"), Some("gemma"));
        assert_eq!(some.upstream_model("fast"), Some("qwen2.5:0.5b"));
        assert_eq!(some.upstream_model("qwen2.5:0.5b"), None);
        assert_eq!(config("name = \"o\"\nkind = \"ollama\"").upstream_model("x"), Some("x"));
    }

    #[test]
    fn a_key_over_plain_http_is_pointed_out_unless_it_stays_on_this_machine() {
        let at = |url: &str| {
            config(&format!("name = \"o\"\nkind = \"vllm\"\nkey_file = \"k\"\nbase_url = \"{url}\"")).remarks().len()
        };
        assert_eq!(at("http://gpu.plant.example:8000/v1"), 1);
        assert_eq!(at("https://gpu.plant.example:8000/v1"), 0);
        assert_eq!(at("http://127.0.0.1:8000/v1"), 0);
        assert_eq!(at("http://[::1]:8000/v1"), 0);
    }
}
