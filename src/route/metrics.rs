//! What was decided, and what was not asked and why.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::plan::{Plan, Verdict};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// Counters of routing. Whoever acts on a plan counts; routes and reasons are as many as the configuration and this
/// room have, whatever is asked.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    decisions: Family<RouteLabel, Counter>,
    nobody: Family<RouteLabel, Counter>,
    left_out: Family<ReasonLabel, Counter>,
    unknown: Counter,
    retries: Counter,
    retries_refused: Counter,
    hedges: Counter,
    hedges_won: Counter,
}

/// The counters of one route, to be kept beside it.
#[derive(Debug, Clone)]
pub struct RouteMetrics {
    decisions: Counter,
    nobody: Counter,
    all: Metrics,
}

impl RouteMetrics {
    /// Counts a decision.
    pub fn decided(&self, plan: &Plan<'_>) {
        self.decisions.inc();
        if plan.is_empty() {
            self.nobody.inc();
        }
        for considered in &plan.considered()[plan.len()..] {
            if let Verdict::LeftOut(reason) = considered.verdict {
                self.all.left_out.get_or_create(&ReasonLabel { reason: reason.as_str() }).inc();
            }
        }
    }
}

impl Metrics {
    /// Adds them to `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("route_decisions", "Requests that a route was for", self.decisions.clone());
        registry.register("route_nobody", "Of these, those that nobody could be asked for", self.nobody.clone());
        registry.register("route_left_out", "Candidates that were not asked, by reason", self.left_out.clone());
        registry.register("route_unknown_model", "Requests that no route was for", self.unknown.clone());
        registry.register("route_retries", "Attempts at the same candidate after the first", self.retries.clone());
        registry.register(
            "route_retries_refused",
            "Retries and hedges that the budget had nothing left for",
            self.retries_refused.clone(),
        );
        registry.register("route_hedges", "Second candidates asked for the same answer", self.hedges.clone());
        registry.register("route_hedges_won", "Of these, those that answered first", self.hedges_won.clone());
    }

    /// The counters of one route.
    pub fn of(&self, route: &str) -> RouteMetrics {
        let label = RouteLabel { route: route.to_owned() };
        RouteMetrics {
            decisions: self.decisions.get_or_create(&label).clone(),
            nobody: self.nobody.get_or_create(&label).clone(),
            all: self.clone(),
        }
    }

    /// A request that no route was for.
    pub fn unknown_model(&self) {
        self.unknown.inc();
    }

    /// A retry at the same candidate, or one that the budget refused.
    pub fn retry(&self, granted: bool) {
        if granted {
            self.retries.inc()
        } else {
            self.retries_refused.inc()
        };
    }

    /// A hedge was asked.
    pub fn hedge(&self) {
        self.hedges.inc();
    }

    /// It answered first.
    pub fn hedge_won(&self) {
        self.hedges_won.inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Ask, Link, RouteConfig, Routes, Standing};

    #[test]
    fn decisions_and_what_was_not_asked_are_counted() {
        let text = "name = 'r'\nmodels = ['m']\n[[candidate]]\nprovider = 'a'\n[[candidate]]\nprovider = 'b'\nrequests_max = 1\n";
        let routes = Routes::new(&[toml::from_str::<RouteConfig>(text).unwrap()]).unwrap();
        let (metrics, mut registry) = (Metrics::default(), Registry::default());
        metrics.register(&mut registry);
        let of_route = metrics.of("r");
        for link in [Link::Up, Link::Down] {
            let ask = Ask { link, ..Ask::new("m", "chat", 1) };
            of_route.decided(&routes.decide(&ask, |_, _| Standing { busy: 1, ..Standing::default() }).unwrap());
        }
        metrics.unknown_model();
        metrics.retry(true);
        metrics.retry(false);
        metrics.hedge();
        metrics.hedge_won();
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
        for line in [
            "route_decisions_total{route=\"r\"} 2",
            "route_nobody_total{route=\"r\"} 1",
            "route_left_out_total{reason=\"link\"} 2",
            "route_left_out_total{reason=\"full\"} 1",
            "route_unknown_model_total 1",
            "route_retries_total 1",
            "route_retries_refused_total 1",
            "route_hedges_total 1",
            "route_hedges_won_total 1",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
    }
}
