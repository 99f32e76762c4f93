//! What was measured, as a table for people and as JSON for programs, and which engine to use.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::engine::Fit;
use crate::engine::bench::{Difference, FreeDimension, Golden, Series, Trial};

/// An engine must take this part of another's time at most before it is worth a word in the manifest.
const WORTH: f64 = 0.95;
/// Engines are compared by the time of the fastest tenth of their runs: other programs disturb the others, and long runs most.
const QUICK: f64 = 0.1;
/// An engine that has less than this part of a core while it computes shares it with others.
const QUIET: f64 = 0.9;

/// One engine.
pub(super) struct Candidate {
    /// Its name in manifests.
    pub(super) engine: &'static str,
    /// The configuration's name, of a device.
    pub(super) device: Option<String>,
    /// As the gateway judges it before it loads anything.
    pub(super) fit: Result<Fit, String>,
    pub(super) outcome: Outcome,
    /// From the answers of the engine that the gateway would choose.
    pub(super) difference: Option<Result<Difference, String>>,
}

pub(super) enum Outcome {
    /// It does not compute the model, and why.
    Refused(String),
    Computed(Box<Trial>),
}

impl Candidate {
    pub(super) fn trial(&self) -> Option<&Trial> {
        match &self.outcome {
            Outcome::Refused(_) => None,
            Outcome::Computed(trial) => Some(trial),
        }
    }

    /// Computes it, and right as far as anybody knows.
    fn serves(&self) -> Option<&Trial> {
        self.trial().filter(|trial| !matches!(trial.golden(), Golden::Wrong(_)))
    }

    fn title(&self) -> String {
        self.device.as_ref().map_or_else(|| self.engine.to_owned(), |device| format!("{} ({device})", self.engine))
    }
}

/// The one that the gateway would choose: the first of the best fit that computes the model right.
pub(super) fn chosen(candidates: &[Candidate]) -> Option<usize> {
    let serving = candidates.iter().enumerate().filter(|(_, candidate)| candidate.serves().is_some());
    let fitting = serving.filter_map(|(at, candidate)| Some((*candidate.fit.as_ref().ok()?, at)));
    fitting.min().map(|(_, at)| at)
}

pub(super) struct Report {
    pub(super) title: String,
    pub(super) format: String,
    pub(super) size_bytes: usize,
    pub(super) manifest: Option<PathBuf>,
    /// The engine that the manifest names.
    pub(super) wanted: Option<String>,
    /// Of the inputs.
    pub(super) origin: String,
    /// Of one row.
    pub(super) shapes: Vec<(String, Vec<usize>)>,
    /// Whose sizes were made up.
    pub(super) free: Vec<FreeDimension>,
    pub(super) batches: Vec<usize>,
    pub(super) candidates: Vec<Candidate>,
    /// Batches that some engine does not compute, and why.
    pub(super) unmeasured: Vec<String>,
}

/// What to do.
struct Advice {
    /// The engine with the least time for a row of the first batch.
    at: usize,
    text: String,
}

impl Report {
    /// Somebody computes the model, and nobody gives something else than its golden samples.
    pub(super) fn is_fine(&self) -> bool {
        let wrong = |candidate: &Candidate| candidate.trial().is_some() && candidate.serves().is_none();
        self.advice().is_some() && !self.candidates.iter().any(wrong)
    }

    /// Time of a row in the first batch that this engine computes.
    fn row_time(&self, candidate: &Candidate) -> Option<f64> {
        let trial = candidate.serves()?;
        let series = self.batches.iter().find_map(|&rows| trial.series().find(|series| series.rows() == rows))?;
        #[allow(clippy::cast_precision_loss, reason = "at most 1024")]
        Some(series.within(QUICK).as_secs_f64() / series.rows() as f64)
    }

    fn advice(&self) -> Option<Advice> {
        let times = self.candidates.iter().enumerate();
        let mut times: Vec<_> = times.filter_map(|(at, candidate)| Some((self.row_time(candidate)?, at))).collect();
        times.sort_by(|left, right| left.0.total_cmp(&right.0));
        let &(mut time, mut at) = times.first()?;
        let chosen = chosen(&self.candidates);
        if let Some(&(own, other)) = times.iter().find(|(_, other)| Some(*other) == chosen)
            && time > own * WORTH
        {
            (time, at) = (own, other);
        }
        let best = &self.candidates[at];
        let mut text = format!("Use {}: {} µs a row", best.title(), micros(time));
        if let Some(&(next, other)) = times.iter().find(|(_, other)| *other != at) {
            let than = self.candidates[other].title();
            text += &if next * WORTH > time {
                format!(", {:.1} times as fast as {than}", next / time)
            } else {
                format!(", about as fast as {than}")
            };
        }
        text += ". ";
        text += &self.how(best, Some(at) == chosen, chosen.map(|at| self.candidates[at].title()));
        Some(Advice { at, text })
    }

    /// How to have `best` serve it.
    fn how(&self, best: &Candidate, is_chosen: bool, chosen: Option<String>) -> String {
        if is_chosen {
            return match &self.wanted {
                Some(wanted) => format!("The manifest names it: engine = {wanted:?}."),
                None => "The gateway chooses it by itself.".to_owned(),
            };
        }
        let instead = chosen.map_or_else(String::new, |chosen| format!("The gateway would choose {chosen}: "));
        if let Some(device) = &best.device {
            let name = self.title.split('/').next().unwrap_or_default();
            return format!(
                "{instead}give the model to the device in the configuration: [[delegate.model]] with \
                 name = {name:?}, devices = [{device:?}]."
            );
        }
        let place = match &self.manifest {
            Some(manifest) => manifest.display().to_string(),
            None => "its manifest.toml".to_owned(),
        };
        format!("{instead}write engine = {:?} into [model] of {place}.", best.engine)
    }

    /// What the figures cannot be trusted for.
    fn remarks(&self) -> Vec<String> {
        let mut remarks = self.unmeasured.clone();
        for free in &self.free {
            let (input, axis, size) = (&free.input, free.axis, free.size);
            let called = free.name.as_ref().map_or_else(String::new, |name| format!(" ({name})"));
            let how = if free.is_set {
                "as wanted".to_owned()
            } else {
                format!("nobody named a size: --shape {}=N does", free.title())
            };
            remarks.push(format!("dimension {axis} of {input}{called} is free and was {size}, {how}"));
        }
        for candidate in &self.candidates {
            if let Some(Golden::Wrong(error)) = candidate.trial().map(Trial::golden) {
                remarks.push(format!("{}: {error}", candidate.title()));
            }
            match &candidate.difference {
                Some(Ok(Difference::Otherwise(what))) => remarks.push(format!("{}: {what}", candidate.title())),
                Some(Err(problem)) => remarks.push(format!("{}: not compared: {problem}", candidate.title())),
                _ => {}
            }
        }
        if let Some(share) = self.core_share().filter(|&share| share < QUIET) {
            remarks.push(format!(
                "this box is busy: what computed had {:.0} % of a core; compare CPU times, or measure again",
                share * 100.0
            ));
        }
        remarks
    }

    /// Part of a core that the engines of this program had while they computed.
    fn core_share(&self) -> Option<f64> {
        let own = self.candidates.iter().filter(|candidate| candidate.device.is_none());
        let series = own.filter_map(Candidate::trial).flat_map(Trial::series).filter(|series| series.runs() > 0);
        let share = |series: &Series| Some(series.cpu_us_per_row()? * series.rows_per_second() / 1e6);
        series.filter_map(share).min_by(f64::total_cmp)
    }

    /// Everything, for programs.
    pub(super) fn to_json(&self) -> Value {
        let chosen = chosen(&self.candidates);
        let advice = self.advice();
        let engines = self.candidates.iter().enumerate().map(|(at, candidate)| {
            let mut line = json!({
                "engine": candidate.engine,
                "device": candidate.device,
                "gateway_chooses": Some(at) == chosen,
                "not_asked_because": candidate.fit.as_ref().err(),
            });
            match &candidate.outcome {
                Outcome::Refused(reason) => line["refused"] = json!(reason),
                Outcome::Computed(trial) => {
                    line["load_ms"] = json!(millis(trial.load_time()));
                    line["memory_bytes"] = json!(trial.grown_bytes());
                    line["golden"] = match trial.golden() {
                        Golden::Absent => Value::Null,
                        Golden::Right { samples, difference } => {
                            json!({ "right": true, "samples": samples, "difference": number_of(difference) })
                        }
                        Golden::Wrong(error) => json!({ "right": false, "why": error.to_string() }),
                    };
                    line["difference"] = match &candidate.difference {
                        Some(Ok(difference)) => number_of(difference),
                        Some(Err(problem)) => json!(problem),
                        None => Value::Null,
                    };
                    line["batches"] = trial.series().map(of_series).collect();
                }
            }
            line
        });
        json!({
            "model": self.title,
            "format": self.format,
            "size_bytes": self.size_bytes,
            "inputs": {
                "origin": self.origin,
                "shapes": self.shapes.iter().map(|(name, shape)| json!({ "name": name, "shape": shape })).collect::<Value>(),
            },
            "engines": engines.collect::<Value>(),
            "use": advice.as_ref().map(|advice| self.candidates[advice.at].engine),
            "advice": advice.map(|advice| advice.text),
            "remarks": self.remarks(),
            "fine": self.is_fine(),
        })
    }

    /// Cells of a table, the head first.
    fn lines(&self) -> Vec<[String; 11]> {
        let head = [
            "ENGINE",
            "BATCH",
            "P10 µs",
            "P50 µs",
            "P99 µs",
            "CPU µs/row",
            "ROWS/s",
            "LOAD ms",
            "MiB",
            "GOLDEN",
            "DIFFERENCE",
        ];
        let mut lines = vec![head.map(str::to_owned)];
        for candidate in &self.candidates {
            let Some(trial) = candidate.trial() else { continue };
            let golden = match trial.golden() {
                Golden::Absent => "none".to_owned(),
                Golden::Right { samples, .. } => format!("{samples} right"),
                Golden::Wrong(_) => "WRONG".to_owned(),
            };
            let difference = match &candidate.difference {
                None => "-".to_owned(),
                Some(Ok(Difference::By(by, _))) => short(*by),
                Some(_) => "see below".to_owned(),
            };
            let memory = trial.grown_bytes().map_or_else(|| "?".to_owned(), |bytes| format!("{:.1}", mebibytes(bytes)));
            let whole = [millis(trial.load_time()).to_string(), memory, golden, difference];
            for (number, series) in trial.series().filter(|series| series.runs() > 0).enumerate() {
                let [load, memory, golden, difference] = if number == 0 { whole.clone() } else { Default::default() };
                lines.push([
                    if number == 0 { candidate.title() } else { String::new() },
                    series.rows().to_string(),
                    micros(series.within(QUICK).as_secs_f64()),
                    micros(series.within(0.5).as_secs_f64()),
                    micros(series.within(0.99).as_secs_f64()),
                    series.cpu_us_per_row().map_or_else(|| "?".to_owned(), |us| micros(us / 1e6)),
                    format!("{:.0}", series.rows_per_second()),
                    load,
                    memory,
                    golden,
                    difference,
                ]);
            }
        }
        lines
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shapes = self.shapes.iter().map(|(name, shape)| format!("{name} {shape:?}"));
        let shapes = shapes.collect::<Vec<_>>().join(", ");
        writeln!(f, "{} ({}, {} bytes), one thread", self.title, self.format, self.size_bytes)?;
        writeln!(f, "inputs: {}; a row: {shapes}\n", self.origin)?;
        let lines = self.lines();
        if lines.len() > 1 {
            let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
            let widths: Vec<_> = (0..lines[0].len()).map(width).collect();
            for line in &lines {
                let cell = |(column, (cell, &width)): (usize, (&String, &usize))| match column {
                    0 => format!("{cell:<width$}"),
                    _ => format!("{cell:>width$}"),
                };
                let cells: Vec<_> = line.iter().zip(&widths).enumerate().map(cell).collect();
                writeln!(f, "{}", cells.join("  ").trim_end())?;
            }
            writeln!(f)?;
        }
        for candidate in &self.candidates {
            match (&candidate.outcome, &candidate.fit) {
                (Outcome::Refused(reason), _) => writeln!(f, "{} does not compute it: {reason}", candidate.title())?,
                (_, Err(reason)) => writeln!(f, "{} would not be asked by itself: {reason}", candidate.title())?,
                _ => {}
            }
        }
        for remark in self.remarks() {
            writeln!(f, "{remark}")?;
        }
        match self.advice() {
            Some(advice) => write!(f, "{}", advice.text),
            None => write!(f, "No engine here computes {} right.", self.title),
        }
    }
}

fn of_series(series: &Series) -> Value {
    let micros = |share: f64| (series.within(share).as_secs_f64() * 1e7).round() / 10.0;
    json!({
        "rows": series.rows(),
        "runs": series.runs(),
        "p10_us": micros(QUICK),
        "p50_us": micros(0.5),
        "p99_us": micros(0.99),
        "cpu_us_per_row": series.cpu_us_per_row(),
        "rows_per_second": series.rows_per_second(),
    })
}

fn number_of(difference: &Difference) -> Value {
    match difference {
        Difference::By(by, output) if output.is_empty() => json!({ "by": by }),
        Difference::By(by, output) => json!({ "by": by, "output": output }),
        Difference::Otherwise(what) => json!({ "otherwise": what }),
    }
}

/// Microseconds with three figures or whole.
fn micros(seconds: f64) -> String {
    let micros = seconds * 1e6;
    if micros < 10.0 {
        format!("{micros:.2}")
    } else if micros < 100.0 {
        format!("{micros:.1}")
    } else {
        format!("{micros:.0}")
    }
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e4).round() / 10.0
}

#[allow(clippy::cast_precision_loss, reason = "memory of a process")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / (1 << 20) as f64
}

/// Two figures.
fn short(number: f64) -> String {
    if number == 0.0 { "0".to_owned() } else { format!("{number:.1e}") }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;
    use crate::base::{Clock, Datatype, ManualClock, Name, Tensor};
    use crate::engine::bench::{Meter, Rows};
    use crate::engine::{self, Biased, Engine, Error, Fake, LoadSpec, NamedTensor, Sample, Session, TensorSpec};

    struct Blind;

    impl Meter for Blind {
        fn cpu(&self, _: Option<u32>) -> Option<Duration> {
            None
        }

        fn resident_bytes(&self, _: Option<u32>) -> Option<u64> {
            None
        }
    }

    /// [`Fake`] under another name, taking so many milliseconds of the clock for a run.
    struct Taking(&'static str, u64, Arc<ManualClock>);

    struct TakingSession(u64, Arc<ManualClock>, Box<dyn Session>);

    impl Engine for Taking {
        fn name(&self) -> &'static str {
            self.0
        }

        fn reads(&self, _: &str) -> bool {
            true
        }

        fn load(&self, spec: &LoadSpec) -> Result<Box<dyn Session>, Error> {
            Ok(Box::new(TakingSession(self.1, Arc::clone(&self.2), Fake.load(spec)?)))
        }
    }

    impl Session for TakingSession {
        fn run(&self, inputs: &[NamedTensor]) -> Result<Vec<NamedTensor>, Error> {
            self.1.advance(Duration::from_millis(self.0));
            self.2.run(inputs)
        }
    }

    fn spec() -> LoadSpec {
        let port = |name: &str, shape: &[i64]| TensorSpec {
            name: name.into(),
            datatype: Datatype::Fp32,
            shape: shape.to_vec(),
        };
        let tensor = |name: &str, values: &[f32]| {
            vec![NamedTensor::new(name, Tensor::new([1, values.len()], values.to_vec()).unwrap())]
        };
        let sample = Sample {
            inputs: tensor("x", &[1.0, 3.0]),
            outputs: tensor("y", &[2.0]),
            tolerance: 0.0,
            relative_tolerance: 0.0,
        };
        LoadSpec {
            name: Name::new("press").unwrap(),
            version: 1,
            format: "onnx".to_owned(),
            engine: None,
            bytes: Arc::from(&b"weights"[..]),
            inputs: vec![port("x", &[-1, 2])],
            outputs: vec![port("y", &[-1, 1])],
            samples: vec![sample],
            allow_non_finite: false,
            files: Default::default(),
        }
    }

    fn candidate(engine: impl Engine + 'static, clock: &Arc<ManualClock>, fit: Result<Fit, String>) -> Candidate {
        let spec = spec();
        let rows = Rows::seeded(&spec, &[], &mut StdRng::seed_from_u64(0)).unwrap();
        let (name, shared): (_, Arc<dyn Clock>) = (engine.name(), clock.clone());
        let mut trial =
            Trial::load(&(Arc::new(engine) as _), &spec, &rows, &engine::Config::default(), &shared, &Blind).unwrap();
        if name.starts_with("takes") {
            trial.measure(&rows, 1, Duration::from_millis(100), &Blind).unwrap();
            trial.measure(&rows, 8, Duration::from_millis(100), &Blind).unwrap();
        }
        Candidate { engine: name, device: None, fit, outcome: Outcome::Computed(Box::new(trial)), difference: None }
    }

    fn report(candidates: Vec<Candidate>) -> Report {
        Report {
            title: "press/1".to_owned(),
            format: "onnx".to_owned(),
            size_bytes: 7,
            manifest: Some("models/press/1/manifest.toml".into()),
            wanted: None,
            origin: "1 golden sample".to_owned(),
            shapes: vec![("x".to_owned(), vec![1, 2])],
            free: Vec::new(),
            batches: vec![1, 8],
            candidates,
            unmeasured: Vec::new(),
        }
    }

    /// Engines that take so many milliseconds, the gateway's own choice first.
    fn taking(times: &[u64]) -> Report {
        let clock = Arc::new(ManualClock::at(0));
        let names = ["takes-a", "takes-b", "takes-c"];
        let engine = |(name, &time): (&'static str, &u64)| {
            candidate(
                Taking(name, time, Arc::clone(&clock)),
                &clock,
                Ok(if name == names[0] { Fit::Best } else { Fit::Able }),
            )
        };
        report(names.into_iter().zip(times).map(engine).collect())
    }

    #[test]
    fn a_faster_engine_than_the_gateways_choice_is_told_with_the_line_for_the_manifest() {
        let report = taking(&[40, 10]);
        assert_eq!(
            report.advice().unwrap().text,
            "Use takes-b: 10000 µs a row, 4.0 times as fast as takes-a. The gateway would choose takes-a: write engine = \
             \"takes-b\" into [model] of models/press/1/manifest.toml."
        );
        let text = taking(&[10, 40]).advice().unwrap().text;
        assert!(text.starts_with("Use takes-a: 10000 µs a row, 4.0 times as fast as takes-b."), "{text}");
        assert!(text.ends_with("The gateway chooses it by itself."), "{text}");
    }

    #[test]
    fn what_is_hardly_faster_is_not_worth_a_line() {
        let text = taking(&[100, 98]).advice().unwrap().text;
        assert!(text.starts_with("Use takes-a: 100000 µs a row, about as fast as takes-b."), "{text}");
    }

    #[test]
    fn a_device_is_chosen_in_the_configuration() {
        let mut report = taking(&[40, 10]);
        report.candidates[1].device = Some("npu".to_owned());
        let text = report.advice().unwrap().text;
        assert!(text.starts_with("Use takes-b (npu): "), "{text}");
        assert!(text.ends_with("[[delegate.model]] with name = \"press\", devices = [\"npu\"]."), "{text}");
    }

    #[test]
    fn a_wrong_engine_is_never_the_one_to_use_and_spoils_the_exit_code() {
        let clock = Arc::new(ManualClock::at(0));
        let right = |name, time| candidate(Taking(name, time, Arc::clone(&clock)), &clock, Ok(Fit::Best));
        let both = report(vec![candidate(Biased, &clock, Ok(Fit::Best)), right("takes-a", 10)]);
        assert_eq!(chosen(&both.candidates), Some(1));
        assert_eq!(both.advice().unwrap().at, 1);
        assert!(!both.is_fine());
        assert!(both.to_string().contains("biased: model press/1 gives something else"), "{both}");
        assert!(report(vec![right("takes-a", 10)]).is_fine());
        let alone = report(vec![candidate(Biased, &clock, Ok(Fit::Best))]);
        assert!(!alone.is_fine() && alone.to_string().ends_with("No engine here computes press/1 right."), "{alone}");
    }

    #[test]
    fn the_table_has_a_line_for_each_batch_and_refusals_stand_below() {
        let mut report = taking(&[10]);
        report.candidates.push(Candidate {
            engine: "other",
            device: None,
            fit: Err("it has no Gelu".to_owned()),
            outcome: Outcome::Refused("it has no Gelu".to_owned()),
            difference: None,
        });
        report.free = vec![FreeDimension {
            input: "x".into(),
            axis: 1,
            name: Some("tokens".to_owned()),
            size: 64,
            is_set: false,
        }];
        let text = report.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "press/1 (onnx, 7 bytes), one thread");
        assert_eq!(lines[1], "inputs: 1 golden sample; a row: x [1, 2]");
        let words = |at: usize| lines[at].split_whitespace().collect::<Vec<_>>();
        assert_eq!(words(4), ["takes-a", "1", "10000", "10000", "10000", "?", "100", "0", "?", "1", "right", "-"]);
        assert_eq!(words(5), ["8", "10000", "10000", "10000", "?", "800"]);
        assert_eq!(lines[7], "other does not compute it: it has no Gelu");
        assert!(
            lines[8].contains("dimension 1 of x (tokens) is free and was 64, nobody named a size: --shape tokens=N")
        );
    }

    #[test]
    fn programs_get_the_same_as_json() {
        let json = taking(&[40, 10]).to_json();
        assert_eq!((&json["use"], &json["fine"]), (&json!("takes-b"), &json!(true)));
        let engine = &json["engines"][0];
        assert_eq!((&engine["engine"], &engine["gateway_chooses"]), (&json!("takes-a"), &json!(true)));
        assert_eq!(engine["golden"], json!({ "right": true, "samples": 1, "difference": { "by": 0.0 } }));
        let batch = &engine["batches"][1];
        assert_eq!((&batch["rows"], &batch["p50_us"], &batch["runs"]), (&json!(8), &json!(40_000.0), &json!(3)));
        assert_eq!(batch["cpu_us_per_row"], Value::Null);
    }
}
