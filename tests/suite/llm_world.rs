//! A box whose providers are fakes, with the real doors for language models in front of it.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use forebay::access::{self, Access, Keys, new_key};
use forebay::base::{Clock, Digest, ManualClock, Name};
use forebay::cache::{self, Cache};
use forebay::dialect::{self, Operation};
use forebay::doors::http::{Llm, LlmConfig, LlmMetrics, LlmParts, llm_routes};
use forebay::flows::answer::{
    Answer, Config, Local, LocalAsk, LocalAsking, LocalBody, LocalFailure, LocalModel, Metrics, Office, Parts, Scripts,
};
use forebay::ledger::{self, Ledger};
use forebay::price::{self, LocalPrices, LocalUse};
use forebay::provider::{Class, Failing, Fake, Kind, Provider, Providers, Scripted};
use forebay::quota::{Now, Quota};
use forebay::route::{self, Link, RouteConfig, Routes, Settings};
use forebay::store::{self, Store};
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

const CHAT: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-4o","choices":[{"index":0,"message":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}"#;
const COMPLETION: &str = r#"{"id":"cmpl-1","object":"text_completion","created":1,"model":"gpt-4o","choices":[{"index":0,"text":"Hi","finish_reason":"stop"}],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}"#;
const EMBEDDING: &str = r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5,1]}],"model":"e","usage":{"prompt_tokens":2,"total_tokens":2}}"#;
const MODERATION: &str =
    r#"{"id":"modr-1","model":"omni","results":[{"flagged":false,"categories":{},"category_scores":{}}]}"#;
const STREAM: [&str; 3] = [
    "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-4o\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"Hi\"},\"finish_reason\":null}]}\n\n",
    "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-4o\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
    "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-4o\",\"choices\":[],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":5,\"total_tokens\":15}}\n\ndata: [DONE]\n\n",
];

/// A box with a model that says one word and is then silent.
struct Silent;

struct Word(Option<Bytes>);

impl LocalBody for Word {
    fn poll_next(&mut self, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, LocalFailure>>> {
        self.0.take().map_or(Poll::Pending, |word| Poll::Ready(Some(Ok(word))))
    }
    fn used(&self) -> Option<LocalUse> {
        None
    }
}

impl Local for Silent {
    fn models(&self) -> Vec<LocalModel> {
        vec![LocalModel {
            name: "tiny".to_owned(),
            created_unix_s: 1_700_000_000,
            size_bytes: 400,
            digest: "ab".repeat(32),
            family: "qwen2".to_owned(),
            parameter_size: "0.5B".to_owned(),
            quantization: "Q4_K_M".to_owned(),
        }]
    }
    fn has(&self, model: &str, _: Operation) -> bool {
        model == "tiny"
    }
    fn ask<'a>(&'a self, _: LocalAsk<'a>) -> LocalAsking<'a> {
        Box::pin(async { Ok(Box::new(Word(Some(Bytes::from_static(STREAM[0].as_bytes())))) as Box<dyn LocalBody>) })
    }
}

pub(crate) struct World {
    router: Router,
    pub(crate) ledger: Ledger,
    pub(crate) store: Store,
    _folder: tempfile::TempDir,
}

fn says(provider: &str, kind: Kind, pieces: &[&'static str]) -> Arc<dyn Provider> {
    let pieces = pieces.iter().map(|piece| Bytes::from_static(piece.as_bytes())).collect();
    Arc::new(Fake::new(Name::new(provider).unwrap(), kind, [Scripted::Answer(pieces)]))
}

fn routes() -> Vec<RouteConfig> {
    let providers = ["chat", "chat-only", "completion", "embedding", "moderation", "stream", "stream-only", "failing"];
    let route = |provider: &str, candidate: &str| {
        toml::from_str(&format!("name = '{provider}'\nmodels = ['{provider}']\n[[candidate]]\n{candidate}")).unwrap()
    };
    let mut routes: Vec<_> = providers.iter().map(|name| route(name, &format!("provider = '{name}'"))).collect();
    routes.push(route("tiny", "provider = 'local'\nmodel = 'tiny'"));
    routes
}

pub(crate) async fn world(config: LlmConfig, quota: &str) -> World {
    let folder = tempfile::tempdir().unwrap();
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(1_700_000_000_000));
    let schemas = [ledger::SCHEMA, access::SCHEMA];
    let store = Store::open(&store::Config::at(folder.path()), &schemas, clock.clone()).unwrap().0;
    let identity = |name: &str, role: &str| {
        format!("[[identity]]\nname = '{name}'\nrole = '{role}'\nkey_sha256 = '{}'\n", Digest::of(name.as_bytes()))
    };
    let identities = [identity("app", "app"), identity("boss", "operator")].concat();
    let access = Access::new(&toml::from_str(&identities).unwrap()).unwrap();
    let keys = Keys::open(&store.reader(), store.writer(), clock.clone(), access.tenants()).await.unwrap();
    let access = Arc::new(access.with_keys(Arc::new(keys)));
    let mut providers = Providers::default();
    let failing = Failing::new(Name::new("failing").unwrap(), Kind::Openai, Class::RateLimited);
    for provider in [
        says("chat", Kind::Openai, &[CHAT]),
        says("chat-only", Kind::Mistral, &[CHAT]),
        says("completion", Kind::Openai, &[COMPLETION]),
        says("embedding", Kind::Openai, &[EMBEDDING]),
        says("moderation", Kind::Openai, &[MODERATION]),
        says("stream", Kind::Openai, &STREAM),
        says("stream-only", Kind::Mistral, &STREAM),
        Arc::new(failing.retry_after(Duration::from_millis(1500))),
    ] {
        providers.add(provider).unwrap();
    }
    let (ledger, quota) = (
        Ledger::new(ledger::Config::default()),
        Quota::new(&toml::from_str(quota).unwrap(), Now::of(&*clock)).unwrap(),
    );
    let prices =
        "[[model]]\nprovider = 'chat'\nmodel = 'chat'\nusd_per_million_tokens = { input = 2.5, output = 10.0 }";
    let prices: price::Config = toml::from_str(prices).unwrap();
    let kept: cache::Config =
        toml::from_str("max_bytes = 100000\n[[policy]]\nroutes = ['embedding']\nexact = true").unwrap();
    let cache = Arc::new(Cache::in_memory(kept, clock.clone()));
    let answer = Answer::new(Parts {
        config: Config::default(),
        routing: Settings::default(),
        routes: Routes::new(&routes()).unwrap(),
        providers,
        scripts: Scripts::new(),
        local: Some(Arc::new(Silent)),
        embed: None,
        quota: quota.clone(),
        cache: Arc::clone(&cache),
        ledger: ledger.clone(),
        prices: Arc::new(price::Builder::new(&prices).unwrap().build().0),
        local_prices: LocalPrices::default(),
        link: Link::Up,
        clock: clock.clone(),
        chance: StdRng::seed_from_u64(1),
        metrics: Metrics::default(),
        route_metrics: route::Metrics::default(),
        price_metrics: price::Metrics::default(),
        dialect_metrics: dialect::Metrics::default(),
        on_warning: Box::new(|_| {}),
    })
    .unwrap();
    let office = Office::new(store.reader(), store.writer(), quota, cache, clock.clone(), 100);
    let chance = Mutex::new(StdRng::seed_from_u64(2));
    let parts = LlmParts {
        answer: Arc::new(answer),
        office: Arc::new(office),
        access,
        hosts: vec!["edge.plant".to_owned()],
        metrics: LlmMetrics::default(),
        clock,
        request_id: Box::new(|| "made-1".to_owned()),
        new_key: Box::new(move || new_key(&mut *chance.lock().unwrap())),
    };
    World { router: llm_routes(Arc::new(Llm::new(config, parts))), ledger, store, _folder: folder }
}

impl World {
    pub(crate) async fn usual() -> Self {
        world(LlmConfig::default(), "").await
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Response {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", "localhost:8080");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let service = TowerToHyperService::new(self.router.clone());
        service.call(request.body(body.into()).unwrap()).await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (StatusCode, HeaderMap, String) {
        told(self.send("POST", path, &[("authorization", "Bearer app")], body.to_string()).await).await
    }

    pub(crate) async fn boss(&self, method: &str, path: &str, body: &Value) -> (StatusCode, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, _, body) = told(self.send(method, path, &[("authorization", "Bearer boss")], body).await).await;
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }
}

pub(crate) async fn told(response: Response) -> (StatusCode, HeaderMap, String) {
    let (head, body) = response.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
}

pub(crate) fn ask(model: &str) -> Value {
    json!({ "model": model, "max_tokens": 20, "messages": [{ "role": "user", "content": "Hello" }] })
}
