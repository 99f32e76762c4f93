//! The ONNX project's backend node tests, for every engine of this build and for all of them together, as models would be
//! served. `tests/conformance.py` prepares them from the project's own data (onnx 1.17).
//!
//! What an engine is known to fail stands by name, under its reason, in `tests/conformance/<engine>.txt`; `union.txt` has what no
//! model of this build can do, and `beyond.txt` what nobody can ask for, because the protocol has no word for its types. A case that fails and is not listed fails the test, and so does one that is listed and passes.
//! An engine for ONNX that joins [`built_in`] is tested with the others; without a list nothing is expected to fail.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use forebay::base::{SystemClock, Tensor};
use forebay::engine::{self, Engine, LoadSpec, NamedTensor, Pool, built_in};
use serde_json::Value;

use crate::classical::{read, spec_of};
use crate::gateway::said;

/// As the ONNX project's own runner compares.
const RELATIVE: f64 = 1e-3;
const ABSOLUTE: f64 = 1e-7;
/// The part of the cases that the engines of this build pass together.
const LEAST: f64 = 0.95;

struct Case {
    name: String,
    /// None for one whose inputs or outputs the protocol has no words for.
    told: Option<(LoadSpec, Value)>,
    folder: std::path::PathBuf,
}

fn cases(folder: &Path) -> Vec<Case> {
    let interpreter = std::env::var("FOREBAY_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance.py");
    let output = Command::new(&interpreter).arg(script).arg(folder).output();
    let output = output.unwrap_or_else(|error| panic!("{interpreter}: {error}; name a Python 3 in FOREBAY_PYTHON"));
    let (code, stdout, stderr) = said(output);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    let mut folders: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let case = |folder: std::path::PathBuf| {
        let told: Value = serde_json::from_slice(&std::fs::read(folder.join("case.json")).unwrap()).unwrap();
        let told = told.get("beyond").is_none().then(|| {
            let bytes = std::fs::read(folder.join("model.onnx")).unwrap();
            (LoadSpec { engine: None, ..spec_of(&bytes) }, told)
        });
        Case { name: folder.file_name().unwrap().to_str().unwrap().to_owned(), told, folder }
    };
    folders.into_iter().map(case).collect()
}

fn difference(expected: &Tensor, given: &Tensor) -> Option<String> {
    if expected.shape() != given.shape() || expected.datatype() != given.datatype() {
        return Some(format!("expected {expected:.0?}, given {given:.0?}"));
    }
    let (Some(left), Some(right)) = (expected.to_numbers(), given.to_numbers()) else {
        return (expected.bytes() != given.bytes()).then(|| "texts differ".to_owned());
    };
    let close = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= ABSOLUTE + RELATIVE * a.abs();
    let at = left.iter().zip(&right).position(|(&a, &b)| !close(a, b))?;
    Some(format!("element {at} of {:?}: expected {}, given {}", expected.shape(), left[at], right[at]))
}

fn check(pool: &Pool, case: &Case, wanted: Option<&str>) -> Result<(), String> {
    let (spec, told) = case.told.as_ref().ok_or("the protocol has no words for it")?;
    let spec = LoadSpec { engine: wanted.map(str::to_owned), ..spec.clone() };
    let handle = pool.load(&spec).map_err(|error| error.to_string())?;
    for batch in told["batches"].as_array().unwrap() {
        let inputs = batch["inputs"].as_object().unwrap().iter();
        let inputs = inputs.map(|(name, tensor)| NamedTensor::new(name.as_str(), read(&case.folder, tensor))).collect();
        let outputs = handle.infer_blocking(inputs, None).map_err(|error| error.to_string())?.tensors;
        for (name, expected) in batch["outputs"].as_object().unwrap() {
            let given = outputs.iter().find(|output| *output.name == **name);
            let given = given.ok_or_else(|| format!("no output {name}"))?;
            if let Some(what) = difference(&read(&case.folder, expected), &given.tensor) {
                return Err(format!("with {}, output {name}: {what}", handle.engine()));
            }
        }
    }
    Ok(())
}

fn expected_failures(engine: &str) -> BTreeSet<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance").join(format!("{engine}.txt"));
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

#[allow(clippy::cast_precision_loss, reason = "a few thousand")]
fn part(some: usize, of: usize) -> f64 {
    100.0 * some as f64 / of as f64
}

/// What came of the cases with some engines.
struct Run {
    name: &'static str,
    passed: usize,
    /// Names of those that fail, with the reason.
    failed: BTreeMap<String, String>,
}

/// Runs every case that the protocol has words for and that `is_asked`; the others pass.
fn run(
    name: &'static str,
    engines: Vec<Arc<dyn Engine>>,
    wanted: Option<&str>,
    cases: &[Case],
    is_asked: impl Fn(&Case) -> bool,
) -> Run {
    let config = engine::Config { threads: 1, ..engine::Config::default() };
    let pool = Pool::start(&config, engines, Arc::new(SystemClock::new())).unwrap();
    let mut run = Run { name, passed: 0, failed: BTreeMap::new() };
    for case in cases.iter().filter(|case| case.told.is_some()) {
        match if is_asked(case) { check(&pool, case, wanted) } else { Ok(()) } {
            Ok(()) => run.passed += 1,
            Err(what) => drop(run.failed.insert(case.name.clone(), what)),
        }
    }
    run
}

impl Run {
    /// What is not as the list has it.
    fn surprises(&self) -> Vec<String> {
        let (name, expected) = (self.name, expected_failures(self.name));
        let is_new = |(case, _): &(&String, &String)| !expected.contains(*case);
        let failed = self.failed.iter().filter(is_new).map(|(case, what)| format!("{name}: {case}: {what}"));
        let passes = expected.iter().filter(|case| !self.failed.contains_key(*case));
        let passes = passes.map(|case| format!("{name}: {case} passes or is no case: take it from the list"));
        failed.chain(passes).collect()
    }

    /// Writes what fails into the folder that `FOREBAY_CONFORMANCE_FOUND` names, for whoever keeps the lists.
    fn keep(&self) {
        if let Some(folder) = std::env::var_os("FOREBAY_CONFORMANCE_FOUND") {
            let line = |(case, what): (&String, &String)| format!("{case} # {}\n", what.replace('\n', " "));
            let lines: String = self.failed.iter().map(line).collect();
            std::fs::write(Path::new(&folder).join(format!("{}.found", self.name)), lines).unwrap();
        }
    }
}

#[test]
fn engines_pass_the_onnx_projects_node_tests_but_for_those_listed_by_name() {
    let made = tempfile::tempdir().unwrap();
    let cases = cases(&made.path().join("cases"));
    let beyond: BTreeSet<String> =
        cases.iter().filter(|case| case.told.is_none()).map(|case| case.name.clone()).collect();
    let listed = expected_failures("beyond");
    let odd: Vec<_> = beyond.symmetric_difference(&listed).collect();
    assert!(odd.is_empty(), "beyond.txt, and what the protocol has no word for: {odd:?}");
    let computed = cases.len() - beyond.len();
    assert!(computed > 1100, "{computed} of {} cases", cases.len());
    // Beside each other, each engine on a thread of its own.
    let mut runs: Vec<Run> = std::thread::scope(|scope| {
        let cases = &cases;
        let engines = built_in().into_iter().filter(|engine| engine.reads("onnx")).map(|engine| {
            scope.spawn(move || run(engine.name(), vec![Arc::clone(&engine)], Some(engine.name()), cases, |_| true))
        });
        let engines: Vec<_> = engines.collect();
        engines.into_iter().map(|engine| engine.join().unwrap()).collect()
    });
    // What every engine computes right is right whichever is chosen.
    let is_asked = |case: &Case| runs.iter().any(|run| run.failed.contains_key(&case.name));
    let union = run("union", built_in(), None, &cases, is_asked);
    let together = union.passed;
    runs.push(union);
    for run in &runs {
        #[allow(clippy::print_stdout, reason = "figures for whoever runs it with --nocapture")]
        {
            println!(
                "{} passes {} of {computed}, {:.1} %; with the {} that are not of the protocol's tensors, {:.1} % of {}",
                run.name,
                run.passed,
                part(run.passed, computed),
                beyond.len(),
                part(run.passed, cases.len()),
                cases.len()
            );
        }
        run.keep();
    }
    let surprises: Vec<String> = runs.iter().flat_map(Run::surprises).collect();
    assert!(surprises.is_empty(), "{}:\n{}", surprises.len(), surprises.join("\n"));
    assert!(together as f64 >= LEAST * computed as f64, "{together} of {computed} pass");
}
