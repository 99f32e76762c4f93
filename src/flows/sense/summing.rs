//! The open summary of a stream: when it ends, and who wants it to.

use std::time::Duration;

use tokio::sync::oneshot;

use super::commit::Row;
use super::judge::as_reading;
use crate::flows::intake::IngestError;
use crate::flows::record::{self, Closed};
use crate::flows::summary::{Extra, Open};
use crate::history;

/// What a summary and each of its fields take on the writer's queue, twice: for the cloud and for history.
const SUMMARY_BYTES: usize = 1024;
const SUMMARY_FIELD_BYTES: usize = 1024;

/// Something to do beside readings.
#[derive(Debug)]
pub(super) enum Order {
    /// End the open summary and say what is in it, once it is on the disk.
    Summarise(oneshot::Sender<Result<Option<SummaryNews>, IngestError>>),
}

/// A summary that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SummaryNews {
    /// First reading's number.
    pub first: u64,
    /// Last reading's number.
    pub last: u64,
    /// Readings.
    pub count: u64,
}

/// The open summary of a stream and when it ends.
pub(super) struct SummingUp {
    pub open: Open,
    /// Readings in one; 0 for no summaries.
    pub readings: u64,
    pub max_age: Option<Duration>,
    /// Time since boot at which the open one ends.
    pub due: Option<Duration>,
}

impl SummingUp {
    /// Takes a reading in; the summary that it completes.
    pub(super) fn push(&mut self, row: &Row, now: Duration) -> Option<record::SummaryRecord> {
        if self.readings == 0 {
            return None;
        }
        if self.open.count() == 0 {
            self.due = self.max_age.map(|age| now + age);
        }
        self.open.push(&row.reading, row.score.map(|score| score.score), row.judged.state as u8, row.drops);
        if self.open.count() < self.readings { None } else { self.close(Closed::Full) }
    }

    pub(super) fn close(&mut self, closed: Closed) -> Option<record::SummaryRecord> {
        self.due = None;
        self.open.close(closed)
    }

    /// Takes the committed readings of the open window in again. It began when the box's clock said `opened_ms`.
    pub(super) fn restore(
        &mut self,
        mut open: Open,
        readings: &[history::Reading],
        opened_ms: i64,
        wall_ms: i64,
        now: Duration,
    ) {
        for old in readings.iter().filter(|_| self.readings > 0) {
            open.push(&as_reading(old), old.score, old.state, Extra::read(old.extra.as_deref()).drops);
        }
        // A clock that was set back makes the window younger, never older than it may become.
        let age = Duration::from_millis(u64::try_from(wall_ms.saturating_sub(opened_ms)).unwrap_or(0));
        self.due = self.max_age.filter(|_| open.count() > 0).map(|most| now + most.saturating_sub(age));
        self.open = open;
    }
}

/// What a summary takes on the writer's queue.
pub(super) fn summary_bytes(summed: &record::SummaryRecord) -> usize {
    SUMMARY_BYTES + summed.fields.len() * SUMMARY_FIELD_BYTES
}
