//! Models and their figures in the protocol's messages.

use super::wire;
use crate::base::Datatype;
use crate::flows::dims;
use crate::flows::inference::{Composing, ModelMetadata, Served, TensorMetadata};
use crate::flows::pipeline_tally::StepServed;
use crate::flows::tally::{Runs, Spent};

/// Triton's configuration of a model. The batch is a dimension like the others and `max_batch_size` 0, unless the model
/// was loaded with another.
pub(super) fn configuration(model: ModelMetadata) -> wire::ModelConfig {
    let kind = |datatype: Datatype| match datatype {
        Datatype::Bool => wire::DataType::TypeBool,
        Datatype::Uint8 => wire::DataType::TypeUint8,
        Datatype::Uint16 => wire::DataType::TypeUint16,
        Datatype::Uint32 => wire::DataType::TypeUint32,
        Datatype::Uint64 => wire::DataType::TypeUint64,
        Datatype::Int8 => wire::DataType::TypeInt8,
        Datatype::Int16 => wire::DataType::TypeInt16,
        Datatype::Int32 => wire::DataType::TypeInt32,
        Datatype::Int64 => wire::DataType::TypeInt64,
        Datatype::Fp16 => wire::DataType::TypeFp16,
        Datatype::Fp32 => wire::DataType::TypeFp32,
        Datatype::Fp64 => wire::DataType::TypeFp64,
        Datatype::Bytes => wire::DataType::TypeString,
    };
    let rows_max = model.request_rows_max;
    let input = |tensor: TensorMetadata| wire::ModelInput {
        name: tensor.name,
        data_type: kind(tensor.datatype).into(),
        dims: dims(&tensor.shape, rows_max).to_vec(),
    };
    let output = |tensor: TensorMetadata| wire::ModelOutput {
        name: tensor.name,
        data_type: kind(tensor.datatype).into(),
        dims: dims(&tensor.shape, rows_max).to_vec(),
    };
    let step = |step: Composing| wire::model_ensembling::Step {
        model_name: step.model,
        model_version: step.version.map_or(-1, i64::from),
        input_map: step.inputs.into_iter().collect(),
        output_map: step.outputs.into_iter().collect(),
    };
    let steps: Vec<_> = model.composing.into_iter().map(step).collect();
    wire::ModelConfig {
        ensemble_scheduling: (!steps.is_empty()).then_some(wire::ModelEnsembling { step: steps }),
        name: model.name,
        platform: model.platform,
        max_batch_size: i32::try_from(rows_max).unwrap_or(i32::MAX),
        input: model.inputs.into_iter().map(input).collect(),
        output: model.outputs.into_iter().map(output).collect(),
        default_model_filename: model.file,
        backend: model.engine,
        dynamic_batching: model.batching.map(|batching| wire::ModelDynamicBatching {
            preferred_batch_size: vec![i32::try_from(batching.rows_max).unwrap_or(i32::MAX)],
            max_queue_delay_microseconds: batching.delay_us,
        }),
    }
}

/// Waiting counts as `queue`; reading requests and writing answers happen outside of the model and are not counted with it.
pub(super) fn figures(served: &Served) -> wire::ModelStatistics {
    let counts = &served.counts;
    let spent = |spent: Spent| Some(wire::StatisticDuration { count: spent.count, ns: spent.ns });
    let batch = |(&rows, runs): (&u64, &Runs)| wire::InferBatchStatistics {
        batch_size: rows,
        compute_input: spent(runs.input),
        compute_infer: spent(runs.compute),
        compute_output: spent(runs.output),
    };
    wire::ModelStatistics {
        name: served.model.clone(),
        version: served.version.to_string(),
        last_inference: u64::try_from(counts.last_ms).unwrap_or(0),
        inference_count: counts.inferences,
        execution_count: counts.executions,
        inference_stats: Some(wire::InferStatistics {
            success: spent(counts.success),
            fail: spent(counts.fail),
            queue: spent(counts.queue),
            compute_input: spent(counts.input),
            compute_infer: spent(counts.compute),
            compute_output: spent(counts.output),
        }),
        batch_stats: counts.batches.iter().map(batch).collect(),
        pipeline_steps: served.steps.iter().map(step).collect(),
    }
}

fn step(served: &StepServed) -> wire::PipelineStepStatistics {
    let counts = &served.counts;
    wire::PipelineStepStatistics {
        step: served.step.clone(),
        does: served.does.to_owned(),
        model: served.model.clone().unwrap_or_default(),
        success: Some(wire::StatisticDuration { count: counts.success.count, ns: counts.success.ns }),
        fail: counts.fail,
        asked: counts.asked,
        rows: counts.rows,
        of_rows: counts.of_rows,
        fallbacks: counts.fallbacks,
    }
}
