//! Topics as subjects and back.
//!
//! Levels become tokens, `/` becomes `.`. A name may hold a `.`, which would cut its token in two, so it travels as `~`,
//! which no name holds: `fleet/v1/acme/line.3/alarm/press` is `fleet.v1.acme.line~3.alarm.press`.
//!
//! What is said beside the rows has a root of its own, because a fleet's stream takes everything below `fleet.v1`:
//! `fleet/v1/acme/line.3/receipt` is `cloud.v1.acme.line~3.receipt` while the gateway listens, and
//! `letters.v1.acme.line~3.receipt` in its letterbox.

/// First levels of every topic.
const TOPICS: &str = "fleet/v1/";
/// The same of what is said to who listens.
const LIVE: &str = "cloud.v1.";
/// The same of what is kept.
const KEPT: &str = "letters.v1.";

/// The subject of a topic; `None` for a topic that has no subject: empty levels, wildcards, blanks, `~`.
pub(super) fn subject_of(topic: &str) -> Option<String> {
    let forbidden = |c: char| matches!(c, '*' | '>' | '~' | '+' | '#') || c.is_whitespace() || c.is_control();
    if topic.split('/').any(str::is_empty) || topic.contains(forbidden) {
        return None;
    }
    Some(topic.replace('.', "~").replace('/', "."))
}

/// The topic of a subject that [`subject_of`] or a [`Line`] made; any other subject gives some text that is no topic of
/// ours.
pub(super) fn topic_of(subject: &str) -> String {
    let said = [LIVE, KEPT].iter().find_map(|root| subject.strip_prefix(root));
    match said {
        Some(rest) => format!("{TOPICS}{}", rest.replace('.', "/").replace('~', ".")),
        None => subject.replace('.', "/").replace('~', "."),
    }
}

/// What is not rows: who speaks to or for which gateway.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Line {
    /// As subjects write it, like the gateway.
    tenant: String,
    gateway: String,
    word: Word,
}

/// What is said on a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Word {
    Receipt,
    Request,
    Response,
}

impl Word {
    fn as_str(self) -> &'static str {
        match self {
            Self::Receipt => "receipt",
            Self::Request => "request",
            Self::Response => "response",
        }
    }
}

impl Line {
    /// The line of `fleet/v1/{tenant}/{gateway}/{receipt, request or response}`.
    pub(super) fn of(topic: &str) -> Option<Self> {
        let mut levels = topic.strip_prefix(TOPICS)?.split('/');
        let mut next = || levels.next();
        let (tenant, gateway, word) = (subject_of(next()?)?, subject_of(next()?)?, next()?);
        let word = [Word::Receipt, Word::Request, Word::Response].into_iter().find(|known| known.as_str() == word)?;
        levels.next().is_none().then_some(Self { tenant, gateway, word })
    }

    /// Where what all gateways of a tenant say is heard: the subject of `fleet/v1/{tenant}/+/{receipt, request or response}`.
    pub(super) fn live_of_all(filter: &str) -> Option<String> {
        let (tenant, word) = filter.strip_prefix(TOPICS)?.split_once("/+/")?;
        let line = Self::of(&format!("{TOPICS}{tenant}/x/{word}"))?;
        Some(format!("{LIVE}{}.*.{}", line.tenant, line.word.as_str()))
    }

    pub(super) fn word(&self) -> Word {
        self.word
    }

    /// Where it is heard by who listens now.
    pub(super) fn live(&self) -> String {
        format!("{LIVE}{}.{}.{}", self.tenant, self.gateway, self.word.as_str())
    }

    /// Where it is kept for who is away.
    pub(super) fn kept(&self) -> String {
        format!("{KEPT}{}.{}.{}", self.tenant, self.gateway, self.word.as_str())
    }

    /// Everything that is kept for the gateway.
    pub(super) fn all_kept(&self) -> String {
        format!("{KEPT}{}.{}.*", self.tenant, self.gateway)
    }

    /// The consumer that hands it out. No name holds a `=`.
    pub(super) fn letterbox(&self) -> String {
        format!("{}={}", self.tenant, self.gateway)
    }
}

/// The subject filter of an MQTT topic filter: `+` becomes `*`, a last `#` becomes `>`.
pub(super) fn filter_of(filter: &str) -> Option<String> {
    let mut tokens = Vec::new();
    let levels: Vec<_> = filter.split('/').collect();
    for (at, level) in levels.iter().enumerate() {
        tokens.push(match *level {
            "+" => "*".to_owned(),
            "#" if at + 1 == levels.len() => ">".to_owned(),
            level => subject_of(level)?,
        });
    }
    Some(tokens.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop_assert_eq, proptest};

    proptest! {
        #[test]
        fn a_topic_of_names_reads_back_and_no_two_share_a_subject(
            names in proptest::collection::vec("[A-Za-z0-9_-][A-Za-z0-9_.-]{0,12}", 4),
            others in proptest::collection::vec("[A-Za-z0-9_-][A-Za-z0-9_.-]{0,12}", 4),
        ) {
            let (topic, other) = (format!("fleet/v1/{}", names.join("/")), format!("fleet/v1/{}", others.join("/")));
            let subject = subject_of(&topic).unwrap();
            prop_assert_eq!(subject.split('.').count(), 6);
            prop_assert_eq!(topic_of(&subject), topic.clone());
            prop_assert_eq!(subject_of(&other).unwrap() == subject, other == topic);
        }
    }

    #[test]
    fn what_is_said_beside_the_rows_stays_out_of_the_fleets_stream_and_reads_back() {
        for (word, known) in [("receipt", Word::Receipt), ("request", Word::Request), ("response", Word::Response)] {
            let topic = format!("fleet/v1/ac.me/press.7/{word}");
            let line = Line::of(&topic).unwrap();
            assert_eq!(line.word(), known);
            assert_eq!(line.live(), format!("cloud.v1.ac~me.press~7.{word}"));
            assert_eq!((topic_of(&line.live()), topic_of(&line.kept())), (topic.clone(), topic));
            assert_eq!(
                (line.all_kept().as_str(), line.letterbox().as_str()),
                ("letters.v1.ac~me.press~7.*", "ac~me=press~7")
            );
        }
        for other in ["fleet/v1/a/b/receipt/c", "fleet/v1/a/b/alarm", "fleet/v1/a/receipt", "fleet/v1/a/*/receipt", "x"]
        {
            assert_eq!(Line::of(other), None, "{other}");
        }
    }

    #[test]
    fn all_gateways_of_a_tenant_are_heard_by_one_subject() {
        let subject = Line::live_of_all("fleet/v1/ac.me/+/response").unwrap();
        assert_eq!(subject, "cloud.v1.ac~me.*.response");
        for other in ["fleet/v1/+/+/response", "fleet/v1/a/+/alarm", "fleet/v1/a/b/response", "fleet/v1/a/+/+"] {
            assert_eq!(Line::live_of_all(other), None, "{other}");
        }
    }

    #[test]
    fn what_is_no_topic_has_no_subject() {
        for bad in ["", "a//b", "/a", "a/", "a/*/b", "a/>", "a b/c", "a~b", "a/+/b", "a/#", "a\nb"] {
            assert_eq!(subject_of(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn filters_keep_their_wildcards() {
        assert_eq!(filter_of("fleet/v1/ac.me/+/+/+").unwrap(), "fleet.v1.ac~me.*.*.*");
        assert_eq!(filter_of("fleet/v1/#").unwrap(), "fleet.v1.>");
        assert_eq!(filter_of("fleet/#/x"), None);
    }
}
