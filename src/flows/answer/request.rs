//! One request as the door hands it over, and what its headers say.

use std::time::Duration;

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{AsHeaderName, CACHE_CONTROL, HeaderName, HeaderValue};
use smallvec::SmallVec;

use crate::access::Principal;
use crate::cache::Wish;
use crate::dialect::{Dialect, Operation};
use crate::route::Reach;

// Looked for in every request: named once, by the compiler.
pub(super) const PROMPT: HeaderName = HeaderName::from_static("x-forebay-prompt");
pub(super) const TASK: HeaderName = HeaderName::from_static("x-forebay-task");
const REACH: HeaderName = HeaderName::from_static("x-forebay-reach");
const TAGS: HeaderName = HeaderName::from_static("x-forebay-tags");

/// Most tags of a request; further ones are not heard.
const TAGS_MAX: usize = 16;
/// Headers of the caller's that go along to a provider of the same dialect: versions and betas that it has asked for.
static OPENAI: [HeaderName; 1] = [HeaderName::from_static("openai-beta")];
static ANTHROPIC: [HeaderName; 2] =
    [HeaderName::from_static("anthropic-beta"), HeaderName::from_static("anthropic-version")];

/// One question.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The dialect of the path that it came to.
    pub dialect: Dialect,
    /// What that path is for.
    pub operation: Operation,
    /// The model, where the dialect has it in the path.
    pub model: Option<&'a str>,
    /// Whether a stream is asked for, where the dialect has that in the path.
    pub stream: Option<bool>,
    /// Whether the body holds many requests (Gemini's `batchEmbedContents`).
    pub batch: bool,
    /// The body, whole.
    pub body: &'a Bytes,
    /// Who asks.
    pub who: &'a Principal,
    /// The request's id, in headers and the record.
    pub id: &'a str,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// When it came, since boot.
    pub arrived: Duration,
}

impl<'a> Request<'a> {
    pub(super) fn header(&self, name: impl AsHeaderName) -> Option<&'a str> {
        self.headers.get(name)?.to_str().ok().map(str::trim).filter(|text| !text.is_empty())
    }

    /// How far it may go, as `x-forebay-reach` says.
    pub(super) fn reach(&self) -> Result<Reach, &'static str> {
        match self.header(REACH) {
            None => Ok(Reach::Cloud),
            Some("box") => Ok(Reach::Box),
            Some("site") => Ok(Reach::Site),
            Some("cloud") => Ok(Reach::Cloud),
            // A slip here could let something out that must stay in.
            Some(_) => Err("The header x-forebay-reach must be box, site or cloud."),
        }
    }

    /// `x-forebay-tags`, between commas.
    pub(super) fn tags(&self) -> SmallVec<[&'a str; 4]> {
        let tags = self.header(TAGS).unwrap_or("").split(',').map(str::trim);
        tags.filter(|tag| !tag.is_empty()).take(TAGS_MAX).collect()
    }

    /// What it says about kept answers.
    pub(super) fn wish(&self) -> Wish {
        let text = self.headers.get(CACHE_CONTROL).and_then(|value| value.to_str().ok());
        text.map_or_else(Wish::default, Wish::read)
    }

    /// Headers that go along to a provider of the same dialect.
    pub(super) fn forwarded(&self) -> Vec<(HeaderName, HeaderValue)> {
        let names = match self.dialect {
            Dialect::Anthropic => &ANTHROPIC[..],
            Dialect::Chat | Dialect::Responses => &OPENAI,
            _ => &[],
        };
        let mut forwarded = Vec::new();
        for name in names {
            forwarded.extend(self.headers.get_all(name).iter().map(|value| (name.clone(), value.clone())));
        }
        forwarded
    }
}
