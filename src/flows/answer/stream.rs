//! An answer that is on its way to the caller.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::Stream;
use tokio::time::{Sleep, sleep};

use super::attempt::{Ended, Flowing, Lease};
use super::call::{Call, Spent};
use super::kept::{Keeping, worth};
use crate::dialect::{Failure, FailureKind, Step, Usage};
use crate::route::Fault;

/// Longest stream that is kept for the cache.
const KEPT_MAX_BYTES: usize = 1 << 20;
/// How long a source that has said everything may take to say that it is over; after it, its connection is closed.
const LINGER: Duration = Duration::from_millis(50);

/// Frames in the caller's dialect, whole ones, as they come. Dropping it before its end cancels the request, and settles and
/// records what was counted until then.
pub struct AnswerStream {
    call: Call,
    /// None once the answer is whole or broken.
    lease: Option<Lease>,
    flowing: Box<Flowing>,
    keeping: Option<(Box<Keeping>, Vec<u8>)>,
    deadline: Pin<Box<Sleep>>,
    linger: Option<Pin<Box<Sleep>>>,
    is_over: bool,
}

impl fmt::Debug for AnswerStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnswerStream").field("is_over", &self.is_over).finish_non_exhaustive()
    }
}

impl AnswerStream {
    pub(super) fn new(
        call: Call,
        lease: Lease,
        flowing: Box<Flowing>,
        keeping: Option<Box<Keeping>>,
        left: Duration,
    ) -> Self {
        let keeping = keeping.map(|keeping| (keeping, Vec::new()));
        let deadline = Box::pin(sleep(left));
        Self { call, lease: Some(lease), flowing, keeping, deadline, linger: None, is_over: false }
    }

    /// The media type of its frames.
    pub fn content_type(&self) -> &'static str {
        self.call.dialect().stream_content_type()
    }

    /// Whether a word of the answer came yet.
    pub fn has_text(&self) -> bool {
        self.flowing.translate.has_text()
    }

    /// The next frames, never empty; none: that was all, or the answer broke off and the frames have said so.
    pub fn poll_frames(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if !self.flowing.out.is_empty() {
                let out = Bytes::from(std::mem::take(&mut self.flowing.out));
                self.remember(&out);
                if let Some(end) = self.flowing.end.take() {
                    self.end(end);
                }
                return Poll::Ready(Some(out));
            }
            if let Some(end) = self.flowing.end.take() {
                self.end(end);
            }
            if self.is_over {
                return self.poll_linger(cx);
            }
            if self.deadline.as_mut().poll(cx).is_ready() {
                self.break_off(Failure::new(FailureKind::Timeout, "The answer did not end in time."));
                continue;
            }
            let Flowing { source, spoken, translate, out, end } = &mut *self.flowing;
            match source.poll_next(*spoken, cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(bytes))) => match translate.push(&bytes, out) {
                    Ok(Step::More) => {}
                    Ok(Step::Done) => *end = Some(Ended::Whole),
                    Ok(Step::Failed(failure)) => self.break_off(failure),
                    Err(error) => {
                        self.call.story.parts.dialect_metrics.error(self.call.dialect(), &error);
                        self.break_off(error.failure());
                    }
                },
                Poll::Ready(Some(Err(fell))) => self.break_off(*fell.failure),
                Poll::Ready(None) => match translate.close(out) {
                    Ok(()) => *end = Some(Ended::Whole),
                    Err(failure) => {
                        self.call.story.parts.dialect_metrics.cut(self.call.dialect());
                        self.break_off(failure);
                    }
                },
            }
        }
    }

    /// Tells the caller in the middle of its stream.
    fn break_off(&mut self, failure: Failure) {
        let Flowing { translate, out, end, .. } = &mut *self.flowing;
        translate.fail(&failure, out);
        *end = Some(Ended::Broken(failure));
    }

    fn remember(&mut self, out: &Bytes) {
        if let Some((_, kept)) = &mut self.keeping {
            if kept.len() + out.len() > KEPT_MAX_BYTES {
                self.keeping = None;
            } else {
                kept.extend_from_slice(out);
            }
        }
    }

    /// What was used so far, and what that costs.
    fn spent(&mut self, lease: &Lease) -> (Usage, Option<u64>) {
        let mut usage = self.flowing.translate.usage();
        usage.estimated |= self.flowing.source.estimates();
        let story = Arc::clone(&self.call.story);
        let used = self.flowing.source.used();
        self.call.took(story.here(lease.place(), used));
        let call = &self.call;
        (usage, story.cost_of(lease.place(), call.model_answered(), &usage, call.tier(), used))
    }

    /// The answer is whole, or broken for good.
    fn end(&mut self, end: Ended) {
        self.is_over = true;
        let Some(lease) = self.lease.take() else { return };
        let (usage, cost) = self.spent(&lease);
        match end {
            Ended::Whole => {
                lease.settle();
                self.call.end(200, "", &Spent::Used { usage, cost });
                if let Some((keeping, kept)) = self.keeping.take() {
                    let (story, content_type) = (&self.call.story, self.call.dialect().stream_content_type());
                    story.keep(*keeping, &self.call, content_type, kept.into(), worth(&usage, cost));
                }
            }
            Ended::Broken(failure) => {
                lease.fail(Fault::Cut, Duration::ZERO);
                self.keeping = None;
                self.call.broke(Fault::Cut.as_str());
                let status = failure.kind.status(self.call.dialect());
                self.call.end(status, Fault::Cut.as_str(), &Spent::Used { usage, cost });
            }
        }
    }

    /// Reads the source to its end, so that its connection can serve another request.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Flowing { source, spoken, .. } = &mut *self.flowing;
        loop {
            match source.poll_next(*spoken, cx) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(None | Some(Err(_))) => return Poll::Ready(None),
                Poll::Pending => {
                    let linger = self.linger.get_or_insert_with(|| Box::pin(sleep(LINGER)));
                    return linger.as_mut().poll(cx).map(|()| None);
                }
            }
        }
    }
}

impl Stream for AnswerStream {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        self.poll_frames(cx)
    }
}

impl Drop for AnswerStream {
    /// The caller left in the middle.
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            let (usage, cost) = self.spent(&lease);
            self.call.left(&Spent::Used { usage: Usage { estimated: true, ..usage }, cost });
        }
    }
}
