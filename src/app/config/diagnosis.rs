//! What is wrong in a configuration file, where, and what would be right.

use std::fmt;
use std::ops::Range;

use crate::provider::looks_like_key;

/// One finding, with the place it points at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// File name as the user gave it.
    pub file: String,
    /// Line and column from 1; absent when the finding has no place in the file.
    pub place: Option<(usize, usize)>,
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub hint: Option<String>,
    /// The line itself and the width to underline.
    excerpt: Option<Box<(String, usize)>>,
}

impl Diagnosis {
    /// A finding about bytes `span` of `text`.
    pub fn at(file: &str, text: &str, span: Range<usize>, message: &str, hint: Option<String>) -> Self {
        let start = span.start.min(text.len());
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let line = text[..line_start].matches('\n').count() + 1;
        let column = text[line_start..start].chars().count() + 1;
        let underlined = text[start..span.end.clamp(start, line_end)].chars().count().max(1);
        let excerpt = Some(Box::new((concealed(&text[line_start..line_end]), underlined)));
        Self { file: file.to_owned(), place: Some((line, column)), message: concealed(message), hint, excerpt }
    }

    /// A finding without a place.
    pub fn whole(file: &str, message: String, hint: Option<String>) -> Self {
        Self { file: file.to_owned(), place: None, message, hint, excerpt: None }
    }

    /// What `toml` says of `text`, with a suggestion where a name was misspelt.
    pub fn of_toml(file: &str, text: &str, error: &toml::de::Error) -> Self {
        let message = error.message().trim().to_owned();
        let hint = suggestion(&message);
        match error.span() {
            Some(span) => Self::at(file, text, span, &message, hint),
            None => Self::whole(file, message, hint),
        }
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some((line, column)) => write!(f, "{}:{line}:{column}: {}", self.file, self.message)?,
            None => write!(f, "{}: {}", self.file, self.message)?,
        }
        if let (Some((line, column)), Some(excerpt)) = (self.place, &self.excerpt) {
            let (text, width) = &**excerpt;
            let number = line.to_string();
            let margin = " ".repeat(number.len());
            let indent = " ".repeat(column - 1);
            write!(f, "\n {number} | {text}\n {margin} | {indent}{}", "^".repeat(*width))?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

/// Names of settings that somebody gave a key.
const SECRETS: [&str; 5] = ["key", "token", "secret", "password", "authorization"];

fn names_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // Files and digests of keys are no keys, and neither are files of tokens of text.
    SECRETS.iter().any(|secret| name.contains(secret))
        && !["_file", "_sha256", "sticky", "tokenizer"].iter().any(|end| name.contains(end))
}

/// A line without the keys in it, each character a star, so that what is underlined stays where it is.
fn concealed(line: &str) -> String {
    let mut parts: Vec<String> = line.split('"').map(str::to_owned).collect();
    for at in (1..parts.len()).step_by(2) {
        let before = parts[at - 1].trim_end();
        let name = before
            .strip_suffix('=')
            .map_or("", |rest| rest.trim_end().rsplit([' ', '{', ',', '.']).next().unwrap_or(""));
        let hidden = match parts[at].split_once("://") {
            _ if names_secret(name) || looks_like_key(&parts[at]) => 0..parts[at].len(),
            // What an address has before its host and behind its path opens something.
            Some((scheme, rest)) => {
                let start = scheme.len() + "://".len();
                let end = rest.find('@').map_or(start, |user| start + user);
                if end > start { start..end } else { parts[at].find('?').unwrap_or(parts[at].len())..parts[at].len() }
            }
            None => continue,
        };
        let stars = "*".repeat(parts[at][hidden.clone()].chars().count());
        parts[at].replace_range(hidden, &stars);
    }
    parts.join("\"")
}

/// What would be right. For "unknown field `x`, expected one of `a`, `b`": the nearest name, if one is near.
fn suggestion(message: &str) -> Option<String> {
    if message.contains("invalid socket address") {
        return Some("write ADDRESS:PORT, such as \"127.0.0.1:8080\"".to_owned());
    }
    if message.starts_with("invalid type: string") {
        if message.ends_with("expected a sequence") {
            return Some("write it in brackets: [\"...\"]".to_owned());
        }
        if message.contains("expected u") || message.contains("expected i") || message.contains("expected f") {
            return Some("write a number, without quotes; a setting's name says its unit".to_owned());
        }
        if message.ends_with("expected a boolean") {
            return Some("write true or false, without quotes".to_owned());
        }
    }
    if message == "invalid type: map, expected a sequence" {
        return Some("there may be several: write its name in double brackets, as in [[route]]".to_owned());
    }
    if !message.starts_with("unknown field") && !message.starts_with("unknown variant") {
        return None;
    }
    let mut quoted = message.split('`').skip(1).step_by(2);
    let given = quoted.next()?;
    if names_secret(given) && message.contains("`key_file`") {
        return Some("a key never stands in here: write it into a file and name that with `key_file`".to_owned());
    }
    nearest(given, quoted).map(|name| format!("did you mean `{name}`?"))
}

/// The candidate most like `given`, if any is like it at all.
pub fn nearest<'a>(given: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let likeness = |name: &&str| strsim::jaro_winkler(given, name);
    candidates.into_iter().filter(|name| likeness(name) > 0.75).max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[allow(dead_code, reason = "only parsed")]
        queue_rows: u32,
    }

    fn diagnose(text: &str) -> String {
        let error = toml::from_str::<Sample>(text).unwrap_err();
        Diagnosis::of_toml("box.toml", text, &error).to_string()
    }

    #[test]
    fn a_misspelt_key_is_shown_with_its_place_and_the_right_name() {
        let said = diagnose("# the queue\nqueue_row = 3\n");
        assert!(said.starts_with("box.toml:2:1: unknown field `queue_row`"), "{said}");
        assert!(said.contains(" 2 | queue_row = 3\n   | ^^^^^^^^^\n"), "{said}");
        assert!(said.ends_with("did you mean `queue_rows`?"), "{said}");
    }

    #[test]
    fn a_wrong_type_points_at_the_value() {
        let said = diagnose("queue_rows = \"many\"\n");
        assert!(said.starts_with("box.toml:1:14: invalid type: string \"many\", expected u32"), "{said}");
    }

    #[test]
    fn a_key_that_stands_in_the_file_is_not_repeated() {
        for (line, shown) in [
            ("api_key = \"hunter2\"", "api_key = \"*******\""),
            ("a = { token = \"hunter2\", b = \"c\" }", "a = { token = \"*******\", b = \"c\" }"),
            ("name = \"sk-0123456789ab\"", "name = \"***************\""),
            ("key_file = \"/etc/forebay/a.key\"", "key_file = \"/etc/forebay/a.key\""),
            ("url = \"https://a/v1?token=b\"", "url = \"https://a/v1********\""),
            ("url = \"https://me:word@a/v1\"", "url = \"https://*******@a/v1\""),
            ("url = \"https://a/v1\"", "url = \"https://a/v1\""),
            ("name = \"unclosed", "name = \"unclosed"),
        ] {
            assert_eq!(concealed(line), shown);
        }
    }

    #[test]
    fn a_number_in_quotes_and_a_section_of_which_there_are_several_are_explained() {
        let said = |text: &str| suggestion(text).unwrap();
        assert!(said("invalid type: string \"60\", expected u64").contains("without quotes"));
        assert!(said("invalid type: string \"x\", expected a sequence").contains("brackets"));
        assert!(said("invalid type: map, expected a sequence").contains("[[route]]"));
    }

    #[test]
    fn a_torn_file_says_where_it_tears() {
        let said = diagnose("queue_rows = ");
        assert!(said.starts_with("box.toml:1:"), "{said}");
    }
}
