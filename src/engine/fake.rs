//! Engines for tests of this room and of those above: none of them computes a model.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::error::Error;
use super::session::{Engine, Session};
use super::spec::{LoadSpec, NamedTensor, TensorSpec};
use crate::base::Tensor;

/// Reads every format; each output has, for every row of the first input, that row's mean in all its elements.
#[derive(Debug, Clone, Copy, Default)]
pub struct Fake;

/// [`Fake`], but every element is one too large: an engine that answers, and answers wrong.
#[derive(Debug, Clone, Copy, Default)]
pub struct Biased;

/// Loads every model and fails every request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Failing;

/// Loads every model and panics on every request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Panicking;

/// [`Fake`] behind a [`Gate`]: a request computes only when the test lets it pass.
#[derive(Debug, Clone, Default)]
pub struct Slow {
    /// The gate before every request.
    pub gate: Gate,
}

/// Lets requests pass one by one. Starts closed.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<(Mutex<Passes>, Condvar)>);

#[derive(Debug, Default)]
struct Passes {
    allowed: u64,
    waiting: u64,
}

impl Gate {
    /// Lets `requests` more pass.
    pub fn open(&self, requests: u64) {
        let (passes, changed) = &*self.0;
        passes.lock().unwrap_or_else(PoisonError::into_inner).allowed += requests;
        changed.notify_all();
    }

    /// Lets none pass that has not come yet.
    pub fn shut(&self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).allowed = 0;
    }

    /// Blocks until a request stands before the gate.
    pub fn wait_for_request(&self) {
        self.wait_for_requests(1);
    }

    /// Blocks until so many requests stand before the gate.
    pub fn wait_for_requests(&self, requests: u64) {
        let (passes, changed) = &*self.0;
        let mut passes = passes.lock().unwrap_or_else(PoisonError::into_inner);
        while passes.waiting < requests {
            passes = changed.wait(passes).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until one more may pass.
    pub fn pass(&self) {
        let (passes, changed) = &*self.0;
        let mut passes = passes.lock().unwrap_or_else(PoisonError::into_inner);
        passes.waiting += 1;
        changed.notify_all();
        while passes.allowed == 0 {
            passes = changed.wait(passes).unwrap_or_else(PoisonError::into_inner);
        }
        passes.allowed -= 1;
        passes.waiting -= 1;
    }
}

struct FakeSession {
    outputs: Vec<TensorSpec>,
    gate: Option<Gate>,
    bias: f32,
}

impl Session for FakeSession {
    fn run(&self, inputs: &[NamedTensor]) -> Result<Vec<NamedTensor>, Error> {
        if let Some(gate) = &self.gate {
            gate.pass();
        }
        let first = &inputs[0].tensor;
        let rows = if first.shape().len() > 1 { first.shape()[0] } else { 1 };
        let data = first.as_slice::<f32>().unwrap_or_default();
        let width = data.len() / rows;
        #[allow(clippy::cast_precision_loss, reason = "a test's row is short")]
        let means: Vec<f32> =
            data.chunks(width).map(|row| row.iter().sum::<f32>() / width as f32 + self.bias).collect();
        let fill = |spec: &TensorSpec| {
            let dims = spec.shape.iter().enumerate();
            let free = |at| if at == 0 { rows } else { 1 };
            let shape: Vec<usize> = dims.map(|(at, &dim)| usize::try_from(dim).unwrap_or(free(at))).collect();
            let each = shape.iter().product::<usize>() / means.len();
            let data = means.iter().flat_map(|&mean| std::iter::repeat_n(mean, each)).collect();
            let tensor = Tensor::new(shape, data).map_err(|error| run_error("fake", error.to_string()))?;
            Ok(NamedTensor::new(Arc::clone(&spec.name), tensor))
        };
        self.outputs.iter().map(fill).collect()
    }
}

fn run_error(engine: &'static str, reason: String) -> Error {
    Error::Run { model: engine.to_owned(), engine, reason }
}

struct FailingSession;

impl Session for FailingSession {
    fn run(&self, _: &[NamedTensor]) -> Result<Vec<NamedTensor>, Error> {
        Err(run_error("failing", "as the test wants it".to_owned()))
    }
}

struct PanickingSession;

impl Session for PanickingSession {
    fn run(&self, _: &[NamedTensor]) -> Result<Vec<NamedTensor>, Error> {
        panic!("as the test wants it");
    }
}

macro_rules! engine {
    ($engine:ty, $name:literal, $load:expr) => {
        impl Engine for $engine {
            fn name(&self) -> &'static str {
                $name
            }

            fn reads(&self, _: &str) -> bool {
                true
            }

            fn load(&self, spec: &LoadSpec) -> Result<Box<dyn Session>, Error> {
                let load: fn(&Self, &LoadSpec) -> Box<dyn Session> = $load;
                Ok(load(self, spec))
            }
        }
    };
}

fn fake(spec: &LoadSpec, gate: Option<Gate>, bias: f32) -> Box<dyn Session> {
    Box::new(FakeSession { outputs: spec.outputs.clone(), gate, bias })
}

engine!(Fake, "fake", |_, spec| fake(spec, None, 0.0));
engine!(Biased, "biased", |_, spec| fake(spec, None, 1.0));
engine!(Slow, "slow", |slow, spec| fake(spec, Some(slow.gate.clone()), 0.0));
engine!(Failing, "failing", |_, _| Box::new(FailingSession));
engine!(Panicking, "panicking", |_, _| Box::new(PanickingSession));
