//! A model with a batch: its inputs, the engine that the gateway would choose for it, and its requests as bytes.

use std::path::Path;
use std::sync::Arc;

use forebay::base::{Datatype, Name, Tensor};
use forebay::engine::{LoadSpec, NamedTensor, Outline, Port, Session, TensorSpec, built_in};
use serde_json::{Value, json};

use crate::CPU;

#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) model: String,
    pub(crate) batch: usize,
    pub(crate) inputs: Vec<NamedTensor>,
    /// Elements of inputs and outputs, which JSON spells out.
    pub(crate) numbers: usize,
    /// What the engine answers.
    pub(crate) expected: Vec<NamedTensor>,
    pub(crate) session: Arc<dyn Session>,
    pub(crate) engine: &'static str,
    pub(crate) json: Vec<u8>,
    /// The length of its JSON, and it with the tensors behind it.
    pub(crate) binary: (usize, Vec<u8>),
    pub(crate) message: Vec<u8>,
    pub(crate) bento: Vec<u8>,
}

/// Every case of the folder whose model is wanted.
pub(crate) fn cases(folder: &Path, wanted: &[String]) -> Vec<Case> {
    let told: Vec<Value> = serde_json::from_slice(&std::fs::read(folder.join("cases.json")).unwrap()).unwrap();
    let mut cases: Vec<Case> = Vec::new();
    for told in &told {
        let model = told["model"].as_str().unwrap();
        if !wanted.is_empty() && !wanted.iter().any(|wanted| wanted == model) {
            continue;
        }
        let known = cases.iter().find(|case| case.model == model);
        let (session, engine) = match known {
            Some(case) => (Arc::clone(&case.session), case.engine),
            None => load(folder, model),
        };
        let inputs: Vec<NamedTensor> =
            told["inputs"].as_array().unwrap().iter().map(|input| read(folder, input)).collect();
        let expected = session.run(&inputs).unwrap();
        let elements = |tensors: &[NamedTensor]| tensors.iter().map(|named| named.tensor.elements()).sum::<usize>();
        cases.push(Case {
            model: model.to_owned(),
            batch: usize::try_from(told["batch"].as_u64().unwrap()).unwrap(),
            numbers: elements(&inputs) + elements(&expected),
            json: serde_json::to_vec(&json!({ "inputs": inputs.iter().map(with_data).collect::<Vec<_>>() })).unwrap(),
            binary: binary(&inputs),
            message: message(model, &inputs),
            bento: bento(model, &inputs),
            inputs,
            expected,
            session,
            engine,
        });
    }
    cases
}

fn load(folder: &Path, model: &str) -> (Arc<dyn Session>, &'static str) {
    let bytes = std::fs::read(folder.join("models").join(model).join("1/model.onnx")).unwrap();
    let outline = Outline::of(&bytes).unwrap();
    let port = |port: &Port| TensorSpec {
        name: port.name.as_str().into(),
        datatype: port.datatype.unwrap_or(Datatype::Fp32),
        shape: port.shape().unwrap_or_default(),
    };
    let spec = LoadSpec {
        inputs: outline.inputs.iter().map(port).collect(),
        outputs: outline.outputs.iter().map(port).collect(),
        ..LoadSpec::new(Name::new(model).unwrap(), 1, "onnx", bytes)
    };
    let fits = built_in().into_iter().filter_map(|engine| Some((engine.suits(&spec).ok()?, engine)));
    let (_, engine) = fits.min_by_key(|(fit, _)| *fit).unwrap();
    (Arc::from(engine.load(&spec).unwrap()), engine.name())
}

fn read(folder: &Path, input: &Value) -> NamedTensor {
    let bytes = std::fs::read(folder.join(input["file"].as_str().unwrap())).unwrap();
    let shape: Vec<usize> = serde_json::from_value(input["shape"].clone()).unwrap();
    let datatype = Datatype::named(input["datatype"].as_str().unwrap()).unwrap();
    NamedTensor::new(input["name"].as_str().unwrap(), Tensor::from_bytes(datatype, shape, bytes.into()).unwrap())
}

/// As a Python client writes them, who has 32-bit floats as 64-bit ones: up to 18 digits each.
fn data(tensor: &Tensor) -> Value {
    match tensor.datatype() {
        Datatype::Int64 => json!(tensor.as_slice::<i64>().unwrap()),
        _ => json!(tensor.to_numbers().unwrap()),
    }
}

fn with_data(input: &NamedTensor) -> Value {
    let (datatype, shape) = (input.tensor.datatype().as_str(), input.tensor.shape());
    json!({ "name": &*input.name, "shape": shape, "datatype": datatype, "data": data(&input.tensor) })
}

fn binary(inputs: &[NamedTensor]) -> (usize, Vec<u8>) {
    let told = |input: &NamedTensor| {
        let (datatype, shape) = (input.tensor.datatype().as_str(), input.tensor.shape());
        let parameters = json!({ "binary_data_size": input.tensor.bytes().len() });
        json!({ "name": &*input.name, "shape": shape, "datatype": datatype, "parameters": parameters })
    };
    let inputs_told: Vec<Value> = inputs.iter().map(told).collect();
    let head = json!({ "inputs": inputs_told, "parameters": { "binary_data_output": true } });
    let mut body = serde_json::to_vec(&head).unwrap();
    let head_bytes = body.len();
    inputs.iter().for_each(|input| body.extend_from_slice(input.tensor.bytes()));
    (head_bytes, body)
}

/// The data nested as the shape says, which BentoML's service makes arrays of.
fn bento(model: &str, inputs: &[NamedTensor]) -> Vec<u8> {
    fn nest(flat: &[Value], shape: &[usize]) -> Value {
        match shape {
            [] | [_] => json!(flat),
            [outer, inner @ ..] => flat.chunks(flat.len() / outer).map(|part| nest(part, inner)).collect(),
        }
    }
    let nested = |input: &NamedTensor| {
        let flat = data(&input.tensor);
        (input.name.to_string(), nest(flat.as_array().unwrap(), input.tensor.shape()))
    };
    let inputs: serde_json::Map<String, Value> = inputs.iter().map(nested).collect();
    serde_json::to_vec(&json!({ "model": model, "inputs": inputs })).unwrap()
}

/// `ModelInferRequest` with raw contents, behind gRPC's prefix.
fn message(model: &str, inputs: &[NamedTensor]) -> Vec<u8> {
    let mut message = Vec::new();
    field(&mut message, 1, model.as_bytes());
    for input in inputs {
        let (mut tensor, mut shape) = (Vec::new(), Vec::new());
        input.tensor.shape().iter().for_each(|&dim| number(&mut shape, dim));
        field(&mut tensor, 1, input.name.as_bytes());
        field(&mut tensor, 2, input.tensor.datatype().as_str().as_bytes());
        field(&mut tensor, 3, &shape);
        field(&mut message, 5, &tensor);
    }
    inputs.iter().for_each(|input| field(&mut message, 7, input.tensor.bytes()));
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    framed.extend_from_slice(&message);
    framed
}

/// A field of Protocol Buffers that has a length.
fn field(into: &mut Vec<u8>, tag: usize, bytes: &[u8]) {
    number(into, (tag << 3) | 2);
    number(into, bytes.len());
    into.extend_from_slice(bytes);
}

fn number(into: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        into.push(((value & 0x7f) as u8) | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

impl Case {
    /// The engine by itself for about `seconds`: CPU time of each run in microseconds.
    pub(crate) fn alone(&self, seconds: f64) -> f64 {
        let began = std::time::Instant::now();
        let (before, mut runs) = (CPU.thread(), 0);
        while runs < 3 || began.elapsed().as_secs_f64() < seconds {
            std::hint::black_box(self.session.run(std::hint::black_box(&self.inputs)).unwrap());
            runs += 1;
        }
        (CPU.thread() - before) / f64::from(runs)
    }

    /// The same of another model that takes and gives the same.
    pub(crate) fn asking(&self, model: &str) -> Self {
        Self { model: model.to_owned(), message: message(model, &self.inputs), ..self.clone() }
    }

    pub(crate) fn title(&self) -> String {
        format!("{}, {}", self.model, self.batch)
    }
}
