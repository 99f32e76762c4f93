//! Streams that are scored by a pipeline.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::gateway::forebay_says;
use crate::http_fixture::{Gateway, Setup};
use crate::pipelines_fixture::{PLAIN, ROWS, Scribe, asks, write};

/// The stream's model: four readings in, the first of what `part` makes of them out.
fn scoring(folder: &Path, inputs: &str) {
    let ports = format!(
        "{inputs}[[output]]\nname = \"score\"\ndatatype = \"FP32\"\nshape = [1, 1]\n\
         [normalise]\nmethod = \"zscore\"\nmean = 70.0\nstd = 5.0\n"
    );
    let steps = asks("part", "part", "window")
        + "[[step]]\nname = \"first\"\nstep = \"slice\"\ninput = \"part.p\"\naxis = 1\nto = 1\n[output]\nscore = \"first\"\n";
    write(folder, "machine-temperature", 1, "pipeline", &steps, &ports);
}

const WINDOW: &str = "[[input]]\nname = \"window\"\ndatatype = \"FP32\"\nshape = [1, 4]\n";

fn part(folder: &Path, version: u32, does: &str, more: &str) {
    let rows = ROWS.replace("[-1, 3]", "[-1, 4]");
    write(folder, "part", version, "scribe", does, &format!("{rows}{PLAIN}{more}"));
}

async fn gateway(folder: &Path, catalog: &'static str, streams: &'static [&'static str]) -> Gateway {
    let setup = Setup {
        models: Some(folder.to_owned()),
        engines: vec![Arc::new(Scribe::default())],
        catalog,
        streams,
        access: toml::from_str("allow_anonymous_loopback = true\nanonymous_manage_models = true").unwrap(),
        ..Setup::default()
    };
    setup.start().await
}

async fn scores(gateway: &Gateway, stream: &str) -> Vec<Value> {
    let answer = gateway.get(&format!("/api/v1/streams/{stream}/readings")).await.json();
    answer["readings"].as_array().unwrap().iter().map(|reading| reading["score"].clone()).collect()
}

#[tokio::test]
async fn a_stream_is_scored_by_a_pipeline_and_keeps_its_models() {
    let folder = tempfile::tempdir().unwrap();
    scoring(folder.path(), WINDOW);
    part(folder.path(), 1, "scale 3", "load = \"request\"\n");
    let gateway = gateway(folder.path(), "", &["machine"]).await;
    // (80 - 70) / 5 * 3, from the fourth on.
    gateway.feed("machine", [80.0; 6]).await;
    let mut told = scores(&gateway, "machine").await;
    told.sort_by_key(|score| score.as_f64().map(f64::to_bits));
    assert_eq!(told, [Value::Null, Value::Null, Value::Null, json!(6.0), json!(6.0), json!(6.0)]);
    let health = gateway.get("/healthz").await.json();
    assert_eq!(health["problems"], json!([]), "{health}");
    // Readings are nobody's requests.
    for model in ["part", "machine-temperature"] {
        let served = gateway.get(&format!("/v2/models/{model}/stats")).await.json();
        assert_eq!(served["model_stats"][0]["inference_count"], 0, "{served}");
        let answer = gateway.post(&format!("/v2/repository/models/{model}/unload"), &[], b"").await;
        let says = format!("{model} scores the readings of machine, so it stays loaded");
        assert!(answer.status == 400 || answer.status == 409, "{}", answer.text());
        assert!(answer.text().contains(&says), "{}", answer.text());
    }
}

#[tokio::test]
async fn a_streams_readings_come_to_one_version_of_what_its_pipeline_asks() {
    let folder = tempfile::tempdir().unwrap();
    scoring(folder.path(), WINDOW);
    part(folder.path(), 1, "scale 3", "");
    part(folder.path(), 2, "scale 9", "");
    const STREAMS: &[&str] = &["a", "b", "c", "d", "e", "f", "g", "h"];
    let gateway = gateway(folder.path(), "[models.part.traffic]\nsplit = { 1 = 1, 2 = 1 }\n", STREAMS).await;
    let mut seen = BTreeSet::new();
    for stream in STREAMS {
        gateway.feed(stream, [80.0; 12]).await;
        let told: BTreeSet<_> = scores(&gateway, stream).await.iter().filter_map(Value::as_i64_of_float).collect();
        assert_eq!(told.len(), 1, "{stream}: {told:?}");
        seen.extend(told);
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), [6, 18]);
}

/// Whole numbers that are written as floats.
trait Whole {
    fn as_i64_of_float(&self) -> Option<i64>;
}

impl Whole for Value {
    fn as_i64_of_float(&self) -> Option<i64> {
        self.as_f64().map(|number| number as i64)
    }
}

#[tokio::test]
async fn a_pipeline_that_does_not_fit_a_stream_is_told_with_the_port_and_the_stream_goes_on() {
    let two = WINDOW.to_owned() + "[[input]]\nname = \"mask\"\ndatatype = \"BOOL\"\nshape = [1, 4]\n";
    for (inputs, says) in [
        (WINDOW.replace("[1, 4]", "[1, 3]"), "input window of model machine-temperature/1 has shape [1, 3]"),
        (two, "model machine-temperature/1 takes 2 inputs (window, mask); a stream feeds exactly one"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        scoring(folder.path(), &inputs);
        if inputs.contains("mask") {
            let file = folder.path().join("machine-temperature/1");
            let steps = std::fs::read_to_string(file.join("file")).unwrap();
            let read = "[[step]]\nname = \"floats\"\nstep = \"cast\"\ndatatype = \"FP32\"\ninput = \"mask\"\n\
                        [[step]]\nname = \"both\"\nstep = \"mean\"\ninput = [\"window\", \"floats\"]\n";
            let steps = read.to_owned() + &steps.replace("x = \"window\"", "x = \"both\"");
            let manifest = std::fs::read_to_string(file.join("manifest.toml")).unwrap();
            let rest = manifest.split_once("license = \"MIT\"\n").unwrap().1;
            write(folder.path(), "machine-temperature", 1, "pipeline", &steps, rest);
        }
        let rows = if inputs.contains("[1, 3]") { "[-1, 3]" } else { "[-1, 4]" };
        let ports = ROWS.replace("[-1, 3]", rows);
        write(folder.path(), "part", 1, "scribe", "scale 3", &format!("{ports}{PLAIN}"));
        let gateway = gateway(folder.path(), "", &["machine"]).await;
        let health = gateway.get("/healthz").await.json();
        let problem = health["problems"][0].as_str().unwrap();
        assert!(problem.starts_with("stream machine goes on without scores: "), "{problem}");
        assert!(problem.contains(says), "{problem}");
        gateway.feed("machine", [80.0; 6]).await;
        assert!(scores(&gateway, "machine").await.iter().all(Value::is_null));
        // And before it is put to work.
        let config = folder.path().join("forebay.toml");
        let text = format!(
            "[gateway]\nname = \"t\"\n[catalog]\nfolder = {:?}\n[access]\nallow_anonymous_loopback = true\n\
             [[stream]]\nname = \"machine\"\ntopic = \"plant/machine\"\n[stream.signal]\nfields = [{{ name = \"value\" }}]\n\
             window = {{ size = 4, step = 1 }}\n[stream.model]\nname = \"machine-temperature\"\n",
            folder.path()
        );
        std::fs::write(&config, text).unwrap();
        let (_, stdout, stderr) = forebay_says(&["check", "--config", config.to_str().unwrap()]);
        assert!(stdout.contains(says), "{stdout}{stderr}");
    }
}
