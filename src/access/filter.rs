//! MQTT topic filters: reading one, matching a topic, and whether one filter covers another.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest filter in bytes: MQTT strings carry a 16-bit length.
const MAX_BYTES: usize = 65_535;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Level {
    Text(Box<str>),
    /// `+`: exactly one level, whatever it holds.
    One,
    /// `#`: this level and all below, and the parent too.
    Rest,
}

/// A topic filter that keeps MQTT's rules: `+` fills a level, `#` fills the last one, no NUL, not empty.
///
/// As the specification wants, a filter that begins with a wildcard never matches a topic that begins with `$`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Filter {
    levels: Box<[Level]>,
}

/// Why a text is not a topic filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// No characters at all.
    #[error("a topic filter must not be empty")]
    Empty,
    /// More than 65,535 bytes.
    #[error("a topic filter has at most 65535 bytes, this one has {0}")]
    TooLong(usize),
    /// U+0000 is forbidden in MQTT strings.
    #[error("a topic filter must not hold a NUL character")]
    Nul,
    /// `+` or `#` beside other characters in one level.
    #[error("`{0}` has a wildcard beside other characters: `+` and `#` must stand alone between slashes")]
    Wildcard(String),
    /// Something follows `#`.
    #[error("`#` must be the last level of a topic filter, as in `plant/#`")]
    AfterRest,
}

impl Filter {
    /// Reads a filter. `$share/group/...` is not special here; the caller takes the prefix off first.
    pub fn new(text: &str) -> Result<Self, FilterError> {
        if text.is_empty() {
            return Err(FilterError::Empty);
        }
        if text.len() > MAX_BYTES {
            return Err(FilterError::TooLong(text.len()));
        }
        if text.contains('\0') {
            return Err(FilterError::Nul);
        }
        let mut levels = Vec::new();
        for level in text.split('/') {
            if levels.last() == Some(&Level::Rest) {
                return Err(FilterError::AfterRest);
            }
            levels.push(match level {
                "+" => Level::One,
                "#" => Level::Rest,
                _ if level.contains(['+', '#']) => return Err(FilterError::Wildcard(level.to_owned())),
                _ => Level::Text(level.into()),
            });
        }
        Ok(Self { levels: levels.into() })
    }

    /// Whether a message on `topic` reaches a subscriber of this filter.
    pub fn matches(&self, topic: &str) -> bool {
        if topic.starts_with('$') && !matches!(self.levels.first(), Some(Level::Text(_))) {
            return false;
        }
        let mut given = topic.split('/');
        for level in &self.levels {
            match (level, given.next()) {
                (Level::Rest, _) => return true,
                (Level::One, Some(_)) => {}
                (Level::Text(text), Some(level)) if **text == *level => {}
                _ => return false,
            }
        }
        given.next().is_none()
    }

    /// Whether every topic that `other` matches is matched by this filter: `a/#` covers `a/+`, not the reverse.
    pub fn covers(&self, other: &Self) -> bool {
        let reserved = matches!(other.levels.first(), Some(Level::Text(text)) if text.starts_with('$'));
        if reserved && !matches!(self.levels.first(), Some(Level::Text(_))) {
            return false;
        }
        // No topic is empty, so `#` and `/#` have no parent of their own: they say `+/#` and `/+/#`.
        let parentless = match &other.levels[..] {
            [Level::Rest] => true,
            [Level::Text(text), Level::Rest] => text.is_empty(),
            _ => false,
        };
        let (body, rest) = other.levels.split_at(other.levels.len() - usize::from(parentless));
        let extra: &[Level] = if parentless { &[Level::One] } else { &[] };
        let mut asked = body.iter().chain(extra).chain(rest);
        for level in &self.levels {
            match (level, asked.next()) {
                (Level::Rest, _) => return true,
                (Level::One, Some(Level::One | Level::Text(_))) => {}
                (Level::Text(text), Some(Level::Text(other))) if text == other => {}
                _ => return false,
            }
        }
        asked.next().is_none()
    }

    /// Whether the first level is exactly `text`.
    pub(super) fn starts_with_level(&self, text: &str) -> bool {
        matches!(self.levels.first(), Some(Level::Text(first)) if **first == *text)
    }

    /// This filter with every `mark` in its texts replaced by `value`, or none where `value` could change the
    /// filter's meaning: empty, or with a slash, a wildcard, a NUL or a leading `$`.
    pub(super) fn substitute(&self, mark: &str, value: &str) -> Option<Self> {
        let marked = |level: &Level| matches!(level, Level::Text(text) if text.contains(mark));
        if !self.levels.iter().any(marked) {
            return Some(self.clone());
        }
        if value.is_empty() || value.contains(['/', '+', '#', '\0']) || value.starts_with('$') {
            return None;
        }
        let levels = self.levels.iter().map(|level| match level {
            Level::Text(text) => Level::Text(text.replace(mark, value).into()),
            other => other.clone(),
        });
        Some(Self { levels: levels.collect() })
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, level) in self.levels.iter().enumerate() {
            let slash = if at == 0 { "" } else { "/" };
            match level {
                Level::Text(text) => write!(f, "{slash}{text}")?,
                Level::One => write!(f, "{slash}+")?,
                Level::Rest => write!(f, "{slash}#")?,
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for Filter {
    type Error = FilterError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::new(&text)
    }
}

impl From<Filter> for String {
    fn from(filter: Filter) -> Self {
        filter.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filter(text: &str) -> Filter {
        Filter::new(text).unwrap()
    }

    #[test]
    fn a_malformed_filter_says_which_rule_it_breaks() {
        assert_eq!(Filter::new(""), Err(FilterError::Empty));
        assert_eq!(Filter::new("a/#/b"), Err(FilterError::AfterRest));
        assert_eq!(Filter::new("a/b+"), Err(FilterError::Wildcard("b+".to_owned())));
        assert_eq!(Filter::new("a#"), Err(FilterError::Wildcard("a#".to_owned())));
        assert_eq!(Filter::new("a\0"), Err(FilterError::Nul));
        assert_eq!(Filter::new(&"x".repeat(65_536)), Err(FilterError::TooLong(65_536)));
        for good in ["#", "+", "/", "+/+/#", "a//b", "$SYS/#"] {
            assert_eq!(filter(good).to_string(), good);
        }
    }

    #[test]
    fn matching_follows_the_examples_of_the_specification() {
        for (pattern, topic, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/broker", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/broker", true),
        ] {
            assert_eq!(filter(pattern).matches(topic), expected, "{pattern} on {topic}");
        }
    }

    #[test]
    fn a_single_level_rule_does_not_cover_a_whole_tree() {
        assert!(!filter("a/+").covers(&filter("a/#")));
        assert!(!filter("a/+").covers(&filter("a/+/b")));
        assert!(filter("a/#").covers(&filter("a")));
        assert!(filter("a/#").covers(&filter("a/+/#")));
        assert!(!filter("#").covers(&filter("$SYS/#")));
    }

    const TEXTS: [&str; 4] = ["a", "b", "", "$s"];

    fn any_filter() -> impl Strategy<Value = String> {
        let level = prop_oneof![3 => prop::sample::select(&TEXTS[..]), 2 => Just("+")];
        (prop::collection::vec(level, 0..4), any::<bool>())
            .prop_map(|(mut levels, rest)| {
                if rest || levels.is_empty() {
                    levels.push("#");
                }
                levels.join("/")
            })
            .prop_filter("not empty", |text| !text.is_empty())
    }

    /// Every topic of one to five levels over the filters' texts and one that no filter names.
    fn topics() -> Vec<String> {
        let alphabet = ["a", "b", "", "$s", "z"];
        let mut all: Vec<String> = Vec::new();
        let mut longest: Vec<String> = alphabet.iter().map(ToString::to_string).collect();
        for _ in 0..5 {
            all.extend(longest.iter().filter(|topic| !topic.is_empty()).cloned());
            longest = longest.iter().flat_map(|head| alphabet.map(|tail| format!("{head}/{tail}"))).collect();
        }
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn covering_agrees_with_trying_every_topic(rule in any_filter(), asked in any_filter()) {
            static TOPICS: std::sync::LazyLock<Vec<String>> = std::sync::LazyLock::new(topics);
            let (rule, asked) = (filter(&rule), filter(&asked));
            let tried = TOPICS.iter().all(|topic| !asked.matches(topic) || rule.matches(topic));
            prop_assert_eq!(rule.covers(&asked), tried);
        }
    }
}
