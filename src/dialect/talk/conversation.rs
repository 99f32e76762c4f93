//! A request to a model that talks, as its caller wrote it: borrowed pieces in the order of the body.
//!
//! No dialect is made to fit another one here: a piece keeps all that its dialect says of it, and whoever writes the
//! request of another dialect takes what that one can say, leaves out what only advises, and refuses the rest.

use std::borrow::Cow;

use crate::dialect::json::{Members, Raw};
use crate::dialect::{Dialect, Error};

/// A whole request.
#[derive(Debug, Default)]
pub(crate) struct Conversation<'a> {
    /// Instructions, wherever they stood.
    pub(crate) system: Vec<Part<'a>>,
    pub(crate) turns: Vec<Turn<'a>>,
    pub(crate) tools: Vec<Tool<'a>>,
    pub(crate) choice: Option<Choice<'a>>,
    /// Whether several calls at once are allowed.
    pub(crate) parallel: Option<bool>,
    pub(crate) settings: Settings<'a>,
    /// What no other dialect can say and would change the form of the answer: paths and what would work.
    pub(crate) impossible: Vec<(&'static str, &'static str)>,
    /// Members that nobody here knows: they pass through.
    pub(crate) unknown: Vec<(Cow<'a, str>, Raw<'a>)>,
    /// Members that only advise and that nobody else knows.
    pub(crate) left_out: Vec<String>,
}

/// What one side said, until the other one spoke.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    /// Whether the model said it.
    pub(crate) model: bool,
    pub(crate) parts: Vec<Part<'a>>,
}

/// One piece. Texts are between their quotes, escaped as they were.
#[derive(Debug)]
pub(crate) enum Part<'a> {
    Text {
        text: &'a str,
        /// Gemini's mark of what the model thought before it.
        signature: Option<Cow<'a, str>>,
    },
    Media(Media<'a>),
    Thought {
        text: Cow<'a, str>,
        /// Anthropic's proof that the model thought so.
        signature: Option<Cow<'a, str>>,
    },
    /// A thought that only its model's provider can read.
    Redacted(&'a str),
    Call(Call<'a>),
    Result(Answered<'a>),
    /// Everything up to here shall be cached by the provider; its time to live, if it is said.
    CachePoint(Option<Cow<'a, str>>),
}

/// A picture, a recording or a document.
#[derive(Debug)]
pub(crate) struct Media<'a> {
    pub(crate) mime: Cow<'a, str>,
    pub(crate) source: Source<'a>,
    /// A document's name.
    pub(crate) name: Option<Cow<'a, str>>,
    /// Where it stood in the body.
    pub(crate) field: String,
}

#[derive(Debug)]
pub(crate) enum Source<'a> {
    /// Base64.
    Data(Cow<'a, str>),
    Url(Cow<'a, str>),
    /// The text of a document.
    Text(&'a str),
}

/// A call of a tool.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) id: Option<Cow<'a, str>>,
    pub(crate) name: Cow<'a, str>,
    /// A JSON object.
    pub(crate) arguments: Cow<'a, str>,
    pub(crate) signature: Option<Cow<'a, str>>,
}

/// What a tool answered.
#[derive(Debug)]
pub(crate) struct Answered<'a> {
    pub(crate) id: Option<Cow<'a, str>>,
    pub(crate) name: Option<Cow<'a, str>>,
    pub(crate) content: Content<'a>,
    pub(crate) failed: bool,
    /// Where it stood in the body.
    pub(crate) field: String,
}

#[derive(Debug)]
pub(crate) enum Content<'a> {
    Parts(Vec<Part<'a>>),
    /// An object, as Gemini has it.
    Object(Raw<'a>),
}

/// A tool that is offered.
#[derive(Debug)]
pub(crate) struct Tool<'a> {
    pub(crate) name: Cow<'a, str>,
    /// Between its quotes.
    pub(crate) description: Option<&'a str>,
    pub(crate) schema: Option<Schema<'a>>,
    pub(crate) strict: Option<bool>,
}

/// The form of arguments or of an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Schema<'a> {
    /// JSON Schema.
    Json(Raw<'a>),
    /// Google's subset of OpenAPI, with types in capital letters.
    OpenApi(Raw<'a>),
}

#[derive(Debug)]
pub(crate) enum Choice<'a> {
    Auto,
    /// Some tool must be called.
    Any,
    None,
    Named(Cow<'a, str>),
}

/// How the answer shall be made.
#[derive(Debug, Default)]
pub(crate) struct Settings<'a> {
    pub(crate) output_tokens_max: Option<u64>,
    pub(crate) temperature: Option<Raw<'a>>,
    pub(crate) top_p: Option<Raw<'a>>,
    pub(crate) top_k: Option<Raw<'a>>,
    pub(crate) min_p: Option<Raw<'a>>,
    pub(crate) seed: Option<Raw<'a>>,
    pub(crate) frequency_penalty: Option<Raw<'a>>,
    pub(crate) presence_penalty: Option<Raw<'a>>,
    /// Strings.
    pub(crate) stop: Vec<Raw<'a>>,
    pub(crate) format: Format<'a>,
    pub(crate) thinking: Option<Thinking<'a>>,
    pub(crate) user: Option<Cow<'a, str>>,
    pub(crate) service_tier: Option<Cow<'a, str>>,
}

#[derive(Debug, Default)]
pub(crate) enum Format<'a> {
    #[default]
    Text,
    /// Any JSON.
    Json,
    Schema {
        name: Option<Cow<'a, str>>,
        schema: Schema<'a>,
        strict: Option<bool>,
    },
}

/// How much the model shall think before it answers.
#[derive(Debug)]
pub(crate) enum Thinking<'a> {
    Off,
    /// As much as it likes.
    Adaptive,
    Tokens(u64),
    /// OpenAI's words: minimal, low, medium, high, xhigh.
    Effort(Cow<'a, str>),
}

impl Part<'_> {
    /// Claude's signature, if it is a thought and Claude signed it: Google's goes with the thoughts of some callers, and
    /// Claude refuses what it did not sign.
    pub(crate) fn claudes_signature(&self) -> Option<&str> {
        match self {
            Self::Thought { signature, .. } => {
                signature.as_deref().filter(|signature| !signature.starts_with(super::SIGNATURE_MARK))
            }
            _ => None,
        }
    }
}

impl<'a> Conversation<'a> {
    /// Keeps the members that are not among those that the dialect has.
    pub(crate) fn pass_through(&mut self, request: &Members<'a>, known: &[&str]) {
        let unknown = request.iter().filter(|(name, raw)| raw.get() != "null" && !known.contains(name));
        self.unknown.extend(unknown.map(|(name, raw)| (Cow::Owned(name.to_owned()), raw)));
    }

    /// Appends a piece to the turn of that side.
    pub(crate) fn say(&mut self, model: bool, part: Part<'a>) {
        match self.turns.last_mut() {
            Some(turn) if turn.model == model => turn.parts.push(part),
            _ => self.turns.push(Turn { model, parts: vec![part] }),
        }
    }

    /// Where dialects have neither ids nor names: calls get ids, and each result goes to the first call without one that
    /// has its name, or to the first at all.
    pub(crate) fn name_calls(&mut self) {
        let mut waiting: Vec<(String, String)> = Vec::new();
        let mut calls = 0;
        for part in self.turns.iter_mut().flat_map(|turn| &mut turn.parts) {
            match part {
                Part::Call(call) => {
                    let id = call.id.get_or_insert_with(|| Cow::Owned(format!("call_{calls}")));
                    waiting.push((id.clone().into_owned(), call.name.clone().into_owned()));
                    calls += 1;
                }
                Part::Result(result) => {
                    let fits = |(id, name): &(String, String)| match (&result.id, &result.name) {
                        (Some(wanted), _) => id == wanted,
                        (None, Some(wanted)) => name == wanted,
                        (None, None) => true,
                    };
                    if let Some(at) = waiting.iter().position(fits) {
                        let (id, name) = waiting.remove(at);
                        result.id.get_or_insert(Cow::Owned(id));
                        result.name.get_or_insert(Cow::Owned(name));
                    }
                }
                _ => {}
            }
        }
    }

    /// Instructions alone become what the user says: most dialects want a turn.
    pub(crate) fn with_a_turn(&mut self) {
        if self.turns.is_empty() && !self.system.is_empty() {
            self.turns.push(Turn { model: false, parts: std::mem::take(&mut self.system) });
        }
    }

    /// Notes members that `to` has no word for, if they were given.
    pub(crate) fn leave_out(&mut self, given: &[(bool, &str)]) {
        self.left_out.extend(given.iter().filter(|(given, _)| *given).map(|(_, name)| (*name).to_owned()));
    }

    /// The name of the call with that id: some dialects want it beside the result.
    pub(crate) fn name_of(&self, id: &str) -> Option<&str> {
        self.turns.iter().flat_map(|turn| &turn.parts).find_map(|part| match part {
            Part::Call(call) if call.id.as_deref() == Some(id) => Some(&*call.name),
            _ => None,
        })
    }

    /// Refuses what `to` cannot say and what would change the form of the answer.
    pub(crate) fn possible(&self, to: Dialect) -> Result<(), Error> {
        match self.impossible.first() {
            Some(&(field, why)) => Err(Error::Unsupported { field: field.to_owned(), to, why }),
            None => Ok(()),
        }
    }
}

impl Thinking<'_> {
    /// As tokens, for providers that count them: 1,024 is the least that Anthropic takes, the others are those of
    /// Google's OpenAI-compatible API.
    pub(crate) fn tokens(&self) -> Option<u64> {
        match self {
            Self::Off => None,
            Self::Adaptive => Some(8_192),
            Self::Tokens(tokens) => Some(*tokens),
            Self::Effort(effort) => Some(match &**effort {
                "minimal" | "low" => 1_024,
                "medium" => 8_192,
                _ => 24_576,
            }),
        }
    }

    /// As one of OpenAI's words, if it says how much.
    pub(crate) fn effort(&self) -> Option<&str> {
        match self {
            Self::Off | Self::Adaptive => None,
            Self::Tokens(tokens) => Some(match tokens {
                0..=2_048 => "low",
                2_049..=12_288 => "medium",
                _ => "high",
            }),
            Self::Effort(effort) => Some(match &**effort {
                "max" => "high",
                effort => effort,
            }),
        }
    }
}

/// The text of a result, joined: for dialects whose results are one text. `None` if something in it is no text.
pub(crate) fn joined(content: &Content<'_>) -> Option<String> {
    match content {
        Content::Object(object) => Some(escape(object.get())),
        Content::Parts(parts) => {
            let mut all = String::new();
            for part in parts {
                let Part::Text { text, .. } = part else { return None };
                if !all.is_empty() && !text.is_empty() {
                    all.push_str("\\n");
                }
                all.push_str(text);
            }
            Some(all)
        }
    }
}

/// `text` as it stands between the quotes of a JSON string.
pub(crate) fn escape(text: &str) -> String {
    let mut quoted = serde_json::to_string(text).expect("a text is a JSON string");
    quoted.pop();
    quoted.remove(0);
    quoted
}
