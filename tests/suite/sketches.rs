//! Summaries' sketches are read by the library that everybody else uses: Apache DataSketches for Python, from PyPI.

use std::io::Write as _;
use std::process::{Command, Stdio};

use forebay::signal::{Distinct, Notes, Quantiles, Reading, SketchConfig, Summing, Values};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::gateway::said;

/// Reads `{"windows": [{"kll", "hll"}]}` in hex; prints what it makes of each and of all of them merged.
const PYTHON: &str = r#"
import json, sys
try:
    import datasketches as ds
except ImportError:
    sys.exit("datasketches cannot be imported: python3 -m pip install datasketches==5.2.0, and name the interpreter in FOREBAY_PYTHON")
RANKS = [i / 100 for i in range(101)]
def quantiles(kll):
    return {"n": kll.n, "k": kll.k, "min": kll.get_min_value(), "max": kll.get_max_value(),
            "quantiles": [kll.get_quantile(rank, True) for rank in RANKS]}
windows, merged, union = [], ds.kll_floats_sketch(200), ds.hll_union(8)
for window in json.load(sys.stdin)["windows"]:
    kll = ds.kll_floats_sketch.deserialize(bytes.fromhex(window["kll"]))
    hll = ds.hll_sketch.deserialize(bytes.fromhex(window["hll"]))
    again = ds.hll_sketch(8, ds.HLL_4)
    for value in window["values"]:
        again.update(value)
    merged.merge(kll)
    union.update(hll)
    windows.append({**quantiles(kll), "estimate": hll.get_estimate(), "same": again.get_estimate(),
                    "kll": kll.serialize().hex()})
print(json.dumps({"windows": windows, "merged": {**quantiles(merged), "estimate": union.get_result().get_estimate()}}))
"#;

fn python(input: &Value) -> Value {
    let interpreter = std::env::var("FOREBAY_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let mut child = Command::new(&interpreter)
        .args(["-c", PYTHON])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{interpreter}: {error}; name a Python 3 in FOREBAY_PYTHON"));
    child.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
    let (code, stdout, stderr) = said(child.wait_with_output().unwrap());
    assert_eq!(code, Some(0), "{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

/// The sketches of a window of these values: quantiles, different values.
fn sketches(values: &[f64]) -> (Vec<u8>, Vec<u8>) {
    let mut summing = Summing::default();
    for (at, value) in values.iter().enumerate() {
        let (time_ms, values) = (at as i64, Values::from_slice(&[*value]));
        summing.push(&Reading { time_ms, arrival_ms: time_ms, values, notes: Notes::NONE, gap: None }, None);
    }
    let field = summing.finish(&SketchConfig::default()).unwrap().fields.remove(0);
    (field.quantiles.unwrap(), field.distinct.unwrap())
}

/// How far the rank of each percentile is off, at worst.
fn rank_error(quantiles: &[f64], values: &[f64]) -> f64 {
    let mut sorted: Vec<f64> = values.iter().map(|value| f64::from(*value as f32)).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let n = sorted.len() as f64;
    let off = |(percent, value): (usize, &f64)| {
        let rank = percent as f64 / 100.0;
        let below = sorted.partition_point(|other| other < value) as f64 / n;
        let up_to = sorted.partition_point(|other| other <= value) as f64 / n;
        (below - rank).max(rank - up_to)
    };
    quantiles.iter().enumerate().map(off).fold(0.0, f64::max)
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

#[test]
fn python_reads_every_window_and_merges_eight_as_exactly_as_we_do() {
    let mut rng = StdRng::seed_from_u64(7);
    // Eight windows of a drifting machine; then sizes at which the format changes its shape.
    let mut windows: Vec<Vec<f64>> =
        (0..8).map(|hour| (0..2048).map(|_| 60.0 + f64::from(hour) + rng.random::<f64>() * 30.0).collect()).collect();
    for size in [1, 2, 8, 9, 63, 64, 65, 127, 129, 200, 1000, 2047, 5000] {
        windows.push((0..size).map(|_| (rng.random::<f64>() * 40.0).floor()).collect());
    }
    let ours: Vec<_> = windows.iter().map(|window| sketches(window)).collect();
    let say =
        |at: usize| json!({ "kll": hex::encode(&ours[at].0), "hll": hex::encode(&ours[at].1), "values": windows[at] });
    let eight = python(&json!({ "windows": (0..8).map(say).collect::<Vec<_>>() }));
    let others = python(&json!({ "windows": (8..windows.len()).map(say).collect::<Vec<_>>() }));

    let read = eight["windows"].as_array().unwrap().iter().chain(others["windows"].as_array().unwrap());
    for (at, theirs) in read.enumerate() {
        let what = format!("window {at} of {} values", windows[at].len());
        let quantiles = Quantiles::read(&ours[at].0).unwrap();
        assert_eq!(theirs["n"], windows[at].len(), "{what}");
        let here: Vec<_> = (0..=100).map(|percent| quantiles.quantile(f64::from(percent) / 100.0).unwrap()).collect();
        // At the ends it gives what is retained, and the true ends beside it.
        assert_eq!(numbers(&theirs["quantiles"])[1..100], here[1..100], "{what}");
        assert_eq!([theirs["min"].as_f64(), theirs["max"].as_f64()], [Some(here[0]), Some(here[100])], "{what}");
        assert!(rank_error(&here, &windows[at]) <= 1.0 / 64.0 + 1e-9, "{what}");
        assert_eq!(theirs["kll"], hex::encode(&ours[at].0), "{what}: it writes the same bytes again");
        // The estimate is that of a sketch which saw the values in Python, in the same order.
        let (estimate, same) = (theirs["estimate"].as_f64().unwrap(), theirs["same"].as_f64().unwrap());
        assert!((estimate - same).abs() <= 1e-9 * same, "{what}: {estimate}, {same}");
    }

    let all = windows[..8].concat();
    let merged = &eight["merged"];
    let mut quantiles = Quantiles::read(&ours[0].0).unwrap();
    let mut distinct = Distinct::read(&ours[0].1).unwrap();
    for (kll, hll) in &ours[1..8] {
        quantiles.merge(&Quantiles::read(kll).unwrap()).unwrap();
        distinct.merge(&Distinct::read(hll).unwrap());
    }
    assert_eq!(merged["n"], all.len());
    let here: Vec<_> = (0..=100).map(|percent| quantiles.quantile(f64::from(percent) / 100.0).unwrap()).collect();
    let (theirs, ours) = (rank_error(&numbers(&merged["quantiles"]), &all), rank_error(&here, &all));
    assert!(theirs < 0.02 && ours < 0.02, "rank errors over 8 windows: Python {theirs}, here {ours}");
    let (estimate, here) = (merged["estimate"].as_f64().unwrap(), distinct.estimate());
    assert!((estimate - here).abs() <= 1e-9 * here, "Python {estimate}, here {here}");
    assert!((here / all.len() as f64 - 1.0).abs() < 0.2, "{here} of {}", all.len());
    eprintln!(
        "rank error over 8 merged windows: Python {theirs:.4}, here {ours:.4}; different values {here:.0} of {}",
        all.len()
    );
}
