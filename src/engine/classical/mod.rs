//! Classical machine learning: trees, linear models, support vectors and the preparation around them (`ai.onnx.ml`).
//!
//! What scikit-learn, XGBoost and LightGBM become when they are converted to ONNX. A file is prepared once: trees into flat
//! nodes of twelve bytes, what is constant computed; then a request is a walk over the nodes in order, and a batch costs no
//! memory per row. `ZipMap`, which makes a map for every row, is left out as Triton does it: its output is the tensor of
//! probabilities that it was given, a column a class, in the classes' order.
//!
//! Operators are those that the converters of the common estimators write, and in `plain` those that engines for networks
//! lack. A graph without any of `ai.onnx.ml` is a neural network: it is computed here only where no other engine does.
//!
//! Limits: [`ELEMENTS_MAX`] elements of any tensor, [`TARGETS_MAX`] outputs of an ensemble, and those of [`super::onnx`].

mod attributes;
mod cast;
mod elementwise;
mod encode;
mod features;
mod kernel;
mod linear;
mod matrix;
mod operators;
mod plain;
mod plan;
mod reduce;
mod shaping;
mod transform;
mod trees;

use std::sync::Arc;

use super::error::Error;
use super::onnx::{Model, Outline, check_declared};
use super::session::{Engine, Fit, Session};
use super::spec::{LoadSpec, NamedTensor};
use plan::Plan;

/// Most elements of a tensor between operators: what a shape in a file may make us reserve.
const ELEMENTS_MAX: usize = 1 << 26;
/// Most outputs of an ensemble, and classes of a classifier.
const TARGETS_MAX: usize = 1 << 16;
const NAME: &str = "classical";

/// Reads `onnx` with operators of `ai.onnx.ml`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Classical;

impl Engine for Classical {
    fn name(&self) -> &'static str {
        NAME
    }

    fn reads(&self, format: &str) -> bool {
        format == "onnx"
    }

    fn suits(&self, spec: &LoadSpec) -> Result<Fit, String> {
        let outline = Outline::of(&spec.bytes).map_err(|error| error.to_string())?;
        if outline.has_functions {
            return Err("the model brings functions of its own".to_owned());
        }
        let unknown: Vec<_> = outline.operators.keys().filter(|title| !operators::is_known(title)).cloned().collect();
        if !unknown.is_empty() {
            return Err(format!("it has no {}", unknown.join(", ")));
        }
        // A graph without them is a neural network: right here, and slower than in an engine for networks.
        let is_classical = outline.operators.keys().any(|title| title.starts_with("ai.onnx.ml."));
        Ok(if is_classical { Fit::Best } else { Fit::Able })
    }

    fn load(&self, spec: &LoadSpec) -> Result<Box<dyn Session>, Error> {
        let failed = |reason: String| Error::Load { model: spec.title(), engine: NAME, reason };
        let model = Model::read(&spec.bytes).map_err(|error| failed(error.to_string()))?;
        let outline = Outline::of(&spec.bytes).map_err(|error| failed(error.to_string()))?;
        check_declared(spec, &outline)?;
        let inputs: Vec<&str> = spec.inputs.iter().map(|input| &*input.name).collect();
        let outputs: Vec<&str> = spec.outputs.iter().map(|output| &*output.name).collect();
        let plan = Plan::prepare(&model, &inputs, &outputs).map_err(failed)?;
        let outputs = spec.outputs.iter().map(|output| Arc::clone(&output.name)).collect();
        let is_steady = !outline.has_loops();
        Ok(Box::new(ClassicalSession { model: spec.title(), outputs, plan, is_steady }))
    }
}

struct ClassicalSession {
    model: String,
    outputs: Vec<Arc<str>>,
    plan: Plan,
    is_steady: bool,
}

impl Session for ClassicalSession {
    fn run(&self, inputs: &[NamedTensor]) -> Result<Vec<NamedTensor>, Error> {
        let tensors = self.plan.run(inputs.iter().map(|input| &input.tensor));
        let tensors = tensors.map_err(|reason| Error::Run { model: self.model.clone(), engine: NAME, reason })?;
        let named = self.outputs.iter().zip(tensors);
        Ok(named.map(|(name, tensor)| NamedTensor::new(Arc::clone(name), tensor)).collect())
    }

    fn is_steady(&self) -> bool {
        self.is_steady
    }
}

#[cfg(test)]
mod tests;
