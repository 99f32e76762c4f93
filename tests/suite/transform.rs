//! Steps against the programs that training code uses. `tests/transform.py` asks PIL, scipy and tokenizers and computes
//! what torchvision does; here the same inputs must become the same numbers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use bytes::Bytes;
use forebay::base::{Datatype, SystemClock, Tensor};
use forebay::transform::{Content, Kind, Limits, Named, Plan, Port, Prediction, Words, Work};
use serde_json::Value;

use crate::gateway::said;

struct Made {
    cases: Value,
    folder: tempfile::TempDir,
}

static MADE: LazyLock<Made> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let interpreter = std::env::var("FOREBAY_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transform.py");
    let output = Command::new(&interpreter).arg(script).arg(folder.path()).output();
    let output = output.unwrap_or_else(|error| panic!("{interpreter}: {error}; name a Python 3 in FOREBAY_PYTHON"));
    let (code, stdout, stderr) = said(output);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let cases = serde_json::from_slice(&std::fs::read(folder.path().join("cases.json")).unwrap()).unwrap();
    Made { cases, folder }
});

impl Made {
    fn path(&self, name: &Value) -> PathBuf {
        self.folder.path().join(name.as_str().unwrap())
    }

    fn read(&self, name: &Value) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    fn tensor(&self, described: &Value) -> Tensor {
        let shape: Vec<usize> = serde_json::from_value(described["shape"].clone()).unwrap();
        let datatype = Datatype::named(described["datatype"].as_str().unwrap()).unwrap();
        Tensor::from_bytes(datatype, shape, self.read(&described["file"]).into()).unwrap()
    }

    fn plan(&self, predict: &str, inputs: &[Port], outputs: &[Port]) -> Result<Plan, String> {
        let file = |name: &str| std::fs::read(self.folder.path().join(name)).map_err(|error| error.to_string());
        Plan::build(&predict.parse().unwrap(), inputs, outputs, &file).map_err(|error| error.to_string())
    }
}

fn port(described: &Value, labels: &Value) -> Port {
    Port {
        name: described["name"].as_str().unwrap().to_owned(),
        datatype: Datatype::named(described["datatype"].as_str().unwrap()).unwrap(),
        shape: serde_json::from_value(described["shape"].clone()).unwrap(),
        labels: serde_json::from_value(labels.clone()).unwrap_or_default(),
        unit: None,
    }
}

fn ports(described: &Value) -> Vec<Port> {
    described.as_array().unwrap().iter().map(|one| port(one, &Value::Null)).collect()
}

fn out() -> Port {
    Port { name: "y".to_owned(), datatype: Datatype::Fp32, shape: vec![-1, 1], labels: Vec::new(), unit: None }
}

/// Largest and mean difference, or what is odd.
fn apart(expected: &Tensor, given: &Tensor) -> Result<(f64, f64), String> {
    if expected.shape() != given.shape() || expected.datatype() != given.datatype() {
        return Err(format!(
            "{:?} of {} and {:?} of {}",
            expected.shape(),
            expected.datatype(),
            given.shape(),
            given.datatype()
        ));
    }
    let (left, right) = (expected.to_numbers().unwrap(), given.to_numbers().unwrap());
    let apart: Vec<f64> = left.iter().zip(&right).map(|(a, b)| (a - b).abs()).collect();
    let most = apart.iter().copied().fold(0.0, f64::max);
    Ok((most, apart.iter().sum::<f64>() / apart.len().max(1) as f64))
}

fn prepare(made: &Made, case: &Value) -> Result<Vec<Named>, String> {
    let plan = made.plan(case["predict"].as_str().unwrap(), &ports(&case["inputs"]), &[out()])?;
    let content = |given: &Value| {
        let text = |key: &str| given[key].as_str().map(str::to_owned);
        vec![match text("text") {
            Some(words) => Content::Words(Words { text: words, pair: text("pair") }),
            None => Content::File(Bytes::from(made.read(&given["file"]))),
        }]
    };
    let instances: Vec<_> = case["contents"].as_array().unwrap().iter().map(content).collect();
    let (limits, clock) = (Limits::default(), SystemClock::new());
    let mut work = Work::new(&limits, &clock, &|| false);
    let mut runs = plan.prepare(&instances, &mut work).map_err(|error| error.to_string())?;
    if runs.len() == 1 { Ok(runs.remove(0).inputs) } else { Err(format!("{} runs", runs.len())) }
}

fn check(made: &Made, case: &Value) -> Result<(), String> {
    let inputs = prepare(made, case)?;
    for (name, expected) in case["expected"].as_object().unwrap() {
        let given = inputs.iter().find(|input| input.name == *name).ok_or_else(|| format!("no {name}"))?;
        let (most, mean) = apart(&made.tensor(expected), &given.tensor)?;
        let (most_bound, mean_bound) = (case["tolerance"].as_f64().unwrap(), case["mean_tolerance"].as_f64().unwrap());
        if most > most_bound || mean > mean_bound {
            return Err(format!("{name}: {most} at most, {mean} in the mean; allowed {most_bound} and {mean_bound}"));
        }
    }
    Ok(())
}

fn assert_all(of: &str, least: usize, wanted: impl Fn(&str) -> bool, check: impl Fn(&Value) -> Result<(), String>) {
    let cases = MADE.cases[of].as_array().unwrap().iter().filter(|case| wanted(case["name"].as_str().unwrap()));
    let results: Vec<_> = cases.map(|case| (case["name"].as_str().unwrap(), check(case))).collect();
    let failures: Vec<_> = results.iter().filter_map(|(name, result)| Some((name, result.as_ref().err()?))).collect();
    assert!(failures.is_empty(), "{} of {}: {failures:#?}", failures.len(), results.len());
    assert!(results.len() >= least, "only {} cases", results.len());
}

fn is_text(name: &str) -> bool {
    ["wordpiece", "bytepairs", "unigram"].iter().any(|kind| name.starts_with(kind))
}

fn is_sound(name: &str) -> bool {
    name.starts_with("resample") || name.starts_with("stereo")
}

#[test]
fn pictures_become_the_numbers_that_pil_and_torchvision_make_of_them() {
    assert_all("cases", 60, |name| !is_text(name) && !is_sound(name), |case| check(&MADE, case));
}

#[test]
fn sounds_become_the_numbers_that_scipy_makes_of_them() {
    assert_all("cases", 7, is_sound, |case| check(&MADE, case));
}

#[test]
fn texts_become_the_numbers_that_tokenizers_makes_of_them() {
    assert_all("cases", 6, is_text, |case| check(&MADE, case));
}

/// Two JSON values with numbers that are close.
fn close(expected: &Value, given: &Value, tolerance: f64) -> bool {
    match (expected, given) {
        (Value::Number(a), Value::Number(b)) => (a.as_f64().unwrap() - b.as_f64().unwrap()).abs() <= tolerance,
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| close(a, b, tolerance))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| close(a, b, tolerance)))
        }
        _ => expected == given,
    }
}

fn finish(made: &Made, post: &Value) -> Result<Prediction, String> {
    let outputs = post["outputs"].as_array().unwrap();
    let ports: Vec<Port> = outputs.iter().map(|output| port(output, &post["labels"])).collect();
    let picture = &post["picture"];
    let side = picture["side"].as_u64().unwrap_or(0);
    let (input, shape, content) = if picture.is_null() {
        let record = Content::Json(serde_json::json!([0]));
        ("kind = \"record\"\nfields = [\"a\"]".to_owned(), vec![-1, 1], record)
    } else {
        let steps = format!("kind = \"image\"\nsteps = [{{ step = \"letterbox\", width = {side}, height = {side} }}]");
        (steps, vec![-1, 3, side as i64, side as i64], Content::File(made.read(&picture["file"]).into()))
    };
    let predict = format!("[[input]]\n{input}\n[[output]]\n{}", post["output"].as_str().unwrap());
    let x = Port { name: "x".to_owned(), datatype: Datatype::Fp32, shape, labels: Vec::new(), unit: None };
    let plan = made.plan(&predict, &[x], &ports)?;
    let (limits, clock) = (Limits::default(), SystemClock::new());
    let mut work = Work::new(&limits, &clock, &|| false);
    let runs = plan.prepare(&[vec![content]], &mut work).map_err(|error| error.to_string())?;
    let named = |output: &Value| Named {
        name: output["name"].as_str().unwrap().to_owned(),
        tensor: made.tensor(&output["tensor"]),
    };
    let given = vec![outputs.iter().map(named).collect()];
    let mut predictions = plan.finish(&runs, &given, &mut work).map_err(|error| error.to_string())?;
    Ok(predictions.remove(0))
}

#[test]
fn outputs_become_the_classes_and_boxes_that_the_definitions_give() {
    assert_all(
        "posts",
        8,
        |_| true,
        |post| {
            let prediction = finish(&MADE, post)?;
            let given = serde_json::to_value(&prediction.answers[0].1).unwrap();
            let same = close(&post["expected"], &given, post["tolerance"].as_f64().unwrap());
            if same { Ok(()) } else { Err(format!("expected {}\n given {given}", post["expected"])) }
        },
    );
}

#[test]
fn pictures_that_are_bombs_torn_or_none_are_refused_before_they_cost_anything() {
    let x = Port {
        name: "x".to_owned(),
        datatype: Datatype::Uint8,
        shape: vec![-1, 3, -1, -1],
        labels: Vec::new(),
        unit: None,
    };
    let plan =
        Plan::build(&"[[input]]\nkind = \"image\"".parse().unwrap(), &[x], &[out()], &|_| unreachable!()).unwrap();
    assert_eq!(plan.sources()[0].kind, Kind::Image);
    let (limits, clock) = (Limits { image_pixels_max: 10_000, ..Limits::default() }, SystemClock::new());
    let ask = |bytes: &[u8]| {
        let mut work = Work::new(&limits, &clock, &|| false);
        let instance = vec![Content::File(Bytes::copy_from_slice(bytes))];
        plan.prepare(&[instance], &mut work).map(|_| ()).map_err(|error| error.to_string())
    };
    let case = |name: &str| {
        let cases = MADE.cases["cases"].as_array().unwrap();
        let case = cases.iter().find(|case| case["name"] == name).unwrap();
        MADE.read(&case["contents"][0]["file"])
    };
    let png = case("png-rgb");
    ask(&png).unwrap();
    // Its header says 65,535 x 65,535; the checksum of the chunk is made right, so that it is believed.
    let mut bomb = png.clone();
    bomb[16..24].copy_from_slice(&[0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff]);
    let sum = crc32fast_of(&bomb[12..29]);
    bomb[29..33].copy_from_slice(&sum.to_be_bytes());
    assert_eq!(
        ask(&bomb).unwrap_err(),
        "image has 65535 x 65535 pixels, the most is 10000 in all (predict.image_pixels_max)"
    );
    let jpeg = case("exif-1-jpeg");
    ask(&jpeg).unwrap();
    let frame = jpeg.windows(2).position(|pair| pair == [0xff, 0xc0]).unwrap();
    let mut bomb = jpeg.clone();
    bomb[frame + 5..frame + 9].copy_from_slice(&[0xff, 0xff, 0xff, 0xff]);
    assert!(ask(&bomb).unwrap_err().contains("65535 x 65535 pixels"));
    for (name, whole) in [("png", &png), ("jpeg", &jpeg), ("progressive", &case("jpeg-progressive"))] {
        for length in (0..whole.len() - 12).step_by(whole.len() / 60 + 1) {
            assert!(ask(&whole[..length]).is_err(), "{name}: {length} of {} bytes", whole.len());
        }
        // Whatever becomes of flipped bits, it is an answer and no panic.
        for at in (0..whole.len()).step_by(whole.len() / 200 + 1) {
            let mut flipped = whole.to_vec();
            flipped[at] ^= 0x55;
            let _ = ask(&flipped);
        }
    }
    assert!(ask(b"").unwrap_err().contains("expected a JPEG or PNG, given nothing"));
    assert!(ask(b"GIF89a\0\0").unwrap_err().contains("given bytes that begin 474946383961"));
}

/// PNG's checksum.
fn crc32fast_of(bytes: &[u8]) -> u32 {
    let step = |sum: u32| if sum & 1 == 1 { (sum >> 1) ^ 0xedb8_8320 } else { sum >> 1 };
    let whole = bytes.iter().fold(u32::MAX, |sum, &byte| (0..8).fold(sum ^ u32::from(byte), |sum, _| step(sum)));
    !whole
}
