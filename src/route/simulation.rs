//! All parts of the room together, over minutes of made-up time: requests, targets that fail and come back, and a link.

use std::collections::HashMap;
use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::{
    Ask, Attempts, Fault, Link, LinkGate, Plan, RetryBudget, RouteConfig, Routes, Settings, Standing, Step, Vitals,
};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A gateway of which everything outside of this room is a table.
struct World {
    routes: Routes,
    vitals: Vec<Vitals>,
    budget: RetryBudget,
    rng: StdRng,
    asked: HashMap<String, u32>,
}

impl World {
    fn new(text: &str) -> Self {
        let config: RouteConfig = toml::from_str(text).unwrap();
        let budget = RetryBudget::new(&config.retries, ms(0));
        let routes = Routes::new(&[config]).unwrap();
        let vitals = routes.targets().iter().map(|_| Vitals::new(&Settings::default())).collect();
        Self { routes, vitals, budget, rng: StdRng::seed_from_u64(1), asked: HashMap::new() }
    }

    /// One request at `now`; `answer` says what a target does, and how long that takes. Who answered.
    fn request(
        &mut self,
        ask: &Ask<'_>,
        now: Duration,
        answer: impl Fn(&str) -> (Duration, Result<(), Fault>),
    ) -> Option<String> {
        let Self { routes, vitals, budget, rng, asked } = self;
        budget.pay_in(now);
        let plan: Plan<'_> = routes.decide(ask, |_, candidate| vitals[candidate.place()].standing(now)).unwrap();
        let mut attempts = Attempts::new(&plan);
        let mut step = attempts.first();
        loop {
            let Step::Ask { candidate, .. } = step else { return None };
            let candidate = &plan.route().candidates()[candidate];
            let (name, vitals) = (candidate.target().to_string(), &mut vitals[candidate.place()]);
            let Ok(leave) = vitals.begin(now) else {
                step = attempts.refused();
                continue;
            };
            *asked.entry(name.clone()).or_default() += 1;
            let (took, outcome) = answer(&name);
            match outcome {
                Ok(()) => {
                    vitals.began(took, now);
                    vitals.settle(&leave, now, rng);
                    return Some(name);
                }
                Err(fault) => {
                    vitals.fail(&leave, fault, took, now, rng);
                    step = attempts.after(fault, budget, now, rng);
                }
            }
        }
    }

    fn times_asked(&self, name: &str) -> u32 {
        self.asked.get(name).copied().unwrap_or(0)
    }
}

const PRIORITY: &str =
    "name = 'r'\nmodels = ['m']\n[[candidate]]\nprovider = 'cloud'\n[[candidate]]\nprovider = 'local'\n";

#[test]
fn everybody_is_answered_while_the_first_one_is_away_and_it_is_asked_again_when_it_is_back() {
    let mut world = World::new(PRIORITY);
    let away = |now: u64| (60_000..180_000).contains(&now);
    let mut by_cloud_after = 0;
    for now in (0..300_000).step_by(100) {
        let answered = world.request(&Ask::new("m", "chat", now), ms(now), |name| {
            let outcome = if name == "cloud/*" && away(now) { Err(Fault::Unavailable) } else { Ok(()) };
            (ms(100), outcome)
        });
        let answered = answered.expect("the local model always answers");
        assert!(now >= 60_000 || answered == "cloud/*");
        // At most two minutes of an open breaker after it is back.
        by_cloud_after += u32::from(now >= 300_000 - 10_000 && answered == "cloud/*");
    }
    assert_eq!(by_cloud_after, 100);
    let while_away = world.times_asked("local/*");
    assert!(while_away >= 1200, "{while_away} of the 1,200 requests and some until it was trusted again");
    // Five to open the breaker, then one probe for each time that it opened: 5, 10, 20, ... seconds.
    let wasted = world.times_asked("cloud/*") + while_away - 3000;
    assert!(wasted <= 5 + 8, "{wasted} requests asked somebody who was known to be away");
}

#[test]
fn one_who_says_when_to_come_back_is_not_asked_until_then() {
    let mut world = World::new(PRIORITY);
    for now in (0..60_000).step_by(100) {
        // Full for ever.
        let fault = Fault::RateLimited { retry_after: Some(ms(10_000)) };
        let answered = world.request(&Ask::new("m", "chat", now), ms(now), |name| {
            (ms(5), if name == "cloud/*" { Err(fault) } else { Ok(()) })
        });
        assert_eq!(answered.as_deref(), Some("local/*"));
    }
    assert_eq!(world.times_asked("cloud/*"), 6);
}

#[test]
fn the_quickest_gets_most_requests_and_one_who_became_quick_gets_them_back() {
    let mut world = World::new(
        "name = 'r'\nmodels = ['m']\nstrategy = 'latency'\n[[candidate]]\nprovider = 'a'\n[[candidate]]\nprovider = 'b'\n",
    );
    let mut answered_by_a = [0_u32; 2];
    for now in (0..600_000_u64).step_by(100) {
        let second_half = now >= 300_000;
        let by = world.request(&Ask::new("m", "chat", now), ms(now), |name| {
            (ms(if (name == "a/*") == second_half { 900 } else { 150 }), Ok(()))
        });
        answered_by_a[usize::from(second_half)] += u32::from(by.unwrap() == "a/*");
    }
    // Of 3,000 each. The slower one is tried again when its average has faded to the other's: every 18 s or so.
    assert!(answered_by_a[0] > 2900 && answered_by_a[1] < 100, "{answered_by_a:?}");
}

#[test]
fn a_link_that_flaps_moves_requests_few_times_and_none_is_lost() {
    let mut world = World::new(PRIORITY);
    let mut gate = LinkGate::new(Link::Up, ms(30_000));
    let (mut moves, mut last) = (0, None);
    for now in (0..1_800_000_u64).step_by(1000) {
        // Half an hour of a link that is away for five seconds every forty.
        let really = if now % 40_000 < 5_000 { Link::Down } else { Link::Up };
        let ask = Ask { link: gate.observe(really, ms(now)), ..Ask::new("m", "chat", now) };
        let answered = world.request(&ask, ms(now), |name| {
            assert!(name != "cloud/*" || really == Link::Up, "asked over a link that is down");
            (ms(50), Ok(()))
        });
        assert!(answered.is_some());
        moves += u32::from(last.is_some() && last != answered);
        last = answered;
    }
    assert!(moves <= 4, "{moves} moves for 45 interruptions");
}

#[test]
fn retries_at_a_target_that_always_fails_stay_a_share_of_the_requests() {
    let mut world = World::new(
        "name = 'r'\nmodels = ['m']\nretries = { same_candidate_max = 5, attempts_max = 6, budget_percent = 10, budget_per_s = 0 }\n\
         [[candidate]]\nprovider = 'only'\n",
    );
    // A breaker that never opens, so that only the budget holds retries back.
    let settings = Settings {
        breaker: super::BreakerSettings { failures: 0, failure_percent: 0, ..super::BreakerSettings::default() },
        ..Settings::default()
    };
    world.vitals = vec![Vitals::new(&settings)];
    for at in 0..10_000 {
        let answered = world.request(&Ask::new("m", "chat", at), ms(at), |_| (ms(1), Err(Fault::Unavailable)));
        assert_eq!(answered, None);
    }
    assert_eq!(world.times_asked("only/*"), 11_000);
}

#[test]
fn what_is_busy_is_given_back_whatever_happens() {
    let mut world = World::new(PRIORITY);
    let faults = [
        Fault::BadRequest,
        Fault::TooLong,
        Fault::ContentRefused,
        Fault::Unauthorized,
        Fault::RateLimited { retry_after: None },
        Fault::Overloaded { retry_after: Some(ms(100)) },
        Fault::Timeout,
        Fault::Malformed,
        Fault::Cut,
        Fault::Cancelled,
    ];
    for at in 0..5000_u64 {
        let fault = faults[(at % 10) as usize];
        world.request(&Ask::new("m", "chat", at), ms(at * 300), |_| {
            (ms(7), if at % 3 == 0 { Ok(()) } else { Err(fault) })
        });
    }
    for vitals in &world.vitals {
        assert_eq!(vitals.standing(ms(2_000_000)).busy, 0);
        assert_eq!(Standing { latency: None, ..vitals.standing(ms(2_000_000)) }, Standing::default());
    }
}
