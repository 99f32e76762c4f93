//! A whole gateway in this process, with its HTTP door on a free port, and a small client. Everything behind the door
//! is real but the engine, which computes means, so that a test says in four readings what is normal and what is not.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forebay::access::{Access, Config as AccessConfig};
use forebay::base::{Clock, Digest, Name, SystemClock};
use forebay::broker::{self, Broker};
use forebay::catalog::{self, Catalog};
use forebay::doors::http::{Config, Door, Metrics, Parts, acceptor, bind, serve};
use forebay::doors::shared_memory::{self, Regions};
use forebay::engine::{self, Engine, Fake, Gate, Pool, Slow};
use forebay::flows::board::Board;
use forebay::flows::inference::Inference;
use forebay::flows::intake::Intake;
use forebay::flows::logging::Logging;
use forebay::flows::models::Models;
use forebay::flows::predict::{Limits, Predict};
use forebay::flows::query::{self, LinkWatch, Query};
use forebay::flows::raw::Raw;
use forebay::flows::repository::Repository;
use forebay::flows::sense::{self, Sense};
use forebay::flows::{Sync, SyncConfig, register_models};
use forebay::history::{self, History};
use forebay::outbox::{self, Outbox};
use forebay::signal;
use forebay::store::{self, Store};
use forebay::uplink::{self, MqttUplink};
use prometheus_client::registry::Registry;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::level_filters::LevelFilter;

use crate::mqtt_fixture;

/// Nothing here takes so long; a test that waits longer has found a bug.
const PATIENCE: Duration = Duration::from_secs(30);
/// Source time of the first reading, ms since 1970, and from one reading to the next.
const FIRST_MS: i64 = 1_767_225_600_000;
const STEP_MS: i64 = 300_000;

/// What a gateway is to be.
pub(crate) struct Setup {
    /// A port of 0 is any.
    pub(crate) http: Config,
    pub(crate) access: AccessConfig,
    pub(crate) streams: &'static [&'static str],
    /// Payloads that wait in each stream.
    pub(crate) queue_payloads: usize,
    pub(crate) store: store::Config,
    pub(crate) engines: Vec<Arc<dyn Engine>>,
    /// None is two models of this file's own: one that serves and one that does not.
    pub(crate) models: Option<PathBuf>,
    /// `[catalog]`; the folder is that of the models.
    pub(crate) catalog: &'static str,
    /// Bounds of predictions.
    pub(crate) predict: Limits,
    /// Tensors in shared memory.
    pub(crate) shared_memory: Option<shared_memory::Config>,
    /// A broker to send everything to.
    pub(crate) cloud: Option<u16>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            http: Config { address: "127.0.0.1:0".parse().unwrap(), ..Config::default() },
            access: open_access(),
            streams: &["machine"],
            queue_payloads: 64,
            store: store::Config::default(),
            engines: vec![Arc::new(Fake)],
            models: None,
            catalog: "",
            predict: Limits::default(),
            shared_memory: None,
            cloud: None,
        }
    }
}

pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    folder: tempfile::TempDir,
    /// What [`Gateway::feed`] shows at a door that asks who is calling.
    pub(crate) authorization: Option<&'static str>,
    clock: AtomicI64,
    rest: Option<Rest>,
    gate: Gate,
}

/// What ends in order.
struct Rest {
    store: Store,
    outbox: Outbox,
    stop: CancellationToken,
    streams_end: CancellationToken,
    tasks: TaskTracker,
    serving: JoinHandle<usize>,
    pool: Arc<Pool>,
}

/// A gateway that has ended.
pub(crate) struct Closed {
    /// Connections that had to be cut.
    pub(crate) cut: usize,
    /// All that is left.
    pub(crate) folder: tempfile::TempDir,
}

/// One stream, `machine`, open on loopback.
pub(crate) async fn gateway() -> Gateway {
    Setup::default().start().await
}

pub(crate) fn open_access() -> AccessConfig {
    AccessConfig { allow_anonymous_loopback: true, ..AccessConfig::default() }
}

pub(crate) async fn gateway_with(http: Config, access: AccessConfig, streams: &'static [&'static str]) -> Gateway {
    let address = "127.0.0.1:0".parse().unwrap();
    Setup { http: Config { address, ..http }, access, streams, ..Setup::default() }.start().await
}

/// A gateway whose models compute only what the gate lets pass.
pub(crate) async fn slow_gateway(mut setup: Setup) -> (Gateway, Gate) {
    let slow = Slow::default();
    let gate = slow.gate.clone();
    setup.engines = vec![Arc::new(slow)];
    let mut gateway = setup.start().await;
    gateway.gate = gate.clone();
    (gateway, gate)
}

/// Stream `s` takes JSON with the field `value` (°F) and perhaps a `time` from topic `plant/s/temperature`. A window of
/// four readings is scored by how many times 5 °F their mean lies above 70 °F; from 3 on it is an alarm.
fn stream(name: &str, queue_payloads: usize) -> sense::Config {
    let text = format!(
        r#"
        name = "{name}"
        topic = "plant/{name}/temperature"
        queue_payloads = {queue_payloads}
        [signal]
        fields = [{{ name = "value", unit = "°F" }}]
        decoder = {{ time = "time", time_format = "unix_ms" }}
        window = {{ size = 4, step = 1 }}
        [model]
        name = "machine-temperature"
        timeout_ms = 600000
        [rule]
        raise = 3.0
        severity = "critical"
        [summary]
        readings = 12
        "#
    );
    toml::from_str(&text).unwrap()
}

fn write_models(folder: &Path) {
    // The second one's input is larger than any engine is given.
    for (name, datatype, width) in [("machine-temperature", "FP32", 4), ("press-vibration", "FP64", 16_000_000)] {
        let place = folder.join(name).join("1");
        std::fs::create_dir_all(&place).unwrap();
        std::fs::write(place.join("model"), name).unwrap();
        let manifest = format!(
            r#"
            [model]
            name = "{name}"
            version = 1
            file = "model"
            sha256 = "{}"
            format = "mean"
            license = "Apache-2.0 OR MIT"
            [[input]]
            name = "window"
            datatype = "{datatype}"
            shape = [1, {width}]
            [[output]]
            name = "score"
            datatype = "FP32"
            shape = [1, 1]
            [[output]]
            name = "expected"
            datatype = "FP32"
            shape = [1, 1]
            [normalise]
            method = "zscore"
            mean = 70.0
            std = 5.0
            # A gate that a test opens is before every run.
            [serving]
            warm_up_runs = 0
            "#,
            Digest::of(name.as_bytes())
        );
        std::fs::write(place.join("manifest.toml"), manifest).unwrap();
    }
}

impl Setup {
    pub(crate) async fn start(self) -> Gateway {
        self.start_in(tempfile::tempdir().unwrap()).await
    }

    /// On what another gateway left.
    pub(crate) async fn start_in(self, folder: tempfile::TempDir) -> Gateway {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let listener = bind(&self.http).await.unwrap();
        let tls = acceptor(&self.http, &clock).unwrap();
        let address = listener.local_addr().unwrap();

        let state_dir = folder.path().join("state");
        let database = state_dir.join("forebay.db");
        let config = store::Config { state_dir, ..self.store };
        let schemas = [history::SCHEMA, outbox::SCHEMA, broker::SCHEMA];
        let (store, opened) = Store::open(&config, &schemas, Arc::clone(&clock)).unwrap();
        let outbox = Outbox::open(&outbox::Config::default(), &store, opened.epoch, Arc::clone(&clock)).unwrap();
        let broker = Broker::open(broker::Config::default(), &store, Arc::clone(&clock)).await.unwrap();

        let pool = Pool::start(&engine::Config::default(), self.engines, Arc::clone(&clock)).unwrap();
        let pool = Arc::new(pool);
        let models = self.models.unwrap_or_else(|| {
            write_models(&folder.path().join("models"));
            folder.path().join("models")
        });
        let catalog = catalog::Config { folder: models, ..toml::from_str(self.catalog).unwrap() };
        catalog.check().unwrap();
        let models =
            Arc::new(Models::load(&Catalog::scan(&catalog), &catalog, &config.state_dir, &pool, Arc::clone(&clock)));

        let streams: Vec<_> = self.streams.iter().map(|name| stream(name, self.queue_payloads)).collect();
        let board = Arc::new(Board::new(streams.iter().map(|stream| stream.name.clone())));
        let (tasks, stop, streams_end) = (TaskTracker::new(), CancellationToken::new(), CancellationToken::new());
        let history = History::new(history::Config::default());
        let parts = sense::Parts {
            clock: Arc::clone(&clock),
            writer: store.writer(),
            reader: store.reader(),
            history: history.clone(),
            outbox: outbox.clone(),
            models: Arc::clone(&models),
            board: Arc::clone(&board),
            broker: broker.clone(),
            metrics: signal::Metrics::default(),
        };
        let (sense, newscast, problems) = Sense::start(&streams, parts, &tasks, &streams_end).await.unwrap();
        let sense = Arc::new(sense);
        broker.attach(Arc::clone(&sense) as _);
        tasks.spawn(newscast.run(Vec::new()));
        tasks.spawn(broker.run(stop.clone()));

        let link = self.cloud.map(|port| {
            let config = uplink::Config { port, accept_no_subscriber: true, ..uplink::Config::default() };
            let uplink = MqttUplink::new(config, "forebay-test", Arc::clone(&clock)).unwrap();
            let (name, rng) = (Name::new("test").unwrap(), StdRng::seed_from_u64(1));
            let config = SyncConfig::default();
            let sync = Sync::new(outbox.clone(), store.writer(), uplink, name, Arc::clone(&clock), config, rng);
            let watch = LinkWatch { state: sync.link(), metrics: sync.metrics().clone() };
            tasks.spawn(sync.run(stop.clone()));
            watch
        });
        let query = Arc::new(Query::new(query::Parts {
            board,
            sense: Arc::clone(&sense),
            models: Arc::clone(&models),
            reader: store.reader(),
            disk: store.health(),
            outbox: outbox.clone(),
            link,
            problems,
            salvage: tokio::sync::watch::channel(Vec::new()).1,
            database,
        }));
        let mut registry = Registry::with_prefix("forebay");
        let metrics = Metrics::default();
        metrics.register(&mut registry);
        let ids = AtomicU64::new(1);
        let raw = Raw {
            sense: Arc::clone(&sense),
            reader: store.reader(),
            writer: store.writer(),
            history,
            outbox: outbox.clone(),
            clock: Arc::clone(&clock),
        };
        let inference = Arc::new(Inference::new(Arc::clone(&models), Arc::clone(&clock)));
        tasks.spawn(Arc::clone(&inference).shadow(stop.clone()));
        let predict = Arc::new(Predict::new(Arc::clone(&inference), Arc::clone(&clock), self.predict));
        predict.metrics().register(&mut registry);
        register_models(Arc::downgrade(&models), &mut registry);
        let parts = Parts {
            query,
            intake: Arc::new(Intake::new(sense)),
            raw: Arc::new(raw),
            inference,
            predict,
            repository: Arc::new(Repository::new(models, catalog)),
            access: Arc::new(Access::new(&self.access).unwrap()),
            regions: Arc::new(Regions::new(self.shared_memory)),
            logging: Arc::new(Logging::new(LevelFilter::INFO, Box::new(|_| Ok(())))),
            llm: None,
            tls,
            registry: Arc::new(Mutex::new(registry)),
            metrics,
            clock,
            request_id: Box::new(move || format!("made-{}", ids.fetch_add(1, Ordering::Relaxed))),
        };
        let serving = tokio::spawn(serve(listener, Arc::new(Door::new(self.http, parts)), stop.clone()));
        let rest = Rest { store, outbox, stop, streams_end, tasks, serving, pool };
        let (clock, gate) = (AtomicI64::new(FIRST_MS), Gate::default());
        Gateway { address, folder, authorization: None, clock, rest: Some(rest), gate }
    }
}

impl Drop for Gateway {
    /// A thread of the pool that stands before the gate would be waited for.
    fn drop(&mut self) {
        self.gate.open(1 << 32);
    }
}

/// A broker that stands for the cloud.
pub(crate) async fn cloud() -> mqtt_fixture::Gateway {
    mqtt_fixture::Gateway::start().await
}

impl Gateway {
    /// One reading, committed.
    pub(crate) async fn reading(&self, stream: &str, value: f64) {
        self.feed(stream, [value]).await;
    }

    /// Readings five minutes apart in one payload, committed.
    pub(crate) async fn feed(&self, stream: &str, values: impl IntoIterator<Item = f64>) {
        let path = format!("/api/v1/streams/{stream}/readings");
        let headers: Vec<_> = self.authorization.map(|value| ("authorization", value)).into_iter().collect();
        let answer = self.post(&path, &headers, &self.payload(values)).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
    }

    pub(crate) fn payload(&self, values: impl IntoIterator<Item = f64>) -> Vec<u8> {
        let next = || self.clock.fetch_add(STEP_MS, Ordering::Relaxed);
        let sample = |value| serde_json::json!({ "value": value, "time": next() });
        serde_json::Value::from_iter(values.into_iter().map(sample)).to_string().into_bytes()
    }

    /// Enough ordinary readings for a score, then a jump that raises an alarm which stands.
    pub(crate) async fn alarm(&self, stream: &str) {
        let ordinary = (0..60).map(|at| 70.0 + f64::from(at % 5));
        self.feed(stream, ordinary.chain([130.0; 5])).await;
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.folder.path().join("state/forebay.db")
    }

    /// Starts to end: the door stops taking requests before this returns, the rest follows in order.
    pub(crate) fn close(mut self) -> JoinHandle<Closed> {
        let Rest { store, outbox, stop, streams_end, tasks, serving, pool } = self.rest.take().unwrap();
        stop.cancel();
        tokio::spawn(async move {
            let cut = serving.await.unwrap();
            streams_end.cancel();
            tasks.close();
            tasks.wait().await;
            drop(pool);
            let ended = tokio::task::spawn_blocking(move || {
                outbox.close().unwrap();
                store.close();
            });
            ended.await.unwrap();
            let empty = tempfile::tempdir().unwrap();
            Closed { cut, folder: std::mem::replace(&mut self.folder, empty) }
        })
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"").await
    }

    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.send("POST", path, headers, body).await
    }

    /// One request on its own connection. A `host` among the headers replaces the right one.
    pub(crate) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
        if !headers.iter().any(|(name, _)| *name == "host") {
            head += &format!("host: {}\r\n", self.address);
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            head += &format!("content-length: {}\r\n", body.len());
        }
        self.raw(&[head.as_bytes(), b"\r\n", body].concat()).await
    }

    /// These bytes on their own connection, and what comes back until it closes.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> Answer {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        // A door that refuses a body early may close before it has read all of it.
        let _ = socket.write_all(bytes).await;
        let mut back = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut back)).await.expect("the door answers");
        Answer::parse(&back)
    }

    /// Opens an event stream.
    pub(crate) async fn events(&self, question: &str) -> Events {
        // Little room between the door and a reader that does not read.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut socket = socket.connect(self.address).await.unwrap();
        let head = format!("GET /api/v1/events{question} HTTP/1.1\r\nhost: {}\r\n\r\n", self.address);
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut events = Events { opened: false, socket, text: String::new() };
        events.opened = events.until("\r\n\r\n").await.starts_with("HTTP/1.1 200");
        events
    }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("a response head");
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.lines();
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let pair = |line: &str| line.split_once(": ").map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned())).unwrap();
        Self { status, headers: lines.map(pair).collect(), body: bytes[end + 4..].to_vec() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

pub(crate) struct Events {
    pub(crate) opened: bool,
    socket: TcpStream,
    text: String,
}

impl Events {
    /// Reads until `wanted` has come, takes everything up to its end away and returns it.
    pub(crate) async fn until(&mut self, wanted: &str) -> String {
        let mut searched = 0;
        loop {
            let found = self.text.as_bytes()[searched..].windows(wanted.len()).position(|w| w == wanted.as_bytes());
            if let Some(at) = found.map(|at| at + searched) {
                let rest = self.text.split_off(at + wanted.len());
                return std::mem::replace(&mut self.text, rest);
            }
            searched = self.text.len().saturating_sub(wanted.len());
            let mut part = vec![0; 65536];
            let read = tokio::time::timeout(PATIENCE, self.socket.read(&mut part)).await;
            let count = read.unwrap_or_else(|_| panic!("no {wanted:?} in {:?}", self.text)).unwrap();
            assert!(count > 0, "closed without {wanted:?}: {:?}", self.text);
            self.text.push_str(&String::from_utf8_lossy(&part[..count]));
        }
    }

    /// Whether the door has ended the stream.
    pub(crate) async fn ends(mut self) -> bool {
        let mut rest = Vec::new();
        tokio::time::timeout(PATIENCE, self.socket.read_to_end(&mut rest)).await.is_ok()
    }
}
