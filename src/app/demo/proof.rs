//! Holding what the cloud has against what the sensor published.

use std::collections::HashMap;

use anyhow::Result;

use super::site::time_ms;
use crate::app::replay::Reading;
use crate::flows::record::{Closed, RawRecord, SummaryRecord, VerdictRecord};
use crate::signal::{Distinct, Quantiles};

/// The counts that must agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Readings that the gateway acknowledged.
    pub(crate) acknowledged: u64,
    /// Different readings that the cloud has, or that its summaries stand for.
    pub(crate) received: u64,
    /// Acknowledged readings that the cloud does not have.
    pub(crate) missing: u64,
    /// Readings that the cloud has more than once.
    pub(crate) duplicated: u64,
    /// Readings that the cloud has with another value than the sensor published, or never published; or summaries that
    /// say anything else than the published readings do.
    pub(crate) altered: u64,
}

impl Counts {
    /// True if nothing was lost, doubled or altered.
    pub(crate) fn agree(&self) -> bool {
        self.acknowledged == self.received && self.missing == 0 && self.duplicated == 0 && self.altered == 0
    }
}

/// Rows of verdicts, one a reading.
pub(crate) fn count_verdicts(published: &[Reading], acknowledged: usize, verdicts: &[VerdictRecord]) -> Counts {
    let mut times_seen: HashMap<u64, u64> = HashMap::new();
    let mut altered = 0;
    for verdict in verdicts {
        let n = verdict.id.as_deref().and_then(|id| id.parse::<u64>().ok());
        let original = n.and_then(|n| published.get(usize::try_from(n.checked_sub(1)?).ok()?));
        match (n, original) {
            (Some(n), Some(original)) => {
                *times_seen.entry(n).or_default() += 1;
                if verdict.values.first() != Some(&Some(original.value)) {
                    altered += 1;
                }
            }
            _ => altered += 1,
        }
    }
    let received = times_seen.len() as u64;
    let missing = published.iter().filter(|reading| !times_seen.contains_key(&reading.n)).count() as u64;
    let duplicated = times_seen.values().filter(|&&times| times > 1).count() as u64;
    Counts { acknowledged: acknowledged as u64, received, missing, duplicated, altered }
}

/// Summaries: their numbers must not overlap, their counts must add up to what was acknowledged, and each must say what the
/// readings say that it stands for, which are the next ones of the recording.
pub(crate) fn count_summaries(published: &[Reading], acknowledged: usize, summaries: &[SummaryRecord]) -> Counts {
    let mut summaries: Vec<_> = summaries.iter().filter(|one| one.closed != Closed::InPlaceOfRows).collect();
    summaries.sort_by_key(|summary| summary.first);
    let (mut received, mut duplicated, mut altered, mut last) = (0_usize, 0, 0, 0);
    for summary in summaries {
        if summary.first <= last {
            duplicated += summary.count;
            continue;
        }
        last = summary.last;
        let end = received.saturating_add(usize::try_from(summary.count).unwrap_or(usize::MAX));
        let agrees = published.get(received..end).is_some_and(|slice| says(summary, slice));
        altered += u64::from(!agrees);
        received = end;
    }
    let (acknowledged, received) = (acknowledged as u64, received as u64);
    Counts { acknowledged, received, missing: acknowledged.saturating_sub(received), duplicated, altered }
}

fn says(summary: &SummaryRecord, slice: &[Reading]) -> bool {
    let [field] = summary.fields.as_slice() else { return false };
    let n = slice.len() as f64;
    let values = || slice.iter().map(|reading| reading.value);
    let mean = values().sum::<f64>() / n;
    let times: Option<Vec<i64>> = slice.iter().map(|reading| time_ms(&reading.time).ok()).collect();
    let ends = times.and_then(|times| Some((*times.iter().min()?, *times.iter().max()?)));
    field.count == slice.len() as u64
        && field.min == values().reduce(f64::min)
        && field.max == values().reduce(f64::max)
        && field.mean.is_some_and(|said| (said - mean).abs() <= 1e-6 * mean.abs())
        && ends == Some((summary.start_ms, summary.end_ms))
        && summary.states.iter().sum::<u64>() == summary.count
}

/// How far the sketches are off, at worst: the rank of a quantile, and the relative error of the number of different values.
pub(crate) fn sketch_errors(published: &[Reading], summaries: &[SummaryRecord]) -> Result<(f64, f64)> {
    let (mut rank_error, mut distinct_error, mut start) = (0.0_f64, 0.0_f64, 0);
    for summary in summaries {
        let end = start + usize::try_from(summary.count)?;
        let Some(slice) = published.get(start..end) else { break };
        start = end;
        let [field] = summary.fields.as_slice() else { continue };
        let mut sorted: Vec<f64> = slice.iter().map(|reading| reading.value).collect();
        sorted.sort_unstable_by(f64::total_cmp);
        if let Some(bytes) = &field.quantiles {
            let sketch = Quantiles::read(bytes)?;
            for percent in 1..100 {
                let rank = f64::from(percent) / 100.0;
                let Some(value) = sketch.quantile(rank) else { continue };
                // The sketch holds 32-bit floats.
                let off = value.abs() * 1e-7;
                let below = sorted.partition_point(|&other| other < value - off) as f64 / sorted.len() as f64;
                let up_to = sorted.partition_point(|&other| other <= value + off) as f64 / sorted.len() as f64;
                rank_error = rank_error.max(below - rank).max(rank - up_to);
            }
        }
        if let Some(bytes) = &field.distinct {
            sorted.dedup();
            let estimate = Distinct::read(bytes)?.estimate();
            distinct_error = distinct_error.max((estimate / sorted.len() as f64 - 1.0).abs());
        }
    }
    Ok((rank_error, distinct_error))
}

/// Readings fetched on demand, against the recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fetched {
    /// Readings that came.
    pub(crate) readings: u64,
    /// Rows that held them.
    pub(crate) rows: usize,
    /// True if each has the time and value of the recording's, one after the other, and none was left out.
    pub(crate) identical: bool,
}

/// Holds raw rows against the recording: a stretch of it, value by value.
pub(crate) fn compare_raw(published: &[Reading], rows: &[RawRecord], expected: u64) -> Fetched {
    let mut rows: Vec<_> = rows.iter().collect();
    rows.sort_by_key(|row| row.part);
    let came: Vec<_> = rows.iter().flat_map(|row| &row.readings).collect();
    let whole = rows.last().is_some_and(|row| row.is_last && row.part as usize == rows.len());
    let same = |original: &Reading, (time_ms, value): (i64, Option<f64>)| {
        Some(original.value) == value && self::time_ms(&original.time).is_ok_and(|time| time == time_ms)
    };
    let pairs: Vec<_> = came.iter().map(|one| (one.time_ms, one.values.first().copied().flatten())).collect();
    let found = published
        .windows(pairs.len().max(1))
        .any(|stretch| !pairs.is_empty() && stretch.iter().zip(&pairs).all(|(original, pair)| same(original, *pair)));
    let rising = came.windows(2).all(|pair| pair[0].number < pair[1].number);
    let identical = whole && found && rising && came.len() as u64 == expected;
    Fetched { readings: came.len() as u64, rows: rows.len(), identical }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flows::record::{FieldRecord, Quality, RawReading};

    fn reading(n: u64, value: f64) -> Reading {
        Reading { n, time: format!("2013-12-02 21:{n:02}:00"), value }
    }

    fn verdict(id: &str, value: f64) -> VerdictRecord {
        VerdictRecord {
            number: 0,
            id: Some(id.to_owned()),
            time_ms: 0,
            values: vec![Some(value)],
            score: None,
            state: "normal".to_owned(),
            notes: Vec::new(),
        }
    }

    #[test]
    fn a_missing_a_doubled_and_an_altered_reading_are_each_seen() {
        let published = [reading(1, 1.0), reading(2, 2.0), reading(3, 3.0)];
        let exact = [verdict("1", 1.0), verdict("2", 2.0), verdict("3", 3.0)];
        assert!(count_verdicts(&published, 3, &exact).agree());
        let missing = count_verdicts(&published, 3, &exact[..2]);
        assert_eq!((missing.missing, missing.agree()), (1, false));
        let doubled = count_verdicts(&published, 3, &[exact.as_slice(), &exact[..1]].concat());
        assert_eq!((doubled.duplicated, doubled.agree()), (1, false));
        let altered = count_verdicts(&published, 3, &[verdict("1", 1.5), verdict("2", 2.0), verdict("3", 3.0)]);
        assert_eq!((altered.altered, altered.agree()), (1, false));
        let invented = count_verdicts(&published, 3, &[exact.as_slice(), &[verdict("9", 1.0)]].concat());
        assert!(!invented.agree());
    }

    fn summary(first: u64, last: u64, slice: &[Reading]) -> SummaryRecord {
        let values = || slice.iter().map(|reading| reading.value);
        let field = FieldRecord {
            count: slice.len() as u64,
            min: values().reduce(f64::min),
            max: values().reduce(f64::max),
            mean: Some(values().sum::<f64>() / slice.len() as f64),
            std: Some(0.0),
            quantiles: None,
            distinct: None,
            trained: None,
        };
        SummaryRecord {
            version: 1,
            first,
            last,
            start_ms: time_ms(&slice[0].time).unwrap(),
            end_ms: time_ms(&slice[slice.len() - 1].time).unwrap(),
            count: slice.len() as u64,
            closed: Closed::Full,
            quality: Quality::default(),
            fields: vec![field],
            states: [slice.len() as u64, 0, 0, 0, 0],
            model: None,
        }
    }

    #[test]
    fn a_missing_a_doubled_and_an_altered_summary_are_each_seen() {
        let published: Vec<_> = (1..=9).map(|n| reading(n, n as f64)).collect();
        // Numbers jump where the gateway was killed.
        let exact =
            [summary(1, 4, &published[..4]), summary(5, 1030, &published[4..7]), summary(1031, 1032, &published[7..])];
        assert!(count_summaries(&published, 9, &exact).agree());
        assert!(count_summaries(&published, 9, &[exact[2].clone(), exact[0].clone(), exact[1].clone()]).agree());
        let missing = count_summaries(&published, 9, &exact[..2]);
        assert_eq!((missing.missing, missing.agree()), (2, false));
        let doubled = count_summaries(&published, 9, &[exact.as_slice(), &exact[..1]].concat());
        assert_eq!((doubled.duplicated, doubled.agree()), (4, false));
        let mut altered = exact.to_vec();
        altered[1].fields[0].max = Some(7.5);
        assert_eq!(count_summaries(&published, 9, &altered).altered, 1);
        let shifted = [summary(1, 4, &published[1..5]), exact[1].clone(), exact[2].clone()];
        assert_eq!(count_summaries(&published, 9, &shifted).altered, 1);
        let hole = [exact[0].clone(), exact[2].clone()];
        assert!(!count_summaries(&published, 9, &hole).agree());
        let in_place = SummaryRecord { closed: Closed::InPlaceOfRows, ..exact[0].clone() };
        assert!(count_summaries(&published, 9, &[exact.as_slice(), &[in_place]].concat()).agree());
    }

    #[test]
    fn a_fetched_stretch_must_be_whole_and_the_recordings_own() {
        let published: Vec<_> = (1..=9).map(|n| reading(n, n as f64)).collect();
        let raw = |part, is_last, slice: &[Reading]| RawRecord {
            request: "r".to_owned(),
            alarm: None,
            part,
            is_last,
            truncated: false,
            readings: slice
                .iter()
                .map(|reading| RawReading {
                    number: reading.n,
                    time_ms: time_ms(&reading.time).unwrap(),
                    values: vec![Some(reading.value)],
                    score: None,
                    state: 0,
                })
                .collect(),
        };
        let rows = [raw(2, true, &published[4..6]), raw(1, false, &published[2..4])];
        assert_eq!(compare_raw(&published, &rows, 4), Fetched { readings: 4, rows: 2, identical: true });
        assert!(!compare_raw(&published, &rows, 5).identical);
        assert!(!compare_raw(&published, &rows[1..], 2).identical, "the last row is missing");
        let mut altered = rows.clone();
        altered[0].readings[1].values = vec![Some(6.5)];
        assert!(!compare_raw(&published, &altered, 4).identical);
        let torn = [raw(1, true, &[published[0].clone(), published[2].clone()])];
        assert!(!compare_raw(&published, &torn, 2).identical);
        assert!(!compare_raw(&published, &[], 0).identical);
    }
}
