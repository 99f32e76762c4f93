//! Language models over HTTP: paths, keys, headers, streams, errors and what operators do, over providers that are fakes.

use std::collections::BTreeMap;
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
    Answer, Config, Local, LocalAsk, LocalAsking, LocalBody, LocalFailure, LocalModel, Metrics, Office, Parts,
};
use forebay::ledger::{self, Ledger};
use forebay::price::{self, LocalPrices, LocalUse};
use forebay::provider::{Class, Failing, Fake, Kind, Provider, Providers, Scripted};
use forebay::quota::{Now, Quota};
use forebay::route::{self, Link, RouteConfig, Routes, Settings};
use forebay::store::{self, Store};
use futures_util::StreamExt;
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

struct World {
    router: Router,
    ledger: Ledger,
    store: Store,
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

async fn world(config: LlmConfig, quota: &str) -> World {
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
    async fn usual() -> Self {
        world(LlmConfig::default(), "").await
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Response {
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

    async fn post(&self, path: &str, body: &Value) -> (StatusCode, HeaderMap, String) {
        told(self.send("POST", path, &[("authorization", "Bearer app")], body.to_string()).await).await
    }

    async fn boss(&self, method: &str, path: &str, body: &Value) -> (StatusCode, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, _, body) = told(self.send(method, path, &[("authorization", "Bearer boss")], body).await).await;
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }
}

async fn told(response: Response) -> (StatusCode, HeaderMap, String) {
    let (head, body) = response.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
}

fn ask(model: &str) -> Value {
    json!({ "model": model, "max_tokens": 20, "messages": [{ "role": "user", "content": "Hello" }] })
}

#[tokio::test]
async fn every_path_answers_in_its_own_dialect() {
    let world = World::usual().await;
    let google = json!({ "contents": [{ "role": "user", "parts": [{ "text": "Hello" }] }] });
    let ollama = json!({ "model": "chat", "stream": false, "messages": [{ "role": "user", "content": "Hello" }] });
    for (path, body, has) in [
        ("/v1/chat/completions", ask("chat"), r#""object":"chat.completion""#),
        ("/v1/completions", json!({ "model": "completion", "prompt": "Hello" }), r#""object":"text_completion""#),
        ("/v1/responses", json!({ "model": "chat-only", "input": "Hello" }), r#""object":"response""#),
        ("/v1/embeddings", json!({ "model": "embedding", "input": "Hello" }), r#""object":"embedding""#),
        ("/v1/moderations", json!({ "model": "moderation", "input": "Hello" }), r#""flagged":false"#),
        ("/v1/messages", ask("chat"), r#""type":"message""#),
        ("/v1/messages/count_tokens", ask("chat"), r#""input_tokens":"#),
        ("/v1beta/models/chat:generateContent", google.clone(), r#""candidates":"#),
        ("/v1beta/models/chat:countTokens", google.clone(), r#""totalTokens":"#),
        (
            "/v1beta/models/embedding:embedContent",
            json!({ "content": { "parts": [{ "text": "Hello" }] } }),
            r#""values":"#,
        ),
        ("/v1/projects/p/locations/l/publishers/google/models/chat:generateContent", google, r#""candidates":"#),
        ("/v1beta/interactions", json!({ "model": "chat", "input": "Hello" }), r#""object":"interaction""#),
        ("/api/chat", ollama, r#""done":true"#),
        ("/api/generate", json!({ "model": "chat", "stream": false, "prompt": "Hello" }), r#""response":"Hi""#),
        ("/api/embed", json!({ "model": "embedding", "input": "Hello" }), r#""embeddings":"#),
    ] {
        let (status, headers, body) = world.post(path, &body).await;
        assert_eq!(status, 200, "{path}: {body}");
        assert!(body.contains(has), "{path}: {body}");
        assert_eq!(headers["content-type"], "application/json", "{path}");
    }
}

#[tokio::test]
async fn every_stream_comes_in_its_own_dialect() {
    let world = World::usual().await;
    let stream = |model: &str| {
        let mut body = ask(model);
        body["stream"] = json!(true);
        body
    };
    let google = json!({ "contents": [{ "role": "user", "parts": [{ "text": "Hello" }] }] });
    for (path, body, kind, has) in [
        ("/v1/chat/completions", stream("stream"), "text/event-stream", "data: [DONE]\n\n"),
        ("/v1/messages", stream("stream"), "text/event-stream", "event: message_stop\n"),
        (
            "/v1/responses",
            json!({ "model": "stream-only", "input": "x", "stream": true }),
            "text/event-stream",
            "event: response.completed",
        ),
        ("/v1beta/models/stream:streamGenerateContent?alt=sse", google, "text/event-stream", "\"finishReason\""),
        (
            "/v1beta/interactions",
            json!({ "model": "stream", "input": "x", "stream": true }),
            "text/event-stream",
            "event: interaction.completed",
        ),
        ("/api/chat", ask("stream"), "application/x-ndjson", "\"done\":true"),
    ] {
        let (status, headers, body) = world.post(path, &body).await;
        assert_eq!((status, headers["content-type"].to_str().unwrap()), (StatusCode::OK, kind), "{path}: {body}");
        assert!(body.contains(has) && body.contains("Hi"), "{path}: {body}");
        assert!(!headers.contains_key("x-forebay-cost-usd"), "not known yet");
    }
}

#[tokio::test]
async fn a_key_comes_in_any_of_the_usual_headers_and_a_wrong_one_is_told_in_the_callers_dialect() {
    let world = World::usual().await;
    let body = ask("chat").to_string();
    for (path, header) in [
        ("/v1/chat/completions", ("authorization", "Bearer app")),
        ("/v1/chat/completions", ("authorization", "bearer  app")),
        ("/v1/chat/completions", ("authorization", "Basic YXBwOmFwcA==")),
        ("/v1/messages", ("x-api-key", "app")),
        ("/v1/chat/completions", ("api-key", "app")),
        ("/v1/chat/completions", ("x-goog-api-key", "app")),
        ("/v1/chat/completions?key=app", ("accept", "*/*")),
    ] {
        assert_eq!(world.send("POST", path, &[header], body.clone()).await.status(), 200, "{header:?}");
    }
    for (path, has) in [
        ("/v1/chat/completions", r#""code":"invalid_api_key""#),
        ("/v1/messages", r#""type":"authentication_error""#),
        ("/v1beta/models/chat:generateContent", r#""status":"UNAUTHENTICATED""#),
        ("/v1beta/interactions", r#""code":"unauthenticated""#),
        ("/v1beta/interactions/v1_x/cancel", r#""code":"unauthenticated""#),
        ("/api/chat", r#"{"error":"#),
    ] {
        for header in
            [("authorization", "Bearer wrong"), ("x-api-key", ""), ("accept", "*/*"), ("authorization", "app")]
        {
            let (status, headers, body) = told(world.send("POST", path, &[header], body.clone()).await).await;
            assert_eq!(status, 401, "{path} {header:?}");
            assert!(body.contains(has), "{path}: {body}");
            assert!(headers.contains_key("www-authenticate") && headers.contains_key("x-request-id"));
        }
    }
}

#[tokio::test]
async fn headers_say_what_was_decided_and_what_it_cost() {
    let world =
        world(LlmConfig::default(), "[[limit]]\nlevel = 'key'\nrequests_per_minute = 100\ntokens_per_minute = 5000")
            .await;
    let (_, headers, _) = world.post("/v1/chat/completions", &ask("chat")).await;
    let text = |name: &str| headers[name].to_str().unwrap().to_owned();
    assert!(text("x-forebay-route").starts_with("chat; priority; link up; asks chat/"));
    let pairs = [
        ("x-forebay-model", "chat/chat"),
        ("x-forebay-cache", "off"),
        ("x-forebay-link", "up"),
        ("x-forebay-attempts", "1"),
        ("x-forebay-cost-usd", "0.000075"),
        ("x-forebay-overhead-us", "0"),
        ("x-request-id", "made-1"),
        ("x-ratelimit-limit-requests", "100"),
        ("x-ratelimit-remaining-requests", "99"),
        ("x-ratelimit-limit-tokens", "5000"),
        ("cache-control", "no-store"),
    ];
    for (name, value) in pairs {
        assert_eq!(text(name), value, "{name}");
    }
    assert_eq!(text("x-ratelimit-reset-requests"), "600ms");
    let own = [("x-api-key", "app"), ("x-request-id", "mine-7"), ("anthropic-version", "2023-06-01")];
    let (_, headers, _) = told(world.send("POST", "/v1/messages", &own, ask("chat").to_string()).await).await;
    assert_eq!(
        (&headers["x-request-id"], &headers["request-id"]),
        (&headers["request-id"], &"mine-7".parse().unwrap())
    );
    assert_eq!(headers["anthropic-ratelimit-requests-limit"], "100");
    assert!(headers["anthropic-ratelimit-requests-reset"].to_str().unwrap().ends_with('Z'));
}

#[tokio::test]
async fn too_many_requests_come_with_the_time_to_wait() {
    let world = World::usual().await;
    let (status, headers, body) = world.post("/v1/chat/completions", &ask("failing")).await;
    assert_eq!(
        (status, &headers["retry-after"], &headers["retry-after-ms"]),
        (StatusCode::TOO_MANY_REQUESTS, &"2".parse().unwrap(), &"1500".parse().unwrap())
    );
    assert!(body.contains("rate_limit"), "{body}");
}

#[tokio::test]
async fn wrong_bodies_are_refused_in_the_callers_dialect() {
    let config = LlmConfig { body_max_bytes: 2000, ..LlmConfig::default() };
    let world = world(config, "").await;
    let key = ("authorization", "Bearer app");
    let send = async |headers: &[(&str, &str)], body: Body| {
        told(world.send("POST", "/v1/messages", headers, body).await).await
    };
    let (status, _, body) = send(&[key], Body::from("x".repeat(2001))).await;
    assert_eq!(status, 413);
    assert!(body.contains("request_too_large"), "{body}");
    let drips =
        futures_util::stream::iter((0..300).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(b"0123456789"))));
    assert_eq!(send(&[key], Body::from_stream(drips)).await.0, 413, "no length was said");
    let breaks = futures_util::stream::iter([Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("gone"))]);
    assert_eq!(send(&[key], Body::from_stream(breaks)).await.0, 400);
    assert_eq!(send(&[key, ("content-encoding", "gzip")], Body::from("x")).await.0, 400);
    for nonsense in ["", "null", "{", "[[[[", "\u{0}", r#"{"model":"chat"}"#] {
        let (status, _, body) = send(&[key], Body::from(nonsense)).await;
        assert_eq!(status, 400, "{nonsense:?}: {body}");
        assert!(body.starts_with(r#"{"type":"error","error":{"type":"invalid_request_error""#), "{body}");
    }
    assert_eq!(world.post("/v1beta/models/chat:explode", &json!({})).await.0, 404);
    let (status, _, body) = world.post("/v1beta/interactions/v1_x/cancel", &json!({})).await;
    assert!(status == 404 && body.contains(r#""code":"not_found""#), "nothing is kept: {body}");
    let asked = json!({ "model": "chat", "input": "Hello", "previous_interaction_id": "v1_x" });
    let (status, _, body) = world.post("/v1beta/interactions", &asked).await;
    assert!(status == 400 && body.contains("send the whole conversation as `input`"), "{body}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_given_up() {
    let world = World::usual().await;
    let never = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
    let response = world.send("POST", "/v1/messages", &[("x-api-key", "app")], Body::from_stream(never)).await;
    assert_eq!(response.status(), 408);
}

#[tokio::test(start_paused = true)]
async fn who_is_turned_away_at_the_door_leaves_a_record_and_a_flood_of_strangers_no_more_than_a_hundred() {
    let world = world(LlmConfig { requests_max: 1, body_max_bytes: 2000, ..LlmConfig::default() }, "").await;
    let app = ("authorization", "Bearer app");
    let send = async |id: &str, path: &str, headers: &[(&str, &str)], body: Body| {
        world.send("POST", path, &[&[("x-request-id", id)][..], headers].concat(), body).await.status().as_u16()
    };
    let body = || Body::from(ask("chat").to_string());
    let mut streamed = ask("tiny");
    streamed["stream"] = json!(true);
    let stream = world.send("POST", "/v1/chat/completions", &[app], streamed.to_string()).await;
    assert_eq!(send("no-place", "/v1/messages", &[app], body()).await, 529);
    drop(stream);
    assert_eq!(send("large", "/v1/chat/completions", &[app], Body::from("x".repeat(2001))).await, 413);
    let breaks = futures_util::stream::iter([Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("gone"))]);
    assert_eq!(send("broken", "/v1/chat/completions", &[app], Body::from_stream(breaks)).await, 400);
    let never = || Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
    assert_eq!(send("slow", "/v1/chat/completions", &[app], never()).await, 408);
    let key = [app];
    let leaves = send("left", "/v1/chat/completions", &key, never());
    tokio::time::timeout(Duration::from_secs(1), leaves)
        .await
        .expect_err("its caller leaves in the middle of the body");
    let strange = [app, ("host", "attacker.example")];
    assert_eq!(send("strange", "/v1/chat/completions", &strange, body()).await, 403);
    assert_eq!(send("no-key", "/v1beta/models/chat:generateContent", &[], body()).await, 401);
    for _ in 0..300 {
        assert_eq!(send("flood", "/v1/chat/completions", &[("x-api-key", "wrong")], body()).await, 401);
    }
    world.ledger.flush(&world.store.writer(), None).await.unwrap();
    for (id, status, error, key, model) in [
        ("no-place", 529, "overloaded", "app", ""),
        ("large", 413, "too_large", "app", ""),
        ("broken", 400, "invalid_request", "app", ""),
        ("slow", 408, "timeout", "app", ""),
        ("left", 499, "cancelled", "app", ""),
        ("strange", 403, "permission", "", ""),
        ("no-key", 401, "authentication", "", "chat"),
    ] {
        let (_, page) = world.boss("GET", &format!("/api/v1/calls?id={id}"), &Value::Null).await;
        let call = &page["calls"][0];
        let told = ["status", "error", "key", "model_asked", "cost_pico"].map(|name| call[name].clone());
        assert_eq!(told, [json!(status), json!(error), json!(key), json!(model), json!(0)], "{id}: {page}");
    }
    let (_, page) = world.boss("GET", "/api/v1/calls?most=1000", &Value::Null).await;
    let strangers = page["calls"].as_array().unwrap().iter().filter(|call| call["key"] == "").count();
    assert_eq!(strangers, 100, "further ones are counted");
    let (_, sums) = world.boss("GET", "/api/v1/usage?by=key", &Value::Null).await;
    let line = sums["usage"].as_array().unwrap().iter().find(|line| line["key"] == "").unwrap().clone();
    let numbers = ["requests", "failed", "unrecorded", "unknown_cost"].map(|name| line[name].clone());
    assert_eq!(numbers, [json!(302), json!(302), json!(202), json!(0)], "{line}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_silent_carries_comments_and_holds_its_place() {
    let world = world(LlmConfig { requests_max: 1, ..LlmConfig::default() }, "").await;
    let mut body = ask("tiny");
    body["stream"] = json!(true);
    let key = [("authorization", "Bearer app")];
    let response = world.send("POST", "/v1/chat/completions", &key, body.to_string()).await;
    let mut frames = response.into_body().into_data_stream();
    assert!(frames.next().await.unwrap().unwrap().starts_with(b"data: "));
    assert_eq!(&frames.next().await.unwrap().unwrap()[..], b": ping\n\n");
    assert_eq!(&frames.next().await.unwrap().unwrap()[..], b": ping\n\n");
    let (status, headers, _) = world.post("/v1/messages", &ask("chat")).await;
    assert_eq!((status.as_u16(), &headers["retry-after"]), (529, &"1".parse().unwrap()));
    drop(frames);
    assert_eq!(world.post("/v1/messages", &ask("chat")).await.0, 200);
    world.ledger.flush(&world.store.writer(), None).await.unwrap();
    let (_, page) = world.boss("GET", "/api/v1/calls?failed=true", &Value::Null).await;
    assert_eq!((&page["calls"][0]["status"], &page["calls"][0]["error"]), (&json!(499), &json!("cancelled")));
}

#[tokio::test]
async fn models_are_listed_in_the_form_that_the_caller_knows() {
    let world = World::usual().await;
    let get = async |path: &str, headers: &[(&str, &str)]| told(world.send("GET", path, headers, "").await).await;
    let (_, _, body) = get("/v1/models", &[("authorization", "Bearer app")]).await;
    let list: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&list["object"], &list["data"][0]["id"], &list["data"][0]["owned_by"]),
        (&json!("list"), &json!("chat"), &json!("chat"))
    );
    let anthropic = [("x-api-key", "app"), ("anthropic-version", "2023-06-01")];
    assert!(get("/v1/models", &anthropic).await.2.contains(r#""has_more":false"#));
    assert!(get("/v1/models/tiny", &anthropic).await.2.contains(r#""type":"model""#));
    assert_eq!(get("/v1/models/nobody", &anthropic).await.0, 404);
    assert!(get("/v1beta/models?key=app", &[]).await.2.contains(r#""name":"models/chat""#));
    assert!(get("/v1beta/models/chat", &[("x-goog-api-key", "app")]).await.2.contains("supportedGenerationMethods"));
    let (_, _, body) = get("/api/tags", &[("authorization", "Bearer app")]).await;
    assert!(body.contains(r#""quantization_level":"Q4_K_M""#), "{body}");
    assert!(get("/api/version", &[]).await.2.contains("version"));
    let shown = world.post("/api/show", &json!({ "name": "tiny" })).await;
    assert!(shown.2.contains("qwen2"), "{}", shown.2);
    assert_eq!(world.post("/api/show", &json!({ "model": "nobody" })).await.0, 404);
    assert_eq!(get("/v1/models", &[]).await.0, 401);
}

#[tokio::test]
async fn a_web_page_of_somebody_else_gets_nothing() {
    let world = World::usual().await;
    let key = ("authorization", "Bearer app");
    let strange: [&[(&str, &str)]; 3] = [
        &[key, ("host", "attacker.example")],
        &[key, ("origin", "https://attacker.example")],
        &[key, ("sec-fetch-site", "cross-site")],
    ];
    for headers in strange {
        assert_eq!(world.send("POST", "/v1/messages", headers, ask("chat").to_string()).await.status(), 403);
        assert_eq!(world.send("GET", "/api/v1/calls", headers, "").await.status(), 403);
    }
    let ours = [key, ("host", "edge.plant:8080")];
    assert_eq!(world.send("POST", "/v1/messages", &ours, ask("chat").to_string()).await.status(), 200);
}

#[tokio::test]
async fn a_key_is_made_used_rotated_and_taken_back_and_all_of_it_is_in_the_audit() {
    let world = World::usual().await;
    let order = json!({ "name": "line-7", "models": ["chat"] });
    let (status, made) = world.boss("POST", "/api/v1/keys", &order).await;
    assert_eq!(status, 201, "{made}");
    let (first, id) = (made["key"].as_str().unwrap().to_owned(), made["id"].as_str().unwrap().to_owned());
    let uses = async |key: &str, model: &str| {
        let key = format!("Bearer {key}");
        world.send("POST", "/v1/chat/completions", &[("authorization", &key)], ask(model).to_string()).await.status()
    };
    assert_eq!((uses(&first, "chat").await.as_u16(), uses(&first, "stream").await.as_u16()), (200, 403));
    assert_eq!(world.boss("POST", "/api/v1/keys", &order).await.0, 409);
    let (_, rotated) = world.boss("POST", &format!("/api/v1/keys/{id}/rotate"), &json!({ "overlap_ms": 1000 })).await;
    let second = rotated["key"].as_str().unwrap().to_owned();
    assert_eq!((uses(&first, "chat").await.as_u16(), uses(&second, "chat").await.as_u16()), (200, 200));
    let (_, changed) = world.boss("PATCH", &format!("/api/v1/keys/{id}"), &json!({ "models": ["*"] })).await;
    assert_eq!(changed["models"], json!(["*"]));
    assert_eq!(uses(&second, "completion").await.as_u16(), 200, "the route takes it; what comes is passed on");
    assert_eq!(world.boss("DELETE", &format!("/api/v1/keys/{id}"), &Value::Null).await.0, 200);
    assert_eq!(uses(&second, "chat").await.as_u16(), 401);
    let (_, listed) = world.boss("GET", "/api/v1/keys", &Value::Null).await;
    assert!(!listed.to_string().contains(&first) && !listed.to_string().contains(&second));
    assert_eq!(world.boss("DELETE", &format!("/api/v1/keys/{id}?forget=true"), &Value::Null).await.0, 204);
    let (_, audit) = world.boss("GET", "/api/v1/audit", &Value::Null).await;
    let actions: Vec<_> = audit["entries"].as_array().unwrap().iter().map(|entry| entry["action"].clone()).collect();
    assert_eq!(actions, ["key.remove", "key.revoke", "key.change", "key.rotate", "key.create"]);
}

#[tokio::test]
async fn tenants_are_made_shut_out_and_removed() {
    let world = World::usual().await;
    assert_eq!(world.boss("POST", "/api/v1/tenants", &json!({ "name": "acme" })).await.0, 201);
    let (_, made) = world.boss("POST", "/api/v1/keys", &json!({ "name": "a", "tenant": "acme" })).await;
    let key = format!("Bearer {}", made["key"].as_str().unwrap());
    let uses = async || {
        world.send("POST", "/v1/chat/completions", &[("authorization", &*key)], ask("chat").to_string()).await.status()
    };
    assert_eq!(uses().await, 200);
    assert_eq!(world.boss("PATCH", "/api/v1/tenants/acme", &json!({ "suspended": true })).await.0, 200);
    assert_eq!(uses().await, 403);
    assert_eq!(world.boss("DELETE", "/api/v1/tenants/acme", &Value::Null).await.0, 409);
    assert_eq!(world.boss("GET", "/api/v1/tenants", &Value::Null).await.1["tenants"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn an_app_sees_its_own_records_and_no_others() {
    let world = world(LlmConfig::default(), "[[limit]]\nlevel = 'key'\ntokens_per_day = 1000").await;
    world.post("/v1/chat/completions", &ask("chat")).await;
    let boss = [("authorization", "Bearer boss")];
    world.send("POST", "/v1/chat/completions", &boss, ask("chat").to_string()).await;
    world.ledger.flush(&world.store.writer(), None).await.unwrap();
    let app = [("authorization", "Bearer app")];
    let own = async |path: &str| -> Value {
        serde_json::from_str(&told(world.send("GET", path, &app, "").await).await.2).unwrap()
    };
    let calls = own("/api/v1/calls?key=boss").await;
    let keys: BTreeMap<_, _> =
        calls["calls"].as_array().unwrap().iter().map(|call| (call["key"].to_string(), ())).collect();
    assert_eq!(keys.into_keys().collect::<Vec<_>>(), ["\"app\""]);
    assert_eq!(own("/api/v1/usage?by=key").await["usage"][0]["cost_pico"], json!(75_000_000));
    assert_eq!(own("/api/v1/limits?name=boss").await["limits"][0]["spent"], json!(15));
    let (_, all) = world.boss("GET", "/api/v1/usage?by=key,model", &Value::Null).await;
    assert_eq!(all["usage"].as_array().unwrap().len(), 2);
    assert_eq!(world.boss("GET", "/api/v1/usage?by=weather", &Value::Null).await.0, 400);
    assert_eq!(world.boss("GET", "/api/v1/calls?after=x", &Value::Null).await.0, 400);
    for (method, path) in
        [("GET", "/api/v1/keys"), ("POST", "/api/v1/keys"), ("GET", "/api/v1/audit"), ("POST", "/api/v1/cache/purge")]
    {
        assert_eq!(world.send(method, path, &app, "{}").await.status(), 403, "{path}");
        assert_eq!(world.send(method, path, &[], "{}").await.status(), 401, "{path}");
    }
}

#[tokio::test]
async fn kept_answers_can_be_taken_away() {
    let world = World::usual().await;
    let ask = json!({ "model": "embedding", "input": "Hello" });
    for cache in ["miss", "hit"] {
        assert_eq!(world.post("/v1/embeddings", &ask).await.1["x-forebay-cache"], cache);
    }
    let (_, purged) = world.boss("POST", "/api/v1/cache/purge", &json!({})).await;
    assert_eq!(purged, json!({ "purged": 1 }));
    assert_eq!(world.post("/v1/embeddings", &ask).await.1["x-forebay-cache"], "miss");
    for list in [json!([]), json!([null, null]), json!("all"), Value::Null] {
        assert_eq!(
            world.boss("POST", "/api/v1/cache/purge", &list).await.0,
            400,
            "{list} is no order to take all away"
        );
    }
    assert_eq!(world.post("/v1/embeddings", &ask).await.1["x-forebay-cache"], "hit");
    assert_eq!(world.boss("POST", "/api/v1/cache/purge", &json!({})).await.1, json!({ "purged": 1 }));
    assert_eq!(world.post("/v1/embeddings", &ask).await.1["x-forebay-cache"], "miss");
}
