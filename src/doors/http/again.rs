//! A task that wakes itself while it runs is run again at once, where it is.
//!
//! The parts of a request's task hand pieces to each other and wake each other for it: a body its connection, a connection
//! its body, there and on the way to a provider. The runtime takes such a wake for work that another thread might do,
//! and rouses one from its sleep, several times a request. That costs more than the request does.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// So often in a row; then others have their turn.
const TURNS_MAX: usize = 32;

/// Nobody runs it: who wakes it wakes the runtime's task.
const RESTS: u8 = 0;
/// It runs.
const RUNS: u8 = 1;
/// Something happened since it began to run, or to rest.
const AGAIN: u8 = 2;

#[derive(Default)]
struct Bell {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // Always a write, also where it is noted already: a turn begins by reading the last one, and so sees what was done
        // before every wake that it takes along. A wake that only looked could be passed by what it tells of (on ARM).
        let before = self.state.fetch_or(AGAIN, Ordering::AcqRel);
        if before & RUNS == 0 {
            self.task.wake();
        }
    }
}

/// Polls a future again for as long as it wakes itself, within a bound.
pub(super) struct Again<F> {
    future: F,
    bell: Arc<Bell>,
    waker: Waker,
}

impl<F: Future + Unpin> Again<F> {
    pub(super) fn new(future: F) -> Self {
        let bell = Arc::new(Bell::default());
        Self { future, waker: Waker::from(Arc::clone(&bell)), bell }
    }
}

impl<F: Future + Unpin> Future for Again<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Self { future, bell, waker } = &mut *self;
        bell.task.register(cx.waker());
        for _ in 0..TURNS_MAX {
            bell.state.swap(RUNS, Ordering::AcqRel);
            if let Poll::Ready(output) = Pin::new(&mut *future).poll(&mut Context::from_waker(waker)) {
                return Poll::Ready(output);
            }
            if bell.state.compare_exchange(RUNS, RESTS, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return Poll::Pending;
            }
        }
        bell.state.swap(RESTS, Ordering::AcqRel);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// How often it was polled and how often the runtime was woken, after one poll of a future that wakes itself `wakes` times.
    fn polls_and_wakes(wakes: usize) -> (usize, usize) {
        let (counted, mut polls) = (Arc::new(Counted::default()), 0);
        let waker = Waker::from(Arc::clone(&counted));
        {
            let mut again = Again::new(poll_fn(|cx| {
                polls += 1;
                if polls <= wakes {
                    cx.waker().wake_by_ref();
                    cx.waker().wake_by_ref();
                }
                Poll::<()>::Pending
            }));
            assert!(Pin::new(&mut again).poll(&mut Context::from_waker(&waker)).is_pending());
        }
        (polls, counted.0.load(Ordering::SeqCst))
    }

    #[test]
    fn a_task_that_wakes_itself_runs_again_without_the_runtime() {
        assert_eq!(polls_and_wakes(0), (1, 0));
        assert_eq!(polls_and_wakes(3), (4, 0));
    }

    #[test]
    fn a_task_that_never_stops_waking_itself_gives_way() {
        assert_eq!(polls_and_wakes(usize::MAX), (TURNS_MAX, 1));
    }

    #[test]
    fn who_wakes_it_while_it_rests_wakes_the_runtime_each_time() {
        let counted = Arc::new(Counted::default());
        let waker = Waker::from(Arc::clone(&counted));
        let mut inner = None;
        let mut again = Again::new(poll_fn(|cx| {
            inner = Some(cx.waker().clone());
            Poll::<()>::Pending
        }));
        for woken in 1..=3 {
            assert!(Pin::new(&mut again).poll(&mut Context::from_waker(&waker)).is_pending());
            again.waker.wake_by_ref();
            assert_eq!(counted.0.load(Ordering::SeqCst), woken);
        }
        drop(again);
        // Somebody may hold on to it longer than the task lives.
        inner.expect("it was polled").wake();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_of_another_thread_is_lost() {
        let (mine, theirs) = (tokio::sync::mpsc::channel(1), tokio::sync::mpsc::channel(1));
        let ((to_me, mut from_them), (to_them, mut from_me)) = (mine, theirs);
        let mut echo = tokio::task::JoinSet::new();
        echo.spawn(async move {
            while let Some(number) = from_me.recv().await {
                if to_me.send(number).await.is_err() {
                    return;
                }
            }
        });
        let asking = Box::pin(async move {
            for number in 0..20_000_u32 {
                to_them.send(number).await.expect("it listens");
                assert_eq!(from_them.recv().await, Some(number));
            }
        });
        Again::new(asking).await;
        echo.join_next().await.expect("it was spawned").expect("it ends with its channel");
    }
}
