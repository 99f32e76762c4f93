//! The story of one question to a model: what is asked, whether it may be, at whose cost, whether it was answered before,
//! whom to ask, what to do when nobody answers, and what is recorded of it.
//!
//! [`Answer`] is built once of the rooms' parts. [`Answer::answer`] takes one [`Request`] through these steps:
//! 1. `dialect` reads its facts; `access` has said who asks, and its scope is held against model and route;
//! 2. `route` finds the route and orders its candidates;
//! 3. `quota` reserves what the first candidate that can be paid for may cost;
//! 4. `cache` is asked, if the route keeps answers; the same request on its way is waited for;
//! 5. candidates are asked in their order, in the language that loses least, until one begins to answer. Nothing of an
//!    answer goes out before that, so the caller sees one answer or one error, in its own dialect;
//! 6. a whole answer, or an [`AnswerStream`] that translates as it is read, goes to the caller;
//! 7. what it took is settled, kept and recorded. That also happens when the caller leaves in the middle: whoever drops the
//!    future or the stream ends the call, with what was counted until then.
//!
//! [`Office`] is for those who run the box: records, sums, limits, the audit.
//!
//! Models of this box are asked through [`Local`], in OpenAI's dialect, like any other candidate; a chat with a model whose
//! server takes texts only is rendered and taken apart here (`scripted.rs`).
//!
//! Never here: HTTP statuses of the gateway's own, headers of answers, sockets, files, a background task, a prompt or an
//! answer in a log.
//!
//! [`Knock`] is for requests that come no further than the door: they leave a record, too.
//!
//! Limits: a request has the time of its route, else [`Config::timeout_ms`]; a frame of a stream and the text kept for it
//! [`Config`]'s; a stream of over 1 MiB is not kept by the cache; 16 tags of a request; the attempts of its route.

mod answered;
mod ask;
mod asking;
mod attempt;
mod call;
mod config;
mod fake;
mod fell;
mod hedge;
mod holds;
mod kept;
mod knock;
mod language;
mod local;
mod metrics;
mod office;
mod opening;
mod price;
mod pursue;
mod request;
mod scripted;
mod source;
mod story;
mod stream;
mod telling;
#[cfg(test)]
mod tests;

pub use answered::{Answered, Given, Told};
pub use config::{Config, LEVELS};
pub use fake::FakeLocal;
pub use knock::{Knock, Knocking};
pub use local::{Local, LocalAsk, LocalAsking, LocalBody, LocalFailure, LocalModel};
pub use metrics::Metrics;
pub use office::{CallsPage, CallsWanted, LimitLine, Office, OfficeError, UsagePage, UsageWanted};
pub use request::Request;
pub(super) use scripted::words;
pub use story::{Answer, Error, ModelLine, Parts, Scripts};
pub use stream::AnswerStream;
pub(super) use telling::Telling;
