//! Each call of the protocol, answered by a flow.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::content::{describe, inputs, wanted, whole};
use super::entrance::Place;
use super::status::{bad, of_inference, of_repository};
use super::wire::grpc_inference_service_server::GrpcInferenceService;
use super::wire::infer_parameter::ParameterChoice;
use super::wire::{self, InferParameter, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};
use crate::access::{Access, Principal};
use crate::base::Datatype;
use crate::doors::caller::identity;
use crate::doors::http::EXTENSIONS;
use crate::flows::inference::{Bearings, InferError, Inference, ModelMetadata, Question, Served, TensorMetadata};
use crate::flows::query::Query;
use crate::flows::repository::Repository;
use crate::flows::tally::Spent;

/// Requests of one stream that are computed at the same time.
const STREAM_AHEAD: usize = 8;

/// What the door is made of.
pub struct Parts {
    /// Answers.
    pub query: Arc<Query>,
    /// Runs models.
    pub inference: Arc<Inference>,
    /// Loads models and takes them away.
    pub repository: Arc<Repository>,
    /// Knows callers.
    pub access: Arc<Access>,
}

/// The service.
pub(super) struct Oip {
    server_name: String,
    timeout: Duration,
    parts: Parts,
}

impl Oip {
    pub(super) fn new(server_name: String, call_timeout: Duration, parts: Parts) -> Self {
        // The engine gives up a little earlier than the door, so that its own word on it reaches the caller.
        Self { server_name, timeout: call_timeout.mul_f64(0.9), parts }
    }
}

type Answer<T> = Result<Response<T>, Status>;

/// What a call says of itself beside the request.
struct Call {
    metadata: MetadataMap,
    who: Option<Principal>,
}

impl Call {
    fn take<T>(request: Request<T>) -> (Self, T) {
        let (metadata, mut extensions, message) = request.into_parts();
        (Self { metadata, who: extensions.remove::<Principal>() }, message)
    }

    /// What holds `request` to the same version as others.
    fn key(&self, inference: &Inference, request: &ModelInferRequest) -> Option<String> {
        let header = |name: &str| self.metadata.get(name).and_then(|value| value.to_str().ok());
        let sequence = request.parameters.get("sequence_id").and_then(sequence);
        let caller = self.who.as_ref().and_then(identity);
        let bearings = Bearings { header: Some(&header), sequence: sequence.as_deref(), caller };
        inference.key(&request.model_name, &bearings)
    }
}

/// Triton's id for requests that belong together; 0 and an empty one are none.
fn sequence(parameter: &InferParameter) -> Option<String> {
    match parameter.parameter_choice.as_ref()? {
        ParameterChoice::StringParam(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        _ => whole(parameter).filter(|&number| number > 0).map(|number| number.to_string()),
    }
}

async fn infer(
    inference: &Inference,
    mut request: ModelInferRequest,
    call: &Call,
    most: Duration,
) -> Result<ModelInferResponse, Status> {
    let key = call.key(inference, &request);
    let outputs = wanted(&mut request)?;
    let version = version(inference, &request.model_name, &request.model_version)?;
    let priority = request.parameters.get("priority").and_then(whole).unwrap_or(0);
    let timeout = request.parameters.get("timeout").and_then(whole).filter(|&micros| micros > 0);
    let deadline = timeout.map_or(most, |micros| Duration::from_micros(micros).min(most));
    let told = matches!(
        request.parameters.get("forebay_steps").and_then(|p| p.parameter_choice.as_ref()),
        Some(ParameterChoice::BoolParam(true))
    );
    let inputs = inputs(&mut request)?;
    let question = Question { model: request.model_name, version, inputs, outputs, deadline, priority };
    let inferred = inference.infer_for(question, key.as_deref()).await.map_err(|error| of_inference(&error))?;
    let text = |text: String| InferParameter { parameter_choice: Some(ParameterChoice::StringParam(text)) };
    let mut parameters = HashMap::from([("forebay_engine".to_owned(), text(inferred.engine))]);
    if let Some(reason) = &inferred.fallback {
        parameters.insert("forebay_fallback".to_owned(), text(reason.to_string()));
    }
    if told && !inferred.steps.is_empty() {
        // A parameter is a plain value: the steps as JSON.
        let steps = serde_json::to_string(&inferred.steps).unwrap_or_default();
        parameters.insert("forebay_steps".to_owned(), text(steps));
    }
    Ok(ModelInferResponse {
        model_name: inferred.model,
        model_version: inferred.version.to_string(),
        id: request.id,
        parameters,
        outputs: inferred.outputs.iter().map(describe).collect(),
        raw_output_contents: inferred.outputs.iter().map(|output| output.tensor.bytes().clone()).collect(),
    })
}

/// One request of a stream: its failure is an answer, and the stream goes on.
async fn infer_in_stream(
    inference: &Inference,
    request: ModelInferRequest,
    call: &Call,
    most: Duration,
) -> ModelStreamInferResponse {
    let (id, model_name) = (request.id.clone(), request.model_name.clone());
    let wants_final = matches!(
        request.parameters.get("triton_enable_empty_final_response").and_then(|p| p.parameter_choice.as_ref()),
        Some(ParameterChoice::BoolParam(true))
    );
    let (error_message, mut response) = match infer(inference, request, call, most).await {
        Ok(response) => (String::new(), response),
        Err(status) => {
            (status.message().to_owned(), ModelInferResponse { id, model_name, ..ModelInferResponse::default() })
        }
    };
    if wants_final {
        // Every answer is the last one to its request.
        let last = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
        response.parameters.insert("triton_final_response".to_owned(), last);
    }
    ModelStreamInferResponse { error_message, infer_response: Some(response) }
}

/// A number or an alias; an empty one is whatever the model answers with.
fn version(inference: &Inference, model: &str, text: &str) -> Result<Option<u32>, Status> {
    if text.is_empty() {
        return Ok(None);
    }
    inference.version(model, text).map(Some).map_err(|error| of_inference(&error))
}

/// How long the client waits, where it says so: `grpc-timeout`, a number with one letter for its unit.
fn grpc_timeout<T>(request: &Request<T>) -> Option<Duration> {
    let text = request.metadata().get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok()?;
    match unit {
        "H" => number.checked_mul(3600).map(Duration::from_secs),
        "M" => number.checked_mul(60).map(Duration::from_secs),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

fn may_manage<T>(request: &Request<T>) -> Result<(), Status> {
    let who = request.extensions().get::<Principal>();
    if who.is_some_and(Principal::may_manage_models) {
        return Ok(());
    }
    let name = who.map_or("nobody", Principal::name);
    Err(Status::permission_denied(format!(
        "{name} may not load or unload models; give this identity `manage_models = true` in [[access.identity]]"
    )))
}

fn no_shared_memory() -> Status {
    Status::unimplemented("tensors in shared memory are not supported; send them with the request")
}

#[tonic::async_trait]
impl GrpcInferenceService for Oip {
    async fn server_live(&self, _: Request<wire::ServerLiveRequest>) -> Answer<wire::ServerLiveResponse> {
        Ok(Response::new(wire::ServerLiveResponse { live: self.parts.query.health().alive }))
    }

    async fn server_ready(&self, _: Request<wire::ServerReadyRequest>) -> Answer<wire::ServerReadyResponse> {
        Ok(Response::new(wire::ServerReadyResponse { ready: self.parts.query.health().ready }))
    }

    async fn model_ready(&self, request: Request<wire::ModelReadyRequest>) -> Answer<wire::ModelReadyResponse> {
        let wire::ModelReadyRequest { name, version: asked } = request.into_inner();
        match self.parts.inference.metadata(&name, version(&self.parts.inference, &name, &asked)?) {
            Ok(_) => Ok(Response::new(wire::ModelReadyResponse { ready: true })),
            Err(InferError::NotServing { .. }) => Ok(Response::new(wire::ModelReadyResponse { ready: false })),
            Err(error) => Err(of_inference(&error)),
        }
    }

    async fn server_metadata(&self, _: Request<wire::ServerMetadataRequest>) -> Answer<wire::ServerMetadataResponse> {
        Ok(Response::new(wire::ServerMetadataResponse {
            name: self.server_name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            extensions: EXTENSIONS.map(str::to_owned).to_vec(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<wire::ModelMetadataRequest>,
    ) -> Answer<wire::ModelMetadataResponse> {
        let wire::ModelMetadataRequest { name, version: asked } = request.into_inner();
        let model = self
            .parts
            .inference
            .metadata(&name, version(&self.parts.inference, &name, &asked)?)
            .map_err(|error| of_inference(&error))?;
        let tensors = |tensors: &[TensorMetadata]| {
            let tensor = |tensor: &TensorMetadata| wire::model_metadata_response::TensorMetadata {
                name: tensor.name.clone(),
                datatype: tensor.datatype.to_string(),
                shape: tensor.shape.clone(),
            };
            tensors.iter().map(tensor).collect()
        };
        Ok(Response::new(wire::ModelMetadataResponse {
            versions: model.versions.iter().map(ToString::to_string).collect(),
            inputs: tensors(&model.inputs),
            outputs: tensors(&model.outputs),
            name: model.name,
            platform: model.platform,
        }))
    }

    async fn model_config(&self, request: Request<wire::ModelConfigRequest>) -> Answer<wire::ModelConfigResponse> {
        let wire::ModelConfigRequest { name, version: asked } = request.into_inner();
        let model = self
            .parts
            .inference
            .metadata(&name, version(&self.parts.inference, &name, &asked)?)
            .map_err(|error| of_inference(&error))?;
        Ok(Response::new(wire::ModelConfigResponse { config: Some(configuration(model)) }))
    }

    async fn model_infer(&self, request: Request<ModelInferRequest>) -> Answer<ModelInferResponse> {
        // A little earlier than the client gives up, so that it hears why.
        let most = grpc_timeout(&request).map_or(self.timeout, |asked| asked.mul_f64(0.95).min(self.timeout));
        let (call, request) = Call::take(request);
        infer(&self.parts.inference, request, &call, most).await.map(Response::new)
    }

    type ModelStreamInferStream = Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send>>;

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Answer<Self::ModelStreamInferStream> {
        let place = request.extensions().get::<Place>().cloned();
        let (inference, most) = (Arc::clone(&self.parts.inference), self.timeout);
        let (call, requests) = Call::take(request);
        let call = Arc::new(call);
        let answers = requests.map(move |request| {
            let (inference, place, call) = (Arc::clone(&inference), place.clone(), Arc::clone(&call));
            async move {
                let _place = place;
                Ok(infer_in_stream(&inference, request?, &call, most).await)
            }
        });
        Ok(Response::new(Box::pin(answers.buffered(STREAM_AHEAD))))
    }

    async fn model_statistics(
        &self,
        request: Request<wire::ModelStatisticsRequest>,
    ) -> Answer<wire::ModelStatisticsResponse> {
        let wire::ModelStatisticsRequest { name, version: asked } = request.into_inner();
        let asked = version(&self.parts.inference, &name, &asked)?;
        let name = Some(name.as_str()).filter(|name| !name.is_empty());
        let served = self.parts.inference.served(name, asked).map_err(|error| of_inference(&error))?;
        Ok(Response::new(wire::ModelStatisticsResponse { model_stats: served.iter().map(figures).collect() }))
    }

    async fn repository_index(
        &self,
        request: Request<wire::RepositoryIndexRequest>,
    ) -> Answer<wire::RepositoryIndexResponse> {
        let only_ready = request.into_inner().ready;
        let models = self.parts.query.models().into_iter().filter(|view| view.serving || !only_ready);
        let entry = |view: crate::flows::models::ModelView| wire::repository_index_response::ModelIndex {
            state: view.state_word().to_owned(),
            name: view.name,
            version: view.version.to_string(),
            reason: view.problem.unwrap_or_default(),
        };
        Ok(Response::new(wire::RepositoryIndexResponse { models: models.map(entry).collect() }))
    }

    async fn repository_model_load(
        &self,
        request: Request<wire::RepositoryModelLoadRequest>,
    ) -> Answer<wire::RepositoryModelLoadResponse> {
        may_manage(&request)?;
        let request = request.into_inner();
        // A configuration or files that came with the request would be a model that nobody signed.
        if let Some(parameter) = request.parameters.keys().next() {
            return Err(bad(format!(
                "parameter {parameter:?} cannot be given with a request; a model's manifest and files lie in the models folder"
            )));
        }
        self.parts.repository.load(&request.model_name).await.map_err(|error| of_repository(&error))?;
        Ok(Response::new(wire::RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<wire::RepositoryModelUnloadRequest>,
    ) -> Answer<wire::RepositoryModelUnloadResponse> {
        may_manage(&request)?;
        let model = request.into_inner().model_name;
        self.parts.repository.unload(&model).await.map_err(|error| of_repository(&error))?;
        Ok(Response::new(wire::RepositoryModelUnloadResponse {}))
    }

    async fn system_shared_memory_status(
        &self,
        request: Request<wire::SystemSharedMemoryStatusRequest>,
    ) -> Answer<wire::SystemSharedMemoryStatusResponse> {
        if request.into_inner().name.is_empty() {
            return Ok(Response::new(wire::SystemSharedMemoryStatusResponse::default()));
        }
        Err(no_shared_memory())
    }

    async fn system_shared_memory_unregister(
        &self,
        _: Request<wire::SystemSharedMemoryUnregisterRequest>,
    ) -> Answer<wire::SystemSharedMemoryUnregisterResponse> {
        Ok(Response::new(wire::SystemSharedMemoryUnregisterResponse {}))
    }

    async fn cuda_shared_memory_status(
        &self,
        request: Request<wire::CudaSharedMemoryStatusRequest>,
    ) -> Answer<wire::CudaSharedMemoryStatusResponse> {
        if request.into_inner().name.is_empty() {
            return Ok(Response::new(wire::CudaSharedMemoryStatusResponse::default()));
        }
        Err(no_shared_memory())
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _: Request<wire::CudaSharedMemoryUnregisterRequest>,
    ) -> Answer<wire::CudaSharedMemoryUnregisterResponse> {
        Ok(Response::new(wire::CudaSharedMemoryUnregisterResponse {}))
    }
}

/// Triton's configuration of a model. The batch is a dimension like the others: `max_batch_size` is 0.
fn configuration(model: ModelMetadata) -> wire::ModelConfig {
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
    let input = |tensor: TensorMetadata| wire::ModelInput {
        name: tensor.name,
        data_type: kind(tensor.datatype).into(),
        dims: tensor.shape,
    };
    let output = |tensor: TensorMetadata| wire::ModelOutput {
        name: tensor.name,
        data_type: kind(tensor.datatype).into(),
        dims: tensor.shape,
    };
    wire::ModelConfig {
        name: model.name,
        platform: model.platform,
        max_batch_size: 0,
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
fn figures(served: &Served) -> wire::ModelStatistics {
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
