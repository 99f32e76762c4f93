//! A sample as decoded, a reading as admitted, and the notes that say what happened between.

use std::fmt;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

/// Values in the order of the configured fields; up to four without allocation.
pub type Values = SmallVec<[f64; 4]>;

/// Most fields of a stream: what one word of flags holds.
pub const MAX_FIELDS: usize = 64;
/// Longest text id in bytes.
pub(super) const MAX_ID_BYTES: usize = 64;

/// What the sender calls a sample.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Id {
    /// A counter. Numeric text stays text.
    Number(u64),
    /// At most 64 bytes.
    Text(Box<str>),
}

/// One sample as the payload says it, before any policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Milliseconds since 1970 by the source's clock.
    pub time_ms: Option<i64>,
    /// The sender's id.
    pub id: Option<Id>,
    /// One value a field; NaN where missing.
    pub values: Values,
    /// Bit i is set where field i was absent or null.
    pub missing: u64,
}

impl Sample {
    /// A sample of `fields` fields, none of them seen yet.
    pub fn empty(fields: usize) -> Self {
        debug_assert!(fields <= MAX_FIELDS);
        let missing = if fields >= MAX_FIELDS { u64::MAX } else { (1 << fields) - 1 };
        Self { time_ms: None, id: None, values: SmallVec::from_elem(f64::NAN, fields), missing }
    }

    pub(super) fn put(&mut self, field: usize, value: f64) {
        self.values[field] = value;
        self.missing &= !(1 << field);
    }
}

/// Something that was noticed about a sample. Each is counted; none is silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Note {
    /// A value lies outside the field's `min` and `max`.
    OutOfRange,
    /// That value was moved to the nearest bound.
    Clamped,
    /// A value is NaN or infinite.
    NonFinite,
    /// A field is absent.
    Missing,
    /// The field's last value stands in.
    Held,
    /// The source time steps back.
    Late,
    /// The source time steps back so far that the source's clock must have been set: a new beginning.
    ClockStep,
    /// The id or the time was seen before.
    Duplicate,
    /// Duplicates are told by id and this sample has none.
    NoIdentity,
    /// A time is configured and absent; the arrival time stands in.
    ArrivalTime,
    /// Samples are missing before this one, by the expected rate.
    Gap,
}

impl Note {
    /// All notes, in the order of their bits.
    pub const ALL: [Self; 11] = [
        Self::OutOfRange,
        Self::Clamped,
        Self::NonFinite,
        Self::Missing,
        Self::Held,
        Self::Late,
        Self::ClockStep,
        Self::Duplicate,
        Self::NoIdentity,
        Self::ArrivalTime,
        Self::Gap,
    ];

    /// The word used in metrics, rows and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OutOfRange => "out_of_range",
            Self::Clamped => "clamped",
            Self::NonFinite => "non_finite",
            Self::Missing => "missing",
            Self::Held => "held",
            Self::Late => "late",
            Self::ClockStep => "clock_step",
            Self::Duplicate => "duplicate",
            Self::NoIdentity => "no_identity",
            Self::ArrivalTime => "arrival_time",
            Self::Gap => "gap",
        }
    }
}

/// A set of [`Note`]s in one word.
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Notes(u16);

impl Notes {
    /// No notes.
    pub const NONE: Self = Self(0);

    /// Adds one.
    pub fn insert(&mut self, note: Note) {
        self.0 |= 1 << note as u16;
    }

    /// True if `note` is in the set.
    pub fn contains(self, note: Note) -> bool {
        self.0 & (1 << note as u16) != 0
    }

    /// True if nothing was noticed.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_empty_ref(&self) -> bool {
        self.is_empty()
    }

    /// The notes, in the order of [`Note::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Note> {
        Note::ALL.into_iter().filter(move |&note| self.contains(note))
    }

    /// True if a value is not what the sensor said in range: clamped, held, out of range or not finite.
    pub fn taints_values(self) -> bool {
        [Note::OutOfRange, Note::NonFinite, Note::Held].into_iter().any(|note| self.contains(note))
    }
}

impl fmt::Debug for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// Samples that should have come between two that did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The last sample before, in ms since 1970.
    pub from_ms: i64,
    /// The first sample after.
    pub to_ms: i64,
    /// How many the expected rate puts between them.
    pub missing: u64,
}

/// A sample that passed, with the policies applied to its values. Serialised in a format that holds NaN (CBOR): about
/// 40 bytes with one value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Source time, or the arrival time where the source gives none; ms since 1970.
    #[serde(rename = "t")]
    pub time_ms: i64,
    /// When it reached this machine; ms since 1970.
    #[serde(rename = "a")]
    pub arrival_ms: i64,
    /// One value a field. Not finite only under `non_finite = "keep_flagged"`.
    #[serde(rename = "v", with = "inline")]
    pub values: Values,
    /// What was noticed.
    #[serde(rename = "n", default, skip_serializing_if = "Notes::is_empty_ref")]
    pub notes: Notes,
    /// The gap that ends here.
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<Gap>,
}

/// Values as a plain sequence.
mod inline {
    use serde::{Deserialize, Deserializer, Serializer};

    use super::Values;

    pub(super) fn serialize<S: Serializer>(values: &Values, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Values, D::Error> {
        Vec::deserialize(deserializer).map(Values::from_vec)
    }
}

/// What became of a sample.
#[derive(Debug, Clone, PartialEq)]
pub enum Admission {
    /// It goes on into windows.
    Accepted(Reading),
    /// It goes nowhere.
    Dropped {
        /// Why.
        reason: Note,
        /// Everything noticed, the reason included.
        notes: Notes,
        /// The gap that ends here: the sample came, though it was not used.
        gap: Option<Gap>,
    },
}

impl Admission {
    /// Everything noticed.
    pub fn notes(&self) -> Notes {
        match self {
            Self::Accepted(reading) => reading.notes,
            Self::Dropped { notes, .. } => *notes,
        }
    }

    /// The gap that ends here.
    pub fn gap(&self) -> Option<Gap> {
        match self {
            Self::Accepted(reading) => reading.gap,
            Self::Dropped { gap, .. } => *gap,
        }
    }

    /// The reading, if it passed.
    pub fn reading(self) -> Option<Reading> {
        match self {
            Self::Accepted(reading) => Some(reading),
            Self::Dropped { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_notes_gives_back_what_was_put_in() {
        let mut notes = Notes::NONE;
        assert!(notes.is_empty());
        for note in Note::ALL {
            assert!(!notes.contains(note));
            notes.insert(note);
            assert!(notes.contains(note));
        }
        assert!(notes.iter().eq(Note::ALL));
    }

    #[test]
    fn a_reading_is_the_same_after_cbor_and_small() {
        let values = Values::from_slice(&[21.5, f64::INFINITY]);
        let mut reading = Reading {
            time_ms: 1_700_000_000_000,
            arrival_ms: 1_700_000_000_001,
            values,
            notes: Notes::NONE,
            gap: None,
        };
        let mut bytes = Vec::new();
        ciborium::into_writer(&reading, &mut bytes).unwrap();
        assert!(bytes.len() < 40, "{} bytes", bytes.len());
        assert_eq!(ciborium::from_reader::<Reading, _>(bytes.as_slice()).unwrap(), reading);
        reading.notes.insert(Note::Gap);
        reading.gap = Some(Gap { from_ms: 1, to_ms: 2, missing: 3 });
        bytes.clear();
        ciborium::into_writer(&reading, &mut bytes).unwrap();
        assert_eq!(ciborium::from_reader::<Reading, _>(bytes.as_slice()).unwrap(), reading);
    }

    #[test]
    fn an_empty_sample_misses_every_field() {
        assert_eq!(Sample::empty(3).missing, 0b111);
        assert_eq!(Sample::empty(64).missing, u64::MAX);
        let mut sample = Sample::empty(2);
        sample.put(1, 5.0);
        assert_eq!(sample.missing, 0b01);
    }
}
