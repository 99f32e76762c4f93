//! One answer, token by token.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::error::Error;
use super::language::{Language, Prompt};
use super::reply::{Piece, Reader};
use super::sampler::Sampler;
use super::sampling::Sampling;
use super::sequences::Lease;
use super::shape::Shape;
use super::text::{Stops, Utf8};

/// What form an answer must have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Format {
    /// Any text.
    #[default]
    Text,
    /// A JSON object: no token is chosen with which it could not become one. An answer that reaches its most tokens is cut like any
    /// other.
    JsonObject,
    /// What a JSON schema describes, given as JSON. No token is chosen with which it could not become that.
    Schema(String),
    /// What a JSON schema describes, any object if there is none, or a call of one of the tools with arguments that its `parameters`
    /// describe: which of them, the model chooses.
    SchemaOrCall {
        /// As of [`Format::Schema`].
        schema: Option<String>,
        /// As of [`Format::Call`].
        tools: String,
    },
    /// A call of a tool with arguments that its `parameters` describe, and nothing else.
    Call {
        /// A JSON list of tools, as in [`Chat::tools`](super::Chat::tools), which has to have them, too.
        tools: String,
        /// Those that may be called; none for all.
        names: Vec<String>,
    },
}

/// What an answer shall be.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Terms {
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// The most tokens; `generate.answer_tokens` if left out.
    pub tokens_max: Option<usize>,
    /// Texts before which the answer ends, at most 16.
    pub stops: Vec<String>,
    /// What form it must have.
    pub format: Format,
}

/// Why an answer is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model ended it.
    End,
    /// The model ended it, to hear what the tools say that it called.
    Calls,
    /// One of the stops came, by its place in [`Terms::stops`].
    Stop(usize),
    /// It has as many tokens as it may have.
    Length,
}

/// Tokens of an answer, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the prompt, whether they were read or reused.
    pub prompt_tokens: u64,
    /// Of the prompt, which were there from a request before.
    pub reused_tokens: u64,
    /// That were made, the one that ended the answer with them.
    pub answer_tokens: u64,
    /// Of these, of a thought.
    pub thought_tokens: u64,
}

/// A token that was chosen, where its probability was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Chosen {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The natural logarithm of its probability.
    pub logprob: f32,
    /// The best ones' bytes and logarithms, the best first; it may be among them.
    pub alternatives: Vec<(Vec<u8>, f32)>,
}

/// What a step brought.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Event {
    /// What is certain by now: nothing, while a prompt is read or a stop may be coming.
    pub pieces: Vec<Piece>,
    /// The token, where its probability was asked for. The text that it belongs to may come later.
    pub chosen: Option<Chosen>,
    /// Some in the last event.
    pub finish: Option<Finish>,
}

/// An answer that is being made. Dropped, it is called off; what it has read is kept for others that begin alike.
pub struct Generation {
    language: Arc<Language>,
    lease: Lease,
    /// Tokens that the decoder has not seen.
    unread: Vec<u32>,
    sampler: Sampler,
    shape: Option<Shape>,
    utf8: Utf8,
    stops: Stops,
    reader: Reader,
    /// A space that the tokenizer puts before every text is not said.
    drops_space: bool,
    tokens_max: u64,
    usage: Usage,
    finish: Option<Finish>,
}

impl Generation {
    pub(super) fn begin(
        language: &Arc<Language>,
        prompt: Prompt,
        terms: Terms,
        tokens_max: usize,
        take: impl FnOnce(&[u32], usize) -> Result<Lease, Error>,
    ) -> Result<Self, Error> {
        let Prompt { tokens, begins, mut forms } = prompt;
        let shape = Shape::of(language, &terms.format, &mut forms)?;
        let sampler = Sampler::new(terms.sampling, language.tokenizer().len(), &tokens)?;
        let stops = Stops::new(&terms.stops)?;
        let lease = take(&tokens, tokens.len() + tokens_max)?;
        let reused = lease.tokens().len();
        let usage = Usage { prompt_tokens: tokens.len() as u64, reused_tokens: reused as u64, ..Usage::default() };
        language.metrics.begun.inc();
        language.metrics.reused_tokens.inc_by(reused as u64);
        Ok(Self {
            unread: tokens[reused..].to_vec(),
            language: Arc::clone(language),
            lease,
            sampler,
            shape,
            utf8: Utf8::default(),
            stops,
            reader: Reader::new(forms),
            drops_space: begins && language.tokenizer().adds_space(),
            tokens_max: tokens_max as u64,
            usage,
            finish: None,
        })
    }

    /// Tokens so far; final once [`Event::finish`] has come, and true of an answer that was called off, too.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Computes on: a part of the prompt, or the next token. Blocks as long as the decoder does; an answer is called off
    /// between two steps. Behind the last event it only says again why the answer is over.
    ///
    /// # Errors
    /// [`Error::Scores`] ends the answer, and so do [`Error::Corner`] and [`Error::Request`] where a form was promised.
    pub fn step(&mut self) -> Result<Event, Error> {
        if self.finish.is_some() {
            return Ok(Event { finish: self.finish, ..Event::default() });
        }
        let count = self.unread.len().min(self.language.config.step_tokens.max(1));
        let part: Vec<u32> = self.unread.drain(..count).collect();
        let scores = self.lease.read(&part)?;
        if self.usage.answer_tokens == 0 {
            self.language.metrics.read_tokens.inc_by(part.len() as u64);
        }
        if !self.unread.is_empty() {
            return Ok(Event::default());
        }
        self.next(&scores)
    }

    fn next(&mut self, scores: &[f32]) -> Result<Event, Error> {
        let tokenizer = self.language.tokenizer();
        // A model may score more tokens than there are words for.
        let scores = &scores[..scores.len().min(tokenizer.len())];
        let shape = self.shape.as_ref();
        let may = |token: u32| shape.is_some_and(|shape| shape.may(token, tokenizer));
        let picked = self.sampler.pick(scores, shape.is_some().then_some(&may as &dyn Fn(u32) -> bool))?;
        self.usage.answer_tokens += 1;
        self.language.metrics.made_tokens.inc();
        let bytes = |token: u32| match tokenizer.piece(token) {
            [] => tokenizer.name(token).into_owned().into_bytes(),
            piece => piece.to_vec(),
        };
        let chosen = picked.logprob.as_ref().map(|(logprob, best)| Chosen {
            bytes: bytes(picked.token),
            logprob: *logprob,
            alternatives: best.iter().map(|&(token, logprob)| (bytes(token), logprob)).collect(),
        });
        let mut event = Event { chosen, ..Event::default() };
        if tokenizer.is_end(picked.token) {
            self.flush(&mut event.pieces);
            self.over(Finish::End, &mut event);
            return Ok(event);
        }
        let piece = tokenizer.piece(picked.token);
        if let Some(shape) = &mut self.shape {
            shape.read(picked.token, piece)?;
        }
        let mut text = String::new();
        self.utf8.push(piece, &mut text);
        if self.drops_space && !text.is_empty() {
            self.drops_space = false;
            if text.starts_with(' ') {
                text.remove(0);
            }
        }
        if self.reader.is_thinking() {
            self.usage.thought_tokens += 1;
        }
        let mut out = String::new();
        let stop = self.stops.push(&text, &mut out);
        self.reader.push(&out, &mut event.pieces);
        if let Some(at) = stop {
            self.reader.finish(&mut event.pieces);
            self.over(Finish::Stop(at), &mut event);
        } else if self.shape.as_ref().is_some_and(Shape::is_done) {
            self.flush(&mut event.pieces);
            self.over(Finish::End, &mut event);
        } else if self.usage.answer_tokens >= self.tokens_max {
            self.flush(&mut event.pieces);
            self.over(Finish::Length, &mut event);
        } else {
            self.unread.push(picked.token);
        }
        Ok(event)
    }

    /// What was held back goes out.
    fn flush(&mut self, pieces: &mut Vec<Piece>) {
        let (mut text, mut out) = (String::new(), String::new());
        self.utf8.finish(&mut text);
        // No stop can come of it: it is a replacement character at most.
        self.stops.push(&text, &mut out);
        self.stops.finish(&mut out);
        self.reader.push(&out, pieces);
        self.reader.finish(pieces);
    }

    fn over(&mut self, finish: Finish, event: &mut Event) {
        let calls = finish == Finish::End && self.reader.calls() > 0;
        self.finish = Some(if calls { Finish::Calls } else { finish });
        event.finish = self.finish;
    }

    /// Steps until it is over and sends what comes, on this thread, which must be one that may block. Called off when nobody
    /// takes it any more. `on_step` hears the tokens that were used so far before what a step brought is sent.
    pub fn send_to(mut self, events: &mpsc::Sender<Result<Event, Error>>, mut on_step: impl FnMut(&Usage)) {
        while !events.is_closed() {
            let event = self.step();
            on_step(&self.usage);
            let is_last = event.as_ref().map_or(true, |event| event.finish.is_some());
            // An event that says nothing is only progress.
            let is_silent = event.as_ref().is_ok_and(|event| *event == Event::default());
            if !is_silent && events.blocking_send(event).is_err() || is_last {
                break;
            }
        }
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        if self.finish.is_none() {
            self.language.metrics.called_off.inc();
        }
    }
}

impl std::fmt::Debug for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generation").field("usage", &self.usage).field("finish", &self.finish).finish_non_exhaustive()
    }
}
