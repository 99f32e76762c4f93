//! CPU time per inference of the engines, beside ONNX Runtime's on the same files and inputs: one thread, no server.
//!
//! `FOREBAY_PYTHON=... cargo bench --bench engines`: benches/engines.py trains the models and measures ONNX Runtime 1.28.

#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::unwrap_used, missing_docs, reason = "a bench")]

use std::path::Path;
use std::process::Command;

use forebay::base::{Datatype, Name, Tensor};
use forebay::engine::{Classical, Engine, LoadSpec, NamedTensor, Outline, Port, TensorSpec};
use serde_json::Value;

/// CPU time of this thread in microseconds.
fn cpu_us() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse::<f64>().unwrap() / 1000.0
}

fn spec(bytes: Vec<u8>) -> LoadSpec {
    let outline = Outline::of(&bytes).unwrap();
    let port = |port: &Port| TensorSpec {
        name: port.name.as_str().into(),
        datatype: port.datatype.unwrap_or(Datatype::Fp32),
        shape: port.shape().unwrap_or_default(),
    };
    LoadSpec {
        inputs: outline.inputs.iter().map(port).collect(),
        outputs: outline.outputs.iter().map(port).collect(),
        ..LoadSpec::new(Name::new("bench").unwrap(), 1, "onnx", bytes)
    }
}

fn main() {
    let made = tempfile::tempdir().unwrap();
    let kept = std::env::var_os("FOREBAY_ENGINES_MODELS");
    let folder = kept.as_ref().map_or_else(|| made.path().to_owned(), Into::into);
    if !folder.join("models.json").exists() {
        let python = std::env::var("FOREBAY_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/engines.py");
        assert!(Command::new(python).arg(script).arg(&folder).status().unwrap().success());
    }
    let told: Value = serde_json::from_slice(&std::fs::read(folder.join("models.json")).unwrap()).unwrap();
    let width = usize::try_from(told["features"].as_u64().unwrap()).unwrap();
    let all = std::fs::read(folder.join("X.bin")).unwrap();
    let all = Tensor::from_bytes(Datatype::Fp32, [all.len() / 4 / width, width], all.into()).unwrap();
    let all = all.as_slice::<f32>().unwrap();
    println!("CPU time per inference in microseconds, {width} features, one thread; the least of five");
    println!("{:<36} {:>6} {:>10} {:>12} {:>12} {:>7}", "model", "batch", "classical", "ORT bound", "ORT run", "ratio");
    let reference = |of: &Value, batch: usize, way: &str| of[batch.to_string()][way].as_f64().unwrap();
    for batch in [1, 8, 1000] {
        let (bound, run) = (reference(&told["nothing"], batch, "bound"), reference(&told["nothing"], batch, "run"));
        println!("{:<36} {batch:>6} {:>10} {bound:>12.2} {run:>12.2}", "Identity (the call alone)", "");
    }
    for model in told["models"].as_array().unwrap() {
        let spec = spec(std::fs::read(folder.join(model["file"].as_str().unwrap())).unwrap());
        Classical.suits(&spec).unwrap();
        let session = Classical.load(&spec).unwrap();
        for batch in [1, 8, 1000] {
            let table = |at: usize| {
                let start = at * 4 % (4000 - batch) * width;
                let tensor = Tensor::new([batch, width], all[start..start + batch * width].to_vec()).unwrap();
                vec![NamedTensor::new("X", tensor)]
            };
            let tables: Vec<_> = (0..64).map(table).collect();
            let rounds = 400_000 / (batch + 39);
            let mut best = f64::MAX;
            for _ in 0..5 {
                let start = cpu_us();
                for at in 0..rounds {
                    std::hint::black_box(session.run(&tables[at % 64]).unwrap());
                }
                best = best.min((cpu_us() - start) / rounds as f64);
            }
            let (bound, run) =
                (reference(&model["reference"], batch, "bound"), reference(&model["reference"], batch, "run"));
            let name = model["name"].as_str().unwrap();
            println!("{name:<36} {batch:>6} {best:>10.2} {bound:>12.2} {run:>12.2} {:>7.2}", best / bound);
        }
    }
}
