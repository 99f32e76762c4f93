//! Names for versions, such as `prod` and `canary`: from the configuration, and set while the gateway runs.

use std::collections::BTreeMap;
use std::path::Path;

use super::config::Config;
use super::kept::{Kept, Table};
use crate::base::{FileError, Name};

/// The alias whose version answers requests that name none.
pub const DEFAULT: &str = "default";
/// The file in the state folder, without its ending.
const WORD: &str = "aliases";
/// Aliases of one model.
const MAX: usize = 64;

/// Why an alias was not changed.
#[derive(Debug, thiserror::Error)]
pub enum AliasError {
    /// Not a name for a version.
    #[error("{0}")]
    Wrong(String),
    /// Nothing of that name was set while running.
    #[error("model {model} has no alias {alias:?} that was set at run time{}", where_else(*.configured))]
    NotSet {
        /// The model.
        model: Name,
        /// As asked.
        alias: String,
        /// Whether the configuration has it.
        configured: bool,
    },
    /// It could not be kept.
    #[error("failed to keep the aliases")]
    Keep(#[from] FileError),
}

fn where_else(configured: bool) -> &'static str {
    if configured { "; it is in the configuration, as catalog.models.NAME.aliases" } else { "" }
}

/// Those of one model.
type OfModel = BTreeMap<Name, u32>;

/// Every alias of every model.
#[derive(Debug)]
pub struct Aliases {
    configured: Table<OfModel>,
    set: Kept<OfModel>,
}

/// Whether `alias` may be a name for `version`. A number would be taken for a version.
pub(super) fn check(alias: &str, version: u32) -> Result<Name, String> {
    let name = Name::new(alias).map_err(|error| error.to_string())?;
    if !alias.starts_with(|first: char| first.is_ascii_alphabetic()) {
        return Err(format!("alias {alias:?} must begin with a letter, or it could be taken for a version"));
    }
    if version == 0 { Err(format!("alias {alias:?} is for version 0; they count from 1")) } else { Ok(name) }
}

impl Aliases {
    /// The configuration's, and those that were set before, which overrule them. A file that cannot be read is a problem to
    /// be told, and its aliases are gone. Reads the disk: not for an async thread.
    pub fn open(config: &Config, state_dir: &Path) -> (Self, Option<String>) {
        let configured = config.models.iter().map(|(name, model)| (name.clone(), model.aliases.clone())).collect();
        let each = |_: &Name, of: &OfModel| {
            of.iter().try_for_each(|(alias, version)| check(alias.as_str(), *version).map(|_| ()))
        };
        let (set, problem) = Kept::open(state_dir, WORD, each);
        (Self { configured, set }, problem)
    }

    /// The version that `alias` of `model` means.
    pub fn version(&self, model: &Name, alias: &str) -> Option<u32> {
        let of =
            |table: &Table<OfModel>| table.get(model)?.iter().find(|(name, _)| name.as_str() == alias).map(|(_, v)| *v);
        of(&self.set.table()).or_else(|| of(&self.configured))
    }

    /// Every alias of `model` by name.
    pub fn of(&self, model: &Name) -> BTreeMap<Name, u32> {
        let mut all = self.configured.get(model).cloned().unwrap_or_default();
        all.extend(self.set.table().get(model).cloned().unwrap_or_default());
        all
    }

    /// `alias` means `version` from now on, also after a restart. Writes the disk: not for an async thread.
    pub fn put(&self, model: &Name, alias: &str, version: u32) -> Result<(), AliasError> {
        let alias = check(alias, version).map_err(AliasError::Wrong)?;
        self.set.change(|table| {
            let of_model = table.entry(model.clone()).or_default();
            of_model.insert(alias, version);
            if of_model.len() > MAX {
                return Err(AliasError::Wrong(format!("model {model} has {MAX} aliases, which is the most")));
            }
            Ok(())
        })
    }

    /// Forgets what was set; the configuration's word counts again. Writes the disk: not for an async thread.
    pub fn remove(&self, model: &Name, alias: &str) -> Result<(), AliasError> {
        self.set.change(|table| {
            let removed = Name::new(alias).ok().and_then(|alias| table.get_mut(model)?.remove(&alias));
            if removed.is_none() {
                let configured = self.configured.get(model);
                let configured = configured.is_some_and(|of| of.keys().any(|name| name.as_str() == alias));
                return Err(AliasError::NotSet { model: model.clone(), alias: alias.to_owned(), configured });
            }
            table.retain(|_, of| !of.is_empty());
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::ModelConfig;

    fn config() -> Config {
        let aliases = BTreeMap::from([(Name::new("prod").unwrap(), 1)]);
        let model = ModelConfig { aliases, ..ModelConfig::default() };
        Config { models: BTreeMap::from([(Name::new("press").unwrap(), model)]), ..Config::default() }
    }

    #[test]
    fn what_is_set_overrules_the_configuration_and_outlives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let press = Name::new("press").unwrap();
        let (aliases, problem) = Aliases::open(&config(), folder.path());
        assert_eq!((aliases.version(&press, "prod"), problem), (Some(1), None));
        aliases.put(&press, "prod", 3).unwrap();
        aliases.put(&press, "canary", 4).unwrap();
        let (aliases, problem) = Aliases::open(&config(), folder.path());
        assert_eq!((aliases.version(&press, "prod"), aliases.version(&press, "canary")), (Some(3), Some(4)));
        assert!(problem.is_none());
        aliases.remove(&press, "prod").unwrap();
        aliases.remove(&press, "canary").unwrap();
        let (aliases, _) = Aliases::open(&config(), folder.path());
        assert_eq!((aliases.version(&press, "prod"), aliases.version(&press, "canary")), (Some(1), None));
        let error = aliases.remove(&press, "prod").unwrap_err().to_string();
        assert!(error.contains("it is in the configuration"), "{error}");
    }

    #[test]
    fn what_could_be_taken_for_a_version_is_no_alias() {
        let folder = tempfile::tempdir().unwrap();
        let (aliases, _) = Aliases::open(&Config::default(), folder.path());
        let press = Name::new("press").unwrap();
        for (alias, version) in [("3", 1), ("", 1), ("a/b", 1), ("-1", 1), ("prod", 0)] {
            assert!(matches!(aliases.put(&press, alias, version), Err(AliasError::Wrong(_))), "{alias} {version}");
        }
        for at in 0..MAX {
            aliases.put(&press, &format!("a{at}"), 1).unwrap();
        }
        assert!(aliases.put(&press, "one-more", 1).unwrap_err().to_string().contains("64 aliases"));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_told_and_nothing_else_fails() {
        let folder = tempfile::tempdir().unwrap();
        for torn in ["{", "{\"aliases\":{\"press\":{\"7\":1}}}", "{\"aliases\":{\"../x\":{}}}"] {
            crate::base::replace_file(&folder.path().join("aliases.json"), torn.as_bytes()).unwrap();
            let (aliases, problem) = Aliases::open(&config(), folder.path());
            assert!(problem.unwrap().contains("set the aliases again"));
            assert_eq!(aliases.version(&Name::new("press").unwrap(), "prod"), Some(1));
        }
    }
}
