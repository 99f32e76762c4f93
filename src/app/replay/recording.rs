//! Recorded readings: CSV lines of `timestamp,value`.

use std::path::PathBuf;

/// Longest recording in lines; more than a year of a reading a second.
const MAX_LINES: usize = 40_000_000;

/// One recorded reading.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// Line number among the readings, from 1: the identity by which a repeat is recognised.
    pub n: u64,
    /// The time as the file writes it, so that the gateway parses what a sensor would send.
    pub time: String,
    /// The value.
    pub value: f64,
}

impl Reading {
    /// What a sensor publishes: `{"n":1,"time":"2013-12-02 21:15:00","value":73.97}`.
    pub fn payload(&self) -> Vec<u8> {
        format!(r#"{{"n":{},"time":"{}","value":{}}}"#, self.n, self.time, self.value).into_bytes()
    }
}

/// Why a recording cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// The file cannot be opened or read.
    #[error("failed to read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line is not `timestamp,value`.
    #[error("failed to read line {line} of {name}: expected `timestamp,value`, found {found:?}")]
    Line {
        /// The file's name.
        name: String,
        /// Line number from 1.
        line: usize,
        /// The start of the line.
        found: String,
    },
    /// There is nothing in it.
    #[error("{0} holds no readings; expected lines of `timestamp,value`")]
    Empty(String),
    /// More lines than a recording may have.
    #[error("{0} holds more than {MAX_LINES} lines")]
    TooLong(String),
}

/// A whole recording in memory.
#[derive(Debug, Clone)]
pub struct Recording {
    /// Readings in file order.
    pub readings: Vec<Reading>,
}

impl Recording {
    /// Reads a file.
    pub fn open(path: &std::path::Path) -> Result<Self, RecordingError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| RecordingError::File { path: path.to_owned(), source })?;
        Self::parse(&path.display().to_string(), &text)
    }

    /// Reads `text`; a first line that is not a reading is taken as the header.
    pub fn parse(name: &str, text: &str) -> Result<Self, RecordingError> {
        let mut readings = Vec::new();
        for (at, line) in text.lines().enumerate() {
            if at >= MAX_LINES {
                return Err(RecordingError::TooLong(name.to_owned()));
            }
            if line.trim().is_empty() {
                continue;
            }
            let n = readings.len() as u64 + 1;
            match parse_line(line, n) {
                Some(reading) => readings.push(reading),
                None if at == 0 => {}
                None => {
                    let found = line.chars().take(60).collect();
                    return Err(RecordingError::Line { name: name.to_owned(), line: at + 1, found });
                }
            }
        }
        if readings.is_empty() { Err(RecordingError::Empty(name.to_owned())) } else { Ok(Self { readings }) }
    }
}

fn parse_line(line: &str, n: u64) -> Option<Reading> {
    let (time, value) = line.split_once(',')?;
    let value = value.trim().parse::<f64>().ok()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || " -:.+TZ".contains(c);
    (value.is_finite() && !time.is_empty() && time.chars().all(plain)).then(|| Reading {
        n,
        time: time.to_owned(),
        value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_skipped_and_readings_are_numbered_from_one() {
        let recording =
            Recording::parse("a.csv", "timestamp,value\n2013-12-02 21:15:00,73.5\n\n2013-12-02 21:20:00,74\n").unwrap();
        assert_eq!(recording.readings.len(), 2);
        let payload = String::from_utf8(recording.readings[1].payload()).unwrap();
        assert_eq!(payload, r#"{"n":2,"time":"2013-12-02 21:20:00","value":74}"#);
    }

    #[test]
    fn a_broken_line_is_named() {
        let error = Recording::parse("a.csv", "timestamp,value\n2013,1\nnonsense\n").unwrap_err();
        assert_eq!(error.to_string(), "failed to read line 3 of a.csv: expected `timestamp,value`, found \"nonsense\"");
        assert!(matches!(Recording::parse("a.csv", "timestamp,value\n"), Err(RecordingError::Empty(_))));
        assert!(Recording::parse("a.csv", "h\n\"2013,1\n").is_err(), "a quote would break the payload");
    }
}
