//! The report as a table, for people.

use std::fmt;

use super::{Outcome, QUICK, Report, millis};
use crate::engine::bench::{Difference, Golden};

impl Report {
    /// Cells of a table, the head first.
    fn lines(&self) -> Vec<[String; 11]> {
        let head = [
            "ENGINE",
            "BATCH",
            "P10 µs",
            "P50 µs",
            "P99 µs",
            "CPU µs/row",
            "ROWS/s",
            "LOAD ms",
            "MiB",
            "GOLDEN",
            "DIFFERENCE",
        ];
        let mut lines = vec![head.map(str::to_owned)];
        for candidate in &self.candidates {
            let Some(trial) = candidate.trial() else { continue };
            let golden = match trial.golden() {
                Golden::Absent => "none".to_owned(),
                Golden::Right { samples, .. } => format!("{samples} right"),
                Golden::Wrong(_) => "WRONG".to_owned(),
            };
            let difference = match &candidate.difference {
                None => "-".to_owned(),
                Some(Ok(Difference::By(by, _))) => short(*by),
                Some(_) => "see below".to_owned(),
            };
            let memory = trial.grown_bytes().map_or_else(|| "?".to_owned(), |bytes| format!("{:.1}", mebibytes(bytes)));
            let whole = [millis(trial.load_time()).to_string(), memory, golden, difference];
            for (number, series) in trial.series().filter(|series| series.runs() > 0).enumerate() {
                let [load, memory, golden, difference] = if number == 0 { whole.clone() } else { Default::default() };
                lines.push([
                    if number == 0 { candidate.title() } else { String::new() },
                    series.rows().to_string(),
                    micros(series.within(QUICK).as_secs_f64()),
                    micros(series.within(0.5).as_secs_f64()),
                    micros(series.within(0.99).as_secs_f64()),
                    series.cpu_us_per_row().map_or_else(|| "?".to_owned(), |us| micros(us / 1e6)),
                    format!("{:.0}", series.rows_per_second()),
                    load,
                    memory,
                    golden,
                    difference,
                ]);
            }
        }
        lines
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shapes = self.shapes.iter().map(|(name, shape)| format!("{name} {shape:?}"));
        let shapes = shapes.collect::<Vec<_>>().join(", ");
        writeln!(f, "{} ({}, {} bytes), one thread", self.title, self.format, self.size_bytes)?;
        writeln!(f, "inputs: {}; a row: {shapes}\n", self.origin)?;
        let lines = self.lines();
        if lines.len() > 1 {
            let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
            let widths: Vec<_> = (0..lines[0].len()).map(width).collect();
            for line in &lines {
                let cell = |(column, (cell, &width)): (usize, (&String, &usize))| match column {
                    0 => format!("{cell:<width$}"),
                    _ => format!("{cell:>width$}"),
                };
                let cells: Vec<_> = line.iter().zip(&widths).enumerate().map(cell).collect();
                writeln!(f, "{}", cells.join("  ").trim_end())?;
            }
            writeln!(f)?;
        }
        for candidate in &self.candidates {
            match (&candidate.outcome, &candidate.fit) {
                (Outcome::Refused(reason), _) => writeln!(f, "{} does not compute it: {reason}", candidate.title())?,
                (_, Err(reason)) => writeln!(f, "{} would not be asked by itself: {reason}", candidate.title())?,
                _ => {}
            }
        }
        for remark in self.remarks() {
            writeln!(f, "{remark}")?;
        }
        match self.advice() {
            Some(advice) => write!(f, "{}", advice.text),
            None => write!(f, "No engine here computes {} right.", self.title),
        }
    }
}

/// Microseconds with three figures or whole.
pub(super) fn micros(seconds: f64) -> String {
    let micros = seconds * 1e6;
    if micros < 10.0 {
        format!("{micros:.2}")
    } else if micros < 100.0 {
        format!("{micros:.1}")
    } else {
        format!("{micros:.0}")
    }
}

#[allow(clippy::cast_precision_loss, reason = "memory of a process")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / (1 << 20) as f64
}

/// Two figures.
fn short(number: f64) -> String {
    if number == 0.0 { "0".to_owned() } else { format!("{number:.1e}") }
}
