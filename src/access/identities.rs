//! From what a caller offers to a principal, or a refusal that gives nothing away.

use std::net::SocketAddr;
use std::sync::Arc;

use subtle::Choice;

use super::certificate;
use super::config::{Config, Identity};
use super::filter::Filter;
use super::grant::{DEFAULT_TENANT, Grant, MAX_PATTERNS};
use super::key::same;
use super::keys::Keys;
use super::metrics::{Labels, Metrics, Offer, Reason, ReasonLabels};
use super::pattern::Pattern;
use super::principal::{How, Principal, Rules, Unbound};
use crate::base::{Digest, Map};

const MAX_IDENTITIES: usize = 4096;
const MAX_RULES: usize = 256;
/// The longest key that is worth digesting.
const MAX_KEY_BYTES: usize = 1024;
/// The name of a caller without one; no identity may take it.
const ANONYMOUS: &str = "anonymous";

/// Why a caller is turned away. An unknown name and a wrong key are the same to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No identity has this name and key.
    #[error("unknown name or wrong key")]
    Key,
    /// No name was given, and this caller is not let in without one.
    #[error("a name and key or a client certificate is needed")]
    Anonymous,
    /// The certificate cannot be read, belongs to no identity, or to more than one.
    #[error("the client certificate belongs to no identity")]
    Certificate,
    /// The key is right, and its time has not come.
    #[error("this key is not good yet")]
    NotYet,
    /// The key is right, and its time is over, or another has taken its place.
    #[error("this key has expired or was replaced: use the new one, or ask an operator for one")]
    Expired,
    /// The key is right, and an operator took it back.
    #[error("this key was revoked: ask an operator for another")]
    Revoked,
    /// The caller is known, and an operator has shut its tenant out.
    #[error("this tenant is suspended: ask an operator")]
    Suspended,
}

/// Why a configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Over 4096 identities.
    #[error("access has at most {MAX_IDENTITIES} identities, this one has {0}")]
    Identities(usize),
    /// Over 256 rules in one list.
    #[error("access.identity {name} has at most {MAX_RULES} filters a list, this one has {rules}")]
    Rules {
        /// The identity.
        name: String,
        /// How many filters its longer list has.
        rules: usize,
    },
    /// Over 64 patterns in one list.
    #[error("access.identity {name} has at most {MAX_PATTERNS} patterns a list, this one has {patterns}")]
    Patterns {
        /// The identity.
        name: String,
        /// How many patterns its longer list has.
        patterns: usize,
    },
    /// Two identities of one name.
    #[error("access.identity {0} stands twice: give each identity its own name")]
    Twice(String),
    /// The name of callers without one.
    #[error("access.identity must not be called `{ANONYMOUS}`: that is the name of callers without one")]
    Reserved,
    /// Two identities share a key or a certificate name, so a caller could be either.
    #[error("access.identity {one} and {other} have the same {what}: a caller could be either")]
    Shared {
        /// The identity that comes first.
        one: String,
        /// The one that repeats it.
        other: String,
        /// What they share.
        what: &'static str,
    },
    /// An identity that nobody can prove to be.
    #[error("access.identity {0} has no proof: give it key_sha256, certificate_cn or certificate_san")]
    Proof(String),
    /// `$SYS` and `$share` in a publish list.
    #[error("access.identity {name} may not publish to {filter}: $SYS and $share belong to the broker")]
    BrokersOwn {
        /// The identity.
        name: String,
        /// The filter in its publish list.
        filter: String,
    },
}

struct Known {
    name: Arc<str>,
    keys: Vec<Digest>,
    rules: Unbound,
    grant: Arc<Grant>,
}

/// The identities of one configuration, immutable, and the keys that were made at run time if there are any.
pub struct Access {
    known: Vec<Known>,
    by_name: Map<Arc<str>, usize>,
    by_key: Map<Digest, usize>,
    by_common_name: Map<String, usize>,
    by_alternative_name: Map<String, usize>,
    anonymous: Option<(Unbound, Arc<Grant>)>,
    keys: Option<Arc<Keys>>,
    metrics: Metrics,
}

impl Access {
    /// Compiles the rules of every identity.
    pub fn new(config: &Config) -> Result<Self, Error> {
        if config.identity.len() > MAX_IDENTITIES {
            return Err(Error::Identities(config.identity.len()));
        }
        let mut access = Self {
            known: Vec::new(),
            by_name: Map::default(),
            by_key: Map::default(),
            by_common_name: Map::default(),
            by_alternative_name: Map::default(),
            anonymous: None,
            keys: None,
            metrics: Metrics::default(),
        };
        if config.allow_anonymous_loopback {
            let mut rules = rules(ANONYMOUS, &config.anonymous_publish, &config.anonymous_subscribe)?;
            rules.manage_models = config.anonymous_manage_models;
            access.anonymous = Some((Unbound::new(rules), Arc::new(Grant::plain(ANONYMOUS.into()))));
        }
        for identity in &config.identity {
            access.add(identity)?;
        }
        Ok(access)
    }

    /// With the keys that are made at run time: they come in beside the identities, and a tenant that is suspended stays
    /// out with both. Its counters are registered with this room's from then on.
    #[must_use]
    pub fn with_keys(self, keys: Arc<Keys>) -> Self {
        Self { metrics: keys.metrics().clone(), keys: Some(keys), ..self }
    }

    /// The keys that are made at run time.
    pub fn keys(&self) -> Option<&Arc<Keys>> {
        self.keys.as_ref()
    }

    /// The tenants that the configuration names, for [`Keys::open`].
    pub fn tenants(&self) -> impl Iterator<Item = &str> {
        self.known.iter().map(|known| &*known.grant.tenant)
    }

    fn add(&mut self, identity: &Identity) -> Result<(), Error> {
        let name: Arc<str> = identity.name.as_str().into();
        if *name == *ANONYMOUS {
            return Err(Error::Reserved);
        }
        let at = self.known.len();
        if self.by_name.insert(Arc::clone(&name), at).is_some() {
            return Err(Error::Twice(name.to_string()));
        }
        let keys: Vec<Digest> = [identity.key_sha256, identity.next_key_sha256].into_iter().flatten().collect();
        if keys.is_empty() && identity.certificate_cn.is_none() && identity.certificate_san.is_none() {
            return Err(Error::Proof(name.to_string()));
        }
        let shared = |before: Option<usize>, what| match before {
            Some(before) if before != at => {
                let one = self.known[before].name.to_string();
                Err(Error::Shared { one, other: name.to_string(), what })
            }
            _ => Ok(()),
        };
        for key in &keys {
            shared(self.by_key.insert(*key, at), "key")?;
        }
        if let Some(cn) = &identity.certificate_cn {
            shared(self.by_common_name.insert(cn.clone(), at), "certificate_cn")?;
        }
        if let Some(san) = &identity.certificate_san {
            shared(self.by_alternative_name.insert(san.clone(), at), "certificate_san")?;
        }
        let mut rules = rules(&name, &identity.publish, &identity.subscribe)?;
        rules.manage_models = identity.manage_models;
        let grant = Arc::new(grant(&name, identity)?);
        self.known.push(Known { name, keys, rules: Unbound::new(rules), grant });
        Ok(())
    }

    /// MQTT user name and password, or HTTP's basic authentication: an identity's name and its key, or a key that was made
    /// at run time with its id or name.
    pub fn password(&self, username: &str, password: &[u8]) -> Result<Principal, Denied> {
        let key = digest(password);
        let known = self.by_name.get(username).map(|&at| &self.known[at]);
        // An unknown name costs the same comparison.
        let nobody = [Digest::of(b"")];
        let keys = known.map_or(&nobody[..], |known| &known.keys);
        let good = bool::from(keys.iter().fold(Choice::from(0), |found, own| found | same(own, &key)));
        let answer = match (known.filter(|_| good && !password.is_empty()), &self.keys) {
            (Some(known), _) => Ok(principal(known, How::Password)),
            (None, Some(keys)) => keys.find(&key, How::Password).and_then(|found| {
                let called = found.key_id() == Some(username) || found.label() == username;
                if called { Ok(found) } else { Err(Denied::Key) }
            }),
            (None, None) => Err(Denied::Key),
        };
        self.answer(Offer::Password, answer)
    }

    /// A key as a text, whatever header it came in: `Authorization: Bearer`, `x-api-key`, `x-goog-api-key`, `api-key`.
    ///
    /// It is found by its digest. How long that takes may tell of digests, which nobody can aim at, and not of keys.
    pub fn bearer(&self, key: &str) -> Result<Principal, Denied> {
        let digest = digest(key.as_bytes());
        let answer = match (self.by_key.get(&digest), &self.keys) {
            _ if key.is_empty() => Err(Denied::Key),
            (Some(&at), _) => Ok(principal(&self.known[at], How::Key)),
            (None, Some(keys)) => keys.find(&digest, How::Key),
            (None, None) => Err(Denied::Key),
        };
        self.answer(Offer::Key, answer)
    }

    /// The leaf (DER) of a client certificate chain. The TLS layer must have verified the chain; only names are read
    /// here. A certificate whose names belong to two identities is refused.
    pub fn certificate(&self, leaf_der: &[u8]) -> Result<Principal, Denied> {
        let names = certificate::names(leaf_der).unwrap_or_default();
        let by_alternative = names.alternative.iter().filter_map(|name| self.by_alternative_name.get(name));
        let by_common = names.common.iter().filter_map(|name| self.by_common_name.get(name));
        let mut found: Vec<usize> = by_alternative.chain(by_common).copied().collect();
        found.sort_unstable();
        found.dedup();
        let answer = match found[..] {
            [at] => Ok(principal(&self.known[at], How::Certificate)),
            _ => Err(Denied::Certificate),
        };
        self.answer(Offer::Certificate, answer)
    }

    /// A caller that offers nothing: let in from this machine where the configuration says so.
    pub fn anonymous(&self, peer: SocketAddr) -> Result<Principal, Denied> {
        let local = peer.ip().to_canonical().is_loopback();
        let let_in = self.anonymous.as_ref().filter(|_| local);
        let answer = let_in
            .map(|(rules, grant)| Principal::new(Arc::clone(&grant.label), How::Loopback, rules, grant))
            .ok_or(Denied::Anonymous);
        self.answer(Offer::Loopback, answer)
    }

    /// Counters of this room.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn answer(&self, how: Offer, answer: Result<Principal, Denied>) -> Result<Principal, Denied> {
        let is_out = |who: &Principal| self.keys.as_ref().is_some_and(|keys| keys.is_suspended(who.tenant()));
        let answer = answer.and_then(|who| if is_out(&who) { Err(Denied::Suspended) } else { Ok(who) });
        let counters = if answer.is_ok() { &self.metrics.granted } else { &self.metrics.denied };
        counters.get_or_create(&Labels { how }).inc();
        if let Some(reason) = answer.as_ref().err().and_then(|denied| Reason::of(*denied)) {
            self.metrics.ended.get_or_create(&ReasonLabels { reason }).inc();
        }
        answer
    }
}

fn principal(known: &Known, how: How) -> Principal {
    Principal::new(Arc::clone(&known.name), how, &known.rules, &known.grant)
}

fn grant(name: &Arc<str>, identity: &Identity) -> Result<Grant, Error> {
    let list = |patterns: &Option<Vec<Pattern>>| match patterns {
        None => Ok([Pattern::everything()].into()),
        Some(patterns) if patterns.len() > MAX_PATTERNS => {
            Err(Error::Patterns { name: name.to_string(), patterns: patterns.len() })
        }
        Some(patterns) => Ok(patterns.clone().into()),
    };
    Ok(Grant {
        tenant: identity.tenant.as_ref().map_or(DEFAULT_TENANT, |tenant| tenant.as_str()).into(),
        team: identity.team.as_ref().map(|team| team.as_str().into()),
        user: identity.user.as_ref().map(|user| user.shared()),
        role: identity.role,
        key_id: None,
        label: Arc::clone(name),
        models: list(&identity.models)?,
        routes: list(&identity.routes)?,
    })
}

/// An overlong key costs no more than a long one; its digest is then simply wrong.
fn digest(key: &[u8]) -> Digest {
    Digest::of(&key[..key.len().min(MAX_KEY_BYTES + 1)])
}

fn rules(name: &str, publish: &[Filter], subscribe: &[Filter]) -> Result<Rules, Error> {
    let most = publish.len().max(subscribe.len());
    if most > MAX_RULES {
        return Err(Error::Rules { name: name.to_owned(), rules: most });
    }
    if let Some(filter) = publish.iter().find(|f| f.starts_with_level("$SYS") || f.starts_with_level("$share")) {
        return Err(Error::BrokersOwn { name: name.to_owned(), filter: filter.to_string() });
    }
    let fill = |filters: &[Filter]| filters.iter().filter_map(|filter| filter.substitute("%u", name)).collect();
    Ok(Rules { publish: fill(publish), subscribe: fill(subscribe), manage_models: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{NewKey, new_key};
    use rand::SeedableRng;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn access(text: &str) -> Access {
        Access::new(&toml::from_str(text).unwrap()).unwrap()
    }

    fn refused(text: &str) -> Error {
        Access::new(&toml::from_str(text).unwrap()).err().unwrap()
    }

    #[test]
    fn whoever_is_to_manage_models_may_and_nobody_else() {
        let (one, other) = (key(1), key(2));
        let access = access(&format!(
            "[[identity]]\nname = \"one\"\nkey_sha256 = \"{}\"\nmanage_models = true\n\
             [[identity]]\nname = \"other\"\nkey_sha256 = \"{}\"\n",
            one.sha256, other.sha256
        ));
        assert!(access.bearer(&one.text).unwrap().with_client_id("c").may_manage_models());
        assert!(!access.bearer(&other.text).unwrap().may_manage_models());
    }

    fn key(seed: u64) -> NewKey {
        new_key(&mut rand::rngs::StdRng::seed_from_u64(seed))
    }

    fn with_key(key: &NewKey) -> Access {
        access(&format!(
            "[[identity]]\nname = \"press-7\"\nkey_sha256 = \"{}\"\npublish = [\"plant/%u/#\"]\n",
            key.sha256
        ))
    }

    #[test]
    fn a_key_opens_as_password_and_as_bearer_and_nothing_else_does() {
        let key = key(1);
        let access = with_key(&key);
        let press = access.password("press-7", key.text.as_bytes()).unwrap();
        assert_eq!((press.name(), press.how()), ("press-7", How::Password));
        assert!(press.may_publish("plant/press-7/temperature"));
        assert!(!press.may_publish("plant/press-8/temperature"));
        assert_eq!(access.bearer(&key.text).unwrap().how(), How::Key);
        for wrong in ["", "hunter2", &key.sha256.to_string(), &"x".repeat(5000)] {
            assert_eq!(access.password("press-7", wrong.as_bytes()).unwrap_err(), Denied::Key);
            assert_eq!(access.bearer(wrong).unwrap_err(), Denied::Key);
        }
        assert_eq!(access.password("press-8", key.text.as_bytes()).unwrap_err(), Denied::Key);
        assert_eq!(access.password("", b"").unwrap_err(), Denied::Key);
    }

    #[test]
    fn an_identity_has_a_tenant_a_role_and_a_scope_and_without_them_the_widest_of_the_smallest() {
        let (one, other) = (key(1), key(2));
        let access = access(&format!(
            "[[identity]]\nname = \"one\"\nkey_sha256 = \"{}\"\ntenant = \"plant-2\"\nteam = \"line-4\"\nuser = \"zoë\"\n\
             role = \"operator\"\nmodels = [\"qwen*\"]\nroutes = []\n\
             [[identity]]\nname = \"other\"\nkey_sha256 = \"{}\"\n",
            one.sha256, other.sha256
        ));
        let one = access.bearer(&one.text).unwrap();
        assert_eq!((one.tenant(), one.team(), one.user()), ("plant-2", Some("line-4"), Some("zoë")));
        assert!(one.is_operator() && one.may_manage_models() && one.key_id().is_none());
        assert!(one.may_use_model("qwen2.5") && !one.may_use_model("gpt-4o") && !one.may_use_route("chat"));
        let other = access.bearer(&other.text).unwrap();
        assert_eq!((other.tenant(), other.team(), other.user(), other.label()), ("default", None, None, "other"));
        assert!(!other.is_operator() && other.may_use_model("gpt-4o") && other.may_use_route("chat"));
        assert!(access.tenants().eq(["plant-2", "default"]));
    }

    #[test]
    fn too_many_patterns_are_refused() {
        let patterns = vec!["\"a\""; 65].join(",");
        let text = format!("[[identity]]\nname = \"a\"\ncertificate_cn = \"x\"\nmodels = [{patterns}]");
        assert_eq!(refused(&text), Error::Patterns { name: "a".to_owned(), patterns: 65 });
    }

    #[test]
    fn both_keys_open_while_keys_change() {
        let (old, new) = (key(1), key(2));
        let access = access(&format!(
            "[[identity]]\nname = \"a\"\nkey_sha256 = \"{}\"\nnext_key_sha256 = \"{}\"\n",
            old.sha256, new.sha256
        ));
        assert!(access.bearer(&old.text).is_ok());
        assert!(access.password("a", new.text.as_bytes()).is_ok());
    }

    #[test]
    fn nobody_comes_in_unnamed_unless_local_and_configured() {
        let local: SocketAddr = "127.0.0.1:5000".parse().unwrap();
        let mapped: SocketAddr = "[::ffff:127.0.0.1]:5000".parse().unwrap();
        let remote: SocketAddr = "10.0.0.9:5000".parse().unwrap();
        assert_eq!(access("").anonymous(local).unwrap_err(), Denied::Anonymous);
        let open = access("allow_anonymous_loopback = true");
        assert!(open.anonymous(local).unwrap().may_publish("anything/at/all"));
        assert_eq!(open.anonymous(mapped).unwrap().name(), "anonymous");
        assert_eq!(open.anonymous(remote).unwrap_err(), Denied::Anonymous);
    }

    fn certificate(common: &[&str], san: Vec<SanType>) -> Vec<u8> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = san;
        for name in common {
            params.distinguished_name.push(DnType::CommonName, *name);
        }
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn a_certificate_is_known_by_its_common_or_alternative_name() {
        let access = access(
            "[[identity]]\nname = \"a\"\ncertificate_cn = \"press-7.plant\"\n\
             [[identity]]\nname = \"b\"\ncertificate_san = \"spiffe://plant/b\"\n\
             [[identity]]\nname = \"c\"\ncertificate_san = \"c.plant\"\n",
        );
        let uri = || SanType::URI("spiffe://plant/b".try_into().unwrap());
        let dns = || SanType::DnsName("c.plant".try_into().unwrap());
        let by = |der: &[u8]| access.certificate(der).map(|found| found.name().to_owned());
        assert_eq!(by(&certificate(&["press-7.plant"], vec![])).unwrap(), "a");
        assert_eq!(by(&certificate(&["whoever"], vec![uri()])).unwrap(), "b");
        assert_eq!(by(&certificate(&[], vec![dns()])).unwrap(), "c");
        // A common name never counts as an alternative name.
        assert_eq!(by(&certificate(&["c.plant"], vec![])), Err(Denied::Certificate));
        assert_eq!(by(&certificate(&["press-7.plant"], vec![uri()])), Err(Denied::Certificate), "could be either");
        assert_eq!(by(&certificate(&["stranger"], vec![])), Err(Denied::Certificate));
        assert_eq!(by(b"not a certificate"), Err(Denied::Certificate));
        assert_eq!(by(b""), Err(Denied::Certificate));
    }

    #[test]
    fn a_configuration_that_could_mistake_callers_is_refused() {
        let digest = key(1).sha256;
        assert_eq!(refused("[[identity]]\nname = \"a\""), Error::Proof("a".to_owned()));
        assert_eq!(refused("[[identity]]\nname = \"anonymous\"\ncertificate_cn = \"x\""), Error::Reserved);
        let twice =
            "[[identity]]\nname = \"a\"\ncertificate_cn = \"x\"\n[[identity]]\nname = \"a\"\ncertificate_cn = \"y\"";
        assert_eq!(refused(twice), Error::Twice("a".to_owned()));
        let shared = format!(
            "[[identity]]\nname = \"a\"\nkey_sha256 = \"{digest}\"\n[[identity]]\nname = \"b\"\nnext_key_sha256 = \"{digest}\""
        );
        assert!(refused(&shared).to_string().contains("a and b have the same key"));
        let system = "[[identity]]\nname = \"a\"\ncertificate_cn = \"x\"\npublish = [\"$SYS/#\"]";
        assert!(matches!(refused(system), Error::BrokersOwn { .. }));
    }

    #[test]
    fn grants_and_refusals_are_counted() {
        let access = with_key(&key(1));
        let _ = access.bearer("wrong");
        assert_eq!(access.metrics().denied.get_or_create(&Labels { how: Offer::Key }).get(), 1);
    }
}
