//! gRPC: the Open Inference Protocol with Triton's extensions, for clients that speak it.
//!
//! One call walks: connection (bounded) -> caller (key as `authorization` metadata, or this machine itself) -> one flow
//! function -> messages. Status codes are chosen here. The same flows answer the HTTP door, so both doors say the same.
//!
//! Never here: MQTT, readings, streams of sensors, TLS. Tensors in shared memory are refused.
//!
//! Limits, all in [`Config`]: connections, calls at once, open streams, bytes of a message. A stream of requests has
//! up to 8 being computed; their answers keep the order of the questions.

mod config;
mod content;
mod entrance;
mod health;
mod listen;
mod service;
mod status;
mod wire;

pub use config::Config;
pub use listen::{Error, bind, serve};
pub use service::Parts;
