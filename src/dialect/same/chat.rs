//! OpenAI's chunks.

use std::sync::LazyLock;

use memchr::memmem::Finder;

use super::body::pass_renamed;
use super::lean;
use crate::dialect::frame::Frame;
use crate::dialect::json;
use crate::dialect::pair::{Step, Translate};
use crate::dialect::usage::Meter;
use crate::dialect::{Asked, Dialect, Error, Failure, Finish, Operation, chat, sse};

/// Passes chunks on and reads the usage.
pub(super) struct Pass {
    include_usage: bool,
    model_shown: Option<String>,
    finish: Option<Finish>,
    /// A chat says in its first delta whose words they are.
    wants_role: bool,
}

impl Pass {
    pub(super) fn new(asked: &Asked) -> Self {
        Self {
            include_usage: asked.include_usage,
            model_shown: asked.model_shown.clone(),
            finish: None,
            wants_role: asked.operation == Operation::Chat,
        }
    }
}

impl Translate for Pass {
    fn frame(&mut self, frame: &Frame<'_>, out: &mut Vec<u8>, meter: &mut Meter) -> Result<Step, Error> {
        let Some(data) = &frame.data else {
            frame.keep_alive(out);
            return Ok(Step::More);
        };
        if data.starts_with(b"[DONE]") {
            out.extend_from_slice(b"data: [DONE]\n\n");
            return Ok(Step::Done);
        }
        if data.is_empty() {
            return Ok(Step::More);
        }
        let malformed = Error::Malformed { dialect: Dialect::Chat, what: "chunk of the stream" };
        let chunk: chat::Chunk<'_> = json::object(data).ok_or(malformed)?;
        if chunk.error.is_some() {
            return Ok(Step::Failed(Failure::read(Dialect::Chat, 200, data)));
        }
        let usage = chat::usage_in(&chunk);
        if let Some(usage) = &usage {
            meter.told(usage);
        }
        for choice in &chunk.choices {
            let delta = choice.delta.as_ref();
            let texts = [
                choice.text,
                delta.and_then(|delta| delta.content),
                delta.and_then(|delta| delta.refusal),
                delta.and_then(chat::Delta::thought),
            ];
            for text in texts.into_iter().flatten() {
                meter.said(json::inner(text).unwrap_or(text.get()));
            }
            for call in delta.and_then(|delta| delta.tool_calls.as_ref()).into_iter().flatten() {
                let function = call.function.as_ref();
                for text in function
                    .and_then(|function| function.name)
                    .into_iter()
                    .chain(function.and_then(|function| function.arguments))
                {
                    meter.said(json::inner(text).unwrap_or_default());
                }
            }
            if choice.index == 0
                && let Some(reason) = choice.finish_reason.and_then(json::text)
            {
                self.finish = Some(chat::finish_of(&reason));
            }
        }
        if usage.is_some() && chunk.choices.is_empty() && !self.include_usage {
            return Ok(Step::More);
        }
        let from = out.len();
        pass_renamed(frame.raw, chunk.model, self.model_shown.as_deref(), out);
        if self.wants_role
            && let Some(delta) = chunk.choices.first().and_then(|choice| choice.delta.as_ref())
        {
            self.wants_role = false;
            if delta.role.is_none() {
                lean::give_role(out, from);
            }
        }
        if !self.include_usage {
            without_usage(out, from);
        }
        Ok(Step::More)
    }

    fn close(&mut self, out: &mut Vec<u8>, _: &mut Meter) -> bool {
        if self.finish.is_some() {
            out.extend_from_slice(b"data: [DONE]\n\n");
        }
        self.finish.is_some()
    }

    fn fail(&mut self, failure: &Failure, out: &mut Vec<u8>) {
        sse::event(out, "", |out| chat::error(failure, out));
    }

    fn finish(&self) -> Option<Finish> {
        self.finish
    }
}

/// Takes the `null` away that stands in every chunk where the usage was asked for: it was not the caller who asked, and
/// strict clients take nothing but an object. Within a text the quotes would be escaped.
fn without_usage(out: &mut Vec<u8>, from: usize) {
    // Made once: to make one takes longer than to find nothing with it in a chunk.
    static KEY: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"usage\""));
    const FORMS: [(&[u8], &[u8]); 2] = [(b",", b"\"usage\":null"), (b", ", b"\"usage\": null")];
    let found = KEY.find_iter(&out[from..]).find_map(|at| {
        let (before, behind) = out[from..].split_at(at);
        let form = FORMS.iter().find(|(comma, null)| before.ends_with(comma) && behind.starts_with(null));
        form.map(|(comma, null)| from + at - comma.len()..from + at + null.len())
    });
    if let Some(member) = found {
        out.drain(member);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dialect::trial::{asked, full_stream, sse, streamed_by};

    fn run(wants_usage: bool, shown: Option<&str>, text: &str) -> crate::dialect::trial::Streamed {
        let body =
            json!({"model": "m", "stream": true, "stream_options": {"include_usage": wants_usage}, "messages": []});
        let asked = Asked { model_shown: shown.map(str::to_owned), ..asked(Dialect::Chat, &body) };
        streamed_by(&asked, Dialect::Chat, text, 1 << 20)
    }

    #[test]
    fn bytes_pass_and_the_usage_only_for_who_asked() {
        let text = sse(&full_stream(Dialect::Chat));
        assert_eq!(run(true, None, &text).text, text);
        let seen = run(false, None, &text);
        assert_eq!(seen.usage.output_tokens, Some(42), "it is known here all the same");
        let without: String = text.split_inclusive("\n\n").filter(|frame| !frame.contains("\"choices\":[]")).collect();
        assert_eq!(seen.text, without.replace(",\"usage\":null", ""));
    }

    #[test]
    fn bytes_that_are_no_event_stay_here_and_comments_pass() {
        let events = sse(&full_stream(Dialect::Chat));
        let seen = run(true, None, &format!("upstream {{]connect error\u{0}\n\n: hello\n\nretry: 5\n\n{events}"));
        assert_eq!(seen.text, format!(": ping\n\n{events}"));
    }

    #[test]
    fn each_chunk_carries_the_name_that_is_shown() {
        let seen = run(true, Some("alias"), &sse(&full_stream(Dialect::Chat)));
        assert_eq!(seen.text.matches("\"alias\"").count(), 11);
        assert!(!seen.text.contains("qwen"));
    }

    #[test]
    fn a_stream_without_usage_is_estimated() {
        let mut events = full_stream(Dialect::Chat);
        events.remove(10);
        let seen = run(false, None, &sse(&events));
        assert!(seen.usage.estimated);
        assert_eq!(seen.usage.input_tokens, Some(11));
        assert!((10..60).contains(&seen.usage.output_tokens.unwrap()), "{:?}", seen.usage);
    }
}
