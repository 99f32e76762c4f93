//! A model whose server takes texts and no messages: its template makes the text here, and the answer's text is taken apart
//! here, into an answer of OpenAI's chat.

use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use serde_json::value::RawValue;

use super::fell::Fell;
use super::local::LocalFailure;
use super::telling::Telling;
use crate::dialect::{self, Asked, ChatRequest, Dialect, Finish, LocalChoice, Step, TextReader};
use crate::generate::{Chat, Reader, Script};
use crate::provider::ReplyBody;

/// What a template hears of somebody who wants no thoughts.
const NO_THOUGHTS: &str = r#"{"enable_thinking": false}"#;

/// A request in the words of a template, with these of its tools.
pub(in crate::flows) fn words<'a>(request: &ChatRequest<'a>, tools: Option<&'a RawValue>, now_unix_s: i64) -> Chat<'a> {
    let thinks_not = request.reasoning_effort.as_deref() == Some("none");
    Chat {
        messages: request.messages.get(),
        tools: tools.map(RawValue::get).filter(|tools| *tools != "null"),
        variables: request.template_variables.map(RawValue::get).or(thinks_not.then_some(NO_THOUGHTS)),
        now_unix_s: Some(now_unix_s),
    }
}

/// The text to ask with, of a body of OpenAI's chat, and what takes the answer apart. For a thread that may block.
pub(super) fn prompt(script: &Script, chat: &[u8], now_unix_s: i64) -> Result<(String, Reader), LocalFailure> {
    let request = ChatRequest::read(chat).map_err(|error| LocalFailure::of_request(&error))?;
    let tools = request.tools.filter(|_| !matches!(request.tool_choice, LocalChoice::None));
    script.prompt(&words(&request, tools, now_unix_s)).map_err(|error| LocalFailure::of_generation(&error))
}

/// An answer on its way, in OpenAI's dialect. Dropping it cancels.
pub(super) struct Scripted {
    body: Box<ReplyBody>,
    text: TextReader,
    reader: Reader,
    telling: Telling,
    /// What came so far of an answer that is no stream.
    whole: Option<BytesMut>,
    /// Everything is said.
    is_told: bool,
    /// The server's connection is done with it, too, and may be used again.
    is_over: bool,
}

impl Scripted {
    /// `asked` is a chat in OpenAI's dialect.
    pub(super) fn new(body: ReplyBody, reader: Reader, asked: Asked, stream: bool) -> Result<Self, dialect::Error> {
        let text = TextReader::new(&asked)?;
        let telling = Telling::new(asked, stream);
        let whole = (!stream).then(BytesMut::new);
        Ok(Self { body: Box::new(body), text, reader, telling, whole, is_told: false, is_over: false })
    }

    /// The next bytes, never empty; none: it ended as it should.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Fell>>> {
        while !self.is_over {
            let next = ready!(self.body.poll_next(cx)).transpose();
            self.is_over = !matches!(next, Ok(Some(_)));
            if self.is_told {
                continue;
            }
            let told =
                next.map_err(|failure| Fell::of_provider(&failure, Dialect::Oip)).and_then(|next| self.hear(next));
            match told {
                Ok(out) if out.is_empty() => {}
                Ok(out) => return Poll::Ready(Some(Ok(out.into()))),
                Err(fell) => {
                    self.is_over = true;
                    return Poll::Ready(Some(Err(fell)));
                }
            }
        }
        Poll::Ready(None)
    }

    /// More of it; none: the server has closed it.
    fn hear(&mut self, next: Option<Bytes>) -> Result<Vec<u8>, Fell> {
        let (mut said, mut is_last) = (String::new(), next.is_none());
        match (next, &mut self.whole) {
            (Some(bytes), Some(whole)) => whole.extend_from_slice(&bytes),
            (None, Some(whole)) => said = self.text.whole(whole).map_err(|error| Fell::of_dialect(&error))?,
            (None, None) => self.text.close().map_err(Fell::of_stream)?,
            (Some(bytes), None) => {
                match self.text.push(&bytes, &mut said).map_err(|error| Fell::of_dialect(&error))? {
                    Step::More => {}
                    Step::Done => is_last = true,
                    Step::Failed(failure) => return Err(Fell::of_stream(failure)),
                }
            }
        }
        let (mut out, mut pieces) = (Vec::new(), Vec::new());
        self.reader.push(&said, &mut pieces);
        if is_last {
            self.reader.finish(&mut pieces);
        }
        self.telling.pieces(&mut out, pieces, Vec::new());
        if is_last {
            self.is_told = true;
            self.telling.end(&mut out, self.reason(), &self.text.usage());
        }
        Ok(out)
    }

    /// Whether what was used so far is an estimate.
    pub(super) fn estimates(&self) -> bool {
        self.text.usage().estimated
    }

    fn reason(&self) -> &'static str {
        match self.text.finish() {
            Finish::Length => "length",
            Finish::Filtered => "content_filter",
            _ if self.reader.calls() > 0 => "tool_calls",
            _ => "stop",
        }
    }
}
