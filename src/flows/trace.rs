//! Traces of requests, with Triton's settings and names: when a version was asked, waited and computed. None until somebody
//! switches them on; the newest are kept in memory, and what was asked and answered is never in them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::backend::Outputs;
use super::fault::Fault;
use super::key::Key;
use super::models::Loaded;

/// Traces that are kept; the oldest makes room.
const TRACES_MAX: usize = 1024;
/// Models with settings of their own.
const MODELS_MAX: usize = 256;
/// Texts of callers are cut to so many characters.
const TEXT_CHARS: usize = 128;
/// One of so many requests is traced where nobody said another number.
const RATE: u32 = 1000;

/// What is traced, of all models or of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceSetting {
    /// Whether anything is.
    pub timestamps: bool,
    /// One of so many requests; 0 is none.
    pub rate: u32,
    /// So many more; None is any number.
    pub count: Option<u32>,
}

/// What becomes of a setting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Change<T> {
    /// It stays.
    #[default]
    Keep,
    /// Of a model: as for all of them. Of all: as at the start.
    Clear,
    /// This.
    To(T),
}

/// What becomes of the settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TraceChange {
    /// Whether anything is traced.
    pub timestamps: Change<bool>,
    /// One of so many requests.
    pub rate: Change<u32>,
    /// So many more; None is any number.
    pub count: Change<Option<u32>>,
}

/// One version that was asked once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// Ascending since the start.
    pub id: u64,
    /// That of the pipeline whose step it was.
    pub parent: Option<u64>,
    /// The model.
    pub model: String,
    /// The version.
    pub version: u32,
    /// What the caller calls the request.
    pub request: Option<String>,
    /// Why there is no answer.
    pub error: Option<String>,
    /// Moments in the order in which they were, in nanoseconds since boot, under Triton's names.
    pub moments: Vec<(&'static str, u64)>,
}

/// A request on its way through a door, while requests are traced.
#[derive(Debug)]
pub struct Exchange {
    /// From when until when its body came, both since boot.
    received: (Duration, Duration),
    /// The trace of the version that answered last; 0 while there is none.
    trace: AtomicU64,
}

impl Exchange {
    /// One whose body came from `began` until `ended`, both since boot.
    pub fn received(began: Duration, ended: Duration) -> Self {
        Self { received: (began, ended), trace: AtomicU64::new(0) }
    }
}

/// A trace that has begun.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) id: u64,
    parent: Option<u64>,
}

/// What somebody said, and how far it got.
#[derive(Debug, Clone, Copy, Default)]
struct Scope {
    timestamps: Option<bool>,
    rate: Option<u32>,
    count: Option<Option<u32>>,
    seen: u64,
    taken: u32,
}

#[derive(Debug, Default)]
struct Inner {
    all: Scope,
    models: BTreeMap<String, Scope>,
    traces: VecDeque<Trace>,
    last_id: u64,
    overwritten: u64,
}

/// The traces, and what is to be traced.
#[derive(Debug, Default)]
pub struct Traces {
    /// Whether a request has to look any further.
    is_on: AtomicBool,
    inner: Mutex<Inner>,
}

fn name(model: &str) -> &str {
    model.split_once('@').map_or(model, |(name, _)| name)
}

impl Scope {
    fn change(&mut self, change: TraceChange) {
        fn to<T: Copy>(is: &mut Option<T>, change: Change<T>) {
            match change {
                Change::Keep => {}
                Change::Clear => *is = None,
                Change::To(new) => *is = Some(new),
            }
        }
        to(&mut self.timestamps, change.timestamps);
        to(&mut self.rate, change.rate);
        to(&mut self.count, change.count);
        if change.count != Change::Keep {
            self.taken = 0;
        }
    }

    fn says_nothing(&self) -> bool {
        self.timestamps.is_none() && self.rate.is_none() && self.count.is_none()
    }
}

impl Inner {
    /// `model` may have an alias behind `@`: a trace is a model's.
    fn setting(&self, model: Option<&str>) -> TraceSetting {
        let own = model.and_then(|model| self.models.get(name(model)));
        let scope = own.unwrap_or(&self.all);
        let timestamps = scope.timestamps.or(self.all.timestamps).unwrap_or(false);
        let rate = scope.rate.or(self.all.rate).unwrap_or(RATE);
        let count = scope.count.or(self.all.count).flatten();
        TraceSetting { timestamps, rate, count: count.map(|count| count.saturating_sub(scope.taken)) }
    }

    /// Whether this request is one of those that are traced.
    fn takes(&mut self, model: &str) -> bool {
        let TraceSetting { timestamps, rate, count } = self.setting(Some(model));
        if !timestamps || rate == 0 || count == Some(0) {
            return false;
        }
        let scope = self.models.get_mut(model).unwrap_or(&mut self.all);
        scope.seen += 1;
        let takes = scope.seen.is_multiple_of(u64::from(rate));
        scope.taken = scope.taken.saturating_add(u32::from(takes));
        takes
    }

    fn any_on(&self) -> bool {
        self.all.timestamps == Some(true) || self.models.values().any(|scope| scope.timestamps == Some(true))
    }
}

impl Traces {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing below panics halfway through a change.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether anything is traced.
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// What is traced of a model, or of those that have no settings of their own.
    pub fn setting(&self, model: Option<&str>) -> TraceSetting {
        self.lock().setting(model)
    }

    /// Changes it, in the name of `who`. An error if too many models have settings of their own.
    pub fn change(&self, who: &str, model: Option<&str>, change: TraceChange) -> Result<(), String> {
        let mut inner = self.lock();
        match model {
            None => inner.all.change(change),
            Some(model) => {
                let model = name(model);
                let is_new = !inner.models.contains_key(model);
                if is_new && inner.models.len() >= MODELS_MAX {
                    return Err(format!("{MODELS_MAX} models have trace settings of their own, which is the most"));
                }
                let scope = inner.models.entry(model.to_owned()).or_default();
                scope.change(change);
                if scope.says_nothing() {
                    inner.models.remove(model);
                }
            }
        }
        self.is_on.store(inner.any_on(), Ordering::Relaxed);
        let TraceSetting { timestamps, rate, count } = inner.setting(model);
        tracing::info!(who, model, timestamps, rate, count, "traces of requests are set");
        Ok(())
    }

    /// The newest traces, the oldest of them first, of one model or of all; and how many had to make room since the start.
    pub fn newest(&self, model: Option<&str>) -> (Vec<Trace>, u64) {
        let inner = self.lock();
        let wanted = inner.traces.iter().filter(|trace| model.is_none_or(|model| trace.model == model));
        (wanted.cloned().collect(), inner.overwritten)
    }

    /// Begins a trace, if this request for a model is one of those that are traced, or a step of one that is.
    pub(super) fn begin(&self, model: &str, parent: Option<u64>) -> Option<Begun> {
        if !self.is_on() {
            return None;
        }
        let mut inner = self.lock();
        if parent.is_none() && !inner.takes(model) {
            return None;
        }
        inner.last_id += 1;
        Some(Begun { id: inner.last_id, parent })
    }

    /// A request of `began` got this answer at `done`, both since boot.
    pub(super) fn end(
        &self,
        begun: &Begun,
        loaded: &Loaded,
        key: &Key,
        answer: &Result<Outputs, Fault>,
        (began, done): (Duration, Duration),
    ) {
        let cut = |text: &str| text.chars().take(TEXT_CHARS).collect::<String>();
        // A step of a pipeline did not come through a door.
        let exchange = key.exchange.as_ref().filter(|_| begun.parent.is_none());
        let mut moments = Vec::new();
        if let Some(exchange) = exchange {
            let (from, until) = exchange.received;
            moments.extend([("HTTP_RECV_START", ns(from)), ("HTTP_RECV_END", ns(until))]);
        }
        moments.push(("REQUEST_START", ns(began)));
        if let (Ok(outputs), Some(_)) = (answer, loaded.handle.handle()) {
            // The engine says how long it took; its answer is here at once.
            let computes = done.saturating_sub(Duration::from_micros(outputs.duration_us)).max(began);
            let queued = computes.saturating_sub(Duration::from_micros(outputs.run.waited_us)).max(began);
            let ends = [("COMPUTE_INPUT_END", computes), ("COMPUTE_OUTPUT_START", done), ("COMPUTE_END", done)];
            moments.extend([("QUEUE_START", ns(queued)), ("COMPUTE_START", ns(computes))]);
            moments.extend(ends.map(|(name, at)| (name, ns(at))));
        }
        moments.push(("REQUEST_END", ns(done)));
        let about = &loaded.manifest.model;
        let trace = Trace {
            id: begun.id,
            parent: begun.parent,
            model: about.name.to_string(),
            version: about.version,
            request: key.request.as_ref().map(|request| cut(request)),
            error: answer.as_ref().err().map(|fault| cut(&fault.error.to_string())),
            moments,
        };
        let mut inner = self.lock();
        if inner.traces.len() == TRACES_MAX {
            inner.traces.pop_front();
            inner.overwritten += 1;
        }
        inner.traces.push_back(trace);
        if let Some(exchange) = exchange {
            exchange.trace.store(begun.id, Ordering::Relaxed);
        }
    }

    /// The answer to `exchange` was written from `began` until `ended`, both since boot. Nothing where it is not traced, or
    /// its trace had to make room.
    pub fn sent(&self, exchange: &Exchange, began: Duration, ended: Duration) {
        let id = exchange.trace.load(Ordering::Relaxed);
        if id == 0 {
            return;
        }
        let mut inner = self.lock();
        if let Some(trace) = inner.traces.iter_mut().rev().find(|trace| trace.id == id) {
            trace.moments.extend([("HTTP_SEND_START", ns(began)), ("HTTP_SEND_END", ns(ended))]);
        }
    }
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(rate: u32, count: Option<u32>) -> TraceChange {
        TraceChange { timestamps: Change::To(true), rate: Change::To(rate), count: Change::To(count) }
    }

    fn taken(traces: &Traces, model: &str, requests: usize) -> usize {
        (0..requests).filter(|_| traces.begin(model, None).is_some()).count()
    }

    #[test]
    fn nothing_is_traced_until_it_is_switched_on_and_then_one_of_so_many_up_to_a_count() {
        let traces = Traces::default();
        assert_eq!(traces.setting(None), TraceSetting { timestamps: false, rate: 1000, count: None });
        assert_eq!((traces.is_on(), taken(&traces, "press", 5000)), (false, 0));
        traces.change("a", None, TraceChange { timestamps: Change::To(true), ..TraceChange::default() }).unwrap();
        assert_eq!(taken(&traces, "press", 5000), 5);
        traces.change("a", None, on(2, Some(3))).unwrap();
        assert_eq!((taken(&traces, "press", 100), traces.setting(None).count), (3, Some(0)));
        traces.change("a", None, TraceChange { count: Change::Clear, ..TraceChange::default() }).unwrap();
        assert_eq!(taken(&traces, "press", 100), 50);
        traces.change("a", None, TraceChange { rate: Change::To(0), ..TraceChange::default() }).unwrap();
        assert_eq!(taken(&traces, "press", 100), 0);
    }

    #[test]
    fn a_models_own_settings_go_before_those_of_all_until_they_are_cleared() {
        let traces = Traces::default();
        traces.change("a", None, on(1, None)).unwrap();
        traces
            .change("a", Some("press"), TraceChange { timestamps: Change::To(false), ..TraceChange::default() })
            .unwrap();
        assert_eq!((taken(&traces, "press", 9), taken(&traces, "drill", 9)), (0, 9));
        assert_eq!(traces.setting(Some("press")).rate, 1, "what it does not say is as for all");
        traces.change("a", Some("press"), on(3, Some(2))).unwrap();
        assert_eq!((taken(&traces, "press", 30), taken(&traces, "drill", 9)), (2, 9));
        let clear = TraceChange { timestamps: Change::Clear, rate: Change::Clear, count: Change::Clear };
        traces.change("a", Some("press"), clear).unwrap();
        assert_eq!(taken(&traces, "press", 30), 30);
        traces.change("a", None, clear).unwrap();
        assert!(!traces.is_on());
        // Only one model.
        traces.change("a", Some("press"), on(1, None)).unwrap();
        assert_eq!((taken(&traces, "press", 4), taken(&traces, "drill", 4)), (4, 0));
        for at in 1..MODELS_MAX {
            traces.change("a", Some(&format!("m{at}")), on(1, None)).unwrap();
        }
        assert!(traces.change("a", Some("one-more"), on(1, None)).unwrap_err().contains("256 models"));
    }

    #[test]
    fn an_answer_that_is_not_traced_is_nobodys() {
        let (traces, at) = (Traces::default(), Duration::from_secs);
        traces.sent(&Exchange::received(at(1), at(2)), at(3), at(4));
        let (gone, exchange) = (Exchange::received(at(1), at(2)), Exchange::received(at(1), at(2)));
        gone.trace.store(7, Ordering::Relaxed);
        exchange.trace.store(8, Ordering::Relaxed);
        let trace = Trace {
            id: 8,
            parent: None,
            model: "press".to_owned(),
            version: 1,
            request: None,
            error: None,
            moments: vec![("REQUEST_END", 2_500_000_000)],
        };
        traces.lock().traces.push_back(trace);
        traces.sent(&gone, at(3), at(4));
        traces.sent(&exchange, at(3), at(4));
        let (found, _) = traces.newest(None);
        let sent =
            [("REQUEST_END", 2_500_000_000), ("HTTP_SEND_START", 3_000_000_000), ("HTTP_SEND_END", 4_000_000_000)];
        assert_eq!(found[0].moments, sent);
    }

    #[test]
    fn a_step_of_a_traced_request_is_traced_whatever_its_models_rate() {
        let traces = Traces::default();
        traces.change("a", Some("page"), on(1, Some(1))).unwrap();
        let page = traces.begin("page", None).unwrap();
        assert_eq!(traces.begin("part", Some(page.id)).unwrap().parent, Some(page.id));
        assert!(traces.begin("part", None).is_none());
    }
}
