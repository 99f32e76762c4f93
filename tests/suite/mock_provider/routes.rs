//! Which dialect and what for, by the path; and the answer, rendered.

use bytes::Bytes;
use serde_json::{Value, json};

use super::behaviour::Behaviour;
use super::{anthropic, bedrock, gemini, oip, ollama, openai};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    OpenAi,
    Anthropic,
    Gemini,
    Ollama,
    Bedrock,
    Oip,
}

/// An answer before its faults.
pub(super) struct Answer {
    pub(super) dialect: Dialect,
    pub(super) status: u16,
    pub(super) content_type: &'static str,
    pub(super) frames: Vec<Bytes>,
    pub(super) headers: Vec<(&'static str, String)>,
}

pub(super) struct Asked<'a> {
    pub(super) model: String,
    pub(super) stream: bool,
    /// Tells the usage of a stream in its last chunk, asked or not, as Mistral does.
    pub(super) tells_usage: bool,
    pub(super) body: &'a Value,
    pub(super) does: &'a Behaviour,
}

impl Asked<'_> {
    pub(super) fn word(&self, at: usize) -> &'static str {
        self.does.word(at)
    }

    pub(super) fn text(&self) -> String {
        self.does.text()
    }

    /// The name of the first tool, where it is to be called.
    pub(super) fn tool(&self) -> Option<String> {
        let tools = &self.body["tools"];
        let names = [
            &tools[0]["function"]["name"],
            &tools[0]["name"],
            &tools[0]["functionDeclarations"][0]["name"],
            &self.body["toolConfig"]["tools"][0]["toolSpec"]["name"],
        ];
        let name = names.into_iter().find_map(Value::as_str)?;
        self.does.tool_call.then(|| name.to_owned())
    }
}

pub(super) fn json_answer(dialect: Dialect, value: &Value) -> Answer {
    whole(dialect, 200, value)
}

fn whole(dialect: Dialect, status: u16, value: &Value) -> Answer {
    Answer {
        dialect,
        status,
        content_type: "application/json",
        frames: vec![Bytes::from(value.to_string())],
        headers: Vec::new(),
    }
}

/// Events of a stream, one in a frame.
pub(super) fn sse(dialect: Dialect, events: impl IntoIterator<Item = String>) -> Answer {
    let frames = events.into_iter().map(Bytes::from).collect();
    Answer { dialect, status: 200, content_type: "text/event-stream", frames, headers: Vec::new() }
}

/// The dialect of a path, also of one that leads nowhere.
pub(super) fn dialect_of(path: &str) -> Dialect {
    let path = path.split('?').next().unwrap_or(path);
    if path.starts_with("/model/") {
        Dialect::Bedrock
    } else if path.contains("/v1/messages") || path.contains("/publishers/anthropic/") {
        Dialect::Anthropic
    } else if path.starts_with("/api/") {
        Dialect::Ollama
    } else if path.starts_with("/v2") {
        Dialect::Oip
    } else if path.contains("/models/") && path.contains(':') || path.starts_with("/v1beta/models") {
        Dialect::Gemini
    } else {
        Dialect::OpenAi
    }
}

/// The model: in the body, or in the path.
pub(super) fn model_of(path: &str, body: &Value) -> String {
    if let Some(model) = body["model"].as_str() {
        return model.to_owned();
    }
    let path = path.split('?').next().unwrap_or(path);
    let after = |mark: &str| path.split_once(mark).map(|(_, rest)| rest);
    let segment = after("/models/")
        .or_else(|| after("/model/"))
        .or_else(|| after("/deployments/"))
        .or_else(|| after("/endpoints/"));
    let segment = segment.unwrap_or("").split('/').next().unwrap_or("");
    segment.split(':').next().unwrap_or("").replace("%3A", ":")
}

pub(super) fn answer(method: &str, path: &str, body: &Value, does: &Behaviour) -> Answer {
    let dialect = dialect_of(path);
    let bare = path.split('?').next().unwrap_or(path);
    let stream = body["stream"]
        .as_bool()
        .unwrap_or(dialect == Dialect::Ollama && bare.starts_with("/api/") && body["stream"].is_null());
    let model = model_of(path, body);
    let does = &does.clone().able(&model, body);
    let tells_usage = does.usage && bare.starts_with("/mistral/");
    let asked = Asked { model, stream, tells_usage, body, does };
    match dialect {
        Dialect::Bedrock if bare.ends_with("/converse") => bedrock::converse(&asked),
        Dialect::Bedrock if bare.ends_with("/converse-stream") => bedrock::converse_stream(&asked),
        Dialect::Anthropic if bare.contains("count_tokens") || bare.contains("count-tokens") => {
            anthropic::count_tokens()
        }
        Dialect::Anthropic => anthropic::messages(&asked, bare.ends_with(":streamRawPredict") || stream),
        Dialect::Gemini => gemini::answer(&asked, bare),
        Dialect::Ollama => ollama::answer(&asked, bare),
        Dialect::Oip => oip::answer(&asked, bare),
        Dialect::OpenAi => match bare.rsplit('/').next().unwrap_or("") {
            "invocations-response-stream" => bedrock::wrap(openai::chat(&asked)),
            "completions" if !bare.ends_with("/chat/completions") => openai::completions(&asked),
            "completions" | "invocations" => openai::chat(&asked),
            "responses" => openai::responses(&asked),
            "embeddings" => openai::embeddings(&asked),
            "moderations" => openai::moderations(&asked),
            "models" if method == "GET" && bare.starts_with("/v1beta") => gemini::models(),
            "models" if method == "GET" => openai::models(),
            "token" => {
                json_answer(dialect, &json!({"access_token": "ya29.mock", "expires_in": 3599, "token_type": "Bearer"}))
            }
            "health" => json_answer(dialect, &json!({})),
            _ => error(dialect, 404, None),
        },
        Dialect::Bedrock => error(dialect, 404, None),
    }
}

/// An error as the dialect has it.
pub(super) fn error(dialect: Dialect, status: u16, retry_after_s: Option<u64>) -> Answer {
    let message = format!("the mock was told to answer {status}");
    let (name, google, amazon) = match status {
        400 => ("invalid_request_error", "INVALID_ARGUMENT", "ValidationException"),
        401 => ("authentication_error", "UNAUTHENTICATED", "UnrecognizedClientException"),
        403 => ("permission_error", "PERMISSION_DENIED", "AccessDeniedException"),
        404 => ("not_found_error", "NOT_FOUND", "ResourceNotFoundException"),
        413 => ("request_too_large", "INVALID_ARGUMENT", "ValidationException"),
        429 => ("rate_limit_error", "RESOURCE_EXHAUSTED", "ThrottlingException"),
        503 => ("overloaded_error", "UNAVAILABLE", "ServiceUnavailableException"),
        529 => ("overloaded_error", "UNAVAILABLE", "ServiceUnavailableException"),
        _ => ("api_error", "INTERNAL", "InternalServerException"),
    };
    let value = match dialect {
        // As Azure says that its filter stopped the question.
        Dialect::OpenAi if status == 422 => {
            json!({"error": {"message": message, "type": null, "param": "prompt", "code": "content_filter"}})
        }
        Dialect::OpenAi => json!({"error": {"message": message, "type": name, "param": null, "code": null}}),
        Dialect::Anthropic => {
            json!({"type": "error", "error": {"type": name, "message": message}, "request_id": "req_mock"})
        }
        Dialect::Gemini => json!({"error": {"code": status, "message": message, "status": google}}),
        Dialect::Ollama | Dialect::Oip => json!({"error": message}),
        Dialect::Bedrock => json!({"message": message}),
    };
    let filtered = dialect == Dialect::OpenAi && status == 422;
    let mut answer = whole(dialect, if filtered { 400 } else { status }, &value);
    if dialect == Dialect::Bedrock {
        answer.headers.push(("x-amzn-errortype", amazon.to_owned()));
    }
    if let Some(seconds) = retry_after_s {
        answer.headers.push(("retry-after", seconds.to_string()));
    }
    answer
}

/// An error in the middle of a stream.
pub(super) fn error_frame(dialect: Dialect) -> Bytes {
    let message = "the mock was told to fail here";
    match dialect {
        Dialect::Anthropic => {
            let value = json!({"type": "error", "error": {"type": "overloaded_error", "message": message}});
            Bytes::from(format!("event: error\ndata: {value}\n\n"))
        }
        Dialect::Ollama => Bytes::from(format!("{}\n", json!({"error": message}))),
        Dialect::Bedrock => bedrock::exception("modelStreamErrorException", message),
        Dialect::Gemini => Bytes::from(format!(
            "data: {}\n\n",
            json!({"error": {"code": 503, "message": message, "status": "UNAVAILABLE"}})
        )),
        Dialect::Oip => oip::error_frame(message),
        Dialect::OpenAi => Bytes::from(format!(
            "data: {}\n\n",
            json!({"error": {"message": message, "type": "server_error", "param": null, "code": null}})
        )),
    }
}
