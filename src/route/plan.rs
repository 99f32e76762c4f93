//! Who is asked in which order, and why the others are not.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::time::Duration;

use smallvec::SmallVec;

use super::ask::{Ask, Link};
use super::conditions::Glance;
use super::config::Strategy;
use super::reason::{Basis, Reason};
use super::table::{Found, Route, RouteCandidate};
use super::vitals::Standing;

/// Candidates that a plan has room for without a place on the heap.
const USUAL: usize = 10;
/// Longest explanation in bytes; what is longer ends in `...`.
const EXPLANATION_MAX: usize = 512;

/// What became of a candidate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict {
    /// It is asked, in its turn.
    Asked(Basis),
    /// It is not.
    LeftOut(Reason),
}

/// A candidate that was looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Considered {
    /// Its place in [`Route::candidates`].
    pub candidate: usize,
    /// What became of it.
    pub verdict: Verdict,
}

/// One decision: all candidates of the route, those that are asked first, in their order.
#[derive(Debug, Clone)]
pub struct Plan<'a> {
    found: Found<'a>,
    route: &'a Route,
    link: Link,
    considered: SmallVec<[Considered; USUAL]>,
    asked: usize,
}

/// What orders two candidates: tier, score, place in the file.
struct Ranked {
    tier: u32,
    score: f64,
    /// Where the scores are equal.
    draw: f64,
    considered: Considered,
}

impl<'a> Plan<'a> {
    pub(super) fn new(
        found: Found<'a>,
        ask: &Ask<'_>,
        mut standing: impl FnMut(&'a RouteCandidate) -> Standing,
    ) -> Self {
        let (route, glance) = (found.route(), &Glance::new(ask));
        let mut ranked: SmallVec<[Ranked; USUAL]> = SmallVec::new();
        let mut left_out: SmallVec<[Considered; USUAL]> = SmallVec::new();
        for (at, candidate) in route.candidates.iter().enumerate() {
            let judged = match unfit(route, candidate, glance) {
                Some(reason) => Err(reason),
                None => {
                    let standing = standing(candidate);
                    unavailable(candidate, &standing).map_or(Ok(standing), Err)
                }
            };
            match judged {
                Ok(standing) => ranked.push(Ranked::new(at, route, candidate, &standing, ask)),
                Err(reason) => left_out.push(Considered { candidate: at, verdict: Verdict::LeftOut(reason) }),
            }
        }
        // Stable, so the file decides between equals.
        ranked.sort_by(|a, b| (a.tier.cmp(&b.tier)).then(a.score.total_cmp(&b.score)).then(a.draw.total_cmp(&b.draw)));
        let asked = ranked.len();
        let considered = ranked.into_iter().map(|ranked| ranked.considered).chain(left_out).collect();
        Self { found, route, link: ask.link, considered, asked }
    }

    /// The route.
    pub fn route(&self) -> &'a Route {
        self.route
    }

    /// How many candidates can be asked.
    pub fn len(&self) -> usize {
        self.asked
    }

    /// Nobody can be asked: [`retry_in`](Self::retry_in) says when, and the explanation why.
    pub fn is_empty(&self) -> bool {
        self.asked == 0
    }

    /// Places in [`Route::candidates`] of those that are asked, in their order.
    pub fn order(&self) -> impl Iterator<Item = usize> + '_ {
        self.considered[..self.asked].iter().map(|considered| considered.candidate)
    }

    pub(super) fn candidate_at(&self, at: usize) -> usize {
        self.considered[at].candidate
    }

    /// Everybody who was looked at, those that are asked first.
    pub fn considered(&self) -> &[Considered] {
        &self.considered
    }

    /// The model to ask this candidate for, as its provider names it.
    pub fn model_of(&self, candidate: &'a RouteCandidate) -> Cow<'a, str> {
        self.found.model_of(candidate)
    }

    /// How long until one that is left out now may be asked, as far as anybody knows: for `retry-after`.
    pub fn retry_in(&self) -> Option<Duration> {
        let held = self.considered[self.asked..].iter().filter_map(|considered| match considered.verdict {
            Verdict::LeftOut(Reason::Held(held)) => held.retry_in(),
            Verdict::LeftOut(_) | Verdict::Asked(_) => None,
        });
        held.min()
    }

    /// Whether somebody who is left out now might be asked later: 503, not 4xx.
    pub fn may_pass(&self) -> bool {
        self.considered[self.asked..].iter().any(|considered| match considered.verdict {
            Verdict::LeftOut(reason) => reason.passes(),
            Verdict::Asked(_) => false,
        })
    }

    /// The decision in words of at most 512 visible ASCII characters, for a header and the record.
    pub fn explanation(&self) -> String {
        let mut line = Line { text: String::with_capacity(128) };
        // Only `Line` says that it is full.
        let _ = write!(line, "{self}");
        line.text
    }
}

impl fmt::Display for Plan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for text in [self.route.name.as_str(), "; ", self.route.strategy.as_str(), "; link ", self.link.as_str()] {
            f.write_str(text)?;
        }
        for (at, considered) in self.considered.iter().enumerate() {
            let target = &self.route.candidates[considered.candidate].target;
            match considered.verdict {
                // Each answer says this much, so it is put together without a template.
                Verdict::Asked(basis) => {
                    f.write_str(if at == 0 { "; asks " } else { ", " })?;
                    target.fmt(f)?;
                    f.write_str(" (")?;
                    basis.fmt(f)?;
                    f.write_str(")")?;
                }
                Verdict::LeftOut(reason) if at == self.asked => write!(f, "; not {target}: {reason}")?,
                Verdict::LeftOut(reason) => write!(f, ", {target}: {reason}")?,
            }
        }
        Ok(())
    }
}

/// Text for one header: bounded, visible ASCII and spaces.
struct Line {
    text: String,
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = EXPLANATION_MAX - 3 - self.text.len();
        let is_plain = |byte: u8| (b' '..=b'~').contains(&byte);
        if text.len() <= room && text.bytes().all(is_plain) {
            self.text.push_str(text);
            return Ok(());
        }
        self.text.extend(text.chars().take(room).map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }));
        if text.chars().nth(room).is_some() {
            self.text.push_str("...");
            return Err(fmt::Error);
        }
        Ok(())
    }
}

impl Ranked {
    fn new(at: usize, route: &Route, candidate: &RouteCandidate, standing: &Standing, ask: &Ask<'_>) -> Self {
        let draw = || match ask.sticky {
            Some(key) => candidate.lot.draw(key, candidate.weight),
            None => candidate.lot.draw(&ask.chance.to_le_bytes(), candidate.weight),
        };
        #[allow(clippy::cast_precision_loss, reason = "for comparing")]
        let (score, draw, basis) = match route.strategy {
            Strategy::Priority => (0.0, 0.0, Basis::Listed),
            Strategy::Weights if ask.sticky.is_some() => (draw(), 0.0, Basis::Sticky),
            Strategy::Weights => (draw(), 0.0, Basis::Drawn),
            Strategy::Latency => (quickness(standing), draw(), Basis::Latency(standing.latency)),
            Strategy::Cost => (standing.cost.map_or(f64::MAX, |cost| cost as f64), draw(), Basis::Cost(standing.cost)),
            Strategy::Busy => {
                let score = f64::from(standing.busy) / f64::from(candidate.weight.max(1));
                (score, draw(), Basis::Busy(standing.busy))
            }
        };
        let score = if candidate.weight == 0 { f64::INFINITY } else { score };
        let considered = Considered { candidate: at, verdict: Verdict::Asked(basis) };
        Self { tier: candidate.tier, score, draw, considered }
    }
}

/// Average time times the requests that it would have. One that was never measured is asked at once, but only by one
/// request at a time while others are known: it may be very slow.
fn quickness(standing: &Standing) -> f64 {
    match standing.latency {
        #[allow(clippy::cast_precision_loss, reason = "for comparing")]
        Some(time) => time.as_micros().max(1) as f64 * (f64::from(standing.busy) + 1.0),
        None if standing.busy == 0 => 0.0,
        None => 1e15 + f64::from(standing.busy),
    }
}

/// Why it could not answer this request, however it is doing.
fn unfit(route: &Route, candidate: &RouteCandidate, glance: &Glance<'_>) -> Option<Reason> {
    let ask = glance.ask;
    let allowed = ask.reach.min(route.reach);
    if candidate.reach > allowed {
        return Some(Reason::Reach { at: candidate.reach, allowed });
    }
    if let Some(need) = candidate.lacks.first_of_both(ask.needs) {
        return Some(Reason::Lacks(need));
    }
    if let (Some(most), Some(prompt)) = (candidate.context_tokens, ask.prompt_tokens) {
        let tokens = prompt.saturating_add(ask.output_tokens.unwrap_or(0));
        if tokens > most {
            return Some(Reason::Length { tokens, most });
        }
    }
    if let Some(unmet) = candidate.conditions.unmet(glance) {
        return Some(Reason::When(unmet));
    }
    (!candidate.links[ask.link as usize]).then_some(Reason::Link(ask.link))
}

/// Why it is not asked now.
fn unavailable(candidate: &RouteCandidate, standing: &Standing) -> Option<Reason> {
    if let Some(held) = standing.held {
        return Some(Reason::Held(held));
    }
    candidate.requests_max.filter(|most| standing.busy >= *most).map(|_| Reason::Full(standing.busy))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Held, Need, Reach, RouteConfig, Routes};
    use proptest::prelude::{ProptestConfig, any, prop, prop_assert, prop_assert_eq, proptest};
    use proptest::strategy::Strategy as Strategies;

    fn routes(text: &str) -> Routes {
        Routes::new(&[toml::from_str::<RouteConfig>(text).unwrap()]).unwrap()
    }

    const THREE: &str = "
        name = 'chat'
        models = ['gpt-4o']
        [[candidate]]
        provider = 'openai'
        [[candidate]]
        provider = 'plant'
        model = 'qwen-72b'
        reach = 'site'
        [[candidate]]
        provider = 'local'
        model = 'qwen-0.5b'
        context_tokens = 4096
        lacks = ['images']
    ";

    fn with_strategy(strategy: &str) -> Routes {
        routes(&format!("strategy = '{strategy}'\n{THREE}"))
    }

    fn decide<'a>(routes: &'a Routes, ask: &Ask<'a>, standings: &[Standing]) -> Plan<'a> {
        routes.decide(ask, |_, candidate| standings.get(candidate.place()).copied().unwrap_or_default()).unwrap()
    }

    fn order(plan: &Plan<'_>) -> Vec<usize> {
        plan.order().collect()
    }

    fn chat() -> Ask<'static> {
        Ask::new("gpt-4o", "chat", 7)
    }

    #[test]
    fn priority_asks_as_the_file_says_and_the_explanation_says_so() {
        let routes = with_strategy("priority");
        let plan = decide(&routes, &chat(), &[]);
        assert_eq!(order(&plan), [0, 1, 2]);
        assert_eq!(
            plan.explanation(),
            "chat; priority; link up; asks openai/* (listed), plant/qwen-72b (listed), local/qwen-0.5b (listed)"
        );
    }

    #[test]
    fn without_a_link_the_plant_and_the_box_go_on_answering() {
        let routes = with_strategy("priority");
        let plan = decide(&routes, &Ask { link: Link::Down, ..chat() }, &[]);
        assert_eq!(order(&plan), [1, 2]);
        assert!(plan.explanation().ends_with("; not openai/*: the link is down"), "{}", plan.explanation());
        assert_eq!(order(&decide(&routes, &Ask { link: Link::Metered, ..chat() }, &[])), [0, 1, 2]);
    }

    #[test]
    fn what_must_not_leave_the_box_never_does_whatever_else_is_true() {
        let down = Standing { held: Some(Held::Unhealthy(3)), ..Standing::default() };
        for strategy in ["priority", "weights", "latency", "cost", "busy"] {
            let routes = with_strategy(strategy);
            let ask = Ask { reach: Reach::Box, ..chat() };
            assert_eq!(order(&decide(&routes, &ask, &[])), [2]);
            let nobody = decide(&routes, &ask, &[Standing::default(), Standing::default(), down]);
            assert!(nobody.is_empty(), "{strategy}");
            assert_eq!(order(&decide(&routes, &Ask { reach: Reach::Site, ..chat() }, &[])).len(), 2);
        }
        // The route may say less than the request.
        let routes = routes(&format!("reach = 'box'\n{THREE}"));
        let plan = decide(&routes, &chat(), &[]);
        assert_eq!(order(&plan), [2]);
        assert!(plan.explanation().contains("it is on the cloud, the request must not leave the box"));
    }

    #[test]
    fn pictures_and_long_prompts_go_to_those_who_take_them() {
        let routes = with_strategy("priority");
        let needs = [Need::Images].into_iter().collect();
        let plan = decide(&routes, &Ask { needs, link: Link::Down, ..chat() }, &[]);
        assert_eq!(order(&plan), [1]);
        let long = Ask { prompt_tokens: Some(4000), output_tokens: Some(97), ..chat() };
        let plan = decide(&routes, &long, &[]);
        assert_eq!(order(&plan), [0, 1]);
        assert!(plan.explanation().contains("not local/qwen-0.5b: 4097 tokens do not fit into 4096"));
        assert_eq!(order(&decide(&routes, &Ask { output_tokens: Some(96), ..long }, &[])), [0, 1, 2]);
        assert_eq!(order(&decide(&routes, &Ask { prompt_tokens: None, ..long }, &[])), [0, 1, 2]);
        let absurd = Ask { prompt_tokens: Some(u64::MAX), output_tokens: Some(u64::MAX), ..chat() };
        assert_eq!(order(&decide(&routes, &absurd, &[])), [0, 1]);
    }

    #[test]
    fn the_quickest_is_asked_first_and_its_requests_make_it_slower() {
        let routes = with_strategy("latency");
        let standing = |ms, busy| Standing { latency: Some(Duration::from_millis(ms)), busy, ..Standing::default() };
        assert_eq!(
            order(&decide(&routes, &chat(), &[standing(300, 0), standing(200, 0), standing(100, 0)])),
            [2, 1, 0]
        );
        assert_eq!(
            order(&decide(&routes, &chat(), &[standing(300, 0), standing(200, 0), standing(100, 3)])),
            [1, 0, 2]
        );
        let unknown = |busy| Standing { busy, ..Standing::default() };
        assert_eq!(order(&decide(&routes, &chat(), &[standing(300, 0), unknown(0), standing(100, 0)])), [1, 2, 0]);
        assert_eq!(order(&decide(&routes, &chat(), &[standing(300, 0), unknown(1), standing(100, 0)])), [2, 0, 1]);
    }

    #[test]
    fn the_cheapest_is_asked_first_and_an_unknown_price_is_not_cheap() {
        let routes = with_strategy("cost");
        let costs = |cost| Standing { cost, ..Standing::default() };
        let plan = decide(&routes, &chat(), &[costs(Some(2_500_000_000)), costs(None), costs(Some(0))]);
        assert_eq!(order(&plan), [2, 0, 1]);
        assert!(
            plan.explanation()
                .contains("local/qwen-0.5b (0.000000 USD), openai/* (0.002500 USD), plant/qwen-72b (price unknown)")
        );
        assert_eq!(order(&decide(&routes, &chat(), &[costs(Some(u64::MAX)), costs(None), costs(Some(9))])), [2, 0, 1]);
    }

    #[test]
    fn the_least_busy_for_its_weight_is_asked_first() {
        let routes = routes(
            "name = 'r'\nmodels = ['gpt-4o']\nstrategy = 'busy'\n[[candidate]]\nprovider = 'a'\nweight = 4\n[[candidate]]\nprovider = 'b'\n",
        );
        let busy = |busy| Standing { busy, ..Standing::default() };
        assert_eq!(order(&decide(&routes, &chat(), &[busy(3), busy(1)])), [0, 1]);
        assert_eq!(order(&decide(&routes, &chat(), &[busy(5), busy(1)])), [1, 0]);
    }

    #[test]
    fn a_higher_tier_and_a_weight_of_zero_wait_for_the_others() {
        let text = "name = 'r'\nmodels = ['m']\nstrategy = 'weights'\n\
            [[candidate]]\nprovider = 'late'\ntier = 1\nweight = 1000000\n[[candidate]]\nprovider = 'spare'\nweight = 0\n\
            [[candidate]]\nprovider = 'a'\n[[candidate]]\nprovider = 'b'\n";
        let routes = routes(text);
        for chance in 0..200 {
            let plan = decide(&routes, &Ask { model: "m", chance, ..chat() }, &[]);
            assert_eq!(order(&plan)[2..], [1, 0]);
        }
    }

    #[test]
    fn a_sticky_key_holds_its_candidate_while_chance_changes() {
        let routes = with_strategy("weights");
        let mut firsts = std::collections::HashSet::new();
        for user in 0..40_u8 {
            let key = [user];
            let first = |chance| order(&decide(&routes, &Ask { sticky: Some(&key), chance, ..chat() }, &[]))[0];
            assert_eq!(first(1), first(2));
            firsts.insert(first(1));
        }
        assert_eq!(firsts.len(), 3, "users are spread");
        // And when its candidate is gone, to the same other one.
        let down = Ask { sticky: Some(b"user"), link: Link::Down, ..chat() };
        assert_eq!(order(&decide(&routes, &down, &[])), order(&decide(&routes, &Ask { chance: 99, ..down }, &[])));
    }

    #[test]
    fn who_is_held_or_full_is_left_out_and_the_plan_says_when_to_come_back() {
        let routes = routes(
            "name = 'r'\nmodels = ['gpt-4o']\n[[candidate]]\nprovider = 'a'\nrequests_max = 2\n[[candidate]]\nprovider = 'b'\n[[candidate]]\nprovider = 'c'\n",
        );
        let full = Standing { busy: 2, ..Standing::default() };
        let held = |ms| Standing { held: Some(Held::RetryAfter(Duration::from_millis(ms))), ..Standing::default() };
        let plan = decide(&routes, &chat(), &[full, held(900), held(300)]);
        assert!(plan.is_empty() && plan.may_pass());
        assert_eq!(plan.retry_in(), Some(Duration::from_millis(300)));
        assert_eq!(
            plan.explanation(),
            "r; priority; link up; not a/*: it has 2 requests, which is its bound, b/*: it asked to be left alone for 900 ms more, \
             c/*: it asked to be left alone for 300 ms more"
        );
        let free = Standing { busy: 1, ..Standing::default() };
        assert_eq!(order(&decide(&routes, &chat(), &[free, held(900), held(300)])), [0]);
    }

    #[test]
    fn nobody_for_good_is_told_from_nobody_for_now() {
        let routes = with_strategy("priority");
        let needs = [Need::Images].into_iter().collect();
        let never = decide(&routes, &Ask { needs, reach: Reach::Box, ..chat() }, &[]);
        assert!(never.is_empty() && !never.may_pass());
        assert_eq!(never.retry_in(), None);
    }

    #[test]
    fn the_star_of_the_pattern_goes_into_the_model() {
        let model = |pattern: &str, candidate: &str, asked: &str| {
            let routes =
                routes(&format!("name = 'r'\nmodels = ['{pattern}']\n[[candidate]]\nprovider = 'p'\n{candidate}"));
            let plan = decide(&routes, &Ask { model: asked, ..chat() }, &[]);
            plan.model_of(&plan.route().candidates()[0]).into_owned()
        };
        assert_eq!(model("anthropic/*", "model = '*'", "anthropic/claude-x"), "claude-x");
        assert_eq!(model("*", "model = 'openai/*-eu'", "gpt-4o"), "openai/gpt-4o-eu");
        assert_eq!(model("anthropic/*", "", "anthropic/claude-x"), "anthropic/claude-x");
        assert_eq!(model("anthropic/*", "model = 'fixed'", "anthropic/claude-x"), "fixed");
        assert_eq!(model("gpt-4o", "model = 'gpt-4o-2024'", "gpt-4o"), "gpt-4o-2024");
    }

    #[test]
    fn an_explanation_fits_into_a_header_whatever_the_file_says() {
        let many: String =
            (0..64).map(|at| format!("[[candidate]]\nprovider = 'p{at}'\nmodel = '{}'\n", "m".repeat(200))).collect();
        let routes = routes(&format!("name = 'r'\nmodels = ['gpt-4o']\n{many}"));
        let explanation = decide(&routes, &chat(), &[]).explanation();
        assert!(explanation.len() <= EXPLANATION_MAX && explanation.ends_with("..."), "{explanation}");
        assert!(explanation.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    }

    fn any_standing() -> impl Strategies<Value = Standing> {
        (0_u8..4, prop::option::of(0_u64..5000), 0_u32..4, prop::option::of(0_u64..1000)).prop_map(
            |(held, ms, busy, cost)| Standing {
                held: (held == 0).then_some(Held::Unhealthy(3)),
                latency: ms.map(Duration::from_millis),
                busy,
                cost,
            },
        )
    }

    fn any_candidate() -> impl Strategies<Value = String> {
        (0_u32..3, 0_u32..4, 0_usize..3, 0_usize..4, 0_usize..3, 0_u32..3).prop_map(
            |(tier, weight, reach, links, lacks, most)| {
                let reach = ["box", "site", "cloud"][reach];
                let links = ["['up']", "['up', 'metered']", "['metered', 'down']", "['up', 'metered', 'down']"][links];
                let lacks = ["[]", "['images']", "['tools', 'images']"][lacks];
                let most = if most == 0 { String::new() } else { format!("requests_max = {most}\n") };
                format!("tier = {tier}\nweight = {weight}\nreach = '{reach}'\nlinks = {links}\nlacks = {lacks}\n{most}")
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

        /// Whatever the routes and the standings: everybody is considered once, nobody is asked who must not be, nobody is
        /// left out without a reason that is true, tiers go up, and the same arguments give the same plan.
        #[test]
        fn a_plan_is_complete_lawful_and_the_same_again(
            candidates in prop::collection::vec((any_candidate(), any_standing()), 1..12),
            strategy in prop::sample::select(vec!["priority", "weights", "latency", "cost", "busy"]),
            reach in prop::sample::select(vec![Reach::Box, Reach::Site, Reach::Cloud]),
            link in prop::sample::select(vec![Link::Up, Link::Metered, Link::Down]),
            images: bool, sticky in prop::option::of(any::<[u8; 4]>()), chance: u64,
        ) {
            let text: String = candidates.iter().enumerate()
                .map(|(at, (candidate, _))| format!("[[candidate]]\nprovider = 'p{at}'\n{candidate}")).collect();
            let routes = routes(&format!("name = 'r'\nmodels = ['gpt-4o']\nstrategy = '{strategy}'\n{text}"));
            let standings: Vec<_> = candidates.iter().map(|(_, standing)| *standing).collect();
            let needs = crate::route::Needs::NONE.and(Need::Images, images);
            let ask = Ask { reach, link, needs, sticky: sticky.as_ref().map(|key| &key[..]), chance, ..chat() };
            let plan = decide(&routes, &ask, &standings);
            let again = decide(&routes, &ask, &standings);
            prop_assert_eq!(plan.considered(), again.considered());
            let mut all: Vec<_> = plan.considered().iter().map(|one| one.candidate).collect();
            all.sort_unstable();
            prop_assert_eq!(all, (0..candidates.len()).collect::<Vec<_>>());
            let made = plan.route().candidates();
            let mut tier = 0;
            for (at, one) in plan.considered().iter().enumerate() {
                let (candidate, standing) = (&made[one.candidate], &standings[one.candidate]);
                let may = candidate.reach <= reach
                    && candidate.links[link as usize]
                    && !(images && candidate.lacks.has(Need::Images))
                    && standing.held.is_none()
                    && candidate.requests_max.is_none_or(|most| standing.busy < most);
                prop_assert_eq!(may, at < plan.len(), "{:?}", one);
                prop_assert_eq!(may, matches!(one.verdict, Verdict::Asked(_)));
                if may {
                    prop_assert!(candidate.tier >= tier);
                    tier = candidate.tier;
                }
            }
            prop_assert!(plan.explanation().len() <= EXPLANATION_MAX);
        }

        /// The first of a plan by weights has the share that `choose` gives it.
        #[test]
        fn shares_are_those_of_the_weights(weights in prop::collection::vec(1_u32..100, 2..6)) {
            let text: String = weights.iter().enumerate()
                .map(|(at, weight)| format!("[[candidate]]\nprovider = 'p{at}'\nweight = {weight}\n")).collect();
            let routes = routes(&format!("name = 'r'\nmodels = ['gpt-4o']\nstrategy = 'weights'\n{text}"));
            let (draws, mut counts) = (3000_u64, vec![0_u32; weights.len()]);
            for chance in 0..draws {
                // Numbers next to each other are no worse than random ones.
                counts[order(&decide(&routes, &Ask { chance, ..chat() }, &[]))[0]] += 1;
            }
            let sum: u32 = weights.iter().sum();
            for (count, weight) in counts.iter().zip(&weights) {
                let share = f64::from(*weight) / f64::from(sum);
                let expected = draws as f64 * share;
                let bound = 6.0 * (expected * (1.0 - share)).sqrt() + 1.0;
                prop_assert!((f64::from(*count) - expected).abs() <= bound, "{} of {}, expected {}", count, draws, expected);
            }
        }
    }
}
