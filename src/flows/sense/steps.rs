//! A pipeline that scores a stream: its steps ask models in the queue of sensors, and nobody counts them as requests.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::catalog::Manifest;
use crate::engine::{Handle, NamedTensor, Terms};
use crate::flows::inference::{InferError, Inferred, Question};
use crate::flows::key::Key;
use crate::flows::models::Models;
use crate::flows::pipeline::{Members, Pipeline};
use crate::pipeline::{Member, Port};

/// A pipeline bound to a stream.
pub(super) struct Steps {
    models: Arc<Models>,
    pipeline: Pipeline,
    name: String,
    key: Key,
}

impl Steps {
    /// The stream's name holds its steps to the same versions of models whose requests are split.
    pub(super) fn of(manifest: &Manifest, pipeline: &Pipeline, stream: &str, models: &Arc<Models>) -> Self {
        // Figures of its own: the pipeline's are those of requests.
        let pipeline = Pipeline::new(pipeline.title.clone(), Arc::clone(&pipeline.graph));
        let name = manifest.model.name.to_string();
        Self { models: Arc::clone(models), pipeline, name, key: Key::named(stream) }
    }

    /// The pipeline's outputs. On the heap: every stream has room for what it waits for, few have a pipeline.
    pub(super) fn infer(
        &self,
        inputs: Vec<NamedTensor>,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Vec<NamedTensor>, String>> {
        async move {
            let terms = Terms { timeout: Some(timeout), ..Terms::default() };
            let ran = self.models.compose(&self.name, &self.pipeline, self, inputs, terms).await;
            ran.map(|outputs| outputs.tensors).map_err(|error| error.to_string())
        }
        .boxed()
    }
}

impl Members for Steps {
    fn ask(&self, question: Question) -> BoxFuture<'_, Result<Inferred, InferError>> {
        async move {
            let slot = self.models.held(&question.model, question.version, &self.key)?;
            let loaded = self.models.ready_in(&slot, question.deadline).await?;
            self.models.ask_quietly(&loaded, self, question).await
        }
        .boxed()
    }

    fn gives(&self, member: &Member) -> Result<Vec<Port>, InferError> {
        self.models.gives(member).map_err(|reason| InferError::NotServing { reason })
    }

    fn queue_of(&self, handle: &Handle) -> Handle {
        handle.for_sensors()
    }
}
