//! Scores become verdicts: thresholds, hysteresis, hold time, quiet periods. Pure.
