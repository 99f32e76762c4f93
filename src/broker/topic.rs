//! Topic names and filters: what is well formed, and what a filter shares.

/// Bounds on names and filters.
#[derive(Debug, Clone, Copy)]
pub(super) struct TopicLimits {
    pub(super) levels: usize,
    pub(super) bytes: usize,
}

impl TopicLimits {
    fn holds(&self, text: &str) -> bool {
        !text.is_empty()
            && text.len() <= self.bytes
            && !text.contains('\0')
            && text.bytes().filter(|&byte| byte == b'/').count() < self.levels
    }

    /// A name to publish to: no wildcards, not inside `$share/`.
    pub(super) fn name(&self, topic: &str) -> bool {
        self.holds(topic) && !topic.bytes().any(|byte| byte == b'+' || byte == b'#') && !topic.starts_with("$share/")
    }

    /// A filter to subscribe to.
    pub(super) fn filter<'a>(&self, text: &'a str) -> Option<Filter<'a>> {
        let filter = Filter::parse(text)?;
        self.holds(filter.path).then_some(filter)
    }
}

/// A topic filter, split from its share name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Filter<'a> {
    /// `name` of `$share/name/path`.
    pub(super) share: Option<&'a str>,
    /// The filter that topics are matched with.
    pub(super) path: &'a str,
}

impl<'a> Filter<'a> {
    /// Reads a filter; None if wildcards stand where they must not, or a share has no name or no filter.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let (share, path) = match text.strip_prefix("$share/") {
            Some(rest) => {
                let (name, path) = rest.split_once('/')?;
                if name.is_empty() || name.contains(['+', '#']) {
                    return None;
                }
                (Some(name), path)
            }
            None if text == "$share" => return None,
            None => (None, text),
        };
        if path.is_empty() {
            return None;
        }
        let mut levels = path.split('/').peekable();
        while let Some(level) = levels.next() {
            let wild = level.contains(['+', '#']);
            if wild && level.len() > 1 || level == "#" && levels.peek().is_some() {
                return None;
            }
        }
        Some(Self { share, path })
    }

    /// True if it matches `topic`. `$`-topics match only filters that name their first level.
    pub(super) fn matches(&self, topic: &str) -> bool {
        if topic.starts_with('$') && self.path.starts_with(['+', '#']) {
            return false;
        }
        let mut levels = topic.split('/');
        for wanted in self.path.split('/') {
            if wanted == "#" {
                return true;
            }
            match levels.next() {
                Some(level) if wanted == "+" || wanted == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }

    /// The longest start of every topic it can match.
    pub(super) fn literal_prefix(&self) -> &'a str {
        match self.path.find(['+', '#']) {
            // `a/#` also matches `a`, so the separator before `#` is not part of the prefix.
            Some(at) if self.path.as_bytes()[at] == b'#' => self.path[..at].trim_end_matches('/'),
            Some(at) => &self.path[..at],
            None => self.path,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: TopicLimits = TopicLimits { levels: 8, bytes: 64 };

    fn matches(filter: &str, topic: &str) -> bool {
        Filter::parse(filter).unwrap().matches(topic)
    }

    #[test]
    fn wildcards_match_as_the_standard_says() {
        for (filter, topic) in [
            ("a/b", "a/b"),
            ("a/+", "a/b"),
            ("a/+", "a/"),
            ("+/+", "/x"),
            ("/+", "/x"),
            ("a/#", "a"),
            ("a/#", "a/b/c"),
            ("#", "a/b"),
            ("+/b/#", "a/b"),
            ("$SYS/#", "$SYS/broker"),
        ] {
            assert!(matches(filter, topic), "{filter} must match {topic}");
        }
        for (filter, topic) in [
            ("a/+", "a"),
            ("a/+", "a/b/c"),
            ("+", "/x"),
            ("a", "a/"),
            ("#", "$SYS/x"),
            ("+/x", "$SYS/x"),
            ("a/b/#", "a"),
        ] {
            assert!(!matches(filter, topic), "{filter} must not match {topic}");
        }
    }

    #[test]
    fn misplaced_wildcards_are_refused() {
        for bad in ["", "a+", "a/b#", "#/a", "a/#/b", "$share/x", "$share//a", "$share/a+/b", "$share/a/", "$share"] {
            assert_eq!(Filter::parse(bad), None, "{bad:?}");
        }
        assert_eq!(Filter::parse("$share/g/a/#"), Some(Filter { share: Some("g"), path: "a/#" }));
    }

    #[test]
    fn names_have_bounds_and_no_wildcards() {
        assert!(LIMITS.name("a/b"));
        for bad in ["", "a/+", "#", "a\0b", "1/2/3/4/5/6/7/8/9", &"x".repeat(65), "$share/g/a"] {
            assert!(!LIMITS.name(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_prefix_never_excludes_a_match() {
        for (filter, prefix) in [("a/#", "a"), ("a/b/+/c", "a/b/"), ("#", ""), ("a/b", "a/b"), ("+/a", "")] {
            assert_eq!(Filter::parse(filter).unwrap().literal_prefix(), prefix);
        }
    }
}
