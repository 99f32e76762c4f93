//! What a row for the cloud says: one CBOR map a row, short keys, absent where there is nothing to say.
//!
//! The shapes are part of the wire format: `docs/batch.cddl` describes them for whoever reads them elsewhere.

use serde::{Deserialize, Serialize};

/// Class `verdict`: one reading and what was made of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerdictRecord {
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

/// Class `summary`: many readings in a few numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SummaryRecord {
    /// First reading's position.
    pub first: u64,
    /// Last reading's position.
    pub last: u64,
    /// First source time, ms since 1970, UTC.
    pub start_ms: i64,
    /// Last source time, ms since 1970, UTC.
    pub end_ms: i64,
    /// Readings.
    pub count: u64,
    /// Per field: smallest, largest, mean, population standard deviation.
    pub fields: Vec<[f64; 4]>,
    /// Highest score.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub peak: Option<f64>,
    /// Model that scored, `name/version`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub model: Option<String>,
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
            id: Some("17".to_owned()),
            time_ms: 1_386_018_900_000,
            values: finite(&[73.967_322_07]),
            score: Some(0.51),
            state: "normal".to_owned(),
            notes: Vec::new(),
        };
        let bytes = encode(&record);
        assert_eq!(decode::<VerdictRecord>("verdict", &bytes).unwrap(), record);
        assert!(bytes.len() <= 60, "{} bytes", bytes.len());
        assert!(decode::<VerdictRecord>("verdict", &bytes[..10]).is_err());
    }
}
