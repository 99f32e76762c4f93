//! How long to wait before trying again: doubling, capped, with full jitter.

use std::time::Duration;

use rand::Rng;

/// Exponential backoff with full jitter (each wait is uniform between half the step and the step), so that a
/// fleet that lost the same broker does not return in one instant.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    step: Duration,
}

impl Backoff {
    /// Waits start near `first` and never exceed `most`.
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, step: first }
    }

    /// The next wait; the one after it doubles.
    pub fn next_wait(&mut self, rng: &mut impl Rng) -> Duration {
        let step = self.step.min(self.most);
        self.step = step.saturating_mul(2).min(self.most);
        step.mul_f64(rng.random_range(0.5..=1.0))
    }

    /// Something worked: start over.
    pub fn reset(&mut self) {
        self.step = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn waits_double_up_to_the_cap_and_start_over_after_reset() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(1);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for step in [100, 200, 400, 800, 1000, 1000] {
            let wait = backoff.next_wait(&mut rng).as_millis();
            assert!((step / 2..=step).contains(&wait), "{wait} for a step of {step}");
        }
        backoff.reset();
        assert!(backoff.next_wait(&mut rng) <= Duration::from_millis(100));
    }
}
