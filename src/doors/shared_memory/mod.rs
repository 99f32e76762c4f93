//! Tensors in memory that callers share with the gateway: Triton's system shared memory extension, for both inference doors.
//!
//! A region is a file under `/dev/shm` that a program on this machine made and registered under a name of its own. It is
//! read and written by system calls and never mapped: a caller that truncates its file while it is read would stop the
//! whole process otherwise, and one that writes meanwhile would change a tensor that was already checked.
//!
//! A region belongs to the identity that registered it; nobody else can see it, use it or take it away. Off unless
//! `[shared_memory]` is in the configuration.
//!
//! Never here: paths (a key is one name in one folder), links, memory of GPUs.
//!
//! Limits, all in [`Config`]: regions, bytes of their files, bytes that one request may have in them.

mod config;
mod error;
mod region;
mod tensors;

pub use config::Config;
pub(in crate::doors) use error::RegionError;
pub use region::Regions;
pub(in crate::doors) use region::{Owner, RegionView};
pub(in crate::doors) use tensors::{InRegion, Place, ToRegion};
