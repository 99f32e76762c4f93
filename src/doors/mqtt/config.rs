//! Where the MQTT door listens, and its bounds.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::Deserialize;

/// What runs on a listener's socket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// MQTT on TCP.
    #[default]
    Tcp,
    /// MQTT on TLS.
    Tls,
    /// MQTT in WebSocket frames, path `/mqtt` or any other.
    Ws,
    /// WebSocket on TLS.
    Wss,
}

impl Kind {
    /// True if it needs a certificate.
    pub fn has_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Wss)
    }
}

/// One `[[mqtt.listener]]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listener {
    /// Address and port; port 0 takes a free one.
    pub address: SocketAddr,
    /// What runs on it.
    pub kind: Kind,
    /// PEM file with the server's certificate chain, for `tls` and `wss`.
    pub certificate: Option<PathBuf>,
    /// PEM file with its private key.
    pub key: Option<PathBuf>,
    /// PEM file with the authorities that sign clients' certificates. Without it none is asked for.
    pub client_ca: Option<PathBuf>,
    /// With `client_ca`: refuse clients without a certificate. Otherwise they may still use a name and a key.
    pub require_client_certificate: bool,
}

impl Default for Listener {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 1883)),
            kind: Kind::Tcp,
            certificate: None,
            key: None,
            client_ca: None,
            require_client_certificate: true,
        }
    }
}

/// Section `[mqtt]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where it listens: one TCP listener on 127.0.0.1:1883 unless listed.
    pub listener: Vec<Listener>,
    /// Connections on all listeners together; further ones are closed at once and counted.
    pub connections: usize,
    /// Time for the TLS and WebSocket handshakes and the CONNECT packet.
    pub connect_timeout_ms: u64,
    /// Largest packet taken; MQTT 5 clients are told.
    pub packet_bytes: usize,
    /// Longest keep-alive; clients with a longer one or none (0) get this as Server Keep Alive (MQTT 5).
    /// 0 allows any.
    pub keep_alive_max_s: u16,
    /// Topic aliases in each direction of a connection; MQTT 5 clients may ask for fewer.
    pub topic_alias_maximum: u16,
    /// Topics per connection whose subscribers are remembered.
    pub cached_topics: usize,
    /// At shutdown: time for clients to take their DISCONNECT.
    pub drain_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listener: vec![Listener::default()],
            connections: 10_000,
            connect_timeout_ms: 10_000,
            packet_bytes: 1024 * 1024,
            keep_alive_max_s: 0,
            topic_alias_maximum: 32,
            cached_topics: 64,
            drain_ms: 2_000,
        }
    }
}
