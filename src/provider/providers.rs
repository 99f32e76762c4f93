//! All providers of a configuration.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::ask::Provider;
use super::config::Config;
use super::error::Error;
use super::metrics::Metrics;
use super::remote::{Remote, Surroundings};
use super::tls::Authorities;
use crate::base::{Clock, Name};

/// Providers by name. Swapped whole when the configuration changes: requests under way keep theirs to the end.
#[derive(Debug, Default)]
pub struct Providers {
    by_name: BTreeMap<Name, Arc<dyn Provider>>,
}

impl Providers {
    /// Opens those of `configs`: reads their keys and authorities, connects to nobody. `credentials` is systemd's
    /// `$CREDENTIALS_DIRECTORY`.
    ///
    /// # Errors
    /// The first provider that cannot be set up, with what is wrong.
    pub fn open(
        configs: Vec<Config>,
        credentials: Option<&Path>,
        clock: &Arc<dyn Clock>,
        metrics: &Metrics,
    ) -> Result<Self, Error> {
        let authorities = Authorities::new(clock.clone());
        let around = Surroundings { credentials, authorities: &authorities, clock, metrics };
        let mut providers = Self::default();
        for config in configs {
            providers.add(Arc::new(Remote::open(config, &around)?))?;
        }
        Ok(providers)
    }

    /// What [`open`](Self::open) would say of each by itself, in their order. Whether a credential is there only systemd knows.
    pub fn examine(configs: &[Config], clock: &Arc<dyn Clock>) -> Vec<Result<(), Error>> {
        let (authorities, metrics) = (Authorities::new(clock.clone()), Metrics::default());
        let around = Surroundings { credentials: None, authorities: &authorities, clock, metrics: &metrics };
        let examined = configs.iter().map(|config| match &config.credential {
            Some(_) => config.check(),
            None => Remote::open(config.clone(), &around).map(drop),
        });
        examined.collect()
    }

    /// One more.
    ///
    /// # Errors
    /// If there is one of its name.
    pub fn add(&mut self, provider: Arc<dyn Provider>) -> Result<(), Error> {
        let name = provider.name().clone();
        match self.by_name.insert(name.clone(), provider) {
            None => Ok(()),
            Some(_) => Err(Error::Twice { name }),
        }
    }

    /// The one of that name.
    pub fn find(&self, name: &str) -> Option<&Arc<dyn Provider>> {
        self.by_name.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Provider>> {
        self.by_name.values()
    }
}
