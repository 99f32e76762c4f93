//! MQTT 3.1.1 and 5.0 on one port: sockets, codec, one task a connection.
//!
//! A connection reads what is there in one go, hands it to the broker, and writes what is due in one go. It reads
//! nothing while its own publishes wait for room on disk or for a busy subscriber. What a client does wrong ends its
//! own connection only, with the reason code of MQTT 5.
//!
//! Limits: connections, packet size, time to CONNECT, topic aliases ([`Config`]); per-client queues are the broker's.
//! Extended authentication is refused (0x8C).

pub mod codec;
mod config;
mod connection;
mod error;
mod handshake;
mod holder;
mod inbound;
mod listen;
mod metrics;
mod outbound;
mod reasons;
mod websocket;

pub use config::{Config, Kind, Listener};
pub use error::Error;
pub use listen::Door;
pub use metrics::Metrics;
