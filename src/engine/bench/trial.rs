//! A model in one engine, loaded, checked and measured.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::inputs::Rows;
use super::series::Series;
use crate::base::{Clock, Tensor};
use crate::engine::config::Config;
use crate::engine::error::Error;
use crate::engine::handle::Loaded;
use crate::engine::pool::{self, Pool};
use crate::engine::session::{Engine, Fit};
use crate::engine::spec::{LoadSpec, NamedTensor, arrange};

/// Runs of a size of batch before it is measured, unless they take a fifth of its time.
const WARM_UP_RUNS: usize = 20;
/// Requests whose answers are compared between engines.
const COMPARED: usize = 8;

/// What the system says of this process and of a delegate's host: the outside world of a measurement.
pub trait Meter {
    /// CPU time that this process has used, and the process `host` if there is one. None where the system does not say.
    fn cpu(&self, host: Option<u32>) -> Option<Duration>;

    /// Memory that both have resident, in bytes.
    fn resident_bytes(&self, host: Option<u32>) -> Option<u64>;
}

/// What the model's golden samples say of an engine.
#[derive(Debug, Clone, PartialEq)]
pub enum Golden {
    /// There are none.
    Absent,
    /// All are reproduced within their tolerance.
    Right {
        /// How many.
        samples: usize,
        /// Of all numbers.
        difference: Difference,
    },
    /// One is not: this engine would not serve the model.
    Wrong(Error),
}

/// How far two answers are apart.
#[derive(Debug, Clone, PartialEq)]
pub enum Difference {
    /// The largest of all numbers, which is in that output.
    By(f64, String),
    /// In shape, type or texts, or by what is no number.
    Otherwise(String),
}

/// See the room's docs.
pub struct Trial {
    model: Loaded,
    clock: Arc<dyn Clock>,
    load: Duration,
    grown_bytes: Option<u64>,
    golden: Golden,
    series: BTreeMap<usize, Series>,
    /// Its threads compute nothing; the model's session wants it alive.
    _pool: Pool,
}

/// How well an engine suits a model; the error says why the gateway would not ask it.
pub fn fit_of(engine: &dyn Engine, spec: &LoadSpec) -> Result<Fit, String> {
    if engine.reads(&spec.format) {
        pool::fit(engine, spec)
    } else {
        Err(format!("it does not read format {}", spec.format))
    }
}

impl Trial {
    /// Loads the model and computes its golden samples and one of `rows`. Whether the operators suit the engine does not
    /// matter here: it may try.
    pub fn load(
        engine: &Arc<dyn Engine>,
        spec: &LoadSpec,
        rows: &Rows,
        config: &Config,
        clock: &Arc<dyn Clock>,
        meter: &dyn Meter,
    ) -> Result<Self, Error> {
        if !engine.reads(&spec.format) {
            return Err(Error::NoEngine { format: spec.format.clone() });
        }
        let pool = Pool::start(&Config { threads: 1, ..config.clone() }, vec![Arc::clone(engine)], Arc::clone(clock))?;
        // A device's host computes the samples itself while it loads; in this program that would count as loading.
        let in_a_host = engine.wants_stand_in(spec).is_some();
        let alone = LoadSpec { samples: if in_a_host { spec.samples.clone() } else { Vec::new() }, ..spec.clone() };
        Pool::read_file(spec)?;
        let (before, began) = (meter.resident_bytes(None), clock.since_boot());
        let model = pool.load_with(engine.as_ref(), &alone)?;
        let load = clock.since_boot().saturating_sub(began);
        let golden = golden(&model, spec, config.tensor_bytes_max)?;
        if let Some(first) = rows.batches(1).ok().and_then(|all| all.into_iter().next()) {
            model.run(&first)?;
        }
        let host = model.session.delegate().and_then(|state| state.pid);
        let after = meter.resident_bytes(host);
        let grown_bytes = before.zip(after).map(|(before, after)| after.saturating_sub(before));
        let clock = Arc::clone(clock);
        Ok(Self { model, clock, load, grown_bytes, golden, series: BTreeMap::new(), _pool: pool })
    }

    /// Time that this size of batch was measured for.
    pub fn spent(&self, size: usize) -> Duration {
        self.series.get(&size).map_or(Duration::ZERO, Series::total)
    }

    /// Runs batches of `rows` for about `time`, at least once. Again: adds to what is there. The error says why there is none.
    pub fn measure(&mut self, rows: &Rows, size: usize, time: Duration, meter: &dyn Meter) -> Result<(), String> {
        let batches = rows.batches(size)?;
        let host = self.model.session.delegate().and_then(|state| state.pid);
        let run = |at: usize| self.model.run(&batches[at % batches.len()]).map_err(|error| error.to_string());
        let mut series = self.series.remove(&size).unwrap_or_else(|| Series::of(size));
        let is_first = series.runs() == 0;
        if is_first {
            let enough = self.clock.since_boot() + time / 5;
            for at in 0..WARM_UP_RUNS {
                run(at)?;
                if self.clock.since_boot() >= enough {
                    break;
                }
            }
        }
        let before = meter.cpu(host);
        let until = self.clock.since_boot() + time;
        let mut at = 0;
        while !series.is_full() {
            let began = self.clock.since_boot();
            let outputs = run(at)?;
            let ended = self.clock.since_boot();
            drop(outputs);
            series.took(ended.saturating_sub(began));
            at += 1;
            if ended >= until {
                break;
            }
        }
        if at > 0 {
            let cpu = before.zip(meter.cpu(host)).map(|(before, after)| after.saturating_sub(before));
            series.used(cpu, is_first);
        }
        self.series.insert(size, series);
        Ok(())
    }

    /// How far its answers are from another engine's, to the same requests.
    pub fn compare(&self, other: &Self, rows: &Rows) -> Result<Difference, String> {
        let mut largest = Difference::By(0.0, String::new());
        for request in rows.batches(1)?.iter().take(COMPARED) {
            let (own, others) = (self.model.run(request), other.model.run(request));
            let (own, others) = own.and_then(|own| Ok((own, others?))).map_err(|error| error.to_string())?;
            largest = largest.or_larger(difference(&others, &own));
        }
        Ok(largest)
    }

    /// The engine's name.
    pub fn engine(&self) -> &'static str {
        self.model.engine
    }

    /// Time to load.
    pub fn load_time(&self) -> Duration {
        self.load
    }

    /// By how much resident memory grew by loading and first runs, in bytes: a delegate's host included.
    pub fn grown_bytes(&self) -> Option<u64> {
        self.grown_bytes
    }

    /// What the golden samples say.
    pub fn golden(&self) -> &Golden {
        &self.golden
    }

    /// What was measured, by the rows of a batch.
    pub fn series(&self) -> impl Iterator<Item = &Series> {
        self.series.values()
    }
}

fn golden(model: &Loaded, spec: &LoadSpec, tensor_bytes_max: usize) -> Result<Golden, Error> {
    if spec.samples.is_empty() {
        return Ok(Golden::Absent);
    }
    let mut largest = Difference::By(0.0, String::new());
    for (at, sample) in spec.samples.iter().enumerate() {
        let inputs = arrange(&model.inputs, sample.inputs.clone(), tensor_bytes_max)?;
        let outputs = model.run(&inputs)?;
        if let Err(error) = sample.agrees(&model.title, model.engine, at + 1, &outputs) {
            return Ok(Golden::Wrong(error));
        }
        largest = largest.or_larger(difference(&sample.outputs, &outputs));
    }
    Ok(Golden::Right { samples: spec.samples.len(), difference: largest })
}

impl Difference {
    fn or_larger(self, other: Self) -> Self {
        match (&self, &other) {
            (Self::Otherwise(_), _) => self,
            (_, Self::Otherwise(_)) => other,
            (Self::By(left, _), Self::By(right, _)) => {
                if right > left {
                    other
                } else {
                    self
                }
            }
        }
    }
}

/// Between the outputs that are expected and those of the same names.
fn difference(expected: &[NamedTensor], given: &[NamedTensor]) -> Difference {
    let mut largest = Difference::By(0.0, String::new());
    for NamedTensor { name, tensor } in expected {
        let Some(other) = given.iter().find(|other| other.name == *name) else {
            return Difference::Otherwise(format!("no output {name}"));
        };
        let apart = match apart(tensor, &other.tensor) {
            Ok(apart) => Difference::By(apart, name.to_string()),
            Err(what) => Difference::Otherwise(format!("{name}: {what}")),
        };
        largest = largest.or_larger(apart);
    }
    largest
}

fn apart(left: &Tensor, right: &Tensor) -> Result<f64, String> {
    if left.datatype() != right.datatype() || left.shape() != right.shape() {
        let shown = |tensor: &Tensor| format!("{} {:?}", tensor.datatype(), tensor.shape());
        return Err(format!("{} and {}", shown(left), shown(right)));
    }
    if left.bytes() == right.bytes() {
        return Ok(0.0);
    }
    let (Some(left), Some(right)) = (left.to_numbers(), right.to_numbers()) else {
        return Err("texts differ".to_owned());
    };
    let mut largest = 0.0_f64;
    for (left, right) in left.into_iter().zip(right) {
        // Infinities and what is no number are only themselves.
        if left == right || (left.is_nan() && right.is_nan()) {
            continue;
        }
        let by = (left - right).abs();
        if !by.is_finite() {
            return Err(format!("{left} and {right}"));
        }
        largest = largest.max(by);
    }
    Ok(largest)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;
    use crate::base::{Datatype, ManualClock, Name};
    use crate::engine::fake::{Biased, Failing, Fake, Panicking};
    use crate::engine::session::Session;
    use crate::engine::spec::{Sample, TensorSpec};

    /// Every look finds a millisecond of CPU time and a mebibyte more; a host has ten.
    #[derive(Default)]
    struct Growing(std::cell::Cell<u32>);

    impl Meter for Growing {
        fn cpu(&self, host: Option<u32>) -> Option<Duration> {
            self.0.set(self.0.get() + 1);
            Some(Duration::from_millis(u64::from(self.0.get() + if host.is_some() { 10 } else { 0 })))
        }

        fn resident_bytes(&self, _: Option<u32>) -> Option<u64> {
            self.0.set(self.0.get() + 1);
            Some(u64::from(self.0.get()) << 20)
        }
    }

    /// Each run takes ten milliseconds of the clock.
    struct Steady(Arc<ManualClock>);

    struct SteadySession(Arc<ManualClock>, Box<dyn Session>);

    impl Engine for Steady {
        fn name(&self) -> &'static str {
            "steady"
        }

        fn reads(&self, format: &str) -> bool {
            format == "onnx"
        }

        fn load(&self, spec: &LoadSpec) -> Result<Box<dyn Session>, Error> {
            self.0.advance(Duration::from_millis(70));
            Ok(Box::new(SteadySession(Arc::clone(&self.0), Fake.load(spec)?)))
        }
    }

    impl Session for SteadySession {
        fn run(&self, inputs: &[NamedTensor]) -> Result<Vec<NamedTensor>, Error> {
            self.0.advance(Duration::from_millis(10));
            self.1.run(inputs)
        }
    }

    fn tensor(name: &str, values: &[f32]) -> NamedTensor {
        NamedTensor::new(name, Tensor::new([1, values.len()], values.to_vec()).unwrap())
    }

    fn spec(expected: Option<f32>) -> LoadSpec {
        let port = |name: &str, shape: &[i64]| TensorSpec {
            name: name.into(),
            datatype: Datatype::Fp32,
            shape: shape.to_vec(),
        };
        let sample = |expected: f32| Sample {
            inputs: vec![tensor("x", &[1.0, 3.0])],
            outputs: vec![tensor("y", &[expected])],
            tolerance: 0.5,
            relative_tolerance: 0.0,
        };
        LoadSpec {
            inputs: vec![port("x", &[-1, 2])],
            outputs: vec![port("y", &[-1, 1])],
            samples: expected.map(sample).into_iter().collect(),
            ..LoadSpec::new(Name::new("press").unwrap(), 1, "onnx", &b"weights"[..])
        }
    }

    fn rows(spec: &LoadSpec) -> Rows {
        Rows::seeded(spec, &[], &mut StdRng::seed_from_u64(1)).unwrap()
    }

    fn load(engine: impl Engine + 'static, spec: &LoadSpec) -> Result<Trial, Error> {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(0));
        Trial::load(&(Arc::new(engine) as _), spec, &rows(spec), &Config::default(), &clock, &Growing::default())
    }

    #[test]
    fn times_are_the_clocks_and_cpu_and_memory_are_the_meters() {
        let clock = Arc::new(ManualClock::at(0));
        let spec = spec(Some(2.0));
        let (rows, meter) = (rows(&spec), Growing::default());
        let shared: Arc<dyn Clock> = clock.clone();
        let engine: Arc<dyn Engine> = Arc::new(Steady(clock));
        let mut trial = Trial::load(&engine, &spec, &rows, &Config::default(), &shared, &meter).unwrap();
        assert_eq!((trial.load_time(), trial.grown_bytes()), (Duration::from_millis(70), Some(1 << 20)));
        let right = Difference::By(0.0, String::new());
        assert_eq!(trial.golden(), &Golden::Right { samples: 1, difference: right });
        for _ in 0..2 {
            trial.measure(&rows, 8, Duration::from_millis(100), &meter).unwrap();
        }
        assert_eq!((trial.spent(8), trial.spent(1)), (Duration::from_millis(200), Duration::ZERO));
        let series: Vec<_> = trial.series().collect();
        let [series] = series.as_slice() else { panic!("one size") };
        assert_eq!((series.rows(), series.runs()), (8, 20));
        assert_eq!(series.within(0.99), Duration::from_millis(10));
        assert!((series.rows_per_second() - 800.0).abs() < 1e-6);
        assert_eq!(series.cpu_us_per_row(), Some(2000.0 / 160.0));
    }

    #[test]
    fn a_wrong_answer_to_a_sample_is_told_with_its_place() {
        let Golden::Wrong(error) = load(Biased, &spec(Some(2.0))).unwrap().golden().clone() else { panic!("right") };
        assert!(error.to_string().contains("sample 1 has"), "{error}");
        assert!(error.to_string().contains("expected 2, given 3"), "{error}");
        assert_eq!(load(Biased, &spec(None)).unwrap().golden(), &Golden::Absent);
    }

    #[test]
    fn engines_are_compared_on_the_same_requests() {
        let spec = spec(None);
        let (fake, biased) = (load(Fake, &spec).unwrap(), load(Biased, &spec).unwrap());
        assert_eq!(fake.compare(&fake, &rows(&spec)).unwrap(), Difference::By(0.0, String::new()));
        let Difference::By(apart, output) = biased.compare(&fake, &rows(&spec)).unwrap() else { panic!("numbers") };
        assert!((apart - 1.0).abs() < 1e-6 && output == "y", "{apart} {output}");
    }

    #[test]
    fn what_fails_or_panics_is_an_error_of_that_engine() {
        assert!(load(Failing, &spec(None)).err().unwrap().to_string().contains("as the test wants it"));
        assert!(load(Panicking, &spec(None)).err().unwrap().to_string().contains("panicked: as the test wants it"));
        let other = LoadSpec { format: "safetensors".to_owned(), ..spec(None) };
        let steady = Steady(Arc::new(ManualClock::at(0)));
        assert_eq!(fit_of(&steady, &other).unwrap_err(), "it does not read format safetensors");
        assert!(matches!(load(steady, &other), Err(Error::NoEngine { .. })));
    }

    #[test]
    fn what_is_no_number_differs_otherwise() {
        let of = |value: f32| [NamedTensor::new("y", Tensor::new([1], vec![value]).unwrap())];
        assert_eq!(difference(&of(f32::NAN), &of(f32::NAN)), Difference::By(0.0, String::new()));
        assert!(matches!(difference(&of(f32::NAN), &of(1.0)), Difference::Otherwise(_)));
        assert!(matches!(difference(&of(1.0), &[]), Difference::Otherwise(_)));
    }
}
