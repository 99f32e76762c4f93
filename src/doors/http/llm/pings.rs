//! A stream on its way out, with comments while it is silent.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Sleep, sleep};

use super::metrics::Metrics;
use crate::dialect::Dialect;
use crate::flows::answer::AnswerStream;

/// A comment of server-sent events: clients skip it.
const COMMENT: Bytes = Bytes::from_static(b": ping\n\n");

/// Frames, and comments between them.
pub(super) struct Pinged {
    stream: Box<AnswerStream>,
    /// Runs out every `ping`. None: its clients know no comments.
    silence: Option<Pin<Box<Sleep>>>,
    ping: Duration,
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
        let ping = Duration::from_millis(ping_ms);
        // None that is due at once: it would wake the thread that is about to send the first frame.
        let silence = (dialect != Dialect::Ollama).then(|| Box::pin(sleep(ping)));
        Self { stream, silence, ping, is_quiet: false, metrics, _place: place }
    }

    /// Whether a word of the answer came yet.
    pub(super) fn has_text(&self) -> bool {
        self.stream.has_text()
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
            let ping = self.ping;
            let Some(silence) = &mut self.silence else { return Poll::Pending };
            if silence.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            silence.set(sleep(ping));
            // The first time after a frame only begins the silence.
            if std::mem::replace(&mut self.is_quiet, true) {
                self.metrics.pings.inc();
                return Poll::Ready(Some(Ok(COMMENT)));
            }
        }
    }
}
