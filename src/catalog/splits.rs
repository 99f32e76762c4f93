//! Traffic that was set while the gateway runs: weights and a shadow for a model, over what the configuration says. Kept
//! in one small file that is replaced whole, as aliases are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::config::Config;
use super::model::open_regular;
use super::traffic::{Shadow, Split, Traffic, check_split};
use crate::base::{FileError, Name, replace_file};

/// The file in the state folder.
const FILE: &str = "traffic.json";
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Models that have something set.
const MAX: usize = 1024;

/// What is set for a model. What is left out is as the configuration says.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetTraffic {
    /// Aliases or versions with their weights.
    #[serde(default, skip_serializing_if = "Split::is_empty")]
    pub split: Split,
    /// Who gets copies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Shadow>,
}

/// Why traffic was not changed.
#[derive(Debug, thiserror::Error)]
pub enum TrafficError {
    /// Not what traffic can be.
    #[error("{0}")]
    Wrong(String),
    /// Nothing was set.
    #[error("no traffic of model {model} was set at run time{}", where_else(*.configured))]
    NotSet {
        /// The model.
        model: Name,
        /// Whether the configuration has some.
        configured: bool,
    },
    /// It could not be kept.
    #[error("failed to keep the traffic")]
    Keep(#[source] FileError),
}

fn where_else(configured: bool) -> &'static str {
    if configured { "; it is in the configuration, as catalog.models.NAME.traffic" } else { "" }
}

type Table = BTreeMap<Name, SetTraffic>;

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    traffic: Table,
}

/// The traffic of every model.
#[derive(Debug)]
pub struct Splits {
    file: PathBuf,
    configured: BTreeMap<Name, Traffic>,
    set: Mutex<Table>,
}

impl SetTraffic {
    /// What is wrong with it.
    fn check(&self) -> Result<(), String> {
        if self.split.is_empty() && self.shadow.is_none() {
            return Err("neither split nor shadow is given".to_owned());
        }
        check_split(&self.split).map_err(|what| format!("split: {what}"))?;
        self.shadow.as_ref().map_or(Ok(()), |shadow| shadow.check().map_err(|what| format!("shadow: {what}")))
    }

    /// Every name of a version in it.
    pub fn targets(&self) -> impl Iterator<Item = &Name> {
        self.split.keys().chain(self.shadow.iter().map(|shadow| &shadow.to))
    }
}

impl Splits {
    /// The configuration's, and what was set before. A file that cannot be read is a problem to be told, and what it had
    /// is gone. Reads the disk: not for an async thread.
    pub fn open(config: &Config, state_dir: &Path) -> (Self, Option<String>) {
        let said = |(name, model): (&Name, &super::ModelConfig)| Some((name.clone(), model.traffic.clone()?));
        let configured = config.models.iter().filter_map(said).collect();
        let file = state_dir.join(FILE);
        let (set, problem) = match read(&file) {
            Ok(set) => (set, None),
            Err(problem) => (Table::new(), Some(format!("{}: {problem}; set the traffic again", file.display()))),
        };
        (Self { file, configured, set: Mutex::new(set) }, problem)
    }

    fn set(&self) -> MutexGuard<'_, Table> {
        // A change is put in place whole.
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The traffic of `model`, and whether some of it was set at run time. None: nobody said anything.
    pub fn of(&self, model: &Name) -> Option<(Traffic, bool)> {
        let configured = self.configured.get(model);
        match self.set().get(model) {
            None => configured.cloned().map(|traffic| (traffic, false)),
            Some(set) => {
                let mut traffic = configured.cloned().unwrap_or_default();
                if !set.split.is_empty() {
                    traffic.split.clone_from(&set.split);
                }
                if set.shadow.is_some() {
                    traffic.shadow.clone_from(&set.shadow);
                }
                Some((traffic, true))
            }
        }
    }

    /// Models that anything is said of.
    pub fn models(&self) -> Vec<Name> {
        let mut models: Vec<Name> = self.configured.keys().cloned().collect();
        models.extend(self.set().keys().filter(|name| !self.configured.contains_key(*name)).cloned());
        models
    }

    /// In the place of what was set for `model` before; also after a restart. Writes the disk: not for an async thread.
    pub fn put(&self, model: &Name, traffic: SetTraffic) -> Result<(), TrafficError> {
        traffic.check().map_err(TrafficError::Wrong)?;
        let mut set = self.set();
        let mut changed = set.clone();
        changed.insert(model.clone(), traffic);
        if changed.len() > MAX {
            return Err(TrafficError::Wrong(format!("{MAX} models have traffic that was set, which is the most")));
        }
        self.keep(&changed)?;
        *set = changed;
        Ok(())
    }

    /// Forgets what was set; the configuration's word counts again. Writes the disk: not for an async thread.
    pub fn remove(&self, model: &Name) -> Result<(), TrafficError> {
        let mut set = self.set();
        let mut changed = set.clone();
        if changed.remove(model).is_none() {
            let configured = self.configured.contains_key(model);
            return Err(TrafficError::NotSet { model: model.clone(), configured });
        }
        self.keep(&changed)?;
        *set = changed;
        Ok(())
    }

    fn keep(&self, table: &Table) -> Result<(), TrafficError> {
        let text =
            serde_json::to_vec_pretty(&Kept { traffic: table.clone() }).expect("names and finite numbers are JSON");
        replace_file(&self.file, &text).map_err(TrafficError::Keep)
    }
}

fn read(file: &Path) -> Result<Table, String> {
    if !file.exists() {
        return Ok(Table::new());
    }
    let (opened, _) = open_regular(file, FILE_BYTES_MAX).map_err(|error| error.to_string())?;
    let kept: Kept =
        serde_json::from_reader(std::io::BufReader::new(opened)).map_err(|error| format!("failed to read: {error}"))?;
    for (model, traffic) in &kept.traffic {
        traffic.check().map_err(|what| format!("{model}: {what}"))?;
    }
    Ok(kept.traffic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    fn split(pairs: &[(&str, u32)]) -> Split {
        pairs.iter().map(|(to, weight)| (name(to), *weight)).collect()
    }

    fn config() -> Config {
        toml::from_str(
            "[models.press.traffic]\nsplit = { prod = 90, canary = 10 }\nslow_ms = 9\nshadow = { to = \"next\" }",
        )
        .unwrap()
    }

    #[test]
    fn what_is_set_overrules_the_configuration_key_by_key_and_outlives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (press, drill) = (name("press"), name("drill"));
        let (splits, problem) = Splits::open(&config(), folder.path());
        assert_eq!((problem, splits.of(&drill)), (None, None));
        assert!(!splits.of(&press).unwrap().1);
        splits.put(&press, SetTraffic { split: split(&[("prod", 50), ("canary", 50)]), shadow: None }).unwrap();
        splits.put(&drill, SetTraffic { split: split(&[("2", 1)]), shadow: None }).unwrap();
        let (splits, problem) = Splits::open(&config(), folder.path());
        assert_eq!(problem, None);
        let (of, is_set) = splits.of(&press).unwrap();
        assert_eq!((of.split[&name("prod")], of.slow_ms, is_set), (50, Some(9), true));
        assert_eq!(of.shadow.unwrap().to, name("next"), "the shadow is still the configuration's");
        let off = Shadow { to: name("next"), percent: 0.0, tolerance: 0.0, relative_tolerance: 0.0 };
        splits.put(&press, SetTraffic { split: Split::new(), shadow: Some(off) }).unwrap();
        let (of, _) = splits.of(&press).unwrap();
        assert_eq!((of.split[&name("prod")], of.shadow.unwrap().percent), (90, 0.0));
        assert_eq!(splits.models(), [press.clone(), drill.clone()]);
        splits.remove(&press).unwrap();
        splits.remove(&drill).unwrap();
        let (splits, _) = Splits::open(&config(), folder.path());
        assert_eq!(splits.of(&drill), None);
        let error = splits.remove(&press).unwrap_err().to_string();
        assert!(error.contains("it is in the configuration"), "{error}");
    }

    #[test]
    fn what_cannot_be_is_refused_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (splits, _) = Splits::open(&Config::default(), folder.path());
        for (wrong, says) in [
            (SetTraffic::default(), "neither split nor shadow"),
            (SetTraffic { split: split(&[("prod", 0)]), shadow: None }, "split: all weights are 0"),
        ] {
            let error = splits.put(&name("press"), wrong).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        assert_eq!(splits.models(), []);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_told_and_the_configuration_counts() {
        let folder = tempfile::tempdir().unwrap();
        for torn in ["{", "{\"traffic\":{\"press\":{\"split\":{\"prod\":0}}}}", "{\"traffic\":{\"../x\":{}}}"] {
            replace_file(&folder.path().join(FILE), torn.as_bytes()).unwrap();
            let (splits, problem) = Splits::open(&config(), folder.path());
            assert!(problem.unwrap().contains("set the traffic again"));
            assert_eq!(splits.of(&name("press")).unwrap().0.split[&name("prod")], 90);
        }
    }
}
