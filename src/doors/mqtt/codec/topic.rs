//! Topic names and topic filters (MQTT 5.0, 4.7 and 4.8.2).

/// What is wrong with a topic name or filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TopicFault {
    /// No characters `[MQTT-4.7.3-1]`.
    #[error("it is empty")]
    Empty,
    /// A topic name with `+` or `#` `[MQTT-3.3.2-2]`.
    #[error("it contains a wildcard")]
    Wildcard,
    /// U+0000 `[MQTT-4.7.3-2]`.
    #[error("it contains U+0000")]
    Null,
    /// U+0001 to U+001F or U+007F to U+009F, which a receiver may refuse (MQTT 5.0, 1.5.4): they would reach logs and
    /// file names.
    #[error("it contains a control character")]
    Control,
    /// `#` that is not a whole last level `[MQTT-4.7.1-1]`.
    #[error("# must be the whole last level")]
    MultiLevel,
    /// `+` that is not a whole level `[MQTT-4.7.1-2]`.
    #[error("+ must be a whole level")]
    SingleLevel,
    /// A shared subscription without a share name, or with a wildcard in it `[MQTT-4.8.2-1]`, `[MQTT-4.8.2-2]`.
    #[error("a shared subscription needs $share/<name without wildcards>/<filter>")]
    ShareName,
    /// More than 65,535 bytes `[MQTT-4.7.3-3]`.
    #[error("it is longer than 65535 bytes")]
    TooLong,
}

/// A valid topic filter, with its share name if it is a shared subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicFilter<'a> {
    /// The share name of `$share/<name>/<filter>`.
    pub share_name: Option<&'a str>,
    /// The filter that messages are matched against.
    pub filter: &'a str,
}

/// Checks a topic name: not empty, no wildcard, no U+0000, at most 65,535 bytes.
pub fn validate_topic_name(topic: &str) -> Result<(), TopicFault> {
    if topic.is_empty() {
        return Err(TopicFault::Empty);
    }
    if topic.len() > usize::from(u16::MAX) {
        return Err(TopicFault::TooLong);
    }
    // One pass without early exit, which the compiler turns into vector code; what is suspicious is looked at again.
    let suspicious = topic.bytes().fold(false, |bad, b| bad | (b == b'+') | (b == b'#') | !(0x20..0x7F).contains(&b));
    if !suspicious {
        Ok(())
    } else if topic.contains(['+', '#']) {
        Err(TopicFault::Wildcard)
    } else {
        validate_characters(topic)
    }
}

/// Checks a topic filter and splits off its share name (`$share/<name>/<filter>`).
pub fn validate_filter(filter: &str) -> Result<TopicFilter<'_>, TopicFault> {
    let Some(shared) = filter.strip_prefix("$share/") else {
        validate_plain_filter(filter)?;
        // `$share` alone would be read as an ordinary filter, although it can only be a mistake.
        return if filter == "$share" {
            Err(TopicFault::ShareName)
        } else {
            Ok(TopicFilter { share_name: None, filter })
        };
    };
    if filter.len() > usize::from(u16::MAX) {
        return Err(TopicFault::TooLong);
    }
    let (name, rest) = shared.split_once('/').ok_or(TopicFault::ShareName)?;
    if name.is_empty() || rest.is_empty() || name.contains(['+', '#']) {
        return Err(TopicFault::ShareName);
    }
    validate_characters(name)?;
    validate_plain_filter(rest)?;
    Ok(TopicFilter { share_name: Some(name), filter: rest })
}

fn validate_characters(text: &str) -> Result<(), TopicFault> {
    match text.chars().find(|c| c.is_control()) {
        None => Ok(()),
        Some('\0') => Err(TopicFault::Null),
        Some(_) => Err(TopicFault::Control),
    }
}

/// Checks a topic filter as MQTT 3.1.1 knows it, where `$share/...` has no meaning.
pub(super) fn validate_plain_filter(filter: &str) -> Result<(), TopicFault> {
    let bytes = filter.as_bytes();
    if bytes.is_empty() {
        return Err(TopicFault::Empty);
    }
    if bytes.len() > usize::from(u16::MAX) {
        return Err(TopicFault::TooLong);
    }
    for (at, byte) in bytes.iter().enumerate() {
        let starts_level = at == 0 || bytes[at - 1] == b'/';
        match byte {
            b'#' if !starts_level || at + 1 != bytes.len() => return Err(TopicFault::MultiLevel),
            b'+' if !starts_level || bytes.get(at + 1).is_some_and(|next| *next != b'/') => {
                return Err(TopicFault::SingleLevel);
            }
            _ => {}
        }
    }
    validate_characters(filter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_of_the_specification_are_accepted() {
        for topic in ["/", "a", "/finance", "sport/tennis/player1", "$SYS/x", "Accounts payable", "温度", "a//b"] {
            assert_eq!(validate_topic_name(topic), Ok(()), "{topic}");
        }
    }

    #[test]
    fn topic_names_with_wildcards_or_null_are_refused() {
        assert_eq!(validate_topic_name(""), Err(TopicFault::Empty));
        assert_eq!(validate_topic_name("a/+"), Err(TopicFault::Wildcard));
        assert_eq!(validate_topic_name("a#"), Err(TopicFault::Wildcard));
        assert_eq!(validate_topic_name("a\0"), Err(TopicFault::Null));
        for control in ["\u{1}", "\n", "\u{1f}", "\u{7f}", "\u{80}", "é\u{9f}"] {
            assert_eq!(validate_topic_name(control), Err(TopicFault::Control));
            assert_eq!(validate_filter(control), Err(TopicFault::Control));
        }
        assert_eq!(validate_topic_name("\u{a0}\u{2028}\u{ffff}~"), Ok(()));
        assert_eq!(validate_topic_name(&"a".repeat(65_536)), Err(TopicFault::TooLong));
    }

    #[test]
    fn filters_of_the_specification_are_judged_as_it_says() {
        for filter in ["#", "sport/#", "+", "+/tennis/#", "sport/+/player1", "/+", "+/+", "$SYS/#", "/", "a//+"] {
            assert_eq!(validate_filter(filter), Ok(TopicFilter { share_name: None, filter }), "{filter}");
        }
        assert_eq!(validate_filter("sport/tennis#"), Err(TopicFault::MultiLevel));
        assert_eq!(validate_filter("sport/tennis/#/ranking"), Err(TopicFault::MultiLevel));
        assert_eq!(validate_filter("##"), Err(TopicFault::MultiLevel));
        assert_eq!(validate_filter("sport+"), Err(TopicFault::SingleLevel));
        assert_eq!(validate_filter("+a/b"), Err(TopicFault::SingleLevel));
        assert_eq!(validate_filter("++"), Err(TopicFault::SingleLevel));
        assert_eq!(validate_filter(""), Err(TopicFault::Empty));
        assert_eq!(validate_filter("a\0"), Err(TopicFault::Null));
    }

    #[test]
    fn shared_filters_are_split_and_need_a_name_and_a_filter() {
        assert_eq!(
            validate_filter("$share/line7/plant/+/temp"),
            Ok(TopicFilter { share_name: Some("line7"), filter: "plant/+/temp" })
        );
        assert_eq!(validate_filter("$share/g//a"), Ok(TopicFilter { share_name: Some("g"), filter: "/a" }));
        for filter in ["$share", "$share/", "$share/g", "$share/g/", "$share//a", "$share/g+/a", "$share/#/a"] {
            assert_eq!(validate_filter(filter), Err(TopicFault::ShareName), "{filter}");
        }
        assert_eq!(validate_filter("$share/g/a#"), Err(TopicFault::MultiLevel));
        assert!(validate_filter("$shared/a").is_ok());
    }
}
