//! A gateway with its HTTP door on a free port, and a small client. Only [`gateway_with`] and the methods of
//! [`Gateway`] know what stands behind the door.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forebay::access::{Access, Config as AccessConfig};
use forebay::base::SystemClock;
use forebay::doors::http::{Config, Door, Metrics, Parts, bind, serve};
use forebay::flows::inference::Inference;
use forebay::flows::intake::Intake;
use forebay::flows::query::Query;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Nothing here takes so long; a test that waits longer has found a bug.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    query: Arc<Query>,
    stop: CancellationToken,
    serving: JoinHandle<usize>,
}

/// One stream, `machine`, open on loopback.
pub(crate) async fn gateway() -> Gateway {
    gateway_with(Config::default(), open_access(), &["machine"]).await
}

pub(crate) fn open_access() -> AccessConfig {
    AccessConfig { allow_anonymous_loopback: true, ..AccessConfig::default() }
}

/// Stream `s` takes JSON with the field `value` (°F) from topic `plant/s/temperature`.
pub(crate) async fn gateway_with(config: Config, access: AccessConfig, streams: &[&str]) -> Gateway {
    gateway_at("127.0.0.1:0".parse().unwrap(), config, access, streams).await
}

/// On this very address: a gateway that comes back.
pub(crate) async fn gateway_at(listen: SocketAddr, config: Config, access: AccessConfig, streams: &[&str]) -> Gateway {
    let config = Config { listen, ..config };
    let query = Arc::new(Query::fake(streams));
    let mut registry = prometheus_client::registry::Registry::with_prefix("forebay");
    let metrics = Metrics::default();
    metrics.register(&mut registry);
    let ids = AtomicU64::new(1);
    let parts = Parts {
        query: Arc::clone(&query),
        intake: Arc::new(Intake { query: Arc::clone(&query) }),
        inference: Arc::new(Inference),
        access: Arc::new(Access::new(&access).unwrap()),
        registry: Arc::new(Mutex::new(registry)),
        metrics,
        clock: Arc::new(SystemClock::new()),
        request_id: Box::new(move || format!("made-{}", ids.fetch_add(1, Ordering::Relaxed))),
    };
    let listener = bind(&config).await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(serve(listener, Arc::new(Door::new(config, parts)), stop.clone()));
    Gateway { address, query, stop, serving }
}

impl Gateway {
    /// One reading, committed.
    pub(crate) async fn reading(&self, stream: &str, value: f64) {
        let body = format!(r#"{{"value":{value}}}"#);
        let answer = self.post(&format!("/api/v1/streams/{stream}/readings"), &[], body.as_bytes()).await;
        assert_eq!(answer.status, 202, "{}", answer.text());
    }

    /// Enough ordinary readings for a score, then a jump that raises an alarm which stands.
    pub(crate) async fn alarm(&self, stream: &str) {
        for at in 0..60 {
            self.query.feed(stream, None, 70.0 + f64::from(at % 5));
        }
        for _ in 0..5 {
            self.query.feed(stream, None, 130.0);
        }
    }

    /// The store fails, or works again.
    pub(crate) fn health(&self, good: bool) {
        let mut health = self.query.health.lock().unwrap();
        health.ready = good;
        health.problems = if good { vec![] } else { vec!["the disk refuses writes".into()] };
    }

    /// The cloud link breaks.
    pub(crate) fn link_down(&self, reason: &str) {
        let mut link = self.query.link.lock().unwrap();
        link.state = "down";
        link.reason = Some(reason.into());
    }

    /// Starts to drain. The answer is how many connections had to be cut.
    pub(crate) fn close(self) -> JoinHandle<usize> {
        self.stop.cancel();
        self.serving
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
        let mut socket = TcpStream::connect(self.address).await.unwrap();
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
