//! Requests spread over a model's versions: shares, stickiness, fallback, breakers and shadows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use forebay::base::Tensor;
use forebay::flows::inference::{InferError, NamedTensor, Question};
use forebay::flows::repository::RepositoryError;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::traffic_fixture::{CANARY, Plant, Way, ask, versions};

const SPLIT: &str = "[models.press.traffic]\nsplit = { prod = 90, canary = 10 }\n";

#[tokio::test]
async fn versions_get_their_shares_and_a_user_the_same_version_also_after_a_restart() {
    let plant = Plant::new(SPLIT);
    let mut chosen = Vec::new();
    for user in 0..400 {
        chosen.push(plant.answers_user(user).await);
    }
    let canary = chosen.iter().filter(|version| **version == 2).count();
    // 40 of 400, within four standard deviations; the hash is the same everywhere, so this is no chance.
    assert!((16..=64).contains(&canary), "{canary}");
    assert_eq!((plant.version(1).counts.chosen, plant.version(2).counts.chosen), (400 - canary as u64, canary as u64));
    let plant = plant.restarted(SPLIT);
    for user in 0..400 {
        assert_eq!(plant.answers_user(user).await, chosen[user as usize], "user {user}");
    }
    // Promoting the canary moves nobody between names, and a heavier one only takes users.
    plant.set(json!({ "split": { "prod": 50, "canary": 50 } })).await.unwrap();
    let mut moved = 0;
    for user in 0..400 {
        let now = plant.answers_user(user).await;
        assert!(now == chosen[user as usize] || now == 2, "user {user} left the canary");
        moved += usize::from(now != chosen[user as usize]);
    }
    assert!((100..220).contains(&moved), "{moved}");
    // Without a key it is chance, which has a seed here.
    let mut canary = 0;
    for _ in 0..400 {
        canary += usize::from(plant.answers().await == 2);
    }
    assert!((140..=260).contains(&canary), "{canary}");
}

#[tokio::test]
async fn who_names_a_version_gets_it_and_nobody_else_whatever_its_breaker_says() {
    let plant = Plant::new(&format!("{CANARY}breaker = {{ failures = 2 }}\n"));
    plant.stage.plays("press/2", Way::Fails);
    for (model, version) in [("press", Some(2)), ("press@canary", None), ("press", Some(2)), ("press@canary", None)] {
        let error = ask(&plant.inference, model, version, None).await.unwrap_err();
        assert!(matches!(&error, InferError::Failed { detail } if !detail.contains("nobody else")), "{error}");
    }
    assert_eq!((plant.version(2).breaker.state, plant.stage.runs("press/2")), ("open", 4), "each was asked");
    plant.stage.plays("press/2", Way::Adds(0.0));
    assert_eq!(ask(&plant.inference, "press", Some(2), None).await.unwrap().version, 2);
    assert_eq!(ask(&plant.inference, "press", Some(3), None).await.unwrap().version, 3, "not in the split");
    let answer = plant.ask().await.unwrap();
    assert_eq!(answer.version, 1, "the split's requests wait for the breaker");
    assert!(answer.fallback.unwrap().contains("version 2 (canary): its breaker is open"));
    assert_eq!(plant.passed_over(2), json!({ "breaker": 1 }));
}

#[tokio::test]
async fn a_version_that_fails_is_replaced_left_alone_and_asked_again_when_it_is_well() {
    let plant = Plant::new(&format!("{CANARY}breaker = {{ failures = 3, open_ms = 10000, probes = 2 }}\n"));
    for way in [Way::Fails, Way::Panics, Way::Adds(f32::NAN)] {
        plant.stage.plays("press/2", way);
        let answer = plant.ask().await.unwrap();
        assert_eq!(answer.version, 1);
        let why = answer.fallback.expect("it is said why");
        assert!(why.starts_with("version 2 (canary): "), "{why}");
    }
    assert_eq!((plant.stage.runs("press/2"), plant.version(2).breaker.state), (3, "open"));
    for _ in 0..5 {
        assert_eq!(plant.answers().await, 1);
    }
    assert_eq!(plant.stage.runs("press/2"), 3, "an open breaker costs nobody time");
    assert_eq!(plant.passed_over(2), json!({ "breaker": 5, "failed": 3 }));
    assert_eq!(plant.version(1).counts.stood_in, 8);
    // Tried by one, which fails: left alone for longer.
    plant.clock.advance(Duration::from_secs(10));
    assert_eq!((plant.version(2).breaker.state, plant.answers().await), ("half_open", 1));
    assert_eq!((plant.stage.runs("press/2"), plant.version(2).breaker.opened), (4, 2));
    let view = plant.models.views().into_iter().find(|view| view.version == 2).unwrap();
    assert_eq!(view.breaker.unwrap().reason.unwrap(), "the request that tried it again failed");
    plant.clock.advance(Duration::from_secs(9));
    assert_eq!(plant.answers().await, 1);
    plant.stage.plays("press/2", Way::Adds(0.0));
    plant.clock.advance(Duration::from_secs(11));
    // Two answers, one at a time, close it.
    assert_eq!((plant.answers().await, plant.version(2).breaker.state), (2, "half_open"));
    let answer = plant.ask().await.unwrap();
    assert_eq!((answer.version, answer.fallback, plant.version(2).breaker.state), (2, None, "closed"));
}

#[tokio::test]
async fn while_one_request_tries_a_version_the_others_go_elsewhere() {
    let plant = Plant::new(&format!("{CANARY}breaker = {{ failures = 1, probes = 1 }}\n"));
    plant.stage.plays("press/2", Way::Fails);
    plant.answers().await;
    plant.clock.advance(Duration::from_secs(5));
    let gate = plant.waits("press/2");
    let inference = Arc::clone(&plant.inference);
    let probe = tokio::spawn(async move { ask(&inference, "press", None, None).await.unwrap().version });
    let waiting = gate.clone();
    tokio::task::spawn_blocking(move || waiting.wait_for_request()).await.unwrap();
    let answer = plant.ask().await.unwrap();
    assert!(answer.version == 1 && answer.fallback.unwrap().contains("another request tries it"));
    // A prober who leaves lets the next one try.
    probe.abort();
    assert!(probe.await.is_err());
    gate.open(2);
    assert_eq!((plant.answers().await, plant.version(2).breaker.state), (2, "closed"));
}

#[tokio::test]
async fn a_slow_version_gives_its_request_away_and_what_it_has_not_begun_is_never_computed() {
    let plant = Plant::in_folder(
        versions("concurrency_max = 1\n"),
        &format!("{CANARY}slow_ms = 20\nbreaker = {{ failures = 3 }}\n"),
    );
    let gate = plant.waits("press/2");
    for _ in 0..3 {
        let answer = plant.ask().await.unwrap();
        assert_eq!(answer.version, 1);
        let why = answer.fallback.unwrap();
        assert!(why.contains("version 2 (canary): no answer within 20 ms"), "{why}");
    }
    assert_eq!((plant.passed_over(2), plant.version(2).breaker.state), (json!({ "slow": 3 }), "open"));
    gate.open(100);
    plant.stage.plays("press/2", Way::Adds(0.0));
    // One at a time: when this one was computed, those before it would have been.
    assert_eq!(ask(&plant.inference, "press", Some(2), None).await.unwrap().version, 2);
    assert_eq!(plant.stage.runs("press/2"), 2, "the first, which had begun, and this one");
}

#[tokio::test]
async fn the_last_one_that_can_be_asked_may_take_the_callers_time() {
    let plant = Plant::new(&format!("{CANARY}slow_ms = 20\nbreaker = {{ failures = 1 }}\n"));
    let gate = plant.waits("press/1");
    plant.stage.plays("press/2", Way::Fails);
    let inference = Arc::clone(&plant.inference);
    let asked = tokio::spawn(async move { ask(&inference, "press", None, None).await.unwrap().version });
    let waiting = gate.clone();
    tokio::task::spawn_blocking(move || waiting.wait_for_request()).await.unwrap();
    // Its time is over by far, on the clock that judges it.
    plant.clock.advance(Duration::from_secs(1));
    gate.open(1);
    assert_eq!(asked.await.unwrap(), 1);
    assert_eq!(plant.version(1).breaker.state, "open", "an answer, and a slow one");
    // Now nobody can be asked at once, and that is said.
    let error = plant.ask().await.unwrap_err();
    assert!(matches!(error, InferError::NotServing { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("version 2 (canary): its breaker") && text.contains("version 1 (prod): its breaker"),
        "{text}"
    );
}

#[tokio::test]
async fn when_everybody_fails_the_caller_hears_of_each() {
    let plant = Plant::new(SPLIT);
    plant.stage.plays("press/1", Way::Fails);
    plant.stage.plays("press/2", Way::Panics);
    let error = plant.ask().await.unwrap_err();
    let InferError::Failed { detail } = &error else { panic!("{error}") };
    for says in ["version 1 (prod): failed to run the model", "version 2 (canary): failed to run the model", "panicked"]
    {
        assert!(detail.contains(says), "{detail}");
    }
    assert!(matches!(ask(&plant.inference, "drill", None, None).await, Err(InferError::NoModel(_))));
    // A target that is not there any more passes its share on, and says so at the start.
    let plant = Plant::new(
        "[models.press.traffic]\nsplit = { gone = 99, 9 = 99, prod = 1 }\n[models.drill.traffic]\nsplit = { 1 = 1, 2 = 1 }\n",
    );
    let error = ask(&plant.inference, "drill", None, None).await.unwrap_err();
    assert!(matches!(&error, InferError::NoModel(name) if name == "drill"), "{error}");
    for _ in 0..20 {
        assert_eq!(plant.answers().await, 1);
    }
    let problems = plant.models.problems().join("\n");
    assert!(
        problems.contains("traffic of press to gone: ") && problems.contains("traffic of press to 9: "),
        "{problems}"
    );
}

#[tokio::test]
async fn a_callers_mistake_goes_to_nobody_else_and_breaks_nothing() {
    let plant = Plant::new(&format!(
        "{CANARY}slow_ms = 60000\nbreaker = {{ failures = 1, failure_percent = 1, requests_min = 1 }}\n"
    ));
    let ask = |name: &str, tensor: Tensor, outputs: &[&str], deadline_us: u64| {
        let wanted = |name: &&str| forebay::flows::inference::Wanted { name: (*name).to_owned(), classes: None };
        let question = Question {
            model: "press".to_owned(),
            version: None,
            inputs: vec![NamedTensor { name: name.to_owned(), tensor }],
            outputs: outputs.iter().map(wanted).collect(),
            deadline: Duration::from_micros(deadline_us),
            priority: 0,
        };
        plant.inference.infer(question)
    };
    let row = |values: [f32; 2]| Tensor::new([1, 2], values.to_vec()).unwrap();
    const LONG: u64 = 30_000_000;
    for (name, tensor, outputs) in [
        ("z", row([1.0, 2.0]), &[][..]),
        ("x", Tensor::new([1, 3], vec![1.0_f32; 3]).unwrap(), &[]),
        ("x", Tensor::new([1, 2], vec![1_i64; 2]).unwrap(), &[]),
        ("x", row([f32::NAN, 1.0]), &[]),
        ("x", row([1.0, 2.0]), &["absent"]),
    ] {
        let error = ask(name, tensor, outputs, LONG).await.unwrap_err();
        assert!(matches!(error, InferError::Shape { .. }), "{error}");
    }
    // Nor does one who has no time.
    let gate = plant.waits("press/2");
    let error = ask("x", row([1.0, 2.0]), &[], 1000).await.unwrap_err();
    assert!(matches!(error, InferError::Deadline { .. }), "{error}");
    gate.open(100);
    let (canary, prod) = (plant.version(2), plant.version(1));
    assert_eq!((canary.counts.chosen, canary.breaker.state, canary.breaker.failed), (6, "closed", 0));
    assert_eq!((plant.passed_over(2), plant.stage.runs("press/1"), prod.counts.stood_in), (json!({}), 0, 0));
}

#[tokio::test]
async fn a_version_that_is_not_loaded_or_away_is_passed_over() {
    let plant = Plant::new(&format!("{CANARY}[models.press.serving]\nload = \"start\"\n"));
    std::fs::remove_dir_all(plant.folder.path().join("models/press/2")).unwrap();
    plant.repository.load("press").await.unwrap();
    let answer = plant.ask().await.unwrap();
    assert!(answer.version == 1 && answer.fallback.unwrap().contains("canary: no model \"press/2\""));
    let view = plant.repository.traffic("press").unwrap();
    let canary = view.split.iter().find(|target| target.to == "canary").unwrap();
    assert!(canary.version.is_none() && canary.problem.is_some() && canary.share == 1.0);
    // What the model is, to who names no version, is what answers.
    assert_eq!(plant.inference.metadata("press", None).unwrap().versions, [1, 3]);
    plant.repository.unload("press").await.unwrap();
    assert!(matches!(plant.ask().await, Err(InferError::NotServing { reason }) if reason.contains("unloaded")));
}

/// Waits without a clock for what other tasks do.
#[tokio::test]
async fn a_model_that_could_not_be_loaded_on_request_is_tried_again_after_pauses_that_grow_to_a_bound() {
    let plant = Plant::in_folder(versions("load = \"request\"\n"), "");
    let ask = async |version| ask(&plant.inference, "press", Some(version), None).await;
    plant.stage.refuses("press/3", true);
    let mut pauses = Vec::new();
    for tries in 1..=10 {
        let error = ask(3).await.unwrap_err().to_string();
        assert_eq!(plant.stage.loads("press/3"), tries);
        let (why, when) = error.split_once("; the first request in ").unwrap_or_else(|| panic!("{error}"));
        assert!(why.contains("not today"), "{why}");
        let pause: u64 = when.split_once(' ').unwrap().0.parse().unwrap();
        plant.clock.advance(Duration::from_secs(pause) - Duration::from_millis(1));
        let error = ask(3).await.unwrap_err().to_string();
        assert!(error.ends_with("; the first request in 1 s or later tries again"), "{error}");
        assert_eq!(plant.stage.loads("press/3"), tries, "nobody tries before");
        plant.clock.advance(Duration::from_millis(1));
        pauses.push(pause);
    }
    assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 600, 600, 600]);
    // Who names no version gets one that does not have to be tried.
    let view = plant.models.views().into_iter().find(|view| view.version == 3).unwrap();
    assert_eq!((view.serving, view.state), (false, "refused"));
    let problem = view.problem.unwrap();
    assert!(problem.contains("not today") && problem.ends_with("; the next request tries again"), "{problem}");
    assert_eq!((plant.answers().await, plant.stage.loads("press/3")), (2, 10));
    // When it works it is as if it had never failed.
    plant.stage.refuses("press/3", false);
    assert_eq!(ask(3).await.unwrap().version, 3);
    assert_eq!(plant.answers().await, 3);
}

#[tokio::test]
async fn one_of_many_requests_tries_a_model_again_and_all_get_what_comes_of_it() {
    let plant = Plant::in_folder(versions("load = \"request\"\n"), "");
    plant.stage.refuses("press/3", true);
    let asks = || futures_util::future::join_all((0..16).map(|_| ask(&plant.inference, "press", Some(3), None)));
    assert!(asks().await.iter().all(Result::is_err));
    assert_eq!(plant.stage.loads("press/3"), 1);
    plant.stage.refuses("press/3", false);
    plant.clock.advance(Duration::from_secs(5));
    assert!(asks().await.iter().all(Result::is_ok));
    assert_eq!(plant.stage.loads("press/3"), 2);
}

async fn until(what: impl Fn() -> bool) {
    while !what() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_shadow_that_never_answers_delays_and_fails_nobody_and_what_it_would_say_is_compared() {
    let plant =
        Plant::new("[models.press.traffic]\nsplit = { prod = 1 }\nshadow = { to = \"canary\", tolerance = 0.5 }\n")
            .with_shadows();
    let gate = plant.waits("press/2");
    // One copy stands at the gate on one of two threads; others wait, and those beyond the bound go.
    for _ in 0..200 {
        let answer = plant.ask().await.unwrap();
        assert_eq!((answer.version, answer.fallback), (1, None));
    }
    until(|| plant.version(2).counts.shadow.is_some_and(|shadow| shadow.dropped > 0)).await;
    let shadow = plant.version(2).counts.shadow.unwrap();
    assert!(shadow.dropped >= 200 - 64 - 1 && shadow.matched + shadow.failed == 0, "{shadow:?}");
    gate.open(1 << 32);
    let all = |plant: &Plant| {
        let shadow = plant.version(2).counts.shadow.unwrap();
        shadow.matched + shadow.differed + shadow.failed + shadow.dropped
    };
    until(|| all(&plant) == 200).await;
    let before = plant.version(2).counts.shadow.unwrap();
    assert_eq!((before.differed, before.failed), (0, 0), "{before:?}");
    for (way, differed, failed) in
        [(Way::Adds(0.25), 0, 0), (Way::Adds(2.0), 1, 0), (Way::Fails, 1, 1), (Way::Panics, 1, 2)]
    {
        plant.stage.plays("press/2", way);
        let seen = all(&plant);
        assert_eq!(plant.answers().await, 1);
        until(|| all(&plant) == seen + 1).await;
        let shadow = plant.version(2).counts.shadow.unwrap();
        assert_eq!((shadow.differed, shadow.failed), (differed, failed));
    }
    let canary = plant.version(2);
    let shadow = canary.counts.shadow.unwrap();
    assert_eq!((shadow.matched, shadow.largest_difference), (before.matched + 1, 2.0));
    assert_eq!(shadow.last_difference.unwrap(), "output y: element 0: expected 2, given 4");
    assert!(shadow.last_failure.unwrap().contains("panicked"));
    // Copies are nobody's requests.
    assert_eq!((canary.answered, canary.failed, canary.counts.chosen, canary.breaker.requests), (0, 0, 0, 0));
    assert_eq!(plant.version(1).answered, 204);
    // None of itself, and none of who names a version.
    let seen = all(&plant);
    ask(&plant.inference, "press", Some(1), None).await.unwrap();
    plant.set(json!({ "split": { "canary": 1 } })).await.unwrap();
    plant.stage.plays("press/2", Way::Adds(0.0));
    assert_eq!((plant.answers().await, all(&plant)), (2, seen));
    plant.set(json!({ "shadow": { "to": "3", "percent": 0 } })).await.unwrap();
    assert_eq!((plant.answers().await, plant.version(3).counts.shadow), (1, None));
}

#[tokio::test]
async fn a_share_of_the_requests_is_copied() {
    let plant =
        Plant::new("[models.press.traffic]\nsplit = { prod = 1 }\nshadow = { to = \"canary\", percent = 25 }\n")
            .with_shadows();
    for _ in 0..400 {
        plant.answers().await;
    }
    let copies = || plant.version(2).counts.shadow.map_or(0, |shadow| shadow.matched + shadow.dropped);
    until(|| copies() >= 60).await;
    assert!(copies() <= 140, "{}", copies());
}

#[tokio::test]
async fn weights_change_while_requests_come_and_stay_changed_after_a_restart() {
    let plant = Plant::new(SPLIT);
    let stop = CancellationToken::new();
    let askers: Vec<_> = (0..4)
        .map(|user: u32| {
            let (inference, stop) = (Arc::clone(&plant.inference), stop.clone());
            tokio::spawn(async move {
                let (mut seen, key) = (BTreeMap::<u32, u64>::new(), format!("user-{user}"));
                while !stop.is_cancelled() {
                    let key = if user == 0 { None } else { Some(key.as_str()) };
                    let answer = ask(&inference, "press", None, key).await.unwrap();
                    assert_eq!(answer.fallback, None);
                    *seen.entry(answer.version).or_default() += 1;
                }
                seen
            })
        })
        .collect();
    for round in 0..60 {
        let (prod, canary) = if round % 2 == 0 { (1, 0) } else { (0, 1) };
        plant.set(json!({ "split": { "prod": prod, "canary": canary } })).await.unwrap();
        let chosen = |version| plant.version(version).counts.chosen;
        let (version, before) = if prod == 1 { (1, chosen(1)) } else { (2, chosen(2)) };
        until(|| chosen(version) > before + 4).await;
    }
    stop.cancel();
    for asker in askers {
        let seen = asker.await.unwrap();
        assert_eq!(seen.keys().copied().collect::<Vec<_>>(), [1, 2]);
    }
    let plant = plant.restarted(SPLIT);
    let view = plant.repository.traffic("press").unwrap();
    let weights: Vec<_> = view.split.iter().map(|target| (target.to.as_str(), target.weight)).collect();
    assert_eq!((view.source, weights), ("set", vec![("canary", 1), ("prod", 0)]));
    assert_eq!(plant.answers().await, 2);
    plant.repository.remove_traffic("press").await.unwrap();
    assert_eq!(plant.repository.traffic("press").unwrap().source, "configuration");
    assert!(matches!(plant.repository.remove_traffic("press").await, Err(RepositoryError::NoSuch(_))));
    for (wrong, says) in [
        (json!({ "split": { "beta": 1 } }), "beta cannot get requests: model press has no such alias or version"),
        (json!({ "split": { "prod": 0 } }), "all weights are 0"),
        (json!({ "shadow": { "to": "9" } }), "9 cannot get requests"),
        (json!({}), "neither split nor shadow"),
    ] {
        let error = plant.set(wrong).await.unwrap_err();
        assert!(matches!(&error, RepositoryError::Traffic(what) if what.contains(says)), "{error}");
    }
    assert_eq!(plant.repository.traffic("press").unwrap().source, "configuration", "nothing was changed");
    // A model that nothing was said of can be split as well.
    let plant = Plant::new("");
    plant.set(json!({ "split": { "3": 1 } })).await.unwrap();
    assert_eq!(plant.answers().await, 3);
    plant.repository.set_alias("press", "default", 2).await.unwrap();
    plant.set(json!({ "split": { "default": 1 } })).await.unwrap();
    assert_eq!(plant.answers().await, 2);
}
