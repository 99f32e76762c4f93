//! The door's own heartbeat: throughput and queue depth once a second, for the page's trend lines and for watchers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::door::Door;
use crate::flows::query::{LinkView, QueueView};

const PERIOD: Duration = Duration::from_secs(1);
/// Trend lines show two minutes.
pub(super) const TREND_SAMPLES: usize = 120;
/// A rate is over this many samples: steady enough to read, quick enough to trust.
const RATE_SAMPLES: usize = 5;

struct Sample {
    at: Duration,
    committed: Vec<u64>,
    queue_rows: u64,
}

/// Link and queue as last seen; absent before the first beat or while the store does not answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Vitals {
    pub(super) link: Option<Arc<LinkView>>,
    pub(super) queue: Option<Arc<QueueView>>,
}

pub(super) struct Pulse {
    samples: Mutex<VecDeque<Sample>>,
    streams: usize,
    vitals: watch::Sender<Vitals>,
}

impl Pulse {
    pub(super) fn new(streams: usize) -> Self {
        Self { samples: Mutex::default(), streams, vitals: watch::Sender::new(Vitals::default()) }
    }

    pub(super) fn vitals(&self) -> watch::Receiver<Vitals> {
        self.vitals.subscribe()
    }

    /// Readings a second of one stream (by its place in the configuration), or of all, over the last seconds.
    pub(super) fn rate(&self, stream: Option<usize>) -> f64 {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let from = samples.len().saturating_sub(RATE_SAMPLES + 1);
        match (samples.get(from), samples.back()) {
            (Some(first), Some(last)) => between(first, last, stream),
            _ => 0.0,
        }
    }

    /// Readings a second, sample by sample, oldest first.
    pub(super) fn rates(&self, stream: Option<usize>) -> Vec<f64> {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.iter().zip(samples.iter().skip(1)).map(|(first, last)| between(first, last, stream)).collect()
    }

    /// Rows waiting for the cloud, sample by sample, oldest first.
    pub(super) fn queue_rows(&self) -> Vec<f64> {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        samples.iter().map(|sample| sample.queue_rows as f64).collect()
    }

    fn remember(&self, sample: Sample) {
        debug_assert_eq!(sample.committed.len(), self.streams);
        let mut samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        if samples.len() > TREND_SAMPLES {
            samples.pop_front();
        }
        samples.push_back(sample);
    }
}

fn between(first: &Sample, last: &Sample, stream: Option<usize>) -> f64 {
    let count = |sample: &Sample| match stream {
        Some(stream) => sample.committed.get(stream).copied().unwrap_or(0),
        None => sample.committed.iter().sum(),
    };
    let seconds = last.at.saturating_sub(first.at).as_secs_f64();
    if seconds > 0.0 { count(last).saturating_sub(count(first)) as f64 / seconds } else { 0.0 }
}

/// Beats until `stop`.
pub(super) async fn run(door: Arc<Door>, stop: CancellationToken) {
    let mut beat = interval(PERIOD);
    beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = beat.tick() => sample(&door).await,
        }
    }
}

async fn sample(door: &Door) {
    let query = &door.parts.query;
    let queue = query.queue().await.ok();
    let committed = query.board().streams().iter().map(|stream| stream.tally().committed).collect();
    let queue_rows = queue.as_ref().map_or(0, |queue| queue.rows);
    door.pulse.remember(Sample { at: door.parts.clock.since_boot(), committed, queue_rows });
    let vitals = Vitals { link: Some(Arc::new(query.link())), queue: queue.map(Arc::new) };
    door.pulse.vitals.send_replace(vitals);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_covers_the_last_seconds_only_and_a_trend_is_bounded() {
        let pulse = Pulse::new(2);
        assert_eq!(pulse.rate(None), 0.0);
        for second in 0..1000_u64 {
            let fast = if second < 900 { second * 50 } else { 45_000 + (second - 900) * 10 };
            let sample = Sample { at: Duration::from_secs(second), committed: vec![fast, second], queue_rows: second };
            pulse.remember(sample);
        }
        assert_eq!(pulse.rate(Some(0)), 10.0);
        assert_eq!(pulse.rate(Some(1)), 1.0);
        assert_eq!(pulse.rate(None), 11.0);
        assert_eq!(pulse.rates(None).len(), TREND_SAMPLES);
        assert_eq!(pulse.queue_rows().last(), Some(&999.0));
    }
}
