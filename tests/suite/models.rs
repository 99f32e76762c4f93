//! Real ONNX files through catalog and engine, sound and hostile.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use forebay::base::{Datatype, Digest, Name, SystemClock, Tensor};
use forebay::catalog::{self, Catalog};
use forebay::engine::{self, Batching, Handle, LoadSpec, NamedTensor, Pool, Serving, TensorSpec, When, built_in};
use forebay::flows::load_spec;

use crate::gateway::said;

fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn scan(path: &str) -> Catalog {
    let catalog = Catalog::scan(&catalog::Config { folder: folder(path), ..Default::default() });
    assert!(catalog.problems().is_empty(), "{:?}", catalog.problems());
    catalog
}

fn pool() -> Pool {
    Pool::start(&engine::Config::default(), built_in(), Arc::new(SystemClock::new())).unwrap()
}

fn fixture(pool: &Pool, name: &str) -> Handle {
    let catalog = scan("tests/fixtures/models");
    pool.load(&load_spec(catalog.model(name, None).unwrap()).unwrap()).unwrap()
}

fn tensor(name: &str, shape: &[usize], data: &[f32]) -> NamedTensor {
    NamedTensor::new(name, Tensor::new(shape, data.to_vec()).unwrap())
}

fn by_hand(bytes: &[u8]) -> LoadSpec {
    let port = |name: &str| TensorSpec { name: name.into(), datatype: Datatype::Fp32, shape: vec![1, 2] };
    LoadSpec {
        inputs: vec![port("x")],
        outputs: vec![port("y")],
        ..LoadSpec::new(Name::new("hostile").unwrap(), 1, "onnx", bytes)
    }
}

/// Loading checks the golden samples, so a model that loads gives what its author saw.
#[test]
fn every_model_reproduces_its_golden_samples() {
    let pool = pool();
    for place in ["tests/fixtures/models", "models"] {
        if !folder(place).exists() {
            continue;
        }
        let catalog = scan(place);
        assert!(catalog.models().count() > 0);
        for model in catalog.models() {
            assert!(!model.manifest.golden.is_empty(), "{} has no golden sample", model.folder.display());
            // A pipeline has no engine: a gateway computes its samples with the models that it names.
            if model.manifest.model.format != "pipeline" {
                pool.load(&load_spec(model).unwrap()).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn inputs_come_by_name_and_outputs_in_the_declared_order() {
    let pool = pool();
    let two = fixture(&pool, "two");
    let inputs = vec![tensor("b", &[2, 2], &[10.0, 20.0, 30.0, 40.0]), tensor("a", &[2, 2], &[1.0, 2.0, 3.0, 4.0])];
    let outputs = two.infer(inputs, None).await.unwrap();
    assert_eq!(outputs.engine, "tract");
    assert_eq!(outputs.tensors[0], tensor("sum", &[2, 2], &[11.0, 22.0, 33.0, 44.0]));
    assert_eq!(outputs.tensors[1], tensor("product", &[2, 2], &[10.0, 40.0, 90.0, 160.0]));
}

#[tokio::test]
async fn a_batch_gives_what_its_rows_give_alone() {
    let pool = pool();
    for (name, width) in [("dense", 64), ("single", 8)] {
        let model = fixture(&pool, name);
        let data: Vec<f32> = (0..5 * width).map(|i| ((i * 7 % 13) as f32 - 6.0) / 5.0).collect();
        let batch = model.infer(vec![tensor("x", &[5, width], &data)], None).await.unwrap();
        let out = batch.tensors[0].tensor.as_slice::<f32>().unwrap();
        let out_width = out.len() / 5;
        for row in 0..5 {
            let one = &data[row * width..(row + 1) * width];
            let alone = model.infer(vec![tensor("x", &[1, width], one)], None).await.unwrap();
            let together = &out[row * out_width..(row + 1) * out_width];
            for (a, b) in alone.tensors[0].tensor.as_slice::<f32>().unwrap().iter().zip(together) {
                assert!((a - b).abs() < 1e-5, "{name} row {row}: {a} and {b}");
            }
        }
    }
}

/// What is joined at all is what the measuring at load found to be the same to the bit.
#[tokio::test]
async fn requests_that_are_computed_together_answer_as_they_do_alone() {
    let one_thread = engine::Config { threads: 1, ..engine::Config::default() };
    let pool = Arc::new(Pool::start(&one_thread, built_in(), Arc::new(SystemClock::new())).unwrap());
    let catalog = scan("tests/fixtures/models");
    let batching = |when| Serving { batching: Batching { when, ..Batching::default() }, ..Serving::default() };
    for (name, input, width) in [("dense", "x", 64), ("single", "x", 8), ("two", "a", 2)] {
        let spec = load_spec(catalog.model(name, None).unwrap()).unwrap();
        let alone = pool.load_as(&spec, &batching(When::Never)).unwrap();
        let joined = pool.load_as(&spec, &batching(When::Pays)).unwrap();
        let question = |at: usize| {
            let data: Vec<f32> = (0..width).map(|i| ((i * 7 + at * 11) % 23) as f32 / 7.0 - 1.5).collect();
            let mut inputs = vec![tensor(input, &[1, width], &data)];
            inputs.extend((name == "two").then(|| tensor("b", &[1, width], &data)));
            inputs
        };
        let asked: Vec<_> = (0..100)
            .map(|at| {
                let (joined, inputs) = (joined.clone(), question(at));
                tokio::spawn(async move { joined.infer(inputs, None).await.unwrap() })
            })
            .collect();
        let mut rows = 0;
        for (at, one) in asked.into_iter().enumerate() {
            let outputs = one.await.unwrap();
            rows = rows.max(outputs.run.rows);
            assert_eq!(outputs.tensors, alone.infer(question(at), None).await.unwrap().tensors, "{name} {at}");
        }
        assert!(rows == 1 || joined.batch_rows_max() > 1, "{name}: {}", joined.batching());
    }
}

#[tokio::test]
async fn a_model_that_divides_by_zero_gives_an_error_instead_of_a_score() {
    let pool = pool();
    let reciprocal = fixture(&pool, "reciprocal");
    let error = reciprocal.infer(vec![tensor("x", &[3], &[1.0, 0.0, 2.0])], None).await.unwrap_err();
    assert_eq!(error.to_string(), "y has inf at element 1: only finite numbers are taken");
    reciprocal.infer(vec![tensor("x", &[3], &[1.0, 1.0, 2.0])], None).await.unwrap();
}

#[test]
fn a_file_that_is_not_what_is_declared_says_expected_and_given() {
    let pool = pool();
    let catalog = scan("tests/fixtures/models");
    let spec = load_spec(catalog.model("dense", None).unwrap()).unwrap();
    let refused = |change: &dyn Fn(&mut LoadSpec)| {
        let mut spec = spec.clone();
        change(&mut spec);
        pool.load(&spec).unwrap_err().to_string()
    };
    let shape = refused(&|spec| spec.inputs[0].shape = vec![-1, 63]);
    assert!(shape.contains("shape of input x: expected [-1, 63], given [-1, 64] in the file"), "{shape}");
    let name = refused(&|spec| spec.inputs[0].name = "z".into());
    assert!(name.contains("inputs: expected z, given x"), "{name}");
    let output = refused(&|spec| spec.outputs[0].name = "score".into());
    assert!(output.contains("outputs: expected score, given y"), "{output}");
    let sample = refused(&|spec| spec.samples[0].outputs[0] = tensor("y", &[1, 64], &[9.0; 64]));
    assert!(sample.contains("output y, element 0: expected 9, given"), "{sample}");
}

/// As `numpy.save` writes an array of 32-bit floats.
fn npy(tensor: &Tensor) -> Vec<u8> {
    let dims: String = tensor.shape().iter().map(|dim| format!("{dim},")).collect();
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({dims}), }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&u16::try_from(header.len()).unwrap().to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(tensor.bytes());
    bytes
}

/// A models folder with `dense` in it, whose manifest has no inputs and outputs and whose sample lies in files.
fn bare_folder(input: &Tensor, output: &Tensor) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let version = root.path().join("dense/1");
    std::fs::create_dir_all(&version).unwrap();
    let model = std::fs::read(folder("tests/fixtures/models/dense/1/model.onnx")).unwrap();
    let mut manifest = format!(
        "[model]\nname = \"dense\"\nversion = 1\nfile = \"model.onnx\"\nsha256 = \"{}\"\nformat = \"onnx\"\n\
         license = \"MIT\"\n[[golden]]\ntolerance = 1e-5\nrelative_tolerance = 1e-5\n",
        Digest::of(&model)
    );
    std::fs::write(version.join("model.onnx"), model).unwrap();
    for (key, file, tensor) in [("input", "x.npy", input), ("y", "y.npy", output)] {
        let bytes = npy(tensor);
        manifest += &format!("{key} = {{ file = \"{file}\", sha256 = \"{}\" }}\n", Digest::of(&bytes));
        std::fs::write(version.join(file), bytes).unwrap();
    }
    std::fs::write(version.join("manifest.toml"), manifest).unwrap();
    root
}

#[test]
fn a_manifest_without_signature_takes_the_files_and_its_golden_files_decide() {
    let pool = pool();
    let known = load_spec(scan("tests/fixtures/models").model("dense", None).unwrap()).unwrap();
    let (input, output) = (&known.samples[1].inputs[0].tensor, &known.samples[1].outputs[0].tensor);
    let inspect = |root: &Path| {
        let forebay = Command::new(env!("CARGO_BIN_EXE_forebay"))
            .args(["model", "inspect"])
            .arg(root.join("dense/1"))
            .output()
            .unwrap();
        said(forebay)
    };
    let root = bare_folder(input, output);
    let catalog = Catalog::scan(&catalog::Config { folder: root.path().to_owned(), ..Default::default() });
    let spec = load_spec(catalog.model("dense", None).unwrap()).unwrap();
    assert_eq!((&spec.inputs, &spec.outputs), (&known.inputs, &known.outputs));
    assert_eq!(pool.load(&spec).unwrap().engine(), "tract");
    let (code, stdout, stderr) = inspect(root.path());
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(stdout.contains("tract      serves it"), "{stdout}");

    // One wrong number, and nothing serves.
    let mut wrong = output.as_slice::<f32>().unwrap().to_vec();
    wrong[70] += 0.5;
    let root = bare_folder(input, &Tensor::new(output.shape(), wrong).unwrap());
    let (code, stdout, _) = inspect(root.path());
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stdout.contains("sample 1 has, so it must not serve: output y, element 70: expected"), "{stdout}");
    // A file of another shape says so before any engine is asked.
    let root = bare_folder(&Tensor::new([2, 3], vec![0.0_f32; 6]).unwrap(), output);
    let catalog = Catalog::scan(&catalog::Config { folder: root.path().to_owned(), ..Default::default() });
    let error = load_spec(catalog.model("dense", None).unwrap()).unwrap_err().to_string();
    assert_eq!(error, "golden sample 1: x in x.npy is FP32 [2, 3], expected FP32 [-1, 64] (-1 is any size)");
    // A file that has changed since its digest was taken is none of this model's.
    std::fs::write(root.path().join("dense/1/x.npy"), npy(input)).unwrap();
    let catalog = Catalog::scan(&catalog::Config { folder: root.path().to_owned(), ..Default::default() });
    assert!(catalog.problems()[0].to_string().contains("x.npy: has SHA-256"), "{:?}", catalog.problems());
}

/// Why each of the hostile files is refused.
const HOSTILE: [(&str, &str); 7] = [
    ("cycle", "it needs its own output"),
    ("four-terabytes", "is larger than 67108864 elements"),
    ("lying-initializer", "tensor w is broken: shape [1099511627776, 1099511627776] is larger than memory can be"),
    ("missing-output", "no node makes output y"),
    ("unknown-operator", "it has no Frobnicate"),
    (
        "weights-elsewhere",
        "failed to read the file of model hostile/1: the weights of w lie in another file (../../../../etc/passwd); save the \
         model as one file",
    ),
    ("whole-numbers", "datatype of input x: expected FP32, given INT64 in the file"),
];

#[test]
fn hostile_and_torn_files_are_refused_and_the_pool_serves_on() {
    let pool = pool();
    let mut files: Vec<_> =
        std::fs::read_dir(folder("tests/fixtures/hostile")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 7);
    for file in files {
        let error =
            pool.load(&by_hand(&std::fs::read(&file).unwrap())).expect_err(&file.display().to_string()).to_string();
        let name = file.file_stem().unwrap().to_str().unwrap();
        let says = HOSTILE.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("{name}: {error}")).1;
        assert!(error.contains(says), "{name}: {error}");
    }
    assert!(pool.load(&by_hand(b"")).unwrap_err().to_string().contains("the file is empty"));
    assert!(pool.load(&by_hand(b"not a model at all")).is_err());
    let whole = std::fs::read(folder("tests/fixtures/models/two/1/model.onnx")).unwrap();
    let mut spec = by_hand(&whole);
    spec.inputs[0].name = "a".into();
    for length in 0..whole.len() {
        // A prefix may be a whole file by accident of the format; then it has fewer outputs than declared.
        spec.bytes = Arc::from(&whole[..length]);
        assert!(pool.load(&spec).is_err(), "{length} of {} bytes", whole.len());
    }
    fixture(&pool, "two");
}
