//! Scores become verdicts: thresholds, hysteresis, hold time, quiet periods. Pure.
//!
//! One [`Rule`] is one alert that can be raised and cleared. Time is an argument (the score's source time), and the same
//! scores always give the same verdicts: write [`RuleState`] with what a verdict caused, restore it after a restart,
//! and the rule goes on where it was.
//!
//! Never here: clocks, models, who is told. Limits: 8 severities above the first, 32 quiet periods.

mod config;
mod metrics;
mod quiet;
mod rule;

pub use config::{Config, Direction, Error, EscalateConfig, Level, Severity};
pub use metrics::Metrics;
pub use quiet::{Days, QuietConfig, TimeOfDay};
pub use rule::{Rule, RuleState, State, Transition, Verdict};
