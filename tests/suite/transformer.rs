//! Transformers against Hugging Face's library: `tests/fixtures/transformer.py` made tiny ones and wrote down what the library
//! computes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use forebay::base::{Datatype, Digest, Name, SystemClock, Tensor};
use forebay::engine::{self, Handle, LoadSpec, NamedTensor, Pool, TensorSpec, Transformer, files_beside};
use serde_json::{Value, json};

use crate::http_fixture::{Gateway, Setup};

const ENCODERS: [&str; 7] =
    ["bert", "bert-half", "bert-classes", "bert-tokens", "roberta-classes", "xlm-roberta", "distilbert-classes"];
const DECODERS: [&str; 3] = ["llama", "qwen2", "qwen3"];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/transformer").join(name)
}

fn case(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(folder(name).join("case.json")).unwrap()).unwrap()
}

fn pool() -> Pool {
    let engines: Vec<Arc<dyn engine::Engine>> = vec![Arc::new(Transformer)];
    Pool::start(&engine::Config::default(), engines, Arc::new(SystemClock::new())).unwrap()
}

/// With the inputs and outputs that the case has, as the model's own signature knows them.
fn spec(name: &str, case: &Value) -> LoadSpec {
    let format = if DECODERS.contains(&name) { "gguf" } else { "safetensors" };
    let read = |file: &str| std::fs::read(folder(name).join(file)).ok().map(Arc::from);
    let files = files_beside(format).iter().filter_map(|&file| Some((file.to_owned(), read(file)?)));
    let ports = |kind: &str, datatype: Datatype| {
        let port = |(name, tensor): (&String, &Value)| TensorSpec {
            name: name.as_str().into(),
            datatype,
            shape: tensor["shape"].as_array().unwrap().iter().map(|_| -1).collect(),
        };
        case[kind].as_object().unwrap().iter().map(port).collect()
    };
    LoadSpec {
        files: files.collect(),
        inputs: ports("inputs", Datatype::Int64),
        outputs: ports("outputs", Datatype::Fp32),
        ..LoadSpec::new(Name::new(name).unwrap(), 1, format, read(&format!("model.{format}")).unwrap())
    }
}

fn inputs(case: &Value) -> Vec<NamedTensor> {
    let input = |(name, tensor): (&String, &Value)| {
        let shape: Vec<usize> = serde_json::from_value(tensor["shape"].clone()).unwrap();
        let data: Vec<i64> = serde_json::from_value(tensor["data"].clone()).unwrap();
        NamedTensor::new(name.as_str(), Tensor::new(shape, data).unwrap())
    };
    case["inputs"].as_object().unwrap().iter().map(input).collect()
}

fn numbers(tensor: &Value) -> Vec<f32> {
    serde_json::from_value(tensor["data"].clone()).unwrap()
}

/// The largest difference to what the library computed.
fn difference(name: &str, case: &Value, handle: &Handle) -> f32 {
    let answer = handle.infer_blocking(inputs(case), None).unwrap();
    let differences = answer.tensors.iter().map(|output| {
        let expected = &case["outputs"][&*output.name];
        assert_eq!(json!(output.tensor.shape()), expected["shape"], "{name}: {}", output.name);
        let given = output.tensor.as_slice::<f32>().unwrap();
        let each = numbers(expected).into_iter().zip(given).map(|(expected, given)| (expected - given).abs());
        each.fold(0.0, f32::max)
    });
    differences.fold(0.0, f32::max)
}

#[test]
fn every_network_computes_what_the_library_does() {
    let pool = pool();
    for name in ENCODERS.into_iter().chain(DECODERS) {
        let case = case(name);
        let handle = pool.load(&spec(name, &case)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let difference = difference(name, &case, &handle);
        assert!(difference < 2e-5, "{name}: {difference}");
    }
}

#[test]
fn a_manifest_without_ports_takes_those_of_the_files() {
    for (name, inputs, outputs) in [
        ("bert", vec!["input_ids", "attention_mask", "token_type_ids"], vec![("sentence_embedding", vec![-1, 16])]),
        ("bert-classes", vec!["input_ids", "attention_mask", "token_type_ids"], vec![("logits", vec![-1, 3])]),
        ("bert-tokens", vec!["input_ids", "attention_mask", "token_type_ids"], vec![("logits", vec![-1, -1, 3])]),
        ("distilbert-classes", vec!["input_ids", "attention_mask"], vec![("logits", vec![-1, 3])]),
        ("xlm-roberta", vec!["input_ids", "attention_mask"], vec![("sentence_embedding", vec![-1, 16])]),
        ("llama", vec!["input_ids"], vec![("logits", vec![1, 1, 30])]),
    ] {
        let found = engine::signature(&spec(name, &case(name))).unwrap();
        let names: Vec<&str> = found.inputs.iter().map(|input| &*input.name).collect();
        let shapes: Vec<(&str, Vec<i64>)> =
            found.outputs.iter().map(|port| (&*port.name, port.shape.clone())).collect();
        assert_eq!((names, shapes), (inputs, outputs), "{name}");
    }
}

#[test]
fn a_decoder_gives_the_last_tokens_scores_where_one_is_declared() {
    let (pool, case) = (pool(), case("llama"));
    let mut last = spec("llama", &case);
    last.outputs[0].shape = vec![1, 1, 30];
    let answer = pool.load(&last).unwrap().infer_blocking(inputs(&case), None).unwrap();
    let all = numbers(&case["outputs"]["logits"]);
    let given = answer.tensors[0].tensor.as_slice::<f32>().unwrap();
    // The last token's row is multiplied alone: in whole numbers of 16 bits, of scores up to 4.
    assert!(given.iter().zip(&all[all.len() - 30..]).all(|(a, b)| (a - b).abs() < 5e-4));
    let handle = pool.load(&last).unwrap();
    let ask = |ids: Vec<i64>| {
        let ids = NamedTensor::new("input_ids", Tensor::new([1, ids.len()], ids).unwrap());
        handle.infer_blocking(vec![ids], None).unwrap_err().to_string()
    };
    assert!(ask(vec![1, 30]).contains("input_ids has 30 at element 1, expected 0 to 29"));
    assert!(ask(vec![1; 41]).contains("input_ids has 41 tokens, expected 1 to 40"));
    assert!(ask(vec![]).contains("input_ids has 0 tokens"));
}

#[test]
fn no_cut_of_a_file_loads_and_none_panics() {
    let pool = pool();
    for name in ["bert", "llama"] {
        let whole = spec(name, &case(name));
        for length in (0..whole.bytes.len()).step_by(211) {
            let error = pool.load(&LoadSpec { bytes: whole.bytes[..length].into(), ..whole.clone() }).err().unwrap();
            assert!(!error.to_string().contains("panicked"), "{length}: {error}");
        }
    }
}

/// A folder as a user would make it: the library's files, a tokenizer, a manifest.
fn catalog(name: &str, rest: &str) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let version = root.path().join("texts/1");
    std::fs::create_dir_all(&version).unwrap();
    let known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "pump", "bearing", "hot", "cold", "the", "is"];
    let words: BTreeMap<&str, usize> = known.iter().enumerate().map(|(at, word)| (*word, at)).collect();
    let special = |id: usize| json!({ "id": known[id], "ids": [id], "tokens": [known[id]] });
    let piece = |id: usize| json!({ "SpecialToken": { "id": known[id], "type_id": 0 } });
    let text = json!({ "Sequence": { "id": "A", "type_id": 0 } });
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": { "type": "Lowercase" },
        "pre_tokenizer": { "type": "Whitespace" }, "decoder": null,
        "post_processor": {
            "type": "TemplateProcessing", "single": [piece(2), text, piece(3)], "pair": [piece(2), text, piece(3)],
            "special_tokens": { "[CLS]": special(2), "[SEP]": special(3) }
        },
        "model": { "type": "WordLevel", "vocab": words, "unk_token": "[UNK]" }
    });
    std::fs::write(version.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    for file in ["model.safetensors", "config.json", "pooling.json", "modules.json"] {
        if folder(name).join(file).exists() {
            std::fs::copy(folder(name).join(file), version.join(file)).unwrap();
        }
    }
    let digest = |file: &str| Digest::of(&std::fs::read(version.join(file)).unwrap());
    let mut manifest = format!(
        "[model]\nname = \"texts\"\nversion = 1\nfile = \"model.safetensors\"\nsha256 = \"{}\"\nformat = \"safetensors\"\n\
         license = \"MIT\"\n{rest}",
        digest("model.safetensors")
    );
    for file in ["config.json", "tokenizer.json", "pooling.json", "modules.json"] {
        if version.join(file).exists() {
            manifest += &format!("[[file]]\nname = \"{file}\"\nsha256 = \"{}\"\n", digest(file));
        }
    }
    std::fs::write(version.join("manifest.toml"), manifest).unwrap();
    root
}

async fn gateway(root: &tempfile::TempDir) -> Gateway {
    Setup { models: Some(root.path().to_owned()), engines: engine::built_in(), streams: &[], ..Setup::default() }
        .start()
        .await
}

async fn ask(gateway: &Gateway, body: &Value) -> Value {
    let json = [("content-type", "application/json")];
    let answer = gateway.post("/v1/models/texts/predict", &json, body.to_string().as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[tokio::test]
async fn a_text_becomes_an_embedding_and_one_of_length_one() {
    let root = catalog("bert", "[[predict.input]]\nkind = \"text\"\ntokenizer = \"tokenizer.json\"\nlength_max = 12\n");
    let gateway = gateway(&root).await;
    let body = json!({ "instances": ["the pump is hot", "the bearing is cold", "the pump is hot"] });
    let answer = ask(&gateway, &body).await;
    assert_eq!(answer["engine"], "transformer");
    let embedding = |at: usize| -> Vec<f64> {
        serde_json::from_value(answer["predictions"][at]["sentence_embedding"]["values"].clone())
            .unwrap_or_else(|error| panic!("{error}: {answer}"))
    };
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    assert_eq!(embedding(0).len(), 16);
    assert!((product(&embedding(0), &embedding(0)) - 1.0).abs() < 1e-5);
    assert!((product(&embedding(0), &embedding(2)) - 1.0).abs() < 1e-5);
    assert!(product(&embedding(0), &embedding(1)) < 0.9999);
}

#[tokio::test]
async fn a_text_becomes_labels() {
    let root = catalog(
        "bert-classes",
        "[[output]]\nname = \"logits\"\ndatatype = \"FP32\"\nshape = [-1, 3]\nlabels = [\"low\", \"normal\", \"high\"]\n\
         [[predict.input]]\nkind = \"text\"\ntokenizer = \"tokenizer.json\"\nlength_max = 12\n\
         [[predict.output]]\nname = \"level\"\nsteps = [\"softmax\", { step = \"top_k\", k = 3 }]\n",
    );
    let gateway = gateway(&root).await;
    let answer = ask(&gateway, &json!("the pump is hot")).await;
    let classes = answer["predictions"][0]["level"]["classes"].as_array().unwrap();
    let total: f64 = classes.iter().map(|class| class["score"].as_f64().unwrap()).sum();
    let mut labels: Vec<&str> = classes.iter().map(|class| class["label"].as_str().unwrap()).collect();
    labels.sort_unstable();
    assert!((total - 1.0).abs() < 1e-3 && labels == ["high", "low", "normal"], "{answer}");
}
