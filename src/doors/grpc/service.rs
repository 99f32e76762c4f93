//! Each call of the protocol, answered by a flow.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio_rustls::TlsAcceptor;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use super::content::{describe, inputs, wanted, whole};
use super::describe::{configuration, figures};
use super::entrance::{Peer, Place};
use super::status::{bad, of_inference, of_region, of_repository};
use super::wire::grpc_inference_service_server::GrpcInferenceService;
use super::wire::infer_parameter::ParameterChoice;
use super::wire::{self, InferParameter, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse};
use crate::access::{Access, Principal};
use crate::doors::caller::{identity, is_forwarded};
use crate::doors::http::extensions;
use crate::doors::settings::{Value, change_log, change_trace, log_settings, trace_settings};
use crate::doors::shared_memory::{Owner, RegionView, Regions, ToRegion};
use crate::flows::LoadConfig;
use crate::flows::inference::{Bearings, InferError, Inference, Key, NamedTensor, Question, TensorMetadata};
use crate::flows::logging::Logging;
use crate::flows::query::Query;
use crate::flows::repository::{Repository, RepositoryError};

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
    /// Tensors in memory that callers share.
    pub regions: Arc<Regions>,
    /// How much the log says.
    pub logging: Arc<Logging>,
    /// [`acceptor`](super::acceptor); None where the door speaks plainly.
    pub tls: Option<TlsAcceptor>,
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

    fn asking<T>(&self, request: &Request<T>, most: Duration) -> Asking {
        let (inference, regions) = (Arc::clone(&self.parts.inference), Arc::clone(&self.parts.regions));
        Asking { inference, regions, owner: owner(request).ok(), call: Arc::new(Call::of(request)), most }
    }
}

type Answer<T> = Result<Response<T>, Status>;

/// Who asks, and what answers.
#[derive(Clone)]
struct Asking {
    inference: Arc<Inference>,
    regions: Arc<Regions>,
    owner: Option<Owner>,
    call: Arc<Call>,
    most: Duration,
}

impl Asking {
    fn owner(&self) -> Result<&Owner, Status> {
        self.owner.as_ref().ok_or_else(|| Status::unauthenticated("regions belong to whoever has registered them"))
    }
}

/// What a call says of itself beside the request.
struct Call {
    metadata: MetadataMap,
    who: Option<Principal>,
}

impl Call {
    fn of<T>(request: &Request<T>) -> Self {
        Self { metadata: request.metadata().clone(), who: request.extensions().get::<Principal>().cloned() }
    }

    /// What holds `request` to the same versions as others.
    fn key(&self, inference: &Inference, request: &ModelInferRequest) -> Key {
        let header = |name: &str| self.metadata.get(name).and_then(|value| value.to_str().ok());
        let sequence = request.parameters.get("sequence_id").and_then(sequence);
        let caller = self.who.as_ref().and_then(identity);
        let id = Some(request.id.as_str()).filter(|id| !id.is_empty());
        let bearings =
            Bearings { header: Some(&header), sequence: sequence.as_deref(), caller, request: id, exchange: None };
        inference.key(&bearings)
    }
}

/// Triton's id for requests that belong together; 0 and an empty one are none.
fn sequence(parameter: &InferParameter) -> Option<String> {
    match parameter.parameter_choice.as_ref()? {
        ParameterChoice::StringParam(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        _ => whole(parameter).filter(|&number| number > 0).map(|number| number.to_string()),
    }
}

async fn infer(asking: &Asking, mut request: ModelInferRequest) -> Result<ModelInferResponse, Status> {
    let Asking { inference, regions, most, .. } = asking;
    let most = *most;
    let key = asking.call.key(inference, &request);
    let (outputs, places) = wanted(&mut request)?;
    let version = version(inference, &request.model_name, &request.model_version)?;
    let priority = request.parameters.get("priority").and_then(whole).unwrap_or(0);
    let timeout = request.parameters.get("timeout").and_then(whole).filter(|&micros| micros > 0);
    let deadline = timeout.map_or(most, |micros| Duration::from_micros(micros).min(most));
    let told = matches!(
        request.parameters.get("forebay_steps").and_then(|p| p.parameter_choice.as_ref()),
        Some(ParameterChoice::BoolParam(true))
    );
    let (mut inputs, in_regions) = inputs(&mut request)?;
    if !in_regions.is_empty() {
        inputs.extend(regions.read(asking.owner()?, in_regions).await.map_err(|error| of_region(&error))?);
    }
    let question = Question { model: request.model_name, version, inputs, outputs, deadline, priority };
    let inferred = inference.infer_for(question, &key).await.map_err(|error| of_inference(&error))?;
    let text = |text: String| InferParameter { parameter_choice: Some(ParameterChoice::StringParam(text)) };
    let mut parameters = HashMap::from([("forebay_engine".to_owned(), text(inferred.engine))]);
    if let Some(reason) = &inferred.fallback {
        parameters.insert("forebay_fallback".to_owned(), text(reason.to_string()));
    }
    let place = |at: usize| places.get(at).and_then(Option::as_ref);
    let placed = inferred.outputs.iter().enumerate().filter_map(|(at, output)| {
        let (name, elements) = (output.name.clone(), output.tensor.bytes().clone());
        Some(ToRegion { name, elements, place: place(at)?.clone() })
    });
    let placed: Vec<_> = placed.collect();
    if !placed.is_empty() {
        regions.write(asking.owner()?, placed).await.map_err(|error| of_region(&error))?;
    }
    // One for each output, so that clients find those of the others by their number.
    let raw = |(at, output): (usize, &NamedTensor)| match place(at) {
        None => output.tensor.bytes().clone(),
        Some(_) => Bytes::new(),
    };
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
        outputs: inferred.outputs.iter().enumerate().map(|(at, output)| describe(output, place(at))).collect(),
        raw_output_contents: inferred.outputs.iter().enumerate().map(raw).collect(),
    })
}

/// One request of a stream: its failure is an answer, and the stream goes on.
async fn infer_in_stream(asking: &Asking, request: ModelInferRequest) -> ModelStreamInferResponse {
    let (id, model_name) = (request.id.clone(), request.model_name.clone());
    let wants_final = matches!(
        request.parameters.get("triton_enable_empty_final_response").and_then(|p| p.parameter_choice.as_ref()),
        Some(ParameterChoice::BoolParam(true))
    );
    let (error_message, mut response) = match infer(asking, request).await {
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

fn caller<T>(request: &Request<T>) -> Result<&Principal, Status> {
    request.extensions().get().ok_or_else(|| Status::unauthenticated("this call needs to know who is calling"))
}

fn owner<T>(request: &Request<T>) -> Result<Owner, Status> {
    caller(request).map(Owner::of)
}

fn may_manage<T>(request: &Request<T>) -> Result<(), Status> {
    let who = caller(request)?;
    if who.may_manage_models() {
        return Ok(());
    }
    Err(Status::permission_denied(format!(
        "{} may not load or unload models or change the log; give this identity `manage_models = true` in [[access.identity]]",
        who.name()
    )))
}

/// What a request to load says of how the model is served.
fn load_config(request: &wire::RepositoryModelLoadRequest) -> Result<LoadConfig, RepositoryError> {
    use wire::model_repository_parameter::ParameterChoice as Choice;
    let model = || request.model_name.clone();
    let mut asked = LoadConfig::default();
    for (parameter, value) in &request.parameters {
        let problem = match (parameter.as_str(), &value.parameter_choice) {
            (file, _) if file.starts_with("file:") => {
                return Err(RepositoryError::Files { model: model(), file: parameter.clone() });
            }
            ("config", Some(Choice::StringParam(text))) => match LoadConfig::parse(text) {
                Ok(read) => {
                    asked = read;
                    continue;
                }
                Err(problem) => problem,
            },
            ("config", _) => "parameter \"config\" is a model configuration as a JSON text".to_owned(),
            _ => format!("parameter {parameter:?} cannot be given with a request"),
        };
        return Err(RepositoryError::Configuration { model: model(), problem });
    }
    Ok(asked)
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
            extensions: extensions(&self.parts.regions).into_iter().map(str::to_owned).collect(),
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
        infer(&self.asking(&request, most), request.into_inner()).await.map(Response::new)
    }

    type ModelStreamInferStream = Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send>>;

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Answer<Self::ModelStreamInferStream> {
        let place = request.extensions().get::<Place>().cloned();
        let asking = self.asking(&request, self.timeout);
        let answers = request.into_inner().map(move |request| {
            let (asking, place) = (asking.clone(), place.clone());
            async move {
                let _place = place;
                Ok(infer_in_stream(&asking, request?).await)
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
        let models = self.parts.repository.index(only_ready).await.map_err(|error| of_repository(&error))?;
        let entry = |view: crate::flows::models::ModelView| wire::repository_index_response::ModelIndex {
            state: view.state_word().to_owned(),
            name: view.name,
            version: view.version.to_string(),
            reason: view.problem.unwrap_or_default(),
        };
        Ok(Response::new(wire::RepositoryIndexResponse { models: models.into_iter().map(entry).collect() }))
    }

    async fn repository_model_load(
        &self,
        request: Request<wire::RepositoryModelLoadRequest>,
    ) -> Answer<wire::RepositoryModelLoadResponse> {
        may_manage(&request)?;
        let request = request.into_inner();
        let asked = load_config(&request).map_err(|error| of_repository(&error))?;
        self.parts.repository.load_as(&request.model_name, asked).await.map_err(|error| of_repository(&error))?;
        Ok(Response::new(wire::RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<wire::RepositoryModelUnloadRequest>,
    ) -> Answer<wire::RepositoryModelUnloadResponse> {
        may_manage(&request)?;
        let wire::RepositoryModelUnloadRequest { model_name: model, parameters, .. } = request.into_inner();
        let mut with_dependents = false;
        for (parameter, value) in &parameters {
            use wire::model_repository_parameter::ParameterChoice as Choice;
            match value.parameter_choice {
                Some(Choice::BoolParam(truth)) if parameter == "unload_dependents" => with_dependents = truth,
                _ => {
                    let message = format!(
                        "parameter {parameter:?} cannot be given like that; `unload_dependents` is true or false"
                    );
                    return Err(bad(message));
                }
            }
        }
        self.parts.repository.unload_all(&model, with_dependents).await.map_err(|error| of_repository(&error))?;
        Ok(Response::new(wire::RepositoryModelUnloadResponse {}))
    }

    async fn system_shared_memory_status(
        &self,
        request: Request<wire::SystemSharedMemoryStatusRequest>,
    ) -> Answer<wire::SystemSharedMemoryStatusResponse> {
        use wire::system_shared_memory_status_response::RegionStatus;
        let owner = owner(&request)?;
        let name = request.into_inner().name;
        let name = Some(name.as_str()).filter(|name| !name.is_empty());
        let regions = self.parts.regions.status(&owner, name).map_err(|error| of_region(&error))?;
        let status = |region: RegionView| {
            let RegionView { name, key, offset, bytes } = region;
            (name.clone(), RegionStatus { name, key, offset, byte_size: bytes })
        };
        let regions = regions.into_iter().map(status).collect();
        Ok(Response::new(wire::SystemSharedMemoryStatusResponse { regions }))
    }

    async fn system_shared_memory_register(
        &self,
        request: Request<wire::SystemSharedMemoryRegisterRequest>,
    ) -> Answer<wire::SystemSharedMemoryRegisterResponse> {
        let owner = owner(&request)?;
        let peer = request.extensions().get::<Peer>().map(|peer| peer.address);
        let peer = peer.ok_or_else(|| Status::internal("this connection has no address"))?;
        let forwarded = is_forwarded(&request.metadata().clone().into_headers());
        let wire::SystemSharedMemoryRegisterRequest { name, key, offset, byte_size } = request.into_inner();
        let asked = RegionView { name, key, offset, bytes: byte_size };
        self.parts.regions.register(&owner, peer, forwarded, asked).map_err(|error| of_region(&error))?;
        Ok(Response::new(wire::SystemSharedMemoryRegisterResponse {}))
    }

    async fn system_shared_memory_unregister(
        &self,
        request: Request<wire::SystemSharedMemoryUnregisterRequest>,
    ) -> Answer<wire::SystemSharedMemoryUnregisterResponse> {
        let owner = owner(&request)?;
        let name = request.into_inner().name;
        self.parts.regions.unregister(&owner, Some(name.as_str()).filter(|name| !name.is_empty()));
        Ok(Response::new(wire::SystemSharedMemoryUnregisterResponse {}))
    }

    async fn cuda_shared_memory_status(
        &self,
        request: Request<wire::CudaSharedMemoryStatusRequest>,
    ) -> Answer<wire::CudaSharedMemoryStatusResponse> {
        let name = request.into_inner().name;
        if name.is_empty() {
            return Ok(Response::new(wire::CudaSharedMemoryStatusResponse::default()));
        }
        Err(Status::not_found(format!("Unable to find cuda shared memory region: {name:?}")))
    }

    async fn cuda_shared_memory_register(
        &self,
        request: Request<wire::CudaSharedMemoryRegisterRequest>,
    ) -> Answer<wire::CudaSharedMemoryRegisterResponse> {
        let name = request.into_inner().name;
        Err(bad(format!("failed to register CUDA shared memory region: {name:?}, GPUs not supported")))
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _: Request<wire::CudaSharedMemoryUnregisterRequest>,
    ) -> Answer<wire::CudaSharedMemoryUnregisterResponse> {
        Ok(Response::new(wire::CudaSharedMemoryUnregisterResponse {}))
    }

    async fn trace_setting(&self, request: Request<wire::TraceSettingRequest>) -> Answer<wire::TraceSettingResponse> {
        let (inference, model) = (&self.parts.inference, request.get_ref().model_name.clone());
        let model = Some(model.as_str()).filter(|model| !model.is_empty());
        if let Some(model) = model {
            inference.metadata(model, None).map_err(|error| of_inference(&error))?;
        }
        if !request.get_ref().settings.is_empty() {
            may_manage(&request)?;
            let who = caller(&request)?.name().to_owned();
            let settings = request.into_inner().settings.into_iter();
            let settings: Vec<_> = settings.map(|(name, values)| (name, values.value)).collect();
            change_trace(inference.traces(), &who, model, &settings).map_err(bad)?;
        }
        let setting = |(name, value): (&str, String)| {
            (name.to_owned(), wire::trace_setting_response::SettingValue { value: vec![value] })
        };
        let settings = trace_settings(inference.traces(), model).into_iter().map(setting).collect();
        Ok(Response::new(wire::TraceSettingResponse { settings }))
    }

    async fn log_settings(&self, request: Request<wire::LogSettingsRequest>) -> Answer<wire::LogSettingsResponse> {
        use wire::log_settings_request::setting_value::ParameterChoice as Given;
        use wire::log_settings_response::{SettingValue, setting_value::ParameterChoice as Told};
        let logging = &self.parts.logging;
        if !request.get_ref().settings.is_empty() {
            may_manage(&request)?;
            let who = caller(&request)?.name().to_owned();
            let settings = request.into_inner().settings.into_iter().map(|(name, value)| {
                let value = match value.parameter_choice {
                    Some(Given::BoolParam(truth)) => Value::Truth(truth),
                    Some(Given::Uint32Param(number)) => Value::Number(number.into()),
                    Some(Given::StringParam(text)) => Value::Text(text),
                    None => return Err(bad(format!("log setting {name} has no value"))),
                };
                Ok((name, value))
            });
            let settings = settings.collect::<Result<Vec<_>, _>>()?;
            change_log(logging, &who, &settings).map_err(bad)?;
        }
        let setting = |(name, value): (&str, Value)| {
            let choice = match value {
                Value::Truth(truth) => Told::BoolParam(truth),
                Value::Number(number) => Told::Uint32Param(u32::try_from(number).unwrap_or(u32::MAX)),
                Value::Text(text) => Told::StringParam(text),
            };
            (name.to_owned(), SettingValue { parameter_choice: Some(choice) })
        };
        let settings = log_settings(logging).into_iter().map(setting).collect();
        Ok(Response::new(wire::LogSettingsResponse { settings }))
    }
}
