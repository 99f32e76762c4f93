//! What preparing and finishing one request may use: bounds, time, and whether anybody still waits.

use serde::Serialize;

use super::config::Limits;
use super::error::Error;
use crate::base::Clock;

/// How long a step took, over all instances of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lap {
    /// `image: resize`.
    pub step: String,
    /// Microseconds.
    pub us: u64,
}

/// The work for one request.
pub struct Work<'a> {
    limits: &'a Limits,
    clock: &'a dyn Clock,
    is_over: &'a dyn Fn() -> bool,
    laps: Vec<Lap>,
    /// Bytes of tensors so far.
    held: usize,
}

impl<'a> Work<'a> {
    /// `is_over` says whether the caller has gone or its time is over; it is asked before every step.
    pub fn new(limits: &'a Limits, clock: &'a dyn Clock, is_over: &'a dyn Fn() -> bool) -> Self {
        Self { limits, clock, is_over, laps: Vec::new(), held: 0 }
    }

    /// How long each step took, in the order in which they came first.
    pub fn into_laps(self) -> Vec<Lap> {
        self.laps
    }

    /// Counts the bytes of a tensor that is made next, or was just made.
    pub(super) fn hold(&mut self, at: &str, bytes: usize) -> Result<(), Error> {
        self.held = self.held.saturating_add(bytes);
        let most = self.limits.tensor_bytes_max;
        if self.held <= most {
            return Ok(());
        }
        Err(Error::TooLarge {
            what: format!("the request up to {at}"),
            given: format!("tensors of {} bytes", self.held),
            most: format!("{most} (predict.tensor_bytes_max)"),
        })
    }

    pub(super) fn limits(&self) -> &'a Limits {
        self.limits
    }

    /// Runs a step of the source at `at`, such as `image 3`; instances of a source are summed up.
    pub(super) fn lap<T>(
        &mut self,
        at: &str,
        step: &str,
        code: impl FnOnce(&Limits) -> Result<T, Error>,
    ) -> Result<T, Error> {
        if (self.is_over)() {
            return Err(Error::Abandoned);
        }
        let source = at.split(' ').next().unwrap_or(at);
        let started = self.clock.since_boot();
        let made = code(self.limits)?;
        let us = u64::try_from(self.clock.since_boot().saturating_sub(started).as_micros()).unwrap_or(u64::MAX);
        let known =
            |lap: &&mut Lap| lap.step.strip_prefix(source).and_then(|rest| rest.strip_prefix(": ")) == Some(step);
        match self.laps.iter_mut().find(known) {
            Some(lap) => lap.us += us,
            None => self.laps.push(Lap { step: format!("{source}: {step}"), us }),
        }
        Ok(made)
    }
}
