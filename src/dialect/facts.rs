//! What must be known of a request before it is sent anywhere, read in one pass and borrowed from the body.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::count::{TOKENS_PER_FILE, TOKENS_PER_IMAGE, TOKENS_PER_MESSAGE, TextCount};
use super::json::{self, Members, Sort, sort};
use super::turn::List;
use super::walk::Walk;
use super::{Dialect, Error, Operation, interactions, wants};

/// The facts of one request.
///
/// A member that decides something (the model, whether it streams, the limit of tokens) may stand in the body once: two
/// of them could be read differently here and by the model's server.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// The caller's dialect.
    pub dialect: Dialect,
    /// What is asked for.
    pub operation: Operation,
    /// The model's name; `None` where the dialect has it in the path.
    pub model: Option<Cow<'a, str>>,
    /// Whether the caller wants a stream.
    pub stream: bool,
    /// Whether the caller wants the usage at the end of an OpenAI stream.
    pub include_usage: bool,
    /// The most tokens that the answer may have, as the caller says.
    pub output_tokens_max: Option<u64>,
    /// How many answers are asked for (`n`).
    pub answers: u64,
    /// Messages, inputs or prompts.
    pub messages: u64,
    /// Tools that are offered.
    pub tools: u64,
    /// Pictures that are shown.
    pub images: u64,
    /// Recordings that are played to it.
    pub audio: u64,
    /// Documents and films.
    pub files: u64,
    /// What tools said, whether or not tools are offered now.
    pub tool_results: u64,
    /// Characters of text, those of tools and instructions among them.
    pub characters: u64,
    /// Whether the answer must be JSON.
    pub structured: bool,
    /// Whether the answer shall be sound.
    pub speaks: bool,
    /// Whether the model is asked to reason.
    pub reasoning: bool,
    /// Whether log probabilities are asked for.
    pub logprobs: bool,
    /// The caller's own name for its user.
    pub user: Option<Cow<'a, str>>,
    /// The tier of service that is asked for, in the dialect's word.
    pub service_tier: Option<Cow<'a, str>>,
    /// The last text of the user: of the last turn of the user's that has one, wherever it stands in the body; never an
    /// instruction's, a model's or a tool's. Of one with escapes at most 1,024 bytes. For a guess at its language.
    pub last_text: Option<Cow<'a, str>>,
    /// Where the model's name stands in the body, quotes included.
    pub(crate) model_at: Option<Range<usize>>,
    /// Where the value of `stream_options` stands.
    pub(crate) stream_options_at: Option<Range<usize>>,
    /// Where the first member begins.
    pub(crate) members_at: usize,
    /// Text that counts as tokens.
    pub(crate) text: TextCount,
}

impl<'a> Facts<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// It is no JSON object, a member of it has a wrong type or stands there twice, or the model is missing where the
    /// dialect wants it in the body.
    pub fn read(dialect: Dialect, operation: Operation, body: &'a [u8]) -> Result<Self, Error> {
        let mut facts = Self {
            dialect,
            operation,
            model: None,
            stream: matches!(dialect, Dialect::Ollama) && matches!(operation, Operation::Chat | Operation::Completions),
            include_usage: false,
            output_tokens_max: None,
            answers: 1,
            messages: 0,
            tools: 0,
            images: 0,
            audio: 0,
            files: 0,
            tool_results: 0,
            characters: 0,
            structured: false,
            speaks: false,
            reasoning: false,
            logprobs: false,
            user: None,
            service_tier: None,
            last_text: None,
            model_at: None,
            stream_options_at: None,
            members_at: memchr::memchr(b'{', body).map_or(0, |at| at + 1),
            text: TextCount::default(),
        };
        let mut found = Found { facts: &mut facts, body, seen: 0, wrong: None };
        let mut input = serde_json::Deserializer::from_slice(body);
        let read = (&mut found).deserialize(&mut input).and_then(|()| input.end());
        if let Some(wrong) = found.wrong {
            return Err(wrong);
        }
        read.map_err(|error| Error::request(&error))?;
        facts.characters = facts.text.characters();
        if facts.model.is_none() && !matches!(dialect, Dialect::Gemini | Dialect::Bedrock) {
            return Err(Error::Missing { field: "model" });
        }
        Ok(facts)
    }

    /// How many tokens the request has, estimated: text by its characters, and a flat number for each picture,
    /// recording and document.
    pub fn input_tokens_estimated(&self) -> u64 {
        self.text
            .tokens()
            .saturating_add(self.messages.saturating_mul(TOKENS_PER_MESSAGE))
            .saturating_add(self.images.saturating_mul(TOKENS_PER_IMAGE))
            .saturating_add(self.audio.saturating_add(self.files).saturating_mul(TOKENS_PER_FILE))
    }
}

/// What a member of the top level means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Model,
    Stream,
    StreamOptions,
    OutputTokensMax,
    Answers,
    /// A list whose elements count as messages.
    Messages,
    /// Text that is part of the prompt.
    Text,
    Tools,
    Format,
    User,
    Settings,
    ServiceTier,
    /// Pictures beside the prompt.
    Images,
    Reasoning,
    Logprobs,
    /// What the answer is made of.
    Modalities,
    /// Somebody else than a model shall answer.
    Agent,
}

impl Meaning {
    /// Whether it only adds to what a model must be able to do: several members may say the same, and two of them do no harm.
    fn only_adds(self) -> bool {
        matches!(self, Self::Reasoning | Self::Logprobs | Self::Modalities)
    }
}

fn meaning(dialect: Dialect, operation: Operation, key: &str) -> Option<Meaning> {
    use Meaning as M;
    // Others have it in the path.
    let in_body = !matches!(dialect, Dialect::Gemini | Dialect::Bedrock | Dialect::Oip);
    Some(match (dialect, key) {
        (_, "model") if in_body => M::Model,
        (_, "stream") if in_body => M::Stream,
        (_, "tools") if in_body || dialect == Dialect::Gemini => M::Tools,
        (Dialect::Chat, "stream_options") => M::StreamOptions,
        (Dialect::Chat, "max_tokens" | "max_completion_tokens") => M::OutputTokensMax,
        (Dialect::Responses, "max_output_tokens") => M::OutputTokensMax,
        (Dialect::Anthropic, "max_tokens") => M::OutputTokensMax,
        (Dialect::Chat, "n") => M::Answers,
        (Dialect::Chat | Dialect::Anthropic | Dialect::Ollama | Dialect::Bedrock, "messages") => M::Messages,
        (Dialect::Gemini, "contents" | "content" | "requests") => M::Messages,
        (Dialect::Chat | Dialect::Responses | Dialect::Interactions | Dialect::Ollama, "input") => M::Messages,
        (Dialect::Chat | Dialect::Ollama, "prompt") if operation != Operation::Chat => M::Messages,
        (Dialect::Ollama, "images") => M::Images,
        (Dialect::Chat, "reasoning" | "reasoning_effort" | "thinking")
        | (Dialect::Responses, "reasoning")
        | (Dialect::Anthropic, "thinking")
        | (Dialect::Ollama, "think") => M::Reasoning,
        (Dialect::Chat | Dialect::Ollama, "logprobs" | "top_logprobs")
        | (Dialect::Responses, "top_logprobs" | "include") => M::Logprobs,
        (Dialect::Chat, "modalities") | (Dialect::Interactions, "response_modalities") => M::Modalities,
        (Dialect::Responses, "instructions" | "prompt") => M::Text,
        (Dialect::Anthropic | Dialect::Bedrock | Dialect::Ollama, "system") => M::Text,
        (Dialect::Gemini, "systemInstruction") => M::Text,
        (Dialect::Gemini | Dialect::Interactions, "system_instruction") => M::Text,
        (Dialect::Chat, "suffix") => M::Text,
        (Dialect::Chat, "functions") | (Dialect::Bedrock, "toolConfig") => M::Tools,
        (Dialect::Chat, "response_format")
        | (Dialect::Responses, "text")
        | (Dialect::Anthropic, "output_config" | "output_format")
        | (Dialect::Interactions, "response_format" | "response_mime_type")
        | (Dialect::Ollama, "format") => M::Format,
        (Dialect::Chat | Dialect::Responses, "user") => M::User,
        (Dialect::Anthropic, "metadata") => M::User,
        (Dialect::Chat | Dialect::Responses | Dialect::Anthropic | Dialect::Interactions, "service_tier") => {
            M::ServiceTier
        }
        (Dialect::Interactions, "agent") => M::Agent,
        (Dialect::Gemini | Dialect::Interactions, "generation_config")
        | (Dialect::Gemini, "generationConfig")
        | (Dialect::Bedrock, "inferenceConfig")
        | (Dialect::Ollama, "options") => M::Settings,
        _ => return None,
    })
}

/// Reads the top level.
struct Found<'f, 'a> {
    facts: &'f mut Facts<'a>,
    body: &'a [u8],
    /// Bits of the meanings that were there.
    seen: u64,
    wrong: Option<Error>,
}

impl<'a> Found<'_, 'a> {
    /// Where a value of the body stands in it.
    fn place(&self, raw: &'a RawValue) -> Range<usize> {
        let from = raw.get().as_ptr().addr() - self.body.as_ptr().addr();
        from..from + raw.get().len()
    }

    fn member(&mut self, key: &str, meaning: Meaning, raw: &'a RawValue) -> Result<(), Error> {
        let wrong = |expected| Err(Error::field(key, expected));
        if raw.get() == "null" {
            return Ok(());
        }
        match meaning {
            Meaning::Model => {
                let Some(model) = json::text(raw).filter(|model| !model.is_empty()) else {
                    return wrong("must be the name of a model");
                };
                self.facts.model = Some(model);
                self.facts.model_at = Some(self.place(raw));
            }
            Meaning::Stream => match json::flag(raw) {
                Some(stream) => self.facts.stream = stream,
                None => return wrong("must be true or false"),
            },
            Meaning::StreamOptions => {
                let options = Members::of(raw, key)?;
                self.facts.include_usage = options.get("include_usage").and_then(json::flag).unwrap_or(false);
                self.facts.stream_options_at = Some(self.place(raw));
            }
            Meaning::OutputTokensMax => match json::whole(raw) {
                // Both of OpenAI's names may be there; the smaller one binds.
                Some(most) => {
                    let most = self.facts.output_tokens_max.map_or(most, |old| old.min(most));
                    self.facts.output_tokens_max = Some(most);
                }
                None => return wrong("must be a whole number that is not negative"),
            },
            Meaning::Answers => match json::whole(raw).filter(|answers| *answers > 0) {
                Some(answers) => self.facts.answers = answers,
                None => return wrong("must be a whole number above 0"),
            },
            Meaning::Format => self.facts.structured |= wants_json(self.facts.dialect, key, raw),
            Meaning::Agent => return wrong("must not be there: agents run on Google's own servers; name a `model`"),
            Meaning::User => {
                let user = match sort(raw) {
                    Sort::Object => Members::of(raw, key)?.text("user_id"),
                    _ => json::text(raw),
                };
                self.facts.user = user;
            }
            Meaning::ServiceTier => self.facts.service_tier = json::text(raw),
            Meaning::Settings => {
                let settings = Members::of(raw, key)?;
                for name in ["maxOutputTokens", "max_output_tokens", "maxTokens", "num_predict"] {
                    if let Some(most) = settings.get(name).and_then(json::whole) {
                        self.facts.output_tokens_max = Some(most);
                    }
                }
                if let Some(answers) = settings.get("candidateCount").and_then(json::whole) {
                    self.facts.answers = answers.max(1);
                }
                self.facts.structured |=
                    ["responseSchema", "responseJsonSchema"].iter().any(|name| settings.get(name).is_some());
                self.facts.reasoning |= wants::reasoning_settings(&settings);
                self.facts.logprobs |= wants::logprobs_settings(&settings);
                self.facts.speaks |= wants::sound_settings(&settings);
            }
            Meaning::Images => self.facts.images += json::lenient_elements(raw).len() as u64,
            Meaning::Reasoning => self.facts.reasoning |= wants::reasoning(raw),
            Meaning::Logprobs => self.facts.logprobs |= wants::logprobs(raw),
            Meaning::Modalities => self.facts.speaks |= wants::sound(raw),
            Meaning::Tools => {
                self.facts.text.add(raw.get());
                self.facts.tools += count_tools(raw, key)?;
            }
            Meaning::Messages | Meaning::Text => unreachable!("walked, not kept"),
        }
        Ok(())
    }
}

/// How many tools a member offers. Gemini and Bedrock wrap them once more.
fn count_tools(raw: &RawValue, key: &str) -> Result<u64, Error> {
    if sort(raw) == Sort::Object {
        return Ok(Members::of(raw, key)?.get("tools").map_or(0, |tools| json::lenient_elements(tools).len() as u64));
    }
    let mut tools = 0;
    for tool in json::elements(raw, key)? {
        let members = Members::lenient(tool);
        let declared = members.get("functionDeclarations").or_else(|| members.get("function_declarations"));
        tools += declared.map_or(1, |declared| json::lenient_elements(declared).len() as u64);
    }
    Ok(tools)
}

/// Whether a format of the answer is JSON.
fn wants_json(dialect: Dialect, key: &str, raw: &RawValue) -> bool {
    if dialect == Dialect::Interactions {
        let is_format = key == "response_format";
        let wanted = interactions::wanted(is_format.then_some(raw), (!is_format).then_some(raw));
        return matches!(wanted, interactions::Wanted::Json | interactions::Wanted::Schema(_));
    }
    if key == "format" {
        // Ollama: the word "json" or a schema.
        return json::says_something(raw) || sort(raw) == Sort::Object;
    }
    let members = Members::lenient(raw);
    let format = members.get("format").map(Members::lenient);
    format.as_ref().unwrap_or(&members).text("type").is_some_and(|kind| kind.starts_with("json"))
}

impl<'de> DeserializeSeed<'de> for &mut Found<'_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for &mut Found<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let (dialect, operation) = (self.facts.dialect, self.facts.operation);
        while let Some((key, meaning)) = map.next_key_seed(Meanings { dialect, operation })? {
            let Some(meaning) = meaning else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            // `max_tokens` and `max_completion_tokens`, `input` and `prompt` mean the same and are two members.
            let bit = 1_u64 << bit(meaning, &key);
            if self.seen & bit != 0 && !meaning.only_adds() {
                self.wrong = Some(Error::field(key, "must not be there twice"));
                return Err(A::Error::custom("twice"));
            }
            self.seen |= bit;
            match meaning {
                Meaning::Messages => map.next_value_seed(List(self.facts))?,
                Meaning::Text => map.next_value_seed(Walk::beside(self.facts))?,
                _ => {
                    let raw: &'de RawValue = map.next_value()?;
                    if let Err(wrong) = self.member(&key, meaning, raw) {
                        self.wrong = Some(wrong);
                        return Err(A::Error::custom("wrong"));
                    }
                }
            }
        }
        Ok(())
    }
}

fn bit(meaning: Meaning, key: &str) -> u32 {
    let which = match key {
        "max_completion_tokens"
        | "suffix"
        | "prompt"
        | "functions"
        | "system_instruction"
        | "output_format"
        | "response_mime_type"
        | "generation_config" => 1,
        _ => 0,
    };
    meaning as u32 * 3 + which
}

/// Reads a key of the top level with its meaning; only one with a meaning is kept.
struct Meanings {
    dialect: Dialect,
    operation: Operation,
}

impl<'de> DeserializeSeed<'de> for Meanings {
    type Value = (String, Option<Meaning>);
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Meanings {
    type Value = (String, Option<Meaning>);
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        let meaning = meaning(self.dialect, self.operation, key);
        Ok((if meaning.is_some() { key.to_owned() } else { String::new() }, meaning))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(body: &str) -> Result<Facts<'_>, Error> {
        Facts::read(Dialect::Chat, Operation::Chat, body.as_bytes())
    }

    #[test]
    fn a_chat_is_read_in_one_pass() {
        let body = r#"{"messages":[{"role":"system","content":"Be short."},{"role":"user","content":[
            {"type":"text","text":"What is this?"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAAAAAAAAAA"}}]}],
            "tools":[{"type":"function","function":{"name":"a"}},{"type":"function","function":{"name":"b"}}],
            "max_tokens":100,"max_completion_tokens":50,"stream":true,"n":2,"user":"u1","response_format":{"type":"json_object"},
            "model":"gpt"}"#;
        let facts = chat(body).unwrap();
        assert_eq!(facts.model.as_deref(), Some("gpt"));
        assert_eq!((facts.stream, facts.include_usage, facts.structured), (true, false, true));
        assert_eq!((facts.messages, facts.tools, facts.images, facts.answers), (2, 2, 1, 2));
        assert_eq!(facts.output_tokens_max, Some(50), "the smaller one binds");
        assert_eq!((facts.user.as_deref(), facts.last_text.as_deref()), (Some("u1"), Some("What is this?")));
        assert_eq!(&body[facts.model_at.unwrap()], "\"gpt\"");
    }

    #[test]
    fn pictures_are_counted_and_not_their_bytes() {
        let picture = |bytes: usize| {
            format!(
                r#"{{"model":"m","messages":[{{"role":"user","content":[{{"type":"image","source":{{"type":"base64","media_type":"image/png","data":"{}"}}}}]}}]}}"#,
                "A".repeat(bytes)
            )
        };
        let tokens = |body: &str| {
            let facts = Facts::read(Dialect::Anthropic, Operation::Chat, body.as_bytes()).unwrap();
            assert_eq!(facts.images, 1);
            facts.input_tokens_estimated()
        };
        assert_eq!(tokens(&picture(10)), tokens(&picture(1_000_000)));
    }

    #[test]
    fn anthropic_and_responses_have_their_own_members() {
        let body = br#"{"model":"c","system":[{"type":"text","text":"Be short."}],"max_tokens":9,"messages":[],"metadata":{"user_id":"u"}}"#;
        let facts = Facts::read(Dialect::Anthropic, Operation::Chat, body).unwrap();
        assert_eq!((facts.output_tokens_max, facts.user.as_deref(), facts.characters), (Some(9), Some("u"), 9));
        let body = br#"{"model":"c","system_instruction":"a","input":[{"type":"user_input","content":[{"type":"text","text":"bcd"},
            {"type":"audio","data":"AAAA","mime_type":"audio/wav"}]}],"generation_config":{"max_output_tokens":8},"stream":true,
            "response_format":{"type":"text","schema":{}},"tools":[{"type":"function","name":"f"}],"service_tier":"flex"}"#;
        let facts = Facts::read(Dialect::Interactions, Operation::Chat, body).unwrap();
        assert_eq!((facts.output_tokens_max, facts.messages, facts.tools, facts.audio), (Some(8), 1, 1, 1));
        assert!(facts.stream && facts.structured && facts.service_tier.as_deref() == Some("flex"));
        let body = br#"{"model":"c","instructions":"a","input":"bcd","max_output_tokens":7,"text":{"format":{"type":"json_schema"}}}"#;
        let facts = Facts::read(Dialect::Responses, Operation::Chat, body).unwrap();
        assert_eq!(
            (facts.output_tokens_max, facts.characters, facts.messages, facts.structured),
            (Some(7), 4, 1, true)
        );
    }

    #[test]
    fn a_member_that_decides_must_not_be_there_twice() {
        for body in [
            r#"{"model":"a","messages":[],"model":"b"}"#,
            r#"{"model":"a","stream":false,"messages":[],"stream":true}"#,
            r#"{"model":"a","messages":[],"messages":[]}"#,
            "{\"model\":\"a\",\"messages\":[],\"mod\\u0065l\":\"b\"}",
        ] {
            let error = chat(body).unwrap_err();
            assert!(matches!(error, Error::Field { expected: "must not be there twice", .. }), "{body}: {error}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_and_never_repeated() {
        let wrong = |body: &str| chat(body).unwrap_err().to_string();
        assert_eq!(wrong(""), "read the request as a JSON object: line 1, column 0");
        assert_eq!(wrong("[]"), "read the request as a JSON object: line 1, column 0");
        assert_eq!(wrong(r#"{"messages":[]}"#), "find the required `model` in the request");
        assert_eq!(wrong(r#"{"model":"","messages":[]}"#), "use `model` of the request: must be the name of a model");
        assert_eq!(wrong(r#"{"model":7}"#), "use `model` of the request: must be the name of a model");
        assert_eq!(wrong(r#"{"model":"m","stream":"secret"}"#), "use `stream` of the request: must be true or false");
        assert_eq!(
            wrong(r#"{"model":"m","max_tokens":-1}"#),
            "use `max_tokens` of the request: must be a whole number that is not negative"
        );
        for body in [r#"{"model":"m","messages":[{"content":"secret"]}"#, r#"{"model":"m","messages":"secret"#] {
            assert!(!wrong(body).contains("secret"));
        }
        assert!(wrong(r#"{"model":"m"} {}"#).starts_with("read the request"));
    }

    #[test]
    fn deep_nesting_is_refused_and_not_followed() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("{\"source\":", "}"), ("{\"data\":[", "]}")] {
            let body = format!(r#"{{"model":"m","messages":{}1{}}}"#, open.repeat(200_000), close.repeat(200_000));
            assert!(matches!(chat(&body), Err(Error::RequestJson { .. })), "{open}");
        }
    }

    #[test]
    fn prompts_given_as_tokens_count_as_tokens() {
        let body = br#"{"model":"m","prompt":[1,2,3,4]}"#;
        let facts = Facts::read(Dialect::Chat, Operation::Completions, body).unwrap();
        assert_eq!((facts.messages, facts.characters), (4, 4));
    }
}
