//! What one payload's readings become in one transaction, and what is told when it is on the disk.

use std::sync::{Arc, Mutex, PoisonError};

use super::config::Config;
use super::judge::{Judge, Judged, show_id, write_id};
use super::news::{Desk, News};
use super::saved::Saved;
use super::scorer::Score;
use crate::base::Stamp;
use crate::flows::board::{self, Board, Point, StreamBoard};
use crate::flows::intake::Ingested;
use crate::flows::record::{self, AlarmRecord, SummaryRecord, VerdictRecord, finite};
use crate::flows::summary::{Drops, Extra, Open, Scored};
use crate::history::{self, History, StreamNo};
use crate::outbox::{Envelope, Outbox, StreamHandle};
use crate::rules::{self, Rule, Transition, Verdict};
use crate::signal::{Id, Reading};
use crate::store::{Error, Tx};

/// A judged reading.
pub(super) struct Row {
    pub reading: Reading,
    pub id: Option<Id>,
    pub score: Option<Score>,
    pub judged: Judged,
    /// What was dropped since the reading before.
    pub drops: Drops,
    /// The summary that this reading completes.
    pub summed: Option<SummaryRecord>,
}

/// A summary that ends without a reading that completes it.
pub(super) struct Closing {
    pub summed: SummaryRecord,
}

/// What the next transaction of a stream must know of the last one.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Committing {
    /// First reading that no summary holds; 0 for none.
    pub first_unsummed: u64,
    /// Last reading.
    pub last: u64,
}

/// The fixed part of a stream's commits.
pub(super) struct Committed {
    pub name: Arc<str>,
    pub config: Config,
    pub rule: Option<(Rule, super::config::RuleOn)>,
    pub model: Option<String>,
    pub scored: Option<Scored>,
    pub no: StreamNo,
    pub history: History,
    pub outbox: Outbox,
    /// Where each reading's verdict goes, if the cloud wants it.
    pub verdicts: Option<StreamHandle>,
    pub summaries: StreamHandle,
    pub alarms: StreamHandle,
    pub board: Arc<Board>,
    pub stream: Arc<StreamBoard>,
    pub news: Desk,
}

impl Committed {
    /// The worse of two numbers that the rule looked at: further beyond its threshold.
    fn worse(&self, now: Option<f64>, earlier: Option<f64>) -> f64 {
        let below = self.config.rule.as_ref().is_some_and(|rule| rule.direction == rules::Direction::Below);
        match (now, earlier) {
            (Some(now), Some(earlier)) if below => now.min(earlier),
            (Some(now), Some(earlier)) => now.max(earlier),
            (now, earlier) => now.or(earlier).unwrap_or(0.0),
        }
    }

    /// A summary without readings.
    pub(super) fn fresh_window(&self) -> Open {
        Open::new(self.config.summary.sketches(), self.scored.clone())
    }

    /// A judge that has seen nothing.
    pub(super) fn fresh_judge(&self) -> Judge {
        let (rule, rule_on) = match &self.rule {
            Some((rule, on)) => (Some(rule.clone()), *on),
            None => (None, super::config::RuleOn::Value),
        };
        Judge::new(&self.config, rule, rule_on).expect("the same settings were accepted when the stream was built")
    }
}

/// What a transaction wrote, for those who are told.
#[derive(Default)]
struct Written {
    done: bool,
    seqs: Vec<u64>,
    alerts: Vec<(board::Alert, &'static str)>,
}

/// One payload's rows.
pub(super) struct Job {
    committed: Arc<Committed>,
    committing: Arc<Mutex<Committing>>,
    stamp: Stamp,
    rows: Vec<Row>,
    memory: Option<Vec<u8>>,
    closing: Option<Closing>,
    written: Mutex<Written>,
}

impl Job {
    pub(super) fn new(
        committed: Arc<Committed>,
        committing: Arc<Mutex<Committing>>,
        stamp: Stamp,
        rows: Vec<Row>,
        memory: Option<Vec<u8>>,
    ) -> Self {
        Self { committed, committing, stamp, rows, memory, closing: None, written: Mutex::default() }
    }

    /// Ends the open summary behind the rows.
    pub(super) fn closing(self, closing: Closing) -> Self {
        Self { closing: Some(closing), ..self }
    }

    /// True once [`write`](Self::write) ran to its end.
    pub(super) fn is_written(&self) -> bool {
        self.lock().done
    }

    /// Writes everything; on the writer thread.
    pub(super) fn write(&self, tx: &Tx<'_>) -> Result<(), Error> {
        let shared = &*self.committed;
        let mut written = Written::default();
        let mut committing = self.committing.lock().unwrap_or_else(PoisonError::into_inner);
        for row in &self.rows {
            let reading = history::Reading {
                seq: 0,
                time_ms: row.reading.time_ms,
                id: row.id.as_ref().map(write_id),
                values: row.reading.values.to_vec(),
                score: row.score.map(|score| score.score),
                expected: row.score.and_then(|score| score.expected),
                state: row.judged.state as u8,
                extra: Extra::of(&row.reading, row.drops).write(),
            };
            let seq = shared.history.append(tx, shared.no, &reading)?;
            committing.last = seq;
            if committing.first_unsummed == 0 {
                committing.first_unsummed = seq;
                shared.history.open_window(tx, shared.no, self.stamp.wall_ms)?;
            }
            if let Some(verdicts) = &shared.verdicts {
                let verdict = VerdictRecord {
                    number: seq,
                    id: row.id.as_ref().map(show_id),
                    time_ms: row.reading.time_ms,
                    values: finite(&row.reading.values),
                    score: row.score.map(|score| score.score),
                    state: row.judged.state.as_str().to_owned(),
                    notes: row.reading.notes.iter().map(|note| note.as_str().to_owned()).collect(),
                };
                shared.outbox.append(tx, verdicts, &self.envelope(record::encode(&verdict)))?;
            }
            if let Some(verdict) = &row.judged.verdict {
                self.write_alarm(tx, row, verdict, seq, &mut written)?;
            }
            if let Some(summed) = &row.summed {
                self.write_summary(tx, summed, &mut committing)?;
            }
            written.seqs.push(seq);
        }
        if let Some(Closing { summed }) = &self.closing {
            self.write_summary(tx, summed, &mut committing)?;
        }
        if let (Some(memory), Some(&seq)) = (&self.memory, written.seqs.last()) {
            shared.history.remember(tx, shared.no, &Saved::write(seq, memory))?;
        }
        written.done = true;
        *self.lock() = written;
        Ok(())
    }

    fn write_alarm(
        &self,
        tx: &Tx<'_>,
        row: &Row,
        verdict: &Verdict,
        seq: u64,
        written: &mut Written,
    ) -> Result<(), Error> {
        let shared = &*self.committed;
        if verdict.transition.is_none() && verdict.state != rules::State::Alarm {
            return Ok(());
        }
        let severity = verdict.severity.as_str();
        let earlier = shared.history.standing(tx, shared.no)?.map(|alert| alert.peak_score);
        let number = shared.worse(row.judged.looked_at, earlier);
        let Some(transition) = verdict.transition else {
            // The worst of a standing alarm is kept without an event.
            return shared.history.update_alert(tx, shared.no, severity, number, None);
        };
        let time_ms = row.reading.time_ms;
        let kind = match transition {
            Transition::Raised => {
                let alert = history::Alert {
                    id: 0,
                    stream: String::new(),
                    severity: severity.to_owned(),
                    raised_ms: time_ms,
                    raised_seq: seq,
                    cleared_ms: None,
                    peak_score: number,
                    suppressed: verdict.suppressed,
                };
                shared.history.raise(tx, shared.no, &alert)?;
                "raised"
            }
            Transition::Escalated => {
                shared.history.update_alert(tx, shared.no, severity, number, None)?;
                "escalated"
            }
            Transition::Released => {
                shared.history.release_alert(tx, shared.no)?;
                "released"
            }
            Transition::Cleared => "cleared",
        };
        let Some(standing) = shared.history.standing(tx, shared.no)? else { return Ok(()) };
        let alert = board::Alert {
            id: standing.id,
            stream: shared.name.to_string(),
            severity: standing.severity.clone(),
            raised_ms: standing.raised_ms,
            cleared_ms: (transition == Transition::Cleared).then_some(time_ms),
            raised_seq: standing.raised_seq,
            peak_score: number,
            suppressed: standing.suppressed,
        };
        if transition == Transition::Cleared {
            shared.history.update_alert(tx, shared.no, &standing.severity, number, Some(time_ms))?;
        }
        let alarm = AlarmRecord {
            alarm: alert.id,
            kind: kind.to_owned(),
            severity: alert.severity.clone(),
            time_ms,
            seq,
            score: row.judged.looked_at,
            values: finite(&row.reading.values),
            suppressed: alert.suppressed,
            model: shared.model.clone(),
        };
        shared.outbox.append(tx, &shared.alarms, &self.envelope(record::encode(&alarm)))?;
        written.alerts.push((alert, kind));
        Ok(())
    }

    /// The window's end is where its row is: what comes after belongs to the next one, also after a restart.
    fn write_summary(&self, tx: &Tx<'_>, summed: &SummaryRecord, committing: &mut Committing) -> Result<(), Error> {
        let shared = &*self.committed;
        let (first, last) = (std::mem::take(&mut committing.first_unsummed), committing.last);
        let summary = SummaryRecord { first, last, ..summed.clone() };
        let body = record::encode(&summary);
        shared.outbox.append(tx, &shared.summaries, &self.envelope(body.clone()))?;
        let window = history::Window {
            first_seq: first,
            last_seq: last,
            start_ms: summary.start_ms,
            end_ms: summary.end_ms,
            count: summary.count,
            peak_score: summary.model.and_then(|model| model.peak),
            body,
        };
        shared.history.append_window(tx, shared.no, &window)
    }

    /// Tells everybody; on the writer thread after the commit returned from the disk.
    pub(super) fn announce(&self, verdict_us: u32, commit_us: u32, duplicates: u64, durable: bool) -> Ingested {
        let shared = &*self.committed;
        let written = std::mem::take(&mut *self.lock());
        for (seq, row) in written.seqs.iter().zip(&self.rows) {
            let point = Point {
                seq: *seq,
                time_ms: row.reading.time_ms,
                values: finite(&row.reading.values),
                score: row.score.map(|score| score.score),
                expected: row.score.and_then(|score| score.expected),
                state: row.judged.state.as_str(),
            };
            shared.board.committed(&shared.stream, point.clone(), verdict_us, commit_us);
            let id = row.id.as_ref().map(show_id);
            shared.news.verdict(News { stream: Arc::clone(&shared.name), id, point });
        }
        for (alert, kind) in written.alerts {
            if kind == "raised" {
                shared.stream.count(|tally| tally.alerts += 1);
            }
            shared.board.alert(alert.clone());
            shared.news.alert(alert, kind);
        }
        Ingested {
            stream: shared.stream.name().clone(),
            first_seq: written.seqs.first().copied().unwrap_or(0),
            seq: written.seqs.last().copied().unwrap_or(0),
            count: written.seqs.len() as u64,
            duplicates,
            durable,
        }
    }

    fn envelope(&self, body: Vec<u8>) -> Envelope {
        Envelope { body, stamp: self.stamp }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
