//! The trait: somebody elsewhere who has models.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};

use super::body::ReplyBody;
use super::config::Model;
use super::error::Failure;
use super::kind::{Call, Kind};
use crate::base::Name;

/// One request in the language of [`Call::wire`].
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    /// What for, and in which language the body is.
    pub call: Call,
    /// The model's name at the provider ([`Provider::model`]). It goes into the address where the language wants it there.
    pub model: &'a str,
    /// Whether the answer is to come in pieces. The body says so too, where the language has it there.
    pub stream: bool,
    /// Headers of the caller's that may go along, such as `anthropic-beta`. Those that the room writes itself or that
    /// carry a key are left out.
    pub headers: &'a [(HeaderName, HeaderValue)],
    /// The body. Empty for a list of models.
    pub body: Bytes,
    /// Less patience than the configuration has, for the first byte.
    pub first_byte_timeout: Option<Duration>,
}

/// An answer whose status was 2xx.
#[derive(Debug)]
pub struct Reply {
    /// Its HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body: JSON, or for a stream events as the language has them (SSE, lines of JSON, AWS event stream).
    pub body: ReplyBody,
}

impl Reply {
    /// What the provider calls this request: it helps their support find it.
    pub fn request_id(&self) -> Option<&str> {
        const NAMES: [&str; 4] = ["x-request-id", "request-id", "x-amzn-requestid", "apim-request-id"];
        NAMES.iter().find_map(|name| self.headers.get(*name)?.to_str().ok())
    }
}

/// A future that asks.
pub type Asking<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'a>>;

/// Somebody elsewhere who has models.
pub trait Provider: Send + Sync + fmt::Debug {
    /// Its name in routes, records and metrics.
    fn name(&self) -> &Name;

    /// What it is.
    fn kind(&self) -> Kind;

    /// Whether it can be asked for this, in this language.
    fn takes(&self, call: Call) -> bool {
        self.kind().takes(call)
    }

    /// Its name of the model that routes call `asked`; none: it does not have it.
    fn model<'a>(&'a self, asked: &'a str) -> Option<&'a str>;

    /// The models that the configuration lists; empty: whatever it is asked for.
    fn models(&self) -> &[Model];

    /// Asks, to the head of the answer. Dropping the future or the reply's body cancels the request.
    ///
    /// # Errors
    /// Whatever is not an answer, by class. Nothing is tried again but with a key that changed meanwhile.
    fn send<'a>(&'a self, ask: Ask<'a>) -> Asking<'a, Reply>;

    /// Whether it can be reached and knows us, by the cheapest question that its kind has; how long that took.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    fn probe(&self) -> Asking<'_, Duration>;

    /// Closes what is not used any more. Call it now and then: nothing runs here by itself.
    fn tidy(&self) {}
}
