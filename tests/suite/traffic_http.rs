//! Requests spread over a model's versions, over real HTTP, and what `forebay check` says of how they are.

use std::collections::BTreeSet;
use std::sync::Arc;

use forebay::base::Digest;
use serde_json::{Value, json};

use crate::gateway::forebay_says;
use crate::http_fixture::{Gateway, Setup};
use crate::traffic_fixture::{Stage, Way, put, versions};

#[test]
fn a_configuration_that_splits_wrongly_is_explained_with_its_place() {
    let folder = versions("");
    let check = |traffic: &str| {
        let config = folder.path().join("forebay.toml");
        let text = format!(
            "[gateway]\nname = \"test\"\n[access]\nallow_anonymous_loopback = true\n[store]\nstate_dir = \"{0}/state\"\n\
             [catalog]\nfolder = \"{0}/models\"\n[catalog.models.press]\naliases = {{ prod = 1, canary = 2 }}\n\
             [catalog.models.press.traffic]\n{traffic}\n",
            folder.path().display()
        );
        std::fs::write(&config, text).unwrap();
        let (code, out, err) = forebay_says(&["check", "--config", config.to_str().unwrap()]);
        (code, out + &err)
    };
    for (traffic, code, says) in [
        ("split = { prod = 9, canary = 1 }", 0, &[][..]),
        // These start all the same: an alias may be set while it runs.
        (
            "split = { prod = 9, canery = 1 }",
            0,
            &["forebay.toml:12:30", "press has no alias canery", "did you mean `canary`?"],
        ),
        ("fallback = [\"7\"]", 0, &["forebay.toml:12:1", "7 is version 7 of press, which is not there"]),
        ("split = { prod = 0 }", 1, &["forebay.toml:12:1", "catalog.models.press.traffic.split: all weights are 0"]),
        ("slow = 5", 1, &["forebay.toml:12:1: unknown field `slow`", "did you mean `slow_ms`?"]),
        ("breaker = { open_ms = 0 }", 1, &["forebay.toml:12:23", "breaker.open_ms: it is 0; expected 1 to"]),
        ("shadow = { to = \"canary\", percent = 200 }", 1, &["shadow: percent is 200"]),
        ("sticky = \"user\"", 1, &["unknown variant `user`"]),
    ] {
        let (given, said) = check(traffic);
        assert!(says.iter().all(|says| said.contains(says)), "{traffic}: {said}");
        assert_eq!(given, Some(code), "{traffic}: {said}");
    }
}

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

async fn http(catalog: &'static str) -> (Gateway, Stage, tempfile::TempDir) {
    let (folder, stage) = (versions(PREDICT), Stage::default());
    let setup = Setup {
        engines: vec![Arc::new(stage.clone())],
        models: Some(folder.path().join("models")),
        catalog,
        streams: &[],
        access: toml::from_str("allow_anonymous_loopback = true\nanonymous_manage_models = true").unwrap(),
        ..Setup::default()
    };
    (setup.start().await, stage, folder)
}

const PREDICT: &str = "[predict]\n[[predict.input]]\nkind = \"record\"\nfields = [\"a\", \"b\"]\n\
                       [[predict.output]]\nsteps = [\"quantity\"]\n";

#[tokio::test]
async fn over_http_the_answer_says_which_version_it_is_from_and_why_not_the_other() {
    let (gateway, stage, _folder) = http("[models.press]\naliases = { prod = 1, canary = 2 }\n[models.press.traffic]\nsplit = { prod = 0, canary = 1 }\nfallback = [\"prod\"]\nbreaker = { failures = 3, open_ms = 60000 }\n").await;
    let infer = json!({ "inputs": [{ "name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 3] }] }).to_string();
    let infer = infer.as_bytes();
    let answer = gateway.post("/v2/models/press/infer", JSON, infer).await;
    assert_eq!((answer.status, answer.header("x-forebay-fallback")), (200, None));
    assert_eq!((&answer.json()["model_version"], &answer.json()["parameters"]), (&json!("2"), &Value::Null));
    stage.plays("press/2", Way::Fails);
    let answer = gateway.post("/v2/models/press/infer", JSON, infer).await;
    let why = answer.header("x-forebay-fallback").unwrap();
    assert!(why.starts_with("version 2 (canary): failed to run the model"), "{why}");
    let body = answer.json();
    assert_eq!((&body["model_version"], &body["parameters"]["forebay_fallback"]), (&json!("1"), &json!(why)));
    let predict = json!({ "a": 1, "b": 3 }).to_string();
    let answer = gateway.post("/v1/models/press/predict", JSON, predict.as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    assert_eq!((&body["model_version"], body["fallback"].as_str()), (&json!("1"), answer.header("x-forebay-fallback")));
    assert!(body["fallback"].as_str().unwrap().starts_with("version 2 (canary): "), "{body}");
    let answer = gateway.post("/v2/models/press/versions/2/infer", JSON, infer).await;
    assert_eq!(answer.status, 500, "{}", answer.text());
    // Three failures: the breaker is open, for people and for programs.
    let models = gateway.get("/api/v1/models").await.json();
    let canary = models["models"].as_array().unwrap().iter().find(|model| model["version"] == 2).unwrap();
    assert_eq!((&canary["breaker"]["state"], &canary["breaker"]["opened"]), (&json!("open"), &json!(1)), "{canary}");
    let answer = gateway.post("/v1/models/press/predict", JSON, predict.as_bytes()).await;
    assert!(answer.json()["fallback"].as_str().unwrap().contains("its breaker is open"));
    let metrics = gateway.get("/metrics").await.text();
    for line in [
        "forebay_model_breaker{model=\"press\",version=\"2\",state=\"open\"} 1",
        "forebay_model_breaker_opened_total{model=\"press\",version=\"2\"} 1",
        "forebay_model_chosen_total{model=\"press\",version=\"2\"} 4",
        "forebay_model_stood_in_total{model=\"press\",version=\"1\"} 3",
        "forebay_model_passed_over_total{model=\"press\",version=\"2\",why=\"failed\"} 2",
        "forebay_model_passed_over_total{model=\"press\",version=\"2\",why=\"breaker\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

#[tokio::test]
async fn a_version_that_takes_something_else_does_not_stand_in_for_a_prediction() {
    let (folder, stage) = (versions(PREDICT), Stage::default());
    for (version, other) in [(1, PREDICT.replace("\"b\"", "\"c\"")), (3, String::new())] {
        put(&folder.path().join("models"), version, &other);
    }
    let catalog = "[models.press]\naliases = { prod = 1, canary = 2 }\n[models.press.traffic]\nsplit = { canary = 1 }\nfallback = [\"prod\", \"3\"]\n";
    let setup = Setup {
        engines: vec![Arc::new(stage.clone())],
        models: Some(folder.path().join("models")),
        catalog,
        streams: &[],
        ..Setup::default()
    };
    let gateway = setup.start().await;
    let predict = async |body: Value| gateway.post("/v1/models/press/predict", JSON, body.to_string().as_bytes()).await;
    let answer = predict(json!({ "a": 1, "b": 3 })).await;
    assert_eq!((answer.status, &answer.json()["model_version"]), (200, &json!("2")), "{}", answer.text());
    let answer = predict(json!({ "a": 1, "c": 3 })).await;
    assert_eq!(answer.status, 422, "the caller's mistake: {}", answer.text());
    stage.plays("press/2", Way::Fails);
    let answer = predict(json!({ "a": 1, "b": 3 })).await;
    assert_eq!(answer.status, 500, "the model's, and not the caller's: {}", answer.text());
    for says in ["version 2 (canary): failed to run", "version 1 (prod): ", "version 3: it takes something else"] {
        assert!(answer.text().contains(says), "{says}: {}", answer.text());
    }
    assert_eq!((stage.runs("press/1"), stage.runs("press/3")), (0, 0));
}

/// The threshold of this prediction is for one number, and the model may give any number of them.
const ONE_NUMBER: &str = "[predict]\n[[predict.input]]\nkind = \"record\"\nfields = [\"a\", \"b\"]\n\
                          [[predict.output]]\nsteps = [{ step = \"threshold\", at = 1.0 }]\n";

#[tokio::test]
async fn a_version_whose_outputs_its_own_steps_cannot_read_gives_way_to_the_next() {
    let (folder, stage) = (versions(ONE_NUMBER), Stage::default());
    for version in 1..=3 {
        let manifest = folder.path().join(format!("models/press/{version}/manifest.toml"));
        let text = std::fs::read_to_string(&manifest).unwrap();
        std::fs::write(manifest, text.replace("shape = [1, 1]", "shape = [1, -1]")).unwrap();
    }
    let catalog = "[models.press]\naliases = { prod = 1, canary = 2 }\n[models.press.traffic]\nsplit = { prod = 0, canary = 1 }\nfallback = [\"prod\"]\n";
    let setup = Setup {
        engines: vec![Arc::new(stage.clone())],
        models: Some(folder.path().join("models")),
        catalog,
        streams: &[],
        ..Setup::default()
    };
    let gateway = setup.start().await;
    let body = json!({ "a": 1, "b": 3 }).to_string();
    let predict = async || gateway.post("/v1/models/press/predict", JSON, body.as_bytes()).await;
    assert_eq!(predict().await.json()["model_version"], "2");
    stage.plays("press/2", Way::Twice);
    let answer = predict().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let said = answer.json();
    assert_eq!((&said["model_version"], &said["predictions"][0]["y"]["above"]), (&json!("1"), &json!(true)), "{said}");
    let why = said["fallback"].as_str().unwrap();
    assert!(why.starts_with("version 2 (canary): ") && why.contains("it has 2 numbers, expected one"), "{why}");
    let traffic = gateway.get("/api/v1/models/press/traffic").await.json();
    assert_eq!(traffic["versions"][1]["passed_over"], json!({ "failed": 1 }), "{traffic}");
    // When nobody gives what its steps can read, the caller hears what the first one gave.
    stage.plays("press/1", Way::Twice);
    let answer = predict().await;
    assert_eq!(answer.status, 500, "{}", answer.text());
    assert!(answer.text().contains("it has 2 numbers, expected one"), "{}", answer.text());
}

#[tokio::test]
async fn over_http_a_callers_requests_stay_with_a_version_where_callers_count() {
    let (folder, stage) = (versions(PREDICT), Stage::default());
    let names: Vec<String> = (0..12).map(|at| format!("line-{at}")).collect();
    let keys: Vec<String> = names.iter().map(|name| format!("{name:0>32}")).collect();
    let identity = |(name, key): (&String, &String)| {
        format!("[[identity]]\nname = \"{name}\"\nkey_sha256 = \"{}\"\n", Digest::of(key.as_bytes()))
    };
    let access: String = names.iter().zip(&keys).map(identity).collect();
    let setup = Setup {
        engines: vec![Arc::new(stage)],
        models: Some(folder.path().join("models")),
        catalog: "[models.press]\naliases = { prod = 1, canary = 2 }\n[models.press.traffic]\nsplit = { prod = 1, canary = 1 }\nsticky = \"caller\"\n",
        streams: &[],
        access: toml::from_str(&format!("allow_anonymous_loopback = true\n{access}")).unwrap(),
        ..Setup::default()
    };
    let gateway = setup.start().await;
    let infer = json!({ "inputs": [{ "name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 3] }] }).to_string();
    let predict = json!({ "a": 1, "b": 3 }).to_string();
    let ask = async |headers: &[(&str, &str)], path: &str, body: &str| {
        let headers = [JSON, headers].concat();
        let answer = gateway.post(path, &headers, body.as_bytes()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["model_version"].as_str().unwrap().to_owned()
    };
    let (mut seen, mut moved) = (BTreeSet::new(), false);
    for key in &keys {
        let bearer = format!("Bearer {key}");
        let who = ("authorization", bearer.as_str());
        let first = ask(&[who], "/v2/models/press/infer", &infer).await;
        for _ in 0..3 {
            assert_eq!(ask(&[who], "/v2/models/press/infer", &infer).await, first, "{key}");
            assert_eq!(ask(&[who], "/v1/models/press/predict", &predict).await, first, "{key}");
        }
        // What a request says itself goes before who sent it: users behind one caller are told apart.
        for user in 0..8 {
            let user = format!("user-{user}");
            moved |= ask(&[who, ("x-forebay-sticky", &user)], "/v2/models/press/infer", &infer).await != first;
        }
        seen.insert(first);
    }
    assert_eq!((seen.len(), moved), (2, true), "two callers, two versions");
    // Everybody without an identity is not one user.
    let mut nobody = BTreeSet::new();
    for _ in 0..64 {
        nobody.insert(ask(&[], "/v2/models/press/infer", &infer).await);
    }
    assert_eq!(nobody.len(), 2);
}

#[tokio::test]
async fn over_http_weights_are_read_set_and_taken_back_and_a_header_holds_a_user_to_a_version() {
    let (gateway, _stage, _folder) = http("[models.press]\naliases = { prod = 1, canary = 2 }\n").await;
    let path = "/api/v1/models/press/traffic";
    let before = gateway.get(path).await.json();
    assert_eq!((&before["source"], &before["split"]), (&json!("none"), &json!([])), "{before}");
    let set =
        gateway.send("PUT", path, JSON, br#"{"split":{"prod":3,"canary":1},"shadow":{"to":"3","percent":50}}"#).await;
    assert_eq!(set.status, 200, "{}", set.text());
    let view = set.json();
    let canary = &view["split"][0];
    assert_eq!(
        (&canary["to"], &canary["version"], &canary["share"]),
        (&json!("canary"), &json!(2), &json!(0.25)),
        "{view}"
    );
    assert_eq!((&view["shadow"]["version"], &view["source"]), (&json!(3), &json!("set")));
    let infer = json!({ "inputs": [{ "name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 3] }] }).to_string();
    let predict = json!({ "a": 1, "b": 3 }).to_string();
    let mut seen = BTreeSet::new();
    for user in 0..24 {
        let user = format!("user-{user}");
        let headers = [JSON[0], ("x-forebay-sticky", user.as_str())];
        let first = gateway.post("/v2/models/press/infer", &headers, infer.as_bytes()).await.json();
        let second = gateway.post("/v1/models/press/predict", &headers, predict.as_bytes()).await.json();
        assert_eq!(first["model_version"], second["model_version"], "{user}");
        seen.insert(first["model_version"].as_str().unwrap().to_owned());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["1", "2"]);
    for (body, says) in [
        (&br#"{"split":{"prod":"many"}}"#[..], "not a model's traffic"),
        (br#"{"split":{"prod":1},"sticky":"never"}"#, "unknown field `sticky`"),
        (br#"{"split":{"absent":1}}"#, "absent cannot get requests"),
        (b"", "not a model's traffic"),
        (br#"{"shadow":{"to":"canary","percent":1e9}}"#, "percent is 1000000000"),
    ] {
        let answer = gateway.send("PUT", path, JSON, body).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(answer.text().contains(says), "{}", answer.text());
    }
    assert_eq!(gateway.get("/api/v1/models/absent/traffic").await.status, 404);
    assert_eq!(gateway.send("DELETE", path, &[], b"").await.json()["source"], "none");
    assert_eq!(gateway.send("DELETE", path, &[], b"").await.status, 404);
}
