//! Windows of readings on their way to becoming summaries.

use serde::{Deserialize, Serialize};

use super::record::{
    self, Closed, FieldRecord, Quality, RawRecord, RecordError, SUMMARY_VERSION, ScoreRecord, SummaryRecord,
    TrainedRange, VerdictRecord,
};
use crate::rules::State;
use crate::signal::{self, Admission, FieldSummary, Note, Notes, Reading, SketchConfig, Summing, Values};

/// What happened to samples that became no reading, until the next one that did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Drops {
    pub missing: u64,
    pub late: u64,
    pub duplicates: u64,
    pub dropped: u64,
}

impl Drops {
    /// Counts a sample that was not used; one that was is counted as a reading.
    pub(super) fn count(&mut self, admission: &Admission) {
        let Admission::Dropped { reason, gap, .. } = admission else { return };
        self.missing = self.missing.saturating_add(gap.map_or(0, |gap| gap.missing));
        match reason {
            Note::Duplicate => self.duplicates += 1,
            reason => {
                self.late += u64::from(*reason == Note::Late);
                self.dropped += 1;
            }
        }
    }
}

/// What a row of history keeps beside a reading, so that its window can be summed again: notes, missing before it, and
/// what was dropped before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(into = "(Notes, u64, [u64; 4])", from = "(Notes, u64, [u64; 4])")]
pub(super) struct Extra {
    pub notes: Notes,
    pub missing: u64,
    pub drops: Drops,
}

impl From<Extra> for (Notes, u64, [u64; 4]) {
    fn from(Extra { notes, missing, drops }: Extra) -> Self {
        (notes, missing, [drops.missing, drops.late, drops.duplicates, drops.dropped])
    }
}

impl From<(Notes, u64, [u64; 4])> for Extra {
    fn from((notes, missing, [dropped_missing, late, duplicates, dropped]): (Notes, u64, [u64; 4])) -> Self {
        Self { notes, missing, drops: Drops { missing: dropped_missing, late, duplicates, dropped } }
    }
}

impl Extra {
    pub(super) fn of(reading: &Reading, drops: Drops) -> Self {
        Self { notes: reading.notes, missing: reading.gap.map_or(0, |gap| gap.missing), drops }
    }

    /// As a row holds it: nothing, nearly always.
    pub(super) fn write(self) -> Option<Vec<u8>> {
        (self != Self::default()).then(|| record::encode(&self))
    }

    /// Of a row of history. What cannot be read says nothing.
    pub(super) fn read(row: Option<&[u8]>) -> Self {
        row.and_then(|bytes| record::decode("reading's extra", bytes).ok()).unwrap_or_default()
    }

    /// The gap that ends at the reading, as far as sums need it.
    pub(super) fn gap(self) -> Option<signal::Gap> {
        (self.missing > 0).then_some(signal::Gap { from_ms: 0, to_ms: 0, missing: self.missing })
    }
}

/// Who scores a stream, as summaries say it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scored {
    /// `name/version`.
    pub name: String,
    /// SHA-256 of the model's file.
    pub digest: Vec<u8>,
    /// What each field was in training, where the manifest says it.
    pub trained: Vec<Option<(f64, f64)>>,
}

/// The open window of a stream.
#[derive(Debug)]
pub(super) struct Open {
    sketches: SketchConfig,
    scored: Option<Scored>,
    summing: Summing,
    states: [u64; 5],
    drops: Drops,
    outside: Vec<u64>,
}

impl Open {
    pub(super) fn new(sketches: SketchConfig, scored: Option<Scored>) -> Self {
        let outside = vec![0; scored.as_ref().map_or(0, |scored| scored.trained.len())];
        Self { sketches, scored, summing: Summing::default(), states: [0; 5], drops: Drops::default(), outside }
    }

    /// Readings in it.
    pub(super) fn count(&self) -> u64 {
        self.summing.count()
    }

    /// Takes a reading in.
    pub(super) fn push(&mut self, reading: &Reading, score: Option<f64>, state: u8, drops: Drops) {
        self.summing.push(reading, score);
        self.states[usize::from(state).min(State::Unscored as usize)] += 1;
        self.drops.missing = self.drops.missing.saturating_add(drops.missing);
        self.drops.late += drops.late;
        self.drops.duplicates += drops.duplicates;
        self.drops.dropped += drops.dropped;
        let trained = self.scored.iter().flat_map(|scored| &scored.trained);
        for ((outside, trained), value) in self.outside.iter_mut().zip(trained).zip(&reading.values) {
            *outside += u64::from(trained.is_some_and(|(min, max)| !(min..=max).contains(value)));
        }
    }

    /// The window so far, numbers yet to be filled in, and begins anew; `None` without a reading.
    pub(super) fn close(&mut self, closed: Closed) -> Option<SummaryRecord> {
        let summary = self.summing.finish(&self.sketches)?;
        let drops = std::mem::take(&mut self.drops);
        let none = vec![0; self.outside.len()];
        let outside = std::mem::replace(&mut self.outside, none);
        let trained = |at: usize| {
            let (min, max) = (*self.scored.as_ref()?.trained.get(at)?)?;
            Some(TrainedRange { min, max, outside: *outside.get(at)? })
        };
        let fields = summary.fields.into_iter().enumerate().map(|(at, field)| field_record(field, trained(at)));
        let quality = Quality {
            missing: summary.missing.saturating_add(drops.missing),
            late: summary.late + drops.late,
            duplicates: summary.duplicates + drops.duplicates,
            dropped: drops.dropped,
            flagged: summary.flagged,
        };
        let unknown = || Scored { name: String::new(), digest: Vec::new(), trained: Vec::new() };
        let scored = self.scored.clone().or_else(|| (summary.scored > 0).then(unknown));
        Some(SummaryRecord {
            version: SUMMARY_VERSION,
            first: 0,
            last: 0,
            start_ms: summary.first_ms,
            end_ms: summary.last_ms,
            count: summary.count,
            closed,
            quality,
            fields: fields.collect(),
            states: std::mem::take(&mut self.states),
            model: scored.map(|scored| ScoreRecord {
                name: scored.name,
                digest: scored.digest,
                count: summary.scored,
                peak: summary.peak,
                quantiles: summary.scores.unwrap_or_default(),
            }),
        })
    }
}

fn field_record(field: FieldSummary, trained: Option<TrainedRange>) -> FieldRecord {
    #[allow(clippy::cast_possible_truncation, reason = "6e-8 of the value is exact enough for a mean")]
    let narrow = |number: f64| f64::from(number as f32);
    FieldRecord {
        count: field.count,
        min: field.min,
        max: field.max,
        mean: field.mean.map(narrow),
        std: field.std.map(narrow),
        quantiles: field.quantiles,
        distinct: field.distinct,
        trained,
    }
}

/// Rows that had to make room, in one summary.
#[derive(Debug, Clone, PartialEq)]
pub struct InPlace {
    /// The body of a row of class `summary`; `None` if no reading was in the rows.
    pub body: Option<Vec<u8>>,
    /// Readings that it stands for.
    pub readings: u64,
}

/// One summary in place of a stream's rows of class `verdict` or `raw`, in their order. A body that cannot be read is an
/// error: what it held is not known.
pub fn in_place_of(class: &str, bodies: &[impl AsRef<[u8]>], sketches: SketchConfig) -> Result<InPlace, RecordError> {
    let mut open = Open::new(sketches, None);
    let mut numbers: Option<(u64, u64)> = None;
    let mut push = |number: u64, time_ms: i64, values: &[Option<f64>], score: Option<f64>, state: u8| {
        let values: Values = values.iter().map(|value| value.unwrap_or(f64::NAN)).collect();
        let reading = Reading { time_ms, arrival_ms: time_ms, values, notes: Notes::NONE, gap: None };
        open.push(&reading, score, state, Drops::default());
        let (first, last) = numbers.get_or_insert((number, number));
        (*first, *last) = ((*first).min(number), (*last).max(number));
    };
    for body in bodies {
        if class == "raw" {
            for reading in record::decode::<RawRecord>("raw", body.as_ref())?.readings {
                push(reading.number, reading.time_ms, &reading.values, reading.score, reading.state);
            }
        } else {
            let verdict: VerdictRecord = record::decode("verdict", body.as_ref())?;
            push(verdict.number, verdict.time_ms, &verdict.values, verdict.score, state_number(&verdict.state));
        }
    }
    let readings = open.count();
    let body = open.close(Closed::InPlaceOfRows).map(|summary| {
        let (first, last) = numbers.unwrap_or_default();
        record::encode(&SummaryRecord { first, last, ..summary })
    });
    Ok(InPlace { body, readings })
}

/// Every state in the order of its number.
const STATES: [State; 5] = [State::Normal, State::Pending, State::Alarm, State::Clearing, State::Unscored];

/// The word for a state's number.
pub(super) fn state_word(number: u8) -> &'static str {
    STATES.get(usize::from(number)).unwrap_or(&State::Unscored).as_str()
}

fn state_number(word: &str) -> u8 {
    STATES.iter().find(|state| state.as_str() == word).map_or(State::Unscored as u8, |state| *state as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(at: i64, values: &[f64]) -> Reading {
        Reading { time_ms: at * 1000, arrival_ms: 0, values: Values::from_slice(values), notes: Notes::NONE, gap: None }
    }

    #[test]
    fn a_window_of_a_scored_stream_says_all_of_it_in_less_than_a_kilobyte() {
        let scored = Scored { name: "bearing/3".to_owned(), digest: vec![7; 32], trained: vec![Some((50.0, 1000.0))] };
        let mut open = Open::new(SketchConfig::default(), Some(scored));
        assert_eq!(open.close(Closed::Asked), None);
        for at in 0..2048 {
            let drops = Drops { duplicates: u64::from(at == 7), ..Drops::default() };
            let state = if at < 100 { State::Unscored } else { State::Normal };
            open.push(&reading(at, &[at as f64 * 0.731]), Some(at as f64 / 3000.0), state as u8, drops);
        }
        let summary = open.close(Closed::Full).unwrap();
        assert_eq!((summary.count, summary.start_ms, summary.end_ms), (2048, 0, 2_047_000));
        assert_eq!(summary.states, [1948, 0, 0, 0, 100]);
        assert_eq!(summary.quality, Quality { duplicates: 1, ..Quality::default() });
        let field = &summary.fields[0];
        assert_eq!((field.min, field.max, field.count), (Some(0.0), Some(2047.0 * 0.731), 2048));
        let outside = (0..2048).filter(|at| !(50.0..=1000.0).contains(&(f64::from(*at) * 0.731))).count() as u64;
        assert_eq!(field.trained, Some(TrainedRange { min: 50.0, max: 1000.0, outside }));
        let body = record::encode(&summary);
        assert!(body.len() < 1000, "{} bytes", body.len());
        assert_eq!(record::decode_summary(&body).unwrap(), summary);
        assert_eq!(open.close(Closed::Full), None, "the next window is empty");
    }

    #[test]
    fn rows_that_make_room_become_one_summary_and_an_unreadable_one_is_an_error() {
        let verdict = |number: u64, value: Option<f64>| {
            record::encode(&VerdictRecord {
                number,
                id: None,
                time_ms: number.cast_signed() * 10,
                values: vec![value],
                score: None,
                state: "alarm".to_owned(),
                notes: Vec::new(),
            })
        };
        let bodies = [verdict(4, Some(1.5)), verdict(5, None), verdict(9, Some(2.5))];
        let InPlace { body, readings } = in_place_of("verdict", &bodies, SketchConfig::default()).unwrap();
        let summary = record::decode_summary(&body.unwrap()).unwrap();
        assert_eq!((readings, summary.count, summary.first, summary.last), (3, 3, 4, 9));
        assert_eq!((summary.closed, summary.states), (Closed::InPlaceOfRows, [0, 0, 3, 0, 0]));
        assert_eq!((summary.fields[0].count, summary.fields[0].max), (2, Some(2.5)));
        assert_eq!(summary.model, None);
        in_place_of("raw", &bodies, SketchConfig::default()).unwrap_err();
        let nothing = in_place_of("verdict", &[] as &[Vec<u8>], SketchConfig::default()).unwrap();
        assert_eq!(nothing, InPlace { body: None, readings: 0 });
    }

    #[test]
    fn a_summary_of_the_first_version_is_read() {
        #[derive(Serialize)]
        struct First {
            first: u64,
            last: u64,
            start_ms: i64,
            end_ms: i64,
            count: u64,
            fields: Vec<[f64; 4]>,
            peak: Option<f64>,
        }
        let fields = vec![[1.0, 2.0, 1.5, f64::NAN]];
        let old = First { first: 3, last: 14, start_ms: 30, end_ms: 140, count: 12, fields, peak: Some(0.25) };
        let read = record::decode_summary(&record::encode(&old)).unwrap();
        assert_eq!((read.version, read.first, read.last, read.count), (0, 3, 14, 12));
        assert_eq!((read.fields[0].mean, read.fields[0].std), (Some(1.5), None));
        record::decode_summary(&[0xa0]).unwrap_err();
    }

    #[test]
    fn what_is_kept_beside_a_reading_reads_back_and_is_absent_where_nothing_happened() {
        assert_eq!(Extra::default().write(), None);
        assert_eq!(Extra::read(None), Extra::default());
        let mut notes = Notes::NONE;
        notes.insert(Note::Late);
        let extra = Extra { notes, missing: 3, drops: Drops { missing: 1, late: 2, duplicates: 3, dropped: 4 } };
        assert_eq!(Extra::read(extra.write().as_deref()), extra);
    }
}
