//! A model that is absent, torn or no model at all: the stream goes on without scores and says so everywhere.

use std::path::{Path, PathBuf};

use crate::gateway::{Gateway, MACHINE, Setup, forebay_says};

fn bundled() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models")
}

/// A folder with a copy of the bundled model, its files passed through `change`.
fn models(change: impl Fn(&str, Vec<u8>) -> Option<Vec<u8>>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let version = folder.path().join("machine-temperature/1");
    std::fs::create_dir_all(&version).unwrap();
    for name in ["manifest.toml", "model.onnx"] {
        let bytes = std::fs::read(bundled().join("machine-temperature/1").join(name)).unwrap();
        if let Some(bytes) = change(name, bytes) {
            std::fs::write(version.join(name), bytes).unwrap();
        }
    }
    folder
}

/// Starts a gateway with these models and publishes 150 readings: kept, judged by nobody, and `problem` said at
/// `/healthz` and, with exit code 0, by `forebay check`.
fn assert_goes_on(models: &Path, problem: &str, checks: bool) -> Gateway {
    let gateway = Gateway::with(&Setup { models: Some(models), more: MACHINE, ..Setup::default() });
    let readings: Vec<_> = (1..=150)
        .map(|n| format!(r#"{{"n":{n},"time":"2013-12-02 21:{:02}:{:02}","value":{n}}}"#, n / 60, n % 60))
        .collect();
    let (status, answer) = gateway.post("/api/v1/streams/machine/readings", &format!("[{}]", readings.join(",")));
    assert_eq!((status, &answer["count"]), (202, &150.into()), "{answer}");
    let readings = gateway.readings("machine");
    assert!(readings.iter().all(|reading| reading["score"].is_null() && reading["state"] == "unscored"));
    let health = gateway.get("/readyz");
    assert_eq!(health["ready"], true);
    let problems: Vec<_> =
        gateway.get("/healthz")["problems"].as_array().unwrap().iter().map(ToString::to_string).collect();
    let problems = problems.join("\n");
    assert!(problems.contains(problem), "{problem:?} is not in {problems}");
    assert!(problems.contains("stream machine goes on without scores"), "{problems}");
    let config = gateway.folder.path().join("forebay.toml");
    let (code, stdout, stderr) = forebay_says(&["check", "--config", config.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    if checks {
        assert!(stdout.contains("problem: ") && stdout.contains("without scores"), "{stdout}");
        assert!(stdout.contains(problem), "{problem:?} is not in {stdout}");
    }
    gateway
}

#[test]
fn an_absent_model_leaves_its_stream_without_scores() {
    let empty = tempfile::tempdir().unwrap();
    let gateway = assert_goes_on(empty.path(), "machine-temperature", true);
    assert_eq!(gateway.get("/api/v1/models")["models"].as_array().unwrap().len(), 0);
}

#[test]
fn a_model_file_that_changed_since_its_manifest_is_not_run() {
    let torn = models(|name, mut bytes| {
        if name == "model.onnx" {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        Some(bytes)
    });
    assert_goes_on(torn.path(), "sha256", true);
    let (code, _, stderr) = forebay_says(&["model", "list", "--models", torn.path().to_str().unwrap()]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("sha256") && stderr.contains("model.onnx"), "{stderr}");
}

#[test]
fn a_missing_model_file_is_named() {
    let gone = models(|name, bytes| (name != "model.onnx").then_some(bytes));
    assert_goes_on(gone.path(), "model.onnx", true);
}

#[test]
fn a_broken_manifest_is_named_with_its_line() {
    let broken = models(|name, bytes| {
        let text = String::from_utf8(bytes.clone());
        Some(if name == "manifest.toml" {
            text.unwrap().replace("version = 1", "version = \"one\"").into()
        } else {
            bytes
        })
    });
    assert_goes_on(broken.path(), "manifest.toml:4:", true);
}

#[test]
fn a_file_that_is_no_onnx_is_listed_as_not_serving() {
    let garbage = b"this is not a model";
    let manifest = std::fs::read_to_string(bundled().join("machine-temperature/1/manifest.toml")).unwrap();
    let digest = manifest.lines().find_map(|line| line.strip_prefix("sha256 = \"")).unwrap().trim_end_matches('"');
    let fake = models(|name, _| {
        let right = forebay::base::Digest::of(garbage).to_string();
        Some(if name == "manifest.toml" { manifest.replacen(digest, &right, 1).into() } else { garbage.to_vec() })
    });
    let gateway = assert_goes_on(fake.path(), "machine-temperature", false);
    let models = gateway.get("/api/v1/models");
    assert_eq!(
        (&models["models"][0]["name"], &models["models"][0]["serving"]),
        (&"machine-temperature".into(), &false.into())
    );
    assert!(models["models"][0]["problem"].is_string(), "{models}");
}

#[test]
fn the_bundled_model_is_listed_and_shown() {
    let folder = bundled();
    let folder = folder.to_str().unwrap();
    let (code, stdout, stderr) = forebay_says(&["model", "list", "--models", folder]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    let line = stdout.lines().find(|line| line.starts_with("machine-temperature")).unwrap();
    assert!(line.contains("onnx"), "{stdout}");
    let (code, stdout, _) = forebay_says(&["model", "show", "machine-temperature", "--models", folder]);
    assert_eq!(code, Some(0));
    for word in [
        "machine-temperature version 1",
        "sha256",
        "input      window FP32 [-1, 144]",
        "thresholds",
        "provenance",
        "quality",
    ] {
        assert!(stdout.contains(word), "no {word} in {stdout}");
    }
    let (code, _, stderr) = forebay_says(&["model", "show", "machine-temprature", "--models", folder]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("did you mean `machine-temperature`?"), "{stderr}");
}
