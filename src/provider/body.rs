//! The body of an answer: bytes as they come, within the times and the length that the configuration allows.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::{Sleep, sleep};

use super::error::{Class, Failure};
use super::event_stream::{Part, Unwrapper};
use super::metrics::{Counters, InFlight};
use super::pool::Exchange;
use crate::base::Name;

/// Where the bytes come from.
enum Source {
    Wire(Box<Exchange>),
    /// Of the fake.
    Frames(VecDeque<Result<Bytes, Failure>>),
    Ended,
}

/// The bounds of one body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) idle: Duration,
    pub(super) total: Duration,
    pub(super) bytes: u64,
}

/// A silence is measured in parts of this many, so that a piece costs no new timer: it is noticed at most one part late.
const PARTS: u32 = 4;

/// The body of an answer. Dropping it before its end closes the connection, which is how a request is cancelled.
pub struct ReplyBody {
    source: Source,
    provider: Name,
    bounds: Bounds,
    left: u64,
    /// From the first time that somebody waits.
    timers: Option<Timers>,
    /// Parts of the longest silence since the last piece.
    silent_parts: u32,
    unwrapper: Option<Unwrapper>,
    counters: Counters,
    _in_flight: Option<InFlight>,
}

/// What runs out while somebody waits. Pinned each for itself: the second is looked at only when the first has run out.
struct Timers {
    part: Pin<Box<Sleep>>,
    total: Pin<Box<Sleep>>,
}

impl fmt::Debug for ReplyBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyBody").field("provider", &self.provider).field("left", &self.left).finish_non_exhaustive()
    }
}

impl ReplyBody {
    pub(super) fn of_wire(
        exchange: Exchange,
        provider: Name,
        bounds: Bounds,
        unwrapper: Option<Unwrapper>,
        counters: Counters,
        in_flight: Option<InFlight>,
    ) -> Self {
        Self {
            source: Source::Wire(Box::new(exchange)),
            provider,
            bounds,
            left: bounds.bytes,
            timers: None,
            silent_parts: 0,
            unwrapper,
            counters,
            _in_flight: in_flight,
        }
    }

    pub(super) fn of_frames(provider: Name, frames: VecDeque<Result<Bytes, Failure>>) -> Self {
        let bounds = Bounds { idle: Duration::MAX, total: Duration::MAX, bytes: u64::MAX };
        Self {
            source: Source::Frames(frames),
            provider,
            bounds,
            left: bounds.bytes,
            timers: None,
            silent_parts: 0,
            unwrapper: None,
            counters: Counters::default(),
            _in_flight: None,
        }
    }

    /// The next bytes, never empty; none: it ended as it should. After an error there is nothing more.
    pub async fn next(&mut self) -> Option<Result<Bytes, Failure>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// [`next`](Self::next) for those who poll.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        let polled = self.poll_source(cx);
        match &polled {
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(Some(Err(failure))) => {
                self.counters.cut(failure.class);
                self.end();
            }
            Poll::Ready(None) => self.end(),
            Poll::Pending => {}
        }
        polled
    }

    /// All of it.
    ///
    /// # Errors
    /// Like [`next`](Self::next), or if it is longer than `answer_bytes_max`.
    pub async fn collect(mut self) -> Result<Bytes, Failure> {
        let Some(first) = self.next().await.transpose()? else { return Ok(Bytes::new()) };
        let Some(second) = self.next().await.transpose()? else { return Ok(first) };
        let mut whole = BytesMut::from(first);
        whole.extend_from_slice(&second);
        while let Some(more) = self.next().await.transpose()? {
            whole.extend_from_slice(&more);
        }
        Ok(whole.freeze())
    }

    fn end(&mut self) {
        self.source = Source::Ended;
        (self.timers, self._in_flight) = (None, None);
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        loop {
            if let Some(unwrapper) = &mut self.unwrapper {
                match unwrapper.next() {
                    Ok(None) => {}
                    Ok(Some(Part::Payload(bytes))) if bytes.is_empty() => continue,
                    Ok(Some(Part::Payload(bytes))) => return Poll::Ready(Some(Ok(bytes))),
                    Ok(Some(Part::Exception(name))) => {
                        let reason = format!("its stream ended with {name}");
                        return Poll::Ready(Some(Err(self.failure(Class::Unavailable, reason))));
                    }
                    Err(reason) => return Poll::Ready(Some(Err(self.failure(Class::Malformed, reason)))),
                }
            }
            let polled = match &mut self.source {
                Source::Wire(exchange) => exchange.poll_next(cx),
                Source::Frames(frames) => Poll::Ready(frames.pop_front()),
                Source::Ended => Poll::Ready(None),
            };
            match polled {
                Poll::Pending => return self.poll_time(cx),
                Poll::Ready(Some(Ok(bytes))) => {
                    self.silent_parts = 0;
                    self.counters.received.inc_by(bytes.len() as u64);
                    match self.left.checked_sub(bytes.len() as u64) {
                        Some(left) => self.left = left,
                        None => {
                            let reason = format!("its answer is longer than {} bytes", self.bounds.bytes);
                            return Poll::Ready(Some(Err(self.failure(Class::Malformed, reason))));
                        }
                    }
                    match &mut self.unwrapper {
                        Some(unwrapper) => unwrapper.push(&bytes),
                        None => return Poll::Ready(Some(Ok(bytes))),
                    }
                }
                Poll::Ready(None) if self.unwrapper.as_ref().is_some_and(Unwrapper::is_within) => {
                    self.unwrapper = None;
                    let reason = "its stream ended within a message".to_owned();
                    return Poll::Ready(Some(Err(self.failure(Class::Unavailable, reason))));
                }
                end => return end,
            }
        }
    }

    /// Nothing came.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        let Bounds { idle, total, .. } = self.bounds;
        let part = idle.min(total) / PARTS;
        let timers =
            self.timers.get_or_insert_with(|| Timers { part: Box::pin(sleep(part)), total: Box::pin(sleep(total)) });
        while timers.part.as_mut().poll(cx).is_ready() {
            self.silent_parts += 1;
            // The piece before may have come in the middle of the first part.
            let reason = if part * (self.silent_parts - 1) >= idle {
                format!("it was silent for {} ms in the middle of its answer", idle.as_millis())
            } else if timers.total.as_mut().poll(cx).is_ready() {
                format!("its answer took longer than {} ms", total.as_millis())
            } else {
                timers.part.set(sleep(part));
                continue;
            };
            return Poll::Ready(Some(Err(self.failure(Class::Timeout, reason))));
        }
        Poll::Pending
    }

    fn failure(&self, class: Class, reason: String) -> Failure {
        Failure::sent(&self.provider, class, reason)
    }
}
