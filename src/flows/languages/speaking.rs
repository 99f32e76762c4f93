//! A chat or a completion: a thread that makes it, and whoever reads it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::failure;
use super::library::{CpuTime, Languages};
use super::said::Said;
use super::terms;
use crate::dialect::{Asked, Operation};
use crate::flows::answer::{LocalAsk, LocalBody, LocalFailure};
use crate::generate::{Generation, Language, Usage};
use crate::price::LocalUse;

/// Events that wait for whoever reads.
const EVENTS: usize = 16;
const UNKNOWN: u64 = u64::MAX;

/// What an answer took so far, seen from both sides.
pub(super) struct Gauge {
    cpu_us: AtomicU64,
    usage: Mutex<Usage>,
}

impl Gauge {
    fn new() -> Self {
        Self { cpu_us: AtomicU64::new(UNKNOWN), usage: Mutex::default() }
    }

    pub(super) fn usage(&self) -> Usage {
        *self.usage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn used(&self) -> Option<LocalUse> {
        let cpu_us = self.cpu_us.load(Ordering::Relaxed);
        (cpu_us != UNKNOWN).then_some(LocalUse { cpu_us })
    }

    fn measure(&self, usage: &Usage, began: Option<Duration>, cpu: CpuTime) {
        *self.usage.lock().unwrap_or_else(PoisonError::into_inner) = *usage;
        self.count(began, cpu);
    }

    fn count(&self, began: Option<Duration>, cpu: CpuTime) {
        if let (Some(began), Some(now)) = (began, cpu()) {
            let took = u64::try_from(now.saturating_sub(began).as_micros()).unwrap_or(UNKNOWN - 1);
            self.cpu_us.store(took, Ordering::Relaxed);
        }
    }
}

/// One question on its way to its thread.
struct Job {
    language: Arc<Language>,
    asked: Asked,
    partition: String,
    seed: u64,
    now_unix_s: i64,
}

impl Job {
    /// Renders, reads what was read before, and computes nothing yet.
    fn begin(&self) -> Result<Generation, LocalFailure> {
        let body = &self.asked.request;
        let (prompt, terms) = match self.asked.operation {
            Operation::Completions => terms::completion(&self.language, body, self.seed)?,
            _ => terms::chat(&self.language, body, self.seed, self.now_unix_s)?,
        };
        self.language.start(prompt, terms, &self.partition).map_err(|error| LocalFailure::of_generation(&error))
    }
}

impl Languages {
    pub(super) async fn speak(&self, ask: LocalAsk<'_>) -> Result<Box<dyn LocalBody>, LocalFailure> {
        let loaded = self.ready(ask.model).await?;
        let language = loaded.speech.language(loaded.handle.handle(), &self.config, &self.metrics);
        let language = language
            .map_err(|reason| failure::cannot(&format!("The model {} does not speak: {reason}.", ask.model)))?;
        let (seed, now_unix_s) = (self.seed(), self.clock.wall_ms() / 1000);
        let LocalAsk { model: _, partition, stream, asked } = ask;
        let job = Job { language, asked: asked.clone(), partition: partition.to_owned(), seed, now_unix_s };
        let (told, begun) = oneshot::channel();
        let (events, heard) = mpsc::channel(EVENTS);
        let gauge = Arc::new(Gauge::new());
        let (measured, cpu) = (Arc::clone(&gauge), self.cpu);
        // Each step waits for its turn in the engine and computes on this thread; `generate.sequences_max` bounds them.
        drop(tokio::task::spawn_blocking(move || {
            let began = cpu();
            let generation = match job.begin() {
                Ok(generation) => generation,
                Err(failure) => return drop(told.send(Err(failure))),
            };
            measured.count(began, cpu);
            if told.send(Ok(())).is_ok() {
                generation.send_to(&events, |usage| measured.measure(usage, began, cpu));
            }
        }));
        match begun.await {
            Ok(Ok(())) => Ok(Box::new(Said::new(heard, gauge, asked, stream))),
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(failure::unavailable("The model broke down while it read the request.")),
        }
    }
}
