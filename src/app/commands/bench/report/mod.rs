//! What was measured, as a table for people and as JSON for programs, and which engine to use.
mod advice;
mod json;
mod table;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::time::Duration;

use crate::engine::Fit;
use crate::engine::bench::{Difference, FreeDimension, Golden, Series, Trial};

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

impl Report {
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
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e4).round() / 10.0
}
