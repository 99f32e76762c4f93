//! What a caller sees when there is no answer: a status, a code to program against, a sentence, and what to do.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::doors::shared_memory::RegionError;
use crate::flows::inference::InferError;
use crate::flows::intake::IngestError;
use crate::flows::predict::PredictError;
use crate::flows::query::QueryError;
use crate::flows::raw::RawError;
use crate::flows::repository::RepositoryError;

/// An error on its way out. The details a log needs never ride along.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Problem {
    #[serde(skip)]
    pub(super) status: StatusCode,
    /// Stable word for programs.
    pub(super) code: &'static str,
    /// What happened.
    pub(super) message: String,
    /// What to do about it.
    pub(super) hint: String,
    #[serde(skip)]
    pub(super) retry_after_s: Option<u32>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), hint: String::new(), retry_after_s: None }
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    pub(super) fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// A query parameter that cannot be used.
    pub(super) fn parameter(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_parameter", message).hint(hint)
    }

    /// No stream of that name, or none that this caller may see: the two must look the same.
    pub(super) fn no_stream(stream: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "no_stream", format!("no stream {stream:?}"))
            .hint("GET /api/v1/streams lists them")
    }

    /// The form that inference clients expect: `{"error": "..."}`.
    pub(super) fn into_oip(self) -> Response {
        let text = if self.hint.is_empty() { self.message } else { format!("{}; {}", self.message, self.hint) };
        let mut response = (self.status, Json(serde_json::json!({ "error": text }))).into_response();
        set_retry_after(&mut response, self.retry_after_s);
        response
    }
}

fn set_retry_after(response: &mut Response, seconds: Option<u32>) {
    if let Some(seconds) = seconds {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let (status, retry_after_s) = (self.status, self.retry_after_s);
        let mut response = (status, Json(serde_json::json!({ "error": self }))).into_response();
        set_retry_after(&mut response, retry_after_s);
        response
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        match error {
            QueryError::NoStream(stream) => Self::no_stream(&stream),
            QueryError::Store(source) => {
                tracing::warn!(error = %source, "a question to the store failed");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "store", "failed to read the store")
                    .hint("GET /readyz says what is wrong")
                    .retry_after(5)
            }
        }
    }
}

impl From<IngestError> for Problem {
    fn from(error: IngestError) -> Self {
        let message = error.to_string();
        match error {
            IngestError::NoStream(stream) => Self::no_stream(&stream),
            IngestError::Forbidden { .. } => Self::new(StatusCode::FORBIDDEN, "forbidden", message)
                .hint("add the stream's topic to this identity's `publish` rules"),
            IngestError::Payload { .. } => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "payload", message)
                .hint("[stream.signal.decoder] and `fields` of this stream say what it expects"),
            IngestError::Full => Self::new(StatusCode::TOO_MANY_REQUESTS, "full", message)
                .hint("nothing was kept; send it again later")
                .retry_after(1),
            IngestError::Quota => Self::new(StatusCode::INSUFFICIENT_STORAGE, "quota", message)
                .hint("GET /api/v1/queue shows the shares, [outbox] sets them; send it again later")
                .retry_after(5),
            IngestError::File => Self::new(StatusCode::INSUFFICIENT_STORAGE, "file", message)
                .hint("store.max_bytes bounds it; GET /metrics shows what the queue, sessions and history have of it")
                .retry_after(5),
            IngestError::Disk => Self::new(StatusCode::SERVICE_UNAVAILABLE, "disk", message)
                .hint("nothing was acknowledged; GET /readyz says what is wrong")
                .retry_after(5),
            IngestError::Closing => Self::new(StatusCode::SERVICE_UNAVAILABLE, "closing", message)
                .hint("nothing was kept; send it again when the gateway is back")
                .retry_after(5),
        }
    }
}

impl From<RawError> for Problem {
    fn from(error: RawError) -> Self {
        let message = error.to_string();
        match error {
            RawError::NoStream(stream) => Self::no_stream(&stream),
            RawError::NoAlarm { .. } => {
                Self::new(StatusCode::NOT_FOUND, "no_alarm", message).hint("GET /api/v1/alerts lists what is kept")
            }
            RawError::Nothing { .. } => Self::new(StatusCode::NOT_FOUND, "no_readings", message)
                .hint("GET /api/v1/streams/{stream}/curve shows what is kept"),
            RawError::Request => Self::new(StatusCode::BAD_REQUEST, "bad_request", message),
            RawError::Full => Self::new(StatusCode::TOO_MANY_REQUESTS, "full", message).retry_after(5),
            RawError::Store(source) => {
                tracing::warn!(error = %source, "readings for the cloud could not be queued");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "store", message)
                    .hint("GET /readyz says what is wrong")
                    .retry_after(5)
            }
            RawError::Outbox(source) => {
                tracing::warn!(error = %source, "readings for the cloud could not be queued");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "queue", message)
                    .hint("`max_streams` in [outbox] is the bound")
            }
        }
    }
}

impl From<RepositoryError> for Problem {
    fn from(error: RepositoryError) -> Self {
        let message = error.to_string();
        match error {
            RepositoryError::Unknown { .. } | RepositoryError::NotThere(_) => {
                Self::new(StatusCode::NOT_FOUND, "no_model", message)
                    .hint("POST /v2/repository/index lists what is there")
            }
            RepositoryError::Configuration { .. } => Self::new(StatusCode::BAD_REQUEST, "bad_configuration", message)
                .hint("GET /v2/models/{model}/config has what may come back; nothing has changed"),
            RepositoryError::Files { .. } => Self::new(StatusCode::BAD_REQUEST, "files", message)
                .hint("put them into the models folder, with a manifest that has their digests, and load it"),
            RepositoryError::Refused { .. } => Self::new(StatusCode::BAD_REQUEST, "refused", message)
                .hint("what served before serves on; `forebay check` says what is wrong with a model"),
            RepositoryError::InUse { .. } => Self::new(StatusCode::CONFLICT, "in_use", message)
                .hint("take the model out of the stream's configuration first"),
            RepositoryError::NoSuch(_) => Self::new(StatusCode::NOT_FOUND, "no_model", message)
                .hint("GET /api/v1/models lists models and aliases"),
            RepositoryError::Alias(_) => Self::new(StatusCode::BAD_REQUEST, "bad_alias", message)
                .hint("an alias is a name for a version that can answer"),
            RepositoryError::Traffic(_) => Self::new(StatusCode::BAD_REQUEST, "bad_traffic", message).hint(
                "send weights for aliases or versions that can answer: {\"split\": {\"prod\": 90, \"canary\": 10}}",
            ),
            RepositoryError::Disk(_) => {
                tracing::error!(error = message, "an alias or a model's traffic was not kept");
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "disk", "it could not be kept")
                    .hint("the log says why; nothing has changed")
            }
            RepositoryError::Closing => Self::new(StatusCode::SERVICE_UNAVAILABLE, "closing", message).retry_after(5),
        }
    }
}

impl From<InferError> for Problem {
    fn from(error: InferError) -> Self {
        let message = error.to_string();
        match error {
            InferError::NoModel(_) => Self::new(StatusCode::NOT_FOUND, "no_model", message),
            InferError::NoVersion(_) => {
                Self::new(StatusCode::NOT_FOUND, "no_model", message).hint("GET /v2/models/{model} lists the versions")
            }
            InferError::NotServing { .. } => Self::new(StatusCode::SERVICE_UNAVAILABLE, "not_serving", message)
                .hint("GET /api/v1/models says why")
                .retry_after(5),
            InferError::Shape { .. } => {
                Self::new(StatusCode::BAD_REQUEST, "shape", message).hint("GET /v2/models/{model} says what it takes")
            }
            InferError::Busy { .. } => Self::new(StatusCode::TOO_MANY_REQUESTS, "busy", message).retry_after(1),
            InferError::Deadline { .. } => Self::new(StatusCode::GATEWAY_TIMEOUT, "deadline", message).retry_after(1),
            InferError::Failed { .. } => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "inference", message),
        }
    }
}

impl From<RegionError> for Problem {
    fn from(error: RegionError) -> Self {
        let message = error.to_string();
        let status = match error {
            RegionError::Off | RegionError::Forbidden(_) => StatusCode::FORBIDDEN,
            RegionError::Unknown(_) => StatusCode::NOT_FOUND,
            RegionError::Full(_) => StatusCode::PAYLOAD_TOO_LARGE,
            RegionError::Wrong(_) => StatusCode::BAD_REQUEST,
            RegionError::Changed(_) => StatusCode::CONFLICT,
        };
        Self::new(status, "shared_memory", message)
    }
}

impl From<PredictError> for Problem {
    fn from(error: PredictError) -> Self {
        let message = error.to_string();
        match error {
            PredictError::Inference(error) => error.into(),
            PredictError::NoSteps(_) => Self::new(StatusCode::BAD_REQUEST, "tensors_only", message)
                .hint("POST /v2/models/{model}/infer takes its tensors; docs/predict.md says how to describe more"),
            PredictError::NotBuilt { .. } => Self::new(StatusCode::NOT_IMPLEMENTED, "not_built", message)
                .hint("POST /v2/models/{model}/infer takes its tensors"),
            PredictError::Content(_) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, "content", message)
                .hint("[predict] in the model's manifest says what it takes"),
            PredictError::TooLarge(_) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
                .hint("send less; [predict] in the configuration has the bounds"),
            PredictError::Busy(_) => Self::new(StatusCode::TOO_MANY_REQUESTS, "busy", message)
                .hint("send it again; `threads` in [predict] is the bound")
                .retry_after(1),
            PredictError::Failed(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "prediction", message),
        }
    }
}
