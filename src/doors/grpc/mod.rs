//! gRPC: the Open Inference Protocol with Triton's extensions, for clients that speak it.
//!
//! One call walks: connection (bounded) -> caller (key as `authorization` metadata, or this machine itself) -> one flow
//! function -> messages. Status codes are chosen here. The same flows answer the HTTP door, so both doors say the same.
//!
//! Never here: MQTT, readings, streams of sensors, memory of GPUs.
//!
//! Limits, all in [`Config`]: connections and how long one may do nothing, calls at once, open streams, bytes of a message,
//! which counts as it is when it is unfolded. A stream of requests has up to 8 being computed; their answers keep the
//! order of the questions.

mod config;
mod connection;
mod content;
mod describe;
mod entrance;
mod health;
mod listen;
mod service;
mod status;
mod wire;

pub use config::Config;
pub use listen::{Error, acceptor, bind, serve};
pub use service::Parts;
