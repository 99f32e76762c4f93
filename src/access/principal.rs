//! A caller who has proved who it is, and the topics, models and routes it may use.

use std::fmt;
use std::sync::Arc;

use super::filter::Filter;
use super::grant::{Grant, Role};

/// How a caller proved who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum How {
    /// It did not: it is on this machine, and the configuration lets such callers in.
    Loopback,
    /// A key as a bearer token.
    Key,
    /// User name and key over MQTT.
    Password,
    /// A verified client certificate.
    Certificate,
}

/// Rules of one identity, `%u` already replaced.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) publish: Vec<Filter>,
    pub(super) subscribe: Vec<Filter>,
    pub(super) manage_models: bool,
}

/// Rules of one identity before a client id is known: as configured, and without those that wait for one.
#[derive(Debug, Clone, Default)]
pub(super) struct Unbound {
    rules: Arc<Rules>,
    bound: Arc<Rules>,
}

impl Unbound {
    pub(super) fn new(rules: Rules) -> Self {
        let rules = Arc::new(rules);
        let bound = bind(&rules, "");
        Self { rules, bound }
    }
}

/// The rules with `%c` replaced, without those for which `client_id` is unfit.
fn bind(rules: &Arc<Rules>, client_id: &str) -> Arc<Rules> {
    let bind = |filters: &[Filter]| -> Vec<Filter> {
        filters.iter().filter_map(|filter| filter.substitute("%c", client_id)).collect()
    };
    let bound =
        Rules { publish: bind(&rules.publish), subscribe: bind(&rules.subscribe), manage_models: rules.manage_models };
    if bound == **rules { Arc::clone(rules) } else { Arc::new(bound) }
}

/// A caller that this room let in; nobody else can make one. Cheap to clone and to make: only counts of references.
#[derive(Clone)]
pub struct Principal {
    name: Arc<str>,
    how: How,
    grant: Arc<Grant>,
    /// As configured, with `%c` in them.
    rules: Arc<Rules>,
    /// For this client id; the same as `rules` where `%c` occurs nowhere.
    bound: Arc<Rules>,
}

impl Principal {
    pub(super) fn new(name: Arc<str>, how: How, rules: &Unbound, grant: &Arc<Grant>) -> Self {
        let Unbound { rules, bound } = rules.clone();
        Self { name, how, grant: Arc::clone(grant), rules, bound }
    }

    /// The same caller under an MQTT client id, which replaces `%c` in its rules. Rules with `%c` allow nothing until
    /// then, nor for an id that could widen them (empty, or with `/`, `+`, `#`, or a leading `$`).
    #[must_use]
    pub fn with_client_id(self, client_id: &str) -> Self {
        let bound = bind(&self.rules, client_id);
        Self { bound, ..self }
    }

    /// What limits, sessions and records are kept under: the identity's name, the id of a key that was made at run time,
    /// or `anonymous`. Nobody else ever has it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What people call this caller: the identity's name, or the name that its key was given.
    pub fn label(&self) -> &str {
        &self.grant.label
    }

    /// How it proved itself.
    pub fn how(&self) -> How {
        self.how
    }

    /// The id of its key, if that was made at run time.
    pub fn key_id(&self) -> Option<&str> {
        self.grant.key_id.as_deref()
    }

    /// Whose it is: `default` unless something else was said.
    pub fn tenant(&self) -> &str {
        &self.grant.tenant
    }

    /// The team within the tenant.
    pub fn team(&self) -> Option<&str> {
        self.grant.team.as_deref()
    }

    /// The person.
    pub fn user(&self) -> Option<&str> {
        self.grant.user.as_deref()
    }

    /// What it is to this box.
    pub fn role(&self) -> Role {
        self.grant.role
    }

    /// Whether it runs this box: keys, tenants, models and records of every tenant.
    pub fn is_operator(&self) -> bool {
        self.grant.role == Role::Operator
    }

    /// Whether it may ask the model of this name.
    pub fn may_use_model(&self, model: &str) -> bool {
        self.grant.models.iter().any(|pattern| pattern.matches(model))
    }

    /// Whether it may take the route of this name.
    pub fn may_use_route(&self, route: &str) -> bool {
        self.grant.routes.iter().any(|pattern| pattern.matches(route))
    }

    /// Whether it may load models and take them away. An operator may.
    pub fn may_manage_models(&self) -> bool {
        self.rules.manage_models || self.is_operator()
    }

    /// Whether it may publish to `topic`. Never to `$SYS` and `$share`, which are the broker's own, and never to a
    /// topic with a wildcard in it.
    pub fn may_publish(&self, topic: &str) -> bool {
        let own = topic.strip_prefix("$SYS").or_else(|| topic.strip_prefix("$share"));
        let reserved = own.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        !reserved
            && !topic.is_empty()
            && !topic.contains(['+', '#', '\0'])
            && self.bound.publish.iter().any(|rule| rule.matches(topic))
    }

    /// Whether it may subscribe to `filter`: one of its rules must cover all of it. Of `$share/group/filter` the
    /// filter counts. A malformed filter is not allowed.
    pub fn may_subscribe(&self, filter: &str) -> bool {
        let asked = match filter.strip_prefix("$share/") {
            None => filter,
            Some(shared) => match shared.split_once('/') {
                Some((group, filter)) if !group.is_empty() && !group.contains(['+', '#']) => filter,
                _ => return false,
            },
        };
        let Ok(asked) = Filter::new(asked) else { return false };
        self.bound.subscribe.iter().any(|rule| rule.covers(&asked))
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Principal")
            .field("name", &self.name)
            .field("tenant", &self.grant.tenant)
            .field("how", &self.how)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(publish: &[&str], subscribe: &[&str]) -> Principal {
        let filters = |texts: &[&str]| texts.iter().map(|text| Filter::new(text).unwrap()).collect();
        let rules = Rules { publish: filters(publish), subscribe: filters(subscribe), manage_models: false };
        Principal::new("press-7".into(), How::Key, &Unbound::new(rules), &Arc::new(Grant::plain("press-7".into())))
    }

    #[test]
    fn what_no_rule_allows_is_forbidden() {
        let press = principal(&["plant/press-7/+"], &["plant/press-7/command"]);
        assert!(press.may_publish("plant/press-7/temperature"));
        assert!(!press.may_publish("plant/press-8/temperature"));
        assert!(!press.may_publish("plant/press-7/+"));
        assert!(!press.may_publish(""));
        assert!(press.may_subscribe("plant/press-7/command"));
        assert!(!press.may_subscribe("plant/press-7/#"));
        assert!(!principal(&[], &[]).may_publish("a"));
    }

    #[test]
    fn a_shared_subscription_is_judged_by_its_filter() {
        let reader = principal(&[], &["plant/#"]);
        assert!(reader.may_subscribe("$share/workers/plant/+/temperature"));
        assert!(!reader.may_subscribe("$share/workers/office/#"));
        for malformed in ["$share/workers", "$share//plant/a", "$share/+/plant/a", "$share/workers/", "plant/#/a", ""] {
            assert!(!reader.may_subscribe(malformed), "{malformed}");
        }
    }

    #[test]
    fn the_brokers_own_topics_need_a_rule_to_be_read_and_are_never_written() {
        let everything = principal(&["#", "$SYS/#"], &["#"]);
        assert!(!everything.may_subscribe("$SYS/#"));
        assert!(!everything.may_subscribe("$share/workers/$SYS/broker/uptime"));
        assert!(principal(&[], &["$SYS/#"]).may_subscribe("$SYS/broker/+"));
        for topic in ["$SYS/broker/uptime", "$SYS", "$share/workers/a"] {
            assert!(!everything.may_publish(topic), "{topic}");
        }
    }

    #[test]
    fn a_client_id_fills_its_mark_and_cannot_widen_the_rule() {
        let press = principal(&["plant/%c/out"], &["plant/%c/in", "news"]);
        assert!(!press.may_publish("plant/%c/out"), "an unbound rule allows nothing");
        let bound = press.clone().with_client_id("cell-3");
        assert!(bound.may_publish("plant/cell-3/out"));
        assert!(bound.may_subscribe("plant/cell-3/in"));
        for hostile in ["+", "#", "a/b", "", "$SYS"] {
            let bound = bound.clone().with_client_id(hostile);
            assert!(!bound.may_subscribe("plant/+/in"), "{hostile}");
            assert!(!bound.may_publish(&format!("plant/{hostile}/out")), "{hostile}");
            assert!(bound.may_subscribe("news"), "rules without the mark stay");
        }
    }

    #[test]
    fn a_caller_uses_only_models_and_routes_of_its_scope() {
        use crate::access::Pattern;
        let patterns = |texts: &[&str]| texts.iter().map(|text| Pattern::new(text).unwrap()).collect();
        let grant = Grant { models: patterns(&["qwen*", "gpt-4o"]), routes: patterns(&[]), ..Grant::plain("a".into()) };
        let caller = Principal::new("a".into(), How::Key, &Unbound::default(), &Arc::new(grant));
        assert!(caller.may_use_model("qwen2.5-0.5b") && caller.may_use_model("gpt-4o"));
        assert!(!caller.may_use_model("gpt-4o-mini") && !caller.may_use_model(""));
        assert!(!caller.may_use_route("chat"), "an empty list allows nothing");
        assert!(principal(&[], &[]).may_use_model("anything") && principal(&[], &[]).may_use_route("chat"));
    }

    #[test]
    fn an_operator_manages_models_and_an_app_does_not() {
        let with = |role| {
            let grant = Grant { role, ..Grant::plain("a".into()) };
            Principal::new("a".into(), How::Key, &Unbound::default(), &Arc::new(grant))
        };
        assert!(with(Role::Operator).may_manage_models() && with(Role::Operator).is_operator());
        assert!(!with(Role::App).may_manage_models() && !with(Role::App).is_operator());
    }
}
