//! The newest readings, each column one slice: every value is written twice, so any run is contiguous.

use super::sample::{Notes, Reading};

/// A bounded memory of readings, oldest out first. Allocates once.
#[derive(Debug, Clone)]
pub(super) struct Ring {
    capacity: usize,
    len: usize,
    /// Where the next reading goes, below `capacity`.
    head: usize,
    columns: Vec<Vec<f64>>,
    times: Vec<i64>,
    notes: Vec<Notes>,
    missing: Vec<u64>,
}

impl Ring {
    pub(super) fn new(fields: usize, capacity: usize) -> Self {
        Self {
            capacity,
            len: 0,
            head: 0,
            columns: vec![vec![0.0; 2 * capacity]; fields],
            times: vec![0; 2 * capacity],
            notes: vec![Notes::NONE; 2 * capacity],
            missing: vec![0; 2 * capacity],
        }
    }

    pub(super) fn push(&mut self, time_ms: i64, reading: &Reading) {
        for at in [self.head, self.head + self.capacity] {
            for (column, &value) in self.columns.iter_mut().zip(&reading.values) {
                column[at] = value;
            }
            self.times[at] = time_ms;
            self.notes[at] = reading.notes;
            self.missing[at] = reading.gap.map_or(0, |gap| gap.missing);
        }
        self.head = (self.head + 1) % self.capacity;
        self.len = (self.len + 1).min(self.capacity);
    }

    pub(super) fn clear(&mut self) {
        self.len = 0;
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    pub(super) fn fields(&self) -> usize {
        self.columns.len()
    }

    /// `length` readings, the newest `skip` left out, as a range of the columns.
    pub(super) fn range(&self, skip: usize, length: usize) -> std::ops::Range<usize> {
        debug_assert!(skip + length <= self.len);
        let end = self.head + self.capacity - skip;
        end - length..end
    }

    /// All readings.
    pub(super) fn all(&self) -> std::ops::Range<usize> {
        self.range(0, self.len)
    }

    pub(super) fn column(&self, field: usize) -> &[f64] {
        &self.columns[field]
    }

    pub(super) fn times(&self) -> &[i64] {
        &self.times
    }

    pub(super) fn notes(&self) -> &[Notes] {
        &self.notes
    }

    pub(super) fn missing(&self) -> &[u64] {
        &self.missing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::sample::Values;

    #[test]
    fn every_run_of_the_newest_readings_is_one_slice() {
        let mut ring = Ring::new(1, 3);
        for value in 0..8 {
            let values = Values::from_slice(&[f64::from(value)]);
            let reading = Reading { time_ms: 0, arrival_ms: 0, values, notes: Notes::NONE, gap: None };
            ring.push(i64::from(value), &reading);
            for length in 0..=ring.len() {
                for skip in 0..=ring.len() - length {
                    let range = ring.range(skip, length);
                    let newest = f64::from(value) - skip as f64;
                    let expected: Vec<f64> = (0..length).rev().map(|back| newest - back as f64).collect();
                    assert_eq!(&ring.column(0)[range], expected);
                }
            }
        }
        assert_eq!(ring.len(), ring.capacity());
    }
}
