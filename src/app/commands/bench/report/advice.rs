//! Which engine to use, and how to have it serve.

use super::table::micros;
use super::{Candidate, QUICK, Report, chosen};

/// An engine must take this part of another's time at most before it is worth a word in the manifest.
const WORTH: f64 = 0.95;

/// What to do.
pub(super) struct Advice {
    /// The engine with the least time for a row of the first batch.
    pub(super) at: usize,
    pub(super) text: String,
}

impl Report {
    /// Somebody computes the model, and nobody gives something else than its golden samples.
    pub(in crate::app::commands::bench) fn is_fine(&self) -> bool {
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

    pub(super) fn advice(&self) -> Option<Advice> {
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
}
