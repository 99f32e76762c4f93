//! One version of a model on this box: not loaded yet, loading, serving, or the reason why not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::conduct::Conduct;
use super::models::{Loaded, NotServing};
use super::pipeline_load::graph_of;
use super::tally::Tally;
use crate::catalog::{BatchWhen, LoadWhen, Model, Settled};
use crate::engine::{Batching, Serving, When};
use crate::pipeline::Graph;

/// Where a version is in its life.
#[derive(Clone)]
pub(super) enum State {
    /// Loads with the next request. The reason is that of an attempt which may succeed later.
    Asleep(Option<Arc<str>>),
    /// Somebody loads it.
    Loading,
    /// It answers.
    Serving(Arc<Loaded>),
    /// It cannot be loaded as it is.
    Refused(Arc<str>),
    /// Nobody wants it: unloaded, or outside of the version policy.
    Away(Arc<str>),
}

/// A version that the catalog has, with its state. Whoever asks for it waits here while it loads.
pub(super) struct Slot {
    pub(super) model: Arc<Model>,
    pub(super) how: Settled,
    /// Rows that one request may have; 0 is any number.
    pub(super) request_rows_max: u32,
    /// Counts on over being put to sleep.
    pub(super) tally: Arc<Tally>,
    /// The same.
    pub(super) conduct: Arc<Conduct>,
    /// Of a pipeline: its steps, or what is wrong with them.
    pub(super) graph: Option<Result<Arc<Graph>, String>>,
    state: watch::Sender<State>,
    /// Since boot, in milliseconds.
    used_ms: AtomicU64,
    waiting: AtomicUsize,
}

/// One of those who wait for a load.
struct Waits<'a>(&'a AtomicUsize);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Slot {
    /// Reads a pipeline's file: not for an async thread.
    pub(super) fn new(model: Arc<Model>, how: Settled, conduct: Conduct, state: State) -> Self {
        let (used_ms, waiting) = (AtomicU64::new(0), AtomicUsize::new(0));
        let (tally, conduct, graph) = (Arc::default(), Arc::new(conduct), graph_of(&model));
        let state = watch::Sender::new(state);
        Self { model, how, request_rows_max: 0, tally, conduct, graph, state, used_ms, waiting }
    }

    /// The same, for requests of at most so many rows.
    pub(super) fn with_request_rows_max(self, request_rows_max: u32) -> Self {
        Self { request_rows_max, ..self }
    }

    pub(super) fn version(&self) -> u32 {
        self.model.manifest.model.version
    }

    /// `name/version`.
    pub(super) fn title(&self) -> String {
        let about = &self.model.manifest.model;
        format!("{}/{}", about.name, about.version)
    }

    pub(super) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// The loaded model, if it serves.
    pub(super) fn loaded(&self) -> Option<Arc<Loaded>> {
        match &*self.state.borrow() {
            State::Serving(loaded) => Some(Arc::clone(loaded)),
            _ => None,
        }
    }

    /// Why a request cannot be answered, if that is so: a version that only sleeps can.
    pub(super) fn problem(&self) -> Option<Arc<str>> {
        match &*self.state.borrow() {
            State::Refused(reason) | State::Away(reason) => Some(Arc::clone(reason)),
            State::Asleep(_) | State::Loading | State::Serving(_) => None,
        }
    }

    pub(super) fn refusal(&self, reason: &str) -> NotServing {
        NotServing::Refused { name: self.title(), reason: reason.to_owned() }
    }

    pub(super) fn set(&self, state: State) {
        self.state.send_replace(state);
    }

    /// Begins a load: true for the one caller that has to do it.
    pub(super) fn begins_loading(&self) -> bool {
        self.state.send_if_modified(|state| match state {
            State::Asleep(_) => {
                *state = State::Loading;
                true
            }
            _ => false,
        })
    }

    /// What came of a load, unless somebody decided otherwise meanwhile.
    pub(super) fn ends_loading(&self, outcome: State) {
        self.state.send_if_modified(|state| {
            let waits = matches!(state, State::Loading);
            if waits {
                *state = outcome;
            }
            waits
        });
    }

    /// Puts it to sleep if it loads on request, answers, and nobody has it. True if it did.
    pub(super) fn sleeps(&self) -> bool {
        self.how.load == LoadWhen::Request
            && self.state.send_if_modified(|state| {
                // Two would be this one and a request's. Nobody can get another while the state is held here.
                let unused = matches!(state, State::Serving(loaded) if Arc::strong_count(loaded) == 1);
                if unused {
                    *state = State::Asleep(None);
                }
                unused
            })
    }

    pub(super) fn touch(&self, now: Duration) {
        self.used_ms.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn idle(&self, now: Duration) -> Duration {
        now.saturating_sub(Duration::from_millis(self.used_ms.load(Ordering::Relaxed)))
    }

    /// When it was used last, since boot.
    pub(super) fn used_ms(&self) -> u64 {
        self.used_ms.load(Ordering::Relaxed)
    }

    /// Waits until a load ends that is in progress: `None` once it serves, or the reason why it does not. At most `most`
    /// wait, each not longer than `patience`.
    pub(super) async fn loads(&self, most: usize, patience: Duration) -> Result<Arc<Loaded>, NotServing> {
        let waiting = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waits = Waits(&self.waiting);
        if waiting >= most {
            return Err(NotServing::Busy { name: self.title(), waiting, most });
        }
        let mut state = self.state.subscribe();
        let ended = state.wait_for(|state| !matches!(state, State::Loading));
        match tokio::time::timeout(patience, ended).await {
            Ok(Ok(ended)) => match &*ended {
                State::Serving(loaded) => Ok(Arc::clone(loaded)),
                State::Refused(reason) | State::Away(reason) | State::Asleep(Some(reason)) => Err(self.refusal(reason)),
                State::Asleep(None) | State::Loading => Err(self.refusal("it was put away while it loaded")),
            },
            // The slot is here, so its sender is.
            Ok(Err(_)) => Err(self.refusal("it was put away while it loaded")),
            Err(_) => Err(NotServing::Loading { name: self.title(), waited_ms: patience.as_millis() as u64 }),
        }
    }
}

/// The catalog's words in the engine's.
pub(super) fn serving(how: &Settled) -> Serving {
    Serving {
        memory_bytes: how.memory_bytes,
        concurrency_max: how.concurrency_max as usize,
        warm_up_runs: how.warm_up_runs,
        batching: Batching {
            when: match how.batching {
                BatchWhen::Auto => When::Pays,
                BatchWhen::On => When::Always,
                BatchWhen::Off => When::Never,
            },
            rows_max: how.batch_rows_max as usize,
            delay: Duration::from_micros(how.batch_delay_us),
        },
    }
}
