//! What the outside world speaks to: decode, ask who it is, call a flow, encode.

pub mod http;
pub mod mqtt;
