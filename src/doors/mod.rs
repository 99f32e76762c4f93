//! What the outside world speaks to: decode, ask who it is, call a flow, encode.

mod caller;
#[cfg(feature = "grpc")]
pub mod grpc;
pub mod http;
pub mod mqtt;
mod settings;
pub mod shared_memory;
pub mod tls;
