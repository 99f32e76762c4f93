//! What a thread of the pool does with what it took from the queue.

use std::time::Duration;

use super::batching::{join, share_out};
use super::error::Error;
use super::handle::{Computed, Loaded, Outputs, Run, bytes_of};
use super::pool::Shared;
use super::queue::{Job, Taken};
use super::spec::{NamedTensor, all_finite};

/// Until the queue is closed.
pub(super) fn work(shared: &Shared, at: usize) {
    while let Some(taken) = shared.queue.pop() {
        let permits = taken.permits();
        let Taken { jobs, late, .. } = taken;
        shared.queue.turn_away(late);
        let Some(first) = jobs.first() else { continue };
        let model = std::sync::Arc::clone(&first.model);
        shared.begin(at);
        compute(shared, &model, jobs);
        shared.end(at);
        shared.queue.done(&model, permits);
    }
}

/// Jobs of one model, together where there are several.
fn compute(shared: &Shared, model: &Loaded, mut jobs: Vec<Job>) {
    if jobs.len() > 1 {
        jobs = together(shared, model, jobs);
    }
    for job in jobs {
        alone(shared, model, job);
    }
}

fn alone(shared: &Shared, model: &Loaded, job: Job) {
    let answer = run(shared, model, &job.inputs, Some(job.queued));
    job.caller.answer(answer);
}

/// The same on the thread of a caller who has a place for it.
pub(super) fn run_here(shared: &Shared, model: &Loaded, inputs: &[NamedTensor]) -> Result<Outputs, Error> {
    let noted = shared.begin_here();
    let answer = run(shared, model, inputs, None);
    if let Some(at) = noted {
        shared.end(at);
    }
    answer
}

/// `queued` since boot, if it was.
fn run(shared: &Shared, model: &Loaded, inputs: &[NamedTensor], queued: Option<Duration>) -> Result<Outputs, Error> {
    let began = shared.clock.since_boot();
    let waited = queued.map_or(Duration::ZERO, |queued| began.saturating_sub(queued));
    shared.metrics.waited(waited);
    let answer = model.compute(inputs);
    let ended = shared.clock.since_boot();
    let took = ended.saturating_sub(began);
    match &answer {
        Ok(computed) => {
            shared.metrics.computed(took);
            if let Some(pace) = &model.pace {
                pace.learn(bytes_of(inputs), took);
            }
            if computed.fallback.is_some() {
                shared.metrics.fell_back(&model.title);
            }
        }
        Err(error) => shared.metrics.failed(error),
    }
    let rows = inputs.first().and_then(|input| input.tensor.shape().first().copied()).unwrap_or(1);
    let run = Run { waited_us: micros(waited), input_ns: 0, output_ns: 0, ended_ns: nanos(ended), rows, leads: true };
    answer.map(|computed| outputs(computed, took, run))
}

/// Computes the jobs as one batch and gives back those that must be computed alone: all of them, if the batch fails, so
/// that each hears of its own mistakes only.
fn together(shared: &Shared, model: &Loaded, jobs: Vec<Job>) -> Vec<Job> {
    let mut sound = Vec::with_capacity(jobs.len());
    for job in jobs {
        match if model.allow_non_finite { Ok(()) } else { all_finite(&job.inputs) } {
            Ok(()) => sound.push(job),
            Err(error) => {
                shared.metrics.failed(&error);
                job.caller.answer(Err(error));
            }
        }
    }
    if sound.len() < 2 {
        return sound;
    }
    let inputs: Vec<&[NamedTensor]> = sound.iter().map(|job| job.inputs.as_slice()).collect();
    let joining = shared.clock.since_boot();
    let Some(joined) = join(&inputs) else { return sound };
    let began = shared.clock.since_boot();
    let input_ns = nanos(began.saturating_sub(joining));
    let rows: Vec<usize> = sound.iter().map(|job| job.rows.unwrap_or(1)).collect();
    let together = model.run_unseen(&joined);
    let ended = shared.clock.since_boot();
    let took = ended.saturating_sub(began);
    let shared_out = together.ok().and_then(|outputs| share_out(&outputs, &rows));
    let Some(shared_out) = shared_out else {
        shared.metrics.spoiled.inc();
        return sound;
    };
    shared.metrics.computed(took);
    shared.metrics.batches.inc();
    shared.metrics.batched.inc_by(sound.len() as u64);
    let all_rows = rows.iter().sum();
    // The first that gets an answer stands for the run in what is counted of it.
    let mut leads = true;
    for (job, tensors) in sound.into_iter().zip(shared_out) {
        let waited = joining.saturating_sub(job.queued);
        shared.metrics.waited(waited);
        let finite: Result<(), Error> = if model.allow_non_finite { Ok(()) } else { all_finite(&tensors) };
        if let Err(error) = &finite {
            shared.metrics.failed(error);
        }
        let leads_now = leads && finite.is_ok();
        let ended_ns = nanos(ended);
        let run = Run { waited_us: micros(waited), input_ns, output_ns: 0, ended_ns, rows: all_rows, leads: leads_now };
        leads &= finite.is_err();
        let (engine, fallback) = (model.engine, model.fallback.reason.clone());
        job.caller.answer(finite.map(|()| outputs(Computed { tensors, engine, fallback }, took, run)));
    }
    Vec::new()
}

fn outputs(Computed { tensors, engine, fallback }: Computed, took: Duration, run: Run) -> Outputs {
    Outputs { tensors, duration_us: micros(took), engine, fallback, run }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;
    use crate::base::{Datatype, ManualClock, Name, Tensor};
    use crate::engine::{Config, Engine, Handle, LoadSpec, Pool, Session, TensorSpec};

    /// Answers 1 on a thread of the pool and 0 on any other.
    struct Where {
        takes: Duration,
        is_steady: bool,
        clock: Arc<ManualClock>,
    }

    struct WhereSession(Duration, bool, Arc<ManualClock>);

    impl Engine for Where {
        fn name(&self) -> &'static str {
            "where"
        }

        fn reads(&self, _: &str) -> bool {
            true
        }

        fn load(&self, _: &LoadSpec) -> Result<Box<dyn Session>, Error> {
            Ok(Box::new(WhereSession(self.takes, self.is_steady, Arc::clone(&self.clock))))
        }
    }

    impl Session for WhereSession {
        fn run(&self, inputs: &[NamedTensor]) -> Result<Vec<NamedTensor>, Error> {
            let &Self(takes, _, ref clock) = self;
            clock.advance(takes);
            let in_pool = thread::current().name().is_some_and(|name| name.starts_with("infer-"));
            let rows = inputs[0].tensor.shape()[0];
            let said = vec![f32::from(u8::from(in_pool)); rows];
            Ok(vec![NamedTensor::new("y", Tensor::new([rows], said).unwrap())])
        }

        fn is_steady(&self) -> bool {
            self.1
        }
    }

    fn pool(takes: Duration, is_steady: bool) -> (Pool, Handle) {
        let clock = Arc::new(ManualClock::at(0));
        let engine = Where { takes, is_steady, clock: Arc::clone(&clock) };
        let pool = Pool::start(&Config { threads: 1, ..Config::default() }, vec![Arc::new(engine)], clock).unwrap();
        let port = |name: &str| TensorSpec { name: name.into(), datatype: Datatype::Fp32, shape: vec![-1] };
        let spec = LoadSpec {
            inputs: vec![port("x")],
            outputs: vec![port("y")],
            ..LoadSpec::new(Name::new("press").unwrap(), 1, "onnx", [])
        };
        let handle = pool.load(&spec).unwrap();
        (pool, handle)
    }

    async fn in_pool(handle: &Handle, rows: usize) -> bool {
        let inputs = vec![NamedTensor::new("x", Tensor::new([rows], vec![0.0_f32; rows]).unwrap())];
        let outputs = handle.infer(inputs, None).await.unwrap();
        outputs.tensors[0].tensor.as_slice::<f32>().unwrap()[0] == 1.0
    }

    /// A thread of the pool answers first and gives its place back then.
    async fn has_place(pool: &Pool, handle: &Handle) {
        while pool.shared.queue.place_now(handle.lane, &handle.model, 5).is_none() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_run_that_is_known_to_be_short_is_computed_where_it_is_asked_for() {
        let (pool, handle) = pool(Duration::ZERO, true);
        assert!(in_pool(&handle, 4).await, "nothing is known of it");
        has_place(&pool, &handle).await;
        assert!(!in_pool(&handle, 4).await);
        assert!(in_pool(&handle, 40).await, "nor of this size");
        has_place(&pool, &handle).await;
        assert!(!in_pool(&handle, 40).await && !in_pool(&handle.for_sensors(), 4).await);
        assert_eq!(pool.longest_running(), None);
    }

    #[tokio::test]
    async fn what_takes_long_or_nobody_knows_how_long_is_computed_by_the_pool() {
        for (takes_ms, is_steady) in [(5, true), (0, false)] {
            let (_pool, handle) = pool(Duration::from_millis(takes_ms), is_steady);
            for _ in 0..5 {
                assert!(in_pool(&handle, 4).await);
            }
        }
    }

    #[tokio::test]
    async fn a_short_run_waits_its_turn_where_no_place_is_free() {
        let (pool, handle) = pool(Duration::ZERO, true);
        assert!(in_pool(&handle, 4).await);
        has_place(&pool, &handle).await;
        assert!(!in_pool(&handle, 4).await);
        let place = pool.shared.queue.place_now(handle.lane, &handle.model, 5).unwrap();
        assert!(pool.shared.queue.place_now(handle.lane, &handle.model, 5).is_none());
        let waits = in_pool(&handle, 4);
        tokio::pin!(waits);
        assert!(tokio::time::timeout(Duration::ZERO, waits.as_mut()).await.is_err());
        assert!(pool.shared.queue.place_now(handle.lane, &handle.model, 5).is_none(), "somebody waits");
        drop(place);
        assert!(waits.await);
    }
}
