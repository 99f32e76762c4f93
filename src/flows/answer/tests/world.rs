//! A gateway's parts for one test.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde::Deserialize;

use crate::access::{Access, Principal};
use crate::base::{Clock as _, Digest, ManualClock, Name};
use crate::cache::{self, Cache, Embed};
use crate::dialect::{self, Dialect, Failure, Operation};
use crate::flows::answer::{Answer, AnswerStream, Answered, Config, Given, Local, Metrics, Parts, Request, Scripts};
use crate::ledger::{self, Call, Ledger, Query, calls};
use crate::price::{self, LocalPrices};
use crate::provider::{Fake, Kind, Provider, Providers, Scripted};
use crate::quota::{self, Now, Quota};
use crate::route::{self, Link, RouteConfig, Routes, Settings};
use crate::store::{self, Store};

/// What a test says about the configuration; everything else is as it comes.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Setup {
    answer: Config,
    routing: Settings,
    route: Vec<RouteConfig>,
    quota: quota::Config,
    cache: cache::Config,
    prices: price::Config,
}

pub(super) struct World {
    pub(super) story: Arc<Answer>,
    pub(super) clock: Arc<ManualClock>,
    pub(super) quota: Quota,
    pub(super) warnings: Arc<Mutex<Vec<u8>>>,
    ledger: Ledger,
    store: Store,
    access: Access,
    _folder: tempfile::TempDir,
}

/// What a world stands on.
struct Ground {
    setup: Setup,
    folder: tempfile::TempDir,
    clock: Arc<ManualClock>,
    store: Store,
}

impl Ground {
    fn of(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let schemas = [cache::SCHEMA, ledger::SCHEMA, quota::SCHEMA];
        let store = Store::open(&store::Config::at(folder.path()), &schemas, clock.clone()).unwrap().0;
        Self { setup: toml::from_str(text).unwrap(), folder, clock, store }
    }
}

/// A provider's name.
pub(super) fn name(name: &str) -> Name {
    Name::new(name).unwrap()
}

/// A provider that speaks OpenAI and answers with this text, for ever.
pub(super) fn says(provider: &str, text: &str) -> Arc<Fake> {
    Arc::new(Fake::new(name(provider), Kind::Openai, [Scripted::Answer(vec![chat_answer(text)])]))
}

/// What OpenAI answers: 10 tokens in, 5 out.
pub(super) fn chat_answer(text: &str) -> Bytes {
    format!(
        r#"{{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-4o","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}}}"#
    )
    .into()
}

/// Frames of OpenAI's stream; with its end and usage, or broken off.
pub(super) fn chat_frames(words: &[&str], is_whole: bool) -> Vec<Bytes> {
    let chunk = |delta: &str, finish: &str| {
        Bytes::from(format!(
            "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-4o\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":{finish}}}]}}\n\n"
        ))
    };
    let mut frames: Vec<_> = words.iter().map(|word| chunk(&format!("{{\"content\":\"{word}\"}}"), "null")).collect();
    if is_whole {
        frames.push(chunk("{}", "\"stop\""));
        frames.push(Bytes::from_static(b"data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"gpt-4o\",\"choices\":[],\"usage\":{\"prompt_tokens\":10,\"completion_tokens\":5,\"total_tokens\":15}}\n\ndata: [DONE]\n\n"));
    }
    frames
}

/// The keys of the tests: `all` and `twin` may everything, `one` only the model `one`, `other` is another's.
fn access() -> Access {
    let identity = |name: &str, more: &str| {
        format!("[[identity]]\nname = '{name}'\nkey_sha256 = '{}'\n{more}\n", Digest::of(name.as_bytes()))
    };
    let text = [
        identity("all", "team = 'blue'\nuser = 'ann'"),
        identity("one", "models = ['one']"),
        identity("other", "tenant = 'acme'"),
        identity("lane", "routes = ['b']"),
        identity("twin", ""),
    ]
    .concat();
    Access::new(&toml::from_str(&text).unwrap()).unwrap()
}

impl World {
    pub(super) fn new(text: &str, providers: Vec<Arc<dyn Provider>>) -> Self {
        Self::with_local(text, providers, None)
    }

    pub(super) fn with_local(text: &str, providers: Vec<Arc<dyn Provider>>, local: Option<Arc<dyn Local>>) -> Self {
        let mut ground = Ground::of(text);
        let cache = Cache::in_memory(std::mem::take(&mut ground.setup.cache), ground.clock.clone());
        Self::on(ground, providers, local, cache, None)
    }

    /// With answers that are found by the vectors that `embed` makes.
    pub(super) async fn with_embed(text: &str, providers: Vec<Arc<dyn Provider>>, embed: Arc<dyn Embed>) -> Self {
        let mut ground = Ground::of(text);
        let (config, store) = (std::mem::take(&mut ground.setup.cache), &ground.store);
        let cache = Cache::open(config, &store.reader(), &store.writer(), ground.clock.clone()).await.unwrap();
        Self::on(ground, providers, None, cache, Some(embed))
    }

    /// Until what was handed to the writer is on the disk.
    pub(super) async fn settle(&self) {
        self.store.writer().commit(0, |_| Ok(())).await.unwrap();
    }

    fn on(
        ground: Ground,
        providers: Vec<Arc<dyn Provider>>,
        local: Option<Arc<dyn Local>>,
        cache: Cache,
        embed: Option<Arc<dyn Embed>>,
    ) -> Self {
        let Ground { setup, folder, clock, store } = ground;
        let ledger = Ledger::new(ledger::Config::default());
        let quota = Quota::new(&setup.quota, Now::of(&*clock)).unwrap();
        let mut all = Providers::default();
        providers.into_iter().for_each(|provider| all.add(provider).unwrap());
        let warnings = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&warnings);
        let parts = Parts {
            config: setup.answer,
            routing: setup.routing,
            routes: Routes::new(&setup.route).unwrap(),
            providers: all,
            scripts: Scripts::new(),
            local,
            embed,
            quota: quota.clone(),
            cache: Arc::new(cache),
            ledger: ledger.clone(),
            prices: Arc::new(price::Builder::new(&setup.prices).unwrap().build().0),
            local_prices: LocalPrices::new(&setup.prices.local).unwrap(),
            link: Link::Up,
            clock: clock.clone(),
            chance: StdRng::seed_from_u64(7),
            metrics: Metrics::default(),
            route_metrics: route::Metrics::default(),
            price_metrics: price::Metrics::default(),
            dialect_metrics: dialect::Metrics::default(),
            on_warning: Box::new(move |warning| heard.lock().unwrap().push(warning.percent)),
        };
        let story = Arc::new(Answer::new(parts).unwrap());
        Self { story, clock, quota, warnings, ledger, store, access: access(), _folder: folder }
    }

    pub(super) fn who(&self, key: &str) -> Principal {
        self.access.bearer(key).unwrap()
    }

    /// One question of the key `all` in OpenAI's dialect.
    pub(super) async fn ask(&self, body: &str) -> Answered {
        self.ask_as("all", Dialect::Chat, body, &[]).await
    }

    pub(super) async fn ask_as(
        &self,
        key: &str,
        dialect: Dialect,
        body: &str,
        headers: &[(&'static str, &str)],
    ) -> Answered {
        self.ask_for(key, (dialect, Operation::Chat), body, headers).await
    }

    pub(super) async fn ask_for(
        &self,
        key: &str,
        (dialect, operation): (Dialect, Operation),
        body: &str,
        headers: &[(&'static str, &str)],
    ) -> Answered {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        let who = self.who(key);
        let request = Request {
            dialect,
            operation,
            model: None,
            stream: None,
            batch: false,
            body: &Bytes::copy_from_slice(body.as_bytes()),
            who: &who,
            id: "req-1",
            headers: &map,
            arrived: self.clock.since_boot(),
        };
        self.story.answer(request).await
    }

    /// What was recorded, oldest first.
    pub(super) async fn calls(&self) -> Vec<Call> {
        self.ledger.flush(&self.store.writer(), None).await.unwrap();
        let query = Query { most: 1000, ..Query::default() };
        let mut page = self.store.reader().read(move |connection| calls(connection, &query)).await.unwrap();
        page.calls.reverse();
        page.calls
    }

    /// The only call.
    pub(super) async fn call(&self) -> Call {
        let mut calls = self.calls().await;
        assert_eq!(calls.len(), 1, "{calls:?}");
        calls.remove(0)
    }

    /// What is spent and held of a limit's unit at a level.
    pub(super) fn spent(&self, level: &str, unit: quota::Unit) -> (u64, u64) {
        let standings = self.quota.standings(Some(level), None, 100, Now::of(&*self.clock));
        let of = standings.iter().find(|standing| standing.unit == unit).expect("limited");
        (of.spent, of.held)
    }

    pub(super) fn advance_s(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }
}

/// The body of a whole answer.
pub(super) fn whole(answered: Answered) -> String {
    match answered.given {
        Given::Whole { body, .. } => String::from_utf8(body.to_vec()).unwrap(),
        other => panic!("no whole answer: {other:?}"),
    }
}

pub(super) fn failed(answered: &Answered) -> &Failure {
    match &answered.given {
        Given::Failed(failure) => failure,
        other => panic!("no failure: {other:?}"),
    }
}

pub(super) fn stream(answered: Answered) -> Box<AnswerStream> {
    match answered.given {
        Given::Stream(stream) => stream,
        other => panic!("no stream: {other:?}"),
    }
}

/// All frames that are left.
pub(super) async fn read(mut stream: Box<AnswerStream>) -> String {
    let mut text = Vec::new();
    while let Some(frames) = std::future::poll_fn(|cx| stream.poll_frames(cx)).await {
        text.extend_from_slice(&frames);
    }
    String::from_utf8(text).unwrap()
}

/// A question.
pub(super) const HELLO: &str = r#"{"model":"m","max_tokens":50,"messages":[{"role":"user","content":"Hello"}]}"#;
/// The same, as a stream.
pub(super) const HELLO_STREAM: &str =
    r#"{"model":"m","stream":true,"max_tokens":50,"messages":[{"role":"user","content":"Hello"}]}"#;
/// A route over two providers.
pub(super) const A_THEN_B: &str = "
    [[route]]\nname = 'r'\nmodels = ['m', 'one']
    [[route.candidate]]\nprovider = 'a'\nmodel = 'gpt-4o'
    [[route.candidate]]\nprovider = 'b'\nmodel = 'gpt-4o'
";
