//! A model of the catalog in the engine's words, and in those of its steps.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::Tensor;
use crate::catalog::{self, GoldenValue, Labels, Manifest, Model, Port};
use crate::engine::{self, LoadSpec, NamedTensor, Sample, TensorSpec};
use crate::transform::{self, Plan};

/// Why a model cannot even be given to an engine.
#[derive(Debug, thiserror::Error)]
pub enum LoadSpecError {
    /// A file of it.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    /// The manifest leaves inputs or outputs to the file, and the file does not say them.
    #[error("the manifest leaves its {what} to the model file: {reason}")]
    Signature {
        /// `inputs` or `outputs`.
        what: &'static str,
        /// Why the file is of no help.
        reason: String,
    },
    /// A golden sample that is none of this model.
    #[error("golden sample {number}: {reason}")]
    Golden {
        /// From 1, as the samples stand in the manifest.
        number: usize,
        /// What is wrong with it.
        reason: String,
    },
}

/// Why a model's steps cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A file beside the model.
    #[error("{0}")]
    File(String),
    /// What the model takes and gives is not to be had.
    #[error(transparent)]
    Signature(#[from] LoadSpecError),
    /// A step.
    #[error(transparent)]
    Steps(#[from] transform::Error),
}

/// What the engine needs to load `model`. Reads its files and checks their digests: not for an async thread.
pub fn load_spec(model: &Model) -> Result<LoadSpec, LoadSpecError> {
    let bare = without_ports(model)?;
    let manifest = with_signature(&model.manifest, &bare)?;
    let spec = |port: &Port| TensorSpec {
        name: port.name.as_str().into(),
        datatype: port.datatype,
        shape: port.shape.clone(),
    };
    let samples = manifest.golden.iter().enumerate();
    let samples = samples.map(|(at, golden)| {
        let reason = |reason| LoadSpecError::Golden { number: at + 1, reason };
        let golden = golden.clone().fitted(&manifest.inputs, &manifest.outputs).map_err(reason)?;
        #[allow(clippy::cast_possible_truncation, reason = "models compute in 32 bits")]
        Ok(Sample {
            inputs: tensors(model, at + 1, &manifest.inputs, &golden.inputs)?,
            outputs: tensors(model, at + 1, &manifest.outputs, &golden.outputs)?,
            tolerance: golden.tolerance as f32,
            relative_tolerance: golden.relative_tolerance as f32,
        })
    });
    Ok(LoadSpec {
        samples: samples.collect::<Result<_, LoadSpecError>>()?,
        inputs: manifest.inputs.iter().map(spec).collect(),
        outputs: manifest.outputs.iter().map(spec).collect(),
        ..bare
    })
}

/// The model with its files, and nothing yet of what it takes and gives.
fn without_ports(model: &Model) -> Result<LoadSpec, LoadSpecError> {
    let about = &model.manifest.model;
    let beside = engine::files_beside(&about.format).iter();
    let files = beside.filter_map(|&name| Some((name, model.read_file(name)?)));
    let files = files.map(|(name, bytes)| Ok((name.to_owned(), Arc::from(bytes?))));
    Ok(LoadSpec {
        name: about.name.clone(),
        version: about.version,
        format: about.format.clone(),
        engine: about.engine.clone(),
        bytes: model.read()?,
        files: files.collect::<Result<_, catalog::Error>>()?,
        samples: Vec::new(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        allow_non_finite: false,
    })
}

/// The names of the elements of `port`, from the manifest or from their file. Reads the disk.
pub(super) fn labels(model: &Model, port: &Port) -> Result<Vec<String>, String> {
    let name = match &port.labels {
        None => return Ok(Vec::new()),
        Some(Labels::Listed(labels)) => return Ok(labels.clone()),
        Some(Labels::File(name)) => name,
    };
    let bytes = read(model, name)?;
    let text = String::from_utf8(bytes).map_err(|_| format!("labels of {}: {name} is not UTF-8", port.name))?;
    Ok(text.lines().map(|line| line.trim_end().to_owned()).collect())
}

fn read(model: &Model, name: &str) -> Result<Vec<u8>, String> {
    match model.read_file(name) {
        None => Err(format!("{name:?} is not in the manifest: list it in [[file]] with its sha256")),
        Some(read) => read.map_err(|error| super::models::chain(&error)),
    }
}

/// The steps of `[predict]`, checked against what the model takes and gives; None if there is no such table. Reads files
/// beside the model: not for an async thread.
pub fn plan_of(model: &Model) -> Result<Option<Plan>, PlanError> {
    let manifest = &model.manifest;
    if manifest.predict.is_none() || !(manifest.inputs.is_empty() || manifest.outputs.is_empty()) {
        return plan(model, manifest);
    }
    plan(model, &with_signature(manifest, &without_ports(model)?)?)
}

/// The same by a manifest that has all inputs and outputs.
pub(super) fn plan(model: &Model, manifest: &Manifest) -> Result<Option<Plan>, PlanError> {
    let Some(table) = &manifest.predict else { return Ok(None) };
    let port = |port: &Port| {
        Ok(transform::Port {
            name: port.name.clone(),
            datatype: port.datatype,
            shape: port.shape.clone(),
            labels: labels(model, port).map_err(PlanError::File)?,
            unit: port.unit.clone(),
        })
    };
    let ports = |ports: &[Port]| ports.iter().map(port).collect::<Result<Vec<_>, PlanError>>();
    let (inputs, outputs) = (ports(&manifest.inputs)?, ports(&manifest.outputs)?);
    Ok(Some(Plan::build(table, &inputs, &outputs, &|name| read(model, name))?))
}

/// The manifest with the inputs and outputs that it leaves to the model file.
fn with_signature(manifest: &Manifest, bare: &LoadSpec) -> Result<Manifest, LoadSpecError> {
    let mut manifest = manifest.clone();
    let what = match (manifest.inputs.is_empty(), manifest.outputs.is_empty()) {
        (false, false) => return Ok(manifest),
        (true, _) => "inputs",
        (false, true) => "outputs",
    };
    let signature = engine::signature(bare).map_err(|reason| LoadSpecError::Signature { what, reason })?;
    fill(&mut manifest, &signature.inputs, &signature.outputs);
    Ok(manifest)
}

/// Writes a signature where the manifest has none.
pub(super) fn fill(manifest: &mut Manifest, inputs: &[TensorSpec], outputs: &[TensorSpec]) {
    for (ports, specs) in [(&mut manifest.inputs, inputs), (&mut manifest.outputs, outputs)] {
        if ports.is_empty() {
            let port = |spec: &TensorSpec| Port {
                name: spec.name.to_string(),
                datatype: spec.datatype,
                shape: spec.shape.clone(),
                unit: None,
                labels: None,
            };
            *ports = specs.iter().map(port).collect();
        }
    }
}

fn tensors(
    model: &Model,
    number: usize,
    ports: &[Port],
    given: &BTreeMap<String, GoldenValue>,
) -> Result<Vec<NamedTensor>, LoadSpecError> {
    let mut tensors = Vec::new();
    for port in ports {
        let Some(value) = given.get(&port.name) else { continue };
        let wrong = |reason: String| LoadSpecError::Golden { number, reason };
        let odd = || wrong(format!("{} has values that are no {}", port.name, port.datatype));
        let shape = |elements| port.sample_shape(elements).ok_or_else(odd);
        let tensor = match value {
            GoldenValue::Numbers(values) => {
                let values = values.as_slice();
                Tensor::of_numbers(port.datatype, shape(values.len())?, values).ok_or_else(odd)?
            }
            GoldenValue::Texts(texts) => Tensor::of_texts(shape(texts.len())?, texts).map_err(|_| odd())?,
            GoldenValue::File(file) => {
                let tensor = model.golden_tensor(file)?;
                let spec =
                    TensorSpec { name: port.name.as_str().into(), datatype: port.datatype, shape: port.shape.clone() };
                if tensor.datatype() != port.datatype || !spec.admits(tensor.shape()) {
                    let (datatype, shape) = (tensor.datatype(), tensor.shape());
                    return Err(wrong(format!(
                        "{} in {} is {datatype} {shape:?}, expected {} {:?} (-1 is any size)",
                        port.name, file.file, port.datatype, port.shape
                    )));
                }
                tensor
            }
        };
        tensors.push(NamedTensor::new(port.name.as_str(), tensor));
    }
    Ok(tensors)
}
