//! What the mock does with a request.

use std::time::Duration;

use bytes::Bytes;
use hyper::HeaderMap;
use serde_json::Value;

/// How it answers.
#[derive(Debug, Clone)]
pub(crate) struct Behaviour {
    /// Before the head of the answer.
    pub(crate) first_byte: Duration,
    /// Between two frames of a stream.
    pub(crate) pace: Duration,
    /// Words of an answer; a stream has one in a frame.
    pub(crate) words: usize,
    /// Whether it says how many tokens it counted.
    pub(crate) usage: bool,
    /// Calls the request's first tool instead of saying something.
    pub(crate) tool_call: bool,
    /// Thinks in one piece before it speaks.
    pub(crate) reasoning: bool,
    /// Says `{"n":1}` and no sentence.
    pub(crate) json: bool,
    /// Lets nobody in without this key, whatever the header.
    pub(crate) key: Option<String>,
    /// Numbers of an embedding.
    pub(crate) dimensions: usize,
    /// What goes wrong with every request.
    pub(crate) fault: Fault,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            first_byte: Duration::ZERO,
            pace: Duration::ZERO,
            words: 5,
            usage: true,
            tool_call: false,
            reasoning: false,
            json: false,
            key: None,
            dimensions: 4,
            fault: Fault::None,
        }
    }
}

/// Prompt tokens that it says it counted.
pub(crate) const PROMPT_TOKENS: usize = 11;
/// Of these from a cache.
pub(crate) const CACHED_TOKENS: usize = 3;
/// Tokens of what it thinks, among those of its answer but for Gemini, which counts them apart.
pub(crate) const THOUGHT_TOKENS: usize = 2;

const WORDS: [&str; 8] = ["The", " press", " runs", " within", " its", " usual", " limits", " today."];

/// What is said in the place of words.
const JSON: [&str; 2] = ["{\"n\"", ":1}"];

impl Behaviour {
    /// The words of an answer.
    pub(crate) fn word(&self, at: usize) -> &'static str {
        if self.json { JSON[at % JSON.len()] } else { WORDS[at % WORDS.len()] }
    }

    /// Tokens that it thought.
    pub(crate) fn thought_tokens(&self) -> usize {
        if self.reasoning { THOUGHT_TOKENS } else { 0 }
    }

    /// All of them.
    pub(crate) fn text(&self) -> String {
        (0..self.words).map(|at| self.word(at)).collect()
    }

    /// What a model does that heeds its request, if its name says that it is `able`: it calls the first tool unless the
    /// request brings what a tool said, thinks if it is asked to, and says JSON where the answer has a schema.
    pub(crate) fn able(self, model: &str, body: &Value) -> Self {
        if !model.contains("able") {
            return self;
        }
        let last = ["messages", "contents", "input"].iter().find_map(|name| body[name].as_array()?.last());
        let last = last.map(ToString::to_string).unwrap_or_default();
        let results = ["\"role\":\"tool\"", "tool_result", "functionResponse", "toolResult", "function_call_output"];
        let has = |pointers: &[&str]| pointers.iter().any(|at| body.pointer(at).is_some_and(|value| !value.is_null()));
        let thinks = [
            "/reasoning_effort",
            "/reasoning",
            "/thinking",
            "/think",
            "/output_config/effort",
            "/generationConfig/thinkingConfig",
            "/additionalModelRequestFields/thinking",
            "/additionalModelRequestFields/reasoningConfig",
            "/additionalModelRequestFields/reasoning_effort",
        ];
        let schemas = [
            "/response_format/json_schema",
            "/text/format/schema",
            "/output_config/format",
            "/outputConfig/textFormat",
            "/generationConfig/responseJsonSchema",
            "/generationConfig/responseSchema",
            "/format",
        ];
        let json = has(&schemas);
        let tool_call = !results.iter().any(|result| last.contains(result));
        Self { tool_call, reasoning: has(&thinks), json, words: if json { JSON.len() } else { self.words }, ..self }
    }
}

/// What goes wrong. Frames are counted from the first one of the answer's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// The model is overloaded so many times, and then well.
    Flaky(u32),
    /// An error in the dialect's shape; with seconds also `Retry-After`.
    Status(u16, Option<u64>),
    /// The first byte comes this much later.
    Delay(Duration),
    /// The connection is reset instead of an answer.
    Reset,
    /// It is closed instead of an answer.
    Close,
    /// Something that is not HTTP.
    NotHttp,
    /// 200 with an HTML page, as a portal sends it.
    Html,
    /// It never answers.
    Never,
    /// The connection is closed after so many frames, without the end of the body.
    Half(usize),
    /// It is reset after so many frames.
    ResetAfter(usize),
    /// Nothing comes after so many frames, and the connection stays.
    Stall(usize),
    /// Bytes that mean nothing after so many frames, then a proper end.
    Garbage(usize),
    /// The dialect's error within the stream after so many frames, then a proper end.
    ErrorAfter(usize),
    /// A proper end after so many frames, without what a whole answer ends with.
    Short(usize),
    /// One byte at a time, so far apart.
    Drip(Duration),
    /// The last of these many frames again and again, for ever.
    Endless,
    /// Says that the connection ends with this answer.
    NoKeepAlive,
}

impl Fault {
    /// `status-503`, `status-429-7` (with Retry-After), `flaky-2-NAME` (each name by itself), `delay-250`, `reset`, `close`, `not-http`, `html`, `never`, `half-3`,
    /// `reset-after-3`, `stall-3`, `garbage-3`, `error-3`, `short-3`, `drip-5`, `endless`.
    pub(crate) fn of_model(name: &str) -> Option<Self> {
        let number = |prefix: &str| name.strip_prefix(prefix)?.parse::<usize>().ok();
        let ms = |n: usize| Duration::from_millis(n as u64);
        Some(match name {
            "reset" => Self::Reset,
            "close" => Self::Close,
            "not-http" => Self::NotHttp,
            "html" => Self::Html,
            "never" => Self::Never,
            "endless" => Self::Endless,
            _ => {
                if let Some(rest) = name.strip_prefix("status-") {
                    let (status, wait) = rest.split_once('-').map_or((rest, None), |(a, b)| (a, Some(b)));
                    return Some(Self::Status(status.parse().ok()?, wait.and_then(|wait| wait.parse().ok())));
                }
                if let Some((times, _)) = name.strip_prefix("flaky-").and_then(|rest| rest.split_once('-')) {
                    return Some(Self::Flaky(times.parse().ok()?));
                }
                number("delay-")
                    .map(|n| Self::Delay(ms(n)))
                    .or_else(|| number("half-").map(Self::Half))
                    .or_else(|| number("reset-after-").map(Self::ResetAfter))
                    .or_else(|| number("stall-").map(Self::Stall))
                    .or_else(|| number("garbage-").map(Self::Garbage))
                    .or_else(|| number("error-").map(Self::ErrorAfter))
                    .or_else(|| number("short-").map(Self::Short))
                    .or_else(|| number("drip-").map(|n| Self::Drip(ms(n))))?
            }
        })
    }
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    /// A header's text; empty if there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}
