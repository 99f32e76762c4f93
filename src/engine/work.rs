//! What a thread of the pool does with what it took from the queue.

use std::time::Duration;

use super::batching::{join, share_out};
use super::error::Error;
use super::handle::{Computed, Loaded, Outputs, Run};
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
    let began = shared.clock.since_boot();
    let waited = began.saturating_sub(job.queued);
    shared.metrics.waited(waited);
    let answer = model.compute(&job.inputs);
    let took = shared.clock.since_boot().saturating_sub(began);
    match &answer {
        Ok(computed) => {
            shared.metrics.computed(took);
            if computed.fallback.is_some() {
                shared.metrics.fell_back(&model.title);
            }
        }
        Err(error) => shared.metrics.failed(error),
    }
    let rows = job.inputs.first().and_then(|input| input.tensor.shape().first().copied()).unwrap_or(1);
    let run = Run { waited_us: micros(waited), rows, leads: true };
    job.caller.answer(answer.map(|computed| outputs(computed, took, run)));
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
    let Some(joined) = join(&inputs) else { return sound };
    let began = shared.clock.since_boot();
    let rows: Vec<usize> = sound.iter().map(|job| job.rows.unwrap_or(1)).collect();
    let shared_out = model.run_unseen(&joined).ok().and_then(|outputs| share_out(&outputs, &rows));
    let took = shared.clock.since_boot().saturating_sub(began);
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
        let waited = began.saturating_sub(job.queued);
        shared.metrics.waited(waited);
        let finite: Result<(), Error> = if model.allow_non_finite { Ok(()) } else { all_finite(&tensors) };
        if let Err(error) = &finite {
            shared.metrics.failed(error);
        }
        let run = Run { waited_us: micros(waited), rows: all_rows, leads: leads && finite.is_ok() };
        leads &= finite.is_err();
        let (engine, fallback) = (model.engine, model.fallback.reason.clone());
        job.caller.answer(finite.map(|()| outputs(Computed { tensors, engine, fallback }, took, run)));
    }
    Vec::new()
}

fn outputs(Computed { tensors, engine, fallback }: Computed, took: Duration, run: Run) -> Outputs {
    Outputs { tensors, duration_us: micros(took), engine, fallback, run }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
