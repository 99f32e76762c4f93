//! Times of runs of one size of batch.

use std::time::Duration;

use super::RUNS_MAX;

/// What was measured of one size of batch.
#[derive(Debug, Clone, Default)]
pub struct Series {
    rows: usize,
    times: Vec<Duration>,
    cpu: Option<Duration>,
}

impl Series {
    pub(super) fn of(rows: usize) -> Self {
        Self { rows, times: Vec::new(), cpu: None }
    }

    pub(super) fn took(&mut self, time: Duration) {
        self.times.push(time);
    }

    /// CPU time of runs that were added; None once it is not known of some.
    pub(super) fn used(&mut self, cpu: Option<Duration>, is_first: bool) {
        self.cpu = if is_first { cpu } else { self.cpu.zip(cpu).map(|(so_far, more)| so_far + more) };
    }

    pub(super) fn is_full(&self) -> bool {
        self.times.len() >= RUNS_MAX
    }

    /// Rows of each run.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many runs there were.
    pub fn runs(&self) -> usize {
        self.times.len()
    }

    /// Time of all runs together.
    pub fn total(&self) -> Duration {
        self.times.iter().sum()
    }

    /// The time within which this share of the runs ended, 0 to 1. Zero without a run.
    pub fn within(&self, share: f64) -> Duration {
        let mut times = self.times.clone();
        times.sort_unstable();
        #[allow(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rank"
        )]
        let rank = (times.len() as f64 * share).ceil() as usize;
        times.get(rank.max(1) - 1).or(times.last()).copied().unwrap_or_default()
    }

    /// Rows a second while it computed. Zero without a run.
    #[allow(clippy::cast_precision_loss, reason = "counts")]
    pub fn rows_per_second(&self) -> f64 {
        let seconds = self.total().as_secs_f64();
        if seconds > 0.0 { (self.rows * self.times.len()) as f64 / seconds } else { 0.0 }
    }

    /// CPU time of a row in microseconds, that of a delegate's host included. None where the system does not say.
    #[allow(clippy::cast_precision_loss, reason = "counts")]
    pub fn cpu_us_per_row(&self) -> Option<f64> {
        let rows = (self.rows * self.times.len()) as f64;
        self.cpu.filter(|_| rows > 0.0).map(|cpu| cpu.as_secs_f64() * 1e6 / rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_runs_in_order_of_their_time() {
        let mut series = Series::of(8);
        assert_eq!(
            (series.within(0.5), series.rows_per_second(), series.cpu_us_per_row()),
            (Duration::ZERO, 0.0, None)
        );
        for millis in (1..=100).rev() {
            series.took(Duration::from_millis(millis));
        }
        series.used(Some(Duration::from_millis(400)), true);
        let within = |share| series.within(share).as_millis();
        assert_eq!((within(0.0), within(0.5), within(0.99), within(1.0)), (1, 50, 99, 100));
        assert!((series.rows_per_second() - 800.0 / 5.05).abs() < 1e-9);
        assert_eq!(series.cpu_us_per_row(), Some(500.0));
    }

    #[test]
    fn cpu_time_that_is_not_known_of_all_runs_is_not_known() {
        let mut series = Series::of(1);
        series.took(Duration::from_millis(1));
        series.used(Some(Duration::from_millis(1)), true);
        series.used(None, false);
        assert_eq!(series.cpu_us_per_row(), None);
    }
}
