//! What a row for the cloud says: one CBOR map a row, short keys, absent where there is nothing to say.
//!
//! The shapes are part of the wire format: `docs/batch.cddl` describes them for whoever reads them elsewhere.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The newest shape of a summary.
pub const SUMMARY_VERSION: u8 = 1;

/// Class `verdict`: one reading and what was made of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerdictRecord {
    /// The reading's number in its stream; 0 in rows of gateways that did not say it.
    #[serde(rename = "q", default)]
    pub number: u64,
    /// The source's own identity of the reading.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub id: Option<String>,
    /// Source time, ms since 1970, UTC.
    #[serde(rename = "t")]
    pub time_ms: i64,
    /// Values in field order; null where it was not a number.
    #[serde(rename = "v")]
    pub values: Vec<Option<f64>>,
    /// Score.
    #[serde(rename = "s", skip_serializing_if = "Option::is_none", default)]
    pub score: Option<f64>,
    /// `normal`, `pending`, `alarm`, `clearing` or `unscored`.
    #[serde(rename = "st")]
    pub state: String,
    /// What was noticed about the reading (`late`, `clamped`, ...).
    #[serde(rename = "n", skip_serializing_if = "Vec::is_empty", default)]
    pub notes: Vec<String>,
}

/// Class `summary`: a window of readings in a few numbers and sketches.
///
/// Windows of `closed` 0 to 2 follow each other without a gap: together they stand for every reading of the stream,
/// once. Numbers between `first` and `last` that no reading had (they were left out by a failed commit or a kill) are
/// not counted in `count`. Those of `closed` 3 say again, in short, what rows of another class held.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SummaryRecord {
    /// [`SUMMARY_VERSION`].
    #[serde(rename = "v")]
    pub version: u8,
    /// First reading's number.
    #[serde(rename = "f")]
    pub first: u64,
    /// Last reading's number.
    #[serde(rename = "l")]
    pub last: u64,
    /// Earliest source time, ms since 1970, UTC.
    #[serde(rename = "t")]
    pub start_ms: i64,
    /// Latest source time, ms since 1970, UTC.
    #[serde(rename = "u")]
    pub end_ms: i64,
    /// Readings.
    #[serde(rename = "n")]
    pub count: u64,
    /// Why it ends here.
    #[serde(rename = "c", skip_serializing_if = "is_default", default)]
    pub closed: Closed,
    /// What did not go as it should.
    #[serde(rename = "q", skip_serializing_if = "is_default", default)]
    pub quality: Quality,
    /// The stream's fields in order.
    #[serde(rename = "d")]
    pub fields: Vec<FieldRecord>,
    /// Readings whose verdict was normal, pending, alarm, clearing, unscored.
    #[serde(rename = "s")]
    pub states: [u64; 5],
    /// The model's word, where one scored.
    #[serde(rename = "m", skip_serializing_if = "Option::is_none", default)]
    pub model: Option<ScoreRecord>,
}

/// Why a summary ends where it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum Closed {
    /// It has as many readings as it may.
    #[default]
    Full,
    /// It is as old as it may become.
    Age,
    /// Somebody asked for it.
    Asked,
    /// It stands for rows of another class that had to make room. Its readings are in other summaries, too.
    InPlaceOfRows,
}

impl From<Closed> for u8 {
    fn from(closed: Closed) -> Self {
        closed as Self
    }
}

impl TryFrom<u8> for Closed {
    type Error = &'static str;

    fn try_from(number: u8) -> Result<Self, Self::Error> {
        let all = [Self::Full, Self::Age, Self::Asked, Self::InPlaceOfRows];
        all.get(usize::from(number)).copied().ok_or("a summary is closed for a reason of 0 to 3")
    }
}

/// What did not go as it should in a window: an array of five counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(into = "[u64; 5]", from = "[u64; 5]")]
pub struct Quality {
    /// Samples that did not come, by the expected rate.
    pub missing: u64,
    /// Samples behind the newest time, used or not.
    pub late: u64,
    /// Samples that repeat one, used or not.
    pub duplicates: u64,
    /// Samples that were not used, repeats apart. They were counted with the next reading.
    pub dropped: u64,
    /// Readings whose values are clamped, held, out of range or not finite.
    pub flagged: u64,
}

impl From<Quality> for [u64; 5] {
    fn from(quality: Quality) -> Self {
        [quality.missing, quality.late, quality.duplicates, quality.dropped, quality.flagged]
    }
}

impl From<[u64; 5]> for Quality {
    fn from([missing, late, duplicates, dropped, flagged]: [u64; 5]) -> Self {
        Self { missing, late, duplicates, dropped, flagged }
    }
}

/// One field of a summary: an array `[count, min, max, mean, std, kll, hll, trained]`. Smallest and largest are exact,
/// mean and standard deviation are 32-bit floats (6e-8 of the value).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "FieldTuple", from = "FieldTuple")]
pub struct FieldRecord {
    /// Finite values.
    pub count: u64,
    /// Smallest.
    pub min: Option<f64>,
    /// Largest.
    pub max: Option<f64>,
    /// Mean.
    pub mean: Option<f64>,
    /// Population standard deviation.
    pub std: Option<f64>,
    /// KLL sketch of 32-bit floats as Apache DataSketches writes it.
    pub quantiles: Option<Vec<u8>>,
    /// HyperLogLog sketch as Apache DataSketches writes it.
    pub distinct: Option<Vec<u8>>,
    /// What the model was trained on, and how many readings lie outside.
    pub trained: Option<TrainedRange>,
}

/// The range that a model has seen in training.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(into = "(f64, f64, u64)", from = "(f64, f64, u64)")]
pub struct TrainedRange {
    /// Smallest value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// Readings of this window that lie outside.
    pub outside: u64,
}

impl From<TrainedRange> for (f64, f64, u64) {
    fn from(range: TrainedRange) -> Self {
        (range.min, range.max, range.outside)
    }
}

impl From<(f64, f64, u64)> for TrainedRange {
    fn from((min, max, outside): (f64, f64, u64)) -> Self {
        Self { min, max, outside }
    }
}

type FieldTuple = (
    u64,
    Option<f64>,
    Option<f64>,
    Option<f64>,
    Option<f64>,
    Option<ByteString>,
    Option<ByteString>,
    Option<TrainedRange>,
);

impl From<FieldRecord> for FieldTuple {
    fn from(field: FieldRecord) -> Self {
        let bytes = |bytes: Option<Vec<u8>>| bytes.map(ByteString);
        let (quantiles, distinct) = (bytes(field.quantiles), bytes(field.distinct));
        (field.count, field.min, field.max, field.mean, field.std, quantiles, distinct, field.trained)
    }
}

impl From<FieldTuple> for FieldRecord {
    fn from((count, min, max, mean, std, quantiles, distinct, trained): FieldTuple) -> Self {
        let bytes = |bytes: Option<ByteString>| bytes.map(|bytes| bytes.0);
        Self { count, min, max, mean, std, quantiles: bytes(quantiles), distinct: bytes(distinct), trained }
    }
}

/// What a model said of a window's readings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoreRecord {
    /// `name/version`.
    #[serde(rename = "m")]
    pub name: String,
    /// SHA-256 of its file; empty where it was not known.
    #[serde(rename = "h", with = "byte_string")]
    pub digest: Vec<u8>,
    /// Readings that it scored.
    #[serde(rename = "n")]
    pub count: u64,
    /// Highest score.
    #[serde(rename = "p", skip_serializing_if = "Option::is_none", default)]
    pub peak: Option<f64>,
    /// KLL sketch of the scores.
    #[serde(rename = "k", with = "byte_string", skip_serializing_if = "Vec::is_empty", default)]
    pub quantiles: Vec<u8>,
}

/// Class `raw`: readings as they came, because somebody asked for them. A request fills one or several rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RawRecord {
    /// What was asked for, in its maker's words.
    #[serde(rename = "r")]
    pub request: String,
    /// The alarm that it is about.
    #[serde(rename = "a", skip_serializing_if = "Option::is_none", default)]
    pub alarm: Option<i64>,
    /// This row's place among the request's, from 1.
    #[serde(rename = "p")]
    pub part: u32,
    /// True in the request's last row.
    #[serde(rename = "e", skip_serializing_if = "is_default", default)]
    pub is_last: bool,
    /// True if the box no longer had, or did not have yet, everything that was asked for.
    #[serde(rename = "x", skip_serializing_if = "is_default", default)]
    pub truncated: bool,
    /// In the order of their numbers.
    #[serde(rename = "d")]
    pub readings: Vec<RawReading>,
}

/// One reading of a [`RawRecord`]: an array `[number, time-ms, values, score, state]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "RawTuple", from = "RawTuple")]
pub struct RawReading {
    /// Its number in its stream.
    pub number: u64,
    /// Source time, ms since 1970, UTC.
    pub time_ms: i64,
    /// Values in field order; null where it was not a number.
    pub values: Vec<Option<f64>>,
    /// Score.
    pub score: Option<f64>,
    /// Verdict: 0 normal, 1 pending, 2 alarm, 3 clearing, 4 unscored.
    pub state: u8,
}

type RawTuple = (u64, i64, Vec<Option<f64>>, Option<f64>, u8);

impl From<RawReading> for RawTuple {
    fn from(reading: RawReading) -> Self {
        (reading.number, reading.time_ms, reading.values, reading.score, reading.state)
    }
}

impl From<RawTuple> for RawReading {
    fn from((number, time_ms, values, score, state): RawTuple) -> Self {
        Self { number, time_ms, values, score, state }
    }
}

/// Class `alarm`: something that a person should know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlarmRecord {
    /// The alarm's number on its box; the raise and the clear share it.
    pub alarm: i64,
    /// `raised`, `escalated` or `cleared`.
    pub kind: String,
    /// `info`, `warning` or `critical`.
    pub severity: String,
    /// Source time, ms since 1970, UTC.
    pub time_ms: i64,
    /// The reading that did it.
    pub seq: u64,
    /// Its score, or its value for rules on the value.
    pub score: Option<f64>,
    /// Its values in field order.
    pub values: Vec<Option<f64>>,
    /// True inside a quiet period: recorded, not announced.
    pub suppressed: bool,
    /// Model that scored, `name/version`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub model: Option<String>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Bytes as a byte string: serde by itself makes an array of numbers of them.
struct ByteString(Vec<u8>);

impl Serialize for ByteString {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for ByteString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        byte_string::deserialize(deserializer).map(Self)
    }
}

mod byte_string {
    use std::fmt;

    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    #[allow(clippy::ptr_arg, reason = "serde passes the field")]
    pub(super) fn serialize<S: Serializer>(bytes: &Vec<u8>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a byte string")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }

            fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

/// Reads a summary, also of the shape before [`SUMMARY_VERSION`], whose version is 0 here and which has no sketches.
pub fn decode_summary(bytes: &[u8]) -> Result<SummaryRecord, RecordError> {
    /// As gateways of version 0.1 wrote it.
    #[derive(Deserialize)]
    struct First {
        first: u64,
        last: u64,
        start_ms: i64,
        end_ms: i64,
        count: u64,
        fields: Vec<[f64; 4]>,
        #[serde(default)]
        peak: Option<f64>,
        #[serde(default)]
        model: Option<String>,
    }
    let error = match decode("summary", bytes) {
        Ok(summary) => return Ok(summary),
        Err(error) => error,
    };
    let Ok(old) = decode::<First>("summary", bytes) else { return Err(error) };
    let number = |number: f64| number.is_finite().then_some(number);
    let field = |[min, max, mean, std]: [f64; 4]| FieldRecord {
        count: old.count,
        min: number(min),
        max: number(max),
        mean: number(mean),
        std: number(std),
        quantiles: None,
        distinct: None,
        trained: None,
    };
    let score = |name| ScoreRecord { name, digest: Vec::new(), count: 0, peak: old.peak, quantiles: Vec::new() };
    Ok(SummaryRecord {
        version: 0,
        first: old.first,
        last: old.last,
        start_ms: old.start_ms,
        end_ms: old.end_ms,
        count: old.count,
        closed: Closed::Full,
        quality: Quality::default(),
        fields: old.fields.into_iter().map(field).collect(),
        states: [0; 5],
        model: old.model.map(score),
    })
}

/// Why a row's body cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("failed to read a {what} record")]
pub struct RecordError {
    what: &'static str,
    source: ciborium::de::Error<std::io::Error>,
}

/// A record as bytes.
pub fn encode(record: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(96);
    ciborium::into_writer(record, &mut bytes).expect("a vector takes every byte and the records serialise");
    bytes
}

/// Reads what [`encode`] wrote.
pub fn decode<T: for<'de> Deserialize<'de>>(what: &'static str, bytes: &[u8]) -> Result<T, RecordError> {
    ciborium::from_reader(bytes).map_err(|source| RecordError { what, source })
}

/// NaN and infinities have no place in JSON and say nothing in a row.
pub fn finite(values: &[f64]) -> Vec<Option<f64>> {
    values.iter().map(|value| value.is_finite().then_some(*value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_reads_back_and_costs_little() {
        let record = VerdictRecord {
            number: 70_000,
            id: Some("17".to_owned()),
            time_ms: 1_386_018_900_000,
            values: finite(&[73.967_322_07]),
            score: Some(0.51),
            state: "normal".to_owned(),
            notes: Vec::new(),
        };
        let bytes = encode(&record);
        assert_eq!(decode::<VerdictRecord>("verdict", &bytes).unwrap(), record);
        assert!(bytes.len() <= 66, "{} bytes", bytes.len());
        assert!(decode::<VerdictRecord>("verdict", &bytes[..10]).is_err());
    }
}
