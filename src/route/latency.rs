//! How long a candidate takes to begin its answer: a moving average for the choice, and percentiles for hedging.

use std::time::Duration;

/// Peak EWMA, as Finagle's balancer has it (`com.twitter.finagle.loadbalancer.PeakEwma`): a time that is longer than the
/// average becomes the average at once, a shorter one draws it down with weight `1 - exp(-elapsed / memory)`. While nobody
/// asks, the average decays in the same manner, so that one who was slow once is asked again.
#[derive(Debug, Clone)]
pub(super) struct PeakEwma {
    memory: Duration,
    /// Microseconds.
    average: Option<f64>,
    at: Duration,
}

impl PeakEwma {
    pub(super) fn new(memory: Duration) -> Self {
        Self { memory, average: None, at: Duration::ZERO }
    }

    pub(super) fn add(&mut self, took: Duration, now: Duration) {
        #[allow(clippy::cast_precision_loss, reason = "microseconds of a request")]
        let took = took.as_micros() as f64;
        self.average = Some(match self.average {
            Some(average) if took < average => {
                let kept = self.kept(now);
                average * kept + took * (1.0 - kept)
            }
            _ => took,
        });
        self.at = self.at.max(now);
    }

    /// The average; it decays only while `idle`, since a request that is still waiting is no reason to ask again.
    pub(super) fn read(&self, now: Duration, idle: bool) -> Option<Duration> {
        let average = self.average? * if idle { self.kept(now) } else { 1.0 };
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from microseconds, never negative")]
        Some(Duration::from_micros(average as u64))
    }

    fn kept(&self, now: Duration) -> f64 {
        let elapsed = now.saturating_sub(self.at).as_secs_f64();
        (-elapsed / self.memory.as_secs_f64().max(1e-3)).exp()
    }
}

/// Buckets: four an octave, from 128 us to over half an hour.
const BUCKETS: usize = 96;
const FIRST_OCTAVE: u32 = 7;
/// Times after which all counts are halved, so that old ones fade.
const FULL: u32 = 1000;

/// Percentiles of the last thousand times or so, to a fifth.
#[derive(Debug, Clone)]
pub(super) struct Percentiles {
    counts: [u16; BUCKETS],
    total: u32,
}

impl Percentiles {
    pub(super) fn new() -> Self {
        Self { counts: [0; BUCKETS], total: 0 }
    }

    pub(super) fn add(&mut self, took: Duration) {
        self.counts[bucket(took)] += 1;
        self.total += 1;
        if self.total >= FULL {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().map(|count| u32::from(*count)).sum();
        }
    }

    pub(super) fn total(&self) -> u32 {
        self.total
    }

    /// At most `percent` of the times were over this; none without any.
    pub(super) fn percentile(&self, percent: u8) -> Option<Duration> {
        let rank = (u64::from(self.total) * u64::from(percent.min(100))).div_ceil(100).max(1);
        let mut seen = 0_u64;
        let at = self.counts.iter().position(|count| {
            seen += u64::from(*count);
            seen >= rank
        })?;
        Some(upper(at))
    }
}

fn bucket(took: Duration) -> usize {
    let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1 << FIRST_OCTAVE);
    let octave = us.ilog2();
    let quarter = (us >> (octave - 2)) & 3;
    (((octave - FIRST_OCTAVE) * 4) as usize + quarter as usize).min(BUCKETS - 1)
}

/// The first time that is no longer in the bucket.
fn upper(bucket: usize) -> Duration {
    let (octave, quarter) = (FIRST_OCTAVE + (bucket / 4) as u32, (bucket % 4) as u64);
    Duration::from_micros((5 + quarter) << (octave - 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn slower_counts_at_once_and_faster_little_by_little() {
        let mut average = PeakEwma::new(ms(10_000));
        assert_eq!(average.read(ms(0), true), None);
        average.add(ms(100), ms(0));
        average.add(ms(900), ms(10));
        assert_eq!(average.read(ms(10), false), Some(ms(900)));
        average.add(ms(100), ms(1010));
        let read = average.read(ms(1010), false).unwrap();
        assert!(read > ms(800) && read < ms(850), "{read:?}");
    }

    #[test]
    fn one_who_was_slow_is_forgiven_while_nobody_asks_and_not_while_somebody_waits() {
        let mut average = PeakEwma::new(ms(10_000));
        average.add(ms(5000), ms(0));
        assert_eq!(average.read(ms(60_000), false), Some(ms(5000)));
        assert!(average.read(ms(60_000), true).unwrap() < ms(20));
        // A clock that went backwards is no time at all.
        average.add(ms(5000), ms(60_000));
        assert_eq!(average.read(ms(10), true), Some(ms(5000)));
    }

    #[test]
    fn the_oldest_times_fade() {
        let mut percentiles = Percentiles::new();
        (0..2000).for_each(|_| percentiles.add(ms(1000)));
        (0..5000).for_each(|_| percentiles.add(ms(10)));
        assert!(percentiles.percentile(95).unwrap() < ms(15));
        assert!(percentiles.total() <= FULL);
    }

    proptest! {
        /// Within the width of a bucket of what sorting all times says.
        #[test]
        fn a_percentile_is_what_the_sorted_times_say(times in prop::collection::vec(128_u64..2_147_483_648, 1..300), percent in 1_u8..=100) {
            let mut percentiles = Percentiles::new();
            let mut sorted: Vec<_> = times.into_iter().map(Duration::from_micros).collect();
            sorted.iter().for_each(|time| percentiles.add(*time));
            sorted.sort_unstable();
            let exact = sorted[(sorted.len() * usize::from(percent)).div_ceil(100).max(1) - 1];
            let read = percentiles.percentile(percent).unwrap();
            prop_assert!(read >= exact && read <= exact.mul_f64(1.26), "{:?} for {:?}", read, exact);
        }
    }

    #[test]
    fn no_times_have_no_percentile_and_absurd_ones_no_panic() {
        let mut percentiles = Percentiles::new();
        assert_eq!(percentiles.percentile(95), None);
        percentiles.add(Duration::ZERO);
        percentiles.add(Duration::MAX);
        assert!(percentiles.percentile(100).unwrap() > Duration::from_secs(1800));
        assert!(percentiles.percentile(0).unwrap() < ms(1));
    }
}
