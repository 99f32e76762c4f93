//! Pipelines over real HTTP, as the documentation shows them, and what `forebay` says of them.

use std::path::Path;
use std::sync::Arc;

use forebay::catalog;
use forebay::engine::{self, Engine};
use forebay::flows::pipeline_tally::StepReport;
use serde_json::{Value, json};

use crate::gateway::forebay_says;
use crate::http_fixture::{Gateway, Setup};
use crate::pipelines_fixture::{Add as _, CASCADE, Scribe, asks, model, pipeline, write};

async fn gateway(folder: &Path, engines: Vec<Arc<dyn Engine>>) -> Gateway {
    Setup { models: Some(folder.to_owned()), engines, streams: &[], ..Setup::default() }.start().await
}

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

#[tokio::test]
async fn over_http_it_is_one_model_and_its_steps_are_told_on_request() {
    let folder = tempfile::tempdir().unwrap();
    model(folder.path(), "small", "scale 1");
    model(folder.path(), "large", "scale 10");
    pipeline(folder.path(), "both", CASCADE);
    let gateway = gateway(folder.path(), vec![Arc::new(Scribe::default())]).await;
    let metadata = gateway.get("/v2/models/both").await.json();
    assert_eq!((&metadata["platform"], &metadata["inputs"][0]["shape"]), (&json!("pipeline"), &json!([-1, 3])));
    let config = gateway.get("/v2/models/both/config").await.json();
    assert_eq!(
        config["ensemble_scheduling"]["step"],
        json!([
            {"model_name": "small", "model_version": -1, "input_map": {"x": "x"}, "output_map": {"p": "small.p"}},
            {"model_name": "large", "model_version": -1, "input_map": {"x": "x"}, "output_map": {"p": "large.p"}},
        ])
    );
    let input = json!([{"name": "x", "shape": [2, 3], "datatype": "FP32", "data": [0.9, 0.1, 0, 0.5, 0.3, 0.2]}]);
    let post =
        async |body: Value| gateway.post("/v2/models/both/infer", JSON, body.to_string().as_bytes()).await.json();
    let plain = post(json!({"inputs": input})).await;
    assert_eq!(plain["outputs"][0]["shape"], json!([2, 3]));
    assert!(plain.get("parameters").is_none(), "{plain}");
    let told = post(json!({"inputs": input, "parameters": {"forebay_steps": true}})).await;
    let steps = told["parameters"]["forebay_steps"].as_array().unwrap();
    assert_eq!((&steps[2]["step"], &steps[2]["rows"], &steps[2]["of_rows"]), (&json!("large"), &json!(1), &json!(2)));
    assert_eq!((&steps[2]["model"], &steps[2]["engine"]), (&json!("large/1"), &json!("scribe")));
    let classes = json!({"inputs": input, "outputs": [{"name": "p", "parameters": {"classification": 1}}]});
    assert_eq!(post(classes).await["outputs"][0]["data"], json!(["0.900000:0", "5.000000:0"]));
    let stats = gateway.get("/v2/models/both/stats").await.json();
    let stats = &stats["model_stats"][0];
    assert_eq!((&stats["inference_count"], &stats["pipeline_steps"][2]["rows"]), (&json!(6), &json!(3)), "{stats}");
    let metrics = gateway.get("/metrics").await.text();
    for line in [
        "forebay_pipeline_step_runs_total{pipeline=\"both\",version=\"1\",step=\"doubt\"} 3",
        "forebay_pipeline_step_rows_total{pipeline=\"both\",version=\"1\",step=\"large\"} 3",
        "forebay_pipeline_step_considered_rows_total{pipeline=\"both\",version=\"1\",step=\"large\"} 6",
        "forebay_pipeline_step_seconds_total{pipeline=\"both\",version=\"1\",step=\"small\"}",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}

#[tokio::test]
async fn the_steps_of_a_traced_request_are_traced_with_it_as_their_parent() {
    let folder = tempfile::tempdir().unwrap();
    model(folder.path(), "small", "scale 1");
    model(folder.path(), "large", "fail");
    pipeline(folder.path(), "both", CASCADE);
    let setup = Setup {
        models: Some(folder.path().to_owned()),
        engines: vec![Arc::new(Scribe::default())],
        streams: &[],
        access: toml::from_str("allow_anonymous_loopback = true\nanonymous_manage_models = true").unwrap(),
        ..Setup::default()
    };
    let gateway = setup.start().await;
    let infer = async |id: &str, row: [f32; 3]| {
        let input = json!([{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": row}]);
        let body = json!({"id": id, "inputs": input}).to_string();
        gateway.post("/v2/models/both/infer", JSON, body.as_bytes()).await.status
    };
    assert_eq!(infer("before", [0.9, 0.1, 0.0]).await, 200);
    assert_eq!(gateway.get("/api/v1/traces").await.json(), json!([]), "off until it is switched on");
    let on = br#"{"trace_level": ["TIMESTAMPS"], "trace_rate": "1", "trace_count": 2}"#;
    let set = gateway.post("/v2/models/both/trace/setting", JSON, on).await;
    assert_eq!((set.status, &set.json()["trace_count"]), (200, &json!("2")), "{}", set.text());
    assert_eq!(infer("sure", [0.9, 0.1, 0.0]).await, 200);
    assert_eq!(infer("unsure", [0.5, 0.3, 0.2]).await, 500);
    assert_eq!(infer("one too many", [0.9, 0.1, 0.0]).await, 200);
    let told = gateway.get("/api/v1/traces").await.json();
    let told = told.as_array().unwrap();
    let requests: Vec<_> = told.iter().filter(|trace| trace.get("model_name").is_some()).collect();
    let of = |id: &str| {
        requests.iter().find(|trace| trace["request_id"] == id && trace["model_name"] == "both").unwrap()["id"].clone()
    };
    let steps = |id: &str| -> Value {
        let parent = of(id);
        let steps = requests.iter().filter(|trace| trace["parent_id"] == parent);
        steps.map(|trace| trace["model_name"].clone()).collect()
    };
    assert_eq!((steps("sure"), steps("unsure")), (json!(["small"]), json!(["small", "large"])));
    assert_eq!(requests.len(), 5);
    let failed: Vec<_> = requests.iter().filter(|trace| trace.get("forebay_error").is_some()).collect();
    assert_eq!(failed.iter().map(|trace| &trace["model_name"]).collect::<Vec<_>>(), ["large", "both"]);
    let moments = |id: &Value| {
        let found = told.iter().find(|trace| trace["id"] == *id && trace.get("timestamps").is_some()).unwrap();
        let moments = found["timestamps"].as_array().unwrap();
        moments.iter().map(|moment| moment["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let of_the_door =
        ["HTTP_RECV_START", "HTTP_RECV_END", "REQUEST_START", "REQUEST_END", "HTTP_SEND_START", "HTTP_SEND_END"];
    assert_eq!(moments(&of("sure")), of_the_door, "its steps have the rest");
    assert_eq!(moments(&of("unsure")), of_the_door[..4], "an error is no answer");
    let small = requests.iter().find(|trace| trace["model_name"] == "small").unwrap();
    assert!(moments(&small["id"]).contains(&"COMPUTE_START".to_owned()));
    assert_eq!(gateway.get("/api/v1/traces?model=large").await.json().as_array().unwrap().len(), 2);
    assert_eq!(gateway.get("/api/v1/traces?mood=large").await.status, 400);
}

#[tokio::test]
async fn over_http_readiness_says_which_model_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    model(folder.path(), "small", "scale 1");
    pipeline(folder.path(), "both", CASCADE);
    let gateway = gateway(folder.path(), vec![Arc::new(Scribe::default())]).await;
    let ready = gateway.get("/v2/models/both/ready").await;
    assert_eq!(ready.status, 503);
    assert!(ready.json()["reason"].as_str().unwrap().contains("step large: no model \"large\""), "{}", ready.text());
    let index = gateway.post("/v2/repository/index", &[], b"").await.json();
    let entry = index.as_array().unwrap().iter().find(|entry| entry["name"] == "both").unwrap();
    assert_eq!((&entry["state"], entry["reason"].as_str().unwrap().contains("large")), (&json!("UNAVAILABLE"), true));
    assert_eq!(gateway.get("/v2/models/small/ready").await.status, 200);
}

fn bundled() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models")
}

/// The golden samples of the bundled digits model: 3 and 5, as 8 x 8 shares of ink.
fn two_digits() -> Vec<Vec<f32>> {
    let text = std::fs::read_to_string(bundled().join("digits/1/manifest.toml")).unwrap();
    let manifest = catalog::Manifest::parse(&text).unwrap();
    let pixels = |golden: &catalog::Golden| match &golden.inputs["X"] {
        catalog::GoldenValue::Numbers(values) => values.as_slice().iter().map(|&x| x as f32).collect(),
        other => panic!("{other:?}"),
    };
    manifest.golden.iter().map(pixels).collect()
}

const READ: &str = "\
[[step]]
name = \"crops\"
step = \"crop\"
input = { image = \"page\", boxes = \"boxes\" }
width = 8
height = 8

[[step]]
name = \"rows\"
step = \"reshape\"
input = \"crops\"
shape = [-1, 64]

[[step]]
name = \"digits\"
model = \"digits\"
input = { X = \"rows\" }

[output]
probabilities = \"digits.probabilities\"
label = \"digits.label\"
";

#[tokio::test]
async fn parts_of_an_image_are_classified_as_single_calls_classify_them() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (bundled().join("digits/1"), folder.path().join("digits/1"));
    std::fs::create_dir_all(&to).unwrap();
    for file in ["manifest.toml", "model.onnx"] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
    let ports = "[[input]]\nname = \"page\"\ndatatype = \"FP32\"\nshape = [1, 1, -1, -1]\n\
                 [[input]]\nname = \"boxes\"\ndatatype = \"FP32\"\nshape = [-1, 4]\n\
                 [[output]]\nname = \"probabilities\"\ndatatype = \"FP32\"\nshape = [-1, 10]\n\
                 [[output]]\nname = \"label\"\ndatatype = \"INT64\"\nshape = [-1]\n";
    write(folder.path(), "page", 1, "pipeline", READ, ports);
    let gateway = gateway(folder.path(), engine::built_in()).await;
    // Each digit eight times as large, side by side with eight columns between them.
    let digits = two_digits();
    let (width, height) = (136, 64);
    let mut page = vec![0.0_f32; width * height];
    for (place, digit) in digits.iter().enumerate() {
        for y in 0..64 {
            for x in 0..64 {
                page[y * width + place * 72 + x] = digit[y / 8 * 8 + x / 8];
            }
        }
    }
    let boxes = [72.0, 0.0, 136.0, 64.0, 0.0, 0.0, 64.0, 64.0];
    let asked = json!({"inputs": [
        {"name": "page", "shape": [1, 1, height, width], "datatype": "FP32", "data": page},
        {"name": "boxes", "shape": [2, 4], "datatype": "FP32", "data": boxes},
    ]});
    let post = async |model: &str, body: Value| {
        let path = format!("/v2/models/{model}/infer");
        let answer = gateway.post(&path, JSON, body.to_string().as_bytes()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    let answer = post("page", asked).await;
    assert_eq!(answer["outputs"][1]["data"], json!([5, 3]), "{answer}");
    // The same by hand: each digit by itself.
    let mut by_hand = Vec::new();
    for digit in [&digits[1], &digits[0]] {
        let asked = json!({"inputs": [{"name": "X", "shape": [1, 64], "datatype": "FP32", "data": digit}],
                           "outputs": [{"name": "probabilities"}]});
        by_hand.extend(post("digits", asked).await["outputs"][0]["data"].as_array().unwrap().clone());
    }
    let given = answer["outputs"][0]["data"].as_array().unwrap();
    assert_eq!(given.len(), 20);
    for (given, expected) in given.iter().zip(&by_hand) {
        let (given, expected) = (given.as_f64().unwrap(), expected.as_f64().unwrap());
        assert!((given - expected).abs() < 1e-6, "{given} {expected}");
    }
    // No parts: the model is not asked, and the answer has no rows.
    let none = json!({"inputs": [
        {"name": "page", "shape": [1, 1, 8, 8], "datatype": "FP32", "data": vec![0.0; 64]},
        {"name": "boxes", "shape": [0, 4], "datatype": "FP32", "data": []},
    ], "parameters": {"forebay_steps": true}});
    let none = post("page", none).await;
    assert_eq!((&none["outputs"][0]["shape"], &none["outputs"][1]["datatype"]), (&json!([0, 10]), &json!("INT64")));
    assert_eq!(none["parameters"]["forebay_steps"][2]["rows"], 0, "{none}");
}

#[test]
fn a_step_report_leaves_out_what_there_is_not() {
    let report = StepReport { step: "doubt".to_owned(), does: "unsure", us: 3, ..StepReport::default() };
    assert_eq!(
        serde_json::to_value(&report).unwrap(),
        json!({"step": "doubt", "does": "unsure", "us": 3, "waited_us": 0})
    );
}

#[cfg(feature = "image")]
#[tokio::test]
async fn the_digits_of_a_page_are_found_and_read_as_the_documentation_says() {
    let gateway = gateway(&bundled(), engine::built_in()).await;
    let root = bundled().parent().unwrap().to_owned();
    let page = std::fs::read_to_string(root.join("docs/pipelines.md")).unwrap();
    let command = page.lines().find(|line| line.starts_with("curl ")).unwrap();
    let command = command.replace("127.0.0.1:8080", &gateway.address.to_string());
    let asked = tokio::task::spawn_blocking(move || {
        std::process::Command::new("bash").args(["-c", &command]).current_dir(root).output().unwrap()
    });
    let said: Value = serde_json::from_slice(&asked.await.unwrap().stdout).unwrap();
    let labels = &said["predictions"][0]["digits"]["labels"];
    assert_eq!(labels, &json!(["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]), "{said}");
    assert_eq!(said["predictions"][0]["boxes"]["shape"], json!([10, 4]));
    let steps = said["timing"]["pipeline"].as_array().unwrap();
    let told: Vec<_> = steps.iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!((told, &steps[3]["rows"]), (vec!["find", "cut", "rows", "read"], &json!(10)), "{said}");
}

#[test]
fn forebay_says_what_keeps_a_pipeline_from_serving_before_it_is_put_to_work() {
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().join("models");
    model(&models, "small", "scale 1");
    pipeline(&models, "both", &CASCADE.replace("\"large\"\ninput", "\"smell\"\ninput"));
    pipeline(&models, "loop", &asks("only", "loop", "x").add("[output]\np = \"only.p\"\n"));
    pipeline(&models, "torn", &asks("only", "small", "y").add("[output]\np = \"only.p\"\n"));
    let config = folder.path().join("forebay.toml");
    let text = format!(
        "[gateway]\nname = \"t\"\n[catalog]\nfolder = {:?}\n[access]\nallow_anonymous_loopback = true\n",
        models
    );
    std::fs::write(&config, text).unwrap();
    let (_, stdout, _) = forebay_says(&["check", "--config", config.to_str().unwrap()]);
    for says in [
        "step large: no usable model smell; the pipeline waits for it",
        "did you mean `small`?",
        "pipelines ask each other in a circle: loop -> loop",
        "step only: \"y\" is neither an input of the pipeline (x) nor a step (only)",
    ] {
        assert!(stdout.contains(says), "{says}: {stdout}");
    }
    let (_, stdout, _) = forebay_says(&["model", "show", "both", "--models", models.to_str().unwrap()]);
    assert!(stdout.contains("step       large: model smell of x, only rows of doubt"), "{stdout}");
}
