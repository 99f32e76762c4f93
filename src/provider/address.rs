//! Where to send what: origins, and the path of each call at each kind of provider.
//!
//! Paths follow the makers' references as of October 2026: OpenAI v1, Azure OpenAI (v1, and deployments with
//! `api-version`), Anthropic 2023-06-01, Gemini v1beta, Vertex AI v1, Bedrock runtime 2023-09-30, SageMaker runtime
//! 2017-05-13, Ollama's API, vLLM 0.32, Open Inference Protocol v2.

use hyper::http::uri::PathAndQuery;
use hyper::{Method, Uri};

use super::config::Config;
use super::kind::{Call, Kind, Operation, Wire};

/// A model's name goes into paths; no provider has longer ones.
const MODEL_BYTES_MAX: usize = 512;

/// Scheme, host, port and the path before every other path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) tls: bool,
    /// With brackets, if it is an IPv6 address.
    pub(super) host: String,
    pub(super) port: u16,
    /// Empty, or a slash and something without a slash at its end.
    pub(super) path: String,
}

impl Origin {
    /// Reads `https://host:port/path`. The error continues "base_url ...".
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        const SHAPE: &str = "must be http://host, https://host:port or the like";
        let uri: Uri = url.parse().map_err(|_| format!("{url:?} is no URL: it {SHAPE}"))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(format!("{SHAPE}, and {url:?} is neither")),
        };
        let authority = uri.authority().ok_or_else(|| format!("{url:?} has no host: it {SHAPE}"))?;
        if authority.as_str().contains('@') {
            return Err("must not hold a user or password".to_owned());
        }
        if uri.host().is_none_or(str::is_empty) || uri.query().is_some() || url.contains('#') {
            // What follows the path may be a key.
            let shown = url.split(['?', '#']).next().unwrap_or_default();
            return Err(format!("{shown:?} may have a host, a port and a path only"));
        }
        let has_port = authority.as_str().len() > authority.host().len();
        if has_port && authority.port_u16().is_none_or(|port| port == 0) {
            return Err(format!("{url:?} has a port that is none"));
        }
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        let path = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { tls, host: authority.host().to_owned(), port, path })
    }

    /// What the `Host` header says.
    pub(super) fn host_header(&self) -> String {
        let usual = if self.tls { 443 } else { 80 };
        if self.port == usual { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }

    /// `host:port`, for people.
    pub(super) fn far_side(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// The addresses of one provider.
#[derive(Debug)]
pub(super) struct Addresses {
    kind: Kind,
    pub(super) origin: Origin,
    /// Before the paths of OpenAI's language.
    openai: String,
    /// Before the paths of the kind's own language.
    root: String,
    api_version: Option<String>,
}

impl Addresses {
    /// From a configuration that was checked. `project` is known from the service account by now.
    pub(super) fn new(config: &Config, project: Option<&str>) -> Result<Self, String> {
        let url = config.base_url.clone().unwrap_or_else(|| own_address(config));
        let mut origin = Origin::parse(&url)?;
        let base = std::mem::take(&mut origin.path);
        let without = |ends: &[&str]| ends.iter().find_map(|end| base.strip_suffix(end)).unwrap_or(&base).to_owned();
        let (root, openai) = match config.kind {
            Kind::Openai | Kind::Mistral | Kind::Huggingface | Kind::Groq | Kind::OpenaiCompatible => {
                (base.clone(), base.clone())
            }
            Kind::Vllm | Kind::Ollama | Kind::Anthropic => {
                let root = without(&["/v1", "/api"]);
                (root.clone(), format!("{root}/v1"))
            }
            Kind::AzureOpenai => {
                let root = without(&["/openai/v1", "/openai"]);
                (root.clone(), format!("{root}/openai/v1"))
            }
            Kind::Gemini => {
                let root = without(&["/openai"]);
                let root = if root.contains("/v1") { root } else { format!("{root}/v1beta") };
                (root.clone(), format!("{root}/openai"))
            }
            Kind::Vertex => {
                let project = project.ok_or("needs a project")?;
                let location = config.location.as_deref().unwrap_or("global");
                let root = format!("{}/v1/projects/{project}/locations/{location}", without(&["/v1"]));
                (root.clone(), format!("{root}/endpoints/openapi"))
            }
            Kind::Bedrock => (base.clone(), format!("{base}/openai/v1")),
            Kind::Sagemaker => (base.clone(), base.clone()),
            Kind::Oip => (without(&["/v2"]), String::new()),
        };
        Ok(Self { kind: config.kind, origin, openai, root, api_version: config.api_version.clone() })
    }

    /// Method, path and query of `call`. The error says what is wrong with the model's name.
    pub(super) fn of(&self, call: Call, model: &str, stream: bool) -> Result<(Method, PathAndQuery), String> {
        let method = match (call.wire, call.operation) {
            (Wire::Oip, _) => Method::POST,
            (_, Operation::Models) => Method::GET,
            _ => Method::POST,
        };
        let path = match call.wire {
            Wire::Openai => self.openai(call.operation, model, stream)?,
            Wire::Anthropic => self.anthropic(call.operation, model, stream)?,
            Wire::Gemini => self.gemini(call.operation, model, stream)?,
            Wire::Ollama => format!("{}{}", self.root, ollama(call.operation)),
            Wire::Converse => {
                let tail = match call.operation {
                    Operation::CountTokens => "count-tokens",
                    _ if stream => "converse-stream",
                    _ => "converse",
                };
                format!("{}/model/{}/{tail}", self.root, segment(model, "")?)
            }
            Wire::Oip if call.operation == Operation::Models => format!("{}/v2/repository/index", self.root),
            Wire::Oip => {
                let (name, version) = model.split_once('@').map_or((model, None), |(name, v)| (name, Some(v)));
                let version = version.map(|v| segment(v, "").map(|v| format!("/versions/{v}"))).transpose()?;
                let verb = match call.operation {
                    Operation::Completions if stream => "generate_stream",
                    Operation::Completions => "generate",
                    _ => "infer",
                };
                format!("{}/v2/models/{}{}/{verb}", self.root, segment(name, "")?, version.unwrap_or_default())
            }
        };
        let path = PathAndQuery::from_maybe_shared(path).map_err(|error| format!("its path is none: {error}"))?;
        Ok((method, path))
    }

    fn openai(&self, operation: Operation, model: &str, stream: bool) -> Result<String, String> {
        let tail = match operation {
            Operation::Completions => "/completions",
            Operation::Responses => "/responses",
            Operation::Embeddings => "/embeddings",
            Operation::Moderations => "/moderations",
            Operation::Models => "/models",
            _ => "/chat/completions",
        };
        Ok(match (self.kind, &self.api_version) {
            (Kind::Sagemaker, _) => {
                let tail = if stream { "invocations-response-stream" } else { "invocations" };
                format!("{}/endpoints/{}/{tail}", self.root, segment(model, "")?)
            }
            // Responses and models never had an address by deployment.
            (Kind::AzureOpenai, Some(version)) if matches!(operation, Operation::Responses | Operation::Models) => {
                format!("{}/openai{tail}?api-version={version}", self.root)
            }
            (Kind::AzureOpenai, Some(version)) => {
                format!("{}/openai/deployments/{}{tail}?api-version={version}", self.root, segment(model, "")?)
            }
            _ => [self.openai.as_str(), tail].concat(),
        })
    }

    fn anthropic(&self, operation: Operation, model: &str, stream: bool) -> Result<String, String> {
        if self.kind == Kind::Vertex {
            let (model, verb) = match operation {
                Operation::CountTokens => ("count-tokens".to_owned(), "rawPredict"),
                _ if stream => (segment(model, "@")?, "streamRawPredict"),
                _ => (segment(model, "@")?, "rawPredict"),
            };
            return Ok(format!("{}/publishers/anthropic/models/{model}:{verb}", self.root));
        }
        let tail = match operation {
            Operation::CountTokens => "/v1/messages/count_tokens",
            Operation::Models => "/v1/models",
            _ => "/v1/messages",
        };
        Ok(format!("{}{tail}", self.root))
    }

    fn gemini(&self, operation: Operation, model: &str, stream: bool) -> Result<String, String> {
        if operation == Operation::Models {
            return Ok(format!("{}/models", self.root));
        }
        let verb = match operation {
            Operation::CountTokens => "countTokens",
            Operation::Embeddings => "embedContent",
            Operation::EmbeddingsBatch => "batchEmbedContents",
            _ if stream => "streamGenerateContent?alt=sse",
            _ => "generateContent",
        };
        // `models/x` is how Gemini's own list names them; `tunedModels/x` and `endpoints/1` are models as well.
        let folder = if self.kind == Kind::Vertex { "publishers/google/models" } else { "models" };
        let name = model.strip_prefix("models/").unwrap_or(model);
        Ok(match name.split_once('/') {
            Some((folder @ ("tunedModels" | "endpoints"), name)) => {
                format!("{}/{folder}/{}:{verb}", self.root, segment(name, "")?)
            }
            _ => format!("{}/{folder}/{}:{verb}", self.root, segment(name, "@")?),
        })
    }

    /// A cheap question whose answer says that it is well and knows us; none: only whether it takes a connection.
    pub(super) fn probe(&self) -> Option<PathAndQuery> {
        let path = match self.kind {
            Kind::Bedrock | Kind::Sagemaker | Kind::Vertex => return None,
            Kind::Vllm => format!("{}/health", self.root),
            Kind::Ollama => format!("{}/api/version", self.root),
            Kind::Oip => format!("{}/v2/health/ready", self.root),
            Kind::Gemini => format!("{}/models?pageSize=1", self.root),
            Kind::Anthropic => format!("{}/v1/models?limit=1", self.root),
            Kind::AzureOpenai if self.api_version.is_some() => self.openai(Operation::Models, "", false).ok()?,
            Kind::AzureOpenai
            | Kind::Openai
            | Kind::Mistral
            | Kind::Huggingface
            | Kind::Groq
            | Kind::OpenaiCompatible => format!("{}/models", self.openai),
        };
        PathAndQuery::from_maybe_shared(path).ok()
    }
}

fn ollama(operation: Operation) -> &'static str {
    match operation {
        Operation::Completions => "/api/generate",
        Operation::Embeddings => "/api/embed",
        Operation::Models => "/api/tags",
        _ => "/api/chat",
    }
}

fn own_address(config: &Config) -> String {
    let region = config.region.as_deref().unwrap_or_default();
    let aws = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    match config.kind {
        Kind::Openai => "https://api.openai.com/v1".to_owned(),
        Kind::Anthropic => "https://api.anthropic.com".to_owned(),
        Kind::Gemini => "https://generativelanguage.googleapis.com/v1beta".to_owned(),
        Kind::Mistral => "https://api.mistral.ai/v1".to_owned(),
        Kind::Huggingface => "https://router.huggingface.co/v1".to_owned(),
        Kind::Groq => "https://api.groq.com/openai/v1".to_owned(),
        Kind::Ollama => "http://127.0.0.1:11434".to_owned(),
        Kind::Bedrock => format!("https://bedrock-runtime.{region}.{aws}"),
        Kind::Sagemaker => format!("https://runtime.sagemaker.{region}.{aws}"),
        Kind::Vertex => match config.location.as_deref() {
            None | Some("global") => "https://aiplatform.googleapis.com".to_owned(),
            Some(location) => format!("https://{location}-aiplatform.googleapis.com"),
        },
        // `check` has asked for their addresses.
        Kind::AzureOpenai | Kind::Vllm | Kind::OpenaiCompatible | Kind::Oip => String::new(),
    }
}

/// `text` as one segment of a path: everything but letters, digits, `-._~` and `also` is escaped, so that no name leads
/// out of its place.
fn segment(text: &str, also: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("the model has no name".to_owned());
    }
    if text.len() > MODEL_BYTES_MAX {
        return Err(format!("the model's name has {} bytes, and {MODEL_BYTES_MAX} are the most", text.len()));
    }
    if matches!(text, "." | "..") {
        return Err(format!("{text:?} is no model"));
    }
    let mut out = String::with_capacity(text.len());
    escape(text, also, &mut out);
    Ok(out)
}

/// RFC 3986: all but the unreserved characters and those of `also` as `%XX`.
pub(super) fn escape(text: &str, also: &str, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || also.as_bytes().contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::config::tests::config;
    use proptest::prelude::*;

    /// Settings, call, model, whether in pieces; where to.
    type Case = (&'static str, (Wire, Operation), &'static str, bool, &'static str);

    fn addresses(text: &str) -> Addresses {
        Addresses::new(&config(&format!("name = \"o\"\n{text}")), Some("plant-7")).unwrap()
    }

    fn url(text: &str, call: (Wire, Operation), model: &str, stream: bool) -> String {
        let addresses = addresses(text);
        let (_, path) = addresses.of(Call::new(call.0, call.1), model, stream).unwrap();
        format!("{}{path}", addresses.origin.host_header())
    }

    #[test]
    fn every_kind_is_asked_at_the_address_that_its_maker_documents() {
        use Operation as O;
        use Wire as W;
        let chat = (W::Openai, O::Chat);
        let cases: &[Case] = &[
            ("kind=\"openai\"", chat, "gpt-4.1", true, "api.openai.com/v1/chat/completions"),
            ("kind=\"openai\"", (W::Openai, O::Responses), "gpt-4.1", true, "api.openai.com/v1/responses"),
            ("kind=\"openai\"", (W::Openai, O::Moderations), "m", false, "api.openai.com/v1/moderations"),
            ("kind=\"mistral\"", (W::Openai, O::Embeddings), "m", false, "api.mistral.ai/v1/embeddings"),
            ("kind=\"groq\"", chat, "m", false, "api.groq.com/openai/v1/chat/completions"),
            ("kind=\"huggingface\"", chat, "m", false, "router.huggingface.co/v1/chat/completions"),
            ("kind=\"anthropic\"", (W::Anthropic, O::Chat), "c", true, "api.anthropic.com/v1/messages"),
            (
                "kind=\"anthropic\"",
                (W::Anthropic, O::CountTokens),
                "c",
                false,
                "api.anthropic.com/v1/messages/count_tokens",
            ),
            (
                "kind=\"anthropic\"\nbase_url=\"https://a.example/v1/\"",
                (W::Anthropic, O::Chat),
                "c",
                true,
                "a.example/v1/messages",
            ),
            (
                "kind=\"azure-openai\"\nbase_url=\"https://r.openai.azure.com\"\napi_version=\"2024-10-21\"",
                chat,
                "my deployment",
                false,
                "r.openai.azure.com/openai/deployments/my%20deployment/chat/completions?api-version=2024-10-21",
            ),
            (
                "kind=\"azure-openai\"\nbase_url=\"https://r.openai.azure.com/openai/v1/\"",
                chat,
                "d",
                false,
                "r.openai.azure.com/openai/v1/chat/completions",
            ),
            (
                "kind=\"gemini\"",
                (W::Gemini, O::Chat),
                "models/gemini-2.5-pro",
                true,
                "generativelanguage.googleapis.com/v1beta/models/gemini-2.5-pro:streamGenerateContent?alt=sse",
            ),
            (
                "kind=\"gemini\"\nbase_url=\"https://generativelanguage.googleapis.com/\"",
                (W::Gemini, O::EmbeddingsBatch),
                "gemini-embedding-001",
                false,
                "generativelanguage.googleapis.com/v1beta/models/gemini-embedding-001:batchEmbedContents",
            ),
            ("kind=\"gemini\"", chat, "g", false, "generativelanguage.googleapis.com/v1beta/openai/chat/completions"),
            (
                "kind=\"vertex\"\nlocation=\"europe-west4\"",
                (W::Gemini, O::Chat),
                "gemini-2.5-pro",
                false,
                "europe-west4-aiplatform.googleapis.com/v1/projects/plant-7/locations/europe-west4/publishers/google/models/gemini-2.5-pro:generateContent",
            ),
            (
                "kind=\"vertex\"",
                (W::Anthropic, O::Chat),
                "claude-sonnet-4@20250514",
                true,
                "aiplatform.googleapis.com/v1/projects/plant-7/locations/global/publishers/anthropic/models/claude-sonnet-4@20250514:streamRawPredict",
            ),
            (
                "kind=\"bedrock\"\nregion=\"eu-central-1\"",
                (W::Converse, O::Chat),
                "eu.anthropic.claude-3-7-sonnet-20250219-v1:0",
                true,
                "bedrock-runtime.eu-central-1.amazonaws.com/model/eu.anthropic.claude-3-7-sonnet-20250219-v1%3A0/converse-stream",
            ),
            (
                "kind=\"sagemaker\"\nregion=\"cn-north-1\"",
                chat,
                "qwen",
                true,
                "runtime.sagemaker.cn-north-1.amazonaws.com.cn/endpoints/qwen/invocations-response-stream",
            ),
            ("kind=\"vllm\"\nbase_url=\"http://gpu:8000/v1\"", chat, "q", false, "gpu:8000/v1/chat/completions"),
            (
                "kind=\"vllm\"\nbase_url=\"http://gpu:8000\"",
                (W::Anthropic, O::Chat),
                "q",
                false,
                "gpu:8000/v1/messages",
            ),
            ("kind=\"ollama\"", (W::Ollama, O::Chat), "q", true, "127.0.0.1:11434/api/chat"),
            ("kind=\"ollama\"\nbase_url=\"http://o:1/v1\"", (W::Ollama, O::Embeddings), "q", true, "o:1/api/embed"),
            ("kind=\"ollama\"", (W::Openai, O::Chat), "q", true, "127.0.0.1:11434/v1/chat/completions"),
            (
                "kind=\"openai-compatible\"\nbase_url=\"http://[::1]:9/llm/api/v3\"",
                chat,
                "q",
                true,
                "[::1]:9/llm/api/v3/chat/completions",
            ),
            (
                "kind=\"oip\"\nbase_url=\"http://t:8000/v2/\"",
                (W::Oip, O::Infer),
                "press@3",
                false,
                "t:8000/v2/models/press/versions/3/infer",
            ),
            (
                "kind=\"oip\"\nbase_url=\"http://t:8000\"",
                (W::Oip, O::Completions),
                "llama@3",
                false,
                "t:8000/v2/models/llama/versions/3/generate",
            ),
            (
                "kind=\"oip\"\nbase_url=\"http://t:8000\"",
                (W::Oip, O::Completions),
                "llama",
                true,
                "t:8000/v2/models/llama/generate_stream",
            ),
        ];
        for (text, call, model, stream, expected) in cases {
            assert_eq!(url(text, *call, model, *stream), *expected, "{text}");
        }
    }

    #[test]
    fn a_url_that_is_none_or_holds_a_password_is_refused() {
        for bad in [
            "",
            "api.openai.com",
            "ftp://x",
            "https://",
            "https://u:p@x",
            "https://x/?q=1",
            "http://x:0",
            "http://x:99999",
            "https://x/#a",
        ] {
            assert!(Origin::parse(bad).is_err(), "{bad:?}");
        }
        let origin = Origin::parse("https://x.example:8443/a/b/").unwrap();
        assert_eq!((origin.tls, origin.port, origin.path.as_str()), (true, 8443, "/a/b"));
        assert_eq!(origin.host_header(), "x.example:8443");
    }

    #[test]
    fn a_name_that_is_no_model_is_refused_before_it_gets_into_a_path() {
        let bedrock = addresses("kind=\"bedrock\"\nregion=\"eu\"");
        let call = Call::new(Wire::Converse, Operation::Chat);
        for bad in ["", ".", "..", &"x".repeat(MODEL_BYTES_MAX + 1)] {
            assert!(bedrock.of(call, bad, false).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_model_name_leads_out_of_its_place(model in "\\PC{1,60}", stream: bool) {
            let bedrock = addresses("kind=\"bedrock\"\nregion=\"eu\"");
            if let Ok((_, path)) = bedrock.of(Call::new(Wire::Converse, Operation::Chat), &model, stream) {
                prop_assert_eq!(path.path().matches('/').count(), 3);
                prop_assert!(path.query().is_none());
            }
        }
    }
}
