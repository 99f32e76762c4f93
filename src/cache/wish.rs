//! What a caller says about kept answers, in the words of HTTP's `Cache-Control` (RFC 9111, 5.2.1).

/// What one request allows. Without a header it allows everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// A kept answer may be given. Not with `no-cache` or `no-store`.
    pub may_find: bool,
    /// The answer may be kept. Not with `no-store`.
    pub may_keep: bool,
    /// Nothing but a kept answer is wanted (`only-if-cached`): on a miss HTTP says 504.
    pub only_kept: bool,
    /// The oldest answer that is wanted, in seconds (`max-age`).
    pub max_age_s: Option<u64>,
}

impl Default for Wish {
    fn default() -> Self {
        Self { may_find: true, may_keep: true, only_kept: false, max_age_s: None }
    }
}

impl Wish {
    /// Reads one header's value. Words that it does not know say nothing, as the standard wants.
    #[must_use]
    pub fn read(header: &str) -> Self {
        let mut wish = Self::default();
        for word in header.split(',').map(str::trim) {
            let (name, value) = word.split_once('=').map_or((word, None), |(name, value)| (name, Some(value)));
            if name.eq_ignore_ascii_case("no-cache") {
                wish.may_find = false;
            } else if name.eq_ignore_ascii_case("no-store") {
                (wish.may_find, wish.may_keep) = (false, false);
            } else if name.eq_ignore_ascii_case("only-if-cached") {
                wish.only_kept = true;
            } else if name.eq_ignore_ascii_case("max-age") {
                // What cannot be read is taken for stale, never for good.
                let seconds = value.and_then(|value| value.trim_matches('"').parse().ok()).unwrap_or(0);
                wish.max_age_s = Some(wish.max_age_s.map_or(seconds, |other: u64| other.min(seconds)));
            }
        }
        wish
    }

    /// Whether an answer of this age is wanted.
    pub fn wants(&self, age_ms: u64) -> bool {
        self.may_find && self.max_age_s.is_none_or(|max_s| age_ms <= max_s.saturating_mul(1000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_may_refuse_old_answers_and_refuse_to_be_kept() {
        assert_eq!(Wish::read(""), Wish::default());
        assert_eq!(Wish::read("No-Cache"), Wish { may_find: false, ..Wish::default() });
        assert_eq!(Wish::read("no-store"), Wish { may_find: false, may_keep: false, ..Wish::default() });
        assert_eq!(
            Wish::read("only-if-cached, max-age=\"60\""),
            Wish { only_kept: true, max_age_s: Some(60), ..Wish::default() }
        );
        assert_eq!(Wish::read("max-stale=5, ,=,no-transform").max_age_s, None);
    }

    #[test]
    fn an_age_that_cannot_be_read_wants_nothing_old() {
        for header in ["max-age", "max-age=", "max-age=-1", "max-age=99999999999999999999", "max-age=60, max-age=x"] {
            assert!(!Wish::read(header).wants(1), "{header}");
        }
        let wish = Wish::read("max-age=2");
        assert!(wish.wants(2000) && !wish.wants(2001));
        assert!(Wish::default().wants(u64::MAX) && !Wish::read("no-cache").wants(0));
    }
}
