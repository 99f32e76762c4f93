//! `when`, made ready to be held against requests.

use std::cell::OnceCell;
use std::fmt;

use super::ask::{Ask, Link, Need, Needs, Reach};
use super::config::When;
use super::language::{LOOK_BYTES, guess_language, looks_like_code};
use super::pattern::Pattern;

/// The condition that did not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmet {
    /// `operations`.
    Operation,
    /// `tenants`.
    Tenant,
    /// `tags` or `tags_none`.
    Tags,
    /// `tasks`.
    Task,
    /// `languages`; what was guessed.
    Language(Option<&'static str>),
    /// `words`.
    Words,
    /// `prompt_tokens_min` or `prompt_tokens_max`; the estimate.
    Length(Option<u64>),
    /// `needs`: the first that the request does not have.
    NoNeed(Need),
    /// `needs_none`: the first that it has.
    Need(Need),
    /// `stream`.
    Stream,
    /// `links`.
    Link(Link),
    /// `reach`.
    Reach(Reach),
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operation => f.write_str("it is not for this operation"),
            Self::Tenant => f.write_str("it is not for this tenant"),
            Self::Tags => f.write_str("it is not for these tags"),
            Self::Task => f.write_str("it is not for this task"),
            Self::Language(Some(language)) => write!(f, "it is not for the language {language}"),
            Self::Language(None) => f.write_str("the language is not clear"),
            Self::Words => f.write_str("none of its words is in the text"),
            Self::Length(Some(tokens)) => write!(f, "it is not for {tokens} tokens of prompt"),
            Self::Length(None) => f.write_str("the length of the prompt is not known"),
            Self::NoNeed(need) => write!(f, "it is for requests with {}", need.as_str()),
            Self::Need(need) => write!(f, "it is not for requests with {}", need.as_str()),
            Self::Stream => f.write_str("it is not for this manner of answer"),
            Self::Link(link) => write!(f, "it is not for a link that is {link}"),
            Self::Reach(reach) => write!(f, "it is not for what may go to the {reach}"),
        }
    }
}

/// A request with what was found out about it, once for all conditions.
#[derive(Debug)]
pub(super) struct Glance<'a> {
    pub(super) ask: &'a Ask<'a>,
    language: OnceCell<Option<&'static str>>,
    code: OnceCell<bool>,
}

impl<'a> Glance<'a> {
    pub(super) fn new(ask: &'a Ask<'a>) -> Self {
        Self { ask, language: OnceCell::new(), code: OnceCell::new() }
    }

    fn language(&self) -> Option<&'static str> {
        *self.language.get_or_init(|| guess_language(self.ask.text))
    }

    fn is_task(&self, task: &str) -> bool {
        match self.ask.task {
            Some(said) => said == task,
            None => task == "code" && *self.code.get_or_init(|| looks_like_code(self.ask.text)),
        }
    }
}

/// Conditions, all of which must hold.
#[derive(Debug, Clone)]
pub(super) struct Conditions {
    when: When,
    tenants: Vec<Pattern>,
    needs: Needs,
    needs_none: Needs,
    /// None at all, which is what most candidates have.
    none: bool,
}

impl Conditions {
    /// The sentence says what is wrong with a tenant.
    pub(super) fn new(when: &When) -> Result<Self, String> {
        Ok(Self {
            tenants: when.tenants.iter().map(|tenant| Pattern::new(tenant)).collect::<Result<_, _>>()?,
            needs: when.needs.iter().copied().collect(),
            needs_none: when.needs_none.iter().copied().collect(),
            none: *when == When::default(),
            when: When { words: when.words.iter().map(|word| word.to_ascii_lowercase()).collect(), ..when.clone() },
        })
    }

    /// The first that does not hold; what costs least is looked at first.
    pub(super) fn unmet(&self, glance: &Glance<'_>) -> Option<Unmet> {
        if self.none {
            return None;
        }
        let (when, ask) = (&self.when, glance.ask);
        let one_of = |list: &[String], text: &str| list.is_empty() || list.iter().any(|entry| entry == text);
        if !one_of(&when.operations, ask.operation) {
            return Some(Unmet::Operation);
        }
        if when.stream.is_some_and(|stream| stream != ask.stream) {
            return Some(Unmet::Stream);
        }
        if !when.links.is_empty() && !when.links.contains(&ask.link) {
            return Some(Unmet::Link(ask.link));
        }
        if !when.reach.is_empty() && !when.reach.contains(&ask.reach) {
            return Some(Unmet::Reach(ask.reach));
        }
        if let Some(need) = ask.needs.lacks_of(self.needs) {
            return Some(Unmet::NoNeed(need));
        }
        if let Some(need) = ask.needs.first_of_both(self.needs_none) {
            return Some(Unmet::Need(need));
        }
        if !self.is_long_enough(ask.prompt_tokens) {
            return Some(Unmet::Length(ask.prompt_tokens));
        }
        if !self.tenants.is_empty() && !self.tenants.iter().any(|tenant| tenant.matches(ask.tenant)) {
            return Some(Unmet::Tenant);
        }
        let tagged = |tags: &[String]| tags.iter().any(|tag| ask.tags.contains(&tag.as_str()));
        if (!when.tags.is_empty() && !tagged(&when.tags)) || tagged(&when.tags_none) {
            return Some(Unmet::Tags);
        }
        if !when.tasks.is_empty() && !when.tasks.iter().any(|task| glance.is_task(task)) {
            return Some(Unmet::Task);
        }
        if !when.languages.is_empty() {
            let language = glance.language();
            if !language.is_some_and(|language| when.languages.iter().any(|one| one == language)) {
                return Some(Unmet::Language(language));
            }
        }
        (!when.words.is_empty() && !has_word(ask.text, &when.words)).then_some(Unmet::Words)
    }

    fn is_long_enough(&self, tokens: Option<u64>) -> bool {
        let (least, most) = (self.when.prompt_tokens_min, self.when.prompt_tokens_max);
        match tokens {
            Some(tokens) => least.is_none_or(|least| tokens >= least) && most.is_none_or(|most| tokens <= most),
            None => least.is_none() && most.is_none(),
        }
    }
}

/// Whether one of `words`, in lower case, is at the beginning of `text`.
fn has_word(text: &str, words: &[String]) -> bool {
    let text = &text.as_bytes()[..text.len().min(LOOK_BYTES)];
    let mut lower = [0_u8; LOOK_BYTES];
    let lower = &mut lower[..text.len()];
    lower.copy_from_slice(text);
    lower.make_ascii_lowercase();
    words.iter().any(|word| memchr::memmem::find(lower, word.as_bytes()).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unmet(when: &str, ask: &Ask<'_>) -> Option<Unmet> {
        Conditions::new(&toml::from_str(when).unwrap()).unwrap().unmet(&Glance::new(ask))
    }

    #[test]
    fn each_condition_holds_for_what_it_names_and_for_nothing_else() {
        let needs: Needs = [Need::Tools].into_iter().collect();
        let ask = Ask {
            tenant: "plant-7",
            tags: &["line-3", "night"],
            task: Some("translate"),
            text: "Wie hoch ist die Temperatur, und was ist mit der PRESSE?",
            prompt_tokens: Some(500),
            needs,
            stream: true,
            link: Link::Metered,
            reach: Reach::Site,
            ..Ask::new("m", "chat", 0)
        };
        let cases = [
            ("operations = ['chat']", None),
            ("operations = ['embedding', 'completion']", Some(Unmet::Operation)),
            ("tenants = ['plant-*']", None),
            ("tenants = ['office']", Some(Unmet::Tenant)),
            ("tags = ['day', 'night']", None),
            ("tags = ['day']", Some(Unmet::Tags)),
            ("tags_none = ['day']", None),
            ("tags_none = ['night']", Some(Unmet::Tags)),
            ("tasks = ['code', 'translate']", None),
            ("tasks = ['code']", Some(Unmet::Task)),
            ("languages = ['en', 'de']", None),
            ("languages = ['en']", Some(Unmet::Language(Some("de")))),
            ("words = ['Presse']", None),
            ("words = ['pump']", Some(Unmet::Words)),
            ("prompt_tokens_min = 500", None),
            ("prompt_tokens_min = 501", Some(Unmet::Length(Some(500)))),
            ("prompt_tokens_max = 500", None),
            ("prompt_tokens_max = 499", Some(Unmet::Length(Some(500)))),
            ("needs = ['tools']", None),
            ("needs = ['tools', 'images']", Some(Unmet::NoNeed(Need::Images))),
            ("needs_none = ['images']", None),
            ("needs_none = ['tools']", Some(Unmet::Need(Need::Tools))),
            ("stream = true", None),
            ("stream = false", Some(Unmet::Stream)),
            ("links = ['metered', 'down']", None),
            ("links = ['up']", Some(Unmet::Link(Link::Metered))),
            ("reach = ['box', 'site']", None),
            ("reach = ['box']", Some(Unmet::Reach(Reach::Site))),
        ];
        for (when, expected) in cases {
            assert_eq!(unmet(when, &ask), expected, "{when}");
            if let Some(expected) = expected {
                assert!(!expected.to_string().is_empty());
            }
        }
        let all: Vec<_> = cases.iter().filter(|(_, unmet)| unmet.is_none()).map(|(when, _)| *when).collect();
        // One key once: `prompt_tokens_max` and `tags_none` are others.
        assert_eq!(unmet(&all.join("\n"), &ask), None, "all together");
    }

    #[test]
    fn what_is_unknown_meets_no_condition_about_it() {
        let ask = Ask::new("m", "chat", 0);
        assert_eq!(unmet("prompt_tokens_max = 100", &ask), Some(Unmet::Length(None)));
        assert_eq!(unmet("languages = ['en']", &ask), Some(Unmet::Language(None)));
        assert_eq!(unmet("tasks = ['code']", &ask), Some(Unmet::Task));
        assert_eq!(unmet("", &ask), None);
    }

    #[test]
    fn code_is_guessed_only_where_nobody_said_a_task() {
        let text = "Fix this:\n```\nx\n```";
        assert_eq!(unmet("tasks = ['code']", &Ask { text, ..Ask::new("m", "chat", 0) }), None);
        let said = Ask { text, task: Some("summarise"), ..Ask::new("m", "chat", 0) };
        assert_eq!(unmet("tasks = ['code']", &said), Some(Unmet::Task));
    }

    #[test]
    fn words_are_looked_for_at_the_beginning_only() {
        let far = format!("{}pump", "x".repeat(LOOK_BYTES));
        assert!(!has_word(&far, &["pump".to_owned()]));
        assert!(has_word(&far[4..], &["pump".to_owned()]));
        assert!(!has_word("", &["pump".to_owned()]));
    }
}
