//! `forebay model bench`: which engines compute a model, whether they are right, and what the exit code says of it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::delegate_fixture::{DEVICE, Hostile};
use crate::gateway::forebay_says;

fn repository(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path).display().to_string()
}

/// Exit code, answer, complaints.
fn bench(arguments: &[&str]) -> (Option<i32>, String, String) {
    let quick = ["model", "bench", "--seconds", "0.005"];
    forebay_says(&[&quick[..], arguments].concat())
}

fn as_json(arguments: &[&str]) -> (Option<i32>, Value) {
    let (code, answer, complaints) = bench(&[arguments, &["--json"]].concat());
    (code, serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}{complaints}")))
}

fn engine<'a>(answer: &'a Value, name: &str) -> &'a Value {
    let engines = answer["engines"].as_array().unwrap();
    engines.iter().find(|engine| engine["engine"] == name).unwrap_or_else(|| panic!("no {name}: {answer}"))
}

#[test]
fn every_engine_that_takes_a_model_is_measured_and_one_is_named() {
    let folder = repository("tests/fixtures/models");
    let (code, answer) = as_json(&["dense", "--models", &folder, "--batch", "1,4"]);
    assert_eq!((code, &answer["fine"], &answer["model"]), (Some(0), &json!(true), &json!("dense/1")), "{answer}");
    for name in ["tract", "classical"] {
        let one = engine(&answer, name);
        assert_eq!(one["golden"]["right"], true, "{answer}");
        let rows: Vec<_> = one["batches"].as_array().unwrap().iter().map(|batch| &batch["rows"]).collect();
        assert_eq!(rows, [&json!(1), &json!(4)]);
        for batch in one["batches"].as_array().unwrap() {
            assert!(batch["runs"].as_u64() > Some(0), "{answer}");
            let [few, half, most] = ["p10_us", "p50_us", "p99_us"].map(|key| batch[key].as_f64().unwrap());
            assert!(few > 0.0 && few <= half && half <= most, "{answer}");
            assert!(
                batch["cpu_us_per_row"].as_f64().is_some() && batch["rows_per_second"].as_f64() > Some(0.0),
                "{answer}"
            );
        }
        assert!(one["load_ms"].as_f64().is_some() && one["memory_bytes"].as_u64().is_some(), "{answer}");
    }
    assert_eq!(engine(&answer, "tract")["gateway_chooses"], true);
    assert!(engine(&answer, "classical")["difference"]["by"].as_f64() < Some(1e-5), "{answer}");
    assert!(["tract", "classical"].map(Value::from).contains(&answer["use"]), "{answer}");
}

#[test]
fn people_get_a_table_with_refusals_below_it_and_what_to_use_last() {
    let (code, answer, _) = bench(&["wine-cultivar", "--models", &repository("models")]);
    assert_eq!(code, Some(0), "{answer}");
    let lines: Vec<_> = answer.lines().collect();
    assert!(lines[1].starts_with("inputs: 3 golden samples; a row: X [1, 13]"), "{answer}");
    let words: Vec<_> = lines[3].split("  ").map(str::trim).filter(|word| !word.is_empty()).collect();
    let head = [
        "ENGINE",
        "BATCH",
        "P10 µs",
        "P50 µs",
        "P99 µs",
        "CPU µs/row",
        "ROWS/s",
        "LOAD ms",
        "MiB",
        "GOLDEN",
        "DIFFERENCE",
    ];
    assert_eq!(words, head, "{answer}");
    assert!(lines[4].starts_with("classical") && lines[4].contains("3 right"), "{answer}");
    assert!(lines[5].trim_start().starts_with('8'), "{answer}");
    let last = lines.last().unwrap();
    assert!(last.starts_with("Use classical: "), "{answer}");
    assert!(last.ends_with("The gateway chooses it by itself."), "{answer}");
}

#[test]
fn an_engine_that_lacks_an_operator_says_which() {
    let folder = repository("tests/fixtures/triton");
    let (code, answer) = as_json(&["simple_string", "--models", &folder]);
    assert_eq!((code, &answer["use"]), (Some(0), &json!("classical")), "{answer}");
    assert!(engine(&answer, "tract")["refused"].as_str().is_some_and(|reason| !reason.is_empty()), "{answer}");
}

/// mimalloc alone would reserve it, and the kernel would end whoever it likes while it is filled.
#[test]
fn a_model_that_wants_more_memory_than_there_can_be_is_refused_by_everybody() {
    let (code, answer, _) = bench(&[&repository("tests/fixtures/hostile/four-terabytes.onnx")]);
    assert_eq!(code, Some(1), "{answer}");
    assert!(
        answer.contains("classical does not compute it: ") && answer.contains("tract does not compute it: "),
        "{answer}"
    );
}

/// The same model, whose author saw something else.
fn spoilt(folder: &Path) -> PathBuf {
    let version = folder.join("digits/1");
    std::fs::create_dir_all(&version).unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/digits/1");
    std::fs::copy(from.join("model.onnx"), version.join("model.onnx")).unwrap();
    let manifest = std::fs::read_to_string(from.join("manifest.toml")).unwrap();
    std::fs::write(version.join("manifest.toml"), manifest.replace("label = 5", "label = 6")).unwrap();
    version
}

#[test]
fn an_answer_that_differs_from_a_golden_sample_fails_and_says_where() {
    let folder = tempfile::tempdir().unwrap();
    let version = spoilt(folder.path());
    let (code, answer, _) = bench(&[version.to_str().unwrap(), "--engines", "classical"]);
    assert_eq!(code, Some(1), "{answer}");
    assert!(answer.contains("WRONG"), "{answer}");
    assert!(
        answer.contains("than sample 2 has") && answer.contains("output label, element 0: expected 6, given 5"),
        "{answer}"
    );
    assert!(answer.trim_end().ends_with("No engine here computes digits/1 right."), "{answer}");
    let (code, answer) = as_json(&[version.to_str().unwrap(), "--engines", "classical"]);
    assert_eq!((code, &answer["fine"], &answer["use"]), (Some(1), &json!(false), &Value::Null), "{answer}");
    assert_eq!(engine(&answer, "classical")["golden"]["right"], false);
}

#[test]
fn a_bare_file_is_asked_with_numbers_by_chance_or_with_arrays_of_ones_own() {
    let file = repository("tests/fixtures/models/dense/1/model.onnx");
    let (code, answer) = as_json(&[&file]);
    assert_eq!((code, &answer["inputs"]["origin"]), (Some(0), &json!("numbers by chance")), "{answer}");
    assert_eq!(engine(&answer, "tract")["golden"], Value::Null);
    let folder = tempfile::tempdir().unwrap();
    let array = folder.path().join("rows.npy");
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 64), }\n";
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&u16::try_from(header.len()).unwrap().to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(&[0; 3 * 64 * 4]);
    std::fs::write(&array, &bytes).unwrap();
    let (code, answer) = as_json(&[&file, "--samples", array.to_str().unwrap()]);
    assert_eq!((code, &answer["inputs"]["origin"]), (Some(0), &json!("the given samples")), "{answer}");
    let named = format!("y={}", array.display());
    let (code, _, complaints) = bench(&[&file, "--samples", &named]);
    assert!(code == Some(1) && complaints.contains("no input x; expected x"), "{complaints}");
}

#[test]
fn what_cannot_be_measured_says_why_and_what_would_be_right() {
    let (models, fixtures) = (repository("models"), repository("tests/fixtures/models"));
    let folder = tempfile::tempdir().unwrap();
    let torn = folder.path().join("torn.onnx");
    let whole = std::fs::read(Path::new(&fixtures).join("dense/1/model.onnx")).unwrap();
    std::fs::write(&torn, &whole[..whole.len() / 2]).unwrap();
    let (torn, empty) = (torn.display().to_string(), folder.path().join("empty"));
    std::fs::create_dir(&empty).unwrap();
    let empty = empty.display().to_string();
    let cases: [(&[&str], &str); 10] = [
        (&["digit", "--models", &models], "no model `digit` in"),
        (&["digits/7", "--models", &models], "no model `digits` version 7 in"),
        (
            &["digits", "--models", &models, "--engines", "trakt"],
            "no engine `trakt` here: there is classical, tract, transformer; did you mean `tract`?",
        ),
        (&["digits", "--models", &models, "--engines", "onnxruntime-cpu"], "name it with --config"),
        (
            &["digit-page", "--models", &models],
            "digit-page/1 is a pipeline, which engines do not see; measure its models: ",
        ),
        (
            &["dense", "--models", &fixtures, "--shape", "tokens=4"],
            "--shape tokens=4: no free dimension is called so; there is none but the first",
        ),
        (&["dense", "--models", &fixtures, "--batch", "0"], "0 is not in 1..=1024"),
        (&["dense", "--models", &fixtures, "--samples", "nowhere.npy"], "failed to read nowhere.npy"),
        (&[&torn], "failed to read"),
        (&[&empty], "holds neither manifest.toml, nor versions, nor a model file"),
    ];
    for (arguments, expected) in cases {
        let (code, answer, complaints) = bench(arguments);
        assert!(code.is_some_and(|code| code > 0) && answer.is_empty(), "{arguments:?}: {code:?} {answer}");
        assert!(complaints.contains(expected), "{arguments:?}: {complaints}");
    }
}

#[test]
fn devices_of_the_configuration_are_measured_beside_the_engines() {
    let hostile = Hostile::new(&json!({}));
    let config = hostile.folder.path().join("forebay.toml");
    let device = DEVICE.replace("[[device]]", "[[delegate.device]]").replace("[[model]]", "[[delegate.model]]");
    let text = format!(
        "[gateway]\nname = \"box\"\n[catalog]\nfolder = {:?}\n[delegate]\n{}\n{device}",
        repository("tests/fixtures/models"),
        hostile.settings("")
    );
    std::fs::write(&config, text).unwrap();
    let (code, answer) = as_json(&["simple", "--config", config.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{answer}");
    let host = engine(&answer, "onnxruntime-cpu");
    assert_eq!((&host["device"], &host["gateway_chooses"]), (&json!("cpu"), &json!(true)), "{answer}");
    assert_eq!(
        (&host["golden"]["right"], &host["golden"]["difference"]["by"]),
        (&json!(true), &json!(0.0)),
        "{answer}"
    );
    hostile.becomes(&json!({ "wrong": 1 }));
    let (code, answer) = as_json(&["simple", "--config", config.to_str().unwrap()]);
    let refused = engine(&answer, "onnxruntime-cpu")["refused"].as_str().unwrap_or_default().to_owned();
    assert!(code == Some(0) && refused.contains("sample 1"), "a device that is wrong is refused as it loads: {answer}");
    assert!(["tract", "classical"].map(Value::from).contains(&answer["use"]), "{answer}");
}
