//! Whether commits reach the disk, as readiness and metrics show it.

use std::sync::Arc;

use tokio::sync::watch;

use super::metrics::Metrics;
use crate::base::Clock;

/// Whether the store can acknowledge anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// The last commit reached the disk.
    Good,
    /// The last commit failed; the file is tried again with every batch and every `probe_ms`. A corrupt file stays
    /// failing whatever its commits say: rows that it takes now may not come out again.
    Failing {
        /// Wall clock of the first failure, milliseconds since 1970.
        since_ms: i64,
        /// What the disk said.
        what: Arc<str>,
        /// Only a new start helps: the file's content is at fault, which sets it aside and begins a new epoch, or a sync
        /// of the database file failed, and only a start copies all of the log again.
        restart_heals: bool,
    },
}

/// The writer's end.
pub(super) struct HealthBoard {
    told: watch::Sender<Health>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
}

impl HealthBoard {
    pub(super) fn new(clock: Arc<dyn Clock>, metrics: Metrics) -> Self {
        Self { told: watch::Sender::new(Health::Good), clock, metrics }
    }

    pub(super) fn watch(&self) -> watch::Receiver<Health> {
        self.told.subscribe()
    }

    pub(super) fn good(&self) {
        let was_failing = self.told.send_if_modified(|health| {
            let heals = matches!(health, Health::Failing { restart_heals: false, .. });
            if heals {
                *health = Health::Good;
            }
            heals
        });
        if was_failing {
            self.metrics.failing.set(0);
            tracing::info!("commits reach the disk again");
        }
    }

    pub(super) fn failing(&self, what: &str, restart_heals: bool) {
        let now_ms = self.clock.wall_ms();
        let mut first = false;
        self.told.send_if_modified(|health| {
            let (since_ms, was_corrupt) = match health {
                Health::Good => {
                    first = true;
                    (now_ms, false)
                }
                Health::Failing { since_ms, restart_heals, .. } => (*since_ms, *restart_heals),
            };
            let now = Health::Failing { since_ms, what: what.into(), restart_heals: restart_heals || was_corrupt };
            let changed = *health != now;
            *health = now;
            changed
        });
        if first {
            self.metrics.failing.set(1);
            tracing::error!(error = what, "commits fail: nothing is acknowledged until one works again");
        }
    }
}
