//! A caller who has proved who it is, and the topics it may use.

use std::fmt;
use std::sync::Arc;

use super::filter::Filter;

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

/// A caller that this room let in; nobody else can make one. Cheap to clone.
#[derive(Clone)]
pub struct Principal {
    name: Arc<str>,
    how: How,
    /// As configured, with `%c` in them.
    rules: Arc<Rules>,
    /// For this client id; the same as `rules` where `%c` occurs nowhere.
    bound: Arc<Rules>,
}

impl Principal {
    pub(super) fn new(name: Arc<str>, how: How, rules: &Arc<Rules>) -> Self {
        Self { name, how, rules: Arc::clone(rules), bound: Arc::new(Rules::default()) }.with_client_id("")
    }

    /// The same caller under an MQTT client id, which replaces `%c` in its rules. Rules with `%c` allow nothing until
    /// then, nor for an id that could widen them (empty, or with `/`, `+`, `#`, or a leading `$`).
    #[must_use]
    pub fn with_client_id(self, client_id: &str) -> Self {
        let bind = |filters: &[Filter]| -> Vec<Filter> {
            filters.iter().filter_map(|filter| filter.substitute("%c", client_id)).collect()
        };
        let bound = Rules {
            publish: bind(&self.rules.publish),
            subscribe: bind(&self.rules.subscribe),
            manage_models: self.rules.manage_models,
        };
        let bound = if bound == *self.rules { Arc::clone(&self.rules) } else { Arc::new(bound) };
        Self { bound, ..self }
    }

    /// The identity's name; `anonymous` for a caller without one.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it proved itself.
    pub fn how(&self) -> How {
        self.how
    }

    /// Whether it may load models and take them away.
    pub fn may_manage_models(&self) -> bool {
        self.rules.manage_models
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
        f.debug_struct("Principal").field("name", &self.name).field("how", &self.how).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn principal(publish: &[&str], subscribe: &[&str]) -> Principal {
        let filters = |texts: &[&str]| texts.iter().map(|text| Filter::new(text).unwrap()).collect();
        let rules = Arc::new(Rules { publish: filters(publish), subscribe: filters(subscribe), manage_models: false });
        Principal::new("press-7".into(), How::Key, &rules)
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
}
