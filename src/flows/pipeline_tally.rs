//! What the steps of a pipeline did: in one request, and in all of them since it was loaded.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use super::tally::Spent;

/// One step in one request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct StepReport {
    /// Its name; of a pipeline within the pipeline behind that step's name and a point.
    pub step: String,
    /// `model`, or what it does.
    pub does: &'static str,
    /// The model and the version that answered; None where none was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What computed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// Computing, in microseconds.
    pub us: u64,
    /// From its turn to its end without that, in microseconds.
    pub waited_us: u64,
    /// Rows that the model was asked about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Of so many, where the step has a condition.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_rows: Option<u64>,
    /// Why it was not the delegate that should have computed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
}

/// A step's figures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct StepCounts {
    /// Times that it was done, and for how long.
    pub success: Spent,
    /// Times that it failed.
    pub fail: u64,
    /// Times that its model was asked.
    pub asked: u64,
    /// Rows that its model was asked about.
    pub rows: u64,
    /// Of so many, where the step has a condition.
    pub of_rows: u64,
    /// Times that another than the right delegate computed it.
    pub fallbacks: u64,
}

/// A step and its figures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepServed {
    /// Its name.
    pub step: String,
    /// `model`, or what it does.
    pub does: &'static str,
    /// The model that it asks, as the pipeline names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The figures.
    #[serde(flatten)]
    pub counts: StepCounts,
}

/// Counts for one step.
#[derive(Debug, Default)]
pub(super) struct StepTally(Mutex<StepCounts>);

impl StepTally {
    pub(super) fn done(&self, report: &StepReport) {
        let mut counts = self.lock();
        counts.success.add(Duration::from_micros(report.us));
        counts.asked += u64::from(report.model.is_some());
        counts.rows += report.rows.unwrap_or(0);
        counts.of_rows += report.of_rows.unwrap_or(0);
        counts.fallbacks += u64::from(report.fallback.is_some());
    }

    pub(super) fn failed(&self) {
        self.lock().fail += 1;
    }

    pub(super) fn counts(&self) -> StepCounts {
        *self.lock()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, StepCounts> {
        // Additions do not panic halfway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
