//! Inference for apps: tensors in, tensors out, from the models of this box.

use std::sync::Arc;
use std::time::Duration;

use super::models::{Models, NotServing, chain};
use crate::base::{Datatype, Tensor};
use crate::engine;

/// A tensor with its name.
#[derive(Debug, Clone)]
pub struct NamedTensor {
    /// The model's name for it.
    pub name: String,
    /// Shape and elements.
    pub tensor: Tensor,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Inferred {
    /// The model.
    pub model: String,
    /// The version that answered.
    pub version: u32,
    /// What computed it.
    pub engine: String,
    /// Time in the engine, waiting not included.
    pub duration_us: u64,
    /// Outputs in the manifest's order.
    pub outputs: Vec<NamedTensor>,
}

/// One input or output of a model.
#[derive(Debug, Clone)]
pub struct TensorMetadata {
    /// Name.
    pub name: String,
    /// Element type.
    pub datatype: Datatype,
    /// Dimensions; -1 is any size.
    pub shape: Vec<i64>,
}

/// A model as the protocol describes it.
#[derive(Debug, Clone)]
pub struct ModelMetadata {
    /// Name.
    pub name: String,
    /// Versions on this box, ascending.
    pub versions: Vec<u32>,
    /// Format of the newest version that serves.
    pub platform: String,
    /// Its inputs.
    pub inputs: Vec<TensorMetadata>,
    /// Its outputs.
    pub outputs: Vec<TensorMetadata>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum InferError {
    /// No such model or version.
    #[error("no model {0:?}; GET /api/v1/models lists them")]
    NoModel(String),
    /// It is there and does not serve.
    #[error("{reason}")]
    NotServing {
        /// Why.
        reason: String,
    },
    /// The inputs are not what the model takes.
    #[error("{detail}")]
    Shape {
        /// Which input, expected and given.
        detail: String,
    },
    /// The engine's queue is full.
    #[error("{detail}")]
    Busy {
        /// The figures.
        detail: String,
    },
    /// Not done in time.
    #[error("{detail}")]
    Deadline {
        /// The figures.
        detail: String,
    },
    /// The engine could not compute it.
    #[error("failed to run the model: {detail}")]
    Failed {
        /// What the engine said.
        detail: String,
    },
}

/// The story of one inference.
pub struct Inference {
    models: Arc<Models>,
}

impl Inference {
    /// Over these models.
    pub fn new(models: Arc<Models>) -> Self {
        Self { models }
    }

    /// Asks a model; without a version the newest that serves.
    pub async fn infer(
        &self,
        model: &str,
        version: Option<u32>,
        inputs: Vec<NamedTensor>,
        deadline: Duration,
    ) -> Result<Inferred, InferError> {
        let loaded = self.models.serving(model, version).map_err(|error| match error {
            NotServing::Unknown(name) => InferError::NoModel(name),
            refused @ NotServing::Refused { .. } => InferError::NotServing { reason: refused.to_string() },
        })?;
        let inputs = inputs.into_iter().map(|input| engine::NamedTensor::new(input.name, input.tensor)).collect();
        let outputs = loaded.handle.infer(inputs, Some(deadline)).await.map_err(translate)?;
        let outputs_named = outputs.tensors.into_iter();
        Ok(Inferred {
            model: loaded.manifest.model.name.to_string(),
            version: loaded.manifest.model.version,
            engine: outputs.engine.to_owned(),
            duration_us: outputs.duration_us,
            outputs: outputs_named
                .map(|output| NamedTensor { name: output.name.to_string(), tensor: output.tensor })
                .collect(),
        })
    }

    /// What the model takes and gives; `None` if there is none that serves.
    pub fn metadata(&self, model: &str) -> Option<ModelMetadata> {
        let loaded = self.models.serving(model, None).ok()?;
        let ports = |specs: &[engine::TensorSpec]| {
            let port = |spec: &engine::TensorSpec| TensorMetadata {
                name: spec.name.to_string(),
                datatype: spec.datatype,
                shape: spec.shape.clone(),
            };
            specs.iter().map(port).collect()
        };
        Some(ModelMetadata {
            name: model.to_owned(),
            versions: self.models.versions(model),
            platform: loaded.manifest.model.format.clone(),
            inputs: ports(loaded.handle.inputs()),
            outputs: ports(loaded.handle.outputs()),
        })
    }
}

#[allow(clippy::needless_pass_by_value, reason = "for map_err")]
fn translate(error: engine::Error) -> InferError {
    use engine::Error as E;
    let detail = chain(&error);
    match error {
        E::MissingInput { .. }
        | E::UnknownInput { .. }
        | E::Shape { .. }
        | E::Datatype { .. }
        | E::TooLarge { .. }
        | E::NotFinite { .. } => InferError::Shape { detail },
        E::Busy { .. } => InferError::Busy { detail },
        E::Expired { .. } => InferError::Deadline { detail },
        E::Closed
        | E::NoEngine { .. }
        | E::NoneTakes { .. }
        | E::Load { .. }
        | E::Declared { .. }
        | E::Sample { .. }
        | E::Thread(_) => InferError::NotServing { reason: detail },
        E::Panicked { .. } | E::Run { .. } => InferError::Failed { detail },
    }
}
