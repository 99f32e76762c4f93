//! Pipelines under traffic: steps whose models have several versions, and pipelines that have several themselves.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forebay::base::ManualClock;
use forebay::flows::inference::{Bearings, InferError, Inferred};
use forebay::flows::traffic::VersionTraffic;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::pipelines_fixture::{PLAIN, Plant, ROWS, asks, question, write};

const ROW: &[[f32; 3]] = &[[1.0, 2.0, 4.0]];

fn model(folder: &Path, name: &str, version: u32, does: &str) {
    write(folder, name, version, "scribe", does, &format!("{ROWS}{PLAIN}"));
}

/// A pipeline whose one step asks `member`.
fn over(folder: &Path, name: &str, version: u32, member: &str) {
    let steps = asks("only", member, "x") + "[output]\np = \"only.p\"\n";
    write(folder, name, version, "pipeline", &steps, ROWS);
}

/// Everything to version 2, and 1 stands in.
fn second(name: &str) -> String {
    format!(
        "[models.{name}.traffic]\nsplit = {{ 2 = 1 }}\nfallback = [\"1\"]\nbreaker = {{ failures = 2, open_ms = 60000 }}\n"
    )
}

fn numbers(answer: &Inferred) -> Vec<f64> {
    answer.outputs[0].tensor.to_numbers().unwrap()
}

fn version(plant: &Plant, model: &str, version: u32) -> VersionTraffic {
    let view = plant.repository.traffic(model).unwrap();
    view.versions.into_iter().find(|of| of.version == version).unwrap()
}

fn passed_over(of: &VersionTraffic) -> Value {
    serde_json::to_value(&of.counts.passed_over).unwrap()
}

#[tokio::test]
async fn a_step_goes_to_the_versions_of_its_model_and_says_which_one_stood_in() {
    let folder = tempfile::tempdir().unwrap();
    model(folder.path(), "part", 1, "scale 3");
    model(folder.path(), "part", 2, "fail");
    model(folder.path(), "part", 3, "scale 9");
    over(folder.path(), "page", 1, "part");
    let plant = Plant::configured(folder, &second("part"));
    for _ in 0..3 {
        let answer = plant.ask("page", ROW).await.unwrap();
        assert_eq!(numbers(&answer), [3.0, 6.0, 12.0]);
        assert_eq!(answer.steps[0].model.as_deref(), Some("part/1"));
        let why = answer.steps[0].fallback.as_deref().expect("the step says why");
        assert!(why.starts_with("version 2: "), "{why}");
        assert_eq!(answer.fallback.as_deref(), Some(format!("step only: {why}").as_str()), "and the pipeline does");
    }
    assert_eq!(version(&plant, "part", 2).breaker.state, "open");
    assert_eq!(passed_over(&version(&plant, "part", 2)), json!({ "failed": 2, "breaker": 1 }));
    let asked: Vec<String> = plant.runs().into_iter().map(|(model, _)| model).collect();
    assert_eq!(asked, ["part/2", "part/1", "part/2", "part/1", "part/1"], "who has no share is not asked");
    let served = plant.inference.served(Some("page"), None).unwrap();
    assert_eq!(served[0].steps[0].counts.fallbacks, 3);
}

/// `part` half and half, `page` asks it twice, `book` asks `page` and `part`.
fn nested(folder: &Path) {
    model(folder, "part", 1, "scale 3");
    model(folder, "part", 2, "scale 9");
    let twice = asks("a", "part", "x") + &asks("b", "part", "a.p") + "[output]\np = \"b.p\"\n";
    write(folder, "page", 1, "pipeline", &twice, ROWS);
    let both = asks("inner", "page", "x") + &asks("own", "part", "inner.p") + "[output]\np = \"own.p\"\n";
    write(folder, "book", 1, "pipeline", &both, ROWS);
}

/// The version of `part` that every step of this answer came to.
fn one_part(answer: &Inferred) -> String {
    let parts: BTreeSet<_> = answer.steps.iter().filter_map(|step| step.model.clone()).collect();
    let mut parts = parts.into_iter().filter(|model| model.starts_with("part/"));
    let part = parts.next().unwrap();
    assert_eq!((parts.next(), answer.steps.len()), (None, 4), "{:?}", answer.steps);
    part
}

#[tokio::test]
async fn one_requests_steps_and_one_users_requests_come_to_one_version() {
    let folder = tempfile::tempdir().unwrap();
    nested(folder.path());
    let plant = Plant::configured(folder, "[models.part.traffic]\nsplit = { 1 = 1, 2 = 1 }\nsticky_key = \"x-line\"\n");
    let mut seen = BTreeSet::new();
    for user in 0..24 {
        let user = format!("user-{user}");
        let header = |name: &str| (name == "x-line").then_some(user.as_str());
        let key = plant.inference.key(&Bearings { header: Some(&header), ..Bearings::default() });
        let first = one_part(&plant.inference.infer_for(question("book", ROW), &key).await.unwrap());
        let alone = plant.inference.infer_for(question("part", ROW), &key).await.unwrap();
        assert_eq!(first, format!("part/{}", alone.version), "{user}: asked by itself it is the same one");
        seen.insert(first);
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["part/1", "part/2"]);
    // Without a key it is chance, the same for all of a request.
    let mut seen = BTreeSet::new();
    for _ in 0..24 {
        seen.insert(one_part(&plant.ask("book", ROW).await.unwrap()));
    }
    assert_eq!(seen.len(), 2);
}

#[tokio::test]
async fn a_step_that_names_a_version_gets_it_whatever_the_split_says() {
    let folder = tempfile::tempdir().unwrap();
    model(folder.path(), "part", 1, "scale 3");
    model(folder.path(), "part", 2, "scale 9");
    over(folder.path(), "page", 1, "part@old");
    let plant =
        Plant::configured(folder, "[models.part]\naliases = { old = 1 }\n[models.part.traffic]\nsplit = { 2 = 1 }\n");
    for _ in 0..4 {
        assert_eq!(numbers(&plant.ask("page", ROW).await.unwrap()), [3.0, 6.0, 12.0]);
    }
}

#[tokio::test]
async fn a_pipeline_serves_while_one_version_of_its_model_does() {
    let folder = tempfile::tempdir().unwrap();
    model(folder.path(), "part", 1, "scale 3");
    // Does not even load.
    write(folder.path(), "part", 2, "scribe", "scale 9", &format!("{ROWS}{PLAIN}memory_bytes = 1125899906842624\n"));
    over(folder.path(), "page", 1, "part");
    let plant = Plant::configured(folder, &second("part"));
    let answer = plant.ask("page", ROW).await.unwrap();
    assert_eq!((numbers(&answer), answer.steps[0].model.as_deref()), (vec![3.0, 6.0, 12.0], Some("part/1")));
    plant.repository.unload("part").await.unwrap();
    let problem = plant.problem("page");
    assert!(problem.starts_with("step only: model part/2 does not serve: "), "{problem}");
    assert!(matches!(plant.ask("page", ROW).await, Err(InferError::NotServing { .. })));
}

#[tokio::test]
async fn a_pipelines_version_gives_way_where_its_model_is_gone_and_opens_its_breaker_where_a_step_fails() {
    let folder = tempfile::tempdir().unwrap();
    model(folder.path(), "old", 1, "scale 3");
    model(folder.path(), "new", 1, "scale 9");
    over(folder.path(), "page", 1, "old");
    over(folder.path(), "page", 2, "new");
    let at = folder.path().to_owned();
    let plant = Plant::configured(folder, &second("page"));
    let answer = plant.ask("page", ROW).await.unwrap();
    assert_eq!((answer.version, answer.fallback.as_deref()), (2, None));
    assert_eq!(numbers(&answer), [9.0, 18.0, 36.0]);

    plant.repository.unload("new").await.unwrap();
    for _ in 0..3 {
        let answer = plant.ask("page", ROW).await.unwrap();
        assert_eq!((answer.version, numbers(&answer)), (1, vec![3.0, 6.0, 12.0]));
        assert_eq!(answer.steps[0].model.as_deref(), Some("old/1"));
        let why = answer.fallback.unwrap();
        assert!(why.starts_with("version 2: ") && why.contains("model new/1 does not serve: it was unloaded"), "{why}");
    }
    let second = version(&plant, "page", 2);
    assert_eq!((second.breaker.state, passed_over(&second)), ("closed", json!({ "not_serving": 3 })));
    let target = plant.repository.traffic("page").unwrap().split.into_iter().find(|target| target.weight > 0).unwrap();
    assert!(target.problem.unwrap().contains("it was unloaded"));

    model(&at, "new", 1, "fail");
    plant.repository.load("new").await.unwrap();
    for _ in 0..3 {
        assert_eq!(plant.ask("page", ROW).await.unwrap().version, 1);
    }
    let second = version(&plant, "page", 2);
    assert_eq!(second.breaker.state, "open");
    assert_eq!(passed_over(&second), json!({ "not_serving": 3, "failed": 2, "breaker": 1 }));
    assert_eq!(version(&plant, "page", 1).counts.stood_in, 6);
}

#[tokio::test]
async fn what_a_step_refuses_goes_to_no_other_version() {
    let folder = tempfile::tempdir().unwrap();
    model(folder.path(), "part", 1, "scale 3");
    over(folder.path(), "page", 1, "part");
    over(folder.path(), "page", 2, "part");
    let plant = Plant::configured(folder, &second("page"));
    for _ in 0..3 {
        let error = plant.ask("page", &[[f32::NAN, 0.0, 0.0]]).await.unwrap_err();
        assert!(matches!(&error, InferError::Shape { detail } if detail.starts_with("pipeline page/2: ")), "{error:?}");
    }
    let second = version(&plant, "page", 2);
    assert_eq!((second.breaker.state, passed_over(&second)), ("closed", json!({})));
    assert!(plant.runs().is_empty());
}

#[tokio::test]
async fn a_way_back_through_a_version_with_a_small_share_is_a_circle() {
    let folder = tempfile::tempdir().unwrap();
    model(folder.path(), "part", 1, "scale 3");
    over(folder.path(), "part", 2, "page");
    over(folder.path(), "page", 1, "part");
    let plant = Plant::configured(folder, "[models.part.traffic]\nsplit = { 1 = 99, 2 = 1 }\n");
    assert!(plant.problem("page").contains("in a circle: page -> part -> page"), "{}", plant.problem("page"));
    let error = plant.ask("page", ROW).await.unwrap_err();
    assert!(error.to_string().contains("in a circle"), "{error}");
    assert_eq!(numbers(&plant.ask("part@1", ROW).await.unwrap()), [3.0, 6.0, 12.0], "what does not lead back serves");
}

#[tokio::test]
async fn a_pipeline_whose_models_versions_are_all_unheard_of_says_which_they_are() {
    let folder = tempfile::tempdir().unwrap();
    model(folder.path(), "part", 1, "scale 3");
    over(folder.path(), "page", 1, "part");
    let plant = Plant::configured(folder, "[models.part.traffic]\nsplit = { 7 = 1 }\nfallback = [\"beta\"]\n");
    let says = "none of those is there that its requests are spread over: 7, beta";
    assert!(plant.problem("page").contains(says), "{}", plant.problem("page"));
    assert!(matches!(plant.ask("page", ROW).await, Err(InferError::NotServing { .. })));
}

#[tokio::test]
async fn a_copy_for_a_pipeline_is_compared_and_counted_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    model(folder.path(), "old", 1, "scale 3");
    let lazy = format!("{ROWS}{PLAIN}load = \"request\"\n");
    write(folder.path(), "new", 1, "scribe", "scale 4", &lazy);
    over(folder.path(), "page", 1, "old");
    over(folder.path(), "page", 2, "new");
    let plant =
        Plant::configured(folder, "[models.page.traffic]\nsplit = { 1 = 1 }\nshadow = { to = \"2\", percent = 100 }\n");
    let stop = CancellationToken::new();
    let shadow = tokio::spawn(Arc::clone(&plant.inference).shadow(stop.clone()));
    assert_eq!(numbers(&plant.ask("page", ROW).await.unwrap()), [3.0, 6.0, 12.0]);
    let seen = || version(&plant, "page", 2).counts.shadow.filter(|shadow| shadow.differed + shadow.failed > 0);
    while seen().is_none() {
        tokio::task::yield_now().await;
    }
    let seen = seen().unwrap();
    assert_eq!((seen.differed, seen.failed, seen.largest_difference), (1, 0, 4.0), "{seen:?}");
    for (model, of) in [("page", 2), ("new", 1)] {
        let served = plant.inference.served(Some(model), Some(of)).unwrap();
        assert_eq!(served[0].counts.success.count + served[0].counts.fail.count, 0, "{model}");
        assert!(served[0].steps.iter().all(|step| step.counts.success.count == 0), "{model}");
    }
    stop.cancel();
    shadow.await.unwrap();
}

#[tokio::test]
async fn a_step_tries_a_model_again_that_could_not_be_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let lazy = format!("{ROWS}{PLAIN}load = \"request\"\n");
    write(folder.path(), "part", 1, "scribe", "scale 3", &lazy);
    over(folder.path(), "page", 1, "part");
    let file = folder.path().join("part/1/file");
    let clock = Arc::new(ManualClock::at(0));
    let plant = Plant::timed(folder, "", Arc::clone(&clock) as _);
    // Its file is not any more what its manifest says.
    std::fs::write(&file, "scale 7").unwrap();
    let error = plant.ask("page", ROW).await.unwrap_err().to_string();
    assert!(error.contains("; the first request in 5 s or later tries again"), "{error}");
    assert!(plant.problem("page").contains("in 5 s or later"), "{}", plant.problem("page"));
    std::fs::write(&file, "scale 3").unwrap();
    assert!(plant.ask("page", ROW).await.is_err(), "not yet");
    clock.advance(Duration::from_secs(5));
    assert!(plant.problem("page").contains("the next request tries again"), "{}", plant.problem("page"));
    assert_eq!(numbers(&plant.ask("page", ROW).await.unwrap()), [3.0, 6.0, 12.0]);
    assert!(plant.view("page").serving);
}
