//! Who answers for a loaded model: an engine, or the steps of a pipeline. To whoever asks they are the same.

use std::sync::Arc;

use super::pipeline::Pipeline;
use super::pipeline_tally::StepReport;
use crate::engine::{self, Handle, TensorSpec};

/// What answers.
#[derive(Debug, Clone)]
pub enum Backend {
    /// A model in an engine.
    Engine(Handle),
    /// Steps that ask other models.
    Pipeline(Arc<Pipeline>),
}

impl Backend {
    /// The model in its engine. None for a pipeline.
    pub fn handle(&self) -> Option<&Handle> {
        match self {
            Self::Engine(handle) => Some(handle),
            Self::Pipeline(_) => None,
        }
    }

    pub(super) fn pipeline(&self) -> Option<&Arc<Pipeline>> {
        match self {
            Self::Engine(_) => None,
            Self::Pipeline(pipeline) => Some(pipeline),
        }
    }

    /// What computes it, in a word.
    pub fn engine(&self) -> &'static str {
        self.handle().map_or(super::pipeline::ENGINE, Handle::engine)
    }

    /// Declared outputs.
    pub(super) fn outputs(&self) -> &[TensorSpec] {
        match self {
            Self::Engine(handle) => handle.outputs(),
            Self::Pipeline(pipeline) => &pipeline.outputs,
        }
    }

    /// Bytes that it reserved itself.
    pub(super) fn memory_bytes(&self) -> u64 {
        self.handle().map_or(0, Handle::memory_bytes)
    }

    /// Whether requests that wait are computed together, and why or why not.
    pub(super) fn batching(&self) -> &str {
        self.handle().map_or("requests meet in the models of the pipeline", Handle::batching)
    }

    /// The most rows that are computed together; 1 where requests are computed one by one.
    pub(super) fn batch_rows_max(&self) -> usize {
        self.handle().map_or(1, Handle::batch_rows_max)
    }
}

/// What came out of it.
#[derive(Debug, Clone)]
pub(super) struct Outputs {
    /// The declared outputs, in their order.
    pub(super) tensors: Vec<engine::NamedTensor>,
    /// Time to compute, waiting not included, in microseconds; of a pipeline that of all its steps.
    pub(super) duration_us: u64,
    /// Who computed it.
    pub(super) engine: &'static str,
    /// Why it was not the delegate that should have.
    pub(super) fallback: Option<Arc<str>>,
    /// The run of the model that it came out of.
    pub(super) run: engine::Run,
    /// What each step of a pipeline did.
    pub(super) steps: Vec<StepReport>,
}

impl From<engine::Outputs> for Outputs {
    fn from(outputs: engine::Outputs) -> Self {
        let engine::Outputs { tensors, duration_us, engine, fallback, run } = outputs;
        Self { tensors, duration_us, engine, fallback, run, steps: Vec::new() }
    }
}
