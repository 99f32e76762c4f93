//! CPU time of a routing decision over ten candidates, of its explanation, and of the guess at a language.
//!
//! `cargo bench --bench routes`: the best of sixty batches each, one thread.

#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::unwrap_used, missing_docs, reason = "a bench")]

use std::hint::black_box;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use forebay::route::{Ask, RouteConfig, Routes, Settings, Vitals, guess_language};

const BATCHES: u32 = 60;

/// Best time of one call.
fn best(calls: u32, mut call: impl FnMut(u64)) -> Duration {
    let batch = |batch: u32| {
        let begun = Instant::now();
        (0..calls).for_each(|at| call(u64::from(batch * calls + at)));
        begun.elapsed() / calls
    };
    (0..BATCHES).map(batch).min().unwrap()
}

fn main() {
    let text = "Wie hoch ist die Temperatur der Presse, und warum steigt sie? Bitte antworte kurz und mit Zahlen, die man prüfen kann.";
    let candidates: String = (0..10)
        .map(|at| {
            format!("[[candidate]]\nprovider = \"provider-{at}\"\nmodel = \"gpt-4o-mini\"\ncontext_tokens = 128000\n")
        })
        .collect();
    let now = Duration::from_secs(100);
    for (strategy, when) in [
        ("priority", ""),
        ("weights", ""),
        ("latency", ""),
        ("cost", ""),
        ("busy", ""),
        ("priority", "when.languages = [\"de\"]\n"),
    ] {
        let route = format!("name = \"r\"\nmodels = [\"gpt-4o\"]\nstrategy = \"{strategy}\"\n{when}{candidates}");
        let routes = Routes::new(&[toml::from_str::<RouteConfig>(&route).unwrap()]).unwrap();
        let vitals: Vec<_> = routes.targets().iter().map(|_| Mutex::new(Vitals::new(&Settings::default()))).collect();
        vitals.iter().for_each(|one| one.lock().unwrap().began(Duration::from_millis(100), now));
        let decide = |chance| {
            let ask = Ask { text, prompt_tokens: Some(500), ..Ask::new("gpt-4o", "chat", chance) };
            routes.decide(&ask, |_, candidate| vitals[candidate.place()].lock().unwrap().standing(now)).unwrap()
        };
        let decision = best(5000, |chance| drop(black_box(decide(chance))));
        let plan = decide(1);
        let explanation = best(5000, |_| drop(black_box(plan.explanation())));
        println!("{strategy:8} {when:26?} decision {decision:?}, explanation {explanation:?}");
    }
    for text in [text.to_owned(), text.repeat(20)] {
        let language = best(500, |_| {
            black_box(guess_language(black_box(&text)));
        });
        println!("language of {} bytes {language:?}", text.len());
    }
    println!("state of a target: {} bytes", size_of::<Vitals>());
}
