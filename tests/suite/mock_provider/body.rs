//! The body of an answer: frames in their pace, and what goes wrong with them.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::server::Shared;

/// What comes after the frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Proper,
    /// The connection ends without the body's end.
    Broken,
    /// Nothing more comes.
    Stalled,
    /// The last frame again.
    Endless,
}

/// The server's end of a connection, which a fault may need.
pub(super) trait Cut: Send + Sync {
    /// From now on closing means resetting.
    fn reset_on_close(&self);
}

pub(super) struct MockBody {
    frames: Vec<Bytes>,
    at: usize,
    pace: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
    end: End,
    reset: Option<Arc<dyn Cut>>,
    shared: Arc<Shared>,
    is_over: bool,
    is_flushed: bool,
}

impl MockBody {
    pub(super) fn new(
        frames: Vec<Bytes>,
        pace: Duration,
        end: End,
        reset: Option<Arc<dyn Cut>>,
        shared: Arc<Shared>,
    ) -> Self {
        let is_over = frames.is_empty() && end == End::Proper;
        Self { frames, at: 0, pace, waiting: None, end, reset, shared, is_over, is_flushed: false }
    }
}

impl Body for MockBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        if this.at == this.frames.len() {
            match this.end {
                End::Proper => {
                    this.is_over = true;
                    return Poll::Ready(None);
                }
                End::Broken if !std::mem::replace(&mut this.is_flushed, true) => {
                    // What was said before goes out first.
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                End::Broken => {
                    this.is_over = true;
                    if let Some(reset) = this.reset.take() {
                        reset.reset_on_close();
                    }
                    return Poll::Ready(Some(Err("the mock was told to break off here".into())));
                }
                End::Stalled => return Poll::Pending,
                End::Endless => this.at -= 1,
            }
        }
        if this.at > 0 && !this.pace.is_zero() {
            let pace = this.pace;
            let waiting = this.waiting.get_or_insert_with(|| Box::pin(sleep(pace)));
            if waiting.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            this.waiting = None;
        }
        let frame = this.frames[this.at].clone();
        this.at += 1;
        Poll::Ready(Some(Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || (self.at == self.frames.len() && self.end == End::Proper)
    }

    /// A whole answer has a length, a stream has none.
    fn size_hint(&self) -> SizeHint {
        match (self.frames.len(), self.end) {
            (0 | 1, End::Proper) => {
                SizeHint::with_exact(self.frames[self.at..].iter().map(|frame| frame.len() as u64).sum())
            }
            _ => SizeHint::default(),
        }
    }
}

impl Drop for MockBody {
    fn drop(&mut self) {
        if !self.is_end_stream() {
            self.shared.cut();
        }
    }
}
