//! The frames of a stream, whichever way the dialect cuts them.

use std::borrow::Cow;

use super::{Dialect, Error, event_stream, lines, sse};

/// One frame.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    /// Its name, empty where it has none.
    pub(crate) event: &'a [u8],
    /// What it carries; `None` for a comment, and for lines that are no event at all.
    pub(crate) data: Option<Cow<'a, [u8]>>,
    /// The bytes it came in, with what ends it.
    pub(crate) raw: &'a [u8],
}

impl Frame<'_> {
    /// Whether it is there only to keep a connection alive.
    pub(crate) fn is_comment(&self) -> bool {
        self.data.is_none() && self.raw.starts_with(b":")
    }

    /// Appends a comment for a comment. What carries nothing else is kept: bytes that make no sense must neither reach a
    /// caller nor count as the beginning of an answer.
    pub(crate) fn keep_alive(&self, out: &mut Vec<u8>) {
        if self.is_comment() {
            out.extend_from_slice(b": ping\n\n");
        }
    }
}

/// Cuts the bytes of a stream into frames. One variant a framing; each holds at most one unfinished frame.
#[derive(Debug)]
pub(crate) enum Frames {
    Sse(sse::Reader),
    Lines(lines::Reader),
    Events(event_stream::Reader),
}

impl Frames {
    /// The framing of `dialect`; a frame has at most `max_bytes`.
    pub(crate) fn of(dialect: Dialect, max_bytes: usize) -> Result<Self, Error> {
        match dialect {
            Dialect::Chat
            | Dialect::Responses
            | Dialect::Anthropic
            | Dialect::Gemini
            | Dialect::Interactions
            | Dialect::Oip => Ok(Self::Sse(sse::Reader::new(max_bytes))),
            Dialect::Ollama => Ok(Self::Lines(lines::Reader::new(max_bytes))),
            Dialect::Bedrock => Ok(Self::Events(event_stream::Reader::new(max_bytes))),
        }
    }

    pub(crate) fn push(&mut self, chunk: &[u8]) -> Result<(), Error> {
        match self {
            Self::Sse(reader) => return reader.push(chunk),
            Self::Lines(reader) => reader.push(chunk),
            Self::Events(reader) => reader.push(chunk),
        }
        Ok(())
    }

    pub(crate) fn next(&mut self) -> Result<Option<Frame<'_>>, Error> {
        match self {
            Self::Sse(reader) => reader.next(),
            Self::Lines(reader) => reader.next(),
            Self::Events(reader) => reader.next(),
        }
    }

    /// Whether bytes are left that are no whole frame.
    pub(crate) fn is_mid_frame(&self) -> bool {
        match self {
            Self::Sse(reader) => reader.is_mid_frame(),
            Self::Lines(reader) => reader.is_mid_frame(),
            Self::Events(reader) => reader.is_mid_frame(),
        }
    }
}
