//! A model of the catalog in the engine's words, and in those of its steps.

use std::sync::Arc;

use crate::base::Tensor;
use crate::catalog::{Error, Labels, Model, Port, Values};
use crate::engine::{LoadSpec, NamedTensor, Sample, TensorSpec};
use crate::transform::{self, Plan};

/// What the engine needs to load `model`. Reads the file and checks its digest: not for an async thread.
pub fn load_spec(model: &Model) -> Result<LoadSpec, Error> {
    let manifest = &model.manifest;
    let spec = |port: &Port| TensorSpec {
        name: port.name.as_str().into(),
        datatype: port.datatype,
        shape: port.shape.clone(),
    };
    let named = |ports: &[Port], given: &std::collections::BTreeMap<String, Values>| {
        let tensor = |port: &Port| {
            let values = given.get(&port.name)?.as_slice();
            let shape = port.sample_shape(values.len())?;
            Some(NamedTensor::new(port.name.as_str(), Tensor::of_numbers(port.datatype, shape, values)?))
        };
        ports.iter().filter_map(tensor).collect::<Vec<_>>()
    };
    let sample = |golden: &crate::catalog::Golden| Sample {
        inputs: named(&manifest.inputs, &golden.inputs),
        outputs: named(&manifest.outputs, &golden.outputs),
        #[allow(clippy::cast_possible_truncation, reason = "models compute in 32 bits")]
        tolerance: golden.tolerance as f32,
    };
    Ok(LoadSpec {
        name: manifest.model.name.clone(),
        version: manifest.model.version,
        format: manifest.model.format.clone(),
        engine: manifest.model.engine.clone(),
        bytes: Arc::from(model.read()?),
        inputs: manifest.inputs.iter().map(spec).collect(),
        outputs: manifest.outputs.iter().map(spec).collect(),
        samples: manifest.golden.iter().map(sample).collect(),
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

/// Why a model's steps cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A file beside the model.
    #[error("{0}")]
    File(String),
    /// A step.
    #[error(transparent)]
    Steps(#[from] transform::Error),
}
