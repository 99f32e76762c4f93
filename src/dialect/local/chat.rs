//! Chat.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::settings::{LocalSettings, whole};
use super::token::{LocalToken, write_chosen};
use crate::dialect::chat::{Chunks, completion_head, write_usage};
use crate::dialect::json::{self, Members, Sort, sort};
use crate::dialect::write::{Object, string};
use crate::dialect::{Asked, Error, Failure, Usage};

/// Which tools may or must be called.
#[derive(Debug, Clone, Default)]
pub enum LocalChoice<'a> {
    /// As the model likes.
    #[default]
    Auto,
    /// None.
    None,
    /// One of these; one of all, if none is named.
    Must(Vec<Cow<'a, str>>),
    /// Something else, as it was asked for.
    Other(&'a RawValue),
}

impl<'a> LocalChoice<'a> {
    fn read(raw: json::Raw<'a>) -> Result<Self, Error> {
        const FIELD: &str = "tool_choice";
        let name = |of: &Members<'a>| {
            let function =
                of.get("function").map(|function| Members::of(function, "tool_choice.function")).transpose()?;
            let name = function.as_ref().unwrap_or(of).text("name");
            name.ok_or_else(|| Error::field("tool_choice.function.name", "must be the name of a tool"))
        };
        if sort(raw) != Sort::Object {
            return match json::text(raw).as_deref() {
                Some("auto") => Ok(Self::Auto),
                Some("none") => Ok(Self::None),
                Some("required" | "any") => Ok(Self::Must(Vec::new())),
                _ => Err(Error::field(FIELD, "must be auto, none, required or an object that names a function")),
            };
        }
        let choice = Members::of(raw, FIELD)?;
        match choice.text("type").as_deref() {
            None | Some("function") => Ok(Self::Must(vec![name(&choice)?])),
            Some("allowed_tools") => {
                let inner = choice.get("allowed_tools").map(|inner| Members::of(inner, "tool_choice.allowed_tools"));
                let inner = inner.transpose()?.unwrap_or_default();
                let tools = inner.get("tools").map(json::lenient_elements).unwrap_or_default();
                if inner.text("mode").as_deref() != Some("required") || tools.is_empty() {
                    return Ok(Self::Other(raw));
                }
                let names = tools.into_iter().map(|tool| name(&Members::of(tool, "tool_choice.allowed_tools.tools")?));
                Ok(Self::Must(names.collect::<Result<_, Error>>()?))
            }
            Some(_) => Ok(Self::Other(raw)),
        }
    }
}

/// A request of chat as somebody who runs a model wants it. Raw values are JSON of the caller's: arrays of messages and
/// of tools as templates take them.
#[derive(Debug, Clone)]
pub struct ChatRequest<'a> {
    /// The messages, an array.
    pub messages: &'a RawValue,
    /// The tools, an array.
    pub tools: Option<&'a RawValue>,
    /// Which tools may or must be called.
    pub tool_choice: LocalChoice<'a>,
    /// Variables for the template (`chat_template_kwargs`), an object.
    pub template_variables: Option<&'a RawValue>,
    /// How much it shall think: `none`, `low`, ...
    pub reasoning_effort: Option<Cow<'a, str>>,
    /// Whether probabilities are wanted.
    pub logprobs: bool,
    /// How many of the best candidates beside each token.
    pub top_logprobs: u64,
    /// `json_object` or `json_schema`, where the answer must be JSON.
    pub response_format: Option<Cow<'a, str>>,
    /// The schema of `json_schema`.
    pub schema: Option<&'a RawValue>,
    /// The rest.
    pub settings: LocalSettings<'a>,
}

impl<'a> ChatRequest<'a> {
    /// Reads a body of chat.
    ///
    /// # Errors
    /// It is no object, messages are missing, or a number is no number or out of its range.
    pub fn read(body: &'a [u8]) -> Result<Self, Error> {
        let members = Members::parse(body).map_err(|error| Error::request(&error))?;
        let messages = members.get("messages").ok_or(Error::Missing { field: "messages" })?;
        if sort(messages) != Sort::Array {
            return Err(Error::field("messages", "must be an array"));
        }
        let format = members.get("response_format").map(|raw| Members::of(raw, "response_format")).transpose()?;
        let schema = format.as_ref().and_then(|format| Members::lenient(format.get("json_schema")?).get("schema"));
        let kind = format.and_then(|format| format.text("type")).filter(|kind| kind != "text");
        Ok(Self {
            messages,
            tools: members.get("tools"),
            tool_choice: members.get("tool_choice").map_or(Ok(LocalChoice::Auto), LocalChoice::read)?,
            template_variables: members.get("chat_template_kwargs"),
            reasoning_effort: members.text("reasoning_effort"),
            logprobs: members.get("logprobs").and_then(json::flag).unwrap_or(false),
            top_logprobs: whole(&members, "top_logprobs")?.unwrap_or(0),
            response_format: kind,
            schema,
            settings: LocalSettings::read(&members)?,
        })
    }
}

/// A call that a model in this process makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalCall {
    /// Its id.
    pub id: String,
    /// Its function.
    pub name: String,
    /// Its arguments, JSON.
    pub arguments: String,
}

/// Writes the stream of a model in this process: chunks of OpenAI's chat, to be given to a [`Stream`](crate::dialect::Stream) or
/// sent as they are.
#[derive(Debug)]
pub struct ChatWriter {
    chunks: Chunks,
    calls: u64,
}

impl ChatWriter {
    /// A writer for whoever asked. The usage is always written; a [`Stream`](crate::dialect::Stream) takes it out again.
    pub fn new(asked: &Asked) -> Self {
        let asked = Asked { include_usage: true, ..asked.clone() };
        Self { chunks: Chunks::new(&asked), calls: 0 }
    }

    /// More of the answer, and the tokens that were chosen meanwhile where their probabilities are wanted: the text of
    /// the last ones may come later.
    pub fn text(&mut self, out: &mut Vec<u8>, text: &str, tokens: &[LocalToken]) {
        if tokens.is_empty() {
            return self.chunks.delta(out, |delta| delta.text("content", text));
        }
        let mut chosen = Vec::new();
        write_chosen(&mut chosen, tokens);
        self.chunks.delta_with(out, &chosen, |delta| delta.text("content", text));
    }

    /// More of the reasoning.
    pub fn reasoning(&mut self, out: &mut Vec<u8>, text: &str) {
        self.chunks.delta(out, |delta| delta.text("reasoning_content", text));
    }

    /// A whole call.
    pub fn call(&mut self, out: &mut Vec<u8>, call: &LocalCall) {
        let index = self.calls;
        self.calls += 1;
        self.chunks.delta(out, |delta| {
            let mut calls = delta.array("tool_calls");
            let mut to = calls.object();
            to.number("index", index);
            write_call(&mut to, call);
        });
    }

    /// The end: `stop`, `length`, `tool_calls` or `content_filter`, and the usage.
    pub fn end(&mut self, out: &mut Vec<u8>, finish_reason: &str, usage: &Usage) {
        self.chunks.end(out, finish_reason, usage);
    }

    /// An error in the middle.
    pub fn fail(&mut self, out: &mut Vec<u8>, failure: &Failure) {
        self.chunks.fail(out, failure);
    }
}

fn write_call(to: &mut Object<'_>, call: &LocalCall) {
    to.text("id", &call.id);
    to.text("type", "function");
    let mut function = to.object("function");
    function.text("name", &call.name);
    function.text("arguments", &call.arguments);
}

/// What a model in this process said, whole.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LocalAnswer {
    /// The answer.
    pub text: String,
    /// Its reasoning, empty if there is none.
    pub reasoning: String,
    /// Its calls.
    pub calls: Vec<LocalCall>,
    /// `stop`, `length`, `tool_calls` or `content_filter`.
    pub finish_reason: String,
    /// Every token that was chosen, where their probabilities are wanted.
    pub tokens: Option<Vec<LocalToken>>,
}

impl LocalAnswer {
    /// The whole answer as a body of OpenAI's chat, to be given to [`answer`](crate::dialect::answer) or sent as it is.
    pub fn body(&self, asked: &Asked, usage: &Usage) -> Vec<u8> {
        let mut out = Vec::with_capacity(512 + self.text.len() + self.reasoning.len());
        let mut body = Object::new(&mut out);
        completion_head(&mut body, "chat.completion", asked, asked.model(None));
        {
            let mut choices = body.array("choices");
            let mut choice = choices.object();
            choice.number("index", 0);
            {
                let mut message = choice.object("message");
                message.text("role", "assistant");
                if self.text.is_empty() && !self.calls.is_empty() {
                    message.null("content");
                } else {
                    string(message.key("content"), &self.text);
                }
                message.null("refusal");
                drop(message.array("annotations"));
                if !self.reasoning.is_empty() {
                    message.text("reasoning_content", &self.reasoning);
                }
                if !self.calls.is_empty() {
                    let mut calls = message.array("tool_calls");
                    for call in &self.calls {
                        write_call(&mut calls.object(), call);
                    }
                }
            }
            match &self.tokens {
                Some(tokens) => write_chosen(choice.key("logprobs"), tokens),
                None => choice.null("logprobs"),
            }
            choice.text("finish_reason", &self.finish_reason);
        }
        write_usage(body.object("usage"), usage);
        drop(body);
        out
    }
}
