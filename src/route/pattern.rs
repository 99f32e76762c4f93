//! Names with `*` in them.

/// Longest pattern, and longest name that matches one, in bytes.
pub(super) const NAME_BYTES_MAX: usize = 256;
/// A pattern with many stars takes long on names made for it.
const STARS_MAX: usize = 4;

/// A name, or one with `*`, each for any run of characters, also none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    text: Box<str>,
    stars: usize,
}

impl Pattern {
    /// The sentence says what is wrong with `text`.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        check_name(text)?;
        let stars = text.matches('*').count();
        if stars > STARS_MAX {
            return Err(format!("{text:?} has {stars} stars, the most is {STARS_MAX}"));
        }
        Ok(Self { text: text.into(), stars })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn is_exact(&self) -> bool {
        self.stars == 0
    }

    pub(super) fn stars(&self) -> usize {
        self.stars
    }

    /// Characters that are not stars: the more, the more it says.
    pub(super) fn literal(&self) -> usize {
        self.text.len() - self.stars
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        if self.stars == 0 {
            return *self.text == *name;
        }
        if name.len() > NAME_BYTES_MAX {
            return false;
        }
        let mut parts = self.text.split('*');
        let (first, last) = (parts.next().unwrap_or(""), parts.next_back().unwrap_or(""));
        let Some(mut middle) = name.strip_prefix(first).and_then(|rest| rest.strip_suffix(last)) else {
            return false;
        };
        // The leftmost place of each part leaves the most for the others.
        parts.all(|part| match middle.find(part) {
            Some(at) => {
                middle = &middle[at + part.len()..];
                true
            }
            None => false,
        })
    }

    /// What the star stands for in a name that matches; none unless there is exactly one.
    pub(super) fn starred<'n>(&self, name: &'n str) -> Option<&'n str> {
        let (first, last) = self.text.split_once('*').filter(|_| self.stars == 1)?;
        name.strip_prefix(first)?.strip_suffix(last)
    }
}

/// Names go into headers, rows and metrics.
pub(super) fn check_name(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() > NAME_BYTES_MAX {
        return Err(format!("a name has 1 to {NAME_BYTES_MAX} characters, this one has {}", text.len()));
    }
    match text.chars().find(|c| !c.is_ascii_graphic()) {
        Some(c) => Err(format!("{text:?} has {c:?} in it: only visible ASCII characters, no spaces")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern::new(pattern).unwrap().matches(name)
    }

    #[test]
    fn a_star_is_any_run_of_characters() {
        for (pattern, name) in [
            ("*", ""),
            ("*", "x/y"),
            ("gpt-*", "gpt-"),
            ("*-mini", "o4-mini"),
            ("a*b*c", "a-b-b-c"),
            ("a**b", "ab"),
            ("x", "x"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("gpt-*", "gpt"), ("a*a", "a"), ("a*b*c", "acb"), ("x", "X"), ("x", "xx"), ("*b*b*", "b")]
        {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
        assert!(!matches("*", &"x".repeat(NAME_BYTES_MAX + 1)));
    }

    #[test]
    fn one_star_says_what_it_stands_for() {
        let starred = |pattern: &str, name| Pattern::new(pattern).unwrap().starred(name).map(str::to_owned);
        assert_eq!(starred("anthropic/*", "anthropic/claude-x").as_deref(), Some("claude-x"));
        assert_eq!(starred("*", "gpt-4o").as_deref(), Some("gpt-4o"));
        assert_eq!(starred("a/*/b", "a/x/b").as_deref(), Some("x"));
        assert_eq!(starred("a*b*", "ab"), None);
        assert_eq!(starred("ab", "ab"), None);
    }

    #[test]
    fn names_are_visible_ascii_of_bounded_length() {
        for wrong in ["", "a b", "a\n", "ä", "*****", &"x".repeat(257)] {
            assert!(Pattern::new(wrong).is_err(), "{wrong:?}");
        }
    }

    /// The textbook definition, character by character.
    fn slow(pattern: &[u8], name: &[u8]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some((b'*', rest)) => (0..=name.len()).any(|at| slow(rest, &name[at..])),
            Some((c, rest)) => name.split_first().is_some_and(|(n, name)| n == c && slow(rest, name)),
        }
    }

    proptest! {
        #[test]
        fn matching_is_what_the_definition_says(pattern in "[ab*]{1,7}", name in "[ab]{0,8}") {
            prop_assume!(pattern.matches('*').count() <= STARS_MAX);
            prop_assert_eq!(matches(&pattern, &name), slow(pattern.as_bytes(), name.as_bytes()));
        }
    }
}
