//! A model of the catalog in the engine's words.

use std::sync::Arc;

use crate::base::Tensor;
use crate::catalog::{Error, Model, Port, Values};
use crate::engine::{LoadSpec, NamedTensor, Sample, TensorSpec};

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
