//! `[serving]` of a manifest, and the same keys for one model in the configuration, which overrule it.

use serde::{Deserialize, Deserializer, de};

/// How a model is served. What is left out is said by the one who comes next: configuration, manifest, then what
/// [`Settled`] has by itself.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Serving {
    /// When it is loaded.
    pub load: Option<LoadWhen>,
    /// A model that loads on request is put away again after so many seconds without one; 0 is never.
    pub idle_unload_s: Option<u64>,
    /// Bytes that it needs once it is loaded; without it, its file is taken for a measure.
    pub memory_bytes: Option<u64>,
    /// Runs at the same time; 0 is as many as there are threads.
    pub concurrency_max: Option<u32>,
    /// Runs before it serves, with its first golden sample or made-up numbers; a golden sample's check counts.
    pub warm_up_runs: Option<u32>,
    /// Whether requests that wait are computed together.
    pub batching: Option<BatchWhen>,
    /// Rows of all requests together.
    pub batch_rows_max: Option<u32>,
    /// How long a request waits for others while a thread is free for it, in microseconds.
    pub batch_delay_us: Option<u64>,
}

/// When a model is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LoadWhen {
    /// With the gateway.
    Start,
    /// With the first request.
    Request,
}

/// When requests are computed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BatchWhen {
    /// If it was measured at load that it pays.
    Auto,
    /// Always, if rows do not depend on each other.
    On,
    /// Never.
    Off,
}

/// [`Serving`] with nothing left open.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "as in Serving")]
pub struct Settled {
    pub load: LoadWhen,
    pub idle_unload_s: u64,
    pub memory_bytes: Option<u64>,
    pub concurrency_max: u32,
    pub warm_up_runs: u32,
    pub batching: BatchWhen,
    pub batch_rows_max: u32,
    pub batch_delay_us: u64,
}

/// Most rows of a batch that may be asked for.
const ROWS_MAX: u32 = 1024;
/// A request that waits longer for others than this waits for nothing.
const DELAY_MAX_US: u64 = 1_000_000;
const WARM_UP_MAX: u32 = 1000;

impl Serving {
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        let over = |key: &str, given: u64, most: u64| format!("{key} is {given}, the most is {most}");
        match self {
            Self { batch_rows_max: Some(0), .. } => Err("batch_rows_max counts rows: at least 1".to_owned()),
            Self { batch_rows_max: Some(rows), .. } if *rows > ROWS_MAX => {
                Err(over("batch_rows_max", u64::from(*rows), u64::from(ROWS_MAX)))
            }
            Self { batch_delay_us: Some(delay), .. } if *delay > DELAY_MAX_US => {
                Err(over("batch_delay_us", *delay, DELAY_MAX_US))
            }
            Self { warm_up_runs: Some(runs), .. } if *runs > WARM_UP_MAX => {
                Err(over("warm_up_runs", u64::from(*runs), u64::from(WARM_UP_MAX)))
            }
            _ => Ok(()),
        }
    }

    /// This before `other`, key by key.
    #[must_use]
    pub fn before(&self, other: &Self) -> Self {
        Self {
            load: self.load.or(other.load),
            idle_unload_s: self.idle_unload_s.or(other.idle_unload_s),
            memory_bytes: self.memory_bytes.or(other.memory_bytes),
            concurrency_max: self.concurrency_max.or(other.concurrency_max),
            warm_up_runs: self.warm_up_runs.or(other.warm_up_runs),
            batching: self.batching.or(other.batching),
            batch_rows_max: self.batch_rows_max.or(other.batch_rows_max),
            batch_delay_us: self.batch_delay_us.or(other.batch_delay_us),
        }
    }

    /// This before `manifest`, before what there is without either.
    pub fn over(&self, manifest: &Self) -> Settled {
        Settled {
            load: self.load.or(manifest.load).unwrap_or(LoadWhen::Start),
            idle_unload_s: self.idle_unload_s.or(manifest.idle_unload_s).unwrap_or(600),
            memory_bytes: self.memory_bytes.or(manifest.memory_bytes),
            concurrency_max: self.concurrency_max.or(manifest.concurrency_max).unwrap_or(0),
            warm_up_runs: self.warm_up_runs.or(manifest.warm_up_runs).unwrap_or(1),
            batching: self.batching.or(manifest.batching).unwrap_or(BatchWhen::Auto),
            batch_rows_max: self.batch_rows_max.or(manifest.batch_rows_max).unwrap_or(8),
            batch_delay_us: self.batch_delay_us.or(manifest.batch_delay_us).unwrap_or(0),
        }
    }
}

/// Which versions of a model are served.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Versions {
    /// Whatever is in its folder.
    #[default]
    All,
    /// So many of the newest.
    Latest(usize),
    /// These.
    Listed(Vec<u32>),
}

impl Versions {
    /// Those of `there`, which ascend, that are served.
    pub fn of(&self, there: &[u32]) -> Vec<u32> {
        match self {
            Self::All => there.to_vec(),
            Self::Latest(count) => there[there.len().saturating_sub(*count)..].to_vec(),
            Self::Listed(listed) => there.iter().copied().filter(|version| listed.contains(version)).collect(),
        }
    }
}

impl std::fmt::Display for Versions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Latest(count) => write!(f, "the latest {count}"),
            Self::Listed(listed) => {
                write!(f, "{}", listed.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Versions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Policy;
        impl<'de> de::Visitor<'de> for Policy {
            type Value = Versions;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("\"all\", { latest = 2 } or a list of versions such as [1, 3]")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Versions, E> {
                match word {
                    "all" => Ok(Versions::All),
                    _ => Err(E::invalid_value(de::Unexpected::Str(word), &self)),
                }
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Versions, A::Error> {
                let mut listed = Vec::new();
                while let Some(version) = seq.next_element::<u32>()? {
                    listed.push(version);
                }
                if listed.is_empty() || listed.contains(&0) {
                    return Err(de::Error::custom("a list of versions needs at least one; they count from 1"));
                }
                Ok(Versions::Listed(listed))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Versions, A::Error> {
                let mut latest = None;
                while let Some(key) = map.next_key::<String>()? {
                    if key != "latest" {
                        return Err(de::Error::unknown_field(&key, &["latest"]));
                    }
                    latest = Some(map.next_value::<usize>()?);
                }
                match latest {
                    Some(count) if count > 0 => Ok(Versions::Latest(count)),
                    _ => Err(de::Error::custom("latest counts versions: at least 1")),
                }
            }
        }
        deserializer.deserialize_any(Policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Section {
        versions: Versions,
    }

    #[test]
    fn a_policy_is_all_the_latest_or_a_list() {
        let read = |text: &str| toml::from_str::<Section>(text).map(|section| section.versions);
        let there = [2, 3, 9];
        for (text, served) in [
            ("versions = \"all\"", vec![2, 3, 9]),
            ("versions = { latest = 2 }", vec![3, 9]),
            ("versions = { latest = 7 }", vec![2, 3, 9]),
            ("versions = [9, 2, 5]", vec![2, 9]),
        ] {
            assert_eq!(read(text).unwrap().of(&there), served, "{text}");
        }
        for (text, says) in [
            ("versions = \"some\"", "expected \"all\", { latest = 2 } or a list"),
            ("versions = { latest = 0 }", "at least 1"),
            ("versions = { newest = 1 }", "unknown field `newest`"),
            ("versions = []", "at least one"),
            ("versions = [0]", "count from 1"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn the_configuration_overrules_the_manifest_key_by_key() {
        let manifest = Serving { batch_rows_max: Some(16), load: Some(LoadWhen::Request), ..Serving::default() };
        let configured = Serving { batch_rows_max: Some(4), ..Serving::default() };
        let settled = configured.over(&manifest);
        assert_eq!((settled.batch_rows_max, settled.load, settled.warm_up_runs), (4, LoadWhen::Request, 1));
    }
}
