//! Start-up of tracing and of the metric registry.
//!
//! It knows no room: rooms own their counters and `app` registers them here.

mod logs;

pub use logs::{Config, Format, InvalidFilter, Logs, start};
pub use prometheus_client::registry::Registry;
