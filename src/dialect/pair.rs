//! Who translates what: one pair of dialects, one implementation, no format in the middle.

use bytes::Bytes;

use super::frame::Frame;
use super::oip::OipModel;
use super::usage::Meter;
use super::{Asked, Dialect, Error, Facts, Failure, Finish, Operation, Usage, pairs, same};

/// Whom a request goes to.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The dialect of the model's server.
    pub dialect: Dialect,
    /// The model's name over there.
    pub model: &'a str,
    /// The limit of tokens that is sent where the caller gave none and the dialect wants one (Anthropic).
    pub output_tokens_default: u64,
    /// Whether a usage may be asked for at the end of an OpenAI stream: a few old servers refuse the member.
    pub asks_usage: bool,
    /// How the model's tensors are called, where its server speaks the Open Inference Protocol.
    pub oip: OipModel<'a>,
}

impl<'a> Target<'a> {
    /// A target with the defaults: 4,096 tokens, usage is asked for, and tensors are called as most call them.
    pub fn new(dialect: Dialect, model: &'a str) -> Self {
        Self { dialect, model, output_tokens_default: 4_096, asks_usage: true, oip: OipModel::DEFAULT }
    }
}

/// A request on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// The body.
    pub body: Bytes,
    /// Members of the caller's request that the other dialect cannot say and that only advise (a seed, a penalty): the
    /// answer is right without them. What would change the answer's form is refused instead.
    pub left_out: Vec<String>,
}

/// An answer on its way to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The body.
    pub body: Bytes,
    /// What it used; estimated where the provider did not tell.
    pub usage: Usage,
    /// Why the model stopped, if it is an answer of a model that talks.
    pub finish: Option<Finish>,
}

/// How far a stream is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// More is to come.
    More,
    /// The answer is whole; frames after this one are not looked at.
    Done,
    /// The provider says in its stream that it failed. Nothing of it was written yet.
    Failed(Failure),
}

/// Translates one stream, frame by frame.
pub(crate) trait Translate: Send {
    /// Takes a frame of the provider and appends what the caller gets for it.
    fn frame(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>, meter: &mut Meter) -> Result<Step, Error>;

    /// The provider closed the stream without saying that it was done. True if the answer is whole all the same, and
    /// then its end was appended.
    fn close(&mut self, out: &mut Vec<u8>, meter: &mut Meter) -> bool;

    /// Appends the error in the caller's dialect, in the middle of a stream.
    fn fail(&mut self, failure: &Failure, out: &mut Vec<u8>);

    /// Why the model stopped, once it is known.
    fn finish(&self) -> Option<Finish>;
}

/// One pair: a caller of one dialect over a model of another.
pub(crate) trait Pair: Sync {
    /// The caller's request for the model.
    fn request(&self, body: &[u8], facts: &Facts<'_>, to: &Target<'_>) -> Result<Outgoing, Error>;

    /// The model's answer for the caller.
    fn answer(&self, body: &Bytes, asked: &Asked) -> Result<Answer, Error>;

    /// The model's stream for the caller.
    fn stream(&self, asked: &Asked) -> Box<dyn Translate>;
}

/// Whether a caller of `from` can be answered by a model that speaks `to`.
pub fn can_translate(operation: Operation, from: Dialect, to: Dialect) -> bool {
    from == to || pairs::of(operation, from, to).is_some()
}

fn pair(operation: Operation, from: Dialect, to: Dialect) -> Result<&'static dyn Pair, Error> {
    if passes(operation, from, to) {
        return Ok(same::of(from));
    }
    pairs::of(operation, from, to).ok_or(Error::NoPair { operation, from, to })
}

/// Whether the bytes are the same on both sides. Ollama has two forms of vectors, and its servers are asked in the newer.
fn passes(operation: Operation, from: Dialect, to: Dialect) -> bool {
    from == to && (operation, from) != (Operation::Embeddings, Dialect::Ollama)
}

/// The caller's request as the model's server wants it. In the same dialect the bytes stay what they are but for the
/// model's name and, in OpenAI's streams, `stream_options.include_usage`.
///
/// # Errors
/// The pair does not exist, the request is wrong, or it asks for something that the model's dialect cannot say.
pub fn request(body: &Bytes, facts: &Facts<'_>, to: &Target<'_>) -> Result<Outgoing, Error> {
    if passes(facts.operation, facts.dialect, to.dialect) {
        return Ok(Outgoing { body: same::request(body, facts, to)?, left_out: Vec::new() });
    }
    pair(facts.operation, facts.dialect, to.dialect)?.request(body, facts, to)
}

/// The answer of a model that speaks `from`, with status 2xx and not a stream, for the caller.
///
/// # Errors
/// The pair does not exist, or the answer is not what the dialect says.
pub fn answer(body: &Bytes, from: Dialect, asked: &Asked) -> Result<Answer, Error> {
    pair(asked.operation, asked.dialect, from)?.answer(body, asked)
}

pub(crate) fn translator(from: Dialect, asked: &Asked) -> Result<Box<dyn Translate>, Error> {
    Ok(pair(asked.operation, asked.dialect, from)?.stream(asked))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::value::RawValue;
    use serde_json::{Value, json};

    use super::*;
    use crate::dialect::trial::{answered, asked, full_answer, full_stream, sent, small, sse, streamed, streamed_by};

    const THREE: [Dialect; 3] = [Dialect::Chat, Dialect::Responses, Dialect::Anthropic];

    /// Everything that a caller can read of an answer, whichever dialect it is in.
    fn read(dialect: Dialect, body: &Value) -> Value {
        let call = |id: &Value, name: &Value, arguments: Value| json!([id, name, arguments]);
        let parsed = |text: &Value| serde_json::from_str::<Value>(text.as_str().unwrap()).unwrap();
        let (mut text, mut thought, mut calls) = (String::new(), String::new(), Vec::new());
        let said = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match dialect {
            Dialect::Anthropic => {
                for block in body["content"].as_array().unwrap() {
                    match block["type"].as_str().unwrap() {
                        "text" => text += &said(&block["text"]),
                        "thinking" => thought += &said(&block["thinking"]),
                        "tool_use" => calls.push(call(&block["id"], &block["name"], block["input"].clone())),
                        other => panic!("{other}"),
                    }
                }
            }
            Dialect::Responses => {
                for item in body["output"].as_array().unwrap() {
                    match item["type"].as_str().unwrap() {
                        "message" => text += &said(&item["content"][0]["text"]),
                        "reasoning" => thought += &said(&item["summary"][0]["text"]),
                        "function_call" => {
                            calls.push(call(&item["call_id"], &item["name"], parsed(&item["arguments"])))
                        }
                        other => panic!("{other}"),
                    }
                }
            }
            _ => {
                let message = &body["choices"][0]["message"];
                text += &said(&message["content"]);
                thought += &said(&message["reasoning_content"]);
                for one in message["tool_calls"].as_array().unwrap() {
                    calls.push(call(&one["id"], &one["function"]["name"], parsed(&one["function"]["arguments"])));
                }
            }
        }
        json!({"text": text, "thought": thought, "calls": calls})
    }

    #[test]
    fn every_pair_of_the_three_is_there() {
        for from in THREE {
            for to in THREE {
                assert!(can_translate(Operation::Chat, from, to), "{from} over {to}");
                let (body, _) = sent(from, to, "other", &small(from)).unwrap();
                assert_eq!(body["model"], "other");
                assert_eq!(body["stream"], true);
            }
        }
        assert!(!can_translate(Operation::Embeddings, Dialect::Chat, Dialect::Anthropic));
    }

    #[test]
    fn an_answer_says_the_same_in_every_dialect() {
        let expected = json!({"text": "It is\n\"hot\" 🔥", "thought": "Let me see",
            "calls": [["toolu_1", "stop_pump", {"line": 4}], ["toolu_2", "look", {}]]});
        for caller in THREE {
            for model in THREE {
                let (body, answer) = answered(caller, model, &full_answer(model)).unwrap();
                assert_eq!(read(caller, &body), expected, "{caller} over {model}");
                let usage = answer.usage;
                assert_eq!((usage.input_tokens, usage.output_tokens), (Some(15), Some(42)), "{caller} over {model}");
                assert_eq!((usage.cache_read_tokens, usage.reasoning_tokens), (Some(5), Some(7)));
                assert!(!usage.estimated);
                assert_eq!(answer.finish, Some(Finish::ToolCalls));
            }
        }
    }

    #[test]
    fn a_stream_counts_the_same_in_every_dialect() {
        for caller in THREE {
            for model in THREE {
                let seen = streamed(caller, model, &full_stream(model));
                assert_eq!((&seen.error, &seen.failure), (&None, &None), "{caller} over {model}");
                assert_eq!(seen.finish, Some(Finish::ToolCalls), "{caller} over {model}");
                let usage = seen.usage;
                assert_eq!((usage.input_tokens, usage.output_tokens), (Some(15), Some(42)), "{caller} over {model}");
                assert_eq!((usage.cache_read_tokens, usage.reasoning_tokens), (Some(5), Some(7)));
                assert!(!usage.estimated, "{caller} over {model}");
            }
        }
    }

    #[test]
    fn a_stream_that_breaks_off_is_never_taken_for_a_whole_one() {
        for caller in THREE {
            for model in THREE {
                let events = full_stream(model);
                // Up to the event that says why the model stopped.
                let ends = events.len()
                    - match model {
                        Dialect::Responses => 1,
                        Dialect::Anthropic => 2,
                        _ => 3,
                    };
                for cut in 0..=ends {
                    let text = sse(&events[..cut]);
                    let seen = streamed_by(&asked(caller, &small(caller)), model, &text, 1 << 20);
                    assert_eq!(seen.failure, Some(Failure::cut()), "{caller} over {model}, {cut} events");
                    for end in ["[DONE]", "message_stop", "response.completed"] {
                        assert!(!seen.text.contains(end), "{caller} over {model}, {cut} events");
                    }
                    if cut > 8 {
                        assert!(seen.usage.estimated && seen.usage.output_tokens > Some(3), "{caller} over {model}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_server_that_says_why_it_stopped_and_not_that_it_is_done_is_forgiven() {
        for caller in THREE {
            for model in [Dialect::Chat, Dialect::Anthropic] {
                let mut events = full_stream(model);
                events.pop();
                let seen = streamed(caller, model, &events);
                assert_eq!((&seen.failure, seen.finish), (&None, Some(Finish::ToolCalls)), "{caller} over {model}");
                let end = match caller {
                    Dialect::Chat => "[DONE]",
                    Dialect::Anthropic => "message_stop",
                    _ => "response.completed",
                };
                assert!(seen.text.contains(end), "{caller} over {model}");
            }
        }
    }

    #[test]
    fn what_a_provider_says_went_wrong_in_a_stream_comes_out_as_a_failure() {
        let told = [
            (Dialect::Chat, json!({"error": {"message": "slow down", "type": "rate_limit_error", "code": null}})),
            (
                Dialect::Anthropic,
                json!({"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}}),
            ),
            (Dialect::Responses, json!({"type": "error", "code": "rate_limit_exceeded", "message": "slow down"})),
        ];
        for (model, event) in told {
            for caller in THREE {
                let seen = streamed(caller, model, std::slice::from_ref(&event));
                let failure = seen.failure.unwrap();
                assert_eq!(
                    (failure.kind, failure.message.as_str()),
                    (crate::dialect::FailureKind::RateLimited, "slow down")
                );
                assert_eq!(seen.text, "", "nothing was written, so somebody else can be asked");
            }
        }
    }

    #[test]
    fn a_failure_in_the_middle_is_told_in_the_callers_dialect() {
        for caller in THREE {
            for model in THREE {
                let asked = asked(caller, &small(caller));
                let mut stream = crate::dialect::Stream::new(model, &asked).unwrap();
                let mut out = Vec::new();
                stream.push(sse(&full_stream(model)[..5]).as_bytes(), &mut out).unwrap();
                assert!(stream.has_begun());
                out.clear();
                stream.fail(&Failure::cut(), &mut out);
                let text = String::from_utf8(out).unwrap();
                let data: Value =
                    serde_json::from_str(text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap()).unwrap();
                assert!(data["error"]["message"].as_str().unwrap().contains("broke off"), "{text}");
                assert_eq!(text.starts_with("event: error\n"), caller != Dialect::Chat);
            }
        }
    }

    #[test]
    fn garbage_instead_of_a_frame_is_an_error() {
        for caller in THREE {
            for model in THREE {
                let asked = asked(caller, &small(caller));
                for garbage in ["data: {\n\n", "data: []\n\n", "data: <html>\n\n", "data: 7\n\n"] {
                    let seen = streamed_by(&asked, model, garbage, 1 << 20);
                    assert!(matches!(seen.error, Some(Error::Malformed { .. })), "{caller} over {model}: {garbage}");
                }
                let seen = streamed_by(&asked, model, "<html>sorry</html>", 1 << 20);
                assert!(seen.failure.is_some(), "a page is no stream");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

        #[test]
        fn no_change_of_a_body_or_stream_breaks_a_translation(
            from in 0_usize..3, to in 0_usize..3, at in 0.0_f64..1.0, with in prop_oneof![
                Just("null"), Just("\""), Just("{"), Just("]"), Just(","), Just("7"), Just("-1e999"), Just("\\ud800"), Just("[[[["), Just("")
            ], cut in 0_usize..12
        ) {
            let (from, to) = (THREE[from], THREE[to]);
            let change = |text: String| {
                let at = (text.len() as f64 * at) as usize;
                let at = (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap();
                let end = (at + cut..=text.len()).find(|end| text.is_char_boundary(*end)).unwrap_or(text.len());
                format!("{}{with}{}", &text[..at], &text[end..])
            };
            let asked = asked(from, &small(from));
            let body = Bytes::from(change(json!({"model": "m", "max_tokens": 5, "tools": [], "stream": false, "system": "s", "instructions": "i",
                "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]},
                    {"role": "assistant", "content": "b", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]},
                    {"role": "tool", "tool_call_id": "1", "content": "c"}],
                "input": [{"role": "user", "content": [{"type": "input_text", "text": "a"}]},
                    {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
                    {"type": "function_call_output", "call_id": "1", "output": "c"}]}).to_string()));
            if let Ok(facts) = Facts::read(from, Operation::Chat, &body)
                && let Ok(out) = request(&body, &facts, &Target::new(to, "m2"))
            {
                prop_assert!(serde_json::from_slice::<&RawValue>(&out.body).is_ok(), "what is sent is JSON");
            }
            if let Ok(answer) = answer(&Bytes::from(change(full_answer(to).to_string())), to, &asked) {
                prop_assert!(serde_json::from_slice::<&RawValue>(&answer.body).is_ok(), "what is answered is JSON");
            }
            let seen = streamed_by(&asked, to, &change(sse(&full_stream(to))), 17);
            if from != to {
                for (_, data) in seen.events() {
                    // Half a character passes as it came; serde makes no text of it.
                    prop_assert!(data.is_object() || data == "[DONE]" || with == "\\ud800", "{data}");
                }
            }
        }
    }
}
