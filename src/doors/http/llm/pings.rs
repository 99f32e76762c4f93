//! A stream on its way out, with comments while it is silent.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::metrics::Metrics;
use crate::dialect::Dialect;
use crate::flows::answer::AnswerStream;

/// A comment of server-sent events: clients skip it.
const COMMENT: Bytes = Bytes::from_static(b": ping\n\n");

/// Frames, and comments between them.
pub(super) struct Pinged {
    stream: Box<AnswerStream>,
    /// None: its clients know no comments.
    ticks: Option<Interval>,
    is_quiet: bool,
    metrics: Metrics,
    _place: OwnedSemaphorePermit,
}

impl Pinged {
    pub(super) fn new(
        stream: Box<AnswerStream>,
        dialect: Dialect,
        ping_ms: u64,
        metrics: Metrics,
        place: OwnedSemaphorePermit,
    ) -> Self {
        let ticks = (dialect != Dialect::Ollama).then(|| {
            let mut ticks = interval(Duration::from_millis(ping_ms));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        Self { stream, ticks, is_quiet: false, metrics, _place: place }
    }
}

impl Stream for Pinged {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Poll::Ready(frames) = self.stream.poll_frames(cx) {
            self.is_quiet = false;
            return Poll::Ready(frames.map(Ok));
        }
        loop {
            let Some(ticks) = &mut self.ticks else { return Poll::Pending };
            if ticks.poll_tick(cx).is_pending() {
                return Poll::Pending;
            }
            // The first tick after a frame only begins the silence.
            if std::mem::replace(&mut self.is_quiet, true) {
                self.metrics.pings.inc();
                return Poll::Ready(Some(Ok(COMMENT)));
            }
        }
    }
}
