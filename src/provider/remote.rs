//! A provider behind HTTP: address, headers, proof, one exchange.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::Full;
use hyper::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderName, HeaderValue, LOCATION, USER_AGENT};
use hyper::http::uri::PathAndQuery;
use hyper::{HeaderMap, Method, Request, Response, Uri};

use super::address::{Addresses, Origin};
use super::ask::{Ask, Asking, Provider, Reply};
use super::auth::{Proof, Showing};
use super::body::{Bounds, ReplyBody};
use super::classify::{class_of, retry_after};
use super::config::{Config, Model, OWN_HEADERS};
use super::credential::{Form, Key, KeyFile};
use super::error::{Class, ERROR_BYTES_MAX, Error, ErrorAnswer, Failure};
use super::event_stream::Unwrapper;
use super::google::Tokens;
use super::kind::{Call, Kind, Operation, Wire};
use super::metrics::{Counters, Metrics};
use super::pool::{Exchange, Limits, Pool};
use super::reshape::claude_on_vertex;
use super::sigv4::Scope;
use super::tls::Authorities;
use crate::base::{Clock, Name};

const AGENT: &str = concat!("forebay/", env!("CARGO_PKG_VERSION"));
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");
const ANTHROPIC_BETA: HeaderName = HeaderName::from_static("anthropic-beta");
/// The body of an error is not waited for any longer.
const ERROR_WAIT: Duration = Duration::from_secs(5);
/// A probe is not waited for any longer.
const PROBE_WAIT: Duration = Duration::from_secs(10);

/// A provider behind HTTP.
#[derive(Debug)]
pub struct Remote {
    config: Config,
    addresses: Addresses,
    proof: Proof,
    pool: Arc<Pool>,
    /// Of every request.
    headers: HeaderMap,
    anthropic_version: HeaderValue,
    clock: Arc<dyn Clock>,
    counters: Counters,
}

/// What providers are made with.
pub(super) struct Surroundings<'a> {
    pub(super) credentials: Option<&'a Path>,
    pub(super) authorities: &'a Authorities,
    pub(super) clock: &'a Arc<dyn Clock>,
    pub(super) metrics: &'a Metrics,
}

impl Remote {
    pub(super) fn open(config: Config, around: &Surroundings<'_>) -> Result<Self, Error> {
        config.check()?;
        let counters = around.metrics.of(&config.name);
        let key = open_key(&config, around)?;
        let account = key.as_ref().map(KeyFile::key);
        let account = account.as_deref().and_then(|key| match key {
            Key::Google(account) => Some(&**account),
            _ => None,
        });
        let wrong = |setting, problem: String| Error::Setting { provider: config.name.clone(), setting, problem };
        let project = config.project.clone().or_else(|| account?.project.clone());
        if config.kind == Kind::Vertex && project.is_none() {
            return Err(wrong("project", "is missing, and the service account's JSON names none".to_owned()));
        }
        let addresses = Addresses::new(&config, project.as_deref()).map_err(|problem| wrong("base_url", problem))?;
        let pool = |origin: Origin, counters: Counters| {
            let ca_file = config.ca_file.as_deref();
            let tls = origin.tls.then(|| around.authorities.client(&config.name, ca_file)).transpose()?;
            Ok(Pool::new(config.name.clone(), origin, limits(&config), tls, around.clock.clone(), counters))
        };
        let proof = match (key, account.map(|account| account.token_uri.clone())) {
            (None, _) => Proof::None,
            (Some(file), Some(uri)) => {
                let mut origin = Origin::parse(&uri).map_err(|problem| wrong("key_file", problem))?;
                let path = match std::mem::take(&mut origin.path) {
                    path if path.is_empty() => "/".to_owned(),
                    path => path,
                };
                let limit = Duration::from_millis(config.connect_timeout_ms).max(PROBE_WAIT);
                let pool = pool(origin, Counters::default())?;
                let tokens =
                    Tokens::new(config.name.clone(), around.clock.clone(), pool, path, limit, counters.clone());
                Proof::Google { file, tokens: Box::new(tokens) }
            }
            (Some(file), None) => Proof::Key { file, scope: scope(&config) },
        };
        let pool = pool(addresses.origin.clone(), counters.clone())?;
        let headers = own_headers(&config, &addresses.origin).map_err(|problem| wrong("headers", problem))?;
        let version = match (config.kind, &config.api_version) {
            (Kind::Anthropic, Some(version)) => version.as_str(),
            _ => "2023-06-01",
        };
        let anthropic_version =
            HeaderValue::from_str(version).map_err(|_| wrong("api_version", "is no header's value".to_owned()))?;
        let clock = around.clock.clone();
        Ok(Self { config, addresses, proof, pool, headers, anthropic_version, clock, counters })
    }

    async fn ask(&self, ask: Ask<'_>) -> Result<Reply, Failure> {
        let name = &self.config.name;
        if !self.takes(ask.call) {
            let reason = format!("a provider of the kind {} cannot be asked for {}", self.config.kind, ask.call);
            return Err(Failure::unsent(name, Class::NotFound, reason));
        }
        let (method, path) = self
            .addresses
            .of(ask.call, ask.model, ask.stream)
            .map_err(|reason| Failure::unsent(name, Class::NotFound, reason))?;
        let body = if self.config.kind == Kind::Vertex && ask.call.wire == Wire::Anthropic {
            let keep_model = ask.call.operation == Operation::CountTokens;
            claude_on_vertex(&ask.body, keep_model)
                .map_err(|reason| Failure::unsent(name, Class::BadRequest, reason))?
        } else {
            ask.body.clone()
        };
        let sending = Sending { call: ask.call, method, path, body, headers: self.headers_of(&ask) };
        let in_flight = self.counters.enter();
        let limit = ask.first_byte_timeout.unwrap_or(Duration::MAX).min(self.first_byte());
        let (head, exchange) = self.exchange(&sending, limit).await?.into_parts();
        self.check_head(&head.headers)?;
        // SageMaker wraps what the container streams; Converse's events are the language itself.
        let is_wrapped =
            self.config.kind == Kind::Sagemaker && starts_with(&head.headers, b"application/vnd.amazon.eventstream");
        let unwrapper = is_wrapped.then(Unwrapper::default);
        let body = ReplyBody::of_wire(
            exchange,
            name.clone(),
            self.bounds(),
            unwrapper,
            self.counters.clone(),
            Some(in_flight),
        );
        Ok(Reply { status: head.status.as_u16(), headers: head.headers, body })
    }

    async fn look(&self) -> Result<Duration, Failure> {
        let began = self.clock.since_boot();
        let limit = self.first_byte().min(PROBE_WAIT);
        match self.addresses.probe() {
            Some(path) => {
                let wire = self.config.kind.wires()[0];
                let call = Call::new(wire, Operation::Models);
                let mut headers = self.headers.clone();
                headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
                if wire == Wire::Anthropic {
                    headers.insert(ANTHROPIC_VERSION, self.anthropic_version.clone());
                }
                let sending = Sending { call, method: Method::GET, path, body: Bytes::new(), headers };
                let (_, exchange) = self.exchange(&sending, limit).await?.into_parts();
                // Read to its end, so that the connection serves the next request.
                let bounds = Bounds { idle: limit, total: limit, bytes: self.config.answer_bytes_max };
                ReplyBody::of_wire(exchange, self.config.name.clone(), bounds, None, self.counters.clone(), None)
                    .collect()
                    .await?;
            }
            None => {
                if let Proof::Google { .. } = self.proof {
                    let (body, path) = (Bytes::new(), PathAndQuery::from_static("/"));
                    let showing = self.showing(Wire::Gemini, &Method::GET, &path, &body);
                    self.proof.show(showing, &mut HeaderMap::new()).await?;
                }
                self.pool.reach().await?;
            }
        }
        Ok(self.clock.since_boot().saturating_sub(began))
    }

    /// Asks; where the key was refused and there is another by now, once more.
    async fn exchange(&self, sending: &Sending, limit: Duration) -> Result<Response<Exchange>, Failure> {
        let mut is_again = false;
        loop {
            let Sending { call, method, path, body, headers } = sending;
            let mut headers = headers.clone();
            let used = self.proof.show(self.showing(call.wire, method, path, body), &mut headers).await?;
            let mut request = Request::new(Full::new(body.clone()));
            *request.method_mut() = method.clone();
            *request.uri_mut() = Uri::from(path.clone());
            *request.headers_mut() = headers;
            let response = self.pool.send(request, limit).await?;
            if response.status().is_success() {
                return Ok(response);
            }
            let failure = self.refusal(response).await;
            if failure.class != Class::Auth || is_again || !self.proof.is_stale(used.as_ref()) {
                return Err(failure);
            }
            is_again = true;
        }
    }

    fn showing<'a>(&'a self, wire: Wire, method: &'a Method, path: &'a PathAndQuery, body: &'a Bytes) -> Showing<'a> {
        let (provider, kind, clock) = (&self.config.name, self.config.kind, &*self.clock);
        Showing { provider, kind, wire, method, path, body, clock }
    }

    /// Everything but the proof.
    fn headers_of(&self, ask: &Ask<'_>) -> HeaderMap {
        let mut headers = self.headers.clone();
        headers.insert(ACCEPT, accept(ask));
        if !ask.body.is_empty() {
            headers.insert(CONTENT_TYPE, JSON);
        }
        if ask.call.wire == Wire::Anthropic && self.config.kind != Kind::Vertex {
            headers.insert(ANTHROPIC_VERSION, self.anthropic_version.clone());
        }
        for (name, value) in ask.headers {
            if *name == ANTHROPIC_VERSION {
                headers.insert(name, value.clone());
            // The binary extension of the Open Inference Protocol has a body that is not JSON.
            } else if ask.call.wire == Wire::Oip && *name == CONTENT_TYPE {
                headers.insert(name, value.clone());
            // What the configuration says counts; of betas there may be several.
            } else if !OWN_HEADERS.contains(&name.as_str())
                && (!self.headers.contains_key(name) || *name == ANTHROPIC_BETA)
            {
                headers.append(name, value.clone());
            }
        }
        headers
    }

    /// A page of a portal, or bytes that nobody asked for in this form.
    fn check_head(&self, headers: &HeaderMap) -> Result<(), Failure> {
        let malformed = |reason: &str| Failure::sent(&self.config.name, Class::Malformed, reason);
        if headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            return Err(malformed("its answer is compressed, which nobody asked for"));
        }
        if starts_with(headers, b"text/html") {
            return Err(malformed("it answered with an HTML page: is there a portal or a proxy in between?"));
        }
        Ok(())
    }

    /// A status that is not 2xx.
    async fn refusal(&self, response: Response<Exchange>) -> Failure {
        let (head, exchange) = response.into_parts();
        let bounds = Bounds { idle: ERROR_WAIT, total: ERROR_WAIT, bytes: u64::MAX };
        let name = self.config.name.clone();
        let mut incoming = ReplyBody::of_wire(exchange, name.clone(), bounds, None, Counters::default(), None);
        let mut body = BytesMut::new();
        while let Some(Ok(bytes)) = incoming.next().await {
            let room = usize::try_from(ERROR_BYTES_MAX).unwrap_or(usize::MAX).saturating_sub(body.len());
            body.extend_from_slice(&bytes[..bytes.len().min(room)]);
            if bytes.len() > room {
                break;
            }
        }
        let (status, body) = (head.status.as_u16(), body.freeze());
        let class = class_of(status, &body);
        let reason = if head.headers.contains_key(LOCATION) {
            format!("it answered {status}, a redirect: base_url is not its address")
        } else {
            format!("it answered {status} ({class})")
        };
        let retry_after = retry_after(&head.headers, &body, self.clock.wall_ms());
        let answer = Some(Box::new(ErrorAnswer { status, headers: head.headers, body }));
        Failure { provider: name, class, reason, retry_after, sent: true, answer }
    }

    fn first_byte(&self) -> Duration {
        Duration::from_millis(self.config.first_byte_timeout_ms)
    }

    fn bounds(&self) -> Bounds {
        Bounds {
            idle: Duration::from_millis(self.config.idle_timeout_ms),
            total: Duration::from_millis(self.config.total_timeout_ms),
            bytes: self.config.answer_bytes_max,
        }
    }
}

impl Provider for Remote {
    fn name(&self) -> &Name {
        &self.config.name
    }

    fn kind(&self) -> Kind {
        self.config.kind
    }

    fn model<'a>(&'a self, asked: &'a str) -> Option<&'a str> {
        self.config.upstream_model(asked)
    }

    fn models(&self) -> &[Model] {
        &self.config.models
    }

    fn send<'a>(&'a self, ask: Ask<'a>) -> Asking<'a, Reply> {
        Box::pin(async move {
            let asked = self.ask(ask).await;
            match &asked {
                Ok(_) => {
                    self.counters.answered.inc();
                }
                Err(failure) => self.counters.failed(failure.class),
            }
            asked
        })
    }

    fn probe(&self) -> Asking<'_, Duration> {
        Box::pin(self.look())
    }

    fn tidy(&self) {
        self.pool.tidy();
    }
}

/// A request but for its proof.
struct Sending {
    call: Call,
    method: Method,
    path: PathAndQuery,
    body: Bytes,
    headers: HeaderMap,
}

fn accept(ask: &Ask<'_>) -> HeaderValue {
    HeaderValue::from_static(match (ask.call.wire, ask.stream) {
        (Wire::Oip, _) => "*/*",
        (Wire::Ollama, true) => "application/x-ndjson",
        (Wire::Converse, true) => "application/vnd.amazon.eventstream",
        (_, true) => "text/event-stream",
        (_, false) => "application/json",
    })
}

fn starts_with(headers: &HeaderMap, kind: &[u8]) -> bool {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.as_bytes().get(..kind.len()))
        .is_some_and(|start| start.eq_ignore_ascii_case(kind))
}

fn limits(config: &Config) -> Limits {
    Limits {
        connections: config.connections_max,
        waiting: config.waiting_max,
        connect: Duration::from_millis(config.connect_timeout_ms),
        keep_idle: Duration::from_millis(config.keep_idle_ms),
    }
}

fn scope(config: &Config) -> Option<Scope> {
    let service = match config.kind {
        Kind::Bedrock => "bedrock",
        Kind::Sagemaker => "sagemaker",
        _ => return None,
    };
    Some(Scope { region: config.region.clone()?, service })
}

fn open_key(config: &Config, around: &Surroundings<'_>) -> Result<Option<KeyFile>, Error> {
    let Some(path) = config.key_path(around.credentials)? else { return Ok(None) };
    let form = match config.kind {
        Kind::Bedrock | Kind::Sagemaker => {
            Form::Aws { profile: config.profile.clone(), bearer: config.kind == Kind::Bedrock }
        }
        Kind::Vertex => Form::Google,
        _ => Form::Text,
    };
    let setting = if config.key_file.is_some() { "key_file" } else { "credential" };
    KeyFile::open(config.name.clone(), setting, path, form, around.clock.clone()).map(Some)
}

fn own_headers(config: &Config, origin: &Origin) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::with_capacity(12 + config.headers.len());
    let host = HeaderValue::from_str(&origin.host_header()).map_err(|_| "cannot name the host".to_owned())?;
    headers.insert(HOST, host);
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    for (name, value) in &config.headers {
        let key: HeaderName = name.parse().map_err(|_| format!("holds {name:?}, which is no header's name"))?;
        let value =
            HeaderValue::from_str(value).map_err(|_| format!("holds a value of {name:?} that no header takes"))?;
        headers.insert(key, value);
    }
    Ok(headers)
}
