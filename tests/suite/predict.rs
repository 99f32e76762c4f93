//! `POST /v1/models/{model}/predict` over real TCP, with the models that Forebay carries and some made for the purpose.

use std::path::{Path, PathBuf};

use forebay::engine::built_in;
use forebay::flows::predict::Limits;
use serde_json::{Value, json};

use crate::http_fixture::{Answer, Gateway, Setup};

const WINE: &str = "/v1/models/wine-cultivar/predict";
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

fn bundled() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models")
}

async fn gateway() -> Gateway {
    gateway_of(bundled(), Limits::default()).await
}

async fn gateway_of(models: PathBuf, predict: Limits) -> Gateway {
    Setup { models: Some(models), engines: built_in(), predict, streams: &[], ..Setup::default() }.start().await
}

fn wine() -> Value {
    json!({
        "alcohol": 13.5, "malic_acid": 3.12, "ash": 2.62, "alcalinity_of_ash": 24, "magnesium": 123, "total_phenols": 1.4,
        "flavanoids": 1.57, "nonflavanoid_phenols": 0.22, "proanthocyanins": 1.25, "color_intensity": 8.6, "hue": 0.59,
        "od280_od315": 1.3, "proline": 500
    })
}

async fn post(gateway: &Gateway, path: &str, body: &Value) -> Answer {
    gateway.post(path, JSON, body.to_string().as_bytes()).await
}

#[tokio::test]
async fn a_record_is_answered_with_labels_and_the_time_of_every_step() {
    let gateway = gateway().await;
    let answer = post(&gateway, WINE, &wine()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    assert_eq!((&answer["model_name"], &answer["model_version"]), (&"wine-cultivar".into(), &"1".into()));
    assert_eq!(answer["engine"], "classical");
    let classes = answer["predictions"][0]["cultivar"]["classes"].as_array().unwrap();
    assert_eq!((&classes[0]["label"], &classes[0]["index"]), (&"cultivar 3".into(), &2.into()));
    // What scikit-learn said when the model was trained.
    for (class, expected) in classes.iter().zip([0.984_273_3, 0.012_219_4, 0.003_507_3]) {
        assert!((class["score"].as_f64().unwrap() - expected).abs() < 1e-5, "{class}");
    }
    let steps: Vec<_> = answer["timing"]["steps"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(steps, ["record: record", "model", "cultivar: top_k"]);
    let alone = &answer["predictions"][0];
    let version = post(&gateway, "/v1/models/wine-cultivar/versions/1/predict", &wine()).await.json();
    assert_eq!(&version["predictions"][0], alone);
    let batch = json!({"instances": [wine(), [14.23, 1.71, 2.43, 15.6, 127, 2.8, 3.06, 0.28, 2.29, 5.64, 1.04, 3.92, 1065]]});
    let batch = post(&gateway, "/v1/models/wine-cultivar:predict", &batch).await.json();
    assert_eq!(&batch["predictions"][0], alone, "a batch gives what its rows give alone");
    assert_eq!(batch["predictions"][1]["cultivar"]["classes"][0]["label"], "cultivar 1");
    // Statistics and metrics are those of every inference, and some of their own.
    let stats = gateway.get("/v2/models/wine-cultivar/stats").await.json();
    let stats = &stats["model_stats"][0];
    assert_eq!((&stats["inference_count"], &stats["execution_count"]), (&4.into(), &3.into()), "{stats}");
    let metrics = gateway.get("/metrics").await.text();
    assert!(metrics.contains("forebay_predict_requests_total{outcome=\"Answered\"} 3"), "{metrics}");
    assert!(metrics.contains("forebay_predict_instances_total 4"));
    assert!(metrics.contains("forebay_predict_seconds_count{part=\"before\"} 3"));
}

#[tokio::test]
async fn classification_over_the_open_protocol_has_the_manifests_labels() {
    let gateway = gateway().await;
    let row = [13.5, 3.12, 2.62, 24.0, 123.0, 1.4, 1.57, 0.22, 1.25, 8.6, 0.59, 1.3, 500.0];
    let asked = json!({
        "inputs": [{"name": "X", "shape": [1, 13], "datatype": "FP32", "data": row}],
        "outputs": [{"name": "probabilities", "parameters": {"classification": 1}}]
    });
    let answer = post(&gateway, "/v2/models/wine-cultivar/infer", &asked).await.json();
    assert_eq!(answer["outputs"][0]["data"], json!(["0.984273:2:cultivar 3"]), "{answer}");
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told_with_what_would_be_right() {
    let gateway = gateway().await;
    let mut wrong = Vec::new();
    let hue = |value: Value| {
        let mut record = wine();
        record["hue"] = value;
        record.to_string()
    };
    let extra = {
        let mut record = wine();
        record["colour"] = 1.into();
        record.to_string()
    };
    for (path, kind, body, status, code, says) in [
        (WINE, "application/json", hue(json!("deep")), 422, "content", "field \"hue\": expected a number, given \"deep\""),
        (WINE, "application/json", hue(Value::Null), 422, "content", "field \"hue\": expected a number, given nothing"),
        (WINE, "application/json", extra, 422, "content", "given \"colour\""),
        (WINE, "application/json", hue(json!(1e300)), 400, "shape", "X has inf"),
        (WINE, "application/json", "{".to_owned(), 422, "content", "expected JSON"),
        (WINE, "application/json", "[]".to_owned(), 422, "content", "expected 13 values in the order alcohol"),
        (WINE, "application/json", "[".repeat(100_000), 422, "content", "recursion limit"),
        (WINE, "image/png", String::new(), 415, "content_type", "is not what the model takes: record (record)"),
        (WINE, "application/x-www-form-urlencoded", wine().to_string(), 415, "content_type", "is not what the model takes"),
        ("/v1/models/wine/predict", "application/json", wine().to_string(), 404, "no_model", "\"wine\""),
        ("/v1/models/wine-cultivar/versions/7/predict", "application/json", wine().to_string(), 404, "no_model", "/7"),
        ("/v1/models/wine-cultivar/versions/new/predict", "application/json", wine().to_string(), 404, "no_model", "new"),
        ("/v1/models/wine-cultivar", "application/json", wine().to_string(), 404, "no_such_path", "wine-cultivar"),
    ] {
        let answer = gateway.post(path, &[("content-type", kind)], body.as_bytes()).await;
        let error = &answer.json()["error"];
        let told = error["code"] == code && error["message"].as_str().unwrap().contains(says);
        if answer.status != status || !told {
            wrong.push(format!("{path} {kind}: {} {}", answer.status, answer.text()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(gateway.send("GET", WINE, &[], b"").await.status, 405);
    let metrics = gateway.get("/metrics").await.text();
    assert!(metrics.contains("forebay_predict_requests_total{outcome=\"NotServing\"} 2"), "{metrics}");
}

#[tokio::test]
async fn a_request_has_as_many_instances_as_the_configuration_allows() {
    let gateway = gateway_of(bundled(), Limits { instances_max: 2, ..Limits::default() }).await;
    let answer = post(&gateway, WINE, &json!({"instances": [wine(), wine(), wine()]})).await;
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (413, &"too_large".into()));
    let none = post(&gateway, WINE, &json!({"instances": []})).await;
    assert_eq!(none.status, 422, "{}", none.text());
    assert_eq!(post(&gateway, WINE, &json!({"instances": [wine(), wine()]})).await.status, 200);
}
