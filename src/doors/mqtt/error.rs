//! Why the door cannot open.

use std::net::SocketAddr;

use crate::doors::tls;

/// What can fail while the listeners are set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else has the port.
    #[error(
        "failed to listen on {address}: {holder} has the port; stop it, or set another `address` in `[[mqtt.listener]]`"
    )]
    Taken {
        /// The configured address.
        address: SocketAddr,
        /// Which process, as far as it can be seen.
        holder: String,
    },
    /// The address cannot be used.
    #[error("failed to listen on {address}: check `address` in `[[mqtt.listener]]`")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// A TLS listener lacks a setting.
    #[error("failed to set up TLS on {address}: `{setting}` is missing in its `[[mqtt.listener]]`")]
    Missing {
        /// Which listener.
        address: SocketAddr,
        /// Which setting.
        setting: &'static str,
    },
    /// Its files do not make a TLS server.
    #[error("failed to set up TLS on {address}")]
    Tls {
        /// Which listener.
        address: SocketAddr,
        /// Which of them, and why.
        source: tls::Error,
    },
}
