//! OpenAI's completions over a server of the Open Inference Protocol: the only question of a language model that needs no
//! template, so the only one that such a server can be asked. A chat becomes one where somebody else has its template.

use bytes::Bytes;

use super::remarks::refused;
use crate::dialect::frame::Frame;
use crate::dialect::json::{self, Members, Raw, Sort, sort};
use crate::dialect::oip::{Heard, Told, write_generate};
use crate::dialect::pair::{Answer, Outgoing, Pair, Step, Target, Translate};
use crate::dialect::usage::Meter;
use crate::dialect::write::Object;
use crate::dialect::{Asked, Dialect, Error, Facts, Failure, Finish, Operation, chat, sse};

const OIP: Dialect = Dialect::Oip;

struct Complete;

/// The pair, if it is this one.
pub(super) fn of(operation: Operation, from: Dialect, to: Dialect) -> Option<&'static dyn Pair> {
    (operation == Operation::Completions && from == Dialect::Chat && to == OIP).then_some(&Complete as &dyn Pair)
}

impl Pair for Complete {
    fn request(&self, body: &[u8], facts: &Facts<'_>, to: &Target<'_>) -> Result<Outgoing, Error> {
        let request = Members::parse(body).map_err(|error| Error::request(&error))?;
        let prompt = prompt(&request)?;
        let has = |name: &str| request.get(name).is_some_and(|raw| !matches!(raw.get(), "false" | "\"\""));
        let many = |name: &str| request.get(name).and_then(json::whole).is_some_and(|number| number > 1);
        for name in ["n", "best_of"] {
            if many(name) {
                return Err(refused(name, OIP, "it gives one answer; ask several times"));
            }
        }
        for name in ["echo", "suffix", "logprobs"] {
            if has(name) {
                return Err(refused(name, OIP, "it gives the text that follows the prompt and nothing else"));
            }
        }
        let mut out = Vec::with_capacity(body.len() + 128);
        let left_out = write_generate(&request, prompt, facts, to, &mut out)?;
        Ok(Outgoing { body: out.into(), left_out })
    }

    fn answer(&self, body: &Bytes, asked: &Asked) -> Result<Answer, Error> {
        let mut told = Told::default();
        let Heard::Text { text, model, .. } = told.hear(body, asked, "answer")? else {
            return Err(Error::Malformed { dialect: OIP, what: "answer" });
        };
        let mut meter = Meter::new(asked.input_tokens_estimated);
        meter.said(text);
        meter.told(&told.usage());
        let (finish, usage) = (told.end(asked), meter.usage());
        let mut out = Vec::with_capacity(body.len() + 384);
        let mut to = Object::new(&mut out);
        head(&mut to, asked, asked.model(model.as_deref()));
        choice(&mut to, text, Some(finish));
        chat::write_usage(to.object("usage"), &usage);
        drop(to);
        Ok(Answer { body: out.into(), usage, finish: Some(finish) })
    }

    fn stream(&self, asked: &Asked) -> Box<dyn Translate> {
        Box::new(Pieces { asked: asked.clone(), model: None, told: Told::default(), finish: None })
    }
}

/// Members of a chat that are said in its prompt.
const IN_PROMPT: [&str; 4] = ["messages", "tools", "tool_choice", "chat_template_kwargs"];

/// A chat of OpenAI's as the request for the text that follows `prompt`, which a model's template made of its messages.
///
/// # Errors
/// The request is wrong, or asks for something that a text cannot promise.
pub fn text_request(chat: &[u8], prompt: &str, to: &Target<'_>) -> Result<Outgoing, Error> {
    let request = Members::parse(chat).map_err(|error| Error::request(&error))?;
    let facts = Facts::read(Dialect::Chat, Operation::Chat, chat)?;
    if facts.answers > 1 {
        return Err(refused("n", OIP, "it gives one answer; ask several times"));
    }
    if facts.logprobs {
        return Err(refused("logprobs", OIP, "it gives the text that follows the prompt and nothing else"));
    }
    let format = request.get("response_format").map(Members::lenient).unwrap_or_default();
    if format.text("type").is_some_and(|kind| kind != "text") {
        return Err(refused("response_format", OIP, "nothing holds the model to a form; ask for it in words"));
    }
    let choice = request.get("tool_choice").filter(|raw| !matches!(raw.get(), "\"auto\"" | "\"none\""));
    if choice.is_some() {
        return Err(refused("tool_choice", OIP, "nothing makes the model call a tool; say auto or none"));
    }
    let prompt = serde_json::value::to_raw_value(prompt).map_err(|error| Error::request(&error))?;
    let mut out = Vec::with_capacity(prompt.get().len() + 256);
    let mut left_out = write_generate(&request, &prompt, &facts, to, &mut out)?;
    // Templates are told of somebody who wants no thoughts, and of nothing between.
    let thinks_not = request.text("reasoning_effort").is_some_and(|effort| effort == "none");
    left_out.retain(|name| match name.as_str() {
        "response_format" => false,
        "reasoning_effort" => !thinks_not,
        name => !IN_PROMPT.contains(&name),
    });
    Ok(Outgoing { body: out.into(), left_out })
}

/// The one text that is asked about.
fn prompt<'a>(request: &Members<'a>) -> Result<Raw<'a>, Error> {
    let prompt = request.get("prompt").ok_or(Error::Missing { field: "prompt" })?;
    let one = match sort(prompt) {
        Sort::Array => match json::elements(prompt, "prompt")?.as_slice() {
            [one] => *one,
            [first, ..] if sort(first) == Sort::Text => {
                return Err(refused("prompt", OIP, "it takes one text in a request; ask several times"));
            }
            _ => prompt,
        },
        _ => prompt,
    };
    match sort(one) {
        Sort::Text => Ok(one),
        _ => Err(refused("prompt", OIP, "tokens are another model's; send a text")),
    }
}

fn head(to: &mut Object<'_>, asked: &Asked, model: &str) {
    to.text("id", &format!("cmpl-{}", asked.id));
    to.text("object", "text_completion");
    to.number("created", asked.created_unix_s);
    to.text("model", model);
}

fn choice(to: &mut Object<'_>, text: &str, finish: Option<Finish>) {
    let mut choices = to.array("choices");
    let mut choice = choices.object();
    choice.number("index", 0);
    choice.escaped("text", text);
    choice.null("logprobs");
    match finish {
        None => choice.null("finish_reason"),
        Some(Finish::Length) => choice.text("finish_reason", "length"),
        Some(Finish::Filtered) => choice.text("finish_reason", "content_filter"),
        // Every client wants a word; most servers say none unless they are asked to.
        Some(_) => choice.text("finish_reason", "stop"),
    }
}

/// A stream on its way.
struct Pieces {
    asked: Asked,
    model: Option<String>,
    told: Told,
    finish: Option<Finish>,
}

impl Pieces {
    fn event(&self, out: &mut Vec<u8>, text: &str, finish: Option<Finish>) {
        sse::event(out, "", |out| {
            let mut to = Object::new(out);
            head(&mut to, &self.asked, self.model.as_deref().unwrap_or_default());
            choice(&mut to, text, finish);
            if self.asked.include_usage {
                to.null("usage");
            }
        });
    }

    fn end(&mut self, out: &mut Vec<u8>, meter: &Meter) {
        let finish = self.told.end(&self.asked);
        self.finish = Some(finish);
        self.event(out, "", Some(finish));
        if self.asked.include_usage {
            sse::event(out, "", |out| {
                let mut to = Object::new(out);
                head(&mut to, &self.asked, self.model.as_deref().unwrap_or_default());
                drop(to.array("choices"));
                chat::write_usage(to.object("usage"), &meter.usage());
            });
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }
}

impl Translate for Pieces {
    fn frame(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>, meter: &mut Meter) -> Result<Step, Error> {
        let Some(data) = frame.data.as_deref() else {
            frame.keep_alive(out);
            return Ok(Step::More);
        };
        let (text, is_last) = match self.told.hear(data, &self.asked, "event of the stream")? {
            Heard::Failed(failure) => return Ok(Step::Failed(failure)),
            Heard::Text { text, model, is_last } => {
                if self.model.is_none() {
                    // All chunks agree on the name.
                    self.model = Some(self.asked.model(model.as_deref()).to_owned());
                }
                (text, is_last)
            }
        };
        meter.said(text);
        meter.told(&self.told.usage());
        if !text.is_empty() {
            self.event(out, text, None);
        }
        if is_last {
            self.end(out, meter);
            return Ok(Step::Done);
        }
        Ok(Step::More)
    }

    fn close(&mut self, out: &mut Vec<u8>, meter: &mut Meter) -> bool {
        let whole = self.told.is_whole();
        if whole {
            self.end(out, meter);
        }
        whole
    }

    fn fail(&mut self, failure: &Failure, out: &mut Vec<u8>) {
        sse::event(out, "", |out| chat::error(failure, out));
    }

    fn finish(&self) -> Option<Finish> {
        self.finish
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::dialect::oip::OipModel;
    use crate::dialect::{Stream, Usage, answer, can_translate, request};

    fn sent(body: &Value, oip: OipModel<'_>) -> Result<(Value, Vec<String>), Error> {
        let body = Bytes::from(body.to_string());
        let facts = Facts::read(Dialect::Chat, Operation::Completions, &body).unwrap();
        let out = request(&body, &facts, &Target { oip, ..Target::new(OIP, "llama") })?;
        Ok((serde_json::from_slice(&out.body).unwrap(), out.left_out))
    }

    fn asked(body: &Value) -> Asked {
        let body = Bytes::from(body.to_string());
        let facts = Facts::read(Dialect::Chat, Operation::Completions, &body).unwrap();
        Asked::new(&facts, body.clone(), "7f3a", 1_795_000_000)
    }

    /// What came out, whether it failed, and how it ended.
    fn streamed(asked: &Asked, text: &str) -> (String, Result<Step, Error>, Option<Finish>, Usage) {
        let mut stream = Stream::new(OIP, asked).unwrap();
        let mut out = Vec::new();
        let mut step = stream.push(text.as_bytes(), &mut out);
        if step == Ok(Step::More) && stream.close(&mut out).is_ok() {
            step = Ok(Step::Done);
        }
        (String::from_utf8(out).unwrap(), step, stream.finish(), stream.usage())
    }

    fn events(text: &str) -> Vec<Value> {
        let data = text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
        data.map(|data| serde_json::from_str(data).unwrap()).collect()
    }

    #[test]
    fn a_prompt_becomes_a_text_with_parameters() {
        let body = json!({"model": "m", "prompt": "Say \"hi\"", "max_tokens": 9, "temperature": 0.2, "seed": 7,
            "stop": ["END"], "user": "u", "logit_bias": {"5": 1}, "top_k": 40, "n": 1,
            "sampling_parameters": "{\"max_tokens\":9999}", "echo": false, "suffix": null});
        let (sent, mut left_out) = sent(&body, OipModel::DEFAULT).unwrap();
        left_out.sort();
        assert_eq!(left_out, ["logit_bias", "sampling_parameters", "user"]);
        assert_eq!(
            sent,
            json!({"text_input": "Say \"hi\"", "parameters": {"stream": false, "exclude_input_in_output": true,
                "max_tokens": 9, "stop": "END", "temperature": 0.2, "seed": 7, "top_k": 40}})
        );
    }

    #[test]
    fn a_model_may_have_other_names_and_parameters_of_its_own() {
        let parameters = [("return_finish_reason".to_owned(), json!(true)), ("top_k".to_owned(), json!(1))].into();
        let own =
            OipModel { input: "prompt_text", stop: "stop_words", parameters: Some(&parameters), ..OipModel::DEFAULT };
        let body = json!({"model": "m", "prompt": ["a"], "stop": ["x", "y"], "top_k": 40, "stream": true});
        let (sent, left_out) = sent(&body, own).unwrap();
        assert_eq!(left_out, ["top_k"], "the operator's counts");
        assert_eq!(
            sent,
            json!({"prompt_text": "a", "parameters": {"return_finish_reason": true, "top_k": 1, "stream": true,
                "exclude_input_in_output": true, "max_tokens": 16, "stop_words": ["x", "y"]}})
        );
    }

    #[test]
    fn what_a_text_cannot_say_is_refused_with_its_name() {
        let with = |name: &str, value: Value| {
            let mut body = json!({"model": "m", "prompt": "a"});
            body[name] = value;
            body
        };
        for (name, value) in [
            ("prompt", json!(["a", "b"])),
            ("prompt", json!([1, 2])),
            ("prompt", json!([[1, 2]])),
            ("n", json!(2)),
            ("best_of", json!(3)),
            ("echo", json!(true)),
            ("logprobs", json!(5)),
            ("suffix", json!("z")),
        ] {
            let error = sent(&with(name, value.clone()), OipModel::DEFAULT).unwrap_err();
            assert!(matches!(error, Error::Unsupported { ref field, .. } if field == name), "{name} {value}: {error}");
        }
        for (operation, from) in [
            (Operation::Chat, Dialect::Chat),
            (Operation::Chat, Dialect::Anthropic),
            (Operation::Completions, Dialect::Ollama),
            (Operation::Moderations, Dialect::Chat),
        ] {
            assert!(!can_translate(operation, from, OIP), "{from} {operation}");
        }
    }

    #[test]
    fn the_text_that_follows_is_a_completion() {
        let asked = asked(&json!({"model": "m", "prompt": "Hi", "max_tokens": 5}));
        let body = json!({"model_name": "llama", "model_version": "1", "text_output": "Ho \"ho\""});
        let told = answer(&Bytes::from(body.to_string()), OIP, &asked).unwrap();
        let out: Value = serde_json::from_slice(&told.body).unwrap();
        assert_eq!(
            (&out["object"], &out["model"], &out["id"]),
            (&json!("text_completion"), &json!("llama"), &json!("cmpl-7f3a"))
        );
        assert_eq!(
            out["choices"],
            json!([{"index": 0, "text": "Ho \"ho\"", "logprobs": null, "finish_reason": "stop"}])
        );
        assert_eq!(told.finish, Some(Finish::Other), "nobody said why");
        assert!(told.usage.estimated && out["usage"]["completion_tokens"].as_u64() > Some(0));

        let body = json!({"model_name": "llama", "text_output": ["Ho"], "finish_reason": "length", "num_input_tokens": 3,
            "num_output_tokens": [5]});
        let told = answer(&Bytes::from(body.to_string()), OIP, &asked).unwrap();
        assert_eq!(
            (told.usage.input_tokens, told.usage.output_tokens, told.usage.estimated),
            (Some(3), Some(5), false)
        );
        assert_eq!(told.finish, Some(Finish::Length));
        let body = json!({"text_output": "Ho", "num_output_tokens": 5});
        assert_eq!(answer(&Bytes::from(body.to_string()), OIP, &asked).unwrap().finish, Some(Finish::Length));
        for garbage in [json!({}), json!({"text_output": ["a", "b"]}), json!({"text_output": 5}), json!([])] {
            assert!(answer(&Bytes::from(garbage.to_string()), OIP, &asked).is_err(), "{garbage}");
        }
    }

    #[test]
    fn a_stream_of_pieces_is_one_of_chunks_and_ends_when_the_server_closes_it() {
        let asked =
            asked(&json!({"model": "m", "prompt": "Hi", "stream": true, "stream_options": {"include_usage": true}}));
        let text = "data: {\"model_name\":\"llama\",\"text_output\":\"Ho\"}\n\n: ping\n\n\
                    data: {\"model_name\":\"llama\",\"text_output\":\" ho\"}\n\n";
        let (out, step, finish, usage) = streamed(&asked, text);
        assert_eq!((step, finish), (Ok(Step::Done), Some(Finish::Other)));
        let seen = events(&out);
        let pieces: String = seen.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
        assert_eq!(pieces, "Ho ho");
        assert_eq!(seen[2]["choices"][0]["finish_reason"], "stop");
        assert_eq!(seen[3]["choices"], json!([]));
        assert_eq!(seen[3]["usage"]["completion_tokens"].as_u64(), usage.output_tokens);
        assert!(out.ends_with("data: [DONE]\n\n") && usage.estimated);
    }

    #[test]
    fn a_server_that_tells_reasons_and_counts_is_believed() {
        let asked = asked(&json!({"model": "m", "prompt": "Hi", "stream": true}));
        let piece = |text: &str, reason: &str| {
            format!(
                "data: {}\n\n",
                json!({"text_output": text, "finish_reason": reason, "num_input_tokens": 4, "num_output_tokens": 2})
            )
        };
        let whole = [piece("a", "None"), piece("", "length")].concat();
        let (_, step, finish, usage) = streamed(&asked, &whole);
        assert_eq!((step, finish), (Ok(Step::Done), Some(Finish::Length)));
        assert_eq!((usage.input_tokens, usage.output_tokens, usage.estimated), (Some(4), Some(4), false));
        let (out, step, finish, _) = streamed(&asked, &piece("a", "None"));
        assert_eq!((step, finish), (Ok(Step::More), None), "it broke off");
        assert!(!out.contains("[DONE]"));
        let (_, step, ..) = streamed(&asked, "data: {\"text_output\":\"a\",\"done\":true}\n\ndata: garbage\n\n");
        assert_eq!(step, Ok(Step::Done), "the protocol's own mark");
    }

    #[test]
    fn an_error_in_the_stream_and_garbage_are_no_answer() {
        let asked = asked(&json!({"model": "m", "prompt": "Hi", "stream": true}));
        let (out, step, ..) = streamed(&asked, "data: {\"error\":\"out of memory\"}\n\n");
        assert!(matches!(step, Ok(Step::Failed(ref failure)) if failure.message == "out of memory"), "{step:?}");
        assert_eq!(out, "");
        for garbage in ["data: {\n\n", "data: []\n\n", "data: {\"model_name\":\"m\"}\n\n"] {
            assert!(streamed(&asked, garbage).1.is_err(), "{garbage}");
        }
        assert_eq!(streamed(&asked, "").1, Ok(Step::More), "silence is no answer");
    }
}
