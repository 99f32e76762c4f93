//! What routing knows of a request: facts that the caller has read, and nothing of its content kept.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How far something may go, and where a candidate is; nearest first, so a candidate may be asked if it is not
/// further away than the request may go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// This machine. Never leaves the box.
    Box,
    /// The plant's own network; needs no link to the outside.
    Site,
    /// Anywhere; needs the link.
    #[default]
    Cloud,
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Box => "box",
            Self::Site => "site",
            Self::Cloud => "cloud",
        })
    }
}

/// The link to the outside; the better, the smaller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Link {
    /// There, and its bytes cost nothing to speak of. Also where nobody watches a link.
    #[default]
    Up,
    /// There, and its bytes cost money.
    Metered,
    /// Not there.
    Down,
}

impl Link {
    /// The word of the configuration, of headers and of records.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Metered => "metered",
            Self::Down => "down",
        }
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something a request needs that not every model can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// Tools are offered to it, or it is told what one said.
    Tools,
    /// A picture is in the request.
    Images,
    /// Sound is in the request, or is asked for.
    Audio,
    /// A document (PDF) is in the request.
    Documents,
    /// The answer must follow a JSON schema, or be JSON.
    StructuredOutput,
    /// Reasoning is asked for.
    Reasoning,
    /// Log probabilities are asked for.
    Logprobs,
}

impl Need {
    pub(super) const ALL: [Self; 7] = [
        Self::Tools,
        Self::Images,
        Self::Audio,
        Self::Documents,
        Self::StructuredOutput,
        Self::Reasoning,
        Self::Logprobs,
    ];

    /// The word of the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Images => "images",
            Self::Audio => "audio",
            Self::Documents => "documents",
            Self::StructuredOutput => "structured_output",
            Self::Reasoning => "reasoning",
            Self::Logprobs => "logprobs",
        }
    }
}

/// A set of [`Need`]s.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs(u8);

impl Needs {
    /// None.
    pub const NONE: Self = Self(0);

    /// With this one, if `needed`.
    #[must_use]
    pub fn and(self, need: Need, needed: bool) -> Self {
        if needed { Self(self.0 | 1 << need as u8) } else { self }
    }

    /// Whether it is among them.
    pub fn has(self, need: Need) -> bool {
        self.0 & 1 << need as u8 != 0
    }

    /// The first, in the order of [`Need`], that is in both.
    pub(super) fn first_of_both(self, other: Self) -> Option<Need> {
        Need::ALL.into_iter().find(|need| Self(self.0 & other.0).has(*need))
    }

    pub(super) fn lacks_of(self, wanted: Self) -> Option<Need> {
        Need::ALL.into_iter().find(|need| Self(wanted.0 & !self.0).has(*need))
    }
}

impl FromIterator<Need> for Needs {
    fn from_iter<I: IntoIterator<Item = Need>>(needs: I) -> Self {
        needs.into_iter().fold(Self::NONE, |set, need| set.and(need, true))
    }
}

/// One request, as far as routing cares. Everything is borrowed for the time of one decision.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// The model as the caller named it.
    pub model: &'a str,
    /// What it asks for: `chat`, `completion`, `embedding`, `moderation`, `response`, ... as the caller of this room calls it.
    pub operation: &'a str,
    /// The tenant.
    pub tenant: &'a str,
    /// Tags that the request, or the key it came with, has.
    pub tags: &'a [&'a str],
    /// What the caller says the request is for; none: it is guessed where a route asks.
    pub task: Option<&'a str>,
    /// The text whose language, words and task may be looked at, usually the last message of the user. Only the first
    /// [`LOOK_BYTES`](super::LOOK_BYTES) are, and only where a route asks for them.
    pub text: &'a str,
    /// Estimated tokens of the prompt; none: unknown, and no bound on length leaves anybody out.
    pub prompt_tokens: Option<u64>,
    /// Most tokens the answer may have; none: the request does not say.
    pub output_tokens: Option<u64>,
    /// What a model must be able to do.
    pub needs: Needs,
    /// The answer comes in parts.
    pub stream: bool,
    /// How far it may go; the route may say less.
    pub reach: Reach,
    /// The link now, hysteresis included ([`LinkGate`](super::LinkGate)).
    pub link: Link,
    /// What holds the request to the same candidate as others, if the route is sticky and the request has one.
    pub sticky: Option<&'a [u8]>,
    /// Chance, where nothing else decides.
    pub chance: u64,
}

impl<'a> Ask<'a> {
    /// A request for `model` of which nothing else is known: one that may go anywhere, over a link that is up.
    pub fn new(model: &'a str, operation: &'a str, chance: u64) -> Self {
        Self {
            model,
            operation,
            tenant: "default",
            tags: &[],
            task: None,
            text: "",
            prompt_tokens: None,
            output_tokens: None,
            needs: Needs::NONE,
            stream: false,
            reach: Reach::Cloud,
            link: Link::Up,
            sticky: None,
            chance,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn needs_are_a_set() {
        let needs: Needs = [Need::Images, Need::Tools].into_iter().collect();
        assert!(needs.has(Need::Tools) && needs.has(Need::Images) && !needs.has(Need::Audio));
        assert_eq!(needs.first_of_both([Need::Images, Need::Logprobs].into_iter().collect()), Some(Need::Images));
        assert_eq!(Needs::NONE.lacks_of(needs), Some(Need::Tools));
        assert_eq!(needs.lacks_of(needs), None);
        assert_eq!(Needs::NONE.and(Need::Audio, false), Needs::NONE);
    }

    #[test]
    fn the_box_is_nearer_than_the_site_and_the_site_than_the_cloud() {
        assert!(Reach::Box < Reach::Site && Reach::Site < Reach::Cloud);
        assert!(Link::Up < Link::Metered && Link::Metered < Link::Down);
    }
}
