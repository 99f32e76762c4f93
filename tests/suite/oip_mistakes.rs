//! Requests over the Open Inference Protocol that cannot be computed, with real models: each is the caller's mistake, says which
//! tensor, what was expected and what came, and costs nobody else an answer.

use std::path::Path;

use forebay::doors::http::Config;
use forebay::engine::built_in;
use serde_json::{Value, json};

use crate::http_fixture::{Answer, Gateway, Setup};
use crate::oip_clients::copy;

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
const SIMPLE: &str = "/v2/models/simple/infer";

/// Fixture models, spread as `catalog` says.
async fn gateway(catalog: &'static str, body_max_bytes: usize) -> (Gateway, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models"), folder.path());
    let http = Config { address: "127.0.0.1:0".parse().unwrap(), body_max_bytes, ..Config::default() };
    let models = Some(folder.path().to_owned());
    (Setup { models, engines: built_in(), catalog, http, streams: &[], ..Setup::default() }.start().await, folder)
}

fn whole(name: &str, shape: [usize; 2]) -> Value {
    json!({ "name": name, "shape": shape, "datatype": "INT32", "data": vec![1; shape[0] * shape[1]] })
}

fn pair(first: [usize; 2], second: [usize; 2]) -> Value {
    json!({ "inputs": [whole("INPUT0", first), whole("INPUT1", second)] })
}

async fn post(gateway: &Gateway, path: &str, body: &Value) -> Answer {
    gateway.post(path, JSON, body.to_string().as_bytes()).await
}

fn told(answer: &Answer) -> String {
    answer.json()["error"].as_str().unwrap().to_owned()
}

/// JSON with binary data behind it.
async fn binary(gateway: &Gateway, path: &str, json: &Value, data: &[u8]) -> Answer {
    let json = json.to_string();
    let length = json.len().to_string();
    let body = [json.as_bytes(), data].concat();
    gateway.post(path, &[("inference-header-content-length", &length)], &body).await
}

#[tokio::test]
async fn inputs_that_do_not_fit_each_other_are_refused_by_name_and_no_breaker_counts_them() {
    let split = "[models.simple]\naliases = { prod = 1 }\n[models.simple.traffic]\nsplit = { prod = 1 }\nbreaker = { failures = 2 }\n";
    for catalog in ["", split] {
        let (gateway, _folder) = gateway(catalog, 1 << 20).await;
        let good = pair([3, 16], [3, 16]);
        for (wrong, says) in [
            (
                pair([1, 16], [2, 16]),
                "input INPUT1 has shape [2, 16] and input INPUT0 has shape [1, 16]: dimension n is one size in both, expected 1 \
                 as in INPUT0, given 2",
            ),
            (
                pair([0, 16], [0, 16]),
                "input INPUT0 has shape [0, 16]: tract computes no empty tensors, expected 1 or more",
            ),
            (pair([4, 15], [4, 16]), "input INPUT0 has shape [4, 15], expected [-1, 16]"),
        ] {
            for _ in 0..6 {
                let answer = post(&gateway, SIMPLE, &wrong).await;
                assert_eq!(answer.status, 400, "{}", answer.text());
                assert!(told(&answer).contains(says), "{}", answer.text());
            }
        }
        let answer = post(&gateway, SIMPLE, &good).await;
        assert_eq!((answer.status, answer.header("x-forebay-fallback")), (200, None), "{}", answer.text());
        let metrics = gateway.get("/metrics").await.text();
        assert!(!metrics.contains("state=\"open\"} 1"), "{metrics}");
    }
}

#[tokio::test]
async fn an_output_that_is_asked_for_twice_is_refused_by_name() {
    let (gateway, _folder) = gateway("", 1 << 20).await;
    for times in [2, 64] {
        let mut asked = pair([1, 16], [1, 16]);
        asked["outputs"] = vec![json!({ "name": "OUTPUT0" }); times].into();
        let answer = post(&gateway, SIMPLE, &asked).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(told(&answer).contains("output \"OUTPUT0\" is asked for twice"), "{}", answer.text());
    }
    let mut both = pair([1, 16], [1, 16]);
    both["outputs"] = json!([{ "name": "OUTPUT1" }, { "name": "OUTPUT0" }]);
    assert_eq!(post(&gateway, SIMPLE, &both).await.json()["outputs"][0]["name"], "OUTPUT1");
    let mut twice = pair([1, 16], [1, 16]);
    twice["inputs"][1]["name"] = "INPUT0".into();
    let answer = post(&gateway, SIMPLE, &twice).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(told(&answer).contains("no input INPUT1"), "{}", answer.text());
}

#[tokio::test]
async fn a_number_that_is_none_is_refused_with_its_tensor_and_place_in_json_and_in_binary_data() {
    let (gateway, _folder) = gateway("", 1 << 20).await;
    let path = "/v2/models/reciprocal/infer";
    let text = r#"{"inputs": [{"name": "x", "shape": [3], "datatype": "FP32", "data": [1.0, 2.0, NaN]}]}"#;
    let answer = gateway.post(path, JSON, text.as_bytes()).await;
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(
        told(&answer).starts_with("input \"x\": element 2 is NaN, which is no number in JSON"),
        "{}",
        answer.text()
    );
    let head = json!({ "inputs": [
        { "name": "x", "shape": [3], "datatype": "FP32", "parameters": { "binary_data_size": 12 } }
    ] });
    let bytes = |numbers: [f32; 3]| numbers.map(f32::to_le_bytes).concat();
    for (odd, says) in [(f32::NAN, "x has NaN at element 1"), (f32::NEG_INFINITY, "x has -inf at element 1")] {
        let answer = binary(&gateway, path, &head, &bytes([1.0, odd, 2.0])).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(told(&answer).contains(says), "{}", answer.text());
    }
    assert_eq!(binary(&gateway, path, &head, &bytes([1.0, 4.0, 2.0])).await.status, 200);
}

#[tokio::test]
async fn a_raw_body_is_one_tensor_over_the_door_as_well() {
    let (gateway, _folder) = gateway("", 1 << 20).await;
    let path = "/v2/models/reciprocal/infer";
    let raw = [("inference-header-content-length", "0")];
    let answer = gateway.post(path, &raw, &[1.0_f32, 2.0, 4.0].map(f32::to_le_bytes).concat()).await;
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    let head: usize = answer.header("inference-header-content-length").unwrap().parse().unwrap();
    let outputs: Value = serde_json::from_slice(&answer.body[..head]).unwrap();
    assert_eq!(outputs["outputs"][0]["shape"], json!([3]), "{outputs}");
    assert_eq!(answer.body[head..], [1.0_f32, 0.5, 0.25].map(f32::to_le_bytes).concat());
    for (path, body, says) in [
        (path, vec![0; 11], "input \"x\": shape [3] of FP32 has 12 bytes, given 11"),
        (SIMPLE, vec![0; 64], "this model has 2 inputs"),
    ] {
        let answer = gateway.post(path, &raw, &body).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        assert!(told(&answer).contains(says), "{}", answer.text());
    }
}

/// Nothing of what is announced is waited for longer than a client needs to hear the answer, nor made room for; what comes without
/// an end is not kept.
#[tokio::test]
async fn a_body_over_the_bound_is_refused_announced_or_without_an_end() {
    let (gateway, _folder) = gateway("", 1 << 20).await;
    let head = |more: &str| {
        format!("POST {SIMPLE} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n{more}\r\n\r\n", gateway.address)
            .into_bytes()
    };
    let announced =
        |kind: &str| [head(&format!("{kind}\r\ncontent-length: 1073741824")), b"{\"inputs\"".to_vec()].concat();
    // 4 MiB in parts of 64 KiB, and no end.
    let part = [b"10000\r\n".as_slice(), &[b' '; 0x1_0000], b"\r\n"].concat();
    let endless = |kind: &str| [head(&format!("{kind}\r\ntransfer-encoding: chunked")), part.repeat(64)].concat();
    let (json, binary) = ("content-type: application/json", "inference-header-content-length: 4096");
    let raw = "inference-header-content-length: 0";
    let all = [announced(json), announced(binary), announced(raw), endless(json), endless(binary), endless(raw)];
    let raw = "/v2/models/reciprocal/infer";
    let all = all.map(|request| {
        // A raw body is for a model with one input.
        let text = String::from_utf8(request).unwrap();
        if text.contains("length: 0\r\n") { text.replacen(SIMPLE, raw, 1) } else { text }
    });
    let answers = futures_util::future::join_all(all.iter().map(|request| gateway.raw(request.as_bytes()))).await;
    for (request, answer) in all.iter().zip(answers) {
        let kind = request.lines().nth(3).unwrap();
        assert_eq!(answer.status, 413, "{kind}: {}", answer.text());
        assert!(told(&answer).contains("the body is over 1048576 bytes"), "{kind}: {}", answer.text());
    }
    assert_eq!(post(&gateway, SIMPLE, &pair([1, 16], [1, 16])).await.status, 200);
}

#[tokio::test]
async fn statistics_count_the_time_before_and_behind_the_engine() {
    let (gateway, _folder) = gateway("", 1 << 20).await;
    for _ in 0..5 {
        assert_eq!(post(&gateway, SIMPLE, &pair([2, 16], [2, 16])).await.status, 200);
    }
    let stats = gateway.get("/v2/models/simple/stats").await.json()["model_stats"][0].clone();
    for counted in [&stats["inference_stats"], &stats["batch_stats"][0]] {
        for part in ["compute_input", "compute_infer", "compute_output"] {
            let (count, ns) = (counted[part]["count"].as_u64().unwrap(), counted[part]["ns"].as_u64().unwrap());
            assert!(count == 5 && ns > 0, "{part}: {stats}");
        }
    }
}
