//! Which samples go on, with which values: range, gaps, lateness, duplicates. Deterministic in its samples.

use std::collections::{HashSet, VecDeque};

use serde::{Deserialize, Serialize};

use super::config::{Config, DuplicateKey, IntakeConfig, Keep, Missing, NonFinite, OutOfRange};
use super::error::Error;
use super::sample::{Admission, Gap, Id, Note, Notes, Reading, Sample, Values};

/// Most ids or times that a stream may remember.
const MAX_REMEMBERED: usize = 65_536;

/// Lets the samples of one stream in.
#[derive(Debug, Clone)]
pub struct Intake {
    settings: IntakeConfig,
    bounds: Vec<Bounds>,
    /// The decoder looks for a time, so its absence is worth a note.
    expects_time: bool,
    newest_ms: Option<i64>,
    last_arrival_ms: Option<i64>,
    last: Vec<Last>,
    recent: Recent,
}

#[derive(Debug, Clone, Copy)]
struct Bounds {
    min: f64,
    max: f64,
}

/// The last good value of a field and for how many samples in a row it has stood in.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
struct Last {
    value: Option<f64>,
    held: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Key {
    #[serde(rename = "i")]
    Id(Id),
    #[serde(rename = "t")]
    TimeMs(i64),
}

/// The last `most` keys, found in constant time.
#[derive(Debug, Clone)]
struct Recent {
    most: usize,
    order: VecDeque<Key>,
    known: HashSet<Key>,
}

impl Recent {
    fn remember(&mut self, key: Key) {
        if self.known.insert(key.clone()) {
            self.order.push_back(key);
            if self.order.len() > self.most
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
    }
}

/// What an [`Intake`] knows, to be written with the samples it let in. About 10 bytes a remembered id in CBOR.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct IntakeState {
    newest_ms: Option<i64>,
    last_arrival_ms: Option<i64>,
    last: Vec<Last>,
    recent: Vec<Key>,
}

impl Intake {
    /// An intake that has seen nothing.
    ///
    /// # Errors
    /// [`Error::Setting`] for bounds of 0, a negative tolerance, or duplicates told by something that is not read.
    pub fn new(config: &Config) -> Result<Self, Error> {
        config.check_fields()?;
        let settings = config.intake.clone();
        let problem = |key: &str, problem: &str| Err(Error::setting(format!("intake.{key}"), problem));
        if settings.interval_ms == Some(0) {
            return problem("interval_ms", "0 is no interval; leave it out to expect no rate");
        }
        if !(0.0..=1000.0).contains(&settings.tolerance) {
            return problem("tolerance", "expected a fraction of the interval from 0 to 1000");
        }
        let senml = matches!(config.decoder.format, super::Format::Senml | super::Format::SenmlCbor);
        match settings.duplicate_key {
            DuplicateKey::Id if config.decoder.id.is_none() => {
                return problem("duplicate_key", "\"id\" needs `decoder.id`");
            }
            DuplicateKey::Time if config.decoder.time.is_none() && !senml => {
                return problem("duplicate_key", "\"time\" needs `decoder.time`");
            }
            DuplicateKey::None => {}
            _ if (1..=MAX_REMEMBERED).contains(&settings.remember) => {}
            _ => return problem("remember", "expected 1 to 65536"),
        }
        let bounds: Vec<Bounds> = config
            .fields()
            .iter()
            .map(|field| Bounds {
                min: field.min.unwrap_or(f64::NEG_INFINITY),
                max: field.max.unwrap_or(f64::INFINITY),
            })
            .collect();
        let recent = Recent { most: settings.remember, order: VecDeque::new(), known: HashSet::new() };
        Ok(Self {
            expects_time: config.decoder.time.is_some(),
            newest_ms: None,
            last_arrival_ms: None,
            last: vec![Last::default(); bounds.len()],
            settings,
            bounds,
            recent,
        })
    }

    /// Decides about one sample. `arrival_ms` stands in for a time that is absent; ms since 1970.
    pub fn admit(&mut self, mut sample: Sample, arrival_ms: i64) -> Admission {
        debug_assert_eq!(sample.values.len(), self.bounds.len());
        let mut notes = Notes::NONE;
        self.last_arrival_ms = Some(arrival_ms);
        let time_ms = sample.time_ms.unwrap_or(arrival_ms);
        if sample.time_ms.is_none() && self.expects_time {
            notes.insert(Note::ArrivalTime);
        }
        if self.is_duplicate(&mut sample, &mut notes) && self.settings.duplicates == Keep::Drop {
            return Admission::Dropped { reason: Note::Duplicate, notes, gap: None };
        }
        let gap = match self.step_to(time_ms, sample.time_ms.is_none(), &mut notes) {
            Ok(gap) => gap,
            Err(reason) => return Admission::Dropped { reason, notes, gap: None },
        };
        match self.values(&mut sample, &mut notes) {
            Ok(()) => Admission::Accepted(Reading { time_ms, arrival_ms, values: sample.values, notes, gap }),
            Err(reason) => Admission::Dropped { reason, notes, gap },
        }
    }

    /// Remembers the sample's key; true if it was known.
    fn is_duplicate(&mut self, sample: &mut Sample, notes: &mut Notes) -> bool {
        let key = match self.settings.duplicate_key {
            DuplicateKey::None => return false,
            DuplicateKey::Id => sample.id.take().map(Key::Id),
            DuplicateKey::Time => sample.time_ms.map(Key::TimeMs),
        };
        let Some(key) = key else {
            notes.insert(Note::NoIdentity);
            return false;
        };
        if self.recent.known.contains(&key) {
            notes.insert(Note::Duplicate);
            return true;
        }
        self.recent.remember(key);
        false
    }

    /// Moves the stream's time; a late sample leaves it where it is.
    fn step_to(&mut self, time_ms: i64, is_arrival: bool, notes: &mut Notes) -> Result<Option<Gap>, Note> {
        let Some(newest_ms) = self.newest_ms else {
            self.newest_ms = Some(time_ms);
            return Ok(None);
        };
        if time_ms < newest_ms {
            // What arrives cannot be late: this box's own clock was set back.
            if is_arrival || newest_ms.abs_diff(time_ms) > self.settings.max_late_ms {
                notes.insert(Note::ClockStep);
                self.newest_ms = Some(time_ms);
                return Ok(None);
            }
            notes.insert(Note::Late);
            return if self.settings.late == Keep::Drop { Err(Note::Late) } else { Ok(None) };
        }
        self.newest_ms = Some(time_ms);
        let gap = self.settings.interval_ms.and_then(|interval_ms| {
            let passed_ms = time_ms.abs_diff(newest_ms);
            let intervals = passed_ms as f64 / interval_ms as f64;
            (intervals > 1.0 + self.settings.tolerance).then(|| {
                let missing = (intervals.round() as u64).saturating_sub(1).max(1);
                Gap { from_ms: newest_ms, to_ms: time_ms, missing }
            })
        });
        if gap.is_some() {
            notes.insert(Note::Gap);
        }
        Ok(gap)
    }

    /// Applies the policies to the values. The last values change only if the whole sample passes.
    fn values(&mut self, sample: &mut Sample, notes: &mut Notes) -> Result<(), Note> {
        let settings = &self.settings;
        let mut held = 0_u64;
        let mut reason = None;
        for (at, value) in sample.values.iter_mut().enumerate() {
            let Bounds { min, max } = self.bounds[at];
            let (problem, hold) = if sample.missing & (1 << at) != 0 {
                (Note::Missing, settings.missing == Missing::HoldLast)
            } else if !value.is_finite() {
                notes.insert(Note::NonFinite);
                if settings.non_finite == NonFinite::KeepFlagged {
                    continue;
                }
                (Note::NonFinite, settings.non_finite == NonFinite::HoldLast)
            } else if *value < min || *value > max {
                notes.insert(Note::OutOfRange);
                match settings.out_of_range {
                    OutOfRange::KeepFlagged => {}
                    OutOfRange::Drop => reason = reason.or(Some(Note::OutOfRange)),
                    OutOfRange::Clamp => {
                        *value = value.clamp(min, max);
                        notes.insert(Note::Clamped);
                    }
                }
                continue;
            } else {
                continue;
            };
            notes.insert(problem);
            match self.last[at] {
                Last { value: Some(last), held: times } if hold && times < settings.max_held => {
                    *value = last;
                    held |= 1 << at;
                    notes.insert(Note::Held);
                }
                _ => reason = reason.or(Some(problem)),
            }
        }
        if let Some(reason) = reason {
            return Err(reason);
        }
        for (at, (last, &value)) in self.last.iter_mut().zip(&sample.values).enumerate() {
            if held & (1 << at) != 0 {
                last.held += 1;
            } else if value.is_finite() {
                *last = Last { value: Some(value), held: 0 };
            }
        }
        Ok(())
    }

    /// For how long the stream has been silent beyond its expected rate; ms, `None` while all is well.
    /// `now_ms` is compared with arrival times, so the source's clock does not matter.
    pub fn overdue_ms(&self, now_ms: i64) -> Option<u64> {
        let interval_ms = self.settings.interval_ms?;
        let silent_ms = u64::try_from(now_ms.saturating_sub(self.last_arrival_ms?)).ok()?;
        let allowed_ms = interval_ms as f64 * (1.0 + self.settings.tolerance);
        (silent_ms as f64 > allowed_ms).then(|| silent_ms.saturating_sub(interval_ms))
    }

    /// The last accepted values; NaN where there was none yet.
    pub fn last_values(&self) -> Values {
        self.last.iter().map(|last| last.value.unwrap_or(f64::NAN)).collect()
    }

    /// What must be kept to go on after a restart.
    pub fn save(&self) -> IntakeState {
        IntakeState {
            newest_ms: self.newest_ms,
            last_arrival_ms: self.last_arrival_ms,
            last: self.last.clone(),
            recent: self.recent.order.iter().cloned().collect(),
        }
    }

    /// Goes on from a saved state, also after a failed commit: what was admitted since is forgotten, so that its
    /// redelivery is not taken for a duplicate. A state of another number of fields keeps its times and keys only.
    pub fn restore(&mut self, state: IntakeState) {
        self.newest_ms = state.newest_ms;
        self.last_arrival_ms = state.last_arrival_ms;
        self.last =
            if state.last.len() == self.bounds.len() { state.last } else { vec![Last::default(); self.bounds.len()] };
        self.recent.order.clear();
        self.recent.known.clear();
        if self.settings.duplicate_key != DuplicateKey::None {
            state.recent.into_iter().for_each(|key| self.recent.remember(key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn intake(settings: &str) -> Intake {
        let text = format!(
            "fields=[{{name='a',min=0,max=100}}]\n[decoder]\ntime='t'\nid='i'\n[intake]\ninterval_ms=1000\n{settings}"
        );
        Intake::new(&toml::from_str(&text).unwrap()).unwrap()
    }

    fn sample(time_ms: i64, value: f64) -> Sample {
        let mut sample = Sample::empty(1);
        sample.time_ms = Some(time_ms);
        sample.put(0, value);
        sample
    }

    fn with_id(id: u64, time_ms: i64) -> Sample {
        Sample { id: Some(Id::Number(id)), ..sample(time_ms, 1.0) }
    }

    fn dropped(admission: &Admission) -> Option<Note> {
        match admission {
            Admission::Accepted(_) => None,
            Admission::Dropped { reason, .. } => Some(*reason),
        }
    }

    #[test]
    fn out_of_range_values_are_kept_dropped_or_clamped_and_always_noted() {
        for (policy, expected) in [("keep_flagged", Some(150.0)), ("drop", None), ("clamp", Some(100.0))] {
            let mut intake = intake(&format!("out_of_range='{policy}'"));
            assert!(intake.admit(sample(0, 100.0), 0).notes().is_empty());
            let admission = intake.admit(sample(1000, 150.0), 1000);
            assert!(admission.notes().contains(Note::OutOfRange));
            assert_eq!(admission.notes().contains(Note::Clamped), policy == "clamp");
            assert_eq!(admission.reading().map(|reading| reading.values[0]), expected, "{policy}");
        }
    }

    #[test]
    fn non_finite_values_are_dropped_held_or_kept() {
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let mut drop = intake("");
            assert_eq!(dropped(&drop.admit(sample(0, value), 0)), Some(Note::NonFinite));
            let mut keep = intake("non_finite='keep_flagged'");
            let reading = keep.admit(sample(0, value), 0).reading().unwrap();
            assert!(!reading.values[0].is_finite() && reading.notes.taints_values());
            let mut hold = intake("non_finite='hold_last'");
            assert_eq!(dropped(&hold.admit(sample(0, value), 0)), Some(Note::NonFinite), "nothing to hold yet");
            hold.admit(sample(1000, 7.0), 1000);
            let reading = hold.admit(sample(2000, value), 2000).reading().unwrap();
            assert_eq!(reading.values[0], 7.0);
            assert!(reading.notes.contains(Note::Held) && reading.notes.contains(Note::NonFinite));
        }
    }

    #[test]
    fn a_dead_sensor_is_held_only_so_often() {
        let mut intake = intake("missing='hold_last'\nmax_held=2");
        intake.admit(sample(0, 7.0), 0);
        let mut absent = |at: i64| dropped(&intake.admit(Sample { time_ms: Some(at), ..Sample::empty(1) }, at));
        assert_eq!([absent(1000), absent(2000), absent(3000)], [None, None, Some(Note::Missing)]);
        assert_eq!(dropped(&intake.admit(sample(4000, 8.0), 4000)), None);
        assert_eq!(dropped(&intake.admit(Sample { time_ms: Some(5000), ..Sample::empty(1) }, 5000)), None);
    }

    #[test]
    fn a_missing_field_drops_the_sample_by_default() {
        assert_eq!(dropped(&intake("").admit(Sample::empty(1), 5)), Some(Note::Missing));
    }

    #[test]
    fn late_samples_are_accepted_or_dropped_and_time_stays() {
        let mut accept = intake("");
        accept.admit(sample(10_000, 1.0), 0);
        let late = accept.admit(sample(9_000, 2.0), 0);
        assert!(late.notes().contains(Note::Late));
        assert_eq!(late.reading().unwrap().time_ms, 9_000);
        assert!(accept.admit(sample(11_000, 1.0), 0).notes().is_empty(), "no gap: the newest time stayed");
        let mut drop = intake("late='drop'");
        drop.admit(sample(10_000, 1.0), 0);
        assert_eq!(dropped(&drop.admit(sample(9_999, 2.0), 0)), Some(Note::Late));
        assert_eq!(dropped(&drop.admit(sample(10_000, 2.0), 0)), None);
    }

    #[test]
    fn one_time_in_the_far_future_does_not_make_the_rest_late() {
        let mut intake = intake("late='drop'");
        intake.admit(sample(0, 1.0), 0);
        assert!(intake.admit(sample(i64::MAX, 1.0), 0).notes().contains(Note::Gap));
        let back = intake.admit(sample(1000, 1.0), 0);
        assert_eq!(back.notes().iter().collect::<Vec<_>>(), [Note::ClockStep]);
        assert!(intake.admit(sample(2000, 1.0), 0).notes().is_empty());
        intake.admit(sample(i64::MIN, 1.0), 0);
        assert_eq!(intake.admit(sample(i64::MAX, 1.0), 0).gap().unwrap().missing, 18_446_744_073_709_551);
    }

    #[test]
    fn duplicates_are_told_by_id_within_a_bounded_memory() {
        let mut intake = intake("duplicate_key='id'\nremember=2");
        for id in [1, 2] {
            assert_eq!(dropped(&intake.admit(with_id(id, 0), 0)), None);
        }
        assert_eq!(dropped(&intake.admit(with_id(1, 0), 0)), Some(Note::Duplicate));
        assert_eq!(dropped(&intake.admit(with_id(3, 0), 0)), None);
        assert_eq!(dropped(&intake.admit(with_id(1, 0), 0)), None, "forgotten: two newer ones came");
        assert!(intake.admit(sample(0, 1.0), 0).notes().contains(Note::NoIdentity));
        assert!(intake.recent.known.len() <= 2 && intake.recent.order.len() <= 2);
    }

    #[test]
    fn duplicates_are_told_by_time_and_may_pass() {
        let mut drop = intake("duplicate_key='time'");
        drop.admit(sample(0, 1.0), 0);
        drop.admit(sample(1000, 1.0), 0);
        assert_eq!(dropped(&drop.admit(sample(0, 1.0), 0)), Some(Note::Duplicate), "not merely late");
        let mut accept = intake("duplicate_key='time'\nduplicates='accept'");
        accept.admit(sample(0, 1.0), 0);
        let again = accept.admit(sample(0, 1.0), 0);
        assert!(again.notes().contains(Note::Duplicate) && again.reading().is_some());
    }

    #[test]
    fn a_gap_counts_what_the_rate_expects() {
        let mut intake = intake("");
        intake.admit(sample(0, 1.0), 0);
        assert_eq!(intake.admit(sample(1500, 1.0), 0).gap(), None, "within tolerance");
        let gap = intake.admit(sample(6500, 1.0), 0).gap();
        assert_eq!(gap, Some(Gap { from_ms: 1500, to_ms: 6500, missing: 4 }));
        assert_eq!(intake.admit(sample(8_001, 1.0), 0).gap().unwrap().missing, 1);
    }

    #[test]
    fn silence_is_seen_by_arrival_time() {
        let mut intake = intake("");
        assert_eq!(intake.overdue_ms(1_000_000), None, "nothing came yet");
        intake.admit(sample(-5, 1.0), 1_000_000);
        assert_eq!(intake.overdue_ms(1_001_500), None);
        assert_eq!(intake.overdue_ms(1_004_000), Some(3000));
        assert_eq!(intake.overdue_ms(0), None);
    }

    #[test]
    fn a_sample_after_a_failed_commit_is_no_duplicate() {
        let mut intake = intake("duplicate_key='id'\nlate='drop'");
        intake.admit(with_id(1, 0), 0);
        let committed = intake.save();
        intake.admit(with_id(2, 1000), 0);
        intake.admit(with_id(3, 2000), 0);
        intake.restore(committed);
        assert_eq!(dropped(&intake.admit(with_id(2, 1000), 0)), None);
        assert_eq!(dropped(&intake.admit(with_id(1, 0), 0)), Some(Note::Duplicate));
    }

    #[test]
    fn readings_without_a_time_are_never_late_whatever_is_done_to_the_clock() {
        let mut intake = intake("late='drop'\nmax_late_ms=3600000");
        let (start, year_ms) = (1_700_000_000_000, 365 * 24 * 3_600_000_i64);
        for jump_ms in [0, -start, -10 * year_ms, 3_600_000, 10 * year_ms, -1000, 0] {
            for n in 0..3 {
                let sample = Sample { time_ms: None, ..sample(0, 5.0) };
                let admission = intake.admit(sample, start + jump_ms + n);
                assert!(matches!(admission, Admission::Accepted(_)), "{jump_ms}: {admission:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn an_intake_restored_anywhere_decides_the_same(
            samples in proptest::collection::vec((0_i64..20_000, -50.0..150.0_f64, 0_u64..20, any::<bool>()), 1..60),
            cut in 0_usize..60,
        ) {
            let settings = "duplicate_key='id'\nremember=4\nlate='drop'\nmissing='hold_last'\nmax_held=2\nout_of_range='clamp'";
            let mut whole = intake(settings);
            let mut first = intake(settings);
            let mut second = None;
            for (at, (time_ms, value, id, seen)) in samples.into_iter().enumerate() {
                let mut sample = Sample { time_ms: Some(time_ms), id: Some(Id::Number(id)), ..Sample::empty(1) };
                if seen {
                    sample.put(0, value);
                }
                if at == cut {
                    let bytes = serde_json::to_vec(&first.save()).unwrap();
                    let mut next = intake(settings);
                    next.restore(serde_json::from_slice(&bytes).unwrap());
                    second = Some(next);
                }
                let expected = whole.admit(sample.clone(), time_ms);
                let found = second.as_mut().unwrap_or(&mut first).admit(sample, time_ms);
                prop_assert_eq!(format!("{expected:?}"), format!("{found:?}"));
            }
        }

        #[test]
        fn any_value_at_any_time_is_decided_without_panic(
            samples in proptest::collection::vec((any::<Option<i64>>(), any::<f64>(), any::<i64>()), 0..40)
        ) {
            let mut intake = intake("non_finite='hold_last'\nout_of_range='clamp'\nduplicate_key='time'");
            for (time_ms, value, arrival_ms) in samples {
                let admission = intake.admit(Sample { time_ms, ..sample(0, value) }, arrival_ms);
                if let Some(reading) = admission.reading() {
                    prop_assert!((0.0..=100.0).contains(&reading.values[0]));
                }
                let _ = intake.overdue_ms(arrival_ms);
            }
        }
    }
}
