//! `models/tools/quantise.py`: what it writes is a repository that our engines compute as right as it says.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use forebay::base::{SystemClock, Tensor};
use forebay::catalog::{self, Catalog, Model};
use forebay::engine::{self, Engine, NamedTensor, Pool, built_in};
use forebay::flows::load_spec;

use crate::gateway::said;

const PIXELS: usize = 64;

fn python(script: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let interpreter = std::env::var("FOREBAY_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
    // No folder with compiled files in the source.
    let output = Command::new(&interpreter).arg("-B").arg(script).args(arguments).output();
    said(output.unwrap_or_else(|error| panic!("{interpreter}: {error}; name a Python 3 in FOREBAY_PYTHON")))
}

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (code, stdout, stderr) = python("tests/quantise.py", &[folder.path().to_str().unwrap()]);
        assert_eq!(code, Some(0), "{stdout}{stderr}");
        Self { folder }
    }

    fn place(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn quantise(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let out = self.place("models");
        let (code, stdout, stderr) = python("models/tools/quantise.py", &[arguments, &["--out", &out]].concat());
        (code, stdout + &stderr)
    }

    /// The part of all rows that `engine` puts into the right class.
    fn top_1(&self, engine: Arc<dyn Engine>, model: &Model) -> Result<f64, engine::Error> {
        let pool = Pool::start(&engine::Config::default(), vec![engine], Arc::new(SystemClock::new()))?;
        // Loading holds the golden samples against what the engine makes of them.
        let handle = pool.load(&load_spec(model).unwrap())?;
        let labels = std::fs::read(self.place("labels.u8")).unwrap();
        let bytes = std::fs::read(self.place("rows.f32")).unwrap();
        let rows = Tensor::from_bytes(forebay::base::Datatype::Fp32, [labels.len(), PIXELS], bytes.into()).unwrap();
        let outputs = handle.infer_blocking(vec![NamedTensor::new("X", rows)], None)?;
        let label = outputs.tensors.iter().find(|output| &*output.name == "label").unwrap();
        let given = label.tensor.to_numbers().unwrap();
        let right = given.iter().zip(&labels).filter(|&(&given, &label)| given == f64::from(label)).count();
        Ok(right as f64 / labels.len() as f64)
    }
}

#[test]
fn a_network_of_scikit_learn_becomes_int8_and_our_engines_are_as_right_as_the_manifest_says() {
    let bench = Bench::new();
    let (network, rows, float) =
        (bench.place("network.joblib"), bench.place("rows.npz"), bench.place("models/small/1"));
    let from = ["sklearn", &network, "--data", &rows, "--name", "small", "--license", "MIT", "--keep-float"];
    let (code, told) = bench.quantise(&from);
    assert_eq!(code, Some(0), "{told}");
    let (code, told) = bench.quantise(&["onnx", &float, "--data", &rows, "--form", "qdq", "--golden", "3"]);
    assert_eq!(code, Some(0), "{told}");
    let (code, told) = bench.quantise(&["onnx", &float, "--data", &rows, "--form", "qoperator"]);
    assert_eq!(code, Some(0), "{told}");

    let folder = PathBuf::from(bench.place("models"));
    let catalog = Catalog::scan(&catalog::Config { folder, ..Default::default() });
    assert!(catalog.problems().is_empty(), "{:?}", catalog.problems());
    let version = |number| catalog.model("small", Some(number)).unwrap();
    let said = |number: u32, key: &str| version(number).manifest.quality[key].as_float().unwrap();
    assert!(version(2).size_bytes * 2 < version(1).size_bytes, "int8 weights are smaller");
    assert_eq!(version(3).manifest.golden.len(), 3);
    let before = said(1, "top1_float");
    assert!(before > 0.9, "{before}");
    // Of integers throughout a part of the rows was kept for calibration: what was judged is another part.
    let figures = [
        (1, before, 1e-9),
        (2, said(2, "top1_int8"), 0.004),
        (3, said(3, "top1_int8"), 0.02),
        (4, said(4, "top1_int8"), 0.02),
    ];
    for engine in built_in().into_iter().filter(|engine| engine.reads("onnx")) {
        for (number, figure, tolerance) in figures {
            let given = match bench.top_1(Arc::clone(&engine), version(number)) {
                Ok(given) => given,
                // The engine for networks knows no label that is looked up in a list of classes.
                Err(engine::Error::Load { .. }) if engine.name() != "classical" => continue,
                Err(error) => panic!("{} {number}: {error}", engine.name()),
            };
            let name = engine.name();
            assert!((given - figure).abs() <= tolerance, "{name} {number}: {given}, the manifest says {figure}");
        }
    }

    let (code, told) = bench.quantise(&from);
    assert!(code == Some(0) && Path::new(&bench.place("models/small/6/manifest.toml")).is_file(), "{told}");
    for (arguments, expected) in [
        (vec!["onnx", &float, "--data", &bench.place("narrow.npz")], "input X takes [-1, 64], "),
        (vec!["onnx", &float, "--data", &bench.place("bare.npz")], "has no labels: an array y or label (.npz)"),
        (vec!["onnx", &float, "--data", &rows, "--version", "2"], "is there already: --replace overwrites it"),
        (vec!["onnx", &rows, "--data", &rows, "--name", "x", "--license", "MIT"], "cannot be read as ONNX"),
        (vec!["sklearn", &network, "--data", &rows, "--name", "small"], "say the licence of the weights"),
        (vec!["torch", "nothing.py:load", "--data", &rows], "requirements-torch.txt"),
    ] {
        let (code, told) = bench.quantise(&arguments);
        assert!(code == Some(2) && told.contains(expected), "{arguments:?}: {code:?} {told}");
    }
    let (code, told) = bench.quantise(&["onnx", &float, "--data", &rows, "--max-loss", "-1", "--version", "9"]);
    assert!(
        code == Some(1) && told.contains("nothing is written") && !Path::new(&bench.place("models/small/9")).exists(),
        "{told}"
    );
    let (code, told) =
        bench.quantise(&["onnx", &float, "--data", &bench.place("bare.npz"), "--no-labels", "--form", "dynamic"]);
    assert!(code == Some(0) && told.contains("no labels"), "{told}");
}
