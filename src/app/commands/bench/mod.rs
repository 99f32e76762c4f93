//! `forebay model bench NAME`: a model in every engine of this box, measured in turns and checked, and which one to use.

mod meter;
mod report;
mod subject;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::{progress, progress_done, say};
use crate::app::cli::BenchArgs;
use crate::app::config::{Loaded, Overrides, nearest};
use crate::base::{Clock, SystemClock};
use crate::catalog::parse_npy;
use crate::engine::bench::{FreeDimension, Rows, Trial, fit_of};
use crate::engine::delegate::{self, Rule, delegates};
use crate::engine::{self, Engine, Fit, LoadSpec, NamedTensor};
use meter::SystemMeter;
use report::{Candidate, Outcome, Report};
use subject::Subject;

/// Each engine's time comes in so many parts, in turns with the others': what else the box does slows all of them.
const TURNS: u32 = 5;

/// An engine that may compute the model here.
struct Entry {
    engine: Arc<dyn Engine>,
    /// The configuration's name, of a device.
    device: Option<String>,
    /// As the gateway would judge it.
    fit: Result<Fit, String>,
}

/// Measures, prints, and says by the exit code whether the model is computed, and right by everybody.
pub(crate) fn run(args: &BenchArgs, overrides: &Overrides) -> Result<ExitCode> {
    let loaded = args.config.as_deref().map(|path| Loaded::read(path, overrides).map_err(|error| anyhow!("{error}")));
    let loaded = loaded.transpose()?;
    let config = loaded.as_ref().map_or_else(engine::Config::default, |loaded| loaded.config.engine.clone());
    let subject = Subject::find(args, loaded.as_ref().map(|loaded| &loaded.config.catalog))?;
    let (spec, clock): (&LoadSpec, Arc<dyn Clock>) = (&subject.spec, Arc::new(SystemClock::new()));
    let home = Home(std::env::temp_dir().join(format!("forebay-bench-{}", std::process::id())));
    let devices = loaded.as_ref().and_then(|loaded| loaded.config.delegate.as_ref());
    let entries = entries(args, spec, devices, &home, &clock)?;

    let sizes = args.shape.iter().cloned().collect();
    let free =
        FreeDimension::all(spec, subject.outline.as_ref(), &sizes).map_err(|problem| anyhow!("--shape {problem}"))?;
    let bytes_max = config.tensor_bytes_max;
    let given = given(args, spec)?;
    let rows = match (given, Rows::golden(spec, bytes_max)) {
        (Some(given), _) => Rows::given(spec, given, bytes_max).map_err(|problem| anyhow!("--samples: {problem}"))?,
        // Who names a size wants that size, which the samples may not have.
        (None, Some(golden)) if sizes.is_empty() => golden,
        _ => {
            Rows::seeded(spec, &free, &mut StdRng::seed_from_u64(args.seed)).map_err(|problem| anyhow!("{problem}"))?
        }
    };
    let is_made_up = args.samples.is_empty() && (!sizes.is_empty() || spec.samples.is_empty());

    let mut trials: Vec<Result<Trial, String>> = Vec::new();
    for Entry { engine, .. } in &entries {
        progress(format_args!("loading into {}", engine.name()));
        let trial = Trial::load(engine, spec, &rows, &config, &clock, &SystemMeter);
        trials.push(trial.map_err(|error| error.to_string()));
    }
    let mut unmeasured: Vec<String> = Vec::new();
    let part = Duration::from_secs_f64(args.seconds) / TURNS;
    for turn in 1..=TURNS {
        for &size in &args.batch {
            for trial in &mut trials {
                let Ok(measured) = trial else { continue };
                // One run can take longer than all turns.
                if measured.spent(size as usize) >= part * TURNS {
                    continue;
                }
                progress(format_args!("measuring {}, batch {size}, {turn} of {TURNS}", measured.engine()));
                let Err(problem) = measured.measure(&rows, size as usize, part, &SystemMeter) else { continue };
                // What one row computes and eight do not is told once, and the engine stays.
                let told = format!("{}, batch {size}: {problem}", measured.engine());
                if !unmeasured.contains(&told) {
                    unmeasured.push(told);
                }
            }
        }
    }
    progress_done();

    let report = report(&subject, args, &rows, is_made_up.then_some(free), entries, trials, unmeasured);
    if args.json {
        say(serde_json::to_string_pretty(&report.to_json())?);
    } else {
        say(report.to_string().trim_end());
    }
    Ok(if report.is_fine() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The hosts' folder, which goes when they have gone.
struct Home(std::path::PathBuf);

impl Drop for Home {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The engines that are wanted, in the order in which the gateway has them: devices before its own.
fn entries(
    args: &BenchArgs,
    spec: &LoadSpec,
    devices: Option<&delegate::Config>,
    home: &Home,
    clock: &Arc<dyn Clock>,
) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    if let Some(config) = devices {
        // Each device may try, golden samples or not: its answers are compared with the others'. What the gateway would give
        // it is the configuration's.
        let names = config.device.iter().map(|device| device.name.clone()).collect();
        let everything =
            Rule { name: "*".to_owned(), devices: names, stand_in: false, require_golden: false, timeout_ms: None };
        let work_folder = Some(home.0.clone());
        let free = delegate::Config { model: vec![everything], work_folder, ..config.clone() };
        let metrics = delegate::Metrics::default();
        let free = delegates(free, &home.0, clock, &metrics)?;
        let bound = delegates(config.clone(), &home.0, clock, &metrics)?;
        for ((device, engine), bound) in config.device.iter().zip(free).zip(bound) {
            let fit = fit_of(bound.as_ref(), spec);
            entries.push(Entry { engine, device: Some(device.name.to_string()), fit });
        }
    }
    for engine in engine::built_in() {
        let fit = fit_of(engine.as_ref(), spec);
        entries.push(Entry { engine, device: None, fit });
    }
    let known: Vec<_> = entries.iter().map(|entry| entry.engine.name()).collect();
    if let Some(unknown) = args.engines.iter().find(|name| !known.contains(&name.as_str())) {
        let hint =
            nearest(unknown, known.iter().copied()).map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        let hosts = if unknown.starts_with("onnxruntime") && devices.is_none() {
            "; devices are in the [delegate] of a configuration: name it with --config"
        } else {
            ""
        };
        bail!("no engine `{unknown}` here: there is {}{hint}{hosts}", known.join(", "));
    }
    if !args.engines.is_empty() {
        entries.retain(|entry| args.engines.iter().any(|name| name == entry.engine.name()));
    }
    if !entries.iter().any(|entry| entry.engine.reads(&spec.format)) {
        bail!("no engine reads format {} of {}: there is {}", spec.format, spec.title(), known.join(", "));
    }
    Ok(entries)
}

/// The arrays of `--samples`.
fn given(args: &BenchArgs, spec: &LoadSpec) -> Result<Option<Vec<NamedTensor>>> {
    let mut tensors = Vec::new();
    for sample in &args.samples {
        let (name, file) = match (sample.split_once('='), spec.inputs.as_slice()) {
            (Some((name, file)), _) => (name, file),
            (None, [only]) => (&*only.name, sample.as_str()),
            (None, inputs) => {
                let names: Vec<_> = inputs.iter().map(|input| &*input.name).collect();
                bail!("--samples {sample}: this model has the inputs {}; write INPUT=FILE for each", names.join(", "));
            }
        };
        let bytes = std::fs::read(file).map_err(|error| anyhow!("failed to read {file}: {error}"))?;
        let tensor = parse_npy(&bytes.into()).map_err(|what| anyhow!("failed to read {file}: {what}"))?;
        tensors.push(NamedTensor::new(name, tensor));
    }
    Ok((!tensors.is_empty()).then_some(tensors))
}

fn report(
    subject: &Subject,
    args: &BenchArgs,
    rows: &Rows,
    free: Option<Vec<FreeDimension>>,
    entries: Vec<Entry>,
    trials: Vec<Result<Trial, String>>,
    unmeasured: Vec<String>,
) -> Report {
    let mut candidates: Vec<Candidate> = Vec::new();
    for (Entry { engine, device, fit }, trial) in entries.into_iter().zip(trials) {
        let outcome = match trial {
            // Why it is none for these operators is said better by itself than by what it stumbles over.
            Err(error) => Outcome::Refused(fit.as_ref().err().cloned().unwrap_or(error)),
            Ok(trial) => Outcome::Computed(Box::new(trial)),
        };
        candidates.push(Candidate { engine: engine.name(), device, fit, outcome, difference: None });
    }
    let chosen = report::chosen(&candidates);
    if let Some((chosen, at)) = chosen.and_then(|at| Some((candidates[at].trial()?, at))) {
        let differences: Vec<_> = candidates
            .iter()
            .enumerate()
            .map(|(other, candidate)| candidate.trial().filter(|_| other != at).map(|own| own.compare(chosen, rows)))
            .collect();
        for (candidate, difference) in candidates.iter_mut().zip(differences) {
            candidate.difference = difference;
        }
    }
    Report {
        title: subject.spec.title(),
        format: subject.spec.format.clone(),
        size_bytes: subject.spec.bytes.len(),
        manifest: subject.manifest.clone(),
        wanted: subject.spec.engine.clone(),
        origin: rows.origin().to_owned(),
        shapes: rows.shapes().map(|(name, shape)| (name.to_owned(), shape.to_vec())).collect(),
        free: free.unwrap_or_default(),
        batches: args.batch.iter().map(|&rows| rows as usize).collect(),
        candidates,
        unmeasured,
    }
}
