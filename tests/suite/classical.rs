//! The evaluator for classical models against ONNX Runtime, on what scikit-learn, XGBoost and LightGBM train and on the
//! ONNX project's node tests. `tests/classical.py` trains and asks ONNX Runtime; here the same files answer the same inputs.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use forebay::base::{Datatype, Name, SystemClock, Tensor};
use forebay::engine::{self, Classical, Handle, LoadSpec, NamedTensor, Outline, Pool, TensorSpec};
use serde_json::Value;

use crate::gateway::said;

/// Cases that may differ, each with its reason.
const EXPECTED_FAILURES: &[(&str, &str)] = &[];

fn pool() -> Pool {
    let engines: Vec<Arc<dyn engine::Engine>> = vec![Arc::new(Classical)];
    Pool::start(&engine::Config::default(), engines, Arc::new(SystemClock::new())).unwrap()
}

/// A model as its file describes it; what is a map there is a tensor here.
pub(crate) fn spec_of(bytes: &[u8]) -> LoadSpec {
    let outline = Outline::of(bytes).unwrap();
    let spec = |port: &engine::Port| TensorSpec {
        name: port.name.as_str().into(),
        datatype: port.datatype.unwrap_or(Datatype::Fp32),
        shape: port.shape().unwrap_or_else(|| vec![-1, -1]),
    };
    // What exporters say of an output's shape is often wrong; its rank is not.
    let freed = |port: &engine::Port| TensorSpec { shape: spec(port).shape.iter().map(|_| -1).collect(), ..spec(port) };
    LoadSpec {
        // Also for those without an operator of ai.onnx.ml, which it leaves to others unless it is asked.
        engine: Some("classical".to_owned()),
        inputs: outline.inputs.iter().map(spec).collect(),
        outputs: outline.outputs.iter().map(freed).collect(),
        allow_non_finite: true,
        ..LoadSpec::new(Name::new("case").unwrap(), 1, "onnx", bytes)
    }
}

pub(crate) fn read(folder: &Path, tensor: &Value) -> Tensor {
    let shape: Vec<usize> = serde_json::from_value(tensor["shape"].clone()).unwrap();
    let datatype = Datatype::named(tensor["datatype"].as_str().unwrap()).unwrap();
    let bytes = std::fs::read(folder.join(tensor["file"].as_str().unwrap())).unwrap();
    Tensor::from_bytes(datatype, shape, bytes.into()).unwrap()
}

/// The first difference, if there is one. Labels and texts are the same or they are not.
fn difference(expected: &Tensor, given: &Tensor, tolerance: f64) -> Option<String> {
    if expected.shape() != given.shape() || expected.datatype() != given.datatype() {
        return Some(format!("{expected:?} and {given:?}"));
    }
    let (Some(left), Some(right)) = (expected.to_numbers(), given.to_numbers()) else {
        return (expected.bytes() != given.bytes()).then(|| "texts differ".to_owned());
    };
    let exact = !matches!(expected.datatype(), Datatype::Fp32 | Datatype::Fp64);
    let close = |a: f64, b: f64| {
        a == b || (a.is_nan() && b.is_nan()) || (!exact && (a - b).abs() <= tolerance * a.abs().max(1.0))
    };
    let at = left.iter().zip(&right).position(|(&a, &b)| !close(a, b))?;
    Some(format!("element {at} of {:?}: {} and {}", expected.shape(), left[at], right[at]))
}

fn check(folder: &Path, pool: &Pool) -> Result<usize, String> {
    let case: Value = serde_json::from_slice(&std::fs::read(folder.join("case.json")).unwrap()).unwrap();
    let handle: Handle =
        pool.load(&spec_of(&std::fs::read(folder.join("model.onnx")).unwrap())).map_err(|error| error.to_string())?;
    let tolerance = case["tolerance"].as_f64().unwrap();
    let mut compared = 0;
    for (number, batch) in case["batches"].as_array().unwrap().iter().enumerate() {
        let inputs = batch["inputs"].as_object().unwrap().iter();
        let inputs = inputs.map(|(name, tensor)| NamedTensor::new(name.as_str(), read(folder, tensor))).collect();
        let expected = batch["outputs"].as_object().unwrap();
        let answer = handle.infer_blocking(inputs, None);
        let outputs = match answer {
            Ok(outputs) => outputs.tensors,
            // Where the reference has no answer, an error is one; a panic is not.
            Err(engine::Error::Run { .. }) if expected.is_empty() => continue,
            Err(error) => return Err(format!("batch {number}: {error}")),
        };
        let by_name: BTreeMap<_, _> = outputs.iter().map(|output| (&*output.name, &output.tensor)).collect();
        for (name, tensor) in expected {
            let given = by_name.get(name.as_str()).ok_or_else(|| format!("batch {number}: no output {name}"))?;
            if let Some(what) = difference(&read(folder, tensor), given, tolerance) {
                return Err(format!("batch {number}, output {name}: {what}"));
            }
            compared += 1;
        }
    }
    Ok(compared)
}

#[test]
fn classical_models_answer_as_onnx_runtime_does() {
    let made = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("FOREBAY_CLASSICAL_CASES");
    let folder = kept.as_ref().map_or_else(|| made.path().join("cases"), Into::into);
    if kept.is_none() {
        let interpreter = std::env::var("FOREBAY_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/classical.py");
        let output = Command::new(&interpreter).arg(script).arg(&folder).output();
        let output = output.unwrap_or_else(|error| panic!("{interpreter}: {error}; name a Python 3 in FOREBAY_PYTHON"));
        let (code, stdout, stderr) = said(output);
        assert_eq!(code, Some(0), "{stdout}{stderr}");
    }
    let pool = pool();
    let mut cases: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    let (mut failures, mut compared) = (Vec::new(), 0);
    for case in &cases {
        let name = case.file_name().unwrap().to_str().unwrap();
        let expected = EXPECTED_FAILURES.iter().find(|(known, _)| *known == name);
        match (check(case, &pool), expected) {
            (Ok(count), None) => compared += count,
            (Err(_), Some(_)) => {}
            (Ok(_), Some((_, reason))) => failures.push(format!("{name} agrees now; it was expected not to: {reason}")),
            (Err(what), None) => failures.push(format!("{name}: {what}")),
        }
    }
    assert!(failures.is_empty(), "{} of {} cases:\n{}", failures.len(), cases.len(), failures.join("\n"));
    assert!(kept.is_some() || compared > 1000, "{compared} tensors of {} cases", cases.len());
}
