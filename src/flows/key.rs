//! What holds a request to a version: what it says of itself, and where it says nothing one chance for all that it asks.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::trace::Exchange;
use super::traffic::Plan;
use crate::base::Digest;
use crate::catalog::Sticky;

/// Looks a header up by its name.
pub type Header<'a> = &'a dyn Fn(&str) -> Option<&'a str>;

/// What a request says of itself that may hold it to the same version as others.
#[derive(Default)]
pub struct Bearings<'a> {
    /// The request's header, or entry of the metadata, of a name.
    pub header: Option<Header<'a>>,
    /// Triton's `sequence_id`.
    pub sequence: Option<&'a str>,
    /// The caller's identity; none for one without.
    pub caller: Option<&'a str>,
    /// What the caller calls the request.
    pub request: Option<&'a str>,
    /// When it came, of one that may be traced.
    pub exchange: Option<Arc<Exchange>>,
}

/// What holds one request to versions: those of the model that it names, and of the models that a pipeline asks for it. By
/// default nothing does, and each split decides by chance. While requests are traced, it also says which one it is.
#[derive(Debug, Clone, Default)]
pub struct Key {
    said: Option<Arc<Said>>,
    /// Decides where nothing was said.
    chance: Option<u64>,
    /// What the caller calls the request.
    pub(super) request: Option<Arc<str>>,
    /// The trace of the pipeline whose step it is.
    pub(super) trace: Option<u64>,
    /// When it came and was answered.
    pub(super) exchange: Option<Arc<Exchange>>,
}

#[derive(Debug)]
struct Said {
    /// By the names of the headers that plans look at.
    headers: Vec<(Box<str>, String)>,
    sequence: Option<String>,
    caller: Option<String>,
}

/// What of a request any plan looks at, so that nothing else of it is kept.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Asks {
    headers: BTreeSet<Box<str>>,
    sequence: bool,
    caller: bool,
}

impl Asks {
    pub(super) fn of<'a>(plans: impl Iterator<Item = &'a Plan>) -> Self {
        let mut asks = Self::default();
        for plan in plans.filter(|plan| plan.sticky != Sticky::Never) {
            asks.headers.insert(plan.sticky_key.clone());
            asks.sequence = true;
            asks.caller |= plan.sticky == Sticky::Caller;
        }
        asks
    }
}

impl Key {
    /// What `bearings` say of what `asks` look at.
    pub(super) fn read(asks: &Asks, bearings: &Bearings<'_>) -> Self {
        let header = |name: &str| {
            let value = bearings.header.and_then(|header| header(name)).filter(|value| !value.is_empty())?;
            Some((name.into(), value.to_owned()))
        };
        let headers: Vec<_> = asks.headers.iter().filter_map(|name| header(name)).collect();
        let sequence = bearings.sequence.filter(|_| asks.sequence).map(str::to_owned);
        let caller = bearings.caller.filter(|_| asks.caller).map(str::to_owned);
        let nothing = headers.is_empty() && sequence.is_none() && caller.is_none();
        let said = (!nothing).then(|| Arc::new(Said { headers, sequence, caller }));
        Self { said, ..Self::default() }
    }

    /// What the request says to this plan: the header that it names, else the sequence, else perhaps the caller.
    fn said(&self, plan: &Plan) -> Option<&str> {
        let said = self.said.as_deref().filter(|_| plan.sticky != Sticky::Never)?;
        let header = said.headers.iter().find(|(name, _)| *name == plan.sticky_key).map(|(_, value)| value);
        let caller = said.caller.as_ref().filter(|_| plan.sticky == Sticky::Caller);
        header.or(said.sequence.as_ref()).or(caller).map(String::as_str)
    }

    /// The bytes that decide for this plan; `draw` where nothing else does.
    pub(super) fn bytes(&self, plan: &Plan, draw: impl FnOnce() -> u64) -> Vec<u8> {
        match self.said(plan) {
            Some(said) => said.as_bytes().to_vec(),
            None => self.chance.unwrap_or_else(draw).to_le_bytes().to_vec(),
        }
    }

    /// Holds everything that is asked in this name to the same versions.
    pub(super) fn named(name: &str) -> Self {
        let digest = Digest::of(name.as_bytes());
        let (bytes, _) = digest.as_bytes().split_first_chunk().expect("a digest has 32 bytes");
        Self { chance: Some(u64::from_le_bytes(*bytes)), ..Self::default() }
    }

    /// The same of a request that is called so and came so.
    pub(super) fn seen(self, bearings: &Bearings<'_>) -> Self {
        Self { request: bearings.request.map(Arc::from), exchange: bearings.exchange.clone(), ..self }
    }

    /// The same for the steps of what this trace is of.
    pub(super) fn within(self, trace: Option<u64>) -> Self {
        Self { trace, ..self }
    }

    /// The same with one chance for everything that the request asks from now on.
    pub(super) fn settled(&self, draw: impl FnOnce() -> u64) -> Self {
        Self { chance: Some(self.chance.unwrap_or_else(draw)), ..self.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Name;

    fn plan(text: &str) -> Plan {
        let text = format!("split = {{ prod = 1, canary = 1 }}\n{text}");
        Plan::new(&Name::new("press").unwrap(), toml::from_str(&text).unwrap(), false)
    }

    #[test]
    fn the_header_goes_before_the_sequence_and_that_before_the_caller_if_callers_count() {
        let header = |name: &str| (name == "x-user").then_some("anna");
        let all = || Bearings {
            header: Some(&header),
            sequence: Some("7"),
            caller: Some("line-3"),
            request: None,
            exchange: None,
        };
        let sequence = || Bearings { header: None, ..all() };
        let caller = || Bearings { sequence: None, ..sequence() };
        for (sticky, expected) in [
            ("sticky_key = \"x-user\"", [Some("anna"), Some("7"), None]),
            ("", [Some("7"), Some("7"), None]),
            ("sticky = \"caller\"\nsticky_key = \"x-user\"", [Some("anna"), Some("7"), Some("line-3")]),
            ("sticky = \"never\"\nsticky_key = \"x-user\"", [None, None, None]),
        ] {
            let plan = plan(sticky);
            let asks = Asks::of([&plan].into_iter());
            let keys = [all(), sequence(), caller()].map(|bearings| Key::read(&asks, &bearings));
            assert_eq!([0, 1, 2].map(|at| keys[at].said(&plan)), expected, "{sticky}");
        }
    }

    #[test]
    fn each_plan_looks_at_its_own_header_and_nothing_is_kept_that_none_looks_at() {
        let (by_user, by_line) = (plan("sticky_key = \"x-user\""), plan("sticky_key = \"x-line\""));
        let header = |name: &str| match name {
            "x-user" => Some("anna"),
            "x-line" => Some("3"),
            "x-forebay-sticky" => panic!("nobody looks at it"),
            _ => None,
        };
        let bearings = Bearings { header: Some(&header), caller: Some("line-3"), ..Bearings::default() };
        let key = Key::read(&Asks::of([&by_user, &by_line].into_iter()), &bearings);
        assert_eq!((key.said(&by_user), key.said(&by_line)), (Some("anna"), Some("3")));
        assert_eq!(key.said.as_ref().unwrap().caller, None);
        assert!(Key::read(&Asks::of([].into_iter()), &bearings).said.is_none(), "without a split nothing is read");
    }

    #[test]
    fn one_chance_decides_everything_that_a_settled_request_asks() {
        let plan = plan("");
        let settled = Key::default().settled(|| 5);
        assert_eq!(settled.bytes(&plan, || 6), settled.settled(|| 7).bytes(&plan, || 8));
        assert_ne!(Key::default().bytes(&plan, || 6), Key::default().bytes(&plan, || 7));
    }
}
