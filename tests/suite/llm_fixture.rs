//! The real binary between clients of language models and mock providers, over TCP.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use forebay::base::Digest;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::gateway::{Gateway, Setup, forebay};
use crate::mock_provider::Mock;

/// Nothing here takes so long; a test that waits longer has found a bug.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const CHAT: &str = "/v1/chat/completions";

/// A gateway with an operator `boss` and an app `app`, whose names are their keys.
pub(crate) struct World {
    pub(crate) gateway: Gateway,
    _models: tempfile::TempDir,
}

/// An answer that has come whole.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// Who answered, as `provider/model`; empty: nobody.
    pub(crate) fn model(&self) -> &str {
        self.header("x-forebay-model")
    }
}

/// An answer whose body is on its way.
pub(crate) struct Live {
    response: Response<Incoming>,
    pub(crate) text: String,
}

impl Live {
    /// Reads until `wanted` has come.
    pub(crate) async fn until(&mut self, wanted: &str) {
        while !self.text.contains(wanted) {
            assert!(self.more().await, "it ended without {wanted:?}: {}", self.text);
        }
    }

    /// Reads to the end.
    pub(crate) async fn rest(mut self) -> Reply {
        while self.more().await {}
        let headers = self.response.headers().clone();
        Reply { status: self.response.status().as_u16(), headers, text: self.text }
    }

    async fn more(&mut self) -> bool {
        let frame = timeout(PATIENCE, self.response.frame()).await.expect("the next piece of an answer comes in time");
        match frame {
            None => false,
            Some(frame) => {
                let bytes = frame.expect("the body does not break off").into_data().unwrap_or_default();
                self.text.push_str(std::str::from_utf8(&bytes).expect("text"));
                true
            }
        }
    }
}

/// A connection that is kept.
pub(crate) struct Connection {
    address: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let (sender, connection) = handshake(TokioIo::new(socket)).await.unwrap();
        tokio::spawn(connection);
        Self { address, sender }
    }

    /// Asks, to the head of the answer.
    pub(crate) async fn begin(&mut self, key: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Live {
        self.try_begin(key, path, headers, body).await.unwrap()
    }

    /// Likewise, for one whose connection may break.
    pub(crate) async fn try_begin(
        &mut self,
        key: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> hyper::Result<Live> {
        let mut request = Request::post(path).header("host", self.address.to_string());
        request = request.header("authorization", format!("Bearer {key}")).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body.to_string())).unwrap();
        self.sender.ready().await?;
        let response = timeout(PATIENCE, self.sender.send_request(request)).await;
        let response = response.expect("the head of an answer comes in time")?;
        Ok(Live { response, text: String::new() })
    }

    pub(crate) async fn ask(&mut self, key: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Reply {
        self.begin(key, path, headers, body).await.rest().await
    }
}

/// A chat of one message.
pub(crate) fn chat(model: &str) -> Value {
    json!({ "model": model, "max_tokens": 5, "messages": [{ "role": "user", "content": "Hello" }] })
}

pub(crate) fn streamed(model: &str) -> Value {
    let mut body = chat(model);
    body["stream"] = json!(true);
    body
}

/// A caller whose name is the key.
pub(crate) fn identity(name: &str, role: &str) -> String {
    let digest = Digest::of(name.as_bytes());
    format!("[[access.identity]]\nname = \"{name}\"\nrole = \"{role}\"\nkey_sha256 = \"{digest}\"\n")
}

/// A provider that speaks OpenAI and asks for no key.
pub(crate) fn provider(name: &str, mock: &Mock, settings: &str) -> String {
    format!(
        "[[provider]]\nname = \"{name}\"\nkind = \"openai-compatible\"\nbase_url = \"{}\"\n{settings}\n",
        mock.url("/v1")
    )
}

/// A route to candidates, each as in the configuration.
pub(crate) fn route(name: &str, models: &[&str], candidates: &[&str]) -> String {
    format!("[[route]]\nname = \"{name}\"\nmodels = {models:?}\ncandidate = [{}]\n", candidates.join(", "))
}

impl World {
    /// With these sections beside the usual ones.
    pub(crate) fn start(more: &str) -> Self {
        Self::start_by(more, &mut forebay())
    }

    /// By a prepared command.
    pub(crate) fn start_by(more: &str, command: &mut Command) -> Self {
        let mut access = String::new();
        for (name, role) in [("boss", "operator"), ("app", "app")] {
            access.push_str(&identity(name, role));
        }
        let models = tempfile::tempdir().unwrap();
        let setup = Setup { access: &access, models: Some(models.path()), more, ..Setup::default() };
        Self { gateway: tokio::task::block_in_place(|| Gateway::with_by(&setup, command)), _models: models }
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection::open(self.gateway.http).await
    }

    pub(crate) async fn ask(&self, path: &str, body: &Value) -> Reply {
        self.connect().await.ask("app", path, &[], body).await
    }

    /// Under this request id, by which [`record`](Self::record) finds it.
    pub(crate) async fn ask_as(&self, id: &str, path: &str, body: &Value) -> Reply {
        self.connect().await.ask("app", path, &[("x-request-id", id)], body).await
    }

    pub(crate) async fn begin_as(&self, id: &str, path: &str, body: &Value) -> Live {
        self.connect().await.begin("app", path, &[("x-request-id", id)], body).await
    }

    /// What the operator is told.
    pub(crate) fn boss(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let (status, text) = tokio::task::block_in_place(|| {
            crate::gateway::http(self.gateway.http, method, path, "Authorization: Bearer boss\r\n", body).unwrap()
        });
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// The record of a request, once it is written.
    pub(crate) fn record(&self, id: &str) -> Value {
        let path = format!("/api/v1/calls?id={id}");
        tokio::task::block_in_place(|| {
            crate::gateway::poll(&format!("a record of {id}"), || {
                let (status, mut page) = self.boss("GET", &path, "");
                assert_eq!(status, 200, "{page}");
                page["calls"].get_mut(0).map(Value::take)
            })
        })
    }

    /// A sample of `/metrics`, such as `forebay_answer_under_way`; 0 if it is not there.
    pub(crate) fn metric(&self, sample: &str) -> f64 {
        let (status, text) = self.boss("GET", "/metrics", "");
        assert_eq!(status, 200, "{text}");
        let text = text.as_str().unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.map_or(0.0, |value| value.parse().unwrap())
    }

    /// Resident memory in KiB: all of it, and what is not of a file.
    pub(crate) fn memory_kib(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.gateway.pid())).unwrap();
        let of = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse().unwrap()
        };
        (of("VmRSS:"), of("RssAnon:"))
    }
}

/// Who was asked and what came of it, as `candidate outcome`.
pub(crate) fn attempts(record: &Value) -> Vec<String> {
    let attempts = record["attempts"].as_array().unwrap_or_else(|| panic!("{record}"));
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    attempts.iter().map(|one| format!("{} {}", word(&one["candidate"]), word(&one["outcome"]))).collect()
}
