//! Room for models: each reserves what it needs before it is loaded, and gives it back when its last user is gone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::metrics::gauge::Gauge;

use super::error::Error;
use super::session::Engine;
use super::spec::LoadSpec;

/// What a session holds beside its weights, whatever the model.
const BESIDE_BYTES: u64 = 1024 * 1024;

/// The bytes that all models together may have.
#[derive(Clone)]
pub(super) struct Memory(Arc<Inner>);

struct Inner {
    /// 0 is no bound.
    limit_bytes: u64,
    taken: Mutex<Taken>,
    gauge: Gauge,
}

#[derive(Default)]
struct Taken {
    bytes: u64,
    /// By reservation; the same model may be there twice while it is being replaced.
    models: BTreeMap<u64, (String, u64)>,
    next: u64,
}

/// A model's room. Dropped, it is free again.
pub(super) struct Room {
    memory: Memory,
    key: u64,
    pub(super) bytes: u64,
}

/// A model's file is held twice for a while at least: as it was read, and in the form that computes.
pub(super) fn estimate_bytes(file_bytes: u64, format: &str) -> u64 {
    // Weights that stay as they are read, and whose engine says the rest.
    let times = if format == "gguf" { 1 } else { 2 };
    file_bytes.saturating_mul(times).saturating_add(BESIDE_BYTES)
}

impl Memory {
    pub(super) fn new(limit_bytes: u64, gauge: Gauge) -> Self {
        Self(Arc::new(Inner { limit_bytes, taken: Mutex::default(), gauge }))
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // Nothing below panics halfway through a change.
        self.0.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves `bytes` for `model`, or says what it needs, who has the rest and what the bound is.
    pub(super) fn reserve(&self, model: &str, bytes: u64) -> Result<Room, Error> {
        let mut taken = self.lock();
        if let Some(refusal) = self.refusal(&taken, model, bytes) {
            return Err(refusal);
        }
        taken.bytes = taken.bytes.saturating_add(bytes);
        let key = taken.next;
        taken.next += 1;
        taken.models.insert(key, (model.to_owned(), bytes));
        self.show(&taken);
        drop(taken);
        Ok(Room { memory: self.clone(), key, bytes })
    }

    /// Whether `bytes` would fit now.
    pub(super) fn check(&self, model: &str, bytes: u64) -> Result<(), Error> {
        self.refusal(&self.lock(), model, bytes).map_or(Ok(()), Err)
    }

    fn refusal(&self, taken: &Taken, model: &str, bytes: u64) -> Option<Error> {
        let limit_bytes = self.0.limit_bytes;
        if limit_bytes == 0 || taken.bytes.saturating_add(bytes) <= limit_bytes {
            return None;
        }
        let each = taken.models.values().map(|(model, bytes)| format!("{model} {bytes}"));
        let others = each.collect::<Vec<_>>().join(", ");
        let model = model.to_owned();
        Some(Error::NoRoom { model, needs_bytes: bytes, limit_bytes, in_use_bytes: taken.bytes, others })
    }

    fn show(&self, taken: &Taken) {
        self.0.gauge.set(i64::try_from(taken.bytes).unwrap_or(i64::MAX));
    }

    pub(super) fn limit_bytes(&self) -> u64 {
        self.0.limit_bytes
    }

    /// Each model with its bytes, in the order of loading.
    pub(super) fn models(&self) -> Vec<(String, u64)> {
        self.lock().models.values().cloned().collect()
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut taken = self.memory.lock();
        if taken.models.remove(&self.key).is_some() {
            taken.bytes = taken.bytes.saturating_sub(self.bytes);
        }
        self.memory.show(&taken);
    }
}

/// What a model needs: as declared, as the engine says that reads it, or by its file.
pub(super) fn needs_bytes(spec: &LoadSpec, declared: Option<u64>, engines: &[Arc<dyn Engine>]) -> u64 {
    let mut readers = engines.iter().filter(|engine| engine.reads(&spec.format));
    let said = || readers.find_map(|engine| engine.memory_bytes(spec));
    declared.or_else(said).unwrap_or_else(|| estimate_bytes(spec.bytes.len() as u64, &spec.format))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_figures_and_fits_when_another_goes() {
        let memory = Memory::new(100, Gauge::default());
        let press = memory.reserve("press/1", 60).unwrap();
        let error = memory.reserve("drill/1", 50).err().unwrap();
        assert_eq!(
            error.to_string(),
            "no room for model drill/1: it needs 50 bytes, 60 of 100 are in use (press/1 60); \
             engine.memory_bytes_max is the bound"
        );
        drop(press);
        let drill = memory.reserve("drill/1", 50).unwrap();
        assert_eq!(memory.models(), [("drill/1".to_owned(), 50)]);
        assert_eq!(memory.0.gauge.get(), 50);
        assert!(memory.reserve("huge/1", u64::MAX).is_err(), "sums do not overflow");
        drop(drill);
        assert_eq!(memory.0.gauge.get(), 0);
    }

    #[test]
    fn a_bound_of_nothing_is_no_bound() {
        let memory = Memory::new(0, Gauge::default());
        let _huge = memory.reserve("huge/1", u64::MAX).unwrap();
        let _more = memory.reserve("more/1", u64::MAX).unwrap();
    }
}
