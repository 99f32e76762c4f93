//! Models that a second program computes, with a vendor's libraries, on devices that this one cannot reach.
//!
//! This program is one static file and cannot load a shared library; a vendor's driver must not be able to stop it either. So
//! a host (`forebay-delegate`) is started for each model that the configuration gives to a device. Requests go over a socket
//! that both inherit, tensors lie in memory that both see, and a thread here keeps the host alive (`keeper`).
//!
//! Held here: a host that ends, hangs, leaks or lies costs its own requests and is started again, later each time; every word
//! of it is checked, outputs are copied before they are looked at; it has no network, no environment, no files of ours, a
//! home that is removed with it, and dies with this program; the library that it loads is the one that was tried.
//!
//! Never here: which engine stands in (`pool`), manifests. In a build with the feature `delegate-host`, `host` is the other end.
//!
//! Limits: `shared_bytes_max`, `timeout_ms`, `load_timeout_ms`, `memory_limit_bytes` and the hard limit, messages of 64 KiB, 1,024 tensors.

mod config;
#[cfg(feature = "delegate-host")]
pub mod host;
mod keeper;
mod library;
mod link;
mod metrics;
mod probe;
mod process;
mod session;
mod socket;
mod system;
mod wire;

pub use config::{Config, Device, Provider, Rule};
pub use keeper::{Phase, State};
pub use library::{RUNTIME_VERSION, digest_of, pinned};
pub use metrics::Metrics;
pub use probe::probe;
pub use process::Isolation;
pub use session::{Delegate, delegates};
pub use wire::{Found, FoundDevice};
