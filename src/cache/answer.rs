//! What is kept: an answer as the caller gets it, and what it would have cost.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// What a hit saves. What is not known is none, and is counted nowhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Worth {
    /// Tokens in and out.
    pub tokens: Option<u64>,
    /// Money in pico-USD.
    pub cost_pico_usd: Option<u64>,
}

/// A whole answer. Only good ones should be kept: this room does not look inside.
#[derive(Clone, PartialEq, Eq)]
pub struct Answer {
    /// The body as it was sent, a stream's events one after another.
    pub body: Bytes,
    /// Its media type.
    pub content_type: Arc<str>,
    /// What whoever kept it wants back with it, such as the usage. Never read here.
    pub note: Bytes,
    /// What it would cost to ask again.
    pub worth: Worth,
}

impl Answer {
    /// Bytes of what is in it.
    pub(super) fn len(&self) -> usize {
        self.body.len() + self.note.len() + self.content_type.len()
    }

    /// The same bytes by themselves: a slice would keep the whole buffer that it was cut from.
    pub(super) fn compact(&self) -> Self {
        Self {
            body: Bytes::copy_from_slice(&self.body),
            content_type: Arc::clone(&self.content_type),
            note: Bytes::copy_from_slice(&self.note),
            worth: self.worth,
        }
    }
}

impl fmt::Debug for Answer {
    /// Without what was answered: that never belongs into a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("body_bytes", &self.body.len())
            .field("content_type", &self.content_type)
            .field("worth", &self.worth)
            .finish_non_exhaustive()
    }
}

/// An answer that was kept.
#[derive(Debug, Clone, PartialEq)]
pub struct Hit {
    /// The answer.
    pub answer: Answer,
    /// How long ago it was kept, ms.
    pub age_ms: u64,
    /// Cosine of the two meanings, for one that was found by its meaning.
    pub similarity: Option<f32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_does_not_show_itself_in_logs() {
        let answer = Answer {
            body: Bytes::from_static(b"the secret recipe"),
            content_type: "application/json".into(),
            note: Bytes::from_static(b"a note"),
            worth: Worth::default(),
        };
        let told = format!("{answer:?}");
        assert!(told.contains("body_bytes: 17") && !told.contains("secret") && !told.contains("note:"), "{told}");
    }
}
