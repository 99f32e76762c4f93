//! What a model says, in OpenAI's dialect.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::sync::mpsc;

use super::speaking::Gauge;
use crate::dialect::{Asked, LocalToken, Usage};
use crate::flows::answer::{LocalBody, LocalFailure, Telling};
use crate::generate::{self, Chosen, Event, Finish};
use crate::price::LocalUse;

/// An answer that is being made.
pub(super) struct Said {
    events: mpsc::Receiver<Result<Event, generate::Error>>,
    gauge: Arc<Gauge>,
    telling: Telling,
    is_over: bool,
}

impl Said {
    pub(super) fn new(
        events: mpsc::Receiver<Result<Event, generate::Error>>,
        gauge: Arc<Gauge>,
        asked: Asked,
        stream: bool,
    ) -> Self {
        Self { events, gauge, telling: Telling::new(asked, stream), is_over: false }
    }

    fn hear(&mut self, event: Event, out: &mut Vec<u8>) {
        let Event { pieces, chosen, finish } = event;
        self.telling.pieces(out, pieces, chosen.map(token).into_iter().collect());
        if let Some(finish) = finish {
            self.is_over = true;
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
            self.telling.end(out, reason, &usage);
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
                    return Poll::Ready(Some(Err(LocalFailure::of_generation(&error))));
                }
            }
        }
        Poll::Ready(None)
    }

    fn used(&self) -> Option<LocalUse> {
        self.gauge.used()
    }
}
