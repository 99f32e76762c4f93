//! What can be wrong with a setting or a payload, and where.

use std::fmt;

use crate::base::TensorError;

/// Longest excerpt of a payload in an error, in bytes before escaping.
const MAX_EXCERPT_BYTES: usize = 40;

/// Where in a payload something was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// Text formats; both count from 1, the column in bytes.
    Line {
        /// Line.
        line: usize,
        /// Column.
        column: usize,
    },
    /// Binary formats: bytes from the start.
    Offset(usize),
    /// The n-th sample or record, from 1, where the format keeps no byte positions.
    Record(usize),
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { line, column } => write!(f, "line {line}, column {column}"),
            Self::Offset(offset) => write!(f, "byte {offset}"),
            Self::Record(record) => write!(f, "record {record}"),
        }
    }
}

/// A setting that makes no sense, or a payload that does not hold what the settings say.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// Settings that contradict each other or are out of bounds. Found before anything runs.
    #[error("failed to use setting `{key}`: {problem}")]
    Setting {
        /// The key, relative to the stream's table.
        key: String,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The payload is over the stream's limit; nothing of it was looked at.
    #[error("failed to decode a payload of {bytes} bytes: the limit `decoder.max_payload_bytes` is {most}")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        most: usize,
    },
    /// More samples in one payload than the limit allows.
    #[error("failed to decode a payload with more than {most} samples: the limit is `decoder.max_samples`")]
    TooManySamples {
        /// The limit.
        most: usize,
    },
    /// Not the format that the settings name.
    #[error("failed to read {format} at {at}: {problem}, near `{excerpt}`")]
    Malformed {
        /// The format expected.
        format: &'static str,
        /// Where reading stopped.
        at: Position,
        /// What the parser said.
        problem: String,
        /// Escaped bytes around the place, at most 40.
        excerpt: String,
    },
    /// Right format, wrong content.
    #[error("failed to read `{path}` at {at}: expected {expected}, found {found}")]
    Unexpected {
        /// The path, column or name that was looked for.
        path: String,
        /// Where it stands.
        at: Position,
        /// What the settings ask for.
        expected: String,
        /// What stood there, cut to 40 bytes.
        found: String,
    },
    /// The number of features and the shape or statistics of the model's input differ.
    #[error("failed to normalise {features} features: the statistics are for {statistics}")]
    Statistics {
        /// Features given.
        features: usize,
        /// Statistics held.
        statistics: usize,
    },
    /// The features do not fill the model's input.
    #[error("failed to shape features for the model")]
    Shape(#[from] TensorError),
}

impl Error {
    pub(super) fn setting(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Setting { key: key.into(), problem: problem.into() }
    }
}

/// Bytes around `at`, escaped and bounded.
pub(super) fn excerpt(payload: &[u8], at: usize) -> String {
    let at = at.min(payload.len());
    let start = at.saturating_sub(MAX_EXCERPT_BYTES / 2);
    let end = payload.len().min(start + MAX_EXCERPT_BYTES);
    payload[start..end].escape_ascii().to_string()
}

/// A quoted text, cut to a bounded length.
pub(super) fn quoted(text: &str) -> String {
    let cut = text.floor_char_boundary(MAX_EXCERPT_BYTES);
    if cut < text.len() {
        format!("{:?} and {} more bytes", &text[..cut], text.len() - cut)
    } else {
        format!("{text:?}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excerpts_are_bounded_wherever_the_place_is() {
        let payload = vec![0xff; 1000];
        for at in [0, 10, 500, 1000, usize::MAX] {
            assert!(excerpt(&payload, at).len() <= MAX_EXCERPT_BYTES * 4);
        }
        assert_eq!(excerpt(b"", 5), "");
    }

    #[test]
    fn quoted_text_is_cut_at_a_character() {
        let text = "é".repeat(100);
        assert!(quoted(&text).ends_with("and 160 more bytes"));
        assert_eq!(quoted("abc"), "\"abc\"");
    }
}
