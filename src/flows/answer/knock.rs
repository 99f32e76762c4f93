//! Requests that come no further than the door: without a key that opens, without a place, without a body that can be read.

use std::sync::PoisonError;
use std::time::Duration;

use super::ask::word;
use super::call::LEFT;
use super::story::Answer;
use crate::access::Principal;
use crate::dialect::{Dialect, Failure, Operation};
use crate::ledger::{Record, Usage};

/// Records of requests without a known key that may come at once. After them there is one a minute, so that somebody who knocks a
/// thousand times a second takes the room of 1,440 records a day and pushes nobody else's out.
const STRANGERS_MAX: u32 = 100;
const STRANGERS_EVERY: Duration = Duration::from_secs(60);

/// What is known of a request at the door.
#[derive(Debug, Clone, Copy)]
pub struct Knocking<'a> {
    /// The dialect of the path that it came to.
    pub dialect: Dialect,
    /// What that path is for.
    pub operation: Operation,
    /// The model, where the path has it.
    pub model: Option<&'a str>,
    /// The request's id.
    pub id: &'a str,
    /// When it came, since boot.
    pub arrived: Duration,
}

/// A request at the door. Dropped before it has [`entered`](Self::entered) or was turned away, it is recorded as one whose caller
/// left.
pub struct Knock<'a> {
    story: &'a Answer,
    request: Knocking<'a>,
    who: Option<Principal>,
    is_over: bool,
}

impl Answer {
    /// A request has come to the door.
    pub fn knock<'a>(&'a self, request: Knocking<'a>) -> Knock<'a> {
        Knock { story: self, request, who: None, is_over: false }
    }
}

impl Knock<'_> {
    /// It is known whose it is.
    pub fn is_from(&mut self, who: &Principal) {
        self.who = Some(who.clone());
    }

    /// It comes no further.
    pub fn turned_away(mut self, failure: &Failure) {
        self.end(failure.kind.status(self.request.dialect), word(failure.kind));
    }

    /// The story goes on with it, and records it.
    pub fn entered(mut self) {
        self.is_over = true;
    }

    fn end(&mut self, status: u16, error: &str) {
        self.is_over = true;
        let (story, Knocking { dialect, operation, model, id, arrived }) = (self.story, self.request);
        let now = story.now();
        let time_ms = story.parts.clock.wall_ms();
        let total = now.saturating_sub(arrived);
        let total_us = u64::try_from(total.as_micros()).unwrap_or(u64::MAX);
        let who = self.who.as_ref();
        let record = Record {
            time_ms,
            day: story.parts.quota.day_of(time_ms),
            id,
            tenant: who.map_or("", Principal::tenant),
            key: who.map_or("", Principal::name),
            team: who.and_then(Principal::team).unwrap_or(""),
            user: who.and_then(Principal::user).unwrap_or(""),
            dialect: dialect.name(),
            operation: operation.name(),
            model_asked: model.unwrap_or(""),
            link: story.link().as_str(),
            cache: "off",
            error,
            // Nobody was asked.
            usage: Usage { input_tokens: Some(0), output_tokens: Some(0), ..Usage::default() },
            cost_pico: Some(0),
            status,
            total_us,
            ..Record::default()
        };
        let mut strangers = story.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        if who.is_some() || strangers.may_be_recorded(now) {
            story.parts.ledger.record(&record);
        } else {
            story.parts.ledger.count(&record);
        }
    }
}

impl Drop for Knock<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.end(LEFT, "cancelled");
        }
    }
}

/// How many records requests without a known key may have now.
#[derive(Debug)]
pub(super) struct Strangers {
    left: u32,
    since: Duration,
}

impl Strangers {
    pub(super) fn new(now: Duration) -> Self {
        Self { left: STRANGERS_MAX, since: now }
    }

    fn may_be_recorded(&mut self, now: Duration) -> bool {
        while self.left < STRANGERS_MAX && now.saturating_sub(self.since) >= STRANGERS_EVERY {
            self.left += 1;
            self.since += STRANGERS_EVERY;
        }
        if self.left == STRANGERS_MAX {
            self.since = now;
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_strangers_are_recorded_at_once_and_then_one_a_minute() {
        let at = Duration::from_secs;
        let mut strangers = Strangers::new(at(5));
        let recorded = |strangers: &mut Strangers, now| (0..1000).filter(|_| strangers.may_be_recorded(now)).count();
        assert_eq!(recorded(&mut strangers, at(1000)), 100);
        assert_eq!(recorded(&mut strangers, at(1059)), 0);
        assert_eq!(recorded(&mut strangers, at(1060)), 1);
        assert_eq!(recorded(&mut strangers, at(1181)), 2);
        let day: usize = (0..86_400).map(|second| recorded(&mut strangers, at(1181 + second))).sum();
        assert!((1439..=1440).contains(&day), "{day}");
        assert_eq!(recorded(&mut strangers, at(1_000_000)), 100, "a quiet time gives all of them back, and no more");
    }
}
