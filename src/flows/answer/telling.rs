//! What a model says, piece by piece, as an answer in OpenAI's dialect: in chunks as they come, or whole.

use crate::dialect::{
    Asked, ChatWriter, CompletionWriter, LocalAnswer, LocalCall, LocalToken, Operation, Usage, completion_body,
};
use crate::generate::Piece;

enum Form {
    Pieces(ChatWriter),
    Whole,
    TextPieces(CompletionWriter),
    TextWhole,
}

/// Writes one answer.
pub(in crate::flows) struct Telling {
    asked: Asked,
    form: Form,
    /// What a whole one has so far.
    answer: LocalAnswer,
    calls: usize,
}

impl Telling {
    /// For whoever asked.
    pub(in crate::flows) fn new(asked: Asked, stream: bool) -> Self {
        let form = match (asked.operation, stream) {
            (Operation::Completions, true) => Form::TextPieces(CompletionWriter::new(&asked)),
            (Operation::Completions, false) => Form::TextWhole,
            (_, true) => Form::Pieces(ChatWriter::new(&asked)),
            (_, false) => Form::Whole,
        };
        Self { asked, form, answer: LocalAnswer::default(), calls: 0 }
    }

    /// More of it, and the tokens that were chosen meanwhile where their probabilities are wanted.
    pub(in crate::flows) fn pieces(&mut self, out: &mut Vec<u8>, pieces: Vec<Piece>, mut tokens: Vec<LocalToken>) {
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

    /// The end: `stop`, `length`, `tool_calls` or `content_filter`, and the usage.
    pub(in crate::flows) fn end(&mut self, out: &mut Vec<u8>, reason: &str, usage: &Usage) {
        match &mut self.form {
            Form::Pieces(writer) => writer.end(out, reason, usage),
            Form::TextPieces(writer) => writer.end(out, reason, usage),
            Form::Whole => {
                reason.clone_into(&mut self.answer.finish_reason);
                *out = self.answer.body(&self.asked, usage);
            }
            Form::TextWhole => {
                let LocalAnswer { text, tokens, .. } = &self.answer;
                *out = completion_body(&self.asked, text, tokens.as_deref(), reason, usage);
            }
        }
    }
}
