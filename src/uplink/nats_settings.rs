//! What only a link over NATS needs to know.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::config::Error;
use crate::base::Name;

/// Settings of a link whose kind is `nats`, beside the ones that both kinds share.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NatsConfig {
    /// The JetStream stream that takes the fleet's subjects, `fleet.v1.>`. An answer of any other stream does not count.
    pub stream: Name,
    /// The JetStream domain of that stream, where there are several: a leaf node's own or the hub's.
    pub domain: Option<Name>,
    /// The JetStream domain of the letterboxes, where it is another one: the hub's, beside a stream at the site.
    pub letters_domain: Option<Name>,
    /// A credentials file (JWT and seed), as `nsc` writes it.
    pub credentials_file: Option<PathBuf>,
    /// A file that holds a user's nkey seed (`SU...`) and nothing else.
    pub nkey_file: Option<PathBuf>,
    /// First part of the subjects that answers come back on; a user may be allowed only its own.
    pub inbox_prefix: String,
    /// Looks at the stream before anything is sent: one that keeps in memory or gives no answers is refused. A user that
    /// may not look goes on without.
    pub check_stream: bool,
    /// Requests that this side says are written as letters, too. Not in a file: who asks again and again anyhow would fill
    /// letterboxes with it.
    #[serde(skip, default = "kept")]
    pub keep_requests: bool,
}

fn kept() -> bool {
    true
}

impl Default for NatsConfig {
    fn default() -> Self {
        Self {
            stream: Name::new("FLEET").expect("letters only"),
            domain: None,
            letters_domain: None,
            credentials_file: None,
            nkey_file: None,
            inbox_prefix: "_INBOX".to_owned(),
            check_stream: true,
            keep_requests: true,
        }
    }
}

impl NatsConfig {
    /// Finds what cannot work. Reads no file.
    pub(super) fn check(&self, with_password: bool) -> Result<(), Error> {
        let wrong = |setting, problem: &str| Err(Error::Setting { setting, problem: problem.to_owned() });
        if self.stream.as_str().contains('.') {
            return wrong("nats.stream", "must not hold a `.`: JetStream refuses it");
        }
        for (setting, domain) in [("nats.domain", &self.domain), ("nats.letters_domain", &self.letters_domain)] {
            if domain.as_ref().is_some_and(|domain| domain.as_str().contains('.')) {
                return wrong(setting, "must not hold a `.`");
            }
        }
        let ways = [with_password, self.credentials_file.is_some(), self.nkey_file.is_some()];
        if ways.iter().filter(|way| **way).count() > 1 {
            return wrong("nats.credentials_file", "nats.nkey_file and username exclude each other: name one");
        }
        let token = |part: &str| !part.is_empty() && !part.contains(|c: char| c.is_whitespace() || "*>".contains(c));
        if !self.inbox_prefix.split('.').all(token) {
            return wrong("nats.inbox_prefix", "must be a subject without wildcards, for example _INBOX");
        }
        Ok(())
    }

    /// The files that the settings name, with their keys.
    pub(super) fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let files = [("nats.credentials_file", &self.credentials_file), ("nats.nkey_file", &self.nkey_file)];
        files.into_iter().filter_map(|(setting, file)| Some((setting, file.as_deref()?)))
    }

    /// First part of the API's subjects.
    #[cfg(feature = "nats")]
    pub(super) fn api(&self) -> String {
        api(self.domain.as_ref())
    }

    /// The same where the letterboxes are.
    #[cfg(feature = "nats")]
    pub(super) fn letters_api(&self) -> String {
        api(self.letters_domain.as_ref().or(self.domain.as_ref()))
    }

    /// The stream of the letterboxes.
    #[cfg(feature = "nats")]
    pub(super) fn letters(&self) -> String {
        format!("{}-LETTERS", self.stream)
    }
}

#[cfg(feature = "nats")]
fn api(domain: Option<&Name>) -> String {
    domain.map_or_else(|| "$JS.API".to_owned(), |domain| format!("$JS.{domain}.API"))
}
