//! Google's Interactions API (Gemini API v1beta): errors, events, usage, the answer's head, and what marks a signature.
//! A language of callers only.

mod answer;
mod error;
mod format;
mod signature;

pub(crate) use answer::{DONE, head, why_stopped, write_usage};
pub(crate) use error::{error, error_event};
pub(crate) use format::{Wanted, wanted};
pub(crate) use signature::{Signed, claudes, read, redacted};
