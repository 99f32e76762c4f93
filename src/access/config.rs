//! `[access]`: who may come in and what each may publish and subscribe.

use serde::{Deserialize, Deserializer, de};

use super::filter::Filter;
use super::grant::{Role, User};
use super::pattern::Pattern;
use crate::base::{Digest, Name};

/// `[access]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Lets programs on this machine in without a name. Off unless set: behind a proxy on this machine every caller
    /// looks local.
    pub allow_anonymous_loopback: bool,
    /// Topics that such programs may publish to.
    pub anonymous_publish: Vec<Filter>,
    /// Filters that such programs may subscribe to.
    pub anonymous_subscribe: Vec<Filter>,
    /// Whether such programs may load models and take them away.
    pub anonymous_manage_models: bool,
    /// `[[access.identity]]`, one a caller.
    pub identity: Vec<Identity>,
}

impl Default for Config {
    fn default() -> Self {
        let everything = || vec![Filter::new("#").expect("`#` is a filter")];
        Self {
            allow_anonymous_loopback: false,
            anonymous_publish: everything(),
            anonymous_subscribe: everything(),
            anonymous_manage_models: false,
            identity: Vec::new(),
        }
    }
}

/// `[[access.identity]]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// Its name: the MQTT user name, and `%u` in its rules.
    pub name: Name,
    /// SHA-256 of its key in hex.
    #[serde(default, deserialize_with = "digest")]
    pub key_sha256: Option<Digest>,
    /// SHA-256 of a second key that is good too, so that keys can change without a pause.
    #[serde(default, deserialize_with = "digest")]
    pub next_key_sha256: Option<Digest>,
    /// The common name of its client certificate.
    #[serde(default)]
    pub certificate_cn: Option<String>,
    /// A DNS or URI alternative name of its client certificate.
    #[serde(default)]
    pub certificate_san: Option<String>,
    /// Topics that it may publish to. `%u` is its name, `%c` its client id.
    #[serde(default)]
    pub publish: Vec<Filter>,
    /// Filters that cover what it may subscribe to, with the same marks.
    #[serde(default)]
    pub subscribe: Vec<Filter>,
    /// Whether it may load models and take them away.
    #[serde(default)]
    pub manage_models: bool,
    /// What it is to this box: `app` unless set. An `operator` also runs it: keys, tenants, models, records.
    #[serde(default)]
    pub role: Role,
    /// Whose it is: `default` unless set.
    #[serde(default)]
    pub tenant: Option<Name>,
    /// The team within the tenant, for limits and records.
    #[serde(default)]
    pub team: Option<Name>,
    /// The person, for limits and records.
    #[serde(default)]
    pub user: Option<User>,
    /// Language models that it may ask, as patterns with `*`. All of them unless set.
    #[serde(default)]
    pub models: Option<Vec<Pattern>>,
    /// Routes that it may take, with the same patterns. All of them unless set.
    #[serde(default)]
    pub routes: Option<Vec<Pattern>>,
}

impl Identity {
    /// Whether something else than topics was said about it.
    fn is_for_models(&self) -> bool {
        self.role == Role::Operator
            || self.manage_models
            || self.tenant.is_some()
            || self.models.is_some()
            || self.routes.is_some()
    }
}

fn digest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Digest>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let wrong = |_| de::Error::custom("a SHA-256 is 64 hex digits: `printf %s KEY | sha256sum` prints that of a key");
    text.parse().map(Some).map_err(wrong)
}

impl Config {
    /// What an operator should know about a configuration that is valid: one sentence each.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.allow_anonymous_loopback {
            remarks.push(
                "access.allow_anonymous_loopback is on: every program on this machine may publish and subscribe \
                 without a name or key"
                    .to_owned(),
            );
        } else if self.identity.is_empty() {
            remarks.push(
                "access lets nobody in: add an [[access.identity]] or set access.allow_anonymous_loopback = true"
                    .to_owned(),
            );
        }
        for identity in &self.identity {
            if identity.publish.is_empty() && identity.subscribe.is_empty() && !identity.is_for_models() {
                remarks.push(format!(
                    "access.identity {} may neither publish nor subscribe: give it `publish` or `subscribe` filters, \
                     or `models` if it only asks models",
                    identity.name
                ));
            }
        }
        remarks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_filter_or_digest_is_found_at_its_line() {
        let text = "[[identity]]\nname = \"press-7\"\npublish = [\"plant/#/x\"]\n";
        let error = toml::from_str::<Config>(text).unwrap_err().to_string();
        assert!(error.contains("line 3") && error.contains("must be the last level"), "{error}");
        let text = "[[identity]]\nname = \"press-7\"\nkey_sha256 = \"hunter2\"\n";
        let error = toml::from_str::<Config>(text).unwrap_err().to_string();
        assert!(error.contains("line 3") && error.contains("64 hex digits"), "{error}");
    }

    #[test]
    fn an_unknown_setting_is_refused() {
        assert!(toml::from_str::<Config>("allow_anonymous = true").is_err());
    }

    #[test]
    fn an_identity_that_is_only_there_for_models_is_no_mistake() {
        let remarks = |more: &str| {
            let text = format!("[[identity]]\nname = \"chat\"\ncertificate_cn = \"chat\"\n{more}");
            toml::from_str::<Config>(&text).unwrap().remarks()
        };
        assert!(remarks("")[0].contains("may neither publish nor subscribe"));
        for more in ["models = [\"qwen*\"]", "role = \"operator\"", "tenant = \"plant-2\""] {
            assert_eq!(remarks(more), Vec::<String>::new(), "{more}");
        }
    }

    #[test]
    fn a_wrong_role_pattern_or_tenant_is_found_at_its_line() {
        for (line, what) in [
            ("role = \"root\"", "unknown variant"),
            ("models = [\"\"]", "must not be empty"),
            ("tenant = \"a/b\"", "has only letters"),
            ("user = \"\"", "1 to 128 bytes"),
        ] {
            let text = format!("[[identity]]\nname = \"chat\"\n{line}\n");
            let error = toml::from_str::<Config>(&text).unwrap_err().to_string();
            assert!(error.contains("line 3") && error.contains(what), "{error}");
        }
    }

    #[test]
    fn open_loopback_and_a_closed_door_are_both_pointed_out() {
        let open: Config = toml::from_str("allow_anonymous_loopback = true").unwrap();
        assert!(open.remarks()[0].contains("allow_anonymous_loopback is on"));
        assert!(Config::default().remarks()[0].contains("lets nobody in"));
    }
}
