//! What a loaded transformer refuses, and that what it is asked in parts is what it is asked at once. What it computes is
//! compared with Hugging Face's library in `tests/suite/transformer.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::Transformer;
use super::encoder::tiny;
use super::safetensors::written;
use crate::base::{Datatype, Name, SystemClock, Tensor};
use crate::engine::{Config, Error, Handle, LoadSpec, NamedTensor, Pool, TensorSpec, signature};

/// Of the tiny network, every tensor with its shape.
fn shapes() -> Vec<(String, Vec<usize>)> {
    let mut shapes: Vec<(String, Vec<usize>)> = Vec::new();
    let mut add = |name: &str, shape: &[usize]| shapes.push((name.to_owned(), shape.to_vec()));
    add("embeddings.word_embeddings.weight", &[11, 8]);
    add("embeddings.position_embeddings.weight", &[6, 8]);
    add("embeddings.token_type_embeddings.weight", &[2, 8]);
    add("embeddings.LayerNorm.weight", &[8]);
    add("embeddings.LayerNorm.bias", &[8]);
    let layer = "encoder.layer.0";
    for part in ["attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"] {
        add(&format!("{layer}.{part}.weight"), &[8, 8]);
        add(&format!("{layer}.{part}.bias"), &[8]);
    }
    for part in ["attention.output.LayerNorm", "output.LayerNorm"] {
        add(&format!("{layer}.{part}.weight"), &[8]);
        add(&format!("{layer}.{part}.bias"), &[8]);
    }
    add(&format!("{layer}.intermediate.dense.weight"), &[12, 8]);
    add(&format!("{layer}.intermediate.dense.bias"), &[12]);
    add(&format!("{layer}.output.dense.weight"), &[8, 12]);
    add(&format!("{layer}.output.dense.bias"), &[8]);
    shapes
}

fn file(shapes: &[(String, Vec<usize>)]) -> Arc<[u8]> {
    let values = |at: usize, shape: &[usize]| -> Vec<u8> {
        let value = |element: usize| ((at * 31 + element * 17) % 23) as f32 / 23.0 - 0.4;
        (0..shape.iter().product()).flat_map(|element| value(element).to_le_bytes()).collect()
    };
    let tensors: Vec<_> =
        shapes.iter().enumerate().map(|(at, (name, shape))| (name, shape, values(at, shape))).collect();
    let tensors: Vec<_> =
        tensors.iter().map(|(name, shape, bytes)| (name.as_str(), "F32", shape.as_slice(), bytes.clone())).collect();
    written(&tensors).into()
}

fn spec(bytes: Arc<[u8]>) -> LoadSpec {
    let mut spec = LoadSpec {
        files: BTreeMap::from([("config.json".to_owned(), Arc::from(tiny().to_string().into_bytes()))]),
        inputs: Vec::new(),
        outputs: Vec::new(),
        ..LoadSpec::new(Name::new("texts").unwrap(), 1, "safetensors", bytes)
    };
    if let Ok(signature) = signature(&spec) {
        (spec.inputs, spec.outputs) = (signature.inputs, signature.outputs);
    }
    spec
}

fn pool() -> Pool {
    let config = Config { threads: 1, ..Config::default() };
    Pool::start(&config, vec![Arc::new(Transformer)], Arc::new(SystemClock::new())).unwrap()
}

fn ids(shape: [usize; 2], ids: &[i64]) -> NamedTensor {
    NamedTensor::new("input_ids", Tensor::new(shape, ids.to_vec()).unwrap())
}

fn floats(tensors: &[NamedTensor]) -> Vec<f32> {
    tensors[0].tensor.as_slice::<f32>().unwrap().to_vec()
}

/// Only tokens are given: who looks at whom and first and second texts are left out.
fn tokens_only(spec: LoadSpec) -> LoadSpec {
    LoadSpec { inputs: spec.inputs[..1].to_vec(), ..spec }
}

fn infer(handle: &Handle, inputs: Vec<NamedTensor>) -> Result<Vec<f32>, String> {
    handle.infer_blocking(inputs, None).map(|answer| floats(&answer.tensors)).map_err(|error| error.to_string())
}

#[test]
fn an_encoder_says_what_it_takes_and_a_manifest_may_ask_for_less() {
    let whole = spec(file(&shapes()));
    let names = |ports: &[TensorSpec]| ports.iter().map(|port| port.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&whole.inputs), ["input_ids", "attention_mask", "token_type_ids"]);
    assert_eq!(
        (names(&whole.outputs), whole.outputs[0].shape.as_slice()),
        (vec!["last_hidden_state".to_owned()], &[-1, -1, 8][..])
    );
    let pool = pool();
    let handle = pool.load(&tokens_only(whole)).unwrap();
    let both = infer(&handle, vec![ids([2, 3], &[1, 2, 3, 4, 5, 6])]).unwrap();
    let second = infer(&handle, vec![ids([1, 3], &[4, 5, 6])]).unwrap();
    assert!(both[24..].iter().zip(&second).all(|(a, b)| (a - b).abs() < 1e-6), "texts do not look at each other");
    assert_eq!(infer(&handle, vec![ids([0, 3], &[])]).unwrap(), [0.0; 0]);
}

#[test]
fn padding_changes_nothing_for_those_that_are_none() {
    let pool = pool();
    let whole = spec(file(&shapes()));
    let handle = pool.load(&LoadSpec { inputs: whole.inputs[..2].to_vec(), ..whole }).unwrap();
    let mask = |shape: [usize; 2], mask: &[i64]| {
        NamedTensor::new("attention_mask", Tensor::new(shape, mask.to_vec()).unwrap())
    };
    let bare = infer(&handle, vec![ids([1, 2], &[3, 7]), mask([1, 2], &[1, 1])]).unwrap();
    for filler in [0, 9] {
        let padded = infer(&handle, vec![ids([1, 4], &[3, 7, filler, filler]), mask([1, 4], &[1, 1, 0, 0])]).unwrap();
        assert!(bare.iter().zip(&padded).all(|(a, b)| (a - b).abs() < 1e-6), "{bare:?} {padded:?}");
    }
}

#[test]
fn what_is_wrong_with_a_request_is_named() {
    let pool = pool();
    let handle = pool.load(&tokens_only(spec(file(&shapes())))).unwrap();
    let many = vec![1; 6 * 6000];
    for (given, says) in [
        (ids([1, 2], &[3, 11]), "input_ids has 11 at element 1, expected 0 to 10"),
        (ids([1, 2], &[-1, 3]), "input_ids has -1 at element 0, expected 0 to 10"),
        (ids([1, 2], &[i64::MIN, i64::MAX]), "expected 0 to 10"),
        (ids([1, 7], &[1; 7]), "input_ids has 7 tokens a text, the model takes 6"),
        (ids([1, 0], &[]), "input_ids has no tokens"),
        (ids([6000, 6], &many), "32768 tokens of all texts are the most"),
    ] {
        let error = infer(&handle, vec![given]).unwrap_err();
        assert!(error.contains(says), "{error}: {says}");
    }
    let whole = spec(file(&shapes()));
    let handle = pool.load(&LoadSpec { inputs: whole.inputs[..2].to_vec(), ..whole }).unwrap();
    let mask = NamedTensor::new("attention_mask", Tensor::new([1, 3], vec![1_i64; 3]).unwrap());
    let error = infer(&handle, vec![ids([1, 2], &[1, 2]), mask]).unwrap_err();
    assert!(error.contains("attention_mask has shape [1, 3], expected that of input_ids, [1, 2]"), "{error}");
}

#[test]
fn a_file_that_is_not_what_its_config_says_does_not_serve() {
    let pool = pool();
    let refused = |spec: &LoadSpec| pool.load(spec).err().unwrap().to_string();
    let sound = spec(file(&shapes()));
    for (at, (name, _)) in shapes().iter().enumerate() {
        let mut without = shapes();
        without.remove(at);
        let error = refused(&LoadSpec { bytes: file(&without), ..sound.clone() });
        assert!(error.contains(name), "{error}: {name} is missing");
        let mut other = shapes();
        other[at].1.push(1);
        let error = refused(&LoadSpec { bytes: file(&other), ..sound.clone() });
        assert!(error.contains(&format!("tensor {name}: expected")) && error.contains(", 1]"), "{error}: {name}");
    }
    for length in (0..sound.bytes.len()).step_by(97) {
        assert!(
            pool.load(&LoadSpec { bytes: sound.bytes[..length].into(), ..sound.clone() }).is_err(),
            "{length} bytes"
        );
    }
    let error = refused(&LoadSpec { files: BTreeMap::new(), ..sound.clone() });
    assert!(error.contains("config.json: expected beside the model"), "{error}");
    let mut wide = sound.clone();
    wide.outputs[0].shape[2] = 9;
    let error = refused(&wide);
    assert!(
        error.contains("shape of output last_hidden_state: expected [-1, -1, 8] (-1 is any size), given [-1, -1, 9]"),
        "{error}"
    );
    let mut other = sound.clone();
    other.outputs[0].name = "logits".into();
    assert!(refused(&other).contains("some of last_hidden_state, given logits"));
    other.outputs[0].name = "last_hidden_state".into();
    other.inputs[0].datatype = Datatype::Fp32;
    assert!(refused(&other).contains("datatype of input input_ids: expected INT64, given FP32"));
    let mut headed = tiny();
    headed["architectures"] = json!(["BertForSequenceClassification"]);
    let files = BTreeMap::from([("config.json".to_owned(), Arc::from(headed.to_string().into_bytes()))]);
    let error = refused(&LoadSpec { files, ..sound.clone() });
    assert!(error.contains("tensor pooler.dense.weight: expected by the head, given none"), "{error}");
    let both = refused(&LoadSpec { engine: Some("tract".to_owned()), ..sound });
    assert!(both.contains("the manifest wants tract"), "{both}");
}

#[test]
fn another_engine_is_not_asked_for_these_formats() {
    let error = pool().load(&LoadSpec { format: "onnx".to_owned(), ..spec(file(&shapes())) }).err().unwrap();
    assert!(matches!(error, Error::NoEngine { .. } | Error::NoneTakes { .. }), "{error}");
}
