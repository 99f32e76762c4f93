//! What an operator can set about the HTTP door.

use std::net::{Ipv4Addr, SocketAddr};

use serde::Deserialize;

use crate::doors::tls;

/// `[http]` in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port to listen on. Loopback by default; another address makes the gateway visible to the network.
    pub address: SocketAddr,
    /// Host names, besides `localhost` and the address itself, under which clients reach this door. A request for any
    /// other name is refused, because that is how a website reads a loopback service (DNS rebinding).
    pub hosts: Vec<String>,
    /// The server's name on `/v2`; some inference clients insist on one.
    pub server_name: String,
    /// Largest request body in bytes; more is 413.
    pub body_max_bytes: usize,
    /// Connections open at once, streams included; more wait in the kernel's backlog. By default all that `llm.requests_max`
    /// admits, and some for everybody else.
    pub connections_max: usize,
    /// Requests in progress at once; more are 503 with `retry-after`.
    pub requests_max: usize,
    /// Open event streams at once; more are 503 with `retry-after`.
    pub watchers_max: usize,
    /// A connection that sends no complete request head for so long is closed; this also ends idle keep-alive.
    pub header_timeout_ms: u64,
    /// A request that is not answered by then is 504; bodies are read and models run inside it.
    pub request_timeout_ms: u64,
    /// A connection whose client reads nothing for so long, while an answer waits to be written, is closed.
    pub write_timeout_ms: u64,
    /// An event stream without events carries a comment this often, so that dead clients are noticed.
    pub keep_alive_ms: u64,
    /// At shutdown requests in progress get so long before their connections are cut.
    pub drain_timeout_ms: u64,
    /// Answers to inference of so many bytes and more are compressed for clients that take gzip or deflate; 0 never.
    pub compress_from_bytes: usize,
    /// `[http.tls]`; without it the door speaks plainly.
    pub tls: Option<tls::Config>,
    /// `[http.llm]`: bounds of questions to language models.
    pub llm: super::LlmConfig,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            hosts: Vec::new(),
            server_name: "forebay".to_owned(),
            body_max_bytes: 1 << 20,
            connections_max: 1152,
            requests_max: 64,
            watchers_max: 32,
            header_timeout_ms: 15_000,
            request_timeout_ms: 10_000,
            write_timeout_ms: 30_000,
            keep_alive_ms: 15_000,
            drain_timeout_ms: 5_000,
            compress_from_bytes: 1024,
            tls: None,
            llm: super::LlmConfig::default(),
        }
    }
}
