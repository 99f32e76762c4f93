//! What comes of a question: an answer, a stream or an error, and what is told about how it came about.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::stream::AnswerStream;
use crate::dialect::Failure;
use crate::quota::Rates;
use crate::route::Link;

/// One answer, and what its headers say.
#[derive(Debug)]
pub struct Answered {
    /// For headers.
    pub told: Told,
    /// For the body.
    pub given: Given,
}

/// What goes to the caller.
#[derive(Debug)]
pub enum Given {
    /// A whole answer in the caller's dialect. A stream that was kept is whole, too.
    Whole {
        /// Its media type.
        content_type: Arc<str>,
        /// Its bytes.
        body: Bytes,
    },
    /// An answer that has begun.
    Stream(Box<AnswerStream>),
    /// No answer.
    Failed(Failure),
}

/// How it came about. What is not known, or does not apply, is none.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// The decision in words, visible ASCII: the route, its strategy, who is asked and who is not, and why.
    pub route: Option<String>,
    /// Who answered, and with which model: `openai/gpt-4o`.
    pub candidate: Option<String>,
    /// `hit`, `semantic` and `flight` (from the cache), `miss`, `off`.
    pub cache: &'static str,
    /// The link as routing believed it to be.
    pub link: Link,
    /// How many candidates were asked, retries included.
    pub attempts: u32,
    /// What it cost, in pico-USD; a stream's cost is only known at its end.
    pub cost_pico: Option<u64>,
    /// The tokens of a whole answer were counted here, because nobody told them.
    pub is_estimated: bool,
    /// The gateway's own part of the time so far.
    pub overhead: Duration,
    /// The tightest rates that the request met.
    pub rates: Rates,
    /// When to ask again, if that is known to help.
    pub retry_after: Option<Duration>,
    /// Members of the request that the model's dialect cannot say and that only advise.
    pub left_out: Vec<String>,
}
