//! Models and their figures in the protocol's messages.

use super::wire;
use crate::base::Datatype;
use crate::flows::dims;
use crate::flows::inference::{ModelMetadata, Served, TensorMetadata};
use crate::flows::tally::Spent;

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
    wire::ModelConfig {
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

/// Waiting counts as `queue`; decoding and encoding tensors happen outside of the model and are not counted with it.
pub(super) fn figures(served: &Served) -> wire::ModelStatistics {
    let counts = &served.counts;
    let spent = |spent: Spent| Some(wire::StatisticDuration { count: spent.count, ns: spent.ns });
    let none = Spent { count: counts.success.count, ns: 0 };
    let batch = |(&rows, &each): (&u64, &Spent)| {
        let none = Spent { count: each.count, ns: 0 };
        wire::InferBatchStatistics {
            batch_size: rows,
            compute_input: spent(none),
            compute_infer: spent(each),
            compute_output: spent(none),
        }
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
            compute_input: spent(none),
            compute_infer: spent(counts.compute),
            compute_output: spent(none),
        }),
        batch_stats: counts.batches.iter().map(batch).collect(),
    }
}
