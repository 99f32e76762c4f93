//! A model whose folder has Triton's `config.pbtxt`, served as it says.

use std::path::Path;

use forebay::engine::built_in;
use serde_json::{Value, json};

use crate::http_fixture::{Answer, Gateway, Setup};
use crate::oip_clients::copy;

const CONFIG: &str = r#"
# as it lies in a repository of Triton's
name: "simple"
platform: "onnxruntime_onnx"
max_batch_size: 4
input [
  { name: "INPUT0" data_type: TYPE_INT32 dims: [ 16 ] },
  { name: "INPUT1" data_type: TYPE_INT32 dims: [ 16 ] }
]
output [ { name: "OUTPUT0" data_type: TYPE_INT32 dims: [ 16 ] }, { name: "OUTPUT1" data_type: TYPE_INT32 dims: [ 16 ] } ]
dynamic_batching { max_queue_delay_microseconds: 200 }
version_policy: { latest { num_versions: 1 } }
optimization { priority: PRIORITY_MAX }
"#;
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

async fn ask(gateway: &Gateway, rows: usize) -> Answer {
    let input =
        |name: &str| json!({ "name": name, "shape": [rows, 16], "datatype": "INT32", "data": vec![1; rows * 16] });
    let body = json!({ "inputs": [input("INPUT0"), input("INPUT1")] }).to_string();
    gateway.post("/v2/models/simple/infer", JSON, body.as_bytes()).await
}

async fn load(gateway: &Gateway) -> Answer {
    gateway.post("/v2/repository/models/simple/load", JSON, b"{}").await
}

#[tokio::test]
async fn tritons_configuration_says_how_a_model_is_served_and_what_it_says_of_it_must_be_so() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/simple/1");
    for version in ["1", "2"] {
        copy(&fixture, &folder.path().join("simple").join(version));
    }
    let second = folder.path().join("simple/2/manifest.toml");
    let text = std::fs::read_to_string(&second).unwrap().replace("version = 1", "version = 2");
    // The manifest's word goes before Triton's.
    std::fs::write(&second, text + "\n[serving]\nbatch_delay_us = 50\n").unwrap();
    let config = folder.path().join("simple/config.pbtxt");
    std::fs::write(&config, CONFIG).unwrap();
    let setup = Setup {
        models: Some(folder.path().to_owned()),
        engines: built_in(),
        streams: &[],
        access: toml::from_str("allow_anonymous_loopback = true\nanonymous_manage_models = true").unwrap(),
        ..Setup::default()
    };
    let gateway = setup.start().await;
    let shown = async || gateway.get("/v2/models/simple/config").await.json();
    let told = shown().await;
    assert_eq!((&told["max_batch_size"], &told["input"][0]["dims"]), (&json!(4), &json!([16])), "{told}");
    let batching = json!({ "preferred_batch_size": [4], "max_queue_delay_microseconds": 50 });
    assert_eq!(told["dynamic_batching"], batching, "{told}");
    assert_eq!(ask(&gateway, 4).await.json()["model_version"], "2");
    let large = ask(&gateway, 5).await;
    assert_eq!((large.status, large.text().contains("max_batch_size 4")), (400, true), "{}", large.text());
    let index: Value = gateway.post("/v2/repository/index", JSON, b"").await.json();
    let first = index.as_array().unwrap().iter().find(|entry| entry["version"] == "1").unwrap();
    assert!(first["reason"].as_str().unwrap().contains("version_policy in its config.pbtxt (the latest 1)"), "{index}");

    // What is not so is refused with its place, and what serves serves on.
    for (from, to, says) in [
        (
            "\"INPUT1\" data_type: TYPE_INT32",
            "\"INPUT1\" data_type: TYPE_FP32",
            "config.pbtxt:8: input INPUT1: data_type: the model's is INT32",
        ),
        ("max_batch_size", "max_bach_size", "config.pbtxt:5:1: max_bach_size: there is no such field"),
        ("\"simple\"", "\"other\"", "config.pbtxt:3:1: name: it is \"other\", expected the folder's"),
    ] {
        std::fs::write(&config, CONFIG.replacen(from, to, 1)).unwrap();
        let refused = load(&gateway).await;
        assert!(refused.status >= 400 && refused.text().replace('\\', "").contains(says), "{from}: {}", refused.text());
        assert_eq!(ask(&gateway, 1).await.status, 200);
    }
    std::fs::remove_file(&config).unwrap();
    assert_eq!(load(&gateway).await.status, 200);
    assert_eq!(shown().await["max_batch_size"], 0);
    assert_eq!(ask(&gateway, 5).await.status, 200);
}
