//! The disk as the store sees it, watched: every call recorded, counted, or made to fail.
//!
//! A SQLite VFS in front of the system's own. It exists only where a test or `forebay prove` asks for it, by
//! [`Config::disk`](super::Config::disk), which no configuration file can reach; a gateway uses the system's.
//!
//! - What is recorded is what a power cut can undo: writes, truncations, syncs and names. The index of the log (`-shm`)
//!   is memory and left out.
//! - Calls of all connections are recorded in the order in which they happened: one at a time passes.
//!
//! Limits: a recording is kept in memory and grows with what is written; it is for runs of seconds.

mod disk;
mod fault;
mod shim;
mod trace;

pub use disk::{Disk, Synchronous, Watch};
pub use fault::{Call, Fault, Faults, Harm};
pub use trace::{Event, Trace};
