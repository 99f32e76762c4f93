//! `POST /v1/models/{model}/predict` over real TCP, with the models that Forebay carries and some made for the purpose.

use std::path::{Path, PathBuf};

use forebay::access::Config as AccessConfig;
use forebay::doors::http::Config;
use forebay::engine::built_in;
use forebay::flows::predict::Limits;
use serde_json::{Value, json};

use crate::gateway::forebay_says;
use crate::http_fixture::{Answer, Gateway, Setup, slow_gateway};

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
    let steps: Vec<_> =
        answer["timing"]["steps"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(steps, ["record: record", "model", "cultivar: top_k"]);
    let alone = &answer["predictions"][0];
    let version = post(&gateway, "/v1/models/wine-cultivar/versions/1/predict", &wine()).await.json();
    assert_eq!(&version["predictions"][0], alone);
    let batch =
        json!({"instances": [wine(), [14.23, 1.71, 2.43, 15.6, 127, 2.8, 3.06, 0.28, 2.29, 5.64, 1.04, 3.92, 1065]]});
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
        (
            WINE,
            "application/json",
            hue(json!("deep")),
            422,
            "content",
            "field \"hue\": expected a number, given \"deep\"",
        ),
        (WINE, "application/json", hue(Value::Null), 422, "content", "field \"hue\": expected a number, given nothing"),
        (WINE, "application/json", extra, 422, "content", "given \"colour\""),
        (WINE, "application/json", hue(json!(1e300)), 400, "shape", "X has inf"),
        (WINE, "application/json", "{".to_owned(), 422, "content", "expected JSON"),
        (WINE, "application/json", "[]".to_owned(), 422, "content", "expected 13 values in the order alcohol"),
        (WINE, "application/json", "[".repeat(100_000), 422, "content", "recursion limit"),
        (WINE, "image/png", String::new(), 415, "content_type", "is not what the model takes: record (record)"),
        (
            WINE,
            "application/x-www-form-urlencoded",
            wine().to_string(),
            415,
            "content_type",
            "is not what the model takes",
        ),
        ("/v1/models/wine/predict", "application/json", wine().to_string(), 404, "no_model", "\"wine\""),
        ("/v1/models/wine-cultivar/versions/7/predict", "application/json", wine().to_string(), 404, "no_model", "/7"),
        (
            "/v1/models/wine-cultivar/versions/new/predict",
            "application/json",
            wine().to_string(),
            404,
            "no_model",
            "new",
        ),
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
    assert!(metrics.contains("forebay_predict_requests_total{outcome=\"NotServing\"} 3"), "{metrics}");
}

#[cfg(feature = "image")]
fn three() -> Vec<u8> {
    std::fs::read(bundled().join("digits/three.png")).unwrap()
}

#[cfg(feature = "image")]
const DIGITS: &str = "/v1/models/digits/predict";

#[cfg(feature = "image")]
#[tokio::test]
async fn a_picture_is_answered_the_same_as_bytes_in_json_and_in_parts() {
    use base64::Engine as _;

    let gateway = gateway().await;
    let plain = gateway.post(DIGITS, &[("content-type", "image/png")], &three()).await;
    assert_eq!(plain.status, 200, "{}", plain.text());
    let plain = plain.json();
    let first = &plain["predictions"][0]["digit"]["classes"][0];
    assert_eq!(first["label"], "3", "{plain}");
    assert!(first["score"].as_f64().unwrap() > 0.99);
    let b64 = base64::engine::general_purpose::STANDARD.encode(three());
    let pair = json!({"instances": [{"b64": b64}, {"image": {"b64": b64}}]});
    let pair = post(&gateway, DIGITS, &pair).await.json();
    let part = b"--x\r\ncontent-disposition: form-data; name=\"image\"; filename=\"three.png\"\r\ncontent-type: image/png\r\n\r\n";
    let body = [&part[..], &three(), b"\r\n", part, &three(), b"\r\n--x--\r\n"].concat();
    let parts = gateway.post(DIGITS, &[("content-type", "multipart/form-data; boundary=x")], &body).await.json();
    for answer in [pair, parts] {
        assert_eq!(answer["predictions"], json!([plain["predictions"][0], plain["predictions"][0]]), "{answer}");
    }
}

#[cfg(feature = "image")]
#[tokio::test]
async fn a_picture_that_is_none_or_too_large_is_refused_with_its_figures() {
    let gateway = gateway_of(bundled(), Limits { image_pixels_max: 1000, ..Limits::default() }).await;
    let send = async |bytes: &[u8]| gateway.post(DIGITS, &[("content-type", "image/jpeg")], bytes).await;
    let large = send(&three()).await;
    assert_eq!(large.status, 413);
    assert!(
        large.text().contains("64 x 64 pixels, the most is 1000 in all (predict.image_pixels_max)"),
        "{}",
        large.text()
    );
    for (bytes, says) in
        [(&b""[..], "given nothing"), (b"GIF89a..", "given bytes that begin 4749"), (&three()[..20], "a broken one")]
    {
        let answer = send(bytes).await;
        assert!(answer.status == 422 && answer.text().contains(says), "{}", answer.text());
    }
    let body_max = gateway.post(DIGITS, &[("content-type", "image/png")], &vec![0; (1 << 20) + 1]).await;
    assert_eq!(body_max.status, 413);
}

#[cfg(feature = "image")]
#[tokio::test]
async fn the_commands_in_the_documentation_do_what_it_says() {
    let gateway = gateway().await;
    let page = std::fs::read_to_string(bundled().parent().unwrap().join("docs/predict.md")).unwrap();
    let commands: Vec<String> = page.lines().filter(|line| line.starts_with("curl ")).map(str::to_owned).collect();
    assert_eq!(commands.len(), 2);
    for (command, label) in commands.into_iter().zip(["\"label\":\"3\"", "\"label\":\"cultivar 3\""]) {
        let command = command.replace("127.0.0.1:8080", &gateway.address.to_string());
        let asked = tokio::task::spawn_blocking(move || {
            std::process::Command::new("bash")
                .args(["-c", &command])
                .current_dir(bundled().parent().unwrap())
                .output()
                .unwrap()
        });
        let said = String::from_utf8(asked.await.unwrap().stdout).unwrap();
        let first = said.split("\"score\"").next().unwrap();
        assert!(first.contains(label), "{said}");
    }
}

#[cfg(feature = "image")]
#[tokio::test]
async fn requests_wait_for_one_thread_and_all_are_answered() {
    let gateway = gateway_of(bundled(), Limits { threads: 1, ..Limits::default() }).await;
    let picture = three();
    let asked = (0..24).map(|_| gateway.post(DIGITS, &[("content-type", "image/png")], &picture));
    let answers = futures_util::future::join_all(asked).await;
    assert!(answers.iter().all(|answer| answer.status == 200 && answer.text().contains("\"label\":\"3\"")));
    let metrics = gateway.get("/metrics").await.text();
    assert!(metrics.contains("forebay_predict_waiting_requests 0"), "{metrics}");
}

/// The wine model under a manifest that `change` made of its own.
fn changed(change: impl Fn(&str) -> String) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (bundled().join("wine-cultivar/1"), folder.path().join("wine-cultivar/1"));
    std::fs::create_dir_all(&to).unwrap();
    std::fs::copy(from.join("model.onnx"), to.join("model.onnx")).unwrap();
    let manifest = std::fs::read_to_string(from.join("manifest.toml")).unwrap();
    let made = change(&manifest);
    assert_ne!(made, manifest);
    std::fs::write(to.join("manifest.toml"), made).unwrap();
    folder
}

#[tokio::test]
async fn steps_that_do_not_fit_the_model_keep_it_from_serving_and_say_why() {
    for (from, to, says) in [
        ("    \"hue\",\n", "", "expected fields that fill a row of [-1, 13], which is 13 elements, given 12"),
        (
            "\"top_k\", k = 3",
            "\"top_k\", k = 0",
            "[[predict.output]] cultivar: top_k of \"probabilities\": expected k of at least 1, given 0",
        ),
        ("tensor = \"probabilities\"", "tensor = \"scores\"", "expected one of the outputs label, probabilities"),
        ("kind = \"record\"", "kind = \"table\"", "failed to read [predict]: unknown variant `table`"),
        (
            "labels = [\"cultivar 1\", \"cultivar 2\", \"cultivar 3\"]\n\n[[predict",
            "labels = [\"a\"]\n\n[[predict",
            "expected 3 labels, given 1",
        ),
    ] {
        let folder = changed(|manifest| manifest.replacen(from, to, 1));
        let gateway = gateway_of(folder.path().to_owned(), Limits::default()).await;
        let answer = post(&gateway, WINE, &wine()).await;
        assert!(
            answer.status == 503 && answer.json()["error"]["message"].as_str().unwrap().contains(says),
            "{}",
            answer.text()
        );
    }
    let tensors = changed(|manifest| {
        let (before, rest) = manifest.split_once("[[predict.input]]").unwrap();
        before.to_owned() + &rest[rest.find("[provenance]").unwrap()..]
    });
    let gateway = gateway_of(tensors.path().to_owned(), Limits::default()).await;
    let answer = post(&gateway, WINE, &wine()).await;
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (400, &"tensors_only".into()));
}

#[tokio::test]
async fn a_prediction_that_takes_too_long_is_given_up_by_name_and_strangers_are_not_answered() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("slow/1");
    std::fs::create_dir_all(&place).unwrap();
    std::fs::write(place.join("model"), "slow").unwrap();
    let digest = forebay::base::Digest::of(b"slow");
    let manifest = format!(
        "[model]\nname = \"slow\"\nversion = 1\nfile = \"model\"\nsha256 = \"{digest}\"\nformat = \"mean\"\nlicense = \"MIT\"\n\
         [serving]\nwarm_up_runs = 0\n\
         [[input]]\nname = \"x\"\ndatatype = \"FP32\"\nshape = [1, 2]\n\
         [[output]]\nname = \"score\"\ndatatype = \"FP32\"\nshape = [1, 1]\nunit = \"mm\"\n\
         [[predict.input]]\nkind = \"series\"\nwindow = 2\nstride = 1\n\
         [[predict.output]]\nname = \"mean\"\nsteps = [\"quantity\"]\n"
    );
    std::fs::write(place.join("manifest.toml"), manifest).unwrap();
    let http = Config { address: "127.0.0.1:0".parse().unwrap(), request_timeout_ms: 400, ..Config::default() };
    let setup = Setup { models: Some(folder.path().to_owned()), http, streams: &[], ..Setup::default() };
    let (gateway, gate) = slow_gateway(setup).await;
    let late = post(&gateway, "/v1/models/slow/predict", &json!([1, 3, 5])).await;
    assert_eq!((late.status, &late.json()["error"]["code"]), (504, &"deadline".into()), "{}", late.text());
    gate.open(1 << 20);
    let windows = post(&gateway, "/v1/models/slow/predict", &json!([1, 3, 5])).await.json();
    let mean = |instance: u64, first: u64, value: f64| json!({"instance": instance, "first_reading": first, "mean": {"value": value, "unit": "mm"}});
    assert_eq!(windows["predictions"], json!([mean(0, 0, 2.0), mean(0, 1, 4.0)]));

    let closed = Setup { models: Some(bundled()), access: AccessConfig::default(), streams: &[], ..Setup::default() }
        .start()
        .await;
    assert_eq!(post(&closed, WINE, &wine()).await.status, 401);
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

#[test]
fn the_example_is_in_order_and_the_command_line_says_what_a_model_takes() {
    let root = bundled().parent().unwrap().to_owned();
    let example = root.join("examples/predict.toml");
    let (code, stdout, stderr) = forebay_says(&["check", "--config", example.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let models = bundled();
    let (code, stdout, stderr) =
        forebay_says(&["model", "show", "wine-cultivar", "--models", models.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("predict    takes record"), "{stdout}");
}
