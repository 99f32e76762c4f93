//! The first word of an answer goes out before the next one is looked for.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::Stream;

/// A stream that rests once, behind the item that has its first word. The server writes out what it has when a body has
/// nothing more for it, and a provider that writes many words at once always has more: without the rest its first word
/// would wait here until the last one is translated, and the call is settled and recorded.
pub(super) struct First<S> {
    stream: S,
    /// Whether the first word is in what the stream has given.
    has_come: fn(&S) -> bool,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waits,
    GoesOut,
    Gone,
}

impl<S> First<S> {
    pub(super) fn new(stream: S, has_come: fn(&S) -> bool) -> Self {
        Self { stream, has_come, stage: Stage::Waits }
    }
}

impl<S: Stream + Unpin> Stream for First<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        if self.stage == Stage::GoesOut {
            self.stage = Stage::Gone;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let item = ready!(Pin::new(&mut self.stream).poll_next(cx));
        if self.stage == Stage::Waits && (self.has_come)(&self.stream) {
            self.stage = Stage::GoesOut;
        }
        Poll::Ready(item)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    use futures_util::stream;

    use super::*;

    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn it_rests_once_behind_the_first_word_and_wakes_itself() {
        let counted = Arc::new(Counted::default());
        let waker = Waker::from(Arc::clone(&counted));
        let mut cx = Context::from_waker(&waker);
        let mut first = First::new(stream::iter(["role", "word", "more"]), |rest| rest.size_hint().0 < 2);
        let mut next = || Pin::new(&mut first).poll_next(&mut cx);
        assert_eq!([next(), next(), next()], [Poll::Ready(Some("role")), Poll::Ready(Some("word")), Poll::Pending]);
        assert_eq!(counted.0.load(Ordering::SeqCst), 1);
        assert_eq!([next(), next()], [Poll::Ready(Some("more")), Poll::Ready(None)]);
        assert_eq!(counted.0.load(Ordering::SeqCst), 1);
    }
}
