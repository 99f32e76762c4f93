//! Topics as subjects and back.
//!
//! Levels become tokens, `/` becomes `.`. A name may hold a `.`, which would cut its token in two, so it travels as `~`,
//! which no name holds: `fleet/v1/acme/line.3/alarm/press` is `fleet.v1.acme.line~3.alarm.press`.

/// The subject of a topic; `None` for a topic that has no subject: empty levels, wildcards, blanks, `~`.
pub(super) fn subject_of(topic: &str) -> Option<String> {
    let forbidden = |c: char| matches!(c, '*' | '>' | '~' | '+' | '#') || c.is_whitespace() || c.is_control();
    if topic.split('/').any(str::is_empty) || topic.contains(forbidden) {
        return None;
    }
    Some(topic.replace('.', "~").replace('/', "."))
}

/// The topic of a subject that [`subject_of`] made; any other subject gives some text that is no topic of ours.
pub(super) fn topic_of(subject: &str) -> String {
    subject.replace('.', "/").replace('~', ".")
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
