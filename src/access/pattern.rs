//! Patterns over names of models and routes: `*` stands for any run of characters, everything else for itself.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest pattern in bytes.
const MAX_BYTES: usize = 128;
/// Most `*` in one pattern, which bounds the work of a match.
const MAX_STARS: usize = 8;

/// A pattern such as `openai/gpt-4o*` or `*`. Case counts, and `*` runs over slashes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(Box<str>);

/// Why a text is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// No characters at all.
    #[error("a pattern must not be empty: `*` stands for every name")]
    Empty,
    /// Over 128 bytes.
    #[error("a pattern has at most {MAX_BYTES} bytes, this one has {0}")]
    TooLong(usize),
    /// Over eight `*`.
    #[error("a pattern has at most {MAX_STARS} `*`, this one has {0}")]
    Stars(usize),
    /// No name has a control character in it.
    #[error("a pattern must not hold control characters")]
    Control,
}

impl Pattern {
    /// Reads a pattern.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if text.len() > MAX_BYTES {
            return Err(PatternError::TooLong(text.len()));
        }
        let stars = text.matches('*').count();
        if stars > MAX_STARS {
            return Err(PatternError::Stars(stars));
        }
        if text.chars().any(char::is_control) {
            return Err(PatternError::Control);
        }
        Ok(Self(text.into()))
    }

    /// The pattern that every name matches.
    pub fn everything() -> Self {
        Self("*".into())
    }

    /// Whether `name` is one of those that the pattern stands for.
    pub fn matches(&self, name: &str) -> bool {
        let Some((head, mut rest)) = self.0.split_once('*') else { return *self.0 == *name };
        let Some(mut name) = name.strip_prefix(head) else { return false };
        // Texts between stars are found as early as they can be; only the last one must end the name.
        while let Some((text, after)) = rest.split_once('*') {
            let Some(at) = name.find(text) else { return false };
            name = &name[at + text.len()..];
            rest = after;
        }
        name.ends_with(rest)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(&text)
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_star_stands_for_any_run_of_characters() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("*", "openai/gpt-4o", true),
            ("gpt-4o", "gpt-4o", true),
            ("gpt-4o", "gpt-4o-mini", false),
            ("gpt-4o*", "gpt-4o-mini", true),
            ("*-mini", "gpt-4o-mini", true),
            ("*-mini", "gpt-4o-mini-2", false),
            ("openai/*", "azure/openai/x", false),
            ("*/gpt*mini", "openai/gpt-4o-mini", true),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a*b*b", "ab", false),
            ("GPT*", "gpt-4o", false),
        ] {
            assert_eq!(Pattern::new(pattern).unwrap().matches(name), expected, "{pattern} on {name}");
        }
    }

    #[test]
    fn a_text_that_is_no_pattern_says_why() {
        assert_eq!(Pattern::new(""), Err(PatternError::Empty));
        assert_eq!(Pattern::new(&"x".repeat(129)), Err(PatternError::TooLong(129)));
        assert_eq!(Pattern::new("*********"), Err(PatternError::Stars(9)));
        assert_eq!(Pattern::new("a\nb"), Err(PatternError::Control));
    }

    /// By trying every length for every star.
    fn slowly(pattern: &[char], name: &[char]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some(('*', rest)) => (0..=name.len()).any(|skip| slowly(rest, &name[skip..])),
            Some((first, rest)) => name.first() == Some(first) && slowly(rest, &name[1..]),
        }
    }

    proptest! {
        #[test]
        fn the_quick_way_finds_what_trying_everything_finds(pattern in "[ab*ä]{1,8}", name in "[abä]{0,8}") {
            let expected = slowly(&pattern.chars().collect::<Vec<_>>(), &name.chars().collect::<Vec<_>>());
            prop_assert_eq!(Pattern::new(&pattern).unwrap().matches(&name), expected);
        }
    }
}
