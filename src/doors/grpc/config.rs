//! What an operator can set about the gRPC door.

use std::net::{Ipv4Addr, SocketAddr};

use serde::Deserialize;

use crate::doors::tls;

/// `[grpc]` in the configuration. Without the section there is no such door.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Address and port to listen on. Loopback by default; another address makes the gateway visible to the network,
    /// without encryption unless there is a `tls`.
    pub address: SocketAddr,
    /// The server's name; some inference clients insist on one.
    pub server_name: String,
    /// Largest message in bytes; more is `RESOURCE_EXHAUSTED`, before it is read.
    pub message_max_bytes: usize,
    /// Connections open at once; more wait in the kernel's backlog.
    pub connections_max: usize,
    /// Calls in progress at once, open streams among them; more are `UNAVAILABLE`.
    pub calls_max: usize,
    /// A call that is not answered by then is `DEADLINE_EXCEEDED`; a client's own deadline counts if it is earlier.
    pub call_timeout_ms: u64,
    /// A connection whose client does not answer for so long is closed.
    pub keep_alive_ms: u64,
    /// A connection without a call for so long is closed; 0 never.
    pub idle_timeout_ms: u64,
    /// A client that has not shaken hands by then, and one that has not begun to speak HTTP/2, is closed.
    pub handshake_timeout_ms: u64,
    /// Calls that one connection may have in progress.
    pub connection_calls_max: u32,
    /// At shutdown calls in progress get so long before their connections are cut.
    pub drain_timeout_ms: u64,
    /// `[grpc.tls]`; without it the door speaks plainly.
    pub tls: Option<tls::Config>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 8001)),
            server_name: "forebay".to_owned(),
            message_max_bytes: 4 << 20,
            connections_max: 64,
            calls_max: 64,
            call_timeout_ms: 10_000,
            keep_alive_ms: 30_000,
            idle_timeout_ms: 600_000,
            handshake_timeout_ms: 15_000,
            connection_calls_max: 32,
            drain_timeout_ms: 5_000,
            tls: None,
        }
    }
}
