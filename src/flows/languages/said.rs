//! What a model says, in OpenAI's dialect: in pieces as they come, or whole.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::failure;
use super::speaking::Gauge;
use crate::dialect::{
    Asked, ChatWriter, CompletionWriter, LocalAnswer, LocalCall, LocalToken, Operation, Usage, completion_body,
};
use crate::flows::answer::{LocalBody, LocalFailure};
use crate::generate::{self, Chosen, Event, Finish, Piece};
use crate::price::LocalUse;

enum Form {
    Pieces(ChatWriter),
    Whole,
    TextPieces(CompletionWriter),
    TextWhole,
}

/// An answer that is being made.
pub(super) struct Said {
    events: mpsc::Receiver<Result<Event, generate::Error>>,
    gauge: Arc<Gauge>,
    asked: Asked,
    form: Form,
    /// What a whole one has so far; of pieces only the number of calls counts.
    answer: LocalAnswer,
    calls: usize,
    is_over: bool,
}

impl Said {
    pub(super) fn new(
        events: mpsc::Receiver<Result<Event, generate::Error>>,
        gauge: Arc<Gauge>,
        asked: Asked,
        stream: bool,
    ) -> Self {
        let form = match (asked.operation, stream) {
            (Operation::Completions, true) => Form::TextPieces(CompletionWriter::new(&asked)),
            (Operation::Completions, false) => Form::TextWhole,
            (_, true) => Form::Pieces(ChatWriter::new(&asked)),
            (_, false) => Form::Whole,
        };
        Self { events, gauge, asked, form, answer: LocalAnswer::default(), calls: 0, is_over: false }
    }

    fn hear(&mut self, event: Event, out: &mut Vec<u8>) {
        let Event { pieces, chosen, finish } = event;
        let mut tokens: Vec<LocalToken> = chosen.map(token).into_iter().collect();
        for piece in pieces {
            match piece {
                Piece::Text(text) => self.text(out, &text, &std::mem::take(&mut tokens)),
                Piece::Thought(text) => match &mut self.form {
                    Form::Pieces(writer) => writer.reasoning(out, &text),
                    _ => self.answer.reasoning.push_str(&text),
                },
                Piece::Call(call) => {
                    let id = format!("call_{}_{}", self.asked.id, self.calls);
                    self.calls += 1;
                    let call = LocalCall { id, name: call.name, arguments: call.arguments };
                    match &mut self.form {
                        Form::Pieces(writer) => writer.call(out, &call),
                        _ => self.answer.calls.push(call),
                    }
                }
            }
        }
        if !tokens.is_empty() {
            self.text(out, "", &tokens);
        }
        if let Some(finish) = finish {
            self.is_over = true;
            self.end(out, finish);
        }
    }

    fn text(&mut self, out: &mut Vec<u8>, text: &str, tokens: &[LocalToken]) {
        match &mut self.form {
            Form::Pieces(writer) => writer.text(out, text, tokens),
            Form::TextPieces(writer) => writer.text(out, text, tokens),
            Form::Whole | Form::TextWhole => {
                self.answer.text.push_str(text);
                if !tokens.is_empty() {
                    self.answer.tokens.get_or_insert_default().extend_from_slice(tokens);
                }
            }
        }
    }

    fn end(&mut self, out: &mut Vec<u8>, finish: Finish) {
        let reason = match finish {
            Finish::End | Finish::Stop(_) => "stop",
            Finish::Calls => "tool_calls",
            Finish::Length => "length",
        };
        let used = self.gauge.usage();
        let usage = Usage {
            input_tokens: Some(used.prompt_tokens),
            output_tokens: Some(used.answer_tokens),
            cache_read_tokens: Some(used.reused_tokens),
            reasoning_tokens: Some(used.thought_tokens),
            ..Usage::default()
        };
        match &mut self.form {
            Form::Pieces(writer) => writer.end(out, reason, &usage),
            Form::TextPieces(writer) => writer.end(out, reason, &usage),
            Form::Whole => {
                reason.clone_into(&mut self.answer.finish_reason);
                *out = self.answer.body(&self.asked, &usage);
            }
            Form::TextWhole => {
                let LocalAnswer { text, tokens, .. } = &self.answer;
                *out = completion_body(&self.asked, text, tokens.as_deref(), reason, &usage);
            }
        }
    }
}

fn token(chosen: Chosen) -> LocalToken {
    let Chosen { bytes, logprob, alternatives } = chosen;
    LocalToken { bytes, logprob, alternatives }
}

impl LocalBody for Said {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, LocalFailure>>> {
        while !self.is_over {
            let event = ready!(self.events.poll_recv(cx));
            let event = event.unwrap_or_else(|| Err(generate::Error::Scores("it broke down".to_owned())));
            match event {
                Ok(event) => {
                    let mut out = Vec::new();
                    self.hear(event, &mut out);
                    if !out.is_empty() {
                        return Poll::Ready(Some(Ok(out.into())));
                    }
                }
                Err(error) => {
                    self.is_over = true;
                    return Poll::Ready(Some(Err(failure::of_generation(&error))));
                }
            }
        }
        Poll::Ready(None)
    }

    fn used(&self) -> Option<LocalUse> {
        self.gauge.used()
    }
}
