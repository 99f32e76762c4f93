//! Tokens with their probabilities.

use crate::dialect::write::{Object, string};

/// OpenAI's word for a probability of nothing.
const IMPOSSIBLE: f32 = -9999.0;

/// A token that was chosen, and its probability.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalToken {
    /// Its bytes, which may be a part of a character.
    pub bytes: Vec<u8>,
    /// The natural logarithm of its probability.
    pub logprob: f32,
    /// The best ones' bytes and logarithms, the best first.
    pub alternatives: Vec<(Vec<u8>, f32)>,
}

pub(super) fn write_logprob(out: &mut Vec<u8>, logprob: f32) {
    let told = if logprob.is_finite() { logprob } else { IMPOSSIBLE };
    serde_json::to_writer(out, &told).expect("a vector takes every write");
}

/// The text of bytes that need not be one.
pub(super) fn text(bytes: &[u8]) -> std::borrow::Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

fn write_token(to: &mut Object<'_>, bytes: &[u8], logprob: f32) {
    to.text("token", &text(bytes));
    write_logprob(to.key("logprob"), logprob);
    serde_json::to_writer(to.key("bytes"), bytes).expect("a vector takes every write");
}

/// `logprobs` of a choice of chat.
pub(super) fn write_chosen(out: &mut Vec<u8>, tokens: &[LocalToken]) {
    let mut logprobs = Object::new(out);
    {
        let mut content = logprobs.array("content");
        for token in tokens {
            let mut entry = content.object();
            write_token(&mut entry, &token.bytes, token.logprob);
            let mut alternatives = entry.array("top_logprobs");
            for (bytes, logprob) in &token.alternatives {
                write_token(&mut alternatives.object(), bytes, *logprob);
            }
        }
    }
    logprobs.null("refusal");
}

/// `logprobs` of a choice of completions; `before` is the length of the text that came before, in characters. Gives that
/// behind the last token.
pub(super) fn write_chosen_of_text(out: &mut Vec<u8>, tokens: &[LocalToken], before: usize) -> usize {
    let mut offset = before;
    let mut logprobs = Object::new(out);
    let list = |to: &mut Vec<u8>, write: &mut dyn FnMut(&mut Vec<u8>, &LocalToken)| {
        to.push(b'[');
        for (at, token) in tokens.iter().enumerate() {
            if at > 0 {
                to.push(b',');
            }
            write(to, token);
        }
        to.push(b']');
    };
    list(logprobs.key("tokens"), &mut |to, token| string(to, &text(&token.bytes)));
    list(logprobs.key("token_logprobs"), &mut |to, token| write_logprob(to, token.logprob));
    list(logprobs.key("top_logprobs"), &mut |to, token| {
        let mut best = Object::new(to);
        for (bytes, logprob) in &token.alternatives {
            write_logprob(best.key(&text(bytes)), *logprob);
        }
    });
    list(logprobs.key("text_offset"), &mut |to, token| {
        crate::dialect::write::number(to, offset as u64);
        offset += text(&token.bytes).chars().count();
    });
    drop(logprobs);
    offset
}
